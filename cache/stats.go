package cache

import (
	"math/rand/v2"
	"sync/atomic"
)

// counterCells spread the counting of look-ups, so that cores do not fight for
// one cache line. 64 are more than the cores of a machine that schools buy.
const counterCells = 64

// lookupCounts is one cell: 6 counters and padding to 128 bytes, the unit in
// which processors fetch.
type lookupCounts struct {
	hits, mainHits, stale, misses, bypasses, uncacheable atomic.Uint64

	_ [80]byte
}

func (c *Cache) count(f *Found) {
	cell := &c.lookups[rand.Uint32()%counterCells]
	if f.inMain && (f.Outcome == Hit || f.Outcome == Stale) {
		cell.mainHits.Add(1)
	}
	switch f.Outcome {
	case Hit:
		cell.hits.Add(1)
	case Stale:
		cell.stale.Add(1)
	case Miss:
		cell.misses.Add(1)
		if f.Uncacheable {
			cell.uncacheable.Add(1)
		}
	case Bypass:
		cell.bypasses.Add(1)
	}
}

// Stats are counters since New, and the gauges Bytes and Objects.
type Stats struct {
	Hits        uint64 // fresh
	MainHits    uint64 // of Hits and StaleHits, those of entries that had proved popular
	StaleHits   uint64
	Misses      uint64
	Uncacheable uint64 // of Misses, those known not to be shareable
	Bypasses    uint64

	Puts        uint64
	PutsRefused uint64 // too large, or an error in the place of something better
	Learnt      uint64 // MarkUncacheable
	Purges      uint64 // selectors purged

	Evictions uint64 // entries that the budget pushed out
	Kept      uint64 // entries that went from the window to main
	Again     uint64 // entries that went to main as they had been dropped a short while ago

	WindowBytes, MainBytes, PinnedBytes int64 // accounted; together never above MaxBytes
	MaxBytes                            int64
	PagedBytes                          int64 // of bodies outside of the heap, those included that are about to go
	Objects                             int64 // stored responses

	PinnedKeys, PinnedMaxBytes int64
	PinsRefused                uint64 // pinned entries that found no room among the pinned

	Disk *DiskStats // nil without a disk
}

// Stats returns the counters. They are read one after the other, so sums may
// be off by what happened meanwhile.
func (c *Cache) Stats() Stats {
	s := Stats{Puts: c.puts.Load(), PutsRefused: c.refused.Load(), Learnt: c.learnt.Load(), Purges: c.purgeCount.Load()}
	for i := range c.lookups {
		cell := &c.lookups[i]
		s.Hits += cell.hits.Load()
		s.StaleHits += cell.stale.Load()
		s.MainHits += cell.mainHits.Load()
		s.Misses += cell.misses.Load()
		s.Uncacheable += cell.uncacheable.Load()
		s.Bypasses += cell.bypasses.Load()
	}
	s.Disk = c.tier.stats()
	m := c.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Evictions, s.Kept, s.Again, s.PinsRefused = m.counts.evictions, m.counts.kept, m.counts.again, m.counts.pinsRefused
	s.WindowBytes, s.MainBytes, s.PinnedBytes = m.window.bytes, m.main.bytes, m.pinned.bytes
	s.PagedBytes = c.pages.bytes.Load()
	s.MaxBytes, s.Objects = m.budget, m.objects
	s.PinnedKeys, s.PinnedMaxBytes = m.pinned.count, m.pins.Load().bytes
	return s
}

// Bytes is all that is accounted in memory.
func (s *Stats) Bytes() int64 { return s.WindowBytes + s.MainBytes + s.PinnedBytes }
