package proxy

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/molecule-man/go-brrr"

	"firstbell/cache"
)

// zstdWindowMax is the largest window that a client has to take (RFC 9659),
// and so the largest that is decoded here.
const zstdWindowMax = 8 << 20

// newDecoder decodes what it reads from r. Its memory is bounded whatever
// comes. Nothing has to be closed: none of the decoders has goroutines.
func newDecoder(c cache.Coding, r io.Reader) (io.Reader, error) {
	switch c {
	case cache.Gzip:
		return gzip.NewReader(r)
	case cache.Zstd:
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindowMax))
	case cache.Brotli:
		return brrr.NewReader(r), nil
	}
	return nil, fmt.Errorf("decoding: %s is no coding known here", c)
}

// decodable reports whether content in the coding can be decoded here.
func decodable(c cache.Coding) bool { return c != cache.Identity && c != cache.OtherCoding }

// decodedSource decodes a source.
type decodedSource struct {
	from   source
	coding cache.Coding
	in     sourceReader
	out    io.Reader
	buf    *[]byte
}

// Next implements source.
func (d *decodedSource) Next() ([]byte, error) {
	if d.buf == nil {
		d.in.from, d.buf = d.from, pieces.Get().(*[]byte)
	}
	if d.out == nil {
		out, err := newDecoder(d.coding, &d.in)
		if err != nil {
			return nil, d.ended(err)
		}
		d.out = out
	}
	for {
		n, err := d.out.Read(*d.buf)
		if n > 0 {
			return (*d.buf)[:n], nil
		}
		if err != nil {
			return nil, d.ended(err)
		}
	}
}

// ended tells a clean end from a cut: nothing at all is nothing, in every
// coding.
func (d *decodedSource) ended(err error) error {
	switch {
	case errors.Is(err, io.EOF) && d.in.read == 0:
		return io.EOF
	case err == io.EOF && d.out == nil:
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close implements source.
func (d *decodedSource) Close() {
	if d.buf != nil {
		pieces.Put(d.buf)
		d.buf = nil
	}
	d.from.Close()
}

// sourceReader is a source as an io.Reader.
type sourceReader struct {
	from source
	rest []byte
	read int64
}

// Read implements io.Reader.
func (r *sourceReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		piece, err := r.from.Next()
		if err != nil {
			return 0, err
		}
		r.rest = piece
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.read += int64(n)
	return n, nil
}
