package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
	"firstbell/proxy/field"
)

// ReplyConfig is how a route answers a check-in that has its receipt. The zero
// value is 200 with the receipt as JSON.
type ReplyConfig struct {
	Status      int    // 2xx; 0: 200
	ContentType string // empty: application/json
	Body        string // with ${receipt} and the like; empty: the receipt as JSON, or nothing for 204
	Redirect    string // where a browser showing a page is sent by a 303; empty: nowhere
}

// Reply is a ReplyConfig made ready: what stands between the placeholders is
// cut apart once, and an answer is put together without an allocation.
type Reply struct {
	status   int
	fields   field.List
	body     template
	whole    bool // the receipt as it is
	redirect template
}

// A template is text with placeholders.
type template struct {
	pieces []piece // each a text, then a value
	escape escaping
}

// escaping is how a value is written between the texts of a template.
type escaping uint8

const (
	unknown escaping = iota
	asText
	asJSON
	asMarkup
	asQuery
)

func (e escaping) append(dst []byte, value string) []byte {
	switch e {
	case asJSON:
		return escapeJSON(dst, value)
	case asMarkup:
		return escapeMarkup(dst, value)
	case asQuery:
		return escapeQuery(dst, value)
	}
	return append(dst, value...)
}

type piece struct {
	text string
	name placeholder
}

// placeholder is a value of a receipt, by the names of the wire.
type placeholder uint8

const (
	nothing placeholder = iota
	ofReceipt
	ofStudent
	ofSchool
	ofClass
	ofDate
	ofPeriod
	ofFirstArrival
	ofStatus
	ofDurable
	ofVerified
)

var placeholders = []string{"", "receipt", "student_id", "school", "class_id", "date", "period", "first_arrival", "status", "durable", "verified"}

// replyBytesMax bounds a template.
const replyBytesMax = 64 << 10

// NewReply returns the reply, or what is wrong with it and, behind "; ", a way
// out. A template of JSON must be JSON whatever the values are, and one of HTML
// must not hold a value where no escaping makes it safe.
func NewReply(c ReplyConfig) (*Reply, error) {
	r := &Reply{status: c.Status}
	if r.status == 0 {
		r.status = 200
	}
	noContent := r.status == 204 || r.status == 205
	switch {
	case r.status < 200 || r.status > 299:
		return nil, fmt.Errorf("%d does not say that the check-in was taken; write 200, 201 or 204, or a redirect", r.status)
	case noContent && (c.Body != "" || c.ContentType != ""):
		return nil, fmt.Errorf("an answer %d has no content; remove body and content_type, or write 200", r.status)
	case len(c.Body) > replyBytesMax:
		return nil, fmt.Errorf("the body has more than %d bytes; write less", replyBytesMax)
	case c.Body == "" && c.ContentType != "" && c.ContentType != "application/json":
		return nil, errors.New("the receipt is JSON; add a body, or leave content_type out")
	}
	r.fields = field.List{{Name: "Cache-Control", Value: "no-store"}}
	if !noContent {
		if c.ContentType == "" {
			c.ContentType = "application/json"
		}
		if err := r.setBody(&c); err != nil {
			return nil, err
		}
		r.fields = append(r.fields, field.Field{Name: "Content-Type", Value: c.ContentType})
	}
	if c.Redirect != "" {
		if err := r.setRedirect(c.Redirect); err != nil {
			return nil, err
		}
		r.fields = append(r.fields, field.Field{Name: "Vary", Value: "Accept"})
	}
	return r, nil
}

func (r *Reply) setBody(c *ReplyConfig) (err error) {
	kind, _, err := mime.ParseMediaType(c.ContentType)
	if err != nil || strings.ContainsFunc(c.ContentType, func(c rune) bool { return c < ' ' || c > '~' }) {
		return fmt.Errorf("%q is not a media type; write application/json or text/html; charset=utf-8", c.ContentType)
	}
	if r.whole = c.Body == ""; r.whole {
		return nil
	}
	escape := escapeFor(kind)
	if escape == unknown {
		return fmt.Errorf("what is escaped in %s is not known; write JSON, HTML, XML or text/plain", kind)
	}
	if r.body, err = newTemplate(c.Body, escape); err != nil {
		return err
	}
	switch {
	case isJSON(kind) && !r.bodyIsJSON():
		return errors.New(`the body is not JSON once it is filled; quote each placeholder, such as {"receipt":"${receipt}"}`)
	case kind == "text/html":
		return r.body.safeInHTML()
	}
	return nil
}

// bodyIsJSON tries the template with values that would break out of anything
// but a string, and with plain ones.
func (r *Reply) bodyIsJSON() bool {
	for _, v := range [...]string{`x`, "a\"b\\c</d> \u2028", `1`} {
		rc := attendance.Receipt{Student: v, School: v, Class: v, Period: v, Status: timetable.Status(v)}
		if !json.Valid(r.body.fill(nil, &rc)) {
			return false
		}
	}
	return true
}

func isJSON(kind string) bool { return kind == "application/json" || strings.HasSuffix(kind, "+json") }

// escapeFor is how a value is written within a content of that kind; unknown
// when there is no one way.
func escapeFor(kind string) escaping {
	switch {
	case isJSON(kind):
		return asJSON
	case kind == "text/html", kind == "application/xml", kind == "text/xml", strings.HasSuffix(kind, "+xml") && kind != "image/svg+xml":
		return asMarkup
	case kind == "text/plain":
		return asText
	case kind == "application/x-www-form-urlencoded":
		return asQuery
	}
	return unknown
}

// newTemplate cuts a text at its placeholders. "$${" stands for "${" itself.
func newTemplate(text string, escape escaping) (template, error) {
	t := template{escape: escape}
	plain := ""
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			t.pieces = append(t.pieces, piece{text: plain + text})
			return t, nil
		}
		if i > 0 && text[i-1] == '$' {
			plain, text = plain+text[:i-1]+"${", text[i+2:]
			continue
		}
		name, rest, closed := strings.Cut(text[i+2:], "}")
		n := slices.Index(placeholders, name)
		if !closed || n <= 0 {
			return t, fmt.Errorf("${%.40s} is no placeholder; those known are ${%s}", name, strings.Join(placeholders[1:], "}, ${"))
		}
		t.pieces = append(t.pieces, piece{plain + text[:i], placeholder(n)})
		plain, text = "", rest
	}
}

// safeInHTML refuses values where HTML has no one escaping: in scripts, styles,
// comments and tags. Those that are made of digits, dashes and colons may stand
// anywhere.
func (t *template) safeInHTML() error {
	var before strings.Builder
	for _, p := range t.pieces {
		before.WriteString(p.text)
		switch p.name {
		case nothing, ofReceipt, ofDate, ofFirstArrival, ofDurable, ofVerified:
			continue
		}
		if place := unsafePlace(strings.ToLower(before.String())); place != "" {
			return fmt.Errorf("${%s} stands in %s, where no escaping makes it safe; put it into the page's text", placeholders[p.name], place)
		}
		before.WriteString("x")
	}
	return nil
}

// unsafePlace says in which place of a page the text behind before would stand;
// empty in the page's text.
func unsafePlace(before string) string {
	for _, raw := range [...]struct{ open, close, name string }{
		{"<script", "</script", "a script"}, {"<style", "</style", "a style sheet"}, {"<!--", "-->", "a comment"},
	} {
		if open := strings.LastIndex(before, raw.open); open >= 0 && !strings.Contains(before[open:], raw.close) {
			return raw.name
		}
	}
	if strings.LastIndexByte(before, '<') > strings.LastIndexByte(before, '>') {
		return "a tag"
	}
	return ""
}

// setRedirect takes a path of this host or a URL, whose host no value can
// change.
func (r *Reply) setRedirect(text string) (err error) {
	if r.redirect, err = newTemplate(text, asQuery); err != nil {
		return err
	}
	const eg = `; write a path such as "/lessons?receipt=${receipt}", or a URL`
	fixed := r.redirect.pieces[0].text
	u, err := url.Parse(fixed)
	switch {
	case err != nil || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' || c == '\\' }):
		return fmt.Errorf("%q is not a place to go to%s", text, eg)
	case u.Scheme == "" && u.Host == "" && strings.HasPrefix(fixed, "/") && !strings.HasPrefix(fixed, "//"):
		return nil
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		(len(r.redirect.pieces) == 1 || strings.HasPrefix(u.Path, "/")):
		return nil
	}
	return fmt.Errorf("%q is not a place to go to%s", text, eg)
}

// send answers the exchange. It returns dst, which it may have grown.
func (r *Reply) send(x *exchange, receipt *attendance.Receipt, dst []byte) []byte {
	switch {
	case r.redirect.pieces != nil && wantsPage(x.fields):
		dst = r.redirect.fill(dst, receipt)
		x.out.send(x, 303, field.List{
			{Name: "Location", Value: string(dst)},
			{Name: "Cache-Control", Value: "no-store"},
			{Name: "Vary", Value: "Accept"},
		}, nil)
		return dst
	case r.whole:
		dst = append(receipt.AppendJSON(dst), '\n')
	default:
		dst = r.body.fill(dst, receipt)
	}
	x.out.send(x, r.status, r.fields, dst)
	return dst
}

// fill appends the text with the receipt's values in it.
func (t *template) fill(dst []byte, r *attendance.Receipt) []byte {
	var scratch [64]byte
	for i := range t.pieces {
		p := &t.pieces[i]
		dst = append(dst, p.text...)
		value := ""
		switch p.name {
		case nothing:
			continue
		case ofReceipt:
			dst = r.AppendID(dst) // hexadecimal digits and dashes are safe anywhere
			continue
		case ofDate:
			dst = r.AppendDate(dst)
			continue
		case ofFirstArrival:
			value = text(r.AppendFirstArrival(scratch[:0]))
		case ofStudent:
			value = r.Student
		case ofSchool:
			value = r.School
		case ofClass:
			value = r.Class
		case ofPeriod:
			value = r.Period
		case ofStatus:
			value = string(r.Status)
		case ofDurable:
			value = "disk"
		case ofVerified:
			value = "false"
			if r.Verified {
				value = "true"
			}
		}
		dst = t.escape.append(dst, value)
	}
	return dst
}

// escapeJSON writes a value within a JSON string, and so that it does no harm
// in a page either.
func escapeJSON(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(dst, "\uFFFD"...)
			} else if r == '\u2028' || r == '\u2029' {
				dst = append(dst, `\u202`...)
				dst = append(dst, hexDigits[r&15])
			} else {
				dst = append(dst, s[i:i+n]...)
			}
			i += n
			continue
		}
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ' || c == '<' || c == '>' || c == '&':
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, c)
		}
		i++
	}
	return dst
}

// escapeMarkup writes a value within the text or a quoted attribute of HTML or
// XML.
func escapeMarkup(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; c {
		case '&':
			dst = append(dst, "&amp;"...)
		case '<':
			dst = append(dst, "&lt;"...)
		case '>':
			dst = append(dst, "&gt;"...)
		case '"':
			dst = append(dst, "&#34;"...)
		case '\'':
			dst = append(dst, "&#39;"...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// escapeQuery writes a value within a path segment or a query (RFC 3986 section
// 2.3: all but unreserved characters are encoded).
func escapeQuery(dst []byte, s string) []byte {
	const hexDigits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte("-._~"), c) >= 0 {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}
