package sink

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"

	"firstbell/attendance"
)

// oldLMS takes one student's attendance per request, with no network between.
type oldLMS struct {
	t  *testing.T
	ln *fasthttputil.InmemoryListener

	mu     sync.Mutex // guards what follows
	begun  []time.Time
	now    int // requests under way
	most   int
	taken  map[string]int // by student
	keys   map[string]string
	takes  time.Duration
	answer func(w http.ResponseWriter, student string) bool // nil: as usual
}

// replaying runs f in a bubble with an old LMS.
func replaying(t *testing.T, f func(t *testing.T, l *oldLMS)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &oldLMS{t: t, ln: fasthttputil.NewInmemoryListener(), taken: map[string]int{}, keys: map[string]string{}}
		server := &http.Server{Handler: l}
		go server.Serve(l.ln)
		t.Cleanup(func() { server.Close() })
		f(t, l)
	})
}

func (l *oldLMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct{ Student, Status string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != "PUT" || r.URL.Path != "/attendance/2026-05-04/"+body.Student ||
		r.Header.Get("Authorization") != "Bearer service" || r.Header.Get("X-School") != "north" || r.Header.Get("Content-Type") != "application/json" {
		l.t.Errorf("got %s %s %v: %+v %v", r.Method, r.URL, r.Header, body, err)
	}
	l.mu.Lock()
	l.begun = append(l.begun, time.Now())
	l.now++
	l.most = max(l.most, l.now)
	if before, ok := l.keys[body.Student]; ok && before != r.Header.Get("Idempotency-Key") {
		l.t.Errorf("%s came with two Idempotency-Keys", body.Student)
	}
	l.keys[body.Student] = r.Header.Get("Idempotency-Key")
	takes, answer := l.takes, l.answer
	l.mu.Unlock()
	time.Sleep(takes)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now--
	if answer != nil && answer(w, body.Student) {
		return
	}
	l.taken[body.Student]++
}

func (l *oldLMS) set(f func(w http.ResponseWriter, student string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = f
}

func (l *oldLMS) config(dir string) ReplayConfig {
	return ReplayConfig{
		Method: "PUT", Path: "/attendance/{date}/{student_id}", Fields: []Field{{"X-School", "{school}"}},
		Body: `{"Student": "{student_id}", "Status": "{status}", "Verified": {verified}}`, PerSecond: 50, Concurrency: 4,
		Config: Config{Name: "old", Dir: dir, Endpoint: Endpoint{
			URL: "http://old.example", Header: http.Header{"Authorization": {"Bearer service"}},
			Dial: func(context.Context, string, string) (net.Conn, error) { return l.ln.Dial() },
		}},
	}
}

func (l *oldLMS) open(dir string, change ...func(*ReplayConfig)) *Sink {
	l.t.Helper()
	c := l.config(dir)
	for _, f := range change {
		f(&c)
	}
	s, err := OpenReplay(c)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	return s
}

// wantTaken wants n students taken, each at most as often as said.
func (l *oldLMS) wantTaken(n, atMost int) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for student, times := range l.taken {
		if times > atMost {
			l.t.Errorf("%s was taken %d times, want at most %d", student, times, atMost)
		}
	}
	if len(l.taken) != n {
		l.t.Errorf("got %d students taken, want %d", len(l.taken), n)
	}
}

func answers(code int, fields ...string) func(http.ResponseWriter, string) bool {
	return func(w http.ResponseWriter, _ string) bool {
		for i := 0; i < len(fields); i += 2 {
			w.Header().Set(fields[i], fields[i+1])
		}
		w.WriteHeader(code)
		return true
	}
}

func TestAReplayKeepsItsPace(t *testing.T) {
	replaying(t, func(t *testing.T, l *oldLMS) {
		s := l.open(t.TempDir())
		l.takes = 30 * time.Millisecond
		begin := time.Now()
		done, err := deliver(s, bulk(1, 501))
		if err != nil || done != (attendance.Delivered{Rows: 500, Writes: 500}) {
			t.Fatalf("got %+v %v, want 500 requests", done, err)
		}
		l.wantTaken(500, 1)
		if took := time.Since(begin); took < 9900*time.Millisecond || took > 10100*time.Millisecond {
			t.Errorf("500 at 50/s took %v, want 10 s", took)
		}
		for i := range len(l.begun) - 1 {
			if gap := l.begun[i+1].Sub(l.begun[i]); gap < 19*time.Millisecond {
				t.Errorf("requests %d and %d are %v apart, want 20ms", i, i+1, gap)
			}
		}
		l.takes = 10 * time.Second // slower than the pace: as many at once as is said
		if _, err := deliver(s, bulk(501, 513)); err != nil || l.most != 4 {
			t.Errorf("got %d at once, %v, want 4", l.most, err)
		}
		wantPosition(t, s, attendance.Position{Next: 513})
	})
}

// The pace holds across bulks and tries.
func TestAReplayKeepsItsPaceFromBulkToBulk(t *testing.T) {
	replaying(t, func(t *testing.T, l *oldLMS) {
		s := l.open(t.TempDir(), func(c *ReplayConfig) { c.PerSecond = 2 })
		begin := time.Now()
		for n := 1; n <= 10; n++ {
			if _, err := deliver(s, bulk(n, n+1)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took != 4500*time.Millisecond {
			t.Errorf("10 bulks of one at 2/s took %v, want 4.5s", took)
		}
	})
}

func TestAReplayGoesOnWithWhatIsLeft(t *testing.T) {
	replaying(t, func(t *testing.T, l *oldLMS) {
		dir := t.TempDir()
		s := l.open(dir)
		l.set(func(w http.ResponseWriter, student string) bool {
			switch student {
			case "s00010": // fails by itself
				w.WriteHeader(500)
			case "s00020", "s00021":
				w.WriteHeader(422)
			default:
				return false
			}
			return true
		})
		done, err := deliver(s, bulk(1, 41))
		if err == nil || done.Writes != 40 || !strings.Contains(err.Error(), "500") {
			t.Fatalf("got %+v %v, want all others sent and the error of the one", done, err)
		}
		l.wantTaken(37, 1)
		wantPosition(t, s, attendance.Position{Next: 1, Until: 41})
		l.set(nil)
		done, err = deliver(s, bulk(1, 41))
		if err != nil || done != (attendance.Delivered{Rows: 38, Parked: 2, Writes: 1}) {
			t.Fatalf("got %+v %v, want one request more and 2 parked", done, err)
		}
		l.wantTaken(38, 1)
		if students, _ := parkedStudents(t, dir); !slices.Equal(slices.Sorted(slices.Values(students)), []string{"s00020", "s00021"}) {
			t.Errorf("got parked %v", students)
		}
		handled, err := s.Retry(t.Context(), nil, kim)
		if err != nil || len(handled) != 2 || s.ParkedNow() != 0 {
			t.Errorf("tried again: got %+v %v", handled, err)
		}
		l.wantTaken(40, 1)
	})
}

func TestAReplayThatIsDownHoldsStill(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, string) bool
		stop   bool
		most   int // requests before it ends
		after  time.Duration
	}{
		"503":      {answers(503), false, 4, 0},
		"429":      {answers(429, "Retry-After", "9"), false, 4, 9 * time.Second},
		"401":      {answers(401), true, 4, 0},
		"404":      {answers(404), true, 4, 0},
		"redirect": {answers(302, "Location", "/login"), true, 4, 0},
		"cut":      {func(http.ResponseWriter, string) bool { panic(http.ErrAbortHandler) }, false, 4, 0},
	} {
		t.Run(name, func(t *testing.T) {
			replaying(t, func(t *testing.T, l *oldLMS) {
				dir := t.TempDir()
				s := l.open(dir)
				l.set(c.answer)
				done, err := deliver(s, bulk(1, 101))
				var how *attendance.DeliverError
				errors.As(err, &how)
				if err == nil || done.Writes > c.most || (how != nil && how.Stop) != c.stop || (how != nil && how.RetryAfter != c.after) {
					t.Fatalf("got %+v %v (%+v), want it to end after at most %d requests", done, err, how, c.most)
				}
				if strings.Contains(err.Error(), "old.example") || strings.Contains(err.Error(), "service") {
					t.Errorf("the error %q tells the address or the credential", err)
				}
				l.set(nil)
				if done, err := deliver(s, bulk(1, 101)); err != nil || done.Rows != 100 || done.Parked != 0 {
					t.Errorf("after it came back: got %+v %v, want all 100", done, err)
				}
				l.wantTaken(100, 1)
			})
		})
	}
}

func TestAReplayReadsStatusesAsItIsTold(t *testing.T) {
	replaying(t, func(t *testing.T, l *oldLMS) {
		dir := t.TempDir()
		s := l.open(dir, func(c *ReplayConfig) {
			c.Statuses = Statuses{Taken: []int{302}, Duplicate: []int{409}, Refused: []int{404}}
		})
		l.set(func(w http.ResponseWriter, student string) bool {
			w.WriteHeader(map[string]int{"s00001": 302, "s00002": 409, "s00003": 404}[student])
			return true
		})
		done, err := deliver(s, bulk(1, 4))
		if err != nil || done != (attendance.Delivered{Rows: 1, Duplicates: 1, Parked: 1, Writes: 3}) {
			t.Errorf("got %+v %v, want one of each", done, err)
		}
	})
}

func TestAReplayThatRefusesTooMuchStops(t *testing.T) {
	replaying(t, func(t *testing.T, l *oldLMS) {
		dir := t.TempDir()
		s := l.open(dir)
		l.set(answers(422))
		_, err := deliver(s, bulk(1, 1001))
		var how *attendance.DeliverError
		if !errors.As(err, &how) || !how.Stop || s.ParkedNow() != 19 {
			t.Errorf("got %v with %d parked, want the sink to stop before the twentieth", err, s.ParkedNow())
		}
		l.set(nil)
		if done, err := deliver(s, bulk(1, 1001)); err != nil || done.Rows != 981 || done.Parked != 19 {
			t.Errorf("after it was put right: got %+v %v, want the 981 that are left", done, err)
		}
	})
}

// A replay that has to end lets what is under way come to its end, and the next
// process goes on behind it.
func TestAReplayEndsAndGoesOnWhereItWas(t *testing.T) {
	replaying(t, func(t *testing.T, l *oldLMS) {
		dir := t.TempDir()
		s := l.open(dir)
		l.takes = 100 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second+5*time.Millisecond, cancel)
		done, err := s.Deliver(ctx, bulk(1, 201))
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %+v %v, want it to end", done, err)
		}
		sofar := len(l.taken)
		again := l.open(dir)
		at, err := again.Position(t.Context())
		if err != nil || at != (attendance.Position{Next: 1, Until: 201}) {
			t.Errorf("got the position %+v %v, want the bulk that was begun", at, err)
		}
		done, err = deliver(again, bulk(1, 201))
		if err != nil || done.Rows != 200 || done.Writes != 200-sofar || sofar < 30 {
			t.Errorf("after %d: got %+v %v, want the rest alone", sofar, done, err)
		}
		l.wantTaken(200, 1)
	})
}

// kill -9 and power cuts at every step: the progress file ends anywhere. What
// comes again has the key of before, and no more comes again than its line lost.
func TestACrashWithinABulkRepeatsNoMoreThanItMust(t *testing.T) {
	replaying(t, func(t *testing.T, l *oldLMS) {
		dir := t.TempDir()
		if _, err := deliver(l.open(dir), bulk(1, 21)); err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(filepath.Join(dir, progressFile))
		if err != nil {
			t.Fatal(err)
		}
		head := strings.IndexByte(string(whole), '\n') + 1
		for n := 0; n <= len(whole); n += 11 {
			l.mu.Lock()
			clear(l.taken)
			l.mu.Unlock()
			crashed := t.TempDir()
			for name, data := range map[string][]byte{positionFile: []byte("{\"next\":1,\"until\":21}\n"), progressFile: whole[:n]} {
				if err := os.WriteFile(filepath.Join(crashed, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			known := max(0, strings.Count(string(whole[:n]), "\n")-1)
			if n < head {
				known = 0
			}
			done, err := deliver(l.open(crashed), bulk(1, 21))
			if err != nil || done.Rows != 20 || done.Writes != 20-known {
				t.Fatalf("progress cut to %d bytes, %d lines: got %+v %v, want %d requests", n, known, done, err, 20-known)
			}
			l.wantTaken(20-known, 1)
			if at, err := readPosition(crashed); err != nil || at.Next != 21 {
				t.Fatalf("progress cut to %d bytes: got the position %+v %v", n, at, err)
			}
			for _, settled := range progressOf(t, crashed, 1, 21) {
				if settled != resultTaken {
					t.Errorf("progress cut to %d bytes: got %q", n, settled)
				}
			}
		}
	})
}

func progressOf(t *testing.T, dir string, first, next uint64) map[uint64]string {
	t.Helper()
	p, settled, err := openProgress(dir, first, next)
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	return settled
}

func TestProgressOfAnotherBulkCountsForNothing(t *testing.T) {
	dir := t.TempDir()
	p, _, err := openProgress(dir, 1, 21)
	if err != nil {
		t.Fatal(err)
	}
	p.note(5, resultTaken)
	p.note(6, resultParked)
	p.close()
	if got := progressOf(t, dir, 1, 21); !maps.Equal(got, map[uint64]string{5: resultTaken, 6: resultParked}) {
		t.Errorf("of the same bulk: got %v", got)
	}
	if got := progressOf(t, dir, 21, 41); len(got) != 0 {
		t.Errorf("of another bulk: got %v, want nothing", got)
	}
	if got := progressOf(t, dir, 1, 21); len(got) != 0 {
		t.Errorf("of a bulk long gone: got %v, want nothing", got)
	}
}

func TestWhatWasCollectedIsReplayedAsItCame(t *testing.T) {
	type request struct{ path, contentType, body string }
	got := make(chan request, 10)
	synctest.Test(t, func(t *testing.T) {
		ln := fasthttputil.NewInmemoryListener()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got <- request{r.URL.EscapedPath(), r.Header.Get("Content-Type"), string(body)}
		})}
		go server.Serve(ln)
		defer server.Close()
		s, err := OpenReplay(ReplayConfig{Collected: true, Config: Config{Name: "beacons", Dir: t.TempDir(), Endpoint: Endpoint{
			URL: "http://old.example", Dial: func(context.Context, string, string) (net.Conn, error) { return ln.Dial() }}}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		b := collected(2)
		b.Events[1].Collected.Body, b.Events[1].Collected.ContentType = "\x00\xff\"{body}", ""
		if done, err := deliver(s, b); err != nil || done.Rows != 2 {
			t.Fatalf("got %+v %v", done, err)
		}
	})
	for _, want := range []request{{"/progress/%2F", "application/json", `{"at": 0}`}, {"/progress/%2F", "", "\x00\xff\"{body}"}} {
		if r := <-got; r != want {
			t.Errorf("got %+v, want %+v", r, want)
		}
	}
}

// nasty are values that would break out of where they stand.
var nasty = []string{`a"b\c`, "a/../b?c#d", "a&b=c;d", "a\r\nX-Evil: 1", "민지 % {student_id}", "", "\xff\x00", "a b+c"}

func TestValuesAreEscapedForWhereTheyStand(t *testing.T) {
	for _, v := range nasty {
		checkTemplates(t, v)
	}
}

func FuzzTemplateValues(f *testing.F) {
	for _, v := range nasty {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) { checkTemplates(t, v) })
}

// checkTemplates fills v in everywhere, and wants it back by the reader of each
// place, with nothing beside it changed.
func checkTemplates(t *testing.T, v string) {
	t.Helper()
	rec := &record{Row: attendance.Row{Receipt: attendance.Receipt{Student: v, School: "north"}}}
	c := ReplayConfig{Path: "/a/{student_id}/b?x={student_id}&y=1", Fields: []Field{{"X-Student", "<{student_id}>"}}, Body: `{"s":"{student_id}","n":{"v":{verified}}}`}
	tm, err := c.template()
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("POST", "http://h"+string(tm.path.append(nil, rec)), nil)
	if err != nil {
		t.Fatalf("%q: the path cannot be read: %v", v, err)
	}
	if got := req.URL.Path; got != "/a/"+v+"/b" || req.URL.Query().Get("x") != v || req.URL.Query().Get("y") != "1" || req.URL.Fragment != "" {
		t.Errorf("%q: got the target %q", v, req.URL)
	}
	value := string(tm.values[0].append(nil, rec))
	for i := range len(value) {
		if value[i] < ' ' || value[i] >= 0x7f {
			t.Errorf("%q: got the field %q", v, value)
			break
		}
	}
	var body struct {
		S string
		N struct{ V bool }
	}
	var want string // bytes that are no text become U+FFFD in JSON
	quoted, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(quoted, &want)
	}
	if err == nil {
		err = json.Unmarshal(tm.body.append(nil, rec), &body)
	}
	if err != nil || body.S != want {
		t.Errorf("%q: got the body %s: %v", v, tm.body.append(nil, rec), err)
	}
	c.ContentType, c.Body = "application/x-www-form-urlencoded; charset=utf-8", "a={student_id}&b={school}"
	if tm, err = c.template(); err != nil {
		t.Fatal(err)
	}
	form, err := http.NewRequest("POST", "http://h/", strings.NewReader(string(tm.body.append(nil, rec))))
	if err != nil {
		t.Fatal(err)
	}
	form.Header.Set("Content-Type", string(tm.contentType.append(nil, rec)))
	if form.FormValue("a") != v || form.FormValue("b") != "north" {
		t.Errorf("%q: got the form %v", v, form.Form)
	}
}

func TestTemplatesThatCannotBeUsedSayWhichPart(t *testing.T) {
	for _, c := range []struct {
		change func(*ReplayConfig)
		part   string
		says   string
	}{
		{func(c *ReplayConfig) { c.Path = "/{studentid}" }, "path", ""},
		{func(c *ReplayConfig) { c.Path = "/{student}" }, "path", "no field {student}"},
		{func(c *ReplayConfig) { c.Path = "attendance" }, "path", "begin with /"},
		{func(c *ReplayConfig) { c.Path = "/%zz" }, "path", "not the path"},
		{func(c *ReplayConfig) { c.Method = "GET" }, "method", "GET"},
		{func(c *ReplayConfig) { c.Body = `{"a": {status}}` }, "body", "outside of a string"},
		{func(c *ReplayConfig) { c.Body = `{"a": "{status}"` }, "body", "not JSON"},
		{func(c *ReplayConfig) { c.ContentType = "application/xml" }, "content_type", "can be escaped"},
		{func(c *ReplayConfig) { c.ContentType = "json" }, "content_type", "can be escaped"},
		{func(c *ReplayConfig) { c.Fields = []Field{{"X", "{cookie}"}} }, "headers", "no field {cookie}"},
		{func(c *ReplayConfig) { c.Body = `{"a":"{body}"}` }, "body", "no field {body}"},
	} {
		conf := ReplayConfig{Path: "/a/{student_id}", Body: `{"a":"\"{status}"}`}
		c.change(&conf)
		err := conf.Check()
		var part *PartError
		if !errors.As(err, &part) || part.Part != c.part || !strings.Contains(part.Reason, c.says) {
			t.Errorf("%+v: got %v, want a word about %s: %s", conf, err, c.part, c.says)
		}
	}
}
