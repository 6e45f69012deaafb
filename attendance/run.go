package attendance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"firstbell/attendance/timetable"
)

// Run writes batches until ctx ends. Then nobody joins any more, what has
// joined is still written and answered, and so are the last counts of presses;
// the error is that of the last append, nil when it succeeded. After Run every
// press of a key without receipt is refused with ErrStopped.
func (r *Recorder) Run(ctx context.Context) error {
	evidence := time.NewTicker(evidenceEvery)
	defer evidence.Stop()
	defer r.stop() // also when an append panics: nobody waits for ever
	for {
		select {
		case <-r.kick:
			r.flush()
		case <-evidence.C:
			r.evidenceDue = true
			r.roll.forgetBefore(r.oldestDate())
			r.collected.age(time.Now().UnixMilli(), r.grace.Milliseconds())
			r.flush()
		case <-ctx.Done():
			return r.finish()
		}
	}
}

func (r *Recorder) oldestDate() timetable.Date {
	return r.schools.Load().oldestDate(time.Now().Add(-r.grace))
}

// finish writes what has joined and all counts of presses.
func (r *Recorder) finish() error {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	err := r.flush()
	r.contradictions.last = true
	for err == nil {
		r.evidenceDue = true
		var more bool
		if more, err = r.flushEvidence(); !more {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("writing the last check-ins: %w", err)
	}
	return nil
}

// flush closes the open batch, makes it durable and tells everyone. The next
// batch gathers meanwhile.
func (r *Recorder) flush() error {
	b := r.closeBatch()
	if b == nil {
		_, err := r.flushEvidence()
		return err
	}
	r.seal(b)
	r.evidence(b, evidencePerBatch)
	first, err := r.append(b)
	if err == nil {
		r.noteDays(b, first)
		r.counters.receipts.Add(uint64(len(b.items)))
		r.noteCollected(b, first)
	} else {
		b.leaveRoll()
		r.leaveCollected(b)
	}
	r.settle(b, err)
	if err == nil && r.onAppend != nil {
		r.onAppend(first + uint64(len(b.ends)+len(b.itemEnds)))
	}
	r.recycle(b)
	return err
}

// seal closes the batch's check-ins with one signature over all of them.
func (r *Recorder) seal(b *batch) {
	key := r.key.Load()
	if key == nil || len(b.ends) == 0 {
		return
	}
	r.tree.Reset()
	start := 0
	for _, end := range b.ends {
		r.tree.Add(b.buf[start:end])
		start = end
	}
	s := key.Seal(&r.tree)
	b.buf = appendSeal(b.buf, &s)
	b.ends = append(b.ends, len(b.buf))
}

// noteCollected counts what a durable batch collected; its records begin at
// first.
func (r *Recorder) noteCollected(b *batch, first uint64) {
	if n := len(b.itemEnds); n > 0 {
		r.collected.noteFirst(first+uint64(len(b.ends)), time.Now().UnixMilli(), r.grace.Milliseconds())
		r.counters.collect.records.Add(uint64(n))
	}
}

// closeBatch makes the open batch the flying one; nil when it is empty.
func (r *Recorder) closeBatch() *batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.open
	if len(b.ends)+len(b.itemEnds) == 0 {
		return nil
	}
	next := &batch{seq: b.seq + 1}
	if next.seq == 0 {
		next.seq = 1 // 0 stands for what came from the journal
	}
	if s := r.spare; s != nil {
		next.buf, next.ends, next.items = s.buf, s.ends, s.items
		next.itemBuf, next.itemEnds, next.itemIDs = s.itemBuf, s.itemEnds, s.itemIDs
		r.spare = nil
	}
	r.open, r.flying = next, b
	return b
}

func (r *Recorder) append(b *batch) (first uint64, err error) {
	r.recordsBuf = b.records(r.recordsBuf[:0])
	began := time.Now()
	first, err = r.log.Append(r.recordsBuf)
	clear(r.recordsBuf)
	r.counters.appended(len(b.ends)+len(b.itemEnds), time.Since(began), err)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrDown, err)
	}
	return first, nil
}

// settle answers everyone who waits for the batch.
func (r *Recorder) settle(b *batch, err error) {
	b.err = err
	r.settled.Store(b.seq)
	r.mu.Lock()
	r.flying = nil
	wakes, p := b.wakes, b.pending
	b.wakes, b.pending = nil, nil
	r.mu.Unlock()
	wakeAll(wakes)
	for p != nil {
		next := p.next // p is another press's once it is settled
		r.settledFor(p, err)
		p = next
	}
}

// recycle keeps the batch's buffers for the next but one, unless they have
// grown beyond what an ordinary morning needs.
func (r *Recorder) recycle(b *batch) {
	if cap(b.buf) <= 2*r.maxBytes {
		clear(b.items)
		r.spare = &batch{buf: b.buf[:0], ends: b.ends[:0], items: b.items[:0]}
		if cap(b.itemBuf) <= 2*r.collectBytes {
			r.spare.itemBuf, r.spare.itemEnds, r.spare.itemIDs = b.itemBuf[:0], b.itemEnds[:0], b.itemIDs[:0]
		}
	}
	b.buf, b.ends, b.items = nil, nil, nil
	b.itemBuf, b.itemEnds, b.itemIDs = nil, nil, nil
}

// stop refuses everyone who still waits, and everyone to come.
func (r *Recorder) stop() {
	r.mu.Lock()
	r.stopped = true
	left := [...]*batch{r.flying, r.open}
	r.mu.Unlock()
	for _, b := range left {
		if b != nil && (b.seats > 0 || b.pending != nil || len(b.items) > 0) {
			b.leaveRoll()
			r.leaveCollected(b)
			r.settle(b, ErrStopped)
		}
	}
}

// evidence adds counts of presses to a batch, if they are due.
func (r *Recorder) evidence(b *batch, limit int) (more bool) {
	if !r.evidenceDue {
		return false
	}
	now := time.Now()
	nowMs := now.UnixMilli()
	limit -= r.contradictions.tell(b, now, r.oldestDate(), limit)
	for _, d := range r.roll.all() {
		for i := range d.shards {
			if limit <= 0 {
				return true
			}
			limit -= d.tellPresses(&d.shards[i], b, nowMs, limit)
		}
	}
	for i := range r.collected.shards {
		if limit <= 0 {
			return true
		}
		limit -= r.collected.shards[i].tellRepeats(b, nowMs, limit)
	}
	r.evidenceDue = limit <= 0
	return limit <= 0
}

// tellPresses moves up to limit untold counts of a shard into the batch.
func (d *day) tellPresses(s *rollShard, b *batch, nowMs int64, limit int) (told int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; told < limit && len(s.dirty) > 0; told++ {
		id := s.dirty[len(s.dirty)-1]
		s.dirty = s.dirty[:len(s.dirty)-1]
		e, ok := s.entries.get(&id)
		if !ok {
			continue // its batch failed
		}
		e.flags &^= entryDirty
		s.entries.put(&id, e)
		b.buf = appendPresses(b.buf, &id, d.date, nowMs, uint32(e.presses))
		b.ends = append(b.ends, len(b.buf))
	}
	if len(s.dirty) == 0 {
		s.dirty = nil
	}
	return told
}

// flushEvidence writes counts of presses for which no check-in made a batch.
func (r *Recorder) flushEvidence() (more bool, err error) {
	b := &batch{}
	more = r.evidence(b, r.maxBatch)
	if len(b.ends) == 0 {
		return false, nil
	}
	first, err := r.append(b)
	if err == nil && r.onAppend != nil {
		r.onAppend(first + uint64(len(b.ends)))
	}
	return more, err
}

var errOtherSecret = errors.New("the site secret does not belong to this journal; put back the secret file that was with it")

// recover fills roll and attempts from the journal's records between from and
// until, 0 being its end.
func (r *Recorder) recover(journal Journal, from, until uint64) error {
	if err := r.read(journal, from, until); err != nil {
		return fmt.Errorf("reading today's check-ins back: %w", err)
	}
	return nil
}

func (r *Recorder) read(journal Journal, from, until uint64) error {
	r.readTo = max(from, until)
	oldest := dayNumber(r.oldestDate())
	nowMs := time.Now().UnixMilli()
	checked := false
	for rec, err := range journal(from) {
		if err != nil {
			return err
		}
		if until != 0 && rec.Seq >= until {
			break
		}
		r.marks.read(rec)
		if kindOf(rec.Data) == KindCollected {
			if !r.restoreCollected(&rec, nowMs) {
				return errOtherSecret
			}
			continue
		}
		if kindOf(rec.Data) == KindContradiction {
			r.restoreContradiction(rec.Data, oldest, nowMs)
			continue
		}
		if !mayBeSince(rec.Data, oldest) {
			continue
		}
		e, err := DecodeEvent(rec.Data)
		if err != nil {
			r.counters.undecodable.Add(1)
			continue
		}
		if e.Kind == KindPresses {
			r.roll.day(e.Date).restorePresses(e.ID, e.Presses)
			continue
		}
		if !checked && !r.ownReceipt(&e) {
			return errOtherSecret
		}
		checked = true
		d := r.roll.day(e.Date)
		d.restore(&e)
		d.noteSeq(rec.Seq)
		if e.Attempt != 0 && nowMs-e.RawArrival.UnixMilli() <= rememberedMs {
			r.attempts.put(e.Attempt, e.FirstArrival.UnixMilli(), nowMs)
		}
	}
	return nil
}

// mayBeSince tells without decoding whether a record belongs on the roll.
func mayBeSince(data []byte, oldest int32) bool {
	if len(data) < eventHeadBytes || data[0] == 0 || Kind(data[0]) > KindCorrection {
		return false
	}
	return int32(binary.LittleEndian.Uint32(data[4:])) >= oldest
}

// ownReceipt reports whether our secret gives the event's key its receipt.
func (r *Recorder) ownReceipt(e *Event) bool {
	h := r.hashers.get()
	defer r.hashers.put(h)
	id, _ := h.key(e.School, e.Date, e.Period, e.Student, e.ClassIsKey, e.Class)
	return id == e.ID
}

// KeepFrom returns the position of the first record that a restart needs to
// answer today's presses with their receipts; 0 when it needs none.
func (r *Recorder) KeepFrom() uint64 {
	from := r.collected.keepFrom()
	for _, d := range r.roll.all() {
		if seq := d.firstSeq.Load(); seq != 0 && (from == 0 || seq < from) {
			from = seq
		}
	}
	return from
}

// counters are counted as things happen.
type counters struct {
	receipts, again, busy, down, invalid, undecodable atomic.Uint64
	batches, records, appendNs                        atomic.Uint64
	lastErr                                           atomic.Pointer[error]
	collect                                           collectCounters
}

func (c *counters) appended(records int, took time.Duration, err error) {
	c.appendNs.Add(uint64(took))
	if err != nil {
		c.lastErr.Store(&err)
		return
	}
	c.lastErr.Store(nil)
	c.batches.Add(1)
	c.records.Add(uint64(records))
}

// Stats is how a recorder has done since it was made. Counts only grow.
type Stats struct {
	Receipts    uint64 // check-ins made durable, each key counted again when it improved
	Again       uint64 // further presses of keys on the roll
	Busy        uint64 // refused: too many at once
	Down        uint64 // refused: the journal did not take them
	Invalid     uint64 // presses with a field that cannot be recorded
	Undecodable uint64 // records found at the start that this version cannot read
	Batches     uint64 // appends that succeeded
	Records     uint64 // records in them
	AppendTime  time.Duration

	Waiting int   // presses that wait right now
	OnRoll  int   // keys on the roll right now
	Err     error // why the last append went wrong, nil when it did not
}

// Stats returns the counts so far. Counting the roll takes its locks one by
// one: ask every few seconds, not per request.
func (r *Recorder) Stats() Stats {
	c := &r.counters
	s := Stats{
		Receipts: c.receipts.Load(), Again: c.again.Load(), Busy: c.busy.Load(), Down: c.down.Load(),
		Invalid: c.invalid.Load(), Undecodable: c.undecodable.Load(),
		Batches: c.batches.Load(), Records: c.records.Load(), AppendTime: time.Duration(c.appendNs.Load()),
		Waiting: int(r.waiting.Load()), OnRoll: r.roll.len(),
	}
	if err := c.lastErr.Load(); err != nil {
		s.Err = *err
	}
	return s
}
