package export

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
)

func TestRegisterTellsPresentLateAbsentOutside(t *testing.T) {
	in := testInput(t,
		row("hanbit", "9", "c1", "s1", "09:00"), row("hanbit", "9", "", "s2", "09:20"), row("hanbit", "10", "c1", "s2", "10:00"),
		row("hanbit", "outside", "", "s3", "07:00"), row("hanbit", "9", "c1", "x9", "09:01"), row("hanbit", "9", "", "s6", "09:02"),
	)
	sum := wantLines(t, in,
		"hanbit 9  s5 absent", "hanbit 9  s6 present", "hanbit 9 c1 s1 present", "hanbit 9 c1 s2 late", "hanbit 9 c1 x9 present", "hanbit 9 c2 s3 absent",
		"hanbit 10  s5 absent", "hanbit 10 c1 s2 present", "hanbit 10 c2 s1 absent", "hanbit 10 c2 s3 absent",
		"hanbit outside c2 s3 outside",
		"o2 9 c3 s4 absent", "o2 10 c3 s4 absent",
	)
	if got, want := sum.Counts, (Counts{Present: 4, Late: 1, Absent: 7, Outside: 1, NotOnRoster: 1}); got != want {
		t.Errorf("counts: got %+v, want %+v", got, want)
	}
	lines, _ := run(t, in)
	for i, want := range map[int]string{1: "not enrolled on this date", 4: "not on the school's roster", 5: "checked in outside the periods"} {
		if lines[i].Note != want {
			t.Errorf("note of %s: got %q, want %q", lines[i].Student, lines[i].Note, want)
		}
	}
	if l := lines[2]; l.Name != "Mina Kim" || value(l.FirstArrival) != "2026-05-04T09:00:00.000+09:00" || !*l.OnRoster || *l.Verified {
		t.Errorf("line of s1: got %+v", l)
	}
	if l := lines[0]; l.FirstArrival != nil || l.Receipt != nil || l.Verified != nil || l.Presses != 0 || !*l.OnRoster {
		t.Errorf("line of an absent student: got %+v", l)
	}
}

func TestWithoutARosterAbsentIsUnknown(t *testing.T) {
	in := testInput(t, row("hanbit", "9", "", "s1", "09:00"))
	in.Roster = nil
	sum := wantLines(t, in, "hanbit 9  s1 present")
	if got := fact(sum, "absent"); got != "unknown" {
		t.Errorf("absent: got %q, want unknown", got)
	}
	if lines, _ := run(t, in); lines[0].OnRoster != nil {
		t.Errorf("on_roster: got %v, want nil", *lines[0].OnRoster)
	}
}

func TestASchoolThatTheRosterLacksIsUnknown(t *testing.T) {
	sum := wantLines(t, testInput(t, row("newschool", "9", "", "s1", "09:00"), row("hanbit", "9", "", "s1", "09:00")),
		"hanbit 9  s5 absent", "hanbit 9 c1 s2 absent", "hanbit 9 c2 s1 present", "hanbit 9 c2 s3 absent",
		"hanbit 10  s5 absent", "hanbit 10 c1 s2 absent", "hanbit 10 c2 s1 absent", "hanbit 10 c2 s3 absent",
		"newschool 9  s1 present",
		"o2 9 c3 s4 absent", "o2 10 c3 s4 absent")
	if got, want := fact(sum, "absent unknown"), "it is not in the roster: newschool"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := fact(sum, "absent"), "9, unknown for 1 schools"; got != want {
		t.Errorf("absent: got %q, want %q", got, want)
	}
}

func TestWithoutATimetableAbsentIsUnknown(t *testing.T) {
	in := testInput(t, row("hanbit", "outside", "", "s1", "09:00"))
	in.Schools, _ = attendance.NewSchools(seoul, nil, nil)
	sum := wantLines(t, in, "hanbit outside c2 s1 outside")
	if got, want := fact(sum, "absent unknown"), "it has no timetable: hanbit, o2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNobodyIsAbsentBeforeThePeriodBegins(t *testing.T) {
	in := testInput(t)
	in.Filter.School = "o2"
	for at, want := range map[string][]string{"08:59": nil, "09:00": {"the period is on until 09:45"}, "09:45": {""}, "10:44": {"", "the period is on until 10:45"}} {
		in.AsOf.At, _ = time.ParseInLocation("2006-01-02 15:04", "2026-05-04 "+at, seoul)
		lines, sum := run(t, in)
		var notes []string
		for _, l := range lines {
			notes = append(notes, l.Note)
		}
		if !slices.Equal(notes, want) {
			t.Errorf("at %s: got absent with notes %q, want %q", at, notes, want)
		}
		if sum.notBegun != 2-len(want) {
			t.Errorf("at %s: got %d periods not begun, want %d", at, sum.notBegun, 2-len(want))
		}
	}
}

func TestNobodyIsAbsentOnAHoliday(t *testing.T) {
	in := testInput(t)
	in.Filter.From = monday.AddDays(1)
	in.Filter.Class = "c1"
	sum := wantLines(t, in)
	if len(sum.Notes) > 0 {
		t.Errorf("got notes %q, want none", sum.Notes)
	}
}

func TestFilters(t *testing.T) {
	rows := []attendance.Row{row("hanbit", "9", "c2", "s1", "09:00"), row("hanbit", "9", "c1", "x9", "09:00"), row("hanbit", "10", "", "s3", "10:00"), row("o2", "9", "", "s4", "09:00")}
	for name, c := range map[string]struct {
		f    Filter
		want []string
	}{
		"school": {Filter{School: "o2"}, []string{"o2 9 c3 s4 present", "o2 10 c3 s4 absent"}},
		"period": {Filter{Period: "10"}, []string{"hanbit 10  s5 absent", "hanbit 10 c1 s2 absent", "hanbit 10 c2 s1 absent", "hanbit 10 c2 s3 present", "o2 10 c3 s4 absent"}},
		// s1 is in c1 and checked in for c2: not absent, and not left out either.
		"class": {Filter{Class: "c1", Period: "9"}, []string{"hanbit 9 c1 s2 absent", "hanbit 9 c1 x9 present", "hanbit 9 c2 s1 present"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := testInput(t, rows...)
			in.Filter = c.f
			in.Filter.From = monday
			wantLines(t, in, c.want...)
		})
	}
	in := testInput(t, rows...)
	in.Filter.Class, in.Filter.Period = "c99", "11"
	if sum := wantLines(t, in); len(sum.Notes) != 2 || fact(sum, "absent") != "unknown" {
		t.Errorf("a class and period nobody knows: got notes %q and absent %q, want 2 and unknown", sum.Notes, fact(sum, "absent"))
	}
}

// Where the class is in the key, s1 owes a check-in to each of his classes that
// was held: he came to c1, not to c2, which s3 shows was held.
func TestClassInTheKeyCountsEachHeldClass(t *testing.T) {
	in := testInput(t, row("hanbit", "9", "c1!", "s1", "09:00"), row("hanbit", "9", "c2!", "s3", "09:00"))
	in.Filter.School, in.Filter.Period = "hanbit", "9"
	wantLines(t, in, "hanbit 9  s5 absent", "hanbit 9 c1 s1 present", "hanbit 9 c1 s2 absent", "hanbit 9 c2 s1 absent", "hanbit 9 c2 s3 present")
	in.Filter.Class = "c2"
	wantLines(t, in, "hanbit 9 c2 s1 absent", "hanbit 9 c2 s3 present")
	in = testInput(t, row("hanbit", "9", "c1!", "s1", "09:00"))
	in.Filter.School, in.Filter.Period = "hanbit", "9"
	wantLines(t, in, "hanbit 9  s5 absent", "hanbit 9 c1 s1 present", "hanbit 9 c1 s2 absent", "hanbit 9 c2 s3 absent")
}

// A school whose host label is its sourcedId keeps that name, and is not listed
// a second time under its identifier.
func TestASchoolIsListedUnderTheNameInUse(t *testing.T) {
	in := testInput(t, row("o1", "9", "", "s1", "09:00"))
	in.Filter.Period = "9"
	wantLines(t, in, "o1 9  s5 absent", "o1 9 c1 s2 absent", "o1 9 c2 s1 present", "o1 9 c2 s3 absent", "o2 9 c3 s4 absent")
	in.SchoolIDs = []string{"hanbit"}
	if _, sum := run(t, in); len(sum.Notes) != 1 || !strings.Contains(sum.Notes[0], `"hanbit" and "o1"`) {
		t.Errorf("one school under two names: got notes %q, want one that names both", sum.Notes)
	}
}

func TestDaysFollowEachOther(t *testing.T) {
	tuesday := row("o2", "9", "", "s4", "09:00")
	tuesday.Date = monday.AddDays(1) // a holiday, and somebody came
	in := testInput(t, tuesday, row("o2", "9", "", "s4", "09:00"))
	in.Filter.School, in.Filter.To = "o2", monday.AddDays(7)
	lines, sum := run(t, in)
	var got []string
	for _, l := range lines {
		got = append(got, l.Date+" "+l.Period+" "+l.Status)
	}
	want := []string{"2026-05-04 9 present", "2026-05-04 10 absent", "2026-05-05 9 present"}
	if !slices.Equal(got, want) || sum.notBegun != 2 {
		t.Errorf("got %q and %d not begun, want %q and 2, of the next Monday", got, sum.notBegun, want)
	}
}

func TestRowsOutOfOrderAreAnError(t *testing.T) {
	in := testInput(t)
	in.Rows = func(yield func(attendance.Row, error) bool) {
		_ = yield(row("o2", "9", "", "s4", "09:00"), nil) && yield(row("hanbit", "9", "", "s1", "09:00"), nil)
	}
	if _, err := Write(&brokenAfter{1 << 20}, CSV, in); !errors.Is(err, ErrOrder) {
		t.Errorf("got %v, want %v", err, ErrOrder)
	}
}

func TestARowErrorEndsTheExport(t *testing.T) {
	for _, format := range []Format{CSV, JSON, XLSX} {
		in := testInput(t)
		in.Rows = func(yield func(attendance.Row, error) bool) {
			_ = yield(row("hanbit", "9", "", "s1", "09:00"), nil) && yield(attendance.Row{}, errBroken)
		}
		if sum, err := Write(&brokenAfter{1 << 20}, format, in); !errors.Is(err, errBroken) || sum != nil {
			t.Errorf("%s: got %v, %v, want %v", format, sum, err, errBroken)
		}
	}
}

func TestFilterNeedsDays(t *testing.T) {
	for want, f := range map[string]Filter{"no date": {}, "swap": {From: monday, To: monday.AddDays(-1)}, "366": {From: monday, To: monday.AddDays(366)}} {
		in := testInput(t)
		in.Filter = f
		if _, err := Write(&brokenAfter{}, CSV, in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
}

func TestAnotherTimetableIsTold(t *testing.T) {
	in := testInput(t, row("hanbit", "9", "", "s1", "09:00"))
	if _, sum := run(t, in); fact(sum, "other timetable") != "" {
		t.Errorf("got %q, want nothing", fact(sum, "other timetable"))
	}
	old := row("hanbit", "1", "", "s1", "09:00") // renamed since
	old.Timetable = "0123456789abcdef"
	in.Rows = rowsOf(old)
	if _, sum := run(t, in); !strings.HasPrefix(fact(sum, "other timetable"), "1 check-ins") {
		t.Errorf("got %q, want 1 check-in told", fact(sum, "other timetable"))
	}
}

func TestFactsSayWhatTheRegisterRestsOn(t *testing.T) {
	in := testInput(t)
	in.AsOf.Missing, in.AsOf.Incidents = []string{"17", "40-45"}, []string{"The journal was down from 09:01 to 09:03."}
	_, sum := run(t, in)
	for name, want := range map[string]string{
		"date": "2026-05-04", "as of": "2026-05-04T18:00:00+09:00", "last journal position": "4711", "missing journal numbers": "17, 40-45",
		"roster": "version " + in.Roster.Version(), "absent": "10", "note": "The journal was down from 09:01 to 09:03.",
	} {
		if got := fact(sum, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
