package timetable

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Status is what an arrival means for the register, by its name on the wire.
type Status string

const (
	Present Status = "present"
	Late    Status = "late"
	Outside Status = "outside" // no period was on; never the status of a period
)

// Period is one lesson of a school day. It takes check-ins from Opens until
// just before Ends; who arrives up to LateAfter is present.
type Period struct {
	Name      string
	Opens     Clock // never before the end of the period before it
	Starts    Clock
	LateAfter Clock
	Ends      Clock
}

// Status says how the period of the date on sees somebody who arrives at t. It
// holds for arrivals outside the period's own hours too: early is present, after
// the end is late. t must be in the school's zone.
func (p Period) Status(on Date, t time.Time) Status {
	if DateOf(t) == on && ClockOf(t) <= p.LateAfter {
		return Present
	}
	// Rounded up to the end of its second: fractions do not make anybody late.
	if t.Before(on.LastAt(p.LateAfter, t.Location()).Add(time.Second)) {
		return Present
	}
	return Late
}

// Timetable holds the days, holidays and periods of a school. It never changes,
// so any number of goroutines may use it. A nil Timetable has no school days.
type Timetable struct {
	days     [7]bool // by time.Weekday
	holidays map[Date]bool
	periods  []Period // by Starts
	version  string
}

// At returns the period that takes a check-in at the given moment, which must
// be in the school's zone; ok is false when none does.
func (t *Timetable) At(local time.Time) (p Period, ok bool) {
	if !t.SchoolDay(DateOf(local)) {
		return Period{}, false
	}
	now := ClockOf(local)
	for _, p := range t.periods {
		if p.Opens <= now && now < p.Ends {
			return p, true
		}
	}
	return Period{}, false
}

// Judge returns what an arrival at the given moment counts for: the period that
// is on and Present or Late, or no period and Outside.
func (t *Timetable) Judge(local time.Time) (Period, Status) {
	p, ok := t.At(local)
	if !ok {
		return Period{}, Outside
	}
	return p, p.Status(DateOf(local), local)
}

// SchoolDay reports whether the periods are held on d.
func (t *Timetable) SchoolDay(d Date) bool {
	return t != nil && t.days[d.Weekday()] && !t.holidays[d]
}

// On returns the periods of a date in the order they start; none when the date
// is no school day. The caller may change the slice.
func (t *Timetable) On(d Date) []Period {
	if !t.SchoolDay(d) {
		return nil
	}
	return slices.Clone(t.periods)
}

// Periods returns the periods of every school day in the order they start. The
// caller may change the slice.
func (t *Timetable) Periods() []Period {
	if t == nil {
		return nil
	}
	return slices.Clone(t.periods)
}

// Period returns the period of that name, whatever the day.
func (t *Timetable) Period(name string) (p Period, ok bool) {
	if t == nil {
		return Period{}, false
	}
	i := slices.IndexFunc(t.periods, func(p Period) bool { return p.Name == name })
	if i < 0 {
		return Period{}, false
	}
	return t.periods[i], true
}

// Version names what the timetable means: 16 hexadecimal digits that depend on
// the days, holidays and periods alone. It is kept with every check-in, so its
// making must never change. A nil Timetable's version is empty.
func (t *Timetable) Version() string {
	if t == nil {
		return ""
	}
	return t.version
}

// digest is the first 8 bytes of the SHA-256 of:
//
//	days 1 2 3 4 5                       Sunday is 0
//	holiday 2026-05-05                   one line each, in order
//	period 1:1 31800 32400 33000 35100   name's bytes, name, opens, starts, late_after, ends in seconds
func (t *Timetable) digest() string {
	h := sha256.New()
	io.WriteString(h, "days")
	for day, held := range t.days {
		if held {
			fmt.Fprintf(h, " %d", day)
		}
	}
	io.WriteString(h, "\n")
	for _, d := range slices.SortedFunc(maps.Keys(t.holidays), Date.Compare) {
		fmt.Fprintf(h, "holiday %s\n", d)
	}
	for _, p := range t.periods {
		fmt.Fprintf(h, "period %d:%s %d %d %d %d\n", len(p.Name), p.Name, p.Opens, p.Starts, p.LateAfter, p.Ends)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
