package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// An event is one request of one student: from the highest bit, when (27 bits,
// of 100 us), who (31), what (3) and which segment (3). So packed, sixteen
// million of them are sorted in two seconds.
type event uint64

const tick = 100 * time.Microsecond

func eventAt(at time.Duration, student int, k kind, n int) event {
	return event(uint64(at/tick)<<37 | uint64(student)<<6 | uint64(k)<<3 | uint64(n))
}

func (e event) at() time.Duration { return time.Duration(e>>37) * tick }
func (e event) student() int      { return int(e >> 6 & (1<<31 - 1)) }
func (e event) kind() kind        { return kind(e >> 3 & 7) }
func (e event) segment() int      { return int(e & 7) }

// played is what the simulation finds beyond what the calculator does.
type played struct {
	figures
	nodeWait   time.Duration // of 1,000 requests, the last but one waits so long for a node's CPU
	originWait time.Duration // and for one of the origin's workers
	worstNode  float64       // part of its cores that the busiest node used in its busiest ten seconds
}

// simulate plays the morning with so many nodes and workers of the origin.
func simulate(q question, c costs, nodes, workers int, seed uint64) played {
	s := newSimulation(&q, &c, nodes, workers, seed)
	for _, e := range s.events(seed) {
		s.play(e)
	}
	p := played{figures: s.total.figures(&q), nodeWait: s.nodeWaits.last(1000), originWait: s.originWaits.last(1000)}
	for _, v := range s.perNode {
		p.worstNode = max(p.worstNode, peakOf(v)/float64(q.cores))
	}
	return p
}

// A simulation is a morning under way.
type simulation struct {
	q       *question
	c       *costs
	rnd     *rand.Rand
	seconds int
	total   *series
	perNode [][]float64 // CPU by node and second

	cores       []station // by node
	origin      station
	used        []int32 // by student: when the connection was used last, in ticks; -1: never
	expires     map[uint64]time.Duration
	nodeWaits   waits
	originWaits waits
}

func newSimulation(q *question, c *costs, nodes, workers int, seed uint64) *simulation {
	_, seconds := q.morning()
	s := &simulation{q: q, c: c, rnd: rand.New(rand.NewPCG(seed, 1)), seconds: seconds, total: newSeries(seconds), cores: make([]station, nodes),
		origin: newStation(workers), used: make([]int32, q.students), expires: make(map[uint64]time.Duration), perNode: make([][]float64, nodes)}
	for i := range nodes {
		s.cores[i], s.perNode[i] = newStation(q.cores), make([]float64, seconds)
	}
	for i := range s.used {
		s.used[i] = -1
	}
	return s
}

// events are all requests of all students, in order.
func (s *simulation) events(seed uint64) []event {
	q := s.q
	m, seconds := q.morning()
	all := make([]event, 0, q.students*8)
	end := time.Duration(seconds-1) * time.Second
	for i := range q.students {
		it := m.Intent(seed, i, q.segments)
		if !it.Comes {
			continue
		}
		add := func(at time.Duration, k kind, n int) { all = append(all, eventAt(min(max(at, 0), end), i, k, n)) }
		add(it.Arrive, list, 0)
		add(it.Arrive, own, 0)
		add(it.Arrive+reading, lesson, 0)
		for n := range it.Segments {
			add(it.Arrive+reading+time.Duration(n+1)*q.pause, segment, n)
		}
		add(it.Press, checkIn, 0)
		if it.Again > 0 {
			add(it.Again, checkIn, 1)
		}
	}
	slices.Sort(all)
	return all
}

// play has one request answered.
func (s *simulation) play(e event) {
	q, at, who, k := s.q, e.at(), e.student(), e.kind()
	sec := int(at.Seconds())
	// A balancer knows nothing of schools.
	node := int(uint64(who) * 0x9e3779b97f4a7c15 >> 32 % uint64(len(s.cores)))
	work := s.c.cost(q, k)
	if s.connect(e) {
		work += s.c.ConnectUS / 1e6
	}
	t := s.total
	t.sum.requests++
	t.requests[sec]++
	t.kib[sec] += q.sent(k)
	t.cpu[sec] += work
	s.perNode[node][sec] += work
	// What a request costs differs: the time it takes is drawn around its mean.
	done, wait := s.cores[node].serve(at.Seconds(), work*s.rnd.ExpFloat64())
	s.nodeWaits.add(wait)
	school, grade := who%q.schools, who/q.schools%q.lessons
	switch k {
	case own:
		t.own[sec]++
		_, wait := s.origin.serve(done, q.ownTime.Seconds()*s.rnd.ExpFloat64())
		s.originWaits.add(wait)
	case checkIn:
		t.sum.checkIns++
		t.presses[sec]++
	case list:
		s.fetch(node, uint64(school)<<8, at, q.listFresh)
	case lesson:
		s.fetch(node, uint64(school)<<8|uint64(grade)+1, at, q.lessonFresh)
	case segment:
		s.fetch(node, 1<<40|uint64(grade)<<8|uint64(e.segment()), at, math.MaxInt64/2)
	}
}

// fetch counts a request at the origin where the node has nothing fresh.
func (s *simulation) fetch(node int, key uint64, at, fresh time.Duration) {
	key |= uint64(node) << 44
	if expires, ok := s.expires[key]; !ok || at >= expires {
		s.expires[key] = at + fresh
		s.total.sum.fetches++
	}
}

// connect reports whether the student needs a new connection, and keeps count
// of those that are open. The second of two presses at once is another device's.
func (s *simulation) connect(e event) bool {
	kept := int32(s.q.kept / tick)
	now, last := int32(e.at()/tick), s.used[e.student()]
	opened, closes := now, now+kept
	isNew := last < 0 || now-last > kept || e.kind() == checkIn && e.segment() == 1 && now-last < int32(20*time.Millisecond/tick)
	if !isNew {
		opened = last + kept // it stays open for longer
	}
	s.total.open[min(int(time.Duration(opened)*tick/time.Second), s.seconds-1)]++
	s.total.open[min(int(time.Duration(closes)*tick/time.Second), s.seconds-1)]--
	s.used[e.student()] = now
	return isNew
}

// A station is servers with one queue: when each is free again, as a heap.
type station []float64

func newStation(n int) station { return make(station, max(n, 1)) }

// serve gives work to the server that is free first.
func (s station) serve(at, work float64) (done, wait float64) {
	wait = max(0, s[0]-at)
	done = at + wait + work
	s[0] = done
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(s); child++ {
			if s[child] < s[least] {
				least = child
			}
		}
		if least == i {
			return done, wait
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
}

// waits counts waits by their size, a tenth more each class, from 1 us.
type waits [256]int64

func (w *waits) add(seconds float64) {
	class := 0
	if us := seconds * 1e6; us > 1 {
		class = min(1+int(math.Log(us)/math.Log(1.1)), len(w)-1)
	}
	w[class]++
}

// last is what all but one of n waited at most.
func (w *waits) last(n int64) time.Duration {
	var sum, seen int64
	for _, c := range w {
		sum += c
	}
	for class, c := range w {
		if seen += c; seen*n >= sum*(n-1) {
			if class == 0 {
				return 0
			}
			return time.Duration(math.Pow(1.1, float64(class)) * float64(time.Microsecond))
		}
	}
	return 0
}
