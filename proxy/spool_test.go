package proxy

import (
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"testing"

	"firstbell/cache"
)

// TestAFilmNeverIsInMemory streams 96 MiB, which are stored, to clients of whom
// one reads nothing until the others have all.
func TestAFilmNeverIsInMemory(t *testing.T) {
	const size = 96 << 20
	piece := []byte(film(1 << 20))
	g := newDiskGate(t, t.TempDir(), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Length", fmt.Sprint(size))
		for range size / len(piece) {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}, cached(cache.Policy{}))
	defer debug.SetGCPercent(debug.SetGCPercent(25)) // garbage is no part of what is held
	peak := watchHeap(t)
	open := func() *http.Response {
		res, err := g.client.Get(scheme() + "://school.example/film")
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	slow := open()
	defer slow.Body.Close()
	for i := range 2 {
		res := open()
		if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
			t.Errorf("client %d: %d bytes, %v", i, n, err)
		}
		res.Body.Close()
	}
	if n, err := io.Copy(io.Discard, slow.Body); n != size || err != nil {
		t.Errorf("the slow one: %d bytes, %v; want it to be waited for by nobody and to get all", n, err)
	}
	most := peak()
	t.Logf("the heap held at most %d MiB", most>>20)
	if most > 60<<20 {
		t.Errorf("the heap held %d MiB, want far less than the film's 96", most>>20)
	}
	if n := len(g.fetched()); n != 1 {
		t.Errorf("fetches: %d, want 1", n)
	}
}
