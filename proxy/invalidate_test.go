package proxy

import (
	"net/http"
	"testing"

	"firstbell/cache"
)

// TestAChangeInvalidatesWhatItNames: RFC 9111 section 4.4. A URI of another
// origin is left alone: who may change one school's pages could empty another
// school's cache.
func TestAChangeInvalidatesWhatItNames(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, c := range []struct {
			method, location, contentLocation string
			status                            int
			gone                              bool
		}{
			{"POST", "", "", 200, false},
			{"POST", "named", "", 201, true},
			{"POST", "/course/named", "", 303, true},
			{"POST", "./x/../named", "", 201, true},
			{"PUT", scheme() + "://school.example/course/named", "", 201, true},
			{"PUT", scheme() + "://SCHOOL.example/course/named#part", "", 201, true},
			{"DELETE", "", "named", 200, true},
			{"M-SEARCH", "", "//school.example/course/named", 200, true},
			{"POST", "named", "", 400, false},
			{"POST", "named", "", 500, false},
			{"GET", "named", "", 200, false},
			{"POST", "http://other.example/course/named", "", 201, false},
			{"POST", scheme() + "://school.example:81/course/named", "", 201, false},
			{"POST", otherScheme() + "://school.example/course/named", "", 201, false},
			{"POST", "named?", "", 201, false},
			{"POST", "/course/named\\", "://", 201, false},
		} {
			g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/course/change" {
					lesson(w, r.URL.Path)
					return
				}
				if c.location != "" {
					w.Header().Set("Location", c.location)
				}
				if c.contentLocation != "" {
					w.Header().Set("Content-Location", c.contentLocation)
				}
				w.WriteHeader(c.status)
			}, cached(cache.Policy{}))
			g.get("/course/named")
			settle()
			g.do(c.method, "/course/change", nil)
			g.get("/course/named")
			if gone := len(g.fetched()) == 3; gone != c.gone {
				t.Errorf("%s, %d, Location %q, Content-Location %q: invalidated %v, want %v",
					c.method, c.status, c.location, c.contentLocation, gone, c.gone)
			}
		}
	})
}

func TestAChangeInvalidatesItsTarget(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) { lesson(w, r.Method) }, cached(cache.Policy{}))
		g.get("/l?a=1")
		settle()
		g.do("POST", "/l?a=1", nil)
		g.get("/l?a=1")
		if got := g.fetched(); len(got) != 3 {
			t.Errorf("reached the origin: %v, want the page again after its change", got)
		}
	})
}
