package wal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"reflect"
	"testing"
	"time"
)

// resum gives a header its checksum anew.
func resum(p []byte) {
	binary.LittleEndian.PutUint32(p[headerBytes-4:], crc32.Checksum(p[:headerBytes-4], castagnoli))
}

// TestBytesOnDiskStayAsTheyAre pins format version 1. If it fails, the change
// needs a new version number, and this program still has to read version 1.
func TestBytesOnDiskStayAsTheyAre(t *testing.T) {
	h := header{number: 17, id: 0x1122334455667788, created: time.Unix(1767225600, 5), bytes: 64 << 20, host: "bell-1"}
	p := h.encode()
	wantHead := "89464257414c0d0a" + "01000000" + "00100000" + "1100000000000000" + "8877665544332211" +
		"0500faed51728618" + "0000000400000000" + "0600" + hex.EncodeToString([]byte("bell-1"))
	if got := hex.EncodeToString(p[:56]); got != wantHead {
		t.Errorf("header: got %s, want %s", got, wantHead)
	}
	if got := hex.EncodeToString(p[headerBytes-4:]); got != goldenHeaderSum {
		t.Errorf("checksum of the header: got %s, want %s", got, goldenHeaderSum)
	}
	back, err := decodeHeader(p)
	if err != nil || !back.created.Equal(h.created) {
		t.Errorf("header read back: got %+v, %v, want %+v", back, err, h)
	}

	f := appendFrame(nil, h.id, seed(h.id), kindRecord, 0x0102030405, 7, []byte("here"))
	if got := hex.EncodeToString(f); got != goldenFrame {
		t.Errorf("frame: got %s, want %s", got, goldenFrame)
	}
	l := link{why: whyRevived, base: 9, ends: []segmentEnd{{16, 0xaabb, 4711, 8, endAcknowledged | endUnknown}}}
	if got := hex.EncodeToString(l.encode()); got != goldenLink {
		t.Errorf("link: got %s, want %s", got, goldenLink)
	}
	again, ok := decodeLink(&frame{kind: kindLink, seq: 9, data: l.encode()})
	if !ok || !reflect.DeepEqual(*again, l) {
		t.Errorf("link read back: got %+v, want %+v", again, l)
	}
	if got, want := segmentName(17, h.id), "0000000017-1122334455667788.wal"; got != want {
		t.Errorf("name: got %s, want %s", got, want)
	}
}

const (
	goldenHeaderSum = "0abbeaae"
	goldenFrame     = "1f6250c1040000020504030201000000887766550700000068657265"
	goldenLink      = "03000000010000001000000000000000bbaa000000000000671200000000000008000000000000000500000000000000"
)

func TestNamesOfSegments(t *testing.T) {
	for _, c := range []struct {
		path string
		ok   bool
	}{
		{"/a/0000000017-1122334455667788.wal", true},
		{"12345678901-1122334455667788.wal", true},
		{"17-1122334455667788.wal", false},
		{"0000000017-1122334400000000.wal", false}, // its frames would look like zeros
		{"0000000017-112233445566778.wal", false},
		{"0000000017-1122334455667788.wal.new", false},
		{"0000000017-1122334455667788.wal.4096.damaged", false},
		{"lock", false},
	} {
		if _, _, ok := parseName(c.path); ok != c.ok {
			t.Errorf("%s: taken for a segment: %v, want %v", c.path, ok, c.ok)
		}
	}
}

// FuzzSegment reads whatever lies in a segment file: it must come to an end,
// yield no frame that does not check, and repeat itself.
func FuzzSegment(f *testing.F) {
	const id = 0x1122334455667788
	good := (&header{number: 1, id: id, created: time.Unix(1, 0), bytes: segmentBytesMin, host: "h"}).encode()
	good = appendFrame(good, id, seed(id), kindLink, 1, 0, (&link{why: whyOpened}).encode())
	for i := range 5 {
		good = appendFrame(good, id, seed(id), kindRecord, uint64(1+i), uint32(i%2), bytes.Repeat([]byte{byte(i)}, 40*i))
	}
	f.Add(good)
	f.Add(appendFrame(bytes.Clone(good), id, seed(id), kindEnd, 6, 0, nil))
	f.Add(append(bytes.Clone(good), make([]byte, 5000)...))
	f.Add(append(bytes.Clone(good), 1, 2, 3))
	f.Add(good[:headerBytes+10])
	f.Add(make([]byte, 10_000))
	f.Add([]byte{})
	hole := bytes.Clone(good)
	clear(hole[headerBytes+50 : headerBytes+200])
	f.Add(hole)
	f.Fuzz(func(t *testing.T, p []byte) {
		once, twice := readBytes(t, p), readBytes(t, p)
		if !reflect.DeepEqual(once, twice) {
			t.Errorf("read twice: got %v, then %v", once, twice)
		}
		last := uint64(0)
		for _, seq := range once {
			if seq <= last {
				t.Errorf("record %d behind record %d", seq, last)
			}
			last = seq
		}
	})
}

func readBytes(t *testing.T, p []byte) []uint64 {
	m := newMemFS()
	m.MkdirAll("d")
	n := &memNode{seen: p}
	m.seen["d/0000000001-1122334455667788.wal"] = n
	r, err := OpenReaderFS(m, "d")
	if err != nil {
		return nil
	}
	defer r.Close()
	var seqs []uint64
	for rec, err := range r.Records(0) {
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, rec.Seq)
	}
	for range DumpFS(m, "d/0000000001-1122334455667788.wal") {
	}
	if _, err := InspectFS(m, "d"); err != nil {
		t.Fatal(err)
	}
	return seqs
}
