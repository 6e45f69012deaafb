package bell

import (
	"iter"
	"slices"
	"time"
)

// Progress is how far the morning is.
type Progress struct {
	Arrived  int64 // students who came
	Pressed  int64 // presses of the button, retries not counted
	Receipts int64 // students and periods that hold a receipt
	Sent     int64 // requests, retries included
	Failed   int64 // tries without a right answer
	Pending  int64 // errands and arrivals that are not over
}

// Progress may be called at any time.
func (p *Player) Progress() Progress {
	c := p.Total()
	return Progress{
		p.arrivedN.Load(), p.pressedN.Load(), p.receiptsN.Load(),
		c.Sent, c.Refused + c.Errors + c.Broken + c.TimedOut + c.Wrong, p.pending.Load(),
	}
}

// Counts are what happened to the requests of a kind.
func (p *Player) Counts(k Kind) Counts { return p.counts[k].load() }

// Total sums the counts of all kinds.
func (p *Player) Total() Counts {
	var c Counts
	for _, k := range Kinds {
		c = c.add(p.Counts(k))
	}
	return c
}

// Took is the time from when a request was due until its right answer was read
// to the end, one try alone: the quantile over the given kinds.
func (p *Player) Took(q float64, of ...Kind) time.Duration {
	hs := make([]*Histogram, len(of))
	for i, k := range of {
		hs[i] = &p.times[k]
	}
	return Quantile(q, hs...)
}

// ToHand is the time from a student's press until a receipt was in hand,
// through all refusals, outages and pauses.
func (p *Player) ToHand(q float64) time.Duration { return p.toHand.Quantile(q) }

// Timeline is what happened when.
func (p *Player) Timeline() *Timeline { return p.timeline }

// Leaks is how often a student was given what belongs to another.
func (p *Player) Leaks() int64 { return p.leaks.Load() }

// Conflicts is how often a check-in made twice had two different receipts.
func (p *Player) Conflicts() int64 { return p.conflicts.Load() }

// Notes are the first few things that went wrong, in words.
func (p *Player) Notes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.notes)
}

// Hand is what a student has to show after the morning.
type Hand struct {
	Period, Outside Held // Status Nothing: no such receipt
	Pressed         bool // pressed at least once
	// MadeLate: the server had answered a press before late_after, and calls the
	// student late all the same.
	MadeLate bool
}

// Hands yields every student's number and hand. Call it when Play has returned.
func (p *Player) Hands() iter.Seq2[int, Hand] {
	lateAfter := p.cfg.Morning.LateAfter.UnixMilli()
	return func(yield func(int, Hand) bool) {
		for i := range p.students {
			s := &p.students[i]
			h := Hand{s.period, s.outside, s.pressed, false}
			h.MadeLate = s.period.Status == Late && s.firstAnswer != 0 && s.firstAnswer < lateAfter
			if !yield(i, h) {
				return
			}
		}
	}
}

// Hand is what student i has to show. Call it when Play has returned.
func (p *Player) Hand(i int) Hand {
	s := &p.students[i]
	return Hand{Period: s.period, Outside: s.outside, Pressed: s.pressed}
}
