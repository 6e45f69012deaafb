package wal

import (
	"bytes"
	"encoding/binary"
	"math"
)

// scan walks the frames of one segment. It decides one thing: where the next
// frame is, and what lies between. It knows nothing of other segments.
type scan struct {
	win   window
	frame frame // read last
	id    uint64
	seed  uint32

	off    int64  // where the next frame should begin
	expect uint64 // the number it should have; 0: any
	limit  int64  // frames end here at the latest
	quiet  int64  // at this offset a look ahead found nothing, and zeros follow
	closed bool   // an end frame was read
	link   *link  // the first frame, when it was read
}

func newScan(f File, id uint64) *scan {
	return &scan{win: window{file: f}, id: id, seed: seed(id), off: headerBytes, limit: math.MaxInt64}
}

// gap is a stretch without frames: what lies between the frame before it and
// the one found by looking ahead.
type gap struct {
	from, to int64  // file offsets
	expect   uint64 // the first number missing; 0: not known
	found    *frame // the frame behind the gap; nil: nothing more in this segment
	zero     bool   // nothing but zeros (or the end of the file) from from on
}

// next returns the next frame. A frame returned with a gap was found behind
// it; a nil frame with a gap means that the frames end at gap.from. A nil
// frame and a nil gap: the limit or an end frame was reached.
// The frame's data is valid until the next call.
func (s *scan) next() (*frame, *gap) {
	if s.closed || s.off >= s.limit {
		return nil, nil
	}
	if f, ok := s.here(); ok {
		return f, nil
	}
	// What was read ahead may be older than what is known of where frames end.
	s.win.drop()
	if f, ok := s.here(); ok {
		return f, nil
	}
	if s.quiet == s.off && s.zeroAt(s.off) {
		return nil, &gap{from: s.off, to: s.off, expect: s.expect, zero: true}
	}
	from, expect := s.off, s.expect
	f, at := s.lookAhead(from)
	if f == nil {
		end := s.win.lastNonZero(from, s.limit)
		if end == from {
			s.quiet = from
		}
		return nil, &gap{from: from, to: end, expect: expect, zero: end == from}
	}
	// A frame behind a hole while the log is being written: by now whatever was
	// being written at the hole is there, because it was written first.
	s.win.drop()
	if f, ok := s.here(); ok {
		return f, nil
	}
	f, _ = s.frameAt(at)
	if f == nil {
		return nil, &gap{from: from, to: at, expect: expect}
	}
	s.off = at
	s.take(f)
	return f, &gap{from: from, to: at, expect: expect, found: f}
}

// here takes the frame that begins where the next one should.
func (s *scan) here() (*frame, bool) {
	f, ok := s.frameAt(s.off)
	if !ok || !s.fits(f, s.off, s.off) {
		return nil, false
	}
	s.take(f)
	return f, true
}

func (s *scan) take(f *frame) {
	s.off += f.size()
	switch f.kind {
	case kindLink:
		s.link, _ = decodeLink(f)
		s.expect = f.seq
	case kindRecord:
		s.expect = f.seq + 1
	case kindEnd:
		s.expect = f.seq
		s.closed = true
	}
}

func (s *scan) zeroAt(off int64) bool {
	p := s.win.at(off, frameBytes)
	return withoutZeros(p) == 0
}

// frameAt reads the frame that begins at off, whatever its number. It is valid
// until the next call.
func (s *scan) frameAt(off int64) (*frame, bool) {
	p := s.win.at(off, frameBytes)
	if len(p) < frameBytes {
		return nil, false
	}
	n, ok := frameLength(p, s.id)
	if !ok || off+n > s.limit {
		return nil, false
	}
	if p = s.win.at(off, int(n)); int64(len(p)) < n {
		return nil, false
	}
	s.frame, ok = decodeFrame(p, s.seed)
	return &s.frame, ok
}

// fits says whether a frame at off, read where hole begins (off itself when
// there is none), can be the next one: its number is the expected one, or as
// much higher as records fit into the hole.
func (s *scan) fits(f *frame, off, hole int64) bool {
	if f.seq == 0 || f.kind == kindLink && off != headerBytes {
		return false
	}
	if f.kind == kindLink {
		_, ok := decodeLink(f)
		return ok
	}
	if f.kind == kindRecord && uint64(f.place) >= f.seq {
		return false
	}
	if s.expect == 0 {
		return true
	}
	return f.seq >= s.expect && f.seq-s.expect <= uint64(off-hole)/frameBytes
}

// lookAhead finds the first frame behind from that belongs here.
func (s *scan) lookAhead(from int64) (*frame, int64) {
	const idAt = 16
	var id [4]byte
	binary.LittleEndian.PutUint32(id[:], uint32(s.id))
	for off := from + 1; off+frameBytes <= s.limit; {
		p := s.win.from(off)
		if p = p[:min(int64(len(p)), s.limit-off)]; len(p) < frameBytes {
			return nil, 0
		}
		step := int64(len(p) - frameBytes + 1)
		i := bytes.Index(p[idAt:], id[:])
		if i < 0 || int64(i) >= step {
			off += step
			continue
		}
		off += int64(i)
		if f, ok := s.frameAt(off); ok && s.fits(f, off, from) {
			return f, off
		}
		off++
	}
	return nil, 0
}

// sectorBytes is the smallest piece of a write that a disk keeps or loses whole.
const sectorBytes = 512

// lostSector says whether [from, to) holds a piece of zeros that a power cut
// can have left: all that lies of one sector in it, or the end of the file.
// The space of a segment is zeros before it is written, so a write cut short
// shows as such pieces; other bytes that do not match are damage.
func (s *scan) lostSector(from, to int64) bool {
	for off := from; off < to; {
		end := min(to, (off/sectorBytes+1)*sectorBytes)
		p := s.win.at(off, int(end-off))
		if int64(len(p)) < end-off || withoutZeros(p) == 0 {
			return true
		}
		off = end
	}
	return false
}

// wrecked says how long the frame at off claims to be, if its head can be read
// and all of it was written, and its checksum does not match all the same. Its
// last byte was copied last: once that is there, a write under way is over.
func (s *scan) wrecked(off int64) (int64, bool) {
	p := s.win.at(off, frameBytes)
	if len(p) < frameBytes || s.expect == 0 || binary.LittleEndian.Uint64(p[8:]) != s.expect {
		return 0, false
	}
	n, ok := frameLength(p, s.id)
	if !ok || s.lostSector(off, off+n) {
		return 0, false
	}
	if end := s.win.at(off+n-1, 1); len(end) == 0 || end[0] == 0 {
		return 0, false
	}
	s.win.drop()
	_, ok = s.frameAt(off)
	return n, !ok
}
