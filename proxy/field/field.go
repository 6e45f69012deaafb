package field

import (
	"bytes"
	"iter"
	"unsafe"
)

// Fields is the read side of a field section. Names and values are valid only
// during the call that received them, and must not be changed.
type Fields interface {
	// Peek returns the value of the first field line with the name, nil when
	// there is none. An empty value may be nil, too.
	Peek(name string) []byte
	// All yields every field line in order.
	All() iter.Seq2[[]byte, []byte]
}

// Field is one field line.
type Field struct {
	Name, Value string
}

// List is an owned field section: it may be kept and shared between
// goroutines, as nobody changes it once it has been handed on.
type List []Field

// Copy takes every field line of f that keep wants into a list of its own.
// A nil keep wants all of them.
func Copy(f Fields, keep func(name []byte) bool) List {
	var l List
	for name, value := range f.All() {
		if keep == nil || keep(name) {
			l = append(l, Field{string(name), string(value)})
		}
	}
	return l
}

// Get returns the value of the first field line with the name, or "".
func (l List) Get(name string) string {
	for i := range l {
		if EqualName(l[i].Name, name) {
			return l[i].Value
		}
	}
	return ""
}

// Has reports whether a field line with the name is there.
func (l List) Has(name string) bool {
	for i := range l {
		if EqualName(l[i].Name, name) {
			return true
		}
	}
	return false
}

// Peek is Get for readers of bytes; nil when the name is not there, and only
// then.
func (l List) Peek(name string) []byte {
	for i := range l {
		if EqualName(l[i].Name, name) {
			if l[i].Value == "" {
				return []byte{}
			}
			return view(l[i].Value)
		}
	}
	return nil
}

// All yields every field line in order.
func (l List) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for i := range l {
			if !yield(view(l[i].Name), view(l[i].Value)) {
				return
			}
		}
	}
}

// Without returns the list less every line whose name drop wants gone. The
// receiver is left as it was.
func (l List) Without(drop func(name string) bool) List {
	kept := make(List, 0, len(l))
	for _, f := range l {
		if !drop(f.Name) {
			kept = append(kept, f)
		}
	}
	return kept
}

// hopByHop are the fields that belong to one connection (RFC 9110 section
// 7.6.1). Proxy-Connection is no standard's, but is sent all the same; Alt-Svc
// (RFC 7838) tells of another way to the server that sent it, past us.
var hopByHop = [...]string{
	"Alt-Svc", "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
}

// HopByHop reports whether a field of this name concerns one connection only
// and is never forwarded. Content-Length is left to whoever frames the message.
func HopByHop(name []byte) bool {
	switch len(name) {
	case 2, 7, 10, 16, 17, 18, 19: // those of hopByHop
	default:
		return false
	}
	for _, h := range hopByHop {
		if EqualName(name, h) {
			return true
		}
	}
	return false
}

// HopByHopName is HopByHop for a string.
func HopByHopName(name string) bool { return HopByHop(view(name)) }

// ConnectionNames reports whether one of the Connection fields of f names the
// field, which makes it hop-by-hop too.
func ConnectionNames(f Fields, name []byte) bool {
	if f.Peek("Connection") == nil {
		return false
	}
	for n, v := range f.All() {
		if !EqualName(n, "Connection") {
			continue
		}
		for member := range bytes.SplitSeq(v, []byte(",")) {
			if bytes.EqualFold(bytes.TrimSpace(member), name) {
				return true
			}
		}
	}
	return false
}

// view is s as bytes without a copy; nobody writes to it.
func view(s string) []byte {
	return unsafe.Slice(unsafe.StringData(s), len(s))
}
