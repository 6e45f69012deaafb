package proxy

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// A check-in is some fifty bytes of JSON (RFC 8259) of which a few values are
// wanted. They are read where they stand: a tree of the whole costs more than
// the rest of the check-in's way to the journal.

// jsonDepthMax bounds how deep arrays and objects may be nested.
const jsonDepthMax = 64

// validJSON reports whether b is one JSON value and nothing else.
func validJSON(b []byte) bool {
	i, ok := skipValue(b, skipSpace(b, 0), 0)
	return ok && skipSpace(b, i) == len(b)
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the index behind the value that begins at i.
func skipValue(b []byte, i, depth int) (end int, ok bool) {
	if i >= len(b) {
		return i, false
	}
	switch c := b[i]; {
	case c == '"':
		return skipString(b, i)
	case c == '{' || c == '[':
		return skipMembers(b, i, depth+1)
	case c == '-' || c >= '0' && c <= '9':
		return skipNumber(b, i)
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if len(b)-i >= len(word) && string(b[i:i+len(word)]) == word {
			return i + len(word), true
		}
	}
	return i, false
}

// skipMembers returns the index behind the object or array that begins at i.
func skipMembers(b []byte, i, depth int) (end int, ok bool) {
	object, closing := b[i] == '{', b[i]+2 // ']' and '}' stand two behind '[' and '{'
	if depth > jsonDepthMax {
		return i, false
	}
	if i = skipSpace(b, i+1); i < len(b) && b[i] == closing {
		return i + 1, true
	}
	for {
		if object {
			if i, ok = skipName(b, i); !ok {
				return i, false
			}
		}
		if i, ok = skipValue(b, i, depth); !ok {
			return i, false
		}
		switch i = skipSpace(b, i); {
		case i >= len(b):
			return i, false
		case b[i] == closing:
			return i + 1, true
		case b[i] != ',':
			return i, false
		}
		i = skipSpace(b, i+1)
	}
}

// skipName returns the index of the value behind the name and colon at i.
func skipName(b []byte, i int) (value int, ok bool) {
	if i >= len(b) || b[i] != '"' {
		return i, false
	}
	if i, ok = skipString(b, i); !ok {
		return i, false
	}
	if i = skipSpace(b, i); i >= len(b) || b[i] != ':' {
		return i, false
	}
	return skipSpace(b, i+1), true
}

func skipString(b []byte, i int) (end int, ok bool) {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, true
		case c < ' ':
			return i, false
		case c == '\\':
			i++
			if i >= len(b) {
				return i, false
			}
			if b[i] == 'u' {
				if _, ok := hex4(b[i+1:]); !ok {
					return i, false
				}
				i += 4
			} else if bytes.IndexByte([]byte(`"\/bfnrt`), b[i]) < 0 {
				return i, false
			}
		}
	}
	return i, false
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		if !isHex(c) {
			return 0, false
		}
		r = r<<4 | rune(unhex(c))
	}
	return r, true
}

func skipNumber(b []byte, i int) (end int, ok bool) {
	if b[i] == '-' {
		i++
	}
	start := i
	if i = skipDigits(b, i); i == start || b[start] == '0' && i > start+1 {
		return i, false
	}
	if i < len(b) && b[i] == '.' {
		start = i + 1
		if i = skipDigits(b, start); i == start {
			return i, false
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		start = i
		if i = skipDigits(b, i); i == start {
			return i, false
		}
	}
	return i, true
}

func skipDigits(b []byte, i int) int {
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	return i
}

var (
	errTwice     = errors.New("is there more than once")
	errHalf      = errors.New("holds half of a surrogate pair")
	errNoID      = errors.New("is a number that is no id; send it as a string")
	errNotScalar = errors.New("is neither a string nor a number")
)

// pointed follows a JSON pointer's segments through valid JSON and returns the
// string or whole number there, "" when there is none or null. The string
// lives as long as b. A name that an object on the way has twice is refused:
// two readers would take different ones.
func pointed(b []byte, path []string) (string, error) {
	i := skipSpace(b, 0)
	for _, segment := range path {
		next, err := -1, error(nil)
		switch b[i] {
		case '{':
			next, err = member(b, i, segment)
		case '[':
			next = element(b, i, segment)
		}
		if next < 0 || err != nil {
			return "", err
		}
		i = next
	}
	end, _ := skipValue(b, i, 0)
	switch value := b[i:end]; {
	case value[0] == '"':
		s, err := unescape(value[1 : len(value)-1])
		return text(s), err
	case value[0] == 'n':
		return "", nil
	case value[0] == '-' || value[0] <= '9':
		if bytes.ContainsAny(value, ".eE-") {
			return "", errNoID
		}
		return text(value), nil
	}
	return "", errNotScalar
}

// member returns the index of the value that the object at i has under the
// name, -1 when there is none.
func member(b []byte, i int, name string) (found int, err error) {
	found = -1
	i = skipSpace(b, i+1)
	for b[i] != '}' {
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
		end, _ := skipString(b, i)
		key, err := unescape(b[i+1 : end-1])
		if err != nil {
			return -1, err
		}
		value, _ := skipName(b, i)
		if string(key) == name {
			if found >= 0 {
				return -1, errTwice
			}
			found = value
		}
		i, _ = skipValue(b, value, 0)
		i = skipSpace(b, i)
	}
	return found, nil
}

// element returns the index of one of the values of the array at i, -1 when
// there is none.
func element(b []byte, i int, index string) int {
	n, err := strconv.Atoi(index)
	if err != nil || n < 0 || index[0] == '+' || index[0] == '0' && len(index) > 1 {
		return -1
	}
	for i = skipSpace(b, i+1); b[i] != ']'; {
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
		if n == 0 {
			return i
		}
		n--
		i, _ = skipValue(b, i, 0)
		i = skipSpace(b, i)
	}
	return -1
}

// unescape returns what a valid string's inside means; s itself where nothing
// in it is escaped.
func unescape(s []byte) ([]byte, error) {
	if bytes.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(s[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				if i+2 >= len(s) || s[i+1] != '\\' || s[i+2] != 'u' {
					return nil, errHalf
				}
				low, _ := hex4(s[i+3:])
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return nil, errHalf
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, s[i])
		}
	}
	return out, nil
}
