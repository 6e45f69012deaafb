package attendance

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/attendance/timetable"
)

var errDisk = errors.New("input/output error")

// fakeLog is a journal in memory that checks how it is used: one Append at a
// time, no empty ones, and nothing of the records kept by reference.
type fakeLog struct {
	mu       sync.Mutex
	busy     bool
	records  [][]byte
	appends  int
	fail     error         // what Append answers
	keeps    bool          // a failing Append leaves the records on disk all the same
	takes    time.Duration // how long a sync takes
	misused  string
	onAppend func()
}

func (l *fakeLog) Append(records [][]byte) (uint64, error) {
	l.mu.Lock()
	if l.busy {
		l.misused = "two appends at once"
	}
	if len(records) == 0 {
		l.misused = "an append of nothing"
	}
	l.busy = true
	l.appends++
	fail, keeps, takes := l.fail, l.keeps, l.takes
	l.mu.Unlock()
	if takes > 0 {
		time.Sleep(takes)
	}
	if l.onAppend != nil {
		l.onAppend()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
	first := uint64(len(l.records)) + 1
	if fail == nil || keeps {
		for _, r := range records {
			l.records = append(l.records, slices.Clone(r))
		}
	}
	return first, fail
}

func (l *fakeLog) set(fail error, keeps bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail, l.keeps = fail, keeps
}

func (l *fakeLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appends
}

// journal reads the log back; positions begin at 1.
func (l *fakeLog) journal(from uint64) iter.Seq2[Record, error] {
	l.mu.Lock()
	records := slices.Clone(l.records)
	l.mu.Unlock()
	return func(yield func(Record, error) bool) {
		for i, data := range records {
			if seq := uint64(i) + 1; seq >= from && !yield(Record{Seq: seq, Data: data}, nil) {
				return
			}
		}
	}
}

func (l *fakeLog) events(t testing.TB) []Event {
	t.Helper()
	var events []Event
	for rec := range l.journal(0) {
		e, err := DecodeEvent(rec.Data)
		if err != nil {
			t.Fatalf("record %d: %v", rec.Seq, err)
		}
		e.Seq = rec.Seq
		events = append(events, e)
	}
	return events
}

func (l *fakeLog) rows(t testing.TB) []Row {
	t.Helper()
	var f Fold
	for _, e := range l.events(t) {
		f.Add(&e)
	}
	return f.Rows()
}

func mustTimetable(t testing.TB) *timetable.Timetable {
	t.Helper()
	tt, err := timetable.New(timetable.Spec{
		Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"},
		Periods: []timetable.PeriodSpec{
			{Name: "1", Starts: "09:00", LateAfter: "09:10", Ends: "09:45"},
			{Name: "2", Starts: "09:55", LateAfter: "10:05", Ends: "10:40"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tt
}

// seoul is nine hours ahead of UTC, so that a bubble's clock, which begins at
// midnight UTC on 2000-01-01, begins with the first period.
var seoul = time.FixedZone("Seoul", 9*60*60)

func mustSchools(t testing.TB, entries ...SchoolEntry) *Schools {
	t.Helper()
	s, err := NewSchools(seoul, mustTimetable(t), entries)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustSecret(t testing.TB) Secret {
	t.Helper()
	s, err := OpenSecret(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustNew(t testing.TB, c Config) *Recorder {
	t.Helper()
	if c.Schools == nil {
		c.Schools = mustSchools(t)
	}
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run starts the recorder's writer; the returned function ends it and waits.
func run(t testing.TB, r *Recorder) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// bubble runs f at nine in the morning of 2000-01-01 in Seoul, with a recorder
// on a fake log.
func bubble(t *testing.T, f func(t *testing.T, l *fakeLog, r *Recorder)) {
	t.Helper()
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		r := mustNew(t, Config{Log: l, Secret: secret})
		stop := run(t, r)
		f(t, l, r)
		if err := stop(); err != nil && l.fail == nil {
			t.Errorf("Run: %v", err)
		}
		if l.misused != "" {
			t.Error("the journal was misused: " + l.misused)
		}
	})
}

func press(student string) Press {
	return Press{Host: "north.school.example", Student: student, Class: "3b"}
}

func take(t testing.TB, r *Recorder, p Press) Receipt {
	t.Helper()
	receipt, err := r.Take(context.Background(), p)
	if err != nil {
		t.Fatalf("Take(%+v): %v", p, err)
	}
	return receipt
}

// sameReceipt compares what students see.
func sameReceipt(t testing.TB, what string, got, want Receipt) {
	t.Helper()
	if g, w := string(got.AppendJSON(nil)), string(want.AppendJSON(nil)); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}
