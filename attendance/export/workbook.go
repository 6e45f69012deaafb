package export

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/xuri/excelize/v2"
)

// excelRows is how many rows a sheet of Excel has, the header included.
const excelRows = 1_048_576

// RowsError means that a register has more lines than a sheet of Excel has rows.
// Nothing has been written.
type RowsError struct {
	School string // empty: the Summary sheet
	Rows   int    // lines, or lines of the summary
	Max    int    // how many fit
}

func (e *RowsError) Error() string {
	sheet := fmt.Sprintf("the sheet of school %q", e.School)
	if e.School == "" {
		sheet = "the summary"
	}
	return fmt.Sprintf("%s has %d lines, but Excel takes %d at most: export fewer days, one class or one period, or choose csv", sheet, e.Rows, e.Max)
}

const summaryName = "Summary"

// workbook writes an .xlsx file: a Summary, then a sheet for each school in the
// order of its first line. Every text is a text cell, so nothing is computed.
type workbook struct {
	w       io.Writer
	file    *excelize.File
	rowsMax int // the header included
	schools map[string]*schoolSheet
	order   []*schoolSheet
	names   map[string]bool // sheet names in lower case
	groups  map[group]*Counts

	text, bold int // styles
	cells      []any
}

type schoolSheet struct {
	id, name string
	stream   *excelize.StreamWriter
	rows     int // the header not included; counted on beyond what fits
}

// group is a line of the Summary.
type group struct{ school, class, period string }

func newWorkbook(w io.Writer, rowsMax int) *workbook {
	return &workbook{
		w: w, file: excelize.NewFile(), rowsMax: rowsMax,
		schools: map[string]*schoolSheet{}, groups: map[group]*Counts{},
		names: map[string]bool{strings.ToLower(summaryName): true, "history": true}, // Excel keeps History for itself
	}
}

func (b *workbook) discard() { b.file.Close() } // removes temporary files

// styles makes the two styles: text, which is number format 49, and the header.
func (b *workbook) styles() (err error) {
	if b.bold != 0 {
		return nil
	}
	if b.text, err = b.file.NewStyle(&excelize.Style{NumFmt: 49}); err != nil {
		return err
	}
	b.bold, err = b.file.NewStyle(&excelize.Style{NumFmt: 49, Font: &excelize.Font{Bold: true}})
	return err
}

func (b *workbook) line(l *Line) error {
	s, err := b.sheet(l.School)
	if err != nil {
		return fmt.Errorf("making the sheet of school %q: %w", l.School, err)
	}
	b.count(l)
	s.rows++
	if s.rows >= b.rowsMax {
		return nil // close refuses, and says how many there were
	}
	b.cells = append(b.cells[:0], b.cell(l.Date), b.cell(l.School), b.cell(l.Class), b.cell(l.Student), b.cell(l.Name),
		b.cell(l.Period), b.cell(l.Status), b.cell(value(l.FirstArrival)), l.Presses,
		flag(l.Verified), flag(l.OnRoster), b.cell(value(l.Receipt)), b.cell(l.Note))
	if err := setRow(s.stream, s.rows+1, b.cells); err != nil {
		return fmt.Errorf("filling the sheet of school %q: %w", l.School, err)
	}
	return nil
}

func (b *workbook) count(l *Line) {
	g := group{l.School, l.Class, l.Period}
	c := b.groups[g]
	if c == nil {
		c = &Counts{}
		b.groups[g] = c
	}
	c.add(l)
}

// cell is a text cell; an empty text is no cell at all.
func (b *workbook) cell(text string) any {
	if text == "" {
		return nil
	}
	return excelize.Cell{StyleID: b.text, Value: strings.Map(legal, text)}
}

// legal lets only characters pass that XML 1.0 has; others become U+FFFD.
func legal(c rune) rune {
	if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0xFFFE || c == 0xFFFF {
		return unicode.ReplacementChar
	}
	return c
}

func flag(v *bool) any {
	if v == nil {
		return nil
	}
	return *v
}

func setRow(s *excelize.StreamWriter, row int, cells []any) error {
	at, err := excelize.CoordinatesToCellName(1, row)
	if err != nil {
		return err
	}
	return s.SetRow(at, cells)
}

// widths of the columns, in characters.
var widths = [len(Columns)]float64{11, 14, 14, 16, 24, 10, 9, 30, 8, 9, 10, 38, 30}

// sheet returns the school's sheet, made when it is asked for the first time.
func (b *workbook) sheet(school string) (*schoolSheet, error) {
	if s := b.schools[school]; s != nil {
		return s, nil
	}
	if err := b.styles(); err != nil {
		return nil, err
	}
	s := &schoolSheet{id: school, name: b.sheetName(school)}
	if _, err := b.file.NewSheet(s.name); err != nil {
		return nil, err
	}
	var err error
	if s.stream, err = b.file.NewStreamWriter(s.name); err != nil {
		return nil, err
	}
	for i, width := range widths {
		if err := s.stream.SetColWidth(i+1, i+1, width); err != nil {
			return nil, err
		}
	}
	if err := freezeAbove(s.stream, 2); err != nil {
		return nil, err
	}
	if err := setRow(s.stream, 1, b.header(Columns[:])); err != nil {
		return nil, err
	}
	b.schools[school] = s
	b.order = append(b.order, s)
	return s, nil
}

func (b *workbook) header(names []string) []any {
	cells := make([]any, len(names))
	for i, name := range names {
		cells[i] = excelize.Cell{StyleID: b.bold, Value: name}
	}
	return cells
}

// freezeAbove keeps the rows above the given one in view.
func freezeAbove(s *excelize.StreamWriter, row int) error {
	return s.SetPanes(&excelize.Panes{Freeze: true, YSplit: row - 1, TopLeftCell: fmt.Sprintf("A%d", row), ActivePane: "bottomLeft"})
}

const sheetNameMax = 31 // in UTF-16 units

// sheetName makes a name that Excel takes and no other sheet has. An apostrophe
// becomes a typographic one: excelize names the sheet in the filter's formula
// without doubling it, and Excel then calls the file damaged.
func (b *workbook) sheetName(school string) string {
	base := strings.Map(func(c rune) rune {
		switch {
		case strings.ContainsRune(`:\/?*[]`, c) || unicode.IsControl(c):
			return '_'
		case c == '\'':
			return '’'
		}
		return legal(c)
	}, school)
	base = cmp.Or(strings.TrimSpace(base), "school")
	for n := 1; ; n++ {
		suffix := ""
		if n > 1 {
			suffix = fmt.Sprintf(" (%d)", n)
		}
		name := strings.TrimSpace(cut(base, sheetNameMax-len(suffix))) + suffix
		if key := strings.ToLower(name); !b.names[key] {
			b.names[key] = true
			return name
		}
	}
}

// cut shortens s to at most max UTF-16 units without cutting a character.
func cut(s string, max int) string {
	units := 0
	for i, c := range s {
		units += utf16.RuneLen(c)
		if units > max {
			return s[:i]
		}
	}
	return s
}

// close refuses what does not fit, else writes the workbook.
func (b *workbook) close(sum *Summary) error {
	if err := b.styles(); err != nil {
		return err
	}
	for _, s := range b.order {
		if s.rows >= b.rowsMax {
			return &RowsError{School: s.id, Rows: s.rows, Max: b.rowsMax - 1}
		}
	}
	for _, s := range b.order {
		if err := b.finish(s.stream, s.name, len(Columns), 1, s.rows+1); err != nil {
			return fmt.Errorf("closing the sheet of school %q: %w", s.id, err)
		}
	}
	if err := b.writeSummary(sum); err != nil {
		return err
	}
	if err := b.file.Write(b.w); err != nil {
		return fmt.Errorf("writing the workbook: %w", err)
	}
	return nil
}

// finish puts a filter on the table between two rows and ends the sheet.
func (b *workbook) finish(s *excelize.StreamWriter, name string, columns, from, to int) error {
	first, err := excelize.CoordinatesToCellName(1, from)
	if err != nil {
		return err
	}
	last, err := excelize.CoordinatesToCellName(columns, to)
	if err != nil {
		return err
	}
	if err := b.file.AutoFilter(name, first+":"+last, nil); err != nil {
		return err
	}
	return s.Flush()
}

var summaryColumns = []string{"school", "class_id", "period", "present", "late", "absent", "outside", "not on the roster"}

// writeSummary fills the first sheet: the facts, an empty row, then the counts
// by school, class and period in the order of the sheets.
func (b *workbook) writeSummary(sum *Summary) error {
	facts := sum.Facts()
	rows := len(facts) + 2 + len(b.groups)
	if rows > b.rowsMax {
		return &RowsError{Rows: rows, Max: b.rowsMax}
	}
	if err := b.file.SetSheetName("Sheet1", summaryName); err != nil {
		return err
	}
	s, err := b.file.NewStreamWriter(summaryName)
	if err != nil {
		return err
	}
	for i, width := range []float64{26, 30, 12, 10, 10, 10, 10, 18} {
		if err := s.SetColWidth(i+1, i+1, width); err != nil {
			return err
		}
	}
	for i, f := range facts {
		if err := setRow(s, i+1, []any{excelize.Cell{StyleID: b.bold, Value: f.Name}, b.cell(f.Value)}); err != nil {
			return err
		}
	}
	top := len(facts) + 2
	if err := setRow(s, top, b.header(summaryColumns)); err != nil {
		return err
	}
	groups := b.sortedGroups()
	for i, g := range groups {
		if err := setRow(s, top+1+i, b.groupCells(sum, g)); err != nil {
			return err
		}
	}
	return b.finish(s, summaryName, len(summaryColumns), top, top+len(groups))
}

func (b *workbook) sortedGroups() []group {
	return slices.SortedFunc(maps.Keys(b.groups), func(x, y group) int {
		return cmp.Or(strings.Compare(x.school, y.school), strings.Compare(x.class, y.class), strings.Compare(x.period, y.period))
	})
}

// groupCells shows absent as a number where it is known.
func (b *workbook) groupCells(sum *Summary, g group) []any {
	c := b.groups[g]
	var absent any = c.Absent
	if text := sum.absent(g.school, c.Absent); text == "unknown" {
		absent = b.cell(text)
	}
	var strangers any
	if sum.HasRoster {
		strangers = c.NotOnRoster
	}
	return []any{b.cell(g.school), b.cell(g.class), b.cell(g.period), c.Present, c.Late, absent, c.Outside, strangers}
}
