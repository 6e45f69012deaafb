package proxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"

	"firstbell/proxy/datagrams"
	"firstbell/proxy/http3"
)

// ProtocolHTTP3 is HTTP/3's name in ALPN.
const ProtocolHTTP3 = "h3"

// HTTP3 is how HTTP/3 is served. TLS is required, with ProtocolHTTP3 as its only
// protocol.
type HTTP3 struct {
	TLS *tls.Config
	// Port is what clients of HTTP/1.1 and HTTP/2 are told to find HTTP/3 at
	// (Alt-Svc, RFC 7838): another one than the socket's where packets are sent
	// on. 0: the socket's.
	Port int
	// ResetKey lets clients of a process that is gone know so at once (RFC 9000
	// section 10.3): it is to be the same after a restart, and secret. Zero: one
	// made up.
	ResetKey [32]byte
	// TokenKey protects the tokens that prove a client's address. It may be
	// shared by servers of the same names. Zero: one made up.
	TokenKey [32]byte
}

// marker makes connection IDs that begin with the mark of their process.
type marker datagrams.Mark

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (m marker) GenerateConnectionID() (quic.ConnectionID, error) {
	var id [datagrams.IDBytes]byte
	_, _ = rand.Read(id[copy(id[:], m[:]):]) // never fails
	return quic.ConnectionIDFromBytes(id[:]), nil
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (m marker) ConnectionIDLen() int { return datagrams.IDBytes }

const (
	// quicUnproven is how many handshakes may be under way before clients have
	// to prove their address first (RFC 9000 section 8.1.2), which costs them a
	// round trip, and those who made it up the way in.
	quicUnproven = 256
	// quicHandshakesMax bounds the handshakes under way.
	quicHandshakesMax = 4096
	// quicStreamsMax bounds the requests of a connection that are under way.
	quicStreamsMax = 100
	// quicUniStreamsMax: control, encoder and decoder streams, and a few of
	// types to come.
	quicUniStreamsMax = 8
	// quicHandshakeIdle is how long a client may stay silent in its handshake.
	quicHandshakeIdle = 5 * time.Second

	// What a connection may send ahead of being read: the first request's
	// content comes in one round trip up to the lower ones; uploads from far
	// away reach 4 MiB/s and more with the upper ones.
	quicStreamWindow, quicStreamWindowMax = 128 << 10, 1 << 20
	quicWindow, quicWindowMax             = 256 << 10, 2 << 20
	// quicWindowsMax bounds what all connections may send ahead beyond their
	// first windows.
	quicWindowsMax = 256 << 20
)

// quicDoor takes connections of QUIC and has each served by goroutines of its
// own.
type quicDoor struct {
	proxy       *Proxy
	transport   *quic.Transport
	listener    *quic.Listener
	leaving     atomic.Bool // clients are told to go
	ending      atomic.Bool // no request is taken any more
	open        atomic.Int64
	handshaking atomic.Int64
	windows     atomic.Int64 // bytes of windows beyond the first

	mu      sync.Mutex // guards what follows
	inside  map[*h3Conn]struct{}
	closing bool
	empty   chan struct{} // closed once closing and nobody is inside
}

// ServeHTTP3 answers HTTP/3 from pc until Shutdown or an error of the socket.
// After Shutdown it returns nil. The socket is closed then. A *datagrams.Socket
// may be handed over meanwhile to another process.
func (p *Proxy) ServeHTTP3(pc net.PacketConn, o HTTP3) error {
	d := &quicDoor{proxy: p, inside: make(map[*h3Conn]struct{}), empty: make(chan struct{})}
	if err := d.listen(pc, o); err != nil {
		return err
	}
	p.mu.Lock()
	closed := p.draining.Load()
	if !closed {
		p.altSvc.Store(altSvcAt(o.Port, pc.LocalAddr()))
		p.quicDoors = append(p.quicDoors, d)
	}
	p.mu.Unlock()
	if closed {
		d.close()
		return nil
	}
	err := d.serve()
	if p.draining.Load() || errors.Is(err, quic.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// altSvcSeconds is how long clients remember where HTTP/3 is: a day, as a
// browser that finds it gone goes back to TCP by itself.
const altSvcSeconds = 24 * 60 * 60

func altSvcAt(port int, local net.Addr) *string {
	if udp, ok := local.(*net.UDPAddr); ok && port == 0 {
		port = udp.Port
	}
	value := fmt.Sprintf("%s=\":%d\"; ma=%d", ProtocolHTTP3, port, altSvcSeconds)
	return &value
}

// elsewhere is the Alt-Svc field's value for x; "" when there is none to give.
func (p *Proxy) elsewhere(x *exchange) string {
	if value := p.altSvc.Load(); value != nil && x.tls.is && !p.draining.Load() {
		return *value
	}
	return ""
}

func (d *quicDoor) listen(pc net.PacketConn, o HTTP3) error {
	d.transport = &quic.Transport{Conn: pc, VerifySourceAddress: d.unproven, ConnContext: d.admit, Tracer: quicEvents{&d.proxy.counters}}
	if shared, ok := pc.(*datagrams.Socket); ok {
		d.transport.ConnectionIDGenerator = marker(shared.Mark())
	}
	if o.ResetKey != ([32]byte{}) {
		d.transport.StatelessResetKey = (*quic.StatelessResetKey)(&o.ResetKey)
	}
	if o.TokenKey != ([32]byte{}) {
		d.transport.TokenGeneratorKey = (*quic.TokenGeneratorKey)(&o.TokenKey)
	}
	var err error
	d.listener, err = d.transport.Listen(o.TLS, &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           quicHandshakeIdle,
		MaxIdleTimeout:                 d.proxy.limits.Load().Idle,
		InitialStreamReceiveWindow:     quicStreamWindow,
		MaxStreamReceiveWindow:         quicStreamWindowMax,
		InitialConnectionReceiveWindow: quicWindow,
		MaxConnectionReceiveWindow:     quicWindowMax,
		AllowConnectionWindowIncrease:  d.widen,
		MaxIncomingStreams:             quicStreamsMax,
		MaxIncomingUniStreams:          quicUniStreamsMax,
		RequireStreamCreditRelease:     true,
		// What was sent of an answer that breaks off still arrives.
		EnableStreamResetPartialDelivery: true,
	})
	if err != nil {
		return fmt.Errorf("listening for HTTP/3 at %v: %w", pc.LocalAddr(), err)
	}
	return nil
}

// quicEvents counts what happens to packets that are of no connection.
type quicEvents struct{ to *counters }

// RecordEvent implements qlogwriter.Recorder.
func (c quicEvents) RecordEvent(e qlogwriter.Event) {
	switch e := e.(type) {
	case qlog.VersionNegotiationSent:
		c.to.quicVersions.Add(1)
	case qlog.PacketSent:
		if e.Header.PacketType == qlog.PacketTypeRetry {
			c.to.quicRetries.Add(1)
		}
	case qlog.PacketDropped:
		c.to.quicDropped.Add(1)
	}
}

// Close implements qlogwriter.Recorder.
func (c quicEvents) Close() error { return nil }

// unproven reports whether a client has to prove its address before it gets a
// handshake.
func (d *quicDoor) unproven(net.Addr) bool { return d.handshaking.Load() >= quicUnproven }

var errQUICFull = errors.New("too many connections of QUIC")

// admit counts a connection in, until its context ends.
func (d *quicDoor) admit(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	if d.open.Add(1) > int64(d.proxy.limits.Load().Connections) || d.handshaking.Load() >= quicHandshakesMax {
		d.open.Add(-1)
		d.proxy.counters.quicRefused.Add(1)
		return nil, errQUICFull
	}
	d.handshaking.Add(1)
	a := &admitted{door: d}
	context.AfterFunc(ctx, a.gone)
	return context.WithValue(ctx, admittedKey{}, a), nil
}

type admittedKey struct{}

// admitted is a connection that was counted.
type admitted struct {
	door  *quicDoor
	shook atomic.Bool // its handshake is over, one way or the other

	mu    sync.Mutex // guards what follows
	wider int64      // bytes of its windows beyond the first
	over  bool
}

func (a *admitted) shaken() {
	if !a.shook.Swap(true) {
		a.door.handshaking.Add(-1)
	}
}

func (a *admitted) gone() {
	a.shaken()
	a.door.open.Add(-1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.door.windows.Add(-a.wider)
}

// widen reports whether a connection may send more ahead.
func (d *quicDoor) widen(q *quic.Conn, by uint64) bool {
	a, ok := q.Context().Value(admittedKey{}).(*admitted)
	if !ok {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || d.windows.Add(int64(by)) > quicWindowsMax {
		if !a.over {
			d.windows.Add(-int64(by))
		}
		return false
	}
	a.wider += int64(by)
	return true
}

// serve takes connections until the listener is closed.
func (d *quicDoor) serve() error {
	for {
		q, err := d.listener.Accept(context.Background())
		if err != nil {
			return err
		}
		if a, ok := q.Context().Value(admittedKey{}).(*admitted); ok {
			a.shaken()
		}
		d.take(newH3Conn(d, q))
	}
}

// take has a connection served. Its client's address is proven by now, so that
// nobody uses up the share of another.
func (d *quicDoor) take(c *h3Conn) {
	visitors, from := &d.proxy.door.visitors, addrOf(c.RemoteAddr())
	who := visitor(from)
	if clients := d.proxy.clients.Load(); clients != nil {
		switch {
		case clients.Trusted.Has(from):
			who = netip.Addr{}
		case !clients.Access.lets(from):
			d.proxy.door.parted[partedDenied].Add(1)
			c.close(http3.NoError, "")
			return
		}
	}
	if !visitors.enter(who, d.proxy.limits.Load().PerAddress) {
		d.proxy.door.parted[partedAddress].Add(1)
		c.close(http3.ExcessiveLoad, "too many connections come from your network")
		return
	}
	if !d.enter(c) {
		visitors.leave(who)
		c.close(http3.NoError, "")
		return
	}
	go func() {
		defer visitors.leave(who)
		defer d.leave(c)
		c.run()
	}()
}

func (d *quicDoor) enter(c *h3Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return false
	}
	d.inside[c] = struct{}{}
	return true
}

func (d *quicDoor) leave(c *h3Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.inside, c)
	d.emptied()
}

func (d *quicDoor) emptied() {
	if d.closing && len(d.inside) == 0 {
		select {
		case <-d.empty:
		default:
			close(d.empty)
		}
	}
}

// all returns the connections inside.
func (d *quicDoor) all() []*h3Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	cs := make([]*h3Conn, 0, len(d.inside))
	for c := range d.inside {
		cs = append(cs, c)
	}
	return cs
}

// drain tells every client, those too whose handshakes are under way, to open no
// more requests soon (RFC 9114 section 5.2): those on their way are still
// answered.
func (d *quicDoor) drain() {
	d.leaving.Store(true)
	for _, c := range d.all() {
		c.leave()
	}
}

// refuse takes no more connections, nor those whose handshakes are under way.
func (d *quicDoor) refuse() { _ = d.listener.Close() } // fails for a closed one only

// retire is shutdown for when another process takes the new connections: those
// whose handshakes are under way here are answered here. Once hurry is closed it
// waits for those no longer than drainMoment. drain comes before it.
func (d *quicDoor) retire(ctx context.Context, hurry <-chan struct{}) error {
	moment := time.NewTimer(drainMoment)
	defer moment.Stop()
	tick := time.NewTicker(retireLook)
	defer tick.Stop()
	hurried, over := false, false
	for d.open.Load() > 0 && ctx.Err() == nil && !(hurried && over && d.isEmpty()) {
		select {
		case <-tick.C:
		case <-moment.C:
			over = true
		case <-hurry:
			hurry, hurried = nil, true
		case <-ctx.Done():
		}
	}
	return d.shutdown(ctx)
}

func (d *quicDoor) isEmpty() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.inside) == 0
}

// shutdown ends every connection behind its answers. With the context it
// closes those that are left, and returns the context's error. drain comes
// before it.
func (d *quicDoor) shutdown(ctx context.Context) error {
	defer d.close()
	d.refuse()
	d.mu.Lock()
	d.closing = true
	d.emptied()
	d.mu.Unlock()
	d.ending.Store(true)
	for _, c := range d.all() {
		c.goAway(true)
	}
	select {
	case <-d.empty:
		return nil
	case <-ctx.Done():
	}
	for _, c := range d.all() {
		c.close(http3.NoError, "") // what is under way is broken off
	}
	<-d.empty
	return ctx.Err()
}

// close closes the socket.
func (d *quicDoor) close() {
	_ = d.transport.Close() // an error changes nothing any more
	_ = d.transport.Conn.Close()
}
