package bell

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// platform is a server that keeps the contract, unless told to lie.
type platform struct {
	m    Morning
	lie  func(w http.ResponseWriter, r *http.Request) bool // answers instead, if it returns true
	mu   sync.Mutex
	rows map[string]string
}

type fakeContent struct{ host func(int) string }

func fakeBody(host, path string) []byte { return []byte(strings.Repeat(host+path+"\n", 40)) }

func fakeResource(host, path string) Resource {
	b := fakeBody(host, path)
	return Resource{host, path, int64(len(b)), crc32.Checksum(b, castagnoli)}
}

func (c fakeContent) List(school int) Resource { return fakeResource(c.host(school), "/lessons/") }
func (c fakeContent) Lesson(school, grade int) []Resource {
	h := c.host(school)
	return []Resource{fakeResource(h, "/lessons/1/"), fakeResource(h, "/media/1"), fakeResource(h, "/media/2")}
}

func session(id string) string { return "session=" + id }

func (f *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.lie != nil && f.lie(w, r) {
		return
	}
	cookie, _ := r.Cookie("session")
	switch r.URL.Path {
	case "/me":
		fmt.Fprintf(w, `{"student_id":%q}`, cookie.Value)
	case "/check-in":
		f.checkIn(w, r)
	default:
		w.Header().Set("Set-Cookie", "session="+cookie.Value+"; Path=/")
		w.Write(fakeBody(r.Host, r.URL.Path))
	}
}

func (f *platform) checkIn(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Student string `json:"student_id"`
		Class   string `json:"class_id"`
		Attempt string
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	now := time.Now()
	status, period := "present", f.m.Period
	switch {
	case now.Before(f.m.Opens) || !now.Before(f.m.Ends):
		status, period = "outside", "outside"
	case now.After(f.m.LateAfter):
		status = "late"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := in.Student + period
	if f.rows[key] == "" {
		f.rows[key] = fmt.Sprintf(`{"receipt":"00000000-0000-8000-8000-%012d","student_id":%q,"school":%q,"class_id":%q,"date":%q,"period":%q,"first_arrival":%q,"status":%q}`,
			len(f.rows), in.Student, strings.Split(r.Host, ".")[0], in.Class, f.m.Date, period, now.Format("2006-01-02T15:04:05.000Z07:00"), status)
	}
	fmt.Fprint(w, f.rows[key])
}

// morning is a short one that begins now, in milliseconds as receipts have them.
func morning() Morning {
	now := time.Now().Truncate(time.Millisecond)
	at := func(ms int) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }
	return Morning{First: now, Opens: at(100), Starts: at(500), LateAfter: at(900), Ends: at(1300), Date: now.Format(time.DateOnly), Period: "1"}
}

// play plays a short morning of n students against f and returns the player.
func play(t *testing.T, n int, f *platform) *Player {
	t.Helper()
	roster, err := NewRoster(n, 3, 7)
	if err != nil {
		t.Fatal(err)
	}
	f.m, f.rows = morning(), map[string]string{}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	p, err := New(Config{
		Roster: roster, Content: fakeContent{roster.Host}, Morning: f.m, Seed: 7, Tries: 2,
		Addr: srv.Listener.Addr().String(), CheckInPath: "/check-in", MePath: "/me", Session: session, Connections: 64,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Play(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEveryStudentWhoPressesHoldsAReceipt(t *testing.T) {
	f := &platform{}
	p := play(t, 400, f)
	var held, pressed int
	for i, h := range p.Hands() {
		if h.Pressed {
			pressed++
		}
		if h.Period.Status != Nothing || h.Outside.Status != Nothing {
			held++
		} else if h.Pressed {
			t.Errorf("student %d pressed and holds nothing", i)
		}
	}
	if pressed < 350 || pressed == 400 || held != pressed {
		t.Errorf("%d of 400 pressed, %d hold a receipt; want most, not all, and the same number", pressed, held)
	}
	if got, want := int(p.Progress().Receipts), len(f.rows); got != want {
		t.Errorf("%d receipts in hand, the server gave %d", got, want)
	}
	total := p.Total()
	if total.Sent != total.Answered || total.GaveUp != 0 || p.Leaks() != 0 || p.Conflicts() != 0 {
		t.Errorf("an honest server: %+v, %d leaks, %d conflicts; notes %q", total, p.Leaks(), p.Conflicts(), p.Notes())
	}
	if p.Progress().Pressed <= int64(pressed) {
		t.Errorf("%d presses by %d students; want some to press twice", p.Progress().Pressed, pressed)
	}
}

func TestLeaksAndSpoiltAnswersAreFound(t *testing.T) {
	other := func(r *http.Request) string { // any other student
		c, _ := r.Cookie("session")
		if c.Value == "0100001" {
			return "0100002"
		}
		return "0100001"
	}
	for _, c := range []struct {
		name  string
		lie   func(w http.ResponseWriter, r *http.Request) bool
		leaks bool
		kind  Kind
	}{
		{"personal page of another", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/me" {
				return false
			}
			fmt.Fprintf(w, `{"student_id":%q}`, other(r))
			return true
		}, true, Me},
		{"session of another", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/lessons/" {
				return false
			}
			w.Header().Set("Set-Cookie", "session="+other(r))
			w.Write(fakeBody(r.Host, r.URL.Path))
			return true
		}, true, List},
		{"receipt of another", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/check-in" {
				return false
			}
			fmt.Fprintf(w, `{"receipt":"00000000-0000-8000-8000-000000000001","student_id":%q,"school":"s01"}`, other(r))
			return true
		}, true, CheckIn},
		{"page of another school", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/lessons/1/" {
				return false
			}
			w.Write(fakeBody("s99.school.example", r.URL.Path))
			return true
		}, false, Page},
		{"short body sent as complete", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/media/1" {
				return false
			}
			w.Write(fakeBody(r.Host, r.URL.Path)[:100])
			return true
		}, false, Media},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := play(t, 12, &platform{lie: c.lie})
			if got := p.Leaks() > 0; got != c.leaks {
				t.Errorf("%d leaks found; want some: %v", p.Leaks(), c.leaks)
			}
			if n := p.Counts(c.kind); n.Wrong == 0 || n.Answered != 0 || n.GaveUp == 0 {
				t.Errorf("%s: %+v; want wrong answers, none accepted, students giving up", c.kind, n)
			}
			if len(p.Notes()) == 0 {
				t.Error("nothing was noted for the report")
			}
		})
	}
}

func TestARefusedPressIsTheSamePressWithItsCookies(t *testing.T) {
	var mu sync.Mutex
	refused, carried := map[string]bool{}, 0
	f := &platform{}
	f.lie = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/check-in" {
			return false
		}
		var in struct{ Attempt string }
		raw := make([]byte, r.ContentLength)
		r.Body.Read(raw)
		json.Unmarshal(raw, &in)
		mu.Lock()
		defer mu.Unlock()
		if !refused[in.Attempt] {
			refused[in.Attempt] = true
			w.Header().Set("Set-Cookie", "first-seen="+in.Attempt+"; Path=/")
			w.WriteHeader(503)
			return true
		}
		if c, err := r.Cookie("first-seen"); err == nil && c.Value == in.Attempt {
			carried++
		}
		r.Body = http.NoBody
		r2 := r.Clone(r.Context())
		r2.Body = readCloser{strings.NewReader(string(raw))}
		f.checkIn(w, r2)
		return true
	}
	p := play(t, 60, f)
	n := p.Counts(CheckIn)
	if n.Refused != int64(len(refused)) || carried != len(refused) || n.GaveUp != 0 {
		t.Errorf("%d attempts, %d refused, %d came back with their cookie, %d gave up; want each refused once and back",
			len(refused), n.Refused, carried, n.GaveUp)
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func TestTwoReceiptsForOneCheckInAreAConflict(t *testing.T) {
	p := &Player{students: make([]student, 1)}
	p.timeline = newTimeline(time.Now(), time.Second)
	e := &errand{kind: CheckIn, n: pressFirst}
	p.hold(e, Held{ID: [16]byte{1}, First: 2000, Status: Late}, time.Now())
	p.hold(e, Held{ID: [16]byte{1}, First: 1000, Status: Present}, time.Now()) // proved to be earlier
	if p.Conflicts() != 0 || p.Hand(0).Period.Status != Present {
		t.Errorf("a receipt with an earlier arrival: %d conflicts, status %v; want 0, present", p.Conflicts(), p.Hand(0).Period.Status)
	}
	p.hold(e, Held{ID: [16]byte{2}, First: 1000, Status: Present}, time.Now())
	if p.Conflicts() != 1 {
		t.Errorf("another id for the same check-in: %d conflicts, want 1", p.Conflicts())
	}
}

func TestNobodySeenInTimeMayBeCalledLate(t *testing.T) {
	m := morning()
	p := &Player{students: make([]student, 2), cfg: Config{Morning: m}}
	late := Held{Status: Late}
	p.students[0] = student{period: late, firstAnswer: m.LateAfter.UnixMilli() - 1}
	p.students[1] = student{period: late, firstAnswer: m.LateAfter.UnixMilli() + 1}
	for i, h := range p.Hands() {
		if want := i == 0; h.MadeLate != want {
			t.Errorf("student %d: made late %v, want %v", i, h.MadeLate, want)
		}
	}
}

func TestTheSameSeedPlansTheSameMorning(t *testing.T) {
	m := morning()
	const n = 5000
	one, two, other := m.arrivals(1, n, 4), m.arrivals(1, n, 4), m.arrivals(2, n, 4)
	if fmt.Sprint(one) != fmt.Sprint(two) {
		t.Error("the same seed gave two different mornings")
	}
	if fmt.Sprint(one) == fmt.Sprint(other) {
		t.Error("two seeds gave the same morning")
	}
	var comes, late, early, twice int
	opens, starts, lateAfter, ends := m.Opens.Sub(m.First), m.Starts.Sub(m.First), m.LateAfter.Sub(m.First), m.Ends.Sub(m.First)
	near := 0
	for i := range n {
		pl := m.plan(1, i, 4)
		if !pl.comes {
			continue
		}
		comes++
		if pl.press > lateAfter {
			late++
		}
		if pl.tooEarly > 0 {
			early++
		}
		if pl.how != once {
			twice++
		}
		if d := pl.press - starts; d.Abs() < (starts-opens)/2 {
			near++
		}
		if pl.press < opens || pl.press >= ends || pl.arrive > pl.press || pl.arrive < 0 || pl.tooEarly >= opens || pl.second >= ends {
			t.Fatalf("student %d has an impossible plan %+v", i, pl)
		}
	}
	for _, c := range []struct {
		what           string
		got, low, high int
	}{
		{"come", comes, 4700, 4950}, {"are late", late, 200, 400}, {"press too early", early, 5, 50},
		{"press twice", twice, 350, 650}, {"press near the bell", near, 3000, 4950},
	} {
		if c.got < c.low || c.got > c.high {
			t.Errorf("%d of %d %s; want %d to %d", c.got, n, c.what, c.low, c.high)
		}
	}
}

func TestPlayEndsWithItsContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	roster, err := NewRoster(50, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Config{Roster: roster, Content: fakeContent{roster.Host}, Morning: morning(), Addr: silent.Addr().String(),
		CheckInPath: "/check-in", MePath: "/me", Session: session, Connections: 8})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, stop)
	if err := p.Play(ctx); err == nil {
		t.Error("a morning that was broken off ended without an error")
	}
}
