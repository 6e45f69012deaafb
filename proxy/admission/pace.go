package admission

import (
	"math/rand/v2"
	"time"
)

const (
	// paceWindow is how long a measurement takes before it joins the estimate:
	// a second holds enough releases of any origin worth queueing for.
	paceWindow = time.Second

	// Retry-After is given in whole seconds, so less than one says nothing; more
	// than half a minute (a minute once spread) is longer than a student waits.
	retryAfterMin = time.Second
	retryAfterMax = 30 * time.Second
)

// pace estimates how many places per second become free while all are taken.
// Time with free places says nothing about what the origin can do and is left
// out. It is guarded by the Limiter's mutex.
type pace struct {
	fullSince time.Time     // start of the present full stretch; zero: places are free
	full      time.Duration // earlier full stretches of this window
	released  int           // places given back in this window while full
	perSecond float64       // smoothed; 0: not known yet
}

// mark notes a change between full and not full, and closes the window when
// it is long enough.
func (p *pace) mark(was, is bool) {
	if !was && !is {
		return
	}
	now := time.Now()
	if was {
		p.full += now.Sub(p.fullSince)
	}
	p.fullSince = time.Time{}
	if is {
		p.fullSince = now
	}
	if p.full >= paceWindow {
		p.perSecond = p.estimate(p.full)
		p.full, p.released = 0, 0
	}
}

// estimate is the smoothed pace if the window ended now, full for so long.
func (p *pace) estimate(full time.Duration) float64 {
	measured := float64(p.released) / full.Seconds()
	if p.perSecond == 0 {
		return measured
	}
	return (p.perSecond + measured) / 2
}

// retryAfter is when somebody with ahead callers to be served first may come
// back: the time these take, spread over as much again.
func (p *pace) retryAfter(ahead int) time.Duration {
	full := p.full
	if !p.fullSince.IsZero() {
		full += time.Since(p.fullSince)
	}
	perSecond := p.perSecond
	if full >= paceWindow || perSecond == 0 && p.released > 0 && full > 0 {
		perSecond = p.estimate(full)
	}
	wait := retryAfterMin
	switch {
	case perSecond > 0:
		drain := float64(ahead) / perSecond
		wait = time.Duration(min(drain, retryAfterMax.Seconds()) * float64(time.Second))
	case full >= paceWindow:
		wait = full // nothing came free for so long: likely it takes as long again
	}
	wait = min(max(wait, retryAfterMin), retryAfterMax)
	return wait + rand.N(wait)
}
