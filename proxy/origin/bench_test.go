package origin

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
)

// serveFixed answers every request on l with the same bytes, as cheaply as can
// be, so that a benchmark shows the client's side. It is for requests of one
// read each.
func serveFixed(l net.Listener, answer []byte) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer nc.Close()
			buf := make([]byte, 4096)
			for {
				n, err := nc.Read(buf)
				if err != nil || !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
					return
				}
				if _, err := nc.Write(answer); err != nil {
					return
				}
			}
		}()
	}
}

// BenchmarkGet1KiB compares Pool.Do with net/http's Transport: the same
// answers, the same server, one connection each.
func BenchmarkGet1KiB(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	answer := append([]byte("HTTP/1.1 200 OK\r\nDate: Mon, 02 Mar 2026 00:00:00 GMT\r\nContent-Type: text/html\r\n"+
		"Cache-Control: max-age=60\r\nETag: \"abc\"\r\nContent-Length: 1024\r\n\r\n"), bytes.Repeat([]byte("x"), 1024)...)
	go serveFixed(l, answer)
	buf := make([]byte, 4096)

	drain := func(b *testing.B, body io.ReadCloser) {
		for {
			if _, err := body.Read(buf); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		if err := body.Close(); err != nil {
			b.Fatal(err)
		}
	}
	do := func(b *testing.B, ctx context.Context) {
		p, err := New(Config{Servers: []string{"http://" + l.Addr().String()}})
		if err != nil {
			b.Fatal(err)
		}
		defer p.Close()
		r := &Request{Method: "GET", Target: "/lesson", Host: "a.school.example"}
		b.ReportAllocs()
		for b.Loop() {
			res, err := p.Do(ctx, r)
			if err != nil {
				b.Fatal(err)
			}
			drain(b, res.Body)
		}
	}
	b.Run("Pool", func(b *testing.B) { do(b, context.Background()) })
	b.Run("PoolCancellable", func(b *testing.B) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		do(b, ctx)
	})
	b.Run("Transport", func(b *testing.B) {
		t := &http.Transport{DisableCompression: true}
		defer t.CloseIdleConnections()
		r, err := http.NewRequest("GET", "http://"+l.Addr().String()+"/lesson", nil)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			res, err := t.RoundTrip(r)
			if err != nil {
				b.Fatal(err)
			}
			drain(b, res.Body)
		}
	})
}
