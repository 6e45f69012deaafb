//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// demoConnections is how many connections the students have, given enough file
// descriptors.
const demoConnections = 1536

// connectionsAllowed is how many connections the students may have. A
// connection costs one descriptor here and up to two in firstbell, which has the
// same limit; 300 are for everything else.
func connectionsAllowed() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("asking for the limit of open files: %w", err)
	}
	// The Go runtime raises the soft limit to the hard one when it starts.
	conns := demoConnections
	if limit.Cur < 300+2*demoConnections {
		conns = (int(limit.Cur) - 300) / 2
	}
	if conns < 50 {
		return 0, fmt.Errorf("only %d files may be open at once; at least 400 are needed (ulimit -n 4096)", limit.Cur)
	}
	return conns, nil
}

// lockFile takes the file for this process; an error when another one has it.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
