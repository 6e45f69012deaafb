package main

import (
	"math"
	"slices"
	"time"

	"firstbell/bench/bell"
)

// morning is when things are, seen from the first second: check-ins open at
// two thirds of a window, late ones have as long as two and a half windows.
func (q *question) morning() (m bell.Morning, seconds int) {
	first := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	m = bell.Morning{First: first, Opens: first.Add(q.window * 2 / 3)}
	m.Starts = m.Opens.Add(q.window)
	m.LateAfter = m.Starts.Add(q.window)
	m.Ends = m.LateAfter.Add(q.window * 5 / 2)
	// Behind the end come the second presses and the last connections' ends.
	return m, int((m.Ends.Sub(m.First) + q.window + q.kept).Seconds()) + 1
}

// The shape of the morning as bench/bell draws it (its plan.go), in parts of all
// students. A test holds them to what bell does.
const (
	absent  = 0.030
	late    = 0.060
	again   = 0.070
	devices = 0.030
)

// pressDensity is the expected number of first presses in each second.
func pressDensity(q *question, m *bell.Morning, seconds int) []float64 {
	at := func(t time.Time) float64 { return t.Sub(m.First).Seconds() }
	opens, starts, lateAfter, ends := at(m.Opens), at(m.Starts), at(m.LateAfter), at(m.Ends)
	density := make([]float64, seconds)
	sum := 0.0
	sd, tail := 0.28*(starts-opens), lateAfter-starts
	for s := range density {
		t := float64(s) + 0.5
		if t <= opens+0.1*(starts-opens) || t >= lateAfter-0.15*tail {
			continue // those draw again
		}
		z := (t - starts + 0.25*sd) / sd
		v := 0.7 * math.Exp(-z*z/2) / (sd * math.Sqrt(2*math.Pi))
		if x := ((t-starts)/tail + 0.1) / 0.22; x > 0 {
			z := math.Log(x) / 0.6
			v += 0.3 * math.Exp(-z*z/2) / (x * 0.6 * math.Sqrt(2*math.Pi)) / (0.22 * tail)
		}
		density[s] = v
		sum += v
	}
	for s := range density {
		density[s] *= float64(q.students) * (1 - absent - late) / sum
	}
	from, to := lateAfter+0.05*(ends-lateAfter), lateAfter+0.60*(ends-lateAfter)
	for s := int(from); s < int(to); s++ {
		density[s] += float64(q.students) * late / float64(int(to)-int(from))
	}
	return density
}

// gaps are equally likely times from opening the list to pressing.
func gaps(q *question) []float64 {
	g := make([]float64, 20)
	for i := range g {
		g[i] = q.window.Seconds() * (0.05 + 0.7*(float64(i)+0.5)/float64(len(g)))
	}
	return g
}

// seconds by which a second press on the same device is later: equally likely.
func delays(q *question) []float64 {
	d := make([]float64, 10)
	for i := range d {
		d[i] = 2.5 * q.window.Seconds() * (0.02 + 0.2*(float64(i)+0.5)/float64(len(d)))
	}
	return d
}

// densities is what is expected in each second.
func densities(q *question, c *costs) *series {
	m, seconds := q.morning()
	s := newSeries(seconds)
	ask := func(k kind, at, n float64) {
		i := min(max(int(at), 0), seconds-1)
		s.requests[i] += n
		s.cpu[i] += n * c.cost(q, k)
		s.kib[i] += n * q.sent(k)
		s.sum.requests += n
		switch k {
		case own:
			s.own[i] += n
		case checkIn:
			s.presses[i] += n
			s.sum.checkIns += n
		}
	}
	// A connection is open from its first request to its last and q.kept.
	connection := func(from, to, n float64) {
		s.cpu[min(max(int(from), 0), seconds-1)] += n * c.ConnectUS / 1e6
		s.open[min(max(int(from), 0), seconds-1)] += n
		s.open[min(int(to+q.kept.Seconds()), seconds-1)] -= n
	}
	watch, all := q.segments-q.segments/2+1, gaps(q)
	for press, n := range pressDensity(q, &m, seconds) {
		if n == 0 {
			continue
		}
		t := float64(press)
		ask(checkIn, t, n)
		ask(checkIn, t, n*devices)
		connection(t, t, n*devices) // the other device's
		for _, d := range delays(q) {
			part := n * again / 10
			ask(checkIn, t+d, part)
			if d > q.kept.Seconds() {
				connection(t+d, t+d, part)
			}
		}
		for _, gap := range all {
			for w := range watch {
				watched := q.segments/2 + w
				q.visit(t-gap, gap, watched, n/float64(len(all)*watch), ask, connection)
			}
		}
	}
	return s
}

// visit is n students who open the list at a time and press a gap later.
func (q *question) visit(at, gap float64, watched int, n float64, ask func(kind, float64, float64), connection func(from, to, n float64)) {
	ask(list, at, n)
	ask(own, at, n)
	var room [10]float64 // list, lesson, seven segments, press
	uses := append(room[:0], at, at+reading.Seconds())
	ask(lesson, uses[1], n)
	for i := range watched {
		uses = append(uses, uses[1]+float64(i+1)*q.pause.Seconds())
		ask(segment, uses[i+2], n)
	}
	uses = append(uses, at+gap) // the press, which films go on around
	slices.Sort(uses)
	// Requests come over one connection as long as it is there.
	from := uses[0]
	for i, use := range uses {
		if i+1 == len(uses) || uses[i+1]-use > q.kept.Seconds() {
			connection(from, use, n)
			from = uses[min(i+1, len(uses)-1)]
		}
	}
}

// fetches is how often all nodes ask the origin for what is shared. To a node
// that sees v visits a second of a key that stays fresh for f seconds comes one
// fetch in every f + 1/v seconds.
func fetches(q *question, nodes int) float64 {
	m, seconds := q.morning()
	visits := make([]float64, seconds) // of lists; lessons are opened as often, a little later
	for press, n := range pressDensity(q, &m, seconds) {
		for _, gap := range gaps(q) {
			visits[max(press-int(gap), 0)] += n / 20
		}
	}
	sum := 0.0
	for _, k := range []struct {
		keys  float64
		fresh time.Duration
	}{{float64(q.schools), q.listFresh}, {float64(q.schools * q.lessons), q.lessonFresh}} {
		all := k.keys * float64(nodes)
		for _, n := range visits {
			v := n / all
			sum += all * v / (1 + v*k.fresh.Seconds())
		}
	}
	return sum + float64(nodes*q.lessons*q.segments)
}
