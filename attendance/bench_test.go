package attendance

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"firstbell/attendance/wal"
)

// BenchmarkTake is the whole way of a check-in from 1,000 submitters: new ones
// and such that have their receipt over a journal that costs nothing, and new
// ones on a disk.
func BenchmarkTake(b *testing.B) {
	b.Run("new", func(b *testing.B) { benchmarkTake(b, &nullLog{}, false) })
	b.Run("again", func(b *testing.B) { benchmarkTake(b, &nullLog{}, true) })
	b.Run("disk", func(b *testing.B) {
		log, err := wal.Open(wal.Options{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		defer log.Close()
		benchmarkTake(b, log, false)
	})
}

// nullLog forgets everything.
type nullLog struct{ next uint64 }

func (l *nullLog) Append(records [][]byte) (uint64, error) {
	first := l.next + 1
	l.next += uint64(len(records))
	return first, nil
}

func benchmarkTake(b *testing.B, log Appender, again bool) {
	const submitters = 1000
	r := mustNew(b, Config{Log: log, Secret: mustSecret(b)})
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
	if err := stop(); err != nil {
		b.Error(err)
	}
	s := r.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checkins/s")
	b.ReportMetric(float64(s.Records)/max(1, float64(s.Batches)), "records/batch")
}
