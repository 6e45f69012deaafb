package proxy

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"firstbell/proxy/http1"
)

// BenchmarkHit20KiB is a lesson of 20 KiB as a browser asks for it: in gzip. The
// bare server answers the very same bytes.
func BenchmarkHit20KiB(b *testing.B) {
	request := strings.Replace(hitRequest, "gzip, br", "gzip, deflate", 1)
	url, p := serveTCP(b, givesLesson(textPage(20<<10), `ETag: "v1"`))
	addr := strings.TrimPrefix(url, "http://")
	coded := fetchCoded(b, addr, p, request)
	b.Run("bare", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		srv := &fasthttp.Server{NoDefaultDate: true, NoDefaultServerHeader: true, NoDefaultContentType: true, Handler: func(ctx *fasthttp.RequestCtx) {
			h := &ctx.Response.Header
			h.Set("Content-Type", "text/html; charset=utf-8")
			h.Set("Cache-Control", "public, max-age=600")
			h.Set("ETag", `"v1~gzip"`)
			h.Set("Content-Encoding", "gzip")
			h.Set("Vary", "Accept-Encoding")
			ctx.Response.SetBodyRaw(coded)
		}}
		go srv.Serve(ln)
		converse(b, func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }, request)
	})
	b.Run("firstbell", func(b *testing.B) {
		converse(b, func() (net.Conn, error) { return net.Dial("tcp", addr) }, request)
	})
}

// fetchCoded asks until the variant is there, and returns its bytes.
func fetchCoded(b *testing.B, addr string, p *Proxy, request string) []byte {
	b.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Write([]byte(strings.Replace(request, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))); err != nil {
			b.Fatal(err)
		}
		var all strings.Builder
		buf := make([]byte, 32<<10)
		for {
			n, err := c.Read(buf)
			all.Write(buf[:n])
			if err != nil {
				break
			}
		}
		c.Close()
		head, body, _ := strings.Cut(all.String(), "\r\n\r\n")
		if strings.Contains(head, "Content-Encoding: gzip") {
			return []byte(body)
		}
	}
	b.Fatalf("no gzip within 10 s; made %v", p.Stats().Coded)
	return nil
}

// BenchmarkNotModified is what nine o'clock mostly is: who has the lesson asks
// whether it is still good.
func BenchmarkNotModified(b *testing.B) {
	page := textPage(20 << 10)
	url, _ := serveTCP(b, givesLesson(page, `ETag: "v1"`))
	addr := strings.TrimPrefix(url, "http://")
	if res, err := http.Get(url + "/lessons/1"); err != nil || res.StatusCode != 200 {
		b.Fatalf("%v, %v", res, err)
	}
	request := strings.Replace(hitRequest, "\r\n\r\n", "\r\nIf-None-Match: \"v1\"\r\n\r\n", 1)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 4<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write([]byte(request)); err != nil {
			b.Fatal(err)
		}
		if n, err := c.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 304") {
			b.Fatalf("got %.100q, %v", buf[:n], err)
		}
	}
}

// BenchmarkServeHit is the life of a hit without a connection.
func BenchmarkServeHit(b *testing.B) {
	for _, coding := range []string{"identity", "br"} {
		b.Run(coding, func(b *testing.B) {
			url, p := serveTCP(b, givesLesson(textPage(20<<10), `ETag: "v1"`))
			for range 3 {
				req, err := http.NewRequest("GET", url+"/l", nil)
				if err != nil {
					b.Fatal(err)
				}
				req.Host = "school.example"
				req.Header.Set("Accept-Encoding", coding)
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				res.Body.Close()
			}
			var head http1.Head
			if err := head.Parse([]byte("GET /l HTTP/1.1\r\nHost: school.example\r\nAccept-Encoding: gzip, deflate, " + coding + "\r\n\r\n")); err != nil {
				b.Fatal(err)
			}
			x, out := new(exchange), new(keeper)
			b.ReportAllocs()
			for b.Loop() {
				x.serveHit(p, &head, out)
			}
		})
	}
}
