package cache

import (
	"hash/maphash"
	"sync/atomic"
)

// entry holds the stored responses of one primary key, newest first. Readers
// find it without a lock, so key, hash, variants and size never change: a
// change makes a new entry.
type entry struct {
	key      string
	hash     uint64
	variants []*Stored
	size     int64

	// used counts look-ups since the entry last moved, up to usedMax: readers
	// of a popular entry only read.
	used atomic.Uint32
	// where is read by look-ups and written under memory.mu.
	where atomic.Uint32

	prev, next *entry // in the resident window; guarded by memory.mu
}

const (
	usedMax = 15

	// entryBytes is an entry, its node and bucket in the index and its places
	// in ristretto's two maps, measured on linux/amd64.
	entryBytes = 320
)

func newEntry(hash uint64, variants []*Stored) *entry {
	e := &entry{key: variants[0].key, hash: hash, variants: variants, size: entryBytes}
	for _, s := range variants {
		e.size += s.total()
	}
	return e
}

// touch notes a look-up.
func (e *entry) touch() {
	if n := e.used.Load(); n < usedMax {
		e.used.Store(n + 1)
	}
}

// index finds entries by the hash of their key. Reading takes no lock and
// allocates nothing; writers take turns by memory.mu. Two keys of one hash
// displace each other: the reader compares the key in full.
type index struct {
	seed   maphash.Seed // random per process, so that nobody can choose collisions
	shards [indexShards]indexShard
}

// indexShards bounds what growing costs one Put: a 256th of all entries.
const indexShards = 256

type indexShard struct {
	buckets atomic.Pointer[[]bucket]
	count   int // guarded by memory.mu
}

type bucket = atomic.Pointer[node]

// node is a link of a bucket's chain. Chains are never changed behind a
// reader: what follows a node stays.
type node struct {
	hash  uint64
	entry atomic.Pointer[entry]
	next  *node
}

func (x *index) init() {
	x.seed = maphash.MakeSeed()
	for i := range x.shards {
		b := make([]bucket, 8)
		x.shards[i].buckets.Store(&b)
	}
}

func (x *index) hash(key []byte) uint64 { return maphash.Bytes(x.seed, key) }

func (x *index) shard(hash uint64) *indexShard { return &x.shards[hash%indexShards] }

func bucketOf(buckets []bucket, hash uint64) *bucket {
	return &buckets[hash/indexShards&uint64(len(buckets)-1)]
}

// get returns the entry with the hash, or nil.
func (x *index) get(hash uint64) *entry {
	for n := bucketOf(*x.shard(hash).buckets.Load(), hash).Load(); n != nil; n = n.next {
		if n.hash == hash {
			return n.entry.Load()
		}
	}
	return nil
}

// each calls f with every entry that is there from its beginning to its end,
// and perhaps with others. It takes no lock.
func (x *index) each(f func(*entry)) {
	for i := range x.shards {
		buckets := *x.shards[i].buckets.Load()
		for b := range buckets {
			for n := buckets[b].Load(); n != nil; n = n.next {
				f(n.entry.Load())
			}
		}
	}
}

// set puts e in the place of whatever has its hash. Look-ups that begin after
// set returned find it.
func (x *index) set(e *entry) {
	sh := x.shard(e.hash)
	buckets := *sh.buckets.Load()
	b := bucketOf(buckets, e.hash)
	for n := b.Load(); n != nil; n = n.next {
		if n.hash == e.hash {
			n.entry.Store(e)
			return
		}
	}
	push(b, e.hash, e)
	if sh.count++; sh.count > len(buckets) {
		sh.grow(buckets)
	}
}

func push(b *bucket, hash uint64, e *entry) {
	n := &node{hash: hash, next: b.Load()}
	n.entry.Store(e)
	b.Store(n)
}

func (sh *indexShard) grow(old []bucket) {
	buckets := make([]bucket, 2*len(old))
	for i := range old {
		for n := old[i].Load(); n != nil; n = n.next {
			push(bucketOf(buckets, n.hash), n.hash, n.entry.Load())
		}
	}
	sh.buckets.Store(&buckets)
}

// remove takes e out, if it is there.
func (x *index) remove(e *entry) {
	sh := x.shard(e.hash)
	b := bucketOf(*sh.buckets.Load(), e.hash)
	if x.get(e.hash) != e {
		return
	}
	// The links before it are made anew, as a reader may be on them.
	var rest *node
	for n := b.Load(); n != nil; n = n.next {
		if n.hash == e.hash {
			rest = n.next
			break
		}
	}
	for n := b.Load(); n.hash != e.hash; n = n.next {
		again := &node{hash: n.hash, next: rest}
		again.entry.Store(n.entry.Load())
		rest = again
	}
	b.Store(rest)
	sh.count--
}
