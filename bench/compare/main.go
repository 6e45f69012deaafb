//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"firstbell/bench/ports"
)

// options are what the command line says.
type options struct {
	quick   bool
	install bool
	cases   *regexp.Regexp
	peers   []string // empty: all that are installed
	rounds  int
	burst   time.Duration
	budget  time.Duration
	binary  string
	json    string
	far     bool
	scale   bool
	costs   string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	var o options
	var cases, names string
	flags.BoolVar(&o.quick, "quick", false, "the cases that matter most, in a minute and a half at most")
	flags.BoolVar(&o.install, "install", false, "install the peers that are missing (Debian's packages, as root); none is started by it")
	flags.StringVar(&cases, "case", "", "only cases that this regular expression matches")
	flags.StringVar(&names, "peers", "", "only these peers, with commas between them")
	flags.IntVar(&o.rounds, "rounds", 0, "turns that everybody has in a case (7, or 5 with -quick); the median counts")
	flags.DurationVar(&o.burst, "burst", 0, "how long a turn is (250ms, or 120ms with -quick)")
	flags.DurationVar(&o.budget, "budget", 0, "cases that would begin later than this are left out (9m, 80s with -quick, 15m with -scale)")
	flags.StringVar(&o.binary, "firstbell", "", "the firstbell to measure (default: built from this module)")
	flags.StringVar(&o.json, "json", "", "write everything that was measured to this file, too")
	flags.BoolVar(&o.far, "guard", false, "exit 1 where firstbell costs far more than a bare fasthttp answer in this run")
	flags.BoolVar(&o.scale, "scale", false, "instead of comparing, measure how firstbell's costs grow with keys, schools, routes, connections and students; -case names some of these")
	flags.StringVar(&o.costs, "costs", "", "with -scale: write the costs that bench/plan calculates with to this file")
	serve := flags.String("serve", "", "start this peer alone, as it is configured here, until interrupted; with -listen and -origin")
	listen := flags.String("listen", "127.0.0.1:18081", "with -serve: where it listens")
	origin := flags.String("origin", "127.0.0.1:18080", "with -serve: the origin it stands before")
	floor := flags.String("floor", "", "be a floor (used by compare itself)")
	keeping := flags.Bool("keep", false, "stay until the program that follows, and all that came of it, has ended (used by compare itself)")
	answer := flags.String("answer", "", "with -floor: the file that it answers with")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *floor != "" {
		return serveFloor(*floor, *answer)
	}
	if *keeping {
		return keep(ctx, flags.Args())
	}
	var err error
	if o.cases, err = regexp.Compile("(?i)" + cases); err != nil {
		return fmt.Errorf("reading -case: %w", err)
	}
	if names != "" {
		o.peers = strings.Split(names, ",")
	}
	if err := o.complete(); err != nil {
		return err
	}
	if o.install {
		if err := install(ctx, o.peers); err != nil {
			return err
		}
	}
	if *serve != "" {
		return serveAlone(ctx, &o, *serve, *listen, *origin)
	}
	return measure(ctx, &o, stdout)
}

func (o *options) complete() error {
	rounds, burst, budget := 7, 250*time.Millisecond, 9*time.Minute
	if o.quick {
		rounds, burst, budget = 5, 120*time.Millisecond, 80*time.Second
	}
	if o.scale {
		budget = 15 * time.Minute // a million keys take half of it on a busy machine
	}
	if o.rounds == 0 {
		o.rounds = rounds
	}
	if o.burst == 0 {
		o.burst = burst
	}
	if o.budget == 0 {
		o.budget = budget
	}
	for _, name := range o.peers {
		if !slices.ContainsFunc(peers, func(p *peer) bool { return p.name == name }) {
			var known []string
			for _, p := range peers {
				known = append(known, p.name)
			}
			return fmt.Errorf("-peers names %q; known are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// wants reports whether the peer takes part; firstbell always does.
func (o *options) wants(p *peer) bool {
	return p.name == ours || len(o.peers) == 0 || slices.Contains(o.peers, p.name)
}

// install installs Debian's packages of the peers that are missing, in a way
// that starts no service: with a policy that forbids it (deb-systemd-invoke(1p)).
func install(ctx context.Context, names []string) error {
	o := options{peers: names}
	var missing []string
	for _, p := range peers {
		if p.debian != "" && o.wants(p) && p.find() == "" {
			missing = append(missing, p.debian)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	const policy = "/usr/sbin/policy-rc.d"
	if _, err := os.Stat(policy); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return fmt.Errorf("forbidding packages to start services: %w; -install needs root on Debian", err)
		}
		defer os.Remove(policy)
	}
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-qy", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("installing %s: apt-get %s: %w", strings.Join(missing, ", "), args[0], err)
		}
	}
	return nil
}

// An arena is everything that a run is made of. One goroutine uses it.
type arena struct {
	options
	halves  halves
	dir     string
	origin  *origin
	servers []*server // firstbell first
	missing []string  // peers that are left out, and why
	lock    func() (release func(), err error)
	rows    []*row
	facts   []*fact
	trial   string   // the trial that is being played
	skipped []string // cases that there was no time for
}

func measure(ctx context.Context, o *options, stdout io.Writer) error {
	began := time.Now()
	a := &arena{options: *o}
	var err error
	if a.dir, err = os.MkdirTemp("", "compare-"); err != nil {
		return err
	}
	defer os.RemoveAll(a.dir)
	if err := a.build(ctx); err != nil {
		return err
	}
	if a.halves, err = divide(); err != nil {
		return err
	}
	if a.origin, err = startOrigin(); err != nil {
		return err
	}
	defer func() {
		for _, s := range a.servers {
			s.stop()
		}
	}()
	if a.scale {
		return a.measureScale(ctx, began, stdout)
	}
	if err := a.startAll(ctx); err != nil {
		return err
	}
	err = a.play(ctx, began)
	if err == nil && o.far {
		err = a.lookAgain(ctx)
	}
	report := a.report(began, time.Since(began))
	if err != nil && len(report.Rows)+len(report.Facts) == 0 {
		return err
	}
	return errors.Join(err, report.deliver(stdout, o.json), report.failed(), report.guard(o.far))
}

// build builds firstbell where no binary is named.
func (a *arena) build(ctx context.Context) error {
	if a.binary != "" {
		return nil
	}
	a.binary = filepath.Join(a.dir, "firstbell.built") // beside the directories of those who take part
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", a.binary, "firstbell/cmd/firstbell").CombinedOutput(); err != nil {
		return fmt.Errorf("building firstbell: %w\n%s", err, out)
	}
	return nil
}

// startAll starts everybody who takes part. Who cannot is left out, and named.
func (a *arena) startAll(ctx context.Context) error {
	for _, p := range peers {
		if !a.wants(p) {
			continue
		}
		program := a.binary
		if p.name != ours {
			if program = p.find(); program == "" {
				a.missing = append(a.missing, p.name+" (not installed; -install)")
				continue
			}
		}
		s, err := a.startOne(ctx, p, program, p.name)
		if err != nil {
			if p.name == ours || ctx.Err() != nil {
				return err
			}
			a.missing = append(a.missing, p.name+" (did not start)")
			fmt.Fprintln(os.Stderr, "compare: left out:", err)
			continue
		}
		s.release = p.release(program)
		a.servers = append(a.servers, s)
	}
	a.lock = lockStore(a.servers[0].site.Dir)
	return nil
}

// startOne starts a peer in a directory of its own, with TLS where it can.
func (a *arena) startOne(ctx context.Context, p *peer, program, dir string, changes ...func(*site)) (*server, error) {
	at, err := newSite(filepath.Join(a.dir, dir), a.origin.addr, p.tls && !(p.name == ours && !takesTLS(ctx, program)))
	if err != nil {
		return nil, err
	}
	for _, change := range changes {
		change(at)
	}
	return p.start(ctx, a.halves, program, at)
}

// newSite makes the directory, and finds the addresses.
func newSite(dir, origin string, tls bool) (*site, error) {
	s := &site{Dir: dir, Origin: origin, Root: os.Geteuid() == 0, Memory: "256MiB", Cert: dir + "/cert.pem", Key: dir + "/key.pem", Pem: dir + "/both.pem"}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	// HAProxy wants two and a half files for every connection, and who measures
	// many connections must be able to open as many.
	s.Files = int(min(files.Max, 1<<20))
	s.Connections = min(20_000, s.Files*2/5-100)
	var err error
	if s.Listen, err = ports.FreeAddress(); err != nil {
		return nil, err
	}
	if s.Ops, err = ports.FreeAddress(); err != nil {
		return nil, err
	}
	if tls {
		if s.TLS, err = ports.FreeAddress(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return s, certify(dir)
}

// serveAlone starts one peer until the context ends.
func serveAlone(ctx context.Context, o *options, name, listen, origin string) error {
	i := slices.IndexFunc(peers, func(p *peer) bool { return p.name == name })
	if i < 0 {
		return fmt.Errorf("-serve names %q, which is not known", name)
	}
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	a := &arena{options: *o, dir: dir}
	program := peers[i].find()
	if name == ours {
		if err := a.build(ctx); err != nil {
			return err
		}
		program = a.binary
	}
	if program == "" {
		return fmt.Errorf("%s is not installed; -install installs it", name)
	}
	at, err := newSite(filepath.Join(dir, name), origin, false)
	if err != nil {
		return err
	}
	at.Listen, at.Private = listen, true // bench/herd looks for other users' pages
	// Alone it has all CPUs, and nobody has asked for a page yet.
	if err := peers[i].render(at); err != nil {
		return err
	}
	if peers[i].prepare != nil {
		if err := peers[i].prepare(at); err != nil {
			return err
		}
	}
	var env []string
	if peers[i].env != nil {
		env = peers[i].env(at)
	}
	s, err := launch(halves{servers: -1}, program, peers[i].args(at), env, nil)
	if err != nil {
		return err
	}
	s.peer = peers[i]
	defer s.stop()
	select {
	case <-ctx.Done():
		return nil
	case <-s.ended:
		return fmt.Errorf("%s ended (%v) and said:\n%s", name, s.why, s.said)
	}
}

// play plays all cases that are wanted and that there is time for.
func (a *arena) play(ctx context.Context, began time.Time) error {
	turn := func(name string, quick bool, do func(context.Context) error) error {
		if !a.cases.MatchString(name) || a.quick && !quick {
			return nil
		}
		if time.Since(began) > a.budget {
			a.skipped = append(a.skipped, name)
			return nil
		}
		fmt.Fprintf(os.Stderr, "%4.0f s  %s\n", time.Since(began).Seconds(), name)
		if err := do(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	for i := range duels {
		d := &duels[i]
		if err := turn(fmt.Sprintf("%s, %d connections", d.name, d.conns), d.quick, func(ctx context.Context) error {
			r, err := a.fight(ctx, d)
			if r != nil {
				a.rows = append(a.rows, r)
			}
			return err
		}); err != nil {
			return err
		}
	}
	for i := range trials {
		t := &trials[i]
		if err := turn(t.name, t.quick, func(ctx context.Context) error { return a.try(ctx, t) }); err != nil {
			return err
		}
	}
	return nil
}

// deliver prints the report as Markdown, and writes it as JSON where a file is
// named.
func (r *report) deliver(stdout io.Writer, file string) error {
	if _, err := io.WriteString(stdout, r.markdown()); err != nil {
		return err
	}
	if file == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
