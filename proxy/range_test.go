package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"firstbell/cache"
)

// serveParts answers with content as an origin does that knows ranges: its head
// at once, and then a piece every pause.
func serveParts(content string, piece int, pause time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.(http.Flusher).Flush()
		for rest := content; rest != ""; {
			time.Sleep(pause)
			n, err := io.WriteString(w, rest[:min(len(rest), piece)])
			if err != nil {
				return
			}
			w.(http.Flusher).Flush()
			rest = rest[n:]
		}
	}
}

// wantPart checks a 206.
func wantPart(t *testing.T, what string, a *answer, content string, from, to int) {
	t.Helper()
	contentRange := fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(content))
	if a.StatusCode != 206 || a.Header.Get("Content-Range") != contentRange || a.body != content[from:to] || a.err != nil {
		t.Errorf("%s: got %d, %q, %d bytes, %v; want 206 with %q", what, a.StatusCode, a.Header.Get("Content-Range"), len(a.body), a.err, contentRange)
	}
}

// TestGetHeadAndRangeCostOneFetch lets all kinds of requests come while the
// first GET has no answer yet, and once more when it has landed.
func TestGetHeadAndRangeCostOneFetch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		content := film(96 << 10)
		g := newGate(t, serveParts(content, len(content), 300*time.Millisecond), cached(cache.Policy{}))
		go g.get("/l")
		settle()
		for _, when := range []string{"under way", "landed"} {
			for i, a := range herd(50, func(i int) *answer {
				switch i % 5 {
				case 0:
					return g.get("/l")
				case 1:
					return g.do("HEAD", "/l", nil)
				case 2:
					return g.get("/l", "Range: bytes=1000-49999")
				case 3:
					return g.get("/l", "Range: bytes=-500")
				}
				return g.get("/l", "Range: bytes=9000000-")
			}) {
				what := fmt.Sprintf("%s: client %d", when, i)
				switch i % 5 {
				case 0:
					if a.StatusCode != 200 || a.body != content {
						t.Errorf("%s: GET got %d with %d bytes", what, a.StatusCode, len(a.body))
					}
				case 1:
					if a.StatusCode != 200 || a.body != "" || a.ContentLength != int64(len(content)) {
						t.Errorf("%s: HEAD got %d, length %d, %d bytes", what, a.StatusCode, a.ContentLength, len(a.body))
					}
				case 2:
					wantPart(t, what, a, content, 1000, 50000)
				case 3:
					wantPart(t, what, a, content, len(content)-500, len(content))
				case 4:
					if want := fmt.Sprintf("bytes */%d", len(content)); a.StatusCode != 416 || a.Header.Get("Content-Range") != want {
						t.Errorf("%s: got %d %q, want 416 %q", what, a.StatusCode, a.Header.Get("Content-Range"), want)
					}
				}
				if when == "under way" && !strings.Contains(a.cacheStatus(), "; collapsed") {
					t.Errorf("%s: Cache-Status %q, want collapsed", what, a.cacheStatus())
				}
			}
			if got := g.fetched(); len(got) != 1 {
				t.Errorf("%s: fetches %q, want one", when, got)
			}
		}
	})
}

// TestAPartIsThereWithItsBytes asks for parts of a body that takes four
// seconds.
func TestAPartIsThereWithItsBytes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		content := film(4000)
		g := newGate(t, serveParts(content, 1000, time.Second), cached(cache.Policy{}))
		go g.get("/l")
		time.Sleep(1500 * time.Millisecond)
		for i, a := range herd(4, func(i int) *answer { return g.get("/l", fmt.Sprintf("Range: bytes=%d-%d", i*1000, i*1000+899)) }) {
			wantPart(t, fmt.Sprintf("part %d", i), a, content, i*1000, i*1000+900)
			if want := max(0, time.Duration(i)*time.Second-500*time.Millisecond); a.took != want {
				t.Errorf("part %d took %v, want %v", i, a.took, want)
			}
		}
		if got := g.fetched(); len(got) != 1 {
			t.Errorf("fetches: got %q, want one", got)
		}
	})
}

func TestAPartOfAGrowingBodyOnlyWhereItIsOne(t *testing.T) {
	content := film(4000)
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	io.WriteString(zw, content)
	zw.Close()
	for _, c := range []struct {
		name    string
		status  int
		field   string // of the origin's answer
		asked   []string
		whole   bool
		fetches int
	}{
		{"entity tag holds", 200, "", []string{"Range: bytes=100-199", `If-Range: "v1"`}, false, 1},
		{"entity tag does not hold", 200, "", []string{"Range: bytes=100-199", `If-Range: "v2"`}, true, 1},
		{"a weak entity tag never holds", 200, `ETag: W/"v1"`, []string{"Range: bytes=100-199", `If-Range: W/"v1"`}, true, 1},
		{"date holds", 200, "", []string{"Range: bytes=100-199", "If-Range: Sat, 01 Jan 2000 00:00:00 GMT"}, false, 1},
		{"date does not hold", 200, "", []string{"Range: bytes=100-199", "If-Range: Sun, 02 Jan 2000 00:00:00 GMT"}, true, 1},
		{"no such range, but it is another by now", 200, "", []string{"Range: bytes=9000-", `If-Range: "v2"`}, true, 1},
		{"coded", 200, "Content-Encoding: gzip", []string{"Range: bytes=100-199"}, true, 1},
		{"length not known", 200, "Content-Length: ", []string{"Range: bytes=100-199"}, true, 1},
		{"no 200", 404, "", []string{"Range: bytes=100-199"}, true, 1},
		{"several parts", 200, "", []string{"Range: bytes=0-1,5-6"}, true, 2},
		{"another unit", 200, "", []string{"Range: lines=0-1"}, true, 2},
	} {
		inBubble(t, func(t *testing.T) {
			g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("ETag", `"v1"`)
				w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
				body := content
				if strings.Contains(c.field, "gzip") {
					body = zipped.String()
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				if name, value, _ := strings.Cut(c.field, ": "); value != "" {
					w.Header().Set(name, value)
				} else if name != "" {
					w.Header().Del(strings.TrimSuffix(name, ":"))
				}
				w.WriteHeader(c.status)
				w.(http.Flusher).Flush()
				time.Sleep(time.Second)
				io.WriteString(w, body)
			}, cached(cache.Policy{}))
			go g.get("/l")
			settle()
			a := g.get("/l", c.asked...)
			if !c.whole {
				wantPart(t, c.name, a, content, 100, 200)
			} else if a.StatusCode != c.status || a.body != content || a.err != nil {
				t.Errorf("%s: got %d with %d bytes, %v; want %d with the whole", c.name, a.StatusCode, len(a.body), a.err, c.status)
			}
			if got := g.fetched(); len(got) != c.fetches {
				t.Errorf("%s: fetches %q, want %d", c.name, got, c.fetches)
			}
		})
	}
}

// TestAPartThatTheFlightCannotBringSoonGoesAlone asks for parts of a film while
// no flight is under way, far ahead of one, and behind the window of one.
func TestAPartThatTheFlightCannotBringSoonGoesAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		content := film(8 << 20)
		g := newGate(t, serveParts(content, 1<<20, time.Second), cached(cache.Policy{MaxObjectBytes: 64 << 10}))
		part := func(what string, from, fetches int) {
			t.Helper()
			a := g.get("/film", fmt.Sprintf("Range: bytes=%d-%d", from, from+99))
			wantPart(t, what, a, content, from, from+100)
			if a.took > 10*time.Millisecond {
				t.Errorf("%s took %v, want no wait", what, a.took)
			}
			if got := g.fetched(); len(got) != fetches {
				t.Errorf("%s: fetches %q, want %d", what, got, fetches)
			}
			if !strings.HasSuffix(a.cacheStatus(), "; detail=range") || strings.Contains(a.cacheStatus(), "collapsed") || strings.Contains(a.cacheStatus(), "stored") {
				t.Errorf("%s: Cache-Status %q, want that of a part by itself", what, a.cacheStatus())
			}
		}
		part("no flight", 1<<20, 1)
		whole := make(chan *answer)
		go func() { whole <- g.get("/film") }()
		time.Sleep(1500 * time.Millisecond)
		part("far ahead", 7<<20, 3)
		time.Sleep(5 * time.Second)
		part("behind the window", 0, 4)
		if a := g.do("HEAD", "/film", nil); a.StatusCode != 200 || a.ContentLength != int64(len(content)) {
			t.Errorf("HEAD of a flight beyond its keep: got %d, length %d", a.StatusCode, a.ContentLength)
		}
		if a := <-whole; a.body != content || a.err != nil {
			t.Errorf("the whole: got %d bytes, %v", len(a.body), a.err)
		}
		if got := g.fetched(); len(got) != 4 {
			t.Errorf("fetches %q, want 4: HEAD needs none", got)
		}
	})
}

// TestAPartOutlivesTheRest: what a part holds is whole although the origin dies
// later; what it lacks is visibly missing.
func TestAPartOutlivesTheRest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		content := film(1000)
		head := "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1000\r\n\r\n"
		g, _ := newRawGate(t, cached(cache.Policy{}), cuts(head, content[:400]))
		go g.get("/l")
		settle()
		answers := herd(2, func(i int) *answer { return g.get("/l", []string{"Range: bytes=100-399", "Range: bytes=100-400"}[i]) })
		wantPart(t, "arrived", answers[0], content, 100, 400)
		if a := answers[1]; a.err == nil || a.body != content[100:400] {
			t.Errorf("cut off: got %d bytes, %v; want what came and a broken answer", len(a.body), a.err)
		}
	})
}

// TestPartsOfAnothersPageAreNotGiven lets users ask for a part of, or about, a
// page of their own while another's is under way.
func TestPartsOfAnothersPageAreNotGiven(t *testing.T) {
	for name, fields := range map[string]http.Header{
		"private":      {"Cache-Control": {"private, max-age=60"}},
		"Set-Cookie":   {"Cache-Control": {"max-age=60"}, "Set-Cookie": {"s=1"}},
		"Vary":         {"Cache-Control": {"max-age=60"}, "Vary": {"Cookie"}},
		"says nothing": {},
	} {
		inBubble(t, func(t *testing.T) {
			g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(100 * time.Millisecond)
				for name, values := range fields {
					w.Header()[name] = values
				}
				w.Header().Set("X-User", r.Header.Get("Cookie"))
				fmt.Fprint(w, "for ", r.Header.Get("Cookie"))
			}, cached(cache.Policy{DefaultTTL: time.Hour}))
			for i, a := range herd(30, func(i int) *answer {
				cookie := fmt.Sprintf("Cookie: s=%02d", i)
				switch i % 3 {
				case 1:
					return g.get("/me", cookie, "Range: bytes=0-")
				case 2:
					return g.do("HEAD", "/me", nil, cookie)
				}
				return g.get("/me", cookie)
			}) {
				own := fmt.Sprintf("s=%02d", i)
				if a.Header.Get("X-User") != own || i%3 != 2 && a.body != "for "+own {
					t.Errorf("%s: client %d got %q made for %q", name, i, a.body, a.Header.Get("X-User"))
				}
			}
		})
	}
}
