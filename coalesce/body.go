package coalesce

import (
	"errors"
	"io"
	"sync"
	"time"
)

// ErrTooSlow ends a reader that a flight beyond its keep could not wait for.
var ErrTooSlow = errors.New("reader fell behind the flight's window")

// ErrTooLate is returned by NewReader when a body can no longer be read from
// its beginning to its end.
var ErrTooLate = errors.New("too late to read the whole body")

// ErrGone ends a reader whose client is gone.
var ErrGone = errors.New("the reader's client is gone")

// ErrAbandoned ends a body that nobody was left to read.
var ErrAbandoned = errors.New("nobody is left reading")

const (
	chunkBytesMin = 8 << 10   // a lesson page fits one
	chunkBytesMax = 256 << 10 // a large body costs four allocations a MiB
	// A body whose length is announced up to this gets its memory in one
	// piece at once, so that it is stored without being put together. More is
	// not believed before it arrives.
	exactBytesMax = 1 << 20
)

// Limits bound what a Body holds.
type Limits struct {
	Keep     int64         // the whole body is held up to this many bytes
	Window   int64         // beyond Keep, this much is held for the slowest reader
	Patience time.Duration // beyond Keep, how long slow readers may hold up others in all

	// Allow is asked before more than the first MiB is held, in growing steps,
	// whether so many bytes more may be; a no makes what is held then the Keep.
	// Nil allows everything. It is called with the body locked.
	Allow func(bytes int64) bool

	// Spill is asked once, when more would be held than may be, for a place
	// where all of the body goes. Then memory holds about Window of it,
	// whoever is behind that reads it from there, and nobody is waited for or
	// detached. With nil, or where that cannot be written to any more, the body
	// goes on within its window.
	Spill func() Spill
}

// A Spill takes in a body that is too large for memory. ReadAt may be called
// beside Write, for what was written; it stays readable until as many Release
// as Retain were called. Every reader retains it for itself.
type Spill interface {
	io.Writer
	io.ReaderAt
	Retain()
	Release()
}

// keepFree is what every body may hold without asking.
const keepFree = 1 << 20

// A Body grows while it is read. One goroutine fills it; any number read it,
// each through a Reader of its own.
type Body struct {
	limits Limits
	known  int64 // announced length, -1 when there was none

	mu       sync.Mutex // guards all below
	chunks   [][]byte   // filled parts in order; what was filled never changes
	base     int64      // offset of chunks[0] in the body
	size     int64      // bytes filled so far
	ended    bool       // no more will be filled
	err      error      // why, when not for a clean end
	grown    chan struct{}
	readers  map[*Reader]struct{}
	windowed bool                  // grew beyond Keep: the beginning may be gone
	moved    chan struct{}         // closed when a reader moved while the writer waits; nil when it does not
	held     time.Duration         // how long slow readers have held up others
	allowed  int64                 // of limits.Keep, what may be held without asking again
	enough   func(size int64) bool // whether to give up when the last reader leaves before the end; may be nil
	stop     func()                // called, unlocked, when that was given up
	spill    Spill                 // where the body goes on; nil while memory holds it
	dry      bool                  // there is no spill, or it takes no more; changed by the writer alone
	shut     bool                  // nobody may begin to read from the spill any more
}

// NewBody returns an empty body. length is what was announced, or -1.
func NewBody(length int64, l Limits) *Body {
	return &Body{
		limits:  l,
		known:   length,
		grown:   make(chan struct{}),
		readers: make(map[*Reader]struct{}),
	}
}

// OnIdle sets what decides, each time the last reader closes its part of a body
// that has not ended, whether the body is given up, by how much of it there is:
// enough is called with the body locked. A body that is given up ends with
// ErrAbandoned at once, so that nobody joins it any more, and then stop is
// called, unlocked. Set it before readers come.
func (b *Body) OnIdle(enough func(size int64) bool, stop func()) { b.enough, b.stop = enough, stop }

// Fill reads r to its end into the body, waking readers after every read, and
// ends the body: cleanly on io.EOF, else with the error. It returns how the
// body ended, which may have been before.
// A body whose announced length is not met ends with io.ErrUnexpectedEOF.
func (b *Body) Fill(r io.Reader) error {
	err := b.fill(r)
	b.End(err)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *Body) fill(r io.Reader) error {
	var space []byte
	for {
		if len(space) == 0 {
			space = b.space()
		}
		n, err := r.Read(space)
		if n > 0 {
			b.commit(space[:n])
			if werr := b.pace(space[:n:n]); werr != nil {
				return werr
			}
			space = space[n:]
		}
		switch {
		case err == io.EOF:
			if b.known >= 0 && b.Size() != b.known {
				return io.ErrUnexpectedEOF
			}
			return nil
		case err != nil:
			return err
		}
	}
}

// space returns room for the next read. Only the writer calls it.
func (b *Body) space() []byte {
	left := int64(chunkBytesMax)
	if b.known >= 0 {
		left = b.known - b.size // size is changed by this goroutine alone
	}
	switch {
	case left <= 0:
		return make([]byte, 1) // only to meet the end, or one byte too many
	case b.known >= 0 && b.known <= exactBytesMax:
		return make([]byte, left)
	}
	return make([]byte, min(left, max(chunkBytesMin, min(b.size, chunkBytesMax))))
}

// commit makes bytes just read part of the body and wakes who waits for them.
func (b *Body) commit(p []byte) {
	b.mu.Lock()
	last := len(b.chunks) - 1
	if last >= 0 && adjoins(b.chunks[last], p) {
		b.chunks[last] = b.chunks[last][:len(b.chunks[last])+len(p)]
	} else {
		b.chunks = append(b.chunks, p)
	}
	b.size += int64(len(p))
	b.wakeLocked()
	b.mu.Unlock()
}

// adjoins reports whether p lies in memory right behind chunk, in its capacity.
func adjoins(chunk, p []byte) bool {
	n := len(chunk)
	return cap(chunk) > n && &chunk[:n+1][n] == &p[0]
}

func (b *Body) wakeLocked() {
	close(b.grown)
	b.grown = make(chan struct{})
}

// pace keeps a body beyond its keep within its window: it waits for the
// slowest readers, and detaches them once they have held up others for
// Patience in all. Readers that are all slow hold up nobody. p is what came
// last.
func (b *Body) pace(p []byte) error {
	b.mu.Lock()
	kept := b.keepLocked()
	b.mu.Unlock()
	if kept || b.spillOver(p) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.windowed = true
	for {
		if len(b.readers) == 0 {
			return ErrAbandoned // nobody may join any more: the beginning goes
		}
		if slowest := b.dropLocked(); b.size-slowest <= b.limits.Window {
			return nil
		}
		if !b.waitLocked() {
			b.detachLocked()
		}
	}
}

// keepLocked reports whether all of the body may be held.
func (b *Body) keepLocked() bool {
	for b.size > b.allowed && b.allowed < b.limits.Keep {
		step := min(max(b.allowed, keepFree), b.limits.Keep-b.allowed)
		if b.allowed > 0 && b.limits.Allow != nil && !b.limits.Allow(step) {
			b.limits.Keep = b.allowed
			break
		}
		b.allowed += step
	}
	return b.size <= b.limits.Keep
}

// waitLocked waits until a reader moves. It returns false when somebody was
// held up for as long as anybody has to bear.
func (b *Body) waitLocked() bool {
	moved := make(chan struct{})
	b.moved = moved
	if !b.holdsUpLocked() {
		b.mu.Unlock()
		<-moved
		b.mu.Lock()
		return true
	}
	began := time.Now()
	timer := time.NewTimer(b.limits.Patience - b.held)
	b.mu.Unlock()
	select {
	case <-moved:
	case <-timer.C:
	}
	timer.Stop()
	b.mu.Lock()
	b.moved = nil
	b.held += time.Since(began)
	return b.held < b.limits.Patience
}

// holdsUpLocked reports whether some reader waits for bytes that the window
// cannot take in because of another.
func (b *Body) holdsUpLocked() bool {
	for r := range b.readers {
		if !b.behindLocked(r) {
			return true
		}
	}
	return false
}

func (b *Body) behindLocked(r *Reader) bool { return b.size-r.pos > b.limits.Window/2 }

// dropLocked lets go of chunks that every reader has passed, as far as more than
// the window is held: who comes while the beginning is there still joins. It
// returns where the slowest reader is.
func (b *Body) dropLocked() (slowest int64) {
	slowest = b.size
	for r := range b.readers {
		slowest = min(slowest, r.pos)
	}
	for len(b.chunks) > 1 && b.base+int64(len(b.chunks[0])) <= slowest && b.size-b.base > b.limits.Window {
		b.base += int64(len(b.chunks[0]))
		b.chunks[0] = nil
		b.chunks = b.chunks[1:]
		for r := range b.readers {
			if b.spill != nil {
				break // they find their place anew each time
			}
			if r.at == 0 {
				r.off = 0 // it stood at the very end of the chunk
			} else {
				r.at--
			}
		}
	}
	return slowest
}

// detachLocked ends every reader that holds up the window.
func (b *Body) detachLocked() {
	for r := range b.readers {
		if b.behindLocked(r) {
			r.err = ErrTooSlow
			delete(b.readers, r)
		}
	}
	b.held = 0
	b.wakeLocked()
}

// End ends the body, cleanly when err is nil. Only the first end counts.
func (b *Body) End(err error) {
	b.mu.Lock()
	if !b.ended {
		b.ended, b.err = true, err
		b.wakeLocked()
	}
	b.mu.Unlock()
}

// Size returns how many bytes were filled so far.
func (b *Body) Size() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size
}

// Broken reports whether the body has ended with an error: nobody can read it
// any more who does not already.
func (b *Body) Broken() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil
}

// Readers returns how many read the body now.
func (b *Body) Readers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.readers)
}

// Bytes returns the whole body in one piece, and whether there is one: it
// ended cleanly and all of it is held. The bytes must not be changed.
func (b *Body) Bytes() ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended || b.err != nil || b.windowed || b.spill != nil {
		return nil, false
	}
	switch len(b.chunks) {
	case 0:
		return nil, true
	case 1:
		if c := b.chunks[0]; cap(c)-len(c) < len(c)/8+64 {
			return c, true
		}
	}
	whole := make([]byte, 0, b.size)
	for _, c := range b.chunks {
		whole = append(whole, c...)
	}
	return whole, true
}

// A Reader reads a Body from its beginning. It belongs to one goroutine.
type Reader struct {
	body *Body
	pos  int64 // guarded by body.mu: bytes handed out and done with
	at   int   // guarded by body.mu: index in body.chunks of the chunk that holds pos
	off  int   // guarded by body.mu: offset of pos in that chunk
	lent int   // bytes handed out by the last Next, not yet counted in pos
	err  error // guarded by body.mu: why the reader was detached

	spill Spill           // guarded by body.mu: the body's, retained
	back  []byte          // what was read from there last
	gone  <-chan struct{} // ends its wait; nil: nothing does
}

// NewReader returns a reader at the body's beginning, or ErrTooLate when that
// is no longer held or the body has ended with an error. The reader must be
// closed.
func (b *Body) NewReader() (*Reader, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.base > 0 && (b.spill == nil || b.dry || b.shut) || b.err != nil {
		return nil, ErrTooLate
	}
	r := &Reader{body: b}
	r.retainLocked()
	b.readers[r] = struct{}{}
	return r, nil
}

// Next returns the bytes that follow, waiting until there are some. They are
// valid until the next call and must not be changed. It returns io.EOF at a
// clean end, ErrTooSlow when the reader was left behind, or why the body ended.
func (r *Reader) Next() ([]byte, error) {
	b := r.body
	b.mu.Lock()
	r.advanceLocked()
	for {
		if r.err != nil {
			b.mu.Unlock()
			return nil, r.err
		}
		if b.spill != nil && r.pos < b.size {
			if p := r.foundLocked(); p != nil {
				r.lent = len(p)
				b.mu.Unlock()
				return p, nil
			}
			b.mu.Unlock()
			return r.readBack()
		}
		if b.spill == nil && r.at < len(b.chunks) {
			if p := b.chunks[r.at][r.off:]; len(p) > 0 {
				r.lent = len(p)
				b.mu.Unlock()
				return p, nil
			}
			if r.at < len(b.chunks)-1 {
				r.at, r.off = r.at+1, 0
				continue
			}
		}
		if b.ended {
			err := b.err
			b.mu.Unlock()
			if err == nil {
				err = io.EOF
			}
			return nil, err
		}
		grown := b.grown
		b.mu.Unlock()
		select {
		case <-grown:
		case <-r.gone:
			return nil, ErrGone
		}
		b.mu.Lock()
	}
}

// Until has Next return ErrGone, where it would wait, once gone is closed. It is
// called before Next.
func (r *Reader) Until(gone <-chan struct{}) { r.gone = gone }

// Ready reports whether Next has bytes, or an end, without waiting.
func (r *Reader) Ready() bool {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	return r.err != nil || b.ended || r.lent == 0 && b.size > r.pos
}

// advanceLocked counts what the last Next lent as read.
func (r *Reader) advanceLocked() {
	if r.lent == 0 {
		return
	}
	r.pos += int64(r.lent)
	r.off += r.lent
	r.lent = 0
	if b := r.body; b.moved != nil {
		close(b.moved)
		b.moved = nil
	}
}

// Close lets go of the body. The last reader to leave a body that has not
// ended has it given up, where OnIdle says so.
func (r *Reader) Close() {
	b := r.body
	b.mu.Lock()
	reading := r.leaveLocked()
	given := reading && len(b.readers) == 0 && !b.ended && b.enough != nil && b.enough(b.size)
	if given {
		b.ended, b.err = true, ErrAbandoned
		b.wakeLocked()
	}
	b.mu.Unlock()
	if given {
		b.stop()
	}
}

// Release lets go of the body like Close, by somebody who wants it to go on
// although nobody reads it.
func (r *Reader) Release() {
	r.body.mu.Lock()
	r.leaveLocked()
	r.body.mu.Unlock()
}

// leaveLocked takes r off its body and reports whether it was on it.
func (r *Reader) leaveLocked() (reading bool) {
	b := r.body
	_, reading = b.readers[r]
	delete(b.readers, r)
	if b.moved != nil {
		close(b.moved)
		b.moved = nil
	}
	if r.spill != nil {
		r.spill.Release()
		r.spill = nil
	}
	return reading
}
