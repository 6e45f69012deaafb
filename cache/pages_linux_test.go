package cache

import (
	"bytes"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"firstbell/proxy/field"
)

// withBytes is a fresh response with a body of its own.
func withBytes(c *Cache, r *Request, body []byte) *Stored {
	res := field.List{{Name: "Cache-Control", Value: "max-age=3600"}, {Name: "ETag", Value: `"1"`}}
	c.Begin(r)
	return c.NewStored(r, Judge(r, &Policy{}, 200, res, nine, nine), 200, res, body, nine, nine)
}

// collected has what nobody can reach be given back, and reports whether that
// came to pass.
func collected(back func() bool) bool {
	for range 1000 {
		if back() {
			return true
		}
		runtime.GC() // the next one waits for the cleanups of this one, or nearly
		runtime.Gosched()
	}
	return false
}

// blocksOf is the memory that the file of c's pages takes.
func blocksOf(t *testing.T, c *Cache) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(c.pages.file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestLargeBodiesLieOutsideOfTheHeapAndGoBackWhenNobodyHasThem(t *testing.T) {
	c := newCache(t, 64<<20)
	const size, n = 1<<20 + 17, 16
	before := heap()
	for i := range n {
		r := request(string(rune('a' + i)))
		if !c.Put(withBytes(c, r, bytes.Repeat([]byte{byte(i)}, size))) {
			t.Fatalf("body %d was not kept", i)
		}
	}
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes, want none of the bodies in it", grown)
	}
	want := pageCeil(size) * n
	if s := c.Stats(); s.PagedBytes != want || s.Bytes() < want || s.Bytes() > want*21/20 {
		t.Errorf("%d bytes in pages, %d accounted; want %d and a little more", s.PagedBytes, s.Bytes(), want)
	}
	if got := blocksOf(t, c); got != want {
		t.Errorf("the file takes %d bytes, want %d", got, want)
	}
	audit(t, c)
	held := c.Lookup(request("c"), &Policy{}, nine).Stored.Paged()
	for i := range n {
		key := string(rune('a' + i))
		f := c.Lookup(request(key), &Policy{}, nine)
		if f.Outcome != Hit || f.Stored.Body != nil || f.Stored.Length() != size || !bytes.Equal(f.Stored.Bytes(), bytes.Repeat([]byte{byte(i)}, size)) {
			t.Fatalf("body %d: %v, %d bytes; want a hit, as it was", i, f.Outcome, f.Stored.Length())
		}
		c.Invalidate([]byte(key))
	}
	if !collected(func() bool { return blocksOf(t, c) == pageCeil(size) }) {
		t.Errorf("the file takes %d bytes, want %d: those of the one body that somebody has", blocksOf(t, c), pageCeil(size))
	}
	if !bytes.Equal(held.Bytes(), bytes.Repeat([]byte{2}, size)) {
		t.Error("a body changed while somebody had it")
	}
	runtime.KeepAlive(held)
	if !collected(func() bool { return c.Stats().PagedBytes == 0 }) || blocksOf(t, c) != 0 {
		t.Errorf("%d bytes in pages, %d in the file; want 0", c.Stats().PagedBytes, blocksOf(t, c))
	}
}

func TestSmallBodiesAndThoseTooManyStayInTheHeap(t *testing.T) {
	c := newCache(t, 64<<20)
	if s := withBytes(c, request("small"), make([]byte, pagesMin-1)); s.Paged() != nil || len(s.Body) != pagesMin-1 {
		t.Errorf("%d bytes lie in pages, want them in the heap", pagesMin-1)
	}
	bare := newCache(t, 64<<20)
	bare.pages.open.Do(func() {}) // the system gives no such file
	if s := withBytes(bare, request("bare"), make([]byte, pagesMin)); s.Paged() != nil || !bare.Put(s) || len(s.Bytes()) != pagesMin {
		t.Error("without a file a large body is not kept in the heap")
	}
	c.pages.bodies.Store(pagedMax)
	if s := withBytes(c, request("many"), make([]byte, pagesMin)); s.Paged() != nil || len(s.Body) != pagesMin {
		t.Errorf("a body beyond the %d lies in pages, want it in the heap", pagedMax)
	}
	if n := c.pages.bodies.Load(); n != pagedMax || c.pages.bytes.Load() != 0 {
		t.Errorf("%d bodies of %d bytes are counted, want %d of 0", n, c.pages.bytes.Load(), pagedMax)
	}
}

func TestABodyInPagesIsFreshenedVariedAndHandedOver(t *testing.T) {
	c, other := newCache(t, 64<<20), newCache(t, 64<<20)
	r, body := request("lesson"), bytes.Repeat([]byte("lesson, "), pagesMin/8)
	if !c.Put(withBytes(c, r, body)) {
		t.Fatal("not kept")
	}
	find := func(c *Cache) *Stored {
		f := c.Lookup(request("lesson"), &Policy{}, nine)
		if f.Stored == nil || f.Stored.Paged() == nil || !bytes.Equal(f.Stored.Bytes(), body) {
			t.Fatalf("%v: want the body, in pages", f.Outcome)
		}
		return f.Stored
	}
	s := find(c)
	if !c.KeepCoded(s, Gzip, []byte("much shorter")) {
		t.Fatal("a variant was not kept")
	}
	s, ok := c.Freshen(find(c), r, &Policy{}, field.List{{Name: "ETag", Value: `"1"`}, {Name: "X", Value: "1"}}, nine, nine)
	if !ok || find(c) != s || s.In(Gzip) == nil {
		t.Fatal("freshened, it is not what the cache has, or lost its variant")
	}
	if !c.Put(withBytes(c, r, bytes.Clone(body))) || find(c) == s || find(c).In(Gzip) == nil {
		t.Error("fetched again with the same content, it lost its variant")
	}
	other.SetPeer(noPeer{})
	for h := range c.HandOver() {
		other.Adopt(&h)
	}
	find(other)
	audit(t, c)
	audit(t, other)
}

// noPeer is another process that has nothing and hears nothing.
type noPeer struct{}

func (noPeer) Ask([]byte) []Handed     { return nil }
func (noPeer) Stored([]byte)           {}
func (noPeer) Invalidated([]byte)      {}
func (noPeer) Purged([]Selector, bool) {}
