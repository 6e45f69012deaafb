package seal

import (
	"crypto/sha256"
	"hash"
	"math/bits"
)

// Hash is a leaf, a node or a root.
type Hash [sha256.Size]byte

// The first byte of what is hashed keeps leaves and nodes apart: no record can
// be passed off as a node.
var (
	leafPrefix = []byte{0}
	nodePrefix = []byte{1}
)

// Leaf returns the hash of one record.
func Leaf(record []byte) Hash {
	var t Tree
	t.Add(record)
	return t.leaves[0]
}

// Tree gathers the leaves of a batch. The zero value is ready; it is used by
// one goroutine.
type Tree struct {
	sha    hash.Hash
	leaves []Hash
	work   []Hash // a level being reduced; kept between uses
	// Beside the hashes, so that hashing does not allocate.
	pair    [2 * sha256.Size]byte
	scratch Hash
}

// Reset makes the tree empty and keeps its room.
func (t *Tree) Reset() { t.leaves = t.leaves[:0] }

// DropFirst takes the first n leaves out.
func (t *Tree) DropFirst(n int) { t.leaves = append(t.leaves[:0], t.leaves[n:]...) }

// Len returns how many leaves there are.
func (t *Tree) Len() int { return len(t.leaves) }

// Add appends a record's leaf. The record is not kept.
func (t *Tree) Add(record []byte) {
	t.leaves = append(t.leaves, Hash{})
	t.sum(&t.leaves[len(t.leaves)-1], leafPrefix, record)
}

func (t *Tree) sum(into *Hash, prefix, data []byte) {
	if t.sha == nil {
		t.sha = sha256.New()
	}
	t.sha.Reset()
	t.sha.Write(prefix)
	t.sha.Write(data)
	t.sha.Sum(into[:0])
}

func (t *Tree) node(left, right *Hash) (h Hash) {
	copy(t.pair[:], left[:])
	copy(t.pair[sha256.Size:], right[:])
	t.sum(&t.scratch, nodePrefix, t.pair[:])
	return t.scratch
}

// Root returns the root over all leaves. There must be one at least.
func (t *Tree) Root() Hash {
	t.work = append(t.work[:0], t.leaves...)
	for level := t.work; len(level) > 1; {
		level = t.reduce(level)
	}
	return t.work[0]
}

// reduce makes the level above in place. A last node without a sibling goes up
// as it is: so the left part of every tree is a whole one.
func (t *Tree) reduce(level []Hash) []Hash {
	n := 0
	for i := 0; i+1 < len(level); i += 2 {
		level[n] = t.node(&level[i], &level[i+1])
		n++
	}
	if len(level)%2 == 1 {
		level[n] = level[len(level)-1]
		n++
	}
	return level[:n]
}

// Path returns what leads from the leaf at index to the root: the siblings,
// lowest first.
func (t *Tree) Path(index int) []Hash {
	path := []Hash{}
	t.work = append(t.work[:0], t.leaves...)
	for level := t.work; len(level) > 1; index /= 2 {
		if sibling := index ^ 1; sibling < len(level) {
			path = append(path, level[sibling])
		}
		level = t.reduce(level)
	}
	return path
}

// PathMax is the longest path that RootOf follows: batches have less than
// 2^32 records.
const PathMax = 32

// RootOf returns the root to which a path leads (RFC 9162 section 2.1.3.2); ok
// is false when a tree of so many leaves has no such path.
func RootOf(leaf Hash, index, leaves uint64, path []Hash) (root Hash, ok bool) {
	if index >= leaves || len(path) > PathMax {
		return Hash{}, false
	}
	var t Tree
	root = leaf
	last := leaves - 1
	for _, sibling := range path {
		if last == 0 {
			return Hash{}, false
		}
		left, right := &root, &sibling
		if index&1 == 1 || index == last {
			left, right = right, left
		}
		root = t.node(left, right)
		if index&1 == 0 && index == last {
			// It went up as it was until it had a sibling on its left.
			up := bits.TrailingZeros64(index)
			index, last = index>>up, last>>up
		}
		index, last = index>>1, last>>1
	}
	return root, last == 0
}
