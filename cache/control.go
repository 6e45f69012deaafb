package cache

import (
	"bytes"
	"time"

	"firstbell/proxy/field"
)

// delta is the value of a delta-seconds directive, or why there is none.
type delta int64

const (
	absent  delta = -2 // the directive is not there
	invalid delta = -1 // the directive is there, but its argument is no delta-seconds

	// deltaMax is what every larger value counts as (RFC 9111 section 1.2.2).
	deltaMax delta = 1 << 31
)

// valid reports whether d is a number of seconds.
func (d delta) valid() bool { return d >= 0 }

// duration is d as a time.Duration; absent and invalid are 0. 2^31 s fit four
// times into a Duration, so the sums of this package do not overflow.
func (d delta) duration() time.Duration {
	if d < 0 {
		return 0
	}
	return time.Duration(d) * time.Second
}

// form says how the argument of a directive was written.
type form uint8

const (
	bare     form = iota // name
	token                // name=token
	quoted               // name="quoted-string"
	broken               // name, then something the grammar does not know
	unclosed             // a quoted string that never ends: nothing after it can be trusted
)

// directive is one member of a Cache-Control field (RFC 9111 section 5.2).
type directive struct {
	name []byte // as sent
	arg  []byte // unescaped when quoted
	form form
}

// directiveReader reads the members of a Cache-Control field one by one.
type directiveReader struct {
	rest []byte
	junk bool // what comes next follows something other than a comma
}

// next returns the next directive; false means that there is none left. A
// member with more in it than one directive is broken in all its parts, and
// each part is returned, so that "public no-store" still forbids.
func (r *directiveReader) next() (d directive, ok bool) {
	for {
		r.rest = bytes.TrimLeft(r.rest, " \t")
		if len(r.rest) == 0 {
			return d, false
		}
		if r.rest[0] != ',' {
			break
		}
		r.rest, r.junk = r.rest[1:], false
	}
	n := tokenLen(r.rest)
	d.name = r.rest[:n]
	r.rest = d.readArgument(r.rest[n:])
	if n == 0 && d.form == bare { // a byte that begins nothing
		r.rest = r.rest[1:]
	}
	after := bytes.TrimLeft(r.rest, " \t")
	follows := len(after) > 0 && after[0] != ','
	if follows || r.junk {
		d.form = max(d.form, broken)
	}
	r.junk = follows
	return d, true
}

// readArgument reads "=token" or "=quoted-string" and returns what follows. A
// quoted string of no directive is read over too.
func (d *directive) readArgument(b []byte) []byte {
	if len(b) > 0 && b[0] == '=' {
		b = b[1:]
		n := tokenLen(b)
		if d.arg = b[:n]; n > 0 {
			d.form = token
			return b[n:]
		}
		d.form = broken
	}
	if len(b) == 0 || b[0] != '"' {
		return b
	}
	arg, rest, ok := cutQuoted(b)
	switch {
	case !ok:
		d.form = unclosed
	case d.form == broken && len(d.name) > 0: // name="
		d.form, d.arg = quoted, arg
	default:
		d.form = broken
	}
	return rest
}

// cutQuoted cuts a quoted-string (RFC 9110 section 5.6.4) off b, which begins
// with its opening quote. It allocates only for one with escapes.
func cutQuoted(b []byte) (text, rest []byte, ok bool) {
	escaped := false
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			if text = b[1:i]; escaped {
				text = unescape(text)
			}
			return text, b[i+1:], true
		}
	}
	return nil, nil, false
}

// unescape removes the backslashes of quoted pairs.
func unescape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) {
			i++
		}
		out = append(out, b[i])
	}
	return out
}

// seconds reads the argument as delta-seconds: digits only, quoted or not
// (RFC 9111 section 5.2 asks recipients to take both).
func (d directive) seconds() delta {
	if d.form != token && d.form != quoted {
		return invalid
	}
	return parseDelta(d.arg)
}

// parseDelta reads digits and nothing else.
func parseDelta(b []byte) delta {
	if len(b) == 0 {
		return invalid
	}
	var n delta
	for _, c := range b {
		if c < '0' || c > '9' {
			return invalid
		}
		n = min(n*10+delta(c-'0'), deltaMax)
	}
	return n
}

// directives are what a response says to caches: its Cache-Control or, in its
// place, its CDN-Cache-Control.
type directives struct {
	noStore, noCache, private, public bool
	mustRevalidate, proxyRevalidate   bool
	mustUnderstand, noTransform       bool
	understood                        bool // must-understand as it is to be written: it makes no-store void
	malformed                         bool // a quoted string never ends: nobody knows what was meant

	maxAge, sMaxAge                    delta
	staleWhileRevalidate, staleIfError delta

	// withheld are the fields named by private="…" and no-cache="…".
	withheld []string
}

func noDirectives() directives {
	return directives{maxAge: absent, sMaxAge: absent, staleWhileRevalidate: absent, staleIfError: absent}
}

// parseControl reads a response's Cache-Control, all lines joined. Of a
// directive given twice the first counts (RFC 9111 section 4.2.1). What
// forbids is understood by its name alone, however its argument is spelled;
// what allows must be well formed.
func parseControl(b []byte) directives {
	c := noDirectives()
	r := directiveReader{rest: b}
	for d, ok := r.next(); ok; d, ok = r.next() {
		if d.form == unclosed {
			c.malformed = true
		}
		c.take(d)
	}
	return c
}

// take adds one directive.
func (c *directives) take(d directive) {
	var low [24]byte
	switch string(lower(low[:0], d.name)) {
	case "no-store":
		c.noStore = true
	case "no-cache":
		c.noCache = !c.withhold(d) || c.noCache
	case "private":
		c.private = !c.withhold(d) || c.private
	case "must-revalidate":
		c.mustRevalidate = true
	case "proxy-revalidate":
		c.proxyRevalidate = true
	case "no-transform":
		c.noTransform = true
	case "must-understand":
		c.mustUnderstand = true
		c.understood = d.form == bare || c.understood
	case "public":
		c.public = d.form == bare || c.public
	case "max-age":
		first(&c.maxAge, d)
	case "s-maxage":
		first(&c.sMaxAge, d)
	case "stale-while-revalidate":
		first(&c.staleWhileRevalidate, d)
	case "stale-if-error":
		first(&c.staleIfError, d)
	}
}

// withhold notes the field names of private="…" or no-cache="…" and reports
// whether there are any. Without names, with an argument that is no
// quoted-string or no list of names, the directive concerns the whole response.
func (c *directives) withhold(d directive) bool {
	if d.form != quoted {
		return false
	}
	before := len(c.withheld)
	for member := range bytes.SplitSeq(d.arg, []byte(",")) {
		name := bytes.Trim(member, " \t")
		if len(name) == 0 {
			continue
		}
		if tokenLen(name) != len(name) {
			c.withheld = c.withheld[:before]
			return false
		}
		c.withheld = append(c.withheld, string(name))
	}
	return len(c.withheld) > before
}

// first keeps the first occurrence of a directive with a number.
func first(to *delta, d directive) {
	if *to == absent {
		*to = d.seconds()
	}
}

// wishes are the Cache-Control directives of a request (RFC 9111 section
// 5.2.1). They are advice: one that cannot be read is left out.
type wishes struct {
	noStore, noCache, onlyIfCached bool

	maxAge, minFresh, maxStale delta
}

func noWishes() wishes {
	return wishes{maxAge: absent, minFresh: absent, maxStale: absent}
}

// parseWishes reads a request's Cache-Control, all lines joined.
func parseWishes(b []byte) wishes {
	w := noWishes()
	r := directiveReader{rest: b}
	for d, ok := r.next(); ok; d, ok = r.next() {
		var low [24]byte
		switch string(lower(low[:0], d.name)) {
		case "no-store":
			w.noStore = true
		case "no-cache":
			w.noCache = true
		case "only-if-cached":
			w.onlyIfCached = true
		case "max-age":
			first(&w.maxAge, d)
		case "min-fresh":
			first(&w.minFresh, d)
		case "max-stale":
			if w.maxStale == absent && d.form == bare {
				w.maxStale = deltaMax // any staleness will do
			}
			first(&w.maxStale, d)
		}
	}
	return w
}

// lower appends b in lower case to dst, up to the capacity of dst: a longer
// name is none that this package knows.
func lower(dst, b []byte) []byte {
	for _, c := range b {
		if len(dst) == cap(dst) {
			return dst[:0]
		}
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

// tokenLen is the length of the token (RFC 9110 section 5.6.2) that b begins with.
func tokenLen(b []byte) int {
	for i, c := range b {
		if !field.IsTokenByte(c) {
			return i
		}
	}
	return len(b)
}
