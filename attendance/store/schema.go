package store

import (
	"context"
	"database/sql"
	"fmt"
)

// What is in both databases, under the same names:
//
//   - arrivals, one row per key;
//   - presses, one row per receipt that was asked for more than once;
//   - check_ins, a view of both for people: what it shows stays, and what is
//     new comes behind it;
//   - deliveries, one row per journal with the position up to which it is in.
//
// A migration that has been released never changes, and only ever adds to what
// check_ins shows. A newer schema than this program knows is refused.

// applicationID marks SQLite's file as ours in its header: "1bel".
const applicationID = 0x3162656c

// sqliteMigrations[i] takes a database from version i to i+1. The version is
// SQLite's user_version.
var sqliteMigrations = []string{`
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
	`CREATE INDEX check_ins_position ON check_ins (position);`,
	// No index by receipt alone: its pages, hit at random, were most of what a
	// bulk wrote. A day's receipts lie together, and counts of presses have a
	// table of their own. With row numbers the three indexes stay narrow: a row
	// costs three quarters of what it does without.
	`
CREATE TABLE arrivals (
  date          TEXT NOT NULL,
  school        TEXT NOT NULL,
  period        TEXT NOT NULL,
  student_id    TEXT NOT NULL,
  class_key     TEXT NOT NULL,        -- class_id where students check in per class, else ''
  class_id      TEXT NOT NULL,
  status        TEXT NOT NULL CHECK (status IN ('present', 'late', 'outside')),
  first_arrival INTEGER NOT NULL,     -- ms since 1970-01-01 UTC
  utc_offset    INTEGER NOT NULL,     -- of the school at that moment, minutes east
  verified      INTEGER NOT NULL,
  receipt       BLOB NOT NULL,        -- 16 bytes
  timetable     TEXT NOT NULL,
  position      INTEGER NOT NULL,
  PRIMARY KEY (date, school, period, student_id, class_key)
);

CREATE TABLE presses (
  receipt BLOB PRIMARY KEY,
  presses INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO arrivals
SELECT date, school, period, student_id, class_key, class_id, status, first_arrival_ms,
       CAST(substr(first_arrival, -6, 3) AS INTEGER) * 60 + CAST(substr(first_arrival, -6, 1) || substr(first_arrival, -2) AS INTEGER),
       verified, unhex(receipt, '-'), timetable, position
FROM check_ins;

CREATE INDEX arrivals_position ON arrivals (position);
CREATE INDEX arrivals_receipt ON arrivals (date, receipt);

INSERT INTO presses SELECT unhex(receipt, '-'), presses FROM check_ins WHERE presses > 1;

DROP TABLE check_ins;

CREATE VIEW check_ins AS
SELECT date, school, period, student_id, class_key, class_id, status,
       strftime('%Y-%m-%dT%H:%M:%S', first_arrival / 1000 + utc_offset * 60, 'unixepoch') ||
         printf('.%03d%s%02d:%02d', first_arrival % 1000, iif(utc_offset < 0, '-', '+'), abs(utc_offset) / 60, abs(utc_offset) % 60) AS first_arrival,
       first_arrival AS first_arrival_ms,
       coalesce(presses, 1) AS presses,
       verified,
       lower(substr(hex(receipt), 1, 8) || '-' || substr(hex(receipt), 9, 4) || '-' || substr(hex(receipt), 13, 4) || '-' ||
         substr(hex(receipt), 17, 4) || '-' || substr(hex(receipt), 21)) AS receipt,
       timetable, position
FROM arrivals LEFT JOIN presses USING (receipt);

CREATE TABLE deliveries (
  journal TEXT PRIMARY KEY,           -- its name, in the file store-place beside it
  next    INTEGER NOT NULL,           -- records of the journal before this position are in
  epoch   INTEGER NOT NULL,           -- grows with each process that takes the delivery over
  holder  TEXT NOT NULL,              -- that process
  since   TEXT NOT NULL               -- when it did, UTC
) WITHOUT ROWID;

INSERT INTO deliveries SELECT '', next, 0, '', datetime() FROM delivery WHERE next > 0;

DROP TABLE delivery;
`}

// postgresMigrations[i] takes a database from version i to i+1. The version is
// the greatest in firstbell.schema_version.
var postgresMigrations = []string{`
CREATE TABLE firstbell.arrivals (
  date          date        NOT NULL,
  school        text        COLLATE "C" NOT NULL,
  period        text        COLLATE "C" NOT NULL,
  student_id    text        COLLATE "C" NOT NULL,
  class_key     text        COLLATE "C" NOT NULL,
  class_id      text        COLLATE "C" NOT NULL,
  status        text        COLLATE "C" NOT NULL CHECK (status IN ('present', 'late', 'outside')),
  first_arrival timestamptz NOT NULL,
  utc_offset    smallint    NOT NULL,
  verified      boolean     NOT NULL,
  receipt       uuid        NOT NULL,
  timetable     text        COLLATE "C" NOT NULL,
  position      bigint      NOT NULL,
  PRIMARY KEY (date, school, period, student_id, class_key)
);

CREATE INDEX arrivals_position ON firstbell.arrivals USING brin (position) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX arrivals_receipt ON firstbell.arrivals (date, receipt);

CREATE TABLE firstbell.presses (
  receipt uuid   PRIMARY KEY,
  presses bigint NOT NULL
);

CREATE VIEW firstbell.check_ins AS
SELECT date, school, period, student_id, class_key, class_id, status, first_arrival,
       first_arrival AT TIME ZONE make_interval(mins => utc_offset) AS local_arrival,
       coalesce(presses, 1) AS presses, verified, receipt, timetable, position
FROM firstbell.arrivals LEFT JOIN firstbell.presses USING (receipt);

CREATE TABLE firstbell.deliveries (
  journal text        COLLATE "C" PRIMARY KEY,
  next    bigint      NOT NULL,
  epoch   bigint      NOT NULL,
  holder  text        NOT NULL,
  since   timestamptz NOT NULL
);

COMMENT ON TABLE firstbell.arrivals IS 'the first arrival of each student, date and period';
COMMENT ON COLUMN firstbell.arrivals.utc_offset IS 'of the school at the first arrival, in minutes east';
COMMENT ON TABLE firstbell.presses IS 'how often a receipt was asked for, where that is more than once';
COMMENT ON TABLE firstbell.deliveries IS 'up to which position each journal is in; only firstbell writes here';
COMMENT ON COLUMN firstbell.deliveries.epoch IS 'grows with each process that takes the delivery over; earlier ones write no more';
COMMENT ON VIEW firstbell.check_ins IS 'what to query: one row per student, date and period (and class, where students check in per class)';
COMMENT ON COLUMN firstbell.check_ins.local_arrival IS 'the first arrival by the clock at the school';
COMMENT ON COLUMN firstbell.check_ins.period IS 'outside when no period was on';
COMMENT ON COLUMN firstbell.check_ins.position IS 'in the journal';
`}

// newer refuses a schema that this program does not know.
func newer(version, known int) error {
	return fmt.Errorf("its schema has version %d, this firstbell knows %d; use the newer firstbell", version, known)
}

// older refuses to read a schema that serve has not brought up to date.
func older(version, known int) error {
	return fmt.Errorf("its schema has version %d, this firstbell reads %d; start firstbell serve once to change it", version, known)
}

// migrateSQLite brings an empty or older database to the newest schema. It
// refuses one that another program made, or a newer firstbell.
func migrateSQLite(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	version, err := sqliteVersion(ctx, tx)
	if err != nil || version == len(sqliteMigrations) {
		return err
	}
	for _, m := range sqliteMigrations[version:] {
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

// sqliteVersion returns the schema's version, 0 for an empty database.
func sqliteVersion(ctx context.Context, q querier) (version int, err error) {
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
	case version > len(sqliteMigrations):
		return 0, newer(version, len(sqliteMigrations))
	}
	return version, nil
}
