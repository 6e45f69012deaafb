package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "plan:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	q := asked()
	flags := flag.NewFlagSet("plan", flag.ContinueOnError)
	flags.IntVar(&q.students, "students", q.students, "how many students there are")
	flags.IntVar(&q.schools, "schools", 0, "of how many schools (one for every 500 students)")
	flags.IntVar(&q.lessons, "lessons", q.lessons, "lessons of a school that are opened")
	flags.IntVar(&q.segments, "segments", q.segments, "media segments that a student watches, at most; 7 at most")
	flags.IntVar(&q.segmentKiB, "segment-kib", q.segmentKiB, "their size")
	flags.DurationVar(&q.window, "window", q.window, "check-ins open so long before the bell; a shorter time is a steeper rush")
	flags.DurationVar(&q.ownTime, "own-page", q.ownTime, "the origin's time for a page that is one user's alone")
	flags.DurationVar(&q.kept, "kept", q.kept, "how long an idle connection is kept")
	flags.IntVar(&q.cores, "cores", q.cores, "cores of a node")
	flags.Float64Var(&q.gbits, "gbits", q.gbits, "network of a node, in Gbit/s")
	flags.Float64Var(&q.busy, "busy", q.busy, "the part of cores and network that is planned with")
	flags.IntVar(&q.spare, "spare", q.spare, "nodes more than needed")
	flags.IntVar(&q.days, "days", q.days, "school days that journal and store hold")
	file := flags.String("costs", "", "costs that bench/compare -scale wrote (default: those measured last)")
	seed := flags.Uint64("seed", 1, "of the simulation")
	skip := flags.Bool("calculate-only", false, "do not simulate")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if q.schools == 0 {
		q.schools = max(1, q.students/500)
	}
	if err := q.check(); err != nil {
		return err
	}
	c, err := readCosts(*file)
	if err != nil {
		return err
	}
	p := calculate(q, c)
	var out strings.Builder
	p.print(&out, &q, &c)
	if !*skip {
		s := simulate(q, c, p.nodes-q.spare, p.workers, *seed)
		s.print(&out, &p)
	}
	_, err = io.WriteString(stdout, out.String())
	return err
}

// check says what the model is not made for.
func (q *question) check() error {
	switch {
	case q.students < 1 || q.students >= 1<<31 || q.schools < 1 || q.schools > 1<<30 || q.lessons < 1 || q.lessons > 200:
		return fmt.Errorf("planning for %d students of %d schools with %d lessons: want one of each at least, and at most 200 lessons", q.students, q.schools, q.lessons)
	case q.segments < 0 || q.segments > 7:
		return fmt.Errorf("planning for %d media segments: want 0 to 7", q.segments)
	case q.window <= 0 || q.window.Minutes() > 30 || q.kept < 0 || q.kept.Hours() > 1:
		return fmt.Errorf("planning for a window of %v and connections kept for %v: want at most 30 minutes and an hour", q.window, q.kept)
	case q.cores < 1 || q.gbits <= 0 || q.busy <= 0 || q.busy > 1 || q.spare < 0 || q.days < 1:
		return fmt.Errorf("planning with %d cores, %g Gbit/s, %g of them used, %d nodes spare, %d days: want more than nothing of each, and at most all", q.cores, q.gbits, q.busy, q.spare, q.days)
	}
	return nil
}

// number has thousands apart.
func number(v float64) string {
	s := fmt.Sprintf("%.0f", math.Abs(v))
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (p *plan) print(w io.Writer, q *question, c *costs) {
	fmt.Fprintf(w, "%s students of %s schools.\n\n", number(float64(q.students)), number(float64(q.schools)))
	fmt.Fprintf(w, "| what | needed |\n|---|---|\n")
	fmt.Fprintf(w, "| nodes of %d cores and %g Gbit/s | %d (%d, limited by %s, and %d spare) |\n", q.cores, q.gbits, p.nodes, p.nodes-q.spare, p.because, q.spare)
	fmt.Fprintf(w, "| memory of a node | %.1f GiB (%.1f GiB of it content) |\n", p.memory, p.stored)
	fmt.Fprintf(w, "| disk of a node for the journal, %d days | %.1f GiB |\n", q.days, p.journal)
	fmt.Fprintf(w, "| disk of the store, %d days | %.1f GiB |\n", q.days, p.store)
	fmt.Fprintf(w, "| origin: workers at once | %d, for %s own pages a second |\n", p.workers, number(p.ownPeak))
	fmt.Fprintf(w, "| origin: requests for what is shared, all morning | %s, instead of %s |\n", number(p.fetches), number(p.requests-p.checkIns-float64(q.students)*(1-absent)))
	fmt.Fprintf(w, "| database: check-ins | %s, in bulk writes, %s a second at the peak |\n", number(p.checkIns), number(p.pressPeak))
	fmt.Fprintf(w, "\nThe busiest ten seconds: %s requests and %.1f Gbit a second, %.1f cores; %s connections are open at most.\n", number(p.peak), p.gbits, p.cpu, number(p.conns))
	fmt.Fprintf(w, `
Assumed:
- the demo's morning (bench/bell): %.0f %% stay away, %.0f %% are late, %.0f %% press twice; check-ins open %v before the bell, and most press in the few minutes around it
- each opens the list (%d KiB), the own page (1 KiB, passed on), a lesson (%d KiB) and watches %d to %d media segments of %d KiB, one every %v
- lists are fresh for %v, lessons for %v, media all morning; every node has a cache of its own, and all content in memory
- idle connections are kept for %v; every connection begins with a full TLS handshake
- an own page takes the origin %v, and %.0f %% of its workers' time is planned with; %.0f %% of a node's cores and network
- costs as measured %s: a hit %.1f us of CPU and %.2f us for each KiB, a page passed on %.1f, a check-in %.1f with delivery, a connection %.0f;
  memory %.1f KiB for a connection and %.0f KiB of the kernel's, %.0f bytes for a check-in; disk %.0f bytes in the journal and %.0f in the store
`, absent*100, late*100, (again+devices)*100, q.window,
		q.listKiB, q.lessonKiB, q.segments/2, q.segments, q.segmentKiB, q.pause, q.listFresh, q.lessonFresh, q.kept, q.ownTime, q.workers*100, q.busy*100,
		c.Measured, c.HitUS, c.HitKiBUS, c.PassUS, c.CheckInUS+c.DeliverUS, c.ConnectUS, c.ConnKiB, q.socketKiB, c.RollBytes, c.JournalBytes, c.StoreBytes)
}

// print shows what the simulation found beside what was calculated.
func (s *played) print(w io.Writer, p *plan) {
	fmt.Fprintf(w, "\nThe morning played, request by request:\n\n| what | calculated | played | apart |\n|---|---|---|---|\n")
	for _, r := range beside(&p.figures, &s.figures) {
		digits := 0
		if r.calculated < 1000 {
			digits = 1
		}
		fmt.Fprintf(w, "| %s | %.*f | %.*f | %+.1f %% |\n", r.what, digits, r.calculated, digits, r.played, 100*r.apart())
	}
	fmt.Fprintf(w, "\nOf 1,000 requests all but one wait at most %v for a node's CPU, and own pages %v for a worker of the origin. The busiest node used %.0f %% of its cores for ten seconds.\n",
		s.nodeWait.Round(1e3), s.originWait.Round(1e5), 100*s.worstNode)
}

// A pairing is one figure from both sides, and how far they may be apart.
type pairing struct {
	what               string
	calculated, played float64
	bound              float64
}

func (p *pairing) apart() float64 { return p.calculated/p.played - 1 }

// beside pairs what both sides found. Totals may be 2 % apart, peaks 10 % and
// three standard deviations of what is counted in ten seconds, for students come
// by chance; requests for what is shared 15 %.
func beside(c, p *figures) []pairing {
	peak := func(perSecond float64) float64 { return 0.10 + 3/math.Sqrt(max(1, perSecond*smooth)) }
	return []pairing{
		{"requests", c.requests, p.requests, 0.02},
		{"check-ins", c.checkIns, p.checkIns, 0.02},
		{"requests a second, busiest ten seconds", c.peak, p.peak, peak(c.peak)},
		{"check-ins a second, likewise", c.pressPeak, p.pressPeak, peak(c.pressPeak)},
		{"own pages a second, likewise", c.ownPeak, p.ownPeak, peak(c.ownPeak)},
		{"cores busy, likewise", c.cpu, p.cpu, peak(c.ownPeak)},
		{"Gbit a second, likewise", c.gbits, p.gbits, peak(c.ownPeak)},
		{"connections open at most", c.conns, p.conns, 0.10},
		{"requests at the origin for what is shared", c.fetches, p.fetches, 0.15},
	}
}
