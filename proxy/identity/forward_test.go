package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/proxy/admission"
	"firstbell/proxy/field"
	"firstbell/proxy/origin"
)

// loginService answers questions about sessions; its sessions are "sN" for the
// student N.
type loginService struct {
	mu    sync.Mutex // guards what follows
	down  bool
	slow  time.Duration
	gone  map[string]bool // sessions that ended
	asked []*origin.Request
}

func (s *loginService) set(down bool, gone ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.gone = down, map[string]bool{}
	for _, g := range gone {
		s.gone[g] = true
	}
}

func (s *loginService) questions() []*origin.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*origin.Request(nil), s.asked...)
}

func (s *loginService) Do(ctx context.Context, r *origin.Request) (*origin.Response, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r)
	slow, down := s.slow, s.down
	s.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if down {
		return nil, errors.New("connection refused")
	}
	cookie := r.Fields.Get("Cookie")
	session, _, _ := strings.Cut(strings.TrimPrefix(cookie, "session="), ";")
	answer := func(status int, fields ...field.Field) (*origin.Response, error) {
		return &origin.Response{Status: status, Fields: fields, Body: io.NopCloser(strings.NewReader("hello"))}, nil
	}
	s.mu.Lock()
	gone := s.gone[session]
	s.mu.Unlock()
	switch {
	case gone || session == "stranger":
		return answer(401, field.Field{Name: "WWW-Authenticate", Value: "Moodle"})
	case session == "banned":
		return answer(403)
	case session == "guest":
		return answer(302, field.Field{Name: "Location", Value: "/login"})
	case session == "broken":
		return answer(500)
	case session == "nameless":
		return answer(200)
	case session == "two":
		return answer(200, field.Field{Name: "X-Student", Value: "1"}, field.Field{Name: "X-Student", Value: "2"}, field.Field{Name: "X-School", Value: "h"})
	case session == "control":
		return answer(200, field.Field{Name: "X-Student", Value: "a\x01b"}, field.Field{Name: "X-School", Value: "h"})
	}
	return answer(204, field.Field{Name: "X-Student", Value: strings.TrimPrefix(session, "s")}, field.Field{Name: "X-School", Value: "hangang"}, field.Field{Name: "X-Class", Value: "3-2"})
}

func newForward(t testing.TB, s Asker, change func(*ForwardAuthConfig)) *ForwardAuth {
	t.Helper()
	c := ForwardAuthConfig{Asker: s, Limit: admission.New(1000, 1000, time.Second), Target: "/auth/me", Pass: []string{"cookie:session", "header:X-Device"},
		Student: "X-Student", School: "X-School", Class: "X-Class", TTL: DefaultTTL, NegativeTTL: DefaultNegativeTTL, StaleIfError: DefaultStaleIfError}
	if change != nil {
		change(&c)
	}
	v, err := NewForwardAuth(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func session(id string) *Request { return cookies("theme=dark; session=" + id + "; ad=7") }

func TestTheLoginServiceIsAskedOncePerSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &loginService{slow: 100 * time.Millisecond}
		v := newForward(t, s, nil)
		var all sync.WaitGroup
		for n := range 200 {
			all.Go(func() {
				p, err := v.Verify(t.Context(), session(fmt.Sprintf("s%d", n%4)))
				if err != nil || p.Student != fmt.Sprint(n%4) || p.School != "hangang" || p.Claim("class") != "3-2" {
					t.Errorf("session s%d: got %+v, %v", n%4, p, err)
				}
			})
		}
		all.Wait()
		questions := s.questions()
		if len(questions) != 4 {
			t.Errorf("200 requests of 4 sessions at once: got %d questions, want 4", len(questions))
		}
		q := questions[0]
		if c := q.Fields.Get("Cookie"); !strings.HasPrefix(c, "session=s") || strings.Contains(c, ";") || q.Method != "GET" || q.Target != "/auth/me" || q.Host != "hangang.school.example" {
			t.Errorf("the question: got %s %s to %s with Cookie %q, want only the session", q.Method, q.Target, q.Host, c)
		}
		time.Sleep(DefaultTTL + time.Second)
		s.set(false, "s1")
		_, err := v.Verify(t.Context(), session("s1"))
		wantRefused(t, "a session that ended", err, 401, "does not know this session")
		if r := err.(*Refusal); r.Challenge != "Moodle" {
			t.Errorf("the challenge: got %q, want the service's", r.Challenge)
		}
	})
}

func TestANoIsRememberedForAMomentOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &loginService{}
		v := newForward(t, s, nil)
		for id, status := range map[string]int{"stranger": 401, "banned": 403, "guest": 401} {
			for range 10 {
				if got := statusOf(errOf(v.Verify(t.Context(), session(id)))); got != status {
					t.Errorf("%s: got %d, want %d", id, got, status)
				}
			}
		}
		if n := len(s.questions()); n != 3 {
			t.Errorf("30 requests of 3 sessions that are no good: got %d questions, want 3", n)
		}
		time.Sleep(DefaultNegativeTTL)
		v.Verify(t.Context(), session("stranger"))
		if n := len(s.questions()); n != 4 {
			t.Errorf("after the moment: got %d questions, want one more", n)
		}
		_, err := v.Verify(t.Context(), cookies("theme=dark"))
		wantRefused(t, "no session", err, 401, "logged in")
		_, err = v.Verify(t.Context(), session("s1; session=s2"))
		wantRefused(t, "two sessions", err, 400, "more than one")
		_, err = v.Verify(t.Context(), session(strings.Repeat("s", 10<<10)))
		wantRefused(t, "10 kB", err, 401, "too long")
		if n := len(s.questions()); n != 4 {
			t.Errorf("for what is no credential: got %d questions, want none", n-4)
		}
	})
}

func TestAnAnswerThatMakesNoSenseVouchesForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, id := range []string{"broken", "nameless", "two", "control"} {
			v := newForward(t, &loginService{}, nil)
			_, err := v.Verify(t.Context(), session(id))
			wantRefused(t, id, err, 503, "cannot be reached")
			if s := v.Stats(); s.Failed != 1 || s.LastErr == "" || strings.Contains(s.LastErr, id) {
				t.Errorf("%s: got %+v, want a failure that is shown, without the session", id, s)
			}
		}
	})
}

func TestSessionsThatAreKnownGoOnWithTheLoginServiceDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &loginService{}
		v := newForward(t, s, nil)
		for n := range 100 {
			if _, err := v.Verify(t.Context(), session(fmt.Sprintf("s%d", n))); err != nil {
				t.Fatal(err)
			}
		}
		s.set(true)
		s.slow = 10 * time.Second // it does not even say no
		before := len(s.questions())
		time.Sleep(DefaultTTL)
		began := time.Now()
		var all sync.WaitGroup
		for n := range 100 {
			all.Go(func() {
				if p, err := v.Verify(t.Context(), session(fmt.Sprintf("s%d", n))); err != nil || p.Student != fmt.Sprint(n) {
					t.Errorf("s%d: got %v, %v", n, p, err)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > askMax {
			t.Errorf("finding out that the service is down took %v, want at most %v", took, askMax)
		}
		// From now on it is known to be down: nobody waits, one question a second.
		began = time.Now()
		for n := range 100 {
			if n%10 == 0 {
				all.Wait()
			}
			all.Go(func() { v.Verify(t.Context(), session(fmt.Sprintf("s%d", n))) })
		}
		all.Wait()
		_, err := v.Verify(t.Context(), session("s1000"))
		wantRefused(t, "a session that is not known", err, 503, "cannot be reached")
		if took := time.Since(began); took > askMax+time.Second {
			t.Errorf("101 more took %v, want them not to wait for each other", took)
		}
		if n := len(s.questions()) - before; n > 100+5 {
			t.Errorf("questions to a service that is down: got %d, want one each and then one a second", n)
		}
		if st := v.Stats(); !st.Outage || st.Stale == 0 {
			t.Errorf("stats: got %+v, want an outage and stale answers", st)
		}
		// Back again.
		s.set(false)
		s.slow = 0
		time.Sleep(2 * time.Second)
		if p, err := v.Verify(t.Context(), session("s1000")); err != nil || p.Student != "1000" {
			t.Errorf("the service is back: got %v, %v", p, err)
		}
		if st := v.Stats(); st.Outage || st.LastErr != "" {
			t.Errorf("the service is back: got %+v", st)
		}
		// Down for longer than the file allows.
		s.set(true)
		time.Sleep(DefaultTTL + DefaultStaleIfError)
		_, err = v.Verify(t.Context(), session("s1000"))
		wantRefused(t, "older than stale_if_error", err, 503, "cannot be reached")
	})
}

func TestOneSessionIdOfTwoHostsIsTwoSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &loginService{}
		v := newForward(t, s, nil)
		here, there := session("s1"), session("s1")
		there.Host, there.Authority = []byte("other.school.example"), []byte("other.school.example")
		device := session("s1")
		device.Fields = append(device.Fields.(field.List), field.Field{Name: "X-Device", Value: "phone"})
		for _, r := range []*Request{here, there, device, here, there, device} {
			if _, err := v.Verify(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(s.questions()); n != 3 {
			t.Errorf("three credentials: got %d questions, want 3", n)
		}
		again := v.With(s, v.cfg.Limit)
		if _, err := again.Verify(t.Context(), here); err != nil || len(s.questions()) != 3 {
			t.Errorf("after a reload: got %v and %d questions, want none more", err, len(s.questions()))
		}
	})
}
