package disk

import (
	"fmt"
	"io"
	"iter"
)

// FS is the few file calls that a Store needs. The real one is used when
// Options.FS is nil; tests bring one that fails. Errors for a file that is not
// there satisfy errors.Is(err, fs.ErrNotExist).
type FS interface {
	MkdirAll(dir string) error
	// Names yields the names in dir, in any order; none when it is not there.
	Names(dir string) iter.Seq2[string, error]
	// Create makes a file that must not exist.
	Create(path string) (File, error)
	// Open opens a file that exists, for writing too if write is set.
	Open(path string, write bool) (File, error)
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes what was created, renamed and removed in dir last.
	SyncDir(dir string) error
	// Lock takes an exclusive lock that ends with Close or with the process. It
	// never waits: a lock held by another gives a *LockedError.
	Lock(path string) (io.Closer, error)
	// Space says how many bytes may still be written to dir's file system, and
	// how many it has in all.
	Space(dir string) (free, total int64, err error)
}

// File is one open file. Its methods may be called at once.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
}

// LockedError says that another process has the directory.
type LockedError struct {
	Dir string
	PID int // 0: not known
}

func (e *LockedError) Error() string {
	by := "another process"
	if e.PID > 0 {
		by = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("the cache directory %s is in use by %s; end it, or name another directory", e.Dir, by)
}
