package store

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

// rowsPerStatement bounds an upsert. PostgreSQL gains nothing from more, and
// SQLite takes 32,766 parameters.
const rowsPerStatement = 1000

// A dialect is what the two databases say differently.
type dialect struct {
	schema    string               // in front of each table
	parameter func(n int) string   // the nth parameter
	uuid      func(n int) string   // the nth parameter, the text of a UUID, as a column holds it
	read      [len(columns)]string // how a column is read into scan's variable; "": by its name
	// useReceipts names the index by receipt to a planner that would not see by
	// itself how few rows it leads to.
	useReceipts string

	presses string // how an upsert takes the greater of two counts
}

// columns of the table arrivals, as rows are written and read.
var columns = [...]string{
	"date", "school", "period", "student_id", "class_key", "class_id", "status",
	"first_arrival", "utc_offset", "verified", "receipt", "timetable", "position",
}

const keyColumns = 5 // the first of them are the primary key

// upsertRows is the statement's end: what happens to a row that is there.
func (d *dialect) upsertRows() string {
	set := make([]string, 0, len(columns))
	for _, c := range columns[keyColumns:] {
		set = append(set, c+" = excluded."+c)
	}
	// The rule of attendance.Row.Better.
	return " ON CONFLICT (" + strings.Join(columns[:keyColumns], ", ") + ") DO UPDATE SET " + strings.Join(set, ", ") +
		" WHERE (excluded.verified AND NOT a.verified) OR (excluded.verified = a.verified AND (excluded.first_arrival < a.first_arrival OR" +
		" (excluded.first_arrival = a.first_arrival AND excluded.position > a.position)))"
}

// insertInto is how the statement begins.
func (d *dialect) insertInto() string {
	return "INSERT INTO " + d.schema + "arrivals AS a (" + strings.Join(columns[:], ", ") + ") "
}

func (d *dialect) upsertPresses() string {
	return " ON CONFLICT (receipt) DO UPDATE SET presses = " + d.presses + "(excluded.presses, p.presses) WHERE excluded.presses > p.presses"
}

// byReceipt is the condition that a receipt is the nth parameter. The index goes
// by date and receipt, so that a day's receipts lie together where they are
// written; each date that there is, one after the other, is one look into it.
func (d *dialect) byReceipt(n int) string {
	a := d.schema + "arrivals"
	return "date IN (WITH RECURSIVE days(day) AS (SELECT max(date) FROM " + a +
		" UNION ALL SELECT (SELECT max(date) FROM " + a + " WHERE date < day) FROM days WHERE day IS NOT NULL)" +
		" SELECT day FROM days WHERE day IS NOT NULL) AND receipt = " + d.uuid(n)
}

// selectRows yields rows in export order, and the statement's parameters.
func (d *dialect) selectRows(f *Filter) (string, []any) {
	where, args := f.where(d)
	by := ""
	if f.Receipt != "" {
		by = d.useReceipts
	}
	return d.selectAll(by) + where + " ORDER BY arrivals.date, school, class_id, student_id, period, receipt", args
}

// selectBetween yields rows by their position; its parameters are the first
// position, the one behind the last, and how many rows at most.
func (d *dialect) selectBetween() string {
	return d.selectAll("") + "position >= " + d.parameter(1) + " AND position < " + d.parameter(2) + " ORDER BY position LIMIT " + d.parameter(3)
}

func (d *dialect) selectAll(by string) string {
	list := make([]string, 0, len(columns))
	for i, c := range columns {
		list = append(list, cmp.Or(d.read[i], c))
	}
	return "SELECT " + strings.Join(list, ", ") + ", coalesce(presses, 1) FROM " + d.schema + "arrivals" + by + " LEFT JOIN " + d.schema + "presses USING (receipt) WHERE "
}

func (d *dialect) countRows(where string) string {
	return "SELECT status, count(*) FROM " + d.schema + "arrivals WHERE " + where + " GROUP BY status"
}

type scanner interface{ Scan(into ...any) error }

// scan reads a line of selectRows.
func scan(from scanner) (attendance.Row, error) {
	var r attendance.Row
	var date, classKey, status string
	var first, offset, presses, position int64
	var receipt []byte
	err := from.Scan(&date, &r.School, &r.Period, &r.Student, &classKey, &r.Class, &status,
		&first, &offset, &r.Verified, &receipt, &r.Timetable, &position, &presses)
	if err != nil {
		return r, err
	}
	r.ClassIsKey = classKey != ""
	r.Status = timetable.Status(status)
	r.FirstArrival = time.UnixMilli(first).In(attendance.Zone(int(offset)))
	r.Seq, r.Presses = uint64(position), uint32(presses)
	copy(r.ID[:], receipt)
	r.Date, err = timetable.ParseDate(date)
	return r, err
}

// mayMeet reports whether the event is one of those that are written for a key
// that has a row: it is verified now, proves an earlier arrival, or corrects.
func mayMeet(e *attendance.Event) bool {
	return e.Kind != attendance.KindArrival || e.Basis != attendance.BasisClock
}

// A press is how often a key was pressed in all, if more than once.
type press struct {
	id    attendance.ReceiptID
	count uint32
}

// fold returns the bulk's arrivals, one per key, in the order of the primary
// key, so that neighbours meet the same page and two writers lock rows in the
// same order; and the counts of presses, one per receipt. The outcome is that
// of attendance.Fold. into and counts give their memory.
func fold(b *attendance.Bulk, into []*attendance.Event, counts []press) ([]*attendance.Event, []press) {
	into, counts = into[:0], counts[:0]
	for i := range b.Events {
		switch e := &b.Events[i]; e.Kind {
		case attendance.KindArrival, attendance.KindVerifiedArrival, attendance.KindCorrection:
			into = append(into, e)
		case attendance.KindPresses:
			if e.Presses > 1 {
				counts = append(counts, press{e.ID, e.Presses})
			}
		}
	}
	slices.SortStableFunc(into, compareKeys)
	kept := into[:0]
	for _, e := range into {
		last := len(kept) - 1
		if last < 0 || compareKeys(kept[last], e) != 0 {
			kept = append(kept, e)
		} else if better(e, kept[last]) {
			kept[last] = e
		}
	}
	slices.SortFunc(counts, func(a, b press) int {
		return cmp.Or(slices.Compare(a.id[:], b.id[:]), cmp.Compare(b.count, a.count))
	})
	counts = slices.CompactFunc(counts, func(a, b press) bool { return a.id == b.id })
	return kept, counts
}

func compareKeys(a, b *attendance.Event) int {
	if c := a.Date.Compare(b.Date); c != 0 {
		return c
	}
	if c := strings.Compare(a.School, b.School); c != 0 {
		return c
	}
	if c := strings.Compare(a.Period, b.Period); c != 0 {
		return c
	}
	if c := strings.Compare(a.Student, b.Student); c != 0 {
		return c
	}
	return strings.Compare(classKey(a), classKey(b))
}

// better is the rule of attendance.Row.Better.
func better(e, old *attendance.Event) bool {
	if e.Verified != old.Verified {
		return e.Verified
	}
	if !e.FirstArrival.Equal(old.FirstArrival) {
		return e.FirstArrival.Before(old.FirstArrival)
	}
	return e.Seq > old.Seq
}

// classKey is the class where it belongs to the key.
func classKey(e *attendance.Event) string {
	if e.ClassIsKey {
		return e.Class
	}
	return ""
}

// utcOffset is in minutes.
func utcOffset(t time.Time) int64 {
	_, seconds := t.Zone()
	return int64(seconds / 60)
}
