package attendance

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// heard is who hears of presses that were submitted.
type heard struct {
	pending Pending
	receipt Receipt
	err     error
	done    chan struct{}
}

func (w *heard) Settled(r Receipt, err error) { w.receipt, w.err = r, err; close(w.done) }

// submit returns at once; the answer is told later or, already, now.
func submit(r *Recorder, p Press) *heard {
	w := &heard{done: make(chan struct{})}
	receipt, waits, err := r.Submit(p, &w.pending, w)
	if !waits {
		w.Settled(receipt, err)
	}
	return w
}

func TestWhoDoesNotWaitIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		l.takes = 500 * time.Millisecond
		first, same := submit(r, press("a")), submit(r, press("a"))
		synctest.Wait()
		more := submit(r, press("b")) // joins the batch behind
		verified := press("a")
		verified.Verified = true
		better := submit(r, verified) // is to take the first one's place once that is durable
		unfit := submit(r, press(""))
		<-unfit.done
		var field *FieldError
		if !errors.As(unfit.err, &field) {
			t.Errorf("got %v, want a FieldError at once", unfit.err)
		}
		synctest.Wait()
		for _, w := range []*heard{first, same, more, better} {
			select {
			case <-w.done:
				t.Errorf("told %v, %v before anything was on disk", w.receipt, w.err)
			default:
			}
		}
		if n := r.Stats().Waiting; n != 4 {
			t.Errorf("got %d who wait, want 4", n)
		}
		for _, w := range []*heard{first, same, more, better} {
			if <-w.done; w.err != nil {
				t.Errorf("got %v, want a receipt", w.err)
			}
		}
		sameReceipt(t, "pressed twice", same.receipt, first.receipt)
		if better.receipt.ID != first.receipt.ID || !better.receipt.Verified {
			t.Errorf("got %+v, want the same receipt, verified", better.receipt)
		}
		again := submit(r, press("b"))
		<-again.done
		sameReceipt(t, "pressed again", again.receipt, more.receipt)
		l.set(errDisk, false)
		down := submit(r, press("c"))
		var refused *Refused
		if <-down.done; !errors.As(down.err, &refused) || !errors.Is(down.err, ErrDown) || refused.FirstSeen == "" {
			t.Errorf("got %v, want ErrDown and when it was first seen", down.err)
		}
		if n := r.Stats().Waiting; n != 0 {
			t.Errorf("got %d who wait, want none", n)
		}
	})
}
