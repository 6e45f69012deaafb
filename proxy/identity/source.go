package identity

import (
	"bytes"
	"fmt"
	"strings"

	"firstbell/proxy/field"
)

// credentialBytesMax bounds a credential. Tokens with a whole timetable in them
// have 4 kB; who sends more is refused before anything is computed.
const credentialBytesMax = 8 << 10

// A Source is a place in a request where a credential stands.
type Source struct {
	kind sourceKind
	name string // of the cookie or the field
}

type sourceKind uint8

const (
	fromBearer sourceKind = iota
	fromCookie
	fromField
)

// ParseSource reads "bearer" (the field Authorization with the scheme Bearer,
// RFC 6750 section 2.1), "cookie:name" or "header:Name".
func ParseSource(s string) (Source, error) {
	if s == "bearer" {
		return Source{}, nil
	}
	kind, name, _ := strings.Cut(s, ":")
	switch {
	case name == "" || strings.ContainsFunc(name, notToken):
	case kind == "cookie":
		return Source{fromCookie, name}, nil
	case kind == "header":
		return Source{fromField, name}, nil
	}
	return Source{}, fmt.Errorf("%q is no place for a credential; write bearer, cookie:name or header:Name", s)
}

// notToken is the complement of tchar (RFC 9110 section 5.6.2).
func notToken(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
}

// credential describes the source to those who refuse.
func (s Source) credential() Credential {
	switch s.kind {
	case fromCookie:
		return Credential{Ambient: true, Fields: []string{"Cookie"}, Scheme: "Cookie"}
	case fromField:
		return Credential{Fields: []string{s.name}, Scheme: "Bearer"}
	}
	return Credential{Fields: []string{"Authorization"}, Scheme: "Bearer"}
}

// read returns the one credential of the request, without a copy.
func (s Source) read(f field.Fields) ([]byte, *Refusal) {
	value, refusal := s.find(f)
	switch {
	case refusal != nil:
		return nil, refusal
	case len(value) == 0:
		return nil, errNone
	case len(value) > credentialBytesMax:
		return nil, errLong
	}
	return value, nil
}

// session is Verifier's Session for who looks in one place.
func (s Source) session(dst []byte, f field.Fields) []byte {
	value, refusal := s.read(f)
	if refusal != nil {
		return dst
	}
	return append(dst, value...)
}

func (s Source) find(f field.Fields) ([]byte, *Refusal) {
	if s.kind == fromCookie {
		return oneCookie(f, s.name)
	}
	name := s.name
	if s.kind == fromBearer {
		name = "Authorization"
	}
	value, twice := oneLine(f, name)
	if twice {
		return nil, errTwice
	}
	value = bytes.TrimSpace(value)
	if s.kind == fromField {
		return value, nil
	}
	scheme, token, _ := bytes.Cut(value, []byte(" "))
	if !field.EqualName(scheme, "Bearer") {
		return nil, nil // another scheme is for somebody else
	}
	return bytes.TrimLeft(token, " "), nil
}

// lines is implemented by fields that find all lines of a name at once.
type lines interface{ PeekAll(name string) [][]byte }

// oneLine returns the value of the one field line with the name.
func oneLine(f field.Fields, name string) (value []byte, twice bool) {
	if all, ok := f.(lines); ok {
		found := all.PeekAll(name)
		if len(found) == 0 {
			return nil, false
		}
		return found[0], len(found) > 1
	}
	return oneOfAll(f, name)
}

// oneOfAll is oneLine for fields that find one line at a time. It is apart, as
// its loop would put the variables of both on the heap.
func oneOfAll(f field.Fields, name string) (value []byte, twice bool) {
	found := 0
	for n, v := range f.All() {
		if field.EqualName(n, name) {
			value = v
			found++
		}
	}
	return value, found > 1
}

// oneCookie returns the value of the one cookie with the name. A cookie set for
// a wider domain or another path may stand beside it: whose it is, nobody can
// tell.
func oneCookie(f field.Fields, name string) ([]byte, *Refusal) {
	var found []byte
	if all, ok := f.(lines); ok {
		for _, line := range all.PeekAll("Cookie") {
			if twice := cookieOf(line, name, &found); twice {
				return nil, errTwice
			}
		}
		return found, nil
	}
	return oneCookieOfAll(f, name)
}

// oneCookieOfAll is oneCookie as oneOfAll is oneLine.
func oneCookieOfAll(f field.Fields, name string) ([]byte, *Refusal) {
	var found []byte
	for n, line := range f.All() {
		if field.EqualName(n, "Cookie") {
			if twice := cookieOf(line, name, &found); twice {
				return nil, errTwice
			}
		}
	}
	return found, nil
}

// cookieOf looks for a cookie in one line of RFC 6265 section 4.2.
func cookieOf(line []byte, name string, found *[]byte) (twice bool) {
	for len(line) > 0 {
		pair := line
		if i := bytes.IndexByte(line, ';'); i >= 0 {
			pair, line = line[:i], line[i+1:]
		} else {
			line = nil
		}
		key, value, ok := bytes.Cut(bytes.TrimSpace(pair), []byte("="))
		if !ok || string(key) != name {
			continue
		}
		if *found != nil {
			return true
		}
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		*found = value
		if value == nil {
			*found = []byte{}
		}
	}
	return false
}
