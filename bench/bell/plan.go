package bell

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Morning is when things are. All instants are real; a demo lets seconds stand
// for minutes by drawing them close together.
type Morning struct {
	First     time.Time // the earliest student opens a lesson
	Opens     time.Time // from here a check-in counts for the period
	Starts    time.Time // the bell
	LateAfter time.Time // a first arrival after this is late
	Ends      time.Time // the period takes no check-in after this
	Date      string    // local date at the schools, 2026-05-04
	Period    string    // the period's name
}

// second says how a student comes to press a second time.
type second uint8

const (
	once      second = iota
	again            // same device, impatient
	twoDevice        // telephone and laptop, almost at once
)

// plan is what one student intends; offsets count from Morning.First.
type plan struct {
	comes    bool
	arrive   time.Duration // opens the lesson list
	tooEarly time.Duration // presses before the period opens; 0: does not
	press    time.Duration // presses for the period
	how      second
	second   time.Duration // offset of the second press
	segments int           // media segments watched
}

// The shape of a morning, in parts of all students. The rest is prompt.
const (
	partAbsent   = 0.030 // never come
	partLate     = 0.060 // come between late_after and the end
	partTooEarly = 0.004 // press before the period opens, and once more in it
	partAgain    = 0.070 // press twice on one device
	partDevices  = 0.030 // press on two devices
)

// plan computes what student i does. It depends on nothing but the seed, the
// number and the morning.
func (m *Morning) plan(seed uint64, i int, segmentsMax int) plan {
	rnd := rand.New(rand.NewPCG(seed, uint64(i)))
	var p plan
	who := rnd.Float64()
	if who < partAbsent {
		return p
	}
	p.comes = true
	opens, starts := m.Opens.Sub(m.First), m.Starts.Sub(m.First)
	late, ends := m.LateAfter.Sub(m.First), m.Ends.Sub(m.First)
	// Nobody means to press in the last part before the end: what is retried
	// after it would count as outside, which is right, but not what is shown.
	span := ends - late
	if who < partAbsent+partLate {
		p.press = late + scale(span, 0.05+0.55*rnd.Float64())
	} else {
		p.press = promptPress(rnd, opens, starts, late)
	}
	p.arrive = p.press - scale(starts-opens, 0.05+0.7*rnd.Float64())
	if p.arrive < 0 {
		p.arrive = scale(p.press, rnd.Float64())
	}
	if who > 1-partTooEarly && opens > 0 {
		p.tooEarly = scale(opens, 0.1+0.5*rnd.Float64())
		p.arrive = min(p.arrive, p.tooEarly)
	}
	switch x := rnd.Float64(); {
	case x < partAgain:
		p.how = again
		p.second = p.press + scale(span, 0.02+0.2*rnd.Float64())
	case x < partAgain+partDevices:
		p.how = twoDevice
		p.second = p.press + time.Duration(rnd.IntN(20))*time.Millisecond
	}
	p.segments = segmentsMax/2 + rnd.IntN(segmentsMax-segmentsMax/2+1)
	return p
}

// An Intent is what one student means to do; offsets count from Morning.First.
type Intent struct {
	Comes    bool
	Arrive   time.Duration // opens the lesson list
	Press    time.Duration // checks in
	Again    time.Duration // checks in once more; 0: does not
	Segments int           // media segments watched
}

// Intent is what student i of a morning means to do: what a player with this
// seed does where everything answers at once. It depends on nothing else.
func (m *Morning) Intent(seed uint64, i, segmentsMax int) Intent {
	p := m.plan(seed, i, segmentsMax)
	it := Intent{Comes: p.comes, Arrive: p.arrive, Press: p.press, Segments: p.segments}
	if p.how != once {
		it.Again = p.second
	}
	return it
}

// promptPress draws a moment bunched at the bell: it climbs steeply, peaks just
// before, and has a tail after it (a log-normal running backwards would fall too
// late; a normal with a log-normal tail is what check-in logs look like).
func promptPress(rnd *rand.Rand, opens, starts, late time.Duration) time.Duration {
	before := scale(starts-opens, 0.28)
	for range 20 {
		var at time.Duration
		if rnd.Float64() < 0.7 {
			at = starts + scale(before, -0.25+rnd.NormFloat64())
		} else {
			at = starts + scale(late-starts, 0.22*math.Exp(0.6*rnd.NormFloat64())-0.1)
		}
		if at > opens+scale(starts-opens, 0.1) && at < late-scale(late-starts, 0.15) {
			return at
		}
	}
	return starts
}

func scale(d time.Duration, f float64) time.Duration { return time.Duration(float64(d) * f) }

// arrival is when one student opens the list; 16 bytes, because a million of
// them are sorted.
type arrival struct {
	at      time.Duration
	student uint32
}

// arrivals are all students who come, in order.
func (m *Morning) arrivals(seed uint64, students, segmentsMax int) []arrival {
	all := make([]arrival, 0, students)
	for i := range students {
		if p := m.plan(seed, i, segmentsMax); p.comes {
			all = append(all, arrival{p.arrive, uint32(i)})
		}
	}
	slices.SortFunc(all, func(a, b arrival) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return int(a.student) - int(b.student)
	})
	return all
}
