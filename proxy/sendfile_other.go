//go:build !linux

package proxy

import (
	"os"
	"syscall"
)

// sendsFiles: they are read and written.
const sendsFiles = false

// sendFile is for Linux.
func sendFile(syscall.RawConn, pace, *os.File, int64, int64) (sent int64, ok bool, err error) {
	return 0, false, nil
}

// writable is for Linux: elsewhere writing waits.
func writable(uintptr) bool { return true }

// awaitRoom is for Linux.
func awaitRoom(syscall.RawConn, pace) error { return nil }

// sendFront is for Linux: nothing calls it elsewhere.
func sendFront(syscall.RawConn, pace, []byte) error { return syscall.ENOSYS }

// unacknowledged is for Linux: elsewhere what was written counts as taken.
func unacknowledged(syscall.RawConn) int64 { return 0 }
