package proxy

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sendsFiles: the system sends from files.
const sendsFiles = true

// sendFile sends n bytes of f, from at on, without reading them, at the pace
// that the client may have. ok is false when the connection cannot, and then
// nothing was sent.
func sendFile(to syscall.RawConn, pace pace, f *os.File, at, n int64) (sent int64, ok bool, err error) {
	if to == nil {
		return 0, false, nil
	}
	from, err := f.SyscallConn()
	if err != nil {
		return 0, false, nil
	}
	cerr := from.Control(func(in uintptr) { // fails for a closed file
		for sent < n && err == nil {
			if err = pace.extend(); err != nil {
				return
			}
			var one int64
			one, err = sendSome(to, int(in), at+sent, min(n-sent, writePieceMax))
			sent += one
			err = pace.wroteSome(one, err)
		}
	})
	if cerr != nil {
		err = cerr
	}
	if sent == 0 && (err == unix.EINVAL || err == unix.ENOSYS) {
		return 0, false, nil
	}
	return sent, true, err
}

// unsentMax is how much of an answer sent from a file waits in the machine
// beside what is on its way. By itself a socket takes megabytes, which are cold
// when they leave: 1 MiB of hit costs a third less CPU so. Who reads slowly holds
// less memory of the system, too.
const unsentMax = 64 << 10

// sendFront writes what a file's bytes follow at once: both leave together.
func sendFront(to syscall.RawConn, pace pace, head []byte) error {
	for first := true; len(head) > 0; first = false {
		if err := pace.extend(); err != nil {
			return err
		}
		n, err := 0, error(nil)
		werr := to.Write(func(out uintptr) bool {
			if first {
				// It fails where the system has no such bound: then there is none.
				_ = unix.SetsockoptInt(int(out), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentMax)
			}
			n, err = unix.SendmsgN(int(out), head, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
			return err != unix.EAGAIN
		})
		if werr != nil {
			err = werr
		} else if err == unix.EINTR {
			err = nil
		}
		head = head[max(n, 0):]
		if err = pace.wroteSome(int64(max(n, 0)), err); err != nil {
			return err
		}
	}
	return nil
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

// writable reports whether a socket has room for a good part of what it may
// hold, or will never have any.
func writable(fd uintptr) bool {
	for {
		set := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		switch n, err := unix.Poll(set[:], 0); {
		case err == unix.EINTR:
		default:
			return n > 0 || err != nil // what it is, writing tells
		}
	}
}

// awaitRoom returns once a socket takes more, at the pace that the client may
// have.
func awaitRoom(c syscall.RawConn, pace pace) error {
	for {
		err := pace.extend()
		if err == nil {
			err = c.Write(writable)
		}
		if err == nil {
			return nil
		}
		if err = pace.wroteSome(0, err); err != nil {
			return err
		}
	}
}

// unacknowledged is how much of what was written is still in the machine, or on
// its way.
func unacknowledged(c syscall.RawConn) (n int64) {
	if c == nil {
		return 0
	}
	_ = c.Control(func(fd uintptr) { // fails for a closed connection only
		if queued, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = int64(queued)
		}
	})
	return n
}
