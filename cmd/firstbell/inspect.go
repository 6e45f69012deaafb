package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/sink"
	"firstbell/attendance/wal"
	"firstbell/cmd/firstbell/config"
)

const inspectUsage = `inspect -config FILE, or inspect DIR [SPARE], or inspect -frames SEGMENT, or inspect cache …

Shows the journal in DIR: its segments, how many records each holds, damage and
missing numbers, and what sinks have parked. It takes no lock and writes nothing,
whether serve runs or not. It exits with 1 when acknowledged records are missing.
inspect cache lists what the cache keeps on disk; see inspect cache -h.`

func runInspect(_ context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "cache" {
		return runInspectCache(args[1:], stdout, stderr)
	}
	f := newFlags("inspect", inspectUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	records := f.Bool("records", false, "list the records, decoded")
	from := f.Uint64("from", 0, "with -records: begin with record `N`")
	frames := f.String("frames", "", "show what lies in one `SEGMENT` file, frame by frame, also behind its end and where it is damaged")
	asJSON := f.Bool("json", false, "write JSON: the report, or with -records or -frames a line each")
	if err := f.Parse(args); err != nil {
		return parseFlags(f, args)
	}
	if *frames != "" {
		if *file != "" || f.NArg() > 0 || *records {
			return usageError("firstbell inspect: -frames SEGMENT stands alone: it shows one file, whatever others say")
		}
		return dumpFrames(stdout, *frames, *asJSON)
	}
	dirs, err := journalDirs(*file, f.Args(), stderr)
	if err != nil {
		return err
	}
	if *records {
		return dumpRecords(stdout, dirs, *from, *asJSON)
	}
	report, err := wal.Inspect(dirs...)
	if err != nil {
		return fmt.Errorf("inspecting: %w", err)
	}
	parked, err := readParked(dirs[0])
	if err != nil {
		return fmt.Errorf("inspecting: %w", err)
	}
	if *asJSON {
		err = printJournalJSON(stdout, report, parked)
	} else {
		printJournal(stdout, dirs, report, parked)
	}
	if err == nil && len(report.Missing) > 0 {
		err = fmt.Errorf("inspecting: %d stretches of acknowledged records are missing", len(report.Missing))
	}
	return err
}

// journalDirs is where the journal lies: named, or as the file says.
func journalDirs(file string, named []string, stderr io.Writer) ([]string, error) {
	switch {
	case file == "" && len(named) == 0 || file != "" && len(named) > 0 || len(named) > 2:
		return nil, usageError("firstbell inspect: name the file by -config FILE, or the journal's directory")
	case file == "":
		for _, d := range named {
			if info, err := os.Stat(d); err != nil || !info.IsDir() {
				return nil, fmt.Errorf("inspecting: %s is not a directory", d)
			}
		}
		return named, nil
	}
	c, problems := config.LoadToRead(file)
	if c == nil {
		printProblems(stderr, problems.Errors())
		return nil, said(problems.Errors())
	}
	if c.Attendance == nil {
		return nil, fmt.Errorf("inspecting: %s has no attendance section, so there is no journal", file)
	}
	return []string{c.Attendance.Journal, c.Attendance.JournalSpare}, nil
}

func printJournal(w io.Writer, dirs []string, r *wal.Report, parked map[string][]sink.Parked) {
	fmt.Fprintf(w, "journal %s\n\n", strings.TrimSpace(strings.Join(dirs, " ")))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "segment\tstate\tfirst\tlast\trecords\tbytes used\tof\tbegun\thost")
	var records int64
	for _, s := range r.Segments {
		records += s.Records
		begun := ""
		if !s.Created.IsZero() {
			begun = s.Created.Local().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", filepath.Base(s.Path), s.State, s.First, s.Last, s.Records, s.Used, s.Bytes, begun, s.Host)
	}
	t.Flush()
	fmt.Fprintf(w, "\n%d records in %d segments\n", records, len(r.Segments))
	for _, d := range r.Damages {
		kind := "note"
		if d.Alarm() {
			kind = "DAMAGE"
		}
		fmt.Fprintf(w, "%s: %s\n", kind, d)
	}
	for _, m := range r.Missing {
		fmt.Fprintf(w, "MISSING: records %d to %d may have been acknowledged and cannot be read\n", m.From, m.To)
	}
	for _, f := range r.SetAside {
		fmt.Fprintf(w, "set aside: %s\n", f)
	}
	for _, name := range config.SortedKeys(parked) {
		fmt.Fprintf(w, "\nsink %s parked %d:\n", name, len(parked[name]))
		for _, p := range parked[name] {
			fmt.Fprintf(w, "  %s\n", jsonLine(p))
		}
	}
}

func jsonLine(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return []byte(err.Error())
	}
	return text
}

// readParked is what each sink beside the journal has put aside.
func readParked(dir string) (map[string][]sink.Parked, error) {
	dirs, err := filepath.Glob(filepath.Join(dir, "sink-*"))
	if err != nil {
		return nil, err
	}
	out := map[string][]sink.Parked{}
	for _, d := range dirs {
		name := strings.TrimPrefix(filepath.Base(d), "sink-")
		for p, err := range sink.ReadParked(d) {
			if err != nil {
				return nil, err
			}
			p.Event = nil // bytes for a machine
			out[name] = append(out[name], p)
		}
	}
	return out, nil
}

// journalJSON is the report with names that stay.
type journalJSON struct {
	Segments []segmentJSON            `json:"segments"`
	Records  int64                    `json:"records"`
	Damage   []string                 `json:"damage"`
	Missing  []wal.Range              `json:"missing"`
	SetAside []string                 `json:"set_aside"`
	Parked   map[string][]sink.Parked `json:"parked"`
}

type segmentJSON struct {
	Path    string    `json:"path"`
	State   string    `json:"state"`
	Host    string    `json:"host"`
	Created time.Time `json:"created"`
	Begun   string    `json:"begun"`
	First   uint64    `json:"first"`
	Last    uint64    `json:"last"`
	Records int64     `json:"records"`
	Bytes   int64     `json:"bytes"`
	Used    int64     `json:"used"`
}

func printJournalJSON(w io.Writer, r *wal.Report, parked map[string][]sink.Parked) error {
	out := journalJSON{Segments: []segmentJSON{}, Damage: []string{}, Missing: r.Missing, SetAside: r.SetAside, Parked: parked}
	for _, s := range r.Segments {
		out.Records += s.Records
		out.Segments = append(out.Segments, segmentJSON{
			Path: s.Path, State: string(s.State), Host: s.Host, Created: s.Created, Begun: s.Begun,
			First: s.First, Last: s.Last, Records: s.Records, Bytes: s.Bytes, Used: s.Used,
		})
	}
	for _, d := range r.Damages {
		out.Damage = append(out.Damage, d.String())
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// dumpRecords lists the journal's events, one line each.
func dumpRecords(w io.Writer, dirs []string, from uint64, asJSON bool) error {
	r, err := wal.OpenReader(dirs...)
	if err != nil {
		return fmt.Errorf("inspecting: %w", err)
	}
	defer r.Close()
	for rec, err := range r.Records(from) {
		if err != nil {
			return fmt.Errorf("inspecting: %w", err)
		}
		e, err := attendance.DecodeEvent(rec.Data)
		e.Seq = rec.Seq
		line := eventText(&e, err, len(rec.Data))
		if asJSON {
			line = string(jsonLine(eventLine(&e, err)))
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	for _, m := range r.Missing() {
		fmt.Fprintf(w, "MISSING: records %d to %d\n", m.From, m.To)
	}
	return nil
}

// frameJSON is one frame for scripts.
type frameJSON struct {
	Offset int64      `json:"offset"`
	Bytes  int64      `json:"bytes"`
	Kind   string     `json:"kind"` // link, record, end, or "no frame"
	Seq    uint64     `json:"seq,omitempty"`
	Place  uint32     `json:"place"`
	Data   []byte     `json:"data,omitempty"` // base64
	Event  *eventJSON `json:"event,omitempty"`
}

// dumpFrames shows one segment file front to back.
func dumpFrames(w io.Writer, segment string, asJSON bool) error {
	for fr, err := range wal.Dump(segment) {
		if err != nil {
			return fmt.Errorf("inspecting: %w", err)
		}
		if _, err := fmt.Fprintln(w, frameLine(&fr, asJSON)); err != nil {
			return err
		}
	}
	return nil
}

func frameLine(fr *wal.Frame, asJSON bool) string {
	out := frameJSON{Offset: fr.Offset, Bytes: fr.Bytes, Kind: fr.Kind, Seq: fr.Seq, Place: fr.Place, Data: fr.Data}
	text := fmt.Sprintf("%d\t%d bytes\t%s", fr.Offset, fr.Bytes, fr.Kind)
	if fr.Kind == "record" {
		e, err := attendance.DecodeEvent(fr.Data)
		e.Seq = fr.Seq
		event := eventLine(&e, err)
		out.Event = &event
		text += fmt.Sprintf("\tplace %d\t%s\n\t%x", fr.Place, eventText(&e, err, len(fr.Data)), fr.Data)
	} else if fr.Seq != 0 {
		text += fmt.Sprintf("\tnumber %d", fr.Seq)
	}
	if asJSON {
		return string(jsonLine(out))
	}
	return text
}

var kindNames = map[attendance.Kind]string{
	attendance.KindArrival: "arrival", attendance.KindPresses: "presses", attendance.KindVerifiedArrival: "verified-arrival",
	attendance.KindCollected: "collected", attendance.KindRepeats: "repeats", attendance.KindContradiction: "contradiction",
	attendance.KindCorrection: "correction", attendance.KindDigest: "digest", attendance.KindSeal: "seal",
}

func kindName(k attendance.Kind) string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind-%d", k)
}

func eventText(e *attendance.Event, err error, bytes int) string {
	switch {
	case err != nil:
		return fmt.Sprintf("%d\tunreadable, %d bytes: %v", e.Seq, bytes, err)
	case e.Kind == attendance.KindCollected:
		c := e.Collected // its body is its sender's business
		return fmt.Sprintf("%d\tcollected\t%s\t%s\tschool=%q sink=%q path=%q key=%q\t%s\t%d bytes of %q", e.Seq, e.ID, e.Date,
			e.School, c.Sink, c.Path, c.Key, e.FirstArrival.Format("15:04:05.000Z07:00"), len(c.Body), c.ContentType)
	case e.Kind == attendance.KindRepeats:
		return fmt.Sprintf("%d\trepeats\t%s\t%s\t%d, %d with another body", e.Seq, e.ID, e.Date, e.Repeats, e.Differing)
	case e.Kind == attendance.KindContradiction:
		c := e.Contradiction
		return fmt.Sprintf("%d\tcontradiction\t%s\t%s\tschool=%q credential_of=%q %s=%q\t%d times since %s", e.Seq, e.ID, e.Date,
			e.School, e.Student, c.Field, c.Claimed, c.Times, e.FirstArrival.Format("15:04:05.000Z07:00"))
	case e.Kind == attendance.KindPresses:
		return fmt.Sprintf("%d\tpresses\t%s\t%s\t%d", e.Seq, e.ID, e.Date, e.Presses)
	case e.Kind == attendance.KindSeal:
		return fmt.Sprintf("%d\tseal\tof %d records\tkey=%s root=%x", e.Seq, e.Seal.Leaves, e.Seal.Key, e.Seal.Root)
	case e.Kind == attendance.KindDigest:
		return fmt.Sprintf("%d\tdigest\t%s\tbefore %d: %s", e.Seq, e.Date, e.Digest.Before, e.Digest.Sum)
	case e.Kind == attendance.KindCorrection:
		c := e.Correction
		return fmt.Sprintf("%d\tcorrection\t%s\t%s\tschool=%q student=%q period %q -> %q, %s -> %s, by %q: %q", e.Seq, e.ID, e.Date,
			e.School, e.Student, c.OldPeriod, e.Period, c.OldStatus, e.Status, c.Author, c.Reason)
	case e.Kind == attendance.KindArrival || e.Kind == attendance.KindVerifiedArrival:
		return fmt.Sprintf("%d\t%s\t%s\t%s\tschool=%q period=%q student=%q class=%q\t%s\t%s", e.Seq, kindName(e.Kind), e.ID, e.Date,
			e.School, e.Period, e.Student, e.Class, e.FirstArrival.Format("15:04:05.000Z07:00"), e.Status)
	}
	return fmt.Sprintf("%d\t%s, %d bytes", e.Seq, kindName(e.Kind), bytes)
}

// eventJSON is one record for scripts.
type eventJSON struct {
	Seq          uint64 `json:"seq"`
	Kind         string `json:"kind"`
	Error        string `json:"error,omitempty"`
	Receipt      string `json:"receipt,omitempty"`
	Date         string `json:"date,omitempty"`
	School       string `json:"school,omitempty"`
	Period       string `json:"period,omitempty"`
	Student      string `json:"student_id,omitempty"`
	Class        string `json:"class_id,omitempty"`
	FirstArrival string `json:"first_arrival,omitempty"`
	RawArrival   string `json:"raw_arrival,omitempty"`
	Status       string `json:"status,omitempty"`
	Verified     bool   `json:"verified"`
	Timetable    string `json:"timetable,omitempty"`
	Presses      uint32 `json:"presses,omitempty"`
	Sink         string `json:"sink,omitempty"`
	Path         string `json:"path,omitempty"`
	Key          string `json:"key,omitempty"`
	ContentType  string `json:"content_type,omitempty"`
	Bytes        int    `json:"bytes,omitempty"`
	Repeats      uint32 `json:"repeats,omitempty"`
	Differing    uint32 `json:"differing,omitempty"`

	// Of contradictions; student_id is whose the credential is.
	DiffersIn   string `json:"differs_in,omitempty"`
	Claimed     string `json:"claimed,omitempty"`
	Times       uint32 `json:"times,omitempty"`
	LastArrival string `json:"last_arrival,omitempty"`

	// Of corrections.
	Of        uint64 `json:"of,omitempty"`
	OldPeriod string `json:"old_period,omitempty"`
	OldStatus string `json:"old_status,omitempty"`
	Author    string `json:"author,omitempty"`
	Reason    string `json:"reason,omitempty"`

	// Of digests of a day.
	Before uint64 `json:"before,omitempty"`
	Rows   uint64 `json:"rows,omitempty"`
	Digest string `json:"digest,omitempty"`

	// Of seals.
	Leaves uint32 `json:"leaves,omitempty"`
	Root   string `json:"root,omitempty"`
}

func eventLine(e *attendance.Event, err error) eventJSON {
	out := eventJSON{Seq: e.Seq, Kind: kindName(e.Kind)}
	if err != nil {
		out.Error = err.Error()
		return out
	}
	if _, known := kindNames[e.Kind]; !known {
		return out
	}
	switch {
	case e.Seal != nil:
		out.Leaves, out.Key, out.Root = e.Seal.Leaves, e.Seal.Key.String(), fmt.Sprintf("%x", e.Seal.Root)
		return out
	case e.Digest != nil:
		out.Date, out.RawArrival = e.Date.String(), e.RawArrival.Format(time.RFC3339Nano)
		out.Before, out.Rows, out.Digest = e.Digest.Before, e.Digest.Sum.Rows, fmt.Sprintf("%x", e.Digest.Sum.Digest)
		return out
	case e.Correction != nil:
		c := e.Correction
		out.Of, out.OldPeriod, out.OldStatus, out.Author, out.Reason = c.Of, c.OldPeriod, string(c.OldStatus), c.Author, c.Reason
	}
	out.Receipt, out.Date, out.Presses = e.ID.String(), e.Date.String(), e.Presses
	out.RawArrival = e.RawArrival.Format(time.RFC3339Nano)
	switch e.Kind {
	case attendance.KindCollected:
		c := e.Collected
		out.School, out.Sink, out.Path, out.Key, out.ContentType, out.Bytes = e.School, c.Sink, c.Path, c.Key, c.ContentType, len(c.Body)
		return out
	case attendance.KindRepeats:
		out.Repeats, out.Differing = e.Repeats, e.Differing
		return out
	case attendance.KindContradiction:
		c := e.Contradiction
		out.School, out.Student, out.DiffersIn, out.Claimed, out.Times = e.School, e.Student, c.Field, c.Claimed, c.Times
		out.FirstArrival, out.LastArrival = e.FirstArrival.Format(time.RFC3339Nano), c.Last.Format(time.RFC3339Nano)
		return out
	}
	if e.Kind != attendance.KindPresses {
		out.School, out.Period, out.Student, out.Class = e.School, e.Period, e.Student, e.Class
		out.FirstArrival, out.Status = e.FirstArrival.Format(time.RFC3339Nano), string(e.Status)
		out.Verified, out.Timetable = e.Verified, e.Timetable
	}
	return out
}
