package cache

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// memory keeps entries under one budget.
//
//	Put -> window (1/5) -- asked for meanwhile -> main -- not asked for -> gone
//	           |                                   ^  |
//	           +-- not -> gone, but remembered ----+  +-- asked for -> another round
//	                       put again soon
//
// Both are first in, first out (the scheme is known as S3-FIFO): a look-up
// only notes on the entry that it was asked for, without a lock, and whoever
// puts does the moving. What is asked for once, such as a crawler's round,
// passes through the window and displaces nothing that is used. An object that
// is put is found from that moment until it has passed through at least the
// window.
//
// Pinned entries stay, within a bound of their own, until they are replaced.
type memory struct {
	index index

	budget    int64 // of all bytes
	windowMax int64 // above this the window gives up its oldest first

	pins atomic.Pointer[pins] // never nil

	mu      sync.Mutex // guards all below
	window  ring
	main    ring
	pinned  ring
	ghosts  ghosts
	objects int64 // stored responses in the index
	counts  memoryCounts

	// changed counts invalidations by hash of the key: written under mu. Keys
	// that share a cell cost each other a fetch now and then.
	changed [1 << 14]atomic.Uint32
}

// memoryCounts are guarded by memory.mu.
type memoryCounts struct {
	evictions, kept, again, pinsRefused uint64
}

// Where an entry is accounted.
const (
	inWindow uint32 = iota
	inMain
	inPinned
	gone
)

// ring is a list of entries, oldest first, and the bytes they take.
type ring struct {
	head  entry
	bytes int64
	count int64
	where uint32
}

func (l *ring) init(where uint32) {
	l.head.prev, l.head.next = &l.head, &l.head
	l.where = where
}

func (l *ring) empty() bool { return l.head.next == &l.head }

func (l *ring) oldest() *entry { return l.head.next }

func (l *ring) push(e *entry) {
	e.where.Store(l.where)
	e.prev, e.next = l.head.prev, &l.head
	e.prev.next, e.next.prev = e, e
	l.bytes += e.size
	l.count++
}

func (l *ring) remove(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
	e.where.Store(gone)
	l.bytes -= e.size
	l.count--
}

const (
	memoryMin     = 1 << 20
	memoryDefault = 256 << 20

	// windowShare of the budget is the window: a tenth hits more where little
	// fits, by a point, and less than an LRU where nearly everything does.
	windowShare = 5
	// roundsMax bounds how many popular entries one Put sends on before it
	// drops the oldest all the same.
	roundsMax = 1024
)

func newMemory(budget int64) (*memory, error) {
	if budget == 0 {
		budget = memoryDefault
	}
	if budget < memoryMin {
		return nil, fmt.Errorf("cache memory of %d bytes: at least %d are needed", budget, memoryMin)
	}
	m := &memory{}
	m.index.init()
	m.window.init(inWindow)
	m.main.init(inMain)
	m.pinned.init(inPinned)
	m.budget = budget - m.ghosts.init(budget)
	m.windowMax = m.budget / windowShare
	m.pins.Store(&pins{})
	return m, nil
}

// largest is the size of the largest entry taken.
func (m *memory) largest() int64 { return m.budget / 8 }

// get returns the entry of the key, or nil.
func (m *memory) get(key []byte) *entry {
	e := m.index.get(m.index.hash(key))
	if e == nil || e.key != string(key) {
		return nil
	}
	e.touch()
	return e
}

// holds reports whether there is a response of the key and variant of s. It is
// no look-up: nothing becomes more popular.
func (m *memory) holds(s *Stored) bool {
	e := m.index.get(m.index.hash(view(s.key)))
	if e == nil || e.key != s.key {
		return false
	}
	return slices.ContainsFunc(e.variants, func(v *Stored) bool { return v.variant == s.variant })
}

// put stores s among the variants of its key. It reports false, and changes
// nothing, when s is too large, when its key was invalidated since its fetch
// began, or when keep(old) refuses for the stored response that it would
// replace.
func (m *memory) put(s *Stored, keep func(old *Stored) bool) bool {
	if s.total()+entryBytes > m.largest() {
		return false
	}
	hash := m.index.hash(view(s.key))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed[hash%uint64(len(m.changed))].Load() != s.change {
		return false
	}
	old := m.index.get(hash)
	variants := append(make([]*Stored, 0, 4), s)
	size := s.total() + entryBytes
	if old != nil && old.key == s.key {
		for _, v := range old.variants {
			if v.variant == s.variant && sameNames(v.Verdict.Vary, s.Verdict.Vary) {
				if keep(v) {
					return false
				}
				continue
			}
			if len(variants) < variantsMax && size+v.total() <= m.largest() {
				variants = append(variants, v)
				size += v.total()
			}
		}
	}
	m.replaceLocked(old, newEntry(hash, variants...))
	return true
}

// swap puts s in the place of old, or nothing when s is nil, and reports
// whether old was still there.
func (m *memory) swap(old, s *Stored) bool {
	hash := m.index.hash(view(old.key))
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.index.get(hash)
	if e == nil || !slices.Contains(e.variants, old) {
		return false
	}
	variants := make([]*Stored, 0, len(e.variants))
	if s != nil {
		variants = append(variants, s)
	}
	for _, v := range e.variants {
		if v != old {
			variants = append(variants, v)
		}
	}
	if len(variants) == 0 {
		m.releaseLocked(e)
	} else {
		m.replaceLocked(e, newEntry(hash, variants...))
	}
	return true
}

// changes tells how often something with the key has been invalidated.
func (m *memory) changes(key []byte) uint32 {
	return m.changed[m.index.hash(key)%uint64(len(m.changed))].Load()
}

// each calls f with every stored response that is there from its beginning to
// its end. It takes no lock, and f may put and remove.
func (m *memory) each(f func(*Stored)) {
	m.index.each(func(e *entry) {
		for _, s := range e.variants {
			f(s)
		}
	})
}

// remove takes out the entry of the key and reports whether there was one.
// What a fetch brings that has begun before is not put any more.
func (m *memory) remove(key []byte) bool {
	hash := m.index.hash(key)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed[hash%uint64(len(m.changed))].Add(1)
	e := m.index.get(hash)
	if e == nil || e.key != string(key) {
		return false
	}
	m.releaseLocked(e)
	return true
}

// replaceLocked puts e where it belongs: in the place of old, which may be
// nil and may have another key of the same hash.
func (m *memory) replaceLocked(old, e *entry) {
	to := &m.window
	if old != nil {
		e.used.Store(old.used.Load())
		if old.where.Load() == inMain && old.key == e.key {
			to = &m.main
		}
		m.unaccountLocked(old)
	} else if m.ghosts.take(e.hash, m.main.count+m.window.count) {
		to = &m.main
		m.counts.again++
	}
	if m.pins.Load().means(e.key) {
		if m.pinned.bytes+e.size <= m.pins.Load().bytes {
			to = &m.pinned
		} else {
			m.counts.pinsRefused++
		}
	}
	m.makeRoomLocked(e.size)
	m.index.set(e)
	m.objects += int64(len(e.variants))
	to.push(e)
}

// releaseLocked takes e out of the index and out of the accounts.
func (m *memory) releaseLocked(e *entry) {
	m.index.remove(e)
	m.unaccountLocked(e)
}

// unaccountLocked takes e, which is in the index, out of the accounts.
func (m *memory) unaccountLocked(e *entry) {
	m.objects -= int64(len(e.variants))
	m.listOf(e).remove(e)
}

func (m *memory) listOf(e *entry) *ring {
	switch e.where.Load() {
	case inMain:
		return &m.main
	case inPinned:
		return &m.pinned
	}
	return &m.window
}

// bytesLocked is all that is accounted.
func (m *memory) bytesLocked() int64 { return m.window.bytes + m.main.bytes + m.pinned.bytes }

// makeRoomLocked drops entries until size more bytes fit.
func (m *memory) makeRoomLocked(size int64) {
	rounds := 0
	for m.bytesLocked()+size > m.budget {
		switch {
		case !m.window.empty() && (m.window.bytes > m.windowMax || m.main.empty()):
			rounds += m.passWindowLocked(rounds < roundsMax)
		case !m.main.empty():
			rounds += m.passMainLocked(rounds < roundsMax)
		default:
			return // cannot be: what is pinned leaves room for the largest
		}
	}
}

// passWindowLocked moves the window's oldest on, to main if it may and was
// asked for, and returns 1 if it did.
func (m *memory) passWindowLocked(may bool) int {
	e := m.window.oldest()
	if may && e.used.Load() > 0 {
		m.window.remove(e)
		e.used.Store(0)
		m.main.push(e)
		m.counts.kept++
		return 1
	}
	m.ghosts.add(e.hash)
	m.counts.evictions++
	m.releaseLocked(e)
	return 0
}

// passMainLocked drops the oldest of main, or sends it on another round if it
// may and was asked for, and returns 1 if it did.
func (m *memory) passMainLocked(may bool) int {
	e := m.main.oldest()
	if may && e.used.Load() > 0 {
		m.main.remove(e)
		e.used.Store(0)
		m.main.push(e)
		return 1
	}
	m.ghosts.add(e.hash)
	m.counts.evictions++
	m.releaseLocked(e)
	return 0
}

// ghosts remembers hashes that were dropped, for about as many further drops
// as entries are stored. A wrong answer, once in millions, keeps an entry for
// longer.
type ghosts struct {
	slots []uint64 // of the hash its upper half, then the number of the drop
	drops uint32
}

const ghostWays = 4

// init makes room for a ghost to every 2 KiB of the budget and returns the
// bytes it takes: less than half a percent.
func (g *ghosts) init(budget int64) int64 {
	n := int64(ghostWays)
	for n*2*2048 <= budget {
		n *= 2
	}
	g.slots = make([]uint64, n)
	return 8 * n
}

func (g *ghosts) set(hash uint64) []uint64 {
	at := hash % (uint64(len(g.slots)) / ghostWays) * ghostWays
	return g.slots[at : at+ghostWays]
}

// add remembers the hash in the place of the oldest of its set.
func (g *ghosts) add(hash uint64) {
	g.drops++
	set := g.set(hash)
	oldest := 0
	for i, v := range set {
		if v == 0 || g.drops-uint32(v) > g.drops-uint32(set[oldest]) {
			oldest = i
		}
	}
	set[oldest] = hash&^0xffffffff | uint64(g.drops)
}

// take forgets the hash and reports whether it was among so many last drops.
func (g *ghosts) take(hash uint64, within int64) bool {
	set := g.set(hash)
	for i, v := range set {
		if v != 0 && v>>32 == hash>>32 {
			set[i] = 0
			return int64(g.drops-uint32(v)) <= within
		}
	}
	return false
}
