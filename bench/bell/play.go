package bell

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Player plays one morning. Its counters may be read at any time.
type Player struct {
	cfg      Config
	segments int // media segments of a lesson, the most of any
	timeline *Timeline
	counts   [kinds]counters
	times    [kinds]Histogram // from due to answered, one try
	toHand   Histogram        // from the first press to the receipt, retries included
	agenda   agenda
	lanes    [lanes]*lane
	begun    time.Time // the monotonic clock's view of Morning.First

	students []student
	locks    [64]sync.Mutex // guard students, by number modulo 64

	arrivedN, pressedN, receiptsN atomic.Int64
	leaks, conflicts              atomic.Int64
	pending                       atomic.Int64 // errands that are not over

	mu    sync.Mutex // guards notes
	notes []string
}

// student is what is known of one student; about 80 bytes, as there may be a
// million.
type student struct {
	period, outside Held
	firstTry        int64 // when the first press for the period went out, Unix ms; 0: none yet
	firstAnswer     int64 // when the first answer of any kind to one came, Unix ms
	pressed         bool
}

// lane numbers the kinds of connections a browser opens; none waits for another.
const (
	laneLessons = iota
	laneMe
	laneCheckIns
	lanes
)

func (k Kind) lane() int {
	switch k {
	case Me:
		return laneMe
	case CheckIn:
		return laneCheckIns
	}
	return laneLessons
}

// errand is one thing a student wants, through all its tries.
type errand struct {
	due     time.Duration // of this try, since Morning.First
	clicked time.Duration // of the first try
	student uint32
	kind    Kind
	n       uint8 // which segment or press
	tries   uint8 // so far
	jar     string
}

// The presses of a student.
const (
	pressTooEarly uint8 = iota
	pressFirst
	pressSecond
)

// New prepares a morning; nothing is sent yet.
func New(cfg Config) (*Player, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	p := &Player{cfg: cfg, students: make([]student, cfg.Roster.Students())}
	for g := 1; g <= grades; g++ {
		p.segments = max(p.segments, len(cfg.Content.Lesson(0, g))-1)
	}
	p.timeline = newTimeline(cfg.Morning.First, cfg.Morning.Ends.Sub(cfg.Morning.First))
	p.agenda.wake = make(chan struct{}, 1)
	return p, nil
}

// Play plays the morning to its end: every student who comes has a right answer
// to everything asked for, or has given up. It begins at Morning.First, or at
// once when that is past. The error is the context's.
func (p *Player) Play(ctx context.Context) error {
	m := &p.cfg.Morning
	p.begun = time.Now().Add(time.Until(m.First))
	arrivals := m.arrivals(p.cfg.Seed, p.cfg.Roster.Students(), p.segments)
	p.pending.Store(int64(len(arrivals)))

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var workers sync.WaitGroup
	shares := [lanes]int{laneLessons: 3, laneMe: 4, laneCheckIns: 3}
	for i := range p.lanes {
		p.lanes[i] = newLane(max(1, p.cfg.Connections*shares[i]/10), func(l *lane) {
			workers.Go(func() { p.work(ctx, l) })
		})
	}
	err := p.ring(ctx, arrivals)
	stop()
	for _, l := range p.lanes {
		l.close()
	}
	workers.Wait()
	return err
}

// ring hands out errands as they fall due, until all are over.
func (p *Player) ring(ctx context.Context, arrivals []arrival) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for p.pending.Load() > 0 {
		now := time.Since(p.begun)
		for len(arrivals) > 0 && arrivals[0].at <= now {
			p.arrive(arrivals[0])
			arrivals = arrivals[1:]
		}
		next := now + time.Minute
		if len(arrivals) > 0 {
			next = arrivals[0].at
		}
		for {
			e, due, ok := p.agenda.pop(now)
			if !ok {
				next = min(next, due)
				break
			}
			p.lanes[e.kind.lane()].offer(e)
		}
		// Errands fall due in crowds: looking every millisecond is often enough,
		// and how late it was counts as waiting.
		timer.Reset(max(next-time.Since(p.begun), time.Millisecond))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		case <-p.agenda.wake:
		}
	}
	return nil
}

// arrive puts what the student intends on the agenda.
func (p *Player) arrive(a arrival) {
	pl := p.cfg.Morning.plan(p.cfg.Seed, int(a.student), p.segments)
	p.arrivedN.Add(1)
	p.timeline.at(p.begun.Add(a.at)).arrivals.Add(1)
	add := func(kind Kind, n uint8, at time.Duration) {
		p.pending.Add(1)
		p.agenda.push(errand{due: at, clicked: at, student: a.student, kind: kind, n: n})
	}
	add(List, 0, a.at)
	if pl.tooEarly > 0 {
		add(CheckIn, pressTooEarly, pl.tooEarly)
	}
	add(CheckIn, pressFirst, pl.press)
	if pl.how != once {
		add(CheckIn, pressSecond, pl.second)
	}
	p.pending.Add(-1) // the arrival itself
}

// follow puts on the agenda what the student does after an errand that went
// well: list, page, personal page, then one segment after another.
func (p *Player) follow(e *errand) {
	think := func(part float64) time.Duration {
		span := p.cfg.Morning.Starts.Sub(p.cfg.Morning.Opens)
		return time.Since(p.begun) + scale(span, part*(0.5+rand.Float64()))
	}
	next := errand{student: e.student, jar: ""}
	switch e.kind {
	case List:
		next.kind, next.due = Me, think(0.02)
	case Me:
		next.kind, next.due = Page, think(0.04)
	case Page:
		next.kind, next.due = Media, think(0.02)
	case Media:
		next.kind, next.n, next.due = Media, e.n+1, think(0.12)
	default:
		return
	}
	if next.kind == Media {
		pl := p.cfg.Morning.plan(p.cfg.Seed, int(e.student), p.segments)
		st := p.cfg.Roster.Student(int(e.student))
		if int(next.n) >= min(pl.segments, len(p.cfg.Content.Lesson(st.School, st.Grade))-1) {
			return
		}
	}
	next.clicked = next.due
	p.pending.Add(1)
	p.agenda.push(next)
}

// resource is the lesson content an errand is about.
func (p *Player) resource(e *errand, st *Student) Resource {
	switch e.kind {
	case List:
		return p.cfg.Content.List(st.School)
	case Page:
		return p.cfg.Content.Lesson(st.School, st.Grade)[0]
	}
	return p.cfg.Content.Lesson(st.School, st.Grade)[1+int(e.n)]
}

// attempt names one press, the same through all its tries.
func (p *Player) attempt(e *errand) uint64 {
	return maphash.Comparable(attemptSeed, [3]uint64{p.cfg.Seed, uint64(e.student), uint64(e.n)})
}

// attemptSeed differs from run to run: attempts are remembered for a quarter of
// an hour, and two runs may follow each other faster.
var attemptSeed = maphash.MakeSeed()

func (p *Player) lock(student uint32) *sync.Mutex { return &p.locks[student%uint32(len(p.locks))] }

// pressing notes that a check-in is about to be sent.
func (p *Player) pressing(e *errand, now time.Time) {
	if e.tries == 0 {
		p.pressedN.Add(1)
		p.timeline.at(p.begun.Add(e.clicked)).pressed.Add(1)
	}
	l := p.lock(e.student)
	l.Lock()
	defer l.Unlock()
	s := &p.students[e.student]
	s.pressed = true
	if e.n != pressTooEarly && s.firstTry == 0 {
		s.firstTry = now.UnixMilli()
	}
}

// heard notes that the server has seen a press: nobody it has seen in time may
// be called late.
func (p *Player) heard(e *errand, now time.Time) {
	l := p.lock(e.student)
	l.Lock()
	defer l.Unlock()
	if s := &p.students[e.student]; e.n != pressTooEarly && s.firstAnswer == 0 {
		s.firstAnswer = now.UnixMilli()
	}
}

// hold puts a receipt into the student's hands.
func (p *Player) hold(e *errand, h Held, now time.Time) {
	l := p.lock(e.student)
	l.Lock()
	defer l.Unlock()
	s := &p.students[e.student]
	mine := &s.period
	if h.Status == Outside {
		mine = &s.outside
	}
	switch {
	case mine.Status == Nothing:
		*mine = h
		p.receiptsN.Add(1)
		p.timeline.at(now).receipts.Add(1)
	case mine.ID != h.ID:
		p.conflicts.Add(1)
		p.note("student %d holds two receipts for one check-in: %x and %x", e.student, mine.ID, h.ID)
	case h.First < mine.First: // a retry proved that they came earlier
		*mine = h
	}
}

// note keeps the first few things that went wrong, for the report.
func (p *Player) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.notes) < 20 {
		p.notes = append(p.notes, fmt.Sprintf(format, args...))
	}
}
