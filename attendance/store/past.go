package store

import (
	"context"

	"firstbell/attendance"
)

// Past is the side of a store that sinks read when they lag past the journal.
type Past interface {
	// Between returns the rows whose position is in [from, to), by position, at
	// most limit of them. Where several journals share a store, it returns
	// theirs, too.
	Between(ctx context.Context, from, to uint64, limit int) ([]attendance.Row, error)
}

// Between implements Past.
func (s *sqliteStore) Between(ctx context.Context, from, to uint64, limit int) ([]attendance.Row, error) {
	found, err := s.reader.QueryContext(ctx, sqliteDialect.selectBetween(), int64(from), int64(to), limit)
	if err != nil {
		return nil, s.about("reading", err)
	}
	defer found.Close()
	rows, err := scanAll(found)
	if err != nil {
		return nil, s.about("reading", err)
	}
	return rows, nil
}

// Between implements Past. It asks for one stretch of positions after the other:
// the index by position knows where the rows of a stretch lie, not their order.
// Where numbers were passed over, the stretches grow.
func (s *postgres) Between(ctx context.Context, from, to uint64, limit int) (rows []attendance.Row, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	for stretch := 16 * uint64(limit); from < to && len(rows) < limit; {
		end := min(to, from+stretch)
		found, err := s.query(ctx, postgresDialect.selectBetween(), []any{int64(from), int64(end), limit - len(rows)})
		if err != nil {
			return nil, s.about("reading", err)
		}
		more, err := scanAll(found)
		found.Close()
		if err != nil {
			return nil, s.about("reading", err)
		}
		if len(more) == 0 {
			stretch *= 4
		}
		rows, from = append(rows, more...), end
	}
	return rows, nil
}

// lines is what both drivers' rows are.
type lines interface {
	scanner
	Next() bool
	Err() error
}

func scanAll(found lines) (rows []attendance.Row, err error) {
	for found.Next() {
		row, err := scan(found)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, found.Err()
}
