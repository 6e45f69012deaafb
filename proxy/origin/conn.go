package origin

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
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
	peek   *peeker
	reused bool

	idleSince time.Time
	idleMax   time.Duration

	buf  *[]byte // nil while idle
	r, w int     // (*buf)[r:w] has been received and not yet read
}

func newConn(s *server, nc net.Conn) *conn {
	below := nc // what TLS runs over: closing that waits for nobody to take an alert
	if t, ok := nc.(*tlsConn); ok {
		below = t.below.Conn
	}
	c := &conn{nc: nc, srv: s, peek: newPeeker(below)}
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
func (c *conn) usable(now time.Time) bool {
	return now.Sub(c.idleSince) < c.idleMax && (c.peek == nil || c.peek.quiet())
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

// readWithin limits the reads from now on. An error means that the connection
// is closed, which the next read finds out.
func (c *conn) readWithin(d time.Duration) { _ = c.nc.SetReadDeadline(time.Now().Add(d)) }

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
	n, err := readSome(c.nc, b[c.w:])
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
func (c *conn) readHead(bytesMax, fieldsMax int) (head, error) {
	for seen := 0; ; {
		b := (*c.buf)[c.r:c.w]
		if n := headEnd(b, seen); n >= 0 && n <= bytesMax {
			c.r += n
			return parseHead(b[:n], fieldsMax)
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
			return readSome(c.nc, p)
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
