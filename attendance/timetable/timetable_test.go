package timetable_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	. "firstbell/attendance/timetable"

	"pgregory.net/rapid"
)

var weekdays = []string{"mon", "tue", "wed", "thu", "fri"}

func mustNew(t testing.TB, s Spec) *Timetable {
	t.Helper()
	tt, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return tt
}

func mustDate(t testing.TB, s string) Date {
	t.Helper()
	d, err := ParseDate(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustZone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// morning is a school day of three periods; the second opens while the first is
// still on, the third as soon as the second has ended.
func morning(t testing.TB) *Timetable {
	return mustNew(t, Spec{
		Days: weekdays, Holidays: []string{"2026-05-05"},
		Periods: []PeriodSpec{
			{Name: "1", Starts: "09:00", LateAfter: "09:10", Ends: "09:45"},
			{Name: "2", Opens: "09:40", Starts: "09:55", Ends: "10:40"},
			{Name: "3", Starts: "10:40", Ends: "10:45"},
		},
	})
}

func TestJudgeAtEveryBoundary(t *testing.T) {
	tt, seoul := morning(t), mustZone(t, "Asia/Seoul")
	for _, c := range []struct {
		at     string
		period string
		status Status
	}{
		{"2026-05-04 08:49:59", "", Outside},
		{"2026-05-04 08:50:00", "1", Present},
		{"2026-05-04 09:00:00", "1", Present},
		{"2026-05-04 09:10:00", "1", Present},
		{"2026-05-04 09:10:00.999", "1", Present},
		{"2026-05-04 09:10:01", "1", Late},
		{"2026-05-04 09:44:59.999", "1", Late}, // period 2 has opened, but 1 keeps it
		{"2026-05-04 09:45:00", "2", Present},
		{"2026-05-04 10:39:59", "2", Late},
		{"2026-05-04 10:40:00", "3", Present},
		{"2026-05-04 10:44:59", "3", Present}, // late_after is 10 minutes, but not past the end
		{"2026-05-04 10:45:00", "", Outside},
		{"2026-05-05 09:00:00", "", Outside}, // holiday
		{"2026-05-03 09:00:00", "", Outside}, // Sunday
	} {
		at, err := time.ParseInLocation("2006-01-02 15:04:05", c.at, seoul)
		if err != nil {
			t.Fatal(err)
		}
		if p, status := tt.Judge(at); p.Name != c.period || status != c.status {
			t.Errorf("%s: got period %q %s, want %q %s", c.at, p.Name, status, c.period, c.status)
		}
	}
}

func TestStatusOfAnArrivalThatNamesItsPeriod(t *testing.T) {
	tt, seoul := morning(t), mustZone(t, "Asia/Seoul")
	p, _ := tt.Period("1")
	on := mustDate(t, "2026-05-04")
	for at, want := range map[string]Status{"2026-05-03 23:59": Present, "2026-05-04 07:00": Present, "2026-05-04 09:50": Late, "2026-05-05 00:05": Late} {
		when, _ := time.ParseInLocation("2006-01-02 15:04", at, seoul)
		if got := p.Status(on, when); got != want {
			t.Errorf("arrival at %s for period 1 of %s: got %s, want %s", at, on, got, want)
		}
	}
}

func TestPeriodsOfADate(t *testing.T) {
	tt := morning(t)
	var names []string
	for _, p := range tt.On(mustDate(t, "2026-05-04")) {
		names = append(names, p.Name)
	}
	if want := []string{"1", "2", "3"}; !slices.Equal(names, want) {
		t.Errorf("periods of a Monday: got %q, want %q", names, want)
	}
	if got := tt.On(mustDate(t, "2026-05-05")); len(got) != 0 {
		t.Errorf("periods of a holiday: got %v, want none", got)
	}
}

func TestNoTimetableTakesEverythingOutside(t *testing.T) {
	empty := mustNew(t, Spec{})
	for name, tt := range map[string]*Timetable{"nil": nil, "empty": empty} {
		if _, got := tt.Judge(time.Now()); got != Outside {
			t.Errorf("%s timetable: got %s, want %s", name, got, Outside)
		}
		if len(tt.On(DateOf(time.Now()))) != 0 || len(tt.Periods()) != 0 {
			t.Errorf("%s timetable has periods", name)
		}
	}
}

func TestWholeDayPeriodEndsAtMidnight(t *testing.T) {
	tt := mustNew(t, Spec{Days: []string{"sat", "sun"}, Periods: []PeriodSpec{{Name: "all day", Starts: "00:00", LateAfter: "24:00", Ends: "24:00"}}})
	for at, want := range map[string]Status{"2026-05-01 23:59:59": Outside, "2026-05-02 00:00:00": Present, "2026-05-03 23:59:59": Present, "2026-05-04 00:00:00": Outside} {
		when, _ := time.Parse(time.DateTime, at)
		if _, got := tt.Judge(when); got != want {
			t.Errorf("%s: got %s, want %s", at, got, want)
		}
	}
}

// On 2026-03-29 Berlin's clock goes from 02:00 to 03:00, on 2026-10-25 from
// 03:00 back to 02:00. Nobody becomes late by it.
func TestClockChangesMakeNobodyLate(t *testing.T) {
	berlin := mustZone(t, "Europe/Berlin")
	tt := mustNew(t, Spec{Days: []string{"sun"}, Periods: []PeriodSpec{{Name: "n", Starts: "01:30", LateAfter: "02:10", Ends: "03:30"}}})
	for _, c := range []struct {
		utc    string
		status Status
	}{
		{"2026-03-29T00:59:59Z", Present}, // 01:59:59
		{"2026-03-29T01:00:00Z", Present}, // 03:00:00, the moment after
		{"2026-03-29T01:10:00Z", Present}, // 03:10:00 is 02:10:00 on the old clock
		{"2026-03-29T01:10:01Z", Late},
		{"2026-03-29T01:29:59Z", Late},
		{"2026-03-29T01:30:00Z", Outside},
		{"2026-10-25T00:10:01Z", Present}, // 02:10:01, the first one
		{"2026-10-25T01:10:00Z", Present}, // 02:10:00, the second one
		{"2026-10-25T01:10:01Z", Late},
	} {
		at, _ := time.Parse(time.RFC3339, c.utc)
		if _, got := tt.Judge(at.In(berlin)); got != c.status {
			t.Errorf("%s (%s): got %s, want %s", c.utc, at.In(berlin).Format("15:04:05 MST"), got, c.status)
		}
	}
}

func TestMomentsOfADate(t *testing.T) {
	for _, c := range []struct{ zone, date, clock, first, last string }{
		{"Asia/Seoul", "2026-05-04", "09:00", "2026-05-04T00:00:00Z", "2026-05-04T00:00:00Z"},
		{"Asia/Seoul", "2026-05-04", "24:00", "2026-05-04T15:00:00Z", "2026-05-04T15:00:00Z"},
		{"Europe/Berlin", "2026-03-29", "02:30", "2026-03-29T01:30:00Z", "2026-03-29T01:30:00Z"},
		{"Europe/Berlin", "2026-03-29", "09:00", "2026-03-29T07:00:00Z", "2026-03-29T07:00:00Z"},
		{"Europe/Berlin", "2026-03-28", "09:00", "2026-03-28T08:00:00Z", "2026-03-28T08:00:00Z"},
		{"Europe/Berlin", "2026-10-25", "02:30", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"},
		{"Europe/Berlin", "2026-10-25", "01:30", "2026-10-24T23:30:00Z", "2026-10-24T23:30:00Z"},
		{"Europe/Berlin", "2026-10-25", "24:00", "2026-10-25T23:00:00Z", "2026-10-25T23:00:00Z"},
		{"America/Santiago", "2026-09-06", "00:00", "2026-09-06T04:00:00Z", "2026-09-06T04:00:00Z"}, // the day begins at 01:00
	} {
		clock, err := ParseClock(c.clock)
		if err != nil {
			t.Fatal(err)
		}
		d, loc := mustDate(t, c.date), mustZone(t, c.zone)
		if got := d.At(clock, loc).UTC().Format(time.RFC3339); got != c.first {
			t.Errorf("%s %s in %s: got first %s, want %s", c.date, c.clock, c.zone, got, c.first)
		}
		if got := d.LastAt(clock, loc).UTC().Format(time.RFC3339); got != c.last {
			t.Errorf("%s %s in %s: got last %s, want %s", c.date, c.clock, c.zone, got, c.last)
		}
	}
}

// The version is on disk with every check-in: this digest stays as it is.
func TestVersionNeverChanges(t *testing.T) {
	const want = "b2b4a8cea034ac57"
	if got := morning(t).Version(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVersionDependsOnMeaningAlone(t *testing.T) {
	base := Spec{Days: []string{"mon", "tue"}, Holidays: []string{"2026-05-05", "2026-05-04"}, Periods: []PeriodSpec{{Name: "1", Starts: "09:00", Ends: "09:45"}, {Name: "2", Starts: "10:00", Ends: "10:45"}}}
	want := mustNew(t, base).Version()

	same := Spec{Days: []string{"Tue", "Mon"}, Holidays: []string{"2026-05-04", "2026-05-05", "2026-05-05"}, Periods: []PeriodSpec{base.Periods[1], {Name: "1", Opens: "08:50", Starts: "09:00:00", LateAfter: "09:10", Ends: "09:45"}}}
	if got := mustNew(t, same).Version(); got != want {
		t.Errorf("the same timetable written otherwise: got %s, want %s", got, want)
	}
	for name, change := range map[string]func(*Spec){
		"a day":     func(s *Spec) { s.Days = []string{"mon"} },
		"a holiday": func(s *Spec) { s.Holidays = nil },
		"a name":    func(s *Spec) { s.Periods[0].Name = "one" },
		"a time":    func(s *Spec) { s.Periods[0].LateAfter = "09:11" },
	} {
		s := base
		s.Periods = slices.Clone(base.Periods)
		change(&s)
		if got := mustNew(t, s).Version(); got == want {
			t.Errorf("after changing %s the version is still %s", name, got)
		}
	}
}

func TestMistakesNameFieldPeriodAndWayOut(t *testing.T) {
	one := func(p PeriodSpec) Spec { return Spec{Days: weekdays, Periods: []PeriodSpec{p}} }
	two := func(p PeriodSpec) Spec {
		return Spec{Days: weekdays, Periods: []PeriodSpec{{Name: "1", Starts: "09:00", Ends: "09:45"}, p}}
	}
	for _, c := range []struct {
		name string
		spec Spec
		want []string
	}{
		{"no days", Spec{Periods: []PeriodSpec{{Name: "1", Starts: "09:00", Ends: "09:45"}}}, []string{"days:", "days: [mon, tue, wed, thu, fri]"}},
		{"unknown day", Spec{Days: []string{"mon", "monday"}}, []string{"days[1]", `"monday"`, "mon, tue"}},
		{"day twice", Spec{Days: []string{"mon", "mon"}}, []string{"days[1]", "Monday", "remove one"}},
		{"holiday not a date", Spec{Holidays: []string{"2026-02-30"}}, []string{"holidays[0]", `"2026-02-30"`, "2026-05-05"}},
		{"no name", one(PeriodSpec{Starts: "09:00", Ends: "09:45"}), []string{"periods[0].name", `name: "1"`}},
		{"reserved name", one(PeriodSpec{Name: "outside", Starts: "09:00", Ends: "09:45"}), []string{"periods[0].name", "another name"}},
		{"name twice", two(PeriodSpec{Name: "1", Starts: "10:00", Ends: "10:45"}), []string{"periods[1].name", "periods[0]", "its own"}},
		{"control in name", one(PeriodSpec{Name: "a\nb", Starts: "09:00", Ends: "09:45"}), []string{"periods[0].name", `"a\nb"`}},
		{"no start", one(PeriodSpec{Name: "x", Ends: "09:45"}), []string{"periods[0].starts", `period "x"`, "add one"}},
		{"no end", one(PeriodSpec{Name: "x", Starts: "09:00"}), []string{"periods[0].ends", `period "x"`, "add one"}},
		{"not a time", one(PeriodSpec{Name: "x", Starts: "9:00", Ends: "09:45"}), []string{"periods[0].starts", `period "x"`, `"9:00"`, `"09:00"`}},
		{"past midnight", one(PeriodSpec{Name: "x", Starts: "23:30", Ends: "00:15"}), []string{"periods[0].ends", `period "x"`, "24:00"}},
		{"opens late", one(PeriodSpec{Name: "x", Opens: "09:01", Starts: "09:00", Ends: "09:45"}), []string{"periods[0].opens", "09:00 or before"}},
		{"late_after past the end", one(PeriodSpec{Name: "x", Starts: "09:00", LateAfter: "09:46", Ends: "09:45"}), []string{"periods[0].late_after", "from 09:00 to 09:45"}},
		{"late_after before the start", one(PeriodSpec{Name: "x", Starts: "09:00", LateAfter: "08:59", Ends: "09:45"}), []string{"periods[0].late_after", "from 09:00 to 09:45"}},
		{"two at once", two(PeriodSpec{Name: "2", Starts: "09:44", Ends: "10:00"}), []string{"periods[1].starts", `period "2"`, `period "1"`, "until 09:45"}},
		{"opens before the one before", two(PeriodSpec{Name: "2", Opens: "08:00", Starts: "10:00", Ends: "10:45"}), []string{"periods[1].opens", `period "1"`, "09:45 or later"}},
		{"all at once", Spec{Days: []string{"x"}, Holidays: []string{"y"}, Periods: []PeriodSpec{{Name: "z"}}}, []string{"days[0]", "holidays[0]", "periods[0].starts", "periods[0].ends"}},
		{"too many periods", Spec{Days: weekdays, Periods: make([]PeriodSpec, 65)}, []string{"periods:", "65", "64"}},
		{"too many holidays", Spec{Holidays: make([]string, 4097)}, []string{"holidays:", "4097", "4096"}},
	} {
		_, err := New(c.spec)
		if err == nil {
			t.Errorf("%s: got no error", c.name)
			continue
		}
		var fe *FieldError
		if !errors.As(err, &fe) {
			t.Errorf("%s: got %T, want a *FieldError within", c.name, err)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q, want it to say %q", c.name, err, want)
			}
		}
	}
}

func TestParseClockAndDate(t *testing.T) {
	for _, good := range []string{"00:00", "09:00", "09:00:30", "23:59:59", "24:00"} {
		c, err := ParseClock(good)
		if err != nil || c.String() != good {
			t.Errorf("ParseClock(%q): got %s, %v", good, c, err)
		}
	}
	for _, bad := range []string{"", "9:00", "24:01", "24:00:01", "09:60", "09:00:60", "0900", "09:00 ", "+9:00", "09-00", "09:00:0", "아홉"} {
		if c, err := ParseClock(bad); err == nil {
			t.Errorf("ParseClock(%q): got %s, want an error", bad, c)
		}
	}
	for _, bad := range []string{"", "2026-5-5", "2026-02-29", "05.05.2026", "2026-05-05T00:00:00Z"} {
		if d, err := ParseDate(bad); err == nil {
			t.Errorf("ParseDate(%q): got %s, want an error", bad, d)
		}
	}
	d := mustDate(t, "2028-02-28")
	if got := d.AddDays(2).String(); got != "2028-03-01" {
		t.Errorf("two days after %s: got %s, want 2028-03-01", d, got)
	}
	if d.Weekday() != time.Monday || d.Compare(d.AddDays(1)) != -1 || d.Compare(d) != 0 {
		t.Errorf("%s is a %s that compares %d with the day after", d, d.Weekday(), d.Compare(d.AddDays(1)))
	}
}

// anyTimetable draws a timetable that New takes, with gaps, adjoining periods
// and opening times that reach into the period before.
func anyTimetable(t *rapid.T) *Timetable {
	s := Spec{Days: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}}
	at, prev := Clock(0), Clock(0)
	for n := rapid.IntRange(0, 9).Draw(t, "periods"); n > 0; n-- {
		starts := at + Clock(rapid.IntRange(0, 5000).Draw(t, "pause"))
		ends := starts + Clock(rapid.IntRange(1, 5000).Draw(t, "length"))
		p := PeriodSpec{Name: string(rune('a' + n)), Starts: starts.String(), Ends: ends.String()}
		if rapid.Bool().Draw(t, "opens") {
			p.Opens = Clock(rapid.IntRange(int(prev), int(starts)).Draw(t, "opens at")).String()
		}
		if rapid.Bool().Draw(t, "late") {
			p.LateAfter = Clock(rapid.IntRange(int(starts), int(ends)).Draw(t, "late after")).String()
		}
		s.Periods = append(s.Periods, p)
		at, prev = ends, starts
	}
	s.Periods = rapid.Permutation(s.Periods).Draw(t, "order")
	tt, err := New(s)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return tt
}

func TestEveryMomentBelongsToAtMostOnePeriod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tt := anyTimetable(t)
		ps := tt.Periods()
		for i, p := range ps {
			if !(p.Opens <= p.Starts && p.Starts <= p.LateAfter && p.LateAfter <= p.Ends) {
				t.Fatalf("%+v is out of order", p)
			}
			if i > 0 && p.Opens < ps[i-1].Ends {
				t.Fatalf("%+v opens before %+v ends", p, ps[i-1])
			}
		}
		at := time.Date(2026, 5, 4, 0, 0, rapid.IntRange(0, 86399).Draw(t, "second"), 0, time.UTC)
		var holding []string
		for _, p := range ps {
			if p.Opens <= ClockOf(at) && ClockOf(at) < p.Ends {
				holding = append(holding, p.Name)
			}
		}
		got, ok := tt.At(at)
		if len(holding) > 1 || ok != (len(holding) == 1) || ok && got.Name != holding[0] {
			t.Fatalf("%s: At says %q %v, the periods say %q", at, got.Name, ok, holding)
		}
	})
}

func TestNobodyWhoComesEarlierIsLater(t *testing.T) {
	zones := []string{"Asia/Seoul", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Africa/Casablanca"}
	days := []string{"2026-03-29", "2026-10-25", "2026-04-05", "2026-09-06", "2026-10-04", "2026-02-15", "2026-03-22", "2026-05-04"}
	rapid.Check(t, func(t *rapid.T) {
		loc, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		on, err := ParseDate(rapid.SampledFrom(days).Draw(t, "date"))
		if err != nil {
			t.Fatal(err)
		}
		p := Period{LateAfter: Clock(rapid.IntRange(0, 86400).Draw(t, "late after"))}
		from := on.At(0, loc).Add(time.Duration(rapid.IntRange(-3600, 90000).Draw(t, "first")) * time.Second)
		to := from.Add(time.Duration(rapid.IntRange(0, 7200).Draw(t, "after")) * time.Second)
		if p.Status(on, from) == Late && p.Status(on, to) == Present {
			t.Fatalf("late_after %s on %s: %s is late, but %s is present", p.LateAfter, on, from, to)
		}
	})
}

func TestAtAllocatesNothing(t *testing.T) {
	tt, at := morning(t), time.Date(2026, 5, 4, 9, 20, 0, 0, mustZone(t, "Asia/Seoul"))
	if n := testing.AllocsPerRun(100, func() { tt.Judge(at) }); n != 0 {
		t.Errorf("Judge allocates %v times, want 0", n)
	}
}
