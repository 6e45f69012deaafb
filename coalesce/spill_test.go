package coalesce

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// memSpill is a spill that takes limit bytes.
type memSpill struct {
	mu    sync.Mutex
	b     []byte
	limit int
	refs  atomic.Int32
}

func (s *memSpill) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.b)+len(p) > s.limit {
		return 0, errors.New("no space")
	}
	s.b = append(s.b, p...)
	return len(p), nil
}

func (s *memSpill) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if off >= int64(len(s.b)) {
		return 0, io.EOF
	}
	return copy(p, s.b[off:]), nil
}

func (s *memSpill) Retain()  { s.refs.Add(1) }
func (s *memSpill) Release() { s.refs.Add(-1) }

func spilling(s *memSpill) Limits {
	return Limits{Keep: 1 << 20, Window: 1 << 20, Patience: 5 * time.Second, Spill: func() Spill { return s }}
}

// TestASpilledBodyIsReadByAllAtTheirPace fills 12 MiB with nobody reading, and
// reads it then: all who were there, and who comes after its end.
func TestASpilledBodyIsReadByAllAtTheirPace(t *testing.T) {
	want := make([]byte, 12<<20+77)
	rand.NewChaCha8([32]byte{1}).Read(want)
	s := &memSpill{limit: 1 << 30}
	b := NewBody(-1, spilling(s))
	early := []*Reader{reader(t, b), reader(t, b)}
	half, err := early[1].body.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Fill(&unevenReader{src: bytes.NewReader(want)}); err != nil {
		t.Fatalf("Fill: %v", err)
	}
	if held := b.size - b.base; held > 1<<20+chunkBytesMax {
		t.Errorf("memory holds %d bytes, want the window", held)
	}
	if !b.Spilled() || !bytes.Equal(s.b, want) {
		t.Error("the spill does not hold the body")
	}
	if n := half.Skip(5 << 20); n != 5<<20 {
		t.Errorf("skipped %d bytes, want 5 MiB", n)
	}
	if got, err := collect(half); err != nil || !bytes.Equal(got, want[5<<20:]) {
		t.Errorf("who skipped got %d bytes, %v", len(got), err)
	}
	for i, r := range append(early, reader(t, b)) {
		if got, err := collect(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("reader %d got %d bytes, %v", i, len(got), err)
		}
	}
	b.ShutSpill()
	if _, err := b.NewReader(); err != ErrTooLate {
		t.Errorf("after ShutSpill: %v, want ErrTooLate", err)
	}
	if n := s.refs.Load(); n != 0 {
		t.Errorf("%d readers still retain the spill", n)
	}
}

func TestASlowReaderOfASpilledBodyHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memSpill{limit: 1 << 30}
		b := NewBody(-1, spilling(s))
		slow, fast := reader(t, b), reader(t, b)
		began := time.Now()
		go b.Fill(io.LimitReader(&endless{}, 20<<20))
		if got, err := collect(fast); len(got) != 20<<20 || err != nil || time.Since(began) != 0 {
			t.Errorf("the fast one got %d bytes, %v after %v", len(got), err, time.Since(began))
		}
		time.Sleep(time.Hour)
		if got, err := collect(slow); len(got) != 20<<20 || err != nil {
			t.Errorf("the slow one got %d bytes, %v", len(got), err)
		}
	})
}

// TestASpillThatIsFullLeavesTheWindow lets the spill fail at once and later.
func TestASpillThatIsFullLeavesTheWindow(t *testing.T) {
	for _, limit := range []int{0, 3 << 20} {
		want := make([]byte, 8<<20)
		rand.NewChaCha8([32]byte{2}).Read(want)
		b := NewBody(-1, spilling(&memSpill{limit: limit}))
		var wg sync.WaitGroup
		for range 3 {
			r := reader(t, b)
			wg.Go(func() {
				if got, err := collect(r); err != nil || !bytes.Equal(got, want) {
					t.Errorf("limit %d: got %d bytes, %v", limit, len(got), err)
				}
			})
		}
		if err := b.Fill(&unevenReader{src: bytes.NewReader(want)}); err != nil {
			t.Errorf("limit %d: Fill: %v", limit, err)
		}
		wg.Wait()
		if b.Spilled() {
			t.Errorf("limit %d: a spill that lacks bytes is offered", limit)
		}
		if _, err := b.NewReader(); err != ErrTooLate {
			t.Errorf("limit %d: who comes late gets %v, want ErrTooLate", limit, err)
		}
	}
}
