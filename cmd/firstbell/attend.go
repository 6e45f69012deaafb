package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"firstbell/attendance"
	"firstbell/attendance/wal"
	"firstbell/cmd/firstbell/config"
)

const attendanceUsage = `usage: firstbell attendance COMMAND [flags]

`

// attendanceCommands are the second words after firstbell attendance.
func attendanceCommands() []command {
	return []command{
		{"recompute", "judge the check-ins of a day again after a wrong timetable", runRecompute},
		{"parked", "list what sinks would not take, and why", runParked},
		{"retry", "send parked records again", runRetry},
		{"drop", "give parked records up", runDrop},
		{"contradictions", "list check-ins that named somebody else than their credential", runContradictions},
		{"keys", "show or rotate the keys that receipts are sealed with", runKeys},
	}
}

// runAttendance does what its second word says.
func runAttendance(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-h") || args[0] == "--help" || args[0] == "help" {
		out := stderr
		fmt.Fprint(out, attendanceUsage)
		for _, c := range attendanceCommands() {
			fmt.Fprintf(out, "  %-14s %s\n", c.name, c.summary)
		}
		if len(args) == 0 {
			return said(usageError("no command given"))
		}
		return flag.ErrHelp
	}
	for _, c := range attendanceCommands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], stdout, stderr)
		}
	}
	return usageError(fmt.Sprintf("firstbell attendance: there is no command %q; see firstbell attendance -h", args[0]))
}

// loadAttendance reads the file of a command that needs its attendance section.
func loadAttendance(name, file string, stderr io.Writer) (*config.Config, error) {
	if file == "" {
		return nil, usageError("firstbell " + name + ": name the file: -config FILE")
	}
	c, problems := config.LoadToRead(file)
	if c == nil {
		printProblems(stderr, problems.Errors())
		return nil, said(problems.Errors())
	}
	if c.Attendance == nil {
		return nil, fmt.Errorf("%s has no attendance section, so there is no journal", file)
	}
	return c, nil
}

// A journalHand is what a command does to the journal: it asks the firstbell
// that serves, or, where none does, takes the journal itself.
type journalHand struct {
	name, file string
	config     *config.Config
	stderr     io.Writer
}

// errServes says that another process holds the journal and does not answer.
var errServes = errors.New("firstbell serve runs and cannot be asked")

// ask sends a request to the running firstbell. served is false when none runs:
// then the journal is free for whoever takes it.
func (h *journalHand) ask(ctx context.Context, path string, body any) (text []byte, served bool, err error) {
	if h.config.Listen.Ops == "" {
		return nil, false, nil
	}
	text, _, err = askOps(ctx, h.name, h.file, h.stderr, http.MethodPost, path, bytes.NewReader(jsonLine(body)))
	if errors.Is(err, errNobodyThere) {
		return nil, false, nil
	}
	return text, true, err
}

// take opens journal and recorder as serve does, without anything else, runs
// what is wanted, and closes them. Where serve runs, it says so and does nothing.
func (h *journalHand) take(ctx context.Context, work func(a *attendant) error) (err error) {
	conf := h.config.Attendance
	a := &attendant{log: newLogger(h.stderr, "text"), dirs: []string{conf.Journal, conf.JournalSpare}}
	schools, err := schoolsOf(h.config)
	if err != nil {
		return err
	}
	a.journal, err = wal.Open(journalOptions(conf, 0))
	if errors.Is(err, wal.ErrLocked) {
		return fmt.Errorf("%w: %w; give it an ops listener (listen: {ops: \"127.0.0.1:9900\"}), or end it first", errServes, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.journal.Close()) }()
	if a.keys, err = attendance.OpenKeys(conf.Signing.Keys); err != nil {
		return err
	}
	if err = a.openRecorder(conf, schools, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	a.recording.Go(func() { a.lastErr = a.recorder.Run(ctx) })
	err = work(a)
	cancel()
	a.recording.Wait()
	return errors.Join(err, a.lastErr)
}

const keysUsage = `attendance keys -config FILE [-rotate] [-o FILE]

Writes the public keys that receipts are checked with, as a JWK Set: what
/.well-known/firstbell/keys answers. -rotate first has another key made; batches
are sealed with it from then on, and what was sealed before stays provable.`

func runKeys(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("attendance keys", keysUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	rotate := f.Bool("rotate", false, "make another key first")
	out := f.String("o", "", "`FILE` to write; standard output unless said")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	c, err := loadAttendance("attendance keys", *file, stderr)
	if err != nil {
		return err
	}
	if *rotate {
		h := &journalHand{name: "attendance keys", file: *file, config: c, stderr: stderr}
		_, served, err := h.ask(ctx, "/attendance/keys/rotate", nil)
		if err == nil && !served {
			err = h.take(ctx, (*attendant).rotateKeys)
		}
		if err != nil {
			return fmt.Errorf("rotating the signing key: %w", err)
		}
	}
	keys, err := attendance.ReadPublicKeys(c.Attendance.Signing.Keys)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return fmt.Errorf("there are no keys in %s yet; firstbell serve makes the first one", c.Attendance.Signing.Keys)
	}
	text := attendance.MarshalKeys(keys)
	if *out != "" {
		return os.WriteFile(*out, text, 0o644)
	}
	_, err = stdout.Write(text)
	return err
}

// attendance is what takes check-ins; without it w is told, and it is nil.
func (s *server) attendance(w http.ResponseWriter) *attendant {
	takes := s.takes.Load()
	switch {
	case takes != nil:
	case s.now.Load().config.Attendance == nil:
		http.Error(w, "there is no attendance section", http.StatusNotFound)
	default:
		http.Error(w, "the journal changes hands; ask again in a moment", http.StatusServiceUnavailable)
	}
	return takes
}

// serveRotate answers POST /attendance/keys/rotate.
func (s *server) serveRotate(w http.ResponseWriter, _ *http.Request) {
	takes := s.attendance(w)
	if takes == nil {
		return
	}
	if err := takes.rotateKeys(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	key, made := takes.keys.Current()
	sayJSON(w, http.StatusOK, map[string]any{"key": key.ID.String(), "made": made})
}

// serveRecompute answers POST /attendance/recompute.
func (s *server) serveRecompute(w http.ResponseWriter, r *http.Request) {
	takes := s.attendance(w)
	if takes == nil {
		return
	}
	var ask recomputeAsk
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	in.DisallowUnknownFields()
	if err := in.Decode(&ask); err != nil {
		http.Error(w, "reading what is asked: "+err.Error(), http.StatusBadRequest)
		return
	}
	c := s.now.Load().config
	if ask.Digest != c.Digest {
		http.Error(w, "the running firstbell goes by another version of the file; run firstbell reload first", http.StatusConflict)
		return
	}
	schools, err := schoolsOf(c)
	var done *recomputed
	if err == nil {
		done, err = takes.recompute(r.Context(), schools, &ask)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	sayJSON(w, http.StatusOK, done)
}
