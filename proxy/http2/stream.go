package http2

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/head"
)

// A Stream is a request and the way to answer it. Its methods are for the
// handler's goroutine, but for Read, StopReading and OnGone: those are for any
// one at a time.
type Stream struct {
	Head head.Head
	// Refused says why the request, which is not malformed, is not served: it is
	// to be answered so. The head may lack parts then.
	Refused *field.Refusal

	conn *Conn
	id   uint32
	here bool // the handler runs on the goroutine that reads the connection

	// All that follows is guarded by conn.mu.
	hasBody   bool  // content may come
	known     bool  // as a context: somebody may look at it later
	remoteEnd bool  // the client has sent all
	answered  bool  // the head of the answer is sent
	localEnd  bool  // so have we
	gone      error // why nothing is sent or received any more
	done      chan struct{}
	after     map[int]func() // called when gone is set
	afters    int            // given out in after

	sendWindow int64
	wake       chan struct{} // who writes looks again
	queued     bool          // in conn.queue

	inbox    inbox
	recvLeft int64 // what the client may send
	recvOwed int64 // what was read and not given back yet
	got      int64 // content received
	widened  bool  // the window is what it is for who reads
	asked    bool  // 100 was sent
	trailer  *head.Head
	stopped  bool
	heard    chan struct{} // who reads looks again
	timed    bool          // reads end at readBy, not with patience
	readBy   time.Time
	sending  patience // with the client's content; of who reads
	taking   patience // with its windows
}

// How reading and writing a stream end.
var (
	// ErrStopped ends a content that nobody wants any more.
	ErrStopped = errors.New("the rest of the content is not wanted")
	// ErrTimeout ends a content that does not come.
	ErrTimeout = errors.New("the client sent nothing for too long")

	errReset = errors.New("the client took the request back")
	errEnded = errors.New("the answer has ended already")
)

// newStream makes a stream that is not one of the connection's yet. c.mu is
// held.
func (c *Conn) newStream(id uint32) *Stream {
	s := c.free
	if s == nil {
		s = &Stream{conn: c, wake: make(chan struct{}, 1)}
	} else {
		c.free = nil
	}
	s.id, s.Head.Extended = id, c.srv.config.ExtendedConnect
	s.sendWindow, s.recvLeft = c.firstWindow, windowFirst
	s.sending.left, s.taking.left = c.times.Grace, c.times.Grace
	return s
}

// serve runs the handler on a goroutine of its own.
func (s *Stream) serve() {
	s.conn.srv.config.Handler(s)
	s.finish()
}

// Aside has another goroutine go on reading the connection, if this one does:
// the handler may wait from now on.
func (s *Stream) Aside() {
	if !s.here {
		return
	}
	s.here = false
	c := s.conn
	c.mu.Lock()
	c.aside++
	c.mu.Unlock()
	go c.run()
}

// finish ends what the handler left open.
func (s *Stream) finish() {
	c := s.conn
	c.mu.Lock()
	switch {
	case s.gone != nil:
	case !s.localEnd:
		c.reset(s, CodeInternal, errEnded) // the client must not take it for the whole
	case !s.remoteEnd:
		c.reset(s, CodeNo, errEnded) // RFC 9113 section 8.1
	}
	c.forget(s)
	if s.gone == nil {
		s.end(errEnded)
	}
	c.owe(nil, s.inbox.drop())
	if c.running--; c.running == 0 {
		c.alone = time.Now()
	}
	here := s.here
	if !here {
		c.aside--
	}
	over := c.ended && c.aside == 0
	nudge := c.running == 0 && len(c.streams) == 0 && !c.ended && (c.leaving || c.stage.Load() == stageEnding)
	if !s.hasBody && !s.known && c.free == nil && !c.ended {
		s.recycle()
		c.free = s
	}
	c.mu.Unlock()
	if !here {
		c.flush()
	}
	if nudge {
		c.nudge()
	}
	if over {
		close(c.over)
	}
}

// recycle makes a stream of which nobody knows any more ready for another
// request.
func (s *Stream) recycle() {
	s.Head.Reset()
	select {
	case <-s.wake:
	default:
	}
	*s = Stream{Head: s.Head, conn: s.conn, wake: s.wake}
}

// A Stream is a context that ends when the client takes the request back, when
// the connection breaks, and when the handler has returned.

// Deadline implements context.Context: there is none.
func (s *Stream) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Done implements context.Context.
func (s *Stream) Done() <-chan struct{} {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.known = true
	if s.done == nil {
		s.done = make(chan struct{})
		if s.gone != nil {
			close(s.done)
		}
	}
	return s.done
}

// Err implements context.Context.
func (s *Stream) Err() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.gone != nil {
		return context.Canceled
	}
	return nil
}

// Value implements context.Context: there is none.
func (s *Stream) Value(any) any { return nil }

// AfterFunc has f called on a goroutine of its own once the context has ended,
// as context.AfterFunc does, without a goroutine that waits for it.
func (s *Stream) AfterFunc(f func()) (stop func() bool) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.gone != nil {
		go f()
		return func() bool { return false }
	}
	s.known = true
	if s.after == nil {
		s.after = make(map[int]func())
	}
	id := s.afters
	s.after[id] = f
	s.afters++
	return func() bool {
		s.conn.mu.Lock()
		defer s.conn.mu.Unlock()
		_, there := s.after[id]
		delete(s.after, id)
		return there
	}
}

// end ends the stream's context. conn.mu is held.
func (s *Stream) end(why error) {
	s.gone = why
	if s.done != nil {
		close(s.done)
	}
	for _, f := range s.after {
		go f()
	}
	s.after = nil
}

// Owner is whoever the connection was made for.
func (s *Stream) Owner() any { return s.conn.owner }

func (s *Stream) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Stream) wakeReader() {
	if s.heard == nil {
		return
	}
	select {
	case s.heard <- struct{}{}:
	default:
	}
}

// receive takes a DATA frame's content; taken is what it counts for flow
// control. conn.mu is held.
func (s *Stream) receive(p []byte, taken int, end bool) *Refusal {
	c := s.conn
	if s.remoteEnd {
		c.owe(nil, taken)
		return refuseHalfClosed
	}
	if s.recvLeft -= int64(taken); s.recvLeft < 0 {
		c.owe(nil, taken)
		return refuseStreamWindow
	}
	c.owe(s, taken-len(p)) // padding
	s.got += int64(len(p))
	if s.Head.Length >= 0 && s.got > s.Head.Length {
		c.owe(nil, len(p))
		return refuseLength
	}
	if s.stopped {
		c.owe(nil, len(p))
	} else {
		s.inbox.put(p)
	}
	if end {
		return s.endRemote()
	}
	s.wakeReader()
	return nil
}

// endRemote takes note that the client has sent all. conn.mu is held.
func (s *Stream) endRemote() *Refusal {
	if s.Head.Length >= 0 && s.got != s.Head.Length {
		return refuseLength
	}
	s.remoteEnd = true
	if s.localEnd {
		s.conn.forget(s)
	}
	s.wakeReader()
	return nil
}

// Read reads the request's content. It returns io.EOF at its clean end only.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.askForContent()
	c := s.conn
	for {
		c.mu.Lock()
		n, err := s.readLocked(p)
		timed, until := s.timed, s.readBy
		if s.heard == nil {
			s.heard = make(chan struct{}, 1)
		}
		more := len(c.out) > 0 && !c.writing
		c.mu.Unlock()
		if more {
			c.flush()
		}
		if n > 0 || err != nil {
			s.sending.earn(n, &c.times)
			return n, err
		}
		if timed {
			if !s.awaitUntil(until) {
				return 0, os.ErrDeadlineExceeded
			}
			continue
		}
		if s.awaitContent(); s.sending.left <= 0 {
			c.srv.config.SlowContent()
			return 0, ErrTimeout
		}
	}
}

// SetReadDeadline has Read return os.ErrDeadlineExceeded at t, and until then
// wait for content however slowly it comes; without end if t is zero. It may be
// called by anybody.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.timed, s.readBy = true, t
	s.wakeReader()
	return nil
}

// awaitUntil waits until something was heard, and reports whether there is time
// left.
func (s *Stream) awaitUntil(t time.Time) bool {
	if t.IsZero() {
		<-s.heard
		return true
	}
	left := time.Until(t)
	if left <= 0 {
		return false
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-s.heard:
	case <-timer.C:
	}
	return true
}

// awaitContent waits until something was heard of the content, or patience is
// at its end.
func (s *Stream) awaitContent() {
	began := time.Now()
	timer := time.NewTimer(s.sending.left)
	defer timer.Stop()
	select {
	case <-s.heard:
	case <-timer.C:
	}
	s.sending.left -= time.Since(began)
}

// Empty waits until some of the request's content has come, or its end, and
// reports that there is none.
func (s *Stream) Empty() bool {
	c := s.conn
	for {
		c.mu.Lock()
		known := s.inbox.n > 0 || s.remoteEnd || s.gone != nil
		empty := s.remoteEnd && s.got == 0
		if s.heard == nil {
			s.heard = make(chan struct{}, 1)
		}
		c.mu.Unlock()
		if known || s.sending.left <= 0 {
			return empty
		}
		s.awaitContent()
	}
}

// Wait waits as Read does, without a buffer, and reports true.
func (s *Stream) Wait() (bool, error) {
	s.askForContent()
	c := s.conn
	for {
		c.mu.Lock()
		ready := s.stopped || s.inbox.n > 0 || s.gone != nil || s.remoteEnd || s.timed
		if s.heard == nil {
			s.heard = make(chan struct{}, 1)
		}
		more := len(c.out) > 0 && !c.writing
		c.mu.Unlock()
		if more {
			c.flush()
		}
		if ready || s.sending.left <= 0 {
			return true, nil // the Read tells
		}
		s.awaitContent()
	}
}

func (s *Stream) readLocked(p []byte) (int, error) {
	switch {
	case s.stopped:
		return 0, ErrStopped
	case s.inbox.n > 0:
		n := s.inbox.take(p)
		s.conn.owe(s, n)
		return n, nil
	case s.gone != nil:
		return 0, io.ErrUnexpectedEOF
	case s.remoteEnd:
		return 0, io.EOF
	}
	return 0, nil
}

// askForContent has a client send who waits for 100.
func (s *Stream) askForContent() {
	if s.asked {
		return
	}
	s.asked = true
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.gone != nil || s.remoteEnd {
		return
	}
	if s.Head.Continue && !s.answered && s.got == 0 {
		c.takeOut()
		c.out = appendBlock(c.out, c.updated(continueBlock), false, s.id)
	}
}

var continueBlock = AppendStatus(nil, 100)

// StopReading makes the Read under way, and every later one, return soon.
func (s *Stream) StopReading() {
	c := s.conn
	c.mu.Lock()
	s.stopped = true
	c.owe(nil, s.inbox.drop())
	s.wakeReader()
	c.mu.Unlock()
}

// Trailer is the request's trailer section, once Read has returned io.EOF; nil
// when there is none.
func (s *Stream) Trailer() *head.Head { return s.trailer }

// owe gives back to the client what was taken in of its windows: the
// connection's, and that of a stream which goes on. c.mu is held.
func (c *Conn) owe(s *Stream, n int) {
	if n == 0 {
		return
	}
	if c.recvOwed += int64(n); c.recvOwed >= recvWindow/4 && c.dead == nil {
		c.takeOut()
		c.out = appendWindow(c.out, 0, c.recvOwed)
		c.recvLeft += c.recvOwed
		c.recvOwed = 0
	}
	if s == nil || s.remoteEnd || s.gone != nil {
		return
	}
	window := int64(streamWindow)
	if !s.widened {
		window = windowFirst
	}
	if s.recvOwed += int64(n); s.recvOwed >= window/4 {
		if !s.widened { // somebody reads it, and it is not small
			s.widened = true
			s.recvOwed += streamWindow - windowFirst
		}
		c.takeOut()
		c.out = appendWindow(c.out, s.id, s.recvOwed)
		s.recvLeft += s.recvOwed
		s.recvOwed = 0
	}
}
