package attendance

import "encoding/binary"

// table holds the entries of one shard of a roll. They lie in blocks, in the
// order in which they came, and are never moved to grow; an index of 4 bytes a
// slot, between 3/8 and 3/4 full, finds them. A key takes 36 bytes and 5 to 11
// for the index, however many there are: Go's own map moves between 42 and 85.
// The zero value is ready for use.
//
// Receipts are cut from an HMAC, so their bytes serve as the hash.
type table struct {
	blocks []*[blockKeys]slot
	index  []uint32 // 0: free; else the slot's number + 1, and above it tagBits of the receipt
	keys   int
}

type slot struct {
	id ReceiptID
	entry
}

const (
	blockKeys = 64 // 2 kB: what a shard wastes at most
	tagBits   = 8  // of 256 other keys that are met on the way, one is looked at
	numberMax = 1<<(32-tagBits) - 1

	indexMin = 16
)

func (t *table) at(n int) *slot { return &t.blocks[n/blockKeys][n%blockKeys] }

// The bits that find a key's place, and those that tell it from others there.
func placeOf(id *ReceiptID) uint32 { return binary.LittleEndian.Uint32(id[0:]) }
func tagOf(id *ReceiptID) uint32   { return uint32(id[4]) << (32 - tagBits) }

// find returns the key's place in the index, or the free one where it belongs,
// and its slot's number, -1 when it is not there. The index is not empty.
func (t *table) find(id *ReceiptID) (place uint32, number int) {
	mask := uint32(len(t.index) - 1)
	tag := tagOf(id)
	for place = placeOf(id) & mask; ; place = (place + 1) & mask {
		v := t.index[place]
		if v == 0 {
			return place, -1
		}
		if v&^numberMax == tag {
			if n := int(v&numberMax) - 1; t.at(n).id == *id {
				return place, n
			}
		}
	}
}

// get returns the key's entry.
func (t *table) get(id *ReceiptID) (entry, bool) {
	if t.keys == 0 {
		return entry{}, false
	}
	_, n := t.find(id)
	if n < 0 {
		return entry{}, false
	}
	return t.at(n).entry, true
}

// put sets the key's entry. A table holds 16 million keys, a roll 64 times as
// many: a new one beyond that is not taken.
func (t *table) put(id *ReceiptID, e entry) {
	if 4*(t.keys+1) > 3*len(t.index) {
		t.grow()
	}
	place, n := t.find(id)
	if n < 0 {
		if t.keys == numberMax {
			return
		}
		n = t.keys
		if n/blockKeys == len(t.blocks) {
			t.blocks = append(t.blocks, new([blockKeys]slot))
		}
		t.at(n).id = *id
		t.index[place] = tagOf(id) | uint32(n+1)
		t.keys++
	}
	t.at(n).entry = e
}

// grow doubles the index.
func (t *table) grow() {
	t.index = make([]uint32, max(indexMin, 2*len(t.index)))
	mask := uint32(len(t.index) - 1)
	for n := range t.keys {
		id := &t.at(n).id
		place := placeOf(id) & mask
		for t.index[place] != 0 {
			place = (place + 1) & mask
		}
		t.index[place] = tagOf(id) | uint32(n+1)
	}
}

// drop removes the key. The last key takes its slot, and the index closes the
// gap, so that nothing is left of it.
func (t *table) drop(id *ReceiptID) {
	if t.keys == 0 {
		return
	}
	gap, n := t.find(id)
	if n < 0 {
		return
	}
	last := t.keys - 1
	if n != last {
		place, _ := t.find(&t.at(last).id)
		*t.at(n) = *t.at(last)
		t.index[place] = tagOf(&t.at(n).id) | uint32(n+1)
	}
	*t.at(last) = slot{}
	t.keys--
	mask := uint32(len(t.index) - 1)
	for place := (gap + 1) & mask; t.index[place] != 0; place = (place + 1) & mask {
		// A key may move into the gap unless its own place lies behind it.
		home := placeOf(&t.at(int(t.index[place]&numberMax)-1).id) & mask
		if (place-home)&mask >= (place-gap)&mask {
			t.index[gap] = t.index[place]
			gap = place
		}
	}
	t.index[gap] = 0
}
