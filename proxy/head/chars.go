package head

// Which characters may stand where (RFC 9110 sections 5.6.2 and 5.5). Names
// are in lower case (RFC 9113 section 8.2, RFC 9114 section 4.2).
var tokenChar, nameChar = func() (token, name [256]bool) {
	for c := range 256 {
		name[c] = c >= '0' && c <= '9' || c >= 'a' && c <= 'z'
		token[c] = name[c] || c >= 'A' && c <= 'Z'
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		name[c], token[c] = true, true
	}
	return token, name
}()

func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenChar[c] {
			return false
		}
	}
	return len(b) > 0
}

func isName(s string) bool {
	for i := range len(s) {
		if !nameChar[s[i]] {
			return false
		}
	}
	return len(s) > 0
}

// isValue reports whether s is a field's value: no controls but tabs, and no
// blank at either end.
func isValue(s string) bool {
	if s == "" {
		return true
	}
	if blank(s[0]) || blank(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// equalFold compares a name in lower case with another, without regard to case.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if d := s[i]; c != d && (d < 'A' || d > 'Z' || c != d|0x20) {
			return false
		}
	}
	return true
}
