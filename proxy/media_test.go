package proxy

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"firstbell/cache"
)

// cinema is an origin of one film.
type cinema struct {
	mu      sync.Mutex // guards all
	films   int
	path    string
	content string
	fields  map[string]string // of its answers
	pause   time.Duration     // before the second half of each
	ranges  []string          // that were asked for, in order
	answer  http.HandlerFunc  // instead; nil: the film
}

// longFilm is made once: under the race detector it takes seconds.
var longFilm = sync.OnceValue(func() string {
	b := make([]byte, 9*mib)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(b)
	return string(b)
})

// fill has another film of so many bytes played, at another path.
func (c *cinema) fill(bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.films++
	c.path = fmt.Sprintf("/films/%d", c.films)
	c.content, c.pause, c.ranges, c.answer = longFilm()[:bytes], 0, nil, nil
	c.fields = map[string]string{"ETag": `"v1"`, "Cache-Control": "max-age=5", "Content-Type": "video/mp4"}
}

// TestPartsOfFilms plays one after the other on one gate.
func TestPartsOfFilms(t *testing.T) {
	shown := cache.Policy{DefaultTTL: time.Hour, StaleIfError: time.Hour}
	for _, of := range []struct {
		policy cache.Policy
		plays  []func(*testing.T, *gate, *cinema)
	}{
		{cache.Policy{}, []func(*testing.T, *gate, *cinema){whatIsNoneOfEverybodysGoesAlone, nonsenseOfPartsIsNotStored}},
		{shown, []func(*testing.T, *gate, *cinema){
			aHundredSeekersCostEachBlockOnce, theFirstByteDoesNotWaitForItsBlock, aChangedFilmIsNeverMixed, aStaleFilmIsValidated,
			blocksAreNotForOtherCredentials, anOriginWithoutRangesIsAskedForTheWhole, aPurgedFilmIsFetchedAnew,
			theWholeTakesThePlaceOfItsBlocks, whoLeavesHasNothingFetched,
		}},
	} {
		inBubble(t, func(t *testing.T) {
			c := &cinema{}
			g := newDiskGate(t, t.TempDir(), c.ServeHTTP, cached(of.policy))
			for _, play := range of.plays {
				play(t, g, c)
			}
		})
	}
}

func (c *cinema) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *cinema) asked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.ranges...)
}

func (c *cinema) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.ranges = append(c.ranges, strings.TrimPrefix(r.Header.Get("Range"), "bytes="))
	content, pause, answer := c.content, c.pause, c.answer
	for name, value := range c.fields {
		w.Header().Set(name, value)
	}
	c.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	if pause > 0 {
		w = &slowHalf{ResponseWriter: w, pause: pause, at: cache.BlockBytes / 2}
	}
	http.ServeContent(w, r, "", time.Time{}, struct{ io.ReadSeeker }{strings.NewReader(content)})
}

// slowHalf waits before what lies behind at.
type slowHalf struct {
	http.ResponseWriter
	pause time.Duration
	at    int
}

func (w *slowHalf) Write(p []byte) (int, error) {
	n := min(len(p), max(0, w.at))
	w.at -= len(p)
	if w.at >= 0 {
		return w.ResponseWriter.Write(p)
	}
	first, err := w.ResponseWriter.Write(p[:n])
	if err != nil {
		return first, err
	}
	w.ResponseWriter.(http.Flusher).Flush()
	time.Sleep(w.pause)
	w.pause = 0
	rest, err := w.ResponseWriter.Write(p[n:])
	return first + rest, err
}

func (g *gate) part(path string, from, to int, fields ...string) *answer {
	return g.get(path, append(fields, fmt.Sprintf("Range: bytes=%d-%d", from, to-1))...)
}

// seek is part once all that was done before has come to rest.
func (g *gate) seek(path string, from, to int, fields ...string) *answer {
	g.t.Helper()
	settle()
	return g.part(path, from, to, fields...)
}

// wantSpan checks a 206 and what its Cache-Status says.
func wantSpan(t *testing.T, what string, a *answer, content string, from, to int, status string) {
	t.Helper()
	if a.err != nil || a.StatusCode != 206 || a.body != content[from:to] || a.Header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(content)) {
		t.Errorf("%s: %d, %q, %d bytes, %v; want the 206 of %d-%d", what, a.StatusCode, a.Header.Get("Content-Range"), len(a.body), a.err, from, to)
	}
	if !strings.Contains(a.cacheStatus(), status) {
		t.Errorf("%s: Cache-Status %q, want %q in it", what, a.cacheStatus(), status)
	}
}

// blocksAsked checks that the origin was asked for so many ranges, each once.
func (c *cinema) wantOnce(t *testing.T, most int) {
	t.Helper()
	seen := make(map[string]int)
	for _, r := range c.asked() {
		if seen[r]++; seen[r] == 2 {
			t.Errorf("the origin was asked for %q twice", r)
		}
	}
	if len(seen) > most {
		t.Errorf("the origin was asked for %d ranges, want at most %d: %v", len(seen), most, c.asked())
	}
}

const mib = cache.BlockBytes

func aHundredSeekersCostEachBlockOnce(t *testing.T, g *gate, c *cinema) {
	c.fill(8*mib + 12345)
	c.pause = 100 * time.Millisecond
	random := rand.New(rand.NewPCG(1, 2))
	froms := make([]int, 100)
	for i := range froms {
		froms[i] = random.IntN(len(c.content))
	}
	herd(len(froms), func(i int) *answer {
		time.Sleep(time.Duration(i) * 5 * time.Millisecond)
		to := min(froms[i]+mib/10, len(c.content))
		a := g.part(c.path, froms[i], to)
		wantSpan(t, fmt.Sprint("seeker ", i), a, c.content, froms[i], to, "firstbell; ")
		return a
	})
	c.wantOnce(t, 9)
	for _, r := range c.asked() {
		var first, last int
		if _, err := fmt.Sscanf(r, "%d-%d", &first, &last); err != nil || first%mib != 0 || last != first+mib-1 {
			t.Errorf("the origin was asked for %q, want a whole block", r)
		}
	}
	wantSpan(t, "afterwards", g.seek(c.path, 0, 4*mib), c.content, 0, 4*mib, "firstbell; hit; ttl=")
	wantSpan(t, "the end", g.get(c.path, "Range: bytes=-500"), c.content, len(c.content)-500, len(c.content), "firstbell; hit")
	if a := g.get(c.path, "Range: bytes=99999999-"); a.StatusCode != 416 {
		t.Errorf("behind the end: %d, want 416", a.StatusCode)
	}
	c.wantOnce(t, 9)
}

func theFirstByteDoesNotWaitForItsBlock(t *testing.T, g *gate, c *cinema) {
	c.fill(4 * mib)
	c.pause = 10 * time.Second
	c.fields["Cache-Control"] = "max-age=60"
	before := g.proxy.Stats()
	for i, a := range herd(3, func(int) *answer { return g.part(c.path, 100, 2*mib+5) }) {
		wantSpan(t, fmt.Sprint("client ", i), a, c.content, 100, 2*mib+5, "; fwd=")
		if a.first >= time.Second {
			t.Errorf("client %d: first byte after %v, want at once", i, a.first)
		}
		if a.took > 31*time.Second {
			t.Errorf("client %d: took %v", i, a.took)
		}
	}
	c.wantOnce(t, 3)
	if s := g.proxy.Stats(); s.Blocks-before.Blocks != 3 || s.BlocksAhead-before.BlocksAhead != 2 {
		t.Errorf("%d blocks, %d of them ahead; want 3 and 2", s.Blocks-before.Blocks, s.BlocksAhead-before.BlocksAhead)
	}
	wantSpan(t, "more", g.seek(c.path, 2*mib, 4*mib), c.content, 2*mib, 4*mib, "fwd=partial; stored")
	wantSpan(t, "all", g.seek(c.path, 0, 4*mib), c.content, 0, 4*mib, "hit")
}

func aChangedFilmIsNeverMixed(t *testing.T, g *gate, c *cinema) {
	c.fill(6 * mib)
	old, before := c.content, g.proxy.Stats().BlocksChanged
	wantSpan(t, "before", g.seek(c.path, 0, mib), old, 0, mib, "uri-miss")
	c.set(func() {
		c.content = longFilm()[77 : 5*mib]
		c.fields["ETag"] = `"v2"`
	})
	a := g.seek(c.path, 0, 3*mib)
	if a.err == nil || a.StatusCode != 206 || !strings.HasPrefix(old, a.body) || len(a.body) != mib {
		t.Errorf("in the middle: %d, %d bytes, %v; want the old film's first block, and a visible end", a.StatusCode, len(a.body), a.err)
	}
	wantSpan(t, "after", g.seek(c.path, 0, 3*mib), c.content, 0, 3*mib, "partial")
	wantSpan(t, "then", g.seek(c.path, 10, 3*mib), c.content, 10, 3*mib, "hit")
	time.Sleep(11 * time.Second)
	now := c.content
	c.set(func() { c.fields["ETag"] = `"v3"`; c.content = old })
	wantSpan(t, "stale, and another", g.seek(c.path, 5, 2*mib), old, 5, 2*mib, "fwd=stale")
	if old == now {
		t.Fatal("the films are one")
	}
	if n := g.proxy.Stats().BlocksChanged - before; n != 2 {
		t.Errorf("changed %d times, want 2", n)
	}
}

func aStaleFilmIsValidated(t *testing.T, g *gate, c *cinema) {
	c.fill(3 * mib)
	wantSpan(t, "first", g.seek(c.path, 0, 100), c.content, 0, 100, "uri-miss; stored")
	time.Sleep(6 * time.Second)
	wantSpan(t, "stale", g.seek(c.path, 50, 100), c.content, 50, 100, "fwd=stale; fwd-status=304")
	wantSpan(t, "fresh again", g.seek(c.path, 60, 100), c.content, 60, 100, "hit")
	time.Sleep(6 * time.Second)
	wantSpan(t, "stale, by its next block", g.seek(c.path, mib, mib+9), c.content, mib, mib+9, "fwd=stale; stored")
	time.Sleep(6 * time.Second)
	c.set(func() { c.answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) } })
	wantSpan(t, "origin down", g.seek(c.path, 0, 100), c.content, 0, 100, "detail=stale-if-error")
	if a := g.seek(c.path, 2*mib, 2*mib+9); a.StatusCode != 503 {
		t.Errorf("what is not there: %d, want 503", a.StatusCode)
	}
}

// Nothing of these is stored, and each is given what the origin gave it.
func whatIsNoneOfEverybodysGoesAlone(t *testing.T, g *gate, c *cinema) {
	for name, fields := range map[string]map[string]string{
		"private":           {"Cache-Control": "private, max-age=60"},
		"cookie":            {"Set-Cookie": "a=b"},
		"no-store":          {"Cache-Control": "no-store"},
		"no-cache":          {"Cache-Control": "no-cache"},
		"vary":              {"Vary": "X-Class"},
		"weak":              {"ETag": `W/"v1"`},
		"no validator":      {"ETag": ""},
		"young date":        {"ETag": "", "Last-Modified": time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Format(http.TimeFormat)},
		"says no freshness": {"Cache-Control": ""},
	} {
		c.fill(64 << 10)
		for k, v := range fields {
			c.fields[k] = v
		}
		c.answer = func(w http.ResponseWriter, r *http.Request) {
			for k, v := range fields {
				if v == "" {
					w.Header().Del(k)
				}
			}
			// Each student has another film behind the same validators.
			mine := r.Header.Get("Cookie") + c.content
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(mine))
		}
		for _, who := range []string{"x", "y", "x"} {
			a := g.seek(c.path, 100, 5000, "Cookie: "+who)
			if want := (who + c.content)[100:5000]; a.body != want || a.StatusCode != 206 {
				t.Errorf("%s: %s got %d and %d bytes, want its own", name, who, a.StatusCode, len(a.body))
			}
		}
		if n := len(c.asked()); n != 4 {
			t.Errorf("%s: the origin was asked %d times, want 4: once for a block, then for each alone", name, n)
		}
		if s := g.cache.Stats().Disk; s.Objects != 0 {
			t.Errorf("%s: %d records on disk", name, s.Objects)
		}
	}
}

// It stores a film that anybody without a
// cookie may have, and asks with one.
func blocksAreNotForOtherCredentials(t *testing.T, g *gate, c *cinema) {
	c.fill(2 * mib)
	delete(c.fields, "Cache-Control")
	wantSpan(t, "nobody", g.seek(c.path, 0, 9), c.content, 0, 9, "stored")
	wantSpan(t, "nobody again", g.seek(c.path, 0, 9), c.content, 0, 9, "hit")
	for _, who := range []string{"Cookie: a=b", "Authorization: Bearer x"} {
		wantSpan(t, who, g.seek(c.path, 0, 9, who), c.content, 0, 9, "detail=range")
	}
}

func anOriginWithoutRangesIsAskedForTheWhole(t *testing.T, g *gate, c *cinema) {
	c.fill(3 * mib)
	c.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(c.content)))
		io.WriteString(w, c.content)
	}
	for i, a := range herd(5, func(i int) *answer { return g.part(c.path, i*mib/2, i*mib/2+100) }) {
		if a.StatusCode != 206 && a.StatusCode != 200 || !strings.Contains(a.body, c.content[i*mib/2:i*mib/2+100]) {
			t.Errorf("client %d: %d with %d bytes", i, a.StatusCode, len(a.body))
		}
	}
	before := len(c.asked())
	if a := g.seek(c.path, 2*mib, 2*mib+100); a.StatusCode != 206 || a.body != c.content[2*mib:2*mib+100] {
		t.Errorf("the next: %d with %d bytes, want the part", a.StatusCode, len(a.body))
	}
	// What an answer of 200 brought serves; where it did not, the whole is asked for.
	for _, asked := range c.asked()[before:] {
		if asked != "" {
			t.Errorf("the next was asked for %q, want nothing or the whole", asked)
		}
	}
}

func nonsenseOfPartsIsNotStored(t *testing.T, g *gate, c *cinema) {
	for _, says := range []string{"", "bytes 0-1048575/*", "bytes 5-1048575/2097152", "bytes 0-9/2097152", "bytes 0-1048575/7", "bytes 0-1048575/99999999999999999999", "lines 0-1048575/2097152"} {
		c.fill(2 * mib)
		c.answer = func(w http.ResponseWriter, r *http.Request) {
			if says != "" {
				w.Header().Set("Content-Range", says)
			}
			w.WriteHeader(206)
			io.WriteString(w, c.content[:mib])
		}
		g.seek(c.path, 0, 9)
		if s := g.cache.Stats().Disk; s.Objects != 0 {
			t.Errorf("%q: %d records on disk", says, s.Objects)
		}
	}
}

func aPurgedFilmIsFetchedAnew(t *testing.T, g *gate, c *cinema) {
	for name, purge := range map[string]func(g *gate){
		"hard": func(g *gate) {
			g.cache.Purge([]cache.Selector{{By: cache.ByURL, Text: "school.example " + c.path}}, true)
		},
		"by tag":     func(g *gate) { g.cache.Purge([]cache.Selector{{By: cache.ByTag, Text: "films"}}, true) },
		"invalidate": func(g *gate) { g.do("POST", c.path, strings.NewReader("x")) },
	} {
		c.fill(2 * mib)
		c.fields["Surrogate-Key"] = "films"
		wantSpan(t, name, g.seek(c.path, 0, 9), c.content, 0, 9, "stored")
		wantSpan(t, name, g.seek(c.path, 0, 9), c.content, 0, 9, "hit")
		old := c.content
		c.set(func() { c.content = longFilm()[7 : 7+len(old)] }) // behind the same validator
		purge(g)
		wantSpan(t, name+", purged", g.seek(c.path, 0, 99), c.content, 0, 99, "uri-miss")
		// A fetch under way when it is purged brings nothing that is found.
		c.set(func() { c.pause = time.Second })
		done := make(chan *answer)
		go func() { done <- g.part(c.path, mib, 2*mib) }()
		time.Sleep(time.Second / 2)
		purge(g)
		wantSpan(t, name+", under way", <-done, c.content, mib, 2*mib, "partial")
		c.set(func() { c.content, c.pause = old, 0 })
		wantSpan(t, name+", again", g.seek(c.path, mib, mib+99), old, mib, mib+99, "uri-miss")
	}
}

// TestBlocksOutliveTheProcessAndDamageDoesNot starts three times on one disk.
func TestBlocksOutliveTheProcessAndDamageDoesNot(t *testing.T) {
	c := &cinema{}
	c.fill(4 * mib)
	dir := t.TempDir()
	process := func(play func(g *gate)) {
		inBubble(t, func(t *testing.T) {
			g := newDiskGate(t, dir, c.ServeHTTP, cached(cache.Policy{}))
			play(g)
			settle()
		})
	}
	process(func(g *gate) {
		wantSpan(t, "before", g.seek(c.path, 0, 3*mib), c.content, 0, 3*mib, "stored")
	})
	process(func(g *gate) {
		wantSpan(t, "after", g.seek(c.path, 5, 3*mib), c.content, 5, 3*mib, "hit")
		c.wantOnce(t, 3)
	})
	damageLarge(t, dir)
	process(func(g *gate) {
		wantSpan(t, "damaged", g.seek(c.path, 0, 3*mib), c.content, 0, 3*mib, "hit")
		if n := len(c.asked()); n != 6 {
			t.Errorf("the origin was asked %d times, want 6", n)
		}
		if s := g.cache.Stats().Disk; s.Damaged != 3 {
			t.Errorf("%d alarms, want 3", s.Damaged)
		}
	})
}

func theWholeTakesThePlaceOfItsBlocks(t *testing.T, g *gate, c *cinema) {
	c.fill(3 * mib)
	settle()
	there := g.cache.Stats().Disk.Objects
	wantSpan(t, "block", g.seek(c.path, 0, 2*mib), c.content, 0, 2*mib, "stored")
	if a := g.get(c.path); a.body != c.content || a.StatusCode != 200 {
		t.Errorf("the whole: %d, %d bytes", a.StatusCode, len(a.body))
	}
	settle()
	wantSpan(t, "of the whole", g.seek(c.path, 0, 3*mib), c.content, 0, 3*mib, "hit")
	if s := g.cache.Stats().Disk; s.Objects != there+1 {
		t.Errorf("%d records on disk, want the whole alone", s.Objects-there)
	}
	if a := g.do("HEAD", c.path, nil); a.StatusCode != 200 || a.ContentLength != int64(len(c.content)) {
		t.Errorf("HEAD: %d, %d", a.StatusCode, a.ContentLength)
	}
}

// The block that is fetched ahead for who has
// left ends, and none follows.
func whoLeavesHasNothingFetched(t *testing.T, g *gate, c *cinema) {
	c.fill(6 * mib)
	c.pause = 10 * time.Second
	res, leave := g.begin(c.path, "Range: bytes=0-")
	if r := <-res; r != nil {
		io.ReadFull(r.Body, make([]byte, 1000))
	}
	leave()
	time.Sleep(30 * time.Second)
	if s := g.upstream.Limit.Stats(); s.InUse != 0 {
		t.Errorf("%d places at the origin are held for who has left", s.InUse)
	}
	if n := g.proxy.blocks.Len(); n != 0 {
		t.Errorf("%d flights under way", n)
	}
	if n := len(c.asked()); n > 2 {
		t.Errorf("the origin was asked for %d blocks, want the first and the one ahead at most", n)
	}
}

// damageLarge changes a byte in every record of a block.
func damageLarge(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "r"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) < mib {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}
