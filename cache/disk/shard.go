package disk

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// shards is the number of directories: a million records make 250 a
// directory, which is listed in the time that a look-up may take.
const shards = 4096

// slot is what the index knows of a record: 40 bytes, without a pointer, so
// that a million of them are nothing to the garbage collector.
type slot struct {
	key     digest
	seq     uint64
	variant uint32
	units   uint32
	used    uint32 // when it was last asked for, in Unix seconds
	uses    uint8  // how often, up to usesMax
	live    bool
}

const usesMax = 15

// shard is the index of one directory.
type shard struct {
	number int
	loaded atomic.Bool

	loading sync.Mutex // held while the directory is listed
	failed  int64      // guarded by loading: when that last failed, in Unix seconds

	updating sync.Mutex // one writes a new head at a time

	mu      sync.Mutex // guards what follows; never held over a file call
	slots   []slot     // open addressing, a power of two
	count   int
	writers []*Writer         // of records on their way here
	removed bool              // names were removed since the directory was last synced
	doomed  map[digest]uint64 // removed up to this time while the directory could not be listed
}

func shardOf(key digest) int { return int(binary.BigEndian.Uint16(key[:]) >> 4) }

func (sh *shard) dir(top string) string {
	return filepath.Join(top, "r", fmt.Sprintf("%03x", sh.number))
}

func (sh *shard) path(top string, k *slot) string { return filepath.Join(sh.dir(top), k.fileName()) }

// start is where the search for a key begins.
func (sh *shard) start(key digest) int {
	return int(binary.LittleEndian.Uint64(key[8:]) & uint64(len(sh.slots)-1))
}

// eachLocked calls f for every record of the key until it returns false. f may
// change uses only.
func (sh *shard) eachLocked(key digest, f func(i int, k *slot) bool) {
	if sh.count == 0 {
		return
	}
	for i := sh.start(key); sh.slots[i].live; i = (i + 1) & (len(sh.slots) - 1) {
		if sh.slots[i].key == key && !f(i, &sh.slots[i]) {
			return
		}
	}
}

// findLocked returns the place of one record, or -1.
func (sh *shard) findLocked(key digest, seq uint64) int {
	at := -1
	sh.eachLocked(key, func(i int, k *slot) bool {
		if k.seq == seq {
			at = i
		}
		return at < 0
	})
	return at
}

// insertLocked adds a record. The table is at most three quarters full.
func (sh *shard) insertLocked(k slot) {
	if 4*(sh.count+1) > 3*len(sh.slots) {
		old := sh.slots
		sh.slots = make([]slot, max(8, 2*len(old)))
		for i := range old {
			if old[i].live {
				sh.placeLocked(old[i])
			}
		}
	}
	k.live = true
	sh.placeLocked(k)
	sh.count++
}

func (sh *shard) placeLocked(k slot) {
	i := sh.start(k.key)
	for sh.slots[i].live {
		i = (i + 1) & (len(sh.slots) - 1)
	}
	sh.slots[i] = k
}

// deleteLocked takes the record at i out and closes the gap.
func (sh *shard) deleteLocked(i int) {
	mask := len(sh.slots) - 1
	sh.count--
	for j := (i + 1) & mask; sh.slots[j].live; j = (j + 1) & mask {
		home := sh.start(sh.slots[j].key)
		if (j-home)&mask >= (j-i)&mask { // its search passes the gap
			sh.slots[i] = sh.slots[j]
			i = j
		}
	}
	sh.slots[i] = slot{}
}

// forgetLocked takes w off the writers.
func (sh *shard) forgetLocked(w *Writer) {
	for i := range sh.writers {
		if sh.writers[i] == w {
			last := len(sh.writers) - 1
			sh.writers[i], sh.writers[last] = sh.writers[last], nil
			sh.writers = sh.writers[:last]
			return
		}
	}
}
