package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"firstbell/cache"
)

// TestWhatNeedsValidationIsValidated: RFC 9111 section 5.2.2.4. Nobody is
// answered without asking the origin, and the body crosses once.
func TestWhatNeedsValidationIsValidated(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var whole, validated atomic.Int32
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			w.Header().Set("Cache-Control", "no-cache")
			w.Header().Set("ETag", `"v1"`)
			if r.Header.Get("If-None-Match") == `"v1"` {
				validated.Add(1)
				w.WriteHeader(304)
				return
			}
			whole.Add(1)
			fmt.Fprint(w, "lesson 1")
		}, cached(cache.Policy{}))
		g.get("/lessons/1")
		settle()
		for i := range 3 {
			a := g.get("/lessons/1")
			if a.StatusCode != 200 || a.body != "lesson 1" || !strings.Contains(a.cacheStatus(), "fwd-status=304") {
				t.Errorf("use %d: got %d %q, Cache-Status %q, want the lesson, validated", i, a.StatusCode, a.body, a.cacheStatus())
			}
		}
		for i, a := range herd(20, func(int) *answer { return g.get("/lessons/1") }) {
			if a.StatusCode != 200 || a.body != "lesson 1" {
				t.Errorf("client %d: got %d %q, want the lesson", i, a.StatusCode, a.body)
			}
			if a.took > 110*time.Millisecond {
				t.Errorf("client %d waited %v, want no longer than one validation takes", i, a.took)
			}
		}
		if whole.Load() != 1 || validated.Load() != 23 {
			t.Errorf("fetches: got %d whole and %d validations, want 1 and 23", whole.Load(), validated.Load())
		}
	})
}

// TestA304DoesNotSayWhosePageItIs: the origin gives all users' pages one
// entity tag.
func TestA304DoesNotSayWhosePageItIs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, no-cache, max-age=60")
			w.Header().Set("ETag", `"v1"`)
			if r.Header.Get("If-None-Match") == `"v1"` {
				w.WriteHeader(304)
				return
			}
			fmt.Fprint(w, "marks of ", r.Header.Get("Cookie"), r.Header.Get("Authorization"))
		}, cached(cache.Policy{}))
		for _, credential := range []string{"Cookie", "Authorization"} {
			for range 3 {
				for i, a := range herd(10, func(i int) *answer { return g.get("/marks", fmt.Sprint(credential, ": user=", i)) }) {
					if want := fmt.Sprint("marks of user=", i); a.body != want {
						t.Errorf("%s: user %d got %q, want %q", credential, i, a.body, want)
					}
				}
			}
		}
	})
}

// TestTheAgeOfAResponseIsPassedOn: RFC 9111 section 5.1.
func TestTheAgeOfAResponseIsPassedOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			if r.URL.Path == "/old" {
				w.Header().Set("Age", "30")
			}
			lesson(w, "lesson")
		}, cached(cache.Policy{}))
		if got := g.get("/old").Header.Get("Age"); got != "30" {
			t.Errorf("Age of a response that was sent with 30: got %q", got)
		}
		without := 0
		for _, a := range herd(5, func(int) *answer { return g.get("/new") }) {
			switch a.Header.Get("Age") {
			case "":
				without++
			case "0":
			default:
				t.Errorf("Age of a new response: got %q", a.Header.Get("Age"))
			}
		}
		if without != 1 {
			t.Errorf("answers without Age: got %d, want that of the one who was asked for", without)
		}
	})
}

// TestAHeadOfAnotherLengthFreshensNothing edits a page whose Last-Modified stays
// (RFC 9111 section 4.3.5): the length that a HEAD names shows it.
func TestAHeadOfAnotherLengthFreshensNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		page := "as it was"
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Last-Modified", "Fri, 31 Dec 1999 00:00:00 GMT")
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Length", strconv.Itoa(len(page)))
			if r.Method != "HEAD" {
				io.WriteString(w, page)
			}
		}, cached(cache.Policy{}))
		g.get("/l")
		page = "as it is now"
		time.Sleep(61 * time.Second)
		g.do("HEAD", "/l", nil)
		if a := g.get("/l"); a.body != page {
			t.Errorf("after HEAD told of %d bytes: got %q (%s), want %q", len(page), a.body, a.cacheStatus(), page)
		}
	})
}
