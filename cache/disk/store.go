package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNotFound says that there is no such record, or none that may be used.
var ErrNotFound = errors.New("no such record")

// ErrPaused says that nothing is stored at the moment: the file system is full
// or has failed lately.
var ErrPaused = errors.New("nothing is stored on disk at the moment")

// errRemoved ends a writer whose key was removed meanwhile.
var errRemoved = errors.New("removed while it was written")

// Options say where records are kept and how many.
type Options struct {
	Dir   string
	Bytes int64 // budget; less than 1 MiB is an error

	// InUse, if set, is asked before a record is evicted whether its key is
	// used where the store does not see it; a yes spares it this time.
	InUse func(key []byte) bool

	// KeepFree is what of the file system is never written to, if it is more
	// than a twentieth, or 1 GiB: the journal may lie on the same, and goes before.
	KeepFree int64

	FS FS // nil: the real one
}

const (
	bytesMin = 1 << 20

	// pause is for how long nothing is stored after the file system has refused
	// a write: long enough not to hammer a broken disk, short enough that a
	// lesson put on after the disk was cleared is kept.
	pause = 30 * time.Second

	// keepFree of the file system is never written to: a twentieth, up to 1
	// GiB, unless more is asked for.
	keepFreeShare = 20
	keepFreeMax   = 1 << 30

	// loadAgain is after how many seconds a directory that could not be listed
	// is tried again.
	loadAgain = 10
)

// A Store is a directory of records. All methods may be called at once.
type Store struct {
	dir      string
	budget   int64 // units
	keepFree int64
	inUse    func(key []byte) bool
	fs       FS // gate
	gate     *gate
	lock     io.Closer // guarded by gate.mu

	shards [shards]shard
	seq    atomic.Uint64
	temps  atomic.Uint64
	opened opened
	room   sync.Mutex // one makes room at a time

	units       atomic.Int64 // of the records in the index, and reserved by writers
	objects     atomic.Int64
	loaded      atomic.Int64 // shards
	pausedUntil atomic.Int64 // Unix nanoseconds
	spaceRead   atomic.Int64 // Unix seconds
	short       atomic.Bool  // of room on the file system
	why         atomic.Pointer[error]
	counts      counts
}

type counts struct {
	stored, storedBytes, updated, removed, evicted, spared, refused atomic.Uint64
	torn, damaged, foreign, failedReads, failedWrites               atomic.Uint64
}

// Open takes the directory, which is made when it is not there, and removes
// what was being written when the last process ended. Nothing else is read:
// the index fills in Run, and wherever a look-up needs it before. The error is
// a *LockedError when another process has the directory.
func Open(o Options) (*Store, error) {
	if o.FS == nil {
		o.FS = defaultFS()
	}
	if o.FS == nil {
		return nil, fmt.Errorf("opening the cache directory %s: this system is not supported", o.Dir)
	}
	if o.Bytes < bytesMin {
		return nil, fmt.Errorf("a cache of %d bytes on disk: at least %d are needed", o.Bytes, bytesMin)
	}
	g := &gate{FS: o.FS}
	s := &Store{dir: o.Dir, budget: o.Bytes / unitBytes, keepFree: o.KeepFree, inUse: o.InUse, fs: g, gate: g}
	for i := range s.shards {
		s.shards[i].number = i
	}
	s.opened.records = make(map[uint64]*Record)
	tmp := filepath.Join(s.dir, "tmp")
	for _, dir := range []string{s.dir, tmp, filepath.Join(s.dir, "r")} {
		if err := s.fs.MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("making the cache directory: %w", err)
		}
	}
	lock, err := s.fs.Lock(filepath.Join(s.dir, "lock"))
	if locked, ok := errors.AsType[*LockedError](err); ok {
		return nil, locked
	}
	if err != nil {
		return nil, fmt.Errorf("taking the cache directory: %w", err)
	}
	s.lock = lock
	for name, err := range s.fs.Names(tmp) {
		if err == nil {
			err = s.fs.Remove(filepath.Join(tmp, name))
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("clearing %s: %w", tmp, err), lock.Close())
		}
	}
	return s, nil
}

// Run rebuilds the index, then keeps the house: it makes removals last and
// keeps to the budget, until ctx is done, whose error it returns.
func (s *Store) Run(ctx context.Context) error {
	for i := range s.shards {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.load(&s.shards[i])
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			for i := range s.shards {
				s.load(&s.shards[i]) // those that could not be read before
			}
			s.makeRoom()
			s.SyncRemovals()
		}
	}
}

// Close lets go of the directory. Run must have returned and nothing may be
// called any more.
func (s *Store) Close() error {
	err := s.Release()
	s.opened.closeAll()
	return err
}

// SyncRemovals makes what was removed so far last through a power cut.
func (s *Store) SyncRemovals() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		removed := sh.removed
		sh.removed = false
		sh.mu.Unlock()
		if removed {
			if err := s.fs.SyncDir(sh.dir(s.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				s.counts.failedWrites.Add(1)
			}
		}
	}
}

// load lists the shard's directory, unless that was done. Of two records of
// the same key and variant, which a process left that was killed between
// storing the one and removing the other, the older is removed.
func (s *Store) load(sh *shard) {
	if sh.loaded.Load() {
		return
	}
	sh.loading.Lock()
	defer sh.loading.Unlock()
	now := time.Now().Unix()
	if sh.loaded.Load() || now-sh.failed < loadAgain {
		return
	}
	var found []slot
	for name, err := range s.fs.Names(sh.dir(s.dir)) {
		if err != nil {
			sh.failed = now
			s.counts.failedReads.Add(1)
			return
		}
		k, ok := parseName(name)
		if !ok || shardOf(k.key) != sh.number {
			s.counts.foreign.Add(1) // not ours to remove
			continue
		}
		found = append(found, k)
	}
	slices.SortFunc(found, func(a, b slot) int { // newest first
		switch {
		case a.seq > b.seq:
			return -1
		case a.seq < b.seq:
			return 1
		}
		return 0
	})
	var older []slot
	sh.mu.Lock()
	for _, k := range found {
		if sh.findLocked(k.key, k.seq) >= 0 {
			continue // stored while the directory could not be listed
		}
		double := k.seq < sh.doomed[k.key]
		sh.eachLocked(k.key, func(_ int, other *slot) bool {
			double = double || other.variant == k.variant
			return !double
		})
		if double {
			older = append(older, k)
			continue
		}
		k.used = uint32(k.seq / 1e9)
		sh.insertLocked(k)
		s.units.Add(int64(k.units))
		s.objects.Add(1)
		s.seqAtLeast(k.seq)
	}
	sh.doomed = nil
	sh.mu.Unlock()
	for _, k := range older {
		s.unlink(sh, &k)
	}
	sh.loaded.Store(true)
	s.loaded.Add(1)
}

func (s *Store) seqAtLeast(n uint64) {
	for {
		was := s.seq.Load()
		if was >= n || s.seq.CompareAndSwap(was, n) {
			return
		}
	}
}

// nextSeq is the time in nanoseconds, and larger than any before.
func (s *Store) nextSeq() uint64 {
	s.seqAtLeast(uint64(time.Now().UnixNano()) - 1)
	return s.seq.Add(1)
}

// unlink removes a record's file, which is out of the index. An error leaves
// the file to the next start, which counts it again.
func (s *Store) unlink(sh *shard, k *slot) {
	err := s.fs.Remove(sh.path(s.dir, k))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.counts.failedWrites.Add(1)
	}
}

// A Ref names one record of a key.
type Ref struct {
	Seq     uint64 // grows with the time of storing
	Variant uint32 // VariantHash
	Bytes   int64  // that it takes on disk
}

// Find returns the records of the key, the newest first. It blocks for no
// other key's sake, and reads at most one directory.
func (s *Store) Find(key []byte) []Ref {
	d := digestOf(key)
	sh := &s.shards[shardOf(d)]
	s.load(sh)
	var found []Ref
	sh.mu.Lock()
	sh.eachLocked(d, func(_ int, k *slot) bool {
		found = append(found, k.ref())
		return true
	})
	sh.mu.Unlock()
	slices.SortFunc(found, func(a, b Ref) int {
		if a.Seq > b.Seq {
			return -1
		}
		return 1
	})
	return found
}

func (k *slot) ref() Ref {
	return Ref{Seq: k.seq, Variant: k.variant, Bytes: int64(k.units) * unitBytes}
}

// Remove takes out all records of the key, those that are being written
// included, and reports whether there was one. Look-ups that begin when it has
// returned find none, not even after the process was killed: that fails only
// for a directory that the system cannot list.
func (s *Store) Remove(key []byte) bool {
	n, writing := s.removeForGood(key, func(uint32, uint64) bool { return true })
	return n > 0 || writing
}

// RemoveOne takes out one record of the key, as Remove does; those being
// written are left.
func (s *Store) RemoveOne(key []byte, seq uint64) bool {
	n, _ := s.removeForGood(key, func(_ uint32, other uint64) bool { return other == seq })
	return n > 0
}

// RemoveVariant takes out the record of the key with the variant, and who
// writes one, as Remove does.
func (s *Store) RemoveVariant(key, variant []byte) bool {
	hash := VariantHash(variant)
	n, writing := s.removeForGood(key, func(v uint32, _ uint64) bool { return v == hash })
	return n > 0 || writing
}

// removeForGood is remove for what must not come back, which Run makes last.
func (s *Store) removeForGood(key []byte, want func(variant uint32, seq uint64) bool) (n int, writing bool) {
	d := digestOf(key)
	if n, writing = s.remove(d, want); n > 0 {
		sh := &s.shards[shardOf(d)]
		sh.mu.Lock()
		sh.removed = true
		sh.mu.Unlock()
		s.counts.removed.Add(uint64(n))
	}
	return n, writing
}

// remove takes out the records of a key that want says, where a record being
// written has the sequence number 0. It returns how many there were, and
// whether one was being written.
func (s *Store) remove(key digest, want func(variant uint32, seq uint64) bool) (n int, writing bool) {
	sh := &s.shards[shardOf(key)]
	s.load(sh)
	var out []slot
	var landing []*Writer
	sh.mu.Lock()
	sh.eachLocked(key, func(_ int, k *slot) bool {
		if want(k.variant, k.seq) {
			out = append(out, *k)
		}
		return true
	})
	for i := range out {
		sh.deleteLocked(sh.findLocked(key, out[i].seq))
	}
	if !sh.loaded.Load() && want(0, 0) {
		if sh.doomed == nil {
			sh.doomed = make(map[digest]uint64)
		}
		sh.doomed[key] = s.nextSeq()
	}
	for _, w := range sh.writers {
		if w.key == key && want(w.variant, 0) {
			writing, w.removed = true, true
			if w.landing != nil {
				landing = append(landing, w)
			}
		}
	}
	sh.mu.Unlock()
	for i := range out {
		s.account(&out[i])
		s.opened.drop(out[i].seq)
		s.unlink(sh, &out[i])
	}
	for _, w := range landing {
		<-w.landing
	}
	return len(out), writing
}

// account takes a record that has left the index off the accounts.
func (s *Store) account(k *slot) {
	s.units.Add(-int64(k.units))
	s.objects.Add(-1)
}

// Uses returns how often the record was asked for lately, up to 15.
func (s *Store) Uses(key []byte, seq uint64) int {
	d := digestOf(key)
	sh := &s.shards[shardOf(d)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if i := sh.findLocked(d, seq); i >= 0 {
		return int(sh.slots[i].uses)
	}
	return 0
}

// paused reports whether nothing may be written now.
func (s *Store) paused() bool {
	now := time.Now()
	if now.UnixNano() < s.pausedUntil.Load() {
		return true
	}
	if last := s.spaceRead.Load(); now.Unix() != last && s.spaceRead.CompareAndSwap(last, now.Unix()) {
		free, total, err := s.fs.Space(s.dir)
		s.short.Store(err == nil && free < max(s.keepFree, min(total/keepFreeShare, keepFreeMax)))
	}
	return s.short.Load()
}

// trouble notes that the file system refused a write.
func (s *Store) trouble(err error) {
	if errors.Is(err, errReleased) {
		return
	}
	s.counts.failedWrites.Add(1)
	s.why.Store(&err)
	s.pausedUntil.Store(time.Now().Add(pause).UnixNano())
}

// Stats are counters since Open, and gauges.
type Stats struct {
	Objects, Bytes, MaxBytes int64 // records in the index so far, and what they take

	Rebuilt float64 // the part of the index that is there, 1 when it is whole

	Stored, StoredBytes uint64 // records and their files' bytes
	Updated             uint64 // heads written anew
	Removed             uint64
	Evicted             uint64
	Spared              uint64 // not evicted, as InUse said
	Refused             uint64 // not stored: paused, no room, or too large

	// Alarms: files that were no answer, by kind, and calls that failed.
	Torn, Damaged, Foreign, FailedReads, FailedWrites uint64

	Paused bool   // nothing is stored at the moment
	Why    string // the last error of a write; empty when there was none
}

// Stats returns the counters. They are read one after the other.
func (s *Store) Stats() Stats {
	c := &s.counts
	st := Stats{
		Objects: s.objects.Load(), Bytes: s.units.Load() * unitBytes, MaxBytes: s.budget * unitBytes,
		Rebuilt: float64(s.loaded.Load()) / shards,
		Stored:  c.stored.Load(), StoredBytes: c.storedBytes.Load(), Updated: c.updated.Load(),
		Removed: c.removed.Load(), Evicted: c.evicted.Load(), Spared: c.spared.Load(), Refused: c.refused.Load(),
		Torn: c.torn.Load(), Damaged: c.damaged.Load(), Foreign: c.foreign.Load(),
		FailedReads: c.failedReads.Load(), FailedWrites: c.failedWrites.Load(),
		Paused: s.paused(),
	}
	if why := s.why.Load(); why != nil {
		st.Why = (*why).Error()
	} else if s.short.Load() {
		st.Why = "the file system is nearly full"
	}
	return st
}
