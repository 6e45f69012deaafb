package origin

import "strings"

// What a byte may be part of.
const (
	inToken  = 1 << iota // tchar, RFC 9110 section 5.6.2
	inValue              // field-vchar, SP, HTAB, RFC 9110 section 5.5
	inTarget             // anything visible; obs-text is passed on as it came
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= inValue
		}
		if c > ' ' && c != 0x7f {
			t[c] |= inTarget
		}
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' && c < 0x80
		if letter || c >= '0' && c <= '9' || c < 0x80 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0 {
			t[c] |= inToken
		}
	}
	return t
}()

func all(s string, of uint8) bool {
	for i := 0; i < len(s); i++ {
		if class[s[i]]&of == 0 {
			return false
		}
	}
	return true
}

func validName(s string) bool   { return s != "" && all(s, inToken) }
func validValue(s string) bool  { return all(s, inValue) }
func validTarget(s string) bool { return s != "" && all(s, inTarget) }
func validHost(s string) bool   { return all(s, inTarget) }

func isFraming(name string) bool {
	return strings.EqualFold(name, "Content-Length") || strings.EqualFold(name, "Transfer-Encoding")
}

// forbiddenInTrailer reports whether a field must not be taken from a trailer
// section: it frames, routes, authenticates or describes what has been sent
// already (RFC 9110 section 6.5.1).
func forbiddenInTrailer(name string) bool {
	switch strings.ToLower(name) {
	case "content-length", "transfer-encoding", "host", "trailer", "te", "connection", "keep-alive", "upgrade",
		"proxy-connection", "proxy-authenticate", "proxy-authorization", "authorization", "www-authenticate",
		"authentication-info", "proxy-authentication-info", "cookie", "set-cookie",
		"cache-control", "expect", "max-forwards", "pragma", "range", "accept-ranges",
		"age", "date", "expires", "last-modified", "location", "retry-after", "vary", "warning",
		"content-encoding", "content-type", "content-range", "content-location", "content-disposition",
		"via", "forwarded", "cache-status", "cdn-cache-control", "surrogate-control", "strict-transport-security":
		return true
	}
	return strings.HasPrefix(strings.ToLower(name), "if-") ||
		strings.HasPrefix(strings.ToLower(name), "x-forwarded-") ||
		strings.HasPrefix(strings.ToLower(name), "access-control-")
}

// cutLine returns the first line of s, without its CRLF or LF, and the rest.
func cutLine(s string) (line, rest string) {
	line, rest, _ = strings.Cut(s, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

func trimBlankEnd(s string) string {
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// clip keeps what an origin sent from filling an error message.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}
