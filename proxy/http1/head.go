package http1

import (
	"bytes"
	"iter"
)

// FieldsMax bounds the field lines of a request. Browsers send 10 to 25.
const FieldsMax = 128

// Head is a request's head: the request line and the header section. Its bytes
// are those that were parsed. The zero Head is ready for use; Parse may be
// called again for the next request.
type Head struct {
	Method []byte // a token, as sent
	Target []byte // as sent: no controls, spaces or '#'
	Host   []byte // the Host field's value; nil when there is none
	Minor  int    // of HTTP/1.x: 0 or 1

	// Length is the content's: -1 when it is chunked, 0 without content.
	Length int64
	// Last says that the client wants no other answer on this connection.
	Last bool
	// Continue says that the client waits for 100 before it sends content.
	Continue bool

	lines []line
	seen  uint64 // which marks the names have
	all   [][]byte
}

type line struct{ name, value []byte }

// End returns the length of the head that b begins with, the empty line
// included, or 0 when it has not ended yet; the first seen bytes of b are known
// to hold no end. It refuses a line that ends in LF alone as soon as it comes.
// An empty line before the request line, which old clients send behind
// content, makes a head of two bytes: pass over it (RFC 9112 section 2.2).
func End(b []byte, seen int) (int, error) {
	for i := seen; ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0, nil
		}
		i += n + 1
		if i < 2 || b[i-2] != '\r' {
			return 0, refuseLineEnd
		}
		if i == 2 || b[i-3] == '\n' {
			return i, nil
		}
	}
}

// Parse reads the head that b is, its empty line included. The error is a
// *Refusal; the Head is of no use then. Nothing is copied or allocated but for
// a Head's first requests.
func (h *Head) Parse(b []byte) error {
	*h = Head{lines: h.lines[:0], all: h.all[:0]}
	end := bytes.IndexByte(b, '\n')
	if end < 1 {
		return refuseStartLine
	}
	if err := h.startLine(b[:end-1]); err != nil {
		return err
	}
	for b = b[end+1:]; len(b) > 2; {
		end := bytes.IndexByte(b, '\n')
		if end < 1 || b[end-1] != '\r' {
			return refuseLineEnd
		}
		if len(h.lines) == FieldsMax {
			return refuseFields
		}
		name, value, err := parseLine(b[:end-1])
		if err != nil {
			return err
		}
		h.lines = append(h.lines, line{name, value})
		h.seen |= mark(name)
		b = b[end+1:]
	}
	return h.frame()
}

// startLine reads "GET /lessons HTTP/1.1" (RFC 9112 section 3), with exactly
// one space between its parts.
func (h *Head) startLine(b []byte) error {
	method := bytes.IndexByte(b, ' ')
	version := bytes.LastIndexByte(b, ' ')
	if method < 1 || version <= method+1 {
		return refuseStartLine
	}
	h.Method, h.Target = b[:method], b[method+1:version]
	if len(h.Method) > 32 || !isToken(h.Method) {
		return refuseMethod
	}
	for _, c := range h.Target {
		if !targetChar[c] {
			return refuseTarget
		}
	}
	switch v := b[version+1:]; {
	case string(v) == "HTTP/1.1":
		h.Minor = 1
	case string(v) == "HTTP/1.0":
	case len(v) == len("HTTP/1.1") && string(v[:5]) == "HTTP/" && isDigit(v[5]) && v[6] == '.' && isDigit(v[7]):
		return refuseVersion
	default:
		return refuseStartLine
	}
	return nil
}

// parseLine reads a field line (RFC 9112 section 5) without its CRLF.
func parseLine(b []byte) (name, value []byte, err error) {
	colon := bytes.IndexByte(b, ':')
	switch {
	case len(b) > 0 && (b[0] == ' ' || b[0] == '\t'):
		return nil, nil, refuseFold
	case colon < 1 || !isToken(b[:colon]):
		return nil, nil, refuseName
	}
	name, value = b[:colon], trimBlank(b[colon+1:])
	for _, c := range value {
		if !valueChar[c] {
			return nil, nil, refuseValue
		}
	}
	return name, value, nil
}

// frame draws from the fields where the content ends (RFC 9112 section 6.3)
// and what becomes of the connection.
func (h *Head) frame() error {
	var lengths, codings, hosts int
	keep := false
	for _, l := range h.lines {
		switch len(l.name) {
		case len("Host"):
			if equalFold(l.name, "Host") {
				hosts++
				h.Host = l.value
			}
		case len("Content-Length"):
			if equalFold(l.name, "Content-Length") {
				lengths++
				var ok bool
				if h.Length, ok = parseLength(l.value); !ok {
					return refuseLength
				}
			}
		case len("Transfer-Encoding"):
			if equalFold(l.name, "Transfer-Encoding") {
				codings++
				if !equalFold(l.value, "chunked") {
					return refuseCoding
				}
			}
		case len("Connection"):
			if equalFold(l.name, "Connection") {
				h.Last = h.Last || hasOption(l.value, "close")
				keep = keep || hasOption(l.value, "keep-alive")
			}
		case len("Expect"):
			if equalFold(l.name, "Expect") {
				if !equalFold(l.value, "100-continue") {
					return refuseExpect
				}
				h.Continue = true
			}
		}
	}
	switch {
	case hosts > 1 || hosts == 0 && h.Minor == 1:
		return refuseHost
	case lengths > 0 && codings > 0:
		return refuseBoth
	case lengths > 1:
		return refuseLength
	case codings > 1 || codings == 1 && h.Minor == 0:
		return refuseCoding
	case codings == 1:
		h.Length = -1
	}
	h.Last = h.Last || h.Minor == 0 && !keep
	h.Continue = h.Continue && h.Minor == 1 && h.Length != 0
	return nil
}

// hasOption reports whether a list of connection options has one.
func hasOption(list []byte, option string) bool {
	if len(list) == len(option) {
		return equalFold(list, option)
	}
	for member := range bytes.SplitSeq(list, []byte{','}) {
		if equalFold(trimBlank(member), option) {
			return true
		}
	}
	return false
}

// parseLength reads digits, at most 18 of them: an exabyte.
func parseLength(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// Peek returns the value of the first field line with the name, nil when there
// is none or it is empty.
func (h *Head) Peek(name string) []byte {
	if h.seen&markOf(name) == 0 {
		return nil
	}
	for i := range h.lines {
		if l := &h.lines[i]; len(l.name) == len(name) && equalFold(l.name, name) {
			if len(l.value) == 0 {
				return nil
			}
			return l.value
		}
	}
	return nil
}

// PeekAll returns the value of every line with the name, valid until the next
// call.
func (h *Head) PeekAll(name string) [][]byte {
	h.all = h.all[:0]
	if h.seen&markOf(name) == 0 {
		return h.all
	}
	for i := range h.lines {
		if l := &h.lines[i]; len(l.name) == len(name) && equalFold(l.name, name) {
			h.all = append(h.all, l.value)
		}
	}
	return h.all
}

// All yields every field line in order, as sent.
func (h *Head) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for _, l := range h.lines {
			if !yield(l.name, l.value) {
				return
			}
		}
	}
}

// mark is a bit for a field's name, so that asking for one that is not there
// costs nearly nothing: most of what a proxy asks for is not there.
func mark(name []byte) uint64 {
	return 1 << ((uint(len(name))*7 + uint(name[0]|0x20) + uint(name[len(name)-1]|0x20)*3) & 63)
}

func markOf(name string) uint64 {
	return 1 << ((uint(len(name))*7 + uint(name[0]|0x20) + uint(name[len(name)-1]|0x20)*3) & 63)
}

// Lines is how many field lines there are, and Line one of them: All without a
// closure.
func (h *Head) Lines() int { return len(h.lines) }

// Line returns line i of 0 to Lines()-1.
func (h *Head) Line(i int) (name, value []byte) { return h.lines[i].name, h.lines[i].value }
