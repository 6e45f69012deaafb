package http2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/proxy/field"

	"golang.org/x/net/http2/hpack"
)

// peer is a client that writes whatever bytes a test wants, and a connection
// that serves it, in a bubble of fake time.
type peer struct {
	t    *testing.T
	c    net.Conn
	srv  *Server
	conn *Conn
	bad  []string      // reasons told to Config.Malformed
	slow []string      // what was too slow
	over chan struct{} // closed when Serve has returned

	mu     sync.Mutex    // guards what follows
	got    []string      // frames received, as text, since the last look
	deaf   chan struct{} // while it is not nil, nothing is read until it is closed
	slowly bool          // a frame is read when everybody waits
	dec    *hpack.Decoder
}

// testConfig has short names for what handlers do: the path says it.
func testConfig(p *peer) Config {
	return Config{
		Handler:    p.handle,
		Malformed:  func(r *field.Refusal) { p.bad = append(p.bad, r.Reason) },
		StreamsMax: 8,
		Times: func() Times {
			return Times{Idle: 75 * time.Second, Head: 10 * time.Second, Grace: 30 * time.Second, MinRate: 256, Write: 15 * time.Second}
		},
		SlowContent: func() { p.slow = append(p.slow, "content") },
		SlowReading: func() { p.slow = append(p.slow, "reading") },
	}
}

// handle answers a request as its path says.
func (p *peer) handle(s *Stream) {
	ok := AppendStatus(nil, 200)
	switch path := string(s.Head.Path); {
	case s.Refused != nil:
		s.Write(AppendStatus(nil, s.Refused.Status), nil, true)
	case path == "/hang": // until the client goes
		s.Aside()
		<-s.Done()
	case path == "/later":
		s.Aside()
		time.Sleep(time.Minute)
		s.Write(ok, nil, true)
	case path == "/unread":
		s.Write(ok, []byte("enough"), true)
	case path == "/nothing":
	case path == "/half":
		s.Write(ok, []byte("half"), false)
	case path == "/fields":
		var b strings.Builder
		for name, value := range s.Head.All() {
			fmt.Fprintf(&b, "%s=%s|", name, value)
		}
		s.Write(ok, []byte(b.String()), true)
	case path == "/early":
		s.Inform(AppendField(AppendStatus(nil, 103), "link", "</a.css>"), time.Second)
		s.Write(ok, nil, true)
	case strings.HasPrefix(path, "/big/"):
		n, _ := strconv.Atoi(path[5:])
		s.Write(ok, bytes.Repeat([]byte("x"), n), true)
	case s.Head.Length == 0:
		s.Write(ok, []byte("hello"), true)
	default:
		n, err := io.Copy(io.Discard, s)
		text := fmt.Sprintf("%d bytes, %v", n, err)
		if t := s.Trailer(); t != nil {
			for name, value := range t.All() {
				text += fmt.Sprintf(", %s=%s", name, value)
			}
		}
		s.Write(ok, []byte(text), true)
	}
}

// converse runs a conversation with a connection that has been greeted.
func converse(t *testing.T, f func(p *peer)) {
	t.Helper()
	converseAs(t, testConfig, func(p *peer) {
		p.send(preface, settings())
		if got := p.frames(); got != "settings 3=8 6=20480 9=1, window 0 983041, settings ack" {
			t.Errorf("the connection began with %q", got)
		}
		f(p)
	})
}

// converseAs runs a conversation from its first byte.
func converseAs(t *testing.T, config func(*peer) Config, f func(p *peer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		p := &peer{t: t, c: client, over: make(chan struct{})}
		p.dec = hpack.NewDecoder(4096, nil)
		p.srv = NewServer(config(p))
		p.conn = p.srv.NewConn(server, nil, p)
		go func() { p.conn.Serve(); close(p.over) }()
		go p.receive()
		f(p)
		client.Close()
		<-p.over
		if conns, streams := p.srv.Conns(), p.srv.Streams(); conns != 0 || streams != 0 {
			t.Errorf("left open: %d connections, %d streams", conns, streams)
		}
	})
}

// send writes the parts, each []byte or string, and waits until they are used.
func (p *peer) send(parts ...any) {
	var b []byte
	for _, part := range parts {
		switch part := part.(type) {
		case string:
			b = append(b, part...)
		case []byte:
			b = append(b, part...)
		}
	}
	p.c.SetWriteDeadline(time.Now().Add(time.Minute))
	p.c.Write(b) // what the connection made of it is in what it sends
	synctest.Wait()
}

// frames returns what came since it was asked last.
func (p *peer) frames() string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.Join(p.got, ", ")
	p.got = nil
	return text
}

// stopReading takes nothing any more until the returned function is called.
func (p *peer) stopReading() (again func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = make(chan struct{})
	return sync.OnceFunc(func() { close(p.deaf) })
}

// readSlowly takes a frame only when nobody has anything to do but to wait for
// that: each stream has its next piece ready by then. What comes so is there
// after a sleep, not at once.
func (p *peer) readSlowly() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slowly = true
}

func (p *peer) receive() {
	var b [frameHeadBytes]byte
	for {
		p.mu.Lock()
		deaf, slowly := p.deaf, p.slowly
		p.mu.Unlock()
		if deaf != nil {
			select {
			case <-deaf:
			case <-p.over:
			}
		}
		if slowly {
			time.Sleep(time.Nanosecond) // until everybody waits
		}
		if _, err := io.ReadFull(p.c, b[:]); err != nil {
			p.note("end")
			return
		}
		h := readFrameHead(b[:])
		payload := make([]byte, h.length)
		if _, err := io.ReadFull(p.c, payload); err != nil {
			p.note("end")
			return
		}
		p.note(p.text(h, payload))
	}
}

func (p *peer) note(text string) {
	p.mu.Lock()
	p.got = append(p.got, text)
	p.mu.Unlock()
}

var codeNames = map[uint32]string{CodeNo: "no", CodeProtocol: "protocol", CodeInternal: "internal", CodeFlowControl: "flow-control",
	CodeStreamClosed: "stream-closed", CodeFrameSize: "frame-size", CodeRefusedStream: "refused-stream", CodeCancel: "cancel",
	CodeCompression: "compression", CodeEnhanceCalm: "calm"}

// text is a frame in words.
func (p *peer) text(h frameHead, b []byte) string {
	end := ""
	if h.flags&flagEnd != 0 {
		end = " end"
	}
	switch h.kind {
	case frameData:
		text := strconv.Itoa(len(b))
		if len(b) < 100 {
			text = strconv.Quote(string(b))
		}
		return fmt.Sprintf("data %d %s%s", h.stream, text, end)
	case frameHeaders:
		var fields []string
		p.dec.SetEmitFunc(func(f hpack.HeaderField) { fields = append(fields, f.Name+"="+f.Value) })
		if _, err := p.dec.Write(b); err != nil {
			return "a header block that cannot be read: " + err.Error()
		}
		p.dec.Close()
		return fmt.Sprintf("headers %d %s%s", h.stream, strings.Join(fields, " "), end)
	case frameReset:
		return fmt.Sprintf("reset %d %s", h.stream, codeNames[binary.BigEndian.Uint32(b)])
	case frameSettings:
		if end != "" {
			return "settings ack"
		}
		text := "settings"
		for ; len(b) >= 6; b = b[6:] {
			text += fmt.Sprintf(" %d=%d", binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:]))
		}
		return text
	case framePing:
		return fmt.Sprintf("ping %q%s", b, end)
	case frameGoAway:
		return fmt.Sprintf("goaway %d %s", int32(binary.BigEndian.Uint32(b)), codeNames[binary.BigEndian.Uint32(b[4:])])
	case frameWindow:
		return fmt.Sprintf("window %d %d", h.stream, binary.BigEndian.Uint32(b))
	}
	return fmt.Sprintf("frame %d", h.kind)
}

// The frames that tests write.

func frame(kind frameType, flags uint8, stream uint32, payload ...byte) []byte {
	return append(appendFrameHead(nil, len(payload), kind, flags, stream), payload...)
}

func settings(pairs ...uint32) []byte {
	var p []byte
	for i := 0; i < len(pairs); i += 2 {
		p = appendSetting(p, uint16(pairs[i]), pairs[i+1])
	}
	return frame(frameSettings, 0, 0, p...)
}

func window(stream uint32, n int64) []byte { return appendWindow(nil, stream, n) }

func data(stream uint32, text string, end bool) []byte {
	return frame(frameData, flagIf(end), stream, []byte(text)...)
}

func flagIf(end bool) uint8 {
	if end {
		return flagEnd
	}
	return 0
}

// fields is a header block of "name: value" lines, without any table.
func fields(lines ...string) (b []byte) {
	for _, l := range lines {
		i := strings.Index(l[1:], ": ") + 1
		b = append(b, 0)
		for _, s := range [...]string{l[:i], l[i+2:]} {
			b = append(hpackInt(b, 0, 7, uint64(len(s))), s...)
		}
	}
	return b
}

// ask is a GET without content.
func ask(stream uint32, path string, more ...string) []byte {
	return frame(frameHeaders, flagEnd|flagEndBlock, stream, fields(append([]string{":method: GET", ":scheme: https", ":authority: school.example", ":path: " + path}, more...)...)...)
}

// post is the head of a request with content.
func post(stream uint32, path string, more ...string) []byte {
	return frame(frameHeaders, flagEndBlock, stream, fields(append([]string{":method: POST", ":scheme: https", ":authority: school.example", ":path: " + path}, more...)...)...)
}
