package attendance

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"firstbell/attendance/wal"
)

// BenchmarkTake is the whole way of a check-in from many submitters: new ones
// and such that have their receipt over a journal that costs nothing, and new
// ones on a disk, there also without the seal over each batch.
func BenchmarkTake(b *testing.B) {
	b.Run("new", func(b *testing.B) { benchmarkTake(b, &nullLog{}, 1000, false, true) })
	b.Run("again", func(b *testing.B) { benchmarkTake(b, &nullLog{}, 1000, true, true) })
	for _, submitters := range []int{64, 1000} {
		for _, sealed := range []bool{true, false} {
			name := fmt.Sprintf("disk, %d submitters, sealed %v", submitters, sealed)
			b.Run(name, func(b *testing.B) {
				log, err := wal.Open(wal.Options{Dir: b.TempDir()})
				if err != nil {
					b.Fatal(err)
				}
				defer log.Close()
				benchmarkTake(b, log, submitters, false, sealed)
			})
		}
	}
}

// processTime is what the process has used of the processors.
func processTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTakeOnARoll is a new check-in beside so many that are on the roll
// already: its cost is that of its cache misses.
func BenchmarkTakeOnARoll(b *testing.B) {
	for _, keys := range []int{1_000, 10_000, 100_000, 1_000_000, 7_000_000} {
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			r := mustNew(b, Config{Log: &nullLog{}, Secret: mustSecret(b)})
			stop := run(b, r)
			p := press("somebody")
			take(b, r, p)
			d := r.roll.all()[0]
			e := sampleEvent()
			random := rand.New(rand.NewPCG(1, 2))
			for range keys {
				binary.LittleEndian.PutUint64(e.ID[:], random.Uint64())
				binary.LittleEndian.PutUint64(e.ID[8:], random.Uint64())
				d.restore(&e)
			}
			runtime.GC()
			// So many that the roll does not grow by half, the same ones in turn.
			const fresh = 500
			ids := make([]claim, fresh)
			for i := range ids {
				ids[i].press = Press{Host: p.Host, Student: fmt.Sprintf("fresh%d", i), Class: p.Class}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c := ids[i%fresh]
				if err := r.place(&c); err != nil {
					b.Fatal(err)
				}
				s := c.day.shard(&c.id)
				s.mu.Lock()
				if _, ok := s.entries.get(&c.id); ok {
					s.entries.drop(&c.id)
				}
				s.entries.put(&c.id, c.entry())
				s.mu.Unlock()
			}
			b.StopTimer()
			if err := stop(); err != nil {
				b.Error(err)
			}
		})
	}
}

// nullLog forgets everything.
type nullLog struct{ next uint64 }

func (l *nullLog) Append(records [][]byte) (uint64, error) {
	first := l.next + 1
	l.next += uint64(len(records))
	return first, nil
}

func benchmarkTake(b *testing.B, log Appender, submitters int, again, sealed bool) {
	c := Config{Log: log, Secret: mustSecret(b)}
	if sealed {
		c.Key, _ = testKey()
	}
	r := mustNew(b, c)
	stop := run(b, r)
	students := make([]string, b.N)
	for i := range students {
		students[i] = fmt.Sprintf("s%09d", i)
		if again {
			students[i] = fmt.Sprintf("s%09d", i%1000)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	cpu := processTime()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range submitters {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				p := Press{Host: "north.school.example", Student: students[i], Class: "3b"}
				if _, err := r.Take(context.Background(), p); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	cpu = processTime() - cpu
	if err := stop(); err != nil {
		b.Error(err)
	}
	s := r.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checkins/s")
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(s.Records)/max(1, float64(s.Batches)), "records/batch")
}

// BenchmarkCollect is the whole way of a beacon of 200 bytes from many
// submitters, over a journal that costs nothing and on a disk.
func BenchmarkCollect(b *testing.B) {
	collectFrom := func(b *testing.B, log Appender) {
		r := mustNew(b, Config{Log: log, Secret: mustSecret(b)})
		stop := run(b, r)
		body := make([]byte, 200)
		var n atomic.Uint64
		b.ReportAllocs()
		b.SetParallelism(1000 / runtime.GOMAXPROCS(0))
		before := processTime()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			it := Item{Host: "north.school.example", Sink: "progress", Path: "/progress", ContentType: "application/json", Body: body}
			for pb.Next() {
				it.Key = fmt.Sprint(n.Add(1))
				if _, err := r.Collect(context.Background(), it); err != nil {
					b.Error(err)
				}
			}
		})
		b.ReportMetric(float64((processTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		if err := stop(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("nothing", func(b *testing.B) { collectFrom(b, &nullLog{}) })
	b.Run("disk", func(b *testing.B) {
		log, err := wal.Open(wal.Options{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		defer log.Close()
		collectFrom(b, log)
	})
}
