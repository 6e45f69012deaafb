package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	_ "time/tzdata" // zones on machines that have none
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !isSaid(err) {
		fmt.Fprintln(os.Stderr, "firstbell:", err)
	}
	os.Exit(exitCode(err))
}

// A command is one word after firstbell.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

func commands() []command {
	return []command{
		{"serve", "answer requests as the file says", runServe},
		{"check", "read the file, show every problem, start nothing", runCheck},
		{"demo", "play a school morning on this machine", runDemo},
		{"export", "write the register of a day as csv, xlsx or jsonl", runExport},
		{"attendance", "judge a day again, show or rotate the signing keys", runAttendance},
		{"reconcile", "hold receipts, journal, store, export and sinks of a day against each other", runReconcile},
		{"verify", "check receipts offline, with public keys alone", runVerify},
		{"inspect", "show the journal: segments, records, damage; inspect cache: what is stored", runInspect},
		{"status", "show how a running firstbell does", runStatus},
		{"reload", "have a running firstbell read its file again", runReload},
		{"upgrade", "have a running firstbell be replaced by the program on disk, losing no request", runUpgrade},
		{"purge", "have a running firstbell make stored responses stale, or drop them", runPurge},
		{"cookie", "make a signed session cookie, or look into one", runCookie},
		{"version", "show the version", runVersion},
		{"help", "show this", runHelp},
	}
}

// run does what args say. Only main ends the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		usage(stderr)
		return said(usageError("no command given"))
	}
	name := args[0]
	switch name {
	case "-h", "-help", "--help":
		name = "help"
	case "-version", "--version":
		name = "version"
	}
	for _, c := range commands() {
		if c.name == name {
			err := c.run(ctx, args[1:], stdout, stderr)
			if errors.Is(err, flag.ErrHelp) {
				return nil
			}
			return err
		}
	}
	msg := fmt.Sprintf("there is no command %q", name)
	if meant := nearestCommand(name); meant != "" {
		return usageError(msg + "; did you mean firstbell " + meant + "?")
	}
	return usageError(msg + "; see firstbell help")
}

func nearestCommand(name string) string {
	for _, c := range commands() {
		if strings.HasPrefix(c.name, name) || strings.HasPrefix(name, c.name) || sameLetters(c.name, name) {
			return c.name
		}
	}
	return ""
}

// sameLetters says whether one of two words becomes the other by one letter
// more, less or different, or by two neighbours that changed places.
func sameLetters(a, b string) bool {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	a, b = a[i:], b[i:]
	switch {
	case a == "" || b == "":
		return len(a)+len(b) <= 1
	case len(a) == len(b) && len(a) > 1 && a[0] == b[1] && a[1] == b[0]:
		return a[2:] == b[2:]
	case len(a) == len(b):
		return a[1:] == b[1:]
	}
	return a[1:] == b || b[1:] == a
}

// A usageError says that firstbell was called wrongly.
type usageError string

func (e usageError) Error() string { return string(e) }

// saidError is an error that has been shown already.
type saidError struct{ error }

func (e saidError) Unwrap() error { return e.error }

func said(err error) error { return saidError{err} }

func isSaid(err error) bool {
	_, ok := errors.AsType[saidError](err)
	return ok
}

func exitCode(err error) int {
	switch _, wrong := errors.AsType[usageError](err); {
	case err == nil:
		return 0
	case wrong:
		return 2
	}
	return 1
}

// newFlags is the flag set of a command; text comes before the list of flags.
func newFlags(name, text string, stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintf(stderr, "usage: firstbell %s\n\nflags:\n", text)
		f.PrintDefaults()
	}
	return f
}

// parseFlags reads args; package flag has shown what is wrong with them.
func parseFlags(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return said(usageError(err.Error()))
	}
	if f.NArg() > 0 {
		return usageError(fmt.Sprintf("firstbell %s: %q is not a flag; see firstbell %[1]s -h", f.Name(), f.Arg(0)))
	}
	return nil
}

const usageText = `firstbell stands in front of e-learning origins: one fetch for what a whole
school asks at nine, and attendance that is never lost.

usage: firstbell COMMAND [flags]

`

func usage(w io.Writer) {
	fmt.Fprint(w, usageText)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, `
The smallest useful file:

  listen: {http: ":8080"}
  origins:
    lms: {servers: ["http://10.0.0.5:8080"]}
  routes:
    - {hosts: ["*"], origin: lms, cache: {}}

firstbell COMMAND -h shows the flags of a command.
`)
}

func runHelp(_ context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] != "help" {
		return run(context.Background(), []string{args[0], "-h"}, stdout, stdout)
	}
	usage(stdout)
	return nil
}

func runVersion(_ context.Context, _ []string, stdout, _ io.Writer) error {
	v := buildVersion()
	fmt.Fprintf(stdout, "firstbell %s %s\n", v.Version, v.Go)
	return nil
}

// A version is what the binary knows about itself.
type version struct {
	Version string `json:"version"` // of the module, or the revision it was built from
	Go      string `json:"go"`
}

func buildVersion() version {
	v := version{Version: "(devel)"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Go = info.GoVersion
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	if v.Version == "(devel)" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Version = s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return v
}

// flagGiven says whether the flag stood on the command line.
func flagGiven(f *flag.FlagSet, name string) (given bool) {
	f.Visit(func(g *flag.Flag) { given = given || g.Name == name })
	return given
}
