package proxy

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/http1"
	"firstbell/proxy/spool"
)

// upload is a request's content. It is read by one goroutine at a time, which
// need not be the connection's own, and knows a cut from an end.
type upload struct {
	h        *h1
	rest     int64         // of a content with a length: still to come; -1: chunked
	err      error         // the reads' last word
	asked    bool          // 100 Continue was sent, or nobody waits for it
	patience time.Duration // how long the client may be waited for: it earns more by what it sends
	stopping func()        // stop, made once

	chunks http1.Chunks
	piece  []byte    // of chunked content: decoded and not handed out yet; in the connection's buffer
	since  time.Time // when it began to be waited for without a goroutine
	own    []byte    // the request's head, where more is received than came with it; kept between exchanges

	mu      sync.Mutex // guards stopped, and the read deadline with it
	stopped bool
}

// errStopped ends an upload whose rest nobody wants.
var errStopped = errors.New("the rest of the content is not wanted")

// begin makes u the content of h's request, whose head is the n bytes received
// last that were used.
func (u *upload) begin(h *h1, n int) {
	u.h, u.rest, u.err, u.asked, u.stopped = h, h.head.Length, nil, !h.head.Continue, false
	u.patience = h.conn.limits.Grace
	u.chunks, u.piece = http1.Chunks{}, nil
	if c := h.conn; u.rest < 0 || int64(c.w-c.r) < u.rest {
		u.moveHead((*c.in)[c.r-n : c.r])
	}
}

// moveHead has the request's head stand in memory of its own, as small as it is:
// while content is waited for, the connection needs no buffer.
func (u *upload) moveHead(b []byte) {
	u.own = append(u.own[:0], b...)
	_ = u.h.head.Parse(u.own) // it was well-formed a moment ago
}

// end lets go of the request. Nothing refers to its head any more.
func (u *upload) end() {
	u.h, u.piece = nil, nil
	if cap(u.own) > headKeptMax {
		u.own = nil
	}
}

// headKeptMax is how much room for heads an upload keeps for the next.
const headKeptMax = 4 << 10

// left is how much is still to come: -1 when that is not known.
func (u *upload) left() int64 {
	switch {
	case u.err == io.EOF:
		return 0
	case u.rest < 0 || !u.asked:
		return -1
	}
	return u.rest
}

// stop makes the Read under way, and every later one, return soon.
func (u *upload) stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	_ = u.h.conn.Conn.SetReadDeadline(time.Unix(1, 0)) // fails for a closed connection only: nothing to stop
}

// errSlow ends a content that comes more slowly than it may.
var errSlow = errors.New("the content came too slowly")

// notWhole is the status for a content that ended with err.
func notWhole(err error) int {
	if errors.Is(err, errSlow) {
		return 408
	}
	return 400
}

// receive reads from the connection, for as long as the client may be waited
// for: each byte buys it time at MinRate, and it has at most the grace. What
// passes while nobody reads is not its fault, and costs it nothing.
func (u *upload) receive(p []byte) (n int, err error) { return u.receiveWithin(p, u.patience) }

// receiveWithin is receive for a client who is waited for no longer than that;
// with errWaits its time is not over. Without p it returns once there is
// something to read.
func (u *upload) receiveWithin(p []byte, most time.Duration) (n int, err error) {
	c := u.h.conn
	c.aside()
	u.mu.Lock()
	if u.stopped {
		u.mu.Unlock()
		return 0, errStopped
	}
	began := time.Now()
	c.readBy = began.Add(min(u.patience, most))
	_ = c.Conn.SetReadDeadline(c.readBy) // fails for a closed connection only: then reading tells
	u.mu.Unlock()
	if p == nil {
		err = c.awaitReadable()
	} else {
		n, err = c.read(p)
	}
	u.patience = min(u.patience-time.Since(began)+c.limits.earned(int64(n)), c.limits.Grace)
	switch {
	case n == 0 && u.isStopped():
		return 0, errStopped
	case n == 0 && timedOut(err) && u.patience > 0:
		return 0, errWaits
	case n == 0 && timedOut(err):
		return 0, u.late()
	}
	return n, cutShort(unlessSome(n, err))
}

// late counts a client whose time is over.
func (u *upload) late() error {
	u.h.conn.door.parted[partedBody].Add(1)
	return errSlow
}

// Wait implements spool.Waiter.
func (u *upload) Wait() (told bool, err error) {
	c := u.h.conn
	if c.raw == nil {
		return false, nil
	}
	for !u.ready() {
		u.ask()
		if c.r == c.w {
			c.dropBuffer()
			c.r, c.w = 0, 0
		}
		most := u.patience
		if u.h.canStepAside() {
			most = min(most, patienceShort)
		}
		if _, err = u.receiveWithin(nil, most); err == errWaits {
			u.since = time.Now()
			return false, spool.ErrLater
		}
		if u.err = err; err != nil || u.rest >= 0 {
			break
		}
		u.err = u.receiveLine()
	}
	return true, nil
}

// ready reports whether a Read has something to return that was received
// already, be it an error.
func (u *upload) ready() (ready bool) {
	switch {
	case u.err != nil:
		return true
	case u.rest >= 0:
		return u.h.conn.r < u.h.conn.w
	}
	ready, u.err = u.decode()
	return ready || u.err != nil
}

// receiveLine reads more of chunked content, behind what was not used of it.
func (u *upload) receiveLine() error {
	c := u.h.conn
	c.makeRoom()
	n, err := u.receive((*c.in)[c.w:])
	c.w += n
	return err
}

// waited says that the content was waited for elsewhere, until err.
func (u *upload) waited(err error) {
	u.patience -= time.Since(u.since)
	if timedOut(err) {
		u.err = u.late()
	}
}

func (u *upload) isStopped() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stopped
}

// Read implements io.Reader. A content cut off by the client ends with
// io.ErrUnexpectedEOF.
func (u *upload) Read(p []byte) (n int, err error) {
	if u.err != nil || len(p) == 0 {
		return 0, u.err
	}
	u.ask()
	if u.rest >= 0 {
		n, err = u.readSized(p)
	} else {
		n, err = u.readChunked(p)
	}
	u.err = err
	return n, err
}

// ask has a client send who waits for 100.
func (u *upload) ask() {
	if !u.asked {
		u.asked = true
		u.h.informOnce(continueHead)
	}
}

// isThere reports whether the content has all come with the head.
func (u *upload) isThere() bool {
	c := u.h.conn
	return u.err == nil && u.asked && u.rest > 0 && int64(c.w-c.r) >= u.rest
}

// there returns content that is there, which is read then. It is valid until the
// exchange is over.
func (u *upload) there() []byte {
	c := u.h.conn
	end := c.r + int(u.rest)
	content := (*c.in)[c.r:end:end]
	c.r, u.rest, u.err = end, 0, io.EOF
	return content
}

var continueHead = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// readSized reads content that has a length.
func (u *upload) readSized(p []byte) (n int, err error) {
	c := u.h.conn
	p = p[:min(int64(len(p)), u.rest)]
	if c.w > c.r {
		n = copy(p, (*c.in)[c.r:c.w])
		c.r += n
	} else {
		n, err = u.receive(p)
	}
	if u.rest -= int64(n); u.rest == 0 {
		return n, io.EOF
	}
	return n, err
}

// readChunked reads chunked content.
func (u *upload) readChunked(p []byte) (n int, err error) {
	for {
		ready, err := u.decode()
		if err != nil {
			return 0, err
		}
		if ready {
			n = copy(p, u.piece)
			u.piece = u.piece[n:]
			return n, nil
		}
		if err := u.receiveLine(); err != nil {
			return 0, err
		}
	}
}

// decode decodes what has come of chunked content, and reports whether there is
// a piece of it now. The error is io.EOF at its end.
func (u *upload) decode() (ready bool, err error) {
	c := u.h.conn
	for len(u.piece) == 0 {
		if c.in == nil {
			return false, nil
		}
		var used int
		u.piece, used, err = u.chunks.Next((*c.in)[c.r:c.w])
		c.r += used
		switch {
		case err != nil:
			u.h.refused(err)
			return false, err
		case len(u.piece) > 0:
		case u.chunks.Done():
			return false, io.EOF
		default:
			return false, nil
		}
	}
	return true, nil
}

// trailer returns the trailer fields, once the content has ended.
func (u *upload) trailer() (l field.List) {
	if !u.chunks.Done() {
		return nil
	}
	for name, value := range u.chunks.Trailer() {
		l = append(l, field.Field{Name: string(name), Value: string(value)})
	}
	return l
}

// makeRoom moves what was received and not used, an unfinished line, to the
// beginning of the buffer: of a larger one, where it fills it.
func (c *conn) makeRoom() {
	c.takeBuffer()
	from := c.in
	if c.w-c.r == len(*from) {
		c.in = largeBuffers.Get().(*[]byte)
		defer smallBuffers.Put(from)
	}
	c.r, c.w = 0, copy(*c.in, (*from)[c.r:c.w])
}

// readable reports whether there is something to read from a socket, or nothing
// ever will be.
func readable(fd uintptr) bool {
	for {
		var one [1]byte
		switch _, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK); err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			return true // what it is, reading tells
		}
	}
}

// awaitReadable returns once there is something to read from the socket, or
// nothing ever will be. It takes no buffer.
func (c *conn) awaitReadable() error {
	for again := true; ; again = false {
		err := c.raw.Read(readable)
		if err != nil && again && c.woken.Load() && timedOut(err) && time.Now().Before(c.readBy) {
			if err = c.Conn.SetReadDeadline(c.readBy); err == nil { // as in read
				continue
			}
		}
		return err
	}
}

// settle reads what is left of the content, where that is little, and reports
// whether the connection stands behind it.
func (u *upload) settle() bool {
	u.mu.Lock()
	u.stopped = false // what was stopped may be whole all the same
	u.mu.Unlock()
	if u.err == errStopped {
		u.err = nil
	}
	if u.err != nil || u.rest > drainBytesMax || !u.asked {
		return u.err == io.EOF
	}
	_, err := io.CopyN(io.Discard, readerFunc(u.Read), drainBytesMax)
	return err == io.EOF || u.err == io.EOF
}
