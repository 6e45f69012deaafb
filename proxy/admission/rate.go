package admission

import (
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"time"
)

// rateShards keeps cores that count different keys apart.
const rateShards = 32

// Rates bounds how often each of many keys may do something: so many times a
// second in the long run, and a burst of them at once. All methods may be
// called at once from many goroutines.
//
// A key is remembered while it is behind its rate, and costs a time: when it
// will have done nothing too much (the generic cell rate algorithm). At most
// keysMax are remembered; beyond that the one of a few that has the least to
// wait for is forgotten, which lets it have its burst again and nobody else.
type Rates[K comparable] struct {
	seed   maphash.Seed
	shards [rateShards]rateShard[K]
	most   int // keys of a shard
}

type rateShard[K comparable] struct {
	mu sync.Mutex // guards below
	// clear is when, in nanoseconds since the epoch, a key will have used up
	// nothing of its burst; one that has is like one that is not there.
	clear   map[K]int64
	refused uint64
	_       [64]byte
}

// Rate is how often one key may do something. Burst is at least 1.
type Rate struct {
	Every time.Duration // between two; above 0
	Burst int
}

// NewRates returns Rates that remember at most keysMax keys, 32 at least.
func NewRates[K comparable](keysMax int) *Rates[K] {
	r := &Rates[K]{seed: maphash.MakeSeed(), most: max(1, keysMax/rateShards)}
	for i := range r.shards {
		r.shards[i].clear = make(map[K]int64)
	}
	return r
}

// Take reports whether the key may do it once more at now. If not, retryAfter is
// when to come back: not before it may, and spread over as much again, from a
// second to a minute. It allocates nothing but room in a table.
func (r *Rates[K]) Take(key K, rate Rate, now time.Time) (retryAfter time.Duration, ok bool) {
	s := &r.shards[maphash.Comparable(r.seed, key)%rateShards]
	at := now.UnixNano()
	s.mu.Lock()
	clear, known := s.clear[key]
	clear = max(clear, at)
	after := clear + int64(rate.Every)
	wait := time.Duration(after - at - int64(rate.Every)*int64(max(1, rate.Burst)))
	if wait > 0 {
		s.refused++
		s.mu.Unlock()
		wait = min(max(wait, retryAfterMin), retryAfterMax)
		return wait + rand.N(wait), false
	}
	if !known && len(s.clear) >= r.most {
		s.forgetLocked(at)
	}
	s.clear[key] = after
	s.mu.Unlock()
	return 0, true
}

// forgetLocked makes room for a key: it drops those of a few that are clear,
// and at least the one of them that will be soonest.
func (s *rateShard[K]) forgetLocked(at int64) {
	const few = 8
	var soonest K
	best, looked := int64(0), 0
	for k, clear := range s.clear { // begins anywhere
		if clear <= at {
			delete(s.clear, k)
			best = -1
		} else if best == 0 || best > clear {
			soonest, best = k, clear
		}
		if looked++; looked == few {
			break
		}
	}
	if best > 0 {
		delete(s.clear, soonest)
	}
}

// Stats returns how many keys are remembered, and how often Take said no.
func (r *Rates[K]) Stats() (keys int, refused uint64) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		keys += len(s.clear)
		refused += s.refused
		s.mu.Unlock()
	}
	return keys, refused
}

// Counts bounds how many of something each of many keys has at once. It
// remembers the keys that have any. All methods may be called at once from many
// goroutines.
type Counts[K comparable] struct {
	seed   maphash.Seed
	shards [rateShards]countShard[K]
}

type countShard[K comparable] struct {
	mu      sync.Mutex // guards below
	has     map[K]int
	refused uint64
	_       [64]byte
}

// NewCounts returns Counts of nothing.
func NewCounts[K comparable]() *Counts[K] {
	c := &Counts[K]{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].has = make(map[K]int)
	}
	return c
}

// Enter counts one more of the key and reports true, unless it has most of them.
func (c *Counts[K]) Enter(key K, most int) bool {
	s := &c.shards[maphash.Comparable(c.seed, key)%rateShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.has[key]
	if n >= most {
		s.refused++
		return false
	}
	s.has[key] = n + 1
	return true
}

// Leave takes back one Enter that reported true.
func (c *Counts[K]) Leave(key K) {
	s := &c.shards[maphash.Comparable(c.seed, key)%rateShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.has[key]; n > 1 {
		s.has[key] = n - 1
	} else {
		delete(s.has, key)
	}
}

// Stats returns how many keys have any, and how often Enter said no.
func (c *Counts[K]) Stats() (keys int, refused uint64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		keys += len(s.has)
		refused += s.refused
		s.mu.Unlock()
	}
	return keys, refused
}
