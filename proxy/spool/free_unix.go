//go:build linux || darwin || freebsd

package spool

import (
	"math"
	"syscall"
)

// freeBytes is what the file system of dir has left for us.
func freeBytes(dir string) int64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return math.MaxInt64 // the write will tell
	}
	return int64(st.Bavail) * int64(st.Bsize)
}
