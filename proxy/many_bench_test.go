package proxy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"firstbell/cache"
	"firstbell/proxy/field"
)

// BenchmarkHitAmong is a whole hit over a connection, of random pages of 1 KiB
// among as many as are stored. cpu-ns/op holds the client, too, which costs the
// same for all.
func BenchmarkHitAmong(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { hitAmong(b, n) })
	}
}

func hitAmong(b *testing.B, n int) {
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
	defer p.Shutdown(context.Background())
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	request, buf := make([]byte, 0, 256), make([]byte, 64<<10)
	ask := func(i int) {
		request = strconv.AppendInt(append(request[:0], "GET /lessons/"...), int64(i), 10)
		request = append(request, " HTTP/1.1\r\nHost: s01.school.example\r\nCookie: session=0123456789abcdef\r\n\r\n"...)
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		got, err := c.Read(buf)
		if err != nil || got < 1024 {
			b.Fatalf("got %.200q, %v", buf[:got], err)
		}
	}
	for i := range n { // the header sections are made ready with the first hit
		ask(i)
	}
	if hits := p.cache.Stats().Hits; hits != uint64(n) {
		b.Fatalf("got %d hits, want %d", hits, n)
	}
	runtime.GC()
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		before := processorNanos()
		for range b.N {
			ask(rand.IntN(n))
		}
		b.ReportMetric(float64(processorNanos()-before)/float64(b.N), "cpu-ns/op")
	})
}

// processorNanos is what this process has used, which a busy machine does not blur.
func processorNanos() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
