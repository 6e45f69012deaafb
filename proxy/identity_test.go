package proxy

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/cache"
	"firstbell/proxy/identity"
)

var cookieKey = []byte("a key of these tests, long enough")

// sessionOf is a Cookie field with a session of the student.
func sessionOf(t testing.TB, student, school string) string {
	t.Helper()
	value, err := identity.SignCookie(&identity.Person{Student: student, School: school, Class: "3-2", Expires: time.Now().Add(24 * time.Hour)}, cookieKey)
	if err != nil {
		t.Fatal(err)
	}
	return "Cookie: a=b; session=" + value
}

// byCookie is an identity by signed cookies.
func byCookie(t testing.TB, i Identity) *Identity {
	t.Helper()
	v, err := identity.NewCookie(identity.CookieConfig{Name: "session", Keys: [][]byte{cookieKey}})
	if err != nil {
		t.Fatal(err)
	}
	schools, err := attendance.NewSchools(time.UTC, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	i.Verifier, i.Schools = v, schools
	return NewIdentity(i)
}

// identityGate takes check-ins of those who are logged in, and has lessons for
// them.
func identityGate(t *testing.T, answer http.HandlerFunc, i Identity, policy *cache.Policy) (*gate, *brokenDisk) {
	t.Helper()
	d := &brokenDisk{}
	who := byCookie(t, i)
	student := Ref{Kind: RefJSON, Path: []string{"student_id"}}
	g := newGate(t, answer, func(up *Upstream) []*Route {
		return []*Route{
			{Hosts: []string{"*"}, Methods: []string{"POST"}, Path: "/check-in", Identity: who,
				CheckIn: &CheckIn{Student: student, Class: Ref{Kind: RefJSON, Path: []string{"class_id"}}}},
			{Hosts: []string{"*"}, Methods: []string{"POST"}, Path: "/claim", Identity: who,
				CheckIn: &CheckIn{Student: Ref{Kind: RefClaim, Name: "student"}, Class: Ref{Kind: RefClaim, Name: "class"}}},
			{Hosts: []string{"*"}, Methods: []string{"POST"}, Path: "/nobody", CheckIn: &CheckIn{Student: student}},
			{Hosts: []string{"*"}, Origin: up, Cache: policy, Identity: who},
		}
	})
	rec := newRecorder(t, d)
	g.proxy.recorder = rec
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { rec.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return g, d
}

func silent(http.ResponseWriter, *http.Request) {}

const sameOrigin = "Sec-Fetch-Site: same-origin"

func TestACheckInIsOfTheOneWhoIsLoggedIn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := identityGate(t, silent, Identity{}, nil)
		session := sessionOf(t, "s1", "school")
		for _, body := range []string{`{"student_id":"s1"}`, `{}`, `{"student_id":null,"class_id":"3-2"}`} {
			if r, a := g.press("/check-in", body, session, sameOrigin); r.StudentID != "s1" || !r.Verified || r.ClassID != "3-2" {
				t.Errorf("%s: got %d %+v %s, want s1 of 3-2, verified", body, a.StatusCode, r, a.body)
			}
		}
		if r, a := g.press("/claim", `not read at all`, session, sameOrigin); r.StudentID != "s1" || r.ClassID != "3-2" || !r.Verified {
			t.Errorf("by claims: got %d %+v, want s1 of 3-2, verified", a.StatusCode, r)
		}
		if r, _ := g.press("/nobody", `{"student_id":"s9"}`); r.Verified || r.StudentID != "s9" {
			t.Errorf("identity none: got %+v, want s9, not verified", r)
		}
	})
}

func TestAClassmateCannotPressForTheClass(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, d := identityGate(t, silent, Identity{}, nil)
		var log bytes.Buffer
		g.proxy.log = slog.New(slog.NewTextHandler(&log, nil))
		session := sessionOf(t, "s1", "school")
		for _, body := range []string{`{"student_id":"s2"}`, `{"student_id":"S1"}`, `{"student_id":"s1 "}`, `{"student_id":1}`, `{"student_id":"s1","class_id":"3-3"}`} {
			_, a := g.press("/check-in", body, session, sameOrigin)
			if a.StatusCode != 403 || !strings.Contains(a.body, "names another") {
				t.Errorf("%s: got %d %s, want 403", body, a.StatusCode, a.body)
			}
		}
		for n := range 40 {
			g.press("/check-in", `{"student_id":"mate`+string(rune('a'+n%26))+`"}`, session, sameOrigin)
		}
		st := g.proxy.Stats()
		if st.Contradictions["school"] != 45 || st.Outcomes["forbidden"] != 45 {
			t.Errorf("evidence: got %v and %d forbidden, want 45 of school", st.Contradictions, st.Outcomes["forbidden"])
		}
		if n := strings.Count(log.String(), "speaks for somebody else"); n != contradictionLinesMax || !strings.Contains(log.String(), "credential_of=s1") {
			t.Errorf("the log has %d lines of one second, want %d that name s1:\n%s", n, contradictionLinesMax, log.String())
		}
		if d.records.Load() != 0 {
			t.Errorf("records on disk: got %d, want none yet", d.records.Load())
		}
		// s2, S1, "s1 ", 1, 3-3 and 26 mates, each counted for itself.
		time.Sleep(5 * time.Second)
		settle()
		if d.records.Load() != 31 {
			t.Errorf("evidence on disk: got %d records, want 31", d.records.Load())
		}
	})
}

func TestACredentialIsGoodAtItsOwnSchoolOnly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := identityGate(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("my page")) }, Identity{}, nil)
		for _, c := range []struct {
			session string
			status  int
		}{
			{sessionOf(t, "s1", "hangang"), 403}, {sessionOf(t, "s1", "s02"), 200}, {sessionOf(t, "s1", ""), 200},
		} {
			if _, a := g.press("/check-in", `{}`, c.session, sameOrigin, "Host: s02.school.example"); a.StatusCode != c.status {
				t.Errorf("a check-in at s02: got %d %s, want %d", a.StatusCode, a.body, c.status)
			}
			if a := g.get("/", c.session, "Host: s02.school.example"); a.StatusCode != c.status {
				t.Errorf("a page of s02: got %d %s, want %d", a.StatusCode, a.body, c.status)
			}
		}
	})
}

func TestAFormOfAnotherSiteChecksNobodyIn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, d := identityGate(t, silent, Identity{}, nil)
		session := sessionOf(t, "s1", "")
		for _, c := range []struct {
			fields []string
			status int
		}{
			{nil, 403},
			{[]string{"Sec-Fetch-Site: cross-site"}, 403},
			{[]string{"Sec-Fetch-Site: same-site"}, 403}, // another school's page
			{[]string{"Sec-Fetch-Site: none"}, 403},
			{[]string{"Sec-Fetch-Site: cross-site", "Origin: " + scheme() + "://school.example"}, 403},
			{[]string{"Origin: http://evil.example"}, 403},
			{[]string{"Origin: null"}, 403},
			{[]string{"Origin: " + scheme() + "://school.example.evil.example"}, 403},
			{[]string{"Origin: http://evil.school.example"}, 403},
			{[]string{"Origin: file://school.example"}, 403},
			{[]string{"Origin: " + scheme() + "://school.example:8080"}, 403},
			{[]string{"Sec-Fetch-Site: same-origin", "Origin: null"}, 200},
			{[]string{"Sec-Fetch-Site: same-origin"}, 200},
			{[]string{"Origin: " + scheme() + "://school.example"}, 200},
			{[]string{"Origin: https://SCHOOL.example"}, 200},
			{[]string{"Origin: https://school.example", "Host: school.example:443"}, 200},
		} {
			before := d.records.Load()
			_, a := g.press("/check-in", `{}`, append(c.fields, session)...)
			if a.StatusCode != c.status {
				t.Errorf("%v: got %d %s, want %d", c.fields, a.StatusCode, a.body, c.status)
			}
			if c.status == 403 && d.records.Load() != before {
				t.Errorf("%v: it was recorded", c.fields)
			}
		}
	})
}

func TestNobodyIsToldHowToGetIn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, d := identityGate(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("my page")) },
			Identity{Login: "https://login.example/?return={return}"}, nil)
		good := sessionOf(t, "s1", "")
		for _, c := range []struct {
			name, method, path string
			fields             []string
			status             int
			challenge, says    string
		}{
			{"nobody, a program", "GET", "/me?a=b", nil, 401, `Cookie realm="school"`, "logged in"},
			{"a broken session", "GET", "/me", []string{good + "x"}, 401, `Cookie realm="school", error="invalid_token", error_description="the session cookie `, "session cookie"},
			{"a form, with the page of a browser", "POST", "/check-in", []string{"Accept: text/html"}, 401, "Cookie realm", "go back"},
			{"two sessions", "GET", "/me", []string{good + "; " + good[len("Cookie: "):]}, 400, `error="invalid_request"`, "more than one"},
			{"a good one", "GET", "/me", []string{good}, 200, "", "my page"},
			{"HEAD of nobody", "HEAD", "/me", nil, 401, "Cookie realm", ""},
		} {
			a := g.do(c.method, c.path, strings.NewReader(""), c.fields...)
			if a.StatusCode != c.status || !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), strings.Split(c.challenge, `error="invalid_r`)[0]) ||
				!strings.Contains(a.Header.Get("WWW-Authenticate"), c.challenge) || !strings.Contains(a.body, c.says) {
				t.Errorf("%s: got %d %q %s; want %d, %q and %q", c.name, a.StatusCode, a.Header.Get("WWW-Authenticate"), a.body, c.status, c.challenge, c.says)
			}
			if c.status != 200 && a.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: got Cache-Control %q, want no-store", c.name, a.Header.Get("Cache-Control"))
			}
		}
		a := g.get("/me?a=b", "Accept: text/html,*/*")
		if want := "https://login.example/?return=" + scheme() + "%3A%2F%2Fschool.example%2Fme%3Fa%3Db"; a.StatusCode != 302 || a.Header.Get("Location") != want || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("a browser: got %d to %q, want 302 to %q, not stored", a.StatusCode, a.Header.Get("Location"), want)
		}
		if d.records.Load() != 0 || len(g.fetched()) != 1 {
			t.Errorf("got %d records and the origin saw %v, want no record and one page", d.records.Load(), g.fetched())
		}
	})
}

func TestWhatComesForOneWhoIsLoggedInIsSharedOnlyWhereItSaysSo(t *testing.T) {
	for control, want := range map[string]int{
		"": 2, "max-age=600": 2, "private, max-age=600": 2, "no-store": 2,
		"public, max-age=600": 1, "s-maxage=600": 1, "max-age=600, must-revalidate": 1,
	} {
		inBubble(t, func(t *testing.T) {
			// The credential stands in a field that the cache knows nothing of.
			g, _ := identityGate(t, func(w http.ResponseWriter, r *http.Request) {
				if control != "" {
					w.Header().Set("Cache-Control", control)
				}
				if r.Header.Get("Authorization") != "" {
					t.Error("the origin is shown an Authorization field that nobody sent")
				}
				w.Write([]byte("page"))
			}, Identity{}, &cache.Policy{DefaultTTL: time.Hour})
			known := map[string]string{"one": "s1", "two": "s2"}
			who := NewIdentity(Identity{Verifier: byField(known)})
			g.proxy.Swap(NewTable([]*Route{{Hosts: []string{"*"}, Origin: g.upstream, Cache: &cache.Policy{DefaultTTL: time.Hour}, Identity: who}}))
			for token := range known {
				if a := g.get("/lesson", "X-Token: "+token); a.StatusCode != 200 || a.body != "page" {
					t.Errorf("%q: got %d %s", control, a.StatusCode, a.body)
				}
			}
			if a := g.get("/lesson"); a.StatusCode != 401 {
				t.Errorf("%q: nobody got %d of what is stored, want 401", control, a.StatusCode)
			}
			if got := len(g.fetched()); got != want {
				t.Errorf("%q for two who are logged in: got %d fetches, want %d", control, got, want)
			}
		})
	}
}

func TestAnAnonymousRouteWithIdentityIsOnePageForMembers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := identityGate(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Token") != "" || r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != "" {
				t.Errorf("the origin saw a credential: %v", r.Header)
			}
			w.Write([]byte("lesson"))
		}, Identity{}, nil)
		who := NewIdentity(Identity{Verifier: byField{"one": "s1", "two": "s2"}})
		g.proxy.Swap(NewTable([]*Route{{Hosts: []string{"*"}, Origin: g.upstream, Cache: &cache.Policy{Anonymous: true, DefaultTTL: time.Hour}, Identity: who}}))
		for _, fields := range [][]string{{"X-Token: one", "Cookie: a=b"}, {"X-Token: two", "Authorization: Basic eA=="}} {
			if a := g.get("/lesson", fields...); a.body != "lesson" {
				t.Errorf("%v: got %d %s, want the lesson", fields, a.StatusCode, a.body)
			}
		}
		if a := g.get("/lesson"); a.StatusCode != 401 {
			t.Errorf("nobody: got %d, want 401", a.StatusCode)
		}
		if a := g.do("POST", "/lesson", nil, "X-Token: one"); a.StatusCode != 200 {
			t.Errorf("a POST: got %d", a.StatusCode)
		}
		if got := len(g.fetched()); got != 2 {
			t.Errorf("got %d fetches, want one for the two members and the POST", got)
		}
	})
}

// byField is a verifier of tokens in the field X-Token.
type byField map[string]string

func (b byField) Verify(_ context.Context, r *identity.Request) (*identity.Person, error) {
	token := string(r.Fields.Peek("X-Token"))
	switch {
	case token == "down" || b["down"] == "all":
		return nil, &identity.Refusal{Status: 503, Reason: "the login service is away", RetryAfter: 7 * time.Second}
	case b[token] == "":
		return nil, &identity.Refusal{Status: 401, Reason: "who are you"}
	}
	return &identity.Person{Student: b[token]}, nil
}

func (byField) Session(dst []byte, r *identity.Request) []byte {
	return append(dst, r.Fields.Peek("X-Token")...)
}

func (byField) Credential() identity.Credential {
	return identity.Credential{Fields: []string{"X-Token"}, Scheme: "Bearer"}
}

// Who presses in time while nobody can say who they are is not made late: the
// press with the same credential, once it is known, counts from then. Another
// credential gets nothing from the token.
func TestWhoCannotBeIdentifiedForAWhileIsNotMadeLate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := identityGate(t, silent, Identity{}, nil)
		people := byField{"one": "s1", "two": "s2", "down": "all"}
		g.proxy.Swap(NewTable([]*Route{{Hosts: []string{"*"}, Path: "/check-in", Methods: []string{"POST"},
			CheckIn:  &CheckIn{Student: Ref{Kind: RefJSON, Path: []string{"student_id"}}},
			Identity: NewIdentity(Identity{Verifier: people})}}))
		pressed := time.Now()
		_, a := g.press("/check-in", "{}", "X-Token: one")
		token := a.Header.Get("First-Seen")
		if a.StatusCode != 503 || token == "" || !strings.Contains(a.Header.Get("Set-Cookie"), token) {
			t.Fatalf("while it is down: got %d with First-Seen %q, want 503 and a token, in a cookie too", a.StatusCode, token)
		}
		if _, a := g.press("/check-in", "{}"); a.Header.Get("First-Seen") != "" {
			t.Error("without a credential: got a token")
		}
		time.Sleep(5 * time.Minute)
		delete(people, "down")
		if r, _ := g.press("/check-in", "{}", "X-Token: two", "First-Seen: "+token); !r.FirstArrival.Equal(time.Now().Truncate(time.Millisecond)) {
			t.Errorf("another student with the token: first arrival %v, want now", r.FirstArrival)
		}
		if r, _ := g.press("/check-in", "{}", "X-Token: one", "Cookie: firstbell_first_seen="+token); !r.FirstArrival.Equal(pressed.Truncate(time.Millisecond)) || !r.Verified {
			t.Errorf("known again: got %+v, want it verified, first arrival %v", r, pressed)
		}
	})
}

func TestWithTheLoginServiceDownACheckInCanBeTakenUnverified(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := identityGate(t, silent, Identity{}, nil)
		route := func(unverified bool) {
			g.proxy.Swap(NewTable([]*Route{{Hosts: []string{"*"}, Path: "/check-in", Methods: []string{"POST"},
				CheckIn:  &CheckIn{Student: Ref{Kind: RefJSON, Path: []string{"student_id"}}},
				Identity: NewIdentity(Identity{Verifier: byField{"one": "s1"}, Unverified: unverified})}}))
		}
		route(false)
		if _, a := g.press("/check-in", `{"student_id":"s1"}`, "X-Token: down"); a.StatusCode != 503 || a.Header.Get("Retry-After") != "7" {
			t.Errorf("refuse: got %d and Retry-After %q, want 503 and 7", a.StatusCode, a.Header.Get("Retry-After"))
		}
		route(true)
		first, a := g.press("/check-in", `{"student_id":"s1"}`, "X-Token: down")
		if a.StatusCode != 200 || first.Verified {
			t.Errorf("unverified: got %d %+v, want a receipt that is not verified", a.StatusCode, first)
		}
		if _, a := g.press("/check-in", `{"student_id":"s1"}`, "X-Token: wrong"); a.StatusCode != 401 {
			t.Errorf("a credential that is no good, while the service is up: got %d, want 401", a.StatusCode)
		}
		time.Sleep(time.Minute)
		// The service is up again: the verified press takes the place of the first.
		second, _ := g.press("/check-in", `{"student_id":"s1"}`, "X-Token: one")
		if !second.Verified || second.Receipt != first.Receipt || !second.FirstArrival.After(first.FirstArrival) {
			t.Errorf("verified later: got %+v after %+v, want the same receipt, verified, of its own arrival", second, first)
		}
		third, _ := g.press("/check-in", `{"student_id":"s1"}`, "X-Token: down")
		if third != second {
			t.Errorf("unverified after that: got %+v, want %+v to stay", third, second)
		}
	})
}
