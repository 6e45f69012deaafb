package proxy

import (
	"context"
	"errors"
	"sync/atomic"

	"firstbell/proxy/admission"
	"firstbell/proxy/origin"
)

// stay is what an exchange holds while its origin is at work for it: a context,
// and a place of the origin's limit or one among the live. It belongs to the
// exchange's goroutine, but for end and stop.
type stay struct {
	x      *exchange // nil while it is a flight's
	ctx    context.Context
	cancel context.CancelFunc // nil: ctx is the proxy's life
	res    *origin.Response   // what stop interrupts instead; nil before it has come, and with cancel
	limit  *admission.Limiter // whose place is held; nil: none
	place  *liveOne           // among the live; nil: none
	looks  func()             // ends looking whether the client is there; nil: nobody looks
	why    atomic.Uint32      // the endReason of a live exchange
}

// newStay returns a stay that holds nothing yet. done is to be called.
func newStay(x *exchange, life context.Context) *stay {
	s := &stay{x: x}
	s.ctx, s.cancel = context.WithCancel(life)
	return s
}

// admit waits for a place of the limit.
func (s *stay) admit(l *admission.Limiter) error {
	err := l.Acquire(s.ctx)
	if err == nil {
		s.limit = l
	}
	return err
}

// giveBack gives the place of the limit back.
func (s *stay) giveBack() {
	if s.limit != nil {
		s.limit.Release()
		s.limit = nil
	}
}

// enter takes a place among the live. From then on the exchange ends with its
// lifetime, with firstbell, and with its client: who is gone shall not keep an
// origin waiting.
func (s *stay) enter(all *liveSet, kind liveKind) error {
	rt := s.x.route
	place, err := all.enter(rt, kind)
	if err != nil {
		return err
	}
	s.place, s.x.lived = place, place
	place.hold(rt.Live.lifetime(), s.end)
	gone := func() { s.end(endClient) }
	if s.x.leave != nil {
		stop := context.AfterFunc(s.x.leave, gone)
		s.looks = func() { stop() }
	} else if w, ok := s.x.out.(watcher); ok && s.x.body == nil {
		s.looks = w.watch(gone)
	}
	return nil
}

// end has the origin stop. What may have an effect there is left to it when
// firstbell ends, as long as that waits.
func (s *stay) end(why endReason) {
	if why == endShutdown && !safe(s.x.method) {
		return
	}
	s.ended(why)
	s.stop()
}

// stop ends what the origin does. Nobody calls it once the response's body has
// been closed but by a stay that is not used again.
func (s *stay) stop() {
	if s.cancel != nil {
		s.cancel()
	}
	if s.res != nil {
		s.res.Interrupt()
	}
}

// ended keeps the first reason.
func (s *stay) ended(why endReason) { s.why.CompareAndSwap(uint32(notEnded), uint32(why)) }

// look ends looking whether the client is there: its connection is needed.
func (s *stay) look() {
	if s.looks != nil {
		s.looks()
		s.looks = nil
	}
}

// done gives everything back. Every call but the first is of no effect.
func (s *stay) done() {
	s.look()
	if s.cancel != nil {
		s.cancel()
	}
	s.giveBack()
	if s.place != nil {
		s.ended(endClient) // it did not take what there was
		s.place.leave(endReason(s.why.Load()), s.x.sent, s.x.received)
		s.place = nil
	}
}

// problem answers that the origin did not answer.
func (s *stay) problem(p *Proxy, err error) {
	switch why := endReason(s.why.Load()); {
	case s.place == nil || why == notEnded:
		if s.place != nil && errors.Is(err, origin.ErrTimeout) {
			s.ended(endIdle)
		} else {
			s.ended(endOrigin)
		}
	case why == endLifetime:
		err = origin.ErrTimeout
	case why == endClient:
		s.done()
		s.x.outcome = outcomeLeft
		p.problem(s.x, 503, "nobody is there to be answered", nil)
		return
	}
	s.done()
	p.originProblem(s.x, 0, err)
}
