package http3

import (
	"io"
	"sync/atomic"
)

// The types of unidirectional streams (RFC 9114 section 6.2, RFC 9204 section
// 4.2).
const (
	StreamControl = 0x00
	StreamPush    = 0x01
	StreamEncoder = 0x02
	StreamDecoder = 0x03
)

const (
	settingTableCapacity = 0x01
	settingFieldSection  = 0x06
	settingBlocked       = 0x07
	settingConnect       = 0x08
)

// AppendSettings begins a control stream: its type, and SETTINGS, which offer
// extended CONNECT (RFC 9220). Nothing is said of what has its default, no
// dynamic table among it.
func AppendSettings(b []byte, fieldSectionMax int) []byte {
	payload := appendVarint([]byte{settingConnect, 1, settingFieldSection}, uint64(fieldSectionMax))
	b = append(b, StreamControl, frameSettings, byte(len(payload)))
	return append(b, payload...)
}

// Control reads what a client says about the connection.
type Control struct {
	budget  atomic.Int64 // of unwanted bytes
	goaway  uint64       // the lowest push id that is not taken any more
	pushMax uint64       // MAX_PUSH_ID
	pushed  bool         // it came
}

// controlBytes is what a control stream may hold beside settings before any
// request, and requestBytes what each request adds: browsers send a
// PRIORITY_UPDATE frame (RFC 9218) or two with each.
const (
	controlBytes = 16 << 10
	requestBytes = 256
)

// NewControl returns a reader for a connection's control stream.
func NewControl() *Control {
	c := &Control{goaway: varintMax}
	c.budget.Store(controlBytes)
	return c
}

// Requested says that a request was served. It may be called by anybody.
func (c *Control) Requested() {
	if c.budget.Add(requestBytes) > controlBytes {
		c.budget.Store(controlBytes)
	}
}

func (c *Control) spend(n int64) bool { return c.budget.Add(-n) >= 0 }

// A Stream is a unidirectional stream whose type was read.
type Stream struct {
	Type   uint64
	frames reader
}

// NewStream reads the type of a unidirectional stream. An error is the
// stream's, which ended before.
func (c *Control) NewStream(src io.Reader) (*Stream, error) {
	s := new(Stream)
	s.frames.reset(src, c.spend)
	var err error
	s.Type, err = s.frames.varint()
	return s, err
}

var errClosedCritical = connError(ClosedCriticalStream, "a stream that lasts as long as the connection ended")

// critical makes the end of a critical stream what it is.
func critical(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errClosedCritical
	}
	return err
}

// Read reads a control stream until it breaks, which is an error in any case.
func (c *Control) Read(s *Stream) error {
	f := &s.frames
	kind, err := f.next()
	if err != nil {
		return critical(err)
	}
	if kind != frameSettings {
		return connError(MissingSettings, "the control stream does not begin with SETTINGS")
	}
	if err := c.settings(f); err != nil {
		return err
	}
	for {
		kind, err := f.next()
		if err != nil {
			return critical(err)
		}
		if err := f.unwanted(); err != nil {
			return err
		}
		if err := c.frame(f, kind); err != nil {
			return err
		}
	}
}

// settingsBytesMax bounds SETTINGS: those known take 3 to 30 bytes, and clients
// add some that mean nothing.
const settingsBytesMax = 1 << 10

// settings reads SETTINGS (RFC 9114 section 7.2.4). None of them changes what
// is sent: answers' heads are small, no pushes, no dynamic table.
func (c *Control) settings(f *reader) error {
	if f.left > settingsBytesMax {
		return errUnwanted
	}
	var buf [settingsBytesMax]byte
	p, err := f.all(buf[:])
	if err != nil {
		return critical(err)
	}
	var seen []uint64
	for len(p) > 0 {
		var id uint64
		var ok bool
		if id, p, ok = readVarint(p); ok {
			_, p, ok = readVarint(p)
		}
		if !ok {
			return errFrameSize
		}
		if id >= 0x02 && id <= 0x05 { // HTTP/2's (section 7.2.4.1)
			return connError(SettingsError, "a setting of HTTP/2")
		}
		for _, s := range seen {
			if s == id {
				return connError(SettingsError, "a setting is there twice")
			}
		}
		seen = append(seen, id)
	}
	return nil
}

func (c *Control) frame(f *reader, kind uint64) error {
	switch kind {
	case frameGoAway:
		id, err := f.integer()
		if err != nil {
			return err
		}
		if id > c.goaway {
			return connError(IDError, "GOAWAY takes back the one before")
		}
		c.goaway = id
	case frameMaxPushID:
		id, err := f.integer()
		if err != nil {
			return err
		}
		if c.pushed && id < c.pushMax {
			return connError(IDError, "MAX_PUSH_ID takes back the one before")
		}
		c.pushMax, c.pushed = id, true
	case frameCancelPush:
		if _, err := f.integer(); err != nil {
			return err
		}
		return connError(IDError, "CANCEL_PUSH of what was never promised")
	case frameSettings, frameData, frameHeaders, framePushPromise, framePriority, framePing, frameWindow, frameContinue:
		return connError(FrameUnexpected, "a frame stands where it must not on the control stream")
	}
	return f.skip()
}

// ReadEncoder reads a QPACK encoder stream (RFC 9204 section 4.3) until it
// breaks: without a dynamic table, all that can be said is that there is none.
func (c *Control) ReadEncoder(s *Stream) error {
	for {
		b, err := s.frames.byte()
		if err != nil {
			return critical(err)
		}
		if b != 0x20 { // Set Dynamic Table Capacity: 0
			return connError(EncoderStreamError, "an instruction for a dynamic table that there is not")
		}
		if !c.spend(frameCost) {
			return errUnwanted
		}
	}
}

// ReadDecoder reads a QPACK decoder stream (RFC 9204 section 4.4) until it
// breaks: nothing needs acknowledgement, streams may be cancelled.
func (c *Control) ReadDecoder(s *Stream) error {
	for {
		b, err := s.frames.byte()
		if err != nil {
			return critical(err)
		}
		if b&0xc0 != 0x40 {
			return connError(DecoderStreamError, "an acknowledgement of what was never sent")
		}
		for more := b&0x3f == 0x3f; more; {
			if b, err = s.frames.byte(); err != nil {
				return critical(err)
			}
			more = b&0x80 != 0
			if !c.spend(1) {
				return errUnwanted
			}
		}
		if !c.spend(frameCost) {
			return errUnwanted
		}
	}
}
