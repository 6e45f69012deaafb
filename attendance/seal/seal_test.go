package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"
)

func testKey() (*Key, ed25519.PublicKey) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	return NewKey(private), private.Public().(ed25519.PublicKey)
}

func treeOf(n int) *Tree {
	t := new(Tree)
	for i := range n {
		t.Add(fmt.Appendf(nil, "record %d", i))
	}
	return t
}

// naive is RFC 9162 section 2.1.1 as it is written there.
func naive(records [][]byte) Hash {
	if len(records) == 1 {
		return sha256.Sum256(append([]byte{0}, records[0]...))
	}
	k := 1
	for 2*k < len(records) {
		k *= 2
	}
	left, right := naive(records[:k]), naive(records[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

func TestTheRootIsThatOfTheStandard(t *testing.T) {
	for n := 1; n <= 70; n++ {
		var records [][]byte
		for i := range n {
			records = append(records, fmt.Appendf(nil, "record %d", i))
		}
		if got, want := treeOf(n).Root(), naive(records); got != want {
			t.Errorf("root of %d leaves: got %x, want %x", n, got, want)
		}
	}
	// The third test vector of Certificate Transparency: "", 00, 10.
	var ct Tree
	for _, r := range [][]byte{{}, {0}, {0x10}} {
		ct.Add(r)
	}
	const want = "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
	if root := ct.Root(); hex.EncodeToString(root[:]) != want {
		t.Errorf("root of the known leaves: got %x, want %s", root, want)
	}
}

func TestEachRecordIsProvedByItsOwnPathOnly(t *testing.T) {
	key, public := testKey()
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 31, 64, 65, 100} {
		tree := treeOf(n)
		s := key.Seal(tree)
		for i := range n {
			record, path := fmt.Appendf(nil, "record %d", i), tree.Path(i)
			if !s.Verify(public, record, uint64(i), path) {
				t.Fatalf("record %d of %d is not proved by its path of %d", i, n, len(path))
			}
			for what, refused := range map[string]bool{
				"another record":   s.Verify(public, append(record, '!'), uint64(i), path),
				"another place":    n > 1 && s.Verify(public, record, uint64(i^1)%uint64(n), path),
				"a place beyond":   s.Verify(public, record, uint64(i+n), path),
				"a longer path":    s.Verify(public, record, uint64(i), append(path[:len(path):len(path)], Hash{})),
				"a shorter path":   n > 1 && s.Verify(public, record, uint64(i), path[:len(path)-1]),
				"another key":      s.Verify(ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey), record, uint64(i), path),
				"no key":           s.Verify(nil, record, uint64(i), path),
				"a path too long":  s.Verify(public, record, uint64(i), make([]Hash, PathMax+1)),
				"the root as leaf": n > 1 && s.Verify(public, s.Root[:], uint64(i), nil),
			} {
				if refused {
					t.Errorf("record %d of %d: %s is taken for proof", i, n, what)
				}
			}
		}
	}
}

func TestASealThatWasTouchedIsNotGenuine(t *testing.T) {
	key, public := testKey()
	good := key.Seal(treeOf(5))
	if !good.Genuine(public) {
		t.Fatal("a fresh seal is not genuine")
	}
	for what, touch := range map[string]func(*Seal){
		"leaves":    func(s *Seal) { s.Leaves++ },
		"no leaves": func(s *Seal) { s.Leaves = 0 },
		"root":      func(s *Seal) { s.Root[3] ^= 1 },
		"signature": func(s *Seal) { s.Signature[60] ^= 1 },
	} {
		s := good
		touch(&s)
		if s.Genuine(public) {
			t.Errorf("%s: a touched seal is genuine", what)
		}
	}
}

// These bytes are checked elsewhere, for ever.
func TestSealBytesNeverChange(t *testing.T) {
	key, _ := testKey()
	s := key.Seal(treeOf(3))
	got := fmt.Sprintf("%s %x %x", key.ID, s.Root, s.Signature[:8])
	const want = "fe812c12f3ab4ce6 11139f0ae3789cb227ab8c3e57d66e8925e3adb96c24d57311832150d6ac905b f5a0d4baa350e8fa"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if id, err := ParseKeyID(key.ID.String()); err != nil || id != key.ID {
		t.Errorf("ParseKeyID: got %v %v", id, err)
	}
	for _, bad := range []string{"", "0", "bff54b7e62a2e3eg"} {
		if _, err := ParseKeyID(bad); err == nil {
			t.Errorf("ParseKeyID(%q): got no error", bad)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", key, key, key); bytes.Contains([]byte(text), []byte("7 7 7")) || text[:4] != "key " {
		t.Errorf("a key shows itself: %s", text)
	}
}

func TestSealingAllocatesOnlyTheSignature(t *testing.T) {
	key, _ := testKey()
	tree, record := treeOf(1000), make([]byte, 150)
	n := testing.AllocsPerRun(20, func() {
		tree.Reset()
		for range 1000 {
			tree.Add(record)
		}
		key.Seal(tree)
	})
	if n > 10 {
		t.Errorf("sealing 1,000 records allocates %v times, want those of one signature", n)
	}
}

func BenchmarkSeal(b *testing.B) {
	key, _ := testKey()
	for _, n := range []int{1, 30, 1000} {
		b.Run(fmt.Sprintf("%d records of 130 B", n), func(b *testing.B) {
			tree, record := new(Tree), make([]byte, 130)
			for b.Loop() {
				tree.Reset()
				for range n {
					tree.Add(record)
				}
				key.Seal(tree)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
		})
	}
}
