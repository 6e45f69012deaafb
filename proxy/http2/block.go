package http2

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// A header block is made without the dynamic table (RFC 7541 section 6.2.2): it
// depends on nothing that was sent before, so one made once is good for every
// connection and every time.

// staticNames are the names of responses that the static table has (RFC 7541
// appendix A), by their place there.
var staticNames = map[string]byte{
	"accept-ranges": 18, "access-control-allow-origin": 20, "age": 21, "allow": 22, "cache-control": 24,
	"content-disposition": 25, "content-encoding": 26, "content-language": 27, "content-length": 28, "content-location": 29,
	"content-range": 30, "content-type": 31, "date": 33, "etag": 34, "expires": 36, "last-modified": 44, "link": 45,
	"location": 46, "proxy-authenticate": 48, "refresh": 52, "retry-after": 53, "server": 54, "set-cookie": 55,
	"strict-transport-security": 56, "vary": 59, "via": 60, "www-authenticate": 61,
}

// staticStatuses are the statuses that the static table has whole.
var staticStatuses = [...]int{200, 204, 206, 304, 400, 404, 500}

// AppendStatus begins a header block with a status.
func AppendStatus(b []byte, status int) []byte {
	for i, s := range staticStatuses {
		if s == status {
			return append(b, 0x80|byte(8+i))
		}
	}
	b = append(b, 0x08, 3) // the name of entry 8, three octets
	return strconv.AppendInt(b, int64(status), 10)
}

// AppendField appends a field, its name in lower case. What logs somebody in
// is marked as never to be indexed by anybody on the way (RFC 7541 section 7.1.3).
func AppendField(b []byte, name, value string) []byte {
	b = AppendName(b, name)
	return appendString(b, value)
}

// AppendName appends a field's name alone: AppendValue has to follow.
func AppendName(b []byte, name string) []byte {
	name = lower(name)
	first := byte(0x00)
	if name == "set-cookie" {
		first = 0x10
	}
	if i, ok := staticNames[name]; ok {
		return hpackInt(b, first, 4, uint64(i))
	}
	return appendString(append(b, first), name)
}

// AppendValue appends the value of a field whose name was appended, as it is.
func AppendValue(b, value []byte) []byte {
	return append(hpackInt(b, 0x00, 7, uint64(len(value))), value...)
}

// appendString appends a string in the Huffman code, if that makes it shorter.
func appendString(b []byte, s string) []byte {
	if n := hpack.HuffmanEncodeLength(s); n < uint64(len(s)) {
		return hpack.AppendHuffmanString(hpackInt(b, 0x80, 7, n), s)
	}
	return append(hpackInt(b, 0x00, 7, uint64(len(s))), s...)
}

// hpackInt appends an integer with a prefix of so many bits (RFC 7541 section
// 5.1), below the bits of first.
func hpackInt(b []byte, first byte, bits uint, n uint64) []byte {
	limit := uint64(1)<<bits - 1
	if n < limit {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(limit))
	for n -= limit; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// lower is strings.ToLower for names, which mostly are ASCII; it allocates only
// for those that are not in lower case and not known.
func lower(name string) string {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' {
			return strings.ToLower(name)
		}
	}
	return name
}
