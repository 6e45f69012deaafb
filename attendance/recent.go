package attendance

import (
	"sync"
	"sync/atomic"
)

const (
	// rememberedMs is how long a refused press and an attempt are remembered:
	// long enough to sit out a queue at the bell, shorter than any period.
	rememberedMs = 15 * 60 * 1000

	recentShards = 16
)

// recent remembers the moment at which something was first seen, for
// rememberedMs, at most 2*max of them in all: two generations, of which the
// older goes when the younger is full or rememberedMs old. Digests are keyed
// hashes, so nobody can aim at another's.
type recent struct {
	max    int          // per generation and shard
	count  atomic.Int64 // entries in all; 0 lets get return without a lock
	shards [recentShards]struct {
		mu         sync.Mutex // guards what follows
		young, old map[uint64]int64
		turnedMs   int64 // when young was empty
	}
}

func newRecent(maxEntries int) *recent {
	return &recent{max: max(1, maxEntries/recentShards)}
}

// get returns when digest was first seen, if that is remembered.
func (r *recent) get(digest uint64, nowMs int64) (ms int64, ok bool) {
	if r.count.Load() == 0 {
		return 0, false
	}
	s := &r.shards[digest%recentShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	ms, ok = s.young[digest]
	if !ok {
		ms, ok = s.old[digest]
	}
	return ms, ok && ms <= nowMs && nowMs-ms <= rememberedMs
}

// put remembers that digest was first seen at ms, unless an earlier moment is
// remembered already.
func (r *recent) put(digest uint64, ms, nowMs int64) {
	s := &r.shards[digest%recentShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.young) >= r.max || nowMs-s.turnedMs > rememberedMs || nowMs < s.turnedMs {
		r.count.Add(-int64(len(s.old)))
		s.old, s.young, s.turnedMs = s.young, nil, nowMs
	}
	for _, gen := range [...]map[uint64]int64{s.young, s.old} {
		if seen, ok := gen[digest]; ok && seen <= ms && nowMs-seen <= rememberedMs {
			return
		}
	}
	if s.young == nil {
		s.young = make(map[uint64]int64)
	}
	before := len(s.young)
	s.young[digest] = ms
	r.count.Add(int64(len(s.young) - before))
}
