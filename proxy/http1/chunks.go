package http1

import (
	"bytes"
	"iter"

	"firstbell/proxy/field"
)

const (
	chunkLineMax = 256 // bytes of a chunk's size line: 16 digits, the rest for extensions
	// wasteMax bounds how much framing there may be beyond what content pays
	// for: each chunk may cost 16 bytes and twice its content.
	wasteMax   = 16 << 10
	trailerMax = 8 << 10 // bytes of a trailer section
)

// Chunks decodes chunked content (RFC 9112 section 7.1) from the pieces it
// comes in. The zero value stands before the first chunk.
type Chunks struct {
	left  int64 // content left in this chunk
	state chunkState
	waste int64
	tail  int // bytes of the trailer section so far

	trailer []byte // the field lines of the trailer section, as sent
}

type chunkState uint8

const (
	atSize    chunkState = iota // before a size line
	inContent                   // in a chunk's content
	atEnd                       // before the CRLF behind a chunk's content
	inTrailer                   // before a line of the trailer section
	ended                       // behind the empty line
)

// Done reports whether the content has ended, its trailer section included.
func (k *Chunks) Done() bool { return k.state == ended }

// Next reads on in b, what has come of the message and was not used yet. It
// returns a part of b that is content, which may be empty, and how many bytes
// of b are used up, that content among them. When nothing is used up and Done
// is false, more bytes are needed: b holds an unfinished line. The error is a
// *field.Refusal. Trailer fields are checked and kept for Trailer.
func (k *Chunks) Next(b []byte) (content []byte, used int, err error) {
	for {
		switch k.state {
		case inContent:
			n := min(int64(len(b)-used), k.left)
			content = b[used : used+int(n)]
			if k.left -= n; k.left == 0 {
				k.state = atEnd
			}
			return content, used + int(n), nil
		case ended:
			return nil, used, nil
		case atEnd:
			if rest := b[used:]; len(rest) < 2 {
				if len(rest) == 1 && rest[0] != '\r' {
					return nil, used, refuseChunk
				}
				return nil, used, nil
			} else if rest[0] != '\r' || rest[1] != '\n' {
				return nil, used, refuseChunk
			}
			used += 2
			k.state = atSize
		default:
			n := bytes.IndexByte(b[used:], '\n') + 1
			if n == 0 {
				return nil, used, k.unfinished(b[used:])
			}
			if err := k.line(b[used : used+n]); err != nil {
				return nil, used, err
			}
			used += n
		}
	}
}

// unfinished bounds a line that has not ended yet.
func (k *Chunks) unfinished(b []byte) error {
	switch {
	case k.state == atSize && len(b) >= chunkLineMax:
		return refuseChunk
	case k.state == inTrailer && k.tail+len(b) >= trailerMax:
		return refuseTrailer
	}
	return nil
}

// line takes a size line or one of the trailer section, its line end included.
func (k *Chunks) line(b []byte) error {
	if k.state == atSize {
		return k.sizeLine(b)
	}
	if k.tail += len(b); k.tail > trailerMax || len(b) < 2 || b[len(b)-2] != '\r' {
		return refuseTrailer
	}
	if len(b) == 2 {
		k.state = ended
		return nil
	}
	name, _, err := parseLine(b[:len(b)-2])
	if err != nil || frames(name) {
		return refuseTrailer
	}
	k.trailer = append(k.trailer, b...)
	return nil
}

// frames reports the fields that no trailer section has in good faith: who
// takes them from there reads another message than we do.
func frames(name []byte) bool {
	return field.EqualName(name, "Content-Length") || field.EqualName(name, "Transfer-Encoding") || field.EqualName(name, "Host")
}

// Trailer yields the fields of the trailer section, in order and as sent, once
// Done. They are in memory of their own. What is forbidden in trailers (RFC 9110
// section 6.5.1) is among them, but for what frames a message.
func (k *Chunks) Trailer() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for line := range bytes.Lines(k.trailer) {
			name, value, _ := parseLine(line[:len(line)-2]) // it was read before
			if !yield(name, value) {
				return
			}
		}
	}
}

// sizeLine reads "1f;name=value" CRLF. White space around the size is refused:
// recipients differ in what they make of it.
func (k *Chunks) sizeLine(b []byte) error {
	if len(b) > chunkLineMax || len(b) < 3 || b[len(b)-2] != '\r' {
		return refuseChunk
	}
	line := b[:len(b)-2]
	var size int64
	digits := 0
	for ; digits < len(line); digits++ {
		d := hexDigit(line[digits])
		if d < 0 {
			break
		}
		size = size<<4 | int64(d)
	}
	if digits == 0 || digits > 15 || digits < len(line) && line[digits] != ';' {
		return refuseChunk
	}
	for _, c := range line[digits:] {
		if !valueChar[c] {
			return refuseChunk
		}
	}
	k.waste = max(0, k.waste+int64(len(b))-16-2*min(size, 1<<20))
	if k.waste > wasteMax {
		return refuseChunk
	}
	k.left, k.state = size, inContent
	if size == 0 {
		k.state = inTrailer
	}
	return nil
}

func hexDigit(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
