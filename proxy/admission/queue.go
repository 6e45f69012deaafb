package admission

// waiter is one caller in the queue. Its fields but the channel are guarded by
// the Limiter's mutex.
type waiter struct {
	admitted   chan struct{} // closed when a place is handed over
	queued     bool          // still in the line
	prev, next *waiter
}

// line is the queue: a list, because waiters leave from the middle.
type line struct {
	first, last *waiter
	n           int
}

func (q *line) push(w *waiter) {
	w.queued = true
	w.prev = q.last
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
	q.n++
}

// next takes out whose turn it is, nil when nobody waits. Today that is who
// came first.
func (q *line) next() *waiter {
	w := q.first
	if w != nil {
		q.remove(w)
	}
	return w
}

func (q *line) remove(w *waiter) {
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	q.n--
}
