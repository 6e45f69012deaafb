package proxy

import (
	"context"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"firstbell/cache"
	"firstbell/proxy/field"
)

// BenchmarkHitAmong is a whole hit over a connection, of random pages of 1 KiB
// among a million, beside one among a thousand: two servers take turns in short
// bursts, and times is the median of what the one costs in parts of the other.
// What both cost holds the client, too.
func BenchmarkHitAmong(b *testing.B) {
	few, many := newAsked(b, 1000), newAsked(b, 1_000_000)
	runtime.GC()
	const burst = 500
	var ofFew, ofMany, times []float64
	b.ReportAllocs()
	b.ResetTimer()
	for at := 0; at < b.N; at += 2 * burst {
		f, m := few.burst(burst), many.burst(burst)
		ofFew, ofMany, times = append(ofFew, f), append(ofMany, m), append(times, m/f)
	}
	b.ReportMetric(median(ofFew), "cpu-ns/op-of-1000")
	b.ReportMetric(median(ofMany), "cpu-ns/op-of-1000000")
	b.ReportMetric(median(times), "times")
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// asked is a server with so many stored pages, and its client.
type asked struct {
	b            *testing.B
	pages        int
	c            net.Conn
	request, buf []byte
}

func newAsked(b *testing.B, n int) *asked {
	p, up := benchProxy(b, nil) // nothing is fetched
	var err error
	if p.cache, err = cache.New(cache.Options{MemoryBytes: max(64<<20, int64(n)*4096)}); err != nil {
		b.Fatal(err)
	}
	p.Swap(NewTable(cached(cache.Policy{Anonymous: true})(up)))
	now, page := time.Now(), make([]byte, 1024)
	for _, i := range rand.Perm(n) { // neighbours in memory are none by name
		r := &cache.Request{Method: "GET", Key: strconv.AppendInt([]byte("http s01.school.example /lessons/"), int64(i), 10), Fields: field.List{}}
		p.cache.Begin(r)
		res := field.List{{Name: "Content-Type", Value: "text/html"}, {Name: "Cache-Control", Value: "public, max-age=36000"}, {Name: "ETag", Value: `"v1"`},
			{Name: "Content-Length", Value: "1024"}}
		v := cache.Judge(r, &cache.Policy{}, 200, res, now, now)
		p.cache.Put(p.cache.NewStored(r, v, 200, res, append([]byte(nil), page...), now, now))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go p.Serve(ln)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(); p.Shutdown(context.Background()) })
	a := &asked{b: b, pages: n, c: c, request: make([]byte, 0, 256), buf: make([]byte, 64<<10)}
	for i := range n { // the header sections are made ready with the first hit
		a.ask(i)
	}
	if hits := p.cache.Stats().Hits; hits != uint64(n) {
		b.Fatalf("got %d hits, want %d", hits, n)
	}
	return a
}

func (a *asked) ask(i int) {
	a.request = strconv.AppendInt(append(a.request[:0], "GET /lessons/"...), int64(i), 10)
	a.request = append(a.request, " HTTP/1.1\r\nHost: s01.school.example\r\nCookie: session=0123456789abcdef\r\n\r\n"...)
	if _, err := a.c.Write(a.request); err != nil {
		a.b.Fatal(err)
	}
	got, err := a.c.Read(a.buf)
	if err != nil || got < 1024 {
		a.b.Fatalf("got %.200q, %v", a.buf[:got], err)
	}
}

// burst asks for so many random pages and returns the nanoseconds of processor
// time that each took.
func (a *asked) burst(n int) float64 {
	before := processorNanos()
	for range n {
		a.ask(rand.IntN(a.pages))
	}
	return float64(processorNanos()-before) / float64(n)
}

// processorNanos is what this process has used, which a busy machine does not blur.
func processorNanos() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
