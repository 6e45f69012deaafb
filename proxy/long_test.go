package proxy

import (
	"bufio"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/valyala/fasthttp/fasthttputil"

	"firstbell/cache"
)

// throughLoopback puts a gate before an origin, sockets on both sides, and
// returns its address.
func throughLoopback(t *testing.T, answer http.HandlerFunc, routes func(*Upstream) []*Route) (g *gate, address string) {
	t.Helper()
	srv := httptest.NewServer(answer)
	g = &gate{t: t, ln: fasthttputil.NewInmemoryListener()}
	g.launch(func() (net.Conn, error) { return net.Dial("tcp", srv.Listener.Addr().String()) }, routes)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.proxy.Serve(ln) }()
	t.Cleanup(func() {
		g.land()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		srv.CloseClientConnections()
		srv.Close()
		g.cache.Close()
	})
	return g, ln.Addr().String()
}

// endless hands out n bytes that are no zeros, and forgets them.
type endless struct{ n int64 }

var line = []byte(strings.Repeat("0123456789abcdef", 2<<10))

func (e *endless) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), e.n)], line)
	e.n -= int64(n)
	return n, nil
}

// longBytes is the length of what is carried: a gigabyte, but for the race
// detector, which would take a minute for it.
func longBytes() int64 {
	if raceEnabled {
		return 64 << 20
	}
	return 1 << 30
}

func TestAGigabyteEachWayTakesNoMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("left out with -short: a gigabyte each way")
	}
	size := longBytes()
	_, address := throughLoopback(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n, err)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		if r.URL.Path == "/cached" {
			w.Header().Set("Content-Length", fmt.Sprint(size/8))
			io.Copy(w, &endless{size / 8})
			return
		}
		io.Copy(w, &endless{size})
	}, func(up *Upstream) []*Route {
		return []*Route{{Hosts: []string{"*"}, Path: "/cached", Origin: up, Cache: &cache.Policy{}}, {Hosts: []string{"*"}, Origin: up, StreamsRequests: true, StreamsAnswers: true}}
	})
	peak := watchHeap(t)
	for path, size := range map[string]int64{"/plain": size, "/cached": size / 8} {
		res, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if n != size || err != nil {
			t.Errorf("%s: got %d bytes and %v, want %d", path, n, err, size)
		}
	}
	for chunked, size := range map[bool]int64{false: size, true: size / 8} {
		req, err := http.NewRequest("PUT", "http://"+address+"/homework", io.NopCloser(&endless{size}))
		if err != nil {
			t.Fatal(err)
		}
		if req.ContentLength = size; chunked {
			req.ContentLength = -1
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if want := fmt.Sprint(size, "<nil>"); strings.ReplaceAll(string(got), " ", "") != want {
			t.Errorf("chunked %v: the origin got %s, want %s", chunked, got, want)
		}
	}
	// What a flight keeps of a body that it may store, and the buffers on the way.
	most := peak()
	if t.Logf("the heap reached %d MiB", most>>20); most > keepBytesMax+64<<20 {
		t.Errorf("that is more than a flight keeps, and 64 MiB")
	}
}

// sayBack is an origin that says back what it hears.
func sayBack() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return // it has answered
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}
}

func TestAWebSocketCarriesMessagesOfEverySizeOverPlainAndTLS(t *testing.T) {
	g, address := throughLoopback(t, sayBack(), forClasses(nil))
	secure := overTLS(t, g)
	for scheme, dial := range map[string]func(ctx context.Context, network, address string) (net.Conn, error){
		"ws": func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("tcp", address)
		},
		"wss": func(context.Context, string, string) (net.Conn, error) {
			return secure("http/1.1"), nil
		},
	} {
		transport := &http.Transport{DialContext: dial, DialTLSContext: dial}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c, _, err := websocket.Dial(ctx, scheme+"://school.example/class", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
		if err != nil {
			t.Errorf("%s: %v", scheme, err)
			continue
		}
		c.SetReadLimit(-1)
		for _, size := range []int{0, 1, 125, 126, 65535, 65536, 3 << 20} {
			said := make([]byte, size)
			for i := range said {
				said[i] = byte(i * 7)
			}
			heard := make(chan []byte, 1)
			go func() {
				_, b, err := c.Read(ctx)
				if err != nil {
					t.Errorf("%s: reading %d bytes: %v", scheme, size, err)
				}
				heard <- b
			}()
			if err := c.Write(ctx, websocket.MessageBinary, said); err != nil {
				t.Errorf("%s: writing %d bytes: %v", scheme, size, err)
			}
			if b := <-heard; len(b) != size || crc32.ChecksumIEEE(b) != crc32.ChecksumIEEE(said) {
				t.Errorf("%s: got %d bytes back, want the same %d", scheme, len(b), size)
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
			t.Errorf("%s: closing: %v", scheme, err)
		}
	}
}

func TestAWebSocketToAnOriginThatHangsUpEnds(t *testing.T) {
	_, address := throughLoopback(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err == nil {
			c.CloseNow()
		}
	}, forClasses(nil))
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, wsAsk)
	r := bufio.NewReader(c)
	if got := readLine(t, r); got != "HTTP/1.1 101 Switching Protocols" {
		t.Fatalf("got %q, want 101", got)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("got %v, want the connection's end", err)
	}
}
