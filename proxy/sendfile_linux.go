package proxy

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sendFile sends n bytes of f, from at on, without reading them, and calls
// extend before each piece. ok is false when the connection cannot, and then
// nothing was sent.
func sendFile(c net.Conn, extend func() error, f *os.File, at, n int64) (sent int64, ok bool, err error) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return 0, false, nil
	}
	to, err := tcp.SyscallConn()
	if err != nil {
		return 0, false, nil
	}
	from, err := f.SyscallConn()
	if err != nil {
		return 0, false, nil
	}
	err = from.Control(func(in uintptr) {
		for sent < n && err == nil {
			if err = extend(); err != nil {
				return
			}
			var one int64
			one, err = sendSome(to, int(in), at+sent, min(n-sent, writePieceMax))
			sent += one
		}
	})
	if sent == 0 && (err == unix.EINVAL || err == unix.ENOSYS) {
		return 0, false, nil
	}
	return sent, true, err
}

// sendSome sends up to n bytes, waiting until the client takes some.
func sendSome(to syscall.RawConn, in int, at, n int64) (sent int64, err error) {
	werr := to.Write(func(out uintptr) bool {
		var wrote int
		wrote, err = unix.Sendfile(int(out), in, &at, int(n))
		switch {
		case err == unix.EINTR:
			err = nil
			return true // again, from where at is
		case err == unix.EAGAIN:
			err = nil
			return false
		case err == nil && wrote == 0:
			err = io.ErrUnexpectedEOF // the file ends before its length
		}
		sent = int64(max(0, wrote))
		return true
	})
	if werr != nil {
		return sent, werr
	}
	return sent, err
}
