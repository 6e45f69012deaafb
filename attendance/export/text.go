package export

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// How a CSV file keeps its text. Spreadsheets guess at every cell of a CSV file,
// quoted or not: "=1+1" is computed, "00123" becomes 123, "2-1" a day in
// February, and where the list separator is a semicolon, a semicolon inside a
// text begins a cell. So an apostrophe (OWASP, "CSV Injection") is put
//
//   - before a text that begins with = + - @, a tab or a line break, their
//     full-width forms, or an apostrophe;
//   - before such a sign after a separator inside a text: comma, semicolon, tab,
//     bar, quote or line break;
//   - before an id that a spreadsheet would show as another one: a number with
//     leading zeros, an exponent, a point or more than 11 digits, a date or a
//     time.
//
// It shows as an apostrophe and everything after it is the text as it was. A
// reader that is no spreadsheet takes one leading apostrophe off, or reads JSON
// Lines.

const (
	signs    = "=+-@＝＋－＠"
	triggers = signs + "\t\r\n"
)

// separators begin a new cell in some spreadsheet in some country.
const separators = ",;\t|\"\r\n"

// plain returns a text that no spreadsheet takes for a formula.
func plain(s string) string {
	if !strings.ContainsAny(s, triggers) && !strings.HasPrefix(s, "'") {
		return s
	}
	var b strings.Builder
	begins := true // what comes next may begin a cell
	for i, c := range s {
		if begins && strings.ContainsRune(signs, c) || i == 0 && strings.ContainsRune("'\t\r\n", c) {
			b.WriteByte('\'')
		}
		b.WriteRune(c)
		begins = strings.ContainsRune(separators, c) || begins && c == ' '
	}
	return b.String()
}

// plainID is plain for ids, which must not be taken for numbers or dates either.
func plainID(s string) string {
	if changes(s) {
		return "'" + s
	}
	return plain(s)
}

// shownDigitsMax is the longest whole number that a spreadsheet shows as it is.
const shownDigitsMax = 11

// changes reports whether a spreadsheet may show s as something else.
func changes(s string) bool {
	digits, others := 0, 0
	for _, c := range s {
		switch {
		case '0' <= c && c <= '9':
			digits++
		case strings.ContainsRune(".,:/-eE %$()", c):
			others++
		default:
			return looksLikeMonth(s)
		}
	}
	switch {
	case digits == 0 || strings.ContainsAny(s[:1], triggers):
		return false // plain sees to these
	case s[0] == 'e' || s[0] == 'E':
		return false
	case others == 0:
		return digits > shownDigitsMax || len(s) > 1 && s[0] == '0'
	}
	return len(s) <= 32 // UUIDs of digits alone and the like are longer
}

var months = []string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}

// looksLikeMonth knows "MAR2", "2-May" and "1 Sept 2026".
func looksLikeMonth(s string) bool {
	if !strings.ContainsAny(s, "0123456789") {
		return false
	}
	letters := strings.ToLower(strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) {
			return c
		}
		return -1
	}, s))
	return len(letters) >= 3 && slices.ContainsFunc(months, func(m string) bool {
		return strings.HasPrefix(m, letters) || letters == "sept"
	})
}

// csvSheet writes RFC 4180 with a byte order mark, without which Excel takes the
// file for one in the local eight-bit encoding.
type csvSheet struct {
	w     *csv.Writer
	cells []string
}

func newCSV(w io.Writer) *csvSheet {
	s := &csvSheet{w: csv.NewWriter(w)}
	s.w.UseCRLF = true
	io.WriteString(w, "\xef\xbb\xbf") // into a buffer that keeps its error
	s.w.Write(Columns[:])
	return s
}

func (s *csvSheet) line(l *Line) error {
	s.cells = append(s.cells[:0], l.Date, plainID(l.School), plainID(l.Class), plainID(l.Student), plain(l.Name),
		plainID(l.Period), l.Status, value(l.FirstArrival), strconv.FormatUint(uint64(l.Presses), 10),
		boolText(l.Verified), boolText(l.OnRoster), value(l.Receipt), plain(l.Note))
	if err := s.w.Write(s.cells); err != nil {
		return fmt.Errorf("writing the register: %w", err)
	}
	return nil
}

func (s *csvSheet) close(*Summary) error {
	s.w.Flush()
	if err := s.w.Error(); err != nil {
		return fmt.Errorf("writing the register: %w", err)
	}
	return nil
}

func (s *csvSheet) discard() {}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func boolText(b *bool) string {
	if b == nil {
		return ""
	}
	return strconv.FormatBool(*b)
}

// jsonSheet writes one JSON object a line (UTF-8, LF, no byte order mark), with
// every name there every time and null for what does not apply.
type jsonSheet struct{ enc *json.Encoder }

func newJSONLines(w io.Writer) *jsonSheet {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &jsonSheet{enc}
}

func (s *jsonSheet) line(l *Line) error {
	if err := s.enc.Encode(l); err != nil {
		return fmt.Errorf("writing the register: %w", err)
	}
	return nil
}

func (s *jsonSheet) close(*Summary) error { return nil }
func (s *jsonSheet) discard()             {}
