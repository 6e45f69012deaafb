package proxy

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"firstbell/cache"
)

// herd sends the same request n times at once.
func herd(n int, one func(i int) *answer) []*answer {
	all := make([]*answer, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { all[i] = one(i) })
	}
	wg.Wait()
	return all
}

func lesson(w http.ResponseWriter, body string) {
	w.Header().Set("Cache-Control", "max-age=60")
	fmt.Fprint(w, body)
}

func TestAHundredClientsCostOneFetch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			lesson(w, "lesson 1")
		}, cached(cache.Policy{}))
		collapsed := 0
		for i, a := range herd(100, func(int) *answer { return g.get("/lessons/1") }) {
			if a.StatusCode != 200 || a.body != "lesson 1" || a.err != nil {
				t.Errorf("client %d: got %d %q, %v", i, a.StatusCode, a.body, a.err)
			}
			if a.took > 1010*time.Millisecond {
				t.Errorf("client %d waited %v, want no longer than the origin takes", i, a.took)
			}
			if strings.Contains(a.cacheStatus(), "; collapsed") {
				collapsed++
			}
		}
		if n := len(g.fetched()); n != 1 {
			t.Errorf("fetches: got %d, want 1", n)
		}
		if collapsed != 99 {
			t.Errorf("collapsed in Cache-Status: got %d, want 99", collapsed)
		}
		if a := g.get("/lessons/1"); !strings.HasPrefix(a.cacheStatus(), "firstbell; hit; ttl=") {
			t.Errorf("afterwards: Cache-Status %q, want a hit", a.cacheStatus())
		}
	})
}

func TestTheNextLookUpHitsWhenTheFlightHasLanded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) { lesson(w, r.RequestURI) }, cached(cache.Policy{}))
		for i := range 200 {
			path := fmt.Sprintf("/lessons/%d", i)
			herd(10, func(int) *answer { return g.get(path) })
		}
		if n := len(g.fetched()); n != 200 {
			t.Errorf("fetches of 200 lessons by 10 clients each: got %d, want 200", n)
		}
	})
}

func TestFirstBytesReachEveryClientAsTheyArrive(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, announced := range []bool{true, false} {
			g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				if announced {
					w.Header().Set("Content-Length", "20")
				}
				for range 4 {
					fmt.Fprint(w, "12345")
					w.(http.Flusher).Flush()
					time.Sleep(500 * time.Millisecond)
				}
			}, cached(cache.Policy{}))
			for i, a := range herd(10, func(i int) *answer {
				time.Sleep(time.Duration(i) * 20 * time.Millisecond)
				return g.get("/video")
			}) {
				if a.body != strings.Repeat("12345", 4) || a.err != nil {
					t.Errorf("client %d: got %q, %v", i, a.body, a.err)
				}
				if a.first > time.Millisecond {
					t.Errorf("announced %v: client %d saw its first byte after %v", announced, i, a.first)
				}
			}
			if n := len(g.fetched()); n != 1 {
				t.Errorf("fetches: got %d, want 1", n)
			}
		}
	})
}

func TestWhoCameFirstMayLeave(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "12345")
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
			fmt.Fprint(w, "67890")
		}, cached(cache.Policy{}))
		_, leave := g.begin("/l")
		arrive()
		time.AfterFunc(500*time.Millisecond, leave)
		for i, a := range herd(10, func(int) *answer { return g.get("/l") }) {
			if a.body != "1234567890" || a.took > 2010*time.Millisecond+slack() {
				t.Errorf("client %d: got %q after %v, want the whole lesson after 2 s", i, a.body, a.took)
			}
		}
		if n := len(g.fetched()); n != 1 {
			t.Errorf("fetches: got %d, want 1", n)
		}
	})
}

func TestUncacheableDoesNotQueue(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(200 * time.Millisecond)
			w.Header().Set("Cache-Control", "no-store")
			fmt.Fprint(w, "for ", r.Header.Get("Cookie"))
		}, cached(cache.Policy{}))
		ask := func(i int) *answer { return g.get("/me", fmt.Sprintf("Cookie: s=%d", i)) }
		check := func(round string, slowest time.Duration) {
			for i, a := range herd(50, ask) {
				if want := fmt.Sprintf("for s=%d", i); a.body != want {
					t.Errorf("%s: client %d got %q, want %q", round, i, a.body, want)
				}
				if a.took > slowest+10*time.Millisecond {
					t.Errorf("%s: client %d took %v, want at most %v", round, i, a.took, slowest)
				}
			}
		}
		check("unknown", 400*time.Millisecond) // one waits for the header section, then all at once
		check("learnt", 200*time.Millisecond)
		if n := len(g.fetched()); n != 100 {
			t.Errorf("fetches: got %d, want 100", n)
		}
	})
}

func TestErrorsAreSharedNotRepeated(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			w.WriteHeader(503)
			fmt.Fprint(w, "secret of ", r.Header.Get("Cookie"))
		}, cached(cache.Policy{}))
		own := 0
		for i, a := range herd(30, func(i int) *answer { return g.get("/l", fmt.Sprintf("Cookie: s=%d", i)) }) {
			if a.StatusCode != 503 {
				t.Errorf("client %d: got %d, want 503", i, a.StatusCode)
			}
			if strings.Contains(a.body, "secret") {
				own++
				if want := fmt.Sprintf("secret of s=%d", i); a.body != want {
					t.Errorf("client %d got %q: another's page", i, a.body)
				}
			} else if a.Header.Get("Retry-After") == "" {
				t.Errorf("client %d: a shared error without Retry-After", i)
			}
		}
		if n := len(g.fetched()); n > 2 {
			t.Errorf("fetches of a failing page by 30: got %d, want at most 2", n)
		}
		if own != 1 {
			t.Errorf("the origin's own error page reached %d, want its starter alone", own)
		}
		time.Sleep(2 * time.Second)
		g.get("/l")
		if n := len(g.fetched()); n != 2 {
			t.Errorf("fetches once the hold is over: got %d, want 2", n)
		}
	})
}

// TestVaryRegroupsFollowers asks in two languages at once.
func TestVaryRegroupsFollowers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			w.Header().Set("Vary", "Accept-Language")
			lesson(w, "in "+r.Header.Get("Accept-Language"))
		}, cached(cache.Policy{}))
		languages := []string{"ko", "en"}
		for round := range 2 {
			for i, a := range herd(40, func(i int) *answer { return g.get("/l", "Accept-Language: "+languages[i%2]) }) {
				if want := "in " + languages[i%2]; a.body != want {
					t.Errorf("round %d, client %d: got %q, want %q", round, i, a.body, want)
				}
			}
		}
		if n := len(g.fetched()); n != 2 {
			t.Errorf("fetches: got %d, want one for each language", n)
		}
	})
}

func TestACutOffOriginNeverLooksWhole(t *testing.T) {
	for name, says1 := range map[string]string{
		"announced": "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nhalf",
		"chunked":   "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		for _, routes := range []func(*Upstream) []*Route{cached(cache.Policy{}), plain} {
			inBubble(t, func(t *testing.T) {
				g, _ := newRawGate(t, routes, says(says1), says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"))
				got := g.raw("GET /l HTTP/1.1\r\nHost: school.example\r\n\r\n")
				if !strings.HasSuffix(got, "half") && !strings.HasSuffix(got, "half\r\n") {
					t.Errorf("%s: the client got %q, want all that came, and then the connection's end", name, got)
				}
				if a := g.get("/l"); a.body != "whole" {
					t.Errorf("%s: the next client got %q, want a new fetch", name, a.body)
				}
			})
		}
	}
}

func TestStaleBeatsDown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var down atomic.Bool
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			if down.Load() {
				w.WriteHeader(503)
				return
			}
			lesson(w, "lesson")
		}, cached(cache.Policy{StaleIfError: time.Hour}))
		g.get("/l")
		down.Store(true)
		time.Sleep(2 * time.Minute)
		for range 3 {
			a := g.get("/l")
			if a.StatusCode != 200 || a.body != "lesson" || !strings.Contains(a.cacheStatus(), "fwd=stale; fwd-status=503") {
				t.Errorf("origin down: got %d %q (%s), want the stale lesson", a.StatusCode, a.body, a.cacheStatus())
			}
		}
		time.Sleep(2 * time.Hour)
		if a := g.get("/l"); a.StatusCode != 503 {
			t.Errorf("beyond stale-if-error: got %d, want 503", a.StatusCode)
		}
	})
}

func TestStaleIsServedWhileOneFetchFreshensIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var version atomic.Int32
		version.Store(1)
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			etag := fmt.Sprintf(`"v%d"`, version.Load())
			w.Header().Set("ETag", etag)
			w.Header().Set("Cache-Control", "max-age=60, stale-while-revalidate=600")
			if r.Header.Get("If-None-Match") == etag {
				w.WriteHeader(304)
				return
			}
			fmt.Fprint(w, "version ", version.Load())
		}, cached(cache.Policy{}))
		g.get("/l")
		for _, step := range []struct {
			version int32
			want    string
			fetches int
		}{{1, "version 1", 2}, {2, "version 1", 3}} {
			version.Store(step.version)
			time.Sleep(2 * time.Minute)
			for _, a := range herd(20, func(int) *answer { return g.get("/l") }) {
				if a.body != step.want || a.took > 0 {
					t.Errorf("stale: got %q after %v, want %q at once", a.body, a.took, step.want)
				}
			}
			time.Sleep(2 * time.Second)
			if n := len(g.fetched()); n != step.fetches {
				t.Errorf("fetches: got %d, want %d", n, step.fetches)
			}
		}
		if a := g.get("/l"); a.body != "version 2" {
			t.Errorf("after freshening: got %q, want version 2", a.body)
		}
	})
}

func TestAFlightThatPanicsHarmsNobodyElse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) { lesson(w, "fine") }, cached(cache.Policy{}))
		broken := Upstream{Name: g.upstream.Name, Pool: g.upstream.Pool, Limit: g.upstream.Limit}
		broken.Pool = nil
		g.proxy.Swap(NewTable([]*Route{
			{Hosts: []string{"*"}, Path: "/broken", Origin: &broken, Cache: &cache.Policy{}},
			{Hosts: []string{"*"}, Origin: g.upstream, Cache: &cache.Policy{}},
		}))
		for _, a := range herd(5, func(int) *answer { return g.get("/broken") }) {
			if a.StatusCode != 502 {
				t.Errorf("a flight that panicked: got %d, want 502", a.StatusCode)
			}
		}
		if a := g.get("/l"); a.body != "fine" {
			t.Errorf("another page: got %q", a.body)
		}
		settle()
		if n := g.upstream.Limit.Stats().InUse; n != 0 {
			t.Errorf("places at the origin still held: got %d, want 0", n)
		}
		if g.proxy.Stats().FlightsNow != 0 {
			t.Error("the flight that panicked did not land")
		}
	})
}

// TestNobodyLeftReadingStopsTheFetch lets every client leave a long body.
func TestNobodyLeftReadingStopsTheFetch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		stopped := make(chan struct{})
		g, _ := newRawGate(t, cached(cache.Policy{}), func(c net.Conn) {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n", 100<<20)
			piece := make([]byte, 64<<10)
			for {
				if _, err := c.Write(piece); err != nil {
					close(stopped)
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
		_, leave := g.begin("/l")
		time.Sleep(time.Second)
		leave()
		select {
		case <-stopped:
		case <-time.After(time.Minute):
			t.Error("the origin still sends a minute after the last reader left")
		}
	})
}

// TestARevalidationFillsAColdCache asks with what browsers still have, after a
// restart: 304 for all of them, and one fetch, though nobody reads its body.
func TestARevalidationFillsAColdCache(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(50 * time.Millisecond)
			w.Header().Set("ETag", `"v1"`)
			w.Header().Set("Cache-Control", "max-age=60")
			for range 4 {
				fmt.Fprint(w, strings.Repeat("lesson ", 1000))
				w.(http.Flusher).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		}, cached(cache.Policy{}))
		for round := range 3 {
			for i, a := range herd(10, func(int) *answer { return g.get("/l", `If-None-Match: "v1"`) }) {
				if a.StatusCode != 304 {
					t.Errorf("round %d, client %d: got %d, want 304", round, i, a.StatusCode)
				}
			}
			time.Sleep(time.Second)
		}
		if a := g.get("/l"); len(a.body) != 28000 || !strings.Contains(a.cacheStatus(), "; hit") {
			t.Errorf("afterwards: got %d bytes, %s; want a hit with all of it", len(a.body), a.cacheStatus())
		}
		if n := len(g.fetched()); n != 1 {
			t.Errorf("fetches: got %d, want 1", n)
		}
	})
}

// TestWhoComesWhenTheLastLeavesIsServed lets a herd arrive just as nobody is
// left reading, and the fetch is being stopped.
func TestWhoComesWhenTheLastLeavesIsServed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Length", "1000000")
			for range 100 {
				if _, err := w.Write(make([]byte, 10_000)); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}, cached(cache.Policy{}))
		for round := range 5 {
			path := fmt.Sprintf("/l/%d", round)
			_, leave := g.begin(path)
			time.Sleep(105 * time.Millisecond)
			go leave()
			for i, a := range herd(10, func(i int) *answer {
				time.Sleep(time.Duration(i) * time.Millisecond)
				return g.get(path)
			}) {
				if a.err != nil || len(a.body) != 1_000_000 {
					t.Errorf("round %d, client %d: got %d bytes, %v; want all", round, i, len(a.body), a.err)
				}
			}
			if n := len(g.fetched()); n > 2*(round+1) {
				t.Errorf("round %d: %d fetches so far, want two each at most", round, n)
			}
		}
	})
}
