package cache

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"firstbell/proxy/field"
)

// filled is a cache with n fresh objects of 100 bytes, in both places.
func filled(b *testing.B, n int) *Cache {
	c := newCache(b, max(8<<20, int64(n)*4096))
	for i := range n {
		c.Put(object(c, request(lesson(i)), 100))
	}
	runtime.GC()
	return c
}

func lesson(i int) string { return fmt.Sprintf("http://school.example/lessons/%d", i) }

func BenchmarkLookupHit(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		c := filled(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			requests := make([]*Request, 4096)
			for i := range requests {
				requests[i] = request(lesson(i*7919%n), field.Field{Name: "Cookie", Value: "session=1"})
			}
			p := &Policy{}
			b.ReportAllocs()
			b.ResetTimer()
			before := processorTime()
			defer func() {
				b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
			}()
			var workers atomic.Uint64
			b.RunParallel(func(pb *testing.PB) {
				for i := int(workers.Add(1)) * 1000; pb.Next(); i++ {
					if f := c.Lookup(requests[i%len(requests)], p, nine); f.Outcome != Hit {
						b.Fatalf("look-up: %v, want hit", f.Outcome)
					}
				}
			})
		})
	}
}

// processorTime is what this process has used, which a busy machine does not blur.
func processorTime() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// Everybody asks for the one lesson of nine o'clock.
func BenchmarkLookupOneLesson(b *testing.B) {
	c := filled(b, 1000)
	p := &Policy{}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := request(lesson(999), field.Field{Name: "Cookie", Value: "session=1"})
		for pb.Next() {
			if f := c.Lookup(r, p, nine); f.Outcome != Hit {
				b.Fatalf("look-up: %v, want hit", f.Outcome)
			}
		}
	})
}

func BenchmarkLookupVaried(b *testing.B) {
	c := newCache(b, 8<<20)
	for _, coding := range []string{"gzip", "br", "zstd"} {
		c.Put(object(c, request("a", field.Field{Name: "Accept-Encoding", Value: coding}), 100, field.Field{Name: "Vary", Value: "Accept-Encoding"}))
	}
	r := request("a", field.Field{Name: "Accept-Encoding", Value: "gzip"})
	p := &Policy{}
	b.ReportAllocs()
	for b.Loop() {
		c.Lookup(r, p, nine)
	}
}

func BenchmarkLookupMiss(b *testing.B) {
	c := filled(b, 1000)
	r := request("nothing")
	p := &Policy{}
	b.ReportAllocs()
	for b.Loop() {
		c.Lookup(r, p, nine)
	}
}

func BenchmarkJudgeAndPut(b *testing.B) {
	c := newCache(b, 64<<20)
	rnd := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		c.Put(fetched(c, lesson(rnd.IntN(100_000)), 1000))
	}
}
