package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

// Reader is the reading side of a store.
type Reader interface {
	// Rows yields the rows that pass the filter, in export order (see
	// attendance.CompareRows). The first error ends it.
	Rows(ctx context.Context, f Filter) iter.Seq2[attendance.Row, error]

	// Count returns how many rows pass the filter, by their status.
	Count(ctx context.Context, f Filter) (map[timetable.Status]int, error)

	// Position returns where delivery goes on. Rows asked for later hold at
	// least what came before it.
	Position(ctx context.Context) (attendance.Position, error)

	Close() error
}

// Store is a database that check-ins are delivered to and read from.
type Store interface {
	attendance.Target
	Reader
	Past

	// Writes returns how many statements have written, since Open.
	Writes() uint64
}

// Filter picks rows. Zero values let everything pass.
type Filter struct {
	From, To timetable.Date // first and last date
	School   string
	Class    string
	Period   string
	Receipt  string // as attendance.ReceiptID writes it
}

// SQLite is a Store in one file.
type SQLite struct {
	path   string
	writer *sql.DB // one connection; nil when opened for reading
	reader *sql.DB
	upsert *sql.Stmt
	writes atomic.Uint64
}

var (
	_ Store  = (*SQLite)(nil)
	_ Reader = (*SQLite)(nil)
)

const (
	// lockWait is how long a statement waits for another program's lock before
	// delivery hears of it and tries again later.
	lockWait = time.Second

	openWait = 30 * time.Second
)

// Open opens the store at location, "sqlite:PATH", creates it when it is not
// there and brings its schema up to date.
func Open(ctx context.Context, location string) (*SQLite, error) {
	path, err := sqlitePath(location)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	s := &SQLite{path: path}
	if s.writer, err = s.connect("rwc", 1); err != nil {
		return nil, s.about("opening", err)
	}
	if err = migrate(ctx, s.writer); err == nil {
		s.upsert, err = s.writer.PrepareContext(ctx, upsertRows)
	}
	if err == nil {
		err = s.mayWrite(ctx)
	}
	if err == nil {
		s.reader, err = s.connect("ro", 4)
	}
	if err != nil {
		s.Close()
		return nil, s.about("opening", err)
	}
	return s, nil
}

// OpenReader opens a store that is there already for reading alone, beside a
// writer or without one.
func OpenReader(ctx context.Context, location string) (*SQLite, error) {
	path, err := sqlitePath(location)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	s := &SQLite{path: path}
	if s.reader, err = s.connect("ro", 4); err != nil {
		return nil, s.about("opening", err)
	}
	version, err := checkSchema(ctx, s.reader)
	if err == nil && version < len(migrations) {
		err = fmt.Errorf("its schema has version %d, this firstbell reads %d; start firstbell serve once to change it", version, len(migrations))
	}
	if err != nil {
		s.Close()
		return nil, s.about("opening", err)
	}
	return s, nil
}

func sqlitePath(location string) (string, error) {
	scheme, path, ok := strings.Cut(location, ":")
	if !ok || scheme != "sqlite" || path == "" {
		return "", fmt.Errorf("opening store %q: want sqlite:PATH", location)
	}
	return filepath.Abs(path)
}

// connect makes a pool of connections; mode is SQLite's.
func (s *SQLite) connect(mode string, connections int) (*sql.DB, error) {
	// SQLite's own words for these do not say what is wrong.
	if dir, err := os.Stat(filepath.Dir(s.path)); err != nil {
		return nil, err
	} else if !dir.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", filepath.Dir(s.path))
	}
	file, err := os.Stat(s.path)
	if mode == "ro" && err != nil {
		return nil, err
	}
	if err == nil && !file.Mode().IsRegular() {
		return nil, errors.New("it is not a file")
	}
	q := url.Values{"mode": {mode}}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", lockWait.Milliseconds()))
	q.Add("_pragma", "temp_store(MEMORY)")
	if mode != "ro" {
		// 32 MB keep the index pages of a morning's receipts at hand.
		q.Add("_pragma", "cache_size(-32768)")
		q.Add("_txlock", "immediate")
		q.Add("_pragma", "journal_mode(WAL)")
		// FULL syncs with each transaction, one per bulk: the journal's
		// retention goes by the position.
		q.Add("_pragma", "synchronous(FULL)")
	}
	u := url.URL{Scheme: "file", Path: s.path, RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	return db, nil
}

// mayWrite finds out at the start that a file cannot be written, not at the
// first bell.
func (s *SQLite) mayWrite(ctx context.Context) error {
	_, err := s.writer.ExecContext(ctx, "UPDATE delivery SET next = next WHERE id = 1")
	return err
}

// about tells what went wrong in one line, in words for the person on duty.
func (s *SQLite) about(doing string, err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return fmt.Errorf("%s store %s: the file is damaged or no SQLite database; move it aside and the journal fills a new one as far back as it reaches: %w", doing, s.path, err)
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
			return fmt.Errorf("%s store %s: the file or its directory cannot be written: %w", doing, s.path, err)
		case sqlite3.SQLITE_CANTOPEN:
			return fmt.Errorf("%s store %s: the file cannot be opened or made; look at the path and who may write there: %w", doing, s.path, err)
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			return fmt.Errorf("%s store %s: another program holds a lock on it: %w", doing, s.path, err)
		}
	}
	return fmt.Errorf("%s store %s: %w", doing, s.path, err)
}

// Close lets go of the file. Reading iterators must have ended.
func (s *SQLite) Close() error {
	var errs []error
	if s.upsert != nil {
		errs = append(errs, s.upsert.Close())
	}
	if s.reader != nil {
		errs = append(errs, s.reader.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return s.about("closing", err)
	}
	return nil
}

// Writes implements Store.
func (s *SQLite) Writes() uint64 { return s.writes.Load() }

// Position implements attendance.Target and Reader.
func (s *SQLite) Position(ctx context.Context) (attendance.Position, error) {
	var next int64
	err := s.reader.QueryRowContext(ctx, "SELECT next FROM delivery WHERE id = 1").Scan(&next)
	if err != nil {
		return attendance.Position{}, s.about("reading the position of", err)
	}
	return attendance.Position{Next: uint64(next)}, nil
}

// Deliver implements attendance.Target: all of the bulk and the position behind
// it, in one transaction, or nothing. A row that was there already counts as
// delivered again.
func (s *SQLite) Deliver(ctx context.Context, b *attendance.Bulk) (attendance.Delivered, error) {
	rows, presses := b.Fold()
	var done attendance.Delivered
	if err := s.write(ctx, b.Next, rows, presses, &done); err != nil {
		return done, s.about("writing to", err)
	}
	done.Rows = len(rows)
	return done, nil
}

func (s *SQLite) write(ctx context.Context, next uint64, rows []attendance.Row, presses map[attendance.ReceiptID]uint32, done *attendance.Delivered) error {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	count := func() {
		done.Writes++
		s.writes.Add(1)
	}
	if len(rows)+len(presses) > 0 {
		rowsJSON, countsJSON, err := encode(rows, presses)
		if err != nil {
			return err
		}
		count()
		if _, err := tx.StmtContext(ctx, s.upsert).ExecContext(ctx, rowsJSON, countsJSON); err != nil {
			return err
		}
	}
	count()
	if _, err := tx.ExecContext(ctx, movePosition, int64(next)); err != nil {
		return err
	}
	return tx.Commit()
}

// encode returns the parameters of upsertRows.
func encode(rows []attendance.Row, presses map[attendance.ReceiptID]uint32) (string, string, error) {
	lines := make([][]any, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		classKey, verified := "", 0
		if r.ClassIsKey {
			classKey = r.Class
		}
		if r.Verified {
			verified = 1
		}
		lines = append(lines, []any{
			r.Date.String(), r.School, r.Period, r.Student, classKey, r.Class, string(r.Status),
			r.FirstArrival.Format(firstArrivalFormat), r.FirstArrival.UnixMilli(),
			r.Presses, verified, r.ID.String(), r.Timetable, r.Seq,
		})
	}
	counts := make([][2]any, 0, len(presses))
	for id, n := range presses {
		counts = append(counts, [2]any{id.String(), n})
	}
	rowsJSON, err := json.Marshal(lines)
	if err != nil {
		return "", "", err
	}
	countsJSON, err := json.Marshal(counts)
	return string(rowsJSON), string(countsJSON), err
}

const firstArrivalFormat = "2006-01-02T15:04:05.000-07:00"

// where returns the filter as SQL.
func (f *Filter) where() (string, []any) {
	conditions, args := []string{"true"}, []any(nil)
	add := func(condition string, arg any) {
		conditions = append(conditions, condition)
		args = append(args, arg)
	}
	if f.From != (timetable.Date{}) {
		add("date >= ?", f.From.String())
	}
	if f.To != (timetable.Date{}) {
		add("date <= ?", f.To.String())
	}
	if f.School != "" {
		add("school = ?", f.School)
	}
	if f.Class != "" {
		add("class_id = ?", f.Class)
	}
	if f.Period != "" {
		add("period = ?", f.Period)
	}
	if f.Receipt != "" {
		add("receipt = ?", f.Receipt)
	}
	return strings.Join(conditions, " AND "), args
}

// Rows implements Reader. What it yields is the state at its first row.
func (s *SQLite) Rows(ctx context.Context, f Filter) iter.Seq2[attendance.Row, error] {
	return func(yield func(attendance.Row, error) bool) {
		where, args := f.where()
		rows, err := s.reader.QueryContext(ctx, "SELECT "+strings.Join(rowColumns, ", ")+
			" FROM check_ins WHERE "+where+" ORDER BY date, school, class_id, student_id, period, receipt", args...)
		if err != nil {
			yield(attendance.Row{}, s.about("reading", err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			row, err := scan(rows)
			if err != nil {
				yield(attendance.Row{}, s.about("reading", err))
				return
			}
			if !yield(row, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(attendance.Row{}, s.about("reading", err))
		}
	}
}

func scan(rows *sql.Rows) (attendance.Row, error) {
	var r attendance.Row
	var date, classKey, status, first, receipt string
	var firstMs int64
	err := rows.Scan(&date, &r.School, &r.Period, &r.Student, &classKey, &r.Class, &status,
		&first, &firstMs, &r.Presses, &r.Verified, &receipt, &r.Timetable, &r.Seq)
	if err != nil {
		return r, err
	}
	r.ClassIsKey = classKey != ""
	r.Status = timetable.Status(status)
	if r.Date, err = timetable.ParseDate(date); err != nil {
		return r, err
	}
	if r.FirstArrival, err = time.Parse(firstArrivalFormat, first); err != nil {
		return r, err
	}
	r.ID, err = attendance.ParseReceiptID(receipt)
	return r, err
}

// Count implements Reader.
func (s *SQLite) Count(ctx context.Context, f Filter) (map[timetable.Status]int, error) {
	where, args := f.where()
	rows, err := s.reader.QueryContext(ctx, "SELECT status, count(*) FROM check_ins WHERE "+where+" GROUP BY status", args...)
	if err != nil {
		return nil, s.about("counting", err)
	}
	defer rows.Close()
	counts := make(map[timetable.Status]int)
	for rows.Next() {
		var status string
		var n int
		if err := rows.Scan(&status, &n); err != nil {
			return nil, s.about("counting", err)
		}
		counts[timetable.Status(status)] = n
	}
	if err := rows.Err(); err != nil {
		return nil, s.about("counting", err)
	}
	return counts, nil
}
