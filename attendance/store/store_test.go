package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

var bell = time.Date(2026, 5, 4, 9, 0, 0, 0, time.FixedZone("", 9*60*60))

// arrival is the event of student n, so many seconds after the bell.
func arrival(n int, after time.Duration) attendance.Event {
	e := attendance.Event{Kind: attendance.KindArrival, RawArrival: bell.Add(after).UTC(), Timetable: "0123456789abcdef"}
	e.ID = id(n)
	e.School, e.Class, e.Student = "north", fmt.Sprintf("class %d", n%7), fmt.Sprintf("s%05d", n)
	e.Date, e.Period, e.Status = timetable.DateOf(bell), "1", timetable.Present
	e.FirstArrival = bell.Add(after)
	return e
}

func id(n int) attendance.ReceiptID {
	return attendance.ReceiptID{0: byte(n >> 8), 1: byte(n), 6: 0x80, 8: 0x80, 15: byte(n)}
}

func presses(n int, count uint32) attendance.Event {
	e := attendance.Event{Kind: attendance.KindPresses, RawArrival: bell.UTC(), Presses: count}
	e.ID, e.Date = id(n), timetable.DateOf(bell)
	return e
}

// bulk numbers the events from first on.
func bulk(first uint64, events ...attendance.Event) *attendance.Bulk {
	for i := range events {
		events[i].Seq = first + uint64(i)
	}
	return &attendance.Bulk{First: first, Next: first + uint64(len(events)), Events: events}
}

func open(t *testing.T, path string) *SQLite {
	t.Helper()
	s, err := Open(context.Background(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func deliver(t *testing.T, s *SQLite, b *attendance.Bulk) attendance.Delivered {
	t.Helper()
	done, err := s.Deliver(context.Background(), b)
	if err != nil {
		t.Fatalf("Deliver [%d, %d): %v", b.First, b.Next, err)
	}
	return done
}

func rows(t *testing.T, r Reader, f Filter) []attendance.Row {
	t.Helper()
	var all []attendance.Row
	for row, err := range r.Rows(context.Background(), f) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, row)
	}
	return all
}

func show(rows []attendance.Row) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%s presses=%d key=%s timetable=%s seq=%d\n", r.AppendJSON(nil), r.Presses, r.Key(), r.Timetable, r.Seq)
	}
	return b.String()
}

func position(t *testing.T, r Reader) uint64 {
	t.Helper()
	at, err := r.Position(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return at.Next
}

// The store is right when it says what Fold says, whatever came when.
func TestStoreFoldsAsFoldDoes(t *testing.T) {
	verified := arrival(1, 20*time.Minute)
	verified.Kind, verified.Verified, verified.Status = attendance.KindVerifiedArrival, true, timetable.Late
	perClass := arrival(5, 0)
	perClass.ClassIsKey = true
	odd := arrival(6, time.Millisecond)
	odd.Student, odd.Class, odd.School = `=cmd|'/c'!A0"\`+"\u2028", "날개/반 100%", "<north>&"
	otherKind := attendance.Event{Kind: 77}
	corrected := arrival(2, 2*time.Second)
	corrected.Kind, corrected.Status, corrected.Timetable, corrected.Correction = attendance.KindCorrection, timetable.Late, "fedcba9876543210", &attendance.Correction{Author: "kim"}
	moved := corrected // to another key
	moved.ID, moved.Period = id(1002), "2"
	events := []attendance.Event{
		arrival(1, 0), arrival(2, 5*time.Second), presses(1, 3), otherKind, arrival(2, 2*time.Second), arrival(2, 9*time.Second),
		verified, presses(1, 2), arrival(1, -time.Minute), perClass, presses(2, 70000), odd, presses(99, 4), corrected, moved, arrival(2, 9*time.Second),
	}
	for size := 1; size <= len(events); size++ {
		s := open(t, filepath.Join(t.TempDir(), "a.db"))
		var fold attendance.Fold
		next := uint64(1)
		for _, part := range slices.Collect(slices.Chunk(slices.Clone(events), size)) {
			b := bulk(next, part...)
			next = b.Next
			deliver(t, s, b)
			deliver(t, s, b) // again: nothing changes
			for i := range b.Events {
				fold.Add(&b.Events[i])
			}
		}
		if got, want := show(rows(t, s, Filter{})), show(fold.Rows()); got != want {
			t.Fatalf("in bulks of %d:\n got %swant %s", size, got, want)
		}
		if got := position(t, s); got != next {
			t.Errorf("in bulks of %d: got position %d, want %d", size, got, next)
		}
	}
}

func TestThousandCheckInsAreTwoStatements(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a.db"))
	events := make([]attendance.Event, 0, 1001)
	for i := range 1000 {
		events = append(events, arrival(i, time.Duration(i)*time.Millisecond))
	}
	done := deliver(t, s, bulk(1, append(events, presses(3, 9))...))
	if done.Rows != 1000 || done.Writes != 2 || s.Writes() != 2 {
		t.Errorf("got %d rows in %d statements (%d in all), want 1000 in 2", done.Rows, done.Writes, s.Writes())
	}
	counts, err := s.Count(context.Background(), Filter{})
	if err != nil || !maps.Equal(counts, map[timetable.Status]int{timetable.Present: 1000}) {
		t.Errorf("got counts %v %v, want 1000 present", counts, err)
	}
}

func TestRowsPassTheFilterInExportOrder(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a.db"))
	var events []attendance.Event
	for i := range 200 {
		e := arrival(i, 0)
		e.School = []string{"north", "south", "Ñandú"}[i%3]
		e.Period = []string{"1", "2", "10", "outside"}[i%4]
		e.Date = timetable.DateOf(bell).AddDays(i % 5)
		events = append(events, e)
	}
	deliver(t, s, bulk(1, events...))
	day := timetable.DateOf(bell)
	for name, f := range map[string]Filter{
		"all": {}, "a day": {From: day, To: day}, "since": {From: day.AddDays(2)}, "until": {To: day.AddDays(2)},
		"school": {School: "Ñandú"}, "class": {Class: "class 3"}, "period": {Period: "10"},
		"all of it": {From: day, To: day.AddDays(1), School: "north", Class: "class 6", Period: "1"}, "nothing": {School: "'; --"},
	} {
		var fold attendance.Fold
		for i := range events {
			e := &events[i]
			if (f.From == timetable.Date{} || e.Date.Compare(f.From) >= 0) && (f.To == timetable.Date{} || e.Date.Compare(f.To) <= 0) &&
				(f.School == "" || e.School == f.School) && (f.Class == "" || e.Class == f.Class) && (f.Period == "" || e.Period == f.Period) {
				fold.Add(e)
			}
		}
		if got, want := show(rows(t, s, f)), show(fold.Rows()); got != want {
			t.Errorf("%s:\n got %swant %s", name, got, want)
		}
	}
}

func TestReaderBesideTheWriterSeesWholeBulks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a ?#%20b.db") // a name that means something in a URI
	s := open(t, path)
	deliver(t, s, bulk(1, arrival(1, 0), arrival(2, 0)))
	r, err := OpenReader(context.Background(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := len(rows(t, r, Filter{})); got != 2 {
		t.Errorf("before: got %d rows, want 2", got)
	}
	seen := 0
	for _, err := range r.Rows(context.Background(), Filter{}) { // a reader in the middle of its rows
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 1 {
			deliver(t, s, bulk(3, arrival(3, 0)))
		}
	}
	if seen != 2 {
		t.Errorf("while a bulk came: got %d rows, want the 2 of before", seen)
	}
	if got := len(rows(t, r, Filter{})); got != 3 || position(t, r) != 4 {
		t.Errorf("after: got %d rows and position %d, want 3 and 4", got, position(t, r))
	}
	if _, err := r.reader.Exec("DELETE FROM check_ins"); err == nil {
		t.Error("a reader could delete rows")
	}
}

// A crash leaves the files as they are at some moment: every copy of them opens
// with whole bulks and the position behind them.
func TestReopenAfterACrash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	s := open(t, path)
	for n := range 5 {
		deliver(t, s, bulk(uint64(1+10*n), slices.Collect(func(yield func(attendance.Event) bool) {
			for i := range 10 {
				if !yield(arrival(10*n+i, 0)) {
					return
				}
			}
		})...))
		copied := filepath.Join(t.TempDir(), "a.db")
		for _, suffix := range []string{"", "-wal"} {
			data, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if suffix == "-wal" && n == 4 {
				data = data[:len(data)-100] // torn in the last transaction
			}
			if err := os.WriteFile(copied+suffix, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		bulks := n + 1
		if n == 4 {
			bulks = n
		}
		r, err := OpenReader(context.Background(), "sqlite:"+copied)
		if err != nil {
			t.Fatalf("reading after crash %d: %v", n, err)
		}
		if got := len(rows(t, r, Filter{})); got != 10*bulks || position(t, r) != uint64(10*bulks+1) {
			t.Errorf("reading after crash %d: got %d rows and position %d, want %d and %d", n, got, position(t, r), 10*bulks, 10*bulks+1)
		}
		r.Close()
		again := open(t, copied)
		if got := len(rows(t, again, Filter{})); got != 10*bulks {
			t.Errorf("reopening after crash %d: got %d rows, want %d", n, got, 10*bulks)
		}
		deliver(t, again, bulk(uint64(10*bulks+1), arrival(1000, 0)))
	}
}

func TestLockedStoreTakesNothingAndThenEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	conn, err := other.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Deliver(ctx, bulk(1, arrival(1, 0))); err == nil {
		t.Error("delivered past another program's lock")
	}
	if got := len(rows(t, s, Filter{})); got != 0 {
		t.Errorf("while locked: got %d rows, want 0", got)
	}
	if _, err := conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, bulk(1, arrival(1, 0)))
	if got := len(rows(t, s, Filter{})); got != 1 {
		t.Errorf("after the lock: got %d rows, want 1", got)
	}
}

func TestUnusableStoreSaysSoOnce(t *testing.T) {
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
	for _, c := range []struct{ location, open, read string }{
		{"sqlite:" + garbage, "damaged or no SQLite database", "damaged or no SQLite database"},
		{"sqlite:" + foreign, "another program", "another program"},
		{"sqlite:" + newer, "newer firstbell", "newer firstbell"},
		{"sqlite:" + filepath.Join(dir, "none", "a.db"), "no such file or directory", "no such file or directory"},
		{"sqlite:" + filepath.Join(garbage, "a.db"), "not a directory", "not a directory"},
		{"sqlite:" + dir, "not a file", "not a file"},
		{"postgres://localhost/x", "want sqlite:PATH", "want sqlite:PATH"},
		{"sqlite:", "want sqlite:PATH", "want sqlite:PATH"},
	} {
		for what, f := range map[string]struct {
			open func(context.Context, string) (*SQLite, error)
			want string
		}{"Open": {Open, c.open}, "OpenReader": {OpenReader, c.read}} {
			s, err := f.open(context.Background(), c.location)
			if err == nil {
				s.Close()
				t.Errorf("%s(%s): got no error, want %q", what, c.location, f.want)
			} else if !strings.Contains(err.Error(), f.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s(%s): got %q, want one line with %q", what, c.location, err, f.want)
			}
		}
	}
	if _, err := OpenReader(context.Background(), "sqlite:"+filepath.Join(dir, "none.db")); err == nil {
		t.Error("OpenReader made a store that was not there")
	}
	if _, err := os.Stat(filepath.Join(dir, "none.db")); err == nil {
		t.Error("OpenReader left a file behind")
	}
}

func BenchmarkDeliver(b *testing.B) {
	s, err := Open(context.Background(), "sqlite:"+filepath.Join(b.TempDir(), "a.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	next, n := uint64(1), 0
	for b.Loop() {
		events := make([]attendance.Event, 1000)
		for i := range events {
			events[i] = arrival(n, 0)
			events[i].Student = fmt.Sprintf("s%09d", n)
			copy(events[i].ID[:], fmt.Sprintf("%x", (n*2654435761)&0xffffffff))
			n++
		}
		bk := bulk(next, events...)
		if _, err := s.Deliver(context.Background(), bk); err != nil {
			b.Fatal(err)
		}
		next = bk.Next
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}
