package cache

import (
	"time"

	"firstbell/proxy/field"
)

// Policy is what a route says about its cache. The zero Policy goes by the
// responses alone.
type Policy struct {
	// Anonymous says that the caller has removed Cookie and Authorization from
	// every request before it came here, and Set-Cookie from the response
	// before it is judged.
	Anonymous bool

	// DefaultTTL is the freshness lifetime of pages that state none.
	DefaultTTL time.Duration

	// StaleWhileRevalidate and StaleIfError apply to responses that do not
	// state their own (RFC 5861) and do not forbid to be served stale.
	StaleWhileRevalidate, StaleIfError time.Duration

	// MaxObjectBytes bounds the body of a response to be stored; 0 is no bound
	// but the cache's own.
	MaxObjectBytes int64
}

// Request is what the cache wants to know of a request.
type Request struct {
	Method string
	// Key is the primary key: scheme, authority in lower case, path and query,
	// with a space after the first two. It is compared in full and copied when
	// kept.
	Key    []byte
	Fields field.Fields

	born   uint64 // set by Cache.Begin
	change uint32
}

// Verdict is what may be done with a response, found from its header section
// alone. The zero Verdict allows nothing.
type Verdict struct {
	// Share: those waiting for the same key and variant may have this very
	// response. It is storable (but for its size) and was fresh on arrival.
	Share bool
	// Store: it may be kept.
	Store bool
	// LearnUncacheable: a final 2xx or 3xx to a plain GET that cannot be
	// shared; the next ones to ask for it need not wait for each other.
	LearnUncacheable bool

	explicit   bool // Lifetime is stated by the response itself
	permitted  bool // RFC 9111 section 3.5 lets requests with Authorization share it
	errorReply bool // a 5xx

	validate     bool // no-cache: every use needs validation
	mustValidate bool // once stale, it must not be used without

	Vary []string // names of the selecting fields: canonical, sorted, each once

	Age      time.Duration // current age on arrival (RFC 9111 section 4.2.3)
	Lifetime time.Duration // freshness lifetime, counted from age 0

	// For how long after its lifetime it may be served while being validated,
	// and while the origin fails. 0 when it must not be.
	StaleWhileRevalidate, StaleIfError time.Duration

	// What look-ups read ends here.

	Detail   string // why not, as one token; empty when shared and stored
	date     time.Time
	withheld []string // fields that stay with the one who asked
}

// fresh reports whether the response was fresh on arrival.
func (v *Verdict) fresh() bool { return !v.validate && v.Lifetime > v.Age }

// MayAnswer reports whether the response may answer r too, which did not bring
// it but asks for the same key and variant: a follower in a flight, or a later
// look-up. A request with Cookie or Authorization needs a lifetime above zero
// stated by the response itself, just as if it had brought the response, one
// with Authorization the permission of RFC 9111 section 3.5 besides. What needs
// validation at every use answers neither, as a 304 says that a page has not
// changed, not whose page it is. On an anonymous route nobody is asked.
func (v *Verdict) MayAnswer(r *Request, p *Policy) bool {
	switch {
	case p.Anonymous, v.explicit && v.Lifetime > 0 && !v.validate && v.permitted:
		return true
	case r.Fields.Peek("Authorization") != nil:
		return false
	}
	return v.explicit && v.Lifetime > 0 && !v.validate || r.Fields.Peek("Cookie") == nil
}

// asked is what Judge reads in the field section of a request.
type asked struct {
	cookie, authorization bool
	plain                 bool // neither conditional nor for a range
	wishes                wishes
}

func readAsked(f field.Fields) asked {
	a := asked{plain: true}
	var control []byte
	var there bool
	for name, v := range f.All() {
		var low [19]byte
		switch string(lower(low[:0], name)) {
		case "cookie":
			a.cookie = true
		case "authorization":
			a.authorization = true
		case "range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range":
			a.plain = false
		case "cache-control":
			control, there = joinLine(control, v, there)
		}
	}
	a.wishes = parseWishes(control)
	return a
}

// Judge finds out from the header section of a response whether it may be
// shared and stored (RFC 9111 section 3), for how long it is fresh and for how
// long it may be served stale. It is a pure function: what it does not find
// allowed it forbids.
//
// Two rules are stricter than the RFC. A response with Set-Cookie is neither
// shared nor stored. A response to a request with Cookie or Authorization is,
// unless the route is anonymous, only when it states a freshness lifetime
// above zero itself, which no-cache takes back (and for Authorization what
// section 3.5 asks for);
// default_ttl and heuristics never apply to it.
func Judge(r *Request, p *Policy, status int, res field.Fields, requestTime, responseTime time.Time) Verdict {
	h := readHead(res)
	a := readAsked(r.Fields)
	c, targeted := h.directives()

	v := Verdict{errorReply: status >= 500}
	v.Detail = v.mayStore(r, p, status, &h, &a, &c)
	if v.Detail == "" {
		v.measure(p, status, &h, &c, targeted, a.credentialed(p), requestTime, responseTime)
		v.Detail = v.worthStoring(p, status, &h, &a, &c)
	}
	if v.Detail == "" {
		v.Store = true
		v.Share = v.fresh() && !carries(res, v.withheld)
		v.Detail = v.shortcoming()
		if limit := p.MaxObjectBytes; limit > 0 && int64(parseDelta(h.contentLength)) > limit {
			v.Store, v.Detail = false, "too-large"
		}
	}
	v.LearnUncacheable = !v.Share && a.plain && !a.wishes.noStore && r.Method == "GET" &&
		200 <= status && status < 400 && status != 206 && status != 304
	return v
}

// credentialed reports whether the request says who is asking.
func (a *asked) credentialed(p *Policy) bool {
	return (a.cookie || a.authorization) && !p.Anonymous
}

// directives are those that count: a CDN-Cache-Control that can be read takes
// the place of Cache-Control and Expires (RFC 9213 section 2.2).
func (h *head) directives() (c directives, targeted bool) {
	if h.hasCDNControl {
		if c, ok := parseTargeted(h.cdnControl); ok {
			return c, true
		}
	}
	return parseControl(h.cacheControl), false
}

// mayStore returns why the response must not be stored, or "" (RFC 9111
// section 3, first part), and sets Vary.
func (v *Verdict) mayStore(r *Request, p *Policy, status int, h *head, a *asked, c *directives) string {
	vary, known := parseVary(h.vary)
	v.Vary = vary
	switch {
	case r.Method != "GET":
		return "method"
	case status < 200 || status > 599 || status == 206 || status == 304:
		return "status"
	case a.wishes.noStore:
		return "request-no-store"
	case h.setCookie:
		return "set-cookie"
	case c.malformed:
		return "malformed-cache-control"
	case c.mustUnderstand && !understood(status):
		return "must-understand"
	case c.noStore && !c.understood:
		return "no-store"
	case c.private:
		return "private"
	case !known:
		return "vary"
	}
	v.permitted = c.public || c.mustRevalidate || c.sMaxAge.valid()
	if a.authorization && !p.Anonymous && !v.permitted {
		return "authorization"
	}
	return ""
}

// measure sets age, lifetime and the times of stale use.
func (v *Verdict) measure(p *Policy, status int, h *head, c *directives, targeted, credentialed bool, requestTime, responseTime time.Time) {
	v.date = responseTime.Truncate(time.Second)
	if date, ok := parseDate(h.date, responseTime); ok {
		v.date = date
	}
	v.Age = initialAge(parseAge(h.age), v.date, requestTime, responseTime)
	v.validate = c.noCache
	v.mustValidate = c.mustRevalidate || c.proxyRevalidate || c.sMaxAge != absent
	v.withheld = c.withheld

	v.Lifetime, v.explicit = explicitLifetime(c, h, targeted, v.date)
	if !v.explicit && !credentialed {
		switch {
		case p.DefaultTTL > 0 && defaultStatus(status):
			v.Lifetime = p.DefaultTTL
		case heuristicStatus(status) || c.public:
			v.Lifetime = heuristicLifetime(h, v.date)
		}
	}
	v.StaleWhileRevalidate = c.stale(c.staleWhileRevalidate, p.StaleWhileRevalidate)
	v.StaleIfError = c.stale(c.staleIfError, p.StaleIfError)
}

// stale is for how long a response may be used past its lifetime (RFC 9111
// section 4.2.4). Beside s-maxage, which forbids it, the response's own
// permission still holds: who writes both means both.
func (c *directives) stale(own delta, route time.Duration) time.Duration {
	switch {
	case c.noCache || c.mustRevalidate || c.proxyRevalidate:
		return 0
	case own != absent:
		return own.duration()
	case c.sMaxAge != absent:
		return 0
	}
	return max(0, route)
}

// worthStoring returns why a response that may be stored is not, or "".
func (v *Verdict) worthStoring(p *Policy, status int, h *head, a *asked, c *directives) string {
	if a.credentialed(p) && (!v.explicit || v.Lifetime <= 0 || v.validate) {
		return "credentials"
	}
	if !v.explicit && !c.public && !heuristicStatus(status) {
		return "no-freshness"
	}
	_, _, tagged := parseETag(h.etag)
	_, dated := parseDate(h.lastModified, v.date)
	useful := addTime(v.Lifetime, max(v.StaleWhileRevalidate, v.StaleIfError)) > v.Age && !v.validate
	switch {
	case useful || tagged || dated:
		return ""
	case v.explicit || v.validate:
		return v.shortcoming() // it could neither be served nor validated
	}
	return "no-freshness"
}

// shortcoming says why a response that is stored is not shared.
func (v *Verdict) shortcoming() string {
	switch {
	case v.Share:
		return ""
	case v.validate:
		return "no-cache"
	case !v.fresh():
		return "stale-on-arrival"
	}
	return "withheld-fields"
}

// carries reports whether f has a field with one of the names.
func carries(f field.Fields, names []string) bool {
	if len(names) == 0 {
		return false
	}
	for name := range f.All() {
		if named(names, name) {
			return true
		}
	}
	return false
}

func named(names []string, name []byte) bool {
	for _, n := range names {
		if field.EqualName(name, n) {
			return true
		}
	}
	return false
}
