// Package store keeps the register's facts in an SQL database that exports are
// made from: SQLite, in one file, nothing to install; or PostgreSQL.
//
// # What it promises
//
//   - Each key is one row, however often its check-ins are delivered and in
//     whatever order: the earliest arrival wins, a verified one takes the place
//     of an unverified one, a later record about the same arrival corrects it,
//     the highest count of presses stays.
//   - The position in the journal moves in a transaction that is synced, and
//     only when every row before it is on disk: after a crash, delivery goes on
//     behind it. In SQLite the rows are of the same transaction. In PostgreSQL a
//     large bulk is copied over several connections, and rows of a bulk that
//     broke off may be there already; it comes again, upserted, and each stays
//     one row. The parts do not sync: the commit that moves the position follows
//     them in the write-ahead log, and syncs all of it.
//   - A bulk of a thousand check-ins is two statements: one for the rows and
//     one for the position. [Store.Writes] counts them.
//   - One process at a time delivers a journal. The first [Store.Position] takes
//     the delivery over; from then on whoever had it writes nothing and moves no
//     position, and its Deliver says who has it now.
//   - Several journals may share a database: each has a position of its own
//     ([PlaceFile]).
//   - [OpenReader] reads beside a running writer, and after a crash, without
//     changing a row.
//   - A database that is damaged, belongs to another program, is newer than this
//     one, or cannot be written is one error that says so, and the way out. No
//     error shows a password.
//
// # What it does not promise
//
// It is never asked before a receipt is given: while it is locked, slow, full or
// gone, receipts go on, and delivery catches up later. [Open] does not even look
// whether PostgreSQL is there. Who is absent is not in it: that is for the export
// to work out, from the roster.
//
// A journal whose directory was copied while it is in use is one journal to the
// store: the second of the two stops the first.
//
// # For people who query it
//
// check_ins is a view with one row per key; what it shows stays, and new columns
// come behind. In SQLite:
//
//	sqlite3 -readonly attendance.db "SELECT * FROM check_ins WHERE date = '2026-05-04'"
//
// In PostgreSQL it is firstbell.check_ins; deploy/postgresql.md has the rights
// to give and queries to begin with. Add views and indexes if you like, in names
// or a schema of your own, but do not write to the tables: a constraint or
// trigger that refuses a row stops delivery, with an alarm, until it is gone.
//
// # Where to start reading
//
// [Open], then Deliver of one of the two. rows.go and schema.go hold what both
// have in common; a dialect is what they say differently.
package store
