//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// A report is all that a run has measured.
type report struct {
	Date    string   `json:"date"`
	Command string   `json:"command"`
	Machine string   `json:"machine"`
	Took    string   `json:"took"`
	Rounds  int      `json:"rounds"`
	Burst   string   `json:"burst"`
	CPUs    string   `json:"cpus"`
	Servers []about  `json:"servers"`
	Rows    []*row   `json:"rows"`
	Facts   []*fact  `json:"facts"`
	LeftOut []string `json:"left_out,omitempty"`
	Skipped []string `json:"skipped,omitempty"`
}

// about is a server that took part.
type about struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Memory  int64  `json:"memory_bytes"` // at the end of all duels
}

// A fact is what was measured in a trial, which is played with one server after
// the other.
type fact struct {
	Case   string             `json:"case"`
	What   string             `json:"measured"`
	Value  map[string]string  `json:"value"`  // by server
	Number map[string]float64 `json:"number"` // the same, in seconds where it is a time
	Bars   []verdict          `json:"bars,omitempty"`
}

// judge sets the bars of the trials.
func (a *arena) judge() {
	a.judgeReceipts()
	for _, f := range a.facts {
		was, ok := f.Number[ours]
		if !ok {
			continue
		}
		bar := func(most float64, text string) {
			f.Bars = append(f.Bars, verdict{text, f.Value[ours], was <= most})
		}
		herd := strings.HasPrefix(f.Case, "herd of")
		switch {
		case f.What == "requests at the origin" && strings.HasPrefix(f.Case, "reload"):
			bar(0, "0")
		case f.What == "requests at the origin":
			bar(1, "1")
		case f.What == "without an answer", strings.HasPrefix(f.What, "failed requests"), strings.HasPrefix(f.What, "stored responses fetched again"):
			bar(0, "0")
		case herd && strings.HasPrefix(f.What, "first byte"):
			if best, who := a.bestWithOne(f); who != "" {
				bar(best*(1+tie), fmt.Sprintf("≤ %s, with one request at the origin, too, has %s", who, f.Value[who]))
			}
		case herd && f.Number["haproxy"] > 0:
			bar(1.2*f.Number["haproxy"], fmt.Sprintf("≤ 1.2x haproxy's %s", f.Value["haproxy"]))
		case strings.HasPrefix(f.What, "a follower's first byte"):
			bar(0.05, "≤ 50 ms")
		case strings.HasPrefix(f.What, "KiB of memory") && f.Case == "5,000 idle connections":
			bar(6, "≤ 6 KiB")
		}
	}
}

// bestWithOne is the earliest first byte among peers that asked the origin once
// in the same case.
func (a *arena) bestWithOne(f *fact) (best float64, who string) {
	for _, o := range a.facts {
		if o.Case != f.Case || o.What != "requests at the origin" {
			continue
		}
		for name, asked := range o.Number {
			if v := f.Number[name]; asked == 1 && name != ours && v > 0 && (who == "" || v < best) {
				best, who = v, name
			}
		}
	}
	return best, who
}

func (a *arena) report(began time.Time, took time.Duration) *report {
	a.judge()
	r := &report{Date: began.UTC().Format("2006-01-02"), Command: "go run ./bench/compare", Machine: machine(), Took: took.Round(time.Second).String(),
		Rounds: a.rounds, Burst: a.burst.String(), Rows: a.rows, Facts: a.facts, LeftOut: a.missing, Skipped: a.skipped}
	if a.quick {
		r.Command += " -quick"
	}
	r.CPUs = fmt.Sprintf("servers on CPU %d, load and origin on CPU %d", a.halves.servers, a.halves.load)
	if a.halves.servers == a.halves.load {
		r.CPUs = fmt.Sprintf("servers, load and origin share CPU %d: no other may be used", a.halves.load)
	}
	for _, s := range a.servers {
		r.Servers = append(r.Servers, about{s.name, s.release, s.memory()})
	}
	return r
}

// names are all that have a cell or a value, servers in their order, floors last.
func (r *report) names() []string {
	var list []string
	for _, s := range r.Servers {
		list = append(list, s.Name)
	}
	for _, row := range r.Rows {
		for _, c := range row.Cells {
			if !slices.Contains(list, c.Server) {
				list = append(list, c.Server)
			}
		}
	}
	for _, f := range r.Facts {
		for n := range f.Value {
			if !slices.Contains(list, n) {
				list = append(list, n)
			}
		}
	}
	return list
}

// tie is how far two costs may be apart and still count as the same: runs on
// one machine differ by as much.
const tie = 0.10

// busyEnough is the part of the time that a server must have had work for its
// CPU: below, the load or the origin is the limit, and an idle server spends
// more on each request, for it sleeps and wakes.
const busyEnough = 0.85

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s by `%s` (%s; %s; %d turns of %s each, in %s).\n", r.Date, r.Command, r.Machine, r.CPUs, r.Rounds, r.Burst, r.Took)
	for i, s := range r.Servers {
		fmt.Fprintf(&b, "%s%s %s", map[bool]string{true: "", false: ", "}[i == 0], s.Name, s.Version)
	}
	b.WriteString(".\n")
	if len(r.LeftOut) > 0 {
		fmt.Fprintf(&b, "Left out: %s.\n", strings.Join(r.LeftOut, ", "))
	}
	if len(r.Skipped) > 0 {
		fmt.Fprintf(&b, "No time for: %s.\n", strings.Join(r.Skipped, "; "))
	}
	names := r.names()
	if len(r.Rows) > 0 {
		r.costs(&b, names)
		r.ratios(&b, names)
		r.asked(&b, names)
	}
	r.trials(&b, names)
	r.memory(&b)
	r.bars(&b)
	return b.String()
}

func head(b *strings.Builder, first string, names []string) {
	fmt.Fprintf(b, "| %s | %s |\n|---|%s\n", first, strings.Join(names, " | "), strings.Repeat("---|", len(names)))
}

func (r *row) title() string { return fmt.Sprintf("%s, %d connections", r.Case, r.Connections) }

// costs is the table of CPU time. A star says that the server was not kept busy.
func (r *report) costs(b *strings.Builder, names []string) {
	b.WriteString("\nCPU microseconds for a request, of all the server's processes, user and system; the median of the turns. A * marks a server that had\nwork for its CPU less than 85 % of the time, so that load or origin was the limit: it sleeps and wakes more.\n\n")
	head(b, "case", names)
	for _, row := range r.Rows {
		fmt.Fprintf(b, "| %s", row.title())
		if row.Unit != "us" {
			fmt.Fprintf(b, " (%s)", row.Unit)
		}
		for _, n := range names {
			b.WriteString(" | " + row.cell(n).cost())
		}
		b.WriteString(" |\n")
	}
	for _, row := range r.Rows {
		for _, c := range row.Cells {
			if c.Fault != "" && !strings.HasPrefix(c.Fault, "has no ") {
				fmt.Fprintf(b, "\n%s, %s: %s\n", row.title(), c.Server, c.Fault)
			}
		}
	}
}

func (c *cell) cost() string {
	switch {
	case c == nil || strings.HasPrefix(c.Fault, "has no "):
		return "–"
	case c.Fault != "":
		return "failed"
	case c.Busy < busyEnough:
		return figure(c.Cost) + "*"
	}
	return figure(c.Cost)
}

// figure has three digits that count.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// ratios is the table of firstbell's cost as a part of each other's.
func (r *report) ratios(b *strings.Builder, names []string) {
	b.WriteString("\nfirstbell's cost as a part of the other's: the median of the turns (the least and the most). Within 10 % is a tie.\n\n")
	others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == ours })
	head(b, "case", others)
	for _, row := range r.Rows {
		fmt.Fprintf(b, "| %s", row.title())
		for _, n := range others {
			b.WriteString(" | " + row.cell(n).ratio())
		}
		b.WriteString(" |\n")
	}
}

func (c *cell) ratio() string {
	if c == nil || c.Ratio == nil {
		return "–"
	}
	s := fmt.Sprintf("%.2fx (%.2f–%.2f)", c.Ratio.Median, c.Ratio.Low, c.Ratio.High)
	if c.Ratio.Median > 1-tie && c.Ratio.Median < 1/(1-tie) {
		s += " tie"
	}
	return s
}

// asked is the table of what reached the origin.
func (r *report) asked(b *strings.Builder, names []string) {
	b.WriteString("\nRequests at the origin for every 1,000 of clients.\n\n")
	servers := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return floors[n] != nil })
	head(b, "case", servers)
	for _, row := range r.Rows {
		fmt.Fprintf(b, "| %s", row.title())
		for _, n := range servers {
			if c := row.cell(n); c == nil || c.Fault != "" || c.Sent == 0 {
				b.WriteString(" | –")
			} else {
				fmt.Fprintf(b, " | %s", strings.TrimSuffix(fmt.Sprintf("%.1f", float64(c.Asked)*1e3/float64(c.Sent)), ".0"))
			}
		}
		b.WriteString(" |\n")
	}
}

// trials is the table of what was played with one server after the other.
func (r *report) trials(b *strings.Builder, names []string) {
	if len(r.Facts) == 0 {
		return
	}
	servers := slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		return floors[n] != nil && !slices.ContainsFunc(r.Facts, func(f *fact) bool { return f.Value[n] != "" })
	})
	fmt.Fprintf(b, "\n| case | measured | %s |\n|---|---|%s\n", strings.Join(servers, " | "), strings.Repeat("---|", len(servers)))
	for _, f := range r.Facts {
		fmt.Fprintf(b, "| %s | %s", f.Case, f.What)
		for _, n := range servers {
			v, ok := f.Value[n]
			if !ok {
				v = "–"
			}
			b.WriteString(" | " + v)
		}
		b.WriteString(" |\n")
	}
}

func (r *report) memory(b *strings.Builder) {
	b.WriteString("\nMemory at the end, in MiB (what is shared counted in parts):")
	for i, s := range r.Servers {
		fmt.Fprintf(b, "%s %s %.0f", map[bool]string{true: "", false: ","}[i == 0], s.Name, float64(s.Memory)/(1<<20))
	}
	b.WriteString(".\n")
}

// bars lists what firstbell is held to.
func (r *report) bars(b *strings.Builder) {
	met, all := 0, 0
	var missed strings.Builder
	add := func(title string, v verdict) {
		all++
		if v.Met {
			met++
		} else {
			fmt.Fprintf(&missed, "- %s: %s, was %s\n", title, v.Bar, v.Was)
		}
	}
	for _, row := range r.Rows {
		for _, v := range row.Bars {
			add(row.title(), v)
		}
	}
	for _, f := range r.Facts {
		for _, v := range f.Bars {
			add(f.Case+", "+f.What, v)
		}
	}
	if all > 0 {
		fmt.Fprintf(b, "\nBars met: %d of %d.\n%s", met, all, missed.String())
	}
}

// far is how many times what a bare fasthttp answer costs is far outside the
// noise. A hit costs about as much as such an answer, and a run beside eight
// busy neighbours on two CPUs has moved the median of five turns by half at the
// most; three times is a second copy of the body, a lock that everybody waits
// for, or a system call too many. A check-in that is on disk costs two to three
// of them.
var far = map[string]float64{"hit, 1 KiB": 3, "hit, 20 KiB, proxy compresses": 3, "durable check-in; others forward it": 8}

// failed returns an error where firstbell failed: others' faults are in the table.
func (r *report) failed() error {
	var list []error
	for _, row := range r.Rows {
		if c := row.cell(ours); c != nil && c.Fault != "" && !strings.HasPrefix(c.Fault, "has no ") {
			list = append(list, fmt.Errorf("%s: firstbell: %s", row.title(), c.Fault))
		}
	}
	return errors.Join(list...)
}

// guard returns an error where firstbell's cost is far from fasthttp's.
func (r *report) guard(on bool) error {
	if !on {
		return nil
	}
	for _, row := range r.Rows {
		if row.isFar() {
			return fmt.Errorf("%s: firstbell costs %.1f times what a bare fasthttp answer does, in every second turn at least; more than %.0f is no noise", row.title(), row.cell("fasthttp").Ratio.Median, far[row.Case])
		}
	}
	return nil
}

func (r *row) isFar() bool {
	most, guarded := far[r.Case]
	c := r.cell("fasthttp")
	return guarded && c != nil && c.Ratio != nil && c.Ratio.Median > most
}

// lookAgain measures what is far once more, with three times the turns, which
// count instead: a neighbour may have had the machine for all of the few seconds.
func (a *arena) lookAgain(ctx context.Context) error {
	turns := a.rounds
	defer func() { a.rounds = turns }()
	a.rounds = 3 * turns
	for i, r := range a.rows {
		at := slices.IndexFunc(duels, func(d duel) bool { return d.name == r.Case && d.conns == r.Connections })
		if !r.isFar() || at < 0 {
			continue
		}
		fmt.Fprintf(os.Stderr, "        %s, again: firstbell cost %.1f times what fasthttp did\n", r.title(), r.cell("fasthttp").Ratio.Median)
		again, err := a.fight(ctx, &duels[at])
		if again != nil {
			a.rows[i] = again
		}
		if err != nil {
			return fmt.Errorf("%s, again: %w", r.title(), err)
		}
	}
	return nil
}
