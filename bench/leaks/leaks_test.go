package leaks

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

// Accept implements net.Listener.
func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipes) Close() error { l.once.Do(func() { close(l.done) }); return nil }

// Addr implements net.Listener.
func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (l *pipes) dial(ctx context.Context, _ int) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func run(t *testing.T, o Options) *Report {
	t.Helper()
	o.Clients, o.Pause, o.Patience = 16, 50*time.Millisecond, time.Minute
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWithoutAProxyNothingLeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := newPipes()
		r := run(t, Options{Seed: 1, Requests: 3000, Dial: origin.dial, Origin: origin})
		for _, f := range r.Findings {
			t.Errorf("found without a proxy: %s", f.String())
		}
		if r.Shared != 0 || r.Fetches < 2000 {
			t.Errorf("%d of %d answers shared without a proxy", r.Shared, r.Fetches)
		}
	})
}

// TestALyingOriginIsSeenThrough lets clients ask an origin that lies, with
// nobody between who would notice.
func TestALyingOriginIsSeenThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := newPipes()
		r := run(t, Options{Seed: 1, Requests: 2000, Dial: origin.dial, Origin: origin, Flaws: true, Stall: time.Hour,
			Only: []string{"overruns", "unasked-206", "frames", "stalls"}})
		for _, want := range []Leak{Unasked, Short, Malformed, Silence} {
			if r.Counts[want] == 0 {
				t.Errorf("found %v, want %q among it", r.Counts, want)
			}
		}
	})
}

// hoarder keeps the first answer to every target for ever.
type hoarder struct {
	origin *pipes
	mu     sync.Mutex // guards kept
	kept   map[string][]byte
}

func (h *hoarder) serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go h.converse(c)
	}
}

func (h *hoarder) converse(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	var request head
	for {
		if err := request.read(in); err != nil {
			return
		}
		h.mu.Lock()
		answer := h.kept[request.start]
		h.mu.Unlock()
		if framing, err := request.framing(); err == nil && framing != -2 {
			if _, err := readContent(nil, in, framing, nil, nil); err != nil {
				return
			}
		}
		if answer == nil {
			if answer = h.fetch(request.raw); answer == nil {
				return
			}
			h.mu.Lock()
			h.kept[request.start] = answer
			h.mu.Unlock()
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// fetch passes a request on and returns the whole answer.
func (h *hoarder) fetch(request []byte) []byte {
	c, err := h.origin.dial(context.Background(), 0)
	if err != nil {
		return nil
	}
	defer c.Close()
	go c.Write(request)
	all := new(bytes.Buffer)
	in := bufio.NewReader(io.TeeReader(c, all))
	var response head
	if response.read(in) != nil {
		return nil
	}
	method, _, _ := strings.Cut(string(request), " ")
	framing, err := response.framing()
	if status := response.start[9:12]; err == nil && method != "HEAD" && framing != -2 && status != "304" && status != "204" {
		if _, err := readContent(nil, in, framing, nil, nil); err != nil {
			return nil
		}
	}
	return all.Bytes()
}

func TestAHoarderIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin, front := newPipes(), newPipes()
		h := &hoarder{origin: origin, kept: make(map[string][]byte)}
		go h.serve(front)
		r := run(t, Options{Seed: 1, Requests: 3000, Dial: front.dial, Origin: origin})
		front.Close()
		for _, want := range []Leak{UserPage, CookiePage, SilentPage, ValidatedPage, AuthPage, NoStoreAsked, VaryPage, OtherURL, Withheld, Stale} {
			if r.Counts[want] == 0 {
				t.Errorf("found %v, want %q among it", r.Counts, want)
			}
		}
		var table bytes.Buffer
		if err := r.Print(&table); err != nil || !strings.Contains(table.String(), UserPage.String()) {
			t.Errorf("Print: %v, %q", err, table.String())
		}
		if err := r.PrintKinds(&table); err != nil || !strings.Contains(table.String(), "private-second-line") {
			t.Errorf("PrintKinds: %v, %q; want the kinds of URLs", err, table.String())
		}
	})
}

func TestEveryByteSaysWhoseItIs(t *testing.T) {
	whole := appendCells(nil, 0xabcd, 0, 70_000)
	for _, r := range [][2]int{{0, 1}, {0, 16}, {5, 6}, {15, 17}, {31, 100}, {4095, 70_000}, {70_000, 70_000}} {
		if got := appendCells(nil, 0xabcd, r[0], r[1]); !bytes.Equal(got, whole[r[0]:r[1]]) {
			t.Errorf("bytes %d to %d: got %q, want %q", r[0], r[1], got, whole[r[0]:r[1]])
		}
	}
	if got := repsIn(whole[3:]); len(got) != 1 || got[0] != 0xabcd {
		t.Errorf("representations in a part: got %x, want abcd", got)
	}
	seen := make(map[string]bool)
	for at := 0; at+cellBytes <= len(whole); at += cellBytes {
		seen[string(whole[at:at+cellBytes])] = true
	}
	if len(seen) != len(whole)/cellBytes {
		t.Errorf("%d different cells of %d", len(seen), len(whole)/cellBytes)
	}
	for _, size := range []int{0, 1, 17, 65_535, 65_536, 70_000} {
		coded := appendGzip(nil, whole[:size])
		z, err := gzip.NewReader(bytes.NewReader(coded))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(got, whole[:size]) || len(coded) != gzipBytes(size) {
			t.Errorf("gzip of %d bytes: got %d bytes back, %v; %d coded, counted %d", size, len(got), err, len(coded), gzipBytes(size))
		}
	}
}

func TestWhatCannotBePlayedIsRefused(t *testing.T) {
	if _, err := Run(t.Context(), Options{}); err == nil {
		t.Error("no proxy and no origin: got no error, want one")
	}
}
