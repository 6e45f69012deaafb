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

// What was asked for after a purge is never older than the purge, whatever
// was under way: the flight of before goes on for those who read from it.
func TestWhoAsksAfterAPurgeGetsSomethingNewer(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(g *gate)
	}{
		{"by url", func(g *gate) { g.purge(&Purge{URLs: []string{"https://school.example/lesson?x=1&utm=2"}}) }},
		{"by host", func(g *gate) { g.purge(&Purge{Hosts: []string{"School.Example"}}) }},
		{"by prefix, hard", func(g *gate) { g.purge(&Purge{Prefixes: []string{"*.example/*"}, Hard: true}) }},
		{"by tag, hard", func(g *gate) { g.purge(&Purge{Tags: []string{"lesson-17"}, Hard: true}) }},
		{"a POST to it", func(g *gate) { g.do("POST", "/lesson?x=1", strings.NewReader("new")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var version atomic.Int64
				g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
					if r.Method == "POST" {
						version.Add(1)
						return
					}
					text := fmt.Sprint("version ", version.Load())
					w.Header().Set("Cache-Control", "max-age=3600")
					w.Header().Set("Surrogate-Key", "lesson-17")
					time.Sleep(time.Second) // the answer is decided and slow
					w.Write([]byte(text))
				}, func(up *Upstream) []*Route {
					return []*Route{{Hosts: []string{"*"}, Origin: up, Cache: &cache.Policy{}, IgnoreQuery: []string{"utm"}}}
				})
				var readers sync.WaitGroup
				ask := func(want string) {
					readers.Go(func() {
						a := g.get("/lesson?x=1&utm=7")
						if a.body != want {
							t.Errorf("got %q, want %q", a.body, want)
						}
						if a.Header.Get("Surrogate-Key") != "" {
							t.Error("the client got the tags")
						}
					})
				}
				ask("version 0")
				settle()
				time.Sleep(500 * time.Millisecond)
				if c.name != "a POST to it" {
					version.Add(1)
				}
				c.do(g)
				for range 5 {
					ask("version 1")
				}
				readers.Wait()
				ask("version 1")
				readers.Wait()
				gets := strings.Count(strings.Join(g.fetched(), " "), "GET")
				if gets < 2 || gets > 3 {
					t.Errorf("the origin got %d fetches, want the one before, one after and perhaps a validation", gets)
				}
			})
		})
	}
}

func TestSoftlyPurgedServesWhileTheOriginIsDown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var down atomic.Bool
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			if down.Load() {
				w.WriteHeader(503)
				return
			}
			w.Header().Set("Cache-Control", "max-age=3600")
			w.Write([]byte("lesson"))
		}, cached(cache.Policy{StaleIfError: time.Hour}))
		g.get("/lesson")
		down.Store(true)
		g.purge(&Purge{Hosts: []string{"*"}})
		if a := g.get("/lesson"); a.body != "lesson" || !strings.Contains(a.cacheStatus(), "stale-if-error") {
			t.Errorf("got %d %q, %s; want the stored lesson, marked", a.StatusCode, a.body, a.cacheStatus())
		}
		g.purge(&Purge{Hosts: []string{"*"}, Hard: true})
		if a := g.get("/lesson"); a.StatusCode != 503 {
			t.Errorf("after a hard purge: %d %q, want 503", a.StatusCode, a.body)
		}
	})
}

func TestTagsGoToNoClient(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Tag", "a,b")
			w.Header().Set("Surrogate-Key", "a b")
			w.Header().Set("Cache-Control", r.Header.Get("X-Control"))
		}, cached(cache.Policy{}))
		for i, control := range []string{"max-age=60", "no-store", "private", "no-cache"} {
			for range 2 {
				a := g.get(fmt.Sprint("/", i), "X-Control: "+control)
				if a.Header.Get("Cache-Tag") != "" || a.Header.Get("Surrogate-Key") != "" {
					t.Errorf("with %s the client got the tags", control)
				}
			}
		}
	})
}

func (g *gate) purge(u *Purge) {
	g.t.Helper()
	if _, err := g.proxy.Purge(g.t.Context(), u); err != nil {
		g.t.Errorf("Purge: %v", err)
	}
}
