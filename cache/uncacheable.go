package cache

import (
	"sync/atomic"
	"time"
)

// uncacheable remembers keys whose responses could not be shared. It is
// advice about waiting for each other, so a slot holds a 32-bit part of the
// hash only: a wrong answer, once in a billion, costs a fetch and never
// correctness.
type uncacheable struct {
	slots [uncacheableSets * uncacheableWays]atomic.Uint64 // part of the hash << 32 | Unix second of its end
}

const (
	uncacheableSets = 1 << 14
	uncacheableWays = 4
)

// set returns the slots that the hash may be in, and what marks it there.
func (u *uncacheable) set(hash uint64) (slots []atomic.Uint64, mark uint64) {
	at := hash % uncacheableSets * uncacheableWays
	return u.slots[at : at+uncacheableWays], hash >> 32 << 32
}

func (u *uncacheable) has(hash uint64, now time.Time) bool {
	slots, mark := u.set(hash)
	for i := range slots {
		v := slots[i].Load()
		if v&^0xffffffff == mark && v != 0 && int64(v&0xffffffff) > now.Unix() {
			return true
		}
	}
	return false
}

// add remembers the hash for d, rounded up to seconds, in its own slot or that
// of the soonest to end.
func (u *uncacheable) add(hash uint64, now time.Time, d time.Duration) {
	until := uint64(now.Add(d+time.Second-1).Unix()) & 0xffffffff
	slots, mark := u.set(hash)
	to := &slots[0]
	for i := range slots {
		v := slots[i].Load()
		if v&^0xffffffff == mark {
			to = &slots[i]
			break
		}
		if v&0xffffffff < to.Load()&0xffffffff {
			to = &slots[i]
		}
	}
	to.Store(mark | until)
}

func (u *uncacheable) forget(hash uint64) {
	slots, mark := u.set(hash)
	for i := range slots {
		if v := slots[i].Load(); v != 0 && v&^0xffffffff == mark {
			slots[i].CompareAndSwap(v, 0)
		}
	}
}
