package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCalculatorAndSimulationAgree(t *testing.T) {
	c, err := readCosts("")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*question){
		"as it is":                 func(*question) {},
		"a rush of three minutes":  func(q *question) { q.window = 3 * time.Minute },
		"one large school":         func(q *question) { q.schools = 1 },
		"many small schools":       func(q *question) { q.schools = 400 },
		"little is kept":           func(q *question) { q.kept, q.listFresh = 5*time.Second, 10*time.Second },
		"long films, small nodes":  func(q *question) { q.segments, q.pause, q.cores, q.gbits = 7, 20*time.Second, 1, 0.1 },
		"no film, patient clients": func(q *question) { q.segments, q.kept = 0, 10*time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := asked()
			q.students, q.schools = 20_000, 40
			change(&q)
			p := calculate(q, c)
			s := simulate(q, c, p.nodes-q.spare, p.workers, 1)
			for _, r := range beside(&p.figures, &s.figures) {
				t.Logf("%s: %.1f calculated, %.1f played", r.what, r.calculated, r.played)
				if a := r.apart(); math.IsNaN(a) || math.Abs(a) > r.bound {
					t.Errorf("%s: got %.1f calculated and %.1f played, %+.1f %% apart; want at most %.0f %%", r.what, r.calculated, r.played, 100*a, 100*r.bound)
				}
			}
			if s.worstNode > 1.25*q.busy {
				t.Errorf("the busiest node used %.0f %% of its cores; want about %.0f %% at most, as was planned with", 100*s.worstNode, 100*q.busy)
			}
		})
	}
}

func TestTheSameSeedIsTheSameMorning(t *testing.T) {
	c, err := readCosts("")
	if err != nil {
		t.Fatal(err)
	}
	q := asked()
	q.students, q.schools = 5000, 10
	first, second, other := simulate(q, c, 2, 10, 7), simulate(q, c, 2, 10, 7), simulate(q, c, 2, 10, 8)
	if first != second {
		t.Errorf("got %+v, then %+v", first, second)
	}
	if first == other {
		t.Errorf("got the same from another seed: %+v", other)
	}
}

func TestTooFewNodesWait(t *testing.T) {
	c, err := readCosts("")
	if err != nil {
		t.Fatal(err)
	}
	q := asked()
	q.students, q.schools, q.cores = 20_000, 100, 1
	c.HitUS *= 500
	enough := calculate(q, c).nodes - q.spare
	few, many := simulate(q, c, 1, 1000, 1), simulate(q, c, enough, 1000, 1)
	if enough < 2 || few.nodeWait < 10*many.nodeWait || few.nodeWait < time.Second {
		t.Errorf("got a wait of %v on one node and %v on %d; want far less on as many as are planned", few.nodeWait, many.nodeWait, enough)
	}
}

func TestThePlanSaysWhatItAssumes(t *testing.T) {
	var out strings.Builder
	if err := run([]string{"-students", "20000", "-schools", "40"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"20,000 students of 40 schools", "nodes of 4 cores", "memory of a node", "Assumed:", "costs as measured", "request by request", "apart"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the plan lacks %q:\n%s", want, out.String())
		}
	}
}

func TestCostsThatAreNoneAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "costs.json")
	if err := os.WriteFile(file, []byte(`{"hit_us": 3}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-costs", file}, {"-costs", file + "x"}, {"-segments", "8"}, {"-students", "0"}, {"-busy", "2"}} {
		if err := run(args, &strings.Builder{}); err == nil {
			t.Errorf("%v: got no error", args)
		}
	}
}
