package spool

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"testing"
	"testing/iotest"
)

func open(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// fill writes b in pieces.
func fill(sp *Spool, b []byte, piece int) error {
	for len(b) > 0 {
		n, err := sp.Write(b[:min(piece, len(b))])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func TestWhatWasWrittenIsReadAgain(t *testing.T) {
	s := open(t, Options{})
	for _, size := range []int{0, 1, memoryMin, eachMemoryMax, eachMemoryMax + 1, 3 << 20} {
		for _, piece := range []int{777, 32 << 10} {
			sp, want := s.New(netip.Addr{}), content(size)
			if err := fill(sp, want, piece); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			got, err := io.ReadAll(sp.Reader())
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes in pieces of %d: got %d bytes, %v", size, piece, len(got), err)
			}
			if size > 100 {
				at := int64(size - 50)
				tail := make([]byte, 100)
				if n, err := sp.ReadAt(tail, at); n != 50 || err != io.EOF || !bytes.Equal(tail[:n], want[at:]) {
					t.Errorf("%d bytes: the tail: got %d, %v", size, n, err)
				}
			}
			sp.Reset()
			if err := fill(sp, want[:size/2], piece); err != nil || sp.Size() != int64(size/2) {
				t.Errorf("behind Reset: got %d bytes, %v", sp.Size(), err)
			}
			sp.Close()
			sp.Close()
		}
	}
	if st := s.Stats(); st.Open != 0 || st.Memory != 0 || st.Disk != 0 || st.Files == 0 {
		t.Errorf("got %+v, want everything given back", st)
	}
}

func TestAContentIsTakenInToItsEnd(t *testing.T) {
	s := open(t, Options{})
	for _, size := range []int{0, 1, memoryMin, eachMemoryMax, eachMemoryMax + 1, 3 << 20} {
		sp, want := s.New(netip.Addr{}), content(size)
		if err := sp.Take(iotest.HalfReader(bytes.NewReader(want))); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got, err := io.ReadAll(sp.Reader()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
		sp.Close()
		sp = s.New(netip.Addr{})
		var cut *SourceError
		if err := sp.Take(io.MultiReader(bytes.NewReader(want), iotest.ErrReader(io.ErrUnexpectedEOF))); !errors.As(err, &cut) || cut.Err != io.ErrUnexpectedEOF {
			t.Errorf("%d bytes and a cut: got %v", size, err)
		}
		sp.Close()
	}
	if st := s.Stats(); st.Open != 0 || st.Memory != 0 || st.Disk != 0 {
		t.Errorf("got %+v, want everything given back", st)
	}
}

func TestASmallContentNeverSeesTheDisk(t *testing.T) {
	s := open(t, Options{})
	sp := s.New(netip.Addr{})
	defer sp.Close()
	if err := fill(sp, content(eachMemoryMax), 100); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Files != 0 || st.Memory != eachMemoryMax {
		t.Errorf("got %+v, want no file and 64 KiB", st)
	}
}

func TestALargeContentHoldsNoMemory(t *testing.T) {
	s := open(t, Options{})
	sp := s.New(netip.Addr{})
	defer sp.Close()
	if err := fill(sp, content(eachMemoryMax+1), 100); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Files != 1 || st.Memory != 0 || st.Written != eachMemoryMax+1 {
		t.Errorf("got %+v, want a file that holds all, and no memory", st)
	}
}

func TestMemoryGrowsWithWhatCame(t *testing.T) {
	s := open(t, Options{})
	sp := s.New(netip.Addr{})
	defer sp.Close()
	if _, err := sp.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Memory > memoryMin {
		t.Errorf("got %d bytes for one, want at most %d", st.Memory, memoryMin)
	}
}

func TestAllTogetherStayWithinMemoryAndDisk(t *testing.T) {
	s := open(t, Options{Memory: 100 << 10, Bytes: 8 << 20})
	var open []*Spool
	var err error
	for range 100 {
		sp := s.New(netip.Addr{})
		open = append(open, sp)
		if err = fill(sp, content(1<<20), 32<<10); err != nil {
			break
		}
		if st := s.Stats(); st.Memory > 100<<10 || st.Disk > 8<<20 {
			t.Fatalf("got %+v, more than was given", st)
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want %v", err, ErrFull)
	}
	if n := len(open); n < 5 || n > 10 {
		t.Errorf("got %d contents of 1 MiB into 8 MiB", n)
	}
	open[0].Close()
	sp := s.New(netip.Addr{})
	if err := fill(sp, content(1<<20), 32<<10); err != nil {
		t.Errorf("where one had left: %v", err)
	}
	for _, sp := range append(open, sp) {
		sp.Close()
	}
	if st := s.Stats(); st.Memory != 0 || st.Disk != 0 || st.Full == 0 {
		t.Errorf("got %+v, want all given back and a refusal counted", st)
	}
}

func TestOneTakesNoMoreThanItsShare(t *testing.T) {
	s := open(t, Options{Bytes: 8 << 20})
	sp := s.New(netip.Addr{})
	defer sp.Close()
	if err := fill(sp, content(4<<20), 32<<10); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
	if sp.Size() > s.Max() || sp.Size() < s.Max()-32<<10 {
		t.Errorf("got %d bytes in, of at most %d", sp.Size(), s.Max())
	}
}

// TestNobodyFillsTheDiskForAll has an owner take what it can get: half of an
// empty store, but never the rest, which is there for others in quarters.
func TestNobodyFillsTheDiskForAll(t *testing.T) {
	s := open(t, Options{Bytes: 8 << 20})
	take := func(owner string, want int64) (spools []*Spool) {
		t.Helper()
		who, before := netip.MustParseAddr(owner), s.Stats().Disk
		for range 100 {
			sp := s.New(who)
			spools = append(spools, sp)
			if err := fill(sp, content(1<<20), 32<<10); err == nil {
				continue
			} else if !errors.Is(err, ErrFull) {
				t.Errorf("%s: got %v, want %v", owner, err, ErrFull)
			}
			if got := s.Stats().Disk - before; got != want {
				t.Errorf("%s: got %d bytes, want %d", owner, got, want)
			}
			return spools
		}
		t.Errorf("%s fills the store without end", owner)
		return spools
	}
	greedy := take("192.0.2.1", 4<<20)
	others := append(take("192.0.2.2", 2<<20), take("2001:db8::", 2<<20)...)
	take("192.0.2.3", 0)
	for _, sp := range greedy {
		sp.Close()
	}
	others = append(others, take("192.0.2.2", 0)...) // has its quarter, and half is taken
	others = append(others, take("192.0.2.1", 2<<20)...)
	for _, sp := range others {
		sp.Close()
	}
	if n := len(s.shares); n != 0 {
		t.Errorf("got %d owners of nothing remembered, want none", n)
	}
}

func TestTheDiskIsLeftToOthers(t *testing.T) {
	s := open(t, Options{KeepFree: 1 << 60})
	sp := s.New(netip.Addr{})
	defer sp.Close()
	if err := fill(sp, content(1<<20), 32<<10); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want %v", err, ErrFull)
	}
	if got, err := io.ReadAll(sp.Reader()); err != nil || !bytes.Equal(got, content(1 << 20)[:len(got)]) {
		t.Errorf("what came before: got %d bytes, %v", len(got), err)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	sp := s.New(netip.Addr{})
	defer sp.Close()
	if err := fill(sp, content(1<<20), 32<<10); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("got %v, %v; want files without names", names, err)
	}
}

func TestADirectoryThatCannotBeUsedIsSaidAtOnce(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: file + "/spool"}); err == nil {
		t.Error("want an error")
	}
}

// waited is a source that is waited for, and knows with how much room it was.
type waited struct {
	t      *testing.T
	pieces []int
	waits  int
	later  bool // each is waited for elsewhere first
	ready  bool
}

func (w *waited) Wait() (bool, error) {
	if w.waits++; w.later && w.waits%2 == 1 {
		return false, ErrLater
	}
	w.ready = true
	return true, nil
}

func (w *waited) Read(p []byte) (int, error) {
	if !w.ready {
		w.t.Errorf("%d pieces before the end: read without a wait, though the last was short", len(w.pieces))
	}
	if len(w.pieces) == 0 {
		return 0, io.EOF
	}
	n := min(w.pieces[0], len(p))
	if w.pieces[0] -= n; w.pieces[0] == 0 {
		w.pieces = w.pieces[1:]
	}
	w.ready = n == len(p) // what has filled the room may have more
	return n, nil
}

func TestNobodyHoldsABufferForContentThatDoesNotCome(t *testing.T) {
	s := open(t, Options{})
	sp := s.New(netip.Addr{})
	defer sp.Close()
	w := &waited{t: t, pieces: []int{1, 1, 100_000, 5}}
	if err := sp.Take(w); err != nil || sp.Size() != 100_007 {
		t.Fatalf("got %d bytes, %v; want 100007", sp.Size(), err)
	}
	if w.waits != 5 { // for each piece, and the end
		t.Errorf("got %d waits, want 5", w.waits)
	}
}

func TestAContentMayBeWaitedForElsewhere(t *testing.T) {
	s := open(t, Options{})
	sp := s.New(netip.Addr{})
	defer sp.Close()
	w, times := &waited{t: t, pieces: []int{1, 1, 5}, later: true}, 0
	err := sp.Take(w)
	for ; err == ErrLater; err = sp.Take(w) {
		times++
	}
	if err != nil || sp.Size() != 7 || times != 4 { // before each piece, and the end
		t.Fatalf("got %d bytes, %v, waited for elsewhere %d times; want 7 and 4", sp.Size(), err, times)
	}
}

// trickle is a source that cannot say when something comes.
type trickle struct {
	t    *testing.T
	left int
}

func (r *trickle) Read(p []byte) (int, error) {
	if len(p) > 1<<10 {
		r.t.Errorf("got room for %d bytes, want a small buffer for who trickles", len(p))
	}
	if r.left--; r.left < 0 {
		return 0, io.EOF
	}
	return 8, nil
}

func TestWhoTricklesIsReadThroughASmallBuffer(t *testing.T) {
	s := open(t, Options{})
	sp := s.New(netip.Addr{})
	defer sp.Close()
	if err := sp.Take(&trickle{t, 1000}); err != nil || sp.Size() != 8000 {
		t.Errorf("got %d bytes, %v; want 8000", sp.Size(), err)
	}
}
