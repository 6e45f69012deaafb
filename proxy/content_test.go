package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"firstbell/proxy/admission"
	"firstbell/proxy/spool"
)

// oneAtOnce lets the gate's origin be asked one thing at a time.
func oneAtOnce(routes func(*Upstream) []*Route) func(*Upstream) []*Route {
	return func(up *Upstream) []*Route {
		up.Limit = admission.New(1, 10, 10*time.Second)
		return routes(up)
	}
}

// cramped gives the gate another spool, with little room.
func cramped(t *testing.T, g *gate, o spool.Options) {
	t.Helper()
	o.Dir = t.TempDir()
	s, err := spool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	g.proxy.spools = s
}

func spooled(t *testing.T, g *gate) {
	t.Helper()
	settle()
	if st := g.proxy.spools.Stats(); st.Open != 0 || st.Memory != 0 || st.Disk != 0 {
		t.Errorf("got %+v, want the spool empty", st)
	}
}

func TestWhoTricklesItsContentHoldsNoPlaceAtTheOrigin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, echo, oneAtOnce(plain))
		slow := onStreet(t, g)("10.0.0.1")
		const length = 200_000
		go func() {
			fmt.Fprintf(slow, "POST /homework HTTP/1.1\r\nHost: school.example\r\nContent-Length: %d\r\n\r\n", length)
			for range length / 1000 {
				slow.Write(make([]byte, 1000))
				time.Sleep(time.Second)
			}
		}()
		for range 10 {
			time.Sleep(10 * time.Second)
			if a := g.get("/lesson"); a.StatusCode != 200 || a.took > time.Second {
				t.Fatalf("got %d after %v beside a slow upload, want 200 at once", a.StatusCode, a.took)
			}
		}
		for _, f := range g.fetched() {
			if f != "GET /lesson" {
				t.Errorf("the origin saw %q before it was whole", f)
			}
		}
		if got := statusOf(slow); got != 200 {
			t.Errorf("the slow one got %d, want 200", got)
		}
		if f := g.fetched(); f[len(f)-1] != "POST /homework" {
			t.Errorf("the origin saw %v, want the upload last", f)
		}
		spooled(t, g)
	})
}

func TestContentReachesTheOriginAsItWas(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		lengths := make(chan int64, 1)
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			lengths <- r.ContentLength
			echo(w, r)
		}, plain)
		for _, size := range []int{0, 1, 16 << 10, 64 << 10, 64<<10 + 1, 3 << 20} {
			content := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
			for _, body := range []io.Reader{bytes.NewReader(content), io.MultiReader(bytes.NewReader(content))} { // of known length, and not
				a := g.do("POST", "/up", body)
				if want := fmt.Sprintf("POST /up %d %x", size, crc(content)); a.body != want {
					t.Errorf("%d bytes: the origin got %q, want %q", size, a.body, want)
				}
				if n := <-lengths; n != int64(size) {
					t.Errorf("%d bytes: the origin was told of %d", size, n)
				}
			}
		}
		spooled(t, g)
	})
}

func TestTrailerFieldsComeBehindContentThatWaited(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s", b, r.Trailer.Get("Digest"))
		}, plain)
		got := g.raw("POST / HTTP/1.1\r\nHost: school.example\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\nDigest: sha=1\r\n\r\n")
		if !strings.HasSuffix(got, "wiki sha=1") {
			t.Errorf("got %q, want the content and its trailer field", got)
		}
	})
}

func TestContentThatCannotWaitIsRefusedBeforeItIsSent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, echo, plain)
		cramped(t, g, spool.Options{Bytes: 4 << 20})
		c := onStreet(t, g)("10.0.0.1")
		go fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n")
		if got := statusOf(c); got != 413 {
			t.Errorf("got %d, want 413 and nothing asked for", got)
		}
		if a := g.do("POST", "/", io.MultiReader(bytes.NewReader(make([]byte, 2_000_000)))); a.StatusCode != 413 {
			t.Errorf("of unknown length: got %d, want 413", a.StatusCode)
		}
		cramped(t, g, spool.Options{Bytes: 4 << 20, KeepFree: 1 << 60})
		if a := g.do("POST", "/", bytes.NewReader(make([]byte, 500_000))); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
			t.Errorf("on a full disk: got %d, want 503 with Retry-After", a.StatusCode)
		}
		if a := g.do("POST", "/", bytes.NewReader(make([]byte, 50_000))); a.StatusCode != 200 {
			t.Errorf("a form on a full disk: got %d, want 200", a.StatusCode)
		}
		if f := g.fetched(); len(f) != 1 {
			t.Errorf("the origin saw %v, want the form alone", f)
		}
		spooled(t, g)
	})
}

// slowly reads a whole answer, a thousand bytes a second, and returns its
// content's length and how it ended.
func slowly(c net.Conn, bytesPerSecond int) (n int64, err error) {
	res, err := http.ReadResponse(bufio.NewReaderSize(sleepy{c, bytesPerSecond}, 16<<10), nil)
	if err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, res.Body)
}

type sleepy struct {
	io.Reader
	most int // a second
}

// Read implements io.Reader.
func (s sleepy) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p[:min(len(p), s.most)])
	time.Sleep(time.Second * time.Duration(n) / time.Duration(s.most))
	return n, err
}

func TestWhoReadsSlowlyHoldsNoPlaceAtTheOrigin(t *testing.T) {
	page := bytes.Repeat([]byte("mine "), 100_000)
	for name, room := range map[string]spool.Options{"room": {}, "memory alone": {KeepFree: 1 << 60}} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %v", name, chunked), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
						if !chunked {
							w.Header().Set("Content-Length", fmt.Sprint(len(page)))
						}
						w.Write(page)
					}, oneAtOnce(plain))
					cramped(t, g, room)
					c := onStreet(t, g)("10.0.0.1")
					go io.WriteString(c, "GET /mine HTTP/1.1\r\nHost: school.example\r\n\r\n")
					type end struct {
						n   int64
						err error
					}
					ended := make(chan end, 1)
					go func() {
						rate := 1000
						if name != "room" {
							rate = 16_000 // who takes less is cut off rather than hold the place
						}
						n, err := slowly(c, rate)
						ended <- end{n, err}
					}()
					if name == "room" {
						time.Sleep(2 * time.Second)
						if a := g.get("/yours"); a.StatusCode != 200 || a.took > time.Second {
							t.Errorf("got %d after %v beside a slow reader, want 200 at once", a.StatusCode, a.took)
						}
					}
					if e := <-ended; e.n != int64(len(page)) || e.err != nil {
						t.Errorf("the slow reader got %d bytes, %v; want all %d", e.n, e.err, len(page))
					}
					c.Close()
					spooled(t, g)
				})
			})
		}
	}
}

// TestWhoReadsSlowlyHoldsNoPlaceWithoutASpool has a reader keep to the least rate
// while the spool has no room for what it does not take.
func TestWhoReadsSlowlyHoldsNoPlaceWithoutASpool(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Write(make([]byte, 400_000))
		}, oneAtOnce(plain))
		cramped(t, g, spool.Options{KeepFree: 1 << 60})
		c := onStreet(t, g)("10.0.0.1")
		go io.WriteString(c, "GET /mine HTTP/1.1\r\nHost: school.example\r\n\r\n")
		go func() {
			for {
				if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		time.Sleep(time.Second)
		g.get("/yours") // may have to wait until the other is given up
		if a := g.get("/yours"); a.StatusCode != 200 || a.took > time.Second {
			t.Errorf("got %d after %v beside a slow reader, want 200 at once", a.StatusCode, a.took)
		}
		if st := g.proxy.spools.Stats(); st.Full == 0 {
			t.Errorf("got %+v, want a spool without room", st)
		}
		time.Sleep(2 * time.Minute)
		spooled(t, g)
	})
}

func TestWhoReadsSlowlyAndLeavesLeavesNothingBehind(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		gone := make(chan struct{})
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			defer close(gone)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}, oneAtOnce(plain))
		c := onStreet(t, g)("10.0.0.1")
		go io.WriteString(c, "GET /stream HTTP/1.1\r\nHost: school.example\r\n\r\n")
		c.Read(make([]byte, 100))
		time.Sleep(5 * time.Second)
		if st := g.proxy.spools.Stats(); st.Open != 1 {
			t.Errorf("got %+v, want one answer taken in for its reader", st)
		}
		c.Close()
		<-gone
		spooled(t, g)
	})
}

func TestASlowReaderSeesThatItsAnswerIsCutShort(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newRawGate(t, plain, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"+strings.Repeat("x", 200_000))
		})
		c := onStreet(t, g)("10.0.0.1")
		go io.WriteString(c, "GET /mine HTTP/1.1\r\nHost: school.example\r\n\r\n")
		if n, err := slowly(c, 1000); err != io.ErrUnexpectedEOF || n != 200_000 {
			t.Errorf("got %d bytes, %v; want 200000 and a cut", n, err)
		}
		spooled(t, g)
	})
}
