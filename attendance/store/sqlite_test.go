package store

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"firstbell/attendance"
)

func openFile(t *testing.T, path string) *sqliteStore {
	t.Helper()
	return open(t, Options{Location: "sqlite:" + path, Journal: filepath.Dir(path)}).(*sqliteStore)
}

func readFile(t *testing.T, path string) *sqliteStore {
	t.Helper()
	return openReader(t, Options{Location: "sqlite:" + path, Journal: filepath.Dir(path)}).(*sqliteStore)
}

func TestSQLiteReaderChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	deliver(t, openFile(t, path), bulk(1, arrival(1, 0)))
	if _, err := readFile(t, path).reader.Exec("DELETE FROM arrivals"); err == nil {
		t.Error("a reader could delete rows")
	}
}

// A crash leaves the files as they are at some moment: every copy of them opens
// with whole bulks and the position behind them.
func TestReopenSQLiteAfterACrash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	s := openFile(t, path)
	for n := range 5 {
		deliver(t, s, bulk(uint64(1+10*n), arrivals(10*n, 10*n+10)...))
		copied := filepath.Join(t.TempDir(), "a.db")
		for _, name := range []string{"a.db", "a.db-wal", PlaceFile} {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if name == "a.db-wal" && n == 4 {
				data = data[:len(data)-100] // torn in the last transaction
			}
			if err := os.WriteFile(filepath.Join(filepath.Dir(copied), name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		bulks := n + 1
		if n == 4 {
			bulks = n
		}
		r := readFile(t, copied)
		if got := len(rows(t, r, Filter{})); got != 10*bulks || position(t, r) != uint64(10*bulks+1) {
			t.Errorf("reading after crash %d: got %d rows and position %d, want %d and %d", n, got, position(t, r), 10*bulks, 10*bulks+1)
		}
		again := openFile(t, copied)
		if got := len(rows(t, again, Filter{})); got != 10*bulks {
			t.Errorf("reopening after crash %d: got %d rows, want %d", n, got, 10*bulks)
		}
		deliver(t, again, bulk(uint64(10*bulks+1), arrival(1000, 0)))
	}
}

// A file that an earlier firstbell wrote keeps its rows, counts and position.
func TestSQLiteOfAnEarlierSchemaIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	statements := []string{
		sqliteMigrations[0], sqliteMigrations[1],
		fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = 2", applicationID),
		"UPDATE delivery SET next = 20",
	}
	var fold attendance.Fold
	for _, e := range bulk(1, oddEvents()...).Events {
		fold.Add(&e)
	}
	for _, r := range fold.Rows() {
		class, quote := "", func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
		if r.ClassIsKey {
			class = r.Class
		}
		statements = append(statements, fmt.Sprintf("INSERT INTO check_ins VALUES ('%s', %s, '%s', %s, %s, %s, '%s', '%s', %d, %d, %t, '%s', '%s', %d)",
			r.Date, quote(r.School), r.Period, quote(r.Student), quote(class), quote(r.Class), r.Status,
			r.FirstArrival.Format("2006-01-02T15:04:05.000-07:00"), r.FirstArrival.UnixMilli(), r.Presses, r.Verified, r.ID, r.Timetable, r.Seq))
	}
	for _, statement := range statements {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	shown := "SELECT * FROM check_ins ORDER BY student_id"
	before := sqliteLines(t, db, shown)
	s := openFile(t, path)
	if got, want := show(rows(t, s, Filter{})), show(fold.Rows()); got != want {
		t.Errorf("got %swant %s", got, want)
	}
	if got := position(t, s); got != 20 {
		t.Errorf("got position %d, want 20", got)
	}
	deliver(t, s, bulk(20, arrival(8, 0)))
	if got := sqliteLines(t, db, "SELECT * FROM check_ins WHERE student_id <> 's00008' ORDER BY student_id"); !slices.Equal(got, before) {
		t.Errorf("people see\n%s\nwant, as before,\n%s", strings.Join(got, "\n"), strings.Join(before, "\n"))
	}
}

func sqliteLines(t *testing.T, db *sql.DB, query string) (lines []string) {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		values, into := [14]any{}, make([]any, 14)
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprint(values[:]...))
	}
	return lines
}

func TestUnusableSQLiteSaysSoOnce(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	garbage := file("garbage.db", []byte(strings.Repeat("not a database, ", 512)))
	foreign := filepath.Join(dir, "foreign.db")
	newer := filepath.Join(dir, "newer.db")
	for path, statement := range map[string]string{
		foreign: "CREATE TABLE grades (x)",
		newer:   fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = 99", applicationID),
	} {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	for _, c := range []struct{ location, want string }{
		{"sqlite:" + garbage, "damaged or no SQLite database"},
		{"sqlite:" + foreign, "another program"},
		{"sqlite:" + newer, "newer firstbell"},
		{"sqlite:" + filepath.Join(dir, "none", "a.db"), "no such file or directory"},
		{"sqlite:" + filepath.Join(garbage, "a.db"), "not a directory"},
		{"sqlite:" + dir, "not a file"},
		{"mysql://localhost/x", "want sqlite:PATH"},
		{"sqlite:", "want sqlite:PATH"},
	} {
		o := Options{Location: c.location, Journal: t.TempDir()}
		_, opened := Open(context.Background(), o)
		_, read := OpenReader(context.Background(), o)
		for what, err := range map[string]error{"Open": opened, "OpenReader": read} {
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s(%s): got %v, want one line with %q", what, c.location, err, c.want)
			}
		}
	}
	none := Options{Location: "sqlite:" + filepath.Join(dir, "none.db"), Journal: t.TempDir()}
	if _, err := OpenReader(context.Background(), none); err == nil {
		t.Error("OpenReader made a store that was not there")
	}
	if _, err := os.Stat(filepath.Join(dir, "none.db")); err == nil {
		t.Error("OpenReader left a file behind")
	}
}
