package disk

import "math/rand/v2"

// Who goes when room is short: of samplesMax records at random the one that
// has not been asked for the longest, where each use, up to 15, makes a record
// look that much younger (idle time divided by uses + 1). That is close to
// LRU with a memory for what was popular, needs no list, costs nothing per
// hit but two bytes in memory, and writes nothing. After a restart a record is
// as young as its storing.
const samplesMax = 24

// probesMax bounds how many directories a store with few records is sampled
// in, once one was found.
const probesMax = 512

// sparedMax bounds how many records that are used elsewhere one eviction
// passes over.
const sparedMax = 32

// makeRoom evicts until the accounts are within the budget, and reports
// whether they are.
func (s *Store) makeRoom() bool {
	if s.units.Load() <= s.budget {
		return true
	}
	if s.gate.isShut() {
		return false // it is another's to keep house
	}
	s.room.Lock()
	defer s.room.Unlock()
	for s.units.Load() > s.budget {
		if !s.evictOne() {
			return false
		}
	}
	return true
}

// evictOne evicts a record; false when there is none.
func (s *Store) evictOne() bool {
	for spared := 0; ; spared++ {
		k, ok := s.victim()
		if !ok {
			return false
		}
		if spared < sparedMax && s.inUse != nil && s.isInUse(&k) {
			s.counts.spared.Add(1)
			s.touch(&k)
			continue
		}
		n, _ := s.remove(k.key, func(_ uint32, seq uint64) bool { return seq == k.seq })
		s.counts.evicted.Add(uint64(n))
		return true
	}
}

// isInUse asks for a record's key, which only its file knows.
func (s *Store) isInUse(k *slot) bool {
	r, err := s.read(k)
	if err != nil {
		return false
	}
	defer r.Release()
	return s.inUse(r.Key)
}

func (s *Store) touch(k *slot) {
	sh := &s.shards[shardOf(k.key)]
	sh.mu.Lock()
	if i := sh.findLocked(k.key, k.seq); i >= 0 {
		sh.slots[i].touch()
	}
	sh.mu.Unlock()
}

// victim samples records.
func (s *Store) victim() (worst slot, ok bool) {
	now := nowSeconds()
	samples, begin := 0, rand.IntN(shards)
	var worstAge uint64
	for n := 0; n < shards && samples < samplesMax && (n < probesMax || !ok); n++ {
		sh := &s.shards[(begin+n)%shards]
		sh.mu.Lock()
		if sh.count > 0 {
			at, here := rand.IntN(len(sh.slots)), 0
			for i := range sh.slots {
				k := &sh.slots[(at+i)&(len(sh.slots)-1)]
				if !k.live {
					continue
				}
				age := uint64(max(0, int64(now)-int64(k.used))+1) * 16 / uint64(k.uses+1)
				if !ok || age > worstAge || age == worstAge && k.seq < worst.seq {
					worst, worstAge, ok = *k, age, true
				}
				samples++
				if here++; here == 4 {
					break
				}
			}
		}
		sh.mu.Unlock()
	}
	return worst, ok
}
