package admission

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func TestARateLetsABurstThroughAndThenItsPace(t *testing.T) {
	r := NewRates[string](1000)
	rate := Rate{Every: 100 * time.Millisecond, Burst: 5}
	let := func(from time.Time, every time.Duration, n int) (through int) {
		for i := range n {
			if _, ok := r.Take("a", rate, from.Add(time.Duration(i)*every)); ok {
				through++
			}
		}
		return through
	}
	if got := let(noon, 0, 20); got != 5 {
		t.Errorf("20 at once: got %d through, want the burst of 5", got)
	}
	if got := let(noon.Add(100*time.Millisecond), 10*time.Millisecond, 100); got != 10 {
		t.Errorf("100 within the next second: got %d through, want 10", got)
	}
	if got := let(noon.Add(time.Hour), 0, 20); got != 5 {
		t.Errorf("20 at once an hour later: got %d through, want the burst of 5", got)
	}
	if _, ok := r.Take("b", rate, noon); !ok {
		t.Error("another key: got no, want yes")
	}
	if _, refused := r.Stats(); refused != 15+90+15 {
		t.Errorf("got %d refused, want 120", refused)
	}
}

func TestWhoIsRefusedIsToldWhenAndNotAllTheSame(t *testing.T) {
	r := NewRates[string](1000)
	rate := Rate{Every: 5 * time.Second, Burst: 2}
	r.Take("a", rate, noon)
	r.Take("a", rate, noon)
	seen := map[time.Duration]bool{}
	for range 200 {
		wait, ok := r.Take("a", rate, noon)
		if ok || wait < 5*time.Second || wait >= 10*time.Second {
			t.Fatalf("got %v, %v; want no, and 5 s to 10 s", wait, ok)
		}
		seen[wait] = true
	}
	if len(seen) < 150 {
		t.Errorf("got %d different waits of 200, want nearly all", len(seen))
	}
	if _, ok := r.Take("a", rate, noon.Add(5*time.Second)); !ok {
		t.Error("after what was said: got no, want yes")
	}
	if wait, ok := r.Take("c", Rate{Every: time.Hour, Burst: 0}, noon); !ok {
		t.Errorf("a burst of 0: got no and %v, want one to go through", wait)
	}
	if wait, _ := r.Take("c", Rate{Every: time.Hour, Burst: 0}, noon); wait > time.Minute {
		t.Errorf("told to wait %v, want a minute at most", wait)
	}
}

// TestNoTableGrowsWithItsStrangers floods a table with keys; those that are
// behind keep being so.
func TestNoTableGrowsWithItsStrangers(t *testing.T) {
	r := NewRates[netip.Addr](3200)
	rate := Rate{Every: time.Second, Burst: 10}
	greedy := netip.MustParseAddr("192.0.2.1")
	through := 0
	for i := range 200_000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if _, ok := r.Take(a, rate, noon); !ok {
			t.Fatalf("stranger %d was refused", i)
		}
		if _, ok := r.Take(greedy, rate, noon); ok {
			through++
		}
	}
	if keys, _ := r.Stats(); keys > 3200 {
		t.Errorf("got %d keys, want 3200 at most", keys)
	}
	if through > 20 {
		t.Errorf("the greedy one got %d through, want its burst of 10, twice at most", through)
	}
}

func TestCountsBoundWhatAKeyHasAtOnce(t *testing.T) {
	c := NewCounts[string]()
	first, second := c.Enter("a", 2), c.Enter("a", 2)
	if !first || !second || c.Enter("a", 2) || !c.Enter("b", 2) {
		t.Error("want two of each")
	}
	c.Leave("a")
	if !c.Enter("a", 2) {
		t.Error("after one left: want room for one")
	}
	c.Leave("a")
	c.Leave("a")
	c.Leave("b")
	if keys, refused := c.Stats(); keys != 0 || refused != 1 {
		t.Errorf("got %d keys, %d refused; want 0 and 1", keys, refused)
	}
}

func TestCountsAndRatesHoldWithManyAtOnce(t *testing.T) {
	c, r := NewCounts[int](), NewRates[int](100)
	var now [4]atomic.Int64
	var through [4]atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				k := rand.IntN(4)
				if _, ok := r.Take(k, Rate{Every: time.Hour, Burst: 50}, noon); ok {
					through[k].Add(1)
				}
				if !c.Enter(k, 3) {
					continue
				}
				if n := now[k].Add(1); n > 3 {
					t.Errorf("key %d has %d, want 3 at most", k, n)
				}
				now[k].Add(-1)
				c.Leave(k)
			}
		})
	}
	wg.Wait()
	for k := range through {
		if got := through[k].Load(); got != 50 {
			t.Errorf("key %d: got %d through, want 50", k, got)
		}
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	r, c := NewRates[netip.Addr](100), NewCounts[netip.Addr]()
	a, rate := netip.MustParseAddr("2001:db8::1"), Rate{Every: time.Microsecond, Burst: 1000}
	if n := testing.AllocsPerRun(100, func() {
		r.Take(a, rate, noon)
		c.Enter(a, 1)
		c.Leave(a)
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkTakeManyKeys(b *testing.B) {
	r := NewRates[netip.Addr](64 << 10)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		n := rand.Uint32()
		for pb.Next() {
			n++
			r.Take(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), Rate{Every: time.Microsecond, Burst: 1000}, noon)
		}
	})
	if testing.Verbose() {
		keys, refused := r.Stats()
		b.Log(fmt.Sprint(keys, " keys, ", refused, " refused"))
	}
}
