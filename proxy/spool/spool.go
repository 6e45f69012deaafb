package spool

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
)

// Options say how much may wait, and where. Zero values mean the documented
// defaults.
type Options struct {
	Dir      string // for files; default the system's directory for temporary ones
	Bytes    int64  // of all files; default 4 GiB
	Memory   int64  // of all spools; default 8 MiB
	KeepFree int64  // left to others on the file system of Dir; default 256 MiB
}

const (
	// eachMemoryMax is what one spool holds in memory: a form or a check-in
	// never sees the disk. What is larger holds none: a thousand slow clients of
	// large answers leave that to those of small ones.
	eachMemoryMax = 64 << 10
	memoryMin     = 512
	// Room on disk is taken in steps, so that free space is looked for a few
	// times a MiB.
	roomStep = 256 << 10
	// sharesOfDisk is what part of the disk one spool may have at most, and one
	// owner once more than half of it is taken.
	sharesOfDisk = 4
)

// ErrFull says that there is no room now.
var ErrFull = errors.New("the spool is full")

// ErrTooLarge says that a content is larger than one may ever be.
var ErrTooLarge = errors.New("the content is larger than the spool takes")

// A Store hands out spools. Its methods may be called by anybody.
type Store struct {
	o Options

	open, memory                   atomic.Int64
	files, written, full, failures atomic.Int64
	why                            atomic.Pointer[string]

	mu     sync.Mutex           // guards what follows
	disk   int64                // taken
	shares map[netip.Addr]int64 // of disk, by owner; of those who have some
}

// Stats are what a store holds now, and counts since it was opened.
type Stats struct {
	Open     int64 // spools
	Memory   int64 // bytes
	Disk     int64 // bytes
	Files    int64 // begun
	Written  int64 // bytes, to files
	Full     int64 // times that there was no room
	Failures int64 // times that the disk refused
	Why      string
}

// Open makes the directory if need be, and tries it.
func Open(o Options) (*Store, error) {
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	setDefault(&o.Bytes, 4<<30)
	setDefault(&o.Memory, 8<<20)
	setDefault(&o.KeepFree, 256<<20)
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the spool's directory: %w", err)
	}
	f, err := nameless(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("trying the spool's directory: %w", err)
	}
	return &Store{o: o}, f.Close()
}

func setDefault(v *int64, to int64) {
	if *v == 0 {
		*v = to
	}
}

// named opens a file and takes its name away, where files cannot be made without.
func named(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "firstbell-spool-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Max is how large a content may be.
func (s *Store) Max() int64 { return max(eachMemoryMax, s.o.Bytes/sharesOfDisk) }

// Stats returns how it is now.
func (s *Store) Stats() Stats {
	st := Stats{
		Open: s.open.Load(), Memory: s.memory.Load(), Disk: s.taken(),
		Files: s.files.Load(), Written: s.written.Load(), Full: s.full.Load(), Failures: s.failures.Load(),
	}
	if why := s.why.Load(); why != nil {
		st.Why = *why
	}
	return st
}

func (s *Store) taken() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disk
}

// New returns an empty spool, which must be closed. Its room counts as owner's;
// what has no valid one has no bound but the store's.
func (s *Store) New(owner netip.Addr) *Spool {
	s.open.Add(1)
	return &Spool{s: s, owner: owner}
}

// take takes a step of room, if the owner may have it: nobody may fill the
// disk for everybody. What others had before counts for nothing, so that the
// first half goes to whoever comes.
func (s *Store) take(owner netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.disk+roomStep > s.o.Bytes:
		return false
	case !owner.IsValid():
	case s.disk+roomStep > s.o.Bytes/2 && s.shares[owner]+roomStep > max(s.o.Bytes/sharesOfDisk, roomStep):
		return false
	default:
		if s.shares == nil {
			s.shares = make(map[netip.Addr]int64)
		}
		s.shares[owner] += roomStep
	}
	s.disk += roomStep
	return true
}

// giveBack gives back what take took.
func (s *Store) giveBack(owner netip.Addr, room int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disk -= room
	if !owner.IsValid() || room == 0 {
		return
	}
	if s.shares[owner] -= room; s.shares[owner] == 0 {
		delete(s.shares, owner)
	}
}

// A Spool takes in a content and gives it out again.
type Spool struct {
	s      *Store
	owner  netip.Addr
	memory []byte   // all that was written, while file is nil
	file   *os.File // else this holds it
	onDisk int64    // bytes in file
	room   int64    // of the store's disk, taken for file
	closed bool
}

// Size is how much was written.
func (sp *Spool) Size() int64 {
	if sp.file == nil {
		return int64(len(sp.memory))
	}
	return sp.onDisk
}

// Write takes in all of p, or none of it: with ErrFull, ErrTooLarge, or what
// the disk said.
func (sp *Spool) Write(p []byte) (int, error) {
	if sp.file == nil && sp.remember(p) {
		return len(p), nil
	}
	need := sp.Size() + int64(len(p))
	if need > sp.s.Max() {
		return 0, ErrTooLarge
	}
	if err := sp.makeRoom(need); err != nil {
		return 0, err
	}
	if sp.file == nil {
		if err := sp.toFile(); err != nil {
			return 0, sp.s.failed(err)
		}
	}
	if _, err := sp.file.WriteAt(p, sp.onDisk); err != nil {
		return 0, sp.s.failed(err)
	}
	sp.onDisk += int64(len(p))
	sp.s.written.Add(int64(len(p)))
	return len(p), nil
}

// toFile has a file hold what memory held.
func (sp *Spool) toFile() error {
	f, err := nameless(sp.s.o.Dir)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(sp.memory, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	sp.file, sp.onDisk = f, int64(len(sp.memory))
	sp.s.files.Add(1)
	sp.s.written.Add(sp.onDisk)
	sp.forget()
	return nil
}

// forget gives memory back.
func (sp *Spool) forget() {
	sp.s.memory.Add(-int64(cap(sp.memory)))
	sp.memory = nil
}

// A SourceError is what a content that was taken in ended with, when that was
// not its end.
type SourceError struct{ Err error }

// Error implements error.
func (e *SourceError) Error() string { return e.Err.Error() }

// Unwrap returns what the source said.
func (e *SourceError) Unwrap() error { return e.Err }

// The buffers that contents are taken in through: a small one for those that
// trickle.
var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, 1<<10); return &b }}
	buffers      = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
)

// A Waiter is a source that can be waited for without a buffer.
type Waiter interface {
	// Wait returns once a Read has something to return, be it an error, and
	// reports whether it could tell. With ErrLater it is waited for elsewhere.
	Wait() (told bool, err error)
}

// ErrLater says that there is nothing to take in at this moment, and that Take
// is to be called again when there is.
var ErrLater = errors.New("the content is still to come")

// Take takes in all of r. While a content does not come, it takes no buffer, or
// a small one where r cannot say when it does. The error is a *SourceError, one
// of Write, or ErrLater.
func (sp *Spool) Take(r io.Reader) error {
	w, _ := r.(Waiter)
	for flows := false; ; {
		told := flows
		if !flows && w != nil {
			var err error
			if told, err = w.Wait(); err != nil {
				return err
			}
		}
		pool := &buffers
		if !told {
			pool = &smallBuffers
		}
		buf := pool.Get().(*[]byte)
		n, err := r.Read(*buf)
		flows = n == len(*buf)
		var werr error
		if n > 0 {
			_, werr = sp.Write((*buf)[:n])
		}
		pool.Put(buf)
		switch {
		case werr != nil:
			return werr
		case err == io.EOF:
			return nil
		case err != nil:
			return &SourceError{err}
		}
	}
}

// remember keeps p in memory where there is room for it.
func (sp *Spool) remember(p []byte) bool {
	if !sp.widen(len(sp.memory) + len(p)) {
		return false
	}
	sp.memory = append(sp.memory, p...)
	return true
}

// widen has memory hold need bytes, if it may. It grows with what has come, not
// with what was announced.
func (sp *Spool) widen(need int) bool {
	have := cap(sp.memory)
	switch {
	case need <= have:
		return true
	case need > eachMemoryMax:
		return false
	}
	grown := max(memoryMin, have)
	for grown < need {
		grown *= 2
	}
	more := int64(grown - have)
	if sp.s.memory.Add(more) > sp.s.o.Memory {
		sp.s.memory.Add(-more)
		return false
	}
	sp.memory = append(make([]byte, 0, grown), sp.memory...)
	return true
}

// makeRoom takes room for n bytes in the file.
func (sp *Spool) makeRoom(n int64) error {
	s := sp.s
	for n > sp.room {
		if !s.take(sp.owner) {
			s.full.Add(1)
			return ErrFull
		}
		if freeBytes(s.o.Dir) < s.o.KeepFree+roomStep {
			s.giveBack(sp.owner, roomStep)
			s.full.Add(1)
			return ErrFull
		}
		sp.room += roomStep
	}
	return nil
}

func (s *Store) failed(err error) error {
	s.failures.Add(1)
	why := err.Error()
	s.why.Store(&why)
	return fmt.Errorf("spooling a content: %w", err)
}

// ReadAt implements io.ReaderAt for what was written.
func (sp *Spool) ReadAt(p []byte, at int64) (n int, err error) {
	if left := sp.Size() - at; left < int64(len(p)) {
		p, err = p[:max(0, left)], io.EOF
	}
	switch {
	case len(p) == 0:
		return 0, err
	case sp.file == nil:
		return copy(p, sp.memory[at:]), err
	}
	n, rerr := sp.file.ReadAt(p, at)
	if rerr != nil {
		err = sp.s.failed(rerr)
	}
	return n, err
}

// Reader reads all that was written, from the beginning.
func (sp *Spool) Reader() io.Reader { return io.NewSectionReader(sp, 0, sp.Size()) }

// Reset forgets what was written. The room stays its own.
func (sp *Spool) Reset() { sp.memory, sp.onDisk = sp.memory[:0], 0 }

// Close gives everything back. Later calls do nothing.
func (sp *Spool) Close() {
	if sp.closed {
		return
	}
	sp.closed = true
	sp.forget()
	if sp.file != nil {
		_ = sp.file.Close() // nobody reads it again
	}
	sp.s.giveBack(sp.owner, sp.room)
	sp.s.open.Add(-1)
}
