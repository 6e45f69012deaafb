package proxy

import (
	"io"
	"net"
	"syscall"
	"time"
)

// side is one side of a tunnel. One goroutine reads and one writes at a time;
// Close and SetReadDeadline are for anybody.
type side interface {
	io.Reader
	// Write writes within the time that its side has for it; after that the error
	// is a timeout.
	io.Writer
	// CloseWrite says that no more comes from us, where the protocol can.
	CloseWrite() error
	SetReadDeadline(time.Time) error
	io.Closer
}

// netSide is a side that is a connection.
type netSide struct {
	net.Conn
	early []byte // received before it became a side
	close func() error

	write   func(p []byte) (int, error) // at the client's pace; nil: within originTakesMax
	writeBy time.Time                   // the write deadline in force, without write

	raw   syscall.RawConn // nil when it is not TCP
	ready func(fd uintptr) bool
	into  buffer // of the await under way
	n     int
	err   error
}

// buffer is had only while there is something in it.
type buffer interface {
	room() []byte
	drop()
}

// newNetSide makes a side of a connection, and of its socket where what comes
// there is what the connection carries; close ends it.
func newNetSide(nc net.Conn, socket syscall.RawConn, early []byte, close func() error) *netSide {
	w := &netSide{Conn: nc, early: early, close: close, raw: socket}
	if tcp, ok := nc.(*net.TCPConn); ok && socket == nil {
		w.raw, _ = tcp.SyscallConn() // fails for a closed connection only: then reading tells
	}
	w.ready = w.read
	return w
}

// Read implements io.Reader.
func (w *netSide) Read(p []byte) (int, error) {
	if len(w.early) > 0 {
		n := copy(p, w.early)
		w.early = w.early[n:]
		return n, nil
	}
	return w.Conn.Read(p)
}

// await reads into b once there is something to read, and holds no room before.
func (w *netSide) await(b buffer) (int, error) {
	if len(w.early) > 0 {
		return w.Read(b.room())
	}
	w.into, w.n, w.err = b, 0, nil
	err := w.raw.Read(w.ready)
	if err == nil {
		err = w.err
	}
	return w.n, unlessSome(w.n, err)
}

// read reads when there is something to read, and says so.
func (w *netSide) read(fd uintptr) bool {
	for {
		n, err := syscall.Read(int(fd), w.into.room())
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			w.into.drop()
			return false
		case n == 0 && err == nil:
			err = io.EOF
		}
		w.n, w.err = max(n, 0), err
		return true
	}
}

// CloseWrite implements side.
func (w *netSide) CloseWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Write implements side.
func (w *netSide) Write(p []byte) (int, error) {
	if w.write != nil {
		return w.write(p)
	}
	if now := time.Now(); w.writeBy.Sub(now) < originTakesMax*3/4 {
		w.writeBy = now.Add(originTakesMax)
		if err := w.Conn.SetWriteDeadline(w.writeBy); err != nil {
			return 0, err
		}
	}
	return w.Conn.Write(p)
}

// originTakesMax is how long an origin may take to accept a piece.
const originTakesMax = 30 * time.Second

// Close implements io.Closer.
func (w *netSide) Close() error { return w.close() }
