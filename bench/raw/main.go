package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"firstbell/bench/raw/corpus"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errFindings):
		fmt.Fprintln(os.Stderr, "raw:", err)
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "raw:", err)
		os.Exit(2)
	}
}

// errFindings says that a proxy did what it should not have done.
var errFindings = errors.New("there are findings")

// options are the flags.
type options struct {
	target, origin, host string
	cases                string
	wait                 time.Duration
	peers, all, details  bool
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("raw", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.target, "target", "", "the proxy under test, `host:port`")
	flags.StringVar(&o.origin, "origin", "127.0.0.1:9000", "address to serve the origin at, which the proxy has been configured to ask")
	flags.StringVar(&o.host, "host", "school.example", "a name that the proxy serves")
	flags.StringVar(&o.cases, "cases", "", "play the cases alone whose name, or file, holds this `text`")
	flags.DurationVar(&o.wait, "wait", 2*time.Second, "how long an answer is waited for")
	flags.BoolVar(&o.peers, "peers", false, "start firstbell, nginx, HAProxy and Caddy instead, and compare them")
	flags.BoolVar(&o.all, "all", false, "print a row for every case, not for those with a finding alone")
	flags.BoolVar(&o.details, "details", false, "tell what came of each finding, on the standard error")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("reading the flags: %q is none", flags.Arg(0))
	case o.peers == (o.target != ""):
		return nil, errors.New("reading the flags: name one proxy with -target host:port, or give -peers")
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	cases, err := corpus.Read()
	if err != nil {
		return err
	}
	cases = slices.DeleteFunc(cases, func(c *corpus.Case) bool {
		return !strings.Contains(c.Name, o.cases) && !strings.Contains(c.File, o.cases)
	})
	if len(cases) == 0 {
		return fmt.Errorf("there is no case with %q in its name", o.cases)
	}
	var results []*result
	if o.peers {
		results, err = o.playPeers(ctx, cases, stderr)
	} else {
		var ln net.Listener
		if ln, err = net.Listen("tcp", o.origin); err != nil {
			return fmt.Errorf("serving the origin: %w", err)
		}
		var one *result
		one, err = o.play(ctx, o.target, o.target, ln, cases)
		results = []*result{one}
	}
	if err != nil {
		return err
	}
	printTable(stdout, results, o.all)
	if o.details {
		printDetails(stderr, results)
	}
	if results[0].findings() > 0 {
		return errFindings
	}
	return nil
}

// result is what a proxy made of every case.
type result struct {
	name     string
	outcomes []*corpus.Outcome
}

func (o *options) play(ctx context.Context, name, target string, origin net.Listener, cases []*corpus.Case) (*result, error) {
	outcomes, err := corpus.Play(ctx, corpus.Options{
		Dial:   func() (net.Conn, error) { return net.DialTimeout("tcp", target, o.wait) },
		Origin: origin, Host: o.host, Wait: o.wait,
	}, cases)
	return &result{name, outcomes}, err
}

func (r *result) findings() (n int) {
	for _, o := range r.outcomes {
		if o.Verdict.Bad() {
			n++
		}
	}
	return n
}

func (r *result) count(of ...corpus.Verdict) (n int) {
	for _, o := range r.outcomes {
		if slices.Contains(of, o.Verdict) {
			n++
		}
	}
	return n
}

// of is what became of the case; empty when it was not played.
func (r *result) of(name string) corpus.Verdict {
	for _, o := range r.outcomes {
		if o.Name == name {
			return o.Verdict
		}
	}
	return ""
}

// printTable prints Markdown: a summary, and a row for each case that is worth
// one.
func printTable(w io.Writer, results []*result, all bool) {
	head, line := "| |", "|---|"
	for _, r := range results {
		head, line = head+" "+r.name+" |", line+"---|"
	}
	fmt.Fprintf(w, "%s\n%s\n", head, line)
	for _, row := range []struct {
		text string
		of   []corpus.Verdict
	}{
		{"cases", nil},
		{"the origin could see another request", []corpus.Verdict{corpus.Ambiguous, corpus.Other}},
		{"forbidden fields passed", []corpus.Verdict{corpus.Passed}},
		{"valid, and refused", []corpus.Verdict{corpus.RefusedValid}},
		{"bad answers as whole, or given to others", []corpus.Verdict{corpus.Cut, corpus.Poisoned}},
		{"nothing passed on, and no answer", []corpus.Verdict{corpus.Silent}},
	} {
		cells := "| " + row.text + " |"
		for _, r := range results {
			n := len(r.outcomes)
			if row.of != nil {
				n = r.count(row.of...)
			}
			cells += fmt.Sprintf(" %d |", n)
		}
		fmt.Fprintln(w, cells)
	}
	fmt.Fprintf(w, "\n| case | RFC | should %s\n|---|---%s\n", strings.TrimPrefix(head, "| "), line)
	for _, o := range results[0].outcomes {
		cells, bad := "", false
		for _, r := range results {
			v := r.of(o.Name)
			bad = bad || v.Bad()
			cells += " " + string(v) + " |"
		}
		if bad || all {
			fmt.Fprintf(w, "| %s | %s | %s |%s\n", o.Name, o.RFC, o.Want, cells)
		}
	}
}

func printDetails(w io.Writer, results []*result) {
	for _, r := range results {
		for _, o := range r.outcomes {
			if o.Verdict.Bad() {
				fmt.Fprintf(w, "%s: %s (RFC %s): %s: %s\n", r.name, o.Name, o.RFC, o.Verdict, o.Detail)
			}
		}
	}
}
