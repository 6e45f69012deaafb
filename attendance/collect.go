package attendance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"firstbell/attendance/timetable"
)

// Item is a small write as it came. Its strings and its body need only be
// valid while Collect runs.
type Item struct {
	Host        string // authority the route matched: lower case, no port, no trailing dot
	Sink        string // the one it is for
	Key         string // by which it is known, within its school and path; required
	Path        string // of the request, without its query
	ContentType string // as sent; may be empty
	Body        []byte // at most CollectedBytesMax
}

func (it *Item) validate() error {
	switch {
	case it.Host == "":
		return &FieldError{"host", "is missing"}
	case it.Key == "":
		return &FieldError{"key", "is missing"}
	case len(it.Body) > CollectedBytesMax:
		return &FieldError{"body", "is longer than 64 KiB"}
	case len(it.Path) > CollectedPathMax:
		return &FieldError{"path", "is longer than 2,048 bytes"}
	}
	for _, f := range [...]struct{ name, value string }{
		{"key", it.Key}, {"host", it.Host}, {"content type", it.ContentType}, {"sink", it.Sink},
	} {
		if reason := unfit(f.value); reason != "" {
			return &FieldError{f.name, reason}
		}
	}
	return nil
}

// What is collected never takes the room of check-ins: it may fill half of a
// batch's records and half of the places to wait, and has a buffer of its own.
const (
	// defaultCollectBytes bounds the bodies of a batch: 4 MiB are 20,000 beacons
	// of 200 bytes, written in some 20 ms.
	defaultCollectBytes = 4 << 20

	// collectedMax bounds the keys of one generation of the roll, at 42 to 85
	// bytes each: with the older generation at most 180 MB.
	collectedMax = 1 << 20
)

var contentTable = crc32.MakeTable(crc32.Castagnoli)

// Collect makes one small write durable and returns its receipt once it is on
// disk. A key that is remembered gets the same receipt and is not recorded
// again, whatever its body says: the first counts. A key is remembered for the
// grace at least, and for twice as long at most; less where more than a million
// keys come in that time. Later it is recorded again, under the same receipt,
// so that a receiver that takes each key once still has it once.
//
// It waits no longer than ctx. Other errors are those of Take; the token of a
// *Refused is empty.
func (r *Recorder) Collect(ctx context.Context, it Item) (ReceiptID, error) {
	id, s, err := r.enterCollected(&it, nil)
	switch {
	case err != nil:
		return ReceiptID{}, err
	case s.batch == nil:
		return id, nil
	}
	switch err := r.wait(ctx, &s); {
	case err == nil:
		return id, nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return ReceiptID{}, fmt.Errorf("waiting for a batch: %w", err)
	default:
		return ReceiptID{}, r.refuseCollected(err)
	}
}

// SubmitItem is Collect for who does not wait. It returns at once: with a receipt
// or an error, or with waits set. Then w is told, maybe before SubmitItem
// returns; of the receipt it is told the ID alone.
func (r *Recorder) SubmitItem(it Item, pending *Pending, w Waiter) (id ReceiptID, waits bool, err error) {
	*pending = Pending{waiter: w}
	id, s, err := r.enterCollected(&it, pending)
	return id, s.batch != nil, err
}

// enterCollected finds the item's key on the roll, or puts it there and the item
// into the open batch. p is who waits for that; nil: the caller.
func (r *Recorder) enterCollected(it *Item, p *Pending) (id ReceiptID, s seat, err error) {
	if err := it.validate(); err != nil {
		r.counters.collect.invalid.Add(1)
		return id, s, err
	}
	school, now := r.schools.Load().Find(it.Host), time.Now()
	h := r.hashers.get()
	id = h.collected(school.ID, it.Path, it.Key)
	r.hashers.put(h)
	if p != nil {
		p.collected, p.isItem = id, true
	}
	if s, err = r.seatCollected(id, it, school.ID, now.In(school.Zone), p); err != nil {
		err = r.refuseCollected(err)
	}
	return id, s, err
}

func (r *Recorder) seatCollected(id ReceiptID, it *Item, school string, at time.Time, p *Pending) (seat, error) {
	shard, content := r.collected.shard(&id), crc32.Checksum(it.Body, contentTable)
	for {
		shard.mu.Lock()
		shard.turn(at.UnixMilli(), r.grace.Milliseconds())
		e, known := shard.find(id)
		if !known {
			s, err := r.joinCollected(shard, id, content, it, school, at, p)
			shard.mu.Unlock()
			return s, err
		}
		if r.durable(&entry{batch: e.batch}) {
			shard.again(id, e, content, dayNumber(timetable.DateOf(at)))
			shard.mu.Unlock()
			r.counters.collect.repeat(e.content != content)
			return seat{}, nil
		}
		if r.waiting.Load() >= int64(r.maxWaiting/2) {
			shard.mu.Unlock()
			return seat{}, ErrBusy
		}
		s, err := r.seatWith(entry{batch: e.batch}, false, p)
		if s.batch != nil {
			shard.again(id, e, content, dayNumber(timetable.DateOf(at)))
		}
		shard.mu.Unlock()
		if s.batch != nil {
			r.counters.collect.repeat(e.content != content)
			return s, nil
		}
		if err != nil {
			return seat{}, err
		}
		// The batch was settled in between: look again.
	}
}

// joinCollected puts an item into the open batch. The shard is locked.
func (r *Recorder) joinCollected(shard *collectedShard, id ReceiptID, content uint32, it *Item, school string, at time.Time, p *Pending) (seat, error) {
	r.mu.Lock()
	b := r.open
	switch {
	case r.stopped:
		r.mu.Unlock()
		return seat{}, ErrStopped
	case len(b.itemEnds) >= r.maxBatch/2 || len(b.itemBuf) >= r.collectBytes || r.waiting.Load() >= int64(r.maxWaiting/2):
		r.mu.Unlock()
		return seat{}, ErrBusy
	}
	// The record copies the body: the string is gone when this returns.
	c := Collected{Sink: it.Sink, Key: it.Key, Path: it.Path, ContentType: it.ContentType, Body: unsafe.String(unsafe.SliceData(it.Body), len(it.Body))}
	b.itemBuf = appendCollected(b.itemBuf, &id, timetable.DateOf(at), at, school, &c)
	b.itemEnds = append(b.itemEnds, len(b.itemBuf))
	b.itemIDs = append(b.itemIDs, id)
	s := b.seat(entry{}, false, p)
	first := len(b.ends)+len(b.itemEnds) == 1
	batch := b.seq
	r.waiting.Add(1)
	r.mu.Unlock() // from here on p may be settled, and the item gone

	shard.put(id, collectedEntry{batch: batch, content: content}, &r.counters.collect.forgotten)
	if first {
		r.kickWriter()
	}
	return s, nil
}

func (r *Recorder) refuseCollected(err error) error {
	r.counters.collect.refused.Add(1)
	return &Refused{RetryAfter: comeBack(err), Err: err}
}

// leaveCollected takes the keys of a batch that failed off the roll.
func (r *Recorder) leaveCollected(b *batch) {
	for _, id := range b.itemIDs {
		s := r.collected.shard(&id)
		s.mu.Lock()
		for _, gen := range [...]map[ReceiptID]collectedEntry{s.young, s.old} {
			if e, ok := gen[id]; ok && e.batch == b.seq {
				delete(gen, id)
			}
		}
		s.mu.Unlock()
	}
}

// collectedRoll knows the keys that came lately. The zero value is ready.
type collectedRoll struct {
	shards [rollShards]collectedShard

	// What a restart needs of the journal: the first positions of two spans of
	// time, each as long as the grace. Written by Run alone.
	youngFirst, oldFirst atomic.Uint64
	turnedMs             int64 // used only by Run
}

type collectedShard struct {
	mu         sync.Mutex // guards what follows
	young, old map[ReceiptID]collectedEntry
	turnedMs   int64        // when young was empty
	dirty      []repeatedID // keys with repeats that no event has told yet
}

// collectedEntry is what the roll keeps of a key.
type collectedEntry struct {
	batch     uint32 // the batch that makes it durable; 0: the journal has it
	content   uint32 // checksum of the body that counts
	repeats   uint16 // stay at their highest value
	differing uint16
	dirty     bool
}

// repeatedID is a key whose repeats are to be told, with the day of the first.
type repeatedID struct {
	id  ReceiptID
	day int32
}

func (r *collectedRoll) shard(id *ReceiptID) *collectedShard { return &r.shards[id[15]%rollShards] }

// turn lets the older generation go when the younger has lasted for the grace.
// The shard is locked.
func (s *collectedShard) turn(nowMs, graceMs int64) {
	if s.turnedMs != 0 && nowMs-s.turnedMs < graceMs && nowMs >= s.turnedMs {
		return
	}
	if nowMs-s.turnedMs >= 2*graceMs {
		s.young = nil // a whole generation passed without a word
	}
	s.old, s.young, s.turnedMs = s.young, nil, nowMs
}

func (s *collectedShard) find(id ReceiptID) (collectedEntry, bool) {
	if e, ok := s.young[id]; ok {
		return e, true
	}
	e, ok := s.old[id]
	return e, ok
}

// put adds a key. A generation that is full goes before its time, and forgotten
// counts what goes with it.
func (s *collectedShard) put(id ReceiptID, e collectedEntry, forgotten *atomic.Uint64) {
	if len(s.young) >= collectedMax/rollShards {
		forgotten.Add(uint64(len(s.old)))
		s.old, s.young = s.young, nil
	}
	if s.young == nil {
		s.young = make(map[ReceiptID]collectedEntry)
	}
	s.young[id] = e
}

// again counts one more coming of a key. The shard is locked.
func (s *collectedShard) again(id ReceiptID, e collectedEntry, content uint32, day int32) {
	if e.repeats < pressesMax {
		e.repeats++
	}
	if e.content != content && e.differing < pressesMax {
		e.differing++
	}
	if !e.dirty && len(s.dirty) < collectedMax/rollShards {
		e.dirty = true
		s.dirty = append(s.dirty, repeatedID{id, day})
	}
	if _, ok := s.young[id]; ok {
		s.young[id] = e
	} else {
		s.old[id] = e
	}
}

// tellRepeats moves up to limit untold counts of a shard into the batch.
func (s *collectedShard) tellRepeats(b *batch, nowMs int64, limit int) (told int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; told < limit && len(s.dirty) > 0; told++ {
		d := s.dirty[len(s.dirty)-1]
		s.dirty = s.dirty[:len(s.dirty)-1]
		gen := s.young
		e, ok := gen[d.id]
		if !ok {
			gen = s.old
			if e, ok = gen[d.id]; !ok {
				continue // forgotten, or its batch failed
			}
		}
		e.dirty = false
		gen[d.id] = e
		b.buf = appendRepeats(b.buf, &d.id, dateOfDay(d.day), nowMs, uint32(e.repeats), uint32(e.differing))
		b.ends = append(b.ends, len(b.buf))
	}
	if len(s.dirty) == 0 {
		s.dirty = nil
	}
	return told
}

// noteFirst remembers where the records begin that a restart needs. It is
// called by Run alone, with the first position of what a batch collected.
func (r *collectedRoll) noteFirst(seq uint64, nowMs, graceMs int64) {
	r.age(nowMs, graceMs)
	r.youngFirst.CompareAndSwap(0, seq)
}

// age lets go of the records that no restart needs any more.
func (r *collectedRoll) age(nowMs, graceMs int64) {
	if r.turnedMs != 0 && nowMs-r.turnedMs < graceMs && nowMs >= r.turnedMs {
		return
	}
	r.oldFirst.Store(r.youngFirst.Load())
	r.youngFirst.Store(0)
	r.turnedMs = nowMs
}

// keepFrom returns the first position that a restart needs; 0: none.
func (r *collectedRoll) keepFrom() uint64 {
	if seq := r.oldFirst.Load(); seq != 0 {
		return seq
	}
	return r.youngFirst.Load()
}

// restoreCollected puts a record of the journal on the roll, if it is young
// enough; ours is false when another secret made its receipt.
func (r *Recorder) restoreCollected(rec *Record, nowMs int64) (ours bool) {
	graceMs := r.grace.Milliseconds()
	if len(rec.Data) < eventHeadBytes || nowMs-int64(binary.LittleEndian.Uint64(rec.Data[24:])) > graceMs {
		return true
	}
	e, err := DecodeEvent(rec.Data)
	if err != nil {
		r.counters.undecodable.Add(1)
		return true
	}
	h := r.hashers.get()
	ours = h.collected(e.School, e.Collected.Path, e.Collected.Key) == e.ID
	r.hashers.put(h)
	s := r.collected.shard(&e.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(nowMs, graceMs)
	if _, known := s.find(e.ID); !known {
		s.put(e.ID, collectedEntry{content: crc32.Checksum([]byte(e.Collected.Body), contentTable)}, &r.counters.collect.forgotten)
	}
	r.collected.noteFirst(rec.Seq, nowMs, graceMs)
	return ours
}

// len counts the keys on the roll.
func (r *collectedRoll) len() int {
	n := 0
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		n += len(s.young) + len(s.old)
		s.mu.Unlock()
	}
	return n
}

// collectCounters are counted as things happen.
type collectCounters struct {
	records, repeats, differing, refused, invalid, forgotten atomic.Uint64
}

func (c *collectCounters) repeat(differs bool) {
	c.repeats.Add(1)
	if differs {
		c.differing.Add(1)
	}
}

// CollectStats is how collecting has done since the recorder was made. Counts
// only grow.
type CollectStats struct {
	Records   uint64 // writes made durable
	Repeats   uint64 // further ones of keys on the roll
	Differing uint64 // those of them with another body: the first counts
	Refused   uint64 // too many at once, or the journal did not take them
	Invalid   uint64 // with a field that cannot be recorded
	Forgotten uint64 // keys forgotten before their time, because there were too many
	OnRoll    int    // keys remembered right now
}

// CollectStats returns the counts so far; as with Stats, ask every few seconds.
func (r *Recorder) CollectStats() CollectStats {
	c := &r.counters.collect
	return CollectStats{
		Records: c.records.Load(), Repeats: c.repeats.Load(), Differing: c.differing.Load(),
		Refused: c.refused.Load(), Invalid: c.invalid.Load(), Forgotten: c.forgotten.Load(), OnRoll: r.collected.len(),
	}
}
