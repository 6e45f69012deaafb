package cache

import (
	"strings"

	"firstbell/proxy/field"
)

// Coding is a content coding (RFC 9110 section 8.4.1) in which a stored
// response can be kept.
type Coding uint8

const (
	Identity Coding = iota
	Gzip
	Zstd
	Brotli
	// OtherCoding is one that is not known here, or several one upon another.
	OtherCoding

	// Codings is the number of those before OtherCoding.
	Codings = int(OtherCoding)
)

var codingNames = [...]string{"identity", "gzip", "zstd", "br", "other"}

// String is the coding's name in Content-Encoding and Accept-Encoding.
func (c Coding) String() string { return codingNames[c] }

// CodingOf is the coding of a response with these fields.
func CodingOf(fields field.List) Coding {
	c, lines := Identity, 0
	for _, f := range fields {
		if !field.EqualName(f.Name, "Content-Encoding") {
			continue
		}
		if lines++; lines > 1 {
			return OtherCoding
		}
		if c = codingNamed(view(f.Value)); len(trim(view(f.Value))) == 0 {
			c = Identity
		}
	}
	return c
}

// codingNamed is the coding of a name, x-gzip included (RFC 9110 section
// 8.4.1.3).
func codingNamed(name []byte) Coding {
	var low [8]byte
	switch string(lower(low[:0], trim(name))) {
	case "identity":
		return Identity
	case "gzip", "x-gzip":
		return Gzip
	case "zstd":
		return Zstd
	case "br":
		return Brotli
	}
	return OtherCoding
}

// Untouchable reports that a response's content must be passed on in the very
// coding that it has: it says no-transform (RFC 9111 section 5.2.2.6), it
// carries a digest of the coded bytes, or it is a part of something.
func Untouchable(fields field.List) bool {
	for _, f := range fields {
		if field.EqualName(f.Name, "Cache-Control") && strings.Contains(strings.ToLower(f.Value), "no-transform") {
			return true
		}
		for _, name := range [...]string{"Content-Range", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Signature-Input"} {
			if field.EqualName(f.Name, name) {
				return true
			}
		}
	}
	return false
}

// Accepts is what an Accept-Encoding takes (RFC 9110 section 12.5.3).
type Accepts struct {
	weights [Codings]uint16 // in thousandths; 0: not taken
	said    bool            // there was an Accept-Encoding
}

// leastWeight is the smallest weight that there is. A client takes identity
// where it does not say so, but named other codings because it wants them.
const leastWeight = 1

// ReadAccepts reads every Accept-Encoding line of a request. Members that are
// malformed, and codings not known here, count for nothing. By the letter a
// request without the field takes any coding; it is a program that is better
// off with none, and gets none. It allocates nothing when f has PeekAll.
func ReadAccepts(f field.Fields) Accepts {
	a := Accepts{said: true}
	const open = 0xffff // no member has spoken of it
	any := uint16(open)
	for c := range a.weights {
		a.weights[c] = open
	}
	value, there := allLines(f, "Accept-Encoding")
	if !there {
		return Accepts{weights: [Codings]uint16{Identity: 1000}}
	}
	for len(value) > 0 {
		var member []byte
		member, value = cutMember(value)
		name, weight, ok := splitWeight(member)
		if !ok {
			continue
		}
		if string(name) == "*" {
			any = min(any, weight)
		} else if c := codingNamed(name); c != OtherCoding && a.weights[c] == open {
			a.weights[c] = weight
		}
	}
	for c := range a.weights {
		switch {
		case a.weights[c] != open:
		case any != open:
			a.weights[c] = any
		case Coding(c) == Identity:
			a.weights[c] = leastWeight
		default:
			a.weights[c] = 0
		}
	}
	return a
}

func cutMember(list []byte) (member, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return list[:i], list[i+1:]
		}
	}
	return list, nil
}

// splitWeight takes "gzip;q=0.5" apart (RFC 9110 section 12.4.2): weight is in
// thousandths. It reports false for what is not of that form.
func splitWeight(member []byte) (name []byte, weight uint16, ok bool) {
	name, weight = trim(member), 1000
	for i, c := range name {
		if c != ';' {
			continue
		}
		q := trim(name[i+1:])
		name = trim(name[:i])
		if len(q) < 3 || q[0]|0x20 != 'q' || q[1] != '=' {
			return nil, 0, false
		}
		if weight, ok = parseWeight(q[2:]); !ok {
			return nil, 0, false
		}
		break
	}
	return name, weight, len(name) > 0
}

// parseWeight reads a qvalue: 0 or 1 with at most three decimals, and at most 1.
func parseWeight(b []byte) (thousandths uint16, ok bool) {
	if len(b) > 5 || b[0] != '0' && b[0] != '1' || len(b) > 1 && b[1] != '.' {
		return 0, false
	}
	w := uint16(b[0]-'0') * 1000
	unit := uint16(100)
	for _, c := range b[min(2, len(b)):] {
		if c < '0' || c > '9' {
			return 0, false
		}
		w += uint16(c-'0') * unit
		unit /= 10
	}
	return w, w <= 1000
}

// Takes reports whether a client who has content in the coding may be told to
// use that.
func (a *Accepts) Takes(c Coding) bool {
	return !a.said || c < OtherCoding && a.weights[c] > 0
}

// Refuses reports whether content in the coding is not to be sent, as another
// one will do.
func (a *Accepts) Refuses(c Coding) bool { return c < OtherCoding && a.weights[c] == 0 }

// Best is the coding that serves the client best if all of them are there:
// among those of the highest weight the one that makes lessons smallest. It is
// OtherCoding when the client takes none.
func (a *Accepts) Best() Coding {
	best, most := OtherCoding, uint16(0)
	for _, c := range [...]Coding{Brotli, Zstd, Gzip, Identity} {
		if w := a.weights[c]; w > most {
			best, most = c, w
		}
	}
	return best
}

// Only makes the client take nothing but identity and one coding more, if it
// does take those.
func (a *Accepts) Only(one Coding) {
	for c := range a.weights {
		if Coding(c) != Identity && Coding(c) != one {
			a.weights[c] = 0
		}
	}
}
