package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"firstbell/cache"
)

// load is an origin that counts what it is asked at once.
type load struct {
	now, most atomic.Int64
	asked     atomic.Int64
	down      atomic.Bool
	takes     time.Duration
	control   string
}

func (l *load) answer(w http.ResponseWriter, _ *http.Request) {
	l.asked.Add(1)
	n := l.now.Add(1)
	defer l.now.Add(-1)
	for most := l.most.Load(); n > most && !l.most.CompareAndSwap(most, n); most = l.most.Load() {
	}
	time.Sleep(l.takes)
	if l.down.Load() {
		w.WriteHeader(503)
		return
	}
	w.Header().Set("Cache-Control", l.control)
	w.Write([]byte("lesson"))
}

// askAll asks for every lesson at once and returns how many answers had the
// words in their Cache-Status, and how long the slowest took.
func (g *gate) askAll(lessons int, words string) (with int, slowest time.Duration) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range lessons {
		all.Go(func() {
			a := g.get(fmt.Sprint("/lessons/", i))
			mu.Lock()
			defer mu.Unlock()
			if a.body != "lesson" {
				g.t.Errorf("lesson %d: %d %q, %s", i, a.StatusCode, a.body, a.cacheStatus())
			}
			if strings.Contains(a.cacheStatus(), words) {
				with++
			}
			slowest = max(slowest, a.took)
		})
	}
	all.Wait()
	return with, slowest
}

func TestAnOutageIsServedStaleAndRecoveryIsNoHerd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const lessons = 100
		l := &load{takes: 100 * time.Millisecond, control: "max-age=60"}
		g := newGate(t, l.answer, cached(cache.Policy{StaleIfError: 2 * time.Hour}))
		g.askAll(lessons, "")
		l.down.Store(true)
		time.Sleep(2 * time.Minute)
		for range failuresMax {
			g.get("/lessons/0")
		}
		l.asked.Store(0)
		l.most.Store(0)
		for range 60 {
			with, slowest := g.askAll(lessons, "hit; ttl=-")
			if with != lessons || slowest > slack() {
				t.Fatalf("with the origin down %d of %d lessons are served stale at once, the slowest in %v", with, lessons, slowest)
			}
			time.Sleep(time.Second)
		}
		if asked, most := l.asked.Load(), l.most.Load(); asked > 61 || asked < 20 || most > 1 {
			t.Errorf("in a minute the origin was tried %d times, %d at once; want once a second or so, one at a time", asked, most)
		}

		l.down.Store(false)
		l.most.Store(0)
		seconds := 0
		for stale := lessons; stale > 0; seconds++ {
			if seconds > 300 {
				t.Fatalf("after %d s %d lessons are still stale", seconds, stale)
			}
			var slowest time.Duration
			if stale, slowest = g.askAll(lessons, "ttl=-"); slowest > slack() {
				t.Errorf("while the origin recovers somebody waits %v", slowest)
			}
			time.Sleep(50 * time.Millisecond)
			if seconds == 0 && l.most.Load() > 1 {
				t.Errorf("the first asked at once: %d, want 1", l.most.Load())
			}
		}
		if most := l.most.Load(); most > recoveryPlacesMax {
			t.Errorf("recovering, the origin was asked %d at once, want at most %d", most, recoveryPlacesMax)
		}
	})
}

func TestAnOutageLongerThanTheRouteAllowsIsAnError(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := &load{control: "max-age=60"}
		g := newGate(t, l.answer, cached(cache.Policy{StaleIfError: time.Hour}))
		g.get("/a")
		l.down.Store(true)
		time.Sleep(time.Minute + 59*time.Minute)
		for range 5 {
			if a := g.get("/a"); a.body != "lesson" || !strings.Contains(a.cacheStatus(), "stale-if-error") {
				t.Errorf("within the hour: %d, %s", a.StatusCode, a.cacheStatus())
			}
		}
		time.Sleep(time.Minute)
		if a := g.get("/a"); a.StatusCode != 503 {
			t.Errorf("after the hour: %d, want 503", a.StatusCode)
		}
	})
}

// One bad page says nothing about the others.
func TestOneFailingPageIsNoOutage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var asked atomic.Int64
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/bad" {
				w.WriteHeader(500)
				return
			}
			asked.Add(1)
			w.Header().Set("Cache-Control", "max-age=10")
			w.Write([]byte("lesson"))
		}, cached(cache.Policy{StaleIfError: time.Hour}))
		for range 10 {
			g.get("/bad")
			if a := g.get("/good"); strings.Contains(a.cacheStatus(), "stale") && a.Header.Get("Age") != "" && !strings.Contains(a.cacheStatus(), "fwd=stale") {
				t.Errorf("a page that is well is served stale: %s", a.cacheStatus())
			}
			time.Sleep(15 * time.Second)
		}
		if asked.Load() != 10 {
			t.Errorf("the good page was fetched %d times, want 10", asked.Load())
		}
	})
}

// Two hundred lessons are warmed in the same moment and asked for all the
// time: nobody waits for one, and the origin is never asked for many at once.
func TestWhatWasWarmedTogetherIsFreshenedOneByOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const lessons = 100
		l := &load{takes: 100 * time.Millisecond, control: "max-age=600"}
		g := newGate(t, l.answer, cached(cache.Policy{}))
		g.askAll(lessons, "")
		l.asked.Store(0)
		busiest := int64(0)
		for range 140 {
			before := l.asked.Load()
			with, slowest := g.askAll(lessons, "; hit")
			if with != lessons || slowest > slack() {
				t.Fatalf("%d of %d lessons are hits, the slowest took %v", with, lessons, slowest)
			}
			time.Sleep(5 * time.Second)
			busiest = max(busiest, l.asked.Load()-before)
		}
		if asked := l.asked.Load(); asked != lessons || busiest > lessons/3 {
			t.Errorf("the origin got %d fetches, %d in the busiest five seconds; want %d, spread", asked, busiest, lessons)
		}
	})
}

func TestWhatNobodyAsksForIsNotFreshened(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := &load{control: "max-age=600"}
		g := newGate(t, l.answer, cached(cache.Policy{}))
		g.get("/a")
		time.Sleep(599 * time.Second)
		g.get("/a") // one visit is not popular
		time.Sleep(time.Minute)
		if n := l.asked.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}
