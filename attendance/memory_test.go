//go:build !race

// The race detector keeps memory of its own and empties pools at random.

package attendance

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"firstbell/attendance/timetable"
)

// A million students and one period take at most 100 MB, and seven periods 400.
func TestRollMemory(t *testing.T) {
	for _, c := range []struct {
		keys int
		most float64 // bytes
	}{{1_000_000, 100e6}, {7_000_000, 400e6}} {
		t.Run(fmt.Sprint(c.keys), func(t *testing.T) { rollMemory(t, c.keys, c.most) })
	}
}

func rollMemory(t *testing.T, keys int, most float64) {
	const classes = 40_000
	var r roll
	before := heap()
	d := r.day(timetable.Date{Year: 2026, Month: 5, Day: 4})
	e := sampleEvent()
	names := make([]string, classes)
	for n := range names {
		names[n] = fmt.Sprint("class ", n)
	}
	random := rand.New(rand.NewPCG(1, 2)) // as good as an HMAC, and quicker
	for n := range keys {
		binary.LittleEndian.PutUint64(e.ID[:], random.Uint64())
		binary.LittleEndian.PutUint64(e.ID[8:], random.Uint64())
		e.Class = names[n%classes]
		d.restore(&e)
	}
	used := float64(heap() - before)
	t.Logf("%.1f MB, %.1f bytes per key", used/1e6, used/float64(keys))
	if used > most {
		t.Errorf("%d keys take %.1f MB, want at most %.0f", keys, used/1e6, most/1e6)
	}
	if got := r.len(); got != keys {
		t.Errorf("got %d keys, want %d", got, keys)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestTakeAllocatesNothingForADurableKey(t *testing.T) {
	r := mustNew(t, Config{Log: &nullLog{}, Secret: mustSecret(t)})
	stop := run(t, r)
	p := press("a")
	take(t, r, p)
	if n := testing.AllocsPerRun(200, func() { r.Take(t.Context(), p) }); n > 0 {
		t.Errorf("got %v allocations, want none", n)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
