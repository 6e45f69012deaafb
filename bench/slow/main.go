package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"
)

// setting is what a run is made of.
type setting struct {
	binary    string        // the firstbell to attack; empty: built from this module
	attackers int           // of each kind
	header    time.Duration // limits that firstbell is given
	grace     time.Duration
	idle      time.Duration
	only      *regexp.Regexp // the kinds that come; nil: all
	arrive    time.Duration  // within so long all attackers come
	wait      time.Duration  // the longest that a normal client may have to
	memory    int64          // by how much it may grow, in MiB
	slack     time.Duration  // is for the machine, which attackers, victims and firstbell share
	profile   string         // a directory for what firstbell says of its memory when it has most; empty: none
}

func main() {
	var s setting
	flag.StringVar(&s.binary, "firstbell", "", "the firstbell to attack (default: built from this module)")
	flag.IntVar(&s.attackers, "attackers", 2000, "of each kind")
	flag.DurationVar(&s.header, "header", 10*time.Second, "limits.header")
	flag.DurationVar(&s.grace, "grace", 20*time.Second, "limits.grace")
	flag.DurationVar(&s.idle, "idle", 30*time.Second, "limits.idle")
	flag.DurationVar(&s.arrive, "arrive", 5*time.Second, "within so long all attackers come")
	flag.DurationVar(&s.wait, "wait", 2*time.Second, "the longest that a normal client may have to wait")
	flag.DurationVar(&s.slack, "slack", 5*time.Second, "how much later than its limit says an attacker may be cut off")
	flag.Int64Var(&s.memory, "memory", 64, "by how many MiB memory may grow")
	flag.StringVar(&s.profile, "profile", "", "keep heap and goroutine profiles of the moment with most memory in this directory")
	only := flag.String("kind", "^1/", "only the kinds that this regular expression matches, all at once")
	each := flag.Bool("each", false, "one kind after the other, each at a firstbell of its own")
	flag.Parse()
	var err error
	if s.only, err = regexp.Compile(*only); err != nil {
		fmt.Fprintln(os.Stderr, "slow:", err)
		os.Exit(2)
	}
	runs := []*setting{&s}
	if *each {
		runs = nil
		for _, k := range kinds(&s) {
			one := s
			one.only = regexp.MustCompile("^" + k.name + "$")
			runs = append(runs, &one)
		}
	}
	var faults []string
	for _, s := range runs {
		more, err := play(s, os.Stdout)
		if err != nil {
			fmt.Fprintln(os.Stderr, "slow:", err)
			os.Exit(1)
		}
		faults = append(faults, more...)
	}
	if report(os.Stdout, faults) > 0 {
		os.Exit(1)
	}
}

func report(w io.Writer, faults []string) int {
	for _, f := range faults {
		fmt.Fprintln(w, "FAULT", f)
	}
	if len(faults) == 0 {
		fmt.Fprintln(w, "every normal client was served, every attacker was cut off, the origin saw none of them")
	}
	return len(faults)
}

// play starts an origin and firstbell, attacks, and returns what was not as it
// should be.
func play(s *setting, w io.Writer) (faults []string, err error) {
	dir, err := os.MkdirTemp("", "firstbell-slow-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	o, err := startOrigin()
	if err != nil {
		return nil, err
	}
	defer o.stop()
	p, err := startFirstbell(s, dir, o.addr)
	if err != nil {
		return nil, err
	}
	defer p.stop()

	n := normals(p.to)
	time.Sleep(min(3*time.Second, s.idle/4))
	calm, err := p.memory()
	if err != nil {
		n.end()
		return nil, err
	}
	before := n.report()
	open, err := p.connections()
	if err != nil {
		n.end()
		return nil, err
	}
	fmt.Fprintf(w, "calm       %s; %d MiB\n", before, calm>>20)
	n.reset()

	began := time.Now()
	a := attack(s, p.to)
	most, kept := calm, calm
	for !a.over() && time.Since(began) < a.longest()+10*time.Second {
		time.Sleep(250 * time.Millisecond)
		if m, err := p.memory(); err == nil {
			most = max(most, m)
		}
		if s.profile != "" && most > kept+4<<20 {
			kept = most
			if err := p.profile(s.profile); err != nil {
				return nil, err
			}
		}
	}
	during := n.report()
	left := 0
	for wait := s.idle + s.slack; wait > 0; wait -= time.Second {
		if left, err = p.connections(); err == nil && left <= open+crowdSize {
			break
		}
		time.Sleep(time.Second)
	}
	n.end()
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "attacked   %s; at most %d MiB, %d more than calm\n", during, most>>20, (most-calm)>>20)
	faults = append(faults, a.judge(w)...)
	if during.failed > 0 {
		faults = append(faults, fmt.Sprintf("%d normal requests failed, the first by: %v", during.failed, during.why))
	}
	if left > open+crowdSize {
		faults = append(faults, fmt.Sprintf("%d connections are left, %d were open before", left, open))
	}
	if during.slowest > s.wait {
		faults = append(faults, fmt.Sprintf("a normal request took %v, more than %v", during.slowest, s.wait))
	}
	if (most-calm)>>20 > s.memory {
		faults = append(faults, fmt.Sprintf("memory grew by %d MiB, more than %d", (most-calm)>>20, s.memory))
	}
	if seen := o.seen.Load(); seen > 0 {
		faults = append(faults, fmt.Sprintf("the origin saw %d requests of attackers that never became whole", seen))
	}
	fmt.Fprintf(w, "origin     %d requests, at most %d at once, 0 wanted and %d seen of attackers that trickle\n", o.asked.Load(), o.most.Load(), o.seen.Load())
	return faults, nil
}
