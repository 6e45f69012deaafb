package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/cache"
)

// laneGate serves stored pages of /page/SIZE, stored for ever, echoes what is
// POSTed, takes check-ins into d, and answers /slow when it is told to.
func laneGate(t *testing.T, d *brokenDisk) (g *gate, dial func() *client, goOn chan struct{}) {
	t.Helper()
	if !canPark {
		t.Skip("there are no lanes on this system")
	}
	goOn = make(chan struct{})
	g, tcp := tcpGate(t, func(w http.ResponseWriter, r *http.Request) {
		var size int
		switch {
		case r.URL.Path == "/slow":
			<-goOn
			io.WriteString(w, "at last")
		case r.Method == "POST":
			echo(w, r)
		default:
			fmt.Sscanf(r.URL.Path, "/page/%d", &size)
			w.Header().Set("Cache-Control", "max-age=86400, no-transform")
			io.WriteString(w, page(size))
		}
	}, func(up *Upstream) []*Route {
		return []*Route{
			{Hosts: []string{"*"}, Methods: []string{"POST"}, Path: "/check-in", CheckIn: &CheckIn{
				Student: Ref{Kind: RefJSON, Path: []string{"student_id"}}}},
			{Hosts: []string{"*"}, Methods: []string{"POST"}, Path: "/progress", Collect: &Collect{Sink: "progress",
				Key: []Ref{{Kind: RefJSON, Path: []string{"id"}}}}},
			{Hosts: []string{"*"}, Origin: up, Cache: &cache.Policy{}},
		}
	})
	g.proxy.SetLimits(Limits{parkAfter: time.Hour}) // who waits for its turn in a test stays in its lane
	rec := newRecorder(t, d)
	g.proxy.recorder = touchy{rec}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { rec.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return g, func() *client {
		c := tcp()
		return &client{c, bufio.NewReaderSize(c, 64<<10)}
	}, goOn
}

// touchy cannot stand one student.
type touchy struct{ *attendance.Recorder }

func (r touchy) Submit(p attendance.Press, pending *attendance.Pending, w attendance.Waiter) (attendance.Receipt, bool, error) {
	if p.Student == "nobody" {
		panic("nobody")
	}
	return r.Recorder.Submit(p, pending, w)
}

func page(size int) string { return strings.Repeat("lesson. ", size/8+1)[:size] }

// get asks for a page and wants all of it.
func (c *client) get(t *testing.T, size int) {
	t.Helper()
	fmt.Fprintf(c, "GET /page/%d HTTP/1.1\r\nHost: a\r\n\r\n", size)
	c.wantPage(t, size)
}

func (c *client) wantPage(t *testing.T, size int) {
	t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Errorf("/page/%d: %v", size, err)
		return
	}
	if got, err := io.ReadAll(res.Body); string(got) != page(size) || err != nil {
		t.Errorf("/page/%d: got %d bytes, %v", size, len(got), err)
	}
}

// press checks in and wants its receipt.
func (c *client) press(t *testing.T, student string) {
	t.Helper()
	c.sendPress(student)
	c.wantReceipt(t, student)
}

func (c *client) sendPress(student string) {
	body := fmt.Sprintf(`{"student_id":%q}`, student)
	fmt.Fprintf(c, "POST /check-in HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func (c *client) wantReceipt(t *testing.T, student string) {
	t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Errorf("%s: %v", student, err)
		return
	}
	var got receipt
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || res.StatusCode != 200 || got.StudentID != student {
		t.Errorf("%s: got %d %+v, %v", student, res.StatusCode, got, err)
	}
}

func (c *client) sendBeacon(key string) {
	body := fmt.Sprintf(`{"id":%q}`, key)
	fmt.Fprintf(c, "POST /progress HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func (c *client) wantCollected(t *testing.T, key string) {
	t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Errorf("%s: %v", key, err)
		return
	}
	var got struct{ Receipt string }
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || res.StatusCode != 200 || got.Receipt == "" || got.Receipt != res.Header.Get("Receipt") {
		t.Errorf("%s: got %d %+v, %v", key, res.StatusCode, got, err)
	}
}

// into has a connection come into a lane.
func (c *client) into(t *testing.T, g *gate, want int) {
	t.Helper()
	until(t, "a lane", func() bool {
		c.get(t, 1000)
		return g.proxy.Stats().InLanes == want
	})
}

func TestABusyConnectionGoesIntoALaneAndOut(t *testing.T) {
	t.Parallel()
	g, dial, goOn := laneGate(t, &brokenDisk{})
	c := dial()
	c.into(t, g, 1)
	fmt.Fprint(c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	until(t, "it to leave", func() bool { return g.proxy.Stats().InLanes == 0 })
	close(goOn)
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 200 {
		t.Fatalf("got %v, %v", res, err)
	} else if body, err := io.ReadAll(res.Body); string(body) != "at last" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
	c.into(t, g, 1)
	c.press(t, "s1")
	if n := g.proxy.Stats().InLanes; n != 1 {
		t.Errorf("a check-in took its connection out of the lane: %d in lanes", n)
	}
	c.sendBeacon("b1")
	c.wantCollected(t, "b1")
	if n := g.proxy.Stats().InLanes; n != 1 {
		t.Errorf("a small write took its connection out of the lane: %d in lanes", n)
	}
	fmt.Fprint(c, "GET /page/8 HTTP/1.1\r\nHo") // is waited for elsewhere
	until(t, "it to leave", func() bool { return g.proxy.Stats().InLanes == 0 })
	fmt.Fprint(c, "st: a\r\n\r\n")
	c.wantPage(t, 8)
	if n := g.proxy.Stats().Connections; n != 1 {
		t.Errorf("got %d connections, want the one", n)
	}
}

// TestALaneHoldsNobodyUp has clients in the same lanes that wait for an origin,
// for the disk, and that read nothing of what they ask for.
func TestALaneHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	d := &brokenDisk{}
	g, dial, goOn := laneGate(t, d)
	defer close(goOn)
	const pages = 120 // 7 MB: the kernel holds half of it for a client who reads nothing
	clients := make([]*client, 24)
	for i := range clients {
		clients[i] = dial()
		clients[i].Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		clients[i].into(t, g, i+1)
	}
	written := d.hold()
	for i, c := range clients[1:] {
		switch i % 4 {
		case 3:
			c.sendBeacon(fmt.Sprint("b", i))
		case 0:
			fmt.Fprint(c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		case 1:
			c.sendPress(fmt.Sprint("s", i))
		case 2:
			go io.WriteString(c, strings.Repeat("GET /page/60000 HTTP/1.1\r\nHost: a\r\n\r\n", pages)) // ends with its connection
		}
	}
	for range 200 {
		clients[0].get(t, 1000)
	}
	written()
	for i, c := range clients[1:] {
		switch i % 4 {
		case 3:
			c.wantCollected(t, fmt.Sprint("b", i))
		case 1:
			c.wantReceipt(t, fmt.Sprint("s", i))
		case 2:
			for range pages {
				c.wantPage(t, 60000)
			}
		}
	}
}

// TestLanesLoseNothing mixes everything that takes a connection into a lane, out
// of it and into the lot, whole and in pieces.
func TestLanesLoseNothing(t *testing.T) {
	t.Parallel()
	g, dial, goOn := laneGate(t, &brokenDisk{})
	close(goOn)
	g.proxy.SetLimits(Limits{parkAfter: 20 * time.Millisecond})
	var wg sync.WaitGroup
	for i := range 24 {
		c, dice := dial(), rand.New(rand.NewPCG(1, uint64(i)))
		wg.Go(func() {
			defer c.Close()
			for n := range 60 {
				c.something(t, dice, fmt.Sprintf("s%d-%d", i, n))
			}
		})
	}
	wg.Wait()
	until(t, "nobody", func() bool {
		st := g.proxy.Stats()
		return st.Connections == 0 && st.Parked == 0 && st.InLanes == 0
	})
}

func (c *client) something(t *testing.T, dice *rand.Rand, name string) {
	switch dice.IntN(10) {
	case 0:
		c.ask(t, "/"+name, page(dice.IntN(20000)))
	case 1:
		c.get(t, 200_000) // more than is written in a lane
	case 2: // several at once
		c.sendPress(name)
		fmt.Fprint(c, "GET /page/10000 HTTP/1.1\r\nHost: a\r\n\r\nGET /page/10 HTTP/1.1\r\nHost: a\r\n\r\n")
		c.sendPress(name)
		c.wantReceipt(t, name)
		c.wantPage(t, 10000)
		c.wantPage(t, 10)
		c.wantReceipt(t, name)
	case 3: // in pieces
		for piece := range strings.SplitSeq("GET /pa|ge/77 HTTP/1.1\r\nHost: a\r|\n\r\n", "|") {
			fmt.Fprint(c, piece)
			time.Sleep(time.Duration(dice.IntN(2)) * time.Millisecond)
		}
		c.wantPage(t, 77)
	case 4: // a check-in in two
		body := fmt.Sprintf(`{"student_id":%q}`, name)
		fmt.Fprintf(c, "POST /check-in HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:5])
		time.Sleep(time.Duration(dice.IntN(2)) * time.Millisecond)
		fmt.Fprint(c, body[5:])
		c.wantReceipt(t, name)
	case 5:
		time.Sleep(time.Duration(dice.IntN(60)) * time.Millisecond)
	case 6:
		c.press(t, name)
	case 7:
		c.sendBeacon(name)
		c.sendPress(name)
		c.wantCollected(t, name)
		c.wantReceipt(t, name)
	default:
		for range dice.IntN(8) {
			c.get(t, 1000)
		}
	}
}

func TestAConnectionInALaneEnds(t *testing.T) {
	t.Parallel()
	in := func(t *testing.T, l Limits) (*gate, *client, func() *client) {
		g, dial, goOn := laneGate(t, &brokenDisk{})
		close(goOn)
		l.parkAfter = time.Hour
		g.proxy.SetLimits(l)
		c := dial()
		c.into(t, g, 1)
		return g, c, dial
	}
	ended := func(t *testing.T, c *client) {
		t.Helper()
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("got %d, %v; want the end", n, err)
		}
	}
	nobody := func(g *gate) func() bool {
		return func() bool { st := g.proxy.Stats(); return st.Connections == 0 && st.InLanes == 0 }
	}
	t.Run("with its client", func(t *testing.T) {
		t.Parallel()
		g, c, _ := in(t, Limits{})
		c.Close()
		until(t, "its end", nobody(g))
	})
	t.Run("with its client, behind a request", func(t *testing.T) {
		t.Parallel()
		g, c, _ := in(t, Limits{})
		fmt.Fprint(c, "GET /page/1000 HTTP/1.1\r\nHost: a\r\n\r\n")
		c.Conn.(*net.TCPConn).CloseWrite()
		c.wantPage(t, 1000)
		ended(t, c)
		until(t, "its end", nobody(g))
	})
	t.Run("as it says", func(t *testing.T) {
		t.Parallel()
		g, c, _ := in(t, Limits{})
		fmt.Fprint(c, "GET /page/1000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		c.wantPage(t, 1000)
		ended(t, c)
		until(t, "its end", nobody(g))
	})
	t.Run("with its time", func(t *testing.T) {
		t.Parallel()
		g, c, _ := in(t, Limits{})
		g.proxy.SetLimits(Limits{Idle: 200 * time.Millisecond})
		ended(t, c)
		until(t, "its end", nobody(g))
	})
	t.Run("for others", func(t *testing.T) {
		t.Parallel()
		g, c, dial := in(t, Limits{Connections: 1, PerAddress: 10})
		until(t, "room", func() bool { // its last answer may not be over yet
			other := dial()
			defer other.Close()
			fmt.Fprint(other, "GET /page/1000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			res, err := http.ReadResponse(other.r, nil)
			return err == nil && res.StatusCode == 200
		})
		ended(t, c)
		if n := g.proxy.Stats().Parted["idle"]; n != 1 {
			t.Errorf("got %d that gave way, want 1", n)
		}
	})
	t.Run("with the proxy", func(t *testing.T) {
		t.Parallel()
		g, c, _ := in(t, Limits{})
		g.proxy.door.shutdown(t.Context())
		ended(t, c)
		until(t, "its end", nobody(g))
	})
	t.Run("for nonsense", func(t *testing.T) {
		t.Parallel()
		g, c, _ := in(t, Limits{})
		fmt.Fprint(c, "GET /page/1000 HTTP/1.1\r\nHost : a\r\n\r\n")
		if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 400 {
			t.Errorf("got %v, %v; want 400", res, err)
		}
		c.Close()
		until(t, "its end", nobody(g))
	})
}

// TestAProxyThatShutsDownAnswersWhatALaneHasPutOff has check-ins wait for the
// disk while the proxy ends.
func TestAProxyThatShutsDownAnswersWhatALaneHasPutOff(t *testing.T) {
	t.Parallel()
	d := &brokenDisk{}
	g, dial, goOn := laneGate(t, d)
	close(goOn)
	c := dial()
	c.into(t, g, 1)
	written := d.hold()
	c.sendPress("s1")
	until(t, "the check-in", func() bool { return g.proxy.recorder.(touchy).Stats().Waiting == 1 })
	shut := make(chan error, 1)
	go func() { shut <- g.proxy.door.shutdown(context.Background()) }()
	until(t, "the end to begin", g.proxy.door.ending.Load)
	written()
	c.wantReceipt(t, "s1")
	if err := <-shut; err != nil {
		t.Errorf("shutting down: %v", err)
	}
}

func TestAPanicInALaneCostsItsConnection(t *testing.T) {
	t.Parallel()
	g, dial, goOn := laneGate(t, &brokenDisk{})
	close(goOn)
	c, other := dial(), dial()
	c.into(t, g, 2)
	other.into(t, g, 2)
	c.sendPress("nobody")
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 500 {
		t.Errorf("got %v, %v; want 500", res, err)
	}
	other.press(t, "s2")
	if n := g.proxy.Stats().Panics; n != 1 {
		t.Errorf("got %d panics, want 1", n)
	}
}

// TestWhoIsLeftWithAnAnswerIsHeldToTheRateToo has clients whose connection ends
// behind an answer that lies in the kernel: one takes it, if late, and one does
// not.
func TestWhoIsLeftWithAnAnswerIsHeldToTheRateToo(t *testing.T) {
	t.Parallel()
	g, dial, goOn := laneGate(t, &brokenDisk{})
	close(goOn)
	const size = 200_000 // the kernel takes it whole
	first := dial()
	first.get(t, size)
	first.get(t, size)
	first.Close()
	until(t, "the end of the first", func() bool { return g.proxy.Stats().Connections == 0 })
	ask := func(l Limits) *client {
		g.proxy.SetLimits(l)
		c, sent := dial(), g.proxy.Stats().SentBytes
		c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		fmt.Fprintf(c, "GET /page/%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", size)
		until(t, "the answer", func() bool { return g.proxy.Stats().SentBytes >= sent+size })
		return c
	}
	late := ask(Limits{Grace: time.Minute, MinRate: 1000})
	if n := g.proxy.Stats().Connections; n != 1 {
		t.Errorf("got %d connections while one has its answer to come, want 1", n)
	}
	late.wantPage(t, size)
	late.Close()
	until(t, "its end", func() bool { return g.proxy.Stats().Connections == 0 })
	if n := g.proxy.Stats().Parted["slow-reading"]; n != 0 {
		t.Errorf("got %d cut off, want none: %v", n, g.proxy.Stats().Parted)
	}
	never := ask(Limits{Grace: time.Second, MinRate: 1000})
	until(t, "the end of the other", func() bool { return g.proxy.Stats().Connections == 0 })
	if n := g.proxy.Stats().Parted["slow-reading"]; n != 1 {
		t.Errorf("got %d cut off, want 1: %v", n, g.proxy.Stats().Parted)
	}
	if got, err := io.Copy(io.Discard, never); err == nil || got >= size {
		t.Errorf("got %d bytes, %v; want a broken answer", got, err)
	}
}
