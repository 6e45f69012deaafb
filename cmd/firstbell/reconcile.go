package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/export"
	"firstbell/attendance/sink"
	"firstbell/attendance/store"
	"firstbell/attendance/timetable"
	"firstbell/attendance/wal"
	"firstbell/cmd/firstbell/config"
)

const reconcileUsage = `reconcile -config FILE [-date DATE] [-school ID] [-json] [-o FILE]

Holds a day's check-ins against each other: those whose receipts can be proved,
the journal, the store, the export, and what sinks have taken; by count and
digest, per school, class and period, and key by key. Every difference is named,
the first 20 here and all of them in the file of -o. It exits with 1 when there is
one. It takes no lock and writes nothing, whether serve runs or not; what is on
its way into the store is said to wait, and is no difference. A day that is over
is held against the digest that the journal has of it, too.`

// reconciled is what came of holding the books against each other.
type reconciled struct {
	Date     string              `json:"date"`
	School   string              `json:"school,omitempty"`
	AsOf     time.Time           `json:"as_of"`
	Position uint64              `json:"position"` // last record of the journal
	Books    map[string]sumShown `json:"books"`
	Digest   *digestShown        `json:"digest,omitempty"` // recorded when the day was over
	Waiting  int                 `json:"waiting"`          // rows on their way into the store
	Sinks    []sinkShown         `json:"sinks"`
	Groups   []groupLine         `json:"groups"`
	Notes    []string            `json:"notes"`
	Total    int                 `json:"differences_total"`
	List     []difference        `json:"differences"`
}

type digestShown struct {
	sumShown
	Before uint64    `json:"before"`
	Made   time.Time `json:"made"`
}

type sinkShown struct {
	Name    string `json:"name"`
	Next    uint64 `json:"next"`
	Waiting int    `json:"waiting"` // rows of the day it has not been sent
	Parked  int    `json:"parked"`
}

// differencesShown bounds what is listed without -o.
const differencesShown = 20

func runReconcile(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("reconcile", reconcileUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	day := f.String("date", "", "`DATE` such as 2026-05-04; today unless said")
	school := f.String("school", "", "only this school's `ID`")
	asJSON := f.Bool("json", false, "write JSON")
	out := f.String("o", "", "`FILE` for all differences, as JSON Lines, complete or not at all")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	c, err := loadAttendance("reconcile", *file, stderr)
	if err != nil {
		return err
	}
	date := timetable.DateOf(time.Now().In(c.Location))
	if *day != "" {
		if date, err = timetable.ParseDate(*day); err != nil {
			return usageError("firstbell reconcile: -date: " + err.Error())
		}
	}
	done, err := reconcile(ctx, c, date, *school)
	if err != nil {
		return fmt.Errorf("reconciling %s: %w", date, err)
	}
	if *out != "" {
		if err := export.ToFile(*out, done.writeList); err != nil {
			return fmt.Errorf("reconciling %s: %w", date, err)
		}
	}
	done.List = done.List[:min(len(done.List), differencesShown)]
	if *asJSON {
		fmt.Fprintf(stdout, "%s\n", jsonLine(done))
	} else {
		done.print(stdout, *out)
	}
	if done.Total > 0 {
		return said(fmt.Errorf("reconciling %s: %d differences", date, done.Total))
	}
	return nil
}

// reconcile reads everything once: the store, the export, then the journal,
// which therefore holds what they can hold.
func reconcile(ctx context.Context, c *config.Config, date timetable.Date, school string) (*reconciled, error) {
	l := newLedger(date, school)
	filled := []book{bookJournal, bookReceipts}
	if err := l.readStore(ctx, c.Attendance); err != nil {
		l.differ(bookStore, "unreadable", err.Error())
	} else {
		filled = append(filled, bookStore)
	}
	if err := l.readExport(ctx, c); err != nil {
		l.differ(bookExport, "unreadable", err.Error())
	} else {
		filled = append(filled, bookExport)
	}
	r, err := wal.OpenReader(c.Attendance.Journal, c.Attendance.JournalSpare)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	keys, err := attendance.ReadPublicKeys(c.Attendance.Signing.Keys)
	if err != nil {
		return nil, err
	}
	if err := l.readJournal(r, keys); err != nil {
		return nil, err
	}
	out := &reconciled{Date: date.String(), School: school, AsOf: time.Now().In(c.Location), Position: l.last, Books: map[string]sumShown{}, Sinks: []sinkShown{}, Notes: []string{}}
	for _, d := range r.Damage() {
		if d.Alarm() {
			l.differ(bookJournal, "damage", d.String())
		}
	}
	reaches, err := l.checkDigest(r, out)
	if err != nil {
		return nil, err
	}
	for _, b := range filled[2:] {
		waiting := l.compare(b, reaches)
		if b == bookStore {
			out.Waiting = waiting
		}
	}
	if l.unsealed > 0 {
		out.note("%d check-ins were recorded by a version that did not seal: they count, and have no proof", l.unsealed)
	}
	if l.torn > 0 {
		out.note("%d check-ins were found behind a crash: nobody had their receipt yet; they count, and have no proof", l.torn)
	}
	if err := l.readSinks(c.Attendance, out); err != nil {
		return nil, err
	}
	if err := l.explain(ctx, c.Attendance, r); err != nil {
		return nil, err
	}
	for _, b := range filled {
		out.Books[bookNames[b]] = shown(l.total(b))
	}
	out.Groups = l.lines(filled)
	slices.SortFunc(l.differences, func(a, b difference) int {
		return cmp.Or(strings.Compare(a.Book, b.Book), strings.Compare(a.What, b.What), strings.Compare(a.Key, b.Key), strings.Compare(a.Detail, b.Detail))
	})
	out.List, out.Total = l.differences, len(l.differences)
	return out, nil
}

func (r *reconciled) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (l *ledger) readStore(ctx context.Context, a *config.Attendance) error {
	s, err := store.OpenReader(ctx, storeOptions(a))
	if err != nil {
		return err
	}
	defer s.Close()
	at, err := s.Position(ctx)
	if err != nil {
		return err
	}
	l.asked = at.Next
	for row, err := range s.Rows(ctx, store.Filter{From: l.date, To: l.date, School: l.school}) {
		if err != nil {
			return err
		}
		l.enter(bookStore, &row.Receipt, row.Key(), row.Seq)
	}
	return nil
}

// readExport makes the export that a school gets, without the roster: who is
// absent is not in the other books, and a class that a check-in did not name is
// the roster's word.
func (l *ledger) readExport(ctx context.Context, c *config.Config) error {
	in := export.Input{Filter: export.Filter{From: l.date, To: l.date, School: l.school}}
	var err error
	if in.Schools, err = schoolsOf(c); err != nil {
		return err
	}
	facts, err := gatherFacts(ctx, c.Attendance, &in.Filter, false)
	if err != nil {
		return err
	}
	defer facts.close()
	in.Rows, in.AsOf = facts.rows(ctx), facts.asOf
	from, to := io.Pipe()
	go func() {
		_, err := export.Write(to, export.JSON, in)
		to.CloseWithError(err)
	}()
	defer from.Close()
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		var line export.Line
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return err
		}
		receipt, err := receiptOf(&line)
		if err != nil {
			return err
		}
		l.enter(bookExport, receipt, (&attendance.Row{Receipt: *receipt}).Key(), 0)
	}
	return lines.Err()
}

// receiptOf is what a line of the export says.
func receiptOf(l *export.Line) (*attendance.Receipt, error) {
	if l.Receipt == nil || l.FirstArrival == nil || l.Verified == nil {
		return nil, fmt.Errorf("a line of student %q has no receipt", l.Student)
	}
	r := &attendance.Receipt{School: l.School, Student: l.Student, Class: l.Class, Period: l.Period, Status: timetable.Status(l.Status), Verified: *l.Verified}
	var err error
	if r.ID, err = attendance.ParseReceiptID(*l.Receipt); err != nil {
		return nil, err
	}
	if r.Date, err = timetable.ParseDate(l.Date); err != nil {
		return nil, err
	}
	r.FirstArrival, err = time.Parse(time.RFC3339, *l.FirstArrival)
	return r, err
}

// checkDigest holds the journal, or where that does not reach back the store,
// against the digest recorded when the day was over. reaches says whether the
// journal has all of the day.
func (l *ledger) checkDigest(r *wal.Reader, out *reconciled) (reaches bool, err error) {
	for rec, err := range r.Records(0) {
		if err != nil {
			return false, err
		}
		if len(rec.Data) == 0 || attendance.Kind(rec.Data[0]) != attendance.KindDigest {
			continue
		}
		if e, err := attendance.DecodeEvent(rec.Data); err == nil && e.Date == l.date {
			l.digest = &e
		}
	}
	reaches = l.first <= 1 || l.beganBefore(r)
	if l.digest == nil {
		if !reaches {
			out.note("the journal begins with record %d and may not reach back to this day: what only the store has cannot be judged", l.first)
		}
		return reaches, nil
	}
	d := l.digest.Digest
	out.Digest = &digestShown{sumShown: shown(d.Sum), Before: d.Before, Made: l.digest.RawArrival}
	if l.school != "" {
		out.note("the day's digest counts all schools: it is checked without -school")
		return reaches, nil
	}
	sum, _, err := attendance.SumDay(attendance.ReadJournal(r), l.date, 0, d.Before)
	if err != nil {
		return reaches, err
	}
	where, b := "the journal comes", bookJournal
	if sum.Rows < d.Sum.Rows && !reaches {
		out.note("the journal begins with record %d and does not reach back to all of this day: the digest is held against the store", l.first)
		where, b, sum = "the store comes", bookStore, l.total(bookStore)
	}
	if sum != d.Sum {
		l.differ(b, "digest", fmt.Sprintf("recorded on %s were %v; %s to %v", l.digest.RawArrival.Format(time.RFC3339), d.Sum, where, sum))
	}
	return reaches, nil
}

// beganBefore says whether the journal's first check-in is of an earlier day.
func (l *ledger) beganBefore(r *wal.Reader) bool {
	for rec, err := range r.Records(0) {
		if err != nil {
			return false
		}
		e, err := attendance.DecodeEvent(rec.Data)
		if _, arrival := attendance.RowOf(&e); err == nil && arrival {
			return e.Date.Compare(l.date) < 0
		}
	}
	return true
}

// readSinks counts what each sink has of the day.
func (l *ledger) readSinks(a *config.Attendance, out *reconciled) error {
	prefix := l.date.String() + "/"
	for i := range a.Sinks {
		s := &a.Sinks[i]
		if s.TakesCollected() {
			continue
		}
		dir := filepath.Join(a.Journal, "sink-"+s.Name)
		at, err := sink.ReadPosition(dir)
		if err != nil {
			return fmt.Errorf("reading how far sink %s has come: %w", s.Name, err)
		}
		line := sinkShown{Name: s.Name, Next: at.Next}
		for _, acc := range l.accounts {
			if acc.has[bookJournal] && acc.decides.seq >= at.Next {
				line.Waiting++
			}
		}
		for p, err := range sink.ReadParked(dir) {
			if err != nil {
				return fmt.Errorf("reading what sink %s parked: %w", s.Name, err)
			}
			if strings.HasPrefix(p.Key, prefix) && (l.school == "" || strings.HasPrefix(p.Key[len(prefix):], l.school+"/")) {
				line.Parked++
				l.differences = append(l.differences, difference{Book: "sink " + s.Name, What: "parked", Key: p.Key, Detail: p.Reason})
			}
		}
		out.Sinks = append(out.Sinks, line)
	}
	return nil
}

// explain finds the keys of differences that know only a receipt, and what was
// altered.
func (l *ledger) explain(ctx context.Context, a *config.Attendance, r *wal.Reader) error {
	wanted := map[attendance.ReceiptID]bool{}
	for i := range l.differences {
		if id := l.differences[i].id; id != (attendance.ReceiptID{}) {
			wanted[id] = true
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	var fold attendance.Fold
	for rec, err := range r.Records(0) {
		if err != nil {
			return err
		}
		if !attendance.OfDay(rec.Data, l.date) {
			continue
		}
		if e, err := attendance.DecodeEvent(rec.Data); err == nil && wanted[e.ID] {
			e.Seq = rec.Seq
			fold.Add(&e)
		}
	}
	stored := map[attendance.ReceiptID]attendance.Row{}
	s, err := store.OpenReader(ctx, storeOptions(a))
	if err == nil {
		defer s.Close()
		for row, err := range s.Rows(ctx, store.Filter{From: l.date, To: l.date, School: l.school}) {
			if err != nil {
				break // said already
			}
			if wanted[row.ID] {
				stored[row.ID] = row
			}
		}
	}
	for i := range l.differences {
		l.differences[i].explain(&fold, stored)
	}
	return nil
}

func (d *difference) explain(fold *attendance.Fold, stored map[attendance.ReceiptID]attendance.Row) {
	if d.id == (attendance.ReceiptID{}) {
		return
	}
	row, inJournal := fold.Row(d.id)
	other, inStore := stored[d.id]
	switch {
	case inJournal:
		d.Key = row.Key()
	case inStore:
		d.Key = other.Key()
	default:
		d.Key = d.id.String()
	}
	if d.What == "altered" && d.Book == bookNames[bookStore] && inJournal && inStore {
		d.Detail = changedBetween(&row.Receipt, &other.Receipt)
	}
}

// changedBetween says which fields differ, the journal's first.
func changedBetween(journal, other *attendance.Receipt) string {
	names := strings.Split("receipt student_id school class_id date period first_arrival status verified", " ")
	a, b := strings.Split(string(journal.AppendLine(nil)), "\t"), strings.Split(string(other.AppendLine(nil)), "\t")
	var changed []string
	for i, name := range names {
		if i < len(a) && i < len(b) && a[i] != b[i] {
			changed = append(changed, fmt.Sprintf("%s is %q, the journal says %q", name, b[i], a[i]))
		}
	}
	return strings.Join(changed, ", ")
}

func (r *reconciled) writeList(w io.Writer) error {
	for i := range r.List {
		if _, err := w.Write(append(jsonLine(&r.List[i]), '\n')); err != nil {
			return err
		}
	}
	return nil
}
