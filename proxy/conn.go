package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/http1"
	"firstbell/proxy/peer"
)

const (
	headBytesMax  = 16 << 10               // request line and fields; a school's cookies reach 6 kB
	emptyLinesMax = 8                      // before a request: old clients send one behind content
	informTimeMax = 100 * time.Millisecond // for a client to take an informational response: a flight waits so long for who began it

	// A write is cut into pieces of this size, each with a time limit of its
	// own, which is prolonged for who takes MinRate. What a write that broke off
	// got rid of counts, so large pieces are no harder on slow clients; eight
	// smaller ones in place of one cost 40 % more CPU for a hit of 1 MiB.
	writePieceMax = 1 << 20
	// bodyCopyMax is up to what size a body is copied behind its head: that
	// costs less than a second vector.
	bodyCopyMax = 4 << 10
	// recordBytesMax is what one TLS record holds (RFC 8446 section 5.1): each is
	// a write of its own, so what fits into one leaves in one.
	recordBytesMax = 16 << 10
	// answerKeptMax bounds what an answer was put together in and is kept for the
	// next: one record, as append grows.
	answerKeptMax = 24 << 10

	// drainBytesMax is how much of a content that nobody read is read and
	// dropped to save its connection.
	drainBytesMax = 64 << 10
	// A client who still sends when its connection ends never reads the answer:
	// it is listened to for so long, and so much.
	lingerTimeMax  = 5 * time.Second
	lingerBytesMax = 64 << 20
)

// conn is a connection to a client over HTTP/1. It belongs to the goroutine of
// run; while an exchange's content is read, to who reads it.
type conn struct {
	net.Conn
	door   *door
	await  func(fd uintptr) bool
	remote string // the client's address, without port
	ends   peer.Header
	scheme string // of what is asked over it
	tls    secured

	pacer
	under *greeting // what TLS runs over; nil without

	in       *[]byte // from the pools of buffers; nil while the connection is idle
	r, w     int     // received and not used: (*in)[r:w]
	awaitErr error   // of await

	visitor netip.Addr // what it was counted by, where it may be parked
	parks   bool       // it may be
	idleBy  time.Time  // a request has to come by then
	parking            // guarded by the lot
	laned
	sided

	idle    atomic.Bool // waits for the first byte of a request
	woken   atomic.Bool // somebody wanted it to end if it was idle
	readBy  time.Time   // the read deadline that is meant
	writeBy time.Time   // the write deadline in force

	vectors [3][]byte
	buffers net.Buffers
}

// The buffers that heads are read into: most fit the small one.
var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, 2<<10); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, headBytesMax); return &b }}
)

func newConn(d *door, nc net.Conn) *conn {
	c := &conn{Conn: bare(nc), door: d, scheme: "http", pacer: d.newPacer()}
	c.remote = nc.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(c.remote); err == nil {
		c.remote = host
	}
	c.ends = endsOf(nc)
	if p, ok := nc.(*proxied); ok && p.secure {
		c.scheme = "https"
	}
	c.fd = -1
	below := c.Conn
	if t, ok := nc.(*tls.Conn); ok {
		c.scheme, c.tls = "https", securedBy(t)
		c.under, _ = t.NetConn().(*greeting)
		below = transport(t)
	}
	if c.tcp, _ = below.(*net.TCPConn); c.tcp != nil && !c.tls.is {
		c.bare()
	}
	return c
}

// bare has c wait for requests without a buffer.
func (c *conn) bare() {
	c.raw, _ = c.tcp.SyscallConn() // fails for a closed connection only: then reading tells
	c.await, c.tryNow, c.push = c.readReady, c.tryRead, c.tryWrite
}

// run serves the connection's requests, one after the other. It returns true
// when the connection waits elsewhere, and is no longer c's.
func (c *conn) run() (moved bool) {
	for {
		if c.mayLead() && c.door.lead(c) {
			return true
		}
		head, err := c.awaitHead()
		if err == errQuiet {
			if c.door.park(c) {
				return true
			}
			c.parks = false
			continue
		}
		if err != nil {
			c.refuse(err)
			return false
		}
		if head == 0 {
			return false
		}
		switch c.exchange(head) {
		case over:
			return false
		case later:
			return true
		}
	}
}

// laned is what a connection in a lane is held by.
type laned struct {
	state   atomic.Uint32 // as to its lane
	quietAt atomic.Int64  // since when it waits, in Unix nanoseconds; about

	lane   *lane  // nil: none
	number int    // its descriptor
	turn   *turn  // whose part it is to be served right now; nil: a goroutine of its own
	more   bool   // there may be more to read than was read
	quick  int    // exchanges in a row that waited for nothing
	posted []byte // for push to write, or
	parts  [][]byte
	pushed int // what it wrote

	tryNow, push func(fd uintptr) bool
}

// laneAfter is how many exchanges in a row have to have waited for nothing before
// a connection goes into a lane. To get there takes a system call, and out
// another; a connection there holds neither a goroutine nor a buffer.
const laneAfter = 1

// mayLead reports whether the connection, which waits for a request, is to do so
// in a lane.
func (c *conn) mayLead() bool {
	return c.quick >= laneAfter && c.parks && c.r == c.w && !c.woken.Load()
}

// turn is what a goroutine does for many connections, one after the other, until
// one of them takes its time: then another goroutine does the rest.
type turn struct {
	rest func()
	left bool
}

// fate is what becomes of a connection behind an exchange.
type fate uint8

const (
	over  fate = iota
	again      // another request may come
	later      // the answer is still to come: somebody else goes on with it
)

// parking is what a parked connection is held by.
type parking struct {
	fd         int // -1: not parked
	next, prev *conn
}

// errQuiet says that a connection has been idle for long enough to be parked.
var errQuiet = errors.New("no request comes")

// awaitHead waits for a request's head and returns its length; 0 when the
// connection is over. The error is an *field.Refusal, or errQuiet.
func (c *conn) awaitHead() (int, error) {
	seen, empty, timed := 0, 0, false
	for {
		if c.w > c.r {
			end, err := http1.End((*c.in)[c.r:c.w], seen)
			if err != nil {
				return 0, err
			}
			if end == len("\r\n") {
				if empty++; empty > emptyLinesMax {
					return 0, http1.RefuseSize
				}
				c.r += end
				continue
			}
			if end > headBytesMax {
				return 0, http1.RefuseSize
			}
			if end > 0 {
				return end, nil
			}
			if seen = c.w - c.r; seen >= headBytesMax {
				return 0, http1.RefuseSize
			}
		}
		var err error
		if seen == 0 && empty == 0 { // an empty line is no way to wait for longer
			err = c.readFirst()
		} else {
			if !timed {
				timed = true
				c.readWithin(c.limits.Header)
			}
			err = c.readMore()
		}
		switch {
		case err == nil:
		case err == errQuiet:
			return 0, err
		case timedOut(err) && seen > 0:
			return 0, http1.RefuseTime
		case timedOut(err) && unacknowledged(c.raw) > 0:
			c.discard() // it waits with an answer that it has not read
			return 0, nil
		default:
			return 0, nil
		}
	}
}

// readFirst waits for the first bytes of a request. A TCP connection holds no
// buffer while it waits.
func (c *conn) readFirst() error {
	c.r, c.w = 0, 0
	c.limits = c.door.proxy.limits.Load()
	now := time.Now()
	idle := c.limits.Idle
	c.idleBy = now.Add(idle)
	if c.parks {
		idle = min(idle, c.limits.parkAfter)
	}
	if left := c.readBy.Sub(now); left < idle*3/4 || left > idle {
		c.readBy = now.Add(idle)
		if err := c.Conn.SetReadDeadline(c.readBy); err != nil {
			return err
		}
	}
	c.idle.Store(true)
	defer c.idle.Store(false)
	if c.door.ending.Load() || c.woken.Load() {
		return io.EOF // the door shuts, or has no room: nobody would wake this one
	}
	if c.raw == nil {
		c.takeBuffer()
		n, err := c.Conn.Read(*c.in)
		c.w = n
		return unlessSome(n, err)
	}
	c.dropBuffer()
	err := c.raw.Read(c.await)
	switch {
	case err == nil:
		return c.awaitErr
	case c.parks && !c.woken.Load() && timedOut(err) && time.Now().Before(c.idleBy):
		return errQuiet
	}
	return err
}

// readReady reads when there is something to read, and says so.
func (c *conn) readReady(fd uintptr) bool {
	c.takeBuffer()
	for {
		n, err := syscall.Read(int(fd), *c.in)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			c.dropBuffer()
			return false
		case n == 0 && err == nil:
			err = io.EOF
		}
		c.w, c.awaitErr = max(n, 0), err
		return true
	}
}

// unlessSome is err when nothing was read: an error behind bytes comes again.
func unlessSome(n int, err error) error {
	if n > 0 {
		return nil
	}
	return err
}

// readMore reads more of a head, into a larger buffer when it takes one.
func (c *conn) readMore() error {
	b := *c.in
	if c.w == len(b) {
		to := &b
		if len(b) < headBytesMax && c.r == 0 {
			to = largeBuffers.Get().(*[]byte)
		}
		n := copy(*to, b[c.r:c.w])
		if to != &b {
			c.dropBuffer()
			c.in = to
		}
		c.r, c.w = 0, n
		b = *c.in
	}
	n, err := c.read(b[c.w:])
	c.w += n
	return unlessSome(n, err)
}

func (c *conn) takeBuffer() {
	if c.in == nil {
		c.in = smallBuffers.Get().(*[]byte)
	}
}

func (c *conn) dropBuffer() {
	switch {
	case c.in == nil:
		return
	case len(*c.in) == headBytesMax:
		largeBuffers.Put(c.in)
	default:
		smallBuffers.Put(c.in)
	}
	c.in = nil
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// readWithin sets the time limit of the reads that follow.
func (c *conn) readWithin(d time.Duration) {
	c.readBy = time.Now().Add(d)
	_ = c.Conn.SetReadDeadline(c.readBy) // fails for a closed connection only: then reading tells
}

// read reads from the connection. A deadline before the one that is meant was
// set to wake an idle connection that has become busy meanwhile: it is read
// again, once.
func (c *conn) read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 || err == nil || !c.woken.Load() || !timedOut(err) || !time.Now().Before(c.readBy) {
		return n, err
	}
	if err := c.Conn.SetReadDeadline(c.readBy); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// giveWay implements idler.
func (c *conn) giveWay() bool {
	if c.door.lot.drop(c) || c.endInLane() {
		return true
	}
	if !c.idle.Load() {
		return false
	}
	c.wake()
	return true
}

// wake ends the wait of an idle connection. It may be called by who holds the
// door's lock.
func (c *conn) wake() {
	if !c.door.lot.drop(c) && !c.endInLane() && c.idle.Load() {
		c.woken.Store(true)
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // fails for a closed connection only
	}
}

// abort has the connection reset rather than ended, so that a body delimited by
// the connection's end does not look whole. Over TLS no closing alert is sent
// either.
func (c *conn) abort() {
	c.discard() // the reset is all that is left to do for the client
	if c.tls.is {
		c.breakOff()
	}
}

// breakOff implements occupant.
func (c *conn) breakOff() {
	if c.Conn == nil {
		return // parked until a moment ago: it was dropped, or will find the door shut
	}
	if t, ok := c.Conn.(*tls.Conn); ok {
		_ = t.NetConn().Close() // what is under way finds out
		return
	}
	_ = c.Conn.Close() // as above
	c.door.siding.rouse(c)
}

// linger ends our side and reads for a moment what the client still sends, so
// that it gets to see its answer.
func (c *conn) linger() {
	c.aside()
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() != nil {
		return
	}
	c.readWithin(lingerTimeMax)
	_, _ = io.CopyN(io.Discard, readerFunc(c.read), lingerBytesMax) // whatever it says is not wanted
}

// watch reads on while nobody else does, and calls gone once the client has
// ended the connection, unless stop was called before: that returns when nothing
// reads any more. What was read is the next request's.
func (c *conn) watch(gone func()) (stop func()) {
	done := make(chan struct{})
	_ = c.Conn.SetReadDeadline(time.Time{}) // fails for a closed connection only: then reading tells
	go func() {
		defer close(done)
		for c.w < len(*c.in) { // who sends so much ahead is there
			n, err := c.Conn.Read((*c.in)[c.w:])
			c.w += n
			if n == 0 && err != nil {
				if !timedOut(err) {
					gone()
				}
				return
			}
		}
	}()
	return func() {
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
		<-done
		c.readBy = time.Time{} // who reads next sets it
		_ = c.Conn.SetReadDeadline(c.readBy)
	}
}

type readerFunc func(p []byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// refuse answers what is no request with one meaning, and ends the connection.
func (c *conn) refuse(err error) {
	refusal := err.(*field.Refusal)
	c.aside()
	c.door.proxy.counters.malformed(refusal)
	if _, err := c.write(closing(refusal.Status, refusal.Detail, 0)); err == nil {
		c.linger()
	}
}

// closing is an answer of firstbell's own, outside of any exchange, behind
// which the connection ends. wait, unless it is 0, says when to come again.
func closing(status int, detail string, wait time.Duration) []byte {
	body := problemJSON(nil, status, detail)
	b := appendStatusLine(nil, status)
	b = appendField(b, "Date", dateNow(time.Now()))
	b = appendField(b, "Content-Type", problemType)
	b = appendField(b, "Cache-Control", "no-store")
	if wait > 0 {
		f := retryAfter(wait)
		b = appendField(b, f.Name, f.Value)
	}
	b = appendLength(b, int64(len(body)))
	return append(append(b, "Connection: close\r\n\r\n"...), body...)
}
