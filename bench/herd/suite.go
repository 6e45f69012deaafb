package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A suite is one run of the cases against one proxy.
type suite struct {
	origin *origin
	proxy  *client // asks through the proxy
	direct *client // asks the origin itself
	colds  int     // how many URLs the cold herd asks for
	film   int     // bytes of the film in case 11
	run    string  // makes the URLs of this run ones that nobody asked for before
	urls   int     // how many have been made
	rows   []row
	title  string // of the case being played
}

// A row is one thing that was measured.
type row struct {
	Case    string `json:"case"`
	What    string `json:"measured"`
	Value   string `json:"value"`
	Bar     string `json:"bar,omitempty"`
	Verdict string `json:"verdict,omitempty"` // pass, fail; empty where there is no bar
}

const (
	pass = "pass"
	fail = "fail"
)

// caseMax bounds every case: the slowest peer known needs 12 s for one. Case 9
// is given more for many URLs: nginx needs 8 ms for each.
const caseMax, urlMax = time.Minute, 20 * time.Millisecond

// cases are played in this order, one at a time. Numbers are those of -cases.
var cases = []struct {
	title string
	play  func(*suite, context.Context)
}{
	{"1 one lesson, 1 s", (*suite).oneLesson},
	{"2 no-store, 200 ms", (*suite).noStore},
	{"3 512 KiB over 2 s", (*suite).slowBody},
	{"4 the first client leaves", (*suite).firstLeaves},
	{"5 origin dies in mid-body", (*suite).originDies},
	{"6 503", (*suite).unavailable},
	{"7 another user's page", (*suite).leaks},
	{"8 HEAD, GET and Range", (*suite).mixed},
	{"9 cold URLs", (*suite).cold},
	{"10 bad framing", (*suite).badFraming},
	{"11 slow followers", (*suite).slowFollowers},
	{"12 answers that are none", (*suite).noAnswers},
}

// play plays the cases wanted (numbers; none: all), and returns what was
// measured. It ends early, with an error, when the context ends.
func (s *suite) play(ctx context.Context, wanted []int) ([]row, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	for i, c := range cases {
		if len(wanted) > 0 && !slices.Contains(wanted, i+1) {
			continue
		}
		s.title = c.title
		bounded, cancel := context.WithTimeout(ctx, caseMax+time.Duration(s.colds)*urlMax)
		c.play(s, bounded)
		cancel()
		if err := ctx.Err(); err != nil {
			return s.rows, fmt.Errorf("playing case %s: %w", c.title, err)
		}
	}
	return s.rows, nil
}

// readyMax is how long the proxy may take to find its origin.
const readyMax = 15 * time.Second

// ready waits until a request through the proxy reaches the origin.
func (s *suite) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	for {
		sc := s.scene("ready", 100, whole(0))
		a := s.proxy.get(ctx, ask{path: sc.path})
		s.origin.remove(sc)
		if a.is(sc.body) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the proxy to ask this origin: status %d, %d fetches, last error: %v", a.status, sc.fetches(), a.err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// scene sets what the origin plays at a new URL. The caller removes it.
func (s *suite) scene(name string, size int, play player) *scene {
	s.urls++
	path := "/herd/" + s.run + "/" + name + "/" + strconv.Itoa(s.urls)
	sc := &scene{path: path, body: bodyOf(path, size), play: play, over: make(chan struct{}), began: make(chan struct{})}
	s.origin.add(sc)
	return sc
}

// note adds a row without a bar.
func (s *suite) note(what, value string) {
	s.rows = append(s.rows, row{Case: s.title, What: what, Value: value})
}

// judge adds a row that is held to a bar.
func (s *suite) judge(what, value, bar string, met bool) {
	r := row{Case: s.title, What: what, Value: value, Bar: bar, Verdict: fail}
	if met {
		r.Verdict = pass
	}
	s.rows = append(s.rows, r)
}

// count judges a number that may be at most so much.
func (s *suite) count(what string, n, most int) {
	bar := strconv.Itoa(most)
	if most > 0 {
		bar = "≤ " + bar
	}
	s.judge(what, strconv.Itoa(n), bar, n <= most)
}

// once judges that the origin was asked once.
func (s *suite) once(what string, n int) { s.judge(what, strconv.Itoa(n), "1", n == 1) }

// all judges that everybody has what is wanted.
func (s *suite) all(what string, n, of int) {
	s.judge(what, fmt.Sprintf("%d of %d", n, of), "all", n == of)
}

// herd asks n questions at once and waits for all answers, in order.
func herd(ctx context.Context, c *client, n int, q func(i int) ask) []answer {
	answers := make([]answer, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { answers[i] = c.get(ctx, q(i)) })
	}
	wg.Wait()
	return answers
}

// same is the question of a herd that all ask the same.
func same(path string) func(int) ask {
	return func(int) ask { return ask{path: path} }
}

func countOf(answers []answer, is func(*answer) bool) int {
	n := 0
	for i := range answers {
		if is(&answers[i]) {
			n++
		}
	}
	return n
}

// spread returns the middle and the largest of a duration of each answer.
func spread(answers []answer, of func(*answer) time.Duration) (median, worst time.Duration) {
	all := make([]time.Duration, len(answers))
	for i := range answers {
		all[i] = of(&answers[i])
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)-1]
}

func took(a *answer) time.Duration { return a.took }

// ms is a duration as the table shows it.
func ms(d time.Duration) string {
	if d >= 10*time.Second {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	if d >= time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}
