package http3

import (
	"io"
	"strconv"

	"github.com/quic-go/qpack"
	"golang.org/x/net/http2/hpack"
)

var errSection = connError(DecompressionFailed, "a field section cannot be decoded")

// Section decodes a field section (RFC 9204 section 4.5), and changes its
// bytes. Every line is given to add, whose error ends the reading and is
// returned; an *Error is the section's own.
func Section(p []byte, add func(name, value string) error) error {
	inserts, rest, ok := prefixInt(p, 8)
	if !ok || inserts != 0 || len(rest) == 0 {
		return errSection // no dynamic table is offered
	}
	if _, rest, ok = prefixInt(rest, 7); !ok {
		return errSection
	}
	// The base means nothing without a dynamic table (section 4.5.1.2).
	p = p[len(p)-len(rest)-2:]
	p[0], p[1] = 0, 0
	next := qpack.NewDecoder().Decode(p)
	for {
		f, err := next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return errSection
		}
		if err := add(f.Name, f.Value); err != nil {
			return err
		}
	}
}

// prefixInt reads an integer with a prefix of n bits (RFC 7541 section 5.1).
func prefixInt(p []byte, n uint) (v uint64, rest []byte, ok bool) {
	if len(p) == 0 {
		return 0, nil, false
	}
	full := uint64(1)<<n - 1
	if v = uint64(p[0]) & full; v < full {
		return v, p[1:], true
	}
	for i, b := range p[1:] {
		if i == 8 {
			break
		}
		v += uint64(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			return v, p[i+2:], true
		}
	}
	return 0, nil, false
}

func appendPrefixInt(b []byte, first byte, n uint, v uint64) []byte {
	full := uint64(1)<<n - 1
	if v < full {
		return append(b, first|byte(v))
	}
	b = append(b, first|byte(full))
	for v -= full; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// staticNames are the names of answers' fields in the static table (RFC 9204
// appendix A), each with its first index.
var staticNames = map[string]uint64{
	"age": 2, "content-disposition": 3, "content-length": 4, "date": 6, "etag": 7, "last-modified": 10, "link": 11,
	"location": 12, "set-cookie": 14, "accept-ranges": 32, "access-control-allow-headers": 33,
	"access-control-allow-origin": 35, "cache-control": 36, "content-encoding": 42, "content-type": 44,
	"strict-transport-security": 56, "vary": 59, "x-content-type-options": 61, "x-xss-protection": 62,
	"access-control-allow-credentials": 73, "access-control-allow-methods": 76, "access-control-expose-headers": 79,
	"alt-svc": 83, "content-security-policy": 85, "server": 92, "timing-allow-origin": 93, "x-frame-options": 97,
}

// staticStatuses are the statuses that the static table holds.
var staticStatuses = map[int]uint64{
	103: 24, 200: 25, 304: 26, 404: 27, 503: 28, 100: 63, 204: 64, 206: 65, 302: 66, 400: 67, 403: 68, 421: 69, 425: 70, 500: 71,
}

// nameBytesMax is up to what length a name is looked up.
const nameBytesMax = 48

// AppendStatus begins a field section of an answer: AppendField appends its
// fields, AppendHeaders goes before it.
func AppendStatus(b []byte, status int) []byte {
	b = append(b, 0, 0) // no dynamic table
	if i, ok := staticStatuses[status]; ok {
		return appendPrefixInt(b, 0xc0, 6, i)
	}
	b = appendPrefixInt(b, 0x50, 4, 24)
	return append(appendPrefixInt(b, 0, 7, 3), strconv.Itoa(status)...)
}

// BeginTrailers begins a trailer section, as AppendStatus does an answer's.
func BeginTrailers(b []byte) []byte { return append(b, 0, 0) }

// AppendField appends a field to a section; the name is written in lower case.
func AppendField(b []byte, name, value string) []byte {
	var low [nameBytesMax]byte
	if len(name) <= len(low) {
		n := appendLower(low[:0], name)
		if i, ok := staticNames[string(n)]; ok {
			return appendString(appendPrefixInt(b, 0x50, 4, i), value)
		}
	}
	b = appendPrefixInt(b, 0x20, 3, uint64(len(name)))
	return appendString(appendLower(b, name), value)
}

func appendString(b []byte, s string) []byte {
	if n := hpack.HuffmanEncodeLength(s); n < uint64(len(s)) {
		return hpack.AppendHuffmanString(appendPrefixInt(b, 0x80, 7, n), s)
	}
	return append(appendPrefixInt(b, 0, 7, uint64(len(s))), s...)
}

func appendLower(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// AppendHeaders appends the head of a HEADERS frame for a section of n bytes.
func AppendHeaders(b []byte, n int) []byte {
	return appendVarint(append(b, frameHeaders), uint64(n))
}
