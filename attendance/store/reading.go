package store

import (
	"context"
	"iter"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

// queries reads from a database in its dialect.
type queries struct {
	dialect *dialect
	ask     func(ctx context.Context, query string, args []any) (r lines, end func(), err error)
	about   func(doing string, err error) error
}

// rows yields what the filter lets pass, in export order.
func (q queries) rows(ctx context.Context, f Filter) iter.Seq2[attendance.Row, error] {
	return func(yield func(attendance.Row, error) bool) {
		query, args := q.dialect.selectRows(&f)
		r, end, err := q.ask(ctx, query, args)
		if err != nil {
			yield(attendance.Row{}, q.about("reading", err))
			return
		}
		defer end()
		for r.Next() {
			row, err := scan(r)
			if err != nil {
				yield(attendance.Row{}, q.about("reading", err))
				return
			}
			if !yield(row, nil) {
				return
			}
		}
		if err := r.Err(); err != nil {
			yield(attendance.Row{}, q.about("reading", err))
		}
	}
}

// count counts what the filter lets pass, by status.
func (q queries) count(ctx context.Context, f Filter) (map[timetable.Status]int, error) {
	where, args := f.where(q.dialect)
	r, end, err := q.ask(ctx, q.dialect.countRows(where), args)
	if err != nil {
		return nil, q.about("counting", err)
	}
	defer end()
	counts := make(map[timetable.Status]int)
	for r.Next() {
		var status string
		var n int
		if err := r.Scan(&status, &n); err != nil {
			return nil, q.about("counting", err)
		}
		counts[timetable.Status(status)] = n
	}
	if err := r.Err(); err != nil {
		return nil, q.about("counting", err)
	}
	return counts, nil
}
