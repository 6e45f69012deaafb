package main

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"firstbell/attendance"
	"firstbell/attendance/export"
	"firstbell/attendance/store"
	"firstbell/attendance/wal"
	"firstbell/cmd/firstbell/config"
)

// facts are the rows of some days: the store's, and those that the journal
// holds beyond what was delivered into it.
type facts struct {
	store   store.Reader // nil: it could not be read
	filter  store.Filter
	beyond  []attendance.Row // of the journal, in export order
	presses map[attendance.ReceiptID]uint32
	asOf    export.AsOf
}

// gatherFacts opens the store and reads the journal past its position. Without
// partial, whatever cannot be read is an error.
func gatherFacts(ctx context.Context, a *config.Attendance, f *export.Filter, partial bool) (*facts, error) {
	out := &facts{filter: store.Filter{From: f.From, To: f.To, School: f.School}}
	if out.filter.To == out.filter.From || f.To.Year == 0 {
		out.filter.To = f.From
	}
	var from uint64
	st, err := store.OpenReader(ctx, storeOptions(a))
	if err == nil {
		// The position first: rows asked for later hold at least what is before.
		var p attendance.Position
		if p, err = st.Position(ctx); err != nil {
			_ = st.Close() // it was only read
		} else {
			from, out.store = p.Next, st
		}
	}
	if err != nil {
		if !partial {
			out.close()
			return nil, fmt.Errorf("%w (-partial writes what the journal holds)", err)
		}
		from = 0
		out.incident("the store could not be read, check-ins that only it holds are missing: %v", err)
	}
	if err := out.readJournal(a, from); err != nil {
		if !partial || out.store == nil {
			out.close()
			return nil, err
		}
		out.incident("the journal could not be read, the latest check-ins are missing: %v", err)
	}
	return out, nil
}

func (f *facts) incident(format string, args ...any) {
	f.asOf.Incidents = append(f.asOf.Incidents, fmt.Sprintf(format, args...))
}

func (f *facts) close() {
	if f.store != nil {
		_ = f.store.Close() // it was only read
	}
}

// readJournal folds what the journal holds from a position on.
func (f *facts) readJournal(a *config.Attendance, from uint64) error {
	r, err := wal.OpenReader(a.Journal, a.JournalSpare)
	if err != nil {
		return err
	}
	defer r.Close()
	fold, undecodable, err := foldJournal(r, max(from, 1)-1)
	if err == nil && from > 1 && r.Last() == 0 {
		// Not even the last delivered record is there: it was removed, or the
		// store belongs to another journal. Folding twice changes nothing.
		fold, undecodable, err = foldJournal(r, 0)
	}
	if err != nil {
		return err
	}
	if first := r.First(); from > 0 && first > from {
		f.incident("the store ends before record %d and the journal begins with %d: those between are missing", from, first)
	}
	if undecodable > 0 {
		f.incident("%d records of the journal were written by a newer firstbell and are not in the register", undecodable)
	}
	f.asOf.Position = max(r.Last(), max(from, 1)-1)
	for _, m := range r.Missing() {
		f.asOf.Missing = append(f.asOf.Missing, fmt.Sprintf("%d-%d", m.From, m.To))
	}
	f.presses = fold.Presses()
	if f.presses == nil {
		f.presses = map[attendance.ReceiptID]uint32{}
	}
	for _, row := range fold.Rows() {
		f.presses[row.ID] = max(f.presses[row.ID], row.Presses)
		if f.wants(&row) {
			f.beyond = append(f.beyond, row)
		}
	}
	return nil
}

func foldJournal(r *wal.Reader, from uint64) (fold *attendance.Fold, undecodable int, err error) {
	fold = new(attendance.Fold)
	for rec, err := range r.Records(from) {
		if err != nil {
			return nil, 0, err
		}
		e, err := attendance.DecodeEvent(rec.Data)
		if err != nil {
			undecodable++
			continue
		}
		e.Seq = rec.Seq
		fold.Add(&e)
	}
	return fold, undecodable, nil
}

func (f *facts) wants(r *attendance.Row) bool {
	return r.Date.Compare(f.filter.From) >= 0 && r.Date.Compare(f.filter.To) <= 0 &&
		(f.filter.School == "" || r.School == f.filter.School)
}

// rows merges the two, one school's day at a time, ordered by date and school.
func (f *facts) rows(ctx context.Context) iter.Seq2[attendance.Row, error] {
	return func(yield func(attendance.Row, error) bool) {
		beyond := f.beyond
		var group attendance.Fold
		var at *attendance.Row // a row of the group's date and school
		flush := func() bool {
			var ours int
			for ours < len(beyond) && at != nil && compareDays(&beyond[ours], at) == 0 {
				group.AddRow(beyond[ours])
				ours++
			}
			beyond = beyond[ours:]
			for _, row := range group.Rows() {
				row.Presses = max(row.Presses, f.presses[row.ID])
				if !yield(row, nil) {
					return false
				}
			}
			group, at = attendance.Fold{}, nil
			return true
		}
		// before yields the days that only the journal has, up to a row's.
		before := func(row *attendance.Row) bool {
			for len(beyond) > 0 && (row == nil || compareDays(&beyond[0], row) < 0) {
				first := beyond[0]
				at = &first
				if !flush() {
					return false
				}
			}
			return true
		}
		for row, err := range f.stored(ctx) {
			if err != nil {
				yield(row, err)
				return
			}
			if at != nil && compareDays(at, &row) != 0 && !flush() {
				return
			}
			if at == nil && !before(&row) {
				return
			}
			if at == nil {
				first := row
				at = &first
			}
			group.AddRow(row)
		}
		if flush() {
			before(nil)
		}
	}
}

func (f *facts) stored(ctx context.Context) iter.Seq2[attendance.Row, error] {
	if f.store == nil {
		return func(func(attendance.Row, error) bool) {}
	}
	return f.store.Rows(ctx, f.filter)
}

// compareDays orders rows by date and school.
func compareDays(a, b *attendance.Row) int {
	if c := a.Date.Compare(b.Date); c != 0 {
		return c
	}
	return strings.Compare(a.School, b.School)
}
