package websocket

import (
	"crypto/rand"
	"encoding/binary"
)

/*
A frame (RFC 6455 section 5.2):

	byte 0    FIN, three bits for extensions, opcode (4 bits)
	byte 1    MASK, length (7 bits)
	          126: 2 bytes of length follow, 127: 8 bytes
	          with MASK, 4 bytes of masking key
	          payload
*/

// HeaderMax is the longest header of a frame, in bytes.
const HeaderMax = 14

// closeFrame is the opcode that ends a direction.
const closeFrame = 8

// A Violation says what in a direction is no frame. It is an error.
type Violation struct {
	Reason string // for a counter: a few words with hyphens
	Detail string // for people
}

// Error implements error.
func (v *Violation) Error() string { return v.Detail }

// The violations: what two recipients would read differently.
var (
	violateMask    = &Violation{"mask", "a frame of a client is not masked, or one of a server is"}
	violateLength  = &Violation{"length", "a frame's length is not written in the shortest way, or beyond 63 bits"}
	violateControl = &Violation{"control", "a control frame is fragmented or longer than 125 bytes"}
)

// Frames follows the frames of one direction. The zero value stands before the
// first frame of a server.
type Frames struct {
	// Masked says that the direction is the client's, whose frames are masked.
	Masked bool
	// Closed says that a Close frame has passed: no frame may follow.
	Closed bool
	// Single has Scan stop behind the frame under way, or at once Between two.
	Single bool

	left    uint64 // payload to come of the frame under way
	closing bool   // that frame is a Close
}

// Between reports whether what Scan has let pass ends with a frame.
func (f *Frames) Between() bool { return f.left == 0 }

// Scan follows b, what comes next in the direction, and returns how much of it
// to pass on. Headers are passed on whole: what is left of b is the beginning of
// one, shorter than HeaderMax, to be scanned again with what follows; or, once
// Closed, bytes that nobody must send. The error is a *Violation; the bytes
// before the frame at fault have been counted in n.
func (f *Frames) Scan(b []byte) (n int, err error) {
	for !f.Closed {
		if f.left > 0 {
			take := min(uint64(len(b)-n), f.left)
			f.left -= take
			n += int(take)
			if f.left > 0 {
				return n, nil
			}
			f.Closed = f.closing
			continue
		}
		if f.Single {
			return n, nil
		}
		size, length, err := f.header(b[n:])
		if size == 0 || err != nil {
			return n, err
		}
		f.closing = b[n]&0xf == closeFrame
		f.left = length
		n += size
		f.Closed = f.closing && length == 0
	}
	return n, nil
}

// header reads a frame's header; size is 0 when it is not whole.
func (f *Frames) header(b []byte) (size int, length uint64, err error) {
	if len(b) < 2 {
		return 0, 0, nil
	}
	if (b[1]&0x80 != 0) != f.Masked {
		return 0, 0, violateMask
	}
	size, length = 2, uint64(b[1]&0x7f)
	if b[0]&8 != 0 && (b[0]&0x80 == 0 || length > 125) {
		return 0, 0, violateControl
	}
	switch length {
	case 126:
		if len(b) < 4 {
			return 0, 0, nil
		}
		size, length = 4, uint64(binary.BigEndian.Uint16(b[2:]))
		if length < 126 {
			return 0, 0, violateLength
		}
	case 127:
		if len(b) < 10 {
			return 0, 0, nil
		}
		size, length = 10, binary.BigEndian.Uint64(b[2:])
		if length <= 0xffff || length>>63 != 0 {
			return 0, 0, violateLength
		}
	}
	if f.Masked {
		size += 4
	}
	if len(b) < size {
		return 0, 0, nil
	}
	return size, length, nil
}

// The codes of a Close frame that a proxy sends (RFC 6455 section 7.4.1).
const (
	GoingAway     = 1001
	ProtocolError = 1002
)

// CloseFrame is a Close frame with a code and a reason of at most 123 bytes,
// masked if it is for a server.
func CloseFrame(masked bool, code uint16, reason string) []byte {
	reason = reason[:min(len(reason), 123)]
	b := []byte{0x80 | closeFrame, byte(2 + len(reason))}
	var mask [4]byte
	if masked {
		b[1] |= 0x80
		_, _ = rand.Read(mask[:]) // never fails
		b = append(b, mask[:]...)
	}
	payload := len(b)
	b = binary.BigEndian.AppendUint16(b, code)
	b = append(b, reason...)
	for i := range b[payload:] {
		b[payload+i] ^= mask[i&3]
	}
	return b
}
