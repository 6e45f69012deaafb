package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

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
	for end := time.Now().Add(20 * time.Second); g.cache.Stats().Disk.QueuedBytes > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("%s is not written: %+v", path, g.cache.Stats().Disk)
		}
	}
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
