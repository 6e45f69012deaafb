package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
	"firstbell/attendance/wal"
)

const contradictionsUsage = `attendance contradictions -config FILE [-date DATE] [-school ID] [-json]

Lists check-ins that named another student, or another class, than the credential
they came with: they were refused with 403 and stand in the journal as evidence.
It reads the journal alone, as far back as that goes (attendance.retention), and
works whether serve runs or not; what happened in the last seconds may be missing,
and a count may lag behind until it has doubled or an hour has passed.`

// contradictionLine is what one credential claimed on one day.
type contradictionLine struct {
	Date    string `json:"date"`
	School  string `json:"school"`
	Student string `json:"student_id"` // whose the credential is; empty: of several
	Field   string `json:"differs_in"`
	Claimed string `json:"claimed"` // empty: several
	Times   uint32 `json:"times"`
	First   string `json:"first"`
	Last    string `json:"last"`
}

func runContradictions(_ context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("attendance contradictions", contradictionsUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	date := f.String("date", "", "only this `DATE`, such as 2026-05-04")
	school := f.String("school", "", "only this school's `ID`")
	asJSON := f.Bool("json", false, "write a line of JSON per entry")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if _, err := timetable.ParseDate(*date); *date != "" && err != nil {
		return usageError("firstbell attendance contradictions: -date: name the day, such as -date 2026-05-04")
	}
	c, err := loadAttendance("attendance contradictions", *file, stderr)
	if err != nil {
		return err
	}
	lines, missing, err := contradictionLines([]string{c.Attendance.Journal, c.Attendance.JournalSpare}, *date, *school)
	if err != nil {
		return fmt.Errorf("listing contradictions: %w", err)
	}
	if missing > 0 {
		fmt.Fprintf(stderr, "firstbell: %d stretches of the journal are missing, and with them what they told; see firstbell inspect\n", missing)
	}
	if !*asJSON {
		printContradictions(stdout, lines)
		return nil
	}
	for _, l := range lines {
		if _, err := fmt.Fprintf(stdout, "%s\n", jsonLine(l)); err != nil {
			return err
		}
	}
	return nil
}

func contradictionLines(dirs []string, date, school string) (lines []contradictionLine, missing int, err error) {
	r, err := wal.OpenReader(dirs...)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	events, err := attendance.Contradictions(attendance.ReadJournal(r))
	if err != nil {
		return nil, 0, err
	}
	for i := range events {
		e := &events[i]
		if date != "" && e.Date.String() != date || school != "" && e.School != school {
			continue
		}
		c := e.Contradiction
		lines = append(lines, contradictionLine{
			Date: e.Date.String(), School: e.School, Student: e.Student, Field: c.Field, Claimed: c.Claimed, Times: c.Times,
			First: e.FirstArrival.Format(time.RFC3339), Last: c.Last.In(e.FirstArrival.Location()).Format(time.RFC3339),
		})
	}
	return lines, len(r.Missing()), nil
}

func printContradictions(w io.Writer, lines []contradictionLine) {
	if len(lines) == 0 {
		fmt.Fprintln(w, "nothing")
		return
	}
	several := func(s string) string {
		if s == "" {
			return "(several)"
		}
		return s
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "date\tschool\tcredential of\tnamed\t\ttimes\tfirst\tlast")
	for _, l := range lines {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", l.Date, several(l.School), several(l.Student), l.Field, several(l.Claimed), l.Times, l.First[11:19], l.Last[11:19])
	}
	t.Flush()
}
