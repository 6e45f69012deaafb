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

	"firstbell/cache"
)

// tcpGate serves a gate on loopback too: what a connection of the kernel's does
// differs from one in memory.
func tcpGate(t *testing.T, answer http.HandlerFunc, routes func(*Upstream) []*Route) (*gate, func() net.Conn) {
	t.Helper()
	g := newGate(t, answer, routes)
	dial := g.serveTCP()
	return g, func() net.Conn {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Minute)) // by which it hangs
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// serveTCP has the gate listen on loopback until the test's end.
func (g *gate) serveTCP() func() (net.Conn, error) {
	t := g.t
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.proxy.Serve(ln) }()
	t.Cleanup(func() {
		ln.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }
}

// echo answers with the method, the target and the content.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %d %x", r.Method, r.RequestURI, len(body), crc(body))
}

func crc(b []byte) (sum uint32) {
	for _, c := range b {
		sum = sum*31 + uint32(c)
	}
	return sum
}

func TestRequestsSentInAdvanceAreAnsweredInOrder(t *testing.T) {
	_, dial := tcpGate(t, echo, plain)
	big := bytes.Repeat([]byte("0123456789abcdef"), 3000)
	var want []string
	var send bytes.Buffer
	ask := func(target string, content []byte, chunked bool) {
		want = append(want, fmt.Sprintf("POST %s %d %x", target, len(content), crc(content)))
		fmt.Fprintf(&send, "POST %s HTTP/1.1\r\nHost: school.example\r\n", target)
		if !chunked {
			fmt.Fprintf(&send, "Content-Length: %d\r\n\r\n%s", len(content), content)
			return
		}
		send.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		for i := 0; i < len(content); i += 1000 {
			piece := content[i:min(len(content), i+1000)]
			fmt.Fprintf(&send, "%x\r\n%s\r\n", len(piece), piece)
		}
		send.WriteString("0\r\nX-Trailer: 1\r\n\r\n")
	}
	for i, n := range []int{0, 1, 100, 3000, 5000, len(big)} {
		ask(fmt.Sprintf("/sized/%d", i), big[:n], false)
		ask(fmt.Sprintf("/chunked/%d", i), big[:n], true)
	}
	for _, cut := range []int{1, 7, 1000, 4096, send.Len()} {
		c := dial()
		go func() {
			for b := send.Bytes(); len(b) > 0; {
				n := min(cut, len(b))
				if len(b) < send.Len()-9000 {
					n = min(max(cut, 500), len(b)) // the beginning byte by byte is enough
				}
				if _, err := c.Write(b[:n]); err != nil {
					return
				}
				b = b[n:]
			}
		}()
		r := bufio.NewReader(c)
		for i, w := range want {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("pieces of %d: answer %d: %v", cut, i, err)
			}
			if got, err := io.ReadAll(res.Body); string(got) != w || err != nil {
				t.Fatalf("pieces of %d: answer %d: got %q, %v; want %q", cut, i, got, err, w)
			}
		}
	}
}

func TestContinueIsSentOnlyWhereContentIsWanted(t *testing.T) {
	_, dial := tcpGate(t, echo, func(up *Upstream) []*Route {
		return []*Route{{Hosts: []string{"*"}, Path: "/up", Methods: []string{"POST"}, Origin: up}, {Hosts: []string{"*"}, Path: "/*", Methods: []string{"GET"}, Origin: up}}
	})
	c := dial()
	r := bufio.NewReader(c)
	fmt.Fprint(c, "POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 100 {
		t.Fatalf("got %v, %v; want 100", res, err)
	}
	fmt.Fprint(c, "hello")
	if res, err = http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
		t.Fatalf("got %v, %v; want 200", res, err)
	}
	io.Copy(io.Discard, res.Body)
	fmt.Fprint(c, "POST /down HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if res, err = http.ReadResponse(r, nil); err != nil || res.StatusCode != 405 || !res.Close {
		t.Fatalf("got %v, %v; want 405 and the connection's end", res, err)
	}
}

// TestWhoStillSendsReadsWhyItIsNotWanted sends much more than anybody reads.
func TestWhoStillSendsReadsWhyItIsNotWanted(t *testing.T) {
	_, dial := tcpGate(t, echo, func(up *Upstream) []*Route {
		return []*Route{{Hosts: []string{"*"}, Methods: []string{"GET"}, Origin: up}}
	})
	c := dial()
	sent := make(chan error, 1)
	go func() {
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 1<<20)
		_, err := c.Write(make([]byte, 1<<20))
		sent <- err
	}()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 405 || !res.Close {
		t.Fatalf("got %v, %v; want 405 and the connection's end", res, err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), "POST") {
		t.Errorf("got %q, %v; want the whole reason", body, err)
	}
	if err := <-sent; err != nil {
		t.Errorf("sending: %v; want it to be taken in", err)
	}
}

func TestMalformedRequestsReachNobody(t *testing.T) {
	g, dial := tcpGate(t, echo, cached(cache.Policy{DefaultTTL: time.Hour}))
	for request, status := range map[string]int{
		"GET / HTTP/1.1\r\nHost : a\r\n\r\n":           400,
		"GET / HTTP/1.1\nHost: a\n\n":                  400,
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": 400,
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":    400,
		"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n":                                                         400,
		"GET / HTTP/3.0\r\nHost: a\r\n\r\n":                                                                 505,
		"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n":                                                       501,
		"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n":                                                               501,
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n":                                                             400,
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", headBytesMax) + "\r\n\r\n":                 431,
		"GET /" + strings.Repeat("x", targetBytesMax) + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n": 414,
	} {
		c := dial()
		go io.WriteString(c, request+"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != status {
			t.Errorf("%.60q: got %v, %v; want %d", request, res, err, status)
		}
	}
	for _, f := range g.fetched() {
		if f != "GET /smuggled" { // behind a refusal that left the message's end certain
			t.Errorf("the origin saw %s", f)
		}
	}
	if st := g.proxy.Stats(); st.Malformed["field-name"] != 1 || st.Malformed["length-and-coding"] != 1 {
		t.Errorf("got counts %v, want one of each reason", st.Malformed)
	}
}

// TestAHitAllocatesNothing counts what the whole process allocates while a
// stored page is asked for over a connection: the client's side of it, too.
func TestAHitAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	page := strings.Repeat("x", 20<<10)
	_, dial := tcpGate(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600, no-transform")
		io.WriteString(w, page)
	}, cached(cache.Policy{}))
	c := dial()
	request, buf := []byte(hitRequest), make([]byte, 64<<10)
	ask := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		for n, whole := 0, len(buf); n < whole; {
			more, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			if n += more; whole == len(buf) {
				whole = bytes.Index(buf[:n], []byte("\r\n\r\n")) + 4 + len(page)
			}
		}
	}
	ask()
	if n := testing.AllocsPerRun(2000, ask); n >= 0.5 {
		t.Errorf("got %v allocations per hit, want none", n)
	}
}
