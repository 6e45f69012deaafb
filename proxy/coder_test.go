package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"
	"pgregory.net/rapid"

	"firstbell/cache"
	"firstbell/proxy/http1"
)

// textPage is a page that shrinks, of about size bytes.
func textPage(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "<p class=\"step\">Step %d: write down the %d words that rhyme with lesson %d.</p>\n", i, i*7%13, i*i%101)
	}
	return b.String()
}

// decoded is an answer's body without its coding.
func decoded(t rapid.TB, a *answer) string {
	t.Helper()
	coding := a.Header.Get("Content-Encoding")
	for c := cache.Gzip; c < cache.OtherCoding; c++ {
		if c.String() == coding {
			b, err := decodeAll(c, []byte(a.body))
			if err != nil {
				t.Fatalf("decoding %d bytes of %s: %v", len(a.body), coding, err)
			}
			return string(b)
		}
	}
	if coding != "" {
		t.Fatalf("got Content-Encoding %q, which nobody asked for", coding)
	}
	return a.body
}

// givesLesson is an origin with one page and these fields.
func givesLesson(page string, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "public, max-age=600")
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			w.Header().Set(name, value)
		}
		fmt.Fprint(w, page)
	}
}

// warmed asks for /l in each coding until its variant is there.
func (g *gate) warmed(codings ...string) {
	g.get("/l")
	settle()
	for range 2 {
		for _, c := range codings {
			g.get("/l", "Accept-Encoding: "+c)
		}
	}
	settle()
}

func TestCodedOnceAndServedFromThere(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		page := textPage(20 << 10)
		g := newGate(t, givesLesson(page, `ETag: "v1"`), cached(cache.Policy{}))
		if a := g.get("/l", "Accept-Encoding: gzip, br, zstd"); a.body != page || a.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("first: %d bytes, Vary %q; want the page, and a word that it may come in other codings", len(a.body), a.Header.Get("Vary"))
		}
		g.warmed("gzip", "zstd", "br")
		for _, c := range []struct{ accept, coding string }{
			{"gzip, deflate, br, zstd", "br"}, {"gzip, deflate", "gzip"}, {"zstd, gzip", "zstd"}, {"br;q=0.5, gzip", "gzip"},
			{"identity;q=0, *", "br"}, {"*;q=0, gzip;q=0.1", "gzip"}, {"br;q=2, gzip;q=x", ""}, {"identity", ""}, {"", ""}, {"x-gzip", "gzip"},
		} {
			for range 2 {
				a := g.get("/l", "Accept-Encoding: "+c.accept)
				if got := a.Header.Get("Content-Encoding"); got != c.coding || decoded(t, a) != page {
					t.Errorf("%q: coding %q of %d bytes, want %q of the page", c.accept, got, len(a.body), c.coding)
				}
				tag, note := `"v1"`, ""
				if c.coding != "" {
					tag, note = `"v1~`+c.coding+`"`, "; detail="+c.coding
				}
				if got := a.Header.Get("ETag"); got != tag {
					t.Errorf("%q: ETag %s, want %s", c.accept, got, tag)
				}
				if got := a.cacheStatus(); !strings.Contains(got, "; hit; ttl="+ttl(600)+note) || note == "" && strings.Contains(got, "detail") {
					t.Errorf("%q: Cache-Status %q, want a hit with %q", c.accept, got, note)
				}
				if a.ContentLength != int64(len(a.body)) || a.Header.Get("Vary") != "Accept-Encoding" {
					t.Errorf("%q: Content-Length %d for %d bytes, Vary %q", c.accept, a.ContentLength, len(a.body), a.Header.Get("Vary"))
				}
				head := g.do("HEAD", "/l", nil, "Accept-Encoding: "+c.accept)
				for _, name := range []string{"ETag", "Content-Encoding", "Content-Length", "Content-Type", "Vary"} {
					if got, want := head.Header.Get(name), a.Header.Get(name); got != want {
						t.Errorf("%q: HEAD says %s: %s, GET %s", c.accept, name, got, want)
					}
				}
			}
		}
		if st := g.proxy.Stats(); st.Coded["br"] != 1 || st.Coded["gzip"] != 1 || st.Coded["zstd"] != 1 || st.SavedBytes < 10*int64(len(page)) {
			t.Errorf("made %v, saved %d bytes; want each coding once, and ten pages saved", st.Coded, st.SavedBytes)
		}
		if n := len(g.fetched()); n != 1 {
			t.Errorf("the origin was asked %d times, want once", n)
		}
	})
}

func TestLeftAsItIs(t *testing.T) {
	page := textPage(20 << 10)
	noise := make([]byte, 20<<10)
	rand.Read(noise)
	for name, answer := range map[string]http.HandlerFunc{
		"an image":        givesLesson(page, "Content-Type: image/jpeg"),
		"no-transform":    givesLesson(page, "Cache-Control: max-age=600, No-Transform"),
		"a digest":        givesLesson(page, "Content-Digest: sha-256=:AAAA:"),
		"Content-MD5":     givesLesson(page, "Content-MD5: AAAA"),
		"another coding":  givesLesson(page, "Content-Encoding: deflate"),
		"a small page":    givesLesson(page[:1023]),
		"incompressible":  givesLesson(string(noise)),
		"no type at all":  givesLesson(page, "Content-Type: "),
		"an endless type": givesLesson(page, "Content-Type: text/event-stream"),
	} {
		inBubble(t, func(t *testing.T) {
			g := newGate(t, answer, cached(cache.Policy{}))
			before := g.get("/l", "Accept-Encoding: br, gzip, zstd")
			g.warmed("br", "gzip", "zstd")
			a := g.get("/l", "Accept-Encoding: br, gzip, zstd")
			if a.body != before.body || a.Header.Get("Content-Encoding") != before.Header.Get("Content-Encoding") {
				t.Errorf("%s: %d bytes as %q, want what the origin sent", name, len(a.body), a.Header.Get("Content-Encoding"))
			}
			if st := g.proxy.Stats(); st.Coded["br"]+st.Coded["gzip"]+st.Coded["zstd"] != 0 {
				t.Errorf("%s: made %v", name, st.Coded)
			}
			if vary := a.Header.Get("Vary"); vary != "" && name != "incompressible" && name != "another coding" {
				t.Errorf("%s: Vary %q although there is one coding only", name, vary)
			}
		})
	}
}

func TestARouteMayLeaveCodingAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		page := textPage(20 << 10)
		g := newGate(t, givesLesson(page), func(up *Upstream) []*Route {
			return []*Route{{Hosts: []string{"*"}, Origin: up, Cache: &cache.Policy{}, Uncoded: true}}
		})
		g.warmed("gzip", "br")
		if a := g.get("/l", "Accept-Encoding: gzip, br"); a.body != page || a.Header.Get("Vary") != "" {
			t.Errorf("got %d bytes, Vary %q; want the page as it is", len(a.body), a.Header.Get("Vary"))
		}
	})
}

// TestTheOriginsCodingIsKept: what the origin coded stays as it came; the
// other codings and the decoded content are made of it once.
func TestTheOriginsCodingIsKept(t *testing.T) {
	page := textPage(20 << 10)
	for own := cache.Gzip; own < cache.OtherCoding; own++ {
		inBubble(t, func(t *testing.T) {
			coded, err := encode(own, []byte(page))
			if err != nil {
				t.Fatal(err)
			}
			g := newGate(t, givesLesson(string(coded), "Content-Encoding: "+own.String(), `ETag: "z"`), cached(cache.Policy{}))
			g.warmed("br", "zstd", "gzip", "identity")
			for c := cache.Identity; c < cache.OtherCoding; c++ {
				a := g.get("/l", "Accept-Encoding: "+c.String())
				tag, coding := `"z~`+c.String()+`"`, c.String()
				if c == own {
					tag = `"z"`
				}
				if c == cache.Identity {
					coding = ""
				}
				if a.Header.Get("Content-Encoding") != coding || a.Header.Get("ETag") != tag || decoded(t, a) != page || a.ContentLength != int64(len(a.body)) {
					t.Errorf("origin's %s, asked for %s: %q, ETag %s, %d bytes (length %d); want ETag %s", own, c, a.Header.Get("Content-Encoding"), a.Header.Get("ETag"), len(a.body), a.ContentLength, tag)
				}
				if c == own && a.body != string(coded) {
					t.Errorf("origin's %s: its bytes are not what it sent", own)
				}
			}
			if n := g.proxy.Stats().Coded["identity"]; n != 1 {
				t.Errorf("origin's %s: decoded %d times for keeping, want once", own, n)
			}
		})
	}
}

// TestWhatMayNotBeTouchedIsFetchedForWhoRefusesIt: no-transform forbids
// decoding too.
func TestWhatMayNotBeTouchedIsFetchedForWhoRefusesIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		page := textPage(4 << 10)
		coded, _ := encode(cache.Gzip, []byte(page))
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=600, no-transform")
			w.Header().Set("Vary", "Accept-Encoding")
			if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(coded)
				return
			}
			fmt.Fprint(w, page)
		}, cached(cache.Policy{}))
		for range 3 {
			if a := g.get("/l", "Accept-Encoding: identity"); a.body != page || a.Header.Get("Content-Encoding") != "" {
				t.Errorf("who refuses gzip got %d bytes as %q, want the page (%s)", len(a.body), a.Header.Get("Content-Encoding"), a.cacheStatus())
			}
			if a := g.get("/l", "Accept-Encoding: gzip"); a.body != string(coded) {
				t.Errorf("who takes gzip got %d bytes, want the origin's %d (%s)", len(a.body), len(coded), a.cacheStatus())
			}
		}
	})
}

func TestAnyCodingsTagIsGood(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, givesLesson(textPage(20<<10), `ETag: "v1"`), cached(cache.Policy{}))
		g.warmed("gzip")
		for _, c := range []struct{ accept, match, want string }{
			{"gzip", `"v1~gzip"`, `"v1~gzip"`},
			{"gzip", `W/"v1~gzip"`, `"v1~gzip"`},
			{"gzip", `"v1"`, `"v1"`},
			{"gzip, br", `"v1~br"`, `"v1~br"`}, // not made yet, or no more
			{"gzip", `"x", "v1", "v1~gzip"`, `"v1~gzip"`},
			{"gzip", `*`, `"v1~gzip"`},
			{"identity", `*`, `"v1"`},
			{"identity", `"v1~gzip"`, ""}, // it has what it does not take
			{"gzip", `"v1~deflate"`, ""},
			{"gzip", `"v2~gzip"`, ""},
			{"gzip", `"v1~gzip~gzip"`, ""},
			{"gzip", `"v1-gzip"`, ""},
		} {
			a := g.get("/l", "Accept-Encoding: "+c.accept, "If-None-Match: "+c.match)
			if want := map[bool]int{true: 304, false: 200}[c.want != ""]; a.StatusCode != want {
				t.Errorf("%s with If-None-Match: %s: got %d, want %d", c.accept, c.match, a.StatusCode, want)
			} else if want == 304 && (a.Header.Get("ETag") != c.want || a.Header.Get("Vary") != "Accept-Encoding") {
				t.Errorf("%s with If-None-Match: %s: ETag %s, want %s", c.accept, c.match, a.Header.Get("ETag"), c.want)
			}
		}
		if a := g.get("/l"); a.StatusCode != 200 || a.Header.Get("ETag") != `"v1"` {
			t.Errorf("without Accept-Encoding: %d, ETag %s", a.StatusCode, a.Header.Get("ETag"))
		}
	})
}

// TestNoValidatorGetsATagOnceLanded: nine o'clock's revalidations are 304s even
// where the origin names no version; it never hears of our tags.
func TestNoValidatorGetsATagOnceLanded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		page := textPage(8 << 10)
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			for name := range r.Header {
				if strings.HasPrefix(name, "If-") {
					t.Errorf("the origin got %s: %s", name, r.Header.Get(name))
				}
			}
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Cache-Control", "max-age=60")
			fmt.Fprint(w, page)
		}, cached(cache.Policy{}))
		if tag := g.get("/l").Header.Get("ETag"); tag != "" {
			t.Errorf("ETag %s while the page was arriving, want none", tag)
		}
		settle()
		tag := g.get("/l").Header.Get("ETag")
		if !regexp.MustCompile(`^"~[\w-]{20}"$`).MatchString(tag) {
			t.Fatalf("ETag %s once landed, want one of ours", tag)
		}
		g.warmed("gzip")
		coded := g.get("/l", "Accept-Encoding: gzip").Header.Get("ETag")
		if want := strings.TrimSuffix(tag, `"`) + `~gzip"`; coded != want {
			t.Errorf("in gzip its ETag is %s, want %s", coded, want)
		}
		time.Sleep(2 * time.Minute) // stale: fetched again, as nothing can be validated
		g.get("/l", "If-None-Match: "+tag)
		settle()
		if n := len(g.fetched()); n != 2 {
			t.Errorf("fetched %d times, want 2", n)
		}
		for _, match := range []string{tag, coded} {
			if a := g.get("/l", "Accept-Encoding: gzip", "If-None-Match: "+match); a.StatusCode != 304 || a.Header.Get("ETag") != match {
				t.Errorf("the same page fetched again: If-None-Match: %s got %d, ETag %s; want 304", match, a.StatusCode, a.Header.Get("ETag"))
			}
		}
		if got := g.get("/l", "Accept-Encoding: gzip"); got.Header.Get("Content-Encoding") != "gzip" || g.proxy.Stats().Coded["gzip"] != 1 {
			t.Errorf("the same page fetched again: %q, coded %d times; want its variant kept", got.Header.Get("Content-Encoding"), g.proxy.Stats().Coded["gzip"])
		}
		page = textPage(9 << 10)
		time.Sleep(2 * time.Minute)
		g.get("/l")
		settle()
		if a := g.get("/l", "Accept-Encoding: gzip", "If-None-Match: "+tag+", "+coded); a.StatusCode != 200 || decoded(t, a) != page {
			t.Errorf("a new page: got %d with %d bytes, want all of it", a.StatusCode, len(a.body))
		}
	})
}

// TestTheOriginHearsItsOwnTagsOnly in requests that are passed on to it.
func TestTheOriginHearsItsOwnTagsOnly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var heard []string
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			heard = nil
			for _, name := range []string{"If-Match", "If-None-Match", "If-Range", "Range"} {
				if v := r.Header.Get(name); v != "" {
					heard = append(heard, name+": "+v)
				}
			}
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("ETag", `"v1"`)
			if strings.Contains(r.Header.Get("If-None-Match"), `"v1"`) {
				w.WriteHeader(304)
			}
		}, cached(cache.Policy{}))
		for _, c := range []struct {
			method, asked, heard string
			status               int
			tag                  string
		}{
			{"PUT", `If-Match: "v1~br"`, `[If-Match: "v1"]`, 200, `"v1"`},
			{"PUT", `If-Match: "~0123456789abcdefghij"`, `[]`, 412, ""},
			{"PUT", `If-Match: *`, `[If-Match: *]`, 200, `"v1"`},
			{"HEAD", `If-None-Match: W/"v1~br", "~0123456789abcdefghij", "v2~nothing"`, `[If-None-Match: W/"v1", "v2~nothing"]`, 304, `W/"v1~br"`},
			{"HEAD", `If-None-Match: "v1~br", "v1"`, `[If-None-Match: "v1", "v1"]`, 304, `"v1"`},
			{"HEAD", `If-None-Match: "~0123456789abcdefghij~br"`, `[]`, 200, `"v1"`},
			{"GET", "Range: bytes=1-2\nIf-Range: \"v1~br\"", `[]`, 200, `"v1"`},
			{"GET", "Range: bytes=1-2\nIf-Range: \"v1\"", `[If-Range: "v1" Range: bytes=1-2]`, 200, `"v1"`},
		} {
			heard = []string{}
			a := g.do(c.method, "/l", nil, strings.Split(c.asked, "\n")...)
			if got := fmt.Sprint(heard); got != c.heard || a.StatusCode != c.status || a.Header.Get("ETag") != c.tag {
				t.Errorf("%s with %q: the origin heard %s, the client %d and ETag %s; want %s, %d, %s",
					c.method, c.asked, got, a.StatusCode, a.Header.Get("ETag"), c.heard, c.status, c.tag)
			}
		}
	})
}

// TestVariantsGoWithTheirParent: invalidated, freshened, forbidden.
func TestVariantsGoWithTheirParent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		page, control := textPage(20<<10), "max-age=60"
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Cache-Control", control)
			w.Header().Set("ETag", `"`+strconv.Itoa(len(page))+`"`)
			w.Header().Set("X-Lesson", control)
			switch m := r.Header.Get("If-None-Match"); {
			case r.Method == "POST":
			case m == w.Header().Get("ETag"):
				w.Header().Set("Vary", "Origin")
				w.WriteHeader(304)
			case strings.Contains(m, "~"):
				t.Errorf("the origin was asked about %s", m)
			default:
				fmt.Fprint(w, page)
			}
		}, cached(cache.Policy{}))
		g.warmed("br", "gzip")
		control = "max-age=90"
		time.Sleep(80 * time.Second)
		g.get("/l")
		settle()
		a := g.get("/l", "Accept-Encoding: br")
		if a.Header.Get("Content-Encoding") != "br" || a.Header.Get("Cache-Control") != control || a.Header.Get("X-Lesson") != control || decoded(t, a) != page {
			t.Errorf("freshened: %q, Cache-Control %q; want br with the fields of the 304", a.Header.Get("Content-Encoding"), a.Header.Get("Cache-Control"))
		}
		if vary := strings.Join(a.Header.Values("Vary"), ","); vary != "Origin,Accept-Encoding" {
			t.Errorf("freshened: Vary %s, want the 304's and ours", vary)
		}
		control = "max-age=90, no-transform"
		time.Sleep(100 * time.Second)
		g.get("/l")
		settle()
		if a := g.get("/l", "Accept-Encoding: br"); a.Header.Get("Content-Encoding") != "" || a.body != page {
			t.Errorf("freshened with no-transform: %q, want the page as it is", a.Header.Get("Content-Encoding"))
		}
		control, page = "max-age=60", textPage(30<<10)
		g.do("POST", "/l", strings.NewReader("new"))
		if a := g.get("/l", "Accept-Encoding: br"); decoded(t, a) != page || !strings.Contains(a.cacheStatus(), "fwd=uri-miss") {
			t.Errorf("after a POST: %d bytes (%s), want the new page", len(decoded(t, a)), a.cacheStatus())
		}
	})
}

// TestAFullCodingQueueHoldsNobodyUp: what finds no room is coded later, and
// counted.
func TestAFullCodingQueueHoldsNobodyUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		page := textPage(4 << 10)
		g := newGate(t, givesLesson(page), cached(cache.Policy{}))
		c := g.proxy.coder
		c.mu.Lock()
		c.workers, c.jobs = c.workersMax, make([]codingJob, codingJobsMax) // nobody works
		c.mu.Unlock()
		g.warmed("gzip")
		if a := g.get("/l", "Accept-Encoding: gzip"); a.body != page {
			t.Errorf("got %d bytes, want the page as it is", len(a.body))
		}
		if n := g.proxy.Stats().CodingsDropped; n != 1 {
			t.Errorf("counted %d dropped, want the one that found no room", n)
		}
		c.mu.Lock()
		c.workers, c.jobs = 0, nil
		c.mu.Unlock()
		c.full.Store(false)
		g.warmed("gzip")
		if a := g.get("/l", "Accept-Encoding: gzip"); a.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("with room again: %q, want gzip", a.Header.Get("Content-Encoding"))
		}
	})
}

// TestABombIsNotKept: what would decode to more than is kept is decoded as it
// is sent.
func TestABombIsNotKept(t *testing.T) {
	coded, err := encode(cache.Gzip, make([]byte, codedBytesMax+1))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := decodeAll(cache.Gzip, coded); err != errTooLarge {
		t.Errorf("decoded %d bytes, %v; want %v", len(b), err, errTooLarge)
	}
}

// TestAnyAcceptEncodingGivesTheSamePage is the promise of all of this: whatever
// is asked for decodes to the same bytes, and two answers have the same ETag
// exactly when they have the same bytes.
func TestAnyAcceptEncodingGivesTheSamePage(t *testing.T) {
	page := textPage(20 << 10)
	coded, err := encode(cache.Gzip, []byte(page))
	if err != nil {
		t.Fatal(err)
	}
	accept := rapid.StringOfN(rapid.SampledFrom([]rune("gzipbrstd*;q=01.5, identy\t")), 0, 40, -1)
	likely := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return rapid.SampledFrom([]string{"gzip", "br", "zstd", "identity", "*", "x-gzip", "GZIP", "deflate", ""}).Draw(t, "coding") +
				rapid.SampledFrom([]string{"", ";q=0", ";q=0.5", "; Q=1.000", ";q=0.001", ";q=1.1", ";q", ";level=9"}).Draw(t, "weight")
		}), 0, 5).Draw(t, "members"), rapid.SampledFrom([]string{",", ", "}).Draw(t, "comma"))
	})
	for name, answer := range map[string]http.HandlerFunc{
		"identity": givesLesson(page), "gzip": givesLesson(string(coded), "Content-Encoding: gzip"),
	} {
		inBubble(t, func(t *testing.T) {
			g := newGate(t, answer, cached(cache.Policy{}))
			g.get("/l")
			settle()
			bodies := map[string]string{}                           // by ETag
			rapid.Check(struct{ testing.TB }{t}, func(r *rapid.T) { // a bubble has no deadline to ask for
				value := rapid.OneOf(accept, likely).Draw(r, "Accept-Encoding")
				a := g.get("/l", "Accept-Encoding: "+value)
				settle() // what this wished for is there for the next
				if got := decoded(r, a); got != page {
					r.Fatalf("origin's %s, %q: decodes to %d bytes, want %d", name, value, len(got), len(page))
				}
				bodies[a.Header.Get("ETag")] = a.body
				for tag, body := range bodies {
					if (tag == a.Header.Get("ETag")) != (body == a.body) {
						r.Fatalf("origin's %s, %q: ETag %s for %d bytes, and %s for %d", name, value, a.Header.Get("ETag"), len(a.body), tag, len(body))
					}
				}
			})
			if len(bodies) < 3 {
				t.Errorf("origin's %s: only %d different answers, want several codings among them", name, len(bodies))
			}
		})
	}
}

// TestCurlDecodesWhatWeCode asks with a real client.
func TestCurlDecodesWhatWeCode(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		if os.Getenv("FIRSTBELL_REQUIRE_SERVICES") != "" {
			t.Fatal("curl is not installed")
		}
		t.Skip("curl is not installed")
	}
	page := textPage(50 << 10)
	url, p := serveTCP(t, givesLesson(page))
	out := filepath.Join(t.TempDir(), "page")
	codings := map[string]bool{}
	for range 200 {
		head, err := exec.Command(curl, "-sS", "--noproxy", "*", "--compressed", "-D", "-", "-o", out, url+"/l").CombinedOutput()
		if err != nil {
			t.Fatalf("curl: %v: %s", err, head)
		}
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != page {
			t.Fatalf("curl --compressed wrote %d bytes, want %d: %s", len(got), len(page), head)
		}
		if m := regexp.MustCompile(`(?m)^Content-Encoding: (\S+)`).FindSubmatch(head); m != nil {
			codings[string(m[1])] = true
			break
		}
	}
	if st := p.Stats(); len(codings) == 0 || !slices.Contains([]int64{st.Coded["br"], st.Coded["zstd"], st.Coded["gzip"]}, 1) {
		t.Errorf("curl --compressed got %v, made %v; want a coding", codings, st.Coded)
	}
}

func TestEveryCodingDecodesToTheSame(t *testing.T) {
	for _, size := range []int{codedBytesMin, 20 << 10, 1<<20 + 1} {
		whole := []byte(textPage(size))
		for c := cache.Gzip; c < cache.OtherCoding; c++ {
			coded, err := encode(c, whole)
			if err != nil {
				t.Fatalf("%s of %d bytes: %v", c, len(whole), err)
			}
			again, err := encode(c, whole)
			if err != nil || !bytes.Equal(coded, again) {
				t.Errorf("%s of %d bytes is not the same twice: its strong ETag would lie", c, len(whole))
			}
			if got, err := decodeAll(c, coded); err != nil || !bytes.Equal(got, whole) {
				t.Errorf("%s of %d bytes decodes to %d, %v", c, len(whole), len(got), err)
			}
		}
	}
}

// serveTCP starts a proxy on loopback before an origin, and returns its URL.
func serveTCP(t testing.TB, answer http.HandlerFunc) (url string, p *Proxy) {
	t.Helper()
	originLn := fasthttputil.NewInmemoryListener()
	srv := &http.Server{Handler: answer}
	go srv.Serve(originLn)
	t.Cleanup(func() { srv.Close() })
	p, up := benchProxy(t, originLn.Dial)
	p.Swap(NewTable(cached(cache.Policy{})(up)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go p.Serve(ln)
	t.Cleanup(func() { p.Shutdown(context.Background()) })
	return "http://" + ln.Addr().String(), p
}

// keeper is a responder that keeps nothing but what it was last given.
type keeper struct {
	responder
	stores *cache.Stored
	note   []byte
}

func (k *keeper) stored(x *exchange, s *cache.Stored) {
	k.stores = s
	k.note = x.note.append(x.note.age(k.note[:0]))
}

// serveHit serves a GET that a connection would have read.
func (x *exchange) serveHit(p *Proxy, head *http1.Head, out responder) {
	x.reset()
	x.method, x.scheme, x.fields, x.out, x.arrived = "GET", scheme(), head, out, time.Now()
	x.authority, x.host = head.Host, head.Host
	x.target, _ = readTarget(head.Target)
	p.serve(x)
}

func TestAHitAllocatesNothingInAnyCoding(t *testing.T) {
	if raceEnabled {
		t.Skip("with -race, sync.Pool drops a part of what it is given on purpose")
	}
	inBubble(t, func(t *testing.T) {
		g := newGate(t, givesLesson(textPage(20<<10), `ETag: "v1"`), cached(cache.Policy{}))
		g.warmed("gzip", "zstd", "br")
		for _, coding := range []string{"identity", "gzip", "zstd", "br"} {
			var head http1.Head
			if err := head.Parse([]byte("GET /l HTTP/1.1\r\nHost: school.example\r\nAccept-Encoding: " + coding + "\r\nIf-None-Match: \"v0\"\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			x, out := new(exchange), new(keeper)
			once := func() { x.serveHit(g.proxy, &head, out) }
			once()
			if out.stores == nil || out.stores.Coding().String() != coding {
				t.Fatalf("%s: answered with %v", coding, out.stores)
			}
			if n := testing.AllocsPerRun(1000, once); n != 0 {
				t.Errorf("a hit in %s: %v allocations, want 0", coding, n)
			}
		}
	})
}
