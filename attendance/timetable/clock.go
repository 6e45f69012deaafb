package timetable

import (
	"cmp"
	"fmt"
	"time"
)

// Clock is a time of the day as the clock on the wall shows it, in whole
// seconds since 00:00. 24:00 is the end of the day.
type Clock int32

const (
	clockMinute Clock = 60
	clockDay    Clock = 24 * 60 * clockMinute
)

// ParseClock reads "09:00" or "09:00:30", from "00:00" to "24:00".
func ParseClock(s string) (Clock, error) {
	var h, m, sec int
	ok := len(s) == 5 && two(s[0:], &h) && s[2] == ':' && two(s[3:], &m)
	if len(s) == 8 {
		ok = two(s[0:], &h) && s[2] == ':' && two(s[3:], &m) && s[5] == ':' && two(s[6:], &sec)
	}
	c := Clock(h*3600 + m*60 + sec)
	if !ok || m > 59 || sec > 59 || c > clockDay {
		return 0, fmt.Errorf("%q is not a time of the day; write it as \"09:00\", from \"00:00\" to \"24:00\"", s)
	}
	return c, nil
}

// two reads the two digits that s begins with.
func two(s string, n *int) bool {
	if s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' {
		return false
	}
	*n = int(s[0]-'0')*10 + int(s[1]-'0')
	return true
}

// ClockOf returns what the clock on the wall shows at t, in t's own location,
// fractions of a second dropped.
func ClockOf(t time.Time) Clock {
	h, m, s := t.Clock()
	return Clock(h*3600 + m*60 + s)
}

// String is "09:00", or "09:00:30" when there are seconds. ParseClock reads it.
func (c Clock) String() string {
	h, m, s := c/3600, c/60%60, c%60
	if s == 0 {
		return fmt.Sprintf("%02d:%02d", h, m)
	}
	return fmt.Sprintf("%02d:%02d:%02d", h, m, s)
}

// Date is a day of the calendar, without a zone.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// ParseDate reads "2026-05-05"; a day that the calendar lacks is an error.
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Date{}, fmt.Errorf("%q is not a date; write it as \"2026-05-05\"", s)
	}
	return DateOf(t), nil
}

// DateOf returns the date of t in t's own location.
func DateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

// String is "2026-05-05". ParseDate reads it.
func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, int(d.Month), d.Day) }

// Weekday returns the day of the week.
func (d Date) Weekday() time.Weekday { return d.utc(0).Weekday() }

// AddDays returns the date n days later, earlier when n is negative.
func (d Date) AddDays(n int) Date { return DateOf(d.utc(0).AddDate(0, 0, n)) }

// Compare is -1 when d comes before e, 0 when they are one day, 1 otherwise.
func (d Date) Compare(e Date) int {
	return cmp.Or(cmp.Compare(d.Year, e.Year), cmp.Compare(d.Month, e.Month), cmp.Compare(d.Day, e.Day))
}

// utc is the moment at which a clock in UTC shows c on this date.
func (d Date) utc(c Clock) time.Time {
	return time.Date(d.Year, d.Month, d.Day, 0, 0, int(c), 0, time.UTC)
}

// At returns the first moment at which a clock in loc shows c on this date. A
// time that the clock skips is the moment it would have been, had the clock not
// been put forward. 24:00 is the next day's 00:00.
func (d Date) At(c Clock, loc *time.Location) time.Time {
	before, after := d.candidates(c, loc)
	if ClockOf(before) != c%clockDay && ClockOf(after) == c%clockDay {
		return after
	}
	return before
}

// LastAt is like At for the last such moment: it differs from At only for the
// hour that a clock shows twice.
func (d Date) LastAt(c Clock, loc *time.Location) time.Time {
	before, after := d.candidates(c, loc)
	if ClockOf(after) == c%clockDay {
		return after
	}
	return before
}

// candidates reads c with the zone's offset of the day before and with that of
// the day after. They are the same moment unless the clock changes in between.
func (d Date) candidates(c Clock, loc *time.Location) (before, after time.Time) {
	u := d.utc(c)
	_, was := u.Add(-24 * time.Hour).In(loc).Zone()
	_, is := u.Add(24 * time.Hour).In(loc).Zone()
	return u.Add(-time.Duration(was) * time.Second).In(loc), u.Add(-time.Duration(is) * time.Second).In(loc)
}
