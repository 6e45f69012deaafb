package disk

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"
)

var errKilled = errors.New("the process is dead")

// faultFS is the real file system, until the step at which it fails. Steps are
// the calls that change something.
type faultFS struct {
	osFS

	mu    sync.Mutex
	step  int
	at    int   // the step that goes wrong; 0: none
	err   error // what it says; errKilled: and nothing is done any more
	short bool  // a write brings half of its bytes first
	reads error // what every read says
	hooks map[string]func()
}

// next counts a step and says what becomes of it.
func (f *faultFS) next(what string) (err error, short bool) {
	f.mu.Lock()
	hook := f.hooks[what]
	f.step++
	if f.at > 0 && (f.step == f.at || f.step > f.at && errors.Is(f.err, errKilled)) {
		err, short = f.err, f.short && f.step == f.at
	}
	f.mu.Unlock()
	if hook != nil {
		hook()
	}
	return err, short
}

func (f *faultFS) steps() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.step
}

func (f *faultFS) fail(at int, err error, short bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.step, f.at, f.err, f.short = 0, at, err, short
}

func (f *faultFS) MkdirAll(dir string) error {
	if err, _ := f.next("mkdir"); err != nil {
		return err
	}
	return f.osFS.MkdirAll(dir)
}

func (f *faultFS) Create(path string) (File, error) {
	if err, _ := f.next("create"); err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	file, err := f.osFS.Create(path)
	if err != nil {
		return nil, err
	}
	return &faultFile{file.(osFile), f}, nil
}

func (f *faultFS) Open(path string, write bool) (File, error) {
	file, err := f.osFS.Open(path, write)
	if err != nil {
		return nil, err
	}
	return &faultFile{file.(osFile), f}, nil
}

func (f *faultFS) Rename(from, to string) error {
	if err, _ := f.next("rename"); err != nil {
		return err
	}
	return f.osFS.Rename(from, to)
}

func (f *faultFS) Remove(path string) error {
	if err, _ := f.next("remove"); err != nil {
		return err
	}
	return f.osFS.Remove(path)
}

type faultFile struct {
	osFile
	f *faultFS
}

func (f *faultFile) WriteAt(p []byte, at int64) (int, error) {
	err, short := f.f.next("write")
	if err == nil && !short {
		return f.osFile.WriteAt(p, at)
	}
	n := 0
	if short {
		n, _ = f.osFile.WriteAt(p[:len(p)/2], at)
	}
	return n, err
}

func (f *faultFile) ReadAt(p []byte, at int64) (int, error) {
	f.f.mu.Lock()
	err := f.f.reads
	f.f.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return f.osFile.ReadAt(p, at)
}

var (
	errFull   = syscall.ENOSPC
	errBroken = syscall.EIO
)
