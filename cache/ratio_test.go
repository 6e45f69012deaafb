package cache

import (
	"container/list"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/maypok86/otter/v2"
)

// lru is the simplest cache of all, as the floor that ours must not go below.
type lru struct {
	budget, used int64
	order        *list.List
	at           map[int]*list.Element
	size         func(key int) int64
}

func newLRU(budget int64, size func(int) int64) *lru {
	return &lru{budget: budget, order: list.New(), at: map[int]*list.Element{}, size: size}
}

func (l *lru) get(key int) bool {
	if e, ok := l.at[key]; ok {
		l.order.MoveToFront(e)
		return true
	}
	l.at[key] = l.order.PushFront(key)
	for l.used += l.size(key); l.used > l.budget; {
		last := l.order.Back()
		l.used -= l.size(last.Value.(int))
		delete(l.at, l.order.Remove(last).(int))
	}
	return false
}

// trace yields seeded keys: some are asked for far more often than others, and
// in the middle of the day others become the popular ones.
func trace(seed uint64, keys, requests int, yield func(key int)) {
	zipf := rand.NewZipf(rand.New(rand.NewPCG(seed, seed)), 1.02, 4, uint64(keys-1))
	for i := range requests {
		key := int(zipf.Uint64())
		if i > requests/2 {
			key = (key + keys/2) % keys
		}
		yield(key)
	}
}

func TestHitRatioIsNotBelowLRUAndCloseToOtter(t *testing.T) {
	if raceEnabled {
		t.Skip("without concurrency the race detector only makes it slow")
	}
	const keys, requests = 20_000, 150_000
	for _, test := range []struct {
		name   string
		budget int64
		sizes  func(key int) int // of the body
	}{
		{"pages of all sizes", 8 << 20, func(key int) int { return 500 + key*7919%12_000 }},
		{"little room", 2 << 20, func(key int) int { return 500 + key*7919%12_000 }},
		{"much room", 48 << 20, func(key int) int { return 500 + key*7919%12_000 }},
		{"pages and films", 8 << 20, func(key int) int { return 1000 + key%50/49*100_000 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCache(t, test.budget)
			sized := make([]int64, keys)
			for key := range sized {
				sized[key] = object(c, request(fmt.Sprint(key)), test.sizes(key)).size + entryBytes
			}
			size := func(key int) int64 { return sized[key] }
			oldest := newLRU(c.Stats().MaxBytes, size)
			other := otter.Must(&otter.Options[int, int]{
				MaximumWeight: uint64(c.Stats().MaxBytes),
				Weigher:       func(key, _ int) uint32 { return uint32(size(key)) },
				Executor:      func(f func()) { f() },
			})
			var ours, lrus, otters int
			trace(11, keys, requests, func(key int) {
				r := request(fmt.Sprint(key))
				if c.Lookup(r, &Policy{}, nine).Outcome == Hit {
					ours++
				} else {
					c.Put(object(c, r, test.sizes(key)))
				}
				if oldest.get(key) {
					lrus++
				}
				if _, ok := other.GetIfPresent(key); ok {
					otters++
				} else {
					other.Set(key, key)
				}
			})
			got, floor, peer := 100*float64(ours)/requests, 100*float64(lrus)/requests, 100*float64(otters)/requests
			t.Logf("hits: %.2f %%, an LRU has %.2f %%, otter %.2f %%", got, floor, peer)
			if got < floor {
				t.Errorf("hits: %.2f %%, want no less than an LRU's %.2f %%", got, floor)
			}
			if got < peer-3 {
				t.Errorf("hits: %.2f %%, want within 3 points of otter's %.2f %%", got, peer)
			}
			audit(t, c)
		})
	}
}
