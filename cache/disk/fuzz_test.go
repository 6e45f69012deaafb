package disk

import (
	"bytes"
	"errors"
	"os"
	"testing"
)

// FuzzRecord puts any bytes where a record should be. What is read is the
// record that was written, or nothing.
func FuzzRecord(f *testing.F) {
	dir := f.TempDir()
	s := open(f, dir, Options{})
	defer closed(f, s)
	content := bytesOf(1, 600)
	ref := put(f, s, metaOf("key"), content)
	name := files(f, dir)[0]
	whole, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, 0)
	f.Add(whole[:700], 0)
	f.Add([]byte("fbcache1 and then some"), 0)
	f.Add(whole, 8)
	f.Add(whole, 12)
	f.Add(whole, 16)
	f.Add(append(bytes.Clone(whole), whole...), 70)
	k := slot{key: digestOf([]byte("key")), seq: ref.Seq, variant: ref.Variant, units: units(ref.Bytes), live: true}
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		if at > 0 && at < len(b) { // a number that leads astray, under a digest that holds
			b = bytes.Clone(b)
			b[at] ^= 0xff
			if len(b) >= preambleBytes {
				d := digestOf(b[:48])
				copy(b[48:], d[:])
			}
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		sh := &s.shards[shardOf(k.key)]
		sh.mu.Lock()
		if sh.findLocked(k.key, k.seq) < 0 {
			sh.insertLocked(k)
			s.account(&slot{units: -k.units})
		}
		sh.mu.Unlock()
		head, got, err := get(s, "key")
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		if err == nil && (head != "head of key" || !bytes.Equal(got, content)) {
			t.Errorf("got the head %q and %d bytes that nobody wrote", head, len(got))
		}
	})
}

func FuzzFileName(f *testing.F) {
	k := slot{key: digestOf([]byte("key")), seq: 1 << 60, variant: 7, units: 300}
	f.Add(k.fileName())
	f.Add("notes.txt")
	f.Add("00112233445566778899aabbccddeeff-00000000-0000000000000000-0")
	f.Fuzz(func(t *testing.T, name string) {
		if k, ok := parseName(name); ok && k.fileName() != name {
			t.Errorf("%q is read as %q", name, k.fileName())
		}
	})
}
