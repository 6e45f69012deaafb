package cache

import (
	"bytes"

	"firstbell/proxy/field"
)

// parseTargeted reads CDN-Cache-Control, a Dictionary of RFC 9651, as RFC 9213
// asks: a field that is empty or does not parse is as good as not there
// (false), and then Cache-Control and Expires speak again. A number that is no
// Integer spoils the field too; parameters mean nothing.
func parseTargeted(b []byte) (directives, bool) {
	c := noDirectives()
	p := &dictionary{rest: bytes.Trim(b, " ")}
	if len(p.rest) == 0 {
		return c, false
	}
	for {
		key, value, ok := p.member()
		if !ok || !c.takeTargeted(key, value) {
			return c, false
		}
		more, ok := p.comma()
		if !ok {
			return c, false
		}
		if !more {
			return c, true
		}
	}
}

// takeTargeted adds one member. Of a key given twice the last counts, as in
// every Dictionary.
func (c *directives) takeTargeted(key string, v sfItem) bool {
	set := v.kind != sfBoolean || v.yes // what forbids needs no particular type
	switch key {
	case "no-store":
		c.noStore = set
	case "no-cache", "private":
		all := set
		if v.kind == sfString {
			all = !c.withhold(directive{arg: v.text, form: quoted})
		}
		if key == "private" {
			c.private = all
		} else {
			c.noCache = all
		}
	case "must-revalidate":
		c.mustRevalidate = set
	case "proxy-revalidate":
		c.proxyRevalidate = set
	case "no-transform":
		c.noTransform = set
	case "public":
		c.public = v.kind == sfBoolean && v.yes
	case "must-understand":
		c.mustUnderstand = set
		c.understood = v.kind == sfBoolean && v.yes
	case "max-age":
		return v.seconds(&c.maxAge)
	case "s-maxage":
		return v.seconds(&c.sMaxAge)
	case "stale-while-revalidate":
		return v.seconds(&c.staleWhileRevalidate)
	case "stale-if-error":
		return v.seconds(&c.staleIfError)
	}
	return true
}

// seconds stores an Integer that is not negative.
func (v sfItem) seconds(to *delta) bool {
	if v.kind != sfInteger || v.number < 0 {
		return false
	}
	*to = min(delta(v.number), deltaMax)
	return true
}

type sfKind uint8

const (
	sfBoolean sfKind = iota
	sfInteger
	sfString
	sfOther // decimals, tokens, byte sequences, dates, display strings, inner lists
)

// sfItem is the value of a dictionary member, as far as directives need it.
type sfItem struct {
	kind   sfKind
	yes    bool
	number int64
	text   []byte
}

// dictionary reads a structured field Dictionary (RFC 9651 section 4.2.2).
type dictionary struct {
	rest []byte
}

func (p *dictionary) peek() byte {
	if len(p.rest) == 0 {
		return 0
	}
	return p.rest[0]
}

// skip takes c when it is next.
func (p *dictionary) skip(c byte) bool {
	if p.peek() != c || len(p.rest) == 0 {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// while takes bytes as long as want says so.
func (p *dictionary) while(want func(byte) bool) []byte {
	n := 0
	for n < len(p.rest) && want(p.rest[n]) {
		n++
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

// comma takes the separator between members; more is false at the end.
func (p *dictionary) comma() (more, ok bool) {
	p.rest = bytes.TrimLeft(p.rest, " \t")
	if len(p.rest) == 0 {
		return false, true
	}
	if !p.skip(',') {
		return false, false
	}
	p.rest = bytes.TrimLeft(p.rest, " \t")
	return true, len(p.rest) > 0
}

func (p *dictionary) member() (key string, v sfItem, ok bool) {
	if key, ok = p.key(); !ok {
		return "", v, false
	}
	v = sfItem{kind: sfBoolean, yes: true}
	if p.skip('=') {
		if v, ok = p.itemOrList(); !ok {
			return "", v, false
		}
	}
	return key, v, p.parameters()
}

func (p *dictionary) key() (string, bool) {
	if c := p.peek(); c != '*' && (c < 'a' || c > 'z') {
		return "", false
	}
	return string(p.while(func(c byte) bool {
		return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.' || c == '*'
	})), true
}

func (p *dictionary) parameters() bool {
	for p.skip(';') {
		p.rest = bytes.TrimLeft(p.rest, " ")
		if _, ok := p.key(); !ok {
			return false
		}
		if p.skip('=') {
			if _, ok := p.item(); !ok {
				return false
			}
		}
	}
	return true
}

func (p *dictionary) itemOrList() (sfItem, bool) {
	if !p.skip('(') {
		return p.item()
	}
	for {
		p.rest = bytes.TrimLeft(p.rest, " ")
		if p.skip(')') {
			return sfItem{kind: sfOther}, true
		}
		if _, ok := p.item(); !ok || !p.parameters() {
			return sfItem{}, false
		}
		if c := p.peek(); c != ' ' && c != ')' {
			return sfItem{}, false
		}
	}
}

func (p *dictionary) item() (sfItem, bool) {
	switch c := p.peek(); {
	case c == '?':
		p.rest = p.rest[1:]
		yes := p.skip('1')
		return sfItem{kind: sfBoolean, yes: yes}, yes || p.skip('0')
	case c == '"':
		return p.text()
	case c == '-' || '0' <= c && c <= '9':
		return p.integerOrDecimal()
	case c == '*' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
		p.while(func(c byte) bool { return field.IsTokenByte(c) || c == ':' || c == '/' })
		return sfItem{kind: sfOther}, true
	case c == ':':
		p.rest = p.rest[1:]
		p.while(func(c byte) bool { return c != ':' && (field.IsTokenByte(c) || c == '/' || c == '=') })
		return sfItem{kind: sfOther}, p.skip(':')
	case c == '@':
		p.rest = p.rest[1:]
		v, ok := p.integerOrDecimal()
		return sfItem{kind: sfOther}, ok && v.kind == sfInteger
	case c == '%':
		p.rest = p.rest[1:]
		v, ok := p.text()
		v.kind = sfOther
		return v, ok
	}
	return sfItem{}, false
}

// text reads a String: printable ASCII, of which only \" and \\ are escaped.
func (p *dictionary) text() (sfItem, bool) {
	if !p.skip('"') {
		return sfItem{}, false
	}
	var b []byte
	for len(p.rest) > 0 {
		c := p.rest[0]
		p.rest = p.rest[1:]
		switch {
		case c == '"':
			return sfItem{kind: sfString, text: b}, true
		case c == '\\':
			if c = p.peek(); !p.skip('"') && !p.skip('\\') {
				return sfItem{}, false
			}
		case c < ' ' || c > '~':
			return sfItem{}, false
		}
		b = append(b, c)
	}
	return sfItem{}, false
}

// integerOrDecimal reads up to 15 digits, or 12 and up to three decimals.
func (p *dictionary) integerOrDecimal() (sfItem, bool) {
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	negative := p.skip('-')
	whole := p.while(digit)
	if len(whole) == 0 || len(whole) > 15 {
		return sfItem{}, false
	}
	if p.skip('.') {
		part := p.while(digit)
		return sfItem{kind: sfOther}, len(whole) <= 12 && 1 <= len(part) && len(part) <= 3
	}
	v := sfItem{kind: sfInteger}
	for _, c := range whole {
		v.number = v.number*10 + int64(c-'0')
	}
	if negative {
		v.number = -v.number
	}
	return v, true
}
