package proxy

import (
	"io"
	"net"
	"sync"
	"time"
)

const (
	uploadIdleMax = 30 * time.Second // between two pieces of a request's content
	writeIdleMax  = 30 * time.Second // for a client to take a piece of the answer
	// A write is cut into pieces of this size, each with a time limit of its
	// own: 128 KiB in 30 s is 4 KiB a second, less than any phone needs.
	writePieceMax = 128 << 10
)

// listener hands out connections that know their limits. It may be closed more
// than once.
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

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newClientConn(c), nil
}

// clientConn is a connection to a client. It remembers that the client ended
// its side, as a request cut off between two chunks looks like a whole one
// otherwise, and it holds every read and write to a time limit.
type clientConn struct {
	net.Conn
	remote  string // the client's address, without port
	began   bool   // the client has sent something
	ended   bool   // the client sends no more
	phase   phase
	timed   bool      // in phaseHead: the head's time limit is set
	ahead   bool      // answers may wait in fasthttp's buffer for those of requests sent in advance
	readBy  time.Time // the read deadline in force
	writeBy time.Time // the write deadline in force

	headWhole bool // the last read ended as a request's head does
	unsure    bool // of some request it is not known whether another came right behind it
}

// phase says what a connection's next read waits for.
type phase uint8

const (
	phaseIdle    phase = iota // the first byte of a request
	phaseHead                 // the rest of its head, and the content that fasthttp reads with it
	phaseContent              // its content: who reads that sets the limit
)

func newClientConn(c net.Conn) *clientConn {
	remote := c.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(remote); err == nil {
		remote = host
	}
	return &clientConn{Conn: c, remote: remote}
}

// Read implements net.Conn. A request that comes in one piece, as nearly all
// do, changes the deadline only once in a while.
func (c *clientConn) Read(p []byte) (int, error) {
	if err := c.limitRead(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.heard(p[:n])
	if n > 0 && c.phase == phaseIdle {
		c.phase, c.began, c.timed = phaseHead, true, false
	}
	if err == io.EOF {
		c.ended = true
	}
	return n, err
}

func (c *clientConn) limitRead() error {
	switch {
	case c.phase == phaseIdle:
		if now := time.Now(); c.readBy.Sub(now) < idleTimeMax*3/4 {
			return c.SetReadDeadline(now.Add(idleTimeMax))
		}
	case c.phase == phaseHead && !c.timed:
		c.timed = true
		return c.SetReadDeadline(time.Now().Add(headTimeMax))
	}
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *clientConn) SetReadDeadline(t time.Time) error {
	c.readBy = t
	return c.Conn.SetReadDeadline(t)
}

// Write implements net.Conn.
func (c *clientConn) Write(p []byte) (n int, err error) {
	for {
		if err := c.extend(); err != nil {
			return n, err
		}
		piece := p[n:]
		if len(piece) > writePieceMax {
			piece = piece[:writePieceMax]
		}
		wrote, err := c.Conn.Write(piece)
		n += wrote
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// extend moves the write deadline once a quarter of it is used up, as setting
// it for every small answer would cost more than the check.
func (c *clientConn) extend() error {
	now := time.Now()
	if c.writeBy.Sub(now) > writeIdleMax*3/4 {
		return nil
	}
	c.writeBy = now.Add(writeIdleMax)
	return c.SetWriteDeadline(c.writeBy)
}
