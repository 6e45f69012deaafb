package wal

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
)

// ledger remembers what was tried and what was acknowledged, and holds a
// journal against it.
type ledger struct {
	mu    sync.Mutex
	tried map[string]bool
	acked map[uint64]string
	count int
}

func newLedger() *ledger {
	return &ledger{tried: map[string]bool{}, acked: map[uint64]string{}}
}

// records makes n records of about size bytes that no other call makes.
func (g *ledger) records(n, size int) [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	var b [][]byte
	for range n {
		g.count++
		r := fmt.Appendf(nil, "record %d ", g.count)
		for len(r) < size {
			r = append(r, byte('a'+len(r)%26))
		}
		g.tried[string(r)] = true
		b = append(b, r)
	}
	return b
}

// append appends n records and notes what became of them.
func (g *ledger) append(l *Log, n, size int) error {
	recs := g.records(n, size)
	first, err := l.Append(recs)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, r := range recs {
		g.acked[first+uint64(i)] = string(r)
	}
	return nil
}

// copy is the ledger as of now, to go on with apart.
func (g *ledger) copy() *ledger {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &ledger{tried: maps.Clone(g.tried), acked: maps.Clone(g.acked), count: g.count + 1_000_000}
}

// check reads the journal as it lies and compares. It returns what it found.
func (g *ledger) check(t *testing.T, fs FS, dirs ...string) (map[uint64]string, *Reader) {
	t.Helper()
	r, err := OpenReaderFS(fs, dirs...)
	if err != nil {
		if len(g.acked) == 0 && errors.Is(err, errNoJournal) {
			return nil, nil
		}
		t.Fatalf("opening the reader: %v", err)
	}
	defer r.Close()
	got := readAll(t, r)
	g.compare(t, got)
	return got, r
}

func (g *ledger) compare(t *testing.T, got map[uint64]string) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for seq, want := range g.acked {
		if rec, ok := got[seq]; !ok {
			t.Errorf("record %d was acknowledged and is lost (%.20q)", seq, want)
		} else if rec != want {
			t.Errorf("record %d: got %.20q, acknowledged was %.20q", seq, rec, want)
		}
	}
	for seq, rec := range got {
		if !g.tried[rec] {
			t.Errorf("record %d is invented: %.40q", seq, rec)
		}
	}
}

// survives opens the journal as after a crash, checks it, goes on appending,
// and checks again. visible is what a reader could see before the crash, synced
// or not. Nobody writes to fs but survives.
func (g *ledger) survives(t *testing.T, fs FS, opt Options, visible map[uint64]string) {
	t.Helper()
	before, _ := g.check(t, fs, opt.Dir, opt.Spare)
	opt.FS = fs
	l, err := Open(opt)
	if err != nil {
		t.Fatalf("opening after a crash: %v", err)
	}
	after, _ := g.check(t, fs, opt.Dir, opt.Spare)
	for seq := range before {
		if seq >= l.Next() {
			t.Errorf("number %d was seen before the start and will be given out again (next is %d)", seq, l.Next())
		}
		if after[seq] != before[seq] {
			t.Errorf("record %d was there before the start and is gone", seq)
		}
	}
	for seq := range visible {
		if seq >= l.Next() {
			t.Errorf("number %d was seen before the crash and will be given out again (next is %d)", seq, l.Next())
		}
	}
	for _, d := range l.Damage() {
		if d.Alarm() {
			t.Errorf("a crash was taken for damage: %v", d)
		}
	}
	for range 3 {
		if err := g.append(l, 4, 300); err != nil {
			t.Fatalf("appending after a crash: %v", err)
		}
	}
	g.check(t, fs, opt.Dir, opt.Spare)
	if err := l.Close(); err != nil {
		t.Fatalf("closing: %v", err)
	}
	_, r := g.check(t, fs, opt.Dir, opt.Spare)
	if r != nil && len(r.Missing()) > 0 {
		t.Errorf("missing after recovery: %v", r.Damage())
	}
}
