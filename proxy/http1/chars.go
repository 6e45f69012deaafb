package http1

// Which characters may stand where (RFC 9110 section 5.5, RFC 9112 section 3.2).
// Bytes beyond ASCII are taken in targets, where old clients send them raw, and
// in values.
var targetChar, valueChar = func() (target, value [256]bool) {
	for c := range 256 {
		value[c] = c >= ' ' && c != 0x7f || c == '\t'
		target[c] = c > ' ' && c != 0x7f && c != '#'
	}
	return target, value
}()

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
