package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// canPark says that this system has an epoll.
const canPark = true

// lot is where idle connections wait without a goroutine, a buffer or a place in
// the runtime's poller: a descriptor in an epoll set, and what is known of the
// client. Readability brings them back.
//
// A parked descriptor is a duplicate of the one the runtime had: closing that is
// the only way to take a socket out of the runtime's own set, and leaves the
// connection as it is.
type lot struct {
	resume func(c *conn, fd int) // has a connection that there is something to read from served
	end    func(c *conn)         // counts out one that was closed here

	mu     sync.Mutex // guards what follows
	epoll  *os.File   // nil before the first, and when it is over
	set    int        // its descriptor
	parked map[int32]*conn
	first  *conn // of a list by next, in the order of their coming, which is that of their ends
	last   *conn
}

// openLocked makes the set and starts who looks at it.
func (l *lot) openLocked() error {
	set, raw, fd, err := epollSet("parked connections")
	if err != nil {
		return err
	}
	l.epoll, l.set, l.parked = set, fd, make(map[int32]*conn)
	go l.look(l.epoll, raw)
	return nil
}

func (l *lot) closeSetLocked() error {
	f := l.epoll
	l.epoll = nil
	return f.Close()
}

// park takes a connection over. It reports false when that cannot be: then
// nothing has changed.
func (l *lot) park(c *conn) bool {
	fd := -1
	var derr error
	if err := c.raw.Control(func(s uintptr) { fd, derr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || derr != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoll == nil {
		if err := l.openLocked(); err != nil {
			_ = unix.Close(fd) // the connection has another
			return false
		}
	}
	_ = c.Conn.Close() // the duplicate keeps the connection
	c.Conn, c.tcp, c.raw, c.await, c.fd = nil, nil, nil, nil, fd
	l.parked[int32(fd)] = c
	if c.prev = l.last; c.prev != nil {
		c.prev.next = c
	} else {
		l.first = c
		_ = l.epoll.SetReadDeadline(c.idleBy) // fails only when it is over
	}
	l.last = c
	err := unix.EpollCtl(l.set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)})
	if err != nil { // no memory for one more: it is served as ever
		l.takeLocked(c)
		go l.resume(c, fd)
	}
	return true
}

// takeLocked takes a connection out and returns its descriptor.
func (l *lot) takeLocked(c *conn) int {
	fd := c.fd
	delete(l.parked, int32(fd))
	_ = unix.EpollCtl(l.set, unix.EPOLL_CTL_DEL, fd, nil) // it may not have come in
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.last = c.prev
	}
	c.parking = parking{fd: -1}
	return fd
}

// look brings back whoever can be read from, and ends whoever has waited for
// too long, until the set is closed.
func (l *lot) look(set *os.File, raw syscall.RawConn) {
	var events [256]unix.EpollEvent
	for {
		n, err := awaitEvents(raw, events[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			l.expire(set)
			continue
		case err != nil:
			return // it is over
		}
		for _, e := range events[:n] {
			l.mu.Lock()
			c := l.parked[e.Fd]
			fd := -1
			if c != nil {
				fd = l.takeLocked(c)
			}
			l.mu.Unlock()
			if c != nil {
				go l.resume(c, fd)
			}
		}
	}
}

// expire ends those whose time is over, and sets the time of the next.
func (l *lot) expire(set *os.File) {
	l.mu.Lock()
	var over []*conn
	for now := time.Now(); l.first != nil && !now.Before(l.first.idleBy); {
		c := l.first
		if queued, err := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ); err == nil && queued > 0 {
			_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // it waits with an answer that it has not read
		}
		l.closeLocked(c)
		over = append(over, c)
	}
	next := time.Time{}
	if l.first != nil {
		next = l.first.idleBy
	}
	_ = set.SetReadDeadline(next) // fails only when it is over
	l.mu.Unlock()
	for _, c := range over {
		l.end(c)
	}
}

// closeLocked ends a parked connection.
func (l *lot) closeLocked(c *conn) { _ = unix.Close(l.takeLocked(c)) }

// drop ends a connection if it is parked, and reports whether it was.
func (l *lot) drop(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.fd < 0 {
		return false
	}
	l.closeLocked(c)
	go l.end(c) // which waits for the door
	return true
}

// close ends who looks at the set. Nobody is parked any more.
func (l *lot) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoll != nil {
		_ = l.closeSetLocked() // nothing is kept in it
	}
}

// waiting is how many are parked.
func (l *lot) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.parked)
}

// unparked makes a connection of a descriptor, which it takes.
func unparked(fd int) (*net.TCPConn, error) {
	f := os.NewFile(uintptr(fd), "client")
	nc, err := net.FileConn(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	tcp, ok := nc.(*net.TCPConn)
	if err == nil && !ok {
		err = net.ErrClosed
	}
	return tcp, err
}
