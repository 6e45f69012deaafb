package head

import (
	"bytes"

	"firstbell/proxy/field"
)

const (
	// FieldsMax bounds the field lines of a request, less those of cookies,
	// which clients may split. Browsers send 10 to 25.
	FieldsMax = 128
	// BytesMax bounds names and values together: a school's cookies reach 6 kB.
	BytesMax = 16 << 10
)

// Head is the field section of a request. The zero Head is ready for use:
// every line is added in the order received, then End is called. Its bytes are
// its own, and valid until Reset.
type Head struct {
	Method, Scheme, Authority, Path []byte // valid after End; Authority is Host's value where only that is there

	// Protocol is the value of :protocol (RFC 8441, RFC 9220); nil when there
	// is none. It is unknown, and so malformed, unless Extended is set.
	Protocol []byte
	Extended bool // kept by Reset

	// Length is what Content-Length announces: -1 when there is none.
	Length int64
	// Continue says that the client waits for 100 before it sends content.
	Continue bool

	buf    []byte // names and values, one behind the other
	spans  []span // of the fields in buf
	pseudo [pseudos]span
	found  uint8 // which of pseudo are there: bits
	bytes  int   // of names and values

	cookie      []byte // the lines of Cookie, joined (RFC 9114 section 4.2.1)
	cookieAt    int    // its place among spans, one further; 0: none
	trailers    bool
	field.Lines // set by End: names in lower case as sent, the cookies as one
	hosts       int
	hostValue   []byte
}

// A span is where a name and its value are: buf[name:value] and buf[value:end].
type span struct{ name, value, end int }

const (
	pseudoMethod = iota
	pseudoScheme
	pseudoAuthority
	pseudoPath
	pseudoProtocol
	pseudos
)

// Reset makes the Head ready for the field section of another request.
func (h *Head) Reset() {
	*h = Head{Extended: h.Extended, buf: h.buf[:0], spans: h.spans[:0], cookie: h.cookie[:0], Lines: h.Lines}
	h.Lines.Reset()
}

// ResetTrailers makes the Head ready for a trailer section: no pseudo-field is
// taken, and none is missed.
func (h *Head) ResetTrailers() {
	h.Reset()
	h.trailers = true
}

// Add adds a line. The error is a *field.Refusal; the Head is of no use then, but for
// Reset. Nothing of name and value is kept.
func (h *Head) Add(name, value string) error {
	if h.bytes += len(name) + len(value); h.bytes > BytesMax {
		return RefuseSize
	}
	if !isValue(value) {
		return refuseValue
	}
	if len(name) > 0 && name[0] == ':' {
		return h.addPseudo(name, value)
	}
	if !isName(name) {
		return refuseName
	}
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return refuseConnection
	case "te":
		if value != "trailers" {
			return refuseConnection
		}
	case "cookie":
		if h.cookieAt > 0 {
			h.cookie = append(append(h.cookie, "; "...), value...)
			h.bytes += len("; ")
			return nil
		}
		h.cookie = append(h.cookie, value...)
		h.cookieAt = len(h.spans) + 1
		value = ""
	}
	if len(h.spans) == FieldsMax {
		return refuseFields
	}
	h.spans = append(h.spans, h.keep(name, value))
	return nil
}

func (h *Head) keep(name, value string) span {
	s := span{name: len(h.buf)}
	h.buf = append(h.buf, name...)
	s.value = len(h.buf)
	h.buf = append(h.buf, value...)
	s.end = len(h.buf)
	return s
}

func (h *Head) addPseudo(name, value string) error {
	which := 0
	switch name {
	case ":method":
		which = pseudoMethod
	case ":scheme":
		which = pseudoScheme
	case ":authority":
		which = pseudoAuthority
	case ":path":
		which = pseudoPath
	case ":protocol":
		which = pseudoProtocol
	default:
		which = -1
	}
	switch {
	case h.trailers:
		return refuseTrailer
	case which < 0 || which == pseudoProtocol && !h.Extended:
		return refusePseudoUnknown
	case h.found&(1<<which) != 0:
		return refusePseudoTwice
	case len(h.spans) > 0:
		return refusePseudoOrder
	}
	h.found |= 1 << which
	h.pseudo[which] = h.keep(name, value)
	return nil
}

func (h *Head) has(which int) bool { return h.found&(1<<which) != 0 }

// End draws from the lines what they say together. The error is a *field.Refusal.
func (h *Head) End() error {
	for i, s := range h.spans {
		name, value := h.buf[s.name:s.value:s.value], h.buf[s.value:s.end:s.end]
		if i+1 == h.cookieAt {
			value = h.cookie
		}
		h.Lines.Add(name, value)
	}
	h.Length = -1
	if h.trailers {
		return nil
	}
	for which, to := range [pseudos]*[]byte{&h.Method, &h.Scheme, &h.Authority, &h.Path, &h.Protocol} {
		if h.has(which) {
			s := h.pseudo[which]
			*to = h.buf[s.value:s.end:s.end]
		}
	}
	if err := h.meaning(); err != nil {
		return err
	}
	return h.request()
}

// meaning reads the fields that say something about the message itself.
func (h *Head) meaning() error {
	lengths := 0
	for i := range h.Len() {
		name, value := h.Line(i)
		switch string(name) {
		case "host":
			h.hosts++
			h.hostValue = value
		case "content-length":
			lengths++
			var ok bool
			if h.Length, ok = field.ParseLength(value); !ok || lengths > 1 {
				return refuseLength
			}
		case "expect":
			if !bytes.EqualFold(value, []byte("100-continue")) {
				return refuseExpect
			}
			h.Continue = true
		}
	}
	h.Continue = h.Continue && h.Length != 0
	return nil
}

// request checks the pseudo-fields (RFC 9113 sections 8.3.1 and 8.5, RFC 9114
// sections 4.3.1 and 4.4).
func (h *Head) request() error {
	if !h.has(pseudoMethod) {
		return refusePseudoMissing
	}
	if len(h.Method) > 32 || !field.IsToken(h.Method) {
		return refuseMethod
	}
	if string(h.Method) == "CONNECT" && h.Protocol == nil {
		if h.has(pseudoScheme) || h.has(pseudoPath) {
			return refusePseudoUnknown
		}
		if len(h.Authority) == 0 {
			return refuseAuthority
		}
		return nil
	}
	if h.Protocol != nil && string(h.Method) != "CONNECT" {
		return refusePseudoUnknown
	}
	if !h.has(pseudoScheme) || !h.has(pseudoPath) || h.Protocol != nil && !h.has(pseudoAuthority) {
		return refusePseudoMissing
	}
	if len(h.Path) == 0 || h.Path[0] != '/' && !(string(h.Path) == "*" && string(h.Method) == "OPTIONS") {
		return refusePath
	}
	return h.host()
}

// host sees to it that the request is for exactly one authority.
func (h *Head) host() error {
	switch {
	case h.hosts > 1:
		return refuseHost
	case h.has(pseudoAuthority) && h.hosts == 1 && !bytes.EqualFold(h.Authority, h.hostValue):
		return refuseHost
	case !h.has(pseudoAuthority):
		h.Authority = h.hostValue
	}
	if len(h.Authority) == 0 || bytes.IndexByte(h.Authority, '@') >= 0 {
		return refuseAuthority
	}
	return nil
}
