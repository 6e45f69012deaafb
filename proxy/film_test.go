package proxy

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"firstbell/cache"
)

// damage changes a byte of every record in dir, so far before its end.
func damage(t *testing.T, dir string, before int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "r"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)-before] ^= 1
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAFilmIsSentFromDisk stores a film beyond memory and asks for it and for
// its parts, over memory pipes and over TCP, where it goes by sendfile.
func TestAFilmIsSentFromDisk(t *testing.T) {
	content := film(6 << 20)
	dir := t.TempDir()
	origin := serveParts(content, len(content), 0)
	g := newDiskGate(t, dir, origin, cached(cache.Policy{}))
	if a := g.get("/film"); a.body != content || a.err != nil {
		t.Fatalf("the first: %d bytes, %v", len(a.body), a.err)
	}
	get := func(path string, fields ...string) *answer { return g.get(path, fields...) }
	ways := []struct {
		name string
		get  func(string, ...string) *answer
	}{{"memory pipe", get}}
	if protocol() == "http" {
		ways = append(ways, ways[0])
		ways[1].name, ways[1].get = "TCP", g.overTCP()
	}
	for _, c := range ways {
		if a := c.get("/film"); a.StatusCode != 200 || a.body != content || a.err != nil || !strings.Contains(a.cacheStatus(), "hit") {
			t.Errorf("%s: %d, %d bytes, %v, %q; want a hit", c.name, a.StatusCode, len(a.body), a.err, a.cacheStatus())
		}
		for _, r := range [][2]int{{0, 1}, {100, 300_000}, {262_143, 262_146}, {5 << 20, 6 << 20}} {
			wantPart(t, c.name, c.get("/film", fmt.Sprintf("Range: bytes=%d-%d", r[0], r[1]-1)), content, r[0], r[1])
		}
		a := c.get("/film", "Range: bytes=0-9,5000000-5000009")
		if a.StatusCode != 206 || !strings.Contains(a.body, content[5_000_000:5_000_010]) || !strings.HasPrefix(a.Header.Get("Content-Type"), "multipart/byteranges") {
			t.Errorf("%s: two parts: %d %q", c.name, a.StatusCode, a.Header.Get("Content-Type"))
		}
		if a := c.get("/film", `If-None-Match: "v1"`); a.StatusCode != 304 || a.body != "" {
			t.Errorf("%s: conditional: %d, want 304", c.name, a.StatusCode)
		}
	}
	if a := g.do("HEAD", "/film", nil); a.StatusCode != 200 || a.ContentLength != int64(len(content)) {
		t.Errorf("HEAD: %d, length %d", a.StatusCode, a.ContentLength)
	}
	if n := len(g.fetched()); n != 1 {
		t.Errorf("fetches: %d, want 1", n)
	}
	if s := g.cache.Stats(); s.Objects != 0 || s.Disk.Objects != 1 {
		t.Errorf("memory holds %d objects and disk %d, want 0 and 1", s.Objects, s.Disk.Objects)
	}
}

// TestADamagedFilmEndsVisiblyAndIsFetchedAgain damages a later block.
func TestADamagedFilmEndsVisiblyAndIsFetchedAgain(t *testing.T) {
	content := film(6 << 20)
	dir := t.TempDir()
	g := newDiskGate(t, dir, serveParts(content, len(content), 0), cached(cache.Policy{}))
	g.get("/film")
	until(t, "the disk", func() bool { s := g.cache.Stats().Disk; return s.Objects == 1 && s.Queued == 0 })
	damage(t, dir, 1<<20)
	ask := func(path string) *answer { return g.get(path) }
	if protocol() == "http" {
		tcp := g.overTCP()
		ask = func(path string) *answer { return tcp(path) }
	}
	a := ask("/film")
	if a.err == nil || !strings.HasPrefix(content, a.body) || len(a.body) > 5<<20 {
		t.Errorf("got %d bytes, %v; want a true beginning that ends visibly", len(a.body), a.err)
	}
	if a := ask("/film"); a.body != content || a.err != nil {
		t.Errorf("the next: %d bytes, %v; want the whole", len(a.body), a.err)
	}
	if n := len(g.fetched()); n != 2 {
		t.Errorf("fetches: %d, want 2", n)
	}
	if s := g.cache.Stats().Disk; s.Damaged != 1 {
		t.Errorf("alarms: %+v, want one", s)
	}
}
