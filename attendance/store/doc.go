// Package store keeps the register's facts in an SQL database that exports are
// made from: SQLite, in one file, nothing to install.
//
// # What it promises
//
//   - Each key is one row, however often its check-ins are delivered and in
//     whatever order: the earliest arrival wins, a verified one takes the place
//     of an unverified one, a later record about the same arrival corrects it,
//     the highest count of presses stays.
//   - Rows and the position in the journal move together, in one transaction
//     that is synced: after a crash, delivery goes on exactly behind the last
//     row.
//   - A bulk of a thousand check-ins is two statements: one for the rows and
//     one for the position. [SQLite.Writes] counts them.
//   - [OpenReader] reads beside a running writer, and after a crash, without
//     changing a row.
//   - A file that is damaged, belongs to another program, or cannot be written
//     is one error that says so.
//
// # What it does not promise
//
// It is never asked before a receipt is given: while it is locked, slow or
// gone, receipts go on, and delivery catches up later. Who is absent is not in
// it: that is for the export to work out, from the roster.
//
// # For people who query it
//
//	sqlite3 -readonly attendance.db "SELECT * FROM check_ins WHERE date = '2026-05-04'"
//
// check_ins has one row per key (schema.go says what each column means);
// delivery has one row with the position. Add views and indexes if you like, in
// names of your own, but do not write to the two tables.
//
// # Where to start reading
//
// [Open], then [SQLite.Deliver]. [Store] is what another database would have to
// be.
package store
