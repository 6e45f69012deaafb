package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"firstbell/proxy/websocket"
)

// closeTimeMax is how long the ends may take to part once one of them, or we,
// said so.
const closeTimeMax = 5 * time.Second

// tunnel passes the frames of a WebSocket both ways until one side has enough,
// or we have: then both are told, by a Close frame between two of theirs.
type tunnel struct {
	client, origin side
	idle           time.Duration
	last           atomic.Int64 // when bytes last came either way, in Unix nanoseconds
	ending         atomic.Bool  // why is set

	mu       sync.Mutex // guards what follows, and the read deadlines with it
	why      endReason
	by       time.Time // when all must be over, once why is set
	left     int       // directions under way; 0 before run
	offender side      // who sent what is no frame; nil: nobody
}

// direction is one way through a tunnel. It belongs to the goroutine of run.
type direction struct {
	t        *tunnel
	from, to side
	ends     endReason // why the tunnel ends when from ends it
	frames   websocket.Frames
	moved    int64 // bytes passed on; read once run has returned

	piece   *[]byte // from pieces; nil while nothing is there to pass on
	small   []byte  // instead of piece, for a side that cannot be waited at without a buffer
	busy    bool    // what came last filled small
	held    [websocket.HeaderMax]byte
	holds   int  // bytes of held: a header that is not whole
	parting bool // to is to be told between two frames
	told    bool // to was: nothing is passed on any more
	late    bool // bytes came behind a Close frame
}

// run passes frames both ways and returns when that is over, with both sides
// closed. It uses the calling goroutine and one more.
func (t *tunnel) run() (up, down *direction) {
	up = &direction{t: t, from: t.client, to: t.origin, ends: endClient, frames: websocket.Frames{Masked: true}}
	down = &direction{t: t, from: t.origin, to: t.client, ends: endOrigin}
	t.last.Store(time.Now().UnixNano())
	t.mu.Lock()
	t.left = 2
	if t.why == notEnded {
		t.readByLocked(time.Now().Add(t.idle))
	} else {
		t.readByLocked(time.Unix(1, 0))
	}
	t.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		down.run()
	}()
	up.run()
	<-done
	_ = t.client.Close() // it is over, whatever comes of closing
	_ = t.origin.Close()
	return up, down
}

// end has both sides told soon that it is over. Only the first reason counts.
func (t *tunnel) end(why endReason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked(why, closeTimeMax)
}

// endLocked has all be over within d.
func (t *tunnel) endLocked(why endReason, d time.Duration) {
	if t.why == notEnded {
		t.why, t.by = why, time.Now().Add(d)
		t.ending.Store(true)
		if t.left > 0 {
			t.readByLocked(time.Unix(1, 0)) // each direction looks what to do
		}
	}
}

// readByLocked sets when reads of both sides return without bytes.
func (t *tunnel) readByLocked(by time.Time) {
	_ = t.client.SetReadDeadline(by) // fails for a closed connection only: then reading tells
	_ = t.origin.SetReadDeadline(by)
}

// run passes frames from one side to the other until that side has ended.
func (d *direction) run() {
	for d.step() {
	}
	t := d.t
	t.mu.Lock()
	if t.left--; t.left == 0 {
		t.readByLocked(time.Unix(1, 0)) // who listens still has heard enough
	}
	t.endLocked(d.ends, closeTimeMax)
	t.mu.Unlock()
	d.listen()
	d.drop()
}

// step passes on what comes next, and reports whether more may come.
func (d *direction) step() bool {
	if d.t.ending.Load() && !d.look() { // however much comes
		return false
	}
	n, err := d.receive()
	switch {
	case n > 0:
		d.t.last.Store(time.Now().UnixNano())
		return d.pass(n)
	case timedOut(err):
		return d.look()
	case err == nil:
		return true
	}
	if !d.told && !d.parting {
		d.t.end(d.ends)       // before the other side can answer
		_ = d.to.CloseWrite() // what is left is for the other direction
	}
	return false
}

// look decides what to do when the time for a read is over, and reports
// whether to read on.
func (d *direction) look() bool {
	t, now := d.t, time.Now()
	t.mu.Lock()
	if t.why == notEnded {
		quiet := now.Sub(time.Unix(0, t.last.Load()))
		if quiet < t.idle {
			_ = d.from.SetReadDeadline(now.Add(t.idle - quiet))
			t.mu.Unlock()
			return true
		}
		t.endLocked(endIdle, closeTimeMax)
	}
	_ = d.from.SetReadDeadline(t.by)
	in, why := now.Before(t.by), t.why
	t.mu.Unlock()
	if !in {
		return false
	}
	if why.tells() && !d.parting {
		d.parting, d.frames.Single = true, true
		if d.frames.Between() {
			return d.tell()
		}
	}
	return true
}

// pass passes on n bytes that were received, frame by frame, and reports
// whether more may come.
func (d *direction) pass(n int) bool {
	b := d.received(n)
	for {
		n, err := d.frames.Scan(b)
		if d.frames.Closed {
			d.t.end(d.ends) // before the other side can answer
		}
		if n > 0 && !d.told && !d.write(b[:n]) {
			return false
		}
		b = b[n:]
		switch {
		case err != nil:
			d.offend()
			return false
		case d.frames.Closed:
			d.late = len(b) > 0
			return false
		case d.parting && !d.told && d.frames.Between():
			if !d.tell() {
				return false
			}
		default:
			d.holds = copy(d.held[:], b)
			d.drop()
			return true
		}
	}
}

// offend ends a tunnel whose from sends what is no frame.
func (d *direction) offend() {
	d.t.mu.Lock()
	d.t.offender = d.from
	d.t.endLocked(endMalformed, closeTimeMax)
	d.t.mu.Unlock()
	if !d.told {
		d.tell()
	}
}

// goodbyes are what the ends are told.
var goodbyes = [endReasons]string{
	endIdle: "nothing was said for too long", endLifetime: "open for as long as may be", endShutdown: "the server restarts",
	endMalformed: "the other side broke the protocol",
}

// tells reports that saying goodbye is for us.
func (r endReason) tells() bool { return goodbyes[r] != "" }

// tell sends a Close frame of ours, behind which nothing is passed on.
func (d *direction) tell() bool {
	t := d.t
	t.mu.Lock()
	code, why := uint16(websocket.GoingAway), goodbyes[t.why]
	if t.offender == d.to {
		code, why = websocket.ProtocolError, "what came is no frame"
	}
	t.mu.Unlock()
	d.told, d.parting, d.frames.Single = true, true, false
	moved := d.moved
	ok := d.write(websocket.CloseFrame(d.frames.Masked, code, why))
	d.moved = moved
	return ok
}

// write writes to the other side, and reports whether that took it.
func (d *direction) write(b []byte) bool {
	n, err := d.to.Write(b)
	d.moved += int64(n)
	if err == nil {
		return true
	}
	why := endSlow
	switch {
	case timedOut(err):
	case d.to == d.t.client:
		why = endClient
	default:
		why = endOrigin
	}
	d.t.mu.Lock()
	d.t.endLocked(why, 0)
	d.t.mu.Unlock()
	return false
}

// listen drops what comes behind a Close frame, until all is over: it is
// nobody's, but who sends it shall still see the answer to its Close.
func (d *direction) listen() {
	if !d.frames.Closed {
		return
	}
	for {
		d.t.mu.Lock()
		over := d.t.left == 0 || !time.Now().Before(d.t.by)
		if !over {
			_ = d.from.SetReadDeadline(d.t.by)
		}
		d.t.mu.Unlock()
		if over {
			return
		}
		n, err := d.receive()
		d.late = d.late || n > 0
		if err != nil && !timedOut(err) {
			return
		}
	}
}

// receive waits for bytes and puts them where received finds them. A TCP
// connection holds no buffer while it waits, any other a small one unless much
// comes.
func (d *direction) receive() (int, error) {
	if w, ok := d.from.(*netSide); ok && w.raw != nil {
		return w.await(d)
	}
	b := d.room()
	if !d.busy {
		if d.small == nil {
			d.small = make([]byte, websocket.HeaderMax+1<<10)
		}
		d.drop()
		b = d.small[websocket.HeaderMax:]
	}
	n, err := d.from.Read(b)
	d.busy = n == len(b)
	return n, unlessSome(n, err)
}

// room is where to read to.
func (d *direction) room() []byte {
	if d.piece == nil {
		d.piece = pieces.Get().(*[]byte)
	}
	return (*d.piece)[websocket.HeaderMax:]
}

// received are n bytes that were received, behind what was held.
func (d *direction) received(n int) []byte {
	b := d.small
	if d.piece != nil {
		b = *d.piece
	}
	b = b[websocket.HeaderMax-d.holds : websocket.HeaderMax+n]
	copy(b, d.held[:d.holds])
	return b
}

// drop gives the buffer back.
func (d *direction) drop() {
	if d.piece != nil {
		pieces.Put(d.piece)
		d.piece = nil
	}
}
