package wal

import (
	"errors"
	"fmt"
	"testing"
)

func batch(from, n int) [][]byte {
	var b [][]byte
	for i := range n {
		b = append(b, fmt.Appendf(nil, "record %d of the day", from+i))
	}
	return b
}

// readAll reads a journal from the beginning.
func readAll(t *testing.T, r *Reader) map[uint64]string {
	t.Helper()
	got := map[uint64]string{}
	for rec, err := range r.Records(0) {
		if err != nil {
			t.Fatalf("reading: %v", err)
		}
		if was, ok := got[rec.Seq]; ok {
			t.Fatalf("record %d came twice: %q, then %q", rec.Seq, was, rec.Data)
		}
		got[rec.Seq] = string(rec.Data)
	}
	return got
}

func TestWhatWasAppendedIsRead(t *testing.T) {
	opt := Options{Dir: t.TempDir(), SegmentBytes: segmentBytesMin}
	want := map[uint64]string{}
	for run := range 3 {
		l, err := Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			recs := batch(run*10000+i*50, 50)
			first, err := l.Append(recs)
			if err != nil {
				t.Fatal(err)
			}
			for j, r := range recs {
				want[first+uint64(j)] = string(r)
			}
		}
		if d := l.Damage(); len(d) > 0 {
			t.Fatalf("damage in a healthy journal: %v", d)
		}
		if _, err := Open(opt); !errors.Is(err, ErrLocked) {
			t.Fatalf("second writer: got %v, want ErrLocked", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := OpenReader(opt.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := readAll(t, r)
	if len(got) != len(want) {
		t.Fatalf("got %d records, want %d", len(got), len(want))
	}
	for seq, w := range want {
		if got[seq] != w {
			t.Fatalf("record %d: got %q, want %q", seq, got[seq], w)
		}
	}
	for seq := uint64(1); seq <= 15000; seq++ {
		if _, ok := got[seq]; !ok {
			t.Fatalf("number %d was not used, although every run was closed in good order", seq)
		}
	}
	if d := r.Damage(); len(d) > 0 {
		t.Fatalf("damage: %v", d)
	}
}
