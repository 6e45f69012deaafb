package wal

import (
	"bytes"
	"errors"
	"io"
)

// Reads begin with windowFirst, enough for a header and a link, and grow to
// steps of windowBytes: large enough that the disk's own time counts, small
// enough that a reader costs little memory.
const (
	windowFirst = 8 << 10
	windowBytes = 256 << 10
)

// pageBytes is the unit in which unreadable places are stepped over.
const pageBytes = 4096

// window reads a file through one buffer. What the disk refuses to give reads
// as zeros and is counted in unreadable, so that a bad sector is damage like
// any other. Used by one goroutine.
type window struct {
	file       File
	buf        []byte // cap is kept
	off        int64  // of buf[0]
	unreadable int64  // bytes the disk refused, in all reads so far
	refused    error  // why, the first time
}

// drop forgets the buffer, so that the next read asks the file again.
func (w *window) drop() { w.buf = w.buf[:0] }

// at returns up to n bytes at off, fewer only at the end of the file. They are
// valid until the next call.
func (w *window) at(off int64, n int) []byte {
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		w.fill(off, n)
	}
	i := off - w.off
	return w.buf[min(i, int64(len(w.buf))):min(i+int64(n), int64(len(w.buf)))]
}

// from returns what is in memory at off and behind, at least frameBytes of it
// unless the file ends before. It is valid until the next call.
func (w *window) from(off int64) []byte {
	if off < w.off || off+frameBytes > w.off+int64(len(w.buf)) {
		w.fill(off, frameBytes)
	}
	return w.buf[min(off-w.off, int64(len(w.buf))):]
}

// fill reads at least n bytes at off.
func (w *window) fill(off int64, n int) {
	n = max(n, windowFirst, min(windowBytes, 2*cap(w.buf)))
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.buf, w.off = w.buf[:n], off
	got, err := w.file.ReadAt(w.buf, off)
	if err == nil || errors.Is(err, io.EOF) {
		w.buf = w.buf[:got]
		return
	}
	w.fillPages()
}

// fillPages reads page by page what could not be read at once.
func (w *window) fillPages() {
	have := 0
	for have < len(w.buf) {
		step := pageBytes - int((w.off+int64(have))%pageBytes)
		p := w.buf[have:min(have+step, len(w.buf))]
		got, err := w.file.ReadAt(p, w.off+int64(have))
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			w.buf = w.buf[:have+got]
			return
		default:
			clear(p)
			w.unreadable += int64(len(p))
			if w.refused == nil {
				w.refused = err
			}
		}
		have += len(p)
	}
}

// lastNonZero returns the offset behind the last byte of [from, to) that is
// not zero, or from.
func (w *window) lastNonZero(from, to int64) int64 {
	last := from
	for off := from; off < to; {
		p := w.at(off, int(min(windowBytes, to-off)))
		if len(p) == 0 {
			break
		}
		if n := withoutZeros(p); n > 0 {
			last = off + int64(n)
		}
		off += int64(len(p))
	}
	return last
}

// withoutZeros returns the length of p less the zeros at its end. What was
// preallocated and not written is nothing else: it is compared in blocks, as
// every start reads all of the last segments.
func withoutZeros(p []byte) int {
	for block := zeros[:4<<10]; len(p) >= len(block) && bytes.Equal(p[len(p)-len(block):], block); {
		p = p[:len(p)-len(block)]
	}
	return len(bytes.TrimRight(p, "\x00"))
}
