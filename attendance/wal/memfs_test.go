package wal

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// memFS is a file system that forgets: what was written and not synced, and
// what was created, renamed or removed in a directory that was not synced, may
// be gone after a crash. A failed sync loses its writes for good and says so
// only once, as Linux does.
type memFS struct {
	mu      sync.Mutex
	seen    map[string]*memNode // what programs see
	disk    map[string]*memNode // what the directories on disk say
	dirs    map[string]bool
	locked  map[string]bool
	free    int64 // bytes that may still be set aside or written; -1: no bound
	noAlloc bool  // Allocate is not supported

	// before is called ahead of every call that changes something, with mu held.
	before func(op, path string)
	// fault decides what becomes of a call: an error, and whether the call takes
	// effect all the same.
	fault func(op, path string) (kept bool, err error)
	slow  time.Duration // each sync takes this long
	bad   map[string]span
	deny  map[string]error // why a file cannot be opened
}

type span struct{ from, to int64 }

type memNode struct {
	seen, disk []byte
	dirty      []span // of seen, not on disk
}

func newMemFS() *memFS {
	return &memFS{
		seen: map[string]*memNode{}, disk: map[string]*memNode{},
		dirs: map[string]bool{}, locked: map[string]bool{}, free: -1,
	}
}

var errDisk = &fs.PathError{Op: "sync", Path: "test disk", Err: syscall.EIO}

// fail sets what decides over calls from now on; nil: all succeed.
func (m *memFS) fail(fault func(op, path string) (kept bool, err error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = fault
}

// step runs one call that changes something.
func (m *memFS) step(op, path string, do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.before != nil {
		m.before(op, path)
	}
	if m.fault != nil {
		if kept, err := m.fault(op, path); err != nil {
			if kept {
				do()
			}
			return err
		}
	}
	return do()
}

func (m *memFS) MkdirAll(dir string) error {
	return m.step("mkdir", dir, func() error { m.dirs[dir] = true; return nil })
}

func (m *memFS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[dir] {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: fs.ErrNotExist}
	}
	var names []string
	for p := range m.seen {
		if filepath.Dir(p) == dir {
			names = append(names, filepath.Base(p))
		}
	}
	return names, nil
}

func (m *memFS) Create(path string) (f File, err error) {
	err = m.step("create", path, func() error {
		if m.seen[path] != nil {
			return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
		}
		n := &memNode{}
		m.seen[path] = n
		f = &memFile{m, n, path}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (m *memFS) Open(path string, write bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.seen[path]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if err := m.deny[path]; err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &memFile{m, n, path}, nil
}

func (m *memFS) Rename(from, to string) error {
	return m.step("rename", from, func() error {
		n := m.seen[from]
		if n == nil {
			return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
		}
		delete(m.seen, from)
		m.seen[to] = n
		return nil
	})
}

func (m *memFS) Remove(path string) error {
	return m.step("remove", path, func() error {
		n := m.seen[path]
		if n == nil {
			return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
		}
		delete(m.seen, path)
		if m.free >= 0 {
			m.free += int64(len(n.seen))
		}
		return nil
	})
}

func (m *memFS) SyncDir(dir string) error {
	return m.step("syncdir", dir, func() error {
		for p := range m.disk {
			if filepath.Dir(p) == dir && m.seen[p] == nil {
				delete(m.disk, p)
			}
		}
		for p, n := range m.seen {
			if filepath.Dir(p) == dir {
				m.disk[p] = n
			}
		}
		return nil
	})
}

type memLock struct {
	m    *memFS
	path string
}

func (l memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.locked, l.path)
	return nil
}

func (m *memFS) Lock(path string) (lock io.Closer, existed bool, err error) {
	err = m.step("lock", path, func() error {
		existed = m.seen[path] != nil
		if m.locked[path] {
			return &LockedError{Path: path, PID: 4711}
		}
		m.locked[path] = true
		if !existed {
			m.seen[path] = &memNode{}
		}
		lock = memLock{m, path}
		return nil
	})
	return lock, existed, err
}

func (m *memFS) Free(string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.free < 0 {
		return 0, errors.ErrUnsupported
	}
	return m.free, nil
}

type memFile struct {
	m    *memFS
	n    *memNode
	path string
}

func (f *memFile) Close() error { return nil }
func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if b, ok := f.m.bad[f.path]; ok && off < b.to && off+int64(len(p)) > b.from {
		return 0, errDisk
	}
	if off >= int64(len(f.n.seen)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.seen[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.n.seen)), nil
}

// grow makes a file size bytes long, if the disk has room.
func (f *memFile) grow(size int64) error {
	more := size - int64(len(f.n.seen))
	if more <= 0 {
		return nil
	}
	if f.m.free >= 0 {
		if f.m.free < more {
			return &fs.PathError{Op: "write", Path: f.path, Err: syscall.ENOSPC}
		}
		f.m.free -= more
	}
	f.n.seen = append(f.n.seen, make([]byte, more)...)
	return nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.m.step("write", f.path, func() error {
		if err := f.grow(off + int64(len(p))); err != nil {
			return err
		}
		copy(f.n.seen[off:], p)
		f.n.dirty = append(f.n.dirty, span{off, off + int64(len(p))})
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *memFile) Allocate(size int64) error {
	return f.m.step("allocate", f.path, func() error {
		if f.m.noAlloc {
			return errors.ErrUnsupported
		}
		return f.grow(size)
	})
}

func (f *memFile) Truncate(size int64) error {
	return f.m.step("truncate", f.path, func() error {
		if size < int64(len(f.n.seen)) {
			if f.m.free >= 0 {
				f.m.free += int64(len(f.n.seen)) - size
			}
			f.n.seen = f.n.seen[:size]
		}
		return f.grow(size)
	})
}

func (f *memFile) Sync() error {
	if f.m.slow > 0 {
		time.Sleep(f.m.slow)
	}
	kept := false
	err := f.m.step("sync", f.path, func() error {
		kept = true
		f.n.write(func(int) bool { return true })
		f.n.dirty = nil
		return nil
	})
	if err != nil && !kept {
		f.m.mu.Lock()
		f.n.dirty = nil // the system believes the pages clean from now on
		f.m.mu.Unlock()
	}
	return err
}

// Forget shows what is on disk, and what is still on its way there.
func (f *memFile) Forget() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	c := f.n.crashed(func(int) bool { return true })
	f.n.seen = c
}

const sector = 512

// write brings those sectors of dirty data to disk that keep says.
func (n *memNode) write(keep func(sector int) bool) {
	n.disk = n.crashed(keep)
}

// crashed is what the disk holds if those sectors of dirty data reach it that
// keep says.
func (n *memNode) crashed(keep func(sector int) bool) []byte {
	size := len(n.disk)
	if keep(-1) {
		size = len(n.seen)
	}
	out := make([]byte, size)
	copy(out, n.disk)
	for _, d := range n.dirty {
		for at := d.from; at < d.to; {
			to := min(d.to, (at/sector+1)*sector)
			if keep(int(at/sector)) && at < int64(size) && at < int64(len(n.seen)) {
				copy(out[at:min(to, int64(size))], n.seen[at:])
			}
			at = to
		}
	}
	return out
}

// crashMode says what a crash does to what was not synced.
type crashMode struct {
	name  string
	names bool // directory entries that were not synced are kept
	keep  func(path string) func(sector int) bool
}

func crashModes(seed uint64) []crashMode {
	const_ := func(b bool) func(string) func(int) bool {
		return func(string) func(int) bool { return func(int) bool { return b } }
	}
	random := func(string) func(int) bool {
		r := rand.New(rand.NewPCG(seed, 7))
		return func(s int) bool { return r.IntN(2) == 0 }
	}
	torn := func(string) func(int) bool { // a prefix only
		r := rand.New(rand.NewPCG(seed, 8))
		n := r.IntN(6)
		return func(s int) bool {
			if s < 0 {
				return true
			}
			n--
			return n >= 0
		}
	}
	return []crashMode{
		{"lost", false, const_(false)},
		{"kept", true, const_(true)},
		{"data kept, names lost", false, const_(true)},
		{"names kept, data lost", true, const_(false)},
		{"sectors at random", true, random},
		{"cut off", true, torn},
	}
}

// crash gives the file system as it is found after a power cut now. mu is held.
func (m *memFS) crash(mode crashMode) *memFS {
	c := newMemFS()
	names := m.disk
	if mode.names {
		names = m.seen
	}
	for d := range m.dirs {
		c.dirs[d] = true
	}
	for p, n := range names {
		b := n.crashed(mode.keep(p))
		node := &memNode{seen: b, disk: append([]byte(nil), b...)}
		c.seen[p], c.disk[p] = node, node
	}
	return c
}

// clone is a copy as if everything had been synced.
func (m *memFS) clone() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.crash(crashModes(0)[1])
}

func TestForgetfulFileSystemForgets(t *testing.T) {
	m := newMemFS()
	m.MkdirAll("d")
	f, _ := m.Create("d/a")
	f.WriteAt([]byte("one"), 0)
	f.Sync()
	m.SyncDir("d")
	f.WriteAt([]byte("two"), 3)
	m.Create("d/b")
	lost := m.crash(crashModes(1)[0])
	if got := string(lost.seen["d/a"].seen); got != "one" {
		t.Errorf("after losing the second write: got %q, want %q", got, "one")
	}
	if lost.seen["d/b"] != nil {
		t.Error("a file whose directory was not synced is there")
	}
	if got := string(m.clone().seen["d/a"].seen); got != "onetwo" {
		t.Errorf("keeping everything: got %q, want %q", got, "onetwo")
	}
}
