package bell

import (
	"sync"
	"time"
)

// agenda holds errands by the time they fall due: a binary heap.
type agenda struct {
	wake chan struct{} // told when the earliest errand changes

	mu   sync.Mutex // guards heap
	heap []errand
}

// push adds an errand.
func (a *agenda) push(e errand) {
	a.mu.Lock()
	h := append(a.heap, e)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if h[up].due <= h[i].due {
			break
		}
		h[up], h[i] = h[i], h[up]
		i = up
	}
	a.heap = h
	a.mu.Unlock()
	if i == 0 {
		a.nudge()
	}
}

// nudge makes the ringer look again.
func (a *agenda) nudge() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// pop takes the earliest errand if it is due by now; otherwise it says when the
// earliest will be.
func (a *agenda) pop(now time.Duration) (e errand, due time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.heap
	if len(h) == 0 {
		return e, now + time.Minute, false
	}
	if h[0].due > now {
		return e, h[0].due, false
	}
	e = h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], errand{}
	h = h[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if h[child].due < h[least].due {
				least = child
			}
		}
		if least == i {
			break
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
	a.heap = h
	return e, 0, true
}

// lane is a bounded set of workers, each with a connection of its own. Errands
// beyond it wait their turn; a student has at most a handful in it.
type lane struct {
	max   int
	spawn func(*lane)

	mu      sync.Mutex // guards what follows
	ready   sync.Cond
	queue   []errand // from head on
	head    int
	idle    int
	workers int
	closed  bool
}

func newLane(max int, spawn func(*lane)) *lane {
	l := &lane{max: max, spawn: spawn}
	l.ready.L = &l.mu
	return l
}

// offer queues an errand and sees to it that somebody takes it.
func (l *lane) offer(e errand) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, e)
	switch {
	case l.idle > 0:
		l.ready.Signal()
	case l.workers < l.max:
		l.workers++
		l.spawn(l)
	}
}

// take waits for an errand; false when the lane is closed.
func (l *lane) take() (errand, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.head == len(l.queue) && !l.closed {
		l.idle++
		l.ready.Wait()
		l.idle--
	}
	if l.closed {
		return errand{}, false
	}
	e := l.queue[l.head]
	l.queue[l.head] = errand{}
	l.head++
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	} else if l.head >= 4096 && l.head*2 > len(l.queue) {
		l.queue = append(l.queue[:0], l.queue[l.head:]...)
		l.head = 0
	}
	return e, true
}

func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.ready.Broadcast()
}
