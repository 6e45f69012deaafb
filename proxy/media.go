package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"firstbell/cache"
	"firstbell/coalesce"
)

// Large content of which clients ask for parts, a film that they seek in, is
// fetched and stored in blocks: cache.BlockBytes each, every one a flight of
// its own and a record on disk. A part is put together from them while they
// arrive:
//
//	Range -> the blocks' head (cache.FindIncomplete), fresh: it says length and
//	         validator. None, or stale: the flight for the first block brings it.
//	block -> from disk, else from its flight: from its first byte on as it
//	         arrives. When half of it is read, the next one is fetched.
//
// See blockfetch.go for the flight. A request for the whole runs the flight of
// flight.go, whatever blocks are there; once it has landed they are dropped.

const (
	// blockTries bounds how often one client asks anew for the head, or for one
	// block, when what came was of no use: another content, or cut off.
	blockTries = 3
	// rangesLearntFor is how long it is remembered that a resource cannot be had
	// in blocks.
	rangesLearntFor = 2 * time.Minute
	// blockAheadAt is how much of a block is read when the next one is fetched:
	// who only looks in for a moment has one fetched.
	blockAheadAt = cache.BlockBytes / 2
)

var errOtherContent = errors.New("the content has changed while it was sent")

// rangeless reports whether x asks for a part from an origin that is known to
// answer with the whole only.
func (p *Proxy) rangeless(x *exchange) bool {
	return p.cache.HasDisk() && x.wantsOnePart() && p.cache.Ranges(&x.request, x.arrived) == cache.Whole
}

// answerFromBlocks answers a request for one part from blocks, those that are
// missing fetched. It returns false, and has sent nothing, where that cannot be
// done: without a disk, for what is not shared or cannot be put together, for a
// client that refuses the identity coding.
func (p *Proxy) answerFromBlocks(x *exchange, found *cache.Found) bool {
	if x.method != "GET" || found.Stored != nil || !p.cache.HasDisk() || !x.wantsOnePart() ||
		p.cache.Ranges(&x.request, x.arrived) != cache.InBlocks {
		return false
	}
	accepts := cache.ReadAccepts(x.fields)
	if accepts.Refuses(cache.Identity) {
		return false
	}
	f := newBlockReader(p, x)
	before := x.note
	for range blockTries {
		x.note = before
		of, how := p.cache.FindIncomplete(&x.request, x.route.Cache, time.Now())
		if how.Outcome == cache.Bypass {
			return false
		}
		n := firstBlock(x, of)
		if of != nil && how.Outcome == cache.Hit && (n < 0 || of.Has(n)) {
			if f.answer(x, of, nil) {
				return true
			}
			break
		}
		if x.note.forwarded = "partial"; of == nil {
			x.note.forwarded = "uri-miss"
		} else if how.Outcome != cache.Hit {
			x.note.forwarded = how.Reason
		}
		l, led, err := f.fetched(max(n, 0), of)
		x.note.collapsed = !led
		switch {
		case err != nil:
			p.originProblem(x, 0, err)
			return true
		case l.err != nil:
			p.originProblem(x, l.status, l.err)
			return true
		case l.whole:
			x.whole, x.note = true, before
			p.forwardCollapsed(x, found)
			return true
		case l.again:
			continue
		case l.of == nil || !l.of.Suits(&x.request, x.route.Cache):
			x.note = before
			return false
		}
		if now := firstBlock(x, l.of); now >= 0 && now != n {
			continue // of the end was asked, and now it is known where that is
		}
		x.note.status = l.status
		f.first, f.firstAt = l, n
		if f.answer(x, l.of, l) {
			return true
		}
		break
	}
	x.note = before
	return false
}

// firstBlock is the block that the part which x asks for begins in, or -1 when
// that is not known without its length, or when there is no such part.
func firstBlock(x *exchange, of *cache.Incomplete) int64 {
	size := int64(1 << 62)
	value := x.fields.Peek("Range")
	if of != nil {
		size = of.Total
	} else if specs, _ := cutUnit(value); bytes.HasPrefix(bytes.TrimLeft(specs, " \t"), []byte("-")) {
		return -1
	}
	s, verdict := readRange(value, size)
	if verdict != rangeGiven {
		return -1
	}
	return s.from / cache.BlockBytes
}

// blockReader is what one client reads of a content in blocks.
type blockReader struct {
	p    *Proxy
	x    *exchange   // of the client
	plan *flightPlan // of its fetches

	of       *cache.Incomplete
	at, to   int64 // what is still to be sent
	block    source
	growing  *blockLanding // that block reads from; nil: it reads the disk
	tries    int           // for the block at hand
	triedFor int64
	first    *blockLanding // for the block firstAt, until it is read
	firstAt  int64
	ahead    *ahead
}

// ahead is the fetch of a block before it is asked for.
type ahead struct {
	n      int64
	flight *coalesce.Flight[*blockLanding]
	cancel context.CancelFunc
}

// newBlockReader makes the reader for a request. Its plan is in memory of its own:
// fetches that others have joined go on when the client is gone.
func newBlockReader(p *Proxy, x *exchange) *blockReader {
	plan := &flightPlan{route: x.route, send: x.canonical()}
	plan.request = cache.Request{Method: "GET", Key: bytes.Clone(x.request.Key), Fields: plan.send.Fields}
	return &blockReader{p: p, x: x, plan: plan, triedFor: -1}
}

// answer answers with the part that x asks for, or that there is none. l
// brought the head; nil: it was there. It returns false where x wants the
// whole.
func (f *blockReader) answer(x *exchange, of *cache.Incomplete, l *blockLanding) bool {
	p := f.p
	now := time.Now()
	x.note.ages = of.Age(now)
	takes := x.takes(of.Stored)
	if status, tag := cache.Conditional(x.fields, of.Stored, cache.Identity, &takes); status != 0 {
		f.notes(x, of, l, now)
		p.answerNotModified(x, of.Stored, tag)
		return true
	}
	part := askedPart(x, of.Stored, of.Total)
	if part.verdict == rangeIgnored {
		return false
	}
	f.of, f.at, f.to = of, part.from, part.to
	f.notes(x, of, l, now)
	p.answerPart(x, withAge(of.Fields, x), part, f)
	return true
}

// notes tells what answers: a hit is what is there to its last byte.
func (f *blockReader) notes(x *exchange, of *cache.Incomplete, l *blockLanding, now time.Time) {
	x.outcome = outcomeMiss
	if x.note.collapsed {
		x.outcome = outcomeCollapsed
	}
	switch {
	case l == nil:
		if all, _ := of.HasAll(f.at, f.to); !all {
			x.note.forwarded, x.note.stored = "partial", true
			return
		}
		x.outcome = outcomeHit
		x.note = note{hit: true, timed: true, ttl: of.FreshFor(now), ages: x.note.ages}
	case l.stale:
		x.outcome, x.note.detail = outcomeStaleOnError, "stale-if-error"
	case l.status == 304:
		x.outcome = outcomeRevalidated
	default:
		x.note.stored = l.body != nil
	}
}

// Next implements source.
func (f *blockReader) Next() ([]byte, error) {
	for f.at < f.to {
		if f.growing != nil && f.growing.stored.Load() {
			f.shut() // from here on it is read from disk, and memory has its block back
		}
		if f.block == nil {
			if err := f.open(); err != nil {
				return nil, cutShort(err)
			}
		}
		piece, err := f.block.Next()
		if err == nil {
			f.at += int64(len(piece))
			f.lookAhead()
			return piece, nil
		}
		f.shut()
		if err != io.EOF && !f.again() {
			return nil, err
		}
	}
	return nil, io.EOF
}

// again reports whether the block at hand may be tried once more.
func (f *blockReader) again() bool {
	if f.x.left() {
		return false
	}
	if n := f.at / cache.BlockBytes; n != f.triedFor {
		f.triedFor, f.tries = n, 0
	}
	f.tries++
	return f.tries < blockTries
}

// open opens the block that f.at lies in: from disk, else from its flight.
func (f *blockReader) open() error {
	n := f.at / cache.BlockBytes
	start := n * cache.BlockBytes
	end := min(start+cache.BlockBytes, f.to)
	for {
		if r := f.of.Block(n); r != nil {
			f.block = &diskSource{r: r, from: f.at - start, to: end - start}
			return nil
		}
		l, err := f.landingOf(n)
		switch {
		case err != nil:
			return err
		case l.err != nil:
			return l.err
		case !l.again && (l.of == nil || !l.of.SameContent(f.of)):
			return errOtherContent
		case !l.again:
			f.of = l.of
			if l.body == nil {
				break // it is on disk
			}
			if r, err := l.body.NewReader(); err == nil {
				if f.x.leave != nil {
					r.Until(f.x.leave.Done())
				}
				f.block, f.growing = &partSource{from: r, skip: f.at - start, left: end - f.at}, l
				return nil
			}
		}
		if !f.again() {
			return io.ErrUnexpectedEOF
		}
	}
}

// landingOf is what the flight for block n brings.
func (f *blockReader) landingOf(n int64) (*blockLanding, error) {
	if l := f.first; l != nil {
		if f.first = nil; f.firstAt == n {
			return l, nil
		}
	}
	l, _, err := f.fetched(n, f.of)
	return l, err
}

// fetched joins the flight for block n, or leads it, and waits for what it
// brings, as long as the client does.
func (f *blockReader) fetched(n int64, of *cache.Incomplete) (l *blockLanding, led bool, err error) {
	flight, led := f.p.blocks.Join(f.flightKey(n))
	var cancel context.CancelFunc
	if led {
		var ctx context.Context
		ctx, cancel = f.plan.route.context(f.p.life)
		f.p.beginBlock(flight, f.plan, n, of, ctx, cancel)
	}
	waits, end := f.x.lasting(f.p.life)
	defer end()
	if l, err = flight.Wait(waits); err != nil && led {
		abandonBlock(flight, cancel)
	}
	return l, led, err
}

// abandonBlock ends a block's flight whose leader is gone before it brought
// anything. What others have joined goes on: a block that several clients want
// is fetched to its end, if need be for those to come.
func abandonBlock(flight *coalesce.Flight[*blockLanding], cancel context.CancelFunc) {
	if !flight.Shared() {
		flight.Land()
		cancel()
	}
}

func (f *blockReader) flightKey(n int64) []byte {
	k := append(make([]byte, 0, len(f.plan.request.Key)+20), f.plan.request.Key...)
	return strconv.AppendInt(append(k, ' '), n, 10)
}

// lookAhead begins to fetch the block after the one at hand, once enough of
// that is read, if it will be wanted: at most one is fetched ahead.
func (f *blockReader) lookAhead() {
	n := (f.at - 1) / cache.BlockBytes
	next := n + 1
	if f.at-n*cache.BlockBytes < blockAheadAt || next*cache.BlockBytes >= f.to || f.ahead != nil && f.ahead.n == next {
		return
	}
	f.letGo()
	f.ahead = &ahead{n: next}
	if f.of.Has(next) {
		return
	}
	flight, led := f.p.blocks.Join(f.flightKey(next))
	if !led {
		return
	}
	ctx, cancel := f.plan.route.context(f.p.life)
	f.ahead.flight, f.ahead.cancel = flight, cancel
	f.p.counters.blocksAhead.Add(1)
	f.p.beginBlock(flight, f.plan, next, f.of, ctx, cancel)
}

// letGo ends the fetch ahead, unless somebody has come for it: its own reader
// counts as one.
func (f *blockReader) letGo() {
	if a := f.ahead; a != nil && a.flight != nil && !a.flight.Shared() {
		a.flight.Land()
		a.cancel()
	}
	f.ahead = nil
}

// shut lets go of the block at hand. One of which all that was asked for is
// read is fetched to its end, though nobody else may read it: it was wanted,
// and will be again.
func (f *blockReader) shut() {
	if f.block == nil {
		return
	}
	if part, ok := f.block.(*partSource); ok && part.left == 0 {
		part.from.(*coalesce.Reader).Release()
	} else {
		f.block.Close()
	}
	f.block, f.growing = nil, nil
}

// NextFile implements fileSource. What is not on disk, or is damaged there,
// has to be asked for by Next.
func (f *blockReader) NextFile() (file *os.File, at, n int64, err error) {
	for f.at < f.to {
		if f.block == nil {
			r := f.of.Block(f.at / cache.BlockBytes)
			if r == nil {
				return nil, 0, 0, nil
			}
			start := f.at / cache.BlockBytes * cache.BlockBytes
			f.block = &diskSource{r: r, from: f.at - start, to: min(cache.BlockBytes, f.to-start)}
		}
		stored, ok := f.block.(*diskSource)
		if !ok {
			return nil, 0, 0, nil
		}
		file, at, n, err = stored.NextFile()
		if file != nil && err == nil {
			f.at += n
			f.lookAhead()
			return file, at, n, nil
		}
		if err == nil {
			return nil, 0, 0, nil
		}
		f.shut()
		if err != io.EOF {
			return nil, 0, 0, nil
		}
	}
	return nil, 0, 0, io.EOF
}

// Again implements fileSource.
func (f *blockReader) Again(n int64) {
	f.at -= n
	f.shut() // it may be that of the block before
}

// Close implements source.
func (f *blockReader) Close() {
	f.shut()
	f.letGo()
}
