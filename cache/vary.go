package cache

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unsafe"

	"firstbell/proxy/field"
)

const (
	// variantsMax bounds the stored responses under one key, so that a Vary on
	// something that differs for everybody cannot fill the cache with one URL.
	variantsMax = 32

	// varyNamesMax bounds the names of one Vary. More than 16 selecting fields
	// are a mistake, and such a response counts as Vary: *.
	varyNamesMax = 16
)

// parseVary reads Vary, all lines joined: the names in canonical spelling,
// sorted, each once. It reports false when no later request can be known to
// match: for * among the members, for members that are no field names, and
// for too many of them.
func parseVary(b []byte) (names []string, ok bool) {
	for member := range bytes.SplitSeq(b, []byte(",")) {
		name := bytes.Trim(member, " \t")
		if len(name) == 0 {
			continue
		}
		if tokenLen(name) != len(name) || string(name) == "*" {
			return nil, false
		}
		canonical := canonicalName(name)
		i, found := slices.BinarySearch(names, canonical)
		if found {
			continue
		}
		if len(names) == varyNamesMax {
			return nil, false
		}
		names = slices.Insert(names, i, canonical)
	}
	return names, true
}

// canonicalName is the usual spelling of a field name: Accept-Encoding.
func canonicalName(b []byte) string {
	if name, ok := knownNames[string(b)]; ok {
		return name
	}
	out := make([]byte, len(b))
	start := true
	for i, c := range b {
		if start && 'a' <= c && c <= 'z' || !start && 'A' <= c && c <= 'Z' {
			c ^= 0x20
		}
		out[i] = c
		start = c == '-'
	}
	return string(out)
}

// VariantKey appends what the selecting fields of a request come to: two
// requests with the same key match under this Vary (RFC 9111 section 4.1), and
// no two others share one. vary is a list from a Verdict or a Found. Lines of
// one name are combined, whitespace around commas and the case and order of
// Accept-Encoding and Accept-Language members make no difference; Cookie and
// Authorization are taken byte for byte.
func VariantKey(dst []byte, vary []string, f field.Fields) []byte {
	for _, name := range vary {
		dst = append(dst, name...)
		v, there := allLines(f, name)
		if !there {
			dst = append(dst, 0)
			continue
		}
		dst = append(dst, 1, 0, 0, 0, 0) // the length comes here
		at := len(dst)
		dst = appendNormalised(dst, name, v)
		binary.BigEndian.PutUint32(dst[at-4:], uint32(len(dst)-at))
	}
	return dst
}

// cutSelecting cuts what one selecting field came to off a key that VariantKey
// made. It reports false where it made none such.
func cutSelecting(key []byte, name string) (value, rest []byte, ok bool) {
	n := len(name) + 1
	if len(key) >= n && key[n-1] != 0 {
		if n += 4; len(key) >= n {
			n += int(binary.BigEndian.Uint32(key[n-4:]))
		}
	}
	if len(key) < n || string(key[:len(name)]) != name {
		return nil, nil, false
	}
	return key[:n], key[n:], true
}

func appendNormalised(dst []byte, name string, v []byte) []byte {
	switch name {
	case "Cookie", "Authorization":
		return append(dst, v...)
	case "Accept-Encoding", "Accept-Language":
		return appendSorted(dst, v)
	}
	return appendTrimmed(dst, v)
}

// appendTrimmed appends v without the whitespace around its commas, except
// within quoted strings.
func appendTrimmed(dst, v []byte) []byte {
	v = bytes.Trim(v, " \t")
	inside := false
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch {
		case inside && c == '\\' && i+1 < len(v):
			dst = append(dst, c)
			i++
			c = v[i]
		case c == '"':
			inside = !inside
		case inside:
		case c == ',':
			dst = append(bytes.TrimRight(dst, " \t"), ',')
			for i+1 < len(v) && (v[i+1] == ' ' || v[i+1] == '\t') {
				i++
			}
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// appendSorted appends the members of v in lower case, without whitespace and
// in order, for fields whose weights and not whose order says what is wanted.
func appendSorted(dst, v []byte) []byte {
	at := len(dst)
	for _, c := range v {
		switch {
		case c == ' ' || c == '\t':
			continue
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		}
		dst = append(dst, c)
	}
	var members [16][]byte
	n := 0
	for member := range bytes.SplitSeq(dst[at:], []byte(",")) {
		if n == len(members) {
			return dst // left in the order sent: still exact, only less shared
		}
		members[n] = member
		n++
	}
	slices.SortFunc(members[:n], bytes.Compare)
	end := len(dst)
	for _, m := range members[:n] {
		if len(m) > 0 {
			dst = append(append(dst, m...), ',')
		}
	}
	return dst[:at+copy(dst[at:], dst[end:])]
}

// peekAller is what a request's head has on top of field.Fields. It gives
// all lines of a name without the allocations of an iterator.
type peekAller interface {
	PeekAll(name string) [][]byte
}

// allLines returns the value of every line with the name, with "," between
// them, and whether there is any line. No line is left out, whatever the
// others hold. One line, and none, cost no allocation when f is a field.List
// or has PeekAll.
func allLines(f field.Fields, name string) (v []byte, there bool) {
	switch f := f.(type) {
	case nil:
		return nil, false
	case field.List:
		return joinList(f, name)
	case peekAller:
		lines := f.PeekAll(name)
		switch len(lines) {
		case 0:
			return nil, false
		case 1:
			return lines[0], true
		}
		return bytes.Join(lines, []byte(",")), true
	}
	return joinAny(f, name)
}

func joinList(l field.List, name string) (v []byte, there bool) {
	for i := range l {
		if !field.EqualName(l[i].Name, name) {
			continue
		}
		if !there {
			v, there = view(l[i].Value), true
			continue
		}
		v = append(append(v[:len(v):len(v)], ','), l[i].Value...)
	}
	return v, there
}

func joinAny(f field.Fields, name string) (v []byte, there bool) {
	for n, line := range f.All() {
		if !field.EqualName(n, name) {
			continue
		}
		if there {
			v = append(v, ',')
		}
		v, there = append(v, line...), true
	}
	return v, there
}

// view is s as bytes without a copy; nobody writes to it.
func view(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
