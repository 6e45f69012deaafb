package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"
	"golang.org/x/net/http2"

	"firstbell/cache"
)

// transportHTTP2 is golang.org/x/net's client, over what dial brings.
func transportHTTP2(dial func(address string) (net.Conn, error)) roundTripper {
	over := func(_ context.Context, _, address string, _ *tls.Config) (net.Conn, error) { return dial(address) }
	//lint:ignore SA1019 http.Transport opens a connection for each request that waits for the first one
	return &http2.Transport{AllowHTTP: true, DisableCompression: true, DialTLSContext: over}
}

// overHTTP2 has g asked over HTTP/2, with no network between them.
func (g *gate) overHTTP2() *gate {
	transport := transportHTTP2(func(string) (net.Conn, error) {
		pipe := fasthttputil.NewPipeConns()
		go g.proxy.door.serveHTTP2(pipe.Conn2())
		return pipe.Conn1(), nil
	})
	g.t.Cleanup(transport.CloseIdleConnections)
	g.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return g
}

// TestWhatIsAnsweredIsTheSameOverHTTP2 asks two gates of one kind the same, in
// the same order.
func TestWhatIsAnsweredIsTheSameOverHTTP2(t *testing.T) {
	overHTTP(t)
	inBubble(t, func(t *testing.T) {
		handler := func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/film":
				w.Header().Set("ETag", `"film"`)
				w.Header().Set("Cache-Control", "max-age=600")
				w.Write(make([]byte, 300_000))
			case "/page":
				w.Header().Set("Cache-Control", "max-age=600")
				w.Header().Set("Connection", "X-Hop")
				w.Header().Set("X-Hop", "1")
				io.WriteString(w, strings.Repeat("a lesson. ", 2000))
			case "/empty":
				w.WriteHeader(204)
			case "/cookie":
				w.Header().Add("Set-Cookie", "a=1")
				w.Header().Add("Set-Cookie", "b=2")
				io.WriteString(w, r.Header.Get("Cookie"))
			default:
				echo(w, r)
			}
		}
		routes := func(up *Upstream) []*Route {
			return []*Route{{Hosts: []string{"school.example"}, Path: "/plain/*", Origin: up},
				{Hosts: []string{"school.example"}, Methods: []string{"GET", "HEAD", "POST"}, Origin: up, Cache: &cache.Policy{}}}
		}
		one, two := newGate(t, handler, routes), newGate(t, handler, routes).overHTTP2()
		for _, c := range []struct {
			method, path, body string
			fields             []string
		}{
			{"GET", "/page", "", nil}, {"GET", "/page", "", nil}, {"HEAD", "/page", "", nil}, {"GET", "/page", "", []string{"Accept-Encoding: gzip"}},
			{"GET", "/film", "", nil}, {"GET", "/film", "", []string{"Range: bytes=100-199"}}, {"GET", "/film", "", []string{`If-None-Match: "film"`}},
			{"GET", "/film", "", []string{"Range: bytes=0-9,20-29"}}, {"GET", "/film", "", []string{"Range: bytes=999999-"}}, {"GET", "/empty", "", nil},
			{"GET", "/cookie", "", []string{"Cookie: a=1; b=2"}}, {"POST", "/plain/up", "some content", nil}, {"POST", "/up", strings.Repeat("x", 300_000), nil},
			{"GET", "/not/../here", "", nil}, {"GET", "/other", "", []string{"Host: other.example"}}, {"DELETE", "/page", "", nil}, {"OPTIONS", "/plain/x", "", nil},
			{"GET", "/only", "", []string{"Cache-Control: only-if-cached"}},
		} {
			answers := make([]string, 2)
			for i, g := range []*gate{one, two} {
				var body io.Reader
				if c.body != "" {
					body = strings.NewReader(c.body)
				}
				a := g.do(c.method, c.path, body, c.fields...)
				settle() // what is to be stored is
				names := make([]string, 0, len(a.Header))
				for name, values := range a.Header {
					if name != "Connection" && !strings.HasPrefix(values[0], "multipart/") {
						names = append(names, fmt.Sprintf("%s: %q", name, values))
					}
				}
				slices.Sort(names)
				answers[i] = fmt.Sprintf("%d %s %v %d bytes, %x, %v", a.StatusCode, names, a.ContentLength, len(a.body), crc([]byte(a.body)), a.err)
				if strings.Contains(a.Header.Get("Content-Type"), "multipart/") {
					answers[i] = fmt.Sprint(a.StatusCode, len(a.body)) // the boundary is anybody's
				}
			}
			if answers[0] != answers[1] {
				t.Errorf("%s %s %q:\nHTTP/1.1: %s\nHTTP/2:   %s", c.method, c.path, c.fields, answers[0], answers[1])
			}
		}
		if a, b := one.fetched(), two.fetched(); !slices.Equal(a, b) {
			t.Errorf("the origin was asked\n%q over HTTP/1.1,\n%q over HTTP/2", a, b)
		}
	})
}

func TestARequestTakenBackIsTakenBackFromTheOrigin(t *testing.T) {
	overHTTP(t)
	inBubble(t, func(t *testing.T) {
		gone := make(chan error, 1)
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			gone <- r.Context().Err()
		}, plain).overHTTP2()
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://school.example/slow", nil)
		time.AfterFunc(time.Second, cancel)
		if _, err := g.client.Do(req); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		select {
		case <-gone:
		case <-time.After(time.Second):
			t.Error("the origin is still asked a second later")
		}
		settle()
		if st := g.proxy.Stats(); st.HTTP2.TakenBack != 1 || st.Outcomes["left"] != 1 {
			t.Errorf("counted %d taken back, %d left; want 1 of each", st.HTTP2.TakenBack, st.Outcomes["left"])
		}
	})
}

// TestWhoJoinsAFlightStaysWhenItsFirstGoes: the one who began it takes the
// request back before there is an answer.
func TestWhoJoinsAFlightStaysWhenItsFirstGoes(t *testing.T) {
	overHTTP(t)
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(2 * time.Second)
			w.Header().Set("Cache-Control", "max-age=600")
			io.WriteString(w, "a lesson")
		}, cached(cache.Policy{})).overHTTP2()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://school.example/l", nil)
		left := make(chan error, 1)
		go func() {
			_, err := g.client.Do(req)
			left <- err
		}()
		time.Sleep(time.Second / 2)
		if a := g.get("/l"); a.body != "a lesson" || !strings.Contains(a.cacheStatus(), "collapsed") {
			t.Errorf("got %q, %s", a.body, a.cacheStatus())
		}
		if err := <-left; err == nil {
			t.Error("the first was answered")
		}
		if got := g.fetched(); len(got) != 1 {
			t.Errorf("the origin was asked %q, want once", got)
		}
	})
}

func TestTrailersAndEarlyHintsPassOverHTTP2(t *testing.T) {
	overHTTP(t)
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(103)
			w.Header().Set("Trailer", "X-Sum")
			io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "with %s", r.Trailer.Get("X-Digest"))
			w.Header().Set("X-Sum", "42")
		}, plain).overHTTP2()
		hints := ""
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = fmt.Sprint(code, h.Get("Link"))
			return nil
		}}
		req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", "http://school.example/", io.MultiReader(strings.NewReader("content")))
		req.Header.Set("TE", "trailers")
		req.Trailer = http.Header{"X-Digest": {"abc"}}
		res, err := g.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if string(body) != "with abc" || err != nil || res.Trailer.Get("X-Sum") != "42" || hints != "103</a.css>; rel=preload" {
			t.Errorf("got %q, %v, trailer %v, hints %q", body, err, res.Trailer, hints)
		}
	})
}

// TestABrokenAnswerIsSeenOverHTTP2: content that its origin cut off.
func TestABrokenAnswerIsSeenOverHTTP2(t *testing.T) {
	overHTTP(t)
	inBubble(t, func(t *testing.T) {
		g, _ := newRawGate(t, plain, says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"))
		g.overHTTP2()
		for range 2 {
			res, err := g.client.Get("http://school.example/")
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); string(body) != "short" || err == nil {
				t.Errorf("got %q, %v; want an error behind it", body, err)
			}
		}
	})
}

// TestShutdownAnswersWhatHTTP2ClientsHaveBegun, and tells them to begin no more.
func TestShutdownAnswersWhatHTTP2ClientsHaveBegun(t *testing.T) {
	overHTTP(t)
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(5 * time.Second)
			io.WriteString(w, "whole")
		}, plain).overHTTP2()
		answers := make(chan string, 10)
		for range cap(answers) {
			go func() { answers <- g.get("/").body }()
		}
		settle()
		ended := make(chan error, 1)
		go func() { ended <- g.proxy.Shutdown(t.Context()) }()
		for range cap(answers) {
			if got := <-answers; got != "whole" {
				t.Errorf("got %q", got)
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := g.proxy.Stats().HTTP2.Connections; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// TestAPanicCostsOneStream: its neighbours on the connection go on.
func TestAPanicCostsOneStream(t *testing.T) {
	overHTTP(t)
	inBubble(t, func(t *testing.T) {
		g := newGate(t, echo, plain).overHTTP2()
		p := g.proxy
		p.Swap(NewTable([]*Route{{Hosts: []string{"*"}, Path: "/panic"}, {Hosts: []string{"*"}, Origin: g.upstream}}))
		if a := g.get("/panic"); a.StatusCode != 500 {
			t.Errorf("got %d, want 500", a.StatusCode)
		}
		if a := g.get("/next"); a.StatusCode != 200 || p.Stats().HTTP2.Connections != 1 {
			t.Errorf("got %d over %d connections, want 200 over one", a.StatusCode, p.Stats().HTTP2.Connections)
		}
	})
}

// TestAHitOverHTTP2AllocatesNothing counts what the whole process allocates
// while a stored page is asked for.
func TestAHitOverHTTP2AllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=6000, no-transform")
		io.WriteString(w, strings.Repeat("x", 1<<10))
	}, cached(cache.Policy{}))
	pipe := fasthttputil.NewPipeConns()
	served := make(chan struct{})
	go func() { g.proxy.door.serveHTTP2(pipe.Conn2()); close(served) }()
	asker := &frameAsker{c: pipe.Conn1(), t: t}
	asker.hello()
	for range 10 {
		asker.round(8)
	}
	// The pipe itself copies what is written.
	if n := testing.AllocsPerRun(500, func() { asker.round(8) }) / 8; n >= 0.75 {
		t.Errorf("got %v allocations per hit, want none but the pipe's", n)
	}
	pipe.Conn1().Close()
	<-served
}
