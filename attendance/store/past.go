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

// Between implements Past.
func (s *postgres) Between(ctx context.Context, from, to uint64, limit int) ([]attendance.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	found, err := s.query(ctx, postgresDialect.selectBetween(), []any{int64(from), int64(to), limit})
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
