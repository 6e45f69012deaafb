package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"firstbell/cache"
)

// street is where clients of any address come from. A connection takes what is
// written to it only as it is read, as that of a client does whose buffers are
// full.
type street struct {
	conns  chan net.Conn
	closed chan struct{}
}

// onStreet has a gate serve a street too, and lets a test come from there.
func onStreet(t *testing.T, g *gate) (dial func(address string) net.Conn) {
	t.Helper()
	s := &street{make(chan net.Conn), make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- g.proxy.Serve(s) }()
	t.Cleanup(func() {
		close(s.closed)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return func(address string) net.Conn {
		ours, theirs := net.Pipe()
		s.conns <- addressed{theirs, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 5000))}
		t.Cleanup(func() { ours.Close() })
		return ours
	}
}

func (s *street) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *street) Addr() net.Addr { return nil }
func (s *street) Close() error   { return nil }

// addressed is a connection from an address.
type addressed struct {
	net.Conn
	from net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.from }

// statusOf reads one answer's status; 0 when there is none.
func statusOf(c net.Conn) int {
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	io.Copy(io.Discard, res.Body)
	calm()
	return res.StatusCode
}

func TestAHeadArrivesWithinItsTimeInAll(t *testing.T) {
	for name, head := range map[string]string{
		"fields":      "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 500),
		"empty lines": "\r\n\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g := newGate(t, echo, plain)
				c, began := onStreet(t, g)("10.0.0.1"), time.Now()
				go func() {
					for i := range head {
						if _, err := c.Write([]byte{head[i]}); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				}()
				status := statusOf(c)
				if took := time.Since(began); took > 11*time.Second {
					t.Errorf("cut off after %v, want 10 s", took)
				}
				if name == "fields" && status != 408 {
					t.Errorf("got status %d, want 408", status)
				}
				if f := g.fetched(); len(f) > 0 {
					t.Errorf("the origin saw %v, want nothing", f)
				}
			})
		})
	}
}

func TestContentIsHeldToARateOnAverage(t *testing.T) {
	for _, c := range []struct {
		name  string
		piece int // bytes
		every time.Duration
		lasts time.Duration // 0: to the end
	}{
		{"a trickle", 10, time.Second, 32 * time.Second},
		{"nothing behind the first piece", 2000, 50 * time.Second, 39 * time.Second},
		{"a phone that comes and goes", 8000, 20 * time.Second, 0},
		{"a phone on a bad cell", 300, time.Second, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g := newGate(t, echo, plain)
				nc, began := onStreet(t, g)("10.0.0.1"), time.Now()
				const length = 60_000
				go func() {
					fmt.Fprintf(nc, "POST /homework HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", length)
					for sent := 0; sent < length; sent += c.piece {
						if _, err := nc.Write(make([]byte, min(c.piece, length-sent))); err != nil {
							return
						}
						time.Sleep(c.every)
					}
				}()
				want := 200
				if c.lasts > 0 {
					want = 408
				}
				if got := statusOf(nc); got != want {
					t.Errorf("got status %d, want %d", got, want)
				}
				if took := time.Since(began); c.lasts > 0 && took > c.lasts {
					t.Errorf("cut off after %v, want at most %v", took, c.lasts)
				}
				if n := g.proxy.Stats().Parted["slow-content"]; (n == 1) != (c.lasts > 0) {
					t.Errorf("got %d cut off for slow content", n)
				}
			})
		})
	}
}

func TestAnswersAreTakenAtARateOnAverage(t *testing.T) {
	page := bytes.Repeat([]byte("lesson "), 30_000)
	for _, c := range []struct {
		name  string
		piece int
		every time.Duration
		whole bool
	}{
		{"nothing is read", 1, 50 * time.Second, false},
		{"a trickle is read", 100, time.Second, false},
		{"a phone on a bad cell", 600, 2 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g := newGate(t, func(w http.ResponseWriter, r *http.Request) { w.Write(page) }, cached(cache.Policy{DefaultTTL: time.Hour}))
				g.get("/lesson")
				nc := onStreet(t, g)("10.0.0.1")
				go io.WriteString(nc, "GET /lesson HTTP/1.1\r\nHost: school.example\r\nConnection: close\r\n\r\n")
				began, got, ended := time.Now(), 0, make(chan error, 1)
				go func() {
					for buf := make([]byte, c.piece); ; time.Sleep(c.every) {
						n, err := nc.Read(buf)
						if got += n; err != nil {
							ended <- err
							return
						}
					}
				}()
				if c.whole {
					if err := <-ended; err != io.EOF || got < len(page) {
						t.Errorf("got %d bytes, %v; want all %d", got, err, len(page))
					}
					return
				}
				for g.proxy.Stats().Parted["slow-reading"] == 0 && time.Since(began) < time.Hour {
					time.Sleep(time.Second)
				}
				if took := time.Since(began); took > 46*time.Second {
					t.Errorf("cut off after %v, want within one and a half times the grace", took)
				}
			})
		})
	}
}

func TestConnectionsOfOneAddressAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, echo, plain)
		g.proxy.SetLimits(Limits{PerAddress: 2})
		dial := onStreet(t, g)
		ask := func(c net.Conn) int {
			go io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			return statusOf(c)
		}
		first := dial("2001:db8::1")
		if got := []int{ask(first), ask(dial("2001:db8::ffff:2")), ask(dial("2001:db8::3")), ask(dial("2001:db8:0:1::1")), ask(dial("10.0.0.1"))}; fmt.Sprint(got) != "[200 200 429 200 200]" {
			t.Errorf("got %v, want the third of one /64 answered 429", got)
		}
		first.Close()
		settle()
		if got := ask(dial("2001:db8::3")); got != 200 {
			t.Errorf("got %d where one had left, want 200", got)
		}
	})
}

func TestTheTableOfAddressesHoldsOnlyWhoIsThere(t *testing.T) {
	var v visitors
	for i := range 1000 {
		a := visitor(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		if !v.enter(a, 1) || v.enter(a, 1) {
			t.Fatalf("address %d: want the first in and not the second", i)
		}
		v.leave(a)
	}
	if n := len(v.open); n != 0 {
		t.Errorf("got %d entries, want none", n)
	}
	if a, b := visitor(netip.MustParseAddr("::ffff:10.0.0.1")), visitor(netip.MustParseAddr("10.0.0.1")); a != b {
		t.Errorf("got %v and %v for one address of IPv4", a, b)
	}
}

func TestIdleConnectionsMakeRoomAndBusyOnesDoNot(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		let := make(chan struct{})
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) { <-let }, plain)
		g.proxy.SetLimits(Limits{Connections: 3, PerAddress: 10})
		dial := onStreet(t, g)
		ask := func(c net.Conn) { io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") }
		idle := dial("10.0.0.1")
		var busy []net.Conn
		for range 3 {
			c := dial("10.0.0.1")
			ask(c)
			busy = append(busy, c)
			settle()
		}
		if n, err := idle.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the idle one got %d, %v; want its end", n, err)
		}
		late := dial("10.0.0.2")
		go ask(late)
		res, err := http.ReadResponse(bufio.NewReader(late), nil)
		if err != nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("got %v, %v; want 503 with Retry-After", res, err)
		}
		close(let)
		for _, c := range busy {
			if got := statusOf(c); got != 200 {
				t.Errorf("a busy one got %d, want 200", got)
			}
		}
		st := g.proxy.Stats()
		if st.Parted["idle"] != 1 || st.Parted["connections"] != 1 {
			t.Errorf("got %v, want one idle and one turned away", st.Parted)
		}
	})
}
