package bell

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Kind is what a student asks for.
type Kind uint8

const (
	List Kind = iota
	Page
	Media
	Me
	CheckIn
	kinds
)

// Kinds lists them in the order in which a student meets them.
var Kinds = []Kind{List, Page, Media, Me, CheckIn}

// String is the name in reports.
func (k Kind) String() string {
	return [...]string{"lesson list", "lesson page", "media segment", "personal page", "check-in"}[k]
}

// Lesson reports whether it is lesson content, the same for everybody.
func (k Kind) Lesson() bool { return k <= Media }

// Counts are what happened to the requests of one kind.
type Counts struct {
	Sent     int64 // requests that went out whole, retries included
	Answered int64 // answers that are right, to the last byte
	Refused  int64 // 503 and 429: asked to come back
	Errors   int64 // other answers that are no success
	Broken   int64 // connections refused, reset or cut off
	TimedOut int64 // no complete answer within the client's patience
	Wrong    int64 // complete answers that are not what they have to be
	GaveUp   int64 // requests that got no right answer after all tries
}

// add sums two counts.
func (c Counts) add(o Counts) Counts {
	return Counts{
		c.Sent + o.Sent, c.Answered + o.Answered, c.Refused + o.Refused, c.Errors + o.Errors,
		c.Broken + o.Broken, c.TimedOut + o.TimedOut, c.Wrong + o.Wrong, c.GaveUp + o.GaveUp,
	}
}

// counters is Counts while it is being counted.
type counters struct {
	sent, answered, refused, errors, broken, timedOut, wrong, gaveUp atomic.Int64
}

func (c *counters) load() Counts {
	return Counts{
		c.sent.Load(), c.answered.Load(), c.refused.Load(), c.errors.Load(),
		c.broken.Load(), c.timedOut.Load(), c.wrong.Load(), c.gaveUp.Load(),
	}
}

// A histogram has 16 slots per doubling of microseconds: a quantile read from it
// is at most 6 % too high. 27 octaves reach a quarter of an hour.
const (
	slotsPerOctave = 16
	octaves        = 27
)

// Histogram counts durations. Its zero value is ready for use by any number of
// goroutines.
type Histogram struct {
	slots [slotsPerOctave * octaves]atomic.Uint32
	most  atomic.Int64 // the longest, in microseconds
}

func slotOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < slotsPerOctave {
		return int(us)
	}
	octave := bits.Len64(us) - 5 // us>>octave lies in [16, 32)
	return min(slotsPerOctave*octave+int(us>>octave), slotsPerOctave*octaves-1)
}

// slotEnd is the longest duration that falls into the slot.
func slotEnd(slot int) time.Duration {
	if slot < 2*slotsPerOctave {
		return time.Duration(slot) * time.Microsecond
	}
	octave := slot/slotsPerOctave - 1
	return time.Duration(uint64(slot%slotsPerOctave+slotsPerOctave+1)<<octave-1) * time.Microsecond
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.slots[slotOf(d)].Add(1)
	for us := d.Microseconds(); ; {
		most := h.most.Load()
		if us <= most || h.most.CompareAndSwap(most, us) {
			return
		}
	}
}

// Count is how many were added.
func (h *Histogram) Count() int64 {
	var n int64
	for i := range h.slots {
		n += int64(h.slots[i].Load())
	}
	return n
}

// Quantile is a duration that the part q of all does not exceed; 0 when there
// are none. Quantile(1) is the longest.
func (h *Histogram) Quantile(q float64) time.Duration { return Quantile(q, h) }

// Quantile is Histogram.Quantile over several histograms together.
func Quantile(q float64, hs ...*Histogram) time.Duration {
	var total, most int64
	for _, h := range hs {
		total += h.Count()
		most = max(most, h.most.Load())
	}
	if total == 0 {
		return 0
	}
	longest := time.Duration(most) * time.Microsecond
	rank := int64(q*float64(total) + 0.5)
	if rank >= total {
		return longest
	}
	var seen int64
	for i := range slotsPerOctave * octaves {
		for _, h := range hs {
			seen += int64(h.slots[i].Load())
		}
		if seen > 0 && seen >= rank {
			return min(slotEnd(i), longest)
		}
	}
	return longest
}

// stepsMax bounds the timeline: what happens after its end counts in the last
// step.
const stepsMax = 1200

// Step is one part of the timeline.
type Step struct {
	Arrivals int64 // students who came
	Pressed  int64 // presses of the button, retries not counted
	Receipts int64 // first receipts of a student and period
	Sent     int64 // requests
	Answered int64 // right answers
	Failed   int64 // requests without one
}

type step struct {
	arrivals, pressed, receipts, sent, answered, failed atomic.Int64
}

// Timeline counts by moment.
type Timeline struct {
	began time.Time
	width time.Duration
	steps []step
	waits [2][]Histogram // check-ins and everything else, per waitSteps steps
}

// waitSteps is how many steps share one latency histogram.
const waitSteps = 5

func newTimeline(began time.Time, span time.Duration) *Timeline {
	// A morning of half a minute is cut into tenths of a second; one of half an
	// hour into as many parts as can be drawn. Half as much again and a minute
	// are room for retries after the end.
	span += span/2 + time.Minute
	width := max(100*time.Millisecond, (span / stepsMax).Round(100*time.Millisecond))
	n := int(span/width) + 1
	t := &Timeline{began: began, width: width, steps: make([]step, n)}
	for i := range t.waits {
		t.waits[i] = make([]Histogram, n/waitSteps+1)
	}
	return t
}

func (t *Timeline) index(at time.Time) int {
	return min(max(0, int(at.Sub(t.began)/t.width)), len(t.steps)-1)
}

func (t *Timeline) at(at time.Time) *step { return &t.steps[t.index(at)] }

// wait counts how long a request that is answered now has taken.
func (t *Timeline) wait(now time.Time, k Kind, d time.Duration) {
	which := 1
	if k == CheckIn {
		which = 0
	}
	t.waits[which][t.index(now)/waitSteps].Add(d)
}

// Began is the moment of the first step.
func (t *Timeline) Began() time.Time { return t.began }

// Width is the length of a step.
func (t *Timeline) Width() time.Duration { return t.width }

// Steps are the counts so far, without the empty ones at the end.
func (t *Timeline) Steps() []Step {
	all := make([]Step, len(t.steps))
	last := 0
	for i := range t.steps {
		s := &t.steps[i]
		all[i] = Step{
			s.arrivals.Load(), s.pressed.Load(), s.receipts.Load(),
			s.sent.Load(), s.answered.Load(), s.failed.Load(),
		}
		if all[i] != (Step{}) {
			last = i + 1
		}
	}
	return all[:last]
}

// Waits are quantiles of the answer times over time, one per WaitWidth; 0 where
// nothing was answered.
func (t *Timeline) Waits(checkIns bool, q float64) []time.Duration {
	which := 1
	if checkIns {
		which = 0
	}
	steps := (len(t.Steps()) + waitSteps - 1) / waitSteps
	out := make([]time.Duration, steps)
	for i := range out {
		out[i] = t.waits[which][i].Quantile(q)
	}
	return out
}

// WaitWidth is the length of one entry of Waits.
func (t *Timeline) WaitWidth() time.Duration { return waitSteps * t.width }
