package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultSessions is how many credentials a verifier remembers unless told
// otherwise: a quarter of a million at about 300 bytes are 80 MB.
const DefaultSessions = 1 << 18

// knownShards keeps requests on many cores from meeting at one lock.
const knownShards = 64

// known remembers what became of credentials, by digest, up to a bound. When it
// is full, who ends soonest among a few gives way. Nothing in it can be turned
// into a credential.
type known struct {
	salt   [16]byte // digests are of this process alone
	max    int      // entries of one shard
	shards [knownShards]knownShard
}

type knownShard struct {
	mu      sync.RWMutex // guards entries
	entries map[digest]entry
	warm    atomic.Uint64
	_       [24]byte
}

// digest is SHA-256 over the salt and a credential: short enough to keep, long
// enough that nobody makes two credentials share one.
type digest [sha256.Size]byte

// entry is what is known of a credential.
type entry struct {
	person  *Person  // nil: it is refused
	refusal *Refusal // why, when person is nil
	epoch   uint32   // of the keys it was verified with
	until   int64    // unix ms: good before that
	stale   int64    // unix ms: good before that while nobody can be asked
}

func newKnown(sessions int) *known {
	if sessions <= 0 {
		sessions = DefaultSessions
	}
	k := &known{max: max(1, sessions/knownShards)}
	_, _ = rand.Read(k.salt[:]) // never fails (crypto/rand)
	for i := range k.shards {
		k.shards[i].entries = make(map[digest]entry)
	}
	return k
}

// scratch is where parts of a credential are put together. It is cleared
// before it is given back.
type scratch struct{ buf []byte }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// begin returns a scratch that holds the salt.
func (k *known) begin() *scratch {
	s := scratches.Get().(*scratch)
	s.buf = append(s.buf[:0], k.salt[:]...)
	return s
}

// add appends a part with its length, so that no two lists of parts are alike.
func (s *scratch) add(part []byte) {
	s.buf = binary.LittleEndian.AppendUint32(s.buf, uint32(len(part)))
	s.buf = append(s.buf, part...)
}

// end returns the digest and gives the scratch back.
func (s *scratch) end() digest {
	d := digest(sha256.Sum256(s.buf))
	clear(s.buf)
	scratches.Put(s)
	return d
}

// digestOf is the digest of a credential in one piece.
func (k *known) digestOf(credential []byte) digest {
	s := k.begin()
	s.add(credential)
	return s.end()
}

func (k *known) shard(d *digest) *knownShard { return &k.shards[d[0]%knownShards] }

// get returns what is known, however old it is.
func (k *known) get(d *digest) (entry, bool) {
	s := k.shard(d)
	s.mu.RLock()
	e, ok := s.entries[*d]
	s.mu.RUnlock()
	return e, ok
}

// countWarm notes that an entry answered.
func (k *known) countWarm(d *digest) { k.shard(d).warm.Add(1) }

// evictAmong is how many entries are looked at for one to give way: the map
// hands them out in no order, so few are enough.
const evictAmong = 8

// put remembers e.
func (k *known) put(d digest, e entry) {
	s := k.shard(&d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.entries[d]; !there && len(s.entries) >= k.max {
		s.evictLocked()
	}
	s.entries[d] = e
}

func (s *knownShard) evictLocked() {
	var victim digest
	soonest, looked := int64(0), 0
	for d, e := range s.entries {
		if end := max(e.until, e.stale); looked == 0 || end < soonest {
			victim, soonest = d, end
		}
		if looked++; looked == evictAmong {
			break
		}
	}
	delete(s.entries, victim)
}

// sweep forgets what has ended.
func (k *known) sweep(now time.Time) {
	ms := now.UnixMilli()
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		for d, e := range s.entries {
			if max(e.until, e.stale) <= ms {
				delete(s.entries, d)
			}
		}
		s.mu.Unlock()
	}
}

func (k *known) stats() (n int, warm uint64) {
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.RLock()
		n += len(s.entries)
		s.mu.RUnlock()
		warm += s.warm.Load()
	}
	return n, warm
}

// sweepEvery is how often ended sessions are forgotten.
const sweepEvery = time.Minute

// counts are what every verifier counts.
type counts struct {
	verified, missing, invalid, down atomic.Uint64
}

// refused counts a refusal and returns it as an error.
func (c *counts) refused(r *Refusal) error {
	switch {
	case r == errNone:
		c.missing.Add(1)
	case r.Status == 503:
		c.down.Add(1)
	default:
		c.invalid.Add(1)
	}
	return r
}

func (c *counts) stats(kind string, k *known) Stats {
	s := Stats{Kind: kind, Verified: c.verified.Load(), Missing: c.missing.Load(), Invalid: c.invalid.Load(), Down: c.down.Load()}
	s.Known, s.Warm = k.stats()
	return s
}
