package attendance

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Date is a day of the calendar without a zone: days since 1970-01-01.
type Date int32

// DateOf returns the calendar day of t in t's own zone.
func DateOf(t time.Time) Date {
	_, offset := t.Zone()
	return Date(floorDiv(t.Unix()+int64(offset), secondsPerDay))
}

// ParseDate reads the form 2006-01-02.
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return 0, fmt.Errorf("reading date %.20q: want the form 2006-01-02", s)
	}
	return DateOf(t), nil
}

// Start returns the first moment of the day in the zone.
func (d Date) Start(zone *time.Location) time.Time {
	t := time.Unix(int64(d)*secondsPerDay, 0).UTC()
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, zone)
}

// String returns the form 2006-01-02.
func (d Date) String() string { return string(d.append(nil)) }

func (d Date) append(dst []byte) []byte {
	return time.Unix(int64(d)*secondsPerDay, 0).UTC().AppendFormat(dst, time.DateOnly)
}

const secondsPerDay = 24 * 60 * 60

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

// offsetMinutes returns t's offset from UTC, in minutes, within offsetMax.
func offsetMinutes(t time.Time) int16 {
	_, seconds := t.Zone()
	return int16(max(-offsetMax, min(offsetMax, seconds/60)))
}
