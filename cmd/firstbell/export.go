package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"firstbell/attendance/export"
	"firstbell/attendance/roster"
	"firstbell/attendance/timetable"
	"firstbell/cmd/firstbell/config"
)

const exportUsage = `export -config FILE [-date DATE] [-school ID] [-class ID] [-period NAME] [-format csv|xlsx|jsonl] [-o FILE]

Writes the register: who was present, late, absent or outside any period. It is
complete whether serve runs or not: what is in the store, and what the journal
holds beyond. What it rests on goes to standard error. When something could not
be read it exits with 1 and writes nothing, unless -partial asks for the rest.`

// exportOptions are the flags of export.
type exportOptions struct {
	file    string
	filter  export.Filter
	format  export.Format
	out     string
	partial bool
}

func exportOptionsOf(args []string, stderr io.Writer) (o exportOptions, dates string, err error) {
	var format string
	f := newFlags("export", exportUsage, stderr)
	f.StringVar(&o.file, "config", "", "`FILE` that serve runs with")
	f.StringVar(&dates, "date", "", "`DATE` such as 2026-05-04, or first..last; today unless said")
	f.StringVar(&o.filter.School, "school", "", "only this school's `ID`")
	f.StringVar(&o.filter.Class, "class", "", "only this class's `ID`")
	f.StringVar(&o.filter.Period, "period", "", "only this period's `NAME`")
	f.StringVar(&format, "format", "", "csv, xlsx or jsonl; what the name of -o ends in, else csv")
	f.StringVar(&o.out, "o", "", "`FILE` to write, complete or not at all; standard output unless said")
	f.BoolVar(&o.partial, "partial", false, "write what can be read, and say what could not")
	if err := parseFlags(f, args); err != nil {
		return o, "", err
	}
	if o.file == "" {
		return o, "", usageError("firstbell export: name the file: -config FILE")
	}
	if format == "" {
		format = formatOf(o.out)
	}
	if o.format, err = export.ParseFormat(format); err != nil {
		return o, "", usageError("firstbell export: -format: " + err.Error())
	}
	return o, dates, nil
}

// formatOf is what a file's name ends in, csv when that is no format.
func formatOf(name string) string {
	ending := name[strings.LastIndex(name, ".")+1:]
	if _, err := export.ParseFormat(ending); err == nil {
		return ending
	}
	return string(export.CSV)
}

func runExport(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, dates, err := exportOptionsOf(args, stderr)
	if err != nil {
		return err
	}
	c, problems := config.LoadToRead(o.file)
	if c == nil {
		printProblems(stderr, problems.Errors())
		return said(problems.Errors())
	}
	if c.Attendance == nil {
		return fmt.Errorf("exporting: %s has no attendance section, so nobody checked in", o.file)
	}
	if o.filter.From, o.filter.To, err = parseDates(dates, time.Now().In(c.Location)); err != nil {
		return usageError("firstbell export: -date: " + err.Error())
	}
	summary, err := exportTo(ctx, c, &o, stdout)
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	for _, f := range summary.Facts() {
		fmt.Fprintf(stderr, "%s: %s\n", f.Name, f.Value)
	}
	return nil
}

// parseDates reads a day, or the first and the last with .. between.
func parseDates(text string, now time.Time) (from, to timetable.Date, err error) {
	if text == "" {
		return timetable.DateOf(now), timetable.Date{}, nil
	}
	first, last, several := strings.Cut(text, "..")
	if from, err = timetable.ParseDate(first); err == nil && several {
		to, err = timetable.ParseDate(last)
	}
	return from, to, err
}

// exportTo gathers the facts and writes them.
func exportTo(ctx context.Context, c *config.Config, o *exportOptions, stdout io.Writer) (*export.Summary, error) {
	in := export.Input{Filter: o.filter}
	var err error
	if in.Schools, err = schoolsOf(c); err != nil {
		return nil, err
	}
	for _, s := range c.Schools.List {
		in.SchoolIDs = append(in.SchoolIDs, s.ID)
	}
	facts, err := gatherFacts(ctx, c.Attendance, &o.filter, o.partial)
	if err != nil {
		return nil, err
	}
	defer facts.close()
	in.Rows, in.AsOf = facts.rows(ctx), facts.asOf
	if in.AsOf.At = time.Now().In(c.Location); c.Attendance.Roster != "" {
		in.Roster, _, err = roster.Load(c.Attendance.Roster)
		if err != nil && !o.partial {
			return nil, fmt.Errorf("reading the roster: %w (-partial writes the register without it)", err)
		}
		if err != nil {
			in.AsOf.Incidents = append(in.AsOf.Incidents, fmt.Sprintf("the roster could not be read, who is absent is unknown: %v", err))
		}
	}
	var summary *export.Summary
	write := func(w io.Writer) error {
		summary, err = export.Write(w, o.format, in)
		return err
	}
	if o.out != "" {
		err = export.ToFile(o.out, write)
	} else {
		err = write(stdout)
	}
	if errors.Is(err, os.ErrPermission) && o.out != "" {
		err = fmt.Errorf("%w; name a file by -o that can be written", err)
	}
	return summary, err
}
