package attendance

import (
	"sync/atomic"
	"time"

	"firstbell/attendance/timetable"
)

const secondsPerDay = 24 * 60 * 60

// dayNumber returns the days from 1970-01-01 to d: the form on disk.
func dayNumber(d timetable.Date) int32 {
	return int32(floorDiv(time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC).Unix(), secondsPerDay))
}

// dateOfDay is the reverse of dayNumber.
func dateOfDay(n int32) timetable.Date {
	return timetable.DateOf(time.Unix(int64(n)*secondsPerDay, 0).UTC())
}

// appendDate appends the form 2006-01-02, without allocating and without
// reading a layout each time.
func appendDate(dst []byte, d timetable.Date) []byte {
	dst = appendDigits(dst, d.Year, 4)
	dst = appendDigits(append(dst, '-'), int(d.Month), 2)
	return appendDigits(append(dst, '-'), d.Day, 2)
}

// appendTime appends RFC 3339 with milliseconds and always a numeric offset.
func appendTime(dst []byte, t time.Time) []byte {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	_, offset := t.Zone()
	dst = appendDate(dst, timetable.Date{Year: year, Month: month, Day: day})
	dst = appendDigits(append(dst, 'T'), hour, 2)
	dst = appendDigits(append(dst, ':'), minute, 2)
	dst = appendDigits(append(dst, ':'), second, 2)
	dst = appendDigits(append(dst, '.'), t.Nanosecond()/1e6, 3)
	sign := byte('+')
	if offset < 0 {
		sign, offset = '-', -offset
	}
	dst = appendDigits(append(dst, sign), offset/3600, 2)
	return appendDigits(append(dst, ':'), offset/60%60, 2)
}

// appendDigits appends the last width digits of n.
func appendDigits(dst []byte, n, width int) []byte {
	at := len(dst)
	dst = append(dst, "0000"[:width]...)
	for i := at + width - 1; i >= at; i-- {
		dst[i] += byte(n % 10)
		n /= 10
	}
	return dst
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// offsetMax is the largest zone offset, in minutes, that a record may carry.
// Zones lie within 14 hours; a day is generous and keeps the table small.
const offsetMax = 24 * 60

var fixedZones [2*offsetMax + 1]atomic.Pointer[time.Location]

// fixedZone returns the zone that lies minutes east of UTC, built once.
func fixedZone(minutes int16) *time.Location {
	slot := &fixedZones[int(minutes)+offsetMax]
	if z := slot.Load(); z != nil {
		return z
	}
	slot.CompareAndSwap(nil, time.FixedZone("", int(minutes)*60))
	return slot.Load()
}

// Zone returns the zone that lies so many minutes east of UTC, at most a day:
// that of a receipt's first arrival. It is built once.
func Zone(minutes int) *time.Location {
	return fixedZone(int16(max(-offsetMax, min(offsetMax, minutes))))
}

// offsetMinutes returns t's offset from UTC, in minutes, within offsetMax.
func offsetMinutes(t time.Time) int16 {
	_, seconds := t.Zone()
	return int16(max(-offsetMax, min(offsetMax, seconds/60)))
}
