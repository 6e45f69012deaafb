package proxy

import (
	"io"
	"os"
	"runtime"
	"sync"

	"firstbell/cache"
	"firstbell/cache/disk"
)

// fileSource is a source whose bytes lie in a file of the system. Who can send
// from there without reading takes NextFile in the place of Next.
type fileSource interface {
	source
	// NextFile returns where the bytes that follow lie, verified; io.EOF at the
	// end. A nil file means that Next has to be asked.
	NextFile() (f *os.File, at, n int64, err error)
	// Again gives back the last n bytes that NextFile returned: they could not
	// be sent from there.
	Again(n int64)
}

// openLarge opens the body of a stored response that lies on disk, for as long
// as the exchange answers. When it is there no more, the request goes to the
// origin, and false is returned.
func (p *Proxy) openLarge(x *exchange, s *cache.Stored) bool {
	x.mayWait()
	r, err := s.Open()
	if err != nil {
		x.note = note{forwarded: "uri-miss", detail: "disk"}
		p.forward(x, outcomeBypass)
		return false
	}
	x.large = r
	return true
}

// contentOf is the body of a stored response, which is open if it is large.
func (x *exchange) contentOf(s *cache.Stored) content {
	if s.Large() {
		return diskContent{x.large}
	}
	if b := s.Paged(); b != nil {
		return pagedContent{b}
	}
	return memoryContent(s.Body)
}

// pagedContent is a body in memory that lies in a file, too.
type pagedContent struct{ b *cache.Paged }

func (c pagedContent) size() int64 { return int64(len(c.b.Bytes())) }

func (c pagedContent) part(from, to int64) source { return &pagedSource{b: c.b, from: from, to: to} }

// pagedSource hands out a part of such a body. It keeps the body reachable until
// it is closed.
type pagedSource struct {
	b        *cache.Paged
	from, to int64
}

// Next implements source.
func (s *pagedSource) Next() ([]byte, error) {
	if s.from >= s.to {
		return nil, io.EOF
	}
	piece := s.b.Bytes()[s.from:s.to]
	s.from = s.to
	return piece, nil
}

// Ready implements eager.
func (s *pagedSource) Ready() bool { return true }

// NextFile implements fileSource.
func (s *pagedSource) NextFile() (f *os.File, at, n int64, err error) {
	if s.from >= s.to {
		return nil, 0, 0, io.EOF
	}
	f, at = s.b.File()
	at, n = at+s.from, s.to-s.from
	s.from = s.to
	return f, at, n, nil
}

// Again implements fileSource.
func (s *pagedSource) Again(n int64) { s.from -= n }

// Close implements source.
func (s *pagedSource) Close() { runtime.KeepAlive(s.b) }

// diskContent is a body on disk.
type diskContent struct{ r *disk.Record }

func (c diskContent) size() int64 { return c.r.Length }

func (c diskContent) part(from, to int64) source {
	c.r.Retain()
	return &diskSource{r: c.r, from: from, to: to}
}

// diskSource hands out a part of a record, block by block, each verified
// before its first byte. A damaged block ends it with an error.
type diskSource struct {
	r        *disk.Record
	from, to int64
	buf      *[]byte
}

// blocks are what records are read into.
var blocks = sync.Pool{New: func() any { b := make([]byte, disk.BlockBytes); return &b }}

// Next implements source.
func (s *diskSource) Next() ([]byte, error) {
	if s.from >= s.to {
		return nil, io.EOF
	}
	if s.buf == nil {
		s.buf = blocks.Get().(*[]byte)
	}
	i := s.from / disk.BlockBytes
	block, err := s.r.Block(int(i), *s.buf)
	if err != nil {
		return nil, cutShort(err)
	}
	piece := block[s.from-i*disk.BlockBytes : min(int64(len(block)), s.to-i*disk.BlockBytes)]
	s.from += int64(len(piece))
	return piece, nil
}

// NextFile implements fileSource.
func (s *diskSource) NextFile() (f *os.File, at, n int64, err error) {
	if s.from >= s.to {
		return nil, 0, 0, io.EOF
	}
	i := s.from / disk.BlockBytes
	f, at, err = s.r.File(int(i))
	if f == nil || err != nil {
		return nil, 0, 0, err
	}
	within := s.from - i*disk.BlockBytes
	n = min(disk.BlockBytes-within, s.to-s.from)
	s.from += n
	return f, at + within, n, nil
}

// Again implements fileSource.
func (s *diskSource) Again(n int64) { s.from -= n }

// Close implements source.
func (s *diskSource) Close() {
	if s.buf != nil {
		blocks.Put(s.buf)
		s.buf = nil
	}
	if s.r != nil {
		s.r.Release()
		s.r = nil
	}
}
