package disk

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// TestTheTableIsAMap compares a shard's table with a map, with keys that fall
// on few places.
func TestTheTableIsAMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var sh shard
	model := map[uint64]digest{}
	for seq := range uint64(3000) {
		var key digest
		binary.LittleEndian.PutUint64(key[8:], rnd.Uint64N(7)+rnd.Uint64N(3)<<60)
		if rnd.IntN(20) < 11 {
			sh.insertLocked(slot{key: key, seq: seq})
			model[seq] = key
		} else {
			for s, k := range model {
				sh.deleteLocked(sh.findLocked(k, s))
				delete(model, s)
				break
			}
		}
		if sh.count != len(model) {
			t.Fatalf("after %d steps: %d records, want %d", seq, sh.count, len(model))
		}
		if seq%100 > 0 {
			continue
		}
		for s, k := range model {
			if sh.findLocked(k, s) < 0 {
				t.Fatalf("after %d steps: record %d is not found", seq, s)
			}
		}
	}
}

func TestTheIndexStaysSmall(t *testing.T) {
	if n := unsafe.Sizeof(slot{}); n != 40 {
		t.Errorf("a slot has %d bytes; the documents say 40", n)
	}
	const n = 200_000
	all := make([]shard, shards)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		key := digestOf(fmt.Append(nil, i))
		all[shardOf(key)].insertLocked(slot{key: key, seq: uint64(i)})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.0f bytes a record", each)
	if each > 120 {
		t.Errorf("%.0f bytes a record in memory, want at most 120", each)
	}
	runtime.KeepAlive(all)
}

var records = flag.Int("records", 20_000, "records of BenchmarkRebuild; 1000000 is what is promised for")

// BenchmarkRebuild measures how long a start takes to know what is there.
//
//	go test ./cache/disk -run xxx -bench Rebuild -benchtime 1x -records 1000000
func BenchmarkRebuild(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir, Options{Bytes: 1 << 40})
	began := time.Now()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := g; i < *records; i += 4 {
				put(b, s, metaOf(fmt.Sprint(i)), []byte("a lesson"))
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(time.Since(began).Microseconds())/float64(*records), "us/put")
	closed(b, s)
	for b.Loop() {
		s := open(b, dir, Options{Bytes: 1 << 40})
		rebuild(b, s)
		if n := s.Stats().Objects; n != int64(*records) {
			b.Fatalf("%d records found of %d", n, *records)
		}
		closed(b, s)
	}
}

func BenchmarkPut20K(b *testing.B) {
	s := open(b, b.TempDir(), Options{Bytes: 256 << 20})
	defer closed(b, s)
	content := bytesOf(1, 20<<10)
	b.SetBytes(20 << 10)
	for i := 0; b.Loop(); i++ {
		put(b, s, metaOf(fmt.Sprint(i%10_000)), content)
	}
}

func BenchmarkGet20K(b *testing.B) {
	s := open(b, b.TempDir(), Options{Bytes: 256 << 20})
	defer closed(b, s)
	put(b, s, metaOf("a"), bytesOf(1, 20<<10))
	b.SetBytes(20 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := get(s, "a"); err != nil {
			b.Fatal(err)
		}
	}
}
