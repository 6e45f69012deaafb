package proxy

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"firstbell/cache"
)

// TestOneClientsErrorIsNotKept: RFC 9111 section 4.2.2 lets nobody guess how
// long a 502, 503 or 504 is good for.
func TestOneClientsErrorIsNotKept(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var asked atomic.Int32
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) == 1 {
				w.WriteHeader(503)
				return
			}
			lesson(w, "lesson 1")
		}, cached(cache.Policy{}))
		if a := g.get("/lessons/1"); a.StatusCode != 503 {
			t.Errorf("first: got %d, want 503", a.StatusCode)
		}
		if a := g.get("/lessons/1"); a.StatusCode != 200 || a.body != "lesson 1" {
			t.Errorf("asked again at once: got %d %q, want the lesson", a.StatusCode, a.body)
		}
	})
}

func TestTheSecondErrorInARowIsHeld(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(503)
			fmt.Fprint(w, "down")
		}, cached(cache.Policy{}))
		for i := range 20 {
			if a := g.get("/lessons/1"); a.StatusCode != 503 {
				t.Errorf("reload %d: got %d, want 503", i, a.StatusCode)
			}
		}
		if n := len(g.fetched()); n != 2 {
			t.Errorf("fetches of a failing page by 20 reloads: got %d, want 2", n)
		}
	})
}
