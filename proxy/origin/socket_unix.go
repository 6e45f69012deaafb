//go:build unix

package origin

import (
	"io"
	"net"
	"syscall"
)

// socket is what is done with a connection's socket past package net. It belongs
// to whoever has the connection.
type socket struct {
	raw syscall.RawConn

	// Closures that are made once, as one for each call would be garbage.
	peek func(fd uintptr)
	step func(fd uintptr) (done bool)

	calm bool // of peek
	one  [1]byte

	// Of step.
	first   bool   // nothing may have come yet
	out, in []byte // what is left to send, and where to receive
	n       int
	err     error
}

// newSocket returns nil for a connection that is no socket.
func newSocket(nc net.Conn) *socket {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw}
	s.peek = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), s.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		s.calm = wouldBlock(err)
	}
	s.step = s.takeStep
	return s
}

func wouldBlock(err error) bool { return err == syscall.EAGAIN || err == syscall.EWOULDBLOCK }

// quiet reports that the other side has neither closed nor sent anything.
func (s *socket) quiet() bool {
	s.calm = false
	return s.raw.Control(s.peek) == nil && s.calm
}

// talk sends out, waits and receives into in what comes first; without out it
// only receives. With first, what has come before ends it with errStale and
// nothing is sent. It returns what was not sent, for want of room or with the
// error; then nothing was received.
//
// This is a write and a read with one wait between: package net would look for
// an answer right behind the write, when there is none yet, which costs as much
// again as the look for what came before. The wait begins (in RawConn.Read)
// before the write does, so that an answer however fast ends it.
func (s *socket) talk(out, in []byte, first bool) (rest []byte, n int, err error) {
	s.first, s.out, s.in, s.n, s.err = first, out, in, 0, nil
	if err = s.raw.Read(s.step); err == nil {
		err = s.err
	}
	rest, n = s.out, s.n
	s.out, s.in, s.err = nil, nil, nil
	return rest, n, err
}

// takeStep does what can be done now. It is called again when something has
// come, until it returns true.
func (s *socket) takeStep(fd uintptr) (done bool) {
	if s.first {
		s.first = false
		if _, err := s.read(fd); !wouldBlock(err) {
			s.err = errStale
			return true
		}
	}
	if len(s.out) == 0 {
		n, err := s.read(fd)
		if wouldBlock(err) {
			return false
		}
		if n == 0 && err == nil {
			err = io.EOF
		}
		s.n, s.err = max(n, 0), err
		return true
	}
	for len(s.out) > 0 {
		n, err := syscall.Write(int(fd), s.out)
		switch {
		case err == syscall.EINTR:
		case wouldBlock(err):
			return true
		case err != nil:
			s.err = err
			return true
		default:
			s.out = s.out[n:]
		}
	}
	return false
}

func (s *socket) read(fd uintptr) (n int, err error) {
	for {
		if n, err = syscall.Read(int(fd), s.in); err != syscall.EINTR {
			return n, err
		}
	}
}
