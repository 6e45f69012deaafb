package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"firstbell/cache"
)

// recovery keeps an origin that fails, or has just come back, from being asked
// for everything that became stale meanwhile. While it lasts, what may serve on
// error does so at once, and is freshened in the background: first one at a
// time, one more with each that succeeds, up to recoveryPlacesMax.
//
// The zero recovery is of an origin that is well.
type recovery struct {
	last     atomic.Int64 // when it last failed, in Unix nanoseconds; 0: it is well
	failures atomic.Int32 // in a row

	mu     sync.Mutex // guards all below
	places int        // for fetches in the background while it recovers
	inUse  int
	next   time.Time // none begins before
}

const (
	// recoveryTime after its last failure an origin is taken for well again.
	recoveryTime = time.Minute
	// recoveryPause lies between a failure and the next try in the background.
	recoveryPause = time.Second
	// recoveryPlacesMax bounds the fetches in the background while an origin
	// recovers, backgroundMax while it is well.
	recoveryPlacesMax = 8
	backgroundMax     = 64
	// failuresMax errors in a row say that the origin fails, and not a page.
	failuresMax = 8
)

// lasts reports whether the origin fails or has failed a short while ago.
func (r *recovery) lasts(now time.Time) bool {
	last := r.last.Load()
	return last != 0 && now.Sub(time.Unix(0, last)) < recoveryTime
}

// outlasts reports whether s has been there since before the origin failed, and
// recovery lasts: what came later is validated as usual.
func (r *recovery) outlasts(s *cache.Stored, now time.Time) bool {
	return r.lasts(now) && s.Vouched().UnixNano() < r.last.Load()
}

// failed notes that a fetch was not answered, or with an error.
func (r *recovery) failed(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures.Add(1) >= failuresMax {
		r.places, r.next = 1, now.Add(recoveryPause)
		r.last.Store(now.UnixNano())
	}
}

// succeeded notes that a fetch was answered.
func (r *recovery) succeeded(now time.Time) {
	if r.failures.Load() != 0 {
		r.failures.Store(0)
	}
	if r.last.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.lasts(now) {
		r.last.Store(0)
		return
	}
	r.places = min(r.places+1, recoveryPlacesMax)
}

// take reports whether a fetch in the background may begin; then release is
// called when it has ended.
func (r *recovery) take(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit := backgroundMax
	if r.lasts(now) {
		if limit = r.places; now.Before(r.next) {
			return false
		}
	}
	if r.inUse >= limit {
		return false
	}
	r.inUse++
	return true
}

func (r *recovery) release() {
	r.mu.Lock()
	r.inUse--
	r.mu.Unlock()
}

// freshenSoon validates a stored response in the background: once, and not
// more at once than its origin bears. Who finds no room is answered from what
// is stored as well, and the next one tries again.
func (p *Proxy) freshenSoon(x *exchange, found *cache.Found) {
	r := &x.route.Origin.recovery
	if !r.take(x.arrived) {
		return
	}
	f, leader := p.flights.Join(x.flightKey(found))
	if !leader {
		r.release()
		return
	}
	p.begin(f, x, found, false)
}

// spares answers at once from what may serve on error while its origin fails
// or recovers, and reports whether it did.
func (p *Proxy) spares(x *exchange, found *cache.Found) bool {
	if found.Stored == nil || found.Reason != "stale" || found.OnlyIfCached ||
		!x.route.Origin.recovery.outlasts(found.Stored, x.arrived) || !p.standsIn(found.Stored, x.arrived) {
		return false
	}
	x.note = note{hit: true, timed: true, ttl: found.TTL, ages: found.Age, detail: "stale-if-error"}
	p.answerStored(x, found.Stored, outcomeStaleOnError)
	p.freshenSoon(x, found)
	return true
}
