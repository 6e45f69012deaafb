package lms

import (
	"sync"
	"time"
)

// Kind is what a request asks for.
type Kind uint8

const (
	List Kind = iota
	Page
	Media
	Me
	Login
	CheckIn
	Bulk
	Health
	Other
	kinds
)

// Kinds lists them all.
var Kinds = []Kind{List, Page, Media, Me, Login, CheckIn, Bulk, Health, Other}

// String is the name in reports.
func (k Kind) String() string {
	return [...]string{"lesson list", "lesson page", "media segment", "personal page", "login", "check-in", "bulk attendance", "health", "other"}[k]
}

// Lesson reports whether it is lesson content, the same for everybody.
func (k Kind) Lesson() bool { return k <= Media }

// Counts are what happened to the requests of one kind.
type Counts struct {
	Arrived     int64 // requests
	Answered    int64 // with what was asked for
	NotModified int64 // with 304
	Failed      int64 // refused, reset or cut off by a fall
	Left        int64 // whose client went first
}

// Step is one part of the timeline.
type Step struct {
	Arrived [kinds]int32 // requests by kind
	Failed  int32        // requests that failed
	Inside  int32        // most requests inside at once
}

// StepWidth is the length of a step.
const StepWidth = 100 * time.Millisecond

// stepsMax bounds the timeline to three hours; what comes later counts in the
// last step.
const stepsMax = 3 * 36000

// count is the platform's memory of what was asked.
type count struct {
	mu     sync.Mutex // guards what follows
	began  time.Time
	counts [kinds]Counts
	steps  []Step
	// fetched counts whole answers per piece of lesson content that does not
	// change: pages and media.
	fetched map[resource]int
}

// at returns the step of the moment. Requires c.mu.
func (c *count) atLocked(now time.Time) *Step {
	i := min(max(0, int(now.Sub(c.began)/StepWidth)), stepsMax-1)
	for len(c.steps) <= i {
		c.steps = append(c.steps, Step{})
	}
	return &c.steps[i]
}

func (c *count) arrived(k Kind, now time.Time, inside int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[k].Arrived++
	s := c.atLocked(now)
	s.Arrived[k]++
	s.Inside = max(s.Inside, int32(inside))
}

func (c *count) failed(k Kind, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[k].Failed++
	c.atLocked(now).Failed++
}

func (c *count) left(k Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[k].Left++
}

func (c *count) answered(k Kind, notModified bool, what resource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if notModified {
		c.counts[k].NotModified++
		return
	}
	c.counts[k].Answered++
	if k == Page || k == Media {
		c.fetched[what]++
	}
}

// Counts are what happened to the requests of a kind so far.
func (s *Server) Counts(k Kind) Counts {
	s.count.mu.Lock()
	defer s.count.mu.Unlock()
	return s.count.counts[k]
}

// Requests is how many requests arrived, health checks left out.
func (s *Server) Requests() int64 {
	s.count.mu.Lock()
	defer s.count.mu.Unlock()
	var n int64
	for k := range kinds {
		if k != Health {
			n += s.count.counts[k].Arrived
		}
	}
	return n
}

// Steps is the timeline so far, from Began in steps of StepWidth.
func (s *Server) Steps() []Step {
	s.count.mu.Lock()
	defer s.count.mu.Unlock()
	return append([]Step(nil), s.count.steps...)
}

// Began is the moment of the first step.
func (s *Server) Began() time.Time { return s.count.began }

// Falls is how often the heart gave way.
func (s *Server) Falls() int {
	s.heart.mu.Lock()
	defer s.heart.mu.Unlock()
	return s.heart.falls
}

// MostInside is the most requests that were ever inside at once, those waiting
// included.
func (s *Server) MostInside() int {
	s.heart.mu.Lock()
	defer s.heart.mu.Unlock()
	return s.heart.mostIn
}

// Places is how many requests are served at a time.
func (s *Server) Places() int { return s.heart.Places }

// MostFetched is how often the page or segment that was handed out whole most
// often was handed out, and which one that is.
func (s *Server) MostFetched() (times int, path string) {
	s.count.mu.Lock()
	defer s.count.mu.Unlock()
	for r, n := range s.count.fetched {
		if n > times {
			times, path = n, r.host+r.path
		}
	}
	return times, path
}
