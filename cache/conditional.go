package cache

import (
	"bytes"

	"firstbell/proxy/field"
)

// Conditional answers the preconditions of a GET or HEAD for a stored response
// (RFC 9110 section 13.2.2, RFC 9111 section 4.3.2): 304, or 0 when the stored
// response is to be sent. to is the coding that it would be sent in, and a what
// codings the client takes.
//
// The tag of every coding of s stands for the same content, whether its variant
// is there or not: content that a client has in one that it takes is good. tag
// is what the 304 carries, so that who keeps several codings knows which is
// meant: that of to where it is named, else the one that is. It is empty where
// s has none.
//
// Steps 1 and 2, If-Match and If-Unmodified-Since, are for the origin alone:
// Lookup sends requests with them there, and they count for nothing here, so
// there is never a 412. If-None-Match is compared weakly and silences
// If-Modified-Since. Only a stored 200 is ever not modified.
func Conditional(r field.Fields, s *Stored, to Coding, a *Accepts) (status int, tag string) {
	if s.Status != 200 {
		return 0, ""
	}
	if match, there := allLines(r, "If-None-Match"); there {
		if c, ok := s.ifNoneMatch(match, to, a); ok {
			return 304, s.tag(c)
		}
		return 0, ""
	}
	since, there := allLines(r, "If-Modified-Since")
	if !there {
		return 0, ""
	}
	limit, ok := parseDate(since, s.responseTime)
	if !ok || s.modifiedBase().After(limit) {
		return 0, ""
	}
	return 304, s.tag(to)
}

// tag is the entity tag of s in the coding, or "".
func (s *Stored) tag(c Coding) string {
	if v := s.In(c); v != nil {
		return string(v.etag)
	}
	return CodedTag(string(s.etag), c)
}

// originOnly reports whether the request has a precondition that only the
// origin may judge.
func originOnly(r field.Fields) bool {
	return r.Peek("If-Match") != nil || r.Peek("If-Unmodified-Since") != nil
}

// ifNoneMatch reports whether one of the entity tags in an If-None-Match, or
// its *, matches that of a coding of s by weak comparison (RFC 9110 section
// 13.1.2), and of which.
func (s *Stored) ifNoneMatch(value []byte, to Coding, a *Accepts) (c Coding, matched bool) {
	if string(trim(value)) == "*" {
		return to, true
	}
	own, _, ok := parseETag(s.etag)
	if !ok {
		return 0, false
	}
	for tag := range tags(value) {
		switch named, its := codingOfTag(tag, own, s.coding); {
		case !its:
		case named == to:
			return to, true
		case !matched && a.Takes(named):
			c, matched = named, true
		}
	}
	return c, matched
}

// codingOfTag is the coding whose tag that is, for content in coding base with
// the tag own, and false for the tag of other content.
func codingOfTag(tag, own []byte, base Coding) (c Coding, its bool) {
	if bytes.Equal(tag, own) {
		return base, true
	}
	if stem, c, coded := splitTag(tag); coded && c != base && base != OtherCoding {
		return c, bytes.Equal(stem, own)
	}
	return 0, false
}

// parseETag reads an entity tag (RFC 9110 section 8.8.3): its opaque part,
// quotes included, and whether it is weak.
func parseETag(b []byte) (opaque []byte, weak, ok bool) {
	opaque, weak, rest, ok := cutETag(trim(b))
	return opaque, weak, ok && len(rest) == 0
}

// cutETag cuts the entity tag that b begins with; it must end where b does or
// before a comma.
func cutETag(b []byte) (opaque []byte, weak bool, rest []byte, ok bool) {
	if len(b) > 1 && b[0] == 'W' && b[1] == '/' {
		weak, b = true, b[2:]
	}
	if len(b) == 0 || b[0] != '"' {
		return nil, false, nil, false
	}
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			rest = bytes.TrimLeft(b[i+1:], " \t")
			return b[:i+1], weak, rest, len(rest) == 0 || rest[0] == ','
		case c <= ' ' || c == 0x7f:
			return nil, false, nil, false
		}
	}
	return nil, false, nil, false
}

// sameStrong compares two entity tags strongly (RFC 9110 section 8.8.3.2).
func sameStrong(a, b []byte) bool {
	x, weakX, okX := parseETag(a)
	y, weakY, okY := parseETag(b)
	return okX && okY && !weakX && !weakY && bytes.Equal(x, y)
}

// sameWeak compares two entity tags weakly.
func sameWeak(a, b []byte) bool {
	x, _, okX := parseETag(a)
	y, _, okY := parseETag(b)
	return okX && okY && bytes.Equal(x, y)
}
