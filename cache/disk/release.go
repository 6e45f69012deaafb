package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
)

// errReleased says that another process has the directory by now.
var errReleased = errors.New("the cache directory was given to another process")

// gate is the file system of a store, which changes nothing any more once it is
// shut.
type gate struct {
	FS

	mu   sync.RWMutex // guards shut; read-locked while something is changed
	shut bool
}

// enter reports whether something may be changed; then leave must be called.
func (g *gate) enter() bool {
	g.mu.RLock()
	if g.shut {
		g.mu.RUnlock()
		return false
	}
	return true
}

func (g *gate) leave() { g.mu.RUnlock() }

func (g *gate) isShut() bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.shut
}

// MkdirAll implements FS.
func (g *gate) MkdirAll(dir string) error {
	if !g.enter() {
		return errReleased
	}
	defer g.leave()
	return g.FS.MkdirAll(dir)
}

// Create implements FS.
func (g *gate) Create(path string) (File, error) {
	if !g.enter() {
		return nil, errReleased
	}
	defer g.leave()
	return g.FS.Create(path)
}

// Rename implements FS.
func (g *gate) Rename(from, to string) error {
	if !g.enter() {
		return errReleased
	}
	defer g.leave()
	return g.FS.Rename(from, to)
}

// Remove implements FS. What is another's to remove by now is no error.
func (g *gate) Remove(path string) error {
	if !g.enter() {
		return nil
	}
	defer g.leave()
	return g.FS.Remove(path)
}

// SyncDir implements FS.
func (g *gate) SyncDir(dir string) error {
	if !g.enter() {
		return nil
	}
	defer g.leave()
	return g.FS.SyncDir(dir)
}

// Release gives the directory to another process. From here on the store still
// finds and reads what it knew of, as far as the other leaves it there, and
// writes, renames and removes nothing; what is being written can be read by who
// follows it, and is not kept. Nothing of it is under way when Release returns.
func (s *Store) Release() error {
	s.SyncRemovals()
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	if s.gate.shut {
		return nil
	}
	s.gate.shut = true
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, w := range sh.writers {
			w.removed = true
		}
		sh.mu.Unlock()
	}
	return s.lock.Close()
}

// Retake takes a released directory back, which the other process has left as
// it was but for what lay half written. The error is a *LockedError while
// another process has it; then it is as released as before.
func (s *Store) Retake() error {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	if !s.gate.shut {
		return nil
	}
	lock, err := s.gate.FS.Lock(filepath.Join(s.dir, "lock"))
	if err != nil {
		return fmt.Errorf("taking the cache directory back: %w", err)
	}
	s.lock, s.gate.shut = lock, false
	return nil
}
