package proxy

import (
	"math/bits"
	"sync/atomic"
	"time"

	"firstbell/cache"
	"firstbell/proxy/field"
	"firstbell/proxy/head"
	"firstbell/proxy/http1"
	"firstbell/proxy/http2"
	"firstbell/proxy/http3"
)

// outcome says what became of an exchange, for counters and the access log.
type outcome uint8

const (
	outcomeNone outcome = iota
	outcomeHit
	outcomeStale
	outcomeStaleOnError
	outcomeRevalidated
	outcomeMiss
	outcomeCollapsed
	outcomeUncacheable
	outcomeBypass
	outcomePass
	outcomeBusy
	outcomeFailed
	outcomeRefused
	outcomeCheckIn
	outcomeCheckInRefused
	outcomeCheckInInvalid
	outcomeCollected
	outcomeCollectRefused
	outcomeCollectInvalid
	outcomeLocal
	outcomeUnidentified
	outcomeForbidden
	outcomeLeft
	outcomeDenied
	outcomeLimited
	outcomeWebSocket
	outcomes
)

var outcomeNames = [outcomes]string{
	"none", "hit", "stale", "stale-if-error", "revalidated", "miss", "collapsed", "uncacheable",
	"bypass", "pass", "busy", "failed", "refused", "check-in", "check-in-refused", "check-in-invalid",
	"collected", "collect-refused", "collect-invalid", "local",
	"unidentified", "forbidden", "left", "denied", "limited", "websocket",
}

// String returns the outcome as logs and metrics spell it.
func (o outcome) String() string { return outcomeNames[o] }

// counters are kept apart by exchange, so that cores do not share their lines.
type counters struct {
	stripes [stripes]stripe

	flights        atomic.Int64
	flightsBroken  atomic.Int64
	flightsResumed atomic.Int64
	blocks         atomic.Int64
	blocksAhead    atomic.Int64
	blocksChanged  atomic.Int64
	panics         atomic.Int64
	refused        []atomic.Int64 // by the index of a Refusal of http1
	handshakes     [greetingOutcomes]atomic.Int64
	resumed        atomic.Int64
	misdirected    atomic.Int64

	contradictions contradictions

	refusedHeads []atomic.Int64 // by the index of one of head
	quicRefused  atomic.Int64
	quicVersions atomic.Int64
	quicRetries  atomic.Int64
	quicDropped  atomic.Int64
	h3Resets     atomic.Int64
	h3Errors     map[http3.Code]*atomic.Int64 // never changed
}

const stripes = 8

type stripe struct {
	outcomes [outcomes]atomic.Int64
	statuses [6]atomic.Int64 // by first digit
	bytes    atomic.Int64
	saved    atomic.Int64
	latency  [latencyBuckets]atomic.Int64
	spent    atomic.Int64 // nanoseconds in all
	_        [64]byte
}

// latencyBuckets are powers of two of microseconds: bucket i holds what took
// less than 2^i us; the last holds the rest, beyond a minute.
const latencyBuckets = 27

func (c *counters) finished(x *exchange, took time.Duration) {
	s := &c.stripes[x.stripe%stripes]
	s.outcomes[x.outcome].Add(1)
	if d := x.status / 100; d < len(s.statuses) {
		s.statuses[d].Add(1)
	}
	s.bytes.Add(x.sent)
	if x.saved > 0 {
		s.saved.Add(x.saved)
	}
	if x.lived != nil {
		return // how long it lasted says nothing about how fast we are
	}
	s.latency[min(latencyBuckets-1, bits.Len64(uint64(max(0, took)/time.Microsecond)))].Add(1)
	s.spent.Add(int64(took))
}

// malformedHead counts what has no single meaning as a request of HTTP/2 or
// HTTP/3.
func (c *counters) malformedHead(r *field.Refusal) { c.refusedHeads[r.Index].Add(1) }

// http3Error counts a breach of HTTP/3.
func (c *counters) http3Error(code http3.Code) {
	if n := c.h3Errors[code]; n != nil {
		n.Add(1)
	}
}

// malformed counts what has no single meaning as a request.
func (c *counters) malformed(r *field.Refusal) { c.refused[r.Index].Add(1) }

// Stats are counts since the proxy was made.
type Stats struct {
	Outcomes       map[string]int64 // by outcome: hit, miss, collapsed, check-in, …
	Statuses       [6]int64         // by the first digit of the status
	SentBytes      int64            // content sent
	SavedBytes     int64            // that it would have been more without the codings made here
	Coded          map[string]int64 // variants made, by coding
	CodingsLeft    int64            // variants not worth keeping
	CodingsDropped int64            // wishes for variants that found the queue full
	DecodeRefused  int64            // hits that found too much being decoded for others
	Latency        []LatencyBucket
	LatencySum     time.Duration
	Flights        int64 // begun
	FlightsNow     int
	FlightsBroken  int64 // ended without a whole body
	FlightsResumed int64 // times that a body cut off by the origin was continued
	Blocks         int64 // of large content, fetched by a range each
	BlocksAhead    int64 // of those, begun before they were asked for
	BlocksChanged  int64 // times that the content was another by then
	Panics         int64
	Malformed      map[string]int64 // what was no request with one meaning, by reason
	InLanes        int              // connections that a goroutine serves together with others
	Waiting        int              // exchanges that wait for a slow client without a goroutine
	Parked         int              // connections that wait for a request without taking more than a descriptor
	Connections    int              // open now
	Parted         map[string]int64 // connections turned away or cut off, by reason
	Clients        ClientStats

	// Handshakes counts TLS handshakes over TCP by what became of them: "done", or why
	// there is no connection.
	Handshakes  map[string]int64
	Resumed     int64 // of those done, the ones that resumed a session
	Greeting    int   // handshakes under way
	Misdirected int64 // requests for a host that their connection is not for (421)
	Live        LiveStats

	HTTP2 HTTP2Stats
	HTTP3 HTTP3Stats

	// Contradictions counts, by school, requests that spoke for somebody else
	// than their credential does.
	Contradictions map[string]uint64
}

// HTTP2Stats are counts of HTTP/2.
type HTTP2Stats struct {
	Connections int64            // open now
	Streams     int64            // open now
	TakenBack   int64            // requests that clients took back before they had their answer
	Refused     map[string]int64 // streams and connections ended for what their clients did, by reason
}

func (d *door) http2Stats() HTTP2Stats {
	s := d.http2
	st := HTTP2Stats{Connections: s.Conns(), Streams: s.Streams(), TakenBack: s.Gone(), Refused: make(map[string]int64)}
	for _, r := range http2.Refusals() {
		st.Refused[r.Reason] = s.Refused(r.Index)
	}
	return st
}

// HTTP3Stats are counts of HTTP/3.
type HTTP3Stats struct {
	Connections    int64            // open now
	Handshakes     int64            // under way now
	RefusedConns   int64            // as there were too many
	RequestsLeft   int64            // given up by the client
	OtherVersions  int64            // packets of other versions, answered with the one there is
	Retries        int64            // clients that had to prove their address first
	Dropped        int64            // packets that were of no connection, and began none
	ProtocolErrors map[string]int64 // by the name of the code that they were answered with
}

func (p *Proxy) http3Stats() HTTP3Stats {
	st := HTTP3Stats{
		RefusedConns:   p.counters.quicRefused.Load(),
		RequestsLeft:   p.counters.h3Resets.Load(),
		OtherVersions:  p.counters.quicVersions.Load(),
		Retries:        p.counters.quicRetries.Load(),
		Dropped:        p.counters.quicDropped.Load(),
		ProtocolErrors: make(map[string]int64, len(p.counters.h3Errors)),
	}
	for code, n := range p.counters.h3Errors {
		st.ProtocolErrors[code.String()] = n.Load()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.quicDoors {
		st.Connections += d.open.Load()
		st.Handshakes += d.handshaking.Load()
	}
	return st
}

// LatencyBucket counts exchanges that took less than Below.
type LatencyBucket struct {
	Below time.Duration
	Count int64
}

// Stats returns the counts as they are now.
func (p *Proxy) Stats() Stats {
	c := &p.counters
	st := Stats{
		Outcomes:       make(map[string]int64, outcomes),
		Latency:        make([]LatencyBucket, latencyBuckets),
		Flights:        c.flights.Load(),
		FlightsNow:     p.flights.Len() + p.blocks.Len(),
		FlightsBroken:  c.flightsBroken.Load(),
		FlightsResumed: c.flightsResumed.Load(),
		Blocks:         c.blocks.Load(),
		BlocksAhead:    c.blocksAhead.Load(),
		BlocksChanged:  c.blocksChanged.Load(),
		Panics:         c.panics.Load(),
		Malformed:      make(map[string]int64, len(c.refused)),
		Coded:          make(map[string]int64, cache.Codings),
		CodingsLeft:    p.coder.left.Load(),
		CodingsDropped: p.coder.dropped.Load(),
		DecodeRefused:  p.decoders.refused.Load(),
		Contradictions: c.contradictions.all(),
		Live:           p.live.stats(),
		Handshakes:     make(map[string]int64, greetingOutcomes),
		Resumed:        c.resumed.Load(),
		HTTP2:          p.door.http2Stats(),
		Greeting:       len(p.door.greetings),
		Misdirected:    c.misdirected.Load(),
	}
	for o := range greetingOutcomes {
		st.Handshakes[o.String()] = c.handshakes[o].Load()
	}
	st.Parked, st.Waiting = p.door.lot.waiting(), p.door.siding.waiting()
	for _, l := range p.door.lanes {
		st.InLanes += l.waiting()
	}
	st.Connections, st.Parted = p.door.census()
	st.Clients = p.allowances.stats()
	for _, r := range http1.Refusals() {
		st.Malformed[r.Reason] = c.refused[r.Index].Load()
	}
	for _, r := range head.Refusals() {
		st.Malformed[r.Reason] += c.refusedHeads[r.Index].Load()
	}
	st.HTTP3 = p.http3Stats()
	for c := range cache.OtherCoding {
		st.Coded[c.String()] = p.coder.made[c].Load()
	}
	for i := range st.Latency {
		st.Latency[i].Below = time.Microsecond << i
	}
	for i := range c.stripes {
		s := &c.stripes[i]
		for o := outcomeHit; o < outcomes; o++ {
			st.Outcomes[o.String()] += s.outcomes[o].Load()
		}
		for d := range s.statuses {
			st.Statuses[d] += s.statuses[d].Load()
		}
		for b := range s.latency {
			st.Latency[b].Count += s.latency[b].Load()
		}
		st.SentBytes += s.bytes.Load()
		st.SavedBytes += s.saved.Load()
		st.LatencySum += time.Duration(s.spent.Load())
	}
	return st
}
