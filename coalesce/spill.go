package coalesce

import (
	"io"
	"slices"
)

// readBackBytes is how much a reader that is behind takes from the spill at
// once.
const readBackBytes = 64 << 10

// spillOver writes p, which came last, and at first all that is held, to the
// spill, and lets go of what memory need not hold. It reports false where there
// is none. Only the writer calls it.
func (b *Body) spillOver(p []byte) bool {
	if b.dry {
		return false
	}
	if b.spill != nil {
		if _, err := b.spill.Write(p); err != nil {
			b.runDry()
			return false
		}
		b.mu.Lock()
	} else {
		spill := b.begunSpill()
		if spill == nil {
			b.runDry()
			return false
		}
		b.mu.Lock()
		b.spill = spill
		for r := range b.readers {
			r.retainLocked()
		}
	}
	defer b.mu.Unlock()
	for len(b.chunks) > 1 && b.size-b.base > b.limits.Window {
		b.base += int64(len(b.chunks[0]))
		b.chunks[0] = nil
		b.chunks = b.chunks[1:]
	}
	return true
}

// begunSpill is a spill that holds all of the body so far, or nil.
func (b *Body) begunSpill() Spill {
	if b.limits.Spill == nil || b.windowed {
		return nil
	}
	spill := b.limits.Spill()
	if spill == nil {
		return nil
	}
	b.mu.Lock()
	held := slices.Clone(b.chunks)
	b.mu.Unlock()
	for _, chunk := range held {
		if _, err := spill.Write(chunk); err != nil {
			return nil
		}
	}
	return spill
}

// runDry has the body go on within its window. What was let go of stays
// readable in the spill, for those who read already.
func (b *Body) runDry() {
	b.mu.Lock()
	b.dry = true
	b.mu.Unlock()
}

// Spilled reports whether the body has ended cleanly and all of it is in the
// spill.
func (b *Body) Spilled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended && b.err == nil && b.spill != nil && !b.dry
}

// ShutSpill keeps new readers from the spill: who owns it lets go of it now.
// Those who read already go on.
func (b *Body) ShutSpill() {
	b.mu.Lock()
	b.shut = true
	b.mu.Unlock()
}

// Skip passes over up to n bytes that are there already, and returns how many:
// none while memory holds all of the body.
func (r *Reader) Skip(n int64) int64 {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	r.advanceLocked()
	if b.spill == nil || r.err != nil {
		return 0
	}
	n = min(n, b.size-r.pos)
	r.pos += n
	return n
}

// retainLocked has r keep the spill readable, if there is one.
func (r *Reader) retainLocked() {
	if s := r.body.spill; s != nil && r.spill == nil {
		s.Retain()
		r.spill = s
	}
}

// foundLocked is what follows at r's position in memory, or nil when that is
// in the spill alone.
func (r *Reader) foundLocked() []byte {
	at := r.pos - r.body.base
	if at < 0 {
		return nil
	}
	for _, chunk := range r.body.chunks {
		if at < int64(len(chunk)) {
			return chunk[at:]
		}
		at -= int64(len(chunk))
	}
	return nil
}

// readBack reads what follows from the spill.
func (r *Reader) readBack() ([]byte, error) {
	b := r.body
	if r.back == nil {
		r.back = make([]byte, readBackBytes)
	}
	b.mu.Lock()
	pos, most, spill := r.pos, b.base-r.pos, r.spill
	b.mu.Unlock()
	n, err := spill.ReadAt(r.back[:min(most, readBackBytes)], pos)
	if n == 0 {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF // all of it was written
		}
		return nil, err
	}
	b.mu.Lock()
	r.lent = n
	b.mu.Unlock()
	return r.back[:n], nil
}
