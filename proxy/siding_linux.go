package proxy

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// siding is where exchanges over plain TCP wait for slow clients without a
// goroutine: for each a descriptor in an epoll set, and a timer. Everything else
// that they hold stays as it is until resume goes on with them.
type siding struct {
	// resume goes on with an exchange: its client takes or has sent something, or
	// the error says why that is waited for no longer. It may take its time.
	resume func(h *h1, err error)

	mu    sync.Mutex // guards what follows, and the sided part of every connection
	set   *os.File   // nil before the first
	fd    int        // of set
	waits map[int32]*conn
	over  bool
}

// sided is what a connection in the siding is held by.
type sided struct {
	h      *h1 // nil: it is not there
	sideFD int32
	until  time.Time
	alarm  *time.Timer // of until; nil before the first time
}

// wait has h wait until its client's socket has something to read, or else takes
// more, no longer than until; then resume goes on with it: h is no longer the
// caller's. It reports false when that cannot be: then nothing has changed.
func (s *siding) wait(h *h1, reading bool, until time.Time) (moved bool) {
	c, events := h.conn, uint32(unix.EPOLLOUT|unix.EPOLLONESHOT)
	if reading {
		events = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.set == nil && s.openLocked() != nil {
		return false
	}
	err := c.raw.Control(func(fd uintptr) { // fails for a closed connection
		e := unix.EpollEvent{Events: events, Fd: int32(fd)}
		moved = unix.EpollCtl(s.fd, unix.EPOLL_CTL_ADD, int(fd), &e) == nil // or there is no memory for one more
		c.sideFD = int32(fd)
	})
	if err != nil || !moved {
		return false
	}
	s.waits[c.sideFD] = c
	c.h, c.until = h, until
	if c.alarm == nil {
		c.alarm = time.AfterFunc(time.Until(until), func() { s.expire(c) })
	} else {
		c.alarm.Reset(time.Until(until))
	}
	return true
}

// openLocked makes the set and starts who looks at it.
func (s *siding) openLocked() error {
	set, raw, fd, err := epollSet("slow clients")
	if err != nil {
		return err
	}
	s.set, s.fd, s.waits = set, fd, make(map[int32]*conn)
	go s.look(raw)
	return nil
}

// takeLocked takes a connection out and returns the exchange that waited.
func (s *siding) takeLocked(c *conn) (h *h1) {
	h, c.h = c.h, nil
	c.alarm.Stop()
	if s.waits[c.sideFD] == c { // else it is closed, and the number is another's
		delete(s.waits, c.sideFD)
		_ = unix.EpollCtl(s.fd, unix.EPOLL_CTL_DEL, int(c.sideFD), nil) // fails for a closed one, which is out
	}
	return h
}

// look goes on with exchanges whose clients are ready, until the set is closed.
func (s *siding) look(raw syscall.RawConn) {
	var events [256]unix.EpollEvent
	for {
		n, err := awaitEvents(raw, events[:])
		if err != nil {
			return // it is over
		}
		s.mu.Lock()
		for _, e := range events[:n] {
			if c := s.waits[e.Fd]; c != nil {
				go s.resume(s.takeLocked(c), nil)
			}
		}
		s.mu.Unlock()
	}
}

// expire goes on with the exchange of a connection whose time is over.
func (s *siding) expire(c *conn) {
	s.mu.Lock()
	var h *h1
	if c.h != nil && !time.Now().Before(c.until) { // else the alarm is of a wait before
		h = s.takeLocked(c)
	}
	s.mu.Unlock()
	if h != nil {
		s.resume(h, os.ErrDeadlineExceeded)
	}
}

// rouse goes on with the exchange of a connection that was closed.
func (s *siding) rouse(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.h != nil {
		go s.resume(s.takeLocked(c), net.ErrClosed)
	}
}

// waiting is how many wait.
func (s *siding) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waits)
}

// close has nobody wait here any more, and those who do go on with their
// goroutines.
func (s *siding) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, c := range s.waits {
		go s.resume(s.takeLocked(c), nil)
	}
	if s.set != nil {
		_ = s.set.Close() // nothing is kept in it
	}
}
