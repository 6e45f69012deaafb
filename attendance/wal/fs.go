package wal

import "io"

// FS is the few file calls the journal needs. The real one is used when
// Options.FS is nil; tests bring one that forgets what was not synced. Errors
// for a file that is not there satisfy errors.Is(err, fs.ErrNotExist).
type FS interface {
	// MkdirAll makes dir and what leads to it, and syncs what it made.
	MkdirAll(dir string) error
	// List gives the names in dir, in any order.
	List(dir string) ([]string, error)
	// Create makes a file that must not exist, for reading and writing.
	Create(path string) (File, error)
	// Open opens a file that exists, for writing too if write is set.
	Open(path string, write bool) (File, error)
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes what was created, renamed and removed in dir last.
	SyncDir(dir string) error
	// Lock takes an exclusive lock that ends with Close or with the process. It
	// never waits: a lock held by another gives a *LockedError. existed
	// says whether the lock file was there before.
	Lock(path string) (lock io.Closer, existed bool, err error)
	// Free says how many bytes may still be written to dir's file system.
	Free(dir string) (int64, error)
}

// File is one open file. ReadAt may be called from several goroutines.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	// Allocate sets size bytes aside, reading as zeros. errors.ErrUnsupported
	// when the file system cannot.
	Allocate(size int64) error
	Truncate(size int64) error
	// Sync returns when the data, and the size needed to read it, is on disk.
	Sync() error
	// Forget lets the system drop its copy in memory, so that the next ReadAt
	// reads the disk. Best effort.
	Forget()
}
