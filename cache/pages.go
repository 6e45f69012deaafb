package cache

import (
	"bytes"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

// Large bodies that memory keeps lie in pages outside of the heap: in one file
// that only memory backs. From there the system sends them over plain TCP
// without a copy, and whoever has to see the bytes reads them through a mapping.
// Each body has a place of its own in the file, which nobody else ever gets:
// what is given back is a hole.

const (
	// pagesMin is from which size on a body lies in pages: below it a copy costs
	// less than sending page by page.
	pagesMin = 256 << 10
	// pagedMax bounds the bodies in pages, as each is a mapping, of which Linux
	// gives a process 65,530; what comes beyond stays in the heap.
	pagedMax = 16 << 10
)

// pages is where bodies lie outside of the heap.
type pages struct {
	open sync.Once
	file *os.File // nil where the system has no such files

	mu   sync.Mutex // guards next
	next int64      // where the next body begins

	bodies, bytes atomic.Int64
}

// Paged is a body in pages. It stays as it is while anybody can reach it, and
// what it takes goes back some time after.
type Paged struct {
	in     *pages
	at     int64
	length int64
	mapped []byte
}

// keep returns body in pages, or nil where it had better stay in the heap.
func (p *pages) keep(body []byte) *Paged {
	n := int64(len(body))
	if n < pagesMin {
		return nil
	}
	p.open.Do(func() { p.file = openPages() })
	if p.file == nil {
		return nil
	}
	took := pageCeil(n)
	p.bytes.Add(took)
	if p.bodies.Add(1) > pagedMax {
		p.gone(took)
		return nil
	}
	p.mu.Lock()
	at := p.next
	p.next += took
	p.mu.Unlock()
	mapped, err := fillPages(p.file, body, at)
	if err != nil {
		p.gone(took)
		return nil
	}
	b := &Paged{in: p, at: at, length: n, mapped: mapped}
	runtime.AddCleanup(b, func(mapped []byte) {
		dropPages(p.file, mapped, at)
		p.gone(took)
	}, mapped)
	return b
}

func (p *pages) gone(took int64) {
	p.bodies.Add(-1)
	p.bytes.Add(-took)
}

// close gives the file back once all mappings are gone. What is in pages can be
// read still, and no longer sent from there.
func (p *pages) close() error {
	p.open.Do(func() {})
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// pageCeil is what n bytes take in pages.
func pageCeil(n int64) int64 {
	size := int64(os.Getpagesize())
	return (n + size - 1) / size * size
}

// Bytes are the body's, for as long as the caller keeps b reachable
// (runtime.KeepAlive): afterwards they may be gone, and reading them ends the
// process. They cannot be written.
func (b *Paged) Bytes() []byte { return b.mapped[:b.length] }

// File is where the body lies, and where in it it begins.
func (b *Paged) File() (f *os.File, at int64) { return b.in.file, b.at }

// Paged is the body of s where it lies in pages; else nil, and Body or Open has
// it.
func (s *Stored) Paged() *Paged { return s.paged }

// withBody calls f with the body of s, which is valid during the call only. A
// body on disk is none here.
func (s *Stored) withBody(f func(body []byte)) {
	if s.paged == nil {
		f(s.Body)
		return
	}
	f(s.paged.Bytes())
	runtime.KeepAlive(s.paged)
}

// Bytes returns the body of s, wherever in memory it lies; from pages, a copy.
func (s *Stored) Bytes() (body []byte) {
	if s.paged == nil {
		return s.Body
	}
	s.withBody(func(b []byte) { body = bytes.Clone(b) })
	return body
}

// sameBody reports whether a and b, of which no body is on disk, have the same.
func sameBody(a, b *Stored) (same bool) {
	if a.Length() != b.Length() {
		return false
	}
	a.withBody(func(one []byte) {
		b.withBody(func(other []byte) { same = bytes.Equal(one, other) })
	})
	return same
}

// page moves a large body out of the heap. Nobody else knows s yet.
func (c *Cache) page(s *Stored) {
	if s.paged = c.pages.keep(s.Body); s.paged != nil {
		s.Body = nil
	}
}
