package admission

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Limiter hands out a bounded number of places. All methods may be called at
// once from many goroutines.
type Limiter struct {
	mu      sync.Mutex // guards everything below
	max     int
	queue   int // how many may wait
	waitMax time.Duration
	inUse   int
	waiting line
	pace    pace

	admitted, refused, timedOut, cancelled uint64
}

// Busy says that no place could be had: the queue is full, or the wait took
// longer than allowed. Nothing is held.
type Busy struct {
	// RetryAfter is when to come back: at least a second, at most a minute,
	// growing with the time the queue takes to drain, different for each.
	RetryAfter time.Duration
	// Waited tells a wait that took too long from a queue that was full.
	Waited bool
}

func (b *Busy) Error() string {
	why := "the queue is full"
	if b.Waited {
		why = "no place became free in time"
	}
	return fmt.Sprintf("waiting for a place: %s; come back in %v", why, b.RetryAfter.Round(time.Second))
}

// Stats are the figures of one moment, and totals since New.
type Stats struct {
	Max     int // places there are
	InUse   int // places held; above Max only after Resize lowered it
	Waiting int // callers in the queue

	Admitted  uint64 // Acquire returned nil
	Refused   uint64 // *Busy because the queue was full
	TimedOut  uint64 // *Busy because the wait took too long
	Cancelled uint64 // left the queue, or never joined it, because of their context
}

// New returns a limiter of max places, where up to queue callers wait up to
// maxWait each. A max below 1 means 1; a queue or maxWait of 0 or below means
// that nobody waits.
func New(max, queue int, maxWait time.Duration) *Limiter {
	l := &Limiter{}
	l.Resize(max, queue, maxWait)
	return l
}

// Acquire returns nil once a place is held, which Release gives back. Places
// go to callers in the order they came. It returns a *Busy when the queue is
// full or the wait was too long, and the context's error when ctx is done
// first; then no place is held. Without a queue it does not allocate.
func (l *Limiter) Acquire(ctx context.Context) error {
	l.mu.Lock()
	if err := ctx.Err(); err != nil {
		l.cancelled++
		l.mu.Unlock()
		return err
	}
	if l.inUse < l.max && l.waiting.n == 0 {
		l.enterLocked()
		l.mu.Unlock()
		return nil
	}
	if l.waiting.n >= l.queue || l.waitMax <= 0 {
		l.refused++
		busy := l.busyLocked(false)
		l.mu.Unlock()
		return busy
	}
	w := &waiter{admitted: make(chan struct{})}
	l.waiting.push(w)
	waitMax := l.waitMax
	l.mu.Unlock()
	return l.wait(ctx, w, waitMax)
}

// wait returns when w is admitted, ctx is done or waitMax has passed.
func (l *Limiter) wait(ctx context.Context, w *waiter, waitMax time.Duration) error {
	timer := time.NewTimer(waitMax)
	defer timer.Stop()
	select {
	case <-w.admitted:
		return nil
	case <-ctx.Done():
		return l.leave(ctx, w)
	case <-timer.C:
		return l.giveUp(w)
	}
}

// leave takes w, whose context is done, out of the queue. A place handed to it
// meanwhile goes to the next.
func (l *Limiter) leave(ctx context.Context, w *waiter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancelled++
	if w.queued {
		l.waiting.remove(w)
		return ctx.Err()
	}
	l.admitted-- // it never came to use the place
	l.releaseLocked()
	return ctx.Err()
}

// giveUp takes w, which waited too long, out of the queue. A place handed to
// it at the last moment is kept: the caller still wants it.
func (l *Limiter) giveUp(w *waiter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !w.queued {
		return nil
	}
	l.waiting.remove(w)
	l.timedOut++
	return l.busyLocked(true)
}

// Release gives back a place that Acquire took. It panics when none is held:
// a place given back twice would let one request too many in.
func (l *Limiter) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inUse == 0 {
		panic("admission: Release of a place that nobody holds")
	}
	l.releaseLocked()
}

// Resize sets new limits at once. More places go to those who wait; with fewer,
// places held stay held and nobody new is let in until enough are given back.
// Who waits already keeps its turn and its own maxWait.
func (l *Limiter) Resize(max, queue int, maxWait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wasFull := l.fullLocked()
	l.max, l.queue, l.waitMax = max, queue, maxWait
	if l.max < 1 {
		l.max = 1
	}
	l.admitLocked()
	l.pace.mark(wasFull, l.fullLocked())
}

// Stats returns the figures of this moment.
func (l *Limiter) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{
		Max: l.max, InUse: l.inUse, Waiting: l.waiting.n,
		Admitted: l.admitted, Refused: l.refused, TimedOut: l.timedOut, Cancelled: l.cancelled,
	}
}

func (l *Limiter) fullLocked() bool { return l.max > 0 && l.inUse >= l.max }

func (l *Limiter) enterLocked() {
	l.inUse++
	l.admitted++
	if l.inUse == l.max {
		l.pace.mark(false, true)
	}
}

func (l *Limiter) releaseLocked() {
	wasFull := l.fullLocked()
	if wasFull {
		l.pace.released++
	}
	l.inUse--
	l.admitLocked()
	l.pace.mark(wasFull, l.fullLocked())
}

// admitLocked lets in who is next for as long as there are places.
func (l *Limiter) admitLocked() {
	for l.inUse < l.max {
		w := l.waiting.next()
		if w == nil {
			return
		}
		l.inUse++
		l.admitted++
		close(w.admitted)
	}
}

func (l *Limiter) busyLocked(waited bool) *Busy {
	return &Busy{RetryAfter: l.pace.retryAfter(l.waiting.n + 1), Waited: waited}
}
