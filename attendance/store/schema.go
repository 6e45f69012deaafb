package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// applicationID marks the file as ours in its header: "1bel".
const applicationID = 0x3162656c

// migrations[i] takes a database from version i to i+1. The version is SQLite's
// user_version. A migration that has been released never changes.
var migrations = []string{`
CREATE TABLE check_ins (
  date             TEXT NOT NULL,     -- 2026-05-04, at the school
  school           TEXT NOT NULL,
  period           TEXT NOT NULL,     -- 'outside' when no period was on
  student_id       TEXT NOT NULL,
  class_key        TEXT NOT NULL,     -- class_id where students check in per class, else ''
  class_id         TEXT NOT NULL,     -- as the check-in named it; may be ''
  status           TEXT NOT NULL CHECK (status IN ('present', 'late', 'outside')),
  first_arrival    TEXT NOT NULL,     -- RFC 3339 with milliseconds and the school's offset
  first_arrival_ms INTEGER NOT NULL,  -- the same, since 1970-01-01 UTC
  presses          INTEGER NOT NULL,  -- how often it was pressed, at least 1
  verified         INTEGER NOT NULL,  -- 1: the student's identity was verified
  receipt          TEXT NOT NULL,     -- UUID
  timetable        TEXT NOT NULL,     -- version of the timetable that gave period and status
  position         INTEGER NOT NULL,  -- in the journal
  PRIMARY KEY (date, school, period, student_id, class_key)
) WITHOUT ROWID;

CREATE INDEX check_ins_receipt ON check_ins (receipt);

CREATE TABLE delivery (
  id   INTEGER PRIMARY KEY CHECK (id = 1),
  next INTEGER NOT NULL               -- records of the journal before this position are in
);

INSERT INTO delivery (id, next) VALUES (1, 0);
`,
	// For sinks that lag past the journal. Positions grow, so an index by them
	// is written at its end alone.
	`CREATE INDEX check_ins_position ON check_ins (position);`}

// rowColumns are the columns in the order of the statements below.
var rowColumns = []string{
	"date", "school", "period", "student_id", "class_key", "class_id", "status",
	"first_arrival", "first_arrival_ms", "presses", "verified", "receipt", "timetable", "position",
}

const keyColumns = 5 // the first of them are the primary key

// upsertRows takes two JSON arrays: rows, each an array in the order of
// rowColumns, and counts of presses, each [receipt, presses], of rows that are
// there already.
var upsertRows = func() string {
	// The rule of attendance.Row.Better.
	better := "(excluded.verified > verified OR (excluded.verified = verified AND (excluded.first_arrival_ms < first_arrival_ms OR " +
		"(excluded.first_arrival_ms = first_arrival_ms AND excluded.position > position))))"
	var fromRows, fromCounts, set []string
	for i, c := range rowColumns {
		fromRows = append(fromRows, fmt.Sprintf("value ->> %d", i))
		switch {
		case c == "presses":
			fromCounts = append(fromCounts, "n.value ->> 1")
			set = append(set, "presses = max(presses, excluded.presses)")
		case i < keyColumns:
			fromCounts = append(fromCounts, "c."+c)
		default:
			fromCounts = append(fromCounts, "c."+c)
			set = append(set, fmt.Sprintf("%s = iif(%s, excluded.%s, %s)", c, better, c, c))
		}
	}
	return "INSERT INTO check_ins (" + strings.Join(rowColumns, ", ") + ")\n" +
		"SELECT " + strings.Join(fromRows, ", ") + " FROM json_each(?1)\n" +
		"UNION ALL\n" +
		"SELECT " + strings.Join(fromCounts, ", ") + " FROM json_each(?2) AS n JOIN check_ins AS c ON c.receipt = n.value ->> 0\n" +
		"WHERE true ON CONFLICT (" + strings.Join(rowColumns[:keyColumns], ", ") + ") DO UPDATE SET\n" +
		strings.Join(set, ",\n")
}()

const movePosition = "UPDATE delivery SET next = ?1 WHERE id = 1"

// migrate brings an empty or older database to the newest schema. It refuses
// one that another program made, or a newer firstbell.
func migrate(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	version, err := checkSchema(ctx, tx)
	if err != nil || version == len(migrations) {
		return err
	}
	for _, m := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, m); err != nil {
			return fmt.Errorf("changing its schema from version %d to %d: %w", version, version+1, err)
		}
		version++
	}
	// Pragmas take no parameters; both numbers are ours.
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, version)); err != nil {
		return err
	}
	return tx.Commit()
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// checkSchema returns the schema's version, 0 for an empty database.
func checkSchema(ctx context.Context, q querier) (version int, err error) {
	var id, tables int
	for _, ask := range []struct {
		query string
		into  *int
	}{
		{"PRAGMA application_id", &id},
		{"PRAGMA user_version", &version},
		{"SELECT count(*) FROM sqlite_schema", &tables},
	} {
		if err := q.QueryRowContext(ctx, ask.query).Scan(ask.into); err != nil {
			return 0, err
		}
	}
	switch {
	case id != applicationID && (tables > 0 || id != 0):
		return 0, fmt.Errorf("it is a database of another program; name a file of its own")
	case version > len(migrations):
		return 0, fmt.Errorf("its schema has version %d, this firstbell knows %d; use the newer firstbell", version, len(migrations))
	}
	return version, nil
}
