package proxy

import (
	"bytes"
	"net/netip"
	"strings"
)

// targetBytesMax bounds a request target: longer ones are 414.
const targetBytesMax = 8 << 10

// target is a request target read once: route, cache key and the forwarded
// request use these same bytes, so no two of them can disagree.
type target struct {
	raw   []byte // origin-form, as received
	path  []byte // raw up to the query
	query []byte // raw behind the '?'; nil when there is none
}

// readTarget splits a request target in origin-form and returns the reason
// for refusing it, or "". A path that servers are known to read in two ways is
// refused rather than mended: whoever mends it differently gets another page.
func readTarget(raw []byte) (t target, refusal string) {
	if len(raw) == 0 || raw[0] != '/' {
		return t, "the request target must begin with a slash"
	}
	t = target{raw: raw, path: raw}
	if i := bytes.IndexByte(raw, '?'); i >= 0 {
		t.path, t.query = raw[:i], raw[i+1:]
	}
	suspicious := false
	for _, c := range raw {
		switch {
		case c <= ' ' || c == 0x7f || c == '#':
			return t, "the request target holds a character that must be percent-encoded"
		case c == '\\' || c == '%' || c == '.':
			suspicious = true
		}
	}
	if suspicious {
		return t, refusePath(t.path)
	}
	return t, ""
}

// refusePath looks for what makes a path mean two things: backslashes, NUL,
// dot segments, spelled plainly or percent-encoded, and broken encodings.
func refusePath(path []byte) string {
	segment := 0 // characters of the segment that are not dots, or more than two
	dots := 0
	for i := 0; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			if segment == 0 && (dots == 1 || dots == 2) {
				return "the path holds a dot segment"
			}
			segment, dots = 0, 0
			continue
		}
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
				return "the path holds a broken percent-encoding"
			}
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			i += 2
		}
		switch c {
		case 0:
			return "the path holds a NUL"
		case '\\':
			return "the path holds a backslash"
		case '.':
			dots++
		default:
			segment++
		}
	}
	return ""
}

// readRequest reads what a request of any protocol says of itself: x.method and
// x.authority are there, raw is the target in origin-form. A refusal says why
// it has no single meaning here, and with which status.
func (x *exchange) readRequest(raw []byte) (status int, refusal string) {
	if len(raw) > targetBytesMax {
		return 414, "the request target is too long"
	}
	var ok bool
	if x.host, ok = readAuthority(x.scratch[0][:0], x.authority); !ok {
		return 400, "the Host field is missing or is not a host name"
	}
	x.scratch[0] = x.host
	if x.method == "" || x.method == "CONNECT" || x.method == "TRACE" {
		return 501, "this method is not served here"
	}
	if x.target, refusal = readTarget(raw); refusal != "" {
		return 400, refusal
	}
	return 0, ""
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}

// readAuthority appends the host of an authority to dst: lower case, without
// port and trailing dot. It returns false for what is not a host name, an IPv4
// address or a bracketed IPv6 address, with an optional port.
func readAuthority(dst, authority []byte) (host []byte, ok bool) {
	name, port := authority, []byte(nil)
	if len(name) > 0 && name[0] == '[' {
		end := bytes.IndexByte(name, ']')
		if end < 0 {
			return nil, false
		}
		if _, err := netip.ParseAddr(string(name[1:end])); err != nil {
			return nil, false
		}
		name, port = name[:end+1], name[end+1:]
		if len(port) > 0 && port[0] != ':' {
			return nil, false
		}
	} else if i := bytes.IndexByte(name, ':'); i >= 0 {
		name, port = name[:i], name[i:]
	}
	if len(port) > 6 {
		return nil, false
	}
	for _, c := range port[min(1, len(port)):] {
		if c < '0' || c > '9' {
			return nil, false
		}
	}
	if n := len(name); n > 1 && name[n-1] == '.' {
		name = name[:n-1]
	}
	if len(name) == 0 || len(name) > 253 {
		return nil, false
	}
	for _, c := range name {
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		case name[0] == '[':
		default:
			return nil, false
		}
		dst = append(dst, c)
	}
	return dst, true
}

// dropParameters appends query to dst without the parameters named, keeping
// the order and spelling of the others.
func dropParameters(dst, query []byte, names []string) []byte {
	start := len(dst)
	for part := range bytes.SplitSeq(query, []byte("&")) {
		name := part
		if i := bytes.IndexByte(part, '='); i >= 0 {
			name = part[:i]
		}
		if named(names, name) {
			continue
		}
		if len(dst) > start {
			dst = append(dst, '&')
		}
		dst = append(dst, part...)
	}
	return dst
}

func named(names []string, name []byte) bool {
	for _, n := range names {
		if n == string(name) {
			return true
		}
	}
	return false
}

// matchPath reports whether a route's path takes the request's. A pattern that
// ends in "/*" takes whole segments: /x/* takes /x, /x/ and all below, not /xy.
func matchPath(pattern string, path []byte) bool {
	prefix, subtree := strings.CutSuffix(pattern, "/*")
	if !subtree {
		return pattern == string(path)
	}
	if len(path) < len(prefix) || string(path[:len(prefix)]) != prefix {
		return false
	}
	return len(path) == len(prefix) || path[len(prefix)] == '/'
}
