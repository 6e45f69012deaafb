package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	quichttp3 "github.com/quic-go/quic-go/http3"

	"firstbell/proxy/http3"
	ws "firstbell/proxy/websocket"
)

// connecting is a client's connection of HTTP/3 that opens WebSockets by extended
// CONNECT (RFC 9220). To a library it looks like HTTP/1.1.
type connecting struct {
	t      *testing.T
	conn   *quichttp3.ClientConn
	stream *quichttp3.RequestStream // of the last one
}

// overQUIC is a connection to a gate by a library's client.
func overQUIC(t *testing.T, g *gate) *connecting {
	t.Helper()
	if g.wires == nil {
		g.startHTTP3()
	}
	q, err := g.dialQUIC(t.Context(), clientTLS("school.example", ProtocolHTTP3), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.CloseWithError(0x100, "") })
	return &connecting{t: t, conn: new(quichttp3.Transport).NewClientConn(q)}
}

// RoundTrip implements http.RoundTripper, for handshakes.
func (c *connecting) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-c.conn.ReceivedSettings():
	case <-time.After(time.Minute):
		return nil, errors.New("no SETTINGS")
	}
	if !c.conn.Settings().EnableExtendedConnect {
		return nil, errors.New("extended CONNECT is not offered")
	}
	s, err := c.conn.OpenRequestStream(r.Context())
	if err != nil {
		return nil, err
	}
	asks := r.Clone(r.Context())
	asks.Method, asks.Proto, asks.Body = http.MethodConnect, "websocket", nil
	asks.URL.Scheme = "https"
	for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Key"} {
		asks.Header.Del(name)
	}
	if err := s.SendRequestHeader(asks); err != nil {
		return nil, err
	}
	res, err := s.ReadResponse()
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		res.StatusCode = http.StatusSwitchingProtocols
		res.Header.Set("Connection", "Upgrade")
		res.Header.Set("Upgrade", "websocket")
		res.Header.Set("Sec-WebSocket-Accept", ws.Accept(r.Header.Get("Sec-WebSocket-Key")))
	}
	c.stream, res.Body, res.Request = s, s, r
	return res, nil
}

func (c *connecting) dial(ctx context.Context) (*websocket.Conn, error) {
	conn, _, err := websocket.Dial(ctx, "ws://school.example/class", &websocket.DialOptions{HTTPClient: &http.Client{Transport: c}})
	return conn, err
}

func TestAWebSocketIsOpenedOverHTTP3(t *testing.T) {
	g, _ := throughLoopback(t, sayBack(), forClasses(nil))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := overQUIC(t, g).dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	converseAndEnd(t, g, c, 1<<18)
}

func TestAClientOfHTTP3ThatIsGoneEndsItsWebSocket(t *testing.T) {
	for name, leave := range map[string]func(*connecting){
		"stream":     func(c *connecting) { c.stream.CancelRead(0x10c); c.stream.CancelWrite(0x10c) },
		"connection": func(c *connecting) { c.conn.CloseWithError(0x100, "") },
	} {
		g, _ := throughLoopback(t, sayBack(), forClasses(nil))
		client := overQUIC(t, g)
		if _, err := client.dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		leave(client)
		for end := time.Now().Add(time.Minute); g.live().Ended["client"] != 1; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: counted %v, want one that its client ended", name, g.live().Ended)
			}
		}
	}
}

// wsHead asks for a WebSocket.
func wsHead(lines ...string) string {
	return h3Frame(headersFrame, h3Section(append([]string{":method: CONNECT", ":protocol: websocket", ":scheme: https", ":authority: school.example", ":path: /class"}, lines...)...))
}

func TestExtendedCONNECTsOfHTTP3ThatLieAreRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, hello, forClasses(nil))
		c := g.connect()
		version := "sec-websocket-version: 13"
		for what, one := range map[string]struct{ sent, status string }{
			"another protocol":  {h3Frame(headersFrame, h3Section(":method: CONNECT", ":protocol: connect-ip", ":scheme: https", ":authority: school.example", ":path: /class", version)), "501"},
			"another version":   {wsHead("sec-websocket-version: 8"), "400"},
			"an answer in it":   {wsHead(version, "sec-websocket-accept: x"), "400"},
			"content announced": {wsHead(version, "content-length: 3"), "501"},
		} {
			a, err := c.ask(one.sent)
			if err != nil || !strings.HasPrefix(a.head, ":status: "+one.status+"\n") {
				t.Errorf("%s: got %q, %v; want %s", what, a.head, err, one.status)
			}
		}
		if n := len(g.fetched()); n != 0 {
			t.Errorf("%d of them reached the origin", n)
		}
	})
}

// agrees answers a handshake, whatever its key, and says back every byte.
func agrees(heads <-chan string) func(net.Conn) {
	return func(c net.Conn) {
		listens(heads, c)
		var b [100]byte
		for {
			n, err := c.Read(b[:])
			if err != nil {
				return
			}
			c.Write([]byte{0x82, byte(n)})
			c.Write(b[:n])
		}
	}
}

// listens answers a handshake, whatever its key.
func listens(heads <-chan string, c net.Conn) {
	_, key, _ := strings.Cut(<-heads, "Sec-WebSocket-Key: ")
	key, _, _ = strings.Cut(key, "\r\n")
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+ws.Accept(key)+"\r\n\r\n")
}

// A WebSocket that is silent now and then within a frame's head, of HTTP/3's or
// its own, goes on where it stopped; what is no content ends its connection.
func TestWhatAWebSocketOverHTTP3SaysMayComeInPieces(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		heads := make(chan string, 1)
		g, o := newRawGate(t, forClasses(&Live{Idle: time.Minute}), agrees(heads))
		if g.wires == nil {
			g.startHTTP3()
		}
		go func() { heads <- <-o.received }()
		c := g.connect()
		s := c.open(wsHead("sec-websocket-version: 13"))
		s.SetDeadline(time.Time{})
		var m http3.Message
		m.Reset(s)
		section, err := m.Head(64 << 10)
		head := h3Lines(section)
		if err != nil || !strings.HasPrefix(head, ":status: 200\n") {
			t.Fatalf("got %q, %v; want 200", head, err)
		}
		if lower := strings.ToLower(head); strings.Contains(lower, "sec-websocket-accept") || strings.Contains(lower, "upgrade") {
			t.Errorf("the answer has fields of HTTP/1.1's handshake: %s", head)
		}
		said := spoken(true, "a word")
		for i := range said { // the minute is over behind the first byte of a head
			for j, b := range []byte(h3Frame(dataFrame, string(said[i:i+1]))) {
				if time.Sleep(time.Second); j > 0 {
					time.Sleep(9 * time.Second)
				}
				if _, err := s.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
		}
		heard := 0
		for heard < len(said) {
			var frame [100]byte
			if _, err := io.ReadFull(&m, frame[:2]); err != nil {
				t.Fatalf("%d of %d bytes came back: %v", heard, len(said), err)
			}
			n := int(frame[1])
			if _, err := io.ReadFull(&m, frame[:n]); err != nil || !bytes.Equal(frame[:n], said[heard:heard+n]) {
				t.Fatalf("got %x, %v; want %x", frame[:n], err, said[heard:])
			}
			heard += n
		}
		io.WriteString(s, h3Frame(headersFrame, h3Section("a: b")))
		<-c.Context().Done()
		if code, all := ended(context.Cause(c.Context())); code != http3.FrameUnexpected || !all {
			t.Errorf("trailers in a WebSocket: got %v, want the connection's H3_FRAME_UNEXPECTED", context.Cause(c.Context()))
		}
		time.Sleep(time.Minute)
		if n := g.live(); n.Now["websocket"] != 0 || n.Ended["client"] != 1 {
			t.Errorf("counted %+v, want one that its client ended", n)
		}
	})
}

func TestAQuietWebSocketOverHTTP3IsTold(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		heads := make(chan string, 1)
		g, o := newRawGate(t, forClasses(&Live{Idle: time.Minute}), func(c net.Conn) {
			listens(heads, c)
			io.Copy(io.Discard, c) // its goodbye, too, may be sent first
		})
		if g.wires == nil {
			g.startHTTP3()
		}
		go func() { heads <- <-o.received }()
		c := g.connect()
		s := c.open(wsHead("sec-websocket-version: 13"))
		a, err := readH3(s)
		if err != nil || len(a.body) < 4 || a.body[0] != 0x88 || a.body[2:4] != "\x03\xe9" {
			t.Errorf("got %q, %v; want a Close frame, going away, and the stream's clean end", a.body, err)
		}
		time.Sleep(time.Minute)
		if n := g.live(); n.Now["websocket"] != 0 || n.Ended["idle"] != 1 {
			t.Errorf("counted %+v, want one that was quiet", n)
		}
	})
}

func TestARouteWithoutWebSocketOpensNoneOverHTTP3(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, hello, plain)
		if a, err := g.connect().ask(wsHead("sec-websocket-version: 13")); err != nil || !strings.HasPrefix(a.head, ":status: 403\n") {
			t.Errorf("got %q, %v; want 403", a.head, err)
		}
		if n := len(g.fetched()); n != 0 {
			t.Error("the origin was asked")
		}
	})
}

func TestWebSocketsOverHTTP3AreCountedAmongTheLive(t *testing.T) {
	g, _ := throughLoopback(t, sayBack(), forClasses(nil))
	g.proxy.SetLiveMax(1)
	client := overQUIC(t, g)
	if _, err := client.dial(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.dial(t.Context()); err == nil {
		t.Error("a second one was opened where there is place for one")
	}
	if n := g.live().Refused["total"]; n != 1 {
		t.Errorf("counted %v, want one refused for want of a place", g.live().Refused)
	}
}
