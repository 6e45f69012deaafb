package attendance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Target is where check-ins are delivered to. Its methods are called by one
// goroutine at a time.
type Target interface {
	// Position returns where delivery goes on.
	Position(ctx context.Context) (Position, error)

	// Deliver hands over one bulk. When it returns nil, each of the bulk's
	// check-ins has been taken (or put aside by name), and the position on disk
	// is the bulk's Next. After an error the same bulk comes again, from this
	// process or, by the position on disk, from the next; what had been taken
	// of it must then be recognised by its key. A *DeliverError says when.
	Deliver(ctx context.Context, b *Bulk) (Delivered, error)
}

// Position is a place in the journal: all records before Next are delivered.
// Until, where it is not 0, ends a bulk that was begun: the next one must be
// [Next, Until) again.
type Position struct{ Next, Until uint64 }

// Bulk is a run of the journal's events: all that there are for the target in
// [First, Next).
type Bulk struct {
	First, Next uint64
	Events      []Event

	bytes int // of the records that made Events
}

// Fold returns the bulk's rows in the order of the journal, one per key, and
// the counts of presses whose rows came with an earlier bulk.
func (b *Bulk) Fold() (rows []Row, presses map[ReceiptID]uint32) {
	var f Fold
	for i := range b.Events {
		f.Add(&b.Events[i])
	}
	rows = make([]Row, 0, f.Len())
	for i := range b.Events {
		e := &b.Events[i]
		if row, ok := f.rows[e.ID]; ok && row.Seq == e.Seq && e.Kind != KindPresses {
			rows = append(rows, *row)
		}
	}
	return rows, f.Presses()
}

// Delivered is what became of a bulk.
type Delivered struct {
	Rows       int // taken now
	Duplicates int // the target had them already
	Parked     int // put aside with a reason
	Writes     int // statements or requests that it took
}

// DeliverError tells Delivery how to go on after an error.
type DeliverError struct {
	Err        error
	RetryAfter time.Duration // at the earliest; 0: Delivery's own pause
	Stop       bool          // trying again soon is of no use: somebody must look
}

func (e *DeliverError) Error() string { return e.Err.Error() }
func (e *DeliverError) Unwrap() error { return e.Err }

// ErrMoved is what Deliver answers when the position on disk is another than
// this process left there, such as after a database went back to a moment
// before its last transactions. Nothing was taken; Delivery asks for the
// position and goes on from there.
var ErrMoved = errors.New("the position on disk is not the one that was left there")

const (
	// DefaultBulkMax is how many records make a bulk. In PostgreSQL more rows
	// in a statement bring nothing; a thousand are 150 kB.
	DefaultBulkMax = 1000

	// DefaultBulkBytes bounds a bulk of large bodies.
	DefaultBulkBytes = 4 << 20

	// spanMax is how many records a bulk may reach over that are not for its
	// target, so that the position moves where little is.
	spanMax = 1 << 16

	// pastMax is how many rows of the past are asked for at once.
	pastMax = 1000

	// DefaultGather is how long a bulk that is not full waits for more: at 500
	// check-ins a second it is full by then.
	DefaultGather = 2 * time.Second

	pauseMin      = 250 * time.Millisecond
	pauseMax      = 30 * time.Second
	retryAfterMax = 5 * time.Minute

	// stoppedPause is how long a stopped target is left alone.
	stoppedPause = 5 * time.Minute

	// pollEvery finds what another process appended, or a Notify that got lost.
	pollEvery = 5 * time.Second
)

// DeliveryConfig is what a Delivery is made of. Zero bounds take their defaults.
type DeliveryConfig struct {
	Name    string // of the target, for people
	Journal Journal
	Target  Target

	// End returns the position behind the last record that is known to be on
	// disk (Log.Next). In the writer's process it must be set: the journal may
	// show records whose append has not returned. Nil: all there is.
	End func() uint64

	// Collected names the sink whose collected writes are delivered, and nothing
	// else. Empty: everything but what is collected.
	Collected string

	// Past is asked for check-ins that the journal no longer has: the rows whose
	// position is in [from, to), in the order of their positions, at most limit.
	// Begins returns where the journal begins; it must have moved before a
	// record is removed. Without them whatever the journal lacks is passed over.
	Past   func(ctx context.Context, from, to uint64, limit int) ([]Row, error)
	Begins func() uint64

	// Known is where the target was last known to be. While it cannot be asked,
	// DeliveryStats.Oldest goes by it.
	Known uint64

	BulkMax   int           // records in one bulk
	BulkBytes int           // of their events; the one that goes beyond still belongs to it
	Gather    time.Duration // how long a bulk that is not full waits for more
}

// Delivery carries the journal to one target. Run and Drain must not run at
// once; the other methods may be called at any time.
type Delivery struct {
	name       string
	journal    Journal
	journalEnd func() uint64
	target     Target
	collected  string
	lastKnown  uint64
	past       func(ctx context.Context, from, to uint64, limit int) ([]Row, error)
	begins     func() uint64
	bulkMax    int
	bulkBytes  int
	gather     time.Duration

	head atomic.Uint64 // the position that Notify heard of last
	kick chan struct{} // Notify: there is more

	// wanted is the position that Run waits for: waking it for every append
	// while a bulk gathers would cost more than the delivery.
	wanted atomic.Uint64
	retry  chan struct{} // Retry: do not wait any longer

	// Used only by Run and Drain.
	known bool // next and until are
	next  uint64
	until uint64
	bulk  *Bulk // read and not delivered
	over  *Bulk // read, and nothing in it is for the target yet

	mu    sync.Mutex // guards stats
	stats DeliveryStats
}

// DeliveryStats is how a delivery has done. Counts only grow.
type DeliveryStats struct {
	Name        string
	Next        uint64 // position on the target's disk: records before it are delivered
	Seen        uint64 // records before it are delivered or not for the target
	Rows        uint64
	Duplicates  uint64
	Parked      uint64
	Writes      uint64 // statements or requests
	Bulks       uint64
	Failures    uint64
	Undecodable uint64    // records that this version cannot read: skipped
	Oldest      time.Time // raw arrival of the oldest record read and not delivered; zero when there is none
	FromPast    uint64    // rows that came from the store, as the journal no longer had them
	Rewound     bool      // the target's position lay behind the journal's end: it belongs to another journal, so all of this one is delivered
	Stopped     bool      // somebody must look; tried again after five minutes or Retry
	Err         error     // why the last try failed; nil when it did not
}

// NewDelivery makes a delivery; nothing happens until Run.
func NewDelivery(c DeliveryConfig) *Delivery {
	d := &Delivery{
		name: c.Name, journal: c.Journal, journalEnd: c.End, target: c.Target,
		collected: c.Collected, lastKnown: c.Known, past: c.Past, begins: c.Begins, bulkMax: c.BulkMax, bulkBytes: c.BulkBytes, gather: c.Gather,
		kick: make(chan struct{}, 1), retry: make(chan struct{}, 1),
	}
	if d.bulkMax <= 0 {
		d.bulkMax = DefaultBulkMax
	}
	if d.bulkBytes <= 0 {
		d.bulkBytes = DefaultBulkBytes
	}
	if d.begins == nil {
		d.begins = func() uint64 { return 0 }
	}
	if d.gather <= 0 {
		d.gather = DefaultGather
	}
	d.stats.Name = c.Name
	return d
}

// Notify says that the journal has records up to next. It never blocks.
func (d *Delivery) Notify(next uint64) {
	d.head.Store(next)
	if next >= d.wanted.Load() {
		poke(d.kick)
	}
}

// Retry ends a pause after a failure, such as when the configuration has been
// read again. It never blocks.
func (d *Delivery) Retry() { poke(d.retry) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Stats returns the counts so far.
func (d *Delivery) Stats() DeliveryStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// Run delivers until ctx ends, and then returns nil. It never gives up.
func (d *Delivery) Run(ctx context.Context) error {
	for pause := pauseMin; ctx.Err() == nil; {
		idle, err := d.step(ctx, d.gather)
		switch {
		case err != nil:
			pause = d.pause(ctx, err, pause)
		case idle:
			d.waitForMore(ctx)
		default:
			pause = pauseMin
		}
	}
	return nil
}

// Drain delivers what the journal holds by now, without waiting for more, until
// that is done or ctx ends: then the error says how far it came, and why.
func (d *Delivery) Drain(ctx context.Context) error {
	for pause := pauseMin; ; {
		idle, err := d.step(ctx, 0)
		switch {
		case idle:
			return nil
		case err == nil:
			pause = pauseMin
			continue
		}
		if pause = d.pause(ctx, err, pause); ctx.Err() != nil {
			return fmt.Errorf("delivering the rest to %s: stopped before record %d: %w", d.name, d.next, err)
		}
	}
}

// step delivers one bulk: the one that could not be delivered last time, or the
// next. It is idle when there is none.
func (d *Delivery) step(ctx context.Context, gather time.Duration) (idle bool, err error) {
	if d.bulk == nil {
		if d.bulk, err = d.nextBulk(ctx, gather); err != nil || d.bulk == nil {
			return err == nil, err
		}
	}
	if err := d.deliver(ctx, d.bulk); err != nil {
		if errors.Is(err, ErrMoved) {
			d.known, d.bulk = false, nil
		}
		return false, err
	}
	d.bulk = nil
	return false, nil
}

func (d *Delivery) waitForMore(ctx context.Context) {
	t := time.NewTimer(pollEvery)
	defer t.Stop()
	select {
	case <-d.kick:
	case <-t.C:
	case <-ctx.Done():
	}
}

// nextBulk reads the next bulk; nil when there is nothing. One that is not full
// waits up to gather for more.
func (d *Delivery) nextBulk(ctx context.Context, gather time.Duration) (*Bulk, error) {
	if !d.known {
		if err := d.ask(ctx); err != nil {
			return nil, err
		}
	}
	b := d.over
	if b == nil {
		b = &Bulk{First: d.next, Next: d.next, Events: make([]Event, 0, d.expected())}
	}
	d.over = nil
	full, err := d.read(ctx, b)
	if err != nil {
		return nil, err
	}
	if len(b.Events) == 0 && !full {
		d.over = b // the target need not hear of it
		d.note(func(s *DeliveryStats) { s.Seen = b.Next })
		return nil, nil
	}
	d.noteOldest(b)
	if full || gather <= 0 {
		return b, nil
	}
	if oldest := d.Stats().Oldest; !oldest.IsZero() && time.Since(oldest) > gather {
		return b, nil // it has waited through an outage, and waits no more
	}
	d.waitUntilFull(ctx, b, gather)
	if _, err = d.read(ctx, b); err != nil {
		return nil, err
	}
	return b, nil
}

// ask finds out where delivery goes on. A target that has no position yet
// begins where the journal does.
func (d *Delivery) ask(ctx context.Context) error {
	at, err := d.target.Position(ctx)
	if err != nil {
		d.noteWaiting()
		return fmt.Errorf("asking %s for its position: %w", d.name, err)
	}
	rewound := d.journalEnd != nil && at.Next > d.journalEnd()
	if rewound {
		at = Position{} // keys make it harmless to deliver everything again
	}
	if at == (Position{}) {
		at.Next = d.begins()
	}
	d.next, d.until, d.known = at.Next, at.Until, true
	d.note(func(s *DeliveryStats) { s.Next, s.Seen, s.Rewound, s.Oldest = at.Next, at.Next, rewound, time.Time{} })
	return nil
}

// noteWaiting notes the age of what waits for a target that has not been asked
// since the start: Oldest shows it although no bulk was read.
func (d *Delivery) noteWaiting() {
	if !d.Stats().Oldest.IsZero() {
		return
	}
	for rec, err := range d.journal(d.lastKnown) {
		if err != nil {
			return // reading a bulk will say so
		}
		if e, err := DecodeEvent(rec.Data); err == nil && d.wants(rec.Data) && !e.RawArrival.IsZero() {
			d.note(func(s *DeliveryStats) { s.Oldest = e.RawArrival })
			return
		}
	}
}

// expected is how many events the next bulk is likely to hold.
func (d *Delivery) expected() int {
	head := d.head.Load()
	if head <= d.next {
		return 0
	}
	return int(min(uint64(d.bulkMax), head-d.next))
}

// waitUntilFull returns when the journal holds enough for the bulk, or gather
// has passed.
func (d *Delivery) waitUntilFull(ctx context.Context, b *Bulk, gather time.Duration) {
	t := time.NewTimer(gather)
	defer t.Stop()
	enough := b.First + uint64(d.bulkMax)
	d.wanted.Store(enough)
	defer d.wanted.Store(0)
	for d.head.Load() < enough {
		select {
		case <-d.kick:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// read adds to the bulk what there is for it before the end; full says that no
// more belongs into it. Numbers between are never to come: the journal shows
// everything below an end that was asked for before.
func (d *Delivery) read(ctx context.Context, b *Bulk) (full bool, err error) {
	end := d.end()
	for !d.full(b) && b.Next < end {
		if begins := d.begins(); d.past != nil && b.Next < begins {
			if err := d.readPast(ctx, b, min(begins, end)); err != nil {
				return false, err
			}
			continue
		}
		next, events, bytes := b.Next, len(b.Events), b.bytes
		if err := d.readJournal(b, end); err != nil {
			return false, err
		}
		if d.past == nil || d.begins() <= next {
			break
		}
		// Records may have been removed ahead of the reader.
		b.Next, b.Events, b.bytes = next, b.Events[:events], bytes
	}
	return d.full(b), nil
}

func (d *Delivery) readJournal(b *Bulk, end uint64) error {
	for rec, err := range d.journal(b.Next) {
		if err != nil {
			return fmt.Errorf("reading the journal from record %d: %w", b.Next, err)
		}
		if rec.Seq >= end {
			break
		}
		d.add(b, rec)
		if d.full(b) || b.Next >= end {
			break
		}
	}
	return nil
}

// readPast adds check-ins that the journal no longer has, up to a position.
func (d *Delivery) readPast(ctx context.Context, b *Bulk, to uint64) error {
	limit := pastMax
	if d.until == 0 {
		limit = min(limit, d.bulkMax-len(b.Events))
	}
	rows, err := d.past(ctx, b.Next, to, limit)
	if err != nil {
		return fmt.Errorf("reading the store from record %d: %w", b.Next, err)
	}
	for i := range rows {
		b.Events = append(b.Events, rows[i].Event())
	}
	if len(rows) < limit {
		b.Next = to
	} else {
		b.Next = rows[len(rows)-1].Seq + 1
	}
	d.note(func(s *DeliveryStats) { s.FromPast += uint64(len(rows)) })
	return nil
}

func (d *Delivery) full(b *Bulk) bool {
	if d.until != 0 {
		return b.Next >= d.until
	}
	return len(b.Events) >= d.bulkMax || b.bytes >= d.bulkBytes || b.Next-b.First >= max(spanMax, 2*uint64(d.bulkMax))
}

// end is the position up to which the journal may be read now.
func (d *Delivery) end() uint64 {
	end := uint64(math.MaxUint64)
	if d.journalEnd != nil {
		end = d.journalEnd()
	}
	if d.until != 0 {
		end = min(end, d.until)
	}
	return end
}

func (d *Delivery) add(b *Bulk, rec Record) {
	b.Next = rec.Seq + 1
	if !d.wants(rec.Data) {
		return
	}
	e, err := DecodeEvent(rec.Data)
	if err != nil {
		d.note(func(s *DeliveryStats) { s.Undecodable++ })
		return
	}
	e.Seq = rec.Seq
	b.Events = append(b.Events, e)
	b.bytes += len(rec.Data)
}

// wants reports whether a record is for the target.
func (d *Delivery) wants(data []byte) bool {
	if d.collected != "" {
		return isFor(data, d.collected)
	}
	kind := kindOf(data)
	return kind != KindCollected && kind != KindRepeats
}

// deliver hands the bulk over once.
func (d *Delivery) deliver(ctx context.Context, b *Bulk) error {
	done, err := d.target.Deliver(ctx, b)
	d.note(func(s *DeliveryStats) {
		s.Writes += uint64(done.Writes)
		if err != nil {
			return
		}
		s.Rows += uint64(done.Rows)
		s.Duplicates += uint64(done.Duplicates)
		s.Parked += uint64(done.Parked)
		s.Bulks++
		s.Next, s.Seen, s.Oldest, s.Stopped, s.Err = b.Next, b.Next, time.Time{}, false, nil
	})
	if err != nil {
		return fmt.Errorf("delivering records %d to %d to %s: %w", b.First, b.Next-1, d.name, err)
	}
	d.next, d.until = b.Next, 0
	return nil
}

// pause notes a failure and waits; it returns how long the next pause may be.
func (d *Delivery) pause(ctx context.Context, err error, pause time.Duration) time.Duration {
	if ctx.Err() != nil {
		return pause
	}
	var how *DeliverError
	stopped := errors.As(err, &how) && how.Stop
	d.note(func(s *DeliveryStats) {
		s.Failures++
		s.Err, s.Stopped = err, stopped
	})
	wait := pause/2 + rand.N(pause/2+1)
	if how != nil {
		wait = max(wait, min(how.RetryAfter, retryAfterMax))
	}
	if stopped {
		wait = stoppedPause
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-d.retry:
	case <-t.C:
	case <-ctx.Done():
	}
	return min(2*pause, pauseMax)
}

func (d *Delivery) note(f func(*DeliveryStats)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.stats)
}

func (d *Delivery) noteOldest(b *Bulk) {
	for i := range b.Events {
		if at := b.Events[i].RawArrival; !at.IsZero() { // a seal has no moment of its own
			d.note(func(s *DeliveryStats) { s.Oldest = at })
			return
		}
	}
}
