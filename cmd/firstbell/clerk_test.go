package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/attendance"
	"firstbell/cmd/firstbell/handover"
)

// deskOf is a desk that answers as it is told.
type deskOf struct {
	mu   sync.Mutex // guards all
	err  error
	came int

	asked func() // before it answers; may be nil
}

func (d *deskOf) Take(context.Context, attendance.Press) (attendance.Receipt, error) {
	if d.asked != nil {
		d.asked()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.came++
	return attendance.Receipt{Student: "s1"}, d.err
}

func (d *deskOf) Collect(context.Context, attendance.Item) (attendance.ReceiptID, error) {
	if d.asked != nil {
		d.asked()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.came++
	return attendance.ReceiptID{1}, d.err
}

func TestCheckInsWaitWhileTheJournalChangesHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk()
		before, after := &deskOf{err: &attendance.Refused{Err: attendance.ErrStopped}}, &deskOf{}
		c.goTo(before, nil)
		if _, err := c.Take(t.Context(), attendance.Press{}); !errors.Is(err, attendance.ErrStopped) {
			t.Errorf("at the end of all: got %v, want ErrStopped at once", err)
		}
		c.hold()
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				var err error
				if i%2 == 0 {
					_, err = c.Take(t.Context(), attendance.Press{})
				} else {
					_, err = c.Collect(t.Context(), attendance.Item{})
				}
				if took := time.Since(began); err != nil || took != 1900*time.Millisecond {
					t.Errorf("got %v after %v, want a receipt as soon as the journal is there", err, took)
				}
			})
		}
		synctest.Wait()
		time.Sleep(time.Second)
		c.goTo(&deskOf{err: before.err, asked: sync.OnceFunc(c.hold)}, nil) // one who stops just then is no answer either
		time.Sleep(900 * time.Millisecond)
		c.goTo(after, nil)
		wg.Wait()
		if after.came != 100 || c.waiting.Load() != 0 || c.refused.Load() != 0 {
			t.Errorf("%d came, %d wait, %d refused; want 100, 0, 0", after.came, c.waiting.Load(), c.refused.Load())
		}
	})
}

// told is who does not wait, and is told.
type told struct {
	pending attendance.Pending
	done    chan struct{}
	receipt attendance.Receipt
	err     error
}

func (w *told) Settled(r attendance.Receipt, err error) { w.receipt, w.err = r, err; close(w.done) }

func TestWhoDoesNotWaitIsToldByWhoHasTheJournalNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk()
		press, item := &told{done: make(chan struct{})}, &told{done: make(chan struct{})}
		if _, waits, err := c.Submit(attendance.Press{}, &press.pending, press); !waits || err != nil {
			t.Errorf("a press: waits %v, %v; want it to wait", waits, err)
		}
		if _, waits, err := c.SubmitItem(attendance.Item{}, &item.pending, item); !waits || err != nil {
			t.Errorf("an item: waits %v, %v; want it to wait", waits, err)
		}
		synctest.Wait()
		c.goTo(&deskOf{}, nil)
		<-press.done
		<-item.done
		if press.err != nil || press.receipt.Student != "s1" {
			t.Errorf("a press: got %+v, %v", press.receipt, press.err)
		}
		if item.err != nil || item.receipt.ID != (attendance.ReceiptID{1}) {
			t.Errorf("an item: got %+v, %v", item.receipt, item.err)
		}
	})
}

func TestWhoWaitsInVainIsToldInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk()
		for _, c2 := range []struct {
			name string
			to   *deskOf
		}{{"nobody has the journal", nil}, {"the next process is gone", &deskOf{err: handover.ErrGone}}} {
			if c2.to == nil {
				c.hold()
			} else {
				c.goTo(c2.to, nil)
			}
			began := time.Now()
			_, err := c.Take(t.Context(), attendance.Press{})
			var refused *attendance.Refused
			if took := time.Since(began); !errors.As(err, &refused) || refused.RetryAfter < time.Second || took != clerkPatience {
				t.Errorf("%s: got %v after %v, want a *Refused after %v", c2.name, err, took, clerkPatience)
			}
		}
		c.waiting.Store(clerkQueue)
		began := time.Now()
		if _, err := c.Take(t.Context(), attendance.Press{}); err == nil || time.Since(began) != 0 {
			t.Errorf("too many wait: got %v after %v, want a refusal at once", err, time.Since(began))
		}
		if c.refused.Load() != 3 {
			t.Errorf("counted %d in vain, want 3", c.refused.Load())
		}
	})
}

func TestAnswersSurviveTheWayBetweenProcesses(t *testing.T) {
	for _, err := range []error{
		nil,
		&attendance.FieldError{Field: "student", Reason: "is missing"},
		&attendance.Refused{RetryAfter: time.Second, FirstSeen: "token", Err: attendance.ErrBusy},
		&attendance.Refused{RetryAfter: time.Minute, Err: attendance.ErrDown},
	} {
		var a DeskAnswer
		a.say(err)
		got := a.err()
		var was, is *attendance.Refused
		if errors.As(err, &was) && errors.As(got, &is) {
			if is.RetryAfter != was.RetryAfter || is.FirstSeen != was.FirstSeen || errors.Is(got, attendance.ErrBusy) != errors.Is(err, attendance.ErrBusy) {
				t.Errorf("got %+v, want %+v", is, was)
			}
			continue
		}
		if (got == nil) != (err == nil) || err != nil && got.Error() != err.Error() {
			t.Errorf("got %v, want %v", got, err)
		}
	}
}
