//go:build !race

// The race detector keeps memory of its own and empties pools at random.

package attendance

import (
	"fmt"
	"runtime"
	"testing"

	"firstbell/attendance/timetable"
)

// A million students and one period take at most 100 MB.
func TestRollMemory(t *testing.T) {
	const keys, classes = 1 << 20, 40_000
	var r roll
	before := heap()
	d := r.day(timetable.Date{Year: 2026, Month: 5, Day: 4})
	e := sampleEvent()
	h := newHashers(Secret{}).get()
	for n := range keys {
		e.ID, _ = h.key("north", e.Date, "1", fmt.Sprint(n), false, "")
		e.Class = fmt.Sprint("class ", n%classes)
		d.restore(&e)
	}
	perKey := float64(heap()-before) / keys
	t.Logf("%.1f bytes per key", perKey)
	if perKey*1e6 > 100e6 {
		t.Errorf("got %.1f bytes per key, want at most 100", perKey)
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
