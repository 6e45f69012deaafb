package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"

	"firstbell/cache"
	"firstbell/proxy/admission"
	"firstbell/proxy/origin"
	"firstbell/proxy/spool"
)

// TestMain serves one exchange first: fasthttp starts its clock goroutine with
// it, which must not belong to a bubble of fake time.
func TestMain(m *testing.M) {
	ln := fasthttputil.NewInmemoryListener()
	warm := &fasthttp.Server{Handler: func(*fasthttp.RequestCtx) {}}
	go warm.Serve(ln)
	c, err := ln.Dial()
	if err == nil {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		io.ReadAll(c)
	}
	ln.Close()
	os.Exit(m.Run())
}

// gate is a proxy in front of an origin, with no network between them.
type gate struct {
	t        *testing.T
	proxy    *Proxy
	cache    *cache.Cache
	upstream *Upstream
	ln       *fasthttputil.InmemoryListener
	secure   *fasthttputil.InmemoryListener // HTTP/1.1 over TLS, where it is served
	wires    *wires                         // HTTP/3, where it is served
	client   *http.Client
	land     func()             // ends the proxy
	memory   int64              // of the cache; 0: 64 MiB
	disk     *cache.DiskOptions // below it; nil: none
	window   int64              // of flights; 0 for the default
	covers   func(sni, host string) bool

	mu      sync.Mutex // guards fetches
	fetches []string   // "METHOD target" of what reached the origin
}

// settling is held by who waits for all others of the bubble that runs, as no two
// may at once; nil outside of bubbles, of which only one runs at a time.
var settling chan struct{}

// inBubble runs a test of the gate in fake time.
func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer func() { settling = nil }()
	synctest.Test(t, func(t *testing.T) {
		settling = make(chan struct{}, 1)
		// fasthttp's worker pool looks for its end every ten seconds.
		t.Cleanup(func() { time.Sleep(time.Minute) })
		f(t)
	})
}

// settle returns once everybody else in the bubble waits for something.
func settle() {
	settling <- struct{}{}
	synctest.Wait()
	<-settling
}

// calm settles for clients, who may ask at once: one of them does. Behind the
// last answer nothing is left to be stored or counted; what waits for something
// goes on waiting. Outside of bubbles it does nothing.
func calm() {
	select {
	case settling <- struct{}{}:
		synctest.Wait()
		<-settling
	default:
	}
}

// cached is a route that caches by the responses alone.
func cached(p cache.Policy) func(*Upstream) []*Route {
	return func(up *Upstream) []*Route {
		return []*Route{{Hosts: []string{"*"}, Origin: up, Cache: &p}}
	}
}

// plain is a route that caches nothing.
func plain(up *Upstream) []*Route { return []*Route{{Hosts: []string{"*"}, Origin: up}} }

// streams is a route that passes contents on as they come, both ways.
func streams(up *Upstream) []*Route {
	return []*Route{{Hosts: []string{"*"}, Origin: up, StreamsRequests: true, StreamsAnswers: true}}
}

func newGate(t *testing.T, answer http.HandlerFunc, routes func(*Upstream) []*Route) *gate {
	t.Helper()
	return (&gate{}).open(t, answer, routes)
}

// open starts g, whose memory and disk may be set before.
func (g *gate) open(t *testing.T, answer http.HandlerFunc, routes func(*Upstream) []*Route) *gate {
	t.Helper()
	g.t, g.ln = t, fasthttputil.NewInmemoryListener()
	originLn := fasthttputil.NewInmemoryListener()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.fetches = append(g.fetches, r.Method+" "+r.RequestURI)
		g.mu.Unlock()
		answer(w, r)
	})}
	go srv.Serve(originLn)
	return g.start(originLn.Dial, routes, func() { srv.Close() })
}

// start puts the proxy before whatever dial reaches, until the test's end.
func (g *gate) start(dial func() (net.Conn, error), routes func(*Upstream) []*Route, closeOrigin func()) *gate {
	g.t.Helper()
	g.launch(dial, routes)
	transport := g.transport()
	g.client = &http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	g.t.Cleanup(func() {
		transport.CloseIdleConnections()
		g.land()
		closeOrigin()
		g.cache.Close()
	})
	return g
}

// roundTripper is a client's way to send requests.
type roundTripper interface {
	http.RoundTripper
	CloseIdleConnections()
}

// transport is how g's client speaks to the proxy.
func (g *gate) transport() roundTripper {
	switch protocol() {
	case "h3":
		g.startHTTP3()
		return &crowd{g: g}
	case "h2":
		g.startTLS()
		return transportHTTP2(func(address string) (net.Conn, error) {
			c, err := g.secure.Dial()
			if err != nil {
				return nil, err
			}
			return tls.Client(c, clientTLS(address, "h2")), nil
		})
	case "https":
		g.startTLS()
		return &http.Transport{
			DialTLSContext: func(_ context.Context, _, address string) (net.Conn, error) {
				c, err := g.secure.Dial()
				if err != nil {
					return nil, err
				}
				return tls.Client(c, clientTLS(address, "http/1.1")), nil
			},
			DisableCompression: true, MaxIdleConnsPerHost: 1000,
		}
	}
	return &http.Transport{
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return g.ln.Dial() },
		DisableCompression: true, MaxIdleConnsPerHost: 1000,
	}
}

// timely has connections in memory say that they are late as the net package's
// do: behind another word TLS would not go on.
type timely struct{ net.Listener }

func (l timely) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return timelyConn{c}, nil
}

type timelyConn struct{ net.Conn }

func (c timelyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == fasthttputil.ErrTimeout {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// startTLS has g's proxy serve TLS, too.
func (g *gate) startTLS() {
	g.secure = fasthttputil.NewInmemoryListener()
	served := make(chan error, 1)
	go func() { served <- g.proxy.ServeTLS(timely{g.secure}, serverTLS(Protocols...)) }()
	land := g.land
	g.land = func() {
		land()
		if err := <-served; err != nil {
			g.t.Errorf("Serve over TLS: %v", err)
		}
	}
}

// launch puts the proxy before whatever dial reaches. land ends it, but for its
// cache.
func (g *gate) launch(dial func() (net.Conn, error), routes func(*Upstream) []*Route) {
	t := g.t
	t.Helper()
	pool, err := origin.New(origin.Config{Name: "lms", Servers: []string{"http://origin.test"},
		Dial: func(context.Context, string, string) (net.Conn, error) { return dial() }})
	if err != nil {
		t.Fatal(err)
	}
	if g.cache, err = cache.New(cache.Options{MemoryBytes: cmp.Or(g.memory, 64<<20), Disk: g.disk}); err != nil {
		t.Fatal(err)
	}
	g.upstream = &Upstream{Name: "lms", Pool: pool, Limit: admission.New(256, 1024, 10*time.Second)}
	spools, err := spool.Open(spool.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	g.proxy = New(Options{Cache: g.cache, Access: AccessLog{Off: true}, FlightWindow: g.window, Spools: spools, Covers: g.covers}, NewTable(routes(g.upstream)))
	served := make(chan error, 1)
	go func() { served <- g.proxy.Serve(g.ln) }()
	g.land = func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := g.proxy.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		pool.Close()
	}
}

func (g *gate) fetched() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.fetches...)
}

// answer is what a client got.
type answer struct {
	*http.Response
	body  string
	err   error         // of reading the body
	first time.Duration // from the request to the first byte of the body
	took  time.Duration
}

func (a *answer) cacheStatus() string { return a.Header.Get("Cache-Status") }

// get asks for a path of school.example; fields are "Name: value".
func (g *gate) get(path string, fields ...string) *answer { return g.do("GET", path, nil, fields...) }

func (g *gate) do(method, path string, body io.Reader, fields ...string) *answer {
	g.t.Helper()
	req, err := http.NewRequest(method, scheme()+"://school.example"+path, body)
	if err != nil {
		g.t.Errorf("%s %s: %v", method, path, err)
		return &answer{Response: &http.Response{Header: http.Header{}}, err: err}
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == "Host" {
			req.Host = value
			if protocol() != "http" {
				req.URL.Host = value // a connection is for one host
			}
		}
		req.Header.Add(name, strings.Trim(value, " \t"))
	}
	began := time.Now()
	res, err := g.client.Do(req)
	if err != nil {
		g.t.Errorf("%s %s: %v", method, path, err)
		return &answer{Response: &http.Response{Header: http.Header{}}, err: err}
	}
	defer res.Body.Close()
	a := &answer{Response: res}
	var buf bytes.Buffer
	one := make([]byte, 1)
	if n, _ := io.ReadFull(res.Body, one); n == 1 {
		a.first = time.Since(began)
		buf.Write(one)
		_, a.err = buf.ReadFrom(res.Body)
	}
	a.body, a.took = buf.String(), time.Since(began)
	g.letLand()
	return a
}

// letLand lets flights end whose answer a client has: that comes a moment before
// it is stored.
func (g *gate) letLand() {
	if settling == nil {
		until(g.t, "flights to land", func() bool { return g.proxy.flights.Len() == 0 })
	}
	calm()
}

// raw sends bytes as they are and returns all that comes back.
func (g *gate) raw(request string) string {
	g.t.Helper()
	c, err := g.ln.Dial()
	if err != nil {
		g.t.Fatal(err)
	}
	return conversation(c, request)
}

// rawOverTLS is raw over TLS.
func (g *gate) rawOverTLS(request string) string {
	g.t.Helper()
	c, err := g.secure.Dial()
	if err != nil {
		g.t.Fatal(err)
	}
	return conversation(tls.Client(c, clientTLS("school.example", "http/1.1")), request)
}

func conversation(c net.Conn, request string) string {
	defer c.Close()
	go io.WriteString(c, request)
	c.SetReadDeadline(time.Now().Add(5 * time.Minute))
	all, _ := io.ReadAll(c)
	calm()
	return string(all)
}

// rawOrigin is an origin that answers each request's head with the next of
// its scripts, and closes the connection after it.
type rawOrigin struct {
	t        *testing.T
	ln       *fasthttputil.InmemoryListener
	scripts  chan func(net.Conn)
	received chan string
}

func newRawOrigin(t *testing.T, scripts ...func(net.Conn)) *rawOrigin {
	o := &rawOrigin{t: t, ln: fasthttputil.NewInmemoryListener(), scripts: make(chan func(net.Conn), len(scripts)), received: make(chan string, 64)}
	for _, s := range scripts {
		o.scripts <- s
	}
	go func() {
		for {
			c, err := o.ln.Accept()
			if err != nil {
				return
			}
			go o.converse(c)
		}
	}()
	return o
}

func (o *rawOrigin) converse(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		head.WriteString(line)
		if line == "\r\n" {
			break
		}
	}
	o.received <- head.String()
	select {
	case script := <-o.scripts:
		script(c)
	default:
		io.WriteString(c, "HTTP/1.1 500 Out Of Script\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}
}

// says is a script that sends text.
func says(text string) func(net.Conn) { return func(c net.Conn) { io.WriteString(c, text) } }

func newRawGate(t *testing.T, routes func(*Upstream) []*Route, scripts ...func(net.Conn)) (*gate, *rawOrigin) {
	t.Helper()
	o := newRawOrigin(t, scripts...)
	g := &gate{t: t, ln: fasthttputil.NewInmemoryListener()}
	return g.start(o.ln.Dial, routes, func() { o.ln.Close() }), o
}

func benchProxy(b testing.TB, dial func() (net.Conn, error)) (*Proxy, *Upstream) {
	b.Helper()
	pool, err := origin.New(origin.Config{Name: "lms", Servers: []string{"http://origin.test"},
		Dial: func(context.Context, string, string) (net.Conn, error) { return dial() }})
	if err != nil {
		b.Fatal(err)
	}
	c, err := cache.New(cache.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { pool.Close(); c.Close() })
	up := &Upstream{Name: "lms", Pool: pool, Limit: admission.New(256, 1024, 10*time.Second)}
	return New(Options{Cache: c, Access: AccessLog{Off: true}}, NewTable(nil)), up
}
