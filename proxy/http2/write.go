package http2

import (
	"io"
	"time"
)

// Inform sends an informational response. One that the client has no room for
// within a moment is left out.
func (s *Stream) Inform(block []byte, within time.Duration) {
	s.Aside()
	c := s.conn
	until := time.Now().Add(within)
	c.mu.Lock()
	for len(c.out) >= outMax && s.gone == nil && c.dead == nil {
		left := time.Until(until)
		if left <= 0 {
			c.mu.Unlock()
			return
		}
		s.pause(left)
	}
	if s.errLocked() == nil && !s.answered {
		c.takeOut()
		c.out = appendBlock(c.out, c.updated(block), false, s.id)
	}
	c.mu.Unlock()
	c.flush()
}

// Write sends a header block, if there is one, and content; end says that it is
// the end. It returns how much of the content was sent: all of it, unless the
// error says why the client gets no more. It waits for the client's windows.
func (s *Stream) Write(block, body []byte, end bool) (n int, err error) {
	c := s.conn
	for {
		c.mu.Lock()
		if err := s.await(len(block) == 0 && n < len(body)); err != nil {
			s.leaveQueue()
			c.mu.Unlock()
			return n, err
		}
		c.takeOut()
		if len(block) > 0 {
			s.answered = true
			c.out = appendBlock(c.out, c.updated(block), end && len(body) == 0, s.id)
		}
		if n < len(body) || end && len(body)+len(block) == 0 {
			n += s.appendData(body[n:], end)
		}
		block = nil
		done := n == len(body)
		if done && end {
			s.endLocal()
		}
		s.leaveQueue()
		c.mu.Unlock()
		if !s.here {
			c.flush()
		}
		if done {
			return n, nil
		}
	}
}

// AwaitWindow waits until the client takes content, and returns how much at
// least. An error says why it gets no more.
func (s *Stream) AwaitWindow() (n int, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	err = s.await(true)
	s.leaveQueue()
	return int(min(s.sendWindow, c.sendWindow)), err
}

// Cancel ends the stream, if it has not ended, because nobody wants more of it.
// It may be called by anybody.
func (s *Stream) Cancel() {
	c := s.conn
	c.mu.Lock()
	if s.gone == nil && !(s.localEnd && s.remoteEnd) {
		c.reset(s, CodeCancel, errEnded)
	}
	c.mu.Unlock()
	c.flush()
}

// Abort ends the stream so that the client sees that the answer is not whole.
func (s *Stream) Abort() {
	c := s.conn
	c.mu.Lock()
	if s.gone == nil && !s.localEnd {
		c.reset(s, CodeInternal, errEnded)
	}
	c.mu.Unlock()
	if !s.here {
		c.flush()
	}
}

// appendData appends DATA frames with as much of p as windows and room allow.
// c.mu is held.
func (s *Stream) appendData(p []byte, end bool) (n int) {
	c := s.conn
	for len(c.out) < outMax {
		m := int(min(int64(len(p)-n), dataMax, s.sendWindow, c.sendWindow))
		if m <= 0 && len(p) > 0 {
			return n
		}
		flags := uint8(0)
		if end && n+m == len(p) {
			flags = flagEnd
		}
		c.out = append(appendFrameHead(c.out, m, frameData, flags, s.id), p[n:n+m]...)
		s.sendWindow -= int64(m)
		c.sendWindow -= int64(m)
		c.sentBytes += int64(m)
		s.taking.earn(m, &c.times)
		if n += m; n == len(p) {
			return n
		}
	}
	return n
}

// endLocal takes note that all is sent. c.mu is held.
func (s *Stream) endLocal() {
	s.localEnd = true
	if s.remoteEnd {
		s.conn.forget(s)
	}
}

// updated is a header block, with a word about the table before it where the
// client has changed that: none is used (RFC 7541 section 4.2). c.mu is held.
func (c *Conn) updated(block []byte) []byte {
	if !c.tableUpdate {
		return block
	}
	c.tableUpdate = false
	return append([]byte{0x20}, block...)
}

func (s *Stream) errLocked() error {
	switch {
	case s.conn.dead != nil:
		return s.conn.dead
	case s.gone != nil:
		return s.gone
	case s.localEnd:
		return errEnded
	}
	return nil
}

// await waits until the stream may write: until there is room and it is its
// turn, and windows are open where those are wanted. c.mu is held, and given up
// meanwhile.
func (s *Stream) await(window bool) error {
	c := s.conn
	for {
		if err := s.errLocked(); err != nil {
			return err
		}
		open := !window || s.sendWindow > 0 && c.sendWindow > 0
		room := len(c.out) < outMax && (len(c.queue) == 0 || c.queue[0] == s) && !(c.bulk && c.writing)
		wait := c.bulk && len(c.out) == 0 && !c.roomy && c.srv.config.AwaitRoom != nil
		switch {
		case open && room && !wait:
			return nil
		case s.here:
			c.mu.Unlock()
			s.Aside()
			c.mu.Lock()
		case open && room:
			c.awaitRoom()
		case !open:
			s.leaveQueue()
			if err := s.awaitWindow(); err != nil {
				return err
			}
		case !c.writing && len(c.out) >= outMax:
			c.mu.Unlock()
			c.flush()
			c.mu.Lock()
		default:
			if !s.queued {
				s.queued = true
				c.queue = append(c.queue, s)
			}
			s.pause(0)
		}
	}
}

// awaitRoom waits until what the connection runs over takes more, so that who
// takes nothing has nothing gathered for it. c.mu is held, and given up meanwhile.
func (c *Conn) awaitRoom() {
	c.writing = true
	c.mu.Unlock()
	err := c.srv.config.AwaitRoom(c.nc)
	c.mu.Lock()
	c.writing, c.roomy, c.writeBy = false, true, time.Time{} // which it has moved
	if err != nil && c.dead == nil {
		c.dead = io.ErrClosedPipe
		_ = c.nc.Close() // who reads ends the connection
	}
	c.callNext()
	c.wrote.Broadcast()
	if len(c.out) > 0 { // said meanwhile
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
	}
}

// awaitWindow waits for the client to open its windows. One that does not in
// time loses the stream.
func (s *Stream) awaitWindow() error {
	c := s.conn
	if len(c.out) > 0 && !c.writing {
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
		return nil
	}
	for s.errLocked() == nil && (s.sendWindow <= 0 || c.sendWindow <= 0) {
		if s.taking.left <= 0 {
			c.srv.count(refuseStall)
			c.srv.config.SlowReading()
			c.reset(s, refuseStall.Code, refuseStall)
			return refuseStall
		}
		began := time.Now()
		s.pause(s.taking.left)
		s.taking.left -= time.Since(began)
	}
	return nil
}

// pause waits to be woken, for so long at most, unless that is 0. c.mu is held,
// and given up meanwhile.
func (s *Stream) pause(d time.Duration) {
	c := s.conn
	c.mu.Unlock()
	defer c.mu.Lock()
	if d <= 0 {
		<-s.wake
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.wake:
	case <-timer.C:
	}
}

// leaveQueue lets the next have its turn. c.mu is held.
func (s *Stream) leaveQueue() {
	c := s.conn
	if !s.queued {
		return
	}
	s.queued = false
	for i, q := range c.queue {
		if q == s {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			break
		}
	}
	c.callNext()
}

func (c *Conn) callNext() {
	if len(c.queue) > 0 && (len(c.out) < outMax || !c.writing) {
		c.queue[0].wakeUp()
	}
}

// takeOut sees to it that frames can be appended to c.out. c.mu is held.
func (c *Conn) takeOut() {
	if c.out == nil {
		c.out = outs.Get().(*[outCap]byte)[:0]
	}
}

// flushRounds is how often a goroutine that writes its own goes on to write what
// others have appended meanwhile; then another does.
const flushRounds = 2

// flush writes what there is to write, or leaves it to who writes already.
func (c *Conn) flush() {
	c.mu.Lock()
	for round := 0; len(c.out) > 0 && !c.writing && c.dead == nil; round++ {
		if round == flushRounds {
			c.mu.Unlock()
			go c.flush()
			return
		}
		c.writeOut()
	}
	c.mu.Unlock()
}

// writeOut writes what there is. c.mu is held, and given up meanwhile.
func (c *Conn) writeOut() {
	b := c.out
	c.out, c.writing, c.roomy, c.bulk = nil, true, false, len(b) >= outMax/2
	c.callNext()
	err := c.extend(time.Now())
	c.mu.Unlock()
	if err == nil {
		_, err = c.nc.Write(b)
	}
	dropOut(b)
	c.mu.Lock()
	c.writing = false
	if err != nil && c.dead == nil {
		c.dead = io.ErrClosedPipe
		_ = c.nc.Close() // who reads ends the connection
	}
	c.callNext()
	c.wrote.Broadcast()
}

// extend moves the write deadline once a quarter of it is used up, as setting it
// for every small answer would cost more than the check. c.mu is held.
func (c *Conn) extend(now time.Time) error {
	limit := c.times.Write
	if c.writeBy.Sub(now) > limit*3/4 {
		return nil
	}
	c.writeBy = now.Add(limit)
	return c.nc.SetWriteDeadline(c.writeBy)
}

// flushBeforeRead has somebody write what there is to write, while who reads
// goes on: a client who reads nothing before all it sends is taken must not be
// waited for by who takes it.
func (c *Conn) flushBeforeRead() {
	c.mu.Lock()
	some := len(c.out) > 0 && !c.writing
	c.mu.Unlock()
	if some {
		go c.flush()
	}
}

// flushLast writes what is left when the connection ends.
func (c *Conn) flushLast() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing {
		c.wrote.Wait()
	}
	b := c.out
	c.out = nil
	if len(b) == 0 {
		return
	}
	c.mu.Unlock()
	_, _ = c.nc.Write(b) // the client may be gone
	c.mu.Lock()
}
