package field

// EqualName compares two names or tokens without regard to the case of letters
// (RFC 9110 section 5.1).
func EqualName[T string | []byte](a T, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if c, d := a[i], b[i]; c != d && (c|0x20 != d|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// tokenChar are the characters of tokens (RFC 9110 section 5.6.2).
var tokenChar = func() (token [256]bool) {
	for c := range 256 {
		token[c] = c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		token[c] = true
	}
	return token
}()

// IsTokenByte reports whether c may stand in a token.
func IsTokenByte(c byte) bool { return tokenChar[c] }

// IsToken reports whether s is a token, as names and methods are.
func IsToken[T string | []byte](s T) bool {
	for i := range len(s) {
		if !tokenChar[s[i]] {
			return false
		}
	}
	return len(s) > 0
}

// ParseLength reads the digits of a Content-Length, at most 18 of them: an
// exabyte.
func ParseLength[T string | []byte](s T) (n int64, ok bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// TrimBlank takes optional white space off both ends (RFC 9110 section 5.6.3).
func TrimBlank[T string | []byte](s T) T {
	for len(s) > 0 && blank(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && blank(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func blank(c byte) bool { return c == ' ' || c == '\t' }
