package export

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/roster"
	"firstbell/attendance/timetable"
)

var (
	seoul  = time.FixedZone("KST", 9*60*60)
	monday = timetable.Date{Year: 2026, Month: time.May, Day: 4}
	after  = time.Date(2026, 5, 4, 18, 0, 0, 0, seoul) // school is over
)

// Two schools: hanbit with the homeroom c2 and the subject c1, saebom with c3.
// s5 is in no class; s6 has left.
var rosterFiles = map[string]string{
	"orgs.csv": "sourcedId,name,type,identifier\no1,Hanbit Middle School,school,hanbit\no2,Saebom,school,\n",
	"users.csv": "sourcedId,role,givenName,familyName,orgSourcedIds\n" +
		"s1,student,Mina,Kim,o1\ns2,student,민수,이,o1\ns3,student,Ada,\"O'Neil, \"\"Jr\"\"\",o1\ns4,student,Bo,Lee,o2\ns5,student,No,Class,o1\ns6,student,Has,Left,o1\n",
	"classes.csv": "sourcedId,title,classType,schoolSourcedId\nc2,2-1,homeroom,o1\nc1,Math,scheduled,o1\nc3,Art,scheduled,o2\n",
	"enrollments.csv": "classSourcedId,userSourcedId,role,endDate\n" +
		"c1,s1,student,\nc2,s1,student,\nc1,s2,student,\nc2,s3,student,\nc3,s4,student,\nc1,s6,student,2026-05-01\n",
}

func testRoster(t testing.TB) *roster.Roster {
	t.Helper()
	dir := t.TempDir()
	for name, text := range rosterFiles {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, problems, err := roster.Load(dir)
	if err != nil || problems.Total() > 0 {
		t.Fatal(err, problems)
	}
	return r
}

func testSchools(t testing.TB) *attendance.Schools {
	t.Helper()
	tt, err := timetable.New(timetable.Spec{
		Days: []string{"mon", "tue"}, Holidays: []string{"2026-05-05"},
		Periods: []timetable.PeriodSpec{{Name: "9", Starts: "09:00", Ends: "09:45"}, {Name: "10", Starts: "10:00", Ends: "10:45"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	schools, err := attendance.NewSchools(seoul, tt, nil)
	if err != nil {
		t.Fatal(err)
	}
	return schools
}

// row is a check-in at a time of that Monday; class may end in "!" when it is
// part of the key.
func row(school, period, class, student, at string) attendance.Row {
	clock, err := time.ParseInLocation("2006-01-02 15:04", "2026-05-04 "+at, seoul)
	if err != nil {
		panic(err)
	}
	class, key := strings.CutSuffix(class, "!")
	status := timetable.Present
	switch {
	case period == "outside":
		status = timetable.Outside
	case clock.Minute() > 10 && clock.Minute() < 50:
		status = timetable.Late
	}
	r := attendance.Row{Receipt: attendance.Receipt{School: school, Period: period, Class: class, Student: student, Date: monday, FirstArrival: clock, Status: status}, ClassIsKey: key, Presses: 1}
	copy(r.ID[:], school+period+class+student)
	return r
}

func rowsOf(rows ...attendance.Row) iter.Seq2[attendance.Row, error] {
	slices.SortFunc(rows, func(a, b attendance.Row) int { return attendance.CompareRows(&a, &b) })
	return func(yield func(attendance.Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func testInput(t testing.TB, rows ...attendance.Row) Input {
	schools := testSchools(t)
	for i := range rows {
		rows[i].Timetable = schools.School(rows[i].School).Timetable.Version()
	}
	return Input{Filter: Filter{From: monday}, Rows: rowsOf(rows...), Roster: testRoster(t), Schools: schools, AsOf: AsOf{At: after, Position: 4711}}
}

// keep takes lines for tests: "school period class student status".
type keep struct{ lines []Line }

func (k *keep) line(l *Line) error   { k.lines = append(k.lines, *l); return nil }
func (k *keep) close(*Summary) error { return nil }
func (k *keep) discard()             {}

func run(t testing.TB, in Input) ([]Line, *Summary) {
	t.Helper()
	if err := in.Filter.validate(); err != nil {
		t.Fatal(err)
	}
	var k keep
	r := newRegister(in, &k)
	if err := r.run(); err != nil {
		t.Fatal(err)
	}
	return k.lines, &r.summary
}

func short(lines []Line) []string {
	var out []string
	for _, l := range lines {
		out = append(out, fmt.Sprintf("%s %s %s %s %s", l.School, l.Period, l.Class, l.Student, l.Status))
	}
	return out
}

func wantLines(t *testing.T, in Input, want ...string) *Summary {
	t.Helper()
	lines, sum := run(t, in)
	if got := short(lines); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return sum
}

func write(t testing.TB, format Format, in Input) (string, *Summary) {
	t.Helper()
	var b bytes.Buffer
	sum, err := Write(&b, format, in)
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), sum
}

// fact returns the values of the facts of that name.
func fact(s *Summary, name string) string {
	var values []string
	for _, f := range s.Facts() {
		if f.Name == name {
			values = append(values, f.Value)
		}
	}
	return strings.Join(values, " | ")
}

var errBroken = errors.New("the disk is gone")

// brokenAfter is a writer that takes n bytes.
type brokenAfter struct{ n int }

func (w *brokenAfter) Write(p []byte) (int, error) {
	if len(p) > w.n {
		return 0, errBroken
	}
	w.n -= len(p)
	return len(p), nil
}
