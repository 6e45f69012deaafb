package http3

import "io"

// Message reads what a request's stream holds: a field section, content, and
// maybe trailers (RFC 9114 section 4.1). It belongs to one goroutine at a time.
// It is large; keep it for the next request.
type Message struct {
	frames  reader
	section []byte // a field section as received; kept for the next
	ended   bool   // the content did
	err     error  // the reads' last word
	trailer bool   // section is the trailers'
	tunnel  bool   // nothing but content comes
}

// unwantedBytesMax bounds what a stream may hold of unknown frames.
const unwantedBytesMax = 64 << 10

// Reset begins a message read from src, a stream.
func (m *Message) Reset(src io.Reader) {
	left := int64(unwantedBytesMax)
	m.frames.reset(src, func(n int64) bool { left -= n; return left >= 0 })
	m.section = m.section[:0]
	m.ended, m.trailer, m.tunnel, m.err = false, false, false, nil
}

// Release lets go of the stream.
func (m *Message) Release() { m.frames.reset(nil, nil) }

// ErrTooLarge says that a field section is larger than was allowed. What is
// behind it can still be read.
var ErrTooLarge = streamError(ExcessiveLoad, "the field section is larger than allowed")

var (
	errIncomplete = streamError(RequestIncomplete, "the stream ends before a request")
	errPlace      = connError(FrameUnexpected, "a frame stands where it must not on a request's stream")
)

// Head reads up to the request's field section, of at most max bytes, and
// returns it encoded, valid until Trailers are read. An *Error says what broke
// the protocol; other errors are the stream's.
func (m *Message) Head(max int) ([]byte, error) {
	for {
		kind, err := m.frames.next()
		if err == io.EOF {
			return nil, errIncomplete
		}
		if err != nil {
			return nil, err
		}
		switch {
		case kind == frameHeaders:
			return m.readSection(max)
		case known(kind):
			return nil, errPlace
		}
		if err := m.frames.unwanted(); err != nil {
			return nil, err
		}
	}
}

func (m *Message) readSection(max int) ([]byte, error) {
	f := &m.frames
	if f.left > int64(max) {
		if !f.spend(f.left) {
			return nil, errUnwanted
		}
		return nil, ErrTooLarge
	}
	if int64(cap(m.section)) < f.left {
		m.section = make([]byte, f.left)
	}
	p, err := f.all(m.section[:cap(m.section)])
	m.section = p
	return p, err
}

// known reports the frames that may come behind the field section of a request
// as DATA or HEADERS only, or not at all on its stream.
func known(kind uint64) bool {
	switch kind {
	case frameData, frameHeaders, framePriority, frameCancelPush, frameSettings, framePushPromise,
		framePing, frameGoAway, frameWindow, frameContinue, frameMaxPushID:
		return true
	}
	return false
}

// Tunnel says that what follows the head is no message: trailers would be out of
// place (RFC 9114 section 4.4), and a Read whose time was over may be tried again.
func (m *Message) Tunnel() { m.tunnel = true }

// Empty waits until it is known whether content follows, and reports that none
// does. It is for behind Head.
func (m *Message) Empty() (bool, error) {
	more, err := m.More()
	return err == nil && !more && !m.trailer, err
}

// More waits until it is known whether content follows, and reports whether it
// does.
func (m *Message) More() (bool, error) {
	if m.frames.left == 0 && !m.ended {
		m.err = m.toContent()
	}
	if m.err != nil && m.err != io.EOF {
		return false, m.err
	}
	return !m.ended, nil
}

// Read reads content. io.EOF is its clean end.
func (m *Message) Read(p []byte) (n int, err error) {
	if m.err != nil || len(p) == 0 {
		return 0, m.err
	}
	if m.frames.left == 0 {
		if err := m.toContent(); err != nil {
			if !m.tunnel || err == io.EOF || IsProtocol(err) != nil {
				m.err = err
			}
			return 0, err
		}
	}
	n, err = m.frames.payload(p)
	if err != nil && err != io.EOF {
		// A time limit of the stream may be moved and the read be tried again.
		if IsProtocol(err) != nil {
			m.err = err
		}
		return n, err
	}
	return n, nil
}

// toContent goes on to the next byte of content, or to the message's end.
func (m *Message) toContent() error {
	for m.frames.left == 0 {
		kind, err := m.frames.next()
		switch {
		case err == io.EOF:
			m.ended = true
			return io.EOF
		case err != nil:
			return err
		case kind == frameData && !m.ended:
			if m.frames.left == 0 && !m.frames.spend(frameCost) {
				return errUnwanted
			}
			continue
		case kind == frameHeaders && !m.ended && !m.tunnel:
			m.ended, m.trailer = true, true
			if _, err := m.readSection(trailerBytesMax); err != nil {
				return err
			}
			continue
		case known(kind):
			return errPlace
		}
		if err := m.frames.unwanted(); err != nil {
			return err
		}
		if err := m.frames.skip(); err != nil {
			return err
		}
	}
	return nil
}

// trailerBytesMax bounds a trailer section: checksums and timings.
const trailerBytesMax = 8 << 10

// Trailers returns the encoded trailer section, once Read has returned io.EOF;
// nil when there is none.
func (m *Message) Trailers() []byte {
	if m.trailer {
		return m.section
	}
	return nil
}
