package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

var bell = time.Date(2026, 5, 4, 9, 0, 0, 0, time.FixedZone("", 9*60*60))

func arrival(n int) attendance.Event {
	e := attendance.Event{Kind: attendance.KindArrival, Seq: uint64(n), RawArrival: bell.UTC()}
	e.ID = attendance.ReceiptID{0: byte(n >> 8), 1: byte(n), 6: 0x80, 8: 0x80}
	e.School, e.Class, e.Student = "north", "3b", fmt.Sprintf("s%05d", n)
	e.Date, e.Period, e.Status, e.FirstArrival = timetable.DateOf(bell), "1", timetable.Present, bell
	return e
}

// bulk holds the arrivals at positions [first, next).
func bulk(first, next int) *attendance.Bulk {
	b := &attendance.Bulk{First: uint64(first), Next: uint64(next)}
	for n := first; n < next; n++ {
		b.Events = append(b.Events, arrival(n))
	}
	return b
}

// origin is an endpoint that keeps attendance by key, checks what it is sent,
// and misbehaves as told.
type origin struct {
	t      *testing.T
	mu     sync.Mutex // held by a request; the test takes it where one may not have ended
	server *httptest.Server
	poison map[string]bool // students it chokes on

	answer func(w http.ResponseWriter, students []string) (done bool) // nil: as usual

	requests int
	keys     []string          // Idempotency-Key of each request
	bodies   map[string]string // by Idempotency-Key
	stored   map[string]int    // by key: how often a request that held it was accepted
	fields   http.Header       // of the last request
}

func newOrigin(t *testing.T, poison ...int) *origin {
	o := &origin{t: t, poison: map[string]bool{}, bodies: map[string]string{}, stored: map[string]int{}}
	for _, n := range poison {
		o.poison[arrival(n).Student] = true
	}
	o.server = httptest.NewServer(o)
	t.Cleanup(o.server.Close)
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		o.t.Errorf("reading a request: %v", err)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests++
	o.fields = r.Header.Clone()
	idem := r.Header.Get("Idempotency-Key")
	o.keys = append(o.keys, idem)
	if before, ok := o.bodies[idem]; ok && before != string(body) {
		o.t.Errorf("Idempotency-Key %s came with two different bodies", idem)
	}
	o.bodies[idem] = string(body)
	var records []struct {
		Key     string
		Student string `json:"student_id"`
	}
	if err := json.Unmarshal(body, &records); err != nil || len(records) == 0 {
		o.t.Errorf("body %.100q: %v", body, err)
	}
	var students []string
	poisoned := false
	for _, rec := range records {
		students = append(students, rec.Student)
		poisoned = poisoned || o.poison[rec.Student]
	}
	if o.answer != nil && o.answer(w, students) {
		return
	}
	if poisoned {
		http.Error(w, "cannot take\nthis", http.StatusUnprocessableEntity)
		return
	}
	for _, rec := range records {
		o.stored[rec.Key]++
	}
	w.WriteHeader(http.StatusNoContent)
}

func (o *origin) open(dir string) *Sink {
	o.t.Helper()
	s, err := OpenHTTP(HTTPConfig{Config: Config{Name: "origin", Dir: dir, Endpoint: Endpoint{URL: o.server.URL + "/bulk", Header: http.Header{"authorization": {"Bearer x"}}, Timeout: 10 * time.Second}}})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { s.Close() })
	return s
}

func deliver(s *Sink, b *attendance.Bulk) (attendance.Delivered, error) {
	return s.Deliver(context.Background(), b)
}

func parkedStudents(t *testing.T, dir string) (students, reasons []string) {
	t.Helper()
	for p, err := range ReadParked(dir) {
		if err != nil {
			t.Fatal(err)
		}
		var r struct {
			Student string `json:"student_id"`
			Key     string `json:"key"`
		}
		if err := json.Unmarshal(p.Record, &r); err != nil || r.Key != p.Key {
			t.Errorf("parked record %s: %v, key %q", p.Record, err, p.Key)
		}
		students, reasons = append(students, r.Student), append(reasons, p.Reason)
	}
	return students, reasons
}

func wantPosition(t *testing.T, s *Sink, want attendance.Position) {
	t.Helper()
	onDisk, err := readPosition(s.dir)
	if err != nil || s.at != want || onDisk != want {
		t.Errorf("got position %+v, on disk %+v (%v), want %+v", s.at, onDisk, err, want)
	}
}

func TestBulkIsOneRequest(t *testing.T) {
	o := newOrigin(t)
	s := o.open(t.TempDir())
	done, err := deliver(s, bulk(1, 1001))
	if err != nil || done != (attendance.Delivered{Rows: 1000, Writes: 1}) {
		t.Fatalf("got %+v %v, want 1000 rows in 1 request", done, err)
	}
	if len(o.stored) != 1000 || o.fields.Get("Authorization") != "Bearer x" || o.fields.Get("Content-Type") != "application/json" {
		t.Errorf("got %d records and fields %v", len(o.stored), o.fields)
	}
	wantPosition(t, s, attendance.Position{Next: 1001})
}

func TestBulkOfEvidenceMovesThePositionAlone(t *testing.T) {
	o := newOrigin(t)
	s := o.open(t.TempDir())
	b := &attendance.Bulk{First: 1, Next: 2, Events: []attendance.Event{{Seq: 1, Kind: attendance.KindPresses, Presses: 3}}}
	if _, err := deliver(s, b); err != nil || o.requests != 0 {
		t.Errorf("got %d requests, %v, want 0", o.requests, err)
	}
	wantPosition(t, s, attendance.Position{Next: 2})
}

func TestPoisonRecordsArePartedOut(t *testing.T) {
	o := newOrigin(t, 17, 18, 999)
	dir := t.TempDir()
	s := o.open(dir)
	done, err := deliver(s, bulk(1, 1001))
	if err != nil || done.Rows != 997 || done.Parked != 3 {
		t.Fatalf("got %+v %v, want 997 rows and 3 parked", done, err)
	}
	if done.Writes != o.requests || o.requests > 3*2*11 {
		t.Errorf("got %d writes in %d requests, want equal and at most 66", done.Writes, o.requests)
	}
	students, reasons := parkedStudents(t, dir)
	if want := []string{"s00017", "s00018", "s00999"}; !slices.Equal(students, want) {
		t.Errorf("got parked %v, want %v", students, want)
	}
	if want := "answered 422: cannot take this"; reasons[0] != want {
		t.Errorf("got reason %q, want %q", reasons[0], want)
	}
	for key, times := range o.stored {
		if times != 1 {
			t.Errorf("%s was taken %d times, want once", key, times)
		}
	}
	slices.Sort(o.keys)
	if n := len(slices.Compact(o.keys)); n != o.requests {
		t.Errorf("got %d different Idempotency-Keys in %d requests: halves need their own", n, o.requests)
	}
	wantPosition(t, s, attendance.Position{Next: 1001})
}

func TestVerdictPerRecord(t *testing.T) {
	o := newOrigin(t)
	dir := t.TempDir()
	s := o.open(dir)
	o.answer = func(w http.ResponseWriter, students []string) bool {
		b := bulk(1, 5)
		rows, _ := b.Fold()
		fmt.Fprintf(w, `{"results":[{"key":%q,"result":"stored"},{"key":%q,"result":"duplicate"},{"key":%q,"result":"rejected","reason":"left the school"},{"key":%q,"result":"stored"},{"key":"other","result":"rejected"}]}`,
			rows[0].Key(), rows[1].Key(), rows[2].Key(), rows[3].Key())
		return true
	}
	done, err := deliver(s, bulk(1, 5))
	if err != nil || done != (attendance.Delivered{Rows: 2, Duplicates: 1, Parked: 1, Writes: 1}) {
		t.Fatalf("got %+v %v, want 2 stored, 1 duplicate, 1 parked, 1 request", done, err)
	}
	if students, reasons := parkedStudents(t, dir); !slices.Equal(students, []string{"s00003"}) || reasons[0] != "left the school" {
		t.Errorf("got parked %v %v, want s00003 who left the school", students, reasons)
	}
}

func TestAnswersThatStopAndAnswersThatRepeat(t *testing.T) {
	status := func(code int, fields ...string) func(http.ResponseWriter, []string) bool {
		return func(w http.ResponseWriter, _ []string) bool {
			for i := 0; i < len(fields); i += 2 {
				w.Header().Set(fields[i], fields[i+1])
			}
			w.WriteHeader(code)
			return true
		}
	}
	say := func(body string) func(http.ResponseWriter, []string) bool {
		return func(w http.ResponseWriter, _ []string) bool { io.WriteString(w, body); return true }
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, []string) bool
		stop   bool
		after  time.Duration
	}{
		"401":              {status(401), true, 0},
		"403":              {status(403), true, 0},
		"404":              {status(404), true, 0},
		"405":              {status(405), true, 0},
		"redirect":         {status(302, "Location", "/login"), true, 0},
		"login page":       {say("<html>log in</html>"), true, 0},
		"other JSON":       {say(`{"ok":true}`), true, 0},
		"verdict missing":  {say(`{"results":[]}`), true, 0},
		"verdict unknown":  {say(`{"results":[{"key":"2026-05-04/north/1/s00001","result":"maybe"}]}`), true, 0},
		"500":              {status(500), false, 0},
		"503 with seconds": {status(503, "Retry-After", "7"), false, 7 * time.Second},
		"429 with seconds": {status(429, "Retry-After", "120"), false, 2 * time.Minute},
		"408":              {status(408), false, 0},
		"connection cut":   {func(http.ResponseWriter, []string) bool { panic(http.ErrAbortHandler) }, false, 0},
		"answer cut in a 200": {func(w http.ResponseWriter, _ []string) bool {
			w.Header().Set("Content-Length", "99")
			w.Write([]byte("{"))
			return true
		}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t)
			o.answer = c.answer
			dir := t.TempDir()
			s := o.open(dir)
			_, err := deliver(s, bulk(1, 4))
			var how *attendance.DeliverError
			errors.As(err, &how)
			if err == nil || (how != nil && how.Stop) != c.stop || (how != nil && how.RetryAfter != c.after) {
				t.Fatalf("got %v (%+v), want stop %v and retry after %v", err, how, c.stop, c.after)
			}
			if strings.Contains(err.Error(), o.server.URL) {
				t.Errorf("the error %q tells the URL", err)
			}
			if students, _ := parkedStudents(t, dir); len(students) > 0 {
				t.Errorf("parked %v, want nothing", students)
			}
			wantPosition(t, s, attendance.Position{Next: 1, Until: 4})

			o.mu.Lock()
			first := o.keys[0]
			o.answer = nil
			o.mu.Unlock()
			if done, err := deliver(s, bulk(1, 4)); err != nil || done.Rows != 3 {
				t.Fatalf("after it was put right: got %+v %v, want 3 rows", done, err)
			}
			if last := o.keys[len(o.keys)-1]; last != first {
				t.Errorf("the same bulk came with Idempotency-Key %s, then %s", first, last)
			}
			wantPosition(t, s, attendance.Position{Next: 4})
		})
	}
}

// While halves of a bulk went through and others met a failing origin, only
// those others come again, and nothing is parked twice.
func TestHalvesThatWentThroughAreNotSentAgain(t *testing.T) {
	o := newOrigin(t, 3, 60)
	dir := t.TempDir()
	s := o.open(dir)
	o.answer = func(w http.ResponseWriter, students []string) bool {
		if o.requests == 9 || o.requests == 12 {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	}
	failures := 0
	for {
		_, err := deliver(s, bulk(1, 65))
		if err == nil {
			break
		}
		if failures++; failures > 2 {
			t.Fatal(err)
		}
	}
	for key, times := range o.stored {
		if times != 1 {
			t.Errorf("%s was taken %d times, want once", key, times)
		}
	}
	if students, _ := parkedStudents(t, dir); !slices.Equal(students, []string{"s00003", "s00060"}) || len(o.stored) != 62 || failures != 2 {
		t.Errorf("got parked %v, %d stored after %d failures, want s00003 and s00060, 62 and 2", students, len(o.stored), failures)
	}
}

func TestParkingTooMuchStopsTheSink(t *testing.T) {
	var poison []int
	for n := 1; n <= 2000; n += 50 { // 2 %
		poison = append(poison, n)
	}
	o := newOrigin(t, poison...)
	dir := t.TempDir()
	s := o.open(dir)
	if done, err := deliver(s, bulk(1, 901)); err != nil || done.Parked != 18 {
		t.Fatalf("got %+v %v, want 18 parked: fewer than 20 never stop", done, err)
	}
	_, err := deliver(s, bulk(901, 1901))
	var how *attendance.DeliverError
	if !errors.As(err, &how) || !how.Stop {
		t.Fatalf("got %v, want the sink to stop", err)
	}
	if students, _ := parkedStudents(t, dir); len(students) != 18 {
		t.Errorf("got %d parked after the stop, want the 18 of before", len(students))
	}
	wantPosition(t, s, attendance.Position{Next: 901, Until: 1901})
	o.poison = nil
	if done, err := deliver(s, bulk(901, 1901)); err != nil || done.Parked != 0 {
		t.Errorf("after it was put right: got %+v %v, want nothing parked", done, err)
	}
}

// A crash between sending and moving on repeats the same bulk, whatever the
// size of bulks is by then.
func TestCrashRepeatsTheSameBulk(t *testing.T) {
	o := newOrigin(t)
	dir := t.TempDir()
	s := o.open(dir)
	if _, err := deliver(s, bulk(1, 11)); err != nil {
		t.Fatal(err)
	}
	o.answer = func(w http.ResponseWriter, students []string) bool { w.WriteHeader(500); return true }
	if _, err := deliver(s, bulk(11, 21)); err == nil {
		t.Fatal("got no error of a 500")
	}
	again := o.open(dir) // what the next process sees
	at, err := again.Position(context.Background())
	if want := (attendance.Position{Next: 11, Until: 21}); err != nil || at != want {
		t.Errorf("got %+v %v, want %+v", at, err, want)
	}
	o.answer = nil
	if _, err := deliver(again, bulk(11, 21)); err != nil || o.keys[1] != o.keys[2] {
		t.Errorf("got %v, keys %v, want the same key twice", err, o.keys[1:])
	}
}

func TestTornParkedLineAndDamagedPosition(t *testing.T) {
	o := newOrigin(t, 2)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, parkedFile), []byte(`{"time":"2026-05-04T00:00:00Z","posi`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := o.open(dir)
	if _, err := deliver(s, bulk(1, 4)); err != nil {
		t.Fatal(err)
	}
	if students, _ := parkedStudents(t, dir); !slices.Equal(students, []string{"s00002"}) {
		t.Errorf("got parked %v, want s00002", students)
	}
	if err := os.WriteFile(filepath.Join(dir, positionFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenHTTP(HTTPConfig{Config: Config{Name: "x", Dir: dir, Endpoint: Endpoint{URL: o.server.URL}}}); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("got %v, want an error with a way out", err)
	}
	for _, u := range []string{"", "ftp://x/", "http://", "http://a b/"} {
		if _, err := OpenHTTP(HTTPConfig{Config: Config{Name: "x", Dir: t.TempDir(), Endpoint: Endpoint{URL: u}}}); err == nil {
			t.Errorf("OpenHTTP(%q): got no error", u)
		}
	}
}
