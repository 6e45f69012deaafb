package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"firstbell/cache"
)

// slowGate has private pages, /page/SIZE, stored ones, /stored/SIZE, and an echo
// of what is POSTed.
func slowGate(t *testing.T, grace time.Duration) (g *gate, dial func() *client) {
	t.Helper()
	if !canPark {
		t.Skip("who waits has a goroutine on this system")
	}
	g = (&gate{memory: 1 << 30}).open(t, func(w http.ResponseWriter, r *http.Request) {
		var size int
		if r.Method == "POST" {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			w.Write(body)
			return
		}
		if _, err := fmt.Sscanf(r.URL.Path, "/stored/%d", &size); err == nil {
			w.Header().Set("Cache-Control", "max-age=86400, no-transform")
		} else {
			fmt.Sscanf(r.URL.Path, "/page/%d", &size)
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		io.WriteString(w, page(size))
	}, func(up *Upstream) []*Route {
		return []*Route{{Hosts: []string{"*"}, Path: "/stored/*", Origin: up, Cache: &cache.Policy{}}, {Hosts: []string{"*"}, Origin: up}}
	})
	g.proxy.SetLimits(Limits{Grace: grace})
	tcp := g.serveTCP()
	return g, func() *client {
		c, err := tcp()
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { c.Close() })
		if err := c.(*net.TCPConn).SetReadBuffer(256 << 10); err != nil {
			t.Fatal(err)
		}
		return &client{c, bufio.NewReader(c)}
	}
}

// hugePage is more than all that lies between a client and firstbell holds.
const hugePage = 8 << 20

// askFirst has the page of a kind asked for until it is stored, if it will be.
func askFirst(t *testing.T, dial func() *client, kind string, size int) {
	t.Helper()
	c := dial()
	defer c.Close()
	until(t, "it to be stored", func() bool {
		fmt.Fprintf(c, "GET /%s/%d HTTP/1.1\r\nHost: a\r\n\r\n", kind, size)
		res, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		return kind != "stored" || strings.Contains(res.Header.Get("Cache-Status"), "; hit")
	})
}

func (g *gate) wantWaiting(n int) {
	g.t.Helper()
	until(g.t, fmt.Sprint(n, " to wait without a goroutine"), func() bool { return g.proxy.Stats().Waiting == n })
}

func TestASlowReaderHoldsNoGoroutine(t *testing.T) {
	for _, kind := range []string{"page", "stored"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g, dial := slowGate(t, time.Hour)
			askFirst(t, dial, kind, hugePage)
			c := dial()
			for range 2 {
				fmt.Fprintf(c, "GET /%s/%d HTTP/1.1\r\nHost: a\r\n\r\n", kind, hugePage)
				g.wantWaiting(1)
				c.wantPage(t, hugePage)
			}
			c.get(t, 1000)
			g.wantWaiting(0)
			if st := g.proxy.spools.Stats(); st.Open != 0 || st.Memory != 0 || st.Disk != 0 {
				t.Errorf("got %+v, want everything given back", st)
			}
		})
	}
}

func TestWhoTakesNothingIsCutOffInTheSiding(t *testing.T) {
	for _, kind := range []string{"page", "stored"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g, dial := slowGate(t, time.Hour)
			askFirst(t, dial, kind, hugePage)
			g.proxy.SetLimits(Limits{Grace: time.Second})
			c := dial()
			fmt.Fprintf(c, "GET /%s/%d HTTP/1.1\r\nHost: a\r\n\r\n", kind, hugePage)
			until(t, "it to be cut off", func() bool {
				st := g.proxy.Stats()
				return st.Parted["slow-reading"] == 1 && st.Connections == 0 && st.Waiting == 0
			})
			if n, err := io.Copy(io.Discard, c); err == nil && n >= hugePage {
				t.Errorf("got %d bytes and a clean end, want a cut", n)
			}
			until(t, "all to be given back", func() bool { return g.proxy.spools.Stats().Open == 0 })
		})
	}
}

func TestContentThatTricklesHoldsNoGoroutine(t *testing.T) {
	g, dial := slowGate(t, time.Hour)
	for _, c := range []struct{ name, framing, first, second, rest string }{
		{"length", "Content-Length: 9", "ab", "c", "defghi"},
		{"chunked", "Transfer-Encoding: chunked", "2\r\nab\r\n", "1\r\nc", "\r\n6\r\ndefghi\r\n0\r\n\r\n"},
		{"an unfinished line", "Transfer-Encoding: chunked", "2\r\nab\r\n7", "\r", "\ncdefghi\r\n0\r\n\r\n"},
		{"what it waits to send", "Expect: 100-continue\r\nContent-Length: 9", "", "ab", "cdefghi"},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := dial()
			for range 2 {
				fmt.Fprintf(to, "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n%s", c.framing, c.first)
				for _, next := range []string{c.second, c.rest} {
					g.wantWaiting(1)
					io.WriteString(to, next)
				}
				res, err := http.ReadResponse(to.r, nil)
				if err == nil && res.StatusCode == 100 {
					res, err = http.ReadResponse(to.r, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(res.Body); string(got) != "abcdefghi" || err != nil {
					t.Errorf("got %d %q, %v", res.StatusCode, got, err)
				}
			}
			to.Close()
			until(t, "it to leave", func() bool { return g.proxy.Stats().Connections == 0 })
		})
	}
}

func TestContentThatDoesNotComeIsRefusedInTheSiding(t *testing.T) {
	g, dial := slowGate(t, time.Second)
	c := dial()
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil || res.StatusCode != 408 {
		t.Fatalf("got %v, %v; want 408", res, err)
	}
	if n := g.proxy.Stats().Parted["slow-content"]; n != 1 {
		t.Errorf("got %d counted, want one", n)
	}
	c.Close()
	half := dial()
	fmt.Fprint(half, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab")
	half.Close()
	until(t, "both to leave", func() bool { st := g.proxy.Stats(); return st.Connections == 0 && st.Waiting == 0 })
	if st := g.proxy.spools.Stats(); st.Open != 0 || st.Memory != 0 {
		t.Errorf("got %+v, want everything given back", st)
	}
}

// TestWhoWaitsIsOutOfTheWayAtTheEnd ends a proxy while clients wait in the
// siding: those that go on in time get what they asked for, the others are cut.
func TestWhoWaitsIsOutOfTheWayAtTheEnd(t *testing.T) {
	g, dial := slowGate(t, time.Hour)
	reads, sends, late, lateToo := dial(), dial(), dial(), dial()
	for _, c := range []*client{reads, late} {
		fmt.Fprintf(c, "GET /page/%d HTTP/1.1\r\nHost: a\r\n\r\n", hugePage)
	}
	for _, c := range []*client{sends, lateToo} {
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab")
	}
	g.wantWaiting(4)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.proxy.Shutdown(ctx) }()
	until(t, "the end to begin", func() bool { return g.proxy.door.ending.Load() })
	io.WriteString(sends, "cdefghi")
	if res, err := http.ReadResponse(sends.r, nil); err != nil || !res.Close {
		t.Errorf("got %v, %v; want an answer, the last", res, err)
	} else if got, err := io.ReadAll(res.Body); string(got) != "abcdefghi" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	reads.wantPage(t, hugePage)
	g.wantWaiting(2)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that not all had ended", err)
	}
	for _, c := range []*client{late, lateToo} {
		if got, err := io.ReadAll(c); err == nil && (len(got) >= hugePage || bytes.Contains(got, []byte("200 OK\r\n")) && c == lateToo) {
			t.Errorf("got %d bytes and a clean end, want a cut", len(got))
		}
	}
	until(t, "all to leave", func() bool { return g.proxy.Stats().Waiting == 0 && g.proxy.spools.Stats().Open == 0 })
}

// TestTheSidingTakesNoMoreWhenItIsClosed has clients wait as ever.
func TestTheSidingTakesNoMoreWhenItIsClosed(t *testing.T) {
	g, dial := slowGate(t, time.Hour)
	g.proxy.door.siding.close()
	c := dial()
	fmt.Fprintf(c, "GET /page/%d HTTP/1.1\r\nHost: a\r\n\r\n", hugePage)
	c.wantPage(t, hugePage)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 1<<20)
	until(t, "its content to be waited for", func() bool { return g.proxy.spools.Stats().Open == 1 })
	io.WriteString(c, strings.Repeat("x", 1<<20))
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); n != 1<<20 || err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if n := g.proxy.Stats().Waiting; n != 0 {
		t.Errorf("%d wait in a siding that is closed", n)
	}
}

// TestASlowClientCostsLittle measures what memory firstbell and the test together
// hold for each client of a kind: 5 to 7 KiB when this was written, 13 where pages
// are private. A goroutine that waits with its buffers would add as much again.
func TestASlowClientCostsLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	// A client who is far away, with small packets and a small window.
	far := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) {
			err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400),
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10))
		})
		return errors.Join(err, cerr)
	}}
	for _, c := range []struct {
		name, opening string
		sided         bool
		bytesMax      int64
	}{
		{"heads", "GET / HTTP/1.1\r\nHost: a\r\nX", false, 16 << 10},
		{"contents", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nab", true, 12 << 10},
		{"chunks", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", true, 12 << 10},
		{"readers", "GET /stored/1000000 HTTP/1.1\r\nHost: a\r\n\r\n", true, 12 << 10},
		{"private", "GET /page/1000000 HTTP/1.1\r\nHost: a\r\n\r\n", true, 24 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, dial := slowGate(t, time.Hour)
			askFirst(t, dial, "stored", 1_000_000)
			address := dial().RemoteAddr().String()
			come := 0
			crowd := func(n int) int64 {
				for range n {
					to, err := far.Dial("tcp", address)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { to.Close() })
					io.WriteString(to, c.opening)
				}
				come += n
				until(t, fmt.Sprint(come, " to wait"), func() bool {
					st := g.proxy.Stats()
					return c.sided && st.Waiting == come || !c.sided && st.Connections == come+1 && st.InLanes+st.Parked <= 1
				})
				var m runtime.MemStats
				runtime.GC()
				runtime.GC() // the pools are emptied by the second
				runtime.ReadMemStats(&m)
				return int64(m.HeapAlloc + m.StackInuse)
			}
			const batch, batches = 32, 2
			before, after := crowd(batch), int64(0) // the first brings what all share
			for range batches {
				after = crowd(batch)
			}
			each := (after - before) / (batch * batches)
			if each > c.bytesMax {
				t.Errorf("got %d bytes for each, want at most %d", each, c.bytesMax)
			}
		})
	}
}
