package http2

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"

	"firstbell/proxy/head"
)

const (
	lineCost   = 32      // what RFC 9113 section 6.5.2 has a field line count beside its text
	tableBytes = 4 << 10 // of the dynamic table: what every client may use unasked
	// blockBytesMax bounds a header block as it is sent. A head that is too
	// large is answered up to here; beyond, its connection ends.
	blockBytesMax = 64 << 10

	// recvWindow is how much content a connection takes in before somebody
	// reads it: it bounds the memory that uploads can claim. streamWindow is
	// one stream's share once it is read; until then it has windowFirst.
	recvWindow   = 1 << 20
	streamWindow = 256 << 10

	// handlersSlack is how many handlers may run for each stream that may be
	// open: those of requests taken back need a moment to notice.
	handlersSlack = 2

	// A frame that carries nothing costs one of these; they come back with
	// time, with requests, and with what is sent, as clients open windows for
	// that: some for every 4 KiB, of the stream and of the connection.
	idleFramesMax       = 2000
	idleFramesEarned    = 2       // by a request
	idleFrameBytes      = 1 << 10 // of content sent earn one
	idleFramesPerSecond = 200
	// A request taken back, or malformed, costs one of these. Who leaves a page
	// of images takes some hundreds back; 20 a second are no load.
	resetsMax       = 400
	resetsPerSecond = 20

	// callsMax bounds how often in a row who reads may be called before its time.
	callsMax = 8

	// What a client still sends when its connection ends is listened to for so
	// long, and so much: it gets to read why.
	lingerTimeMax  = 2 * time.Second
	lingerBytesMax = 1 << 20
)

// A Conn is a client's connection. One goroutine at a time reads it: whoever is
// in frames.
type Conn struct {
	srv   *Server
	owner any
	times Times
	nc    net.Conn

	// Of who reads.
	in       []byte // from a pool; nil while nothing is received and not used
	r, w     int    // received and not used: in[r:w]
	first    [frameHeadBytes]byte
	readBy   time.Time // the read deadline that is set
	heard    time.Time // when something came last
	partBy   time.Time // when the frame that has begun to come has to be there; zero: none has
	partData bool      // it carries content
	helloBy  time.Time // when preface and SETTINGS have to be there; zero: they are
	block    block
	dec      *hpack.Decoder
	idle     budget // frames that carry nothing
	resets   budget // requests taken back
	nudged   atomic.Bool
	stage    atomic.Int32  // what is to become of the connection; only grows
	over     chan struct{} // closed when the connection is, and no handler runs

	mu       sync.Mutex // guards what follows
	streams  map[uint32]*Stream
	free     *Stream   // to be used again
	lastID   uint32    // of the streams that the client began
	forgot   ring      // streams that were reset here: what still comes for them is expected
	running  int       // handlers
	aside    int       // of these, on goroutines of their own
	ended    bool      // nobody reads any more
	goneAway int32     // which stage the client was told of
	alone    time.Time // since when no stream is open
	leaving  bool      // the client begins no more streams
	dead     error     // why nothing is read or written any more

	sendWindow  int64
	firstWindow int64 // of new streams
	recvLeft    int64 // what the client may send
	recvOwed    int64 // what was read and not given back yet
	tableUpdate bool  // the next header block has to say that no table is used
	sentBytes   int64 // of content; the client may open windows for them

	out     []byte // frames to be written; from a pool, nil when there are none
	writing bool   // somebody writes, or waits for room to
	bulk    bool   // the last write was a large one: the next waits for room
	roomy   bool   // there has been room since
	writeBy time.Time
	wrote   *sync.Cond // somebody has written
	queue   []*Stream  // those who wait for room in out, in turn
}

// NewConn makes a connection that Serve serves. received is what has been read
// of it already. Its streams know the owner.
func (s *Server) NewConn(nc net.Conn, received []byte, owner any) *Conn {
	now, times := time.Now(), s.config.Times()
	c := &Conn{
		srv: s, nc: nc, owner: owner, heard: now, helloBy: now.Add(times.Head), times: times,
		idle:    budget{left: idleFramesMax, max: idleFramesMax, perSecond: idleFramesPerSecond, since: now},
		resets:  budget{left: resetsMax, max: resetsMax, perSecond: resetsPerSecond, since: now},
		over:    make(chan struct{}),
		streams: make(map[uint32]*Stream), sendWindow: windowFirst, firstWindow: windowFirst, recvLeft: recvWindow,
	}
	c.wrote = sync.NewCond(&c.mu)
	c.dec = hpack.NewDecoder(tableBytes, c.emit)
	c.dec.SetMaxStringLength(blockBytesMax)
	if len(received) > 0 {
		c.in = takeIn(len(received))
		c.w = copy(c.in, received)
	}
	c.hello()
	return c
}

// hello is what a server's connection begins with: its settings, and the
// window for all streams together.
func (c *Conn) hello() {
	cfg := &c.srv.config
	var p []byte
	p = appendSetting(p, settingMany, uint32(cfg.StreamsMax))
	p = appendSetting(p, settingList, head.BytesMax+head.FieldsMax*lineCost)
	p = appendSetting(p, settingNoTree, 1)
	if cfg.ExtendedConnect {
		p = appendSetting(p, settingExtend, 1)
	}
	c.takeOut()
	c.out = append(appendFrameHead(c.out, len(p), frameSettings, 0, 0), p...)
	c.out = appendWindow(c.out, 0, recvWindow-windowFirst)
}

// How frames ends without an error of the client's.
var (
	errAside = errors.New("another goroutine reads on")
	errOver  = errors.New("the connection has ended")
)

// run reads the connection until it ends, or until another goroutine does so.
func (c *Conn) run() {
	err := c.frames()
	if err == errAside {
		return
	}
	c.end(err)
}

func (c *Conn) frames() error {
	if !c.helloBy.IsZero() {
		if err := c.readPreface(); err != nil {
			return err
		}
	}
	for {
		h, payload, err := c.next()
		if err != nil {
			return err
		}
		if !c.helloBy.IsZero() {
			if h.kind != frameSettings || h.flags&flagEnd != 0 {
				return refusePreface
			}
			c.helloBy = time.Time{}
		}
		if err := c.handle(h, payload); err != nil {
			return err
		}
	}
}

func (c *Conn) readPreface() error {
	for seen := 0; ; {
		have := min(c.w-c.r, len(preface))
		if string(c.in[c.r:c.r+have]) != preface[:have] {
			return refusePreface
		}
		if have == len(preface) {
			c.r += have
			return nil
		}
		if seen = have; seen == 0 && c.in == nil {
			c.in = takeIn(0)
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// next returns the next frame, whose payload is good until the one after.
func (c *Conn) next() (h frameHead, payload []byte, err error) {
	for {
		if c.w-c.r >= frameHeadBytes {
			h = readFrameHead(c.in[c.r:])
			if h.length > frameMax {
				return h, nil, refuseFrameSize
			}
			if whole := frameHeadBytes + h.length; c.w-c.r >= whole {
				payload = c.in[c.r+frameHeadBytes : c.r+whole]
				c.r += whole
				c.partBy, c.partData = time.Time{}, false
				return h, payload, nil
			}
			if c.w-c.r < inSmall {
				c.makeRoom(min(frameHeadBytes+h.length, inSmall)) // more once that is there
			} else {
				c.makeRoom(frameHeadBytes + h.length)
			}
		}
		switch {
		case c.w-c.r >= frameHeadBytes && h.kind == frameData && !c.partData:
			c.partBy, c.partData = time.Now().Add(c.times.Grace), true
		case c.w > c.r && c.partBy.IsZero():
			c.partBy = time.Now().Add(c.times.Head)
		}
		if err := c.fill(); err != nil {
			return h, nil, err
		}
	}
}

// makeRoom sees to it that a frame of n bytes fits in behind r.
func (c *Conn) makeRoom(n int) {
	if len(c.in)-c.r >= n {
		return
	}
	if to := c.in; n > len(to) {
		to = takeIn(n)
		c.r, c.w = 0, copy(to, c.in[c.r:c.w])
		dropIn(c.in)
		c.in = to
	} else {
		c.r, c.w = 0, copy(to, to[c.r:c.w])
	}
}

// fill reads something. All that was to be written is being written then. While
// nothing comes, no buffer is held.
func (c *Conn) fill() error {
	c.flushBeforeRead()
	for early := 0; ; {
		if err := c.setReadDeadline(); err != nil {
			return err
		}
		if c.nudged.Swap(false) {
			if err := c.lookAround(); err != nil {
				return err
			}
			continue
		}
		n, err := c.readSome()
		if n > 0 {
			return nil
		}
		switch {
		case timedOut(err):
			if time.Now().Before(c.readBy) {
				early++ // somebody called
			}
			if early > callsMax {
				return err // what it runs over has no other word any more
			}
			if err := c.lookAround(); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
}

func (c *Conn) readSome() (n int, err error) {
	if c.r < c.w || c.in != nil && !c.helloBy.IsZero() {
		if c.w == len(c.in) {
			c.w = copy(c.in, c.in[c.r:c.w])
			c.r = 0
		}
		n, err = c.nc.Read(c.in[c.w:])
		c.w += n
		return n, err
	}
	c.dropIn()
	if n, err = c.nc.Read(c.first[:]); n > 0 {
		c.in = takeIn(0)
		c.r, c.w = 0, copy(c.in, c.first[:n])
	}
	return n, err
}

func (c *Conn) dropIn() {
	if c.in != nil {
		dropIn(c.in)
		c.in, c.r, c.w = nil, 0, 0
	}
}

// setReadDeadline sets when the reader has to look around. An idle
// connection's is moved seldom: it may come early, and is set again then.
func (c *Conn) setReadDeadline() error {
	by := c.heard.Add(c.times.Idle)
	for _, t := range [...]time.Time{c.partBy, c.block.by, c.helloBy} {
		if !t.IsZero() && t.Before(by) {
			by = t
		}
	}
	if !by.Before(c.readBy) && by.Sub(c.readBy) < c.times.Idle/4 {
		return nil
	}
	c.readBy = by
	return c.nc.SetReadDeadline(by)
}

// lookAround decides what becomes of a connection on which nothing came in
// time, or whose reader was called.
func (c *Conn) lookAround() error {
	now := time.Now()
	c.readBy = time.Time{}
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	switch {
	case due(c.helloBy):
		return refuseHello
	case due(c.partBy) || due(c.block.by):
		return refuseHeadTime
	}
	c.mu.Lock()
	stage := c.stage.Load()
	alone := len(c.streams) == 0 && c.running == 0
	if c.alone.After(c.heard) {
		c.heard = c.alone
	}
	quiet := now.Sub(c.heard) >= c.times.Idle
	if quiet {
		c.heard = now // where streams are open, look again then
	}
	if alone && (quiet || c.leaving) {
		stage = stageEnding
	}
	c.sayGoAway(stage)
	over := alone && stage == stageEnding
	c.mu.Unlock()
	if over {
		return errOver
	}
	c.flushBeforeRead()
	return nil
}

// sayGoAway tells the client once that it shall begin no more streams, and once
// which ones are not served. c.mu is held.
func (c *Conn) sayGoAway(stage int32) {
	if stage <= c.goneAway {
		return
	}
	c.goneAway = stage
	last := c.lastID
	if stage == stageDraining {
		last = streamIDMax
	}
	c.takeOut()
	c.out = appendGoAway(c.out, last, CodeNo, "")
}

// nudge calls the reader to look around. It may be called by anybody.
func (c *Conn) nudge() {
	c.nudged.Store(true)
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // fails for a closed connection only
}

// end closes the connection, for a reason that the client is told of if it is a
// Refusal, and has every stream know.
func (c *Conn) end(err error) {
	refusal, _ := err.(*Refusal)
	c.mu.Lock()
	if refusal != nil {
		c.srv.count(refusal)
		c.takeOut()
		c.out = appendGoAway(c.out, c.lastID, refusal.Code, refusal.Detail)
	}
	c.failLocked(io.ErrUnexpectedEOF)
	c.mu.Unlock()
	if refusal != nil || err == errOver {
		_ = c.nc.SetWriteDeadline(time.Now().Add(lingerTimeMax)) // fails for a closed connection only
		c.flushLast()
		c.linger()
	}
	_ = c.nc.Close() // an error changes nothing any more
	c.dropIn()
	c.mu.Lock()
	c.ended = true
	if c.aside == 0 {
		close(c.over)
	}
	c.mu.Unlock()
}

// failLocked has every stream know that the connection is over. c.mu is held.
func (c *Conn) failLocked(err error) {
	if c.dead == nil {
		c.dead = err
	}
	for _, s := range c.streams {
		c.drop(s, c.dead)
	}
	for _, s := range c.queue {
		s.wakeUp()
	}
	c.queue = nil
}

// linger ends our side and reads for a moment what the client still sends.
func (c *Conn) linger() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	if c.nc.SetReadDeadline(time.Now().Add(lingerTimeMax)) != nil {
		return
	}
	c.takeInIfNone()
	for n := 0; n < lingerBytesMax; {
		m, err := c.nc.Read(c.in)
		if n += m; err != nil {
			return
		}
	}
}

func (c *Conn) takeInIfNone() {
	if c.in == nil {
		c.in = takeIn(0)
	}
}

func timedOut(err error) bool {
	var late interface{ Timeout() bool }
	return errors.As(err, &late) && late.Timeout()
}

// budget is how much of something may come: some at once, and some a second.
type budget struct {
	left, max, perSecond int64
	since                time.Time
}

// spend takes one, and reports whether there was one.
func (b *budget) spend() bool {
	if b.left == 0 {
		now := time.Now()
		b.left = min(b.max, int64(now.Sub(b.since).Seconds()*float64(b.perSecond)))
		if b.left <= 0 {
			b.left = 0
			return false
		}
		b.since = now
	}
	b.left--
	return true
}

func (b *budget) earn(n int64) { b.left = min(b.max, b.left+n) }

// ring remembers the last streams that were reset here. Most connections reset
// none, and have no room for them.
type ring struct {
	ids  *[256]uint32
	next uint8
}

func (r *ring) add(id uint32) {
	if r.ids == nil {
		r.ids = new([256]uint32)
	}
	r.ids[r.next] = id
	r.next++
}

func (r *ring) has(id uint32) bool { return r.ids != nil && slices.Contains(r.ids[:], id) }
