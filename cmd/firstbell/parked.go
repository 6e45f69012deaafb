package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"firstbell/attendance/sink"
	"firstbell/cmd/firstbell/config"
)

const parkedUsage = `attendance parked -config FILE [-sink NAME] [-handled] [-json]

Lists what sinks would not take, with the reason: it was put aside so that
everything else goes on. -handled lists what was done about such records: by
whom, when and why. It reads files alone and works whether serve runs or not.`

const retryUsage = `attendance retry -config FILE [-sink NAME] -author NAME -reason TEXT (-all | KEY…)

Has the running firstbell send parked records again. What is taken now is not
parked any more; what is refused again stays, with the new reason.`

const dropUsage = `attendance drop -config FILE [-sink NAME] -author NAME -reason TEXT (-all | KEY…)

Has the running firstbell give up parked records for good. They stay in the
sink's file, marked, with who dropped them and why.`

// parkedLine is one parked record, or what was done about one.
type parkedLine struct {
	Sink string `json:"sink"`
	sink.Parked
}

func runParked(_ context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("attendance parked", parkedUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	only := f.String("sink", "", "only this sink's `NAME`")
	handled := f.Bool("handled", false, "list what was done about parked records")
	asJSON := f.Bool("json", false, "write a line of JSON per record")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	c, err := loadAttendance("attendance parked", *file, stderr)
	if err != nil {
		return err
	}
	lines, err := parkedLines(c.Attendance, *only, *handled)
	if err != nil {
		return fmt.Errorf("listing what is parked: %w", err)
	}
	if *asJSON {
		for _, l := range lines {
			if _, err := fmt.Fprintf(stdout, "%s\n", jsonLine(l)); err != nil {
				return err
			}
		}
		return nil
	}
	printParked(stdout, lines, *handled)
	return nil
}

// parkedLines reads the files of the sinks, those that are not in the
// configuration any more included.
func parkedLines(a *config.Attendance, only string, handled bool) ([]parkedLine, error) {
	dirs, err := filepath.Glob(filepath.Join(a.Journal, "sink-*"))
	if err != nil {
		return nil, err
	}
	read := sink.ReadParked
	if handled {
		read = sink.ReadHandled
	}
	var lines []parkedLine
	found := only == ""
	for _, dir := range dirs {
		name := strings.TrimPrefix(filepath.Base(dir), "sink-")
		if only != "" && only != name {
			continue
		}
		found = true
		for p, err := range read(dir) {
			if err != nil {
				return nil, err
			}
			p.Event = nil // bytes for a machine
			lines = append(lines, parkedLine{name, p})
		}
	}
	if !found {
		return nil, fmt.Errorf("no sink named %s has delivered anything yet; sinks are known by their name under attendance.sinks", only)
	}
	return lines, nil
}

func printParked(w io.Writer, lines []parkedLine, handled bool) {
	if len(lines) == 0 {
		fmt.Fprintln(w, "nothing")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		at := l.Time.Local().Format(time.DateTime)
		if handled {
			what := l.Settled
			if what == "" {
				what = "refused again: " + l.Reason
			}
			fmt.Fprintf(t, "%s\t%s\t%s\tby %s\t%s\t%s\n", at, l.Sink, l.Key, l.Author, what, l.Why)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", at, l.Sink, l.Key, l.Reason)
	}
	t.Flush()
	if !handled {
		fmt.Fprintf(w, "%d parked. Mend what the reason names, then firstbell attendance retry; or give them up with drop\n", len(lines))
	}
}

// parkedAsk is what is to be done about parked records.
type parkedAsk struct {
	Do     string   `json:"do"`             // retry or drop
	Sink   string   `json:"sink,omitempty"` // empty: all
	Keys   []string `json:"keys,omitempty"` // none: all, the oldest first
	Author string   `json:"author"`
	Reason string   `json:"reason"`
}

// parkedDone is what came of it.
type parkedDone struct {
	Handled []handledLine `json:"handled"`
	Parked  int           `json:"parked"`          // records that are parked now, of the sinks that were asked
	Error   string        `json:"error,omitempty"` // why it ended early
}

type handledLine struct {
	Sink string `json:"sink"`
	sink.Handled
}

func runRetry(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return handleParked(ctx, "retry", retryUsage, args, stdout, stderr)
}

func runDrop(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return handleParked(ctx, "drop", dropUsage, args, stdout, stderr)
}

func handleParked(ctx context.Context, do, usage string, args []string, stdout, stderr io.Writer) error {
	ask := parkedAsk{Do: do}
	f := newFlags("attendance "+do, usage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	all := f.Bool("all", false, "all that are parked, the oldest 10,000 of each sink first")
	f.StringVar(&ask.Sink, "sink", "", "only this sink's `NAME`")
	f.StringVar(&ask.Author, "author", os.Getenv("USER"), "`NAME` of who answers for it")
	f.StringVar(&ask.Reason, "reason", "", "`TEXT` that says why, at most 256 bytes")
	if err := f.Parse(args); err != nil {
		return parseFlags(f, args)
	}
	ask.Keys = f.Args()
	name := "firstbell attendance " + do
	switch {
	case *file == "":
		return usageError(name + ": name the file: -config FILE")
	case *all == (len(ask.Keys) > 0):
		return usageError(name + ": name the keys that firstbell attendance parked lists, or say -all")
	}
	if wrong := ask.wrong(); wrong != "" {
		return usageError(name + ": " + wrong)
	}
	text, _, err := askOps(ctx, "attendance "+do, *file, stderr, http.MethodPost, "/attendance/parked", bytes.NewReader(jsonLine(ask)))
	if errors.Is(err, errNobodyThere) {
		return fmt.Errorf("%w; parked records are dealt with by the firstbell that serves, which holds the sinks: start it, then ask again", err)
	}
	if err != nil {
		return err
	}
	var done parkedDone
	if err := json.Unmarshal(text, &done); err != nil {
		return fmt.Errorf("asking about parked records: the answer was %s", text)
	}
	return printHandled(stdout, &done)
}

// wrong says what the ask lacks; empty when nothing.
func (a *parkedAsk) wrong() string {
	switch {
	case a.Author == "" || a.Reason == "":
		return "say who and why: -author NAME -reason TEXT"
	case len(a.Author) > 256 || len(a.Reason) > 256 || !utf8.ValidString(a.Author+a.Reason):
		return "who and why are texts of at most 256 bytes each"
	case a.Do != "retry" && a.Do != "drop":
		return fmt.Sprintf("%.20q is neither retry nor drop", a.Do)
	}
	return ""
}

func printHandled(w io.Writer, done *parkedDone) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	still := 0
	for _, h := range done.Handled {
		if h.Result == "parked" {
			still++
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", h.Sink, h.Key, h.Result, h.Reason)
	}
	t.Flush()
	fmt.Fprintf(w, "%d dealt with, %d are parked now\n", len(done.Handled)-still, done.Parked)
	switch {
	case done.Error != "":
		return errors.New(done.Error)
	case still > 0:
		return fmt.Errorf("%d were refused again", still)
	}
	return nil
}

// errNoSink says that a name is no sink's.
var errNoSink = errors.New("there is no sink of that name")

// handle does what is asked about parked records.
func (a *attendant) handle(ctx context.Context, ask *parkedAsk) (*parkedDone, error) {
	done, found := &parkedDone{Handled: []handledLine{}}, ask.Sink == ""
	by := sink.Asked{Author: ask.Author, Why: ask.Reason}
	for _, s := range a.sinks {
		if ask.Sink != "" && s.name != ask.Sink {
			continue
		}
		found = true
		do := s.target.Retry
		if ask.Do == "drop" {
			do = s.target.Drop
		}
		handled, err := do(ctx, ask.Keys, by)
		for _, h := range handled {
			done.Handled = append(done.Handled, handledLine{s.name, h})
			a.log.Info("a parked record was dealt with", "sink", s.name, "key", h.Key, "position", h.Position, "asked", ask.Do, "result", h.Result, "author", by.Author, "reason", by.Why)
		}
		done.Parked += s.target.ParkedNow()
		if err != nil {
			done.Error = err.Error()
			return done, nil
		}
	}
	if !found {
		return nil, errNoSink
	}
	for _, key := range ask.Keys {
		if !slices.ContainsFunc(done.Handled, func(h handledLine) bool { return h.Key == key }) {
			done.Error = fmt.Sprintf("%s is not parked; firstbell attendance parked lists what is", key)
		}
	}
	return done, nil
}

// serveParked answers POST /attendance/parked.
func (s *server) serveParked(w http.ResponseWriter, r *http.Request) {
	takes := s.attendance(w)
	if takes == nil {
		return
	}
	var ask parkedAsk
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<20)) // 10,000 long keys
	in.DisallowUnknownFields()
	if err := in.Decode(&ask); err != nil {
		http.Error(w, "reading what is asked: "+err.Error(), http.StatusBadRequest)
		return
	}
	if wrong := ask.wrong(); wrong != "" {
		http.Error(w, wrong, http.StatusBadRequest)
		return
	}
	done, err := takes.handle(r.Context(), &ask)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	sayJSON(w, http.StatusOK, done)
}
