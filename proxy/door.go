package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/proxy/http2"
)

// door takes connections and has each served by a goroutine of its own, within
// the proxy's Limits. Whom it has no room for it tells so.
type door struct {
	proxy     *Proxy
	http2     *http2.Server
	ending    atomic.Bool   // no connection waits for another request
	greetings chan struct{} // holds one for each TLS handshake under way
	turning   chan struct{} // holds one for each connection that is being turned away
	visitors  visitors
	lot       lot
	siding    siding
	lanes     []*lane
	nextLane  atomic.Uint32
	parted    partCounts

	mu      sync.Mutex        // guards what follows
	open    int               // connections that were taken
	inside  map[occupant]bool // true: it was told to go, to make room
	going   int               // of those, told so
	closing bool
	empty   chan struct{} // closed once closing and nobody is inside
}

// occupant is a connection inside, whatever it speaks. Anybody may call its
// methods.
type occupant interface {
	// wake has it end soon when it waits for a request, and behind its answers
	// otherwise. The door is ending already.
	wake()
	// breakOff closes what it runs over at once, without a word to the client.
	breakOff()
}

func newDoor(p *Proxy) *door {
	d := &door{
		proxy: p, http2: newHTTP2(p), inside: make(map[occupant]bool), empty: make(chan struct{}),
		greetings: make(chan struct{}, greetingsMax), turning: make(chan struct{}, turningMax),
	}
	d.lot.resume, d.lot.end = d.resume, d.part
	d.siding.resume = d.goOn
	d.lanes = newLanes(d)
	return d
}

const (
	// acceptPauseMax is the longest pause after the system refused to hand out
	// a connection, as it does when it is out of file descriptors.
	acceptPauseMax = time.Second
	// turningMax connections are answered that there is no room for them at
	// once, each within turnTimeMax; what comes beyond is closed unsaid.
	turningMax  = 256
	turnTimeMax = time.Second
	// Room for one connection is looked for among lookMax of those inside, and
	// shedMax of them go at once, so that not every newcomer has to look.
	lookMax, shedMax = 1024, 32
)

// serve takes connections until the listener is closed. With secure they speak
// TLS.
func (d *door) serve(ln net.Listener, secure *tls.Config) error {
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !passing(err) {
				return err
			}
			pause = min(max(2*pause, 5*time.Millisecond), acceptPauseMax)
			d.proxy.log.Warn("taking a connection", "error", err, "pause", pause)
			d.mu.Lock()
			d.makeRoomLocked() // a file is what it needs
			d.mu.Unlock()
			time.Sleep(pause)
			continue
		}
		pause = 0
		d.take(nc, secure)
	}
}

// take has a connection served, or turned away.
func (d *door) take(nc net.Conn, secure *tls.Config) {
	limits, who := d.proxy.limits.Load(), visitorOf(nc.RemoteAddr())
	prefaced := false
	if c := d.proxy.clients.Load(); c != nil {
		from := addrOf(nc.RemoteAddr())
		switch {
		case c.Trusted.Has(from):
			who, prefaced = netip.Addr{}, c.Preface
		case !c.Access.lets(from):
			d.parted[partedDenied].Add(1)
			_ = nc.Close()
			return
		}
	}
	if !d.visitors.enter(who, limits.PerAddress) {
		d.turnAway(nc, secure != nil, partedAddress)
		return
	}
	if !d.opens(limits.Connections) {
		d.visitors.leave(who)
		d.turnAway(nc, secure != nil, partedTotal)
		return
	}
	go func() {
		if secure == nil && !prefaced {
			d.serveBare(nc, who)
			return
		}
		defer d.shuts(who)
		if prefaced {
			d.serveProxied(nc, secure)
			return
		}
		d.speak(nc, secure)
	}()
}

func (d *door) speak(nc net.Conn, secure *tls.Config) {
	if secure != nil {
		d.greet(nc, secure)
	} else {
		d.serveHTTP1(nc)
	}
}

// serveProxied serves a connection of a trusted proxy that begins with a header
// of the PROXY protocol, by the rules for the client that it names.
func (d *door) serveProxied(nc net.Conn, secure *tls.Config) {
	c, err := d.readPreface(nc)
	if err != nil {
		_ = nc.Close() // who does not keep to it is told nothing
		return
	}
	var who netip.Addr
	if clients := d.proxy.clients.Load(); c != nc && !clients.Trusted.Has(addrOf(c.RemoteAddr())) {
		if !clients.Access.lets(addrOf(c.RemoteAddr())) {
			d.parted[partedDenied].Add(1)
			_ = nc.Close()
			return
		}
		who = visitorOf(c.RemoteAddr())
	}
	if !d.visitors.enter(who, d.proxy.limits.Load().PerAddress) {
		d.turnAway(nc, secure != nil, partedAddress)
		return
	}
	defer d.visitors.leave(who)
	d.speak(c, secure)
}

// opens counts one more open connection, of which there may be most.
func (d *door) opens(most int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open-d.going >= most && !d.makeRoomLocked() {
		return false
	}
	d.open++
	return true
}

// shuts counts an open connection less.
func (d *door) shuts(who netip.Addr) {
	d.visitors.leave(who)
	d.mu.Lock()
	d.open--
	d.mu.Unlock()
}

// serveHTTP1 serves a connection that speaks HTTP/1, until it ends.
func (d *door) serveHTTP1(nc net.Conn) {
	c := newConn(d, nc)
	if !d.enter(c) {
		_ = nc.Close() // too late for it
		return
	}
	defer d.leave(c)
	c.run()
	if c.owes() {
		c.seeOff()
		return
	}
	c.close()
}

// serveBare is serveHTTP1 for a connection that may be parked meanwhile. It
// counts it out in the end.
func (d *door) serveBare(nc net.Conn, who netip.Addr) {
	c := newConn(d, nc)
	c.visitor, c.parks = who, c.raw != nil && canPark
	c.quick = laneAfter // a new one is taken to be quick
	if !d.enter(c) {
		_ = nc.Close() // too late for it
		d.shuts(who)
		return
	}
	d.attend(c)
}

// attend serves a connection until it ends or waits elsewhere.
func (d *door) attend(c *conn) {
	if !c.run() {
		c.end()
	}
}

// lead has a connection wait for its next request in a lane.
func (d *door) lead(c *conn) bool {
	return len(d.lanes) > 0 && !d.ending.Load() && d.lanes[d.nextLane.Add(1)%uint32(len(d.lanes))].enter(c)
}

// part counts a connection out that could be parked.
func (d *door) part(c *conn) {
	d.leave(c)
	d.shuts(c.visitor)
}

// park has an idle connection wait in the lot, unless the door shuts.
func (d *door) park(c *conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.ending.Load() && !d.inside[c] && d.lot.park(c)
}

// resume serves a parked connection again, which something has come from.
func (d *door) resume(c *conn, fd int) {
	tcp, err := unparked(fd)
	if err != nil {
		d.part(c)
		return
	}
	d.mu.Lock()
	c.Conn, c.tcp, c.readBy, c.writeBy = tcp, tcp, time.Time{}, time.Time{}
	c.bare()
	d.mu.Unlock()
	d.attend(c) // finds out if the door has shut meanwhile
}

// goOn goes on with an exchange that waited in the siding.
func (d *door) goOn(h *h1, err error) {
	c := h.conn
	switch h.resumed(err) {
	case again:
		d.attend(c)
	case over:
		c.end()
	}
}

// turnAway answers a connection that there is no room for, once it asks.
// unsaid has it closed without a word: to tell it would cost a handshake.
func (d *door) turnAway(nc net.Conn, unsaid bool, why parting) {
	select {
	case d.turning <- struct{}{}:
		d.parted[why].Add(1)
	default:
		d.parted[partedUnsaid].Add(1)
		unsaid = true
	}
	if unsaid {
		_ = nc.Close()
		return
	}
	go func() {
		defer func() {
			_ = nc.Close()
			<-d.turning
		}()
		wait := 2*time.Second + rand.N(4*time.Second) // spread, so that they do not come again together
		answer := closing(503, "too many are here at this moment; please wait a little", wait)
		if why == partedAddress {
			answer = closing(429, "too many connections come from your network; please wait a little", wait)
		}
		first := make([]byte, 1)
		if nc.SetDeadline(time.Now().Add(turnTimeMax)) != nil {
			return
		}
		if _, err := nc.Read(first); err != nil {
			return
		}
		if _, err := nc.Write(answer); err != nil {
			return
		}
		if half, ok := nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, nc, headBytesMax) // closed over unread bytes, the answer would be lost
		}
	}()
}

// passing reports whether an error of Accept concerns one connection, or may
// be over in a moment.
func passing(err error) bool {
	var ne net.Error
	//lint:ignore SA1019 which errors of Accept pass is what it is still right about
	return errors.As(err, &ne) && ne.Temporary()
}

// enter lets c in, unless the door shuts.
func (d *door) enter(c occupant) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return false
	}
	d.inside[c] = false
	return true
}

// An idler is an occupant that can give way to others.
type idler interface {
	// giveWay has it end if it only waits for a request, and reports whether
	// it does.
	giveWay() bool
}

// makeRoomLocked tells some idle connections to go, and reports whether there
// were any.
func (d *door) makeRoomLocked() bool {
	looked, told := 0, 0
	for c, going := range d.inside { // in no order
		if looked++; looked > lookMax || told == shedMax {
			break
		}
		if i, ok := c.(idler); ok && !going && i.giveWay() {
			d.inside[c] = true
			told++
		}
	}
	d.going += told
	d.parted[partedIdle].Add(int64(told))
	return told > 0
}

func (d *door) leave(c occupant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside[c] {
		d.going--
	}
	delete(d.inside, c)
	d.emptied()
}

// census is how many connections are open, and how many parted and why.
func (d *door) census() (open int, parted map[string]int64) {
	parted = make(map[string]int64, partings)
	for why := range d.parted {
		parted[partingNames[why]] = d.parted[why].Load()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open, parted
}

// tell has connections over which several requests run at once, and that can
// tell it between two of them, end: their clients know which were not taken.
func (d *door) tell() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.inside {
		if _, many := c.(*h2Conn); many {
			c.wake()
		}
	}
}

// isEmpty reports whether no connection is open.
func (d *door) isEmpty() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open == 0
}

func (d *door) emptied() {
	if d.closing && len(d.inside) == 0 {
		select {
		case <-d.empty:
		default:
			close(d.empty)
		}
	}
}

// drain tells clients who can be told to begin nothing more here.
func (d *door) drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.inside {
		if c, ok := c.(*h2Conn); ok {
			c.Drain()
		}
	}
}

// shutdown ends every connection: an idle one at once, a busy one behind its
// answer. With the context it closes those that are left, and returns the
// context's error. The listeners are closed before.
func (d *door) shutdown(ctx context.Context) error {
	d.mu.Lock()
	d.closing = true
	d.ending.Store(true)
	for c := range d.inside {
		c.wake()
	}
	d.emptied()
	d.mu.Unlock()
	d.lot.close() // nobody is parked any more
	for _, l := range d.lanes {
		l.close()
	}
	defer d.siding.close()
	select {
	case <-d.empty:
		return nil
	case <-ctx.Done():
	}
	d.mu.Lock()
	for c := range d.inside {
		c.breakOff()
	}
	d.mu.Unlock()
	return ctx.Err()
}

// listener may be closed more than once.
type listener struct {
	net.Listener
	once   sync.Once
	closed error
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { l.closed = l.Listener.Close() })
	return l.closed
}
