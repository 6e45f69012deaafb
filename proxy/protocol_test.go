package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	quichttp3 "github.com/quic-go/quic-go/http3"
)

// protocol is what the clients of gates speak: http, https (HTTP/1.1 over TLS),
// h2 or h3. deploy/test has the tests run over each.
var protocol = sync.OnceValue(func() string { return cmp.Or(os.Getenv("FIRSTBELL_TEST_PROTOCOL"), "http") })

// scheme is the scheme of what gates are asked for.
func scheme() string {
	if protocol() == "http" {
		return "http"
	}
	return "https"
}

// otherScheme is the one that gates are not asked by.
func otherScheme() string {
	if scheme() == "http" {
		return "https"
	}
	return "http"
}

// overHTTP leaves out, over other protocols, a test of what HTTP/1.1 alone has.
func overHTTP(t *testing.T) {
	t.Helper()
	if protocol() != "http" {
		t.Skip("about HTTP/1.1 itself")
	}
}

// slack is what takes no time at all in a bubble, but for packets that wait for
// others: QUIC sends no more at once than a network may take.
func slack() time.Duration {
	if protocol() == "h3" {
		return 20 * time.Millisecond
	}
	return 0
}

// ttl is what is left of seconds, in whole ones, a moment later.
func ttl(seconds int) string {
	if slack() > 0 {
		seconds--
	}
	return strconv.Itoa(seconds)
}

// arrive lets what was sent be received: at once, or after its handshake.
func arrive() {
	settle()
	time.Sleep(slack())
	settle()
}

// begin asks for a path and reads nothing. What the channel brings has its head
// only, nil when there is none; leave gives it up.
func (g *gate) begin(path string, fields ...string) (res <-chan *http.Response, leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, "GET", scheme()+"://school.example"+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Add(name, value)
	}
	got := make(chan *http.Response, 1)
	go func() {
		res, err := g.client.Do(r)
		if err != nil {
			res = nil
		}
		got <- res
	}()
	return got, cancel
}

// gateCertificate is shown by every gate, whatever it is asked for: made once,
// and good at any time that a bubble may think it is.
var gateCertificate = sync.OnceValue(func() *tls.Certificate {
	return newIssuer(loud{}).issue(loud{}, "school.example")
})

// loud is a testing.TB for what is made outside of tests.
type loud struct{ testing.TB }

func (loud) Helper()           {}
func (loud) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func serverTLS(protocols ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{*gateCertificate()}, NextProtos: protocols}
}

// clientTLS names the host of an address in the handshake.
func clientTLS(address string, protocols ...string) *tls.Config {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		name = address
	}
	return &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: protocols}
}

// wires are UDP without a network: what is sent to an address is received
// there, or lost when that is full.
type wires struct {
	mu   sync.Mutex // guards ends
	ends map[string]*wire
}

// wire is one address of wires.
type wire struct {
	all   *wires
	local *net.UDPAddr
	in    chan packet

	mu       sync.Mutex // guards what follows
	deadline time.Time
	moved    chan struct{} // closed when the deadline was moved
	over     chan struct{}
	closed   bool
}

type packet struct {
	from net.Addr
	data []byte
}

func newWires() *wires { return &wires{ends: make(map[string]*wire)} }

// listen returns the next address, beginning with 127.0.0.1:1.
func (ws *wires) listen() *wire {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := &wire{all: ws, local: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: len(ws.ends) + 1},
		in: make(chan packet, 4096), moved: make(chan struct{}), over: make(chan struct{})}
	ws.ends[w.local.String()] = w
	return w
}

// ReadFrom implements net.PacketConn.
func (w *wire) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		w.mu.Lock()
		deadline, moved := w.deadline, w.moved
		w.mu.Unlock()
		var late <-chan time.Time
		if !deadline.IsZero() {
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			late = t.C
		}
		select {
		case got := <-w.in:
			return copy(p, got.data), got.from, nil
		case <-w.over:
			return 0, nil, net.ErrClosed
		case <-late:
			return 0, nil, os.ErrDeadlineExceeded
		case <-moved:
		}
	}
}

// WriteTo implements net.PacketConn.
func (w *wire) WriteTo(p []byte, to net.Addr) (int, error) {
	w.all.mu.Lock()
	end := w.all.ends[to.String()]
	w.all.mu.Unlock()
	if end != nil {
		select {
		case end.in <- packet{w.local, append([]byte(nil), p...)}:
		default:
		}
	}
	return len(p), nil
}

// Close implements net.PacketConn.
func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		close(w.over)
	}
	return nil
}

// LocalAddr implements net.PacketConn.
func (w *wire) LocalAddr() net.Addr { return w.local }

// SetDeadline implements net.PacketConn.
func (w *wire) SetDeadline(t time.Time) error { return w.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn.
func (w *wire) SetReadDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = t
	close(w.moved)
	w.moved = make(chan struct{})
	return nil
}

// startHTTP3 has g's proxy serve HTTP/3 too, and returns where.
func (g *gate) startHTTP3() {
	g.wires = newWires()
	server := g.wires.listen()
	served := make(chan error, 1)
	go func() { served <- g.proxy.ServeHTTP3(server, HTTP3{TLS: serverTLS(ProtocolHTTP3)}) }()
	for g.proxy.altSvc.Load() == nil { // from here on it is told of
		runtime.Gosched()
	}
	land := g.land
	g.land = func() {
		land()
		if err := <-served; err != nil {
			g.t.Errorf("ServeHTTP3: %v", err)
		}
	}
}

// dialQUIC opens a connection to g's proxy.
func (g *gate) dialQUIC(ctx context.Context, conf *tls.Config, q *quic.Config) (*quic.Conn, error) {
	if q == nil {
		q = &quic.Config{}
	}
	q = q.Clone()
	q.EnableStreamResetPartialDelivery = true
	local := g.wires.listen()
	tr := &quic.Transport{Conn: local}
	c, err := tr.Dial(ctx, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, conf, q)
	if err != nil {
		tr.Close()
		local.Close()
		return nil, err
	}
	context.AfterFunc(c.Context(), func() { tr.Close(); local.Close() })
	return c, nil
}

// crowd is a client of HTTP/3 that opens another connection when a request
// finds no place on those there are.
type crowd struct {
	g *gate

	mu   sync.Mutex // guards what follows
	each []*bundle
}

type bundle struct {
	transport *quichttp3.Transport
	busy      int
}

// RoundTrip implements http.RoundTripper.
func (c *crowd) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	var m *bundle
	for _, one := range c.each {
		if one.busy < quicStreamsMax/2 {
			m = one
			break
		}
	}
	if m == nil {
		m = &bundle{transport: &quichttp3.Transport{DisableCompression: true,
			Dial: func(ctx context.Context, address string, _ *tls.Config, q *quic.Config) (*quic.Conn, error) {
				return c.g.dialQUIC(ctx, clientTLS(address, ProtocolHTTP3), q)
			}}}
		c.each = append(c.each, m)
	}
	m.busy++
	c.mu.Unlock()
	res, err := m.transport.RoundTrip(r)
	done := func() { c.mu.Lock(); m.busy--; c.mu.Unlock() }
	if err != nil {
		done()
		return nil, err
	}
	res.Body = &heard{ReadCloser: res.Body, done: sync.OnceFunc(done)}
	return res, nil
}

// heard is a body that says when it is closed.
type heard struct {
	io.ReadCloser
	done func()
}

// Close implements io.Closer.
func (h *heard) Close() error {
	defer h.done()
	return h.ReadCloser.Close()
}

// CloseIdleConnections closes all: what is still asked for is broken off.
func (c *crowd) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.each {
		m.transport.Close()
	}
	c.each = nil
}
