package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"firstbell/cache"
)

// newDiskGate is a gate with little memory and a disk in dir, whose cache runs.
func newDiskGate(t *testing.T, dir string, answer http.HandlerFunc, routes func(*Upstream) []*Route) *gate {
	t.Helper()
	g := (&gate{memory: 4 << 20, disk: &cache.DiskOptions{Path: dir, Bytes: 1 << 30}}).open(t, answer, routes)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { g.cache.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return g
}

// overTCP serves g on a port and returns a function that asks there.
func (g *gate) overTCP() func(path string, fields ...string) *answer {
	g.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	go g.proxy.Serve(ln)
	transport := &http.Transport{DisableCompression: true}
	g.t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	return func(path string, fields ...string) *answer {
		g.t.Helper()
		req, err := http.NewRequest("GET", "http://"+ln.Addr().String()+path, nil)
		if err != nil {
			g.t.Fatal(err)
		}
		req.Host = "school.example"
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			req.Header.Add(name, value)
		}
		res, err := client.Do(req)
		if err != nil {
			g.t.Errorf("GET %s: %v", path, err)
			return &answer{Response: &http.Response{Header: http.Header{}}, err: err}
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return &answer{Response: res, body: string(body), err: err}
	}
}

// onDisk waits until what was stored is on disk, and forgets what memory holds.
func (g *gate) onDisk(path string) {
	g.t.Helper()
	until(g.t, path+" to be written", func() bool { return g.cache.Stats().Disk.QueuedBytes == 0 })
}

// TestARestartCostsTheOriginNothing serves from the directory that another
// proxy has left.
func TestARestartCostsTheOriginNothing(t *testing.T) {
	dir := t.TempDir()
	lessons := func(w http.ResponseWriter, r *http.Request) { lesson(w, "this is "+r.RequestURI) }
	t.Run("before", func(t *testing.T) {
		g := newDiskGate(t, dir, lessons, cached(cache.Policy{}))
		for i := range 100 {
			g.get(fmt.Sprint("/lessons/", i))
		}
		g.onDisk("/lessons")
	})
	g := newDiskGate(t, dir, lessons, cached(cache.Policy{}))
	for i, a := range herd(300, func(i int) *answer { return g.get(fmt.Sprint("/lessons/", i%100)) }) {
		if want := fmt.Sprint("this is /lessons/", i%100); a.body != want || !strings.Contains(a.cacheStatus(), "hit") {
			t.Errorf("%d: got %q, %q", i, a.body, a.cacheStatus())
		}
	}
	if got := g.fetched(); len(got) != 0 {
		t.Errorf("fetches after the restart: %q, want none", got)
	}
	if g.cache.Stats().Disk.Hits == 0 {
		t.Error("disk answered nothing")
	}
}

// TestALargeLessonIsSentFromMemory asks for what memory holds outside of the
// heap, over memory pipes and over TCP, where it goes by sendfile.
func TestALargeLessonIsSentFromMemory(t *testing.T) {
	content := film(1<<20 + 5)
	g := newGate(t, serveParts(content, len(content), 0), cached(cache.Policy{}))
	if a := g.get("/lesson"); a.body != content || a.err != nil {
		t.Fatalf("the first: %d bytes, %v", len(a.body), a.err)
	}
	g.letLand()
	ways := map[string]func(string, ...string) *answer{
		"memory pipe": func(path string, fields ...string) *answer { return g.get(path, fields...) },
	}
	if protocol() == "http" {
		ways["TCP"] = g.overTCP()
	}
	for name, get := range ways {
		for range 2 {
			if a := get("/lesson"); a.StatusCode != 200 || a.body != content || a.err != nil || a.ContentLength != int64(len(content)) || !strings.Contains(a.cacheStatus(), "hit") {
				t.Errorf("%s: %d, %d of %d bytes, %v, %q; want a hit", name, a.StatusCode, len(a.body), a.ContentLength, a.err, a.cacheStatus())
			}
		}
		for _, r := range [][2]int{{0, 1}, {100, 300_000}, {1<<19 - 1, 1 << 20}, {1 << 20, len(content)}} {
			wantPart(t, name, get("/lesson", fmt.Sprintf("Range: bytes=%d-%d", r[0], r[1]-1)), content, r[0], r[1])
		}
		a := get("/lesson", "Range: bytes=0-9,900000-900009")
		if a.StatusCode != 206 || !strings.Contains(a.body, content[900_000:900_010]) || !strings.HasPrefix(a.Header.Get("Content-Type"), "multipart/byteranges") {
			t.Errorf("%s: two parts: %d %q", name, a.StatusCode, a.Header.Get("Content-Type"))
		}
		if a := get("/lesson", `If-None-Match: "v1"`); a.StatusCode != 304 || a.body != "" {
			t.Errorf("%s: conditional: %d, want 304", name, a.StatusCode)
		}
	}
	if a := g.do("HEAD", "/lesson", nil); a.StatusCode != 200 || a.ContentLength != int64(len(content)) {
		t.Errorf("HEAD: %d, length %d", a.StatusCode, a.ContentLength)
	}
	if n := len(g.fetched()); n != 1 {
		t.Errorf("fetches: %d, want 1", n)
	}
}

// TestALargeLessonIsWholeForWhoReadsItWhileItGoes takes the lesson out of the
// cache, and has whatever nobody can reach be collected, while a client that
// reads slowly is given it.
func TestALargeLessonIsWholeForWhoReadsItWhileItGoes(t *testing.T) {
	if protocol() != "http" {
		t.Skip("other protocols do not send from files")
	}
	content := film(2 << 20)
	g := newGate(t, serveParts(content, len(content), 0), cached(cache.Policy{}))
	g.get("/lesson")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go g.proxy.Serve(ln)
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(nc, "GET /lesson HTTP/1.1\r\nHost: school.example\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if status := res.Header.Get("Cache-Status"); !strings.Contains(status, "hit") {
		t.Errorf("Cache-Status %q, want a hit", status)
	}
	if !g.cache.Invalidate([]byte("http school.example /lesson")) {
		t.Fatal("the cache does not have the lesson under the key that is invalidated")
	}
	for range 3 {
		runtime.GC()
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || string(body) != content {
		t.Errorf("read %d bytes, %v; want %d, as they were", len(body), err, len(content))
	}
}
