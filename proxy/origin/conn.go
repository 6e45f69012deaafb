package origin

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// bufBytes holds nearly every head, and is all an active connection needs.
	bufBytes = 4 << 10
	// bufKeptBytes is the largest buffer worth keeping for the next request.
	bufKeptBytes = 32 << 10
)

var bufPool = sync.Pool{New: func() any { b := make([]byte, bufBytes); return &b }}

func getBuf() *[]byte { return bufPool.Get().(*[]byte) }

func putBuf(b *[]byte) {
	if cap(*b) <= bufKeptBytes {
		*b = (*b)[:cap(*b)]
		bufPool.Put(b)
	}
}

// conn is one connection to a server. It belongs to one exchange or lies in
// its server's idle stack, never both; only nc may be closed by others.
type conn struct {
	nc     net.Conn
	srv    *server
	abort  func() // closes nc; made once, so that watching a context needs no closure
	socket *socket
	plain  bool // nc is the socket itself, so that it may be written and read past nc
	reused bool

	idleSince time.Time
	idleMax   time.Duration

	bound  context.Context // what nc is closed at the end of, between exchanges too; nil: nothing
	unbind func() bool

	// Limits that are exact cost a timer for each phase of each request. Those of
	// reads are kept by one that may go off too early: then it is set again.
	exact  bool
	readBy time.Time // when reads are to end
	readAt time.Time // when they will, by the timer

	buf  *[]byte // nil while idle
	r, w int     // (*buf)[r:w] has been received and not yet read
}

func newConn(s *server, nc net.Conn) *conn {
	below := nc // what TLS runs over: closing that waits for nobody to take an alert
	if t, ok := nc.(*tlsConn); ok {
		below = t.below.Conn
	}
	c := &conn{nc: nc, srv: s, socket: newSocket(below)}
	c.plain, c.exact = c.socket != nil && below == nc, c.secure()
	c.abort = func() { _ = below.Close() }
	return c
}

// tlsConn is a connection by TLS that ends cleanly only where TLS said so: one
// that is merely cut looks the same to crypto/tls (RFC 8446 section 6.1).
type tlsConn struct {
	*tls.Conn
	below *ending
}

// Read implements net.Conn.
func (t *tlsConn) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if err == io.EOF && t.below.ended {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// ending notes that the other side has ended a connection.
type ending struct {
	net.Conn
	ended bool // belongs to whoever reads
}

// Read implements net.Conn.
func (e *ending) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	e.ended = e.ended || err == io.EOF
	return n, err
}

// usable reports whether an idle connection may carry a request: it is not too
// old, and the server has neither closed it nor sent anything unasked.
func (c *conn) usable(now time.Time) bool { return c.young(now) && c.quiet() }

func (c *conn) young(now time.Time) bool { return now.Sub(c.idleSince) < c.idleMax }

func (c *conn) quiet() bool { return c.socket == nil || c.socket.quiet() }

// bind has the connection closed when ctx ends, whatever it does then.
func (c *conn) bind(ctx context.Context) {
	if c.bound == ctx {
		return
	}
	if c.bound != nil {
		c.unbind()
	}
	c.bound, c.unbind = ctx, context.AfterFunc(ctx, c.abort)
}

// end closes the connection for good. No exchange has it any more.
func (c *conn) end() {
	c.abort()
	if c.bound != nil {
		c.unbind()
	}
}

func (c *conn) attachBuf() {
	c.buf, c.r, c.w = getBuf(), 0, 0
}

func (c *conn) detachBuf() {
	if c.buf != nil {
		putBuf(c.buf)
		c.buf = nil
	}
}

// buffered is how much was received and not read.
func (c *conn) buffered() int { return c.w - c.r }

// readWithin limits the reads from now on.
func (c *conn) readWithin(d time.Duration) {
	now := time.Now()
	c.readBy = now.Add(d)
	if c.exact || c.readAt.After(c.readBy) || c.readAt.Sub(now) < d/2 {
		c.setTimer()
	}
}

// setTimer has reads end at readBy. An error means that the connection is
// closed, which the next read finds out.
func (c *conn) setTimer() {
	c.readAt = c.readBy
	_ = c.nc.SetReadDeadline(c.readAt)
}

// tooEarly reports whether err is the timer's, going off before its time, and
// sets it again.
func (c *conn) tooEarly(err error) bool {
	if err == nil || c.exact || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(c.readBy) {
		return false
	}
	c.setTimer()
	return true
}

// receive reads until there is a byte or an error, never both.
func (c *conn) receive(p []byte) (int, error) {
	for {
		n, err := readSome(c.nc, p)
		if n > 0 || !c.tooEarly(err) {
			return n, err
		}
	}
}

// lendTimer leaves the time limit of reads to another goroutine, and has none
// until that sets one; dueTimer takes it back.
func (c *conn) lendTimer() {
	c.exact = true
	_ = c.nc.SetReadDeadline(time.Time{}) // fails for a closed connection only: then reading tells
}

func (c *conn) dueTimer() { c.exact, c.readAt = c.secure(), time.Time{} }

// secure reports a connection by TLS, which a read that ends early may break.
func (c *conn) secure() bool { return c.srv.secure != nil }

// ask sends out and receives what comes first of the answer. Where the server
// has spoken or gone before, it is errStale and nothing was sent. rest is what
// there was no room for in the socket, or what was left at an error: then
// nothing was received.
func (c *conn) ask(out []byte) (rest []byte, err error) {
	first := c.reused
	for {
		var n int
		rest, n, err = c.socket.talk(out, (*c.buf)[c.w:], first)
		c.w += n
		if len(rest) > 0 || !c.tooEarly(err) {
			return rest, err
		}
		out, first = nil, false
	}
}

// fill receives more into the buffer, which grows up to most bytes. It returns
// nil if at least one byte came.
func (c *conn) fill(most int) error {
	b := *c.buf
	switch {
	case c.r == c.w:
		c.r, c.w = 0, 0
	case c.w == len(b) && c.r > 0:
		c.w = copy(b, b[c.r:c.w])
		c.r = 0
	case c.w == len(b):
		if len(b) >= most {
			return malformed("a line of more than %d bytes", most)
		}
		b = c.grow(min(2*len(b), most))
	}
	n, err := c.receive(b[c.w:])
	c.w += n
	return err
}

func (c *conn) grow(to int) []byte {
	bigger := make([]byte, to)
	copy(bigger, *c.buf)
	putBuf(c.buf)
	c.buf = &bigger
	return bigger
}

// readSome reads until there is a byte or an error, never both.
func readSome(r io.Reader, p []byte) (int, error) {
	for range 100 {
		n, err := r.Read(p)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// readHead reads and parses one head within the deadline already set.
func (c *conn) readHead(room *headRoom, bytesMax, fieldsMax int) (head, error) {
	for seen := 0; ; {
		b := (*c.buf)[c.r:c.w]
		if n := headEnd(b, seen); n >= 0 && n <= bytesMax {
			c.r += n
			return parseHead(room, b[:n], fieldsMax)
		}
		seen = len(b)
		if start := b[:min(seen, len("HTTP/"))]; !bytes.HasPrefix([]byte("HTTP/"), start) {
			return head{}, malformed("a response that begins with %q", start)
		}
		if seen >= bytesMax {
			return head{}, malformed("a head of more than %d bytes", bytesMax)
		}
		if err := c.fill(bytesMax); err != nil {
			return head{}, err
		}
	}
}

// read fills p with what has come, or with what comes within idle. Only what
// p cannot take well goes through the buffer.
func (c *conn) read(p []byte, idle time.Duration) (int, error) {
	if c.r == c.w {
		c.readWithin(idle)
		if len(p) >= bufBytes {
			return c.receive(p)
		}
		if err := c.fill(bufBytes); err != nil {
			return 0, err
		}
	}
	n := copy(p, (*c.buf)[c.r:c.w])
	c.r += n
	return n, nil
}

// take returns the next n bytes, fewer than a buffer holds. They are valid
// until the next read.
func (c *conn) take(n int, idle time.Duration) ([]byte, error) {
	for c.buffered() < n {
		c.readWithin(idle)
		if err := c.fill(bufBytes); err != nil {
			return nil, err
		}
	}
	b := (*c.buf)[c.r : c.r+n]
	c.r += n
	return b, nil
}

// readLine returns the next line with its end, at most bytesMax long. It is
// valid until the next read.
func (c *conn) readLine(bytesMax int, idle time.Duration) ([]byte, error) {
	for seen := 0; ; {
		b := (*c.buf)[c.r:c.w]
		n := bytes.IndexByte(b[seen:], '\n')
		if n >= 0 && seen+n < bytesMax {
			c.r += seen + n + 1
			return b[:seen+n+1], nil
		}
		seen = len(b)
		if n >= 0 || seen >= bytesMax {
			return nil, malformed("a line of more than %d bytes", bytesMax)
		}
		c.readWithin(idle)
		if err := c.fill(max(bytesMax, bufBytes)); err != nil {
			return nil, err
		}
	}
}
