package head

import "firstbell/proxy/field"

// isName reports whether s is a field's name: a token in lower case (RFC 9113
// section 8.2, RFC 9114 section 4.2).
func isName(s string) bool {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return false
		}
	}
	return field.IsToken(s)
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
