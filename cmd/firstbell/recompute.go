package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
	"firstbell/attendance/wal"
)

const recomputeUsage = `attendance recompute -config FILE -date DATE -reason TEXT [-author NAME] [-school ID] [-period NAME] [-dry-run]

Judges the check-ins of a day again by the timetable that FILE has now: after a
bell, a lesson or a holiday was wrong in it. What comes out differently is
appended to the journal as a correction, with author, reason and what stood there
before; nothing is rewritten, and the first arrival stays. Who turns out to have
come to another period gets a row there, and the old one becomes "outside".
Where serve runs it does the work; have it reload the file first.`

// recomputeAsk is what is to be judged again.
type recomputeAsk struct {
	Digest string `json:"digest"` // of the file that asks
	Date   string `json:"date"`
	School string `json:"school,omitempty"`
	Period string `json:"period,omitempty"` // of the rows as they stand
	Author string `json:"author"`
	Reason string `json:"reason"`
	DryRun bool   `json:"dry_run"`
}

// recomputed is what came of it.
type recomputed struct {
	Read     int      `json:"read"`     // rows of the day
	Changed  int      `json:"changed"`  // of them
	Recorded int      `json:"recorded"` // corrections, two for a row that moved
	Missing  []string `json:"missing,omitempty"`
	Changes  []change `json:"changes"` // the first of them
}

// change is one row that comes out differently.
type change struct {
	School       string `json:"school"`
	Class        string `json:"class_id"`
	Student      string `json:"student_id"`
	FirstArrival string `json:"first_arrival"`
	OldPeriod    string `json:"old_period"`
	OldStatus    string `json:"old_status"`
	Period       string `json:"period"`
	Status       string `json:"status"`
}

// changesShown bounds what is listed; all of them count.
const changesShown = 1000

func runRecompute(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var ask recomputeAsk
	f := newFlags("attendance recompute", recomputeUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	asJSON := f.Bool("json", false, "write JSON")
	f.StringVar(&ask.Date, "date", "", "`DATE` such as 2026-05-04")
	f.StringVar(&ask.School, "school", "", "only this school's `ID`")
	f.StringVar(&ask.Period, "period", "", "only rows that stand in this period's `NAME`, or outside")
	f.StringVar(&ask.Author, "author", os.Getenv("USER"), "`NAME` of who answers for it")
	f.StringVar(&ask.Reason, "reason", "", "`TEXT` that says why, at most 256 bytes")
	f.BoolVar(&ask.DryRun, "dry-run", false, "show what would change, record nothing")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if _, err := timetable.ParseDate(ask.Date); err != nil {
		return usageError("firstbell attendance recompute: -date: name the day, such as -date 2026-05-04")
	}
	if !ask.DryRun && (ask.Reason == "" || ask.Author == "") {
		return usageError("firstbell attendance recompute: say who and why: -author NAME -reason TEXT")
	}
	c, err := loadAttendance("attendance recompute", *file, stderr)
	if err != nil {
		return err
	}
	ask.Digest = c.Digest
	done, err := recomputeBy(ctx, &journalHand{name: "attendance recompute", file: *file, config: c, stderr: stderr}, &ask)
	if err != nil {
		return fmt.Errorf("judging %s again: %w", ask.Date, err)
	}
	if *asJSON {
		_, err := fmt.Fprintf(stdout, "%s\n", jsonLine(done))
		return err
	}
	printRecomputed(stdout, done, ask.DryRun)
	return nil
}

// recomputeBy has the running firstbell do it, or does it where none runs.
func recomputeBy(ctx context.Context, h *journalHand, ask *recomputeAsk) (*recomputed, error) {
	text, served, err := h.ask(ctx, "/attendance/recompute", ask)
	if err != nil {
		return nil, err
	}
	var done recomputed
	if served {
		return &done, json.Unmarshal(text, &done)
	}
	err = h.take(ctx, func(a *attendant) error {
		schools, err := schoolsOf(h.config)
		if err != nil {
			return err
		}
		r, err := a.recompute(ctx, schools, ask)
		if err == nil {
			done = *r
		}
		return err
	})
	return &done, err
}

func printRecomputed(w io.Writer, done *recomputed, dry bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(done.Changes) > 0 {
		fmt.Fprintln(t, "school\tclass\tstudent\tfirst arrival\twas\tis")
	}
	for _, c := range done.Changes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s %s\t%s %s\n", c.School, c.Class, c.Student, c.FirstArrival, c.OldPeriod, c.OldStatus, c.Period, c.Status)
	}
	t.Flush()
	if more := done.Changed - len(done.Changes); more > 0 {
		fmt.Fprintf(w, "… and %d more\n", more)
	}
	for _, m := range done.Missing {
		fmt.Fprintf(w, "MISSING: records %s of the journal cannot be read and were not judged\n", m)
	}
	end := fmt.Sprintf("%d corrections recorded", done.Recorded)
	if dry {
		end = "nothing recorded (-dry-run)"
	}
	fmt.Fprintf(w, "%d of %d check-ins come out differently; %s\n", done.Changed, done.Read, end)
}

// recompute judges a day's rows by the timetables of schools.
func (a *attendant) recompute(ctx context.Context, schools *attendance.Schools, ask *recomputeAsk) (*recomputed, error) {
	date, err := timetable.ParseDate(ask.Date)
	if err != nil {
		return nil, err
	}
	if !ask.DryRun && (ask.Author == "" || ask.Reason == "") {
		return nil, errors.New("nobody answers for it; name author and reason")
	}
	r, err := wal.OpenReader(a.dirs...)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out := &recomputed{Changes: []change{}}
	d := dayOf{r: r, date: date, school: ask.School, end: a.journal.Next()}
	if err := d.read(); err != nil {
		return nil, err
	}
	for _, m := range r.Missing() {
		out.Missing = append(out.Missing, fmt.Sprintf("%d-%d", m.From, m.To))
	}
	var corrections []attendance.Event
	for row, err := range d.rows() {
		if err != nil {
			return out, err
		}
		if ask.Period != "" && row.Period != ask.Period {
			continue
		}
		out.Read++
		events, c := a.recorder.Judge(&row, schools.School(row.School), ask.Author, ask.Reason)
		if n := len(events) - 1; n >= 0 && events[n].ID != row.ID && !d.gives(&events[n]) {
			events = events[:n] // the other period has an earlier arrival already
		}
		if len(events) == 0 {
			continue
		}
		if out.Changed++; len(out.Changes) < changesShown {
			out.Changes = append(out.Changes, changeOf(&row, c))
		}
		if ask.DryRun {
			continue
		}
		if corrections = append(corrections, events...); len(corrections) >= attendance.RecordMax-1 {
			if err := a.record(ctx, corrections, &out.Recorded); err != nil {
				return out, err
			}
			corrections = corrections[:0]
		}
	}
	slices.SortFunc(out.Changes, func(a, b change) int {
		return cmp.Or(strings.Compare(a.School, b.School), strings.Compare(a.Class, b.Class), strings.Compare(a.Student, b.Student), strings.Compare(a.OldPeriod, b.OldPeriod))
	})
	return out, a.record(ctx, corrections, &out.Recorded)
}

// dayOf is what the journal holds of one day, up to a position. It keeps of each
// row only which record decides it: a million rows take some 80 MB, beside
// students who check in, where whole rows would take ten times that.
type dayOf struct {
	r       *wal.Reader
	date    timetable.Date
	school  string // "": all
	end     uint64
	decides map[attendance.ReceiptID]deciding
}

// deciding is a record that decides a row, and what decides between records.
type deciding struct {
	seq      uint64
	firstMs  int64
	verified bool
}

func (d deciding) row() *attendance.Row {
	return &attendance.Row{Receipt: attendance.Receipt{FirstArrival: time.UnixMilli(d.firstMs), Verified: d.verified}, Seq: d.seq}
}

func decidingOf(r *attendance.Row) deciding {
	return deciding{r.Seq, r.FirstArrival.UnixMilli(), r.Verified}
}

// read finds out which records decide.
func (d *dayOf) read() error {
	d.decides = make(map[attendance.ReceiptID]deciding)
	for row, err := range d.records() {
		if err != nil {
			return err
		}
		if old, there := d.decides[row.ID]; !there || row.Better(old.row()) {
			d.decides[row.ID] = decidingOf(&row)
		}
	}
	return nil
}

// rows are the day's rows, in the order of the records that decide them.
func (d *dayOf) rows() iter.Seq2[attendance.Row, error] {
	return func(yield func(attendance.Row, error) bool) {
		for row, err := range d.records() {
			if (err != nil || d.decides[row.ID].seq == row.Seq) && !yield(row, err) {
				return
			}
		}
	}
}

// records are what each record of the day says.
func (d *dayOf) records() iter.Seq2[attendance.Row, error] {
	return func(yield func(attendance.Row, error) bool) {
		for rec, err := range d.r.Records(0) {
			if err != nil {
				yield(attendance.Row{}, err)
				return
			}
			if rec.Seq >= d.end {
				return
			}
			if !attendance.OfDay(rec.Data, d.date) {
				continue
			}
			e, err := attendance.DecodeEvent(rec.Data)
			if err != nil || d.school != "" && e.School != d.school {
				continue
			}
			e.Seq = rec.Seq
			if row, ok := attendance.RowOf(&e); ok && !yield(row, nil) {
				return
			}
		}
	}
}

// gives reports whether a correction would take the place of the row of its
// key, or there is none.
func (d *dayOf) gives(e *attendance.Event) bool {
	old, there := d.decides[e.ID]
	if !there {
		return true
	}
	row, ok := attendance.RowOf(e)
	row.Seq = old.seq // it may not displace what is about the same arrival
	return ok && row.Better(old.row())
}

// record appends corrections, some at a time, and counts them.
func (a *attendant) record(ctx context.Context, events []attendance.Event, recorded *int) error {
	for len(events) > 0 {
		n := min(len(events), attendance.RecordMax)
		if err := a.recorder.Record(ctx, events[:n]); err != nil {
			if errors.Is(err, attendance.ErrBusy) && ctx.Err() == nil {
				time.Sleep(100 * time.Millisecond) // students first
				continue
			}
			return fmt.Errorf("after %d corrections: %w", *recorded, err)
		}
		*recorded += n
		events = events[n:]
	}
	return nil
}

func changeOf(row *attendance.Row, now *attendance.Judgement) change {
	return change{
		School: row.School, Class: row.Class, Student: row.Student, FirstArrival: row.FirstArrival.Format("15:04:05.000-07:00"),
		OldPeriod: row.Period, OldStatus: string(row.Status), Period: now.Period, Status: string(now.Status),
	}
}
