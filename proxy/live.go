package proxy

import (
	"context"
	"sync"
	"time"

	"firstbell/proxy/admission"
)

// A live exchange is one that lasts: a WebSocket, an event stream, or whatever
// a route with Live takes. It holds a place of its own kind, not one of the
// origin's Limit: a class that listens all morning would else leave no place for
// lessons.

const (
	// LiveMax is how many live exchanges there may be unless Options say. Each
	// costs two connections and about 25 KiB.
	LiveMax = 10_000
	// liveIdle and liveLifetime hold where a route says nothing: an end that
	// pings at all does so more often, and no school day is longer.
	liveIdle     = 5 * time.Minute
	liveLifetime = 12 * time.Hour
)

// Live are the limits of a route whose exchanges last.
type Live struct {
	Idle     time.Duration      // without a byte either way, the first included; 0: 5 min
	Lifetime time.Duration      // of one; 0: 12 h
	Limit    *admission.Limiter // how many there may be at once, nobody waits; nil: as many as in all
}

func (l *Live) idle() time.Duration {
	if l == nil || l.Idle <= 0 {
		return liveIdle
	}
	return l.Idle
}

func (l *Live) lifetime() time.Duration {
	if l == nil || l.Lifetime <= 0 {
		return liveLifetime
	}
	return l.Lifetime
}

// liveKind tells live exchanges apart, for counters.
type liveKind uint8

const (
	liveOther liveKind = iota
	liveEvents
	liveWebSocket
	liveKinds
)

var liveKindNames = [liveKinds]string{"other", "events", "websocket"}

// String returns the kind as logs and metrics spell it.
func (k liveKind) String() string { return liveKindNames[k] }

// endReason says why a live exchange ended.
type endReason uint8

const (
	notEnded     endReason = iota
	endClient              // the client ended it, or is gone
	endOrigin              // the origin did
	endIdle                // nothing came either way
	endLifetime            // its time was over
	endShutdown            // firstbell ends
	endMalformed           // one side sent what is no frame
	endSlow                // one side did not take what the other sent
	endReasons
)

var endReasonNames = [endReasons]string{"", "client", "origin", "idle", "lifetime", "shutdown", "malformed", "slow"}

// String returns the reason as logs and metrics spell it.
func (r endReason) String() string { return endReasonNames[r] }

// liveSet knows every live exchange of a proxy.
type liveSet struct {
	limit *admission.Limiter

	mu       sync.Mutex // guards what follows, and every liveOne's end
	inside   map[*liveOne]struct{}
	ending   bool
	now      [liveKinds]int
	begun    [liveKinds]int64
	ended    [endReasons]int64
	refused  map[string]int64 // by reason
	sent     int64
	received int64
}

func newLiveSet(most int) *liveSet {
	if most <= 0 {
		most = LiveMax
	}
	return &liveSet{limit: admission.New(most, 0, 0), inside: make(map[*liveOne]struct{}), refused: make(map[string]int64)}
}

// A liveOne is the place of one live exchange.
type liveOne struct {
	set      *liveSet
	kind     liveKind
	of       *admission.Limiter // its route's; may be nil
	lifetime *time.Timer
	end      func(endReason) // has it end soon; nil before hold
	why      endReason       // set by leave
}

// enter takes a place. Without one it returns an *admission.Busy.
func (s *liveSet) enter(rt *Route, kind liveKind) (*liveOne, error) {
	l := &liveOne{set: s, kind: kind}
	if rt.Live != nil {
		l.of = rt.Live.Limit
	}
	if l.of != nil {
		if err := l.of.Acquire(context.Background()); err != nil {
			s.refuse("route")
			return nil, err
		}
	}
	err := s.limit.Acquire(context.Background())
	if err == nil && s.isEnding() {
		s.limit.Release()
		err = &admission.Busy{RetryAfter: time.Second}
	}
	if err != nil {
		if l.of != nil {
			l.of.Release()
		}
		s.refuse("total")
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside[l] = struct{}{}
	s.now[kind]++
	s.begun[kind]++
	return l, nil
}

func (s *liveSet) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

// refuse counts what was not let in, or is no handshake.
func (s *liveSet) refuse(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[reason]++
}

// hold names what ends the exchange, which may be called at once, from any
// goroutine, and more than once; its lifetime begins with the first hold.
func (l *liveOne) hold(lifetime time.Duration, end func(endReason)) {
	s := l.set
	s.mu.Lock()
	l.end = end
	if l.lifetime == nil {
		l.lifetime = time.AfterFunc(lifetime, func() { l.endNow(endLifetime) })
	}
	ending := s.ending
	s.mu.Unlock()
	if ending {
		end(endShutdown)
	}
}

func (l *liveOne) endNow(why endReason) {
	l.set.mu.Lock()
	end := l.end
	l.set.mu.Unlock()
	if end != nil {
		end(why)
	}
}

// turn says that the exchange turned out to be of another kind.
func (l *liveOne) turn(kind liveKind) {
	s := l.set
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now[l.kind]--
	s.begun[l.kind]--
	l.kind = kind
	s.now[kind]++
	s.begun[kind]++
}

// leave gives the place back, and counts how it ended.
func (l *liveOne) leave(why endReason, sent, received int64) {
	s := l.set
	s.mu.Lock()
	if l.lifetime != nil {
		l.lifetime.Stop()
	}
	l.end, l.why = nil, why
	delete(s.inside, l)
	s.now[l.kind]--
	s.ended[why]++
	s.sent += sent
	s.received += received
	s.mu.Unlock()
	if l.of != nil {
		l.of.Release()
	}
	s.limit.Release()
}

// partingGapMax paces the end of many: their clients come back at once, and a
// thousand handshakes a second is what an origin bears beside its lessons.
const partingGapMax = time.Millisecond

// shutdown has every live exchange end, spread over at most half of the time
// that the context leaves. It returns before they have ended.
func (s *liveSet) shutdown(ctx context.Context) {
	s.mu.Lock()
	s.ending = true
	all := make([]*liveOne, 0, len(s.inside))
	for l := range s.inside {
		all = append(all, l)
	}
	s.mu.Unlock()
	gap := partingGapMax
	if by, ok := ctx.Deadline(); ok && len(all) > 0 {
		gap = min(gap, time.Until(by)/2/time.Duration(len(all)))
	}
	for i, l := range all {
		if i > 0 && i%16 == 0 && ctx.Err() == nil {
			time.Sleep(16 * gap)
		}
		l.endNow(endShutdown)
	}
}

// LiveStats are the figures of live exchanges.
type LiveStats struct {
	Max      int
	Now      map[string]int   // by kind: websocket, events, other
	Begun    map[string]int64 // by kind
	Ended    map[string]int64 // by reason
	Refused  map[string]int64 // by reason: route or total for want of a place, else what was wrong with the handshake
	Sent     int64            // to clients, of those that ended
	Received int64            // from them
}

func (s *liveSet) stats() LiveStats {
	st := LiveStats{
		Max: s.limit.Stats().Max, Now: map[string]int{}, Begun: map[string]int64{},
		Ended: map[string]int64{}, Refused: map[string]int64{},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range liveKinds {
		st.Now[k.String()], st.Begun[k.String()] = s.now[k], s.begun[k]
	}
	for r := endClient; r < endReasons; r++ {
		st.Ended[r.String()] = s.ended[r]
	}
	for reason, n := range s.refused {
		st.Refused[reason] = n
	}
	st.Sent, st.Received = s.sent, s.received
	return st
}

// SetLiveMax changes how many live exchanges there may be, at once. Those there
// are stay.
func (p *Proxy) SetLiveMax(most int) {
	if most <= 0 {
		most = LiveMax
	}
	p.live.limit.Resize(most, 0, 0)
}
