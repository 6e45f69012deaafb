package attendance

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
)

// Row is one line of the register's facts: what the receipt of a key says, and
// how often it was pressed. Who is absent is not a fact of the journal.
type Row struct {
	Receipt
	ClassIsKey bool   // the class belongs to the key
	Presses    uint32 // at least 1
	Timetable  string // version of the timetable that gave period and status
	Seq        uint64 // position of the event that decides the row, 0 when unknown
}

// Key returns the row's key as it goes over the wire: date, school, period and
// student, and the class where it belongs to the key, each with / and % and the
// like escaped as in a path (RFC 3986), joined by slashes.
func (r *Row) Key() string {
	parts := []string{r.Date.String(), url.PathEscape(r.School), url.PathEscape(r.Period), url.PathEscape(r.Student)}
	if r.ClassIsKey {
		parts = append(parts, url.PathEscape(r.Class))
	}
	return strings.Join(parts, "/")
}

// RowOf returns the row that an arrival, or a correction of one, alone makes; ok
// is false for events of other kinds.
func RowOf(e *Event) (row Row, ok bool) {
	if e.Kind != KindArrival && e.Kind != KindVerifiedArrival && e.Kind != KindCorrection {
		return Row{}, false
	}
	return Row{Receipt: e.Receipt, ClassIsKey: e.ClassIsKey, Presses: 1, Timetable: e.Timetable, Seq: e.Seq}, true
}

// Event returns an arrival that makes the row, but for its presses and for how
// its first arrival is known, which the row does not say.
func (r *Row) Event() Event {
	return Event{Seq: r.Seq, Kind: KindArrival, Receipt: r.Receipt, ClassIsKey: r.ClassIsKey, RawArrival: r.FirstArrival.UTC(), Timetable: r.Timetable}
}

// Better reports whether r takes the place of old, a row of the same key: a
// verified arrival takes the place of an unverified one, and among equals the
// earlier wins. Of records about the same arrival the last one holds: it
// corrects the others. The presses of the two play no part.
func (r *Row) Better(old *Row) bool {
	if r.Verified != old.Verified {
		return r.Verified
	}
	if !r.FirstArrival.Equal(old.FirstArrival) {
		return r.FirstArrival.Before(old.FirstArrival)
	}
	return r.Seq > old.Seq
}

// Fold gathers events into rows, one per key. The outcome does not depend on
// the order of the events nor on events that come twice. The zero value is
// ready for use.
type Fold struct {
	rows    map[ReceiptID]*Row
	presses map[ReceiptID]uint32 // counts whose arrival has not come
}

// Add takes one event; kinds it does not know are skipped.
func (f *Fold) Add(e *Event) {
	switch e.Kind {
	case KindArrival, KindVerifiedArrival, KindCorrection:
		row, _ := RowOf(e)
		f.AddRow(row)
	case KindPresses:
		f.addPresses(e.ID, e.Presses)
	}
}

// AddRow takes a row that was folded elsewhere, such as one from the store.
func (f *Fold) AddRow(row Row) {
	if f.rows == nil {
		f.rows = make(map[ReceiptID]*Row)
	}
	old, ok := f.rows[row.ID]
	if !ok {
		row.Presses = max(1, row.Presses, f.presses[row.ID])
		delete(f.presses, row.ID)
		f.rows[row.ID] = &row
		return
	}
	presses := max(old.Presses, row.Presses)
	if row.Better(old) {
		*old = row
	}
	old.Presses = presses
}

func (f *Fold) addPresses(id ReceiptID, n uint32) {
	if row, ok := f.rows[id]; ok {
		row.Presses = max(row.Presses, n)
		return
	}
	if f.presses == nil {
		f.presses = make(map[ReceiptID]uint32)
	}
	f.presses[id] = max(f.presses[id], n)
}

// Row returns the row of a receipt.
func (f *Fold) Row(id ReceiptID) (row Row, ok bool) {
	if r, ok := f.rows[id]; ok {
		return *r, true
	}
	return Row{}, false
}

// Len returns the number of rows.
func (f *Fold) Len() int { return len(f.rows) }

// Presses returns the counts whose arrival was not among the events. They
// belong to rows that are elsewhere.
func (f *Fold) Presses() map[ReceiptID]uint32 { return f.presses }

// Rows returns the rows in export order (see CompareRows).
func (f *Fold) Rows() []Row {
	rows := make([]Row, 0, len(f.rows))
	for _, r := range f.rows {
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(a, b Row) int { return CompareRows(&a, &b) })
	return rows
}

// CompareRows orders rows as exports do: by date, school, class, student and
// period, byte by byte, and by receipt where all that is equal.
func CompareRows(a, b *Row) int {
	return cmp.Or(
		a.Date.Compare(b.Date),
		strings.Compare(a.School, b.School),
		strings.Compare(a.Class, b.Class),
		strings.Compare(a.Student, b.Student),
		strings.Compare(a.Period, b.Period),
		slices.Compare(a.ID[:], b.ID[:]),
	)
}
