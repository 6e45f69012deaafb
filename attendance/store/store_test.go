package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"firstbell/attendance"
	"firstbell/attendance/pgtest"
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

func arrivals(from, to int) (events []attendance.Event) {
	for n := from; n < to; n++ {
		events = append(events, arrival(n, time.Duration(n)*time.Millisecond))
	}
	return events
}

func id(n int) attendance.ReceiptID {
	return attendance.ReceiptID{0: byte(n), 1: byte(n >> 8), 2: byte(n >> 16), 6: 0x80, 8: 0x80, 15: byte(n)}
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

// base is an empty database of one kind.
type base struct {
	Options

	// lock takes and holds the lock that a bulk needs, as another program
	// would.
	lock func(t *testing.T) (unlock func())

	// own runs a statement of somebody else.
	own func(t *testing.T, statement string) string
}

func sqliteBase(t *testing.T) base {
	dir := t.TempDir()
	path := filepath.Join(dir, "a ?#%20b.db") // a name that means something in a URI
	b := base{Options: Options{Location: "sqlite:" + path, Journal: filepath.Join(dir, "journal")}}
	other := func(t *testing.T) *sql.Conn {
		t.Helper()
		db, err := sql.Open("sqlite", strings.NewReplacer("?", "%3f", "#", "%23", "%", "%25").Replace("file:"+path))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	run := func(t *testing.T, c *sql.Conn, statement string) (out string) {
		t.Helper()
		rows, err := c.QueryContext(t.Context(), statement)
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		defer rows.Close()
		names, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values, into := make([]sql.NullString, len(names)), make([]any, len(names))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			for i, v := range values {
				if i > 0 {
					out += "|"
				}
				out += v.String
			}
			out += "\n"
		}
		return strings.TrimSpace(out)
	}
	b.own = func(t *testing.T, statement string) string { t.Helper(); return run(t, other(t), statement) }
	b.lock = func(t *testing.T) func() {
		t.Helper()
		c := other(t)
		run(t, c, "BEGIN IMMEDIATE")
		return func() { run(t, c, "ROLLBACK") }
	}
	return b
}

func postgresBase(p *pgtest.Postgres) func(t *testing.T) base {
	return func(t *testing.T) base {
		b := base{Options: Options{Location: p.Database(t), Password: pgtest.Password, Journal: t.TempDir()}}
		b.own = func(t *testing.T, statement string) string { t.Helper(); return p.SQL(t, b.Location, statement) }
		b.lock = func(t *testing.T) func() {
			t.Helper()
			c, err := parsePostgres(b.Options)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := pgx.ConnectConfig(t.Context(), c.ConnConfig)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close(context.Background()) })
			if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE firstbell.arrivals"); err != nil {
				t.Fatal(err)
			}
			return func() {
				if _, err := conn.Exec(context.Background(), "ROLLBACK"); err != nil {
					t.Fatal(err)
				}
			}
		}
		return b
	}
}

// promises are what both stores keep.
var promises = []struct {
	name  string
	holds func(t *testing.T, b base)
}{
	{"folds as Fold does", foldsAsFoldDoes},
	{"a thousand check-ins are two statements", thousandCheckInsAreTwoStatements},
	{"rows pass the filter in export order", rowsPassTheFilterInExportOrder},
	{"a reader beside the writer sees whole bulks", readerBesideTheWriterSeesWholeBulks},
	{"a locked store takes nothing and then everything", lockedStoreTakesNothingAndThenEverything},
	{"who took over first writes no more", whoTookOverFirstWritesNoMore},
	{"journals keep positions of their own", journalsKeepPositionsOfTheirOwn},
	{"a database that went back is brought up again", databaseThatWentBackIsBroughtUpAgain},
	{"a position may go back for who holds it", positionMayGoBackForWhoHoldsIt},
	{"the last known position outlives the process", lastKnownPositionOutlivesTheProcess},
	{"people see each check-in once", peopleSeeEachCheckInOnce},
	{"rows of the past come by their position", rowsOfThePastComeByTheirPosition},
	{"nobody reads a schema that is not there", nobodyReadsASchemaThatIsNotThere},
	{"a morning with the store locked", morningWithAStoreThatIsLocked},
}

func TestSQLite(t *testing.T) {
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) { p.holds(t, sqliteBase(t)) })
	}
}

func TestPostgres(t *testing.T) {
	server := pgtest.Start(t)
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) { p.holds(t, postgresBase(server)(t)) })
	}
	t.Run("receipts go on whatever happens to it", func(t *testing.T) { receiptsGoOnWhateverHappens(t, server) })
	t.Run("a bulk in parts moves the position only when it is whole", func(t *testing.T) { bulkInPartsIsWholeBeforeItsPosition(t, server) })
	t.Run("copied rows are upserted rows", func(t *testing.T) { copiedRowsAreUpsertedRows(t, server) })
	t.Run("a newer schema is refused", func(t *testing.T) { newerSchemaIsRefused(t, server) })
	t.Run("queries of the manual can be pasted", func(t *testing.T) { queriesOfTheManual(t, server) })
	t.Run("a role without a right to make schemas is told so", func(t *testing.T) { roleWithoutRights(t, server) })
}

func open(t testing.TB, o Options) Store {
	t.Helper()
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	position(t, s) // as a delivery does first
	return s
}

func openReader(t testing.TB, o Options) Reader {
	t.Helper()
	r, err := OpenReader(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func deliver(t testing.TB, s Store, b *attendance.Bulk) attendance.Delivered {
	t.Helper()
	done, err := s.Deliver(context.Background(), b)
	if err != nil {
		t.Fatalf("Deliver [%d, %d): %v", b.First, b.Next, err)
	}
	return done
}

func rows(t testing.TB, r Reader, f Filter) []attendance.Row {
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

func position(t testing.TB, r Reader) uint64 {
	t.Helper()
	at, err := r.Position(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return at.Next
}

// oddEvents have everything in them that a bulk may hold.
func oddEvents() []attendance.Event {
	verified := arrival(1, 20*time.Minute)
	verified.Kind, verified.Verified, verified.Status = attendance.KindVerifiedArrival, true, timetable.Late
	perClass := arrival(5, 0)
	perClass.ClassIsKey = true
	odd := arrival(6, time.Millisecond)
	odd.Student, odd.Class, odd.School = `=cmd|'/c'!A0"\`+"\u2028{},", "날개/반 100%", "<north>&"
	west := arrival(7, 999*time.Millisecond)
	west.FirstArrival = west.FirstArrival.In(attendance.Zone(-210))
	west.Date = west.Date.AddDays(-1)
	otherKind := attendance.Event{Kind: 77}
	corrected := arrival(2, 2*time.Second)
	corrected.Kind, corrected.Status, corrected.Timetable, corrected.Correction = attendance.KindCorrection, timetable.Late, "fedcba9876543210", &attendance.Correction{Author: "kim"}
	moved := corrected // to another key
	moved.ID, moved.Period = id(1002), "2"
	return []attendance.Event{
		arrival(1, 0), arrival(2, 5*time.Second), presses(1, 3), otherKind, arrival(2, 2*time.Second), arrival(2, 9*time.Second),
		verified, presses(1, 2), arrival(1, -time.Minute), perClass, presses(2, 70000), odd, presses(99, 4), west, corrected, moved, arrival(2, 9*time.Second),
	}
}

// The store is right when it says what Fold says, whatever came when.
func foldsAsFoldDoes(t *testing.T, b base) {
	events := oddEvents()
	s := open(t, b.Options)
	for day, size := range []int{1, 2, 5, len(events)} {
		var fold attendance.Fold
		next := uint64(1)
		for _, part := range slices.Collect(slices.Chunk(slices.Clone(events), size)) {
			for i := range part {
				part[i].Date = part[i].Date.AddDays(7 * day)
				part[i].ID[14] = byte(day)
			}
			b := bulk(next, part...)
			next = b.Next
			deliver(t, s, b)
			if done := deliver(t, s, b); done.Rows != 0 {
				t.Errorf("in bulks of %d: delivered again, %d rows changed", size, done.Rows)
			}
			for i := range b.Events {
				fold.Add(&b.Events[i])
			}
		}
		week := Filter{From: timetable.DateOf(bell).AddDays(7*day - 1), To: timetable.DateOf(bell).AddDays(7 * day)}
		if got, want := show(rows(t, s, week)), show(fold.Rows()); got != want {
			t.Fatalf("in bulks of %d:\n got %swant %s", size, got, want)
		}
		if got := position(t, s); got != next {
			t.Errorf("in bulks of %d: got position %d, want %d", size, got, next)
		}
	}
}

func thousandCheckInsAreTwoStatements(t *testing.T, b base) {
	s := open(t, b.Options)
	done := deliver(t, s, bulk(1, append(arrivals(0, 1000), presses(3, 1))...))
	if done.Rows != 1000 || done.Writes != 2 || s.Writes() != 2 {
		t.Errorf("got %d rows in %d statements (%d in all), want 1000 in 2", done.Rows, done.Writes, s.Writes())
	}
	done = deliver(t, s, bulk(901, append(arrivals(900, 3001), presses(3, 9), presses(4, 2))...))
	if done.Rows != 2001 || done.Duplicates != 100 || done.Writes != 5 {
		t.Errorf("got %d rows and %d duplicates in %d statements, want 2001 and 100 in 5", done.Rows, done.Duplicates, done.Writes)
	}
	counts, err := s.Count(context.Background(), Filter{})
	if err != nil || !maps.Equal(counts, map[timetable.Status]int{timetable.Present: 3001}) {
		t.Errorf("got counts %v %v, want 3001 present", counts, err)
	}
}

func rowsPassTheFilterInExportOrder(t *testing.T, b base) {
	s := open(t, b.Options)
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
		"receipt": {Receipt: id(77).String()}, "receipt of a school": {Receipt: id(78).String(), School: "north"}, "receipt elsewhere": {Receipt: id(78).String(), School: "south"},
		"receipt of no day": {Receipt: id(77).String(), To: day.AddDays(-1)}, "no receipt": {Receipt: id(7777).String()},
	} {
		var fold attendance.Fold
		for i := range events {
			e := &events[i]
			if (f.From == timetable.Date{} || e.Date.Compare(f.From) >= 0) && (f.To == timetable.Date{} || e.Date.Compare(f.To) <= 0) &&
				(f.Receipt == "" || e.ID.String() == f.Receipt) && (f.School == "" || e.School == f.School) && (f.Class == "" || e.Class == f.Class) && (f.Period == "" || e.Period == f.Period) {
				fold.Add(e)
			}
		}
		if got, want := show(rows(t, s, f)), show(fold.Rows()); got != want {
			t.Errorf("%s:\n got %swant %s", name, got, want)
		}
		counts, err := s.Count(t.Context(), f)
		if err != nil || counts[timetable.Present] != fold.Len() {
			t.Errorf("%s: counted %v %v, want %d", name, counts, err, fold.Len())
		}
	}
}

func readerBesideTheWriterSeesWholeBulks(t *testing.T, b base) {
	s := open(t, b.Options)
	deliver(t, s, bulk(1, arrival(1, 0), arrival(2, 0)))
	r := openReader(t, b.Options)
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
	deliver(t, s, bulk(4, arrival(4, 0))) // the reader has taken nothing over
}

func lockedStoreTakesNothingAndThenEverything(t *testing.T, b base) {
	s := open(t, b.Options)
	unlock := b.lock(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Deliver(ctx, bulk(1, arrival(1, 0))); err == nil {
		t.Error("delivered past another program's lock")
	}
	if got := position(t, s); got != 0 {
		t.Errorf("while locked: got position %d, want 0", got)
	}
	unlock()
	deliver(t, s, bulk(1, arrival(1, 0)))
	if got := len(rows(t, s, Filter{})); got != 1 {
		t.Errorf("after the lock: got %d rows, want 1", got)
	}
}

// An old process that comes back must not move the position nor change a row.
func whoTookOverFirstWritesNoMore(t *testing.T, b base) {
	old := open(t, b.Options)
	deliver(t, old, bulk(1, arrivals(0, 10)...))
	young := open(t, b.Options)
	if got := position(t, young); got != 11 {
		t.Fatalf("taken over at %d, want 11", got)
	}
	deliver(t, young, bulk(11, arrivals(10, 30)...))
	for range 2 {
		_, err := old.Deliver(t.Context(), bulk(11, arrivals(10, 20)...))
		var stop *attendance.DeliverError
		if !errors.Is(err, errTakenOver) || !errors.As(err, &stop) || !stop.Stop || !strings.Contains(err.Error(), "process ") {
			t.Errorf("the old one: got %v, want to be stopped, and told by whom", err)
		}
	}
	if got := position(t, young); got != 31 {
		t.Errorf("got position %d, want 31", got)
	}
	deliver(t, young, bulk(31, arrival(40, 0)))
	if got := len(rows(t, young, Filter{})); got != 31 {
		t.Errorf("got %d rows, want 31", got)
	}
}

// Two machines with a journal each may share a database.
func journalsKeepPositionsOfTheirOwn(t *testing.T, b base) {
	other := b.Options
	other.Journal = t.TempDir()
	one, two := open(t, b.Options), open(t, other)
	deliver(t, one, bulk(1, arrivals(0, 100)...))
	deliver(t, two, bulk(1, arrivals(50, 60)...))
	deliver(t, one, bulk(101, arrivals(100, 110)...))
	if a, b := position(t, one), position(t, two); a != 111 || b != 11 {
		t.Errorf("got positions %d and %d, want 111 and 11", a, b)
	}
	if got := len(rows(t, openReader(t, other), Filter{})); got != 110 {
		t.Errorf("got %d rows, want 110: what both heard is there once", got)
	}
}

// A standby that takes over may lack the last transactions, the database may
// have been put back from a backup, or somebody removed our row.
func databaseThatWentBackIsBroughtUpAgain(t *testing.T, b base) {
	events := arrivals(0, 60)
	end := uint64(1)
	d := attendance.NewDelivery(attendance.DeliveryConfig{
		Name: "store", Target: open(t, b.Options), BulkMax: 10, End: func() uint64 { return end },
		Journal: func(from uint64) iter.Seq2[attendance.Record, error] {
			return func(yield func(attendance.Record, error) bool) {
				for i := int(max(from, 1)) - 1; i < len(events); i++ {
					data, err := attendance.AppendEvent(nil, &events[i])
					if !yield(attendance.Record{Seq: uint64(i) + 1, Data: data}, err) {
						return
					}
				}
			}
		},
	})
	schema := postgresOnly(b, "firstbell.")
	for i, statement := range []string{
		"",
		"DELETE FROM " + schema + "arrivals WHERE position >= 5",
		"DELETE FROM " + schema + "arrivals WHERE position >= 15",
		"DELETE FROM " + schema + "arrivals WHERE position >= 25",
	} {
		back := []string{"", "UPDATE %sdeliveries SET next = 5", "UPDATE %sdeliveries SET next = 15, epoch = epoch - 1", "DELETE FROM %sdeliveries"}[i]
		if statement != "" {
			b.own(t, statement)
			b.own(t, fmt.Sprintf(back, schema))
		}
		end += 15
		if err := d.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(rows(t, openReader(t, b.Options), Filter{})); got != int(end)-1 {
			t.Errorf("after %s: got %d rows, want %d", back, got, end-1)
		}
	}
}

// A journal that lost its end is delivered again from where it begins.
func positionMayGoBackForWhoHoldsIt(t *testing.T, b base) {
	s := open(t, b.Options)
	deliver(t, s, bulk(1, arrivals(0, 100)...))
	deliver(t, s, bulk(1, arrivals(0, 10)...))
	if got := position(t, s); got != 11 {
		t.Errorf("got position %d, want 11", got)
	}
	if got := len(rows(t, s, Filter{})); got != 100 {
		t.Errorf("got %d rows, want 100", got)
	}
}

func lastKnownPositionOutlivesTheProcess(t *testing.T, b base) {
	s := open(t, b.Options)
	deliver(t, s, bulk(1, arrivals(0, 10)...))
	deliver(t, s, bulk(11, arrivals(10, 20)...))
	s.Close()
	p, err := readPlace(b.Journal)
	if err != nil || p.known.Load() != 21 || len(p.journal) != 32 {
		t.Errorf("got %d of journal %q, %v, want 21", p.known.Load(), p.journal, err)
	}
	again, err := Open(t.Context(), b.Options)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := again.Known(); got != 21 {
		t.Errorf("got %d before the store was asked, want 21", got)
	}
}

// The view is for people and stays as it is.
func peopleSeeEachCheckInOnce(t *testing.T, b base) {
	s := open(t, b.Options)
	deliver(t, s, bulk(1, oddEvents()...))
	const ask = "SELECT student_id, status, presses, verified, receipt, position FROM firstbell.check_ins WHERE date = '2026-05-04' AND school = 'north' ORDER BY student_id, period"
	want := "s00001|late|3|%s|01000000-0000-8000-8000-000000000001|7\n" +
		"s00002|late|70000|%s|02000000-0000-8000-8000-000000000002|15\n" +
		"s00002|late|1|%s|ea030000-0000-8000-8000-0000000000ea|16\n" +
		"s00005|present|1|%s|05000000-0000-8000-8000-000000000005|10"
	arrival, wantArrival := "SELECT local_arrival FROM firstbell.check_ins WHERE student_id = 's00007'", "2026-05-03 20:30:00.999"
	is := []any{"t", "f", "f", "f"}
	if b.Password == "" {
		arrival, wantArrival = "SELECT first_arrival FROM check_ins WHERE student_id = 's00007'", "2026-05-03T20:30:00.999-03:30"
		is = []any{"1", "0", "0", "0"}
	}
	query := strings.ReplaceAll(ask, "firstbell.", postgresOnly(b, "firstbell."))
	if got := b.own(t, query); got != fmt.Sprintf(want, is...) {
		t.Errorf("got\n%s\nwant\n"+want, append([]any{got}, is...)...)
	}
	if got := b.own(t, arrival); got != wantArrival {
		t.Errorf("first arrival: got %s, want %s", got, wantArrival)
	}
}

func postgresOnly(b base, s string) string {
	if b.Password == "" {
		return ""
	}
	return s
}

func nobodyReadsASchemaThatIsNotThere(t *testing.T, b base) {
	r, err := OpenReader(t.Context(), b.Options)
	if err == nil {
		_, err = r.Count(t.Context(), Filter{})
		r.Close()
	}
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want one line that says what is missing", err)
	}
}
