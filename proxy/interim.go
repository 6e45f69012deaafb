package proxy

import (
	"sync"

	"firstbell/proxy/field"
)

// An informational response (RFC 9110 section 15.2) is for the client whose
// request brought it, and for nobody else: it is neither stored nor told to
// those who join a flight.

// relay passes informational responses from a flight on to the exchange that
// began it, until that has its answer.
type relay struct {
	mu sync.Mutex
	to *exchange // guarded by mu; nil: it is over
}

// relay returns what an origin's informational responses are given to. It is
// to be ended before the exchange is answered.
func (x *exchange) relay() func(status int, fields field.List) {
	r := &relay{to: x}
	x.relayed = r
	return r.pass
}

func (r *relay) pass(status int, fields field.List) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to != nil {
		r.to.inform(status, fields)
	}
}

// endRelay waits for the informational response being written, if any; no
// other comes after it.
func (x *exchange) endRelay() {
	if r := x.relayed; r != nil {
		r.mu.Lock()
		r.to = nil
		r.mu.Unlock()
		x.relayed = nil
	}
}

// inform passes an informational response on. Set-Cookie is left out: what
// logs a student in belongs to the final response, where the rules for it are
// kept.
func (x *exchange) inform(status int, fields field.List) {
	if status <= 101 || status > 199 {
		return
	}
	x.out.inform(status, fields.Without(func(name string) bool {
		return field.HopByHop([]byte(name)) || field.EqualName(name, "Set-Cookie") || field.EqualName(name, "Content-Length")
	}))
}
