package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

// sqliteStore is a Store in one file.
type sqliteStore struct {
	path   string
	place  *place
	writer *sql.DB // one connection; nil when opened for reading
	reader *sql.DB
	writes atomic.Uint64

	mu   sync.Mutex // guards hold
	hold hold

	// Used only by Deliver, which one goroutine calls at a time.
	full    driver.Stmt // upserts rowsPerStatement rows, on the connection fullOn; nil: not prepared
	fullOn  sqliteConn
	args    []driver.NamedValue
	rows    []*attendance.Event
	presses []press
}

var sqliteDialect = &dialect{
	parameter: func(int) string { return "?" },
	uuid:      func(int) string { return "unhex(?, '-')" },
	presses:   "max",

	useReceipts: " INDEXED BY arrivals_receipt",
}

const (
	// lockWait is how long a statement waits for another program's lock before
	// delivery hears of it and tries again later.
	lockWait = time.Second

	openWait = 30 * time.Second

	// checkpointPages is how far SQLite's own log grows before it is carried
	// into the file: 64 MB. A page that one bulk after the other changes is
	// carried over once.
	checkpointPages = 16384
)

// openSQLite opens the file, creates it when it is not there and brings its
// schema up to date.
func openSQLite(ctx context.Context, location string, p *place) (*sqliteStore, error) {
	path, err := sqlitePath(location)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	s := &sqliteStore{path: path, place: p}
	if s.writer, err = s.connect("rwc", 1); err != nil {
		return nil, s.about("opening", err)
	}
	if err = migrateSQLite(ctx, s.writer); err == nil {
		// Taking it over also finds out at the start that a file cannot be
		// written, not at the first bell.
		err = s.takeOverLocked(ctx)
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

func openSQLiteReader(ctx context.Context, location string, p *place) (*sqliteStore, error) {
	path, err := sqlitePath(location)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	s := &sqliteStore{path: path, place: p}
	if s.reader, err = s.connect("ro", 4); err != nil {
		return nil, s.about("opening", err)
	}
	version, err := sqliteVersion(ctx, s.reader)
	if err == nil && version < len(sqliteMigrations) {
		err = older(version, len(sqliteMigrations))
	}
	if err != nil {
		s.Close()
		return nil, s.about("opening", err)
	}
	return s, nil
}

// connect makes a pool of connections; mode is SQLite's.
func (s *sqliteStore) connect(mode string, connections int) (*sql.DB, error) {
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
		// 32 MB keep the pages of a morning's students at hand.
		q.Add("_pragma", "cache_size(-32768)")
		q.Add("_txlock", "immediate")
		q.Add("_pragma", "journal_mode(WAL)")
		q.Add("_pragma", fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages))
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

// about tells what went wrong in one line, in words for the person on duty.
func (s *sqliteStore) about(doing string, err error) error {
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
func (s *sqliteStore) Close() error {
	var errs []error
	if s.full != nil {
		errs = append(errs, s.full.Close())
	}
	if s.reader != nil {
		errs = append(errs, s.reader.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.Close())
		s.place.close()
	}
	if err := errors.Join(errs...); err != nil {
		return s.about("closing", err)
	}
	return nil
}

// Writes implements Store.
func (s *sqliteStore) Writes() uint64 { return s.writes.Load() }

// Known implements Store: the highest position of any journal, as SQLite is
// always there to be asked. A journal that was lost and began anew has a new
// name, and its numbers go on behind those of the old one.
func (s *sqliteStore) Known() (next uint64) {
	err := s.reader.QueryRow("SELECT coalesce(max(next), 0) FROM deliveries").Scan(&next)
	if err != nil {
		return s.place.known.Load()
	}
	return next
}

// takeOverLocked makes this process the one that delivers the journal. A position
// from before journals had names is this journal's. s.mu is
// held, or nobody else knows s.
func (s *sqliteStore) takeOverLocked(ctx context.Context) error {
	_, err := s.writer.ExecContext(ctx, "UPDATE OR IGNORE deliveries SET journal = ? WHERE journal = ''", s.place.journal)
	if err != nil {
		return err
	}
	return s.writer.QueryRowContext(ctx, "INSERT INTO deliveries (journal, next, epoch, holder, since) VALUES (?, 0, 1, ?, datetime())"+
		" ON CONFLICT DO UPDATE SET epoch = epoch + 1, holder = excluded.holder, since = excluded.since RETURNING epoch, next",
		s.place.journal, holder()).Scan(&s.hold.epoch, &s.hold.left)
}

// Position implements attendance.Target and Reader.
func (s *sqliteStore) Position(ctx context.Context) (attendance.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writer != nil && s.hold.epoch == 0 {
		if err := s.takeOverLocked(ctx); err != nil {
			return attendance.Position{}, s.about("taking over", err)
		}
	}
	var next uint64
	err := s.reader.QueryRowContext(ctx, "SELECT next FROM deliveries WHERE journal IN (?, '') ORDER BY journal DESC", s.place.journal).Scan(&next)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return attendance.Position{}, s.about("reading the position of", err)
	}
	return attendance.Position{Next: next}, nil
}

// Deliver implements attendance.Target: all of the bulk and the position behind
// it, in one transaction, or nothing.
func (s *sqliteStore) Deliver(ctx context.Context, b *attendance.Bulk) (done attendance.Delivered, err error) {
	s.rows, s.presses = fold(b, s.rows, s.presses)
	defer func() { clear(s.rows) }()
	conn, err := s.writer.Conn(ctx)
	if err == nil {
		// The driver's own statements: database/sql would handle each of a
		// bulk's parameters several times.
		err = errors.Join(conn.Raw(func(c any) error {
			return s.write(ctx, c.(sqliteConn), b.Next, &done)
		}), conn.Close())
	}
	if err != nil {
		return attendance.Delivered{Writes: done.Writes}, s.about("writing to", err)
	}
	s.mu.Lock()
	s.hold.left = b.Next
	s.mu.Unlock()
	s.place.note(b.Next)
	done.Duplicates = len(s.rows) - done.Rows
	return done, nil
}

// sqliteConn is what the driver's connection can do.
type sqliteConn interface {
	driver.ConnPrepareContext
	driver.ConnBeginTx
	driver.ExecerContext
	driver.QueryerContext
}

func (s *sqliteStore) write(ctx context.Context, c sqliteConn, next uint64, done *attendance.Delivered) error {
	tx, err := c.BeginTx(ctx, driver.TxOptions{})
	if err != nil {
		return err
	}
	if err = s.writeAll(ctx, c, next, done); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (s *sqliteStore) writeAll(ctx context.Context, c sqliteConn, next uint64, done *attendance.Delivered) error {
	count := func() {
		done.Writes++
		s.writes.Add(1)
	}
	count()
	s.mu.Lock()
	held := s.hold
	s.mu.Unlock()
	moved, err := c.ExecContext(ctx, "UPDATE deliveries SET next = ?1 WHERE journal = ?2 AND epoch = ?3 AND next = ?4",
		[]driver.NamedValue{{Ordinal: 1, Value: int64(next)}, {Ordinal: 2, Value: s.place.journal}, {Ordinal: 3, Value: held.epoch}, {Ordinal: 4, Value: int64(held.left)}})
	if err != nil {
		return err
	}
	if n, err := moved.RowsAffected(); err != nil || n != 1 {
		return cmp.Or(err, s.refused(ctx, held))
	}
	for rows := range slices.Chunk(s.rows, rowsPerStatement) {
		count()
		n, err := s.upsertRows(ctx, c, rows)
		if err != nil {
			return err
		}
		done.Rows += n
	}
	for presses := range slices.Chunk(s.presses, rowsPerStatement) {
		count()
		if err := s.upsertPresses(ctx, c, presses); err != nil {
			return err
		}
	}
	return nil
}

// refused says why the position could not be moved, and lets go of what is held
// unless somebody else has it.
func (s *sqliteStore) refused(ctx context.Context, held hold) error {
	var found hold
	var holder string
	err := s.reader.QueryRowContext(ctx, "SELECT epoch, next, holder || ', since ' || since || ' UTC' FROM deliveries WHERE journal = ?", s.place.journal).
		Scan(&found.epoch, &found.left, &holder)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err = held.refusal(found, holder); errors.Is(err, attendance.ErrMoved) {
		s.mu.Lock()
		s.hold = hold{}
		s.mu.Unlock()
	}
	return err
}

// bind adds parameters to those of the next statement.
func (s *sqliteStore) bind(values ...driver.Value) {
	for _, v := range values {
		s.args = append(s.args, driver.NamedValue{Ordinal: len(s.args) + 1, Value: v})
	}
}

// upsertRows writes up to rowsPerStatement rows and returns how many of them
// were new or better.
func (s *sqliteStore) upsertRows(ctx context.Context, c sqliteConn, rows []*attendance.Event) (int, error) {
	defer func() { clear(s.args); s.args = s.args[:0] }()
	var like likeBefore
	for _, e := range rows {
		s.bind(like.date(e.Date), like.text(1, e.School), like.text(2, e.Period), e.Student, like.text(4, classKey(e)), like.text(5, e.Class),
			like.text(6, string(e.Status)), e.FirstArrival.UnixMilli(), utcOffset(e.FirstArrival), e.Verified, e.ID[:], like.text(11, e.Timetable), int64(e.Seq))
	}
	st, keep, err := s.upsert(ctx, c, len(rows))
	if err != nil {
		return 0, err
	}
	if !keep {
		defer st.Close()
	}
	result, err := st.(driver.StmtExecContext).ExecContext(ctx, s.args)
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return int(n), err
}

// upsert prepares the statement for so many rows; that for a full one, nearly a
// megabyte of SQLite's program, is kept.
func (s *sqliteStore) upsert(ctx context.Context, c sqliteConn, rows int) (st driver.Stmt, keep bool, err error) {
	keep = rows == rowsPerStatement
	if keep && s.full != nil && s.fullOn == c {
		return s.full, true, nil
	}
	row := "(" + strings.Repeat("?, ", len(columns)-1) + "?)"
	st, err = c.PrepareContext(ctx, sqliteDialect.insertInto()+"VALUES "+strings.Repeat(row+", ", rows-1)+row+sqliteDialect.upsertRows())
	if err == nil && keep {
		s.full, s.fullOn = st, c
	}
	return st, keep, err
}

func (s *sqliteStore) upsertPresses(ctx context.Context, c sqliteConn, presses []press) error {
	defer func() { clear(s.args); s.args = s.args[:0] }()
	for i := range presses {
		s.bind(presses[i].id[:], int64(presses[i].count))
	}
	_, err := c.ExecContext(ctx, "INSERT INTO presses AS p (receipt, presses) VALUES "+strings.Repeat("(?, ?), ", len(presses)-1)+"(?, ?)"+
		sqliteDialect.upsertPresses(), s.args)
	return err
}

// likeBefore makes a parameter of a text once as long as row after row has the
// same: they are sorted.
type likeBefore struct {
	texts [len(columns)]driver.Value
	day   timetable.Date
	named driver.Value
}

func (l *likeBefore) text(column int, s string) driver.Value {
	if before, ok := l.texts[column].(string); !ok || before != s {
		l.texts[column] = s
	}
	return l.texts[column]
}

func (l *likeBefore) date(d timetable.Date) driver.Value {
	if l.named == nil || l.day != d {
		l.day, l.named = d, d.String()
	}
	return l.named
}

// Rows implements Reader.
func (s *sqliteStore) Rows(ctx context.Context, f Filter) iter.Seq2[attendance.Row, error] {
	return s.queries().rows(ctx, f)
}

// Count implements Reader.
func (s *sqliteStore) Count(ctx context.Context, f Filter) (map[timetable.Status]int, error) {
	return s.queries().count(ctx, f)
}

func (s *sqliteStore) queries() queries {
	ask := func(ctx context.Context, query string, args []any) (lines, func(), error) {
		rows, err := s.reader.QueryContext(ctx, query, args...)
		if err != nil {
			return nil, nil, err
		}
		return rows, func() { _ = rows.Close() }, nil // what was wrong, Err says
	}
	return queries{sqliteDialect, ask, s.about}
}
