package coalesce

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var roomy = Limits{Keep: 64 << 20, Window: 4 << 20, Patience: 5 * time.Second}

// collect reads r to its end.
func collect(r *Reader) ([]byte, error) {
	defer r.Close()
	var all []byte
	for {
		p, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, p...)
	}
}

func reader(t *testing.T, b *Body) *Reader {
	t.Helper()
	r, err := b.NewReader()
	if err != nil {
		t.Fatalf("NewReader: %v", err)
	}
	return r
}

func TestOneLeaderForAThousandCallers(t *testing.T) {
	g := NewGroup[string]()
	var leaders atomic.Int32
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			f, leader := g.Join([]byte("lesson"))
			if leader {
				leaders.Add(1)
				f.Publish("content")
			}
			if v, err := f.Wait(context.Background()); err != nil || v != "content" {
				t.Errorf("Wait = %q, %v; want content", v, err)
			}
		})
	}
	wg.Wait()
	if n := leaders.Load(); n != 1 {
		t.Errorf("leaders: got %d, want 1", n)
	}
}

func TestAfterLandingANewFlightBegins(t *testing.T) {
	g := NewGroup[int]()
	first, _ := g.Join([]byte("k"))
	first.Publish(1)
	first.Publish(2)
	if v, _ := first.Wait(context.Background()); v != 1 {
		t.Errorf("published twice: got %d, want the first, 1", v)
	}
	first.Land()
	second, leader := g.Join([]byte("k"))
	if !leader || second == first {
		t.Fatal("joined a flight that had landed")
	}
	first.Land() // again: must not take the second flight down
	if g.Find([]byte("k")) != second || g.Len() != 1 {
		t.Error("landing twice took somebody else's flight")
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := NewGroup[int]().Join([]byte("k"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait = %v, want the deadline", err)
		}
	})
}

// TestEveryReaderGetsEveryByte reads bodies of many sizes, announced or not,
// from readers that come at any time.
func TestEveryReaderGetsEveryByte(t *testing.T) {
	for _, size := range []int{0, 1, 4095, chunkBytesMin, chunkBytesMin + 1, 300_000, exactBytesMax, exactBytesMax + 1} {
		for _, announced := range []bool{true, false} {
			want := make([]byte, size)
			for i := range want {
				want[i] = byte(i * 31 >> 3)
			}
			known := int64(-1)
			if announced {
				known = int64(size)
			}
			b := NewBody(known, roomy)
			var wg sync.WaitGroup
			for range 3 {
				r := reader(t, b)
				wg.Go(func() {
					got, err := collect(r)
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d bytes (announced %v): got %d bytes, %v", size, announced, len(got), err)
					}
				})
			}
			if err := b.Fill(&unevenReader{src: bytes.NewReader(want)}); err != nil {
				t.Fatalf("Fill: %v", err)
			}
			wg.Wait()
			if got, ok := b.Bytes(); !ok || !bytes.Equal(got, want) {
				t.Errorf("%d bytes (announced %v): Bytes gives %d, %v", size, announced, len(got), ok)
			}
			if got, err := collect(reader(t, b)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes: a late reader got %d bytes, %v", size, len(got), err)
			}
		}
	}
}

type unevenReader struct{ src io.Reader }

func (u *unevenReader) Read(p []byte) (int, error) {
	return u.src.Read(p[:min(len(p), 1+rand.IntN(20_000))])
}

func TestFirstBytesReachEveryReaderAsTheyArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBody(10, roomy)
		pr, pw := io.Pipe()
		go b.Fill(pr)
		r := reader(t, b)
		for _, part := range []string{"hello", "world"} {
			pw.Write([]byte(part))
			got, err := r.Next()
			if err != nil || string(got) != part {
				t.Fatalf("Next = %q, %v; want %q before the rest is there", got, err, part)
			}
		}
		pw.Close()
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("end: got %v, want io.EOF", err)
		}
	})
}

func TestACutBodyNeverEndsCleanly(t *testing.T) {
	cut := errors.New("connection reset")
	for _, c := range []struct {
		name  string
		known int64
		src   io.Reader
		want  error
	}{
		{"shorter than announced", 10, bytes.NewReader([]byte("12345")), io.ErrUnexpectedEOF},
		{"longer than announced", 3, bytes.NewReader([]byte("12345")), io.ErrUnexpectedEOF},
		{"read error", -1, io.MultiReader(bytes.NewReader([]byte("12345")), errReader{cut}), cut},
	} {
		b := NewBody(c.known, roomy)
		r := reader(t, b)
		if err := b.Fill(c.src); !errors.Is(err, c.want) {
			t.Errorf("%s: Fill = %v, want %v", c.name, err, c.want)
		}
		if _, err := collect(r); !errors.Is(err, c.want) {
			t.Errorf("%s: reader ended with %v, want %v", c.name, err, c.want)
		}
		if _, err := b.NewReader(); err != ErrTooLate {
			t.Errorf("%s: who comes to a broken body gets %v, want ErrTooLate", c.name, err)
		}
		if _, ok := b.Bytes(); ok {
			t.Errorf("%s: Bytes offers a body that is not whole", c.name)
		}
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// endless is an origin that never ends and counts what was read of it.
type endless struct{ n atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) { e.n.Add(int64(len(p))); return len(p), nil }

func TestALargeBodyHoldsNoMoreThanItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limits{Keep: 1 << 20, Window: 1 << 20, Patience: 5 * time.Second}
		b := NewBody(-1, l)
		src := &endless{}
		r := reader(t, b)
		done := make(chan error, 1)
		go func() { done <- b.Fill(src) }()
		synctest.Wait()
		if got, most := src.n.Load(), l.Window+2*chunkBytesMax; got > most {
			t.Errorf("an unread body took in %d bytes, want at most %d", got, most)
		}
		for range 100 {
			if _, err := r.Next(); err != nil {
				t.Fatalf("Next: %v", err)
			}
			synctest.Wait()
			b.mu.Lock()
			held := b.size - b.base
			b.mu.Unlock()
			if most := l.Window + 2*chunkBytesMax; held > most {
				t.Fatalf("held %d bytes, want at most %d", held, most)
			}
		}
		if _, err := b.NewReader(); err != ErrTooLate {
			t.Errorf("NewReader of a body whose beginning is gone: %v, want ErrTooLate", err)
		}
		r.Close()
		if err := <-done; err != ErrAbandoned {
			t.Errorf("Fill without readers = %v, want ErrAbandoned", err)
		}
	})
}

// A body that is too large to be kept can be joined while its beginning lies in
// the window, however fast those who came before read it.
func TestWhoComesWithinTheWindowJoins(t *testing.T) {
	l := Limits{Keep: 64 << 10, Window: 1 << 20, Patience: 5 * time.Second}
	b := NewBody(-1, l)
	first := reader(t, b)
	fill := func(n int) {
		for ; n > 0; n-- {
			p := make([]byte, chunkBytesMin)
			b.commit(p)
			if err := b.pace(p); err != nil {
				t.Fatal(err)
			}
			if _, err := first.Next(); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(int(l.Window / chunkBytesMin))
	if late, err := b.NewReader(); err != nil {
		t.Errorf("with all of %d bytes in the window: %v", b.Size(), err)
	} else {
		late.Close()
	}
	fill(2)
	if _, err := b.NewReader(); err != ErrTooLate {
		t.Errorf("beyond the window: %v, want ErrTooLate", err)
	}
}

func TestABodyIsKeptNoFurtherThanAllowed(t *testing.T) {
	var asked []int64
	b := NewBody(-1, Limits{Keep: 64 << 20, Window: 1 << 20, Patience: time.Second, Allow: func(n int64) bool {
		asked = append(asked, n>>20)
		return len(asked) < 3
	}})
	r := reader(t, b)
	go b.Fill(io.LimitReader(&endless{}, 32<<20))
	got, err := collect(r)
	if len(got) != 32<<20 || err != nil {
		t.Errorf("read %d bytes, %v; want all 32 MiB through the window", len(got), err)
	}
	if want := []int64{1, 2, 4}; !slices.Equal(asked, want) {
		t.Errorf("asked for %d MiB more, want %d and then no more", asked, want)
	}
	if _, ok := b.Bytes(); ok {
		t.Error("a body that could not be kept is offered whole")
	}
}

func TestASlowReaderHoldsUpOthersForItsPatienceOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limits{Keep: 1 << 20, Window: 1 << 20, Patience: 5 * time.Second}
		b := NewBody(-1, l)
		slow, fast := reader(t, b), reader(t, b)
		go b.Fill(&endless{})
		began := time.Now()
		for n := 0; n < 20<<20; {
			p, err := fast.Next()
			if err != nil {
				t.Fatalf("the fast reader ended with %v", err)
			}
			n += len(p)
		}
		if held := time.Since(began); held != l.Patience {
			t.Errorf("the fast reader was held up %v, want %v", held, l.Patience)
		}
		if _, err := slow.Next(); err != ErrTooSlow {
			t.Errorf("the slow reader: %v, want ErrTooSlow", err)
		}
		slow.Close()
		fast.Close()
	})
}

// TestAWindowSmallerThanAChunkHoldsUpNobody reads a body through a window which
// is full before its only chunk can be let go.
func TestAWindowSmallerThanAChunkHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBody(-1, Limits{Keep: 16 << 10, Window: 4 << 10, Patience: 5 * time.Second})
		r := reader(t, b)
		go b.Fill(&unevenReader{src: io.LimitReader(&endless{}, 1<<20)})
		began := time.Now()
		got, err := collect(r)
		if len(got) != 1<<20 || err != nil || time.Since(began) > 0 {
			t.Errorf("read %d bytes in %v, %v; want all of 1 MiB at once", len(got), time.Since(began), err)
		}
	})
}

func TestReadersThatAreAllSlowAreNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBody(-1, Limits{Keep: 1 << 20, Window: 1 << 20, Patience: 5 * time.Second})
		r := reader(t, b)
		go b.Fill(&endless{})
		for range 40 {
			if _, err := r.Next(); err != nil {
				t.Fatalf("Next: %v", err)
			}
			time.Sleep(10 * time.Second)
		}
		r.Close()
	})
}

func TestABodyThatNobodyReadsIsGivenUp(t *testing.T) {
	b := NewBody(-1, roomy)
	asked, stopped := 0, 0
	b.OnIdle(func(size int64) bool { asked++; return size > 10 }, func() { stopped++ })
	r1, r2 := reader(t, b), reader(t, b)
	r1.Close()
	if asked != 0 {
		t.Fatal("asked while one reader is still there")
	}
	r2.Close()
	r2.Close()
	if asked != 1 || stopped != 0 {
		t.Errorf("asked %d times, stopped %d times; want once, and not stopped", asked, stopped)
	}
	b.commit(make([]byte, 20))
	reader(t, b).Release()
	if asked != 1 {
		t.Error("asked although the last reader wants the body to go on")
	}
	reader(t, b).Close()
	if asked != 2 || stopped != 1 {
		t.Errorf("asked %d times, stopped %d times; want twice, and stopped", asked, stopped)
	}
	if err := b.Fill(bytes.NewReader(nil)); err != ErrAbandoned || !b.Broken() {
		t.Errorf("Fill = %v, want ErrAbandoned", err)
	}
}

// TestNobodyJoinsWhatIsGivenUp joins just when the last reader has left: who
// gets in must not be cut for it.
func TestNobodyJoinsWhatIsGivenUp(t *testing.T) {
	b := NewBody(-1, roomy)
	b.OnIdle(func(int64) bool { return true }, func() {
		if _, err := b.NewReader(); err != ErrTooLate {
			t.Errorf("joining a body that is being stopped: %v, want ErrTooLate", err)
		}
	})
	reader(t, b).Close()
	ended := NewBody(-1, roomy)
	ended.OnIdle(func(int64) bool { t.Error("asked about a body that had ended"); return true }, nil)
	r := reader(t, ended)
	ended.End(nil)
	r.Close()
}

func BenchmarkJoinAlone(b *testing.B) {
	g := NewGroup[int]()
	key := []byte("http\x00school.example\x00/lessons/1")
	b.ReportAllocs()
	for b.Loop() {
		f, _ := g.Join(key)
		f.Publish(1)
		f.Land()
	}
}
