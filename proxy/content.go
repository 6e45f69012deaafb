package proxy

import (
	"errors"
	"net/netip"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/spool"
)

// takesIn reports whether x's content is taken in before its origin is asked: it
// has not all come with the head, and the route does not want it as it comes.
func (p *Proxy) takesIn(x *exchange) bool {
	if x.body == nil || p.spools == nil || x.route.StreamsRequests || x.route.Live != nil {
		return false
	}
	u, ok := x.body.(*upload)
	return !ok || !u.isThere()
}

// takeIn takes in the whole of a request's content and then passes the request
// on with that: only then a place at the origin is asked for, so that who
// trickles holds none. Content without an announced length has one by then,
// unless trailer fields came behind it. When it returns with x.taking set, more
// is still to come: it is to be called again when there is some.
func (p *Proxy) takeIn(x *exchange, as outcome) {
	if x.content == nil {
		if x.length > p.spools.Max() {
			p.notTakenIn(x, spool.ErrTooLarge) // before anything of it is asked for
			return
		}
		x.content = p.spools.New(p.ownerOf(x))
	}
	err := x.content.Take(x.body)
	if x.taking = err == spool.ErrLater; x.taking {
		x.passed = as
		return
	}
	if err != nil {
		p.notTakenIn(x, err)
		return
	}
	x.body, x.stopBody, x.expects = x.content.Reader(), nil, false // reading it has told the client to send
	if x.length >= 0 || x.trailer == nil || len(x.trailer()) == 0 {
		x.length, x.trailer = x.content.Size(), nil
	}
	p.pass(x, as)
}

// ownerOf is whose share of the spool counts for x: the client's address, as
// connections are counted by. A trusted proxy has none: it brings everybody's.
func (p *Proxy) ownerOf(x *exchange) netip.Addr {
	a := x.client
	if !a.IsValid() {
		a = addressOf(x.remote)
	}
	if c := p.clients.Load(); c != nil && c.Trusted.Has(a) {
		return netip.Addr{}
	}
	return visitor(a)
}

// notTakenIn answers a request whose content could not be taken in.
func (p *Proxy) notTakenIn(x *exchange, err error) {
	x.outcome = outcomeRefused
	var cut *spool.SourceError
	switch {
	case errors.As(err, &cut):
		p.problem(x, notWhole(err), "the request's content did not arrive whole, or not in time", nil)
	case errors.Is(err, spool.ErrTooLarge):
		p.problem(x, 413, "this is more than can be sent at once", nil)
	default:
		if !errors.Is(err, spool.ErrFull) {
			p.log.Warn("taking in a request's content", "error", err)
		}
		x.outcome = outcomeBusy
		p.problem(x, 503, "too much is being sent at this moment; please wait a little", field.List{retryAfter(5 * time.Second)})
	}
}
