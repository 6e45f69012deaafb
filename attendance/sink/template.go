package sink

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"firstbell/attendance/timetable"
)

// A template is a text with fields of the record in it, as {student_id}. Each
// is escaped for where it stands. Braces that hold no name of a field are
// plain text.
type template struct{ pieces []piece }

type piece struct {
	plain  string
	field  string // empty: the piece is plain
	escape escape
}

// escape makes a value fit for where it stands.
type escape func(dst []byte, value string) []byte

// The fields of a check-in, and of what was collected.
var (
	checkInFields   = []string{"key", "receipt", "student_id", "school", "class_id", "date", "period", "first_arrival", "status", "verified"}
	collectedFields = []string{"key", "receipt", "school", "path", "content_type", "arrival", "body"}
)

// value is a record's field.
func (r *record) value(name string) string {
	switch name {
	case "key":
		return r.key
	case "receipt":
		return r.ID.String()
	case "student_id":
		return r.Student
	case "school":
		return r.School
	case "class_id":
		return r.Class
	case "date":
		if r.Date == (timetable.Date{}) {
			return ""
		}
		return r.Date.String()
	case "period":
		return r.Period
	case "first_arrival", "arrival":
		return r.FirstArrival.Format("2006-01-02T15:04:05.000-07:00")
	case "status":
		return string(r.Status)
	case "verified":
		return strconv.FormatBool(r.Verified)
	}
	if r.event == nil || r.event.Collected == nil {
		return ""
	}
	switch c := r.event.Collected; name {
	case "path":
		return c.Path
	case "content_type":
		return c.ContentType
	case "body":
		return c.Body
	}
	return ""
}

// pieceEnd returns where the field that may begin at s[0] == '{' ends, 0 when
// none does.
func pieceEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '}' && i > 1:
			return i + 1
		case c >= 'a' && c <= 'z' || c == '_':
		default:
			return 0
		}
	}
	return 0
}

// parseTemplate reads a text. place says how a field is escaped that stands
// behind so much of the text; its error says what is wrong there.
func parseTemplate(text string, fields []string, place func(before, field, after string) (escape, error)) (*template, error) {
	t := &template{}
	plain := 0 // start of the text not yet in pieces
	for i := 0; i < len(text); i++ {
		end := 0
		if text[i] == '{' {
			end = pieceEnd(text[i:])
		}
		if end == 0 {
			continue
		}
		name := text[i+1 : i+end-1]
		if !slices.Contains(fields, name) {
			return nil, fmt.Errorf("there is no field {%s}; known are {%s}", name, strings.Join(fields, "}, {"))
		}
		esc, err := place(text[:i], name, text[i+end:])
		if err != nil {
			return nil, err
		}
		t.pieces = append(t.pieces, piece{plain: text[plain:i]}, piece{field: name, escape: esc})
		plain, i = i+end, i+end-1
	}
	t.pieces = append(t.pieces, piece{plain: text[plain:]})
	return t, nil
}

// append writes the text with the record's fields.
func (t *template) append(dst []byte, r *record) []byte {
	for i := range t.pieces {
		p := &t.pieces[i]
		if p.field == "" {
			dst = append(dst, p.plain...)
		} else {
			dst = p.escape(dst, r.value(p.field))
		}
	}
	return dst
}

// The escapes. A path that was collected stands as it came: it is one already.
func escapePath(dst []byte, v string) []byte  { return append(dst, url.PathEscape(v)...) }
func escapeQuery(dst []byte, v string) []byte { return append(dst, url.QueryEscape(v)...) }
func escapeNone(dst []byte, v string) []byte  { return append(dst, v...) }

// escapeJSON writes what stands between the quotes of a JSON string.
func escapeJSON(dst []byte, v string) []byte {
	quoted, err := json.Marshal(v)
	if err != nil {
		return dst // a string always marshals
	}
	return append(dst, quoted[1:len(quoted)-1]...)
}

// escapeField writes a part of a field value: what is not visible ASCII or a
// space is percent-encoded, as in a path.
func escapeField(dst []byte, v string) []byte {
	for i := range len(v) {
		if c := v[i]; c >= ' ' && c < 0x7f && c != '%' {
			dst = append(dst, c)
		} else {
			dst = fmt.Appendf(dst, "%%%02X", c)
		}
	}
	return dst
}

// placeURL escapes for the path, or behind a ? for the query.
func placeURL(before, field, _ string) (escape, error) {
	switch {
	case strings.Contains(before, "?"):
		return escapeQuery, nil
	case field == "path" && before == "":
		return escapeNone, nil
	}
	return escapePath, nil
}

func placeField(string, string, string) (escape, error) { return escapeField, nil }
func placeForm(string, string, string) (escape, error)  { return escapeQuery, nil }

func placeText(string, string, string) (escape, error) { return escapeNone, nil }

// placeJSON escapes within a string, and lets only what is a JSON value by
// itself stand outside of one.
func placeJSON(before, field, after string) (escape, error) {
	if insideString(before) {
		return escapeJSON, nil
	}
	if field == "verified" || field == "body" && before == "" && after == "" {
		return escapeNone, nil
	}
	return nil, fmt.Errorf(`{%s} stands outside of a string; write "{%[1]s}" with its quotes`, field)
}

// insideString reports whether JSON text ends within a string.
func insideString(text string) bool {
	inside := false
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && inside:
			i++
		case text[i] == '"':
			inside = !inside
		}
	}
	return inside
}
