package peer

import (
	"bytes"
	"errors"
	"net/netip"
)

// hopsMax bounds how many proxies a request may have come through.
const hopsMax = 32

// ErrForwarded is of a Forwarded field that does not keep to RFC 7239.
var ErrForwarded = errors.New("the Forwarded field is malformed")

// Client is the right-most address of X-Forwarded-For that is not trusted,
// where from, who sends it, is: every trusted proxy has appended the address
// it was asked from, and what stands left of that is a stranger's claim. Where
// a proxy wrote no address, it counts itself. lines are the field's, in order.
func Client(from netip.Addr, lines [][]byte, trusted *Set) netip.Addr {
	hops := 0
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			if hops++; hops > hopsMax || !trusted.Has(from) {
				return from
			}
			var member []byte
			member, rest, more = cutLast(rest)
			if len(member) == 0 {
				continue // an empty member of a list (RFC 9110 section 5.6.1.2)
			}
			a, ok := parseNode(member)
			if !ok {
				return from
			}
			from = a
		}
	}
	return from
}

// cutLast takes the last member off a list.
func cutLast(list []byte) (member, rest []byte, more bool) {
	i := bytes.LastIndexByte(list, ',')
	if i < 0 {
		return trim(list), nil, false
	}
	return trim(list[i+1:]), list[:i], true
}

func trim(b []byte) []byte { return bytes.Trim(b, " \t") }

// parseNode reads an address with an optional port: 192.0.2.1, 192.0.2.1:80,
// 2001:db8::1, [2001:db8::1] or [2001:db8::1]:80.
func parseNode(b []byte) (netip.Addr, bool) {
	if len(b) == 0 || len(b) > len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535") {
		return netip.Addr{}, false
	}
	text := string(b)
	if b[0] == '[' && b[len(b)-1] == ']' {
		a, err := netip.ParseAddr(text[1 : len(text)-1])
		return a.Unmap(), err == nil && a.Is6() && a.Zone() == ""
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap(), a.Zone() == ""
	}
	ap, err := netip.ParseAddrPort(text)
	return ap.Addr().Unmap(), err == nil && ap.Addr().Zone() == ""
}

// An element is what one proxy says in Forwarded.
type element struct {
	node  []byte // of for=, without quotes; nil when there is none
	proto []byte
}

// ForwardedClient is Client for Forwarded (RFC 7239), and the protocol that the
// proxy nearest to the client was asked by: http, https, or empty where it is
// not said. The error is ErrForwarded.
func ForwardedClient(from netip.Addr, lines [][]byte, trusted *Set) (client netip.Addr, proto string, err error) {
	var elements [hopsMax]element
	n := 0
	for _, line := range lines {
		if n, err = readElements(line, &elements, n); err != nil {
			return from, "", err
		}
	}
	for hops := 0; n > 0 && hops < hopsMax && trusted.Has(from); hops++ {
		n--
		e := &elements[n%hopsMax]
		switch string(bytes.ToLower(e.proto)) {
		case "http":
			proto = "http"
		case "https":
			proto = "https"
		default:
			proto = ""
		}
		a, ok := parseNode(e.node)
		if !ok {
			break // unknown, or hidden on purpose
		}
		from = a
	}
	return from, proto, nil
}

// readElements reads a line into a ring behind its n elements, and returns how
// many there are then.
func readElements(line []byte, ring *[hopsMax]element, n int) (int, error) {
	for rest := line; ; {
		rest = bytes.TrimLeft(rest, " \t")
		if len(rest) == 0 {
			return n, nil
		}
		if rest[0] == ',' {
			rest = rest[1:]
			continue
		}
		e, after, err := readElement(rest)
		if err != nil {
			return n, err
		}
		ring[n%hopsMax] = e
		n++
		rest = after
	}
}

// readElement reads pairs up to a comma or the line's end.
func readElement(b []byte) (e element, rest []byte, err error) {
	for {
		var name, value []byte
		if name, value, b, err = readPair(b); err != nil {
			return e, nil, err
		}
		switch string(bytes.ToLower(name)) {
		case "for":
			if e.node != nil {
				return e, nil, ErrForwarded
			}
			e.node = value
		case "proto":
			if e.proto != nil {
				return e, nil, ErrForwarded
			}
			e.proto = value
		}
		b = bytes.TrimLeft(b, " \t")
		switch {
		case len(b) == 0:
			return e, nil, nil
		case b[0] == ',':
			return e, b[1:], nil
		case b[0] != ';':
			return e, nil, ErrForwarded
		}
		b = bytes.TrimLeft(b[1:], " \t")
	}
}

// readPair reads name=value, where the value is a token or a quoted string. A
// backslash in one is refused: nothing that may stand there needs it.
func readPair(b []byte) (name, value, rest []byte, err error) {
	n := tokenLength(b)
	if n == 0 || n == len(b) || b[n] != '=' {
		return nil, nil, nil, ErrForwarded
	}
	name, b = b[:n], b[n+1:]
	if len(b) > 0 && b[0] == '"' {
		end := bytes.IndexByte(b[1:], '"')
		if end < 0 || bytes.IndexByte(b[1:end+1], '\\') >= 0 {
			return nil, nil, nil, ErrForwarded
		}
		return name, b[1 : end+1], b[end+2:], nil
	}
	if n = tokenLength(b); n == 0 {
		return nil, nil, nil, ErrForwarded
	}
	return name, b[:n], b[n:], nil
}

// tokenLength is how many bytes of a token (RFC 9110 section 5.6.2) b begins
// with. A colon counts among them: IPv4 addresses with a port are often sent
// without the quotes that they need.
func tokenLength(b []byte) int {
	for i, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~:"), c) >= 0) {
			return i
		}
	}
	return len(b)
}
