package store

import (
	"context"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

// Past is the side of a store that sinks read when they lag past the journal.
type Past interface {
	// Between returns the rows whose position is in [from, to), by position, at
	// most limit of them. Where several journals share a store, it returns
	// theirs, too.
	Between(ctx context.Context, from, to uint64, limit int) ([]attendance.Row, error)
}

var _ Past = (*SQLite)(nil)

const selectBetween = `SELECT date, school, period, student_id, class_key, class_id, status, first_arrival, presses, verified, receipt, timetable, position
FROM check_ins WHERE position >= ? AND position < ? ORDER BY position LIMIT ?`

// Between implements Past.
func (s *SQLite) Between(ctx context.Context, from, to uint64, limit int) ([]attendance.Row, error) {
	found, err := s.reader.QueryContext(ctx, selectBetween, int64(from), int64(to), limit)
	if err != nil {
		return nil, s.about("reading", err)
	}
	defer found.Close()
	var rows []attendance.Row
	for found.Next() {
		var r attendance.Row
		var date, classKey, status, first, receipt string
		err := found.Scan(&date, &r.School, &r.Period, &r.Student, &classKey, &r.Class, &status, &first, &r.Presses, &r.Verified, &receipt, &r.Timetable, &r.Seq)
		if err == nil {
			r.Date, err = timetable.ParseDate(date)
		}
		if err == nil {
			r.FirstArrival, err = time.Parse(firstArrivalFormat, first)
		}
		if err == nil {
			r.ID, err = attendance.ParseReceiptID(receipt)
		}
		if err != nil {
			return nil, s.about("reading", err)
		}
		r.ClassIsKey, r.Status = classKey != "", timetable.Status(status)
		rows = append(rows, r)
	}
	if err := found.Err(); err != nil {
		return nil, s.about("reading", err)
	}
	return rows, nil
}
