package cache

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// entry holds the stored responses of one primary key, newest first. Readers
// find it without a lock, so key, hash, variants and size never change: a
// change makes a new entry. What a look-up reads comes first, a cache line.
type entry struct {
	hash     uint64
	key      string
	variants []*Stored
	one      [1]*Stored // what variants is made of when there is one

	// used is 1 when there was a look-up since the entry last moved: readers of
	// a popular entry only read. Counting more keeps what was popular
	// yesterday for too long.
	used atomic.Uint32
	// where is read by look-ups and written under memory.mu.
	where atomic.Uint32

	size       int64
	prev, next *entry // in its list; guarded by memory.mu
}

const (
	// entryBytes is an entry's place in the index, whose buckets are between
	// three and six eighths full. The entry itself lies in its response.
	entryBytes = 18
	// variantBytes is what an entry of its own takes, for each of its
	// responses.
	variantBytes = 64
)

// newEntry makes an entry of stored responses, of which there is at least one.
// The usual one of a response that was never put lies within the response: what
// a look-up reads is then in two places, with the text in three. It is called
// with memory.mu held.
func newEntry(hash uint64, variants ...*Stored) *entry {
	first := variants[0]
	e := &first.entry
	if len(variants) > 1 || e.variants != nil {
		e = &entry{size: variantBytes}
	}
	e.key, e.hash = first.key, hash
	e.size += entryBytes
	if len(variants) == 1 {
		e.one[0] = first
		e.variants = e.one[:]
	} else {
		e.variants = append(make([]*Stored, 0, len(variants)), variants...)
		e.size += int64(len(variants)) * variantBytes
	}
	for _, s := range variants {
		e.size += s.total()
	}
	return e
}

// touch notes a look-up.
func (e *entry) touch() {
	if e.used.Load() == 0 {
		e.used.Store(1)
	}
}

// index finds entries by the hash of their key. Reading takes no lock and
// allocates nothing; writers take turns by memory.mu. Two keys of one hash
// displace each other: the reader compares the key in full.
//
// It is built for memory that is far away: a look-up reads one cache line of a
// bucket, and then the entry that the bucket's marks point out.
type index struct {
	seed   maphash.Seed // random per process, so that nobody can choose collisions
	shards [indexShards]indexShard
}

// indexShards bounds what growing costs one Put: a 256th of all entries.
const indexShards = 256

type indexShard struct {
	buckets atomic.Pointer[[]bucket] // a power of two of them
	count   int                      // guarded by memory.mu
}

// bucketSlots and the marks fill a cache line of 64 bytes.
const bucketSlots = 7

// bucket holds up to seven entries. A byte of marks for each slot holds seven
// bits of its entry's hash and 0x80, or 0 when it is free; the eighth counts
// the entries that found no room here and went on to a later bucket.
type bucket struct {
	marks atomic.Uint64
	slots [bucketSlots]atomic.Pointer[entry]
}

const (
	lowBits  = 0x0001010101010101 // one in each mark's byte; not in the eighth
	highBits = 0x0080808080808080
	overOne  = 1 << 56
)

func (x *index) init() {
	x.seed = maphash.MakeSeed()
	for i := range x.shards {
		b := make([]bucket, 2)
		x.shards[i].buckets.Store(&b)
	}
}

func (x *index) hash(key []byte) uint64 { return maphash.Bytes(x.seed, key) }

func (x *index) shard(hash uint64) *indexShard { return &x.shards[hash%indexShards] }

// The mark is of the hash's top, the shard of its bottom, the bucket of what
// lies between.
func markOf(hash uint64) uint64 { return hash>>57 | 0x80 }

func bucketOf(buckets []bucket, hash uint64) int {
	return int(hash / indexShards & uint64(len(buckets)-1))
}

// candidates are the slots whose mark is equal, as set high bits of their
// bytes, and perhaps others.
func candidates(marks, mark uint64) uint64 {
	differ := (marks ^ mark*lowBits) & 0x00ffffffffffffff
	return (differ - lowBits) &^ differ & highBits
}

// get returns the entry with the hash, or nil.
func (x *index) get(hash uint64) *entry {
	e, _, _ := find(*x.shard(hash).buckets.Load(), hash)
	return e
}

// find returns the entry with the hash and where it is, or nil.
func find(buckets []bucket, hash uint64) (e *entry, at, slot int) {
	mark := markOf(hash)
	at = bucketOf(buckets, hash)
	for range buckets {
		b := &buckets[at]
		marks := b.marks.Load()
		for c := candidates(marks, mark); c != 0; c &= c - 1 {
			slot := bits.TrailingZeros64(c) / 8
			if e := b.slots[slot].Load(); e != nil && e.hash == hash {
				return e, at, slot
			}
		}
		if marks < overOne {
			return nil, 0, 0
		}
		at = (at + 1) & (len(buckets) - 1)
	}
	return nil, 0, 0
}

// each calls f with every entry that is there from its beginning to its end,
// and perhaps with others. It takes no lock.
func (x *index) each(f func(*entry)) {
	for i := range x.shards {
		buckets := *x.shards[i].buckets.Load()
		for b := range buckets {
			for s := range buckets[b].slots {
				if e := buckets[b].slots[s].Load(); e != nil {
					f(e)
				}
			}
		}
	}
}

// set puts e in the place of whatever has its hash. Look-ups that begin after
// set returned find it.
func (x *index) set(e *entry) {
	sh := x.shard(e.hash)
	buckets := *sh.buckets.Load()
	if old, at, slot := find(buckets, e.hash); old != nil {
		buckets[at].slots[slot].Store(e)
		return
	}
	if sh.count++; sh.count > len(buckets)*bucketSlots*3/4 {
		larger := make([]bucket, 2*len(buckets))
		for b := range buckets {
			for s := range buckets[b].slots {
				if e := buckets[b].slots[s].Load(); e != nil {
					push(larger, e)
				}
			}
		}
		sh.buckets.Store(&larger)
		buckets = larger
	}
	push(buckets, e)
}

// push puts e, whose hash is not there, into the first bucket with room. There
// is one.
func push(buckets []bucket, e *entry) {
	for at := bucketOf(buckets, e.hash); ; at = (at + 1) & (len(buckets) - 1) {
		b := &buckets[at]
		marks := b.marks.Load()
		if free := ^marks & highBits; free != 0 {
			slot := bits.TrailingZeros64(free) / 8
			b.slots[slot].Store(e)
			b.marks.Store(marks | markOf(e.hash)<<(8*slot))
			return
		}
		if marks < overMax {
			b.marks.Store(marks + overOne)
		}
	}
}

// overMax is a count of entries that went on which is not counted further,
// nor back: the bucket keeps sending look-ups on until its shard grows.
const overMax = 255 << 56

// remove takes e out, if it is there.
func (x *index) remove(e *entry) {
	sh := x.shard(e.hash)
	buckets := *sh.buckets.Load()
	found, at, slot := find(buckets, e.hash)
	if found != e {
		return
	}
	b := &buckets[at]
	b.slots[slot].Store(nil)
	b.marks.Store(b.marks.Load() &^ (0xff << (8 * slot)))
	for i := bucketOf(buckets, e.hash); i != at; i = (i + 1) & (len(buckets) - 1) {
		if marks := buckets[i].marks.Load(); marks < overMax {
			buckets[i].marks.Store(marks - overOne)
		}
	}
	sh.count--
}
