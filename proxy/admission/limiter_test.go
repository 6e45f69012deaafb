package admission

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// mustAcquire takes a place that is known to be free.
func mustAcquire(t *testing.T, l *Limiter) {
	t.Helper()
	if err := l.Acquire(t.Context()); err != nil {
		t.Fatalf("Acquire with a free place = %v, want nil", err)
	}
}

// enqueue starts an Acquire and returns once it waits; its result comes on the
// channel.
func enqueue(ctx context.Context, l *Limiter) <-chan error {
	got := make(chan error, 1)
	go func() { got <- l.Acquire(ctx) }()
	synctest.Wait()
	return got
}

func wantStats(t *testing.T, l *Limiter, want Stats) {
	t.Helper()
	if got := l.Stats(); got != want {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
}

func TestPlacesGoInTheOrderCallersCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(2, 10, time.Minute)
		mustAcquire(t, l)
		mustAcquire(t, l)
		order := make(chan int, 10)
		for i := range 10 {
			go func() {
				if err := l.Acquire(t.Context()); err != nil {
					t.Errorf("caller %d: Acquire = %v, want nil", i, err)
				}
				order <- i
			}()
			synctest.Wait()
		}
		for want := range 10 {
			l.Release()
			if got := <-order; got != want {
				t.Errorf("admitted caller %d, want %d", got, want)
			}
		}
		wantStats(t, l, Stats{Max: 2, InUse: 2, Admitted: 12})
	})
}

func TestNewcomersDoNotOvertakeTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1, 1, time.Minute)
		mustAcquire(t, l)
		first := enqueue(t.Context(), l)
		l.Release() // the place is the waiter's from here on, although it has not run yet
		var busy *Busy
		l.Resize(1, 0, time.Minute)
		if err := l.Acquire(t.Context()); !errors.As(err, &busy) {
			t.Errorf("a newcomer's Acquire = %v, want *Busy", err)
		}
		if err := <-first; err != nil {
			t.Errorf("the waiter's Acquire = %v, want nil", err)
		}
	})
}

func TestAFullQueueRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1, 2, time.Minute)
		mustAcquire(t, l)
		enqueue(t.Context(), l)
		enqueue(t.Context(), l)
		start := time.Now()
		var busy *Busy
		if err := l.Acquire(t.Context()); !errors.As(err, &busy) || busy.Waited {
			t.Errorf("Acquire = %v, want *Busy without having waited", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the refusal took %v, want 0", took)
		}
		wantStats(t, l, Stats{Max: 1, InUse: 1, Waiting: 2, Admitted: 1, Refused: 1})
		l.Release()
		l.Release()
		l.Release()
	})
}

func TestTheWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1, 2, 3*time.Second)
		mustAcquire(t, l)
		start := time.Now()
		err := l.Acquire(t.Context())
		var busy *Busy
		if !errors.As(err, &busy) || !busy.Waited || time.Since(start) != 3*time.Second {
			t.Errorf("Acquire = %v after %v, want *Busy after waiting 3s", err, time.Since(start))
		}
		wantStats(t, l, Stats{Max: 1, InUse: 1, Admitted: 1, TimedOut: 1})
		l.Release()
		mustAcquire(t, l)
	})
}

func TestNobodyWaitsWithoutAQueue(t *testing.T) {
	for name, l := range map[string]*Limiter{
		"no queue": New(1, 0, time.Minute), "no wait": New(1, 10, 0), "negative": New(-1, -1, -1),
	} {
		mustAcquire(t, l)
		var busy *Busy
		if err := l.Acquire(t.Context()); !errors.As(err, &busy) {
			t.Errorf("%s: Acquire = %v, want *Busy", name, err)
		}
	}
}

func TestACancelledWaiterLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1, 2, time.Minute)
		mustAcquire(t, l)
		ctx, cancel := context.WithCancel(t.Context())
		first := enqueue(ctx, l)
		second := enqueue(t.Context(), l)
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled waiter's Acquire = %v, want context.Canceled", err)
		}
		l.Release()
		if err := <-second; err != nil {
			t.Errorf("the next waiter's Acquire = %v, want nil", err)
		}
		if err := l.Acquire(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Acquire with a cancelled context = %v, want context.Canceled", err)
		}
		wantStats(t, l, Stats{Max: 1, InUse: 1, Admitted: 2, Cancelled: 2})
	})
}

func TestAPlaceHandedToACancelledWaiterIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1, 2, time.Minute)
		mustAcquire(t, l)
		ctx, cancel := context.WithCancel(t.Context())
		w := &waiter{admitted: make(chan struct{})} // as Acquire would, but it has yet to wake up
		l.waiting.push(w)
		second := enqueue(t.Context(), l)
		l.Release()
		cancel()
		if err := l.leave(ctx, w); !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled waiter got %v, want context.Canceled", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the next waiter's Acquire = %v, want nil", err)
		}
		wantStats(t, l, Stats{Max: 1, InUse: 1, Admitted: 2, Cancelled: 1})
	})
}

func TestCancelAndReleaseAtOnceLoseNoPlace(t *testing.T) {
	for i := range 200 {
		synctest.Test(t, func(t *testing.T) {
			l := New(1, 2, time.Minute)
			mustAcquire(t, l)
			ctx, cancel := context.WithCancel(t.Context())
			first := enqueue(ctx, l)
			second := enqueue(t.Context(), l)
			if i%2 == 0 {
				l.Release()
				cancel()
			} else {
				cancel()
				l.Release()
			}
			if err := <-first; err == nil {
				l.Release()
			}
			if err := <-second; err != nil {
				t.Errorf("the next waiter's Acquire = %v, want nil", err)
			}
			l.Release()
			if got := l.Stats(); got.InUse != 0 || got.Admitted+got.Cancelled != 3 {
				t.Errorf("Stats = %+v, want no place in use, 3 callers accounted for", got)
			}
		})
	}
}

func TestAPlaceHandedOverAtTheLastMomentIsKept(t *testing.T) {
	for range 100 { // timer and place come at the same instant
		synctest.Test(t, func(t *testing.T) {
			l := New(1, 1, time.Second)
			mustAcquire(t, l)
			got := enqueue(t.Context(), l)
			time.Sleep(time.Second)
			l.Release()
			err := <-got
			if inUse := l.Stats().InUse; (err == nil) != (inUse == 1) {
				t.Fatalf("Acquire = %v with %d places in use, want both or neither", err, inUse)
			}
		})
	}
}

func TestResizeActsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1, 5, time.Minute)
		mustAcquire(t, l)
		a, b, c := enqueue(t.Context(), l), enqueue(t.Context(), l), enqueue(t.Context(), l)
		l.Resize(3, 5, time.Minute)
		if err := errors.Join(<-a, <-b); err != nil {
			t.Errorf("waiters after two places more: %v, want nil", err)
		}
		wantStats(t, l, Stats{Max: 3, InUse: 3, Waiting: 1, Admitted: 3})

		l.Resize(1, 5, time.Minute)
		l.Release()
		l.Release()
		synctest.Wait()
		wantStats(t, l, Stats{Max: 1, InUse: 1, Waiting: 1, Admitted: 3})
		l.Release()
		if err := <-c; err != nil {
			t.Errorf("the last waiter's Acquire = %v, want nil", err)
		}
	})
}

func TestReleaseWithoutAPlacePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Release of a place nobody holds did not panic")
		}
	}()
	New(1, 0, 0).Release()
}

// TestNeverMoreInUseThanMax lets callers come, leave, give up and work at
// random while the limits move, and counts for itself.
func TestNeverMoreInUseThanMax(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 9))
			limit := 1 + rnd.IntN(8)
			l := New(limit, 30, 200*time.Millisecond)
			var inUse atomic.Int64
			var wg sync.WaitGroup
			for range 300 {
				work, patience := rnd.IntN(20), 1+rnd.IntN(300)
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(patience)*time.Millisecond)
					defer cancel()
					if l.Acquire(ctx) != nil {
						return
					}
					if n := inUse.Add(1); n > 8 {
						t.Errorf("seed %d: %d places in use, want at most 8", seed, n)
					}
					time.Sleep(time.Duration(work) * time.Millisecond)
					inUse.Add(-1)
					l.Release()
				})
				if rnd.IntN(3) == 0 {
					time.Sleep(time.Duration(rnd.IntN(5)) * time.Millisecond)
				}
				if rnd.IntN(10) == 0 {
					l.Resize(1+rnd.IntN(8), 30, 200*time.Millisecond)
				}
				if st := l.Stats(); st.Waiting > 30 || st.Waiting > 0 && st.InUse < st.Max {
					t.Errorf("seed %d: %+v: somebody waits beside a free place, or too many wait", seed, st)
				}
			}
			wg.Wait()
			st := l.Stats()
			if st.InUse != 0 || st.Waiting != 0 || st.Admitted+st.Refused+st.TimedOut+st.Cancelled != 300 {
				t.Errorf("seed %d: at the end %+v, want nobody left of 300", seed, st)
			}
		})
	}
}

// TestManyAtOnce is the same on real threads, for the race detector.
func TestManyAtOnce(t *testing.T) {
	l := New(3, 1000, time.Minute)
	var inUse atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 100 {
				if err := l.Acquire(t.Context()); err != nil {
					t.Errorf("Acquire = %v, want nil", err)
					return
				}
				if n := inUse.Add(1); n > 3 {
					t.Errorf("%d places in use, want at most 3", n)
				}
				inUse.Add(-1)
				l.Release()
			}
		})
	}
	wg.Wait()
	wantStats(t, l, Stats{Max: 3, Admitted: 5000})
}

func TestAcquireWithoutAQueueDoesNotAllocate(t *testing.T) {
	l := New(2, 1, time.Second)
	ctx := t.Context()
	mustAcquire(t, l) // so that the next one takes the last place, which is timed
	if n := testing.AllocsPerRun(100, func() {
		if l.Acquire(ctx) == nil {
			l.Release()
		}
	}); n != 0 {
		t.Errorf("Acquire and Release allocate %v times, want 0", n)
	}
}

func BenchmarkAcquireRelease(b *testing.B) {
	l := New(1000, 0, 0)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if l.Acquire(ctx) == nil {
				l.Release()
			}
		}
	})
}
