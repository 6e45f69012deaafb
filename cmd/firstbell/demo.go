package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"firstbell/bench/bell"
)

// demoOptions are the flags of "firstbell demo".
type demoOptions struct {
	students, schools int
	seed              uint64
	dir               string
	dirNamed          bool // -dir was given
	duration          time.Duration
	kill              bool
	direct            bool
	stay              bool
	json              bool
}

const demoUsage = `demo [flags]

Plays a school morning: an e-learning origin with a weak heart, firstbell in
front of it as a process of its own, and students who all come at the bell. In
the middle firstbell is killed and started again. What every student holds is
then compared with the store, the export and the origin's register; a broken
promise makes the command exit with 1.`

// demoOptionsOf reads the flags.
func demoOptionsOf(args []string, stderr io.Writer) (demoOptions, error) {
	var o demoOptions
	f := newFlags("demo", demoUsage, stderr)
	f.IntVar(&o.students, "students", 20000, "`how many` students are on the roster")
	f.IntVar(&o.schools, "schools", 40, "`how many` schools they go to")
	f.Uint64Var(&o.seed, "seed", 1, "the same `number` plans the same morning")
	f.StringVar(&o.dir, "dir", "morning", "`directory` for the configuration, the report and the register; made new")
	f.DurationVar(&o.duration, "duration", 0, "real `time` from the first student to the end of the lesson (default 34s, longer for more than 20,000 students)")
	f.BoolVar(&o.kill, "kill", true, "kill firstbell with SIGKILL in the middle and start it again")
	f.BoolVar(&o.direct, "direct", false, "leave firstbell out: the same morning straight against the origin")
	f.BoolVar(&o.stay, "stay", false, "leave everything running afterwards, until Ctrl-C")
	f.BoolVar(&o.json, "json", false, "end with the figures as one line of JSON")
	if err := parseFlags(f, args); err != nil {
		return o, err
	}
	f.Visit(func(fl *flag.Flag) { o.dirNamed = o.dirNamed || fl.Name == "dir" })
	if f.NArg() > 0 {
		return o, usageError(fmt.Sprintf("demo takes no arguments, only flags; what is %q?", f.Arg(0)))
	}
	return o, o.complete()
}

// demoStudentsMax keeps the seats of a school within the roster's numbers and
// the run within a working day.
const demoStudentsMax = 5_000_000

// demoDuration is how long a morning of up to 20,000 students takes.
const demoDuration = 34 * time.Second

func (o *demoOptions) complete() error {
	switch {
	case o.students < 1 || o.students > demoStudentsMax:
		return usageError(fmt.Sprintf("-students %d: choose 1 to %d", o.students, demoStudentsMax))
	case o.schools < 1 || o.schools > 2000:
		return usageError(fmt.Sprintf("-schools %d: choose 1 to 2000", o.schools))
	case o.duration != 0 && (o.duration < 5*time.Second || o.duration > 3*time.Hour):
		return usageError(fmt.Sprintf("-duration %s: choose 5s to 3h", o.duration))
	case o.dir == "":
		return usageError("-dir is empty; name a directory")
	}
	o.schools = min(o.schools, o.students)
	if o.duration == 0 {
		// 20,000 students in half a minute are what two processors carry with the
		// students and the origin on the same two; more take as much longer.
		perStudent := demoDuration / 20000
		o.duration = max(demoDuration, time.Duration(o.students)*perStudent).Round(time.Second)
	}
	return nil
}

// runDemo is "firstbell demo". It returns nil when every promise was kept; when
// the context ends before the morning does, nothing of it is left behind, unless
// -dir or -stay asked for it.
func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := demoOptionsOf(args, stderr)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program, to start it as firstbell: %w", err)
	}
	d := &demo{demoOptions: o, program: program, screen: newScreen(stdout)}
	return d.run(ctx)
}

// demo is one morning.
type demo struct {
	demoOptions
	program string // the firstbell to start
	screen  *screen

	stage  *stage
	player *bell.Player
	lives  *lives // nil with -direct
}

func (d *demo) run(ctx context.Context) (err error) {
	conns, err := connectionsAllowed()
	if err != nil {
		return err
	}
	if d.stage, err = openStage(ctx, &d.demoOptions, d.screen); err != nil {
		return err
	}
	defer func() {
		d.stage.close(brokenOff(err))
	}()
	if !d.direct {
		d.lives = newLives(d.program, d.stage)
		defer func() { err = d.end(ctx, err) }()
	}
	r, err := d.morning(ctx, conns)
	if err != nil {
		return d.explain(ctx, err)
	}
	if err := d.report(r); err != nil {
		return err
	}
	if d.stay {
		d.screen.print(d.addresses())
		<-ctx.Done()
		d.screen.print("Stopping.")
	}
	if len(r.BrokenPromises) > 0 {
		return brokenPromises(r.BrokenPromises)
	}
	return nil
}

// end stops firstbell. Somebody who pressed Ctrl-C has less patience than a
// server that drains.
func (d *demo) end(ctx context.Context, err error) error {
	patience := drainMax
	if ctx.Err() != nil {
		patience = 3 * time.Second
	}
	if stopErr := d.lives.stop(patience); ctx.Err() == nil {
		err = errors.Join(err, stopErr)
	}
	return err
}

// brokenPromises is the error of a morning that was played to its end and
// should not have ended so.
type brokenPromises []string

func (b brokenPromises) Error() string {
	return "the demo found broken promises: " + strings.Join(b, "; ")
}

// errBrokenOff says that somebody pressed Ctrl-C.
var errBrokenOff = errors.New("the morning was broken off")

func brokenOff(err error) bool { return errors.Is(err, errBrokenOff) }

// explain turns the error of a context that ended into a plain one.
func (d *demo) explain(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if d.stage.keeps() {
		return fmt.Errorf("%w; what there is so far is in %s", errBrokenOff, d.dir)
	}
	return fmt.Errorf("%w; nothing is left behind", errBrokenOff)
}

// morning plays it, waits until everything is where it belongs, and compares.
func (d *demo) morning(ctx context.Context, conns int) (*figures, error) {
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	var err error
	d.player, err = bell.New(d.stage.bell(conns, d.direct))
	if err != nil {
		return nil, err
	}
	d.screen.print(d.stage.opening(d.direct, d.kill))
	played := d.screen.follow(d)
	killed := make(chan error, 1)
	if d.lives != nil && d.kill {
		go func() { killed <- d.lives.killAt(ctx, d.stage.killAt()) }()
	} else {
		killed <- nil
	}
	err = d.player.Play(ctx)
	played()
	if err = errors.Join(err, <-killed); err != nil {
		return nil, err
	}
	return d.count(ctx)
}

// open starts firstbell with a timetable that lies just ahead. Should it take
// longer to get ready than was thought, the morning is moved.
func (d *demo) open(ctx context.Context) error {
	if d.direct {
		return d.stage.plan(time.Now(), time.Second)
	}
	for ahead := d.stage.startup(); ; ahead *= 2 {
		if err := d.stage.plan(time.Now(), ahead); err != nil {
			return err
		}
		if err := d.lives.start(ctx); err != nil {
			return err
		}
		if time.Now().Before(d.stage.morning.First) {
			return nil
		}
		if ahead > 5*time.Minute {
			return fmt.Errorf("starting firstbell took longer than %s", ahead)
		}
		if err := d.lives.stop(drainMax); err != nil {
			return err
		}
	}
}

// report shows the figures: on the screen, as a page, and as a line of JSON.
func (d *demo) report(r *figures) error {
	page := filepath.Join(d.dir, "report.html")
	if err := writeReport(page, r); err != nil {
		return err
	}
	d.screen.print(r.text())
	d.screen.print(d.files(page))
	if !d.json {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing the figures as JSON: %w", err)
	}
	d.screen.print(string(line))
	return nil
}

func (d *demo) files(page string) string {
	s := fmt.Sprintf("\n  report      %s\n", page)
	if !d.direct {
		s += fmt.Sprintf("  register    %s\n", d.stage.workbook())
		s += fmt.Sprintf("  config      %s\n", d.stage.config())
	}
	return s
}

func (d *demo) addresses() string {
	s := fmt.Sprintf("  origin      http://%s\n", d.stage.lmsAddr)
	first := d.stage.roster.Student(0).ID
	if !d.direct {
		_, port, _ := strings.Cut(d.stage.httpAddr, ":")
		s += fmt.Sprintf("  firstbell   http://s%s.localhost:%s/login/%s  (a browser finds *.localhost by itself)\n", strings.TrimPrefix(d.stage.roster.SchoolID(0), "s"), port, first)
		s += fmt.Sprintf("              curl -H 'Host: %s' http://%s/lessons/\n", d.stage.roster.Host(0), d.stage.httpAddr)
		s += fmt.Sprintf("  operators   http://%s/status  /metrics  /readyz\n", d.stage.opsAddr)
	}
	return s + "  Everything is running. Ctrl-C ends it."
}
