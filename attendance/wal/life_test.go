package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs f with a journal on a forgetful file system and false time.
func bubble(t *testing.T, change func(*Options, *memFS), f func(t *testing.T, fs *memFS, g *ledger, l *Log)) {
	synctest.Test(t, func(t *testing.T) {
		fs, g, opt := newMemFS(), newLedger(), small
		opt.FS = fs
		if change != nil {
			change(&opt, fs)
		}
		l, err := Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		f(t, fs, g, l)
		l.Close()
		g.check(t, fs, opt.Dir, opt.Spare)
	})
}

func (g *ledger) mustAppend(t *testing.T, l *Log, n int) {
	t.Helper()
	if err := g.append(l, n, 600); err != nil {
		t.Fatalf("appending %d records: %v", n, err)
	}
	synctest.Wait()
}

func TestAfterAFailedSyncTheFileIsNeverUsedAgain(t *testing.T) {
	for _, kept := range []bool{false, true} {
		t.Run(fmt.Sprintf("kept %v", kept), func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
				g.mustAppend(t, l, 3)
				broken := l.Health().Segment
				fs.fail(func(op, path string) (bool, error) { return kept, errDisk })
				if err := g.append(l, 4, 600); !errors.Is(err, ErrDown) || !errors.Is(err, syscall.EIO) {
					t.Errorf("Append on a broken disk: got %v, want ErrDown and the cause", err)
				}
				synctest.Wait()
				began := time.Now()
				if err := g.append(l, 1, 600); !errors.Is(err, ErrDown) {
					t.Errorf("Append while down: got %v, want ErrDown", err)
				}
				if d := time.Since(began); d != 0 {
					t.Errorf("Append while down took %v, want an answer at once", d)
				}
				if h := l.Health(); h.State != Down || h.Why == nil {
					t.Errorf("health: got %v, %v, want down and why", h.State, h.Why)
				}
				time.Sleep(time.Hour)
				touched := false
				fs.fail(func(op, path string) (bool, error) {
					touched = touched || op == "write" && path == broken
					return false, nil
				})
				time.Sleep(ReviveEvery)
				synctest.Wait()
				h := l.Health()
				if h.State != Opened || len(h.Amber) == 0 || h.Segment == broken {
					t.Errorf("after the disk came back: got %v in %s, amber %q; want open elsewhere, and amber", h.State, h.Segment, h.Amber)
				}
				if next := l.Next(); next != 8 {
					t.Errorf("next number: got %d, want 8, behind 3 acknowledged and 4 unknown", next)
				}
				g.mustAppend(t, l, 2)
				if touched {
					t.Error("the broken segment was written to again")
				}
				if got, _ := g.check(t, fs, small.Dir, small.Spare); len(got) != 5 {
					t.Errorf("got %d records, want the 5 acknowledged and none of the unknown tail", len(got))
				}
				rep, err := InspectFS(fs, small.Dir, small.Spare)
				if err != nil {
					t.Fatal(err)
				}
				if s := rep.Segments[0]; s.State != UnknownTail || len(rep.Missing) != 0 {
					t.Errorf("inspect: got state %q, missing %v, want an unknown tail and nothing missing", s.State, rep.Missing)
				}
				if d := l.Damage(); len(d) != 1 || d[0].Kind != Unknown || d[0].From != 4 || d[0].To != 7 {
					t.Errorf("damage: got %v, want records 4 to 7 unknown", d)
				}
			})
		})
	}
}

func TestLifeOnTheSpare(t *testing.T) {
	bubble(t, nil, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		g.mustAppend(t, l, 3)
		fs.fail(func(op, path string) (bool, error) {
			if within(path, small.Dir) || path == small.Dir {
				return false, errDisk
			}
			return false, nil
		})
		if err := g.append(l, 4, 600); !errors.Is(err, ErrDown) {
			t.Fatalf("Append on a broken disk: got %v, want ErrDown", err)
		}
		synctest.Wait()
		for range 8 { // past two segments
			g.mustAppend(t, l, 5)
		}
		if h := l.Health(); filepath.Dir(h.Segment) != small.Spare || len(h.Amber) == 0 {
			t.Errorf("records go to %s, amber %q; want the spare, and amber", h.Segment, h.Amber)
		}
		g.check(t, fs, small.Dir, small.Spare)
	})
}

func TestANumberIsNeverGivenOutTwiceWithoutTheSpare(t *testing.T) {
	bubble(t, nil, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		g.mustAppend(t, l, 3)
		high := l.Next()
		l.Close()
		opt := small
		opt.FS = fs.clone()
		m := opt.FS.(*memFS)
		for p := range m.seen { // not mounted: an empty directory in its place
			if within(p, small.Spare) {
				delete(m.seen, p)
			}
		}
		without, err := Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		defer without.Close()
		if got := without.Next(); got < high+jump {
			t.Errorf("next number: got %d, want at least %d", got, high+jump)
		}
	})
}

func TestFullIsSaidBeforeTheDiskIsFull(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options, *memFS)
	}{
		{"max", func(o *Options, fs *memFS) { o.Max = 3 * segmentBytesMin }},
		{"reserve", func(o *Options, fs *memFS) { o.Reserve = 100_000; fs.free = 100_000 + 4*segmentBytesMin }},
		{"space that cannot be set aside", func(o *Options, fs *memFS) {
			o.Reserve = 100_000
			fs.free, fs.noAlloc = 100_000+4*segmentBytesMin, true
		}},
		{"a disk that is full before it says so", func(o *Options, fs *memFS) { fs.free = 4 * segmentBytesMin }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, c.change, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
				var err error
				for range 100 {
					if err = g.append(l, 5, 600); err != nil {
						break
					}
					synctest.Wait()
				}
				if !errors.Is(err, ErrFull) {
					t.Fatalf("got %v, want ErrFull", err)
				}
				if h := l.Health(); h.State != Full || !errors.Is(h.Why, ErrFull) {
					t.Errorf("health: got %v, %v, want full", h.State, h.Why)
				}
				got, _ := g.check(t, fs, small.Dir)
				if len(got) < 20 {
					t.Errorf("full after %d records, want two segments of them at least", len(got))
				}
				if o := l.opt.Reserve; o > 0 && fs.free < o {
					t.Errorf("%d bytes are free, %d were to stay free", fs.free, o)
				}
				g.removeBefore(l, l.Next())
				if err := g.append(l, 5, 600); err != nil {
					t.Errorf("Append after room was made: %v", err)
				}
				synctest.Wait()
				if h := l.Health(); h.State != Opened {
					t.Errorf("health after room was made: %v, want open", h.State)
				}
			})
		})
	}
}

func TestTheDiskSaysFull(t *testing.T) {
	bubble(t, func(o *Options, fs *memFS) { fs.noAlloc = true }, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		g.mustAppend(t, l, 3)
		fs.fail(func(op, path string) (bool, error) {
			if op == "write" {
				return false, syscall.ENOSPC
			}
			return false, nil
		})
		if err := g.append(l, 4, 600); !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v, want ErrFull and ENOSPC", err)
		}
		time.Sleep(time.Minute)
		fs.fail(nil)
		time.Sleep(ReviveEvery)
		synctest.Wait()
		g.mustAppend(t, l, 3)
	})
}

func TestOpensOnAFullDisk(t *testing.T) {
	bubble(t, nil, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		for range 8 {
			g.mustAppend(t, l, 5)
		}
		l.Close()
		opt := small
		opt.FS = fs
		fs.free = 1000
		full, err := Open(opt)
		if err != nil {
			t.Fatalf("opening on a full disk: %v", err)
		}
		defer full.Close()
		if err := g.append(full, 1, 600); !errors.Is(err, ErrFull) {
			t.Errorf("got %v, want ErrFull", err)
		}
		g.check(t, fs, small.Dir)
		fs.mu.Lock()
		fs.free = 1 << 20
		fs.mu.Unlock()
		g.mustAppend(t, full, 1)
		g.check(t, fs, small.Dir)
	})
}

func TestASlowDiskHoldsUpOnlyAppend(t *testing.T) {
	bubble(t, nil, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		g.mustAppend(t, l, 3)
		fs.slow = 500 * time.Millisecond
		done := make(chan error)
		began := time.Now()
		go func() { done <- g.append(l, 5, 600) }()
		synctest.Wait()
		if got := l.Next(); got != 4 {
			t.Errorf("Next during a sync: got %d, want 4", got)
		}
		l.Health()
		if d := time.Since(began); d != 0 {
			t.Errorf("Next and Health took %v during a sync", d)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != 500*time.Millisecond {
			t.Errorf("Append took %v, want one sync of 500ms", d)
		}
		for range 7 {
			g.append(l, 5, 600)
			time.Sleep(time.Minute)
		}
		if s := l.Health().Stats; s.Waited != 0 || s.Segments < 3 {
			t.Errorf("%d of %d segments were not made ahead in time", s.Waited, s.Segments)
		}
	})
}

func TestAReaderFollowsALiveWriter(t *testing.T) {
	bubble(t, nil, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		r, err := OpenReaderFS(fs, small.Dir, small.Spare)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		next := uint64(1)
		for i := range 40 {
			if i == 20 {
				g.removeBefore(l, next) // all of it was read
			}
			if i == 30 {
				fs.fail(func(op, path string) (bool, error) { return true, errDisk })
				g.append(l, 2, 600)
				fs.fail(nil)
				time.Sleep(2 * ReviveEvery)
				next = l.Next()
				continue
			}
			before := l.Next()
			g.mustAppend(t, l, 3)
			for rec, err := range r.Records(next) {
				if err != nil {
					t.Fatal(err)
				}
				if rec.Seq != next && rec.Seq != before {
					t.Fatalf("got record %d, want %d", rec.Seq, next)
				}
				if want := g.acked[rec.Seq]; want != string(rec.Data) {
					t.Fatalf("record %d: got %.20q, want %.20q", rec.Seq, rec.Data, want)
				}
				next = rec.Seq + 1
			}
			if next != l.Next() {
				t.Fatalf("round %d: read up to %d, the log is at %d", i, next, l.Next())
			}
		}
		if m := r.Missing(); len(m) > 0 {
			t.Errorf("missing beside a healthy writer: %v", r.Damage())
		}
		if r.Last() != next-1 {
			t.Errorf("Last: got %d, want %d", r.Last(), next-1)
		}
		for rec := range r.Records(g.lowest() + 2) {
			if want := g.lowest() + 2; rec.Seq != want {
				t.Errorf("starting anew at %d gave %d", want, rec.Seq)
			}
			break
		}
	})
}

func TestRemoveBeforeKeepsWhatIsDamaged(t *testing.T) {
	bubble(t, nil, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		for range 16 {
			g.mustAppend(t, l, 5)
		}
		rep, err := InspectFS(fs, small.Dir)
		if err != nil {
			t.Fatal(err)
		}
		first, second := rep.Segments[0], rep.Segments[1]
		fs.mu.Lock()
		fs.seen[first.Path].seen[headerBytes+2000] ^= 1 // since the start
		fs.mu.Unlock()
		g.removeBefore(l, second.Last)
		if fs.seen[first.Path] != nil || fs.seen[first.Path+asideSuffix] == nil {
			t.Errorf("%s: want it renamed to %s%s", first.Path, first.Path, asideSuffix)
		}
		if fs.seen[second.Path] == nil {
			t.Errorf("%s was removed, although record %d was to stay", second.Path, second.Last)
		}
		g.removeBefore(l, l.Next())
		var left []string
		for p := range fs.seen {
			if strings.HasSuffix(p, suffix) {
				left = append(left, p)
			}
		}
		if len(left) != 2 {
			t.Errorf("left are %v, want the segment in use and the one made ahead", left)
		}
	})
}

func TestNumbersGoOnWhenEverythingWasRemoved(t *testing.T) {
	bubble(t, nil, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		for range 8 {
			g.mustAppend(t, l, 5)
		}
		l.Close()
		opt := small
		opt.FS = fs
		for range 3 {
			l2, err := Open(opt)
			if err != nil {
				t.Fatal(err)
			}
			g.removeBefore(l2, l2.Next())
			if got := l2.Next(); got != 41 {
				t.Errorf("next number: got %d, want 41", got)
			}
			l2.Close()
		}
		opt.After = 1000
		l3, err := Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		defer l3.Close()
		if got := l3.Next(); got != 1001 {
			t.Errorf("next number behind position 1000 of the store: got %d, want 1001", got)
		}
	})
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	bubble(t, nil, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		for _, recs := range [][][]byte{
			{make([]byte, RecordBytesMax+1)},
			{make([]byte, 10_000), make([]byte, 10_000)},
		} {
			if _, err := l.Append(recs); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%d records of %d bytes: got %v, want ErrTooLarge", len(recs), len(recs[0]), err)
			}
		}
		if _, err := l.Append(nil); err != nil {
			t.Errorf("no records: %v", err)
		}
		g.mustAppend(t, l, 1)
		most := segmentBytesMin - headerBytes - linkBytesMax - 2*frameBytes
		g.tried[string(make([]byte, most))] = true
		if _, err := l.Append([][]byte{make([]byte, most)}); err != nil {
			t.Errorf("the largest record that fits: %v", err)
		}
		l.Close()
		if _, err := l.Append(batch(0, 1)); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: got %v, want ErrClosed", err)
		}
	})
}

func TestOptionsThatCannotWork(t *testing.T) {
	for _, c := range []struct {
		opt  Options
		want string
	}{
		{Options{}, "no directory"},
		{Options{Dir: "a", Spare: "a"}, "own"},
		{Options{Dir: "a", SegmentBytes: 5}, "segment size"},
		{Options{Dir: "a", SegmentBytes: 1 << 40}, "segment size"},
		{Options{Dir: "a", Max: 100 << 20}, "three segments"},
	} {
		c.opt.FS = newMemFS()
		if _, err := Open(c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.opt, err, c.want)
		}
	}
}

func TestNobodyWaitsForZeros(t *testing.T) {
	const size = 8 << 20
	bubble(t, func(o *Options, fs *memFS) { o.SegmentBytes = size }, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		for range 7 {
			g.append(l, 1, RecordBytesMax)
		}
		g.append(l, 6, 150_000) // the first segment is full now, the second ready
		synctest.Wait()
		fs.slow = time.Second
		g.append(l, 6, RecordBytesMax) // begins the second; the third is being filled with zeros
		began := time.Now()
		if err := g.append(l, 7, RecordBytesMax-1000); err != nil {
			t.Fatal(err)
		}
		// One step of zeros, the segment's own sync, the records'.
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("beginning a segment that is still being filled took %v, want 3s at most", d)
		}
		if got := l.Health().Stats.Segments; got != 3 {
			t.Errorf("%d segments were begun, want 3", got)
		}
	})
}

func TestWhatCannotBeOpenedIsNeverRemoved(t *testing.T) {
	bubble(t, nil, func(t *testing.T, fs *memFS, g *ledger, l *Log) {
		for range 16 {
			g.mustAppend(t, l, 5)
		}
		rep, err := InspectFS(fs, small.Dir)
		if err != nil {
			t.Fatal(err)
		}
		shut := rep.Segments[0]
		fs.mu.Lock()
		fs.deny = map[string]error{shut.Path: syscall.EACCES}
		fs.mu.Unlock()
		if rep, err = InspectFS(fs, small.Dir); err != nil {
			t.Fatal(err)
		}
		s := rep.Segments[0]
		if s.State != NotReadable || len(rep.Missing) != 1 || rep.Missing[0] != (Range{shut.First, shut.Last}) {
			t.Errorf("inspect: got %s, missing %v, want it unreadable and %d to %d missing", s.State, rep.Missing, shut.First, shut.Last)
		}
		g.removeBefore(l, l.Next())
		if fs.seen[shut.Path] != nil || fs.seen[shut.Path+shutSuffix] == nil {
			t.Errorf("%s: want it renamed to %s%s", shut.Path, shut.Path, shutSuffix)
		}
		if rep, err = InspectFS(fs, small.Dir); err != nil || len(rep.SetAside) != 1 {
			t.Errorf("inspect: got %v set aside (%v), want it named", rep.SetAside, err)
		}
	})
}
