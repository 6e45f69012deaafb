package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"
)

// BlockBytes is the size of a block, but for the last of a record.
const BlockBytes = 256 << 10

const (
	magic         = "fbcache1"
	preambleBytes = 64
	slotFixed     = 24
	digestBytes   = 16
	frontAlign    = 512

	// A head is the fields of a response and a key: proxies bound each to some
	// kilobytes. What is larger is not stored.
	slotBytesMax = 1 << 20
	frontMax     = preambleBytes + 2*slotBytesMax + frontAlign

	// slotRoom is left for a head that grows when it is updated.
	slotRoom = 256

	// A content has at most so many blocks: 16 TiB.
	blocksMax = 1 << 26

	unitBytes = 4096 // what file systems give room in
)

// Reasons why a file is no answer. They are counted apart.
var (
	errTorn    = errors.New("it ends too soon")
	errDamaged = errors.New("its bytes are not those that were written")
	errForeign = errors.New("it is not the record that its name says")
)

// Meta is what a record says beside its content.
type Meta struct {
	Key     []byte // what it is found by
	Host    string // whose it is
	Variant []byte // tells apart what has the same key
	Head    []byte // the caller's own
}

type digest [digestBytes]byte

func digestOf(b []byte) (d digest) {
	sum := xxh3.Hash128(b)
	binary.LittleEndian.PutUint64(d[:8], sum.Lo)
	binary.LittleEndian.PutUint64(d[8:], sum.Hi)
	return d
}

// VariantHash is the digest by which Ref tells variants apart.
func VariantHash(variant []byte) uint32 { return uint32(xxh3.Hash(variant)) }

// front is a record's preamble and the slot that counts.
type front struct {
	content int64 // where it begins
	slot    int64 // size of a slot
	length  int64
	seq     uint64
	table   digest
	own     digest

	generation uint32
	at         int // which slot
	meta       Meta
}

func (f *front) blocks() int64    { return (f.length + BlockBytes - 1) / BlockBytes }
func (f *front) fileBytes() int64 { return f.content + f.length + f.blocks()*digestBytes }

// sizes lays out the front of a record with the meta.
func sizes(m *Meta) (slot, content int64, err error) {
	used := int64(slotFixed + len(m.Key) + len(m.Host) + len(m.Variant) + len(m.Head) + digestBytes)
	slot = used + slotRoom
	if slot > slotBytesMax {
		return 0, 0, fmt.Errorf("a head of %d bytes: at most %d are kept", used, slotBytesMax-slotRoom)
	}
	content = (preambleBytes + 2*slot + frontAlign - 1) / frontAlign * frontAlign
	return slot, content, nil
}

// encodeFront writes preamble and slot 0 into b, which is as long as the
// content's offset and zero.
func (f *front) encode(b []byte) {
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], uint32(f.content))
	binary.LittleEndian.PutUint32(b[12:], uint32(f.slot))
	binary.LittleEndian.PutUint64(b[16:], uint64(f.length))
	binary.LittleEndian.PutUint64(b[24:], f.seq)
	copy(b[32:], f.table[:])
	f.own = digestOf(b[:48])
	copy(b[48:], f.own[:])
	f.encodeSlot(b[preambleBytes:][:0])
}

// encodeSlot appends the slot to b.
func (f *front) encodeSlot(b []byte) []byte {
	at, m := len(b), &f.meta
	used := slotFixed + len(m.Key) + len(m.Host) + len(m.Variant) + len(m.Head) + digestBytes
	for _, n := range [...]int{used, int(f.generation), len(m.Key), len(m.Host), len(m.Variant), len(m.Head)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	b = append(b, m.Key...)
	b = append(b, m.Host...)
	b = append(b, m.Variant...)
	b = append(b, m.Head...)
	d := f.slotDigest(b[at:])
	return append(b, d[:]...)
}

// slotDigest binds a slot to its preamble, and with it to the table.
func (f *front) slotDigest(b []byte) (d digest) {
	var h xxh3.Hasher
	_, _ = h.Write(f.own[:]) // never fails
	_, _ = h.Write(b)
	sum := h.Sum128()
	binary.LittleEndian.PutUint64(d[:8], sum.Lo)
	binary.LittleEndian.PutUint64(d[8:], sum.Hi)
	return d
}

// parsePreamble reads the first 64 bytes of a file of size bytes.
func parsePreamble(b []byte, size int64) (f front, err error) {
	if len(b) < preambleBytes {
		return f, errTorn
	}
	if string(b[:8]) != magic {
		if strings.Trim(string(b[:preambleBytes]), "\x00") == "" {
			return f, errTorn // the file system had its name, but not its bytes
		}
		return f, errForeign
	}
	f.own = digestOf(b[:48])
	if string(b[48:64]) != string(f.own[:]) {
		return f, errDamaged
	}
	f.content = int64(binary.LittleEndian.Uint32(b[8:]))
	f.slot = int64(binary.LittleEndian.Uint32(b[12:]))
	f.length = int64(binary.LittleEndian.Uint64(b[16:]))
	f.seq = binary.LittleEndian.Uint64(b[24:])
	copy(f.table[:], b[32:48])
	switch {
	case f.slot < slotFixed+digestBytes || f.slot > slotBytesMax || f.content < preambleBytes+2*f.slot || f.content > frontMax:
		return f, errDamaged
	case f.length < 0 || f.blocks() > blocksMax:
		return f, errDamaged
	case size < f.fileBytes():
		return f, errTorn
	}
	return f, nil
}

// parseSlots takes the better of the two slots in b, which holds the file up
// to its content.
func (f *front) parseSlots(b []byte) error {
	found := false
	for i := range 2 {
		at := preambleBytes + int64(i)*f.slot
		m, generation, ok := f.parseSlot(b[at : at+f.slot])
		if ok && (!found || generation > f.generation) {
			found, f.meta, f.generation, f.at = true, m, generation, i
		}
	}
	if !found {
		return errDamaged
	}
	return nil
}

func (f *front) parseSlot(b []byte) (m Meta, generation uint32, ok bool) {
	used := int64(binary.LittleEndian.Uint32(b))
	if used < slotFixed+digestBytes || used > int64(len(b)) {
		return m, 0, false
	}
	d := f.slotDigest(b[:used-digestBytes])
	if string(d[:]) != string(b[used-digestBytes:used]) {
		return m, 0, false
	}
	rest := b[slotFixed : used-digestBytes]
	cut := func(at int) []byte {
		n := min(int64(binary.LittleEndian.Uint32(b[at:])), int64(len(rest)))
		piece := rest[:n:n]
		rest = rest[n:]
		return piece
	}
	m.Key = cut(8)
	m.Host = string(cut(12))
	m.Variant, m.Head = cut(16), cut(20)
	return m, binary.LittleEndian.Uint32(b[4:]), len(rest) == 0
}

// units is how many units a file of so many bytes takes.
func units(bytes int64) uint32 { return uint32((bytes + unitBytes - 1) / unitBytes) }

// fileName is the name of a record within its directory.
func (k *slot) fileName() string {
	return fmt.Sprintf("%x-%08x-%016x-%x", k.key[:], k.variant, k.seq, k.units)
}

// parseName reads what fileName wrote.
func parseName(name string) (k slot, ok bool) {
	p := strings.Split(name, "-")
	if len(p) != 4 || len(p[0]) != 32 || len(p[1]) != 8 || len(p[2]) != 16 || len(p[3]) > 8 {
		return k, false
	}
	if _, err := hex.Decode(k.key[:], []byte(p[0])); err != nil {
		return k, false
	}
	variant, err1 := strconv.ParseUint(p[1], 16, 32)
	seq, err2 := strconv.ParseUint(p[2], 16, 64)
	n, err3 := strconv.ParseUint(p[3], 16, 32)
	if errors.Join(err1, err2, err3) != nil || n == 0 {
		return k, false
	}
	k.variant, k.seq, k.units = uint32(variant), seq, uint32(n)
	return k, k.fileName() == name
}
