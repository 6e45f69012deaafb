package export

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/roster"
	"firstbell/attendance/timetable"
)

// ErrOrder means that the rows came in another order than Input.Rows promises.
var ErrOrder = errors.New("rows out of order")

// register goes through the rows once, a school's day at a time.
type register struct {
	Input
	out     sheet
	summary Summary

	classFound, periodFound bool // what the filter names was met
}

func newRegister(in Input, out sheet) *register {
	r := &register{Input: in, out: out}
	r.summary.AsOf = in.AsOf
	r.summary.Filter = in.Filter
	r.summary.HasRoster = in.Roster != nil
	r.summary.RosterVersion = in.Roster.Version()
	if in.Roster != nil {
		r.summary.RosterProblems = in.Roster.Problems()
	}
	return r
}

// unit is one school's day, the portion that is held in memory.
type unit struct {
	date   timetable.Date
	school string
}

func (u unit) compare(v unit) int {
	return cmp.Or(u.date.Compare(v.date), strings.Compare(u.school, v.school))
}

func (r *register) run() error {
	listed, err := r.listedSchools()
	if err != nil {
		return err
	}
	rows := newRowReader(r.Rows, &r.Filter)
	defer rows.stop()
	for date := r.Filter.From; date.Compare(r.Filter.To) <= 0; date = date.AddDays(1) {
		for _, id := range listed {
			at := unit{date, id}
			if err := r.rowsBefore(rows, at); err != nil {
				return err
			}
			if err := r.take(rows, at); err != nil {
				return err
			}
		}
	}
	if err := r.rowsBefore(rows, unit{r.Filter.To.AddDays(1), ""}); err != nil {
		return err
	}
	r.noteNamesNotMet()
	return nil
}

// rowsBefore takes the days of schools that only the rows know.
func (r *register) rowsBefore(rows *rowReader, end unit) error {
	for {
		at, ok, err := rows.peek()
		if err != nil || !ok || at.compare(end) >= 0 {
			return err
		}
		if err := r.take(rows, at); err != nil {
			return err
		}
	}
}

func (r *register) take(rows *rowReader, at unit) error {
	own, err := rows.of(at)
	if err != nil {
		return err
	}
	return r.schoolDay(at, own)
}

// listedSchools returns, in order, the schools whose students are expected even
// when none of them came: those configured, those in the rows, and those of the
// roster that none of these names stands for.
func (r *register) listedSchools() ([]string, error) {
	if r.Roster == nil {
		return nil, nil
	}
	if r.Filter.School != "" {
		return []string{r.Filter.School}, nil
	}
	ids := map[string]bool{}
	for _, id := range r.SchoolIDs {
		ids[id] = true
	}
	for row, err := range r.Rows {
		if err != nil {
			return nil, err
		}
		if !ids[row.School] {
			ids[strings.Clone(row.School)] = true
		}
	}
	named := map[*roster.School]string{}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		s, ok := r.Roster.School(id)
		if other, twice := named[s]; ok && twice {
			r.summary.note("%q and %q are the same school of the roster: its students may be absent under one while they came under the other", other, id)
		}
		if ok {
			named[s] = id
		}
	}
	for _, s := range r.Roster.Schools() {
		if _, ok := named[s]; !ok {
			ids[s.ID()] = true
		}
	}
	return slices.Sorted(maps.Keys(ids)), nil
}

// rowReader hands out the rows that pass the filter's dates, school and period,
// a unit at a time.
type rowReader struct {
	next   func() (attendance.Row, error, bool)
	stop   func()
	filter *Filter
	row    attendance.Row
	have   bool // row is the next one
	last   unit // of the row before it
}

func newRowReader(rows iter.Seq2[attendance.Row, error], f *Filter) *rowReader {
	next, stop := iter.Pull2(rows)
	return &rowReader{next: next, stop: stop, filter: f}
}

func (r *rowReader) peek() (at unit, ok bool, err error) {
	for !r.have {
		row, err, ok := r.next()
		if err != nil || !ok {
			return unit{}, false, err
		}
		at := unit{row.Date, row.School}
		if at.compare(r.last) < 0 && r.last != (unit{}) {
			return unit{}, false, fmt.Errorf("reading rows: school %q on %s comes after school %q on %s: %w", at.school, at.date, r.last.school, r.last.date, ErrOrder)
		}
		r.last = at
		r.row, r.have = row, r.passes(&row)
	}
	return unit{r.row.Date, r.row.School}, true, nil
}

func (r *rowReader) passes(row *attendance.Row) bool {
	f := r.filter
	return row.Date.Compare(f.From) >= 0 && row.Date.Compare(f.To) <= 0 && (f.School == "" || row.School == f.School)
}

// of returns the rows of one unit, which must be the next one or have none.
func (r *rowReader) of(at unit) (own []attendance.Row, err error) {
	for {
		next, ok, err := r.peek()
		if err != nil || !ok || next != at {
			return own, err
		}
		own = append(own, r.row)
		r.have = false
	}
}

// day is what one school's day is judged by.
type day struct {
	unit
	noon  time.Time // a moment of the date, for the roster
	zone  *time.Location
	roll  *roster.School // nil: the school is not on the roster
	table *timetable.Timetable
	rows  map[string][]attendance.Row // by period
	out   map[string]bool             // students who checked in outside the periods
}

// schoolDay writes the lines of one school and date.
func (r *register) schoolDay(at unit, rows []attendance.Row) error {
	d := r.newDay(at, rows)
	for _, p := range d.periods() {
		if r.Filter.Period != "" && p != r.Filter.Period {
			continue
		}
		r.periodFound = true
		lines := make([]Line, 0, len(d.rows[p]))
		for i := range d.rows[p] {
			row := &d.rows[p][i]
			if !r.wanted(d, row) {
				continue
			}
			if row.Timetable != d.table.Version() {
				r.summary.otherTable++
			}
			lines = append(lines, d.line(row))
		}
		lines = r.appendAbsent(lines, d, p)
		slices.SortFunc(lines, compareLines)
		for i := range lines {
			r.summary.add(&lines[i])
			if err := r.out.line(&lines[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func compareLines(a, b Line) int {
	return cmp.Or(strings.Compare(a.Class, b.Class), strings.Compare(a.Student, b.Student), strings.Compare(a.Status, b.Status), strings.Compare(value(a.Receipt), value(b.Receipt)))
}

func (r *register) newDay(at unit, rows []attendance.Row) *day {
	d := &day{unit: at, noon: at.date.At(12*60*60, time.UTC), zone: time.UTC, rows: map[string][]attendance.Row{}, out: map[string]bool{}}
	if r.Schools != nil {
		s := r.Schools.School(at.school)
		d.zone, d.table = s.Zone, s.Timetable
	}
	d.roll, _ = r.Roster.School(at.school)
	slices.SortStableFunc(rows, func(a, b attendance.Row) int { return strings.Compare(a.Period, b.Period) })
	for from, to := 0, 0; from < len(rows); from = to {
		for to < len(rows) && rows[to].Period == rows[from].Period {
			to++
		}
		d.rows[rows[from].Period] = rows[from:to]
	}
	for _, row := range d.rows[attendance.OutsidePeriod] {
		d.out[row.Student] = true
	}
	if d.roll != nil {
		_, ok := d.roll.Class(r.Filter.Class)
		r.classFound = r.classFound || ok
	}
	switch {
	case r.Roster == nil: // said once, for all schools
	case d.roll == nil:
		r.summary.unknown(at.school, "it is not in the roster")
	case len(d.table.Periods()) == 0:
		r.summary.unknown(at.school, "it has no timetable")
	}
	return d
}

// periods returns the periods of the day in the order they are shown.
func (d *day) periods() []string {
	var names []string
	for _, p := range d.table.On(d.date) {
		names = append(names, p.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(d.rows)) {
		if name != attendance.OutsidePeriod && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if _, ok := d.rows[attendance.OutsidePeriod]; ok {
		names = append(names, attendance.OutsidePeriod)
	}
	return names
}

// wanted reports whether a row passes the filter's class.
func (r *register) wanted(d *day, row *attendance.Row) bool {
	class := r.Filter.Class
	if class == "" || row.Class == class {
		return true
	}
	if d.roll == nil || row.ClassIsKey {
		return false
	}
	for c := range d.roll.ClassesOf(row.Student, d.noon) {
		if c.ID == class {
			return true
		}
	}
	return false
}

// firstArrivalFormat is that of the receipts.
const firstArrivalFormat = "2006-01-02T15:04:05.000-07:00"

func (d *day) line(row *attendance.Row) Line {
	l := Line{
		Date: d.date.String(), School: d.school, Class: row.Class, Student: row.Student, Period: row.Period,
		Status: string(row.Status), FirstArrival: new(row.FirstArrival.Format(firstArrivalFormat)),
		Presses: row.Presses, Verified: new(row.Verified), Receipt: new(row.ID.String()),
	}
	if d.roll == nil {
		return l
	}
	student, ok := d.roll.Student(row.Student)
	l.OnRoster = &ok
	if !ok {
		l.Note = "not on the school's roster"
		return l
	}
	l.Name = student.Name()
	home, expected := d.roll.Home(row.Student, d.noon)
	l.Class = cmp.Or(row.Class, home.ID)
	if !expected {
		l.Note = "not enrolled on this date"
	}
	return l
}
