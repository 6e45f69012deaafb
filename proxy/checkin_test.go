package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

// brokenDisk is a journal that can be broken.
type brokenDisk struct {
	broken  atomic.Bool
	records atomic.Int64
	slow    time.Duration
	held    atomic.Pointer[chan struct{}] // nothing is written before it is closed
}

// hold has what is appended wait until goOn is called.
func (d *brokenDisk) hold() (goOn func()) {
	c := make(chan struct{})
	d.held.Store(&c)
	return func() { d.held.Store(nil); close(c) }
}

func (d *brokenDisk) Append(records [][]byte) (uint64, error) {
	time.Sleep(d.slow)
	if held := d.held.Load(); held != nil {
		<-*held
	}
	if d.broken.Load() {
		return 0, errors.New("no space left on device")
	}
	return uint64(d.records.Add(int64(len(records)))), nil
}

func newRecorder(t testing.TB, log attendance.Appender) *attendance.Recorder {
	t.Helper()
	tt, err := timetable.New(timetable.Spec{Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"},
		Periods: []timetable.PeriodSpec{{Name: "1", Starts: "09:00", LateAfter: "09:10", Ends: "09:45"}}})
	if err != nil {
		t.Fatal(err)
	}
	schools, err := attendance.NewSchools(time.UTC, tt, nil)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := attendance.OpenSecret(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	r, err := attendance.New(attendance.Config{Log: log, Secret: secret, Schools: schools})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkInGate is a gate whose one check-in route writes to d; everything else
// goes to an origin with room for nobody.
func checkInGate(t *testing.T, d *brokenDisk) *gate {
	t.Helper()
	rule := &CheckIn{
		Student: Ref{Kind: RefJSON, Path: []string{"student_id"}},
		Class:   Ref{Kind: RefJSON, Path: []string{"at", "class"}},
		Date:    Ref{Kind: RefJSON, Path: []string{"date"}},
	}
	g := newGate(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(up *Upstream) []*Route {
		return []*Route{
			{Hosts: []string{"*"}, Methods: []string{"POST"}, Path: "/check-in", CheckIn: rule},
			{Hosts: []string{"*"}, Methods: []string{"POST"}, Path: "/form", CheckIn: &CheckIn{
				Student: Ref{Kind: RefForm, Name: "student"}, Class: Ref{Kind: RefHeader, Name: "X-Class"}}},
			{Hosts: []string{"*"}, Origin: up},
		}
	})
	rec := newRecorder(t, d)
	g.proxy.recorder = rec
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { rec.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return g
}

type receipt struct {
	Receipt      string    `json:"receipt"`
	StudentID    string    `json:"student_id"`
	School       string    `json:"school"`
	ClassID      string    `json:"class_id"`
	Date         string    `json:"date"`
	Period       string    `json:"period"`
	FirstArrival time.Time `json:"first_arrival"`
	Status       string    `json:"status"`
	Durable      string    `json:"durable"`
	Verified     bool      `json:"verified"`
}

func (g *gate) press(path, body string, fields ...string) (receipt, *answer) {
	g.t.Helper()
	a := g.do("POST", path, strings.NewReader(body), fields...)
	var r receipt
	if a.StatusCode == 200 {
		if err := json.Unmarshal([]byte(a.body), &r); err != nil {
			g.t.Errorf("receipt %q: %v", a.body, err)
		}
	}
	return r, a
}

func TestACheckInGetsItsReceipt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := checkInGate(t, &brokenDisk{})
		time.Sleep(9*time.Hour + 5*time.Minute)
		first, a := g.press("/check-in", `{"student_id":"s1","at":{"class":"c1"}}`, "Host: s01.school.example")
		want := receipt{first.Receipt, "s1", "s01", "c1", "2000-01-01", "1", first.FirstArrival, "present", "disk", false}
		if a.StatusCode != 200 || first != want || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("got %d %+v, want %+v, and no-store", a.StatusCode, first, want)
		}
		again, _ := g.press("/check-in", `{"student_id":"s1","at":{"class":"c1"}}`, "Host: s01.school.example")
		if again != first {
			t.Errorf("pressed again: got %+v, want the same receipt", again)
		}
		form, a := g.press("/form", "student=s%201&x=y", "Host: s02.school.example", "X-Class: c9")
		if form.StudentID != "s 1" || form.ClassID != "c9" || form.School != "s02" {
			t.Errorf("a form: got %d %+v", a.StatusCode, form)
		}
	})
}

func TestAMalformedCheckInNamesItsField(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := &brokenDisk{}
		g := checkInGate(t, d)
		for _, c := range []struct {
			name, method, body string
			status             int
			says               string
		}{
			{"no JSON", "POST", `student`, 400, "not JSON"},
			{"nothing", "POST", ``, 400, "not JSON"},
			{"no student", "POST", `{"x":1}`, 400, "student"},
			{"student null", "POST", `{"student_id":null}`, 400, "student"},
			{"student an object", "POST", `{"student_id":{}}`, 400, "student"},
			{"student a fraction", "POST", `{"student_id":1.5}`, 400, "student"},
			{"twice", "POST", `{"student_id":"a","student_id":"b"}`, 400, "more than once"},
			{"control", "POST", `{"student_id":"a\u0000"}`, 400, "student"},
			{"UTF-8", "POST", "{\"student_id\":\"\xff\"}", 400, "student"},
			{"long", "POST", `{"student_id":"` + strings.Repeat("x", 10000) + `"}`, 400, "student"},
			{"1970", "POST", `{"student_id":"a","date":"1970-01-01"}`, 400, "date"},
			{"2999", "POST", `{"student_id":"a","date":"2999-01-01"}`, 400, "date"},
			{"large", "POST", `{"student_id":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "65536"},
			{"GET", "GET", "", 405, "GET"},
			{"a number", "POST", `{"student_id":20230815}`, 200, "20230815"},
		} {
			a := g.do(c.method, "/check-in", strings.NewReader(c.body))
			if a.StatusCode != c.status || !strings.Contains(a.body, c.says) {
				t.Errorf("%s: got %d %s; want %d and a word of %q", c.name, a.StatusCode, a.body, c.status, c.says)
			}
		}
		if n := d.records.Load(); n != 1 {
			t.Errorf("records on disk: got %d, want only that of the good one", n)
		}
	})
}

func TestARefusedPressCountsFromItsFirstArrival(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := &brokenDisk{}
		g := checkInGate(t, d)
		time.Sleep(9*time.Hour + 9*time.Minute)
		d.broken.Store(true)
		_, a := g.press("/check-in", `{"student_id":"s1"}`)
		token := a.Header.Get("First-Seen")
		wait, _ := strconv.Atoi(a.Header.Get("Retry-After"))
		if a.StatusCode != 503 || token == "" || wait < 1 || !strings.Contains(a.Header.Get("Set-Cookie"), token) {
			t.Fatalf("disk full: got %d %v, want 503 with Retry-After and First-Seen as field and cookie", a.StatusCode, a.Header)
		}
		d.broken.Store(false)
		time.Sleep(10 * time.Minute)
		for _, field := range []string{"First-Seen: " + token, "Cookie: a=b; firstbell_first_seen=" + token} {
			if r, a := g.press("/check-in", `{"student_id":"s1"}`, field); r.Status != "present" {
				t.Errorf("%.10s: pressed at 09:09 and again at 09:19: got %d, %q, want present", field, a.StatusCode, r.Status)
			}
		}
	})
}

func TestACheckInWaitsBehindNoOrigin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := checkInGate(t, &brokenDisk{slow: 5 * time.Millisecond})
		g.upstream.Limit.Resize(1, 1, time.Minute)
		var lessons sync.WaitGroup
		for range 2 {
			lessons.Go(func() { g.get("/lesson") })
		}
		settle()
		for i, a := range herd(200, func(i int) *answer {
			_, a := g.press("/check-in", `{"student_id":"s`+strconv.Itoa(i)+`"}`)
			return a
		}) {
			if a.StatusCode != 200 || a.took > 20*time.Millisecond {
				t.Errorf("student %d: got %d after %v, want a receipt within two batches", i, a.StatusCode, a.took)
			}
		}
		g.proxy.end() // the lessons wait for an origin that never answers
		lessons.Wait()
	})
}

func TestARefNamesItsPlace(t *testing.T) {
	for s, want := range map[string]string{
		"json:/a~1b/0/~0": "", "form:x": "", "header:X-Id": "",
		"": "where the value stands", "json:": "where the value stands", "json:a": "begin with a slash",
		"claim:sub": "", "cookie:sub": "no place", "student": "where the value stands",
	} {
		_, err := ParseRef(s)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRef(%q) = %v, want an error with %q", s, err, want)
		}
	}
	if r, _ := ParseRef("json:/a~1b/0/~0"); strings.Join(r.Path, ",") != "a/b,0,~" {
		t.Errorf("pointer segments: got %q", r.Path)
	}
}

func FuzzPointed(f *testing.F) {
	f.Add(`{"student_id":"a","at":{"class":[1,"x"]}}`, "at/class/1")
	f.Add(`[{}]`, "0")
	f.Fuzz(func(t *testing.T, content, path string) {
		if validJSON([]byte(content)) {
			pointed([]byte(content), strings.Split(path, "/")) // any answer is fine, a panic is not
		}
	})
}
