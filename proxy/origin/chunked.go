package origin

import (
	"bytes"
	"strings"
	"time"

	"firstbell/proxy/field"
)

const (
	// chunkLineBytesMax bounds one chunk-size line; 16 digits need 18 bytes, the
	// rest is for extensions, which nobody uses in earnest.
	chunkLineBytesMax = 512
	// chunkWasteBytesMax bounds how much more framing than content there may
	// be, summed over a message: see chunks.waste.
	chunkWasteBytesMax = 16 << 10
)

// chunks reads chunked content (RFC 9112 section 7.1).
type chunks struct {
	left    int64 // content left in this chunk
	endOpen bool  // the CRLF behind this chunk's content is still to be read
	// waste is how much framing there was beyond what content pays for: each
	// chunk may cost 16 bytes and twice its content.
	waste   int64
	trailer field.List
}

// read fills p with one chunk's content, and with that of the chunks behind it
// that have come already: small chunks would else cost a Read each. whole says
// that the last chunk and the trailer section have been read; io.EOF, as ever,
// that the connection ended.
func (k *chunks) read(c *conn, p []byte, idle time.Duration, t trailerLimits) (n int, whole bool, err error) {
	for {
		var more int
		more, whole, err = k.readOne(c, p[n:], idle, t)
		n += more
		if whole || err != nil || n == len(p) || k.left > 0 || !nextHasCome((*c.buf)[c.r:c.w]) {
			return n, whole, err
		}
	}
}

// readOne fills p from one chunk.
func (k *chunks) readOne(c *conn, p []byte, idle time.Duration, t trailerLimits) (n int, whole bool, err error) {
	if k.left == 0 {
		if err = k.next(c, idle); err != nil {
			return 0, false, err
		}
		if k.left == 0 {
			k.trailer, err = readTrailer(c, idle, t)
			return 0, err == nil, err
		}
	}
	n, err = c.read(p[:min(int64(len(p)), k.left)], idle)
	k.left -= int64(n)
	return n, false, err
}

// ready reports whether b, what has been received, holds content.
func (k *chunks) ready(b []byte) bool {
	if k.left > 0 {
		return true
	}
	line := bytes.IndexByte(b, '\n')
	return !k.endOpen && line >= 0 && line+1 < len(b)
}

// nextHasCome reports whether b, what has been received behind a chunk's
// content, holds the next chunk's line and some of its content, or a plain end
// of the message: reading on waits for nobody.
func nextHasCome(b []byte) bool {
	if bytes.HasPrefix(b, []byte("\r\n0")) {
		return bytes.HasPrefix(b, []byte("\r\n0\r\n\r\n"))
	}
	line := bytes.IndexByte(b[min(len(b), len("\r\n")):], '\n')
	return line >= 0 && len("\r\n")+line+1 < len(b)
}

// next reads up to the content of the next chunk; left is 0 after the last.
func (k *chunks) next(c *conn, idle time.Duration) error {
	if k.endOpen {
		end, err := c.take(len("\r\n"), idle)
		if err != nil {
			return err
		}
		if string(end) != "\r\n" {
			return malformed("no line end behind a chunk")
		}
		k.endOpen = false
	}
	line, err := c.readLine(chunkLineBytesMax, idle)
	if err != nil {
		return err
	}
	size, err := parseChunkLine(line)
	if err != nil {
		return err
	}
	k.waste += int64(len(line)) - 16 - 2*min(size, 1<<20)
	if k.waste = max(k.waste, 0); k.waste > chunkWasteBytesMax {
		return malformed("more chunk framing than content")
	}
	k.left, k.endOpen = size, size > 0
	return nil
}

// parseChunkLine reads "1f;name=value" CRLF. A lone LF is refused, white space
// behind the size, with which some servers fill up the line, is not.
func parseChunkLine(line []byte) (int64, error) {
	s := string(line)
	if !strings.HasSuffix(s, "\r\n") {
		return 0, malformed("chunk line %q does not end in CRLF", clip(s))
	}
	s = s[:len(s)-2]
	if !validValue(s) {
		return 0, malformed("chunk line %q holds a control character", clip(s))
	}
	digits := 0
	var size int64
	for ; digits < len(s); digits++ {
		d := hexDigit(s[digits])
		if d < 0 {
			break
		}
		if size >= 1<<58 {
			return 0, malformed("chunk line %q: the size is too large", clip(s))
		}
		size = size<<4 | int64(d)
	}
	rest := field.TrimBlank(s[digits:])
	if digits == 0 || digits > 16 || rest != "" && rest[0] != ';' {
		return 0, malformed("chunk line %q has no size", clip(s))
	}
	return size, nil
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// trailerLimits bound a trailer section.
type trailerLimits struct{ bytesMax, fieldsMax int }

// readTrailer reads the field lines behind the last chunk, up to the empty one.
// Fields forbidden there are dropped.
func readTrailer(c *conn, idle time.Duration, t trailerLimits) (field.List, error) {
	var l field.List
	size := 0
	for lines := 0; ; lines++ {
		b, err := c.readLine(t.bytesMax-size, idle)
		if err != nil {
			return nil, err
		}
		line, _ := cutLine(string(b))
		if line == "" {
			return l, nil
		}
		if size += len(b); lines >= t.fieldsMax {
			return nil, malformed("more than %d trailer fields", t.fieldsMax)
		}
		name, value, err := parseField(line)
		if err != nil {
			return nil, err
		}
		if !forbiddenInTrailer(name) {
			l = append(l, field.Field{Name: name, Value: value})
		}
	}
}
