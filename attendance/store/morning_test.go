package store

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
	"firstbell/attendance/wal"
)

// morning is a journal on disk with a recorder, and a store it is delivered to.
type morning struct {
	t        *testing.T
	dir      string
	log      *wal.Log
	recorder *attendance.Recorder
	delivery *attendance.Delivery
	stop     func()
}

func (m *morning) begin(s Store) {
	t := m.t
	t.Helper()
	var err error
	must := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	journal := filepath.Join(m.dir, "journal")
	m.log, err = wal.Open(wal.Options{Dir: journal, SegmentBytes: 64 << 10})
	must()
	secret, err := attendance.OpenSecret(journal, m.log.Next() == 1)
	must()
	always, err := timetable.New(timetable.Spec{
		Days:    []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"},
		Periods: []timetable.PeriodSpec{{Name: "all day", Starts: "00:00", LateAfter: "24:00", Ends: "24:00"}},
	})
	must()
	schools, err := attendance.NewSchools(nil, always, nil)
	must()
	again, err := wal.OpenReader(journal)
	must()
	m.delivery = attendance.NewDelivery(attendance.DeliveryConfig{
		Name: "store", Journal: attendance.ReadJournal(again), Target: s, End: m.log.Next, Gather: 20 * time.Millisecond,
	})
	before, err := wal.OpenReader(journal)
	must()
	m.recorder, err = attendance.New(attendance.Config{
		Log: m.log, Journal: attendance.ReadJournal(before), Secret: secret, Schools: schools,
		MaxBatchBytes: 16 << 10, OnAppend: m.delivery.Notify,
	})
	must()
	err = before.Close()
	must()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.recorder.Run(ctx); err != nil {
			t.Errorf("Recorder.Run: %v", err)
		}
	})
	running.Go(func() { m.delivery.Run(ctx) })
	m.stop = func() {
		cancel()
		running.Wait()
		if err := m.delivery.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		again.Close()
		if err := m.log.Close(); err != nil {
			t.Error(err)
		}
	}
}

// press lets so many students, from one on, press twice, from many sides at
// once, and returns the receipts by student.
func (m *morning) press(from, students int) map[string]attendance.Receipt {
	var mu sync.Mutex
	receipts := make(map[string]attendance.Receipt)
	var pressing sync.WaitGroup
	for side := range 50 {
		pressing.Go(func() {
			for n := from + side/2; n < from+students; n += 25 {
				p := attendance.Press{Host: fmt.Sprintf("school-%d.example", n%40), Student: fmt.Sprintf("s%05d", n), Class: fmt.Sprint(n % 7)}
				got, err := m.recorder.Take(context.Background(), p)
				if err != nil {
					m.t.Error(err)
					return
				}
				mu.Lock()
				if other, ok := receipts[p.Student]; ok && string(other.AppendJSON(nil)) != string(got.AppendJSON(nil)) {
					m.t.Errorf("%s got %s and %s", p.Student, other.AppendJSON(nil), got.AppendJSON(nil))
				}
				receipts[p.Student] = got
				mu.Unlock()
			}
		})
	}
	pressing.Wait()
	return receipts
}

// Receipts go on while the store is locked by somebody else; afterwards each is
// in the store, once, as it was given, in few statements. After a restart the
// same presses get the same receipts.
func morningWithAStoreThatIsLocked(t *testing.T, b base) {
	const students = 400
	m := &morning{t: t, dir: t.TempDir()}
	s := open(t, b.Options)
	unlock := b.lock(t)
	m.begin(s)
	receipts := m.press(0, students)
	unlock()
	m.stop()

	check := func(when string) {
		t.Helper()
		stored := rows(t, s, Filter{})
		if len(stored) != students || len(receipts) != students {
			t.Errorf("%s: got %d receipts and %d rows, want %d of each", when, len(receipts), len(stored), students)
		}
		for i := range stored {
			want := receipts[stored[i].Student]
			if string(stored[i].AppendJSON(nil)) != string(want.AppendJSON(nil)) || stored[i].Presses < 2 {
				t.Errorf("%s:\n   row %s with %d presses\nreceipt %s", when, stored[i].AppendJSON(nil), stored[i].Presses, want.AppendJSON(nil))
			}
		}
	}
	check("afterwards")
	if got := s.Writes(); got > 2*(2*students/attendance.DefaultBulkMax+4) {
		t.Errorf("got %d statements for %d check-ins and their counts", got, students)
	}

	m.begin(s)
	for student, again := range m.press(0, students) {
		first := receipts[student]
		if string(again.AppendJSON(nil)) != string(first.AppendJSON(nil)) {
			t.Errorf("after a restart:\n got %s\nwant %s", again.AppendJSON(nil), first.AppendJSON(nil))
		}
	}
	m.stop()
	check("after a restart")
}
