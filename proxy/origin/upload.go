package origin

import (
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	uploadBytes = 32 << 10
	// chunkHeadBytes is "8000" CRLF, the size line of the largest piece.
	chunkHeadBytes = 6
	// afterSendErrorMax is how long to look for the response of a server that
	// stopped taking the request: it has most likely been sent already.
	afterSendErrorMax = time.Second
	// continueMax is how long a server may take to say that it wants the content:
	// one that does not know the expectation says nothing.
	continueMax = time.Second
)

var uploadPool = sync.Pool{New: func() any { return new([chunkHeadBytes + uploadBytes + 2]byte) }}

var errStopped = errors.New("no more is wanted")

// upload sends a request's content while the response is awaited.
type upload struct {
	c    *conn
	r    *Request
	wait time.Duration // for the server to take a piece
	head time.Duration // for the response's head, once all is sent
	done chan struct{} // closed when run has returned

	stop  atomic.Bool // no more is wanted
	whole atomic.Bool // the last bytes are being sent: the server can have all of it
	once  sync.Once   // StopBody

	proceed chan struct{} // closed when the server wants the content, or none is sent any more; nil: it is not asked
	decided sync.Once     // closes proceed

	mu       sync.Mutex // guards below, and the read deadline until headSeen
	headSeen bool       // the final response's head is complete
	sent     bool       // everything was sent
	bodyErr  error      // reading the content
	sendErr  error      // sending it
}

func newUpload(c *conn, r *Request, wait, head time.Duration) *upload {
	u := &upload{c: c, r: r, wait: wait, head: head, done: make(chan struct{})}
	if r.expects() {
		u.proceed = make(chan struct{})
	}
	return u
}

// mayProceed lets the content be sent that the server was asked about.
func (u *upload) mayProceed() {
	if u.proceed != nil {
		u.decided.Do(func() { close(u.proceed) })
	}
}

// asks waits for the server's word about the content.
func (u *upload) asks() {
	if u.proceed == nil {
		return
	}
	silent := time.NewTimer(continueMax)
	defer silent.Stop()
	select {
	case <-u.proceed:
	case <-silent.C:
		u.mayProceed()
	}
}

// refused reports that the final response came instead of a word about the
// content.
func (u *upload) refused() bool {
	if u.proceed == nil {
		return false
	}
	select {
	case <-u.proceed:
		return false
	default:
		return true
	}
}

func (u *upload) run() {
	defer close(u.done)
	fromBody, err := u.send()
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case err == nil:
		u.sent = true
		u.readWithinLocked(u.head)
	case u.stop.Load():
	case fromBody:
		u.bodyErr = err
		u.c.abort() // unfinished, which the server must see
	default:
		u.sendErr = err
		u.readWithinLocked(afterSendErrorMax)
	}
}

// readWithinLocked limits the wait for the response's head from now on.
func (u *upload) readWithinLocked(d time.Duration) {
	if !u.headSeen {
		u.c.readWithin(d)
	}
}

// informed starts the wait for the head anew after a 1xx response.
func (u *upload) informed() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sent {
		u.readWithinLocked(u.head)
	}
}

// final says that the final response's head is complete, and the read deadline
// is the reader's again.
func (u *upload) final() {
	u.mu.Lock()
	u.headSeen = true
	u.mu.Unlock()
}

// send copies Body to the connection, each Read at once. fromBody says that
// the error is Body's.
func (u *upload) send() (fromBody bool, err error) {
	buf := uploadPool.Get().(*[chunkHeadBytes + uploadBytes + 2]byte)
	defer uploadPool.Put(buf)
	left := u.r.ContentLength
	u.asks()
	if u.stop.Load() {
		return false, errStopped
	}
	for {
		piece := buf[chunkHeadBytes : chunkHeadBytes+uploadBytes]
		if left >= 0 {
			piece = piece[:min(left, uploadBytes)]
		}
		n, err := readSome(u.r.Body, piece)
		if u.stop.Load() {
			return false, errStopped
		}
		if n > 0 {
			out := piece[:n]
			if left < 0 {
				out = frameChunk(buf, n)
			} else if left -= int64(n); left == 0 {
				u.whole.Store(true)
			}
			if err := u.write(out); err != nil || left == 0 {
				return false, err
			}
		}
		if err == io.EOF && left < 0 {
			u.whole.Store(true)
			return false, u.write(u.appendLastChunk(buf[:0]))
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return true, err
		}
	}
}

// frameChunk puts the size line before and the line end behind the n bytes of
// content that begin at chunkHeadBytes, and returns the whole chunk.
func frameChunk(buf *[chunkHeadBytes + uploadBytes + 2]byte, n int) []byte {
	var size [chunkHeadBytes]byte
	line := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
	start := chunkHeadBytes - len(line)
	copy(buf[start:], line)
	copy(buf[chunkHeadBytes+n:], "\r\n")
	return buf[start : chunkHeadBytes+n+2]
}

// appendLastChunk appends the end of chunked content, trailers included.
func (u *upload) appendLastChunk(b []byte) []byte {
	b = append(b, "0\r\n"...)
	if u.r.Trailer != nil {
		for _, f := range u.r.Trailer() {
			if validName(f.Name) && validValue(f.Value) && !forbiddenInTrailer(f.Name) {
				b = appendField(b, f.Name, f.Value)
			}
		}
	}
	return append(b, "\r\n"...)
}

func (u *upload) write(b []byte) error {
	if err := u.c.nc.SetWriteDeadline(time.Now().Add(u.wait)); err != nil {
		return err
	}
	if u.stop.Load() { // halt's deadline may have just been overwritten
		return errStopped
	}
	_, err := u.c.nc.Write(b)
	return err
}

// halt ends the sending without waiting for it.
func (u *upload) halt() {
	u.stop.Store(true)
	if u.r.StopBody != nil && !u.whole.Load() {
		u.once.Do(u.r.StopBody)
	}
	u.mayProceed()                               // to nothing
	_ = u.c.nc.SetWriteDeadline(time.Unix(1, 0)) // fails only when closed, which ends a write as well
	select {
	case <-u.done:
	default:
		if u.r.StopBody != nil {
			u.once.Do(u.r.StopBody)
		}
	}
}

// errs returns what went wrong; complete only once done is closed.
func (u *upload) errs() (bodyErr, sendErr error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bodyErr, u.sendErr
}
