package websocket

import (
	"bytes"
	"encoding/binary"
	"iter"
	"strings"
	"testing"
)

// lines are a field section, a line each.
type lines string

// All implements Fields.
func (l lines) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for line := range strings.SplitSeq(string(l), "\n") {
			if name, value, ok := strings.Cut(line, ": "); ok && !yield([]byte(name), []byte(value)) {
				return
			}
		}
	}
}

// get returns the value of the first line with the name.
func (l lines) get(name string) string {
	for n, v := range l.All() {
		if string(n) == name {
			return string(v)
		}
	}
	return ""
}

// rfcKey and rfcAccept are the example of RFC 6455 section 1.3.
const (
	rfcKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	rfcAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	good      = "Connection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: " + rfcKey +
		"\nSec-WebSocket-Protocol: chat, superchat\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n"
)

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.(*Refusal).Reason
}

func TestAHandshakeHasOneMeaning(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{"Upgrade: websocket", "Upgrade: WebSocket", ""},
		{"chat, superchat", "chat\nSec-WebSocket-Protocol: superchat", ""},
		{"Connection: keep-alive, Upgrade\n", "", "connection"},
		{"keep-alive, Upgrade", "keep-alive", "connection"},
		{"Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", "version"},
		{"Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13\nSec-WebSocket-Version: 8", "version"},
		{"Sec-WebSocket-Version: 13\n", "", "version"},
		{"Sec-WebSocket-Key: " + rfcKey + "\n", "", "key"},
		{rfcKey, rfcKey + "\nSec-WebSocket-Key: " + rfcKey, "key"},
		{rfcKey, "dGhlIHNhbXBsZSBub25jZR==", "key"}, // bits that decode to nothing
		{rfcKey, "dGhlIHNhbXBsZSBub25jZQ", "key"},
		{rfcKey, "short", "key"},
		{rfcKey, "dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Accept: " + rfcAccept, "answer-field"},
		{"chat, superchat", "chat, chat", "protocols"},
		{"chat, superchat", "chat,", "protocols"},
		{"chat, superchat", "a b", "protocols"},
		{"chat, superchat", strings.Repeat("p", 10) + strings.Repeat(",p", 40), "protocols"},
	} {
		f := lines(strings.Replace(good, c.old, c.new, 1))
		if !Asks(f) {
			t.Errorf("%q for %q: does not ask for a WebSocket", c.new, c.old)
		}
		err := CheckUpgrade("GET", false, f)
		if err == nil {
			err = CheckRequest(f)
		}
		if got := reason(err); got != c.want {
			t.Errorf("%q for %q: refused for %q, want %q", c.new, c.old, got, c.want)
		}
	}
	if got := reason(CheckUpgrade("POST", false, lines(good))); got != "method" {
		t.Errorf("POST: refused for %q, want method", got)
	}
	if got := reason(CheckUpgrade("GET", true, lines(good))); got != "content" {
		t.Errorf("content: refused for %q, want content", got)
	}
	if Asks(lines(strings.Replace(good, "websocket", "h2c", 1))) {
		t.Error("h2c asks for a WebSocket")
	}
}

func TestAnAnswerFitsItsHandshake(t *testing.T) {
	const answer = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: " + rfcAccept +
		"\nSec-WebSocket-Protocol: chat\nSec-WebSocket-Extensions: permessage-deflate\n"
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{"Upgrade: websocket\n", "", "upgrade"},
		{"Upgrade: websocket\n", "Upgrade: h2c\n", "upgrade"},
		{"Upgrade: websocket\n", "Upgrade: websocket, h2c\n", "upgrade"},
		{"Connection: Upgrade\n", "Connection: close\n", "upgrade"},
		{rfcAccept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOp=", "accept"},
		{rfcAccept, strings.ToLower(rfcAccept), "accept"},
		{rfcAccept, rfcAccept + "\nSec-WebSocket-Accept: " + rfcAccept, "accept"},
		{"Sec-WebSocket-Accept: " + rfcAccept + "\n", "", "accept"},
		{": chat", ": other", "protocol"},
		{": chat", ": chat, superchat", "protocol"},
		{": chat", ": chat\nSec-WebSocket-Protocol: superchat", "protocol"},
		{": permessage-deflate", ": x-unasked", "extension"},
		{": permessage-deflate", ": permessage-deflate, x-unasked", "extension"},
	} {
		f := lines(strings.Replace(answer, c.old, c.new, 1))
		err := CheckResponse(rfcKey, lines(good), f, f.get("Upgrade"), f.get("Connection"))
		if got := reason(err); got != c.want {
			t.Errorf("%q for %q: refused for %q, want %q", c.new, c.old, got, c.want)
		}
	}
	if got := Accept(rfcKey); got != rfcAccept {
		t.Errorf("Accept: got %s, want %s", got, rfcAccept)
	}
	if k := NewKey(); !validKey([]byte(k)) || k == NewKey() {
		t.Errorf("NewKey: got %q, want a valid key, another each time", k)
	}
}

// frame is a frame with a payload of size bytes.
func frame(first byte, masked bool, size int) []byte {
	b := []byte{first, 0}
	switch {
	case size < 126:
		b[1] = byte(size)
	case size <= 0xffff:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(size))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(size))
	}
	if masked {
		b[1] |= 0x80
		b = append(b, 1, 2, 3, 4)
	}
	return append(b, make([]byte, size)...)
}

// passed scans b in pieces of the size and returns how much was passed on.
func passed(f *Frames, b []byte, size int) (n int, err error) {
	var held []byte
	for len(b) > 0 && err == nil && !f.Closed {
		take := min(size, len(b))
		held = append(held, b[:take]...)
		b = b[take:]
		var some int
		some, err = f.Scan(held)
		n += some
		held = held[some:]
	}
	return n, err
}

func TestFramesAreFollowedHoweverTheyComeInPieces(t *testing.T) {
	for _, masked := range []bool{false, true} {
		stream := bytes.Join([][]byte{
			frame(0x81, masked, 0), frame(0x01, masked, 125), frame(0x89, masked, 3), frame(0x80, masked, 126),
			frame(0xc2, masked, 0xffff), frame(0x82, masked, 0x10000), CloseFrame(masked, GoingAway, "bye"),
		}, nil)
		for _, size := range []int{1, 2, 3, 7, 13, 14, 1000, len(stream)} {
			f := Frames{Masked: masked}
			n, err := passed(&f, append(stream[:len(stream):len(stream)], frame(0x81, masked, 2)...), size)
			if n != len(stream) || err != nil || !f.Closed || !f.Between() {
				t.Errorf("masked %v, pieces of %d: passed %d of %d, %v, closed %v", masked, size, n, len(stream), err, f.Closed)
			}
		}
	}
}

func TestWhatIsNoFrameIsFound(t *testing.T) {
	long := frame(0x82, false, 0x10000)
	long[2] = 0x80
	for _, c := range []struct {
		name  string
		bytes []byte
		want  string
	}{
		{"masked by a server", frame(0x81, true, 3), "mask"},
		{"long ping", frame(0x89, false, 126), "control"},
		{"ping in parts", frame(0x09, false, 3), "control"},
		{"two bytes for a small length", []byte{0x81, 126, 0, 125}, "length"},
		{"eight bytes for a small length", []byte{0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, "length"},
		{"length beyond 63 bits", long, "length"},
	} {
		f := Frames{}
		before := frame(0x81, false, 9)
		n, err := passed(&f, append(before, c.bytes...), 5)
		v, _ := err.(*Violation)
		if v == nil || v.Reason != c.want || n != 11 || !f.Between() {
			t.Errorf("%s: passed %d with %v, want 11 and %s", c.name, n, err, c.want)
		}
	}
}

func TestSingleStopsBetweenFrames(t *testing.T) {
	f := Frames{}
	b := append(frame(0x81, false, 9), frame(0x81, false, 4)...)
	n, _ := f.Scan(b[:5])
	f.Single = true
	more, err := f.Scan(b[n:])
	if n+more != 11 || err != nil || !f.Between() {
		t.Errorf("passed %d, %v, want 11 and to be between two frames", n+more, err)
	}
	if again, _ := f.Scan(b[n+more:]); again != 0 {
		t.Errorf("passed %d bytes of the next frame, want none", again)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(append(frame(0x81, true, 300), CloseFrame(true, 1001, "bye")...), 3, true)
	f.Add([]byte{0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 1, false)
	f.Add([]byte{0x88, 0x80, 1, 2, 3, 4, 5}, 2, true)
	f.Fuzz(func(t *testing.T, b []byte, size int, masked bool) {
		whole, pieces := Frames{Masked: masked}, Frames{Masked: masked}
		n, err := whole.Scan(b)
		m, errPieces := passed(&pieces, b, max(1, size%64))
		if n != m || (err == nil) != (errPieces == nil) || whole.Closed != pieces.Closed || whole.Between() != pieces.Between() {
			t.Errorf("at once: %d, %v, closed %v; in pieces: %d, %v, closed %v", n, err, whole.Closed, m, errPieces, pieces.Closed)
		}
		if rest := len(b) - n; err == nil && !whole.Closed && rest >= HeaderMax {
			t.Errorf("%d bytes are held, more than a header has", rest)
		}
	})
}

func FuzzHandshake(f *testing.F) {
	f.Add(good)
	f.Add("Upgrade: websocket\nConnection: ,,Upgrade\nSec-WebSocket-Key: ====")
	f.Fuzz(func(t *testing.T, text string) {
		l := lines(text)
		asks := Asks(l)
		if CheckUpgrade("GET", false, l) != nil || CheckRequest(l) != nil {
			return
		}
		key := l.get("Sec-WebSocket-Key")
		if err := CheckResponse(key, l, lines("Sec-WebSocket-Accept: "+Accept(key)), "websocket", "Upgrade"); err != nil {
			t.Errorf("asks %v: a plain answer to %q is refused: %v", asks, text, err)
		}
	})
}
