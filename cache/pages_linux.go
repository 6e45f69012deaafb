package cache

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openPages opens a file that lies in memory alone, or returns nil where the
// system, or a sandbox, does not give one.
func openPages() *os.File {
	fd, err := unix.MemfdCreate("firstbell-cache", unix.MFD_CLOEXEC)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "firstbell-cache")
}

// fillPages writes body at a place of the file, and maps it for reading.
func fillPages(file *os.File, body []byte, at int64) (mapped []byte, err error) {
	if _, err := file.WriteAt(body, at); err != nil {
		punch(file, at, int64(len(body)))
		return nil, fmt.Errorf("writing a body to memory: %w", err)
	}
	mapped, err = unix.Mmap(int(file.Fd()), at, len(body), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		punch(file, at, int64(len(body)))
		return nil, fmt.Errorf("mapping a body: %w", err)
	}
	return mapped, nil
}

// dropPages gives back what fillPages took.
func dropPages(file *os.File, mapped []byte, at int64) {
	n := int64(len(mapped))
	_ = unix.Munmap(mapped) // it is one that was mapped
	punch(file, at, n)
}

// punch makes a hole. It fails for a closed file only, of which nothing is left
// when the last mapping is gone.
func punch(file *os.File, at, n int64) {
	c, err := file.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) {
		_ = unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, pageCeil(n))
	})
}
