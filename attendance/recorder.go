package attendance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/attendance/seal"
)

// Appender is the journal's writing side; *wal.Log is one. Append returns once
// all records are on disk, in order, and keeps none of them. After an error it
// is unknown whether they are. Only one Append runs at a time.
type Appender interface {
	Append(records [][]byte) (first uint64, err error)
}

const (
	// DefaultGrace is how far around its moment a request may name a date or a
	// period.
	DefaultGrace = 15 * time.Minute

	// DefaultMaxBatch bounds a batch: 32,768 check-ins are 4 MB and a third of
	// a second's arrivals at 100,000 a second, a thousand times one sync.
	DefaultMaxBatch = 32768

	// DefaultMaxWaiting bounds the presses that wait for a batch, those of keys
	// that are pending already included.
	DefaultMaxWaiting = 4 * DefaultMaxBatch

	// DefaultMaxBatchBytes bounds a batch of uncommonly long names.
	DefaultMaxBatchBytes = 8 << 20

	// refusedMax and attemptsMax bound what is remembered, at 20 bytes or so.
	refusedMax  = 1 << 18
	attemptsMax = 1 << 20

	// evidenceEvery is how often counts of presses go into the journal, and
	// evidencePerBatch how many of them travel with a batch of check-ins.
	evidenceEvery    = 5 * time.Second
	evidencePerBatch = 512
)

// Config is what a Recorder is made of. Zero bounds take their defaults.
type Config struct {
	Log     Appender // may come with CatchUp
	Journal Journal  // what is there already; nil: nothing
	Until   uint64   // read the journal below this position; CatchUp reads the rest. 0: all of it
	Secret  Secret
	Schools *Schools

	// Key seals each batch; SetKey replaces it. Nil: batches are not sealed, and
	// no receipt can be proved later.
	Key *seal.Key

	Grace      time.Duration
	MaxBatch   int // check-ins in one batch
	MaxWaiting int // presses that wait at once

	// MaxBatchBytes bounds the check-ins of a batch; what is collected takes up
	// to 4 MiB beside them. The journal adds its frames, and one append must fit
	// into one segment: half a segment for all of it is safe.
	MaxBatchBytes int

	// OnAppend is called by the writer after each append with the position
	// that follows it; it must not block. May be nil.
	OnAppend func(next uint64)
}

// Recorder turns presses into receipts. Its methods may be called from any
// number of goroutines; Run from one.
type Recorder struct {
	log        Appender // used only by Run
	readTo     uint64   // the journal is on the roll below this; used only before Run
	onAppend   func(next uint64)
	hashers    *hashers
	schools    atomic.Pointer[Schools]
	grace      time.Duration
	maxBatch   int
	maxWaiting int
	maxBytes   int

	key          atomic.Pointer[seal.Key]
	collectBytes int // of collected bodies in one batch
	collected    collectedRoll

	roll     roll
	marks    dayMarks
	attempts *recent // arrival of presses by their attempt
	refused  *recent // arrival of refused presses by their key

	contradictions contradictions

	kick    chan struct{} // holds one when the open batch has something
	settled atomic.Uint32 // all batches up to this one are durable or off the roll
	waiting atomic.Int64

	mu      sync.Mutex // guards what follows
	open    *batch     // the batch that new check-ins join
	flying  *batch     // the batch that is being written, or nil
	stopped bool       // nobody joins any more

	// Used only by Run.
	spare       *batch // its buffers serve the next batch
	recordsBuf  [][]byte
	evidenceDue bool
	tree        seal.Tree

	counters counters
}

// New makes a recorder and puts on its roll what the journal holds of the days
// that may still be pressed. It fails when the journal cannot be read, or was
// written with another secret. Presses wait until Run is called.
func New(c Config) (*Recorder, error) {
	if c.Log == nil && c.Until == 0 || c.Schools == nil {
		return nil, errors.New("making a recorder: it needs a journal and schools")
	}
	r := &Recorder{
		log:        c.Log,
		onAppend:   c.OnAppend,
		hashers:    newHashers(c.Secret),
		grace:      c.Grace,
		maxBatch:   c.MaxBatch,
		maxWaiting: c.MaxWaiting,
		maxBytes:   c.MaxBatchBytes,
		attempts:   newRecent(attemptsMax),
		refused:    newRecent(refusedMax),
		kick:       make(chan struct{}, 1),
		open:       &batch{seq: 1},
	}
	r.schools.Store(c.Schools)
	r.key.Store(c.Key)
	if r.maxBytes <= 0 {
		r.maxBytes = DefaultMaxBatchBytes
	}
	r.collectBytes = defaultCollectBytes
	if r.grace <= 0 {
		r.grace = DefaultGrace
	}
	if r.maxBatch <= 0 {
		r.maxBatch = DefaultMaxBatch
	}
	if r.maxWaiting <= 0 {
		r.maxWaiting = DefaultMaxWaiting
	}
	if c.Journal != nil {
		if err := r.recover(c.Journal, 0, c.Until); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// CatchUp gives a recorder that was made with Until the journal, and puts on its
// roll what that holds beyond. It is called before Run.
func (r *Recorder) CatchUp(log Appender, j Journal) error {
	r.log = log
	return r.recover(j, r.readTo, 0)
}

// TurnAway refuses a press because the journal is in nobody's hands right now,
// as Take does when it is down: the refusal carries when the press came. It
// needs no Run. What is no press is a *FieldError.
func (r *Recorder) TurnAway(p Press) error {
	c := claim{press: p}
	if err := r.place(&c); err != nil {
		r.counters.invalid.Add(1)
		return err
	}
	return r.refuse(&c, ErrStopped)
}

// SetSchools replaces the schools at once, for presses that arrive from now
// on. Check-ins that have their receipt keep it.
func (r *Recorder) SetSchools(s *Schools) { r.schools.Store(s) }

// SetKey has batches closed from now on be sealed with another key.
func (r *Recorder) SetKey(k *seal.Key) { r.key.Store(k) }

// Take records one check-in and returns its receipt once that is on disk. It
// waits no longer than ctx; a check-in given up may still become durable, and
// its next press then gets the same receipt. Other errors: a *FieldError, when
// the press cannot be recorded; a *Refused, when nothing could be promised.
//
// The receipt's School, Student and Period may refer to the press's strings.
func (r *Recorder) Take(ctx context.Context, p Press) (Receipt, error) {
	c := claim{press: p}
	if err := r.place(&c); err != nil {
		r.counters.invalid.Add(1)
		return Receipt{}, err
	}
	for {
		s, err := r.enter(&c, nil)
		if err != nil {
			return Receipt{}, r.refuse(&c, err)
		}
		if s.batch == nil {
			return c.receipt(&s.entry), nil
		}
		err = r.wait(ctx, &s)
		switch {
		case err == nil && s.again:
			continue // the key is durable now, this press may still improve on it
		case err == nil:
			return c.receipt(&s.entry), nil
		case ctx.Err() != nil && errors.Is(err, ctx.Err()):
			return Receipt{}, fmt.Errorf("waiting for a check-in's batch: %w", err)
		}
		return Receipt{}, r.refuse(&c, err)
	}
}

// Pending is a press, or an Item, that waits for its batch without a goroutine.
// Its owner keeps it, and what the press's strings refer to, until Settled is
// called; then it may serve again. The zero value is ready.
type Pending struct {
	claim     claim
	collected ReceiptID // instead, of an Item
	isItem    bool
	seat      seat
	waiter    Waiter
	next      *Pending // who waits for the same batch
}

// Waiter is told what became of a press, or of an Item.
type Waiter interface {
	// Settled is called once, with what Take or Collect would have returned, by
	// the goroutine that everybody's check-ins wait for: it must not wait.
	Settled(Receipt, error)
}

// Submit is Take for who does not wait. It returns at once: with a receipt or an
// error, or with waits set. Then w is told, maybe before Submit returns.
func (r *Recorder) Submit(p Press, pending *Pending, w Waiter) (receipt Receipt, waits bool, err error) {
	*pending = Pending{claim: claim{press: p}, waiter: w}
	if err := r.place(&pending.claim); err != nil {
		r.counters.invalid.Add(1)
		return Receipt{}, false, err
	}
	return r.seatOf(pending)
}

// seatOf has a pending press wait, unless it can be answered.
func (r *Recorder) seatOf(p *Pending) (receipt Receipt, waits bool, err error) {
	s, err := r.enter(&p.claim, p)
	switch {
	case err != nil:
		return Receipt{}, false, r.refuse(&p.claim, err)
	case s.batch != nil:
		return Receipt{}, true, nil
	}
	return p.claim.receipt(&s.entry), false, nil
}

// settledFor answers a pending press, or Item, whose batch is durable, or failed with err.
func (r *Recorder) settledFor(p *Pending, err error) {
	r.waiting.Add(-1)
	var receipt Receipt
	switch {
	case p.isItem && err != nil:
		err = r.refuseCollected(err)
	case p.isItem:
		receipt.ID = p.collected
	case err != nil:
		err = r.refuse(&p.claim, err)
	case p.seat.again: // the key is durable now, this press may still improve on it
		var waits bool
		if receipt, waits, err = r.seatOf(p); waits {
			return
		}
	default:
		receipt = p.claim.receipt(&p.seat.entry)
	}
	p.waiter.Settled(receipt, err)
}

// seat is a press's place after it entered: durable when batch is nil, else to
// be waited for.
type seat struct {
	entry entry
	batch *batch
	wake  <-chan struct{} // nil for a Pending
	again bool            // enter once more when the batch is durable
}

// enter finds the press's key on the roll, or puts it there and into the open
// batch. p is who waits for that; nil: the caller.
func (r *Recorder) enter(c *claim, p *Pending) (seat, error) {
	shard, id := c.day.shard(&c.id), c.id
	for {
		shard.mu.Lock()
		e, ok := shard.entries.get(&id)
		if !ok || (r.durable(&e) && c.improves(&e)) {
			s, err := r.joinLocked(shard, c, e, ok, p)
			shard.mu.Unlock()
			return s, err
		}
		improves := c.improves(&e)
		if r.durable(&e) {
			shard.again(id, e)
			shard.mu.Unlock()
			r.counters.again.Add(1)
			return seat{entry: e}, nil
		}
		s, err := r.seatWith(e, improves, p)
		if s.batch != nil && !improves {
			shard.again(id, e) // c is p's, which may be settled by now
		}
		shard.mu.Unlock()
		if s.batch != nil {
			r.counters.again.Add(1)
			return s, nil
		}
		if err != nil {
			return seat{}, err
		}
		// The batch was settled in between: look again.
	}
}

// durable reports whether the entry's batch is on disk. Sequence numbers wrap
// after days of batches without a pause; a roll is dropped long before.
func (r *Recorder) durable(e *entry) bool {
	return e.batch == 0 || int32(e.batch-r.settled.Load()) <= 0
}

// joinLocked puts the claim on the roll and into the open batch. The shard is
// locked.
func (r *Recorder) joinLocked(shard *rollShard, c *claim, old entry, had bool, p *Pending) (seat, error) {
	fresh, id := c.entry(), c.id
	if had {
		fresh.presses = old.presses
		fresh.flags |= old.flags & entryDirty
	}
	r.mu.Lock()
	b := r.open
	switch {
	case r.stopped:
		r.mu.Unlock()
		return seat{}, ErrStopped
	case len(b.ends) >= r.maxBatch || len(b.buf) >= r.maxBytes || r.waiting.Load() >= int64(r.maxWaiting):
		r.mu.Unlock()
		return seat{}, ErrBusy
	}
	fresh.batch = b.seq
	b.buf = c.appendEvent(b.buf, had)
	b.ends = append(b.ends, len(b.buf))
	b.items = append(b.items, item{day: c.day, id: id, old: old, had: had, record: len(b.ends) - 1})
	s := b.seat(fresh, false, p)
	first := len(b.ends)+len(b.itemEnds) == 1
	r.waiting.Add(1)
	r.mu.Unlock() // from here on p may be settled, and c with it another press's

	shard.entries.put(&id, fresh)
	if had {
		shard.again(id, fresh)
	}
	if first {
		r.kickWriter()
	}
	return s, nil
}

// seatWith returns a seat in the batch that will make e durable; none when that
// has been settled meanwhile.
func (r *Recorder) seatWith(e entry, again bool, p *Pending) (seat, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range [...]*batch{r.open, r.flying} {
		if b == nil || b.seq != e.batch {
			continue
		}
		if r.waiting.Load() >= int64(r.maxWaiting) {
			return seat{}, ErrBusy
		}
		r.waiting.Add(1)
		return b.seat(e, again, p), nil
	}
	if r.stopped {
		return seat{}, ErrStopped
	}
	return seat{}, nil
}

func (r *Recorder) wait(ctx context.Context, s *seat) error {
	defer r.waiting.Add(-1)
	if ctx.Done() == nil {
		<-s.wake
		return s.batch.err
	}
	select {
	case <-s.wake:
		return s.batch.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refuse remembers when the press arrived and makes the answer.
func (r *Recorder) refuse(c *claim, err error) error {
	r.refused.put(c.digest, c.firstMs, c.nowMs)
	h := r.hashers.get()
	token := h.token(c.firstMs, c.digest)
	r.hashers.put(h)

	if errors.Is(err, ErrBusy) {
		r.counters.busy.Add(1)
	} else {
		r.counters.down.Add(1)
	}
	return &Refused{FirstSeen: token, RetryAfter: comeBack(err), Err: err}
}

// Seen returns the token of a press that came at the given moment with a
// credential of which nobody can tell at the moment whose it is. Once it is
// known, a press with the same credential and this token counts from then. It is
// worth nothing to another credential.
func (r *Recorder) Seen(at time.Time, credential []byte) string {
	h := r.hashers.get()
	defer r.hashers.put(h)
	return h.token(at.UnixMilli(), h.session(credential))
}

// comeBack is when to try again after err.
func comeBack(err error) time.Duration {
	if errors.Is(err, ErrBusy) {
		return time.Second + rand.N(4*time.Second)
	}
	return 5*time.Second + rand.N(10*time.Second) // the journal tries a new segment every 5 s
}

func (r *Recorder) kickWriter() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}
