package cache

import (
	"bytes"

	"firstbell/proxy/field"
)

// Conditional answers the preconditions of a GET or HEAD for a stored response
// (RFC 9110 section 13.2.2, RFC 9111 section 4.3.2): 304, or 0 when the stored
// response is to be sent as it is.
//
// Steps 1 and 2, If-Match and If-Unmodified-Since, are for the origin alone:
// Lookup sends requests with them there, and they count for nothing here, so
// there is never a 412. If-None-Match is compared weakly and silences
// If-Modified-Since. Only a stored 200 is ever not modified.
func Conditional(r field.Fields, s *Stored) (status int) {
	if s.Status != 200 {
		return 0
	}
	if match, there := allLines(r, "If-None-Match"); there {
		if ifNoneMatch(match, s.etag) {
			return 304
		}
		return 0
	}
	since, there := allLines(r, "If-Modified-Since")
	if !there {
		return 0
	}
	limit, ok := parseDate(since, s.responseTime)
	if !ok || s.modifiedBase().After(limit) {
		return 0
	}
	return 304
}

// originOnly reports whether the request has a precondition that only the
// origin may judge.
func originOnly(r field.Fields) bool {
	return r.Peek("If-Match") != nil || r.Peek("If-Unmodified-Since") != nil
}

// ifNoneMatch reports whether one of the entity tags in an If-None-Match, or
// its *, matches etag by weak comparison (RFC 9110 section 13.1.2).
func ifNoneMatch(value, etag []byte) bool {
	if string(trim(value)) == "*" {
		return true
	}
	own, _, ok := parseETag(etag)
	if !ok {
		return false
	}
	for value = bytes.TrimLeft(value, " \t,"); len(value) > 0; value = bytes.TrimLeft(value, " \t,") {
		tag, _, rest, ok := cutETag(value)
		if !ok {
			return false // what follows cannot be told apart; the whole answer is right too
		}
		if bytes.Equal(tag, own) {
			return true
		}
		value = rest
	}
	return false
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
