package proxy

import (
	"errors"
	"io"
	"sync"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/http1"
)

// upload is a request's content. It is read by one goroutine at a time, which
// need not be the connection's own, and knows a cut from an end.
type upload struct {
	h        *h1
	rest     int64         // of a content with a length: still to come; -1: chunked
	err      error         // the reads' last word
	asked    bool          // 100 Continue was sent, or nobody waits for it
	patience time.Duration // how long the client may be waited for: it earns more by what it sends

	// Of chunked content: what was received, in a buffer of its own, as the
	// request's head has to stay where it is.
	chunks http1.Chunks
	in     *[]byte
	r, w   int
	piece  []byte // decoded and not handed out yet; in in

	mu      sync.Mutex // guards stopped, and the read deadline with it
	stopped bool
}

// errStopped ends an upload whose rest nobody wants.
var errStopped = errors.New("the rest of the content is not wanted")

// begin makes u the content of h's request.
func (u *upload) begin(h *h1) {
	u.h, u.rest, u.err, u.asked, u.stopped = h, h.head.Length, nil, !h.head.Continue, false
	u.patience = h.conn.limits.Grace
	if u.rest < 0 {
		c := h.conn
		u.chunks, u.piece = http1.Chunks{}, nil
		u.in = smallBuffers.Get().(*[]byte) // holds what has come, and any line
		if c.w-c.r > len(*u.in)/2 {
			smallBuffers.Put(u.in)
			u.in = largeBuffers.Get().(*[]byte)
		}
		u.r, u.w = 0, copy(*u.in, (*c.in)[c.r:c.w])
		c.r = c.w
	}
}

// end gives back to the connection what was received behind the content.
// Nothing refers to the request's head any more.
func (u *upload) end() {
	if u.in != nil {
		c := u.h.conn
		c.dropBuffer()
		c.in, c.r, c.w = u.in, u.r, u.w
	}
	u.h, u.in, u.piece = nil, nil, nil
}

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
func (u *upload) receive(p []byte) (int, error) {
	c := u.h.conn
	u.mu.Lock()
	if u.stopped {
		u.mu.Unlock()
		return 0, errStopped
	}
	began := time.Now()
	c.readBy = began.Add(u.patience)
	_ = c.Conn.SetReadDeadline(c.readBy) // fails for a closed connection only: then reading tells
	u.mu.Unlock()
	n, err := c.read(p)
	u.patience = min(u.patience-time.Since(began)+c.limits.earned(int64(n)), c.limits.Grace)
	switch {
	case n == 0 && u.isStopped():
		return 0, errStopped
	case n == 0 && timedOut(err):
		c.door.parted[partedBody].Add(1)
		return 0, errSlow
	}
	return n, cutShort(unlessSome(n, err))
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
	if !u.asked {
		u.asked = true
		u.h.informOnce(continueHead)
	}
	if u.rest >= 0 {
		n, err = u.readSized(p)
	} else {
		n, err = u.readChunked(p)
	}
	u.err = err
	return n, err
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
	for len(u.piece) == 0 {
		var used int
		u.piece, used, err = u.chunks.Next((*u.in)[u.r:u.w])
		u.r += used
		switch {
		case err != nil:
			u.h.refused(err)
			return 0, err
		case len(u.piece) > 0:
		case u.chunks.Done():
			return 0, io.EOF
		default:
			u.makeRoom()
			n, err := u.receive((*u.in)[u.w:])
			if u.w += n; err != nil {
				return 0, err
			}
		}
	}
	n = copy(p, u.piece)
	u.piece = u.piece[n:]
	return n, nil
}

// makeRoom moves what was received and not used, an unfinished line, to the
// beginning of the buffer: of a larger one, where the last read has filled it.
func (u *upload) makeRoom() {
	from := u.in
	if small := len(*from) < headBytesMax; small && u.w == len(*from) {
		u.in = largeBuffers.Get().(*[]byte)
		defer smallBuffers.Put(from)
	}
	u.r, u.w = 0, copy(*u.in, (*from)[u.r:u.w])
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
