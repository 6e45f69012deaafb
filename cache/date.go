package cache

import (
	"time"
)

// httpDate is how a Date is written (RFC 9110 section 5.6.7).
const httpDate = "Mon, 02 Jan 2006 15:04:05 GMT"

// parseDate reads an HTTP-date in its three forms. Names of days and months
// are taken in any case; all else is to the letter, so that what was not
// meant as a date is not taken for one. now tells the century of a two-digit
// year: the latest one that is not more than 50 years ahead.
func parseDate(b []byte, now time.Time) (time.Time, bool) {
	for i, c := range b {
		if c != ',' {
			continue
		}
		switch i {
		case 3:
			return parseFixdate(b)
		default:
			return parseRFC850(b, now)
		}
	}
	return parseAsctime(b)
}

// parseFixdate reads "Sun, 06 Nov 1994 08:49:37 GMT".
func parseFixdate(b []byte) (time.Time, bool) {
	if len(b) != len(httpDate) || b[4] != ' ' || b[7] != ' ' || b[11] != ' ' || b[16] != ' ' || !endsInGMT(b) {
		return time.Time{}, false
	}
	return date(weekday(b[:3]), number(b[12:16]), month(b[8:11]), number(b[5:7]), b[17:25])
}

// parseRFC850 reads "Sunday, 06-Nov-94 08:49:37 GMT".
func parseRFC850(b []byte, now time.Time) (time.Time, bool) {
	day := 0
	for day < len(b) && b[day] != ',' {
		day++
	}
	rest := b[day:]
	if len(rest) != len(", 06-Nov-94 08:49:37 GMT") || rest[1] != ' ' || rest[4] != '-' || rest[8] != '-' || rest[11] != ' ' || !endsInGMT(b) {
		return time.Time{}, false
	}
	year := number(rest[9:11])
	if year < 0 || !fold(b[:day], longDays[:]) {
		return time.Time{}, false
	}
	limit := now.UTC().Year() + 50
	year += limit - limit%100
	if year > limit {
		year -= 100
	}
	return date(true, year, month(rest[5:8]), number(rest[2:4]), rest[12:20])
}

// parseAsctime reads "Sun Nov  6 08:49:37 1994".
func parseAsctime(b []byte) (time.Time, bool) {
	if len(b) != len("Sun Nov  6 08:49:37 1994") || b[3] != ' ' || b[7] != ' ' || b[10] != ' ' || b[19] != ' ' {
		return time.Time{}, false
	}
	day := b[8:10]
	if day[0] == ' ' {
		day = day[1:]
	}
	return date(weekday(b[:3]), number(b[20:24]), month(b[4:7]), number(day), b[11:19])
}

// date puts the parts together. The name of the day is not held against the
// date; a 30 February is. Second 60 is a leap second and counts as the next.
func date(okDay bool, year int, mon time.Month, day int, clock []byte) (time.Time, bool) {
	if clock[2] != ':' || clock[5] != ':' {
		return time.Time{}, false
	}
	h, m, s := number(clock[:2]), number(clock[3:5]), number(clock[6:8])
	if !okDay || year < 0 || mon == 0 || day < 1 || h < 0 || h > 23 || m < 0 || m > 59 || s < 0 || s > 60 {
		return time.Time{}, false
	}
	if midnight := time.Date(year, mon, day, 0, 0, 0, 0, time.UTC); midnight.Day() != day {
		return time.Time{}, false
	}
	return time.Date(year, mon, day, h, m, s, 0, time.UTC), true
}

// number reads digits and nothing else; -1 is none.
func number(b []byte) int {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

var (
	months = [...]string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	days   = [...]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

	longDays = [...]string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
)

func month(b []byte) time.Month {
	var low [3]byte
	name := string(lower(low[:0], b))
	for i, m := range months {
		if m == name {
			return time.Month(i + 1)
		}
	}
	return 0
}

func weekday(b []byte) bool { return fold(b, days[:]) }

// fold reports whether b is one of names in any case.
func fold(b []byte, names []string) bool {
	var low [9]byte
	name := string(lower(low[:0], b))
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func endsInGMT(b []byte) bool {
	var low [4]byte
	return string(lower(low[:0], b[len(b)-4:])) == " gmt"
}
