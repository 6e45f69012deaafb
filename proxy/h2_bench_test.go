package proxy

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/http2/hpack"

	"firstbell/cache"
)

// BenchmarkHTTP2Hit asks for a stored page of 1 KiB over TLS on loopback, one
// request at a time and 16 at once, beside net/http's server, which answers
// the same bytes without looking for them. cpu-us/op is of the whole process:
// the client, which is the same, has its part in both.
func BenchmarkHTTP2Hit(b *testing.B) {
	benchHTTP2Hits(b, 1<<10, 1, 16)
}

// BenchmarkHTTP2LargeHit is the same for 1 MiB.
func BenchmarkHTTP2LargeHit(b *testing.B) { benchHTTP2Hits(b, 1<<20, 1) }

func benchHTTP2Hits(b *testing.B, size int, atOnce ...int) {
	page := strings.Repeat("x", size)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=6000, no-transform")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, page)
	})
	secure := benchTLS(b)
	for _, streams := range atOnce {
		b.Run(fmt.Sprintf("firstbell/%d", streams), func(b *testing.B) {
			origin := originOf(b, handler)
			p, up := benchProxy(b, func() (net.Conn, error) { return net.Dial("tcp", origin) })
			p.Swap(NewTable(cached(cache.Policy{})(up)))
			ln := listenOn(b)
			go p.ServeTLS(ln, secure)
			benchHTTP2(b, ln.Addr().String(), streams)
		})
		b.Run(fmt.Sprintf("net-http/%d", streams), func(b *testing.B) {
			ln := listenOn(b)
			srv := &http.Server{Handler: handler, TLSConfig: secure.Clone()}
			go srv.ServeTLS(ln, "", "")
			b.Cleanup(func() { srv.Close() })
			benchHTTP2(b, ln.Addr().String(), streams)
		})
	}
}

func listenOn(b *testing.B) net.Listener {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	return ln
}

func originOf(b *testing.B, h http.Handler) string {
	ln := listenOn(b)
	srv := &http.Server{Handler: h}
	go srv.Serve(ln)
	b.Cleanup(func() { srv.Close() })
	return ln.Addr().String()
}

// benchHTTP2 asks in rounds of so many requests at once.
func benchHTTP2(b *testing.B, addr string, streams int) {
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: "school.example", NextProtos: []string{"h2"}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	asker := &frameAsker{c: c, t: b}
	asker.hello()
	asker.round(1)
	asker.round(1)
	before := cpuTime()
	b.ResetTimer()
	for n := 0; n < b.N; n += streams {
		asker.round(streams)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/1e3/float64(b.N), "cpu-us/op")
}

func cpuTime() int64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// frameAsker is a client that knows just enough of HTTP/2 to ask for a page.
type frameAsker struct {
	c     net.Conn
	t     testing.TB
	next  uint32
	got   int // content since the connection's window was opened further
	block []byte
	out   []byte
	in    [64 << 10]byte
	r, w  int
}

func (a *frameAsker) hello() {
	var text strings.Builder
	enc := hpack.NewEncoder(&text)
	ask := func() {
		for _, f := range [...][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "school.example"}, {":path", "/lessons/17"},
			{"user-agent", "Mozilla/5.0 (X11; Linux x86_64)"}, {"accept", "text/html,*/*;q=0.8"}, {"accept-encoding", "gzip, deflate, br"}} {
			enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
	}
	ask()
	first := text.Len()
	ask()
	a.block = []byte(text.String()[first:]) // as it is from the second request on
	a.next = 3
	a.out = append(a.out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x04\x00\x40\x00\x00\x00\x02\x00\x00\x00\x00"...)
	a.out = a.frame(a.out, []byte(text.String()[:first]), 1)
	a.out = append(a.out, "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x3f\xff\x00\x00"...)
	if _, err := a.c.Write(a.out); err != nil {
		a.t.Fatal(err)
	}
	a.read(1)
}

func (a *frameAsker) frame(b, block []byte, id uint32) []byte {
	b = append(b, 0, byte(len(block)>>8), byte(len(block)), 1, 5)
	return append(binary.BigEndian.AppendUint32(b, id), block...)
}

// round asks n times at once and reads the answers.
func (a *frameAsker) round(n int) {
	a.out = a.out[:0]
	for range n {
		a.out = a.frame(a.out, a.block, a.next)
		a.next += 2
	}
	if a.got >= 16<<20 { // the connection's window is a GiB
		a.out = append(a.out, 0, 0, 4, 8, 0, 0, 0, 0, 0)
		a.out = binary.BigEndian.AppendUint32(a.out, uint32(a.got))
		a.got = 0
	}
	if _, err := a.c.Write(a.out); err != nil {
		a.t.Fatal(err)
	}
	a.read(n)
}

func (a *frameAsker) read(ends int) {
	for ends > 0 {
		for a.w-a.r >= 9 {
			h := a.in[a.r:]
			whole := 9 + int(h[0])<<16 + int(h[1])<<8 + int(h[2])
			if a.w-a.r < whole {
				break
			}
			if h[3] == 3 || h[3] == 7 {
				a.t.Fatalf("got a frame of type %d: %q", h[3], h[9:whole])
			}
			if h[3] <= 1 && h[4]&1 != 0 {
				ends--
			}
			if h[3] == 0 {
				a.got += whole - 9
			}
			a.r += whole
		}
		if ends == 0 {
			return
		}
		a.w = copy(a.in[:], a.in[a.r:a.w])
		a.r = 0
		n, err := a.c.Read(a.in[a.w:])
		if err != nil {
			a.t.Fatal(err)
		}
		a.w += n
	}
}

func benchTLS(b *testing.B) *tls.Config {
	b.Helper()
	return &tls.Config{Certificates: []tls.Certificate{*newIssuer(b).issue(b, "school.example")}, NextProtos: []string{"h2"}}
}
