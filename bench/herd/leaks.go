package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"firstbell/bench/leaks"
)

// Leaks are looked for in real time: clients wait a moment between two
// requests, an origin that stalls does so for longer than that, and what a
// loaded machine adds to the age of an answer is not held against the proxy.
const (
	leakPause    = 10 * time.Millisecond
	leakPatience = 20 * time.Second
	leakStall    = 2 * time.Second
	leakSlack    = 700 * time.Millisecond
	leakTold     = 4 // findings that are told in full
)

// playLeaks looks for leaks with an origin at ln, which it closes. The first
// findings are told to w, in full.
func playLeaks(ctx context.Context, o *options, target string, ln net.Listener, w io.Writer) ([]row, error) {
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return nil, fmt.Errorf("reading the flags: -target: %w", err)
	}
	if err := reachable(ctx, target); err != nil {
		return nil, err
	}
	ip := net.ParseIP(host)
	report, err := leaks.Run(ctx, leaks.Options{
		Seed: o.seed, Requests: o.requests, Origin: ln,
		Dial:       dialFrom(target, ip.IsLoopback()),
		OneAddress: !ip.IsLoopback(),
		Pause:      leakPause, Patience: leakPatience, Stall: leakStall, Slack: leakSlack,
		Flaws: true, Outages: true,
	})
	if err != nil {
		return nil, err
	}
	for i := range report.Findings[:min(leakTold, len(report.Findings))] {
		fmt.Fprintf(w, "%s\n", report.Findings[i].String())
	}
	if err := report.PrintKinds(w); err != nil {
		return nil, err
	}
	return leakRows(report), nil
}

// reachable waits until the proxy takes connections.
func reachable(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	for {
		c, err := dialer(target)(ctx)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the proxy: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// dialFrom connects to address. Where that is this machine's own, it does so
// from 127.0.0.1, 127.0.0.2 and on, as if they were different clients.
func dialFrom(address string, loopback bool) func(context.Context, int) (net.Conn, error) {
	return func(ctx context.Context, n int) (net.Conn, error) {
		d := net.Dialer{Timeout: 5 * time.Second}
		if loopback {
			d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(n+1))}
		}
		return d.DialContext(ctx, "tcp", address)
	}
}

// leakRows are a report's table.
func leakRows(r *leaks.Report) (rows []row) {
	const title = "leaks"
	for _, l := range leaks.Leaks() {
		if l == leaks.Told {
			continue // herd asks for no anonymous route
		}
		n := r.Counts[l]
		v := pass
		if n > 0 {
			v = fail
		}
		rows = append(rows, row{Case: title, What: l.String(), Value: strconv.Itoa(n), Bar: "0", Verdict: v})
	}
	for _, n := range []struct {
		what  string
		value int
	}{
		{"requests", r.Requests}, {"of them reached the origin", r.Fetches}, {"answers rightly shared", r.Shared},
		{"not modified", r.NotModified}, {"parts", r.Parts}, {"answers of the proxy's own", r.Problems},
		{"clients that left early", r.Left}, {"answers visibly broken", r.Broken},
	} {
		rows = append(rows, row{Case: title, What: n.what, Value: strconv.Itoa(n.value)})
	}
	return append(rows, row{Case: title, What: "seed", Value: strconv.FormatUint(r.Seed, 10)})
}
