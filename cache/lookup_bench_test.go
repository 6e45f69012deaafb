package cache

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"

	"firstbell/proxy/field"
)

// BenchmarkLookup is what a look-up costs, by how much is stored: of random
// lessons, one after the other. cpu-ns/op is what counts on a busy machine.
//
// The floor beside it is a bare walk that touches memory as a look-up has to:
// a table, the record that it names, and another line of that record which only
// its first one tells; and the next step depends on that. Both lie somewhere
// among as many. Less is not to be had; what is above is what a look-up does.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.Run("hit", func(b *testing.B) { benchmarkHits(b, n) })
			b.Run("floor", func(b *testing.B) { benchmarkFloor(b, n) })
		})
	}
}

func benchmarkHits(b *testing.B, n int) {
	c := filledOnce(b, n)
	p := &Policy{}
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	r := request(lesson(0), field.Field{Name: "Cookie", Value: "session=1"})
	key := make([]byte, 0, 64)
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime()
	for range b.N {
		key = appendLesson(key[:0], rnd.IntN(n))
		r.Key = key
		if f := c.Lookup(r, p, nine); f.Outcome != Hit {
			b.Fatalf("look-up of %s: %v, want hit", r.Key, f.Outcome)
		}
	}
	b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
}

// appendLesson appends the key of a lesson as lesson does.
func appendLesson(key []byte, i int) []byte {
	return strconv.AppendInt(append(key, "http://school.example/lessons/"...), int64(i), 10)
}

// filledCaches are kept for all runs of a benchmark: the largest takes seconds.
var filledCaches = map[int]*Cache{}

func filledOnce(b *testing.B, n int) *Cache {
	c := filledCaches[n]
	if c == nil {
		var err error
		if c, err = New(Options{MemoryBytes: max(8<<20, int64(n)*4096)}); err != nil {
			b.Fatal(err)
		}
		for _, i := range rand.New(rand.NewPCG(2, 2)).Perm(n) { // neighbours in memory are none by name
			c.Put(object(c, request(lesson(i)), 100))
		}
		runtime.GC()
		filledCaches[n] = c
	}
	return c
}

// A walked is a record of the floor, which takes about what is kept of a
// response with 100 bytes of content.
type walked struct {
	number uint64
	line   *[64]byte // within rest
	rest   [1264]byte
}

func benchmarkFloor(b *testing.B, n int) {
	rnd := rand.New(rand.NewPCG(3, 3))
	const spread = 3 // as buckets have room
	table := make([]*walked, spread*n)
	for _, i := range rnd.Perm(n) {
		w := &walked{number: uint64(i)}
		w.line = (*[64]byte)(w.rest[112:])
		table[spread*i] = w
	}
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime()
	sum := 0
	for range b.N {
		w := table[spread*((rnd.IntN(n)+sum)%n)] // the next depends on this one
		sum = int(w.line[w.number&1])
	}
	b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
	runtime.KeepAlive(table)
}
