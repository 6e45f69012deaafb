package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"path/filepath"
	"strings"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

// Reader is the reading side of a store.
type Reader interface {
	// Rows yields the rows that pass the filter, in export order (see
	// attendance.CompareRows), as they are at the first of them. The first
	// error ends it.
	Rows(ctx context.Context, f Filter) iter.Seq2[attendance.Row, error]

	// Count returns how many rows pass the filter, by their status.
	Count(ctx context.Context, f Filter) (map[timetable.Status]int, error)

	// Position returns where the delivery of the journal goes on. Rows asked
	// for later hold at least what came before it.
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

	// Known returns the position that the store was last known to have, without
	// asking it.
	Known() uint64
}

// Options say where a store is and which journal is delivered into it.
type Options struct {
	// Location is sqlite:PATH or postgres://USER@HOST:PORT/DATABASE.
	Location string

	// Password goes before one in the location. PostgreSQL's own environment
	// variables and password file count where neither is given.
	Password string

	// Journal is the journal's directory. The journal's name, by which the
	// store knows its position, is kept there.
	Journal string
}

// Open opens a store for writing. SQLite's file is created when it is not there.
// PostgreSQL is not asked before the first Position, so that check-ins are taken
// while it is down; its schema is created and brought up to date then.
//
// The first Position takes the delivery of the journal over: whoever had it
// before is told so at its next Deliver, and writes nothing any more.
func Open(ctx context.Context, o Options) (Store, error) {
	p, err := openPlace(o.Journal)
	if err != nil {
		return nil, err
	}
	if isPostgres(o.Location) {
		return openPostgres(o, p, true)
	}
	return openSQLite(ctx, o.Location, p)
}

// OpenReader opens a store that is there already for reading alone, beside a
// writer or without one.
func OpenReader(ctx context.Context, o Options) (Reader, error) {
	p, err := readPlace(o.Journal)
	if err != nil {
		return nil, err
	}
	if isPostgres(o.Location) {
		return openPostgres(o, p, false)
	}
	return openSQLiteReader(ctx, o.Location, p)
}

func isPostgres(location string) bool {
	scheme, _, _ := strings.Cut(location, ":")
	return scheme == "postgres" || scheme == "postgresql"
}

// Check says what is wrong with a location, and asks nobody. No error shows a
// password.
func Check(location string) error {
	if isPostgres(location) {
		_, err := parsePostgres(Options{Location: location})
		return err
	}
	_, err := sqlitePath(location)
	return err
}

// Shown is the location without a password.
func Shown(location string) string {
	if !isPostgres(location) {
		return location
	}
	u, err := url.Parse(location)
	if err != nil {
		return "postgres://…"
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	for _, secret := range []string{"password", "sslpassword"} {
		q.Del(secret)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func sqlitePath(location string) (string, error) {
	scheme, path, ok := strings.Cut(location, ":")
	if !ok || scheme != "sqlite" || path == "" {
		return "", fmt.Errorf("opening store %q: want sqlite:PATH or postgres://USER@HOST/DATABASE", Shown(location))
	}
	return filepath.Abs(path)
}

// Filter picks rows. Zero values let everything pass.
type Filter struct {
	From, To timetable.Date // first and last date
	School   string
	Class    string
	Period   string
	Receipt  string // as attendance.ReceiptID writes it
}

// where returns the filter as SQL; its parameters are numbered from 1 on by
// the dialect.
func (f *Filter) where(d *dialect) (string, []any) {
	conditions, args := []string{"true"}, []any(nil)
	add := func(condition string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, condition+d.parameter(len(args)))
	}
	if f.From != (timetable.Date{}) {
		add("date >= ", f.From.String())
	}
	if f.To != (timetable.Date{}) {
		add("date <= ", f.To.String())
	}
	if f.School != "" {
		add("school = ", f.School)
	}
	if f.Class != "" {
		add("class_id = ", f.Class)
	}
	if f.Period != "" {
		add("period = ", f.Period)
	}
	if f.Receipt != "" {
		args = append(args, f.Receipt)
		conditions = append(conditions, d.byReceipt(len(args)))
	}
	return strings.Join(conditions, " AND "), args
}

// A hold is a process's right to deliver a journal, as its row in deliveries
// says.
type hold struct {
	epoch int64  // grows with each process that takes the delivery over; 0: not taken over
	left  uint64 // the position that the process left there, or found
}

// refusal says why the position could not be moved: found and holder are what
// the row says now, zero when it is gone.
func (h hold) refusal(found hold, holder string) error {
	switch {
	case found.epoch > h.epoch:
		return &attendance.DeliverError{
			Err:  fmt.Errorf("%w (%s); end one of the two, and restart this one if it is to stay", errTakenOver, holder),
			Stop: true,
		}
	case found == hold{}:
		return fmt.Errorf("%w: the journal is not known there any more", attendance.ErrMoved)
	}
	return fmt.Errorf("%w: it is %d instead of %d", attendance.ErrMoved, found.left, h.left)
}

// errTakenOver says that another process delivers the journal now.
var errTakenOver = errors.New("another firstbell has taken over the delivery of this journal, so this one writes no more")
