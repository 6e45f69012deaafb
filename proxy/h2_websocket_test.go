package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"firstbell/proxy/certs"
	ws "firstbell/proxy/websocket"
)

// extended is a client's connection of HTTP/2 that opens one WebSocket by
// extended CONNECT (RFC 8441). To a library it looks like HTTP/1.1.
type extended struct {
	conn   net.Conn
	fields []string // of the request, beside those that it has to have
	pseudo []string // instead of those; nil: as they should be

	write sync.Mutex // guards framer's writes
	*http2.Framer

	mu       sync.Mutex // guards what follows
	moved    sync.Cond
	connLeft int64 // what we may send
	left     int64
	offered  bool // the server takes extended CONNECT

	status chan http.Header
	in     *io.PipeReader
	fill   *io.PipeWriter
}

// RoundTrip implements http.RoundTripper, for one handshake.
func (e *extended) RoundTrip(r *http.Request) (*http.Response, error) {
	e.moved.L = &e.mu
	e.connLeft, e.left = 65535, 65535
	e.status = make(chan http.Header, 1)
	e.in, e.fill = io.Pipe()
	e.Framer = http2.NewFramer(e.conn, e.conn)
	e.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(e.conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	e.locked(func() error { return e.WriteSettings() })
	go func() { e.fill.CloseWithError(e.read()) }()
	e.mu.Lock()
	for !e.offered {
		e.moved.Wait()
	}
	e.mu.Unlock()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	pseudo := e.pseudo
	if pseudo == nil {
		pseudo = []string{":method: CONNECT", ":protocol: websocket", ":scheme: https", ":authority: school.example", ":path: " + r.URL.Path}
	}
	for _, f := range append(append(pseudo, "sec-websocket-version: 13"), e.fields...) {
		name, value, _ := strings.Cut(f[1:], ": ")
		enc.WriteField(hpack.HeaderField{Name: f[:1] + name, Value: value})
	}
	e.locked(func() error {
		return e.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	})
	select {
	case h := <-e.status:
		res := &http.Response{StatusCode: 101, Header: h, Body: e, Request: r}
		if s := h.Get(":status"); s != "200" {
			fmt.Sscan(s, &res.StatusCode)
			return res, nil
		}
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
		h.Set("Sec-WebSocket-Accept", ws.Accept(r.Header.Get("Sec-WebSocket-Key")))
		return res, nil
	case <-time.After(time.Minute):
		return nil, errors.New("no answer")
	}
}

func (e *extended) locked(f func() error) error {
	e.write.Lock()
	defer e.write.Unlock()
	return f()
}

// read takes frames until the stream or the connection ends.
func (e *extended) read() error {
	for {
		f, err := e.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			e.mu.Lock()
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				e.left += int64(v) - 65535
			}
			if v, ok := f.Value(http2.SettingEnableConnectProtocol); ok && v == 1 {
				e.offered = true
			}
			e.moved.Broadcast()
			e.mu.Unlock()
			e.locked(e.WriteSettingsAck)
		case *http2.WindowUpdateFrame:
			e.mu.Lock()
			if f.StreamID == 0 {
				e.connLeft += int64(f.Increment)
			} else {
				e.left += int64(f.Increment)
			}
			e.moved.Broadcast()
			e.mu.Unlock()
		case *http2.MetaHeadersFrame:
			h := http.Header{}
			for _, f := range f.Fields {
				h[http.CanonicalHeaderKey(f.Name)] = append(h[http.CanonicalHeaderKey(f.Name)], f.Value)
			}
			h.Set(":status", f.PseudoValue("status"))
			e.status <- h
		case *http2.DataFrame:
			if n := len(f.Data()); n > 0 {
				e.fill.Write(f.Data())
				e.locked(func() error {
					return errors.Join(e.WriteWindowUpdate(0, uint32(n)), e.WriteWindowUpdate(1, uint32(n)))
				})
			}
			if f.StreamEnded() {
				return io.EOF
			}
		case *http2.RSTStreamFrame:
			return fmt.Errorf("reset: %v", f.ErrCode)
		}
	}
}

// Read implements io.Reader.
func (e *extended) Read(p []byte) (int, error) { return e.in.Read(p) }

// Write implements io.Writer, within the server's windows.
func (e *extended) Write(p []byte) (n int, err error) {
	for n < len(p) {
		e.mu.Lock()
		for e.left <= 0 || e.connLeft <= 0 {
			e.moved.Wait()
		}
		m := min(int64(len(p)-n), e.left, e.connLeft, 16<<10)
		e.left -= m
		e.connLeft -= m
		e.mu.Unlock()
		if err := e.locked(func() error { return e.WriteData(1, false, p[n:n+int(m)]) }); err != nil {
			return n, err
		}
		n += int(m)
	}
	return n, nil
}

// Close implements io.Closer.
func (e *extended) Close() error { return e.conn.Close() }

// overTLS serves a gate over TLS and returns a function that dials it.
func overTLS(t *testing.T, g *gate) func(protocols ...string) net.Conn {
	t.Helper()
	i := newIssuer(t)
	store, err := certs.New(certs.Options{Serves: func(string) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	store.Put(i.issue(t, "school.example"))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.proxy.ServeTLS(ln, store.Config(Protocols...)) }()
	t.Cleanup(func() { ln.Close(); <-served })
	return func(protocols ...string) net.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{ServerName: "school.example", RootCAs: i.pool, NextProtos: protocols})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

func TestAWebSocketIsOpenedByExtendedCONNECT(t *testing.T) {
	g, _ := throughLoopback(t, sayBack(), forClasses(nil))
	dial := overTLS(t, g)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e := &extended{conn: dial("h2")}
	c, _, err := websocket.Dial(ctx, "ws://school.example/class", &websocket.DialOptions{HTTPClient: &http.Client{Transport: e}})
	if err != nil {
		t.Fatal(err)
	}
	converseAndEnd(t, g, c, 1<<20)
}

// converseAndEnd has a WebSocket say back messages of up to so many bytes, and be
// told when the proxy ends.
func converseAndEnd(t *testing.T, g *gate, c *websocket.Conn, most int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c.SetReadLimit(-1)
	for _, size := range []int{0, 125, 126, 65536, most} {
		told := bytes.Repeat([]byte{byte(size), 7}, size/2)
		go func() {
			if err := c.Write(ctx, websocket.MessageBinary, told); err != nil {
				t.Errorf("writing %d bytes: %v", size, err)
			}
		}()
		if _, b, err := c.Read(ctx); err != nil || !bytes.Equal(b, told) {
			t.Errorf("got %d bytes and %v, want the %d that were said", len(b), err, len(told))
		}
	}
	if n := g.live().Now["websocket"]; n != 1 {
		t.Errorf("there are %d WebSockets, want 1", n)
	}
	landed := make(chan struct{})
	go func(land func()) { land(); close(landed) }(g.land)
	g.land = func() { <-landed }
	_, _, err := c.Read(ctx)
	if bye, ok := errors.AsType[websocket.CloseError](err); !ok || bye.Code != websocket.StatusGoingAway {
		t.Errorf("at the end the client was told %v, want going away", err)
	}
}

func TestAClientOfHTTP2ThatIsGoneEndsItsWebSocket(t *testing.T) {
	g, _ := throughLoopback(t, sayBack(), forClasses(nil))
	e := &extended{conn: overTLS(t, g)("h2")}
	if _, _, err := websocket.Dial(t.Context(), "ws://school.example/class", &websocket.DialOptions{HTTPClient: &http.Client{Transport: e}}); err != nil {
		t.Fatal(err)
	}
	e.locked(func() error { return e.WriteRSTStream(1, http2.ErrCodeCancel) })
	for end := time.Now().Add(time.Minute); g.live().Ended["client"] != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("counted %v, want one that its client ended", g.live().Ended)
		}
	}
}

func TestExtendedCONNECTsThatLieAreRefused(t *testing.T) {
	good := []string{":method: CONNECT", ":protocol: websocket", ":scheme: https", ":authority: school.example", ":path: /class"}
	with := func(i int, f string) []string {
		p := append([]string(nil), good...)
		p[i] = f
		return p
	}
	g, _ := throughLoopback(t, sayBack(), forClasses(nil))
	dial := overTLS(t, g)
	for _, c := range []struct {
		name           string
		pseudo, fields []string
		want           int
	}{
		{"another protocol", with(1, ":protocol: connect-udp"), nil, 501},
		{"two versions", good, []string{"sec-websocket-version: 8"}, 400},
		{"an answer in it", good, []string{"sec-websocket-accept: x"}, 400},
		{"content announced", good, []string{"content-length: 3"}, 501},
	} {
		e := &extended{conn: dial("h2"), pseudo: c.pseudo, fields: c.fields}
		_, res, err := websocket.Dial(t.Context(), "ws://school.example/class", &websocket.DialOptions{HTTPClient: &http.Client{Transport: e}})
		if err == nil || res == nil || res.StatusCode != c.want {
			t.Errorf("%s: got %v and %v, want %d", c.name, res, err, c.want)
		}
	}
}
