package lms

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rush sends n requests at once and says how many were served, and how long the
// slowest of them took.
func rush(h *heart, n int, service time.Duration) (served int, slowest time.Duration) {
	began := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			err := h.beat(context.Background(), service)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				served++
				slowest = max(slowest, time.Since(began))
			}
		})
	}
	wg.Wait()
	return served, slowest
}

func TestHeartServesAFewAtATimeWithoutSlowingDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeart(Heart{Places: 10})
		served, slowest := rush(h, 10, 20*time.Millisecond)
		if served != 10 || slowest != 20*time.Millisecond {
			t.Errorf("10 requests at 10 places: %d served, slowest %v; want 10 in 20ms", served, slowest)
		}
	})
}

func TestHeartGetsSlowerWhenPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeart(Heart{Places: 10, Waiting: 80})
		served, slowest := rush(h, 40, 20*time.Millisecond)
		if served != 40 {
			t.Errorf("40 requests: %d served, want all", served)
		}
		if quiet := 80 * time.Millisecond; slowest <= quiet {
			t.Errorf("40 requests at 10 places took %v; want more than the %v that waiting alone explains", slowest, quiet)
		}
	})
}

func TestHeartRefusesWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeart(Heart{Places: 10, Waiting: 20})
		if served, _ := rush(h, 100, 20*time.Millisecond); served != 30 || h.falls != 0 {
			t.Errorf("100 at once: %d served, %d falls; want 30 and 0: a moment's rush is refused, no more", served, h.falls)
		}
	})
}

func TestHeartFallsWhenItStaysFullAndRecoversSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeart(Heart{Places: 10, Waiting: 20, Bears: time.Second, Down: 3 * time.Second, Recovery: 6 * time.Second})
		var wg sync.WaitGroup
		served := 0
		wg.Go(func() { served, _ = rush(h, 30, time.Minute) })
		synctest.Wait()
		for range 3 { // somebody knocks all the while
			if err := h.beat(t.Context(), time.Second); !errors.Is(err, errDown) {
				t.Errorf("a request to a full platform: %v, want %v", err, errDown)
			}
			time.Sleep(time.Second / 2)
		}
		wg.Wait()
		if h.falls != 1 || served != 0 {
			t.Errorf("%d falls, %d served of those inside; want 1, and 0: what is inside is cut off", h.falls, served)
		}
		if h.up(time.Now()) {
			t.Error("a fallen platform says it is up")
		}
		time.Sleep(3 * time.Second)
		if _, took := rush(h, 1, 20*time.Millisecond); took <= 25*time.Millisecond {
			t.Errorf("just after a fall a request took %v, want it to be weak: over 25ms", took)
		}
		time.Sleep(6 * time.Second)
		if _, took := rush(h, 1, 20*time.Millisecond); took != 20*time.Millisecond {
			t.Errorf("long after a fall a request took %v, want 20ms", took)
		}
		if n := h.insideNow(); n != 0 {
			t.Errorf("%d inside when all have left, want 0", n)
		}
	})
}

func TestHeartForgetsClientsThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeart(Heart{Places: 1})
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		if err := h.beat(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a client that left got %v, want %v", err, context.DeadlineExceeded)
		}
		if served, _ := rush(h, 1, time.Millisecond); served != 1 {
			t.Error("the place of a client that left was not free again")
		}
	})
}
