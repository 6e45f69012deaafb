package proxy

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"firstbell/proxy/http1"
)

const (
	laneEvents   = 128                  // that are taken at once
	laneShareMax = time.Millisecond     // that a leader works before it lets others have the processor
	laneLookMax  = time.Second          // between two looks for who has been idle for long
	laneLookMin  = 5 * time.Millisecond // as above
)

// lane is where busy connections over plain TCP wait for their next request: all
// of them in one epoll set, looked at by one goroutine, the leader, which serves
// each as it comes. As long as nothing has to be waited for, as with a hit, that
// takes no other goroutine and one read and one write. A connection that is to
// wait takes the leader with it, and another leads on.
//
// A connection in a lane belongs to the leader while its state is not laneWaits;
// who moves it on from laneWaits owns it.
type lane struct {
	door *door

	// The leader's own.
	events [laneEvents]unix.EpollEvent
	ready  [laneEvents]*conn // something came from them: the leader's
	got    int               // events taken last
	at, n  int               // those left are ready[at:n]
	poll   func(fd uintptr) bool
	came   *h1       // answers that it is about to write, a list by then.next
	clock  time.Time // when it last looked
	rested time.Time // when it last waited, or let others go first
	lookAt time.Time // when it next looks for who is idle

	waits atomic.Bool // the leader waits, or is about to

	mu     sync.Mutex // guards what follows
	set    *os.File   // nil before the first
	raw    syscall.RawConn
	fd     int     // of set
	conns  []*conn // by descriptor
	inside int     // that have not left, parted or not
	done   *h1     // exchanges that can be answered now, a list by then.next
	over   bool
}

// The states of a connection as to its lane.
const (
	laneNone    uint32 = iota // it is in none
	laneWaits                 // for a request
	laneBusy                  // it is being served
	laneTouched               // the same, and something has come meanwhile
)

// newLanes makes one for each processor.
func newLanes(d *door) []*lane {
	lanes := make([]*lane, runtime.GOMAXPROCS(0))
	for i := range lanes {
		lanes[i] = &lane{door: d}
	}
	return lanes
}

// openLocked makes the set and starts the leader.
func (l *lane) openLocked() (err error) {
	if l.set, l.raw, l.fd, err = epollSet("busy connections"); err != nil {
		return err
	}
	l.poll = l.take
	go l.lead()
	return nil
}

// enter takes a connection over that waits for a request and holds nothing. It
// reports false when that cannot be: then nothing has changed.
func (l *lane) enter(c *conn) bool {
	fd := -1
	if c.raw.Control(func(s uintptr) { fd = int(s) }) != nil || c.Conn.SetDeadline(time.Time{}) != nil {
		return false
	}
	c.readBy, c.writeBy = time.Time{}, time.Time{}
	c.dropBuffer()
	c.lane, c.number = l, fd
	c.quietAt.Store(time.Now().UnixNano())
	c.state.Store(laneWaits)
	l.mu.Lock()
	entered := !l.over && (l.set != nil || l.openLocked() == nil)
	if entered {
		for len(l.conns) <= fd {
			l.conns = append(l.conns, nil)
		}
		l.conns[fd] = c
		l.inside++
		err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd)})
		if err != nil { // no memory for one more: it is served as ever
			l.conns[fd] = nil
			l.inside--
			entered = false
		} else if l.inside == 1 {
			l.wakeLocked() // it looks after the idle from now on
		}
	}
	l.mu.Unlock()
	if !entered {
		c.lane = nil
		c.state.Store(laneNone)
		return false
	}
	if c.door.ending.Load() && c.state.CompareAndSwap(laneWaits, laneBusy) {
		l.leave(c) // nobody would wake it
		return false
	}
	return true
}

// leave takes a connection out, for who owns it.
func (l *lane) leave(c *conn) {
	l.mu.Lock()
	if l.conns[c.number] == c {
		l.conns[c.number] = nil
		_ = unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, c.number, nil) // fails for a closed one only, which is out
	}
	if l.inside--; l.inside == 0 && l.over {
		l.wakeLocked()
	}
	l.mu.Unlock()
	c.lane = nil
	c.state.Store(laneNone)
}

// answer has the leader answer an exchange that was postponed.
func (l *lane) answer(h *h1) {
	l.mu.Lock()
	h.next, l.done = l.done, h
	l.wakeLocked()
	l.mu.Unlock()
}

// wakeLocked has the leader look what there is to do, if it waits.
func (l *lane) wakeLocked() {
	if l.set != nil && l.waits.CompareAndSwap(true, false) {
		_ = l.set.SetReadDeadline(time.Unix(1, 0)) // fails only when it is over
	}
}

// close has the leader end once nobody is inside. Nobody enters any more.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.wakeLocked()
}

// waiting is how many connections are inside.
func (l *lane) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inside
}

// lead serves connections until one of them takes its time, or the lane is over.
func (l *lane) lead() {
	t := &turn{rest: l.lead}
	for l.gather() {
		if h := l.came; h != nil {
			l.came, h.next = h.next, nil
			c := h.conn
			c.turn = t
			c.proceed(h.answerNow())
		} else {
			c := l.ready[l.at]
			l.ready[l.at] = nil
			l.at++
			c.turn = t
			c.readNow()
		}
		if t.left {
			return
		}
	}
}

// gather waits until there is something to do. It returns false when the lane is
// over.
func (l *lane) gather() bool {
	for l.came == nil && l.at == l.n {
		l.clock = time.Now()
		switch {
		case l.rested.IsZero():
			l.rested = l.clock
		case l.clock.Sub(l.rested) > laneShareMax:
			runtime.Gosched()
			l.rested = l.clock
		}
		if !l.lookAt.IsZero() && !l.clock.Before(l.lookAt) {
			l.look()
		}
		l.waits.Store(true)
		l.mu.Lock()
		l.came, l.done = l.done, nil
		inside, over := l.inside, l.over
		l.mu.Unlock()
		switch {
		case over && inside == 0:
			_ = l.set.Close() // nothing is kept in it
			return false
		case inside > 0 && l.lookAt.IsZero():
			l.lookLater(l.clock.Add(l.lookEvery())) // and again: it may have taken back a wake-up
		case l.came == nil:
			l.await()
		}
		l.waits.Store(false)
	}
	return true
}

// await waits for something to come, to be woken, or for the time to look for
// the idle.
func (l *lane) await() {
	l.at, l.n, l.got = 0, 0, 0
	if err := l.raw.Read(l.poll); err != nil {
		_ = l.set.SetReadDeadline(l.lookAt) // fails only when it is over
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events[:l.got] {
		c := l.conns[e.Fd]
		switch {
		case c == nil: // it has left
		case c.state.CompareAndSwap(laneWaits, laneBusy):
			c.more = e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
			l.ready[l.n] = c
			l.n++
		default:
			c.state.CompareAndSwap(laneBusy, laneTouched)
		}
	}
}

// take takes the events that there are, and reports whether there were any.
func (l *lane) take(fd uintptr) bool {
	n, err := unix.EpollWait(int(fd), l.events[:], 0)
	if n <= 0 && (err == nil || err == unix.EINTR) {
		l.rested = time.Time{}
		return false
	}
	l.got = max(n, 0)
	return true
}

// look ends who has waited for too long, and has those parked who have waited
// for long.
func (l *lane) look() {
	limits := l.door.proxy.limits.Load()
	var quiet []*conn
	l.mu.Lock()
	next := time.Time{} // who enters first wakes the leader
	if l.inside > 0 {
		next = l.clock.Add(l.lookEvery())
	}
	for _, c := range l.conns {
		if c == nil || l.clock.UnixNano()-c.quietAt.Load() < int64(min(limits.parkAfter, limits.Idle)) {
			continue
		}
		if c.state.CompareAndSwap(laneWaits, laneBusy) {
			quiet = append(quiet, c)
		}
	}
	l.mu.Unlock()
	l.lookLater(next)
	for _, c := range quiet {
		l.leave(c)
		c.idleBy = time.Unix(0, c.quietAt.Load()).Add(limits.Idle)
		switch {
		case !l.clock.Before(c.idleBy):
			c.end()
		case c.parks && l.door.park(c):
		default:
			go l.door.attend(c)
		}
	}
}

func (l *lane) lookEvery() time.Duration {
	limits := l.door.proxy.limits.Load()
	return max(laneLookMin, min(laneLookMax, limits.parkAfter/4, limits.Idle/4))
}

func (l *lane) lookLater(at time.Time) {
	l.lookAt = at
	_ = l.set.SetReadDeadline(at) // fails only when it is over
}

// epollSet makes a set that is waited for by the runtime's poller: it is readable
// when one in it is, so that no thread waits for it.
func epollSet(name string) (f *os.File, raw syscall.RawConn, fd int, err error) {
	if fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, nil, -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, nil, -1, err
	}
	f = os.NewFile(uintptr(fd), name)
	if raw, err = f.SyscallConn(); err == nil {
		err = f.SetReadDeadline(time.Time{}) // fails where it is not in the runtime's set
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, -1, err
	}
	return f, raw, fd, nil
}

// awaitEvents waits until there are events in a set and takes them. The error says
// why that is waited for no longer.
func awaitEvents(raw syscall.RawConn, events []unix.EpollEvent) (n int, err error) {
	var werr error
	err = raw.Read(func(fd uintptr) bool {
		n, werr = unix.EpollWait(int(fd), events, 0)
		return n > 0 || werr != nil && werr != unix.EINTR
	})
	if err == nil {
		err = werr
	}
	return n, err
}

// readNow serves a connection in a lane from which something has come.
func (c *conn) readNow() {
	c.limits = c.door.proxy.limits.Load()
	c.proceed(c.receiveNow())
}

// receiveNow reads what has come, without waiting for it.
func (c *conn) receiveNow() fate {
	c.r, c.w = 0, 0
	err := c.raw.Read(c.tryNow)
	if err == nil {
		err = c.awaitErr
	}
	switch err {
	case nil:
		c.more = c.more || c.w == len(*c.in)
		return again
	case syscall.EAGAIN:
		c.w, c.more = 0, false
		return again
	}
	return over
}

// tryRead reads what there is, and never waits.
func (c *conn) tryRead(fd uintptr) bool {
	if !c.readReady(fd) {
		c.takeBuffer()
		c.awaitErr = syscall.EAGAIN
	}
	return true
}

// laneReadsMax is how often a connection in a lane is read from in a row: who has
// always more to say gets a goroutine.
const laneReadsMax = 16

// proceed goes on with a connection in a lane after an exchange: with what it
// has received, and then with what there is to read, until there is nothing.
func (c *conn) proceed(f fate) {
	for reads := 0; ; reads++ {
		for f == again && c.turn != nil && c.w > c.r {
			f = c.exchangeNow()
		}
		switch {
		case f == later:
			return // it is no longer ours
		case c.turn == nil && f == again:
			c.door.attend(c)
			return
		case f == over:
			if c.turn != nil {
				c.lane.leave(c)
			}
			c.end()
			return
		}
		c.dropBuffer()
		switch {
		case !c.more && c.waitInLane():
			return
		case reads == laneReadsMax:
			c.aside()
			c.door.attend(c)
			return
		}
		f = c.receiveNow()
	}
}

// exchangeNow serves the request that was received, if it is whole. One that is
// not is waited for by a goroutine of its own.
func (c *conn) exchangeNow() fate {
	end, err := http1.End((*c.in)[c.r:c.w], 0)
	if err != nil || end <= len("\r\n") {
		c.aside()
		return again
	}
	return c.exchange(end)
}

// waitInLane has the connection wait for its next request. It returns false when
// something has come meanwhile, and true when it is no longer ours.
func (c *conn) waitInLane() bool {
	d, l, t := c.door, c.lane, c.turn
	c.quietAt.Store(l.clock.UnixNano())
	c.turn = nil
	if !c.state.CompareAndSwap(laneBusy, laneWaits) {
		c.state.Store(laneBusy)
		c.turn = t
		return false
	}
	if d.ending.Load() && c.state.CompareAndSwap(laneWaits, laneBusy) { // nobody would wake it
		l.leave(c)
		c.end()
	}
	return true
}

// endInLane ends a connection that waits in a lane, and reports whether it did.
// It may be called by anybody.
func (c *conn) endInLane() bool {
	if !c.state.CompareAndSwap(laneWaits, laneBusy) {
		return false
	}
	c.lane.leave(c)
	go c.end() // which waits for the door
	return true
}

// aside has somebody else serve the lane's other connections: what follows may
// take its time.
func (c *conn) aside() {
	if t := c.turn; t != nil {
		c.lane.leave(c)
		c.quick, c.turn, t.left = 0, nil, true
		go t.rest()
	}
}

func writev(fd int, parts [][]byte) (int, error) { return unix.Writev(fd, parts) }
