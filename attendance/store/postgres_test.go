package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/pgtest"
	"firstbell/attendance/timetable"
)

// harm is what happens to databases.
type harm struct {
	name string
	do   func(t *testing.T) (undo func())
	says string // in the error that delivery shows; "": it only waits
	stop bool   // somebody must look
}

func harms(p *pgtest.Postgres, b base) []harm {
	name := b.Location[strings.LastIndex(b.Location, "/")+1:]
	name, _, _ = strings.Cut(name, "?")
	sql := func(t *testing.T, statements ...string) {
		t.Helper()
		for _, s := range statements {
			p.SQL(t, "postgres", strings.ReplaceAll(s, "DB", name))
		}
	}
	const hangUp = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'DB'"
	change := func(do, undo []string) func(t *testing.T) func() {
		return func(t *testing.T) func() {
			t.Helper()
			sql(t, do...)
			return func() { sql(t, undo...) }
		}
	}
	owned := func(do, undo string) func(t *testing.T) func() {
		return func(t *testing.T) func() {
			t.Helper()
			b.own(t, do)
			return func() { b.own(t, undo) }
		}
	}
	return []harm{
		{"stopped", func(t *testing.T) func() { p.Stop(t); return func() { p.Start(t) } }, "cannot be reached", false},
		{"killed", func(t *testing.T) func() { p.Kill(t); return func() { p.Start(t) } }, "cannot be reached", false},
		{"frozen", func(t *testing.T) func() { return p.Freeze(t) }, "store postgres", false},
		{"locked", b.lock, "", false},
		{"read-only", change([]string{"ALTER DATABASE DB SET default_transaction_read_only = on", hangUp},
			[]string{"ALTER DATABASE DB RESET default_transaction_read_only", hangUp}), "it is read-only", false},
		{"out of connections", change([]string{"ALTER ROLE school CONNECTION LIMIT 0", hangUp}, []string{"ALTER ROLE school CONNECTION LIMIT -1"}), "no connection left", false},
		{"another password", change([]string{"ALTER ROLE school PASSWORD 'changed'", hangUp},
			[]string{"ALTER ROLE school PASSWORD '" + pgtest.Password + "'"}), "the password is wrong", false},
		{"no such database", change([]string{"ALTER DATABASE DB ALLOW_CONNECTIONS false", hangUp, "ALTER DATABASE DB RENAME TO gone"},
			[]string{"ALTER DATABASE gone RENAME TO DB", "ALTER DATABASE DB ALLOW_CONNECTIONS true"}), "no such database", false},
		{"no rights", owned("ALTER TABLE firstbell.arrivals OWNER TO operator",
			"ALTER TABLE firstbell.arrivals OWNER TO school"), "lacks a right", false},
		{"disk full", func(t *testing.T) func() { return fillDisk(t, p, b) }, "its disk is full", false},
		{"a constraint of somebody's", owned("ALTER TABLE firstbell.arrivals ADD CONSTRAINT nobody CHECK (student_id = '') NOT VALID",
			"ALTER TABLE firstbell.arrivals DROP CONSTRAINT nobody"), "(nobody); remove the constraint", true},
	}
}

// fillDisk puts the table on a small disk and lets nothing be left of it. Where a
// test may not mount one, a trigger answers what a full disk does.
func fillDisk(t *testing.T, p *pgtest.Postgres, b base) (undo func()) {
	t.Helper()
	dir, ok := p.SmallDisk(t)
	if !ok {
		t.Log("no disk can be mounted here: a trigger says that it is full")
		b.own(t, "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$")
		b.own(t, "CREATE TRIGGER fill BEFORE INSERT ON firstbell.arrivals EXECUTE FUNCTION fill()")
		return func() { b.own(t, "DROP FUNCTION fill CASCADE") }
	}
	b.own(t, "CREATE TABLESPACE small LOCATION '"+dir+"'")
	b.own(t, "ALTER TABLE firstbell.arrivals SET TABLESPACE small")
	b.own(t, "CREATE TABLE filler (x text) TABLESPACE small")
	b.own(t, "ALTER TABLE filler ALTER x SET STORAGE PLAIN")
	b.own(t, "DO $$ BEGIN LOOP INSERT INTO filler VALUES (repeat('x', 4000)); END LOOP; EXCEPTION WHEN disk_full THEN NULL; END $$")
	return func() {
		b.own(t, "DROP TABLE filler")
		b.own(t, "ALTER TABLE firstbell.arrivals SET TABLESPACE pg_default")
	}
}

// Whatever happens to the database: receipts go on, status says what it is and
// since when, and afterwards every receipt is in the store, once.
func receiptsGoOnWhateverHappens(t *testing.T, p *pgtest.Postgres) {
	const students = 60
	b := postgresBase(p)(t)
	s := open(t, b.Options).(*postgres)
	s.wait = time.Second
	m := &morning{t: t, dir: t.TempDir()}
	m.begin(s)
	all := map[string]attendance.Receipt{}
	for i, h := range harms(p, b) {
		t.Run(h.name, func(t *testing.T) {
			before := m.delivery.Stats()
			undo := h.do(t)
			m.t = t
			maps.Copy(all, m.press(i*students, students))
			st := until(t, m, "fail", func(st attendance.DeliveryStats) bool {
				return !st.Oldest.IsZero() && (h.says == "" || st.Failures > before.Failures && st.Err != nil && strings.Contains(st.Err.Error(), h.says))
			})
			if st.Stopped != h.stop {
				t.Errorf("stopped is %v, want %v", st.Stopped, h.stop)
			}
			if st.Err != nil && (strings.Contains(st.Err.Error(), "\n") || strings.Contains(st.Err.Error(), pgtest.Password)) {
				t.Errorf("got %q, want one line without the password", st.Err)
			}
			undo()
			until(t, m, "go on", func(st attendance.DeliveryStats) bool {
				return st.Next == m.log.Next() && st.Oldest.IsZero() && st.Err == nil
			})
			stored := rows(t, s, Filter{})
			if len(stored) != len(all) || len(all) != (i+1)*students {
				t.Errorf("got %d rows for %d receipts, want %d", len(stored), len(all), (i+1)*students)
			}
			for i := range stored {
				want := all[stored[i].Student]
				if string(stored[i].AppendJSON(nil)) != string(want.AppendJSON(nil)) {
					t.Errorf("   row %s\nreceipt %s", stored[i].AppendJSON(nil), want.AppendJSON(nil))
				}
			}
		})
	}
	m.t = t
	m.stop()
}

// until waits for a state of the delivery, and ends its pauses.
func until(t *testing.T, m *morning, what string, reached func(attendance.DeliveryStats) bool) attendance.DeliveryStats {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		st := m.delivery.Stats()
		if reached(st) {
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("the delivery does not %s: %+v at %d", what, st, m.log.Next())
		}
		m.delivery.Retry()
	}
}

// Rows that should have no other of their key are copied, the others upserted:
// whichever way an event goes, the same row comes out.
func copiedRowsAreUpsertedRows(t *testing.T, p *pgtest.Postgres) {
	var events []attendance.Event
	for i, date := range []timetable.Date{{Year: 1, Month: 1, Day: 1}, {Year: 1969, Month: 12, Day: 31}, {Year: 1999, Month: 12, Day: 31}, {Year: 2000, Month: 1, Day: 1}, {Year: 2000, Month: 2, Day: 29}, {Year: 9999, Month: 12, Day: 31}} {
		e := arrival(i, time.Duration(i)*time.Millisecond)
		e.Date, e.Verified, e.ClassIsKey = date, i%2 == 0, i%3 == 0
		e.FirstArrival = date.At(timetable.Clock(3600*i), attendance.Zone(300*i-700)).Add(789 * time.Millisecond)
		e.School, e.Class, e.Seq = fmt.Sprint("a\x00b\xff날", i), "", 1<<40+uint64(i)
		events = append(events, e)
	}
	b := postgresBase(p)(t)
	s := open(t, b.Options)
	var ways [2]string
	for way, basis := range []attendance.Basis{attendance.BasisClock, attendance.BasisToken} {
		for i := range events {
			events[i].Basis = basis
		}
		b.own(t, "DELETE FROM firstbell.arrivals")
		if done := deliver(t, s, &attendance.Bulk{First: 1, Next: uint64(way + 2), Events: slices.Clone(events)}); done.Rows != len(events) || done.Writes != 2 {
			t.Errorf("got %d rows in %d statements, want %d in 2", done.Rows, done.Writes, len(events))
		}
		ways[way] = b.own(t, "SELECT * FROM firstbell.arrivals ORDER BY date")
	}
	if ways[0] != ways[1] || strings.Count(ways[0], "\n") != len(events)-1 || !strings.Contains(ways[0], "9999-12-31") {
		t.Errorf("copied:\n%s\nupserted:\n%s", ways[0], ways[1])
	}
	for i, row := range rows(t, s, Filter{}) {
		if e := &events[i]; !row.FirstArrival.Equal(e.FirstArrival) || row.Date != e.Date || row.ID != e.ID || row.Verified != e.Verified || row.Seq != e.Seq {
			t.Errorf("got %+v, want %+v", row, e.Receipt)
		}
	}
}

// A large bulk goes over several connections. One of them fails, whichever it
// is: the position stays, and the bulk that comes again leaves each row once.
func bulkInPartsIsWholeBeforeItsPosition(t *testing.T, p *pgtest.Postgres) {
	const students = deliverersMax * partRows
	for _, broken := range []int{1, students / 2, students} { // in the first part, in the middle, in the part that moves the position
		b := postgresBase(p)(t)
		s := open(t, b.Options)
		deliver(t, s, bulk(1, arrival(0, 0)))
		b.own(t, fmt.Sprintf("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.student_id = ''s%05d'' THEN RAISE EXCEPTION ''not this one''; END IF; RETURN NEW; END';"+
			"CREATE TRIGGER refuse BEFORE INSERT ON firstbell.arrivals FOR EACH ROW EXECUTE FUNCTION refuse()", broken))
		if _, err := s.Deliver(t.Context(), bulk(2, arrivals(1, students+1)...)); err == nil || !strings.Contains(err.Error(), "not this one") {
			t.Errorf("student %d refused: delivered with %v, want the database's word", broken, err)
		}
		if got := position(t, s); got != 2 {
			t.Errorf("student %d refused: the position is %d, want it where it was, 2", broken, got)
		}
		b.own(t, "DROP TRIGGER refuse ON firstbell.arrivals")
		done := deliver(t, s, bulk(2, arrivals(1, students+1)...))
		if done.Rows+done.Duplicates != students {
			t.Errorf("student %d refused: again: %d rows and %d duplicates, want %d together", broken, done.Rows, done.Duplicates, students)
		}
		if got := b.own(t, "SELECT count(*) || ' ' || count(DISTINCT student_id) FROM firstbell.arrivals"); got != fmt.Sprintf("%d %[1]d", students+1) {
			t.Errorf("student %d refused: there are %s rows and students, want each of %d once", broken, got, students+1)
		}
		if got := position(t, s); got != students+2 {
			t.Errorf("student %d refused: the position is %d in the end, want %d", broken, got, students+2)
		}
	}
}

func newerSchemaIsRefused(t *testing.T, p *pgtest.Postgres) {
	b := postgresBase(p)(t)
	deliver(t, open(t, b.Options), bulk(1, arrival(1, 0)))
	b.own(t, "INSERT INTO firstbell.schema_version (version) VALUES (99)")
	s, err := Open(t.Context(), b.Options)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var stop *attendance.DeliverError
	if _, err := s.Position(t.Context()); !errors.As(err, &stop) || !stop.Stop || !strings.Contains(err.Error(), "use the newer firstbell") {
		t.Errorf("writing: got %v, want to be told to use the newer firstbell", err)
	}
	r := openReader(t, b.Options)
	if _, err := r.Count(t.Context(), Filter{}); err == nil || !strings.Contains(err.Error(), "use the newer firstbell") {
		t.Errorf("reading: got %v, want to be told to use the newer firstbell", err)
	}
}

// What deploy/postgresql.md shows can be pasted.
func queriesOfTheManual(t *testing.T, p *pgtest.Postgres) {
	b := postgresBase(p)(t)
	s := open(t, b.Options)
	deliver(t, s, bulk(1, oddEvents()...))
	text, err := os.ReadFile("../../deploy/postgresql.md")
	if err != nil {
		t.Fatal(err)
	}
	b.own(t, "CREATE TABLE students (school text, class_id text, student_id text)")
	parts := strings.Split(string(text), "```sql\n")
	if len(parts) < 6 {
		t.Fatalf("the manual has %d pieces of SQL, want at least 5", len(parts)-1)
	}
	for _, part := range parts[1:] {
		statement, _, _ := strings.Cut(part, "```")
		b.own(t, statement)
	}
	if got := b.own(t, "SET ROLE register_reader; SELECT count(*) FROM firstbell.check_ins"); got != fmt.Sprint(len(rows(t, s, Filter{}))) {
		t.Errorf("a reader sees %s check-ins, want all %d", got, len(rows(t, s, Filter{})))
	}
}

func roleWithoutRights(t *testing.T, p *pgtest.Postgres) {
	b := postgresBase(p)(t)
	b.own(t, "ALTER DATABASE "+b.own(t, "SELECT current_database()")+" OWNER TO operator")
	s, err := Open(t.Context(), b.Options)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Position(t.Context()); err == nil || !strings.Contains(err.Error(), "lacks a right") {
		t.Errorf("got %v, want to be told of the right that is missing", err)
	}
	b.own(t, "CREATE SCHEMA firstbell AUTHORIZATION school")
	deliver(t, open(t, b.Options), bulk(1, arrivals(0, 3)...))
}

func TestNoErrorShowsAPassword(t *testing.T) {
	for _, location := range []string{
		"postgres://u:hunter2@db:port/x", "postgres://u:hunter2@127.0.0.1:1/x?sslmode=disable", "postgres://u@127.0.0.1:1/x?password=hunter2",
		"postgres://u:hunter2@db", "postgres://u:hunter2@db/x?sslmode=nonsense", "postgres://u:hunter2%zz@db/x",
	} {
		if shown := Shown(location); strings.Contains(shown, "hunter2") {
			t.Errorf("%s is shown as %s", location, shown)
		}
		err := Check(location)
		if err == nil {
			var r Reader
			if r, err = OpenReader(t.Context(), Options{Location: location, Journal: t.TempDir()}); err == nil {
				_, err = r.Count(context.Background(), Filter{})
				r.Close()
			}
		}
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(fmt.Sprintf("%+v", err), "hunter2") {
			t.Errorf("%s: got %v, want an error without the password", location, err)
		}
	}
}
