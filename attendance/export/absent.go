package export

import (
	"fmt"
	"iter"

	"firstbell/attendance"
	"firstbell/attendance/roster"
	"firstbell/attendance/timetable"
)

// inClass is one student's check-in for one class, where the class is in the key.
type inClass struct{ student, class string }

// came is who checked in during a period.
type came struct {
	students map[string]bool  // for whatever class
	anyClass map[string]bool  // by a check-in that counts for every class
	inClass  map[inClass]bool // by a check-in that counts for its class alone
	held     map[string]bool  // the classes of those
}

func whoCame(rows []attendance.Row) came {
	c := came{students: map[string]bool{}, anyClass: map[string]bool{}, inClass: map[inClass]bool{}, held: map[string]bool{}}
	for i := range rows {
		row := &rows[i]
		if row.Status == timetable.Outside {
			continue // a correction put it outside: the timetable was wrong
		}
		c.students[row.Student] = true
		if !row.ClassIsKey {
			c.anyClass[row.Student] = true
			continue
		}
		c.held[row.Class] = true
		c.inClass[inClass{row.Student, row.Class}] = true
	}
	return c
}

// appendAbsent appends a line for everybody expected in a period who did not
// come. The package's comment says who that is.
func (r *register) appendAbsent(lines []Line, d *day, period string) []Line {
	p, held := d.table.Period(period)
	if d.roll == nil || !held || !d.table.SchoolDay(d.date) {
		return lines
	}
	if !r.AsOf.At.IsZero() && r.AsOf.At.Before(d.date.At(p.Starts, d.zone)) {
		r.summary.notBegun++
		return lines
	}
	note := ""
	if !r.AsOf.At.IsZero() && r.AsOf.At.Before(d.date.At(p.Ends, d.zone)) {
		note = fmt.Sprintf("the period is on until %s", p.Ends)
	}
	came := whoCame(d.rows[period])
	for student, class := range r.expected(d) {
		for _, missed := range r.missed(d, &came, student.ID, class.ID) {
			lines = append(lines, d.absentLine(student, missed, period, note))
		}
	}
	return lines
}

// expected yields the students who ought to come, each with the class under
// which he is shown.
func (r *register) expected(d *day) iter.Seq2[roster.Student, roster.Class] {
	if r.Filter.Class == "" {
		return d.roll.Expected(d.noon)
	}
	class, _ := d.roll.Class(r.Filter.Class)
	return func(yield func(roster.Student, roster.Class) bool) {
		for student := range d.roll.InClass(r.Filter.Class, d.noon) {
			if !yield(student, class) {
				return
			}
		}
	}
}

// missed returns the classes in which a student counts as absent: home, those
// of his that were held, or none.
func (r *register) missed(d *day, came *came, student, home string) (missed []string) {
	counted := false
	if len(came.held) > 0 {
		for c := range d.roll.ClassesOf(student, d.noon) {
			if !came.held[c.ID] || r.Filter.Class != "" && c.ID != r.Filter.Class {
				continue
			}
			counted = true
			if !came.anyClass[student] && !came.inClass[inClass{student, c.ID}] {
				missed = append(missed, c.ID)
			}
		}
	}
	if !counted && !came.students[student] {
		missed = append(missed, home)
	}
	return missed
}

func (d *day) absentLine(s roster.Student, class, period, note string) Line {
	if d.out[s.ID] && note == "" {
		note = "checked in outside the periods"
	}
	return Line{Date: d.date.String(), School: d.school, Class: class, Student: s.ID, Name: s.Name(), Period: period, Status: Absent, OnRoster: new(true), Note: note}
}
