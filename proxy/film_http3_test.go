package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"firstbell/cache"
	"firstbell/proxy/http3"
)

// TestAPartGivenUpOverHTTP3IsFetchedNoFurther has clients of a film leave while
// its origin is silent, before the first block's head and within it.
func TestAPartGivenUpOverHTTP3IsFetchedNoFurther(t *testing.T) {
	for _, c := range []struct {
		name        string
		within      bool // the block the origin falls silent
		leave, stay int
	}{
		{"alone, before the head", false, 1, 0},
		{"alone, within the block", true, 1, 0},
		{"together, within the block", true, 3, 0},
		{"while one stays, before the head", false, 2, 1},
		{"while one stays, within the block", true, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) { playsAndLeaves(t, c.within, c.leave, c.stay) })
		})
	}
}

func playsAndLeaves(t *testing.T, within bool, leave, stay int) {
	film := &cinema{}
	film.fill(2 * mib)
	goOn, over := make(chan struct{}), make(chan struct{}, 10)
	film.answer = func(w http.ResponseWriter, r *http.Request) {
		if within {
			w = &halting{ResponseWriter: w, at: cache.BlockBytes / 4, halt: func() { waitFor(goOn, r) }}
		} else {
			waitFor(goOn, r)
		}
		http.ServeContent(w, r, "", time.Time{}, struct{ io.ReadSeeker }{strings.NewReader(film.content)})
		over <- struct{}{}
	}
	g := newDiskGate(t, t.TempDir(), film.ServeHTTP, cached(cache.Policy{}))
	if g.wires == nil {
		g.startHTTP3()
	}
	c := g.connect()
	ask := func() *quic.Stream {
		s := c.open(h3Head("GET", film.path, "range: bytes=0-999999"))
		s.Close()
		arrive()
		return s
	}
	var all []*quic.Stream
	for range leave + stay {
		all = append(all, ask())
	}
	time.Sleep(time.Second)
	for _, s := range all[:leave] {
		s.CancelRead(quic.StreamErrorCode(http3.RequestCancelled))
	}
	time.Sleep(time.Second)
	if stay == 0 { // else, and where several wait for the head, it is fetched to its end
		select {
		case <-over:
		default:
			t.Error("the origin still sends, for nobody")
		}
		if s := g.upstream.Limit.Stats(); s.InUse != 0 || g.proxy.blocks.Len() != 0 {
			t.Errorf("%d places at the origin, %d flights for who has left; want none", s.InUse, g.proxy.blocks.Len())
		}
	}
	close(goOn)
	for _, s := range all[leave:] {
		if a, err := readH3(s); err != nil || a.body != film.content[:1000000] {
			t.Errorf("who stayed got %d bytes, %v", len(a.body), err)
		}
	}
	time.Sleep(time.Second)
	if s := g.upstream.Limit.Stats(); s.InUse != 0 || g.proxy.blocks.Len() != 0 {
		t.Errorf("at the end %d places at the origin, %d flights; want none", s.InUse, g.proxy.blocks.Len())
	}
	if n := len(film.asked()); n != 1 {
		t.Errorf("the origin was asked %d times, want once", n)
	}
}

// halting halts once before what lies behind at.
type halting struct {
	http.ResponseWriter
	at   int
	halt func()
}

// Write implements http.ResponseWriter.
func (w *halting) Write(p []byte) (int, error) {
	if w.at -= len(p); w.at < 0 && w.halt != nil {
		w.ResponseWriter.(http.Flusher).Flush()
		w.halt()
		w.halt = nil
	}
	return w.ResponseWriter.Write(p)
}

// waitFor waits for goOn, no longer than the request lasts.
func waitFor(goOn chan struct{}, r *http.Request) {
	select {
	case <-goOn:
	case <-r.Context().Done():
	}
}
