package http2

import (
	"encoding/binary"
	"io"
	"time"

	"golang.org/x/net/http2/hpack"

	"firstbell/proxy/field"
	"firstbell/proxy/head"
)

// handle takes a frame. The error ends the connection: a Refusal, or errAside.
func (c *Conn) handle(h frameHead, p []byte) error {
	if c.block.open && (h.kind != frameContinuation || h.stream != c.block.stream) {
		return refuseContinuation
	}
	switch h.kind {
	case frameData:
		return c.handleData(h, p)
	case frameHeaders:
		return c.handleHeaders(h, p)
	case frameContinuation:
		return c.handleContinuation(h, p)
	case frameReset:
		return c.handleReset(h, p)
	case frameWindow:
		return c.handleWindow(h, p)
	case framePush:
		return refuseFrame
	}
	if err := c.carriesNothing(); err != nil {
		return err
	}
	switch h.kind {
	case framePriority:
		return c.handlePriority(h, p)
	case frameSettings:
		return c.handleSettings(h, p)
	case framePing:
		return c.handlePing(h, p)
	case frameGoAway:
		return c.handleGoAway(h, p)
	}
	return nil // of a type not known: to be passed over (RFC 9113 section 4.1)
}

// carriesNothing counts a frame that carries neither a request nor content.
func (c *Conn) carriesNothing() error {
	if c.idle.spend() {
		return nil
	}
	c.mu.Lock()
	c.idle.earn(c.sentBytes / idleFrameBytes)
	c.sentBytes %= idleFrameBytes
	c.mu.Unlock()
	if !c.idle.spend() {
		return refuseFlood
	}
	return nil
}

// begun finds the stream that a frame is for. It is nil without an error when
// the stream is over by our doing, so that frames may still come for it.
func (c *Conn) begun(id uint32) (*Stream, error) {
	switch s := c.streams[id]; {
	case id == 0:
		return nil, refuseFrame
	case s != nil:
		return s, nil
	case id%2 == 0 || id > c.lastID && c.goneAway != stageEnding:
		return nil, refuseIdle
	}
	return nil, nil
}

// block is a header block that comes in one HEADERS and any number of
// CONTINUATION frames (RFC 9113 section 4.3).
type block struct {
	open   bool
	stream uint32
	end    bool      // END_STREAM
	self   bool      // its priority names the stream itself
	bytes  int       // so far
	by     time.Time // when it has to have ended, once it did not come at once
	to     *Stream   // whose head or trailer section it is; nil: nobody's
	tail   bool      // it is a trailer section
	why    *Refusal  // to's stream ends with this
	bad    error     // what is wrong with the fields: a *field.Refusal
}

// emit is what the decoder calls for each field.
func (c *Conn) emit(f hpack.HeaderField) {
	switch {
	case c.block.to == nil || c.block.why != nil || c.block.bad != nil:
	case c.block.tail:
		c.block.bad = c.block.to.trailer.Add(f.Name, f.Value)
	default:
		c.block.bad = c.block.to.Head.Add(f.Name, f.Value)
	}
}

func (c *Conn) handleHeaders(h frameHead, p []byte) error {
	p, ok := unpad(h, p)
	if !ok || h.stream%2 == 0 {
		return refuseFrame
	}
	c.block = block{open: true, stream: h.stream, end: h.flags&flagEnd != 0}
	if h.flags&flagPriority != 0 {
		if len(p) < 5 {
			return refuseFrameSize
		}
		c.block.self = binary.BigEndian.Uint32(p)&streamIDMax == h.stream
		p = p[5:]
	}
	if err := c.beginBlock(h.stream); err != nil {
		return err
	}
	return c.feed(h, p)
}

// beginBlock decides whose block it is that begins.
func (c *Conn) beginBlock(id uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := &c.block
	if s := c.streams[id]; s != nil {
		b.to, b.tail = s, true
		switch {
		case s.remoteEnd:
			b.why = refuseHalfClosed
		case !b.end:
			b.why = refuseTrailer
		default:
			s.trailer = new(head.Head)
			s.trailer.ResetTrailers()
		}
		return nil
	}
	if id <= c.lastID {
		if !c.forgot.has(id) {
			return refuseClosed
		}
		return nil
	}
	if c.goneAway == stageEnding {
		return nil // the client knows that this one is not served
	}
	c.lastID = id
	b.to = c.newStream(id)
	if len(c.streams) >= c.srv.config.StreamsMax || c.running >= handlersSlack*c.srv.config.StreamsMax {
		b.why = refuseStreams
	}
	return nil
}

func (c *Conn) handleContinuation(h frameHead, p []byte) error {
	if !c.block.open {
		return refuseContinuation
	}
	if err := c.carriesNothing(); err != nil {
		return err
	}
	return c.feed(h, p)
}

// feed decodes a part of the block, and takes the block once it has ended.
func (c *Conn) feed(h frameHead, p []byte) error {
	b := &c.block
	if b.bytes += len(p); b.bytes > blockBytesMax {
		return refuseBlockSize
	}
	if _, err := c.dec.Write(p); err != nil {
		if err == hpack.ErrStringLength {
			return refuseBlockSize
		}
		return refuseCompression
	}
	if h.flags&flagEndBlock == 0 {
		if b.by.IsZero() {
			b.by = time.Now().Add(c.times.Head)
		}
		return nil
	}
	if c.dec.Close() != nil {
		return refuseCompression
	}
	done := *b
	*b = block{}
	switch {
	case done.to == nil:
		return nil
	case done.why == nil && done.self:
		done.why = refuseStreamFrame
	}
	if done.tail {
		return c.takeTrailer(&done)
	}
	return c.takeHead(&done)
}

func (c *Conn) takeTrailer(b *block) error {
	c.mu.Lock()
	s := c.streams[b.stream]
	if s == nil {
		c.mu.Unlock()
		return nil // it has ended meanwhile
	}
	switch {
	case b.why != nil:
	case b.bad != nil || s.trailer.End() != nil:
		b.why = refuseTrailer
	default:
		b.why = s.endRemote()
	}
	if b.why != nil {
		return c.refuseStream(s, b.why)
	}
	c.mu.Unlock()
	return nil
}

// takeHead begins the stream whose head it is.
func (c *Conn) takeHead(b *block) error {
	s := b.to
	if b.why == nil {
		b.why, s.Refused = c.checkHead(b)
	}
	c.heard = time.Now()
	c.idle.earn(idleFramesEarned)
	c.mu.Lock()
	if b.why != nil {
		return c.refuseStream(s, b.why)
	}
	c.streams[s.id] = s
	c.srv.streams.Add(1)
	c.running++
	if b.end {
		s.remoteEnd = true
		c.mu.Unlock()
		return c.serveHere(s)
	}
	c.aside++
	s.hasBody = true
	c.mu.Unlock()
	go s.serve()
	return nil
}

// checkHead completes a head. It returns why the stream ends, or why the request
// is to be answered without being served.
func (c *Conn) checkHead(b *block) (why *Refusal, refused *field.Refusal) {
	h := &b.to.Head
	bad := b.bad
	if bad == nil {
		bad = h.End()
	}
	if r, is := bad.(*field.Refusal); is {
		if r.Status == 0 {
			c.srv.config.Malformed(r)
			return refuseMalformed, nil
		}
		h.Length = -1
		refused = r
	}
	switch {
	case b.end && h.Length > 0:
		return refuseLength, nil
	case b.end:
		h.Length, h.Continue = 0, false
	}
	return nil, refused
}

// serveHere has the request answered by whoever reads the connection. It
// returns errAside when somebody else reads on meanwhile.
func (c *Conn) serveHere(s *Stream) error {
	s.here = true
	c.srv.config.Handler(s)
	here := s.here
	s.finish()
	if !here {
		return errAside
	}
	return nil
}

// refuseStream ends a stream for a reason. It unlocks c.mu, which is held. The
// error is that there were too many of these.
func (c *Conn) refuseStream(s *Stream, why *Refusal) error {
	c.srv.count(why)
	c.reset(s, why.Code, why)
	c.mu.Unlock()
	if !c.resets.spend() {
		return refuseResets
	}
	return nil
}

// reset ends a stream with a code. c.mu is held.
func (c *Conn) reset(s *Stream, code uint32, why error) {
	c.takeOut()
	c.out = appendReset(c.out, s.id, code)
	c.forgot.add(s.id)
	c.drop(s, why)
}

// drop takes a stream that is over out of the connection. c.mu is held.
func (c *Conn) drop(s *Stream, why error) {
	if s.gone != nil {
		return
	}
	s.end(why)
	c.forget(s)
	c.owe(nil, s.inbox.drop())
	s.wakeUp()
	s.wakeReader()
}

// forget counts a stream as over. c.mu is held.
func (c *Conn) forget(s *Stream) {
	if c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	c.srv.streams.Add(-1)
}

func (c *Conn) handleData(h frameHead, p []byte) error {
	content, ok := unpad(h, p)
	if !ok || h.stream == 0 {
		return refuseFrame
	}
	end := h.flags&flagEnd != 0
	if len(content) == 0 && !end {
		if err := c.carriesNothing(); err != nil {
			return err
		}
	}
	c.heard = time.Now()
	c.mu.Lock()
	if c.recvLeft -= int64(len(p)); c.recvLeft < 0 {
		c.mu.Unlock()
		return refuseWindow
	}
	s, err := c.begun(h.stream)
	if err == nil && s == nil && h.stream <= c.lastID && !c.forgot.has(h.stream) {
		err = refuseClosed
	}
	if err != nil || s == nil {
		c.owe(nil, len(p))
		c.mu.Unlock()
		return err
	}
	why := s.receive(content, len(p), end)
	if why != nil {
		return c.refuseStream(s, why)
	}
	c.mu.Unlock()
	return nil
}

func (c *Conn) handleReset(h frameHead, p []byte) error {
	if len(p) != 4 {
		return refuseFrameSize
	}
	c.mu.Lock()
	s, err := c.begun(h.stream)
	if err != nil || s == nil {
		c.mu.Unlock()
		if err == nil {
			err = c.carriesNothing()
		}
		return err
	}
	c.srv.gone.Add(1)
	c.drop(s, errReset)
	c.mu.Unlock()
	if !c.resets.spend() {
		return refuseResets
	}
	return nil
}

func (c *Conn) handleWindow(h frameHead, p []byte) error {
	if len(p) != 4 {
		return refuseFrameSize
	}
	if err := c.carriesNothing(); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(p) & windowMax)
	c.mu.Lock()
	if h.stream == 0 {
		defer c.mu.Unlock()
		if n == 0 {
			return refuseFrame
		}
		if c.sendWindow += n; c.sendWindow > windowMax {
			return refuseWindow
		}
		for _, s := range c.streams {
			s.wakeUp()
		}
		return nil
	}
	s, err := c.begun(h.stream)
	if err != nil || s == nil {
		c.mu.Unlock()
		return err
	}
	if n == 0 {
		return c.refuseStream(s, refuseStreamFrame)
	}
	if s.sendWindow += n; s.sendWindow > windowMax {
		return c.refuseStream(s, refuseStreamWindow)
	}
	s.wakeUp()
	c.mu.Unlock()
	return nil
}

func (c *Conn) handlePriority(h frameHead, p []byte) error {
	if h.stream == 0 {
		return refuseFrame
	}
	c.mu.Lock()
	s := c.streams[h.stream]
	var why *Refusal
	switch {
	case len(p) != 5:
		why = refuseFrameSize
	case binary.BigEndian.Uint32(p)&streamIDMax == h.stream:
		why = refuseStreamFrame
	}
	if why != nil && s != nil {
		return c.refuseStream(s, why)
	}
	c.mu.Unlock()
	if why != nil {
		return why // there is no stream to end
	}
	return nil
}

func (c *Conn) handleSettings(h frameHead, p []byte) error {
	if h.stream != 0 {
		return refuseFrame
	}
	if h.flags&flagEnd != 0 {
		if len(p) != 0 {
			return refuseFrameSize
		}
		return nil
	}
	if len(p)%6 != 0 {
		return refuseFrameSize
	}
	c.mu.Lock()
	for ; len(p) > 0; p = p[6:] {
		if why := c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); why != nil {
			c.mu.Unlock()
			return why
		}
	}
	c.takeOut()
	c.out = appendFrameHead(c.out, 0, frameSettings, flagEnd, 0)
	c.mu.Unlock()
	return c.awaitOut()
}

// setting takes one of the client's (RFC 9113 section 6.5.2). c.mu is held.
func (c *Conn) setting(id uint16, value uint32) *Refusal {
	switch id {
	case settingTable:
		c.tableUpdate = true
	case settingPush, settingExtend, settingNoTree:
		if value > 1 {
			return refuseSettings
		}
	case settingFrame:
		if value < frameMax || value > 1<<24-1 {
			return refuseSettings
		}
	case settingWindow:
		if value > windowMax {
			return refuseWindow
		}
		more := int64(value) - c.firstWindow
		c.firstWindow = int64(value)
		for _, s := range c.streams {
			if s.sendWindow += more; s.sendWindow > windowMax {
				return refuseWindow
			}
			s.wakeUp()
		}
	}
	return nil
}

func (c *Conn) handlePing(h frameHead, p []byte) error {
	switch {
	case len(p) != 8:
		return refuseFrameSize
	case h.stream != 0:
		return refuseFrame
	case h.flags&flagEnd != 0:
		return nil
	}
	c.mu.Lock()
	c.takeOut()
	c.out = append(appendFrameHead(c.out, 8, framePing, flagEnd, 0), p...)
	c.mu.Unlock()
	return c.awaitOut()
}

func (c *Conn) handleGoAway(h frameHead, p []byte) error {
	switch {
	case h.stream != 0:
		return refuseFrame
	case len(p) < 8:
		return refuseFrameSize
	}
	c.mu.Lock()
	c.leaving = true
	over := len(c.streams) == 0 && c.running == 0
	c.mu.Unlock()
	if over {
		return errOver
	}
	return nil
}

// awaitOut keeps a client from being answered what it does not read: nothing
// more is read from it before it has taken some.
func (c *Conn) awaitOut() error {
	c.mu.Lock()
	for len(c.out) > outLimit && c.dead == nil {
		if c.writing {
			c.wrote.Wait()
			continue
		}
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
	}
	dead := c.dead
	c.mu.Unlock()
	if dead != nil {
		return io.ErrUnexpectedEOF
	}
	return nil
}
