package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"firstbell/attendance"
)

// schemaLock is held while the schema is changed: "1bel" as a number.
const schemaLock = applicationID

// migratePostgres brings an empty or older database to the newest schema. A
// database that is up to date is only read: its role then needs no right to
// change it.
func migratePostgres(ctx context.Context, pool *pgxpool.Pool) error {
	version, err := postgresVersion(ctx, pool)
	if err != nil {
		return err
	}
	if version == len(postgresMigrations) {
		return nil
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, bounds); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(schemaLock)); err != nil {
			return err
		}
		if version, err = postgresVersion(ctx, tx); err != nil { // another process may have been faster
			return err
		}
		return changeSchema(ctx, tx, version)
	})
}

func changeSchema(ctx context.Context, tx pgx.Tx, version int) error {
	if version == 0 {
		var there bool
		if err := tx.QueryRow(ctx, "SELECT to_regnamespace('firstbell') IS NOT NULL").Scan(&there); err != nil {
			return err
		}
		if !there { // a role that may not create schemas can be given one
			if _, err := tx.Exec(ctx, "CREATE SCHEMA firstbell"); err != nil {
				return fmt.Errorf("making its schema: %w", err)
			}
		}
		if _, err := tx.Exec(ctx, "CREATE TABLE firstbell.schema_version (version int PRIMARY KEY, since timestamptz NOT NULL DEFAULT now())"); err != nil {
			return fmt.Errorf("making its schema: %w", err)
		}
	}
	for ; version < len(postgresMigrations); version++ {
		if _, err := tx.Exec(ctx, postgresMigrations[version]); err != nil {
			return fmt.Errorf("changing its schema from version %d to %d: %w", version, version+1, err)
		}
		if _, err := tx.Exec(ctx, "INSERT INTO firstbell.schema_version (version) VALUES ($1)", version+1); err != nil {
			return err
		}
	}
	return nil
}

type rowQuerier interface {
	QueryRow(ctx context.Context, query string, args ...any) pgx.Row
}

// postgresVersion returns the schema's version, 0 where there is none yet.
func postgresVersion(ctx context.Context, q rowQuerier) (version int, err error) {
	var there bool
	if err := q.QueryRow(ctx, "SELECT to_regclass('firstbell.schema_version') IS NOT NULL").Scan(&there); err != nil || !there {
		return 0, err
	}
	if err := q.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM firstbell.schema_version").Scan(&version); err != nil {
		return 0, err
	}
	if version > len(postgresMigrations) {
		return 0, &attendance.DeliverError{Err: newer(version, len(postgresMigrations)), Stop: true}
	}
	return version, nil
}

// readablePostgres wants the schema as this program knows it.
func readablePostgres(ctx context.Context, pool *pgxpool.Pool) error {
	version, err := postgresVersion(ctx, pool)
	if err == nil && version < len(postgresMigrations) {
		err = older(version, len(postgresMigrations))
	}
	return err
}

// about tells what went wrong in one line, in words for the person on duty.
func (s *postgres) about(doing string, err error) error {
	if words := waysOut[codeOf(err)]; words != "" {
		return fmt.Errorf("%s store %s: %s: %w", doing, s.where, words, oneLine(err))
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (strings.HasPrefix(refused.Code, "22") || strings.HasPrefix(refused.Code, "23")) {
		// Whatever a student can send fits: somebody changed the tables. Trying
		// again soon is of no use.
		return &attendance.DeliverError{Stop: true, Err: fmt.Errorf("%s store %s: a rule that firstbell did not make refuses a row (%s); remove the constraint or trigger: %w",
			doing, s.where, refused.ConstraintName, oneLine(err))}
	}
	var connecting *pgconn.ConnectError
	if errors.As(err, &connecting) {
		return fmt.Errorf("%s store %s: it cannot be reached: %w", doing, s.where, oneLine(err))
	}
	return fmt.Errorf("%s store %s: %w", doing, s.where, oneLine(err))
}

// codeOf is PostgreSQL's code for the error (SQLSTATE); empty when it is not
// PostgreSQL's.
func codeOf(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// waysOut are words for what happens to databases, by SQLSTATE.
var waysOut = map[string]string{
	"28P01": "the password is wrong; look at attendance.store_password_file",
	"28000": "the user may not connect from here; look at pg_hba.conf",
	"3D000": "there is no such database; create it: CREATE DATABASE … OWNER …",
	"42501": "the user lacks a right; make it the owner of the database or of its schema firstbell",
	"25006": "it is read-only, as a standby is; name the primary, or all hosts with target_session_attrs=read-write",
	"53100": "its disk is full",
	"53200": "it is out of memory",
	"53300": "it has no connection left; raise max_connections or end others",
	"55P03": "another program holds a lock on its tables",
	"57014": "it is too slow: a statement took longer than 30 s",
	"57P01": "it is being shut down",
	"57P02": "it crashed and starts again",
	"57P03": "it is starting",
}

// shortError is an error on one line.
type shortError struct {
	error
	text string
}

func (e *shortError) Error() string { return e.text }
func (e *shortError) Unwrap() error { return e.error }

// oneLine brings an error onto one line: that of a connection has one for each
// address.
func oneLine(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if text == err.Error() {
		return err
	}
	return &shortError{err, text}
}

// reasonOf is why a location cannot be parsed, without the location.
func reasonOf(err error) string {
	var e *pgconn.ParseConfigError
	if errors.As(err, &e) && errors.Unwrap(e) != nil && !strings.Contains(errors.Unwrap(e).Error(), "://") {
		return ": " + errors.Unwrap(e).Error()
	}
	return ""
}
