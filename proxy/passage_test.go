package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"firstbell/proxy/spool"
)

// simpleOrigin answers every request on loopback with the same bytes and makes
// no garbage. Requests end in end, and come in one read.
func simpleOrigin(t testing.TB, end, answer string) (dial func() (net.Conn, error)) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	ending, said := []byte(end), []byte(answer)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4<<10)
				for {
					n, err := c.Read(buf)
					if err != nil || !bytes.HasSuffix(buf[:n], ending) {
						return
					}
					if _, err := c.Write(said); err != nil {
						return
					}
				}
			}()
		}
	}()
	return func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }
}

const (
	ownAnswer   = "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 07:22:13 GMT\r\nContent-Type: application/json\r\nCache-Control: private, no-store\r\nContent-Length: 1024\r\n\r\n"
	formRequest = "POST /forms/quiz HTTP/1.1\r\nHost: s01.school.example\r\nUser-Agent: Mozilla/5.0\r\nConnection: keep-alive\r\nAccept: text/html\r\nCookie: session=0123456789abcdef\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"answer\":\"1\"}"
)

// passGate starts a proxy between loopback connections that passes all on.
func passGate(t testing.TB, dial func() (net.Conn, error)) (enter func() net.Conn) {
	t.Helper()
	p, up := benchProxy(t, dial)
	spools, err := spool.Open(spool.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	p.spools = spools
	p.Swap(NewTable(plain(up)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go p.Serve(ln)
	t.Cleanup(func() { p.Shutdown(context.Background()) })
	return func() net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

func TestPassingOnAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, c := range []struct{ name, request, end string }{
		{"a page of one's own", hitRequest, "\r\n\r\n"},
		{"a form", formRequest, "}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			page := strings.Repeat("x", 1024)
			to := passGate(t, simpleOrigin(t, c.end, ownAnswer+page))()
			request, buf, end := []byte(c.request), make([]byte, 4<<10), []byte(page)
			ask := func() {
				if _, err := to.Write(request); err != nil {
					t.Fatal(err)
				}
				for n := 0; !bytes.HasSuffix(buf[:n], end); {
					more, err := to.Read(buf[n:])
					if err != nil {
						t.Fatal(err)
					}
					n += more
				}
			}
			ask()
			if n := testing.AllocsPerRun(2000, ask); n >= 0.5 {
				t.Errorf("got %v allocations, want none", n)
			}
		})
	}
}

// TestWhatIsPassedOnIsNobodyElses has many clients at once, each of whom must
// get what was made of its own request, though all use the same memory in turn.
func TestWhatIsPassedOnIsNobodyElses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			content, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Who", r.Header.Get("Cookie"))
			fmt.Fprintf(w, "%s %s %s", r.RequestURI, r.Header.Get("Cookie"), content)
		}, plain)
		var wg sync.WaitGroup
		for who := range 6 {
			wg.Go(func() {
				for n := range 10 {
					cookie := fmt.Sprintf("student=%d-%d", who, n)
					target, content := fmt.Sprintf("/%d/%s", n, strings.Repeat("p", who*20)), fmt.Sprintf("content %d of %d", n, who)
					a := g.do("POST", target, strings.NewReader(content), "Cookie: "+cookie)
					if want := target + " " + cookie + " " + content; a.body != want || a.Header.Get("X-Who") != cookie {
						t.Errorf("got %q for %q, want %q", a.body, a.Header.Get("X-Who"), want)
					}
				}
			})
		}
		wg.Wait()
	})
}

func BenchmarkPassingOn(b *testing.B) {
	for _, c := range []struct{ name, request, end string }{{"page", hitRequest, "\r\n\r\n"}, {"form", formRequest, "}"}} {
		b.Run(c.name, func(b *testing.B) {
			enter := passGate(b, simpleOrigin(b, c.end, ownAnswer+strings.Repeat("x", 1024)))
			converse(b, func() (net.Conn, error) { return enter(), nil }, c.request)
		})
	}
}
