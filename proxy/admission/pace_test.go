package admission

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// refusals returns the RetryAfter of n callers that find the queue full.
func refusals(t *testing.T, l *Limiter, n int) (least, most time.Duration, different int) {
	t.Helper()
	seen := map[time.Duration]bool{}
	for range n {
		var busy *Busy
		if err := l.Acquire(t.Context()); !errors.As(err, &busy) {
			t.Fatalf("Acquire = %v, want *Busy", err)
		}
		if least == 0 || busy.RetryAfter < least {
			least = busy.RetryAfter
		}
		most = max(most, busy.RetryAfter)
		seen[busy.RetryAfter] = true
	}
	return least, most, len(seen)
}

// busyLimiter returns a limiter of one place with waiters callers queued, that
// has served one caller each interval for ten seconds.
func busyLimiter(t *testing.T, waiters int, interval time.Duration) *Limiter {
	served := int(10 * time.Second / interval)
	l := New(1, waiters+served, time.Hour)
	mustAcquire(t, l)
	for range waiters + served {
		go func() { _ = l.Acquire(context.Background()) }() // the test's own ends before its Cleanup
	}
	synctest.Wait()
	for range served {
		time.Sleep(interval)
		l.Release()
	}
	l.Resize(1, 0, time.Hour)
	t.Cleanup(func() {
		for range waiters + 1 {
			l.Release()
		}
		synctest.Wait()
	})
	return l
}

func TestRetryAfterFollowsTheDrainTime(t *testing.T) {
	for _, c := range []struct {
		name        string
		waiters     int
		interval    time.Duration
		least, most time.Duration
	}{
		{"10 waiting, 100 a second: the least there is", 10, 10 * time.Millisecond, time.Second, 2 * time.Second},
		{"49 waiting, 10 a second: 5 s", 49, 100 * time.Millisecond, 5 * time.Second, 10 * time.Second},
		{"49 waiting, 5 a second: 10 s", 49, 200 * time.Millisecond, 10 * time.Second, 20 * time.Second},
		{"999 waiting, 1 a second: the most there is", 999, time.Second, 30 * time.Second, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := busyLimiter(t, c.waiters, c.interval)
				least, most, different := refusals(t, l, 500)
				// A twentieth for the edges of the measuring window.
				if least < c.least*19/20 || most > c.most*21/20 {
					t.Errorf("RetryAfter from %v to %v, want within %v and %v", least, most, c.least, c.most)
				}
				if spread := most - least; spread < (c.most-c.least)*8/10 || different < 450 {
					t.Errorf("500 refusals spread over %v with %d different times, want nearly %v and all different",
						spread, different, c.most-c.least)
				}
			})
		})
	}
}

func TestRetryAfterGrowsWhileTheOriginIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1, 0, time.Minute)
		mustAcquire(t, l)
		if least, most, _ := refusals(t, l, 100); least < time.Second || most >= 2*time.Second {
			t.Errorf("RetryAfter from %v to %v with nothing known, want 1s to 2s", least, most)
		}
		time.Sleep(10 * time.Second)
		if least, most, _ := refusals(t, l, 100); least < 10*time.Second || most > 20*time.Second {
			t.Errorf("RetryAfter from %v to %v after 10 s without a release, want 10s to 20s", least, most)
		}
		time.Sleep(time.Hour)
		if least, most, _ := refusals(t, l, 100); least < 30*time.Second || most > time.Minute {
			t.Errorf("RetryAfter from %v to %v after an hour without a release, want 30s to 1m", least, most)
		}
	})
}

func TestFreeTimeDoesNotCountAsSlowness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1, 0, time.Minute)
		for range 100 { // each place is held 100 ms, once in ten seconds
			mustAcquire(t, l)
			time.Sleep(100 * time.Millisecond)
			l.Release()
			time.Sleep(10 * time.Second)
		}
		mustAcquire(t, l)
		if _, most, _ := refusals(t, l, 100); most > 2*time.Second {
			t.Errorf("RetryAfter up to %v behind one place of 100 ms, want at most 2s", most)
		}
	})
}
