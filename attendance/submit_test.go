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

func submitItem(r *Recorder, it Item) *heard {
	w := &heard{done: make(chan struct{})}
	id, waits, err := r.SubmitItem(it, &w.pending, w)
	if !waits {
		w.Settled(Receipt{ID: id}, err)
	}
	return w
}

func TestWhoDoesNotWaitWithAnItemIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		l.takes = 500 * time.Millisecond
		first, same := submitItem(r, beacon("a", "1")), submitItem(r, beacon("a", "2"))
		pressed := submit(r, press("a"))
		unfit := submitItem(r, beacon("", "1"))
		<-unfit.done
		var field *FieldError
		if !errors.As(unfit.err, &field) {
			t.Errorf("got %v, want a FieldError at once", unfit.err)
		}
		synctest.Wait()
		for _, w := range []*heard{first, same, pressed} {
			select {
			case <-w.done:
				t.Errorf("told %v, %v before anything was on disk", w.receipt, w.err)
			default:
			}
		}
		for _, w := range []*heard{first, same, pressed} {
			if <-w.done; w.err != nil || w.receipt.ID == (ReceiptID{}) {
				t.Errorf("got %v, %v; want a receipt", w.receipt.ID, w.err)
			}
		}
		if first.receipt.ID != same.receipt.ID || first.receipt.ID != collect(t, r, beacon("a", "1")) || pressed.receipt.ID == first.receipt.ID {
			t.Errorf("got %v and %v for one key, %v for a press", first.receipt.ID, same.receipt.ID, pressed.receipt.ID)
		}
		again := submitItem(r, beacon("a", "1"))
		if <-again.done; again.err != nil || again.receipt.ID != first.receipt.ID {
			t.Errorf("again: got %v, %v; want the same receipt at once", again.receipt.ID, again.err)
		}
		if got := len(l.kept(t)); got != 1 {
			t.Errorf("got %d on disk, want the first", got)
		}
		l.set(errDisk, false)
		down := submitItem(r, beacon("b", "1"))
		var refused *Refused
		if <-down.done; !errors.As(down.err, &refused) || !errors.Is(down.err, ErrDown) || refused.FirstSeen != "" {
			t.Errorf("got %v, want ErrDown and no token", down.err)
		}
		if n := r.Stats().Waiting; n != 0 {
			t.Errorf("got %d who wait, want none", n)
		}
	})
}
