package proxy

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"

	"firstbell/cache"
)

// These benchmarks compare firstbell with a bare fasthttp server that answers
// the same bytes: the client's cost is in both, so the difference is ours.

const hitRequest = "GET /lessons/1 HTTP/1.1\r\nHost: s01.school.example\r\nUser-Agent: Mozilla/5.0\r\nAccept: text/html\r\nAccept-Encoding: gzip, br\r\nCookie: session=0123456789abcdef\r\n\r\n"

// converse sends the request over one connection, b.N times.
func converse(b *testing.B, dial func() (net.Conn, error), request string) {
	c, err := dial()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 64<<10)
	once := func() int {
		if _, err := c.Write([]byte(request)); err != nil {
			b.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	once()
	if !strings.HasPrefix(string(buf), "HTTP/1.1 200 ") {
		b.Fatalf("got %.200q", buf)
	}
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

func BenchmarkHit1KiB(b *testing.B) {
	page := strings.Repeat("x", 1024)
	fields := [][2]string{{"Content-Type", "text/html"}, {"Cache-Control", "public, max-age=600"}, {"ETag", `"v1"`}, {"Date", "Sun, 22 Nov 2026 07:22:13 GMT"}}
	b.Run("bare", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		body := []byte(page)
		srv := &fasthttp.Server{NoDefaultDate: true, NoDefaultServerHeader: true, NoDefaultContentType: true, Handler: func(ctx *fasthttp.RequestCtx) {
			for _, f := range fields {
				ctx.Response.Header.Set(f[0], f[1])
			}
			ctx.Response.SetBodyRaw(body)
		}}
		go srv.Serve(ln)
		converse(b, func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }, hitRequest)
	})
	b.Run("firstbell", func(b *testing.B) {
		addr := benchGate(b, func(w http.ResponseWriter, r *http.Request) {
			for _, f := range fields[:3] {
				w.Header().Set(f[0], f[1])
			}
			w.Write([]byte(page))
		}, cached(cache.Policy{Anonymous: true}))
		converse(b, func() (net.Conn, error) { return net.Dial("tcp", addr) }, hitRequest)
	})
}

// benchGate starts a proxy on loopback, and its origin.
func benchGate(b *testing.B, answer http.HandlerFunc, routes func(*Upstream) []*Route) string {
	b.Helper()
	originLn := fasthttputil.NewInmemoryListener()
	srv := &http.Server{Handler: answer}
	go srv.Serve(originLn)
	b.Cleanup(func() { srv.Close() })
	p, up := benchProxy(b, originLn.Dial)
	p.Swap(NewTable(routes(up)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go p.Serve(ln)
	b.Cleanup(func() { p.Shutdown(context.Background()) })
	return ln.Addr().String()
}
