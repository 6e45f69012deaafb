package proxy

import (
	"strconv"
	"sync/atomic"

	"firstbell/cache"
)

// alone counts the flights of validateAlone.
var alone atomic.Uint64

// forwardUncacheable passes on a request that nobody can answer for another.
// What is stored and needs validation at every use (RFC 9111 section 5.2.2.4)
// is validated.
func (p *Proxy) forwardUncacheable(x *exchange, found *cache.Found) {
	if found.Stored != nil && x.method == "GET" && !x.hasPartial() && len(found.Stored.Validators(nil)) > 0 {
		p.validateAlone(x, found)
		return
	}
	p.forward(x, outcomeUncacheable)
}

// hasPartial reports whether the request has a field that canonical would drop.
func (x *exchange) hasPartial() bool {
	for name := range x.fields.All() {
		if partial(name) {
			return true
		}
	}
	return false
}

// validateAlone asks the origin whether what is stored still holds, in a flight that nobody
// else can join: two spaces in its key are in no other flight's.
func (p *Proxy) validateAlone(x *exchange, found *cache.Found) {
	key := strconv.AppendUint(append(append([]byte(nil), x.request.Key...), "  "...), alone.Add(1), 10)
	f, _ := p.flights.Join(key)
	p.begin(f, x, found, true)
	l, err := f.Wait(p.life)
	x.endRelay()
	if err != nil {
		p.originProblem(x, 0, err)
		return
	}
	if !p.answerLanding(x, l, true) {
		p.forward(x, outcomeUncacheable)
	}
}
