package timetable

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of a timetable. A school rings far less often; a list beyond them is a
// file that was put together wrongly.
const (
	periodsMax    = 64
	holidaysMax   = 4096
	nameBytesMax  = 64
	opensBefore   = 10 * clockMinute
	lateAfter     = 10 * clockMinute
	nameOfOutside = string(Outside)
)

// Spec is a timetable as it is written in a file.
type Spec struct {
	Days     []string // "mon" to "sun"; needed as soon as there are periods
	Holidays []string // "2026-05-05"
	Periods  []PeriodSpec
}

// PeriodSpec is a period as it is written in a file: times such as "09:00".
type PeriodSpec struct {
	Name      string
	Opens     string // empty: 10 minutes before Starts, but not before the period before it ends
	Starts    string
	LateAfter string // empty: 10 minutes after Starts, but not after Ends
	Ends      string
}

// FieldError is one mistake in a Spec.
type FieldError struct {
	Field  string // where, such as "days[2]" or "periods[0].late_after", as in the file
	Period string // the name of the period, if it is about one that has a name
	Reason string // what is wrong and the way out
}

func (e *FieldError) Error() string {
	if e.Period == "" {
		return e.Field + ": " + e.Reason
	}
	return fmt.Sprintf("%s (period %q): %s", e.Field, e.Period, e.Reason)
}

// draft is a Spec on its way to a Timetable, with the mistakes found so far.
type draft struct {
	t    *Timetable
	errs []error
}

func (d *draft) wrong(field, period, format string, args ...any) {
	d.errs = append(d.errs, &FieldError{Field: field, Period: period, Reason: fmt.Sprintf(format, args...)})
}

// New makes a timetable. Its error joins every mistake, each a *FieldError. An
// empty Spec is a timetable without school days.
func New(s Spec) (*Timetable, error) {
	d := &draft{t: &Timetable{holidays: map[Date]bool{}}}
	d.readDays(s)
	d.readHolidays(s.Holidays)
	d.readPeriods(s.Periods)
	if len(d.errs) > 0 {
		return nil, errors.Join(d.errs...)
	}
	d.t.version = d.t.digest()
	return d.t, nil
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // by time.Weekday

func (d *draft) readDays(s Spec) {
	if len(s.Days) == 0 && len(s.Periods) > 0 {
		d.wrong("days", "", "no school days; add them, such as days: [mon, tue, wed, thu, fri]")
	}
	for i, name := range s.Days {
		day := slices.Index(weekdays, strings.ToLower(name))
		switch {
		case day < 0:
			d.wrong(fmt.Sprintf("days[%d]", i), "", "%q is not a day; write mon, tue, wed, thu, fri, sat or sun", name)
		case d.t.days[day]:
			d.wrong(fmt.Sprintf("days[%d]", i), "", "%s is there twice; remove one", time.Weekday(day))
		default:
			d.t.days[day] = true
		}
	}
}

func (d *draft) readHolidays(dates []string) {
	if len(dates) > holidaysMax {
		d.wrong("holidays", "", "%d dates are more than %d; remove those that are past", len(dates), holidaysMax)
		return
	}
	for i, s := range dates {
		date, err := ParseDate(s)
		if err != nil {
			d.wrong(fmt.Sprintf("holidays[%d]", i), "", "%v", err)
			continue
		}
		d.t.holidays[date] = true
	}
}

// placed is a period and where in the file it was found.
type placed struct {
	Period
	at      int
	opensAs string // Opens as written, empty when left out
}

func (p placed) field(name string) string { return fmt.Sprintf("periods[%d].%s", p.at, name) }

func (d *draft) readPeriods(specs []PeriodSpec) {
	if len(specs) > periodsMax {
		d.wrong("periods", "", "%d periods are more than %d a day; split the timetable", len(specs), periodsMax)
		return
	}
	var good []placed
	seen := map[string]int{}
	for i, s := range specs {
		p, ok := d.readPeriod(i, s)
		if first, twice := seen[s.Name]; twice && s.Name != "" {
			d.wrong(p.field("name"), s.Name, "periods[%d] has that name already; give each period its own", first)
			ok = false
		}
		seen[s.Name] = i
		if ok {
			good = append(good, p)
		}
	}
	slices.SortStableFunc(good, func(a, b placed) int { return cmp.Compare(a.Starts, b.Starts) })
	for i := range good {
		if i > 0 {
			d.fitAfter(&good[i], good[i-1])
		}
		d.t.periods = append(d.t.periods, good[i].Period)
	}
}

// readPeriod reads one period by itself; ok is false when it has mistakes.
func (d *draft) readPeriod(at int, s PeriodSpec) (p placed, ok bool) {
	p = placed{Period: Period{Name: s.Name}, at: at, opensAs: s.Opens}
	before := len(d.errs)
	if reason := nameProblem(s.Name); reason != "" {
		d.wrong(p.field("name"), "", "%s", reason)
	}
	p.Starts = d.clock(p, "starts", s.Starts)
	p.Ends = d.clock(p, "ends", s.Ends)
	p.Opens, p.LateAfter = max(0, p.Starts-opensBefore), min(p.Starts+lateAfter, p.Ends)
	if s.Opens != "" {
		p.Opens = d.clock(p, "opens", s.Opens)
	}
	if s.LateAfter != "" {
		p.LateAfter = d.clock(p, "late_after", s.LateAfter)
	}
	if len(d.errs) > before {
		return p, false
	}
	if p.Opens > p.Starts {
		d.wrong(p.field("opens"), s.Name, "it opens at %s, after it starts at %s; move opens to %s or before", p.Opens, p.Starts, p.Starts)
	}
	if p.Ends <= p.Starts {
		d.wrong(p.field("ends"), s.Name, "it ends at %s, but starts at %s; move ends past %s (a period cannot go past 24:00; make a second one from 00:00)", p.Ends, p.Starts, p.Starts)
	} else if p.LateAfter < p.Starts || p.LateAfter > p.Ends {
		d.wrong(p.field("late_after"), s.Name, "%s is not within the period; choose a time from %s to %s", p.LateAfter, p.Starts, p.Ends)
	}
	return p, len(d.errs) == before
}

func (d *draft) clock(p placed, field, text string) Clock {
	if text == "" {
		d.wrong(p.field(field), p.Name, "it is missing; add one, such as %s: \"09:00\"", field)
		return 0
	}
	c, err := ParseClock(text)
	if err != nil {
		d.wrong(p.field(field), p.Name, "%v", err)
	}
	return c
}

func nameProblem(name string) string {
	switch {
	case name == "":
		return "a period needs a name; add one, such as name: \"1\""
	case len(name) > nameBytesMax:
		return fmt.Sprintf("%d bytes are more than %d; choose a shorter name", len(name), nameBytesMax)
	case name == nameOfOutside:
		return "\"outside\" stands for check-ins outside any period; choose another name"
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Sprintf("%q holds characters that cannot be shown; use letters, digits and spaces", name)
	case strings.TrimSpace(name) != name:
		return fmt.Sprintf("%q begins or ends with a space; remove it", name)
	}
	return ""
}

// fitAfter checks p against the period before it and moves p's opening to that
// one's end if it came earlier.
func (d *draft) fitAfter(p *placed, prev placed) {
	if p.Starts < prev.Ends {
		d.wrong(p.field("starts"), p.Name, "it starts at %s, while period %q is on until %s; move one of them", p.Starts, prev.Name, prev.Ends)
		return
	}
	if p.opensAs != "" && p.Opens < prev.Starts {
		d.wrong(p.field("opens"), p.Name, "it opens at %s, before period %q starts at %s, and a check-in counts for one period only; move opens to %s or later", p.Opens, prev.Name, prev.Starts, prev.Ends)
		return
	}
	p.Opens = max(p.Opens, prev.Ends)
}
