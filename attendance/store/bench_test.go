package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"firstbell/attendance"
	"firstbell/attendance/pgtest"
)

// crowd makes events of students of 40 schools in the order of their arrival,
// which is that of nothing else.
type crowd struct {
	random *rand.Rand
	next   uint64
}

func newCrowd() *crowd { return &crowd{random: rand.New(rand.NewPCG(1, 2)), next: 1} }

func (c *crowd) bulk(size int) *attendance.Bulk {
	events := make([]attendance.Event, size)
	for i := range events {
		e := &events[i]
		*e = arrival(0, time.Duration(i)*time.Millisecond)
		n := c.random.Uint64()
		e.School, e.Student = fmt.Sprintf("school-%d", n%40), fmt.Sprintf("s%012d", n%1e12)
		binary.LittleEndian.PutUint64(e.ID[:], n)
		binary.LittleEndian.PutUint64(e.ID[8:], c.random.Uint64())
	}
	b := bulk(c.next, events...)
	c.next = b.Next
	return b
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSQLite is what a check-in costs this process on its way into the
// file, in bulks as serve makes them and smaller.
func BenchmarkSQLite(b *testing.B) {
	for _, size := range []int{1000, 4000, 16000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			dir := b.TempDir()
			s := open(b, Options{Location: "sqlite:" + filepath.Join(dir, "a.db"), Journal: dir})
			c := newCrowd()
			var cpu time.Duration
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				bulk := c.bulk(size)
				before := ownCPU()
				b.StartTimer()
				deliver(b, s, bulk)
				cpu += ownCPU() - before
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(c.next-1), "cpu-µs/row")
			b.ReportMetric(float64(c.next-1)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkPostgres sets delivery in bulk beside one INSERT per check-in from 64
// clients, into the same tables of the same server, which syncs each commit, in
// turns. Its figures are ratios: rows in a second (at least 12 times), and the
// database's CPU for a row (at most a tenth); the CPU of both sides is what the
// first comes to where the CPU is the limit, however busy the machine is. What is left to gain is the
// distance to the ceiling: one COPY of the same rows into a table without a key,
// an index or a position.
func BenchmarkPostgres(b *testing.B) {
	server := pgtest.Start(b, "fsync=on", "max_connections=100", "shared_buffers=128MB", "max_wal_size=1GB")
	o := Options{Location: server.Database(b), Password: pgtest.Password, Journal: b.TempDir()}
	s := open(b, o)
	c := newCrowd()
	one := newOneByOne(b, o)
	bare := newBareCopy(b, o)
	const bulkRows, oneRows = 16000, 4000
	round := func(rows int, deliver func(*attendance.Bulk)) (perSecond, cpuPerRow, bothPerRow float64) {
		bulk := c.bulk(rows)
		cpu, own, began := server.CPU(b), ownCPU(), time.Now()
		deliver(bulk)
		took := time.Since(began)
		own, cpu = ownCPU()-own, server.CPU(b)-cpu
		return float64(rows) / took.Seconds(), float64(cpu.Nanoseconds()) / float64(rows), float64((cpu + own).Nanoseconds()) / float64(rows)
	}
	inBulk := func(x *attendance.Bulk) { deliver(b, s, x) }
	round(bulkRows, inBulk) // neither begins in an empty table
	var faster, cheaper, both, ceiling []float64
	for b.Loop() {
		bulkSpeed, bulkCPU, bulkBoth := round(4*bulkRows, func(x *attendance.Bulk) {
			for part := range slices.Chunk(x.Events, bulkRows) {
				inBulk(&attendance.Bulk{First: part[0].Seq, Next: part[len(part)-1].Seq + 1, Events: part})
			}
		})
		oneSpeed, oneCPU, oneBoth := round(oneRows, one.insert)
		bareSpeed, bareCPU, _ := round(bulkRows, bare.write)
		ceiling, both = append(ceiling, bareSpeed/bulkSpeed), append(both, oneBoth/bulkBoth)
		faster, cheaper = append(faster, bulkSpeed/oneSpeed), append(cheaper, oneCPU/max(bulkCPU, 1))
		b.Logf("in bulk %.0f rows/s, %.1f µs of the database; one by one %.0f rows/s, %.0f µs; bare COPY %.0f rows/s, %.1f µs",
			bulkSpeed, bulkCPU/1000, oneSpeed, oneCPU/1000, bareSpeed, bareCPU/1000)
	}
	b.ReportMetric(median(faster), "x-rows/s")
	b.ReportMetric(median(cheaper), "x-less-CPU")
	b.ReportMetric(median(both), "x-less-CPU-of-both")
	b.ReportMetric(median(ceiling), "x-to-bare-COPY")
	b.ReportMetric(0, "ns/op")
}

// bareCopy writes the same rows where nothing has to be kept in order.
type bareCopy struct {
	b    *testing.B
	pool *pgxpool.Pool
}

func newBareCopy(b *testing.B, o Options) *bareCopy {
	b.Helper()
	pool, err := pgxpool.New(context.Background(), strings.Replace(o.Location, "school@", "school:"+pgtest.Password+"@", 1))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	if _, err := pool.Exec(context.Background(), "CREATE TABLE firstbell.bare (LIKE firstbell.arrivals)"); err != nil {
		b.Fatal(err)
	}
	return &bareCopy{b, pool}
}

func (c *bareCopy) write(bulk *attendance.Bulk) {
	rows, _ := fold(bulk, nil, nil)
	err := c.pool.AcquireFunc(context.Background(), func(conn *pgxpool.Conn) error {
		into := strings.Replace(copyArrivals, "firstbell.arrivals", "firstbell.bare", 1)
		_, err := conn.Conn().PgConn().CopyFrom(context.Background(), &copyReader{rows: rows}, into)
		return err
	})
	if err != nil {
		c.b.Error(err)
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// oneByOne is how an application writes check-ins: one statement, one
// transaction and one of 64 clients for each.
type oneByOne struct {
	b    *testing.B
	pool *pgxpool.Pool
}

func newOneByOne(b *testing.B, o Options) *oneByOne {
	b.Helper()
	c, err := parsePostgres(o)
	if err != nil {
		b.Fatal(err)
	}
	c.MaxConns, c.MinConns = 64, 64
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return &oneByOne{b, pool}
}

func (o *oneByOne) insert(bulk *attendance.Bulk) {
	const statement = "INSERT INTO firstbell.arrivals (date, school, period, student_id, class_key, class_id, status, first_arrival, utc_offset, verified, receipt, timetable, position)" +
		" VALUES ($1, $2, $3, $4, '', $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING"
	var next atomic.Int64
	var clients sync.WaitGroup
	for range 64 {
		clients.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(bulk.Events)); i = next.Add(1) - 1 {
				e := &bulk.Events[i]
				_, err := o.pool.Exec(context.Background(), statement, midnight(e.Date), e.School, e.Period, e.Student, e.Class, string(e.Status),
					e.FirstArrival, int16(utcOffset(e.FirstArrival)), e.Verified, [16]byte(e.ID), e.Timetable, int64(e.Seq))
				if err != nil {
					o.b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// BenchmarkPostgresConnections is what more connections than one would bring:
// as many journals deliver into one database at once.
func BenchmarkPostgresConnections(b *testing.B) {
	server := pgtest.Start(b, "fsync=on", "shared_buffers=128MB", "max_wal_size=1GB")
	for _, connections := range []int{1, 2, 4} {
		b.Run(fmt.Sprint(connections), func(b *testing.B) {
			location, c := server.Database(b), newCrowd()
			var stores []Store
			for range connections {
				stores = append(stores, open(b, Options{Location: location, Password: pgtest.Password, Journal: b.TempDir()}))
			}
			rows := 0
			for b.Loop() {
				b.StopTimer()
				bulks := make([]*attendance.Bulk, connections)
				for i := range bulks {
					bulks[i] = c.bulk(4000)
					rows += 4000
				}
				b.StartTimer()
				var all sync.WaitGroup
				for i, s := range stores {
					all.Go(func() { deliver(b, s, bulks[i]) })
				}
				all.Wait()
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
