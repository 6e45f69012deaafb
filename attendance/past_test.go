package attendance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"
)

// archive is a journal whose beginning is gone, and a store that has it.
type archive struct {
	fakeLog
	begins  atomic.Uint64
	asked   []string
	fail    error
	removed func() // called while the journal is being read
}

func newArchive(n int) *archive {
	a := &archive{}
	for i := range n {
		e := sampleEvent()
		e.ID[0], e.ID[1], e.Student = byte(i), byte(i>>8), fmt.Sprint(i)
		a.records = append(a.records, appendArrival(nil, &e))
	}
	a.begins.Store(1)
	return a
}

func (a *archive) journal(from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if a.removed != nil {
			a.removed()
		}
		for rec := range a.fakeLog.journal(max(from, a.begins.Load())) {
			if !yield(rec, nil) {
				return
			}
		}
	}
}

func (a *archive) past(_ context.Context, from, to uint64, limit int) ([]Row, error) {
	a.asked = append(a.asked, fmt.Sprintf("%d-%d", from, to))
	if a.fail != nil {
		return nil, a.fail
	}
	var rows []Row
	for rec := range a.fakeLog.journal(from) {
		if rec.Seq >= to || len(rows) == limit {
			break
		}
		e, err := DecodeEvent(rec.Data)
		if err != nil {
			return nil, err
		}
		e.Seq = rec.Seq
		row, _ := RowOf(&e)
		rows = append(rows, row)
	}
	return rows, nil
}

func (a *archive) delivery(at Position, bulkMax int) (*Delivery, *fakeTarget) {
	target := &fakeTarget{at: at}
	return NewDelivery(DeliveryConfig{Name: "sink", Journal: a.journal, Past: a.past, Begins: a.begins.Load, Target: target, BulkMax: bulkMax}), target
}

func TestASinkThatLagsPastTheJournalReadsTheStore(t *testing.T) {
	a := newArchive(100)
	a.begins.Store(51)
	d, target := a.delivery(Position{Next: 11}, 15)
	if err := d.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(target.bulks); target.rows.Len() != 90 || got != "[15 15 15 15 15 15]" || target.misused != "" {
		t.Errorf("got %d rows in bulks %s (%s), want all 90 from record 11 on", target.rows.Len(), got, target.misused)
	}
	if s := d.Stats(); s.FromPast != 40 {
		t.Errorf("got %d rows of the past, want 40", s.FromPast)
	}
}

func TestANewSinkBeginsWithTheJournal(t *testing.T) {
	a := newArchive(100)
	a.begins.Store(51)
	d, target := a.delivery(Position{}, 1000)
	target.at.Next = 0
	target.from = 51
	if err := d.Drain(t.Context()); err != nil || target.rows.Len() != 50 || len(a.asked) != 0 {
		t.Errorf("got %d rows, %v, the store asked for %v, want the 50 of the journal", target.rows.Len(), err, a.asked)
	}
}

func TestABulkThatWasBegunComesFromStoreAndJournalTogether(t *testing.T) {
	a := newArchive(100)
	a.begins.Store(31)
	d, target := a.delivery(Position{Next: 21, Until: 61}, 10)
	if err := d.Drain(t.Context()); err != nil || target.bulks[0] != 40 || target.rows.Len() != 80 {
		t.Errorf("got bulks %v, %v, want one of 40 first", target.bulks, err)
	}
}

// Segments may go while they are being read: what the reader passed over then
// is asked of the store.
func TestWhatIsRemovedWhileItIsReadIsNotMissed(t *testing.T) {
	a := newArchive(100)
	d, target := a.delivery(Position{Next: 11}, 1000)
	a.removed = func() { a.begins.Store(81) }
	if err := d.Drain(t.Context()); err != nil || target.rows.Len() != 90 || target.misused != "" {
		t.Errorf("got %d rows, %v (%s), want all 90", target.rows.Len(), err, target.misused)
	}
}

func TestAStoreThatIsDownHoldsUpOnlyWhoNeedsIt(t *testing.T) {
	a := newArchive(100)
	a.begins.Store(51)
	a.fail = errors.New("connection refused")
	d, target := a.delivery(Position{Next: 11}, 1000)
	if _, err := d.step(t.Context(), 0); !errors.Is(err, a.fail) || target.rows.Len() != 0 {
		t.Errorf("got %v and %d rows, want the store's error and nothing passed over", err, target.rows.Len())
	}
	a.fail = nil
	if err := d.Drain(t.Context()); err != nil || target.rows.Len() != 90 {
		t.Errorf("after it came back: got %d rows, %v, want 90", target.rows.Len(), err)
	}
}

func TestWhatNobodyHasIsPassedOver(t *testing.T) {
	a := newArchive(100)
	a.begins.Store(51)
	target := &fakeTarget{at: Position{Next: 11}}
	d := NewDelivery(DeliveryConfig{Name: "sink", Journal: a.journal, Begins: a.begins.Load, Target: target})
	if err := d.Drain(t.Context()); err != nil || target.rows.Len() != 50 {
		t.Errorf("got %d rows, %v, want the 50 that are there", target.rows.Len(), err)
	}
}
