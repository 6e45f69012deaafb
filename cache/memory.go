package cache

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// memory keeps entries in two places under one budget.
//
//	Put -> resident window (1/4) -> ristretto (3/4) -> gone
//	            ^      |
//	            +------+ refused there, but popular: another round here
//
// The index alone says what is stored; where an entry is accounted is a mark
// on it. A look-up therefore finds an entry from the moment Put returns, while
// it is handed over, and until it is dropped, whatever ristretto does and when.
//
// The window is first in, first out with second chances. handOver moves its
// oldest to ristretto before it is full; without room Put drops the oldest
// itself, so the bound holds even when nobody hands over.
type memory struct {
	index index
	tail  *ristretto.Cache[uint64, *entry]

	residentMax int64 // bytes of the window
	handOverAt  int64 // above this the oldest are handed over
	tailItemMax int64 // larger entries are not offered to ristretto
	wake        chan struct{}

	mu       sync.Mutex
	window   entry // guarded by mu: the head of a ring, next is the oldest
	doomed   []*entry
	resident int64 // bytes in the window, those being offered included
	tailed   int64 // bytes in ristretto, doomed ones included
	objects  int64 // stored responses in the index
	counts   memoryCounts

	// changed counts invalidations by hash of the key: written under mu. Keys
	// that share a cell cost each other a fetch now and then.
	changed [1 << 14]atomic.Uint32
}

// memoryCounts are guarded by memory.mu.
type memoryCounts struct {
	evictions, handedOver, refused uint64
}

// Where an entry is accounted.
const (
	inWindow uint32 = iota
	offered         // out of the ring, counted as resident until handOver has settled it
	inTail
	doomed // in ristretto, but no longer in the index; handOver deletes it
	gone
)

const (
	memoryMin     = 1 << 20
	memoryDefault = 256 << 20

	// handOverBatch entries wait for ristretto together.
	handOverBatch = 64
	// roundsMax bounds how many popular entries one Put sends on another round
	// before it drops the oldest all the same.
	roundsMax = 64
)

func newMemory(budget int64) (*memory, error) {
	if budget == 0 {
		budget = memoryDefault
	}
	if budget < memoryMin {
		return nil, fmt.Errorf("cache memory of %d bytes: at least %d are needed", budget, memoryMin)
	}
	m := &memory{residentMax: budget / 4, tailItemMax: budget / 100, wake: make(chan struct{}, 1)}
	m.handOverAt = m.residentMax - m.residentMax/8
	m.window.prev, m.window.next = &m.window, &m.window
	m.index.init()

	// Ten counters for each of as many 8 KiB objects as fit, 4 bytes each with
	// their filter: half a percent of the budget, taken from it.
	counters := max(1024, budget/800)
	tail, err := ristretto.NewCache(&ristretto.Config[uint64, *entry]{
		NumCounters:        counters,
		MaxCost:            budget - m.residentMax - 4*counters,
		BufferItems:        64,
		IgnoreInternalCost: true, // entryBytes counts it
		KeyToHash:          func(hash uint64) (uint64, uint64) { return hash, 0 },
		OnEvict:            func(it *ristretto.Item[*entry]) { m.evicted(it.Value) },
	})
	if err != nil {
		return nil, fmt.Errorf("starting the memory tier: %w", err)
	}
	m.tail = tail
	return m, nil
}

// largest is the size of the largest entry taken: half the window, so that
// one object never empties it, and with an eighth being offered there is
// always something to drop.
func (m *memory) largest() int64 { return m.residentMax / 2 }

// get returns the entry of the key, or nil.
func (m *memory) get(key []byte) *entry {
	hash := m.index.hash(key)
	e := m.index.get(hash)
	if e == nil || e.key != string(key) {
		m.tail.Get(hash) // ristretto counts who is asked for before it is stored
		return nil
	}
	e.touch()
	if e.where.Load() == inTail {
		m.tail.Get(hash)
	}
	return e
}

// put stores s among the variants of its key. It reports false, and changes
// nothing, when s is too large, when its key was invalidated since its fetch
// began, or when keep(old) refuses for the stored response
// that it would replace.
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
	variants := []*Stored{s}
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
	m.replaceLocked(old, newEntry(hash, variants))
	return true
}

// swap puts s in the place of old, or nothing when s is nil, and reports
// whether old was still there.
func (m *memory) swap(old, s *Stored) bool {
	hash := m.index.hash(view(old.key))
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.index.get(hash)
	if e == nil || e.key != old.key {
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
	switch {
	case !slices.Contains(e.variants, old):
		return false
	case len(variants) == 0:
		m.releaseLocked(e)
	default:
		m.replaceLocked(e, newEntry(hash, variants))
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

// replaceLocked puts e into the window in the place of old, which may be nil.
func (m *memory) replaceLocked(old, e *entry) {
	if old != nil {
		e.used.Store(old.used.Load())
		m.unaccountLocked(old)
	}
	m.makeRoomLocked(e.size)
	m.index.set(e)
	m.objects += int64(len(e.variants))
	m.resident += e.size
	m.pushLocked(e)
	if m.resident > m.handOverAt {
		m.wakeUp()
	}
}

// releaseLocked takes e out of the index and out of the accounts.
func (m *memory) releaseLocked(e *entry) {
	m.index.remove(e)
	m.unaccountLocked(e)
}

// unaccountLocked takes e, which is in the index, out of the accounts. What is
// in ristretto, or on its way, is counted until it is out of there.
func (m *memory) unaccountLocked(e *entry) {
	m.objects -= int64(len(e.variants))
	switch e.where.Load() {
	case inWindow:
		e.unlink()
		m.resident -= e.size
		e.where.Store(gone)
	case offered:
		e.where.Store(gone) // handOver gives its bytes back
	case inTail:
		e.where.Store(doomed)
		m.doomed = append(m.doomed, e)
		m.wakeUp()
	}
}

// makeRoomLocked drops the oldest of the window until size more bytes fit,
// sending popular ones on another round first.
func (m *memory) makeRoomLocked(size int64) {
	rounds := 0
	for m.resident+size > m.residentMax {
		e := m.window.next
		if e == &m.window {
			return // cannot be: what is offered and size leave room, see largest
		}
		if n := e.used.Load(); n > 0 && rounds < roundsMax {
			rounds++
			m.againLocked(e, n)
			continue
		}
		m.counts.evictions++
		m.releaseLocked(e)
	}
}

// againLocked sends e on another round with half its popularity.
func (m *memory) againLocked(e *entry, used uint32) {
	e.unlink()
	e.used.Store(used / 2)
	m.pushLocked(e)
}

func (m *memory) pushLocked(e *entry) {
	e.where.Store(inWindow)
	e.prev, e.next = m.window.prev, &m.window
	e.prev.next, e.next.prev = e, e
}

func (e *entry) unlink() {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}

func (m *memory) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// handOver deletes doomed entries from ristretto and moves the oldest of the
// window there until the window has room again, or until ristretto takes
// nothing of a whole batch and all of it is popular. It is never called twice
// at once: what this one goroutine asks of ristretto happens in its order.
func (m *memory) handOver() {
	for progress := true; progress; {
		m.mu.Lock()
		out := m.doomed
		m.doomed = nil
		before := m.resident
		batch := m.takeOldestLocked()
		m.mu.Unlock()
		if len(out) == 0 && len(batch) == 0 {
			return
		}
		for _, e := range out {
			m.tail.Del(e.hash)
		}
		for _, e := range batch {
			for range e.used.Load() { // ristretto has not seen these look-ups
				m.tail.Get(e.hash)
			}
		}
		for _, e := range batch {
			m.tail.Set(e.hash, e, e.size)
		}
		m.tail.Wait()
		progress = m.settle(out, batch) < before || len(out) > 0
	}
}

// takeOldestLocked takes a batch out of the window's ring. Entries too large
// for ristretto go another round when popular and are dropped when not.
func (m *memory) takeOldestLocked() (batch []*entry) {
	var bytes int64
	for m.resident-bytes > m.handOverAt && len(batch) < handOverBatch {
		e := m.window.next
		if e == &m.window || bytes+e.size > m.residentMax/8 && len(batch) > 0 {
			break
		}
		if e.size > m.tailItemMax {
			if n := e.used.Load(); n > 0 {
				m.againLocked(e, n)
				continue
			}
			m.counts.evictions++
			m.releaseLocked(e)
			continue
		}
		e.unlink()
		e.where.Store(offered)
		bytes += e.size
		batch = append(batch, e)
	}
	return batch
}

// settle does the accounts after ristretto has had its say. An offered entry
// that is not found there was refused: it stays while it is popular. It
// returns the bytes of the window.
func (m *memory) settle(out, batch []*entry) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range out {
		if e.where.Load() == doomed {
			m.tailed -= e.size
			e.where.Store(gone)
		}
	}
	for _, e := range batch {
		kept, _ := m.tail.Get(e.hash)
		switch {
		case e.where.Load() == gone: // replaced or invalidated while offered
			m.resident -= e.size
			if kept == e {
				m.tailed += e.size
				e.where.Store(doomed)
				m.doomed = append(m.doomed, e)
			}
		case kept == e:
			m.resident -= e.size
			m.tailed += e.size
			m.counts.handedOver++
			e.used.Store(0)
			e.where.Store(inTail)
		default:
			m.refusedLocked(e)
		}
	}
	return m.resident
}

func (m *memory) refusedLocked(e *entry) {
	m.counts.refused++
	if n := e.used.Load(); n > 0 {
		e.used.Store(n / 2)
		m.pushLocked(e)
		return
	}
	m.resident -= e.size
	m.counts.evictions++
	e.where.Store(gone)
	m.objects -= int64(len(e.variants))
	m.index.remove(e)
}

// evicted is called by ristretto when it has let go of e. What is only offered
// is settle's business.
func (m *memory) evicted(e *entry) {
	if e == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.where.Load() {
	case inTail:
		m.tailed -= e.size
		m.counts.evictions++
		e.where.Store(gone)
		m.objects -= int64(len(e.variants))
		m.index.remove(e)
	case doomed:
		m.tailed -= e.size
		e.where.Store(gone)
	}
}
