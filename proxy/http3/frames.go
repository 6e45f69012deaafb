package http3

import (
	"errors"
	"io"
)

// The frame types of RFC 9114 section 7.2, and those of HTTP/2 that have no
// meaning here and must not come (section 7.2.8).
const (
	frameData        = 0x00
	frameHeaders     = 0x01
	framePriority    = 0x02
	frameCancelPush  = 0x03
	frameSettings    = 0x04
	framePushPromise = 0x05
	framePing        = 0x06
	frameGoAway      = 0x07
	frameWindow      = 0x08
	frameContinue    = 0x09
	frameMaxPushID   = 0x0d
)

// varintMax is the largest integer that QUIC has (RFC 9000 section 16).
const varintMax = 1<<62 - 1

// bufferBytes is read at once: most requests' heads fit.
const bufferBytes = 2 << 10

// frameCost is what a frame costs beside its payload, where unwanted ones are
// counted: a flood of empty ones is one, too.
const frameCost = 16

// reader reads frames from a stream. The zero reader with src set is ready.
type reader struct {
	src  io.Reader
	buf  [bufferBytes]byte
	r, w int
	head [16]byte // of a frame, as far as it has come
	n    int      // bytes of head
	left int64    // of the payload of the frame begun

	// spend is asked before n bytes are read that nobody wants; when it says
	// no, the stream is one of an attacker. It must not be nil.
	spend func(n int64) bool
}

func (f *reader) reset(src io.Reader, spend func(int64) bool) {
	f.src, f.spend = src, spend
	f.r, f.w, f.n, f.left = 0, 0, 0, 0
}

// fill reads more into the empty buffer.
func (f *reader) fill() error {
	f.r, f.w = 0, 0
	for range 16 {
		n, err := f.src.Read(f.buf[:])
		if n > 0 {
			f.w = n
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

func (f *reader) byte() (byte, error) {
	if f.r == f.w {
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
	b := f.buf[f.r]
	f.r++
	return b, nil
}

// varint reads an integer of QUIC (RFC 9000 section 16). io.EOF says that the
// stream ended before its first byte, io.ErrUnexpectedEOF that it did within.
func (f *reader) varint() (uint64, error) {
	b, err := f.byte()
	if err != nil {
		return 0, err
	}
	v := uint64(b & 0x3f)
	for range 1<<(b>>6) - 1 {
		b, err := f.byte()
		if err != nil {
			return 0, cut(err)
		}
		v = v<<8 | uint64(b)
	}
	return v, nil
}

// cut makes an end in the middle of something an error.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

var errCutFrame = connError(FrameError, "the stream ends within a frame")

// next reads the head of the next frame, passing over what is left of the one
// before. io.EOF is the stream's clean end. When the time for a read was over, it
// may be called again.
func (f *reader) next() (kind uint64, err error) {
	if err := f.skip(); err != nil {
		return 0, err
	}
	for {
		if kind, rest, ok := readVarint(f.head[:f.n]); ok {
			if length, _, ok := readVarint(rest); ok {
				f.left, f.n = int64(length), 0
				return kind, nil
			}
		}
		b, err := f.byte()
		if err == io.EOF && f.n == 0 {
			return 0, io.EOF
		}
		if err != nil {
			return 0, cutFrame(err)
		}
		f.head[f.n] = b
		f.n++
	}
}

func cutFrame(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errCutFrame
	}
	return err
}

// payload reads of the frame's payload; io.EOF is its end.
func (f *reader) payload(p []byte) (n int, err error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), f.left)]
	if f.r < f.w {
		n = copy(p, f.buf[f.r:f.w])
		f.r += n
	} else {
		n, err = f.src.Read(p)
	}
	f.left -= int64(n)
	if n > 0 {
		return n, nil // an error comes again
	}
	return 0, cutFrame(err)
}

// all reads the whole payload, of at most len(p) bytes, into p.
func (f *reader) all(p []byte) ([]byte, error) {
	p = p[:f.left]
	for n := 0; n < len(p); {
		m, err := f.payload(p[n:])
		if n += m; err != nil {
			return nil, err
		}
	}
	return p, nil
}

var errUnwanted = connError(ExcessiveLoad, "too much comes that means nothing here")

// unwanted pays for a frame that is passed over.
func (f *reader) unwanted() error {
	if !f.spend(f.left + frameCost) {
		return errUnwanted
	}
	return nil
}

// skip passes over what is left of the payload.
func (f *reader) skip() error {
	var waste [512]byte
	for f.left > 0 {
		if _, err := f.payload(waste[:]); err != nil {
			return err
		}
	}
	return nil
}

// integer reads a payload that is one integer.
func (f *reader) integer() (uint64, error) {
	var b [8]byte
	if f.left > int64(len(b)) {
		return 0, errFrameSize
	}
	p, err := f.all(b[:])
	if err != nil {
		return 0, err
	}
	v, rest, ok := readVarint(p)
	if !ok || len(rest) > 0 {
		return 0, errFrameSize
	}
	return v, nil
}

var errFrameSize = connError(FrameError, "a frame is longer or shorter than what it holds")

// readVarint reads an integer from the beginning of p.
func readVarint(p []byte) (v uint64, rest []byte, ok bool) {
	if len(p) == 0 {
		return 0, nil, false
	}
	n := 1 << (p[0] >> 6)
	if len(p) < n {
		return 0, nil, false
	}
	v = uint64(p[0] & 0x3f)
	for _, b := range p[1:n] {
		v = v<<8 | uint64(b)
	}
	return v, p[n:], true
}

// appendVarint appends v, which is at most 2^62-1.
func appendVarint(b []byte, v uint64) []byte {
	switch {
	case v < 1<<6:
		return append(b, byte(v))
	case v < 1<<14:
		return append(b, byte(v>>8)|0x40, byte(v))
	case v < 1<<30:
		return append(b, byte(v>>24)|0x80, byte(v>>16), byte(v>>8), byte(v))
	}
	return append(b, byte(v>>56)|0xc0, byte(v>>48), byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// AppendData appends the head of a DATA frame for n bytes of content.
func AppendData(b []byte, n int64) []byte {
	return appendVarint(append(b, frameData), uint64(n))
}

// AppendGoAway appends a GOAWAY frame: requests on streams from id on are not
// processed.
func AppendGoAway(b []byte, id uint64) []byte {
	var p [8]byte
	payload := appendVarint(p[:0], min(id, varintMax))
	b = append(b, frameGoAway, byte(len(payload)))
	return append(b, payload...)
}

// IsProtocol returns the *Error that err is, or nil.
func IsProtocol(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}
