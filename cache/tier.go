package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/cache/disk"
)

// DiskOptions say where stored responses are kept through a restart.
type DiskOptions struct {
	Path     string // a directory of ours alone
	Bytes    int64
	KeepFree int64 // of its file system, for others; see package disk
}

// tier is the disk below the memory.
//
//	Put     -> memory, found from then on; a queue brings it to disk within
//	           moments. kill -9 loses what is in the queue.
//	Lookup  -> memory, else disk. A small response that is found there for the
//	           second time is put into memory again; a large one answers from
//	           disk, and memory never holds it.
//	Freshen -> memory, and the head of the record on disk before it returns.
//	Invalidate -> memory, then disk before it returns: the key is counted as
//	           changed first, so that nothing old is put back by who read it
//	           before.
//	Purge   -> a rule, on disk before it returns. A record knows in which
//	           generation of rules its fetch began and is held against those
//	           that came later when it is found, also after a restart.
type tier struct {
	c     *Cache
	store *disk.Store

	reads chan struct{} // places for look-ups that read the disk
	wake  chan struct{}

	dir       string
	queuedMax int // as the constant says, but in tests
	heads     heads

	mu     sync.Mutex // guards what follows
	queue  []*Stored  // to be written, the oldest first
	queued int64      // their bytes

	hits, promoted, late atomic.Uint64
}

const (
	// readsMax bounds the look-ups that read the disk at once: each takes a
	// thread of the system while it does.
	readsMax = 64

	// What waits for the disk is held in memory beside what the budget counts:
	// a flood larger than this is written when it has passed (sweepEvery).
	queuedBytesMax = 64 << 20
	queuedMax      = 16 << 10

	// sweepEvery is how often memory is searched for what is not on disk: what
	// came while the queue was full or the disk took nothing.
	sweepEvery = 30 * time.Second

	// drainMax is how long the end of Run may take to write what is queued.
	drainMax = 10 * time.Second

	// wholeBytesMax is up to which length a content is read whole, digests and
	// all, and may go to memory. Larger ones are sent from the disk.
	wholeBytesMax = 1 << 20

	// promoteUses is how often a record is found on disk before memory takes it.
	promoteUses = 2

	// variantsRead bounds the records that one look-up reads to find the one
	// that the request selects.
	variantsRead = 8
)

// neverOnDisk is the number of a record that cannot be, of what is too large
// for the disk.
const neverOnDisk = 1

func openTier(c *Cache, o *DiskOptions) (*tier, error) {
	t := &tier{c: c, dir: o.Path, reads: make(chan struct{}, readsMax), wake: make(chan struct{}, 1), queuedMax: queuedMax}
	store, err := disk.Open(disk.Options{Dir: o.Path, Bytes: o.Bytes, KeepFree: o.KeepFree, InUse: t.inUse})
	if err != nil {
		return nil, err
	}
	t.store = store
	return t, nil
}

// purgeFileIn is where purges are written down, if nowhere else.
func purgeFileIn(dir string) string { return filepath.Join(dir, "purges") }

// inUse reports whether memory holds something of the key that is asked for:
// then disk does not see how popular it is.
func (t *tier) inUse(key []byte) bool {
	e := t.c.memory.index.get(t.c.memory.index.hash(key))
	return e != nil && e.key == string(key) && (e.used.Load() > 0 || e.where.Load() != inWindow)
}

// run writes what is queued until ctx is done, and then what is left.
func (t *tier) run(ctx context.Context) {
	var house sync.WaitGroup
	house.Go(func() { _ = t.store.Run(ctx) }) // it ends with ctx alone
	defer house.Wait()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			for end := time.Now().Add(drainMax); time.Now().Before(end) && t.writeNext(); {
			}
			return
		case <-t.wake:
			for ctx.Err() == nil && t.writeNext() {
			}
		case <-tick.C:
			t.sweep()
		}
	}
}

// sweep queues what memory holds and disk does not.
func (t *tier) sweep() {
	t.mu.Lock()
	busy := len(t.queue) > 0
	t.mu.Unlock()
	if busy || t.store.Stats().Paused {
		return
	}
	t.c.memory.each(func(s *Stored) {
		if s.onDisk.Load() == 0 {
			t.put(s)
		}
	})
}

// put has s written soon. What was on disk in its place is gone when it
// returns.
func (t *tier) put(s *Stored) {
	t.store.RemoveVariant(view(s.key), view(s.variant))
	t.completed(view(s.key))
	t.mu.Lock()
	full := len(t.queue) >= t.queuedMax || t.queued+s.size > queuedBytesMax
	if !full {
		t.queue = append(t.queue, s)
		t.queued += s.size
	}
	t.mu.Unlock()
	if full {
		t.late.Add(1)
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// writeNext writes the oldest of the queue; false when there is none.
func (t *tier) writeNext() bool {
	t.mu.Lock()
	if len(t.queue) == 0 {
		t.queue = nil
		t.mu.Unlock()
		return false
	}
	s := t.queue[0]
	t.queue[0] = nil
	t.queue = t.queue[1:]
	t.mu.Unlock()
	t.write(s)
	t.mu.Lock()
	t.queued -= s.size
	t.mu.Unlock()
	return true
}

// write stores s unless it has been purged or invalidated. Whoever invalidates
// it counts the change before he removes it from disk: so either that is seen
// here, or he finds the writer there.
func (t *tier) write(s *Stored) {
	if s.Length() > t.store.Stats().MaxBytes/4 {
		s.onDisk.Store(neverOnDisk)
		return
	}
	w, err := t.store.Begin(s.meta())
	if err != nil {
		return // counted there; sweep tries again
	}
	if t.c.Gone(s) {
		w.Discard()
		return
	}
	s.withBody(func(body []byte) { _, _ = w.Write(body) }) // Commit says what became of it
	ref, err := w.Commit()
	if err == nil {
		s.onDisk.Store(ref.Seq)
	}
}

func (s *Stored) meta() disk.Meta {
	return disk.Meta{Key: []byte(s.key), Host: hostIn(s.key), Variant: []byte(s.variant), Head: s.appendHead(nil)}
}

// hostIn is the host of a key: scheme, authority and target with spaces
// between them.
func hostIn(key string) string {
	_, rest, _ := strings.Cut(key, " ")
	authority, _, _ := strings.Cut(rest, " ")
	return hostOf(authority)
}

// find returns the stored response on disk that r selects, the names of the
// newest one's Vary, and what it has read of the key beside. There are none
// where disk has nothing of the key.
func (t *tier) find(r *Request) (s *Stored, vary []string, others []*Stored) {
	change := t.c.memory.changes(r.Key)
	refs := t.store.Find(r.Key)
	if len(refs) == 0 {
		return nil, nil, nil
	}
	t.reads <- struct{}{}
	defer func() { <-t.reads }()
	read, there := 0, false
	for len(refs) > 0 && read < variantsRead {
		ref := refs[0]
		refs = refs[1:]
		s, err := t.load(r.Key, ref, change)
		read++
		if err != nil {
			continue
		}
		if !there {
			vary, there = s.Verdict.Vary, true
		}
		variant := VariantKey(nil, s.Verdict.Vary, r.Fields)
		if s.variant == string(variant) {
			if !t.c.purged(s) {
				t.found(s)
				return s, vary, others
			}
			t.store.RemoveOne(r.Key, ref.Seq)
			continue
		}
		others = append(others, s)
		for i := range refs { // the one that is selected among those with the same Vary comes next
			if refs[i].Variant == disk.VariantHash(variant) {
				refs[0], refs[i] = refs[i], refs[0]
			}
		}
	}
	return nil, vary, others
}

// found counts a look-up that disk answers, and puts what is popular into
// memory, where the next one finds it.
func (t *tier) found(s *Stored) {
	t.hits.Add(1)
	if s.Large() || t.store.Uses(view(s.key), s.onDisk.Load()) < promoteUses {
		return
	}
	if t.c.page(s); s.paged != nil {
		s.index()
	}
	keep := func(*Stored) bool { return true } // what came meanwhile is newer
	if t.c.memory.put(s, keep) {
		t.promoted.Add(1)
	}
}

// load reads a stored response from disk: all of it, or of a large one the
// head.
func (t *tier) load(key []byte, ref disk.Ref, change uint32) (*Stored, error) {
	r, err := t.store.Open(key, ref)
	if err != nil {
		return nil, err
	}
	defer r.Release()
	if r.Length > wholeBytesMax {
		return t.large(r, ref, change)
	}
	s, err := readStored(r.Key, r.Variant, r.Head)
	if err != nil {
		t.store.RemoveOne(key, ref.Seq) // of another version of firstbell
		return nil, err
	}
	if s.Body, err = r.Bytes(); err != nil {
		return nil, err
	}
	s.change = change
	s.onDisk.Store(ref.Seq)
	s.index()
	return s, nil
}

// large returns the head of a large record, which is read once for all who ask
// while the record is open.
func (t *tier) large(r *disk.Record, ref disk.Ref, change uint32) (*Stored, error) {
	if known := r.Attached.Load(); known != nil {
		if s := (*known).(*Stored); s.change == change {
			return s, nil
		}
	}
	s, err := readStored(r.Key, r.Variant, r.Head)
	if err != nil {
		t.store.RemoveOne(r.Key, ref.Seq)
		return nil, err
	}
	s.content = &content{store: t.store, ref: ref, length: r.Length}
	s.change = change
	s.onDisk.Store(ref.Seq)
	var known any = s
	r.Attached.Store(&known)
	return s, nil
}

// freshened brings s, which has taken the place of old, to disk. held says
// that memory has taken it.
func (t *tier) freshened(old, s *Stored, held bool) {
	seq := old.onDisk.Load()
	if !s.Verdict.Store || s.variant != old.variant {
		if seq != 0 || held {
			t.store.RemoveVariant(view(old.key), view(old.variant))
		}
		if !s.Verdict.Store || s.Large() {
			return
		}
		seq = 0
	}
	if seq != 0 {
		ref := disk.Ref{Seq: seq, Variant: disk.VariantHash(view(s.variant)), Bytes: t.bytesOf(old, seq)}
		done, err := t.store.Update(view(s.key), ref, s.appendHead(nil))
		if done {
			s.onDisk.Store(seq)
			return
		}
		if err != nil || s.Large() {
			t.store.RemoveOne(view(s.key), seq) // rather nothing than fields of yesterday
			if s.Large() {
				return
			}
		}
	}
	if held {
		t.put(s)
	}
}

// bytesOf is what the record takes on disk, which is part of its name.
func (t *tier) bytesOf(s *Stored, seq uint64) int64 {
	for _, ref := range t.store.Find(view(s.key)) {
		if ref.Seq == seq {
			return ref.Bytes
		}
	}
	return 0
}

// content is where the body of a large stored response lies.
type content struct {
	store  *disk.Store
	ref    disk.Ref
	length int64
}

// Large reports whether the body lies on disk: Body is nil, and Open reads it.
func (s *Stored) Large() bool { return s.content != nil }

// Length is the length of the body, wherever it is.
func (s *Stored) Length() int64 {
	switch {
	case s.content != nil:
		return s.content.length
	case s.paged != nil:
		return s.paged.length
	}
	return int64(len(s.Body))
}

// Open opens the body of a large stored response. An error says that it is not
// there any more: then the next Lookup misses. The record must be released.
func (s *Stored) Open() (*disk.Record, error) {
	if s.content == nil {
		return nil, errors.New("opening a stored response: its body is in memory")
	}
	return s.content.store.Open(view(s.key), s.content.ref)
}

// StoredOnDisk is what EachOnDisk tells of a stored response.
type StoredOnDisk struct {
	*Stored
	Key    string // scheme, authority and target, with spaces between them
	Host   string
	Bytes  int64 // of its content
	At     time.Time
	Tags   []string
	Purged bool // a purge has taken it out: it answers nobody any more

	// BlocksOf is the length of the content of which Bytes lie there in blocks;
	// 0: it is whole.
	BlocksOf int64
}

// EachOnDisk calls f for what lies in the cache directory, until f returns
// false. It takes no lock and changes nothing, so that it may be asked whether
// a process uses the directory or not. Files that are no records are counted
// in bad.
func EachOnDisk(dir string, f func(*StoredOnDisk) bool) (bad int, err error) {
	var rules purges
	if err := rules.readFile(purgeFileIn(dir)); err != nil {
		return 0, err
	}
	parts := incompleteOnDisk{heads: make(map[string]*StoredOnDisk), bytes: make(map[string]int64)}
	ended, unread := false, 0
	each := func(s *StoredOnDisk) bool {
		s.Purged = rules.look(s.Stored)
		ended = !f(s)
		return !ended
	}
	bad, err = disk.Walk(dir, func(r *disk.Record) bool {
		if taken, strange := parts.take(r); taken {
			if strange {
				unread++
			}
			return true
		}
		s, err := readStored(bytes.Clone(r.Key), r.Variant, r.Head)
		if err != nil {
			unread++
			return true
		}
		return each(&StoredOnDisk{Stored: s, Key: s.key, Host: r.Host, Bytes: r.Length, At: s.responseTime, Tags: s.tags})
	})
	bad += unread
	if err != nil {
		return bad, fmt.Errorf("listing the cache directory: %w", err)
	}
	for name, s := range parts.heads {
		if s.Bytes = parts.bytes[name]; ended || !each(s) {
			break
		}
	}
	return bad, nil
}

// DiskStats are the counters of the disk tier.
type DiskStats struct {
	disk.Stats
	Hits        uint64 // look-ups that it answered
	Promoted    uint64 // of those, put into memory again
	Late        uint64 // not queued at once, as too much was
	Queued      int
	QueuedBytes int64
}

func (t *tier) stats() *DiskStats {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return &DiskStats{Stats: t.store.Stats(), Hits: t.hits.Load(), Promoted: t.promoted.Load(),
		Late: t.late.Load(), Queued: len(t.queue), QueuedBytes: t.queued}
}
