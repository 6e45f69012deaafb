package wal

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// deeds are what a writer can do between two file calls of a reader.
var deeds = []struct {
	name string
	do   func(t *testing.T, s *school)
}{
	{"one Append", func(t *testing.T, s *school) { s.append(t, 1) }},
	{"the next segment", func(t *testing.T, s *school) { s.append(t, 4) }},
	{"three segments", func(t *testing.T, s *school) { s.append(t, 12) }},
	{"a failed Append, and life on the spare", func(t *testing.T, s *school) {
		s.append(t, 1)
		s.mem.fail(func(op, path string) (bool, error) {
			return op == "write", map[bool]error{true: errDisk}[path == small.Dir || within(path, small.Dir)]
		})
		if err := s.ledger.append(s.log, 5, 600); !errors.Is(err, ErrDown) {
			t.Fatalf("Append on a broken disk: got %v, want ErrDown", err)
		}
		synctest.Wait()
		s.append(t, 6)
		s.mem.fail(nil)
		s.append(t, 6)
		if used := filepath.Dir(s.log.Health().Segment); used != small.Dir {
			t.Fatalf("records go to %s, want %s again", used, small.Dir)
		}
	}},
	{"all but the last segments removed", func(t *testing.T, s *school) {
		s.append(t, 9)
		s.ledger.removeBefore(s.log, s.log.Next())
		s.append(t, 2)
	}},
	{"the oldest segment removed", func(t *testing.T, s *school) {
		s.append(t, 9)
		s.ledger.removeBefore(s.log, s.ledger.lowest()+20)
	}},
	{"an orderly end and a start", func(t *testing.T, s *school) {
		s.append(t, 2)
		s.log.Close()
		s.open(t)
		s.append(t, 5)
	}},
	{"kill -9 and a start", func(t *testing.T, s *school) {
		s.append(t, 2)
		s.kill(t)
		s.open(t)
		s.append(t, 5)
	}},
	{"kill -9, a start, everything removed", func(t *testing.T, s *school) {
		s.append(t, 2)
		s.kill(t)
		s.open(t)
		s.append(t, 8)
		s.ledger.removeBefore(s.log, s.log.Next())
		s.append(t, 1)
	}},
}

// TestAReaderNeverMistakesTimingForDamage lets the writer do each deed ahead of
// each file call a reader makes, wherever the reader is.
func TestAReaderNeverMistakesTimingForDamage(t *testing.T) {
	for _, deed := range deeds {
		for _, place := range []struct {
			name string
			read int // records read before; 0: the reader is opened during the deed
		}{{"fresh", 0}, {"in the middle of the first segment", 7}, {"in the middle of the second", 22}, {"at the end", 1000}} {
			t.Run(deed.name+", reader "+place.name, func(t *testing.T) {
				for n, ran := 1, true; ran && !t.Failed(); n += stride {
					synctest.Test(t, func(t *testing.T) { ran = interleave(t, n, place.read, deed.do) })
					if t.Failed() {
						t.Logf("done ahead of the reader's file call %d", n)
					}
				}
			})
		}
	}
}

func interleave(t *testing.T, n, read int, deed func(*testing.T, *school)) (ran bool) {
	s := openSchool(t)
	defer func() { s.log.Close() }()
	s.append(t, 6)
	var f *follower
	other := s.follow(t)
	other.poll(t, 3)
	if read > 0 {
		f = s.follow(t)
		f.poll(t, read)
	}
	from := s.calls
	s.before = func(call int, _ string) error {
		if call == from+n {
			ran, s.before = true, nil
			deed(t, s)
			if err := other.poll(t, 3); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	if f == nil {
		f = s.follow(t)
	}
	for range 2 { // the second time without a deed
		if err := f.poll(t, 10_000); err != nil {
			t.Errorf("reading: %v", err)
		}
		s.before = nil
		other.poll(t, 10_000)
		s.append(t, 1)
	}
	f.poll(t, 10_000)
	f.noAlarm(t)
	other.noAlarm(t)
	return ran
}

func TestInspectNeverMistakesTimingForDamage(t *testing.T) {
	for _, deed := range deeds {
		t.Run(deed.name, func(t *testing.T) {
			for n, ran := 1, true; ran && !t.Failed(); n++ {
				synctest.Test(t, func(t *testing.T) {
					s := openSchool(t)
					defer func() { s.log.Close() }()
					s.append(t, 6)
					ran = false
					s.before = func(call int, _ string) error {
						if call == n {
							ran, s.before = true, nil
							deed.do(t, s)
						}
						return nil
					}
					rep, err := InspectFS(view{s: s}, small.Dir, small.Spare)
					if err != nil {
						t.Fatal(err)
					}
					for _, d := range rep.Damages {
						if d.Alarm() {
							t.Errorf("done ahead of file call %d: got %v, want no alarm", n, d)
						}
					}
				})
			}
		})
	}
}

// TestAHalfWrittenAppendIsNoDamage shows a reader an Append cut off anywhere,
// which is completed, and followed by the next segments, ahead of any of the
// reader's file calls.
func TestAHalfWrittenAppendIsNoDamage(t *testing.T) {
	const record = frameBytes + 600
	for _, cut := range []int64{3, frameBytes, 300, record - 1, record, record + 5, 4*record + 100, 5*record - 1} {
		for n, ran := 1, true; ran && !t.Failed(); n++ {
			synctest.Test(t, func(t *testing.T) { ran = completeAt(t, n, cut) })
			if t.Failed() {
				t.Logf("cut at byte %d, completed ahead of file call %d", cut, n)
			}
		}
	}
}

func completeAt(t *testing.T, n int, cut int64) (ran bool) {
	s := openSchool(t)
	defer func() { s.log.Close() }()
	s.append(t, 1)
	f := s.follow(t)
	f.poll(t, 10_000)
	path, off, before := s.log.Health().Segment, s.log.off, s.ledger.copy().acked
	s.append(t, 1)
	s.mem.mu.Lock()
	p := s.mem.seen[path].seen[off+cut : s.log.off]
	hidden := slices.Clone(p)
	clear(p)
	s.mem.mu.Unlock()
	acked := s.ledger.acked
	s.ledger.acked = before
	from := s.calls
	s.before = func(call int, _ string) error {
		if call == from+n {
			ran, s.before = true, nil
			s.mem.mu.Lock()
			copy(p, hidden)
			s.mem.mu.Unlock()
			s.ledger.acked = acked
			s.append(t, 5)
		}
		return nil
	}
	f.poll(t, 10_000)
	rep, err := InspectFS(view{s: s}, small.Dir, small.Spare)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Missing) > 0 {
		t.Errorf("inspect: got missing %v, want none", rep.Missing)
	}
	if ran {
		f.poll(t, 10_000)
	}
	f.noAlarm(t)
	return ran
}

// What cannot be opened because the process has too many files open is there
// all the same: the reader says so, and goes on where it was.
func TestTooManyOpenFilesPassNothingOver(t *testing.T) {
	for n, ran := 1, true; ran && !t.Failed(); n++ {
		synctest.Test(t, func(t *testing.T) {
			ran = false
			s := openSchool(t)
			defer func() { s.log.Close() }()
			s.append(t, 2)
			f := s.follow(t)
			f.poll(t, 7)
			s.append(t, 9)
			from := s.calls
			s.before = func(call int, _ string) error {
				if call < from+n || call >= from+n+3 {
					return nil
				}
				ran = true
				return syscall.EMFILE
			}
			for range 4 {
				if err := f.poll(t, 10_000); err != nil && !errors.Is(err, syscall.EMFILE) {
					t.Errorf("got %v, want that too many files are open", err)
				}
			}
			s.before = nil
			if err := f.poll(t, 10_000); err != nil {
				t.Error(err)
			}
			f.noAlarm(t)
			if t.Failed() {
				t.Logf("from file call %d on", n)
			}
		})
	}
}

func TestOneFileThatCannotBeOpenedForAMomentIsNotPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openSchool(t)
		defer func() { s.log.Close() }()
		s.append(t, 2)
		f := s.follow(t)
		f.poll(t, 7)
		s.append(t, 12)
		rep, err := InspectFS(s.mem, small.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, seg := range rep.Segments[1:4] {
			s.before = func(_ int, path string) error {
				return map[bool]error{true: syscall.EMFILE}[path == seg.Path]
			}
			if err := f.poll(t, 10_000); !errors.Is(err, syscall.EMFILE) {
				t.Errorf("%s: got %v, want that too many files are open", seg.Path, err)
			}
		}
		s.before = nil
		if err := f.poll(t, 10_000); err != nil {
			t.Error(err)
		}
		f.noAlarm(t)
	})
}

func TestADirectoryThatCannotBeListedForAMomentLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openSchool(t)
		defer func() { s.log.Close() }()
		s.append(t, 6)
		f := s.follow(t)
		f.poll(t, 7)
		s.mem.fail(func(op, path string) (bool, error) {
			return false, map[bool]error{true: errDisk}[path == small.Dir || within(path, small.Dir)]
		})
		s.ledger.append(s.log, 5, 600)
		synctest.Wait()
		s.append(t, 2) // on the spare
		f.poll(t, 1)
		s.before = func(_ int, path string) error { return map[bool]error{true: errDisk}[path == small.Dir] }
		if err := f.poll(t, 10_000); err != nil {
			t.Error(err)
		}
		f.noAlarm(t)
	})
}

// An Append that failed is read by nobody once the log went on, also by a
// reader whose segment was removed with everything that told its end.
func TestAnUnknownTailIsNotReadFromARemovedSegment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openSchool(t)
		defer func() { s.log.Close() }()
		s.append(t, 2)
		f := s.follow(t)
		f.poll(t, 7)
		s.mem.fail(func(op, _ string) (bool, error) { return true, errDisk })
		s.ledger.append(s.log, 5, 600)
		s.mem.fail(nil)
		time.Sleep(2 * ReviveEvery)
		s.append(t, 8)
		s.ledger.removeBefore(s.log, s.log.Next()-10)
		for rec, err := range f.r.Records(f.next) {
			if _, ok := s.ledger.acked[rec.Seq]; !ok {
				t.Errorf("got record %d, %v, which was not acknowledged", rec.Seq, err)
			}
		}
		f.noAlarm(t)
	})
}

// Who stops at Next reads no failed Append, before the log lives again or after.
func TestNextKeepsReadersFromAFailedAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openSchool(t)
		defer func() { s.log.Close() }()
		s.append(t, 2)
		f := s.follow(t)
		s.mem.fail(func(op, _ string) (bool, error) { return true, errDisk })
		s.ledger.append(s.log, 5, 600)
		for range 2 {
			end := s.log.Next()
			for rec := range f.r.Records(1) {
				if _, ok := s.ledger.acked[rec.Seq]; !ok && rec.Seq < end {
					t.Errorf("log %v: record %d was not acknowledged, and Next is %d", s.log.Health().State, rec.Seq, end)
				}
			}
			s.mem.fail(nil)
			time.Sleep(2 * ReviveEvery)
			s.append(t, 1)
		}
	})
}

// A reader that saw zeros at the end looks behind them once the end is known.
func TestWhatLiesBehindDamageIsReadBesideAWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openSchool(t)
		defer func() { s.log.Close() }()
		s.append(t, 1)
		f := s.follow(t)
		f.poll(t, 10_000)
		f.poll(t, 10_000)
		path, off, next := s.log.Health().Segment, s.log.off, s.log.Next()
		s.append(t, 4)
		s.mem.mu.Lock()
		clear(s.mem.seen[path].seen[off : off+frameBytes])
		s.mem.mu.Unlock()
		for range f.r.Records(f.next) {
		}
		want := []Range{{next, next}}
		if got := f.r.Missing(); !slices.Equal(got, want) {
			t.Errorf("missing: got %v, want %v", got, want)
		}
	})
}

// What is really missing in between is told also when it went while a reader
// was looking.
func TestASegmentRemovedByHandUnderAReaderIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openSchool(t)
		defer func() { s.log.Close() }()
		s.append(t, 12)
		f := s.follow(t)
		f.poll(t, 7)
		rep, err := InspectFS(s.mem, small.Dir)
		if err != nil {
			t.Fatal(err)
		}
		gone := rep.Segments[1]
		s.mem.mu.Lock()
		delete(s.mem.seen, gone.Path)
		s.mem.mu.Unlock()
		for range f.r.Records(f.next) {
		}
		want := []Range{{gone.First, gone.Last}}
		if got := f.r.Missing(); !slices.Equal(got, want) {
			t.Errorf("missing: got %v, want %v", got, want)
		}
	})
}

// TestReadersBesideAWriterOnDisk is the same without a script: a real disk,
// segments as small as they may be, one reader in haste and one that comes
// every now and then.
func TestReadersBesideAWriterOnDisk(t *testing.T) {
	for round := range 4 {
		dir, g := t.TempDir(), newLedger()
		l, err := Open(Options{Dir: dir, SegmentBytes: segmentBytesMin})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		var readers sync.WaitGroup
		for _, every := range []uint64{1, uint64(40 + 60*round)} {
			readers.Go(func() { followOnDisk(t, dir, g, l, every, done) })
		}
		for i := range 300 {
			if err := g.append(l, 1+i%9, 120); err != nil {
				t.Error(err)
				break
			}
		}
		close(done)
		readers.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// followOnDisk polls whenever there are so many records more, and once at the end.
func followOnDisk(t *testing.T, dir string, g *ledger, l *Log, every uint64, done chan struct{}) {
	r, err := OpenReader(dir)
	if err != nil {
		t.Error(err)
		return
	}
	next, polled := uint64(1), uint64(0)
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		end := l.Next()
		if running && end < polled+every {
			continue
		}
		polled = end
		for rec, err := range r.Records(next) {
			if err != nil || rec.Seq != next {
				t.Errorf("got record %d, %v, want %d; damage %v", rec.Seq, err, next, r.Damage())
				return
			}
			next++
		}
		if next < end {
			t.Errorf("read up to %d, the log was at %d before", next, end)
		}
	}
	if d := r.Damage(); len(d) > 0 {
		t.Errorf("damage beside a healthy writer: %v", d)
	}
	r.Close()
}

func TestAReaderFollowsAKilledWriterOnDisk(t *testing.T) {
	dir, acked := t.TempDir(), map[uint64]string{}
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, done, last := map[uint64]string{}, make(chan struct{}), uint64(0)
	poll := func() {
		for rec, err := range r.Records(last + 1) {
			if err != nil || rec.Seq <= last {
				t.Errorf("got record %d, %v, behind %d", rec.Seq, err, last)
				return
			}
			last = rec.Seq
			got[rec.Seq] = string(rec.Data)
		}
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-done:
				poll()
				return
			default:
				poll()
			}
		}
	})
	for round := range 4 {
		maps.Copy(acked, runAndKill(t, dir, 40+80*round))
	}
	close(done)
	reader.Wait()
	for seq, want := range acked {
		if got[seq] != want {
			t.Errorf("record %d: got %q, want %q", seq, got[seq], want)
		}
	}
	if m := r.Missing(); len(m) > 0 {
		t.Errorf("kills were taken for damage: %v", r.Damage())
	}
	r.Close()
}
