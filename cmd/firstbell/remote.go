package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"firstbell/cmd/firstbell/config"
)

const statusUsage = `status -config FILE [-json]

Asks a running firstbell, on the ops listener that FILE names, how it does. It
exits with 1 when it is not ready.`

const reloadUsage = `reload -config FILE

Has a running firstbell, on the ops listener that FILE names, read its file
again. It exits with 1 when the file was refused; the old one is then in force.`

func runStatus(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("status", statusUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	asJSON := f.Bool("json", false, "write all of it as JSON")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	text, _, err := askOps(ctx, "status", *file, stderr, http.MethodGet, "/status", nil)
	if err != nil {
		return err
	}
	var r statusReport
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("asking for the status: %w", err)
	}
	if *asJSON {
		fmt.Fprintf(stdout, "%s", text)
	} else {
		printStatus(stdout, &r)
	}
	if !r.Ready {
		return fmt.Errorf("it is not ready: %s", r.NotReady)
	}
	return nil
}

func printStatus(w io.Writer, r *statusReport) {
	state := "ready"
	if !r.Ready {
		state = "NOT READY: " + r.NotReady
	}
	fmt.Fprintf(w, "%s, up %s, version %s\n", state, r.Uptime, r.Build.Version)
	fmt.Fprintf(w, "file      %s, digest %s, in force since %s\n", r.Config.File, r.Config.Digest, r.Config.Loaded.Local().Format(time.DateTime))
	if l := r.Config.LastReload; l != nil && !l.OK {
		fmt.Fprintf(w, "          THE LAST RELOAD WAS REFUSED: %s\n", l.Problems[0])
	}
	fmt.Fprintf(w, "requests ")
	for _, name := range config.SortedKeys(r.Requests) {
		if n := r.Requests[name]; n > 0 {
			fmt.Fprintf(w, " %s %d", name, n)
		}
	}
	fmt.Fprintln(w)
	printClients(w, &r.Clients)
	printLive(w, &r.Live)
	fmt.Fprintf(w, "cache     %d stored responses, %d of %d bytes\n", r.Cache.Objects, r.Cache.Bytes, r.Cache.MaxBytes)
	if c := &r.Cache; c.Pinned > 0 || c.PinsRefused > 0 {
		fmt.Fprintf(w, "          %d pinned, %d of %d bytes, %d times no room among them\n", c.Pinned, c.PinnedBytes, c.PinnedMaxBytes, c.PinsRefused)
	}
	if d := r.Cache.Disk; d != nil {
		fmt.Fprintf(w, "          %d on disk, %d of %d bytes", d.Objects, d.Bytes, d.MaxBytes)
		if d.Rebuilt < 1 {
			fmt.Fprintf(w, ", index rebuilt to %.0f %%", 100*d.Rebuilt)
		}
		for _, kind := range config.SortedKeys(d.Alarms) {
			fmt.Fprintf(w, ", %s %d", kind, d.Alarms[kind])
		}
		if d.Paused {
			fmt.Fprintf(w, "; NOTHING IS STORED ON DISK: %s", d.Why)
		}
		fmt.Fprintln(w)
	}
	if p := r.Cache.LastPurge; p != nil {
		fmt.Fprintf(w, "          %d selectors purged, last by %s %s from %s at %s\n", r.Cache.Purges,
			p.Purged[0].By, p.Purged[0].What, p.From, p.At.Local().Format(time.DateTime))
	}
	for _, o := range r.Origins {
		fmt.Fprintf(w, "origin    %s: %d of %d in use, %d wait, %d refused\n", o.Name, o.InUse, o.Max, o.Waiting, o.Refused)
		for _, s := range o.Servers {
			health := "well"
			if !s.Healthy {
				health = "ILL"
			}
			fmt.Fprintf(w, "          %s %s, %d requests, %d failures\n", s.Address, health, s.Requests, s.Failures)
		}
	}
	if a := r.Attendance; a != nil {
		fmt.Fprintf(w, "check-ins %d receipts, %d the same again, %d refused, %d wait\n", a.Receipts, a.Again, a.Refused, a.Waiting)
		if c := &a.Collect; c.Records+c.Repeats+c.Refused+c.Invalid > 0 {
			fmt.Fprintf(w, "collected %d, %d the same again, %d under a key with another body, %d refused\n", c.Records, c.Repeats-c.Differing, c.Differing, c.Refused+c.Invalid)
		}
		fmt.Fprintf(w, "journal   %s %s, %d bytes, %d damages\n", a.Journal.State, a.Journal.Why, a.Journal.Bytes, len(a.Journal.Damage))
		for _, text := range a.Journal.Amber {
			fmt.Fprintf(w, "          %s\n", text)
		}
		printDelivery(w, "store", &a.Store.Delivery)
		for i := range a.Sinks {
			printDelivery(w, a.Sinks[i].Name, &a.Sinks[i].Delivery)
			if n := a.Sinks[i].Parked; n > 0 {
				fmt.Fprintf(w, "          %d PARKED, see firstbell attendance parked -sink %s\n", n, a.Sinks[i].Name)
			}
		}
	}
}

func printDelivery(w io.Writer, to string, d *deliveryStatus) {
	fmt.Fprintf(w, "delivery  to %s: %d rows in %d writes, %d behind, the oldest waits %.1f s", to, d.Rows, d.Writes, d.Lag, d.Age)
	if d.Lost > 0 {
		fmt.Fprintf(w, "; %d LOST", d.Lost)
	}
	if d.Error != "" {
		fmt.Fprintf(w, "; FAILING: %s", d.Error)
	}
	fmt.Fprintln(w)
}

func runReload(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("reload", reloadUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	// The file may be the one with the mistake, but where to ask is needed.
	text, status, err := askOps(ctx, "reload", *file, stderr, http.MethodPost, "/reload", nil)
	if err != nil {
		return err
	}
	var r reloaded
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("asking for a reload: the answer was %d %s", status, text)
	}
	for _, p := range append(r.Warnings, r.Problems...) {
		fmt.Fprintln(stdout, p)
	}
	if !r.OK {
		return fmt.Errorf("the file was refused; the one before it is in force")
	}
	fmt.Fprintf(stdout, "in force: digest %s\n", r.Digest)
	if len(r.NeedsRestart) > 0 {
		fmt.Fprintf(stdout, "these wait for a restart: %s\n", lists(r.NeedsRestart))
	}
	return nil
}

const upgradeUsage = `upgrade -config FILE

Has a running firstbell, on the ops listener that FILE names, start the program
that is on disk now, with the file as it is now, and hand over to it: listening
sockets, journal, cache. It waits for the outcome. Everything in the file takes
effect, also what waits for a restart. It exits with 1 when the new process did
not become ready; the old one then goes on as before.`

func runUpgrade(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("upgrade", upgradeUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	text, status, err := askOps(ctx, "upgrade", *file, stderr, http.MethodPost, "/upgrade", nil)
	if err != nil {
		return err
	}
	var u upgraded
	if err := json.Unmarshal(text, &u); err != nil {
		return fmt.Errorf("asking for an upgrade: the answer was %d %s", status, text)
	}
	if !u.OK {
		return fmt.Errorf("the old process goes on: %s", u.Problem)
	}
	fmt.Fprintf(stdout, "process %d, version %s, serves as generation %d after %.2f s; the one before it answers what is left, and ends\n",
		u.PID, u.Version, u.Generation, u.Took)
	return nil
}

// errNobodyThere says that nothing listens where the file says.
var errNobodyThere = errors.New("does firstbell serve run?")

// askMax is how long an answer may take: a day of a million check-ins is judged
// again in one.
const askMax = 10 * time.Minute

// askOps asks the ops listener that the file names.
func askOps(ctx context.Context, name, file string, stderr io.Writer, method, path string, body io.Reader) (text []byte, status int, err error) {
	if file == "" {
		return nil, 0, usageError("firstbell " + name + ": name the file: -config FILE")
	}
	listen, ops, problems := config.LoadOps(file)
	if len(problems) > 0 {
		printProblems(stderr, problems)
		return nil, 0, said(problems)
	}
	if listen == "" {
		return nil, 0, fmt.Errorf("%s has no ops listener; add listen: {ops: \"127.0.0.1:9900\"}", file)
	}
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+reachable(listen)+path, body)
	if err != nil {
		return nil, 0, fmt.Errorf("asking %s: %w", listen, err)
	}
	if ops != "" {
		req.Header.Set("Authorization", "Bearer "+ops)
	}
	req.Close = true // one question: no connection is left for a process that may be gone by the next
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			err = fmt.Errorf("%w %w", errNobodyThere, err)
		}
		return nil, 0, fmt.Errorf("asking %s: %w", listen, err)
	}
	defer res.Body.Close()
	text, err = io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return nil, 0, fmt.Errorf("asking %s: %w", listen, err)
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusUnprocessableEntity {
		return nil, 0, fmt.Errorf("asking %s: %s: %s", listen, res.Status, text)
	}
	return text, res.StatusCode, nil
}

// reachable is the address by which this machine reaches its own listener.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
