package spool

import (
	"os"
	"syscall"
)

// tmpFile is O_TMPFILE, the same on every architecture that Go runs on under
// Linux.
const tmpFile = 0o20000000 | syscall.O_DIRECTORY

// nameless opens a file that is gone with its descriptor. One that never had a
// name leaves the directory alone, whose journal thousands of slow clients would
// keep busy.
func nameless(dir string) (*os.File, error) {
	fd, err := syscall.Open(dir, tmpFile|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return named(dir) // not every file system can
	}
	return os.NewFile(uintptr(fd), "a spool"), nil
}
