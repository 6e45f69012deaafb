package wal

import (
	"io/fs"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
)

// school is a journal in use whose readers can be held up before each of
// their file calls.
type school struct {
	mem    *memFS // what the running log writes to
	ledger *ledger
	log    *Log
	calls  int
	before func(call int, path string) error // ahead of each file call of a reader; nil: nothing
}

func openSchool(t *testing.T) *school {
	s := &school{mem: newMemFS(), ledger: newLedger()}
	s.open(t)
	return s
}

func (s *school) open(t *testing.T) {
	t.Helper()
	opt := small
	opt.FS = s.mem
	var err error
	if s.log, err = Open(opt); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func (s *school) append(t *testing.T, times int) {
	t.Helper()
	for range times {
		s.ledger.mustAppend(t, s.log, 5)
	}
}

// kill ends the log as kill -9 in the middle of a write does.
func (s *school) kill(t *testing.T) {
	path, off := s.log.Health().Segment, s.log.off
	s.mem.fail(func(op, _ string) (bool, error) { return op == "write", errDisk })
	s.ledger.append(s.log, 5, 600)
	s.mem.fail(func(string, string) (bool, error) { return false, errDisk })
	s.log.Close()
	s.mem.mu.Lock()
	clear(s.mem.seen[path].seen[off+1600:])
	s.mem.mu.Unlock()
	s.mem = s.mem.clone()
}

func (s *school) held(path string) error {
	s.calls++
	if s.before == nil {
		return nil
	}
	return s.before(s.calls, path)
}

// view is the file system as a reader of the school has it.
type view struct {
	FS
	s *school
}

func (v view) List(dir string) ([]string, error) {
	if err := v.s.held(dir); err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return v.s.mem.List(dir)
}

func (v view) Open(path string, write bool) (File, error) {
	if err := v.s.held(path); err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f, err := v.s.mem.Open(path, write)
	return viewFile{f, v.s, path}, err
}

type viewFile struct {
	File
	s    *school
	path string
}

func (f viewFile) ReadAt(p []byte, off int64) (int, error) {
	f.s.held(f.path)
	return f.File.ReadAt(p, off)
}

// follower polls a journal and holds what it gets against the ledger.
type follower struct {
	r      *Reader
	ledger *ledger
	next   uint64
}

func (s *school) follow(t *testing.T) *follower {
	t.Helper()
	r, err := OpenReaderFS(view{s: s}, small.Dir, small.Spare)
	if err != nil {
		t.Fatal(err)
	}
	return &follower{r: r, ledger: s.ledger, next: 1}
}

// ackedFrom lists, in order, the numbers acknowledged and not removed from next on.
func (g *ledger) ackedFrom(next uint64) []uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(func(yield func(uint64) bool) {
		for seq := range maps.Keys(g.acked) {
			if seq >= next && !yield(seq) {
				return
			}
		}
	})
}

// poll reads at most n records, and, when there are fewer, at least all that
// were acknowledged before.
func (f *follower) poll(t *testing.T, n int) error {
	t.Helper()
	promised := f.ledger.ackedFrom(f.next)
	for rec, err := range f.r.Records(f.next) {
		if err != nil {
			return err
		}
		if rec.Seq < f.next {
			t.Fatalf("got record %d again, want %d or higher", rec.Seq, f.next)
		}
		f.skip(t, rec.Seq, f.ledger.ackedFrom(f.next))
		f.ledger.mu.Lock()
		want, acked := f.ledger.acked[rec.Seq]
		tried := f.ledger.tried[string(rec.Data)]
		f.ledger.mu.Unlock()
		if acked && want != string(rec.Data) || !tried {
			t.Fatalf("record %d: got %.20q, want %.20q", rec.Seq, rec.Data, want)
		}
		f.next = rec.Seq + 1
		if n--; n == 0 {
			return nil
		}
	}
	if len(promised) > 0 {
		f.skip(t, promised[len(promised)-1]+1, promised)
	}
	return nil
}

// skip fails if one of the acknowledged records below seq was not read, unless
// it was removed since.
func (f *follower) skip(t *testing.T, seq uint64, acked []uint64) {
	t.Helper()
	still := f.ledger.ackedFrom(f.next)
	for _, a := range acked {
		if _, ok := slices.BinarySearch(still, a); ok && a >= f.next && a < seq {
			t.Fatalf("record %d was acknowledged and passed over, behind %d, before %d; damage %v", a, f.next-1, seq, f.r.Damage())
		}
	}
}

func (f *follower) noAlarm(t *testing.T) {
	t.Helper()
	for _, d := range f.r.Damage() {
		if d.Alarm() {
			t.Errorf("damage reported beside a healthy writer: %v", d)
		}
	}
	f.r.Close()
}
