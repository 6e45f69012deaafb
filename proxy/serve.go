package proxy

import (
	"context"
	"strings"

	"firstbell/cache"
	"firstbell/proxy/field"
)

// ourCoding is the Accept-Encoding that firstbell sends for what it may store:
// one coding that nearly every client takes, decoded for those who refuse it.
var ourCoding = []byte("gzip")

// serve is the life of a request.
func (p *Proxy) serve(x *exchange) {
	who := p.clients.Load()
	if who != nil && !p.whence(x, who) {
		return
	}
	rt, allow := p.table.Load().find(x.host, x.target.path, x.method)
	if p.prove != nil && p.proved(x) {
		return
	}
	if rt == nil {
		p.noRoute(x, allow)
		return
	}
	if x.tls.is && !p.meant(x, rt) {
		p.misdirected(x)
		return
	}
	x.route = rt
	if !p.welcome(x, who) {
		return
	}
	if rt.Redirect != nil && x.scheme == "http" {
		p.redirectToTLS(x, rt.Redirect)
		return
	}
	if rt.Identity != nil && !p.identify(x, rt.Identity) {
		return
	}
	if x.webSocket == byUpgrade && !rt.WebSocket {
		x.webSocket = noWebSocket // RFC 9110 section 7.8: it is asked for the page, as it were
	}
	if x.webSocket != noWebSocket {
		p.openWebSocket(x)
		return
	}
	if rt.CheckIn != nil {
		p.takeCheckIn(x, rt.CheckIn)
		return
	}
	if rt.Collect != nil {
		p.collect(x, rt.Collect)
		return
	}
	if rt.Local != nil {
		p.answerLocal(x, rt.Local)
		return
	}
	if rt.Cache == nil {
		p.forward(x, outcomePass)
		return
	}
	if x.body != nil && safe(x.method) {
		// What it asks for is not said by its fields alone, and a flight would
		// ask without it (RFC 9110 section 9.3.1).
		x.note.forwarded, x.note.detail = "request", "content"
		p.forward(x, outcomeBypass)
		return
	}
	if wantsEvents(x.fields) {
		x.note.forwarded, x.note.detail = "request", "events"
		p.forward(x, outcomeBypass)
		return
	}
	x.ask()
	found := p.cache.Lookup(&x.request, rt.Cache, x.arrived)
	x.note.found(&found)
	switch found.Outcome {
	case cache.Hit:
		if found.Freshen {
			p.freshenSoon(x, &found)
		}
		p.answerStored(x, found.Stored, outcomeHit)
	case cache.Stale:
		p.freshenSoon(x, &found) // first: a slow client takes its time
		p.answerStored(x, found.Stored, outcomeStale)
	case cache.Miss:
		p.miss(x, &found)
	default:
		p.forward(x, outcomeBypass)
	}
}

// miss gets what is not stored: together with everybody who asks for it now,
// where that can pay.
func (p *Proxy) miss(x *exchange, found *cache.Found) {
	x.mayWait()
	switch {
	case p.spares(x, found):
	case found.OnlyIfCached:
		x.outcome = outcomeRefused
		p.problem(x, 504, "this is not stored, and the request wants nothing else (only-if-cached)", nil)
	case found.Uncacheable:
		p.forwardUncacheable(x, found)
	case x.method == "GET" && x.fields.Peek("Range") != nil && !x.wantsOnePart():
		p.forwardAlone(x)
	default:
		p.forwardCollapsed(x, found)
	}
}

// ask prepares what the cache wants to know of the request.
func (x *exchange) ask() {
	x.asked = askedFields{Fields: x.fields, x: x, coding: ourCoding, anonymous: x.route.Cache.Anonymous, identity: x.route.Identity}
	x.request = cache.Request{Method: x.method, Key: x.cacheKey(), Fields: &x.asked}
}

// cacheKey builds the primary key: scheme, authority, path and query, each as
// it will be sent, so that two keys are equal only where the requests are. The
// parts hold no spaces.
func (x *exchange) cacheKey() []byte {
	x.scratch[1] = x.appendKey(x.scratch[1][:0], x.route, x.target)
	return x.scratch[1]
}

// appendKey appends the primary key of a target at x's authority.
func (x *exchange) appendKey(k []byte, rt *Route, t target) []byte {
	k = append(k, x.scheme...)
	k = append(k, ' ')
	k = appendLower(k, x.authority)
	k = append(k, ' ')
	k = append(k, t.path...)
	if t.query != nil {
		if ignore := rt.IgnoreQuery; len(ignore) == 0 {
			k = append(append(k, '?'), t.query...)
		} else {
			mark := len(k)
			k = dropParameters(append(k, '?'), t.query, ignore)
			if len(k) == mark+1 {
				k = k[:mark] // nothing is left of the query
			}
		}
	}
	return k
}

func appendLower(dst, b []byte) []byte {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// noRoute answers a request that no route takes.
func (p *Proxy) noRoute(x *exchange, allow []string) {
	x.outcome = outcomeRefused
	if len(allow) == 0 {
		p.problem(x, 404, "no school is served at this name and path", nil)
		return
	}
	p.problem(x, 405, "this path does not take the method "+x.method,
		field.List{{Name: "Allow", Value: strings.Join(allow, ", ")}})
}

// refuse answers a request that has no single meaning.
func (p *Proxy) refuse(x *exchange, status int, detail string) {
	x.outcome = outcomeRefused
	p.problem(x, status, detail, nil)
}

// context is what an exchange with the route's origin runs under.
func (rt *Route) context(parent context.Context) (context.Context, context.CancelFunc) {
	if rt.Total <= 0 {
		return context.WithCancel(parent)
	}
	return context.WithTimeout(parent, rt.Total)
}
