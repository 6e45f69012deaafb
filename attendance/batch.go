package attendance

// seatsPerWake is how many waiters share one channel. Waking 10,000 from one
// channel in one go costs a quarter of a second; in these portions the first of
// them answer while the rest are still being woken.
const seatsPerWake = 128

// batch is what one append will make durable.
type batch struct {
	seq uint32

	// Guarded by Recorder.mu while the batch is open; then the writer's alone.
	buf   []byte // events, back to back
	ends  []int  // where each of them ends
	items []item // what joins the roll with each check-in
	noted []dayNote

	// What is collected has buffers of its own, so that it never takes the room
	// of check-ins. Its events follow those above.
	itemBuf  []byte
	itemEnds []int
	itemIDs  []ReceiptID

	// Guarded by Recorder.mu until the batch is settled.
	wakes   []chan struct{}
	seats   int      // with a share of a channel
	pending *Pending // a list by next

	err error // why nothing was promised; written before the wakes are closed
}

// item is a key that a batch put on the roll, and what it replaced.
type item struct {
	day *day
	id  ReceiptID
	old entry
	had bool // old was on the roll

	record int // which of the batch's records puts it there
}

// seat gives a press of e's key its place: p's, which is told when the batch is
// settled, or with p nil a channel that is closed then. The Recorder's mu is
// held.
func (b *batch) seat(e entry, again bool, p *Pending) seat {
	s := seat{entry: e, batch: b, again: again}
	if p != nil {
		p.seat, p.next = s, b.pending
		b.pending = p
		return s
	}
	if b.seats%seatsPerWake == 0 {
		b.wakes = append(b.wakes, make(chan struct{}))
	}
	b.seats++
	s.wake = b.wakes[len(b.wakes)-1]
	return s
}

// wake tells everyone. Large batches are woken by several goroutines, which
// end with it.
func wakeAll(wakes []chan struct{}) {
	const inline = 8 // about 1,000 waiters: a quarter of a millisecond
	for len(wakes) > inline {
		part := wakes[:inline]
		wakes = wakes[inline:]
		go closeAll(part)
	}
	closeAll(wakes)
}

func closeAll(wakes []chan struct{}) {
	for _, w := range wakes {
		close(w)
	}
}

// records returns the events as the journal takes them, in dst.
func (b *batch) records(dst [][]byte) [][]byte {
	dst = appendRecords(dst, b.buf, b.ends)
	return appendRecords(dst, b.itemBuf, b.itemEnds)
}

func appendRecords(dst [][]byte, buf []byte, ends []int) [][]byte {
	start := 0
	for _, end := range ends {
		dst = append(dst, buf[start:end:end])
		start = end
	}
	return dst
}

// leaveRoll takes the batch's keys off the roll, or puts back what they
// replaced.
func (b *batch) leaveRoll() {
	for i := range b.items {
		it := &b.items[i]
		s := it.day.shard(&it.id)
		s.mu.Lock()
		if e, ok := s.entries.get(&it.id); ok && e.batch == b.seq {
			if it.had {
				it.old.presses = e.presses
				it.old.flags |= e.flags & entryDirty
				s.entries.put(&it.id, it.old)
			} else {
				s.entries.drop(&it.id)
			}
		}
		s.mu.Unlock()
	}
}
