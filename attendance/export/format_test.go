package export

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"firstbell/attendance"

	"github.com/xuri/excelize/v2"
)

// awkward is a register with names and ids that formats stumble over.
func awkward(t testing.TB) Input {
	in := testInput(t,
		row("hanbit", "9", "c1", "s3", "09:00"),
		row("hanbit", "9", "2-1", "00123", "09:20"),
		row("hanbit", "9", "c1", "=HYPERLINK(\"http://x\",\"y\")", "09:01"),
		row("hanbit", "9", "c1", "학생 ①\r\n\x01\U0001F600", "09:02"),
	)
	in.Filter.School, in.Filter.Period = "hanbit", "9"
	return in
}

func TestCSVOpensInExcelAsItIs(t *testing.T) {
	text, _ := write(t, CSV, awkward(t))
	bom := "\xef\xbb\xbf"
	if !strings.HasPrefix(text, bom+"date,school,class_id,student_id,name,period,status,first_arrival,presses,verified,on_roster,receipt,note\r\n") {
		t.Fatalf("got a file that begins %q, want the byte order mark, the columns and CRLF", text[:min(len(text), 120)])
	}
	if strings.Count(text, "\n") != strings.Count(text, "\r\n") {
		t.Error("a line ends without CR")
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, bom))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows[1:] {
		got = append(got, strings.Join(r[2:7], "|"))
	}
	want := []string{
		"|s5|No Class|9|absent",
		"'2-1|'00123||9|late",
		"c1|'=HYPERLINK(\"http://x\",\"y\")||9|present",
		"c1|s2|이민수|9|absent",
		"c1|s3|Ada O'Neil, \"Jr\"|9|present",
		"c1|학생 ①\n\x01\U0001F600||9|present",
		"c2|s1|Mina Kim|9|absent",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestCSVCells(t *testing.T) {
	for _, c := range []struct{ in, text, id string }{
		{"", "", ""},
		{"Kim Min-a", "Kim Min-a", "Kim Min-a"},
		{"=1+1", "'=1+1", "'=1+1"},
		{"+82 10", "'+82 10", "'+82 10"},
		{"-5", "'-5", "'-5"},
		{"@SUM(A1)", "'@SUM(A1)", "'@SUM(A1)"},
		{"\t=1", "'\t'=1", "'\t'=1"},
		{"\r=1", "'\r'=1", "'\r'=1"},
		{"  =1", "  '=1", "  '=1"},
		{"＝1", "'＝1", "'＝1"},
		{"a;=1+1", "a;'=1+1", "a;'=1+1"},
		{"a\",=1+1", "a\",'=1+1", "a\",'=1+1"},
		{"a\n@b", "a\n'@b", "a\n'@b"},
		{"a, -b", "a, '-b", "a, '-b"},
		{"'quoted", "''quoted", "''quoted"},
		{"O'Neil", "O'Neil", "O'Neil"},
		{"1", "1", "1"},
		{"20260001", "20260001", "20260001"},
		{"00123", "00123", "'00123"},
		{"123456789012", "123456789012", "'123456789012"},
		{"1E5", "1E5", "'1E5"},
		{"E-101", "E-101", "E-101"},
		{"1.50", "1.50", "'1.50"},
		{"2-1", "2-1", "'2-1"},
		{"3/4", "3/4", "'3/4"},
		{"MAR2", "MAR2", "'MAR2"},
		{"1-Sept", "1-Sept", "'1-Sept"},
		{"math2", "math2", "math2"},
		{"3-2반", "3-2반", "3-2반"},
		{"s-000123", "s-000123", "s-000123"},
		{"a3f1c2d4-0000-4000-8000-000000000001", "a3f1c2d4-0000-4000-8000-000000000001", "a3f1c2d4-0000-4000-8000-000000000001"},
	} {
		if got := plain(c.in); got != c.text {
			t.Errorf("text %q: got %q, want %q", c.in, got, c.text)
		}
		if got := plainID(c.in); got != c.id {
			t.Errorf("id %q: got %q, want %q", c.in, got, c.id)
		}
	}
}

// FuzzNoCellIsAFormula cuts a line where any spreadsheet in any country may cut
// it, and looks at how the pieces begin.
func FuzzNoCellIsAFormula(f *testing.F) {
	for _, s := range []string{"=1", "a;=1", "\",=1", "'=1", "\t\r=", " ;  -", "a\"\"=1", "\xff=", "1E5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{plain(s), plainID(s)} {
			if !utf8.ValidString(s) {
				continue
			}
			for i, c := range got {
				before := strings.TrimRight(got[:i], " ")
				begins := before == "" || strings.ContainsAny(before[len(before)-1:], separators)
				if begins && strings.ContainsRune(signs, c) || i == 0 && strings.ContainsRune(triggers, c) {
					t.Fatalf("%q became %q, in which a cell may begin with %q", s, got, c)
				}
			}
			if back := strings.TrimPrefix(got, "'"); !strings.ContainsAny(s, separators+" ") && back != s {
				t.Fatalf("%q became %q, which reads back as %q", s, got, back)
			}
		}
	})
}

func TestJSONLinesHaveNativeTypes(t *testing.T) {
	text, _ := write(t, JSON, awkward(t))
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != 7 {
		t.Fatalf("got %d lines, want 7: %s", len(lines), text)
	}
	for _, line := range lines {
		at := -1
		for _, name := range Columns {
			i := strings.Index(line, `"`+name+`":`)
			if i <= at {
				t.Errorf("%s: %s is missing or out of order", line, name)
			}
			at = i
		}
	}
	var absent, strange map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &absent); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(lines[1]), &strange); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"student_id": "s5", "first_arrival": nil, "receipt": nil, "verified": nil, "presses": 0.0, "on_roster": true} {
		if got, there := absent[name]; got != want || !there {
			t.Errorf("absent line, %s: got %v, want %v", name, got, want)
		}
	}
	for name, want := range map[string]any{"student_id": "00123", "class_id": "2-1", "presses": 1.0, "verified": false, "on_roster": false, "status": "late"} {
		if got := strange[name]; got != want {
			t.Errorf("late line, %s: got %v, want %v", name, got, want)
		}
	}
}

func openWorkbook(t *testing.T, text string) *excelize.File {
	t.Helper()
	f, err := excelize.OpenReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestWorkbookHasASummaryAndASheetForEachSchool(t *testing.T) {
	in := awkward(t)
	in.Filter.School = ""
	text, sum := write(t, XLSX, in)
	f := openWorkbook(t, text)
	if got, want := f.GetSheetList(), []string{"Summary", "hanbit", "o2"}; !slices.Equal(got, want) {
		t.Fatalf("sheets: got %q, want %q", got, want)
	}
	rows, err := f.GetRows("hanbit")
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 8 || !slices.Equal(rows[0], Columns[:]) {
		t.Fatalf("got %d rows with header %q, want 8 with %q", len(rows), rows[0], Columns)
	}
	if got, want := rows[2][2:5], []string{"2-1", "00123", ""}; !slices.Equal(got, want) {
		t.Errorf("ids: got %q, want %q as they are", got, want)
	}
	if got := rows[3][3]; got != `=HYPERLINK("http://x","y")` {
		t.Errorf("formula id: got %q, want its text", got)
	}
	if got := rows[6][3]; !strings.HasPrefix(got, "학생 ①") || !strings.HasSuffix(got, "\U0001F600") {
		t.Errorf("unicode id: got %q", got)
	}
	for _, cell := range []string{"D3", "D4", "C3"} {
		kind, _ := f.GetCellType("hanbit", cell)
		style, _ := f.GetCellStyle("hanbit", cell)
		s, err := f.GetStyle(style)
		formula, _ := f.GetCellFormula("hanbit", cell)
		if err != nil || s.NumFmt != 49 || kind != excelize.CellTypeInlineString || formula != "" {
			t.Errorf("%s: got type %v, format %d, formula %q, %v, want a text cell in text format", cell, kind, s.NumFmt, formula, err)
		}
	}
	if panes, err := f.GetPanes("hanbit"); err != nil || !panes.Freeze || panes.YSplit != 1 {
		t.Errorf("panes: got %+v, %v, want the first row frozen", panes, err)
	}
	if width, _ := f.GetColWidth("hanbit", "L"); width != 38 {
		t.Errorf("width of receipt: got %v, want 38", width)
	}
	filters := map[string]string{}
	for _, n := range f.GetDefinedName() {
		filters[n.Scope] = n.RefersTo
	}
	if got, want := filters["hanbit"], "'hanbit'!$A$1:$M$8"; got != want {
		t.Errorf("filter: got %q of %v, want %q", got, filters, want)
	}
	checkSummarySheet(t, f, sum)
}

func checkSummarySheet(t *testing.T, f *excelize.File, sum *Summary) {
	t.Helper()
	rows, err := f.GetRows("Summary")
	if err != nil {
		t.Fatal(err)
	}
	facts := sum.Facts()
	for i, fact := range facts {
		if rows[i][0] != fact.Name || rows[i][1] != fact.Value {
			t.Errorf("summary row %d: got %q, want %v", i+1, rows[i], fact)
		}
	}
	table := rows[len(facts)+1:]
	if !slices.Equal(table[0], summaryColumns) {
		t.Errorf("summary table: got %q, want %q", table[0], summaryColumns)
	}
	want := []string{"hanbit", "c1", "9", "3", "0", "1", "0", "2"}
	if !slices.ContainsFunc(table, func(r []string) bool { return slices.Equal(r, want) }) {
		t.Errorf("summary table: got %q, want a row %q", table, want)
	}
}

func TestWorkbookWithoutRosterSaysUnknown(t *testing.T) {
	in := awkward(t)
	in.Roster = nil
	text, _ := write(t, XLSX, in)
	rows, err := openWorkbook(t, text).GetRows("Summary")
	if err != nil {
		t.Fatal(err)
	}
	if last := rows[len(rows)-1]; len(last) < 6 || last[5] != "unknown" {
		t.Errorf("absent in the summary: got %q, want unknown in column 6", last)
	}
}

func TestEmptyWorkbookIsWhole(t *testing.T) {
	in := testInput(t)
	in.Roster = nil
	text, _ := write(t, XLSX, in)
	if got := openWorkbook(t, text).GetSheetList(); !slices.Equal(got, []string{"Summary"}) {
		t.Errorf("sheets: got %q, want the Summary", got)
	}
}

func TestMoreLinesThanExcelHasRowsAreRefused(t *testing.T) {
	for max, fits := range map[int]bool{20: true, 7: false, 3: false} { // there are 7 lines and a header
		var w bytes.Buffer
		book := newWorkbook(&w, max)
		defer book.discard()
		r := newRegister(awkward(t), book)
		if err := errors.Join(r.Filter.validate(), r.run()); err != nil {
			t.Fatal(err)
		}
		err := book.close(&r.summary)
		if fits {
			if err != nil || w.Len() == 0 {
				t.Errorf("%d rows: got %v and %d bytes, want a workbook", max, err, w.Len())
			}
			continue
		}
		var rows *RowsError
		if !errors.As(err, &rows) || *rows != (RowsError{School: "hanbit", Rows: 7, Max: max - 1}) {
			t.Errorf("%d rows: got %v, want 7 lines of hanbit refused", max, err)
		}
		if w.Len() > 0 || !strings.Contains(fmt.Sprint(err), "one class or one period, or choose csv") {
			t.Errorf("%d rows: wrote %d bytes and said %v, want nothing and the way out", max, w.Len(), err)
		}
	}
	book := newWorkbook(io.Discard, 2)
	defer book.discard()
	var rows *RowsError
	if err := book.close(&Summary{}); !errors.As(err, &rows) || rows.School != "" {
		t.Errorf("a summary that does not fit: got %v, want it refused", err)
	}
}

func TestSheetNamesAreLegalAndUnique(t *testing.T) {
	b := newWorkbook(io.Discard, 10)
	defer b.discard()
	long := strings.Repeat("가", 40)
	seen := map[string]bool{}
	for _, school := range []string{"hanbit", "HANBIT", "a/b:c\\d?e*f[g]", "a_b_c_d_e_f_g_", "'quoted'", "o'neil", "", "''", "  ", "summary", "History", long, long + "x", strings.Repeat("\U0001F600", 20), "\x00\n"} {
		name := b.sheetName(school)
		if seen[strings.ToLower(name)] {
			t.Errorf("%q: the name %q is there twice", school, name)
		}
		seen[strings.ToLower(name)] = true
		if strings.Contains(name, "'") {
			t.Errorf("%q: the filter of %q would need a doubled apostrophe", school, name)
		}
		if _, err := b.file.NewSheet(name); err != nil {
			t.Errorf("%q: %q is not legal: %v", school, name, err)
		}
	}
}

func TestABrokenWriterIsAnError(t *testing.T) {
	for _, format := range []Format{CSV, JSON, XLSX} {
		whole, _ := write(t, format, awkward(t))
		for _, n := range []int{0, 1, len(whole) / 2, len(whole) - 1} {
			if sum, err := Write(&brokenAfter{n}, format, awkward(t)); !errors.Is(err, errBroken) || sum != nil {
				t.Errorf("%s, %d bytes of %d: got %v, want %v", format, n, len(whole), err, errBroken)
			}
		}
	}
}

// A register larger than any buffer meets the broken writer amid its lines.
func TestABrokenWriterStopsALongExport(t *testing.T) {
	for _, format := range []Format{CSV, JSON} {
		taken := 0
		in := testInput(t)
		in.Roster = nil
		in.Rows = func(yield func(attendance.Row, error) bool) {
			for i := range 100_000 {
				taken++
				if !yield(row(fmt.Sprintf("school%06d", i), "9", "c", "s", "09:00"), nil) {
					return
				}
			}
		}
		if _, err := Write(&brokenAfter{100 << 10}, format, in); !errors.Is(err, errBroken) || taken > 5000 {
			t.Errorf("%s: got %v after %d rows, want %v after few", format, err, taken, errBroken)
		}
	}
}

func TestTheSameRegisterTwiceIsTheSameBytes(t *testing.T) {
	for _, format := range []Format{CSV, JSON} {
		first, _ := write(t, format, awkward(t))
		second, _ := write(t, format, awkward(t))
		if first != second {
			t.Errorf("%s: two exports differ", format)
		}
	}
}

func TestAFileIsWholeOrNotThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "register.csv")
	half := func(w io.Writer) error {
		io.WriteString(w, "half")
		return errBroken
	}
	if err := ToFile(path, half); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want %v", err, errBroken)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("a broken export leaves %v, want nothing", left)
	}
	for _, text := range []string{"first", "second"} {
		if err := ToFile(path, func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
	if err := ToFile(path, half); err == nil {
		t.Error("a broken export: got no error")
	}
	if got, _ := os.ReadFile(path); string(got) != "second" {
		t.Errorf("after a broken export the file has %q, want what it had, %q", got, "second")
	}
	link := filepath.Join(dir, "link.csv")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := ToFile(link, func(w io.Writer) error { _, err := io.WriteString(w, "third"); return err }); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "third" {
		t.Errorf("through a link: got %q, want %q", got, "third")
	}
	if err := ToFile(os.DevNull, half); !errors.Is(err, errBroken) {
		t.Errorf("a device: got %v, want %v", err, errBroken)
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Errorf("the device has become %v, %v", info, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, want 0600", info.Mode())
	}
	if err := ToFile(filepath.Join(dir, "no", "such"), half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want %v", err, os.ErrNotExist)
	}
}
