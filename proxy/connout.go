package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// write writes p to the client, in pieces.
func (c *conn) write(p []byte) (n int, err error) {
	if c.turn != nil {
		if n, err = c.writeNow(p, nil); err != nil || n == len(p) {
			return n, err
		}
		c.aside()
	}
	for {
		if err := c.extend(); err != nil {
			return n, err
		}
		wrote, err := c.Conn.Write(p[n:min(len(p), n+writePieceMax)])
		n += wrote
		if err = c.wroteSome(int64(wrote), err); err != nil || n == len(p) {
			return n, err
		}
	}
}

// laneBodyMax is the largest body that is written in a lane: the others there
// wait for no more than its copy into the socket.
const laneBodyMax = 64 << 10

// writeParts writes a head, a body and what ends it without copying any, and
// returns how much of the body was written.
func (c *conn) writeParts(head, body, end []byte) (n int, err error) {
	if len(body) > laneBodyMax {
		c.quick = 0
		c.aside()
	}
	first := body[:min(len(body), writePieceMax)]
	c.vectors = [3][]byte{head, first, end}
	if len(first) < len(body) {
		c.vectors[2] = nil
	}
	c.buffers = c.vectors[:]
	total := 0
	if c.turn != nil {
		if total, err = c.writeNow(nil, c.buffers); total < len(head)+len(body)+len(end) {
			c.aside()
		}
		c.buffers = skip(c.buffers, total)
	}
	for len(c.buffers) > 0 && err == nil {
		if err = c.extend(); err == nil {
			var wrote int64
			wrote, err = c.buffers.WriteTo(c.Conn)
			err, total = c.wroteSome(wrote, err), total+int(wrote)
		}
	}
	c.vectors, c.buffers = [3][]byte{}, nil
	n = min(len(first), max(0, total-len(head)))
	if err != nil || n == len(body) {
		return n, err
	}
	more, err := c.write(body[n:])
	if err == nil && len(end) > 0 {
		_, err = c.write(end)
	}
	return n + more, err
}

// oneRecord reports whether n bytes are worth a copy to leave together.
func (c *conn) oneRecord(n int) bool { return c.tls.is && n <= recordBytesMax }

// skip is b less its first n bytes. It changes b.
func skip(b net.Buffers, n int) net.Buffers {
	for len(b) > 0 && n >= len(b[0]) {
		n -= len(b[0])
		b = b[1:]
	}
	if n > 0 {
		b[0] = b[0][n:]
	}
	return b
}

// writeNow writes what the socket takes of p, or of parts, without waiting.
func (c *conn) writeNow(p []byte, parts [][]byte) (n int, err error) {
	c.posted, c.parts, c.pushed, c.awaitErr = p, parts, 0, nil
	err = c.raw.Write(c.push)
	if err == nil {
		err = c.awaitErr
	}
	c.posted, c.parts = nil, nil
	c.wrote += int64(c.pushed)
	return c.pushed, err
}

// tryWrite writes what the socket takes, and never waits.
func (c *conn) tryWrite(fd uintptr) bool {
	for {
		var n int
		var err error
		if c.parts != nil {
			n, err = writev(int(fd), c.parts)
		} else {
			n, err = syscall.Write(int(fd), c.posted)
		}
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return true
		}
		c.pushed, c.awaitErr = max(n, 0), err
		return true
	}
}

// extend moves the write deadline once a quarter of it is used up, as setting
// it for every small answer would cost more than the check. A client who takes
// nothing meets it twice within the grace.
func (c *conn) extend() error {
	now, patience := time.Now(), c.patience()
	if c.writeBy.Sub(now) > patience*3/4 {
		return nil
	}
	c.writeBy = now.Add(patience)
	return c.Conn.SetWriteDeadline(c.writeBy)
}

// wroteSome implements pace. Over TLS what lies below has judged already, and no
// write goes on behind one that broke off.
func (c *conn) wroteSome(n int64, err error) error {
	if c.tls.is {
		c.wrote += n
		return err
	}
	return c.pacer.wroteSome(n, err)
}

// brief is the pace of a client who is waited for in the siding when it takes
// longer than a moment.
type brief struct{ *conn }

// patienceShort is that moment. Most clients who keep an answer waiting at all
// take more within a round trip; for them nothing changes hands.
const patienceShort = 100 * time.Millisecond

// extend implements pace.
func (b brief) extend() error {
	now := time.Now()
	if left := b.writeBy.Sub(now); left > patienceShort*3/4 && left <= patienceShort {
		return nil
	}
	b.writeBy = now.Add(patienceShort)
	return b.Conn.SetWriteDeadline(b.writeBy)
}

// wroteSome implements pace: the end of its time is no judgement.
func (b brief) wroteSome(n int64, err error) error {
	b.wrote += n
	if timedOut(err) {
		return errWaits
	}
	return err
}

// errWaits says that a client is to be waited for.
var errWaits = errors.New("the client takes its time")

// inform writes a whole informational response. A connection that does not
// take it in time is cut, as half of one leaves nothing to go on with.
func (c *conn) inform(head []byte) {
	c.aside()
	c.writeBy = time.Time{} // the next write sets its own limit again
	if c.under != nil {
		c.under.strict = true
		defer func() { c.under.strict = false }()
	}
	err := c.Conn.SetWriteDeadline(time.Now().Add(informTimeMax))
	if err == nil {
		_, err = c.Conn.Write(head)
	}
	if err != nil {
		c.abort()
		_ = c.Conn.Close() // the exchange finds out when it writes
	}
}

// end closes the connection, and counts it out if it could be parked. It does not
// wait.
func (c *conn) end() {
	if c.owes() {
		go func() {
			c.seeOff()
			c.door.part(c)
		}()
		return
	}
	c.close()
	c.door.part(c)
}

func (c *conn) close() {
	c.dropBuffer()
	_ = c.Conn.Close() // an error changes nothing any more
}

// owedMax is what the kernel is left to deliver by itself when a connection is
// closed. More of it is counted, and held to MinRate, until the client has it:
// otherwise who reads next to nothing could have any number of answers waiting.
const owedMax = 64 << 10

// owes reports whether a client has much of its answer still to take.
func (c *conn) owes() bool {
	return c.wrote > owedMax && !c.reset && !c.door.ending.Load() && unacknowledged(c.transport()) > owedMax
}

// transport is the TCP connection below; nil when there is none.
func (c *conn) transport() syscall.RawConn {
	if c.raw != nil || c.tcp == nil {
		return c.raw
	}
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return nil // it is closed
	}
	return raw
}

// seeOff closes the connection once the client has its answer, or takes it too
// slowly.
func (c *conn) seeOff() {
	defer c.close()
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.dropBuffer()
	raw, look := c.transport(), c.patience()/16
	judge, ended := time.Now().Add(c.patience()), false
	var rest [512]byte                                     // nobody wants it
	for unacknowledged(raw) > 1 && !c.door.ending.Load() { // its end counts as one
		if ended {
			time.Sleep(look)
		} else {
			c.readWithin(look)
			_, err := c.Conn.Read(rest[:])
			if ended = err == io.EOF; err != nil && !ended && !timedOut(err) {
				return
			}
		}
		if now := time.Now(); now.After(judge) {
			judge, c.raw = now.Add(c.patience()), raw
			if c.pacer.wroteSome(0, os.ErrDeadlineExceeded) != nil {
				return
			}
		}
	}
}
