package cache

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// Whatever is set and removed, the index finds exactly what is there, also
// where all hashes crowd into few buckets.
func TestIndexFindsWhatIsThereAndNothingElse(t *testing.T) {
	for name, mask := range map[string]uint64{
		"spread":         ^uint64(0),
		"one shard":      ^uint64(indexShards - 1),
		"few buckets":    0xf000000000000f00,
		"one mark":       0x00000000000fff00,
		"equal but top":  0xff00000000000000,
		"equal but some": 0x0000ffff00000000,
	} {
		t.Run(name, func(t *testing.T) {
			var x index
			x.init()
			rnd := rand.New(rand.NewPCG(1, mask))
			there := map[uint64]*entry{}
			var known []uint64
			size := 3000
			if name != "spread" {
				size = 150 // long chains take their time
			}
			for range 5000 {
				hash := rnd.Uint64() & mask
				if len(known) > 0 && rnd.IntN(2) == 0 {
					hash = known[rnd.IntN(len(known))]
				}
				switch e := there[hash]; {
				case e != nil && rnd.IntN(2) == 0:
					x.remove(e)
					x.remove(e) // of no effect
					delete(there, hash)
				case len(there) < size:
					e = &entry{hash: hash}
					x.set(e)
					there[hash] = e
					known = append(known, hash)
				}
				probe := known[rnd.IntN(len(known))]
				if got := x.get(probe); got != there[probe] {
					t.Fatalf("get %x: %p, want %p", probe, got, there[probe])
				}
			}
			n := 0
			x.each(func(e *entry) {
				n++
				if there[e.hash] != e || x.get(e.hash) != e {
					t.Errorf("%x is in the index and should not be, or is not found", e.hash)
				}
			})
			if n != len(there) {
				t.Errorf("%d entries, want %d", n, len(there))
			}
		})
	}
}

// Readers without a lock find, at any moment, what was set before they began
// and is not removed.
func TestIndexIsReadWhileItGrowsAndShrinks(t *testing.T) {
	var x index
	x.init()
	var stays [64]*entry
	for i := range stays {
		stays[i] = &entry{hash: uint64(i) << 8} // crowded
		x.set(stays[i])
	}
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for i := 0; !done.Load(); i++ {
				if e := stays[i%len(stays)]; x.get(e.hash) != e {
					t.Errorf("%x is gone", e.hash)
					return
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(2, 2))
	for range 3 {
		var more []*entry
		for range 500 {
			e := &entry{hash: rnd.Uint64()&0xff0000000000ff00 | 1<<30}
			if x.get(e.hash) == nil {
				x.set(e)
				more = append(more, e)
			}
		}
		for _, e := range more {
			x.remove(e)
		}
	}
	done.Store(true)
	readers.Wait()
}
