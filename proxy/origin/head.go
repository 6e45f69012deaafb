package origin

import (
	"bytes"
	"strings"
	"time"
	"unsafe"

	"firstbell/proxy/field"
)

// head is a parsed response head.
type head struct {
	status    int
	fields    field.List    // end-to-end fields; Content-Length is not among them
	length    int64         // the Content-Length, -1 without one
	chunked   bool          // the transfer coding is chunked
	last      bool          // no further response may follow on the connection
	keepAlive time.Duration // idle time the server named; 0: none
	trailer   string        // the trailer fields that it announces, less forbidden ones
	upgrade   string        // the protocols that Upgrade names, comma separated
	options   string        // the options that Connection names, comma separated
}

// headEnd returns the length of the head at the beginning of b, its empty line
// included, or -1 if b holds no empty line yet. Lines end in CRLF or a lone LF
// (RFC 9112 section 2.2). The first seen bytes are known to hold no end.
func headEnd(b []byte, seen int) int {
	// The end may have begun up to three bytes before what is new.
	for i := max(seen-3, 0); ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return -1
		}
		i += n + 1
		if i < len(b) && b[i] == '\n' {
			return i + 1
		}
		if i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n' {
			return i + 2
		}
	}
}

// headRoom is where heads are parsed into, one after the other: what is known
// of the last is gone with the next.
type headRoom struct {
	text   []byte
	fields field.List
}

// keep returns b as a string, and room for n fields. A nil h makes new ones.
func (h *headRoom) keep(b []byte, n int) (string, field.List) {
	if h == nil {
		return string(b), make(field.List, 0, n)
	}
	h.text = append(h.text[:0], b...)
	if cap(h.fields) < n {
		h.fields = make(field.List, 0, max(n, 16))
	}
	return unsafe.String(unsafe.SliceData(h.text), len(b)), h.fields[:0]
}

// parseHead reads a head, its empty line included, into room, which may be nil.
// It may overwrite b, and keeps nothing of it.
func parseHead(room *headRoom, b []byte, fieldsMax int) (head, error) {
	h := head{length: -1}
	n := bytes.Count(b, []byte{'\n'}) - 2
	if n > fieldsMax {
		return h, malformed("%d field lines, allowed are %d", n, fieldsMax)
	}
	unfold(b)
	var s string
	s, h.fields = room.keep(b, max(n, 0))
	line, rest := cutLine(s)
	minor, err := h.parseStatusLine(line)
	if err != nil {
		return h, err
	}
	h.last = minor == 0
	f := framing{}
	for {
		if line, rest = cutLine(rest); line == "" {
			break
		}
		name, value, err := parseField(line)
		if err != nil {
			return h, err
		}
		taken, err := f.take(name, value)
		if err != nil {
			return h, err
		}
		if !taken {
			h.fields = append(h.fields, field.Field{Name: name, Value: value})
		}
	}
	return h, h.apply(&f, minor)
}

// parseStatusLine reads "HTTP/1.1 200 OK" (RFC 9112 section 4). The reason and
// the space before it may be missing.
func (h *head) parseStatusLine(line string) (minor int, err error) {
	const form = "HTTP/1.x NNN"
	if len(line) < len(form) || line[:7] != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return 0, malformed("status line %q is not one of HTTP/1.0 or HTTP/1.1", clip(line))
	}
	for _, c := range []byte(line[9:12]) {
		if c < '0' || c > '9' {
			return 0, malformed("status line %q has no three-digit status code", clip(line))
		}
		h.status = h.status*10 + int(c-'0')
	}
	if h.status < 100 || h.status > 599 || len(line) > len(form) && line[12] != ' ' {
		return 0, malformed("status line %q has no status code of 100 to 599", clip(line))
	}
	if !validValue(line) {
		return 0, malformed("status line %q holds a control character", clip(line))
	}
	return int(line[7] - '0'), nil
}

// parseField reads one field line. White space before the colon is removed, as
// RFC 9112 section 5.1 asks of a proxy, save in a field that frames the
// message: who reads that differently sees other messages.
func parseField(line string) (name, value string, err error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return "", "", malformed("field line %q has no colon", clip(line))
	}
	if bare := trimBlankEnd(name); len(bare) != len(name) {
		if isFraming(bare) {
			return "", "", malformed("field line %q has white space before its colon", clip(line))
		}
		name = bare
	}
	if !validName(name) {
		return "", "", malformed("field line %q has an invalid name", clip(line))
	}
	value = field.TrimBlank(value)
	if !validValue(value) {
		return "", "", malformed("field %s holds a control character", clip(name))
	}
	return name, value, nil
}

// framing gathers the fields that concern the message's framing and its
// connection.
type framing struct {
	lengths, codings int   // lines seen
	length           int64 // of the Content-Length lines, which all agree
	chunked          bool
	options          string // Connection options, comma separated
	keepAlive        string
	trailer          string // names announced, comma separated
	upgrade          string
}

// take keeps the field if it concerns only this connection, and reports that.
func (f *framing) take(name, value string) (bool, error) {
	switch len(name) {
	case len("Content-Length"):
		if strings.EqualFold(name, "Content-Length") {
			return true, f.takeLength(value)
		}
	case len("Transfer-Encoding"):
		if strings.EqualFold(name, "Transfer-Encoding") {
			f.codings++
			if f.chunked = strings.EqualFold(value, "chunked"); !f.chunked || f.codings > 1 {
				return true, malformed("transfer coding %q; only one chunked was allowed", clip(value))
			}
			return true, nil
		}
	case len("Trailer"): // and of Upgrade
		if strings.EqualFold(name, "Trailer") {
			f.announce(value)
			return true, nil
		}
		if strings.EqualFold(name, "Upgrade") {
			if f.upgrade != "" {
				value = f.upgrade + "," + value
			}
			f.upgrade = value
			return true, nil
		}
	case len("Connection"):
		if strings.EqualFold(name, "Connection") {
			if f.options != "" {
				value = f.options + "," + value
			}
			f.options = value
			return true, nil
		}
		if strings.EqualFold(name, "Keep-Alive") {
			f.keepAlive = value
			return true, nil
		}
	}
	return field.HopByHopName(name), nil
}

// announce keeps the names of trailer fields that may come.
func (f *framing) announce(names string) {
	for name := range strings.SplitSeq(names, ",") {
		name = field.TrimBlank(name)
		if !validName(name) || forbiddenInTrailer(name) {
			continue
		}
		if f.trailer != "" {
			name = ", " + name
		}
		f.trailer += name
	}
}

// takeLength reads a Content-Length, which may be a list of equal lengths
// (RFC 9110 section 8.6).
func (f *framing) takeLength(value string) error {
	for member := range strings.SplitSeq(value, ",") {
		n, ok := field.ParseLength(field.TrimBlank(member))
		if !ok {
			return malformed("Content-Length %q is not a length", clip(value))
		}
		if f.lengths > 0 && n != f.length {
			return malformed("Content-Length %d and %d in one response", f.length, n)
		}
		f.length = n
		f.lengths++
	}
	return nil
}

// apply draws the conclusions from f: how the message is framed, whether the
// connection lasts, and which fields its Connection options remove.
func (h *head) apply(f *framing, minor int) error {
	h.chunked = f.chunked
	if f.lengths > 0 {
		h.length = f.length
	}
	switch {
	case f.codings > 0 && f.lengths > 0:
		return malformed("both Transfer-Encoding and Content-Length")
	case f.codings > 0 && minor == 0:
		return malformed("Transfer-Encoding in an HTTP/1.0 response")
	case h.status < 200 && (f.codings > 0 || h.length > 0):
		return malformed("a %d response with content", h.status)
	}
	if f.options != "" {
		h.applyOptions(f.options)
	}
	h.keepAlive, h.trailer = keepAliveTimeout(f.keepAlive), f.trailer
	h.upgrade, h.options = f.upgrade, f.options
	return nil
}

func (h *head) applyOptions(options string) {
	named := false
	for option := range strings.SplitSeq(options, ",") {
		option = field.TrimBlank(option)
		if strings.EqualFold(option, "close") {
			h.last = true
		} else if option != "" && !strings.EqualFold(option, "keep-alive") {
			named = true
		}
	}
	if !named {
		return
	}
	kept := h.fields[:0]
	for _, f := range h.fields {
		if !optionNames(options, f.Name) {
			kept = append(kept, f)
		}
	}
	h.fields = kept
}

// optionNames reports whether a Connection option removes the field. The fields
// that say who may see and keep a response stay whatever an option says:
// RFC 9110 section 7.6.1 forbids naming them, and without them a private
// response could pass for a public one.
func optionNames(options, name string) bool {
	for _, keep := range [...]string{"Cache-Control", "Set-Cookie", "Vary", "Expires", "Pragma"} {
		if strings.EqualFold(name, keep) {
			return false
		}
	}
	for option := range strings.SplitSeq(options, ",") {
		if strings.EqualFold(field.TrimBlank(option), name) {
			return true
		}
	}
	return false
}

// keepAliveTimeout reads "timeout=5" out of a Keep-Alive field: the idle time
// after which the server closes. One second is taken off for the way there.
func keepAliveTimeout(value string) time.Duration {
	for param := range strings.SplitSeq(value, ",") {
		name, number, _ := strings.Cut(field.TrimBlank(param), "=")
		if !strings.EqualFold(name, "timeout") {
			continue
		}
		if n, ok := field.ParseLength(number); ok && n < 1<<20 {
			return max(time.Duration(n)*time.Second-time.Second, time.Millisecond)
		}
	}
	return 0
}

// unfold replaces every obs-fold (a line end followed by white space) with
// spaces, one of the two things RFC 9112 section 5.2 lets a proxy do. A fold
// right after the status line continues no field and is left to be refused.
func unfold(b []byte) {
	first := bytes.IndexByte(b, '\n') + 1
	for i := first; i < len(b); {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return
		}
		i += n
		if i+1 < len(b) && (b[i+1] == ' ' || b[i+1] == '\t') {
			b[i] = ' '
			if b[i-1] == '\r' {
				b[i-1] = ' '
			}
		}
		i++
	}
}
