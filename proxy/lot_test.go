package proxy

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"firstbell/cache"
)

// parkingGate parks connections after a moment.
func parkingGate(t *testing.T, l Limits) (*gate, func() net.Conn) {
	t.Helper()
	if !canPark {
		t.Skip("connections are not parked on this system")
	}
	g, dial := tcpGate(t, echo, cached(cache.Policy{}))
	l.parkAfter = max(l.parkAfter, time.Millisecond)
	g.proxy.SetLimits(l)
	return g, dial
}

// until waits for something that is bound to come: for long only in vain.
func until(t *testing.T, what string, come func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if come() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

// client asks over one connection.
type client struct {
	net.Conn
	r *bufio.Reader
}

func (c *client) ask(t *testing.T, path, content string) {
	t.Helper()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", path, len(content), content)
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	want := fmt.Sprintf("POST %s %d %x", path, len(content), crc([]byte(content)))
	if got, err := io.ReadAll(res.Body); string(got) != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestAParkedConnectionGoesOnWhereItStopped(t *testing.T) {
	g, dial := parkingGate(t, Limits{})
	c := dial()
	asker := &client{c, bufio.NewReader(c)}
	for i := range 5 {
		asker.ask(t, fmt.Sprintf("/%d", i), "homework")
		until(t, "parking", func() bool { return g.proxy.Stats().Parked == 1 })
	}
	fmt.Fprint(c, "POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n") // brings it back, and is no request yet
	until(t, "its return", func() bool { return g.proxy.Stats().Parked == 0 })
	fmt.Fprint(c, "\r\nabcPOST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
	for range 2 {
		res, err := http.ReadResponse(asker.r, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("got %v, %v; want 200", res, err)
		}
		io.Copy(io.Discard, res.Body)
	}
	if n := g.proxy.Stats().Connections; n != 1 {
		t.Errorf("got %d connections, want the one", n)
	}
}

func TestAParkedConnectionEnds(t *testing.T) {
	t.Run("with its client", func(t *testing.T) {
		g, dial := parkingGate(t, Limits{})
		c := dial()
		until(t, "parking", func() bool { return g.proxy.Stats().Parked == 1 })
		c.Close()
		until(t, "its end", func() bool { st := g.proxy.Stats(); return st.Connections == 0 && st.Parked == 0 })
	})
	t.Run("with its time", func(t *testing.T) {
		g, dial := parkingGate(t, Limits{Idle: 200 * time.Millisecond})
		first, second := dial(), dial()
		for _, c := range []net.Conn{first, second} {
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("got %d, %v; want the end", n, err)
			}
		}
		until(t, "nobody", func() bool { return g.proxy.Stats().Connections == 0 })
	})
	t.Run("for others", func(t *testing.T) {
		g, dial := parkingGate(t, Limits{Connections: 1, PerAddress: 10})
		c := dial()
		until(t, "parking", func() bool { return g.proxy.Stats().Parked == 1 })
		other := dial()
		(&client{other, bufio.NewReader(other)}).ask(t, "/", "")
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("got %d, %v; want the end", n, err)
		}
		if n := g.proxy.Stats().Parted["idle"]; n != 1 {
			t.Errorf("got %d that gave way, want 1", n)
		}
	})
	t.Run("with the proxy", func(t *testing.T) {
		g, dial := parkingGate(t, Limits{})
		c := dial()
		until(t, "parking", func() bool { return g.proxy.Stats().Parked == 1 })
		g.proxy.door.shutdown(t.Context())
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("got %d, %v; want the end", n, err)
		}
	})
}

// TestParkingLosesNothing has connections come back at the very moments at which
// they are parked.
func TestParkingLosesNothing(t *testing.T) {
	g, dial := parkingGate(t, Limits{})
	var wg sync.WaitGroup
	for i := range 40 {
		c := dial()
		wg.Go(func() {
			asker := &client{c, bufio.NewReader(c)}
			for n := range 30 {
				asker.ask(t, fmt.Sprintf("/%d/%d", i, n), "x")
				time.Sleep(rand.N(3 * time.Millisecond))
			}
			c.Close()
		})
	}
	wg.Wait()
	until(t, "nobody", func() bool { st := g.proxy.Stats(); return st.Connections == 0 && st.Parked == 0 })
}
