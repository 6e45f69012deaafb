package store

import (
	"strings"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

// arrays are rows by column, as PostgreSQL's unnest takes them. Their memory is
// used again by the next bulk.
type arrays struct {
	dates    []time.Time
	texts    [7][]string // school, period, student_id, class_key, class_id, status, timetable
	first    []time.Time
	offsets  []int16
	verified []bool
	receipts [][16]byte
	seqs     []int64
}

func (a *arrays) fill(rows []*attendance.Event) {
	a.dates, a.first, a.offsets = a.dates[:0], a.first[:0], a.offsets[:0]
	a.verified, a.receipts, a.seqs = a.verified[:0], a.receipts[:0], a.seqs[:0]
	for i := range a.texts {
		clear(a.texts[i])
		a.texts[i] = a.texts[i][:0]
	}
	for _, e := range rows {
		a.dates = append(a.dates, midnight(e.Date))
		for i, s := range [...]string{e.School, e.Period, e.Student, classKey(e), e.Class, string(e.Status), e.Timetable} {
			a.texts[i] = append(a.texts[i], plain(s))
		}
		a.first = append(a.first, within(e.FirstArrival))
		a.offsets = append(a.offsets, int16(utcOffset(e.FirstArrival)))
		a.verified = append(a.verified, e.Verified)
		a.receipts = append(a.receipts, e.ID)
		a.seqs = append(a.seqs, int64(e.Seq))
	}
}

// args are the parameters for the rows [from, to), in the order of columns.
func (a *arrays) args(from, to int) []any {
	t := func(i int) []string { return a.texts[i][from:to] }
	return []any{
		a.dates[from:to], t(0), t(1), t(2), t(3), t(4), t(5), a.first[from:to], a.offsets[from:to],
		a.verified[from:to], a.receipts[from:to], t(6), a.seqs[from:to],
	}
}

func countArrays(presses []press) (ids [][16]byte, counts []int64) {
	for i := range presses {
		ids = append(ids, presses[i].id)
		counts = append(counts, int64(presses[i].count))
	}
	return ids, counts
}

func midnight(d timetable.Date) time.Time {
	return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC)
}

// plain is what PostgreSQL takes for a text. Recorder lets nothing else in;
// what a journal holds from elsewhere must not hold up what is behind it.
func plain(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// The moments that a date of four digits can name.
var (
	momentMin = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	momentMax = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// within brings a moment that no clock of ours gave into what PostgreSQL takes.
func within(t time.Time) time.Time {
	switch {
	case t.Before(momentMin):
		return momentMin
	case t.After(momentMax):
		return momentMax
	}
	return t
}
