package proxy

import (
	"errors"
	"net/netip"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/spool"
)

// takeIn takes in the whole of a request's content and makes it the content
// that the exchange goes on with: only then a place at the origin is asked for,
// so that who trickles holds none. The spool is to be closed behind the
// exchange. Content without an announced length has one by then, unless trailer
// fields came behind it.
func (p *Proxy) takeIn(x *exchange) (*spool.Spool, error) {
	if x.length > p.spools.Max() {
		return nil, spool.ErrTooLarge // before anything of it is asked for
	}
	sp := p.spools.New(p.ownerOf(x))
	if err := sp.Take(x.body); err != nil {
		sp.Close()
		return nil, err
	}
	x.body, x.stopBody, x.expects = sp.Reader(), nil, false // reading it has told the client to send
	if x.length >= 0 || x.trailer == nil || len(x.trailer()) == 0 {
		x.length, x.trailer = sp.Size(), nil
	}
	return sp, nil
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
