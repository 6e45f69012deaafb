package main

import (
	"context"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatLiesOutsideOfTheHeapGoesOffItsBound(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	const cacheBytes = 1 << 30
	for _, c := range []struct {
		name, setting string
		set, want     int64 // the limit that the setting means, and what is in force with nothing outside
	}{
		{"unset", "", before, cacheBytes*6/5 + 256<<20},
		{"GOMEMLIMIT", "3GiB", 3 << 30, 3 << 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", c.setting)
			debug.SetMemoryLimit(c.set)
			synctest.Test(t, func(t *testing.T) {
				var outside atomic.Int64
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- boundMemory(ctx, cacheBytes, outside.Load) }()
				for _, step := range []struct{ outside, off int64 }{{0, 0}, {500 << 20, 500 << 20}, {501 << 20, 500 << 20}, {20 << 20, 20 << 20}, {20 << 30, c.want - 64<<20}} {
					outside.Store(step.outside)
					time.Sleep(2 * time.Second)
					if got, want := debug.SetMemoryLimit(-1), c.want-step.off; got != want {
						t.Errorf("with %d MiB outside the limit is %d MiB, want %d", step.outside>>20, got>>20, want>>20)
					}
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
