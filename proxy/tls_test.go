package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"

	"firstbell/cache"
	"firstbell/proxy/certs"
)

// issuer is a CA of a test's own.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, pool: x509.NewCertPool()}
	if i.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	i.pool.AddCert(i.cert)
	return i
}

// issue makes a certificate for names, at any time.
func (i *issuer) issue(t testing.TB, names ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: names, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, i.cert, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if c.Leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

// tlsGate is a gate that is asked over TLS, too, on loopback.
type tlsGate struct {
	*gate
	issuer  *issuer
	address string
}

func newTLSGate(t *testing.T, answer http.HandlerFunc, routes func(*Upstream) []*Route, names ...string) *tlsGate {
	t.Helper()
	overHTTP(t) // it is TLS in any case, over sockets
	var g *tlsGate
	i := newIssuer(t)
	store, err := certs.New(certs.Options{Serves: func(host string) bool { return g.proxy.Serves(host) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		store.Put(i.issue(t, strings.Fields(name)...))
	}
	g = &tlsGate{gate: &gate{covers: store.Covers}, issuer: i}
	g.open(t, answer, routes)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.address = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- g.proxy.ServeTLS(ln, store.Config(Protocols...)) }()
	t.Cleanup(func() {
		ln.Close()
		if err := <-served; err != nil {
			t.Errorf("ServeTLS: %v", err)
		}
	})
	return g
}

// dial makes a connection that names sni, with c for the rest.
func (g *tlsGate) dial(sni string, c *tls.Config) (*tls.Conn, error) {
	g.t.Helper()
	if c == nil {
		c = &tls.Config{NextProtos: []string{"http/1.1"}}
	}
	c = c.Clone()
	c.ServerName, c.RootCAs = sni, g.issuer.pool
	if sni == "" {
		c.InsecureSkipVerify = true
	}
	d := &net.Dialer{Deadline: time.Now().Add(2 * time.Minute)}
	conn, err := tls.DialWithDialer(d, "tcp", g.address, c)
	if err == nil {
		conn.SetDeadline(d.Deadline)
		g.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// counted wants so many handshakes with an outcome. A client may know of it a
// moment before it is counted.
func (g *tlsGate) counted(outcome string, want int64) {
	g.t.Helper()
	until(g.t, fmt.Sprintf("%d %s", want, outcome), func() bool { return g.proxy.Stats().Handshakes[outcome] >= want })
	if got := g.proxy.Stats().Handshakes; got[outcome] != want {
		g.t.Errorf("counted %v, want %d %s", got, want, outcome)
	}
}

// askOver sends a GET over a connection and returns its answer.
func askOver(t testing.TB, c net.Conn, path, host string) *http.Response {
	t.Helper()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("GET %s of %s: %v", path, host, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("GET %s of %s: %v", path, host, err)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res
}

func TestEveryVersionOfTLSIsServedAndTheOriginIsToldSo(t *testing.T) {
	g := newTLSGate(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Header.Get("X-Forwarded-Proto"), r.Header.Get("Forwarded"))
	}, plain, "school.example")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c, err := g.dial("school.example", &tls.Config{MinVersion: version, MaxVersion: version})
		if err != nil {
			t.Fatalf("%s: %v", tls.VersionName(version), err)
		}
		for range 2 {
			res := askOver(t, c, "/", "school.example")
			if got, _ := io.ReadAll(res.Body); string(got) != "https for=127.0.0.1;host=school.example;proto=https" {
				t.Errorf("%s: the origin was told %q", tls.VersionName(version), got)
			}
		}
	}
	if _, err := g.dial("school.example", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was taken; want it refused")
	}
	c, err := g.dial("school.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	if state := c.ConnectionState(); state.CurveID != tls.X25519MLKEM768 {
		t.Errorf("got the curve %v, want the hybrid that both sides know", state.CurveID)
	}
	g.counted("done", 3)
	g.counted("refused", 1)
}

func TestWhatIsStoredOverTLSIsNotServedInPlain(t *testing.T) {
	g := newTLSGate(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		io.WriteString(w, r.Header.Get("X-Forwarded-Proto"))
	}, cached(cache.Policy{}), "school.example")
	c, err := g.dial("school.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"fwd=uri-miss", "hit"} {
		res := askOver(t, c, "/", "school.example")
		if got := res.Header.Get("Cache-Status"); !strings.Contains(got, want) {
			t.Errorf("request %d over TLS: got %q, want %q", i, got, want)
		}
		g.letLand()
	}
	if a := g.get("/"); a.body != "http" || !strings.Contains(a.cacheStatus(), "fwd=uri-miss") {
		t.Errorf("in plain: got %q, %q; want the origin's answer for http", a.body, a.cacheStatus())
	}
}

// TestLargeAnswersArriveWholeOverTLS and one cut short is seen as such.
func TestLargeAnswersArriveWholeOverTLS(t *testing.T) {
	content := bytes.Repeat([]byte("firstbell"), 100_000)
	g := newTLSGate(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cut" {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(content[:len(content)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		got, _ := io.ReadAll(r.Body)
		w.Write(got)
	}, plain, "school.example")
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", g.address)
		},
		TLSClientConfig: &tls.Config{RootCAs: g.issuer.pool},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	res, err := client.Post("https://school.example/", "text/plain", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %d bytes and %v, want the %d sent", len(got), err, len(content))
	}
	if res, err = client.Get("https://school.example/cut"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("got %d bytes and a clean end of what was cut short", len(got))
	}
	c, err := g.dial("school.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET /cut HTTP/1.0\r\nHost: school.example\r\n\r\n") // ends with the connection
	if got, err := io.ReadAll(c); err == nil {
		t.Errorf("HTTP/1.0: got %d bytes and a clean end of what was cut short", len(got))
	}
}

func TestANameThatIsNotServedIsRefusedInTheHandshake(t *testing.T) {
	g := newTLSGate(t, echo, func(up *Upstream) []*Route {
		return []*Route{{Hosts: []string{"*.school.example", "www.example"}, Origin: up}}
	}, "*.school.example", "www.example")
	for _, c := range []struct {
		sni   string
		alert string // empty: it is served
	}{
		{"hangang.school.example", ""}, {"HANGANG.School.Example", ""}, {"www.example", ""},
		{"school.example", "unrecognized name"}, {"a.b.school.example", "unrecognized name"}, {"other.example", "unrecognized name"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			_, err := g.dial(c.sni, &tls.Config{MaxVersion: version})
			if c.alert == "" && err != nil || c.alert != "" && (err == nil || !strings.Contains(err.Error(), c.alert)) {
				t.Errorf("%s, %s: got %v, want %q", c.sni, tls.VersionName(version), err, c.alert)
			}
		}
	}
	g.counted("unknown-name", 6)
}

// TestAConnectionForOneHostAsksForNoOther is DESIGN's rule: the certificate must
// be good for the host, and the name lead to the same route.
func TestAConnectionForOneHostAsksForNoOther(t *testing.T) {
	g := newTLSGate(t, echo, func(up *Upstream) []*Route {
		return []*Route{
			{Hosts: []string{"*.school.example", "www.example"}, Origin: up},
			{Hosts: []string{"b.school.example"}, Path: "/own", Origin: up},
			{Hosts: []string{"127.0.0.1", "only.example"}, Origin: up},
		}
	}, "*.school.example", "www.example", "only.example")
	for _, c := range []struct {
		sni, host, path string
		status          int
	}{
		{"a.school.example", "a.school.example", "/", 200},
		{"a.school.example", "A.School.Example:443", "/", 200},
		{"a.school.example", "b.school.example", "/", 200},    // one certificate, one route: browsers do so
		{"a.school.example", "b.school.example", "/own", 421}, // another route
		{"a.school.example", "www.example", "/", 421},         // another certificate
		{"www.example", "a.school.example", "/", 421},
		{"a.school.example", "only.example", "/", 421},
		{"a.school.example", "nowhere.example", "/", 404},
		{"", "127.0.0.1", "/", 200},        // no name could be sent
		{"", "a.school.example", "/", 200}, // what was shown is good for it
		{"", "www.example", "/", 421},
	} {
		conn, err := g.dial(c.sni, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.sni, err)
		}
		if res := askOver(t, conn, c.path, c.host); res.StatusCode != c.status {
			t.Errorf("SNI %q, Host %q, %s: got %d, want %d", c.sni, c.host, c.path, res.StatusCode, c.status)
		}
	}
	if n := g.proxy.Stats().Misdirected; n != 5 {
		t.Errorf("counted %d misdirected, want 5", n)
	}
}

func TestWhoSpeaksSomethingElseIsToldAndCounted(t *testing.T) {
	g := newTLSGate(t, echo, plain, "school.example")
	for _, c := range []struct{ says, want, reason string }{
		{"GET / HTTP/1.1\r\nHost: school.example\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "plain-http"},
		{"SSH-2.0-OpenSSH_9.2\r\n", "", "not-tls"},
		{"", "", "left"},
	} {
		conn, err := net.Dial("tcp", g.address)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(2 * time.Minute))
		io.WriteString(conn, c.says)
		conn.(*net.TCPConn).CloseWrite()
		got, _ := io.ReadAll(conn)
		conn.Close()
		if c.want != "" && !strings.HasPrefix(string(got), c.want) {
			t.Errorf("%.10q: got %q, want %q", c.says, got, c.want)
		}
		g.counted(c.reason, 1)
	}
	if len(g.fetched()) > 0 {
		t.Errorf("the origin saw %v", g.fetched())
	}
}

// TestAHandshakeThatNeverEndsIsEnded and one that is under way when the proxy
// ends holds nothing up.
func TestAHandshakeThatNeverEndsIsEnded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIssuer(t)
		g := newGate(t, echo, plain)
		ours, theirs := net.Pipe()
		secure := &tls.Config{Certificates: []tls.Certificate{*i.issue(t, "school.example")}}
		go g.proxy.door.greet(ours, secure)
		began := time.Now()
		theirs.Write([]byte{22, 3, 1})
		if n, err := theirs.Read(make([]byte, 1)); err == nil {
			t.Errorf("got %d bytes, want the connection's end", n)
		}
		if took := time.Since(began); took != greetingTimeMax {
			t.Errorf("it ended after %v, want %v", took, greetingTimeMax)
		}
		settle()
		if n := g.proxy.Stats().Handshakes["slow"]; n != 1 {
			t.Errorf("counted %v, want one slow", g.proxy.Stats().Handshakes)
		}
		ours, theirs = net.Pipe() // left as it is until Shutdown
		go g.proxy.door.greet(ours, secure)
		theirs.Write([]byte{22})
	})
}

func TestHandshakesBeyondTheBoundWaitForTheirTurn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIssuer(t)
		g := newGate(t, echo, plain)
		secure := &tls.Config{Certificates: []tls.Certificate{*i.issue(t, "school.example")}}
		for range greetingsMax {
			g.proxy.door.greetings <- struct{}{}
		}
		ours, theirs := net.Pipe()
		go g.proxy.door.greet(ours, secure)
		if _, err := theirs.Read(make([]byte, 1)); err == nil {
			t.Error("a handshake began without a turn")
		}
		settle()
		if n := g.proxy.Stats().Handshakes["busy"]; n != 1 {
			t.Errorf("counted %v, want one busy", g.proxy.Stats().Handshakes)
		}
		<-g.proxy.door.greetings
		pipe := fasthttputil.NewPipeConns() // with room for what both send at once
		ours, theirs = pipe.Conn1(), pipe.Conn2()
		go g.proxy.door.greet(ours, secure)
		c := tls.Client(theirs, &tls.Config{RootCAs: i.pool, ServerName: "school.example"})
		if err := c.Handshake(); err != nil {
			t.Errorf("with a turn free: %v", err)
		}
		c.Close()
		for range greetingsMax - 1 {
			<-g.proxy.door.greetings
		}
	})
}

func TestSessionsAreResumed(t *testing.T) {
	g := newTLSGate(t, echo, plain, "school.example")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := &tls.Config{MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
		for i := range 2 {
			conn, err := g.dial("school.example", c)
			if err != nil {
				t.Fatal(err)
			}
			askOver(t, conn, "/", "school.example") // TLS 1.3 sends tickets behind the handshake
			if got := conn.ConnectionState().DidResume; got != (i == 1) {
				t.Errorf("%s, connection %d: resumed is %t", tls.VersionName(version), i, got)
			}
			conn.Close()
		}
	}
	g.counted("done", 4)
	if n := g.proxy.Stats().Resumed; n != 2 {
		t.Errorf("counted %d resumed, want 2", n)
	}
}

// TestIdleTLSConnectionsEndWithTheProxy at once, and a busy one behind its
// answer.
func TestIdleTLSConnectionsEndWithTheProxy(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	g := newTLSGate(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-release
		}
		io.WriteString(w, "done")
	}, plain, "school.example")
	idle, err := g.dial("school.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	askOver(t, idle, "/", "school.example")
	busy, err := g.dial("school.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(busy, "GET /slow HTTP/1.1\r\nHost: school.example\r\n\r\n")
	<-arrived
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := g.proxy.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}()
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the idle connection: got %v, want its clean end", err)
	}
	close(release)
	res, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil || !res.Close {
		t.Errorf("the busy connection: got %v, %v; want its answer and the end", res, err)
	}
	<-ended
}

func TestPlainRequestsAreSentToTLSAndBrowsersToldToStay(t *testing.T) {
	g := newTLSGate(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, r.URL.Path)
	}, func(up *Upstream) []*Route {
		hsts := "max-age=31536000; includeSubDomains"
		return []*Route{
			{Hosts: []string{"*"}, Origin: up, Cache: &cache.Policy{}, HSTS: hsts, Redirect: &Redirect{Status: 301, Port: "8443"}},
			{Hosts: []string{"*"}, Path: "/plain", Origin: up, HSTS: hsts},
			{Hosts: []string{"*"}, Path: "/none", Origin: up, Redirect: &Redirect{Status: 308, Port: "443"}},
		}
	}, "school.example")
	for _, c := range []struct {
		method, path string
		status       int
		location     string
	}{
		{"GET", "/a?b=%20c", 301, "https://school.example:8443/a?b=%20c"},
		{"POST", "/a", 308, "https://school.example:8443/a"},
		{"GET", "/none", 308, "https://school.example/none"},
		{"GET", "/plain", 200, ""},
	} {
		a := g.do(c.method, c.path, nil, "Host: School.Example:8080")
		if a.StatusCode != c.status || a.Header.Get("Location") != c.location || a.Header.Get("Strict-Transport-Security") != "" {
			t.Errorf("%s %s: got %d, %v; want %d and %q", c.method, c.path, a.StatusCode, a.Header, c.status, c.location)
		}
	}
	conn, err := g.dial("school.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/a": "[max-age=31536000; includeSubDomains]", "/plain": "[max-age=31536000; includeSubDomains]", "/none": "[]"} {
		for range 2 { // from the origin, and as stored
			res := askOver(t, conn, path, "school.example")
			if got := fmt.Sprint(res.Header.Values("Strict-Transport-Security")); res.StatusCode != 200 || got != want {
				t.Errorf("%s: got %d and %s, want %s", path, res.StatusCode, got, want)
			}
			g.letLand()
		}
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: g.issuer.pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", g.address)
		}}
	defer transport.CloseIdleConnections()
	for path, want := range map[string]string{"/a": "[max-age=31536000; includeSubDomains]", "/none": "[]"} {
		res, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get("https://school.example" + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := fmt.Sprint(res.Header.Values("Strict-Transport-Security")); res.ProtoMajor != 2 || got != want {
			t.Errorf("%s over %s: got %s, want %s by HTTP/2", path, res.Proto, got, want)
		}
	}
}

// BenchmarkHandshake is what a client costs that comes by TLS: one over, with
// the client's part, which is about as much.
func BenchmarkHandshake(b *testing.B) {
	i := newIssuer(b)
	store, err := certs.New(certs.Options{Serves: func(string) bool { return true }})
	if err != nil {
		b.Fatal(err)
	}
	store.Put(i.issue(b, "school.example"))
	server := store.Config(Protocols...)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, resumed := range []bool{false, true} {
			name := tls.VersionName(version) + "/full"
			client := &tls.Config{ServerName: "school.example", RootCAs: i.pool, MaxVersion: version}
			if resumed {
				name = tls.VersionName(version) + "/resumed"
			}
			b.Run(name, func(b *testing.B) {
				if resumed {
					client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
				}
				for i := range b.N {
					if got := shake(b, server, client); got != (resumed && i > 0) {
						b.Fatalf("handshake %d: resumed is %t", i, got)
					}
				}
			})
		}
	}
}

func shake(b *testing.B, server, client *tls.Config) (resumed bool) {
	pipe := fasthttputil.NewPipeConns()
	ours, theirs := pipe.Conn1(), pipe.Conn2()
	s, c := tls.Server(ours, server), tls.Client(theirs, client)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{0}) // behind the tickets
		}
		done <- err
	}()
	if err := c.Handshake(); err != nil {
		b.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	ours.Close()
	theirs.Close()
	return c.ConnectionState().DidResume
}

// overheard is a client's connection that keeps what came.
type overheard struct {
	net.Conn
	came bytes.Buffer
}

func (l *overheard) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.came.Write(p[:n])
	return n, err
}

func TestAnAnswerThatFitsLeavesInOneRecord(t *testing.T) {
	g := newTLSGate(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		n, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		w.Header().Set("Content-Length", strconv.Itoa(n))
		w.Write(bytes.Repeat([]byte("x"), n))
	}, cached(cache.Policy{}), "school.example")
	for _, c := range []struct{ size, records int }{{100, 1}, {7 << 10, 1}, {15 << 10, 1}, {20 << 10, 3}} {
		nc, err := net.Dial("tcp", g.address)
		if err != nil {
			t.Fatal(err)
		}
		l := &overheard{Conn: nc}
		// By TLS 1.2 no tickets come between the records of content.
		conn := tls.Client(l, &tls.Config{ServerName: "school.example", RootCAs: g.issuer.pool, MaxVersion: tls.VersionTLS12})
		in := bufio.NewReader(conn)
		for hit := false; !hit; {
			if err := errors.Join(conn.Handshake(), conn.SetDeadline(time.Now().Add(2*time.Minute))); err != nil {
				t.Fatal(err)
			}
			l.came.Reset()
			fmt.Fprintf(conn, "GET /%d HTTP/1.1\r\nHost: school.example\r\n\r\n", c.size)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, res.Body); err != nil || n != int64(c.size) {
				t.Fatalf("%d bytes: got %d (%v)", c.size, n, err)
			}
			hit = strings.HasPrefix(res.Header.Get("Cache-Status"), "firstbell; hit")
		}
		got := 0
		for b := l.came.Bytes(); len(b) >= 5; b = b[5+int(b[3])<<8+int(b[4]):] {
			got++
		}
		if got != c.records {
			t.Errorf("a hit of %d bytes came in %d records, want %d", c.size, got, c.records)
		}
		conn.Close()
	}
}
