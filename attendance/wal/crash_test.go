package wal

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

var small = Options{Dir: "journal", Spare: "spare", SegmentBytes: segmentBytesMin, Host: "test"}

// morning is a journal's whole life in few steps: opened, filled past two
// segments, closed, opened again, part of it removed.
func morning(t *testing.T, fs *memFS, g *ledger, opt Options) {
	opt.FS = fs
	for run := range 2 {
		l, err := Open(opt)
		if err != nil {
			return // a fault may say so
		}
		synctest.Wait()
		for i := range 6 {
			if g.append(l, 5, 600) != nil {
				time.Sleep(ReviveEvery + time.Second)
			}
			synctest.Wait()
			if i == 4 && run == 1 {
				g.removeBefore(l, g.lowest()+8)
				synctest.Wait()
			}
		}
		l.Close()
	}
}

// lowest is the lowest number acknowledged.
func (g *ledger) lowest() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	low := uint64(0)
	for seq := range g.acked {
		if low == 0 || seq < low {
			low = seq
		}
	}
	return low
}

// removeBefore lets records go, in the ledger first: whether a crash in the
// middle leaves them there does not matter.
func (g *ledger) removeBefore(l *Log, seq uint64) {
	g.mu.Lock()
	for s := range g.acked {
		if s < seq {
			delete(g.acked, s)
		}
	}
	g.mu.Unlock()
	l.RemoveBefore(seq)
}

func TestReceiptMeansOnDisk(t *testing.T) {
	for m, mode := range crashModes(0) {
		t.Run(mode.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs, g, steps := newMemFS(), newLedger(), 0
				fs.before = func(op, path string) {
					steps++
					if t.Failed() {
						return
					}
					visible, _ := g.check(t, fs.crash(crashModes(0)[1]), small.Dir, small.Spare)
					lost := fs.crash(crashModes(uint64(steps))[m])
					g.copy().survives(t, lost, small, visible)
					if t.Failed() {
						t.Logf("crash before step %d: %s %s", steps, op, path)
					}
				}
				morning(t, fs, g, small)
				t.Logf("%d steps, %d records", steps, len(g.acked))
			})
		})
	}
}

func TestCrashWhileRecovering(t *testing.T) {
	for m, mode := range crashModes(0) {
		t.Run(mode.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs, g := newMemFS(), newLedger()
				opt := small
				opt.FS = fs
				l, err := Open(opt)
				if err != nil {
					t.Fatal(err)
				}
				for range 6 {
					g.append(l, 5, 600)
					synctest.Wait()
				}
				fs.fail(func(op, path string) (bool, error) { return true, errDisk }) // the last Append is not acknowledged
				g.append(l, 9, 600)
				fs.mu.Lock()
				dead := fs.crash(crashModes(5)[4])
				fs.mu.Unlock()
				fs.fail(nil)
				l.Close()

				steps := 0
				dead.before = func(op, path string) {
					steps++
					if t.Failed() {
						return
					}
					g.copy().survives(t, dead.crash(crashModes(uint64(steps))[m]), small, nil)
					if t.Failed() {
						t.Logf("second crash before step %d: %s %s", steps, op, path)
					}
				}
				opt.FS = dead
				if l, err = Open(opt); err != nil {
					t.Fatal(err)
				}
				g.append(l, 4, 300)
				synctest.Wait()
				l.Close()
			})
		})
	}
}

// TestEveryFileCallMayFail lets each file call fail in turn, for a moment or
// for good, with and without effect, and crashes at the end.
func TestEveryFileCallMayFail(t *testing.T) {
	for _, c := range []struct {
		name  string
		kept  bool
		last  int    // this many calls fail
		every int    // of the calls, every such one is the first to fail
		dir   string // only here; "": everywhere
	}{
		{"once, lost", false, 1, 1, ""},
		{"once, kept", true, 1, 1, ""},
		{"five times, lost", false, 5, 5, ""},
		{"five times, kept", true, 5, 5, ""},
		{"for good, lost", false, 1 << 30, 7, ""},
		{"for good, kept", true, 1 << 30, 7, ""},
		{"the journal's disk dies, lost", false, 1 << 30, 7, "journal"},
		{"the journal's disk dies, kept", true, 1 << 30, 7, "journal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := 1; ; n += c.every * stride {
				ran := false
				synctest.Test(t, func(t *testing.T) { ran = failAt(t, n, c.last, c.kept, c.dir) })
				if t.Failed() {
					t.Fatalf("failing from call %d", n)
				}
				if !ran {
					t.Logf("about %d calls", n-1)
					return
				}
			}
		})
	}
}

func failAt(t *testing.T, n, last int, kept bool, dir string) (ran bool) {
	fs, g, calls := newMemFS(), newLedger(), 0
	var what string
	fs.fault = func(op, path string) (bool, error) {
		calls++
		if calls < n || calls >= n+last || dir != "" && path != dir && !within(path, dir) {
			return false, nil
		}
		if !ran {
			what = fmt.Sprintf("%s %s", op, path)
		}
		ran = true
		return kept, errDisk
	}
	morning(t, fs, g, small)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.fault = nil
	visible, _ := g.check(t, fs.crash(crashModes(0)[1]), small.Dir, small.Spare)
	for _, m := range []int{0, 1, 4} {
		mode := crashModes(uint64(n))[m]
		g.copy().survives(t, fs.crash(mode), small, visible)
		if t.Failed() {
			t.Fatalf("failed call: %s; then a crash: %s", what, mode.name)
		}
	}
	return ran
}

func within(path, dir string) bool {
	return len(path) > len(dir) && path[:len(dir)+1] == dir+"/"
}
