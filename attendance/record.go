package attendance

import (
	"context"
	"fmt"
)

// RecordMax is how many events Record takes at once.
const RecordMax = 1024

// Record appends events that no press makes, such as corrections and digests,
// in one batch, sealed like check-ins, and returns once they are on disk. It
// waits no longer than ctx; what was given up may still be recorded. Other
// errors wrap ErrBusy, ErrDown or ErrStopped: then nothing was. A correction
// shows in receipts from then on.
func (r *Recorder) Record(ctx context.Context, events []Event) error {
	s, err := r.joinEvents(events)
	if err != nil {
		return fmt.Errorf("recording %d events: %w", len(events), err)
	}
	if err := r.wait(ctx, &s); err != nil {
		return fmt.Errorf("recording %d events: %w", len(events), err)
	}
	for i := range events {
		if e := &events[i]; e.Kind == KindCorrection {
			if d := r.roll.find(e.Date); d != nil {
				d.restore(e)
			}
		}
	}
	return nil
}

// joinEvents puts events into the open batch.
func (r *Recorder) joinEvents(events []Event) (seat, error) {
	if len(events) == 0 || len(events) > RecordMax {
		return seat{}, fmt.Errorf("%d events, want 1 to %d", len(events), RecordMax)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.open
	switch {
	case r.stopped:
		return seat{}, ErrStopped
	case len(b.ends)+len(events) > r.maxBatch || len(b.buf) >= r.maxBytes || r.waiting.Load() >= int64(r.maxWaiting):
		return seat{}, ErrBusy
	}
	before, records := len(b.buf), len(b.ends)
	for i := range events {
		var err error
		if b.buf, err = AppendEvent(b.buf, &events[i]); err != nil {
			b.buf, b.ends = b.buf[:before], b.ends[:records]
			return seat{}, err
		}
		b.ends = append(b.ends, len(b.buf))
	}
	b.noted = append(b.noted, notesOf(events, records)...)
	r.waiting.Add(1)
	if records == 0 {
		r.kickWriter()
	}
	return b.seat(entry{}, false, nil), nil
}

// Knows reports whether the receipt is on the roll and on disk: one of today's.
func (r *Recorder) Knows(id ReceiptID) bool {
	for _, d := range r.roll.all() {
		s := d.shard(&id)
		s.mu.Lock()
		e, ok := s.entries.get(&id)
		s.mu.Unlock()
		if ok && r.durable(&e) {
			return true
		}
	}
	return false
}

// SchoolOf returns the id of the school that a host stands for.
func (r *Recorder) SchoolOf(host string) string { return r.schools.Load().Find(host).ID }

// IsOf reports without decoding whether a record is about the receipt.
func IsOf(data []byte, id ReceiptID) bool {
	return len(data) >= eventHeadBytes && string(data[8:24]) == string(id[:])
}
