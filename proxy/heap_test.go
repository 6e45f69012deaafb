package proxy

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

// watchHeap samples the live heap until the returned function is called, which
// returns by how much the largest was above what the heap held before.
func watchHeap(t *testing.T) func() uint64 {
	runtime.GC()
	runtime.GC() // what pools keep goes with the second
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var most uint64
		for {
			select {
			case <-stop:
				peak <- most
				return
			case <-tick.C:
				metrics.Read(sample)
				most = max(most, sample[0].Value.Uint64())
			}
		}
	}()
	return func() uint64 { close(stop); return max(<-peak, before) - before }
}
