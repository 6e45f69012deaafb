package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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
	fold, err := foldDay(r, date, ask.School, a.journal.Next())
	if err != nil {
		return nil, err
	}
	for _, m := range r.Missing() {
		out.Missing = append(out.Missing, fmt.Sprintf("%d-%d", m.From, m.To))
	}
	var corrections []attendance.Event
	for _, row := range fold.Rows() {
		if ask.Period != "" && row.Period != ask.Period {
			continue
		}
		out.Read++
		events, c := a.recorder.Judge(&row, schools.School(row.School), ask.Author, ask.Reason)
		if len(events) == 0 {
			continue
		}
		if was, there := fold.Row(events[len(events)-1].ID); there && events[len(events)-1].ID != row.ID && !better(&events[len(events)-1], &was) {
			events = events[:len(events)-1] // the other period has an earlier arrival already
			if len(events) == 0 {
				continue
			}
		}
		if out.Changed++; len(out.Changes) < changesShown {
			out.Changes = append(out.Changes, changeOf(&row, c))
		}
		corrections = append(corrections, events...)
	}
	if ask.DryRun {
		return out, nil
	}
	out.Recorded, err = a.record(ctx, corrections)
	return out, err
}

// better reports whether a correction would take the place of a row.
func better(e *attendance.Event, old *attendance.Row) bool {
	row, ok := attendance.RowOf(e)
	row.Seq = old.Seq // it may not displace what is about the same arrival
	return ok && row.Better(old)
}

// foldDay folds what the journal holds of one day, up to a position.
func foldDay(r *wal.Reader, date timetable.Date, school string, end uint64) (*attendance.Fold, error) {
	fold := new(attendance.Fold)
	for rec, err := range r.Records(0) {
		if err != nil {
			return nil, err
		}
		if rec.Seq >= end {
			break
		}
		if !attendance.OfDay(rec.Data, date) {
			continue
		}
		e, err := attendance.DecodeEvent(rec.Data)
		if err != nil || school != "" && e.School != school {
			continue
		}
		e.Seq = rec.Seq
		fold.Add(&e)
	}
	return fold, nil
}

// record appends corrections, some at a time.
func (a *attendant) record(ctx context.Context, events []attendance.Event) (recorded int, err error) {
	for len(events) > 0 {
		n := min(len(events), attendance.RecordMax)
		if err := a.recorder.Record(ctx, events[:n]); err != nil {
			if errors.Is(err, attendance.ErrBusy) && ctx.Err() == nil {
				time.Sleep(100 * time.Millisecond) // students first
				continue
			}
			return recorded, fmt.Errorf("after %d corrections: %w", recorded, err)
		}
		recorded += n
		events = events[n:]
	}
	return recorded, nil
}

func changeOf(row *attendance.Row, now *attendance.Judgement) change {
	return change{
		School: row.School, Class: row.Class, Student: row.Student, FirstArrival: row.FirstArrival.Format("15:04:05.000-07:00"),
		OldPeriod: row.Period, OldStatus: string(row.Status), Period: now.Period, Status: string(now.Status),
	}
}
