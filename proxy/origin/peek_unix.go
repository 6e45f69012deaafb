//go:build unix

package origin

import (
	"net"
	"syscall"
)

// peeker looks at an idle connection's socket without blocking.
type peeker struct {
	raw   syscall.RawConn
	probe func(fd uintptr) // made once, as a closure per look would be garbage
	calm  bool
	one   [1]byte
}

// newPeeker returns nil for a connection that is no socket.
func newPeeker(nc net.Conn) *peeker {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	p := &peeker{raw: raw}
	p.probe = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), p.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		p.calm = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
	}
	return p
}

// quiet reports that the other side has neither closed nor sent anything.
func (p *peeker) quiet() bool {
	p.calm = false
	return p.raw.Control(p.probe) == nil && p.calm
}
