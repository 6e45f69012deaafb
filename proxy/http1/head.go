package http1

import (
	"bytes"

	"firstbell/proxy/field"
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

	field.Lines
}

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
// *field.Refusal; the Head is of no use then. Nothing is copied or allocated but for
// a Head's first requests.
func (h *Head) Parse(b []byte) error {
	*h = Head{Lines: h.Lines}
	h.Reset()
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
		if h.Len() == FieldsMax {
			return refuseFields
		}
		name, value, err := parseLine(b[:end-1])
		if err != nil {
			return err
		}
		h.Add(name, value)
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
	if len(h.Method) > 32 || !field.IsToken(h.Method) {
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
	case colon < 1 || !field.IsToken(b[:colon]):
		return nil, nil, refuseName
	}
	name, value = b[:colon], field.TrimBlank(b[colon+1:])
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
	for i := range h.Len() {
		name, value := h.Line(i)
		switch len(name) {
		case len("Host"):
			if field.EqualName(name, "Host") {
				hosts++
				h.Host = value
			}
		case len("Content-Length"):
			if field.EqualName(name, "Content-Length") {
				lengths++
				var ok bool
				if h.Length, ok = field.ParseLength(value); !ok {
					return refuseLength
				}
			}
		case len("Transfer-Encoding"):
			if field.EqualName(name, "Transfer-Encoding") {
				codings++
				if !field.EqualName(value, "chunked") {
					return refuseCoding
				}
			}
		case len("Connection"):
			if field.EqualName(name, "Connection") {
				h.Last = h.Last || hasOption(value, "close")
				keep = keep || hasOption(value, "keep-alive")
			}
		case len("Expect"):
			if field.EqualName(name, "Expect") {
				if !field.EqualName(value, "100-continue") {
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
		return field.EqualName(list, option)
	}
	for member := range bytes.SplitSeq(list, []byte{','}) {
		if field.EqualName(field.TrimBlank(member), option) {
			return true
		}
	}
	return false
}
