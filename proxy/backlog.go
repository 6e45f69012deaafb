package proxy

import (
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/origin"
	"firstbell/proxy/spool"
)

const (
	// slowAfter is how long a client may take for a piece of 16 KiB before the
	// rest of its answer is taken in for it. It is how long any client at all can
	// have the origin wait: with eight places there, sixteen hundred slow ones a
	// second stop nobody.
	slowAfter = 5 * time.Millisecond
	// backlogBytesMax is how far behind its origin one client may be; then the
	// origin is paced by it.
	backlogBytesMax = 64 << 20
	// directTimeMax is how long a client may take for what waits for it in
	// memory, 80 KiB at most, when the spool has no room for what follows: it
	// holds a place at the origin then, and is cut off rather than keep it.
	directTimeMax = 10 * time.Second
)

// errNoRoom ends an answer that was taken too slowly to go without the spool.
var errNoRoom = errors.New("the client is slow, and the spool has no room for what follows")

// pieces are the buffers that bodies are passed on through.
var pieces = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

// originBody is an origin's body as a source. It gives the place at the origin
// back with the body's last byte, however long the client takes for its own: one
// who does not keep up gets the rest from a spool.
type originBody struct {
	p      *Proxy
	x      *exchange
	body   io.ReadCloser
	res    *origin.Response // whose body it is; nil: of the rest of another's
	spools *spool.Store     // nil: the client paces the origin
	owner  netip.Addr       // of the room it takes there; set with timer
	buf    *[]byte
	most   int   // how much Next may return; 0: as much as there is room for
	end    error // of body, behind what buf holds
	timer  *time.Timer

	mu   sync.Mutex // guards what follows
	stay *stay      // done with the body's last byte; nil: there is none, or it is done
	lent bool       // the client is being sent what Next returned
	late *backlog   // what it goes on with since it was too slow
}

// of makes b, which is zero, a source of a body for x. The stay may be nil.
func (b *originBody) of(p *Proxy, x *exchange, body io.ReadCloser, res *origin.Response, s *stay) *originBody {
	b.p, b.x, b.body, b.res, b.stay = p, x, body, res, s
	if s != nil && !x.route.StreamsAnswers {
		b.spools = p.spools
	}
	return b
}

// Next implements source.
func (b *originBody) Next() ([]byte, error) {
	if b.buf == nil {
		b.buf = pieces.Get().(*[]byte)
	}
	room := *b.buf
	if b.most > 0 {
		room = room[:min(len(room), b.most)]
	}
	if late := b.returned(); late != nil {
		return late.next(room)
	}
	for b.end == nil {
		n, err := b.body.Read(room)
		if err != nil {
			b.end = err
			b.release()
		}
		if n > 0 {
			if err == nil && b.spools != nil {
				b.lend()
			}
			return (*b.buf)[:n], nil
		}
	}
	return nil, b.end
}

// Rest implements resting. The client's time for what it was lent goes on until
// Next is called, so that its socket may have to have room for more by then.
func (b *originBody) Rest() {
	if b.buf != nil {
		pieces.Put(b.buf)
		b.buf = nil
	}
}

// Most implements resting.
func (b *originBody) Most(n int) { b.most = n }

// lend gives the client its time for what Next returns.
func (b *originBody) lend() {
	b.mu.Lock()
	b.lent = true
	b.mu.Unlock()
	if b.timer == nil {
		b.owner = b.p.ownerOf(b.x)
		b.timer = time.AfterFunc(slowAfter, b.fallBehind)
	} else {
		b.timer.Reset(slowAfter)
	}
}

// returned says that the client has what it was lent. It returns what it goes
// on with, if it took too long.
func (b *originBody) returned() *backlog {
	if b.timer == nil {
		return nil
	}
	b.timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lent = false
	return b.late
}

// fallBehind takes the rest of the body in.
func (b *originBody) fallBehind() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.lent || b.late != nil {
		return // it came back at the last moment
	}
	b.late = newBacklog(b.spools.New(b.owner))
	go b.late.fill(b.body, b.release)
}

// release gives the place at the origin back.
func (b *originBody) release() {
	b.mu.Lock()
	s := b.stay
	b.stay = nil
	b.mu.Unlock()
	if s != nil {
		s.done()
	}
}

// interrupt ends a read of the body.
func (b *originBody) interrupt() {
	b.mu.Lock()
	s := b.stay
	b.mu.Unlock()
	if s != nil {
		s.stop()
	}
}

// Ready implements eager.
func (b *originBody) Ready() bool {
	e, ok := b.body.(eager)
	return ok && e.Ready()
}

// Announced implements trailed.
func (b *originBody) Announced() string { return b.res.Announced }

// Trailer implements trailed.
func (b *originBody) Trailer() field.List {
	if b.res.Trailer == nil {
		return nil // it came through a flight, which keeps none
	}
	return b.res.Trailer()
}

// Close implements source.
func (b *originBody) Close() {
	if late := b.returned(); late != nil {
		late.stop()
		b.interrupt()
		late.close()
	}
	b.body.Close() // what is left of the message is not wanted
	b.release()
	b.Rest()
}

// backlog is the rest of an answer that a client did not take as fast as it
// came. One goroutine fills it, another empties it.
type backlog struct {
	ended chan struct{} // closed when fill has returned

	mu      sync.Mutex // guards what follows
	moved   sync.Cond  // something below has changed
	spool   *spool.Spool
	at      int64  // how far the client is in the spool
	direct  []byte // instead of it, where that has no room: what follows, lent by fill
	end     error  // how the body ended, behind all this
	stopped bool   // the client is gone
}

func newBacklog(sp *spool.Spool) *backlog {
	l := &backlog{spool: sp, ended: make(chan struct{})}
	l.moved.L = &l.mu
	return l
}

// fill takes body in to its end, or as far as it is wanted, and then calls
// release.
func (l *backlog) fill(body io.Reader, release func()) {
	defer close(l.ended)
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	for {
		n, err := body.Read(*buf)
		if n > 0 && !l.add((*buf)[:n]) {
			release()
			return
		}
		if err != nil {
			release()
			l.mu.Lock()
			l.end = err
			l.moved.Broadcast()
			l.mu.Unlock()
			return
		}
	}
}

// add takes p in, once there is room for it. It returns false when the client
// is gone.
func (l *backlog) add(p []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.stopped && l.spool.Size() >= backlogBytesMax {
		l.moved.Wait()
	}
	if _, err := l.spool.Write(p); err == nil {
		l.moved.Broadcast()
		return !l.stopped
	}
	return l.lend(p)
}

// lend has the client take p itself, and pace the origin by that, for a moment.
// It returns false when that is over, or the client gone. l.mu is held.
func (l *backlog) lend(p []byte) bool {
	overdue := false
	timer := time.AfterFunc(directTimeMax, func() {
		l.mu.Lock()
		overdue = true
		l.moved.Broadcast()
		l.mu.Unlock()
	})
	defer timer.Stop()
	l.direct = p
	l.moved.Broadcast()
	for !l.stopped && len(l.direct) > 0 && !overdue {
		l.moved.Wait()
	}
	if len(l.direct) > 0 {
		l.direct, l.end = nil, errNoRoom
		return false
	}
	return !l.stopped
}

// next returns what follows, in buf, waiting until there is something.
func (l *backlog) next(buf []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.at < l.spool.Size():
			n, err := l.spool.ReadAt(buf, l.at)
			if n == 0 {
				return nil, cutShort(err)
			}
			if l.at += int64(n); l.at == l.spool.Size() {
				l.spool.Reset()
				l.at = 0
				l.moved.Broadcast()
			}
			return buf[:n], nil
		case len(l.direct) > 0:
			n := copy(buf, l.direct)
			l.direct = l.direct[n:]
			l.moved.Broadcast()
			return buf[:n], nil
		case l.end != nil:
			return nil, l.end
		}
		l.moved.Wait()
	}
}

// stop says that the client is gone.
func (l *backlog) stop() {
	l.mu.Lock()
	l.stopped = true
	l.moved.Broadcast()
	l.mu.Unlock()
}

// close waits for fill, which was stopped, and lets everything go.
func (l *backlog) close() {
	<-l.ended
	l.spool.Close()
}
