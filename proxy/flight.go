package proxy

import (
	"errors"
	"runtime/debug"
	"time"

	"firstbell/cache"
	"firstbell/coalesce"
	"firstbell/proxy/field"
	"firstbell/proxy/origin"
)

const (
	// A flight's window: 4 MiB is half a second of the fastest video a school
	// shows, and 1,000 flights at once stay under 4 GiB.
	flightWindowBytes = 4 << 20
	// flightPatience is how long slow readers of one flight may hold up others.
	flightPatience = 5 * time.Second
	// keepBytesMax is what a flight keeps of a response when the route names no
	// bound of its own.
	keepBytesMax = 64 << 20
	// keptBytesMax bounds what all flights together keep of bodies beyond their
	// first MiB. A body that finds no room is passed on through its window and
	// not stored.
	keptBytesMax = 512 << 20
	// uncacheableFor is how long a URL found not shareable is not waited for.
	uncacheableFor = 2 * time.Minute
	// nearlyDoneBytes is what is still fetched when nobody is left reading: the
	// lesson is asked for again in a moment.
	nearlyDoneBytes = 256 << 10
	// joinsMax bounds how often a request whose variant turned out to be another
	// joins the next flight; then it goes alone.
	joinsMax = 3
)

// landing is what a flight brings, published when the response's header
// section is there, or when there will be none.
type landing struct {
	head   *cache.Stored // status and fields as they may be sent to all whom it suits, without the body
	body   *coalesce.Body
	length int64

	fresh  *cache.Stored                  // instead: a stored response that is the answer
	failed int                            // fresh is served because the origin answered this; -1: it did not answer
	mine   *coalesce.Reader               // what the starter reads; nobody else may take it
	rest   func(*exchange, source) source // continues what one client reads, should it be too slow for the others

	only   *private // instead: it is the starter's alone
	err    error    // instead: for everybody; with only, for everybody but the starter
	status int      // the origin's, with err; 0: it did not answer
	detail string   // for Cache-Status
}

// private is a response for the one who asked, and nobody else.
type private struct {
	res  *origin.Response
	stay *stay // done when the body is closed; may be nil
}

// flightKey is the cache key, and the variant where it is known that the
// response depends on the request's fields.
func (x *exchange) flightKey(found *cache.Found) []byte {
	if len(found.Vary) == 0 {
		return x.request.Key
	}
	return x.variantKey(found.Vary)
}

// variantKey is the key of the flight for x's variant; the space keeps it apart
// from every cache key.
func (x *exchange) variantKey(vary []string) []byte {
	return cache.VariantKey(append(append([]byte(nil), x.request.Key...), ' '), vary, &x.asked)
}

// forwardCollapsed joins the flight for the request, or begins it, and answers
// with what it brings. A request for less than the whole begins none, unless
// its origin knows no ranges: without one under way it is answered from blocks,
// or goes alone.
func (p *Proxy) forwardCollapsed(x *exchange, found *cache.Found) {
	x.whole = x.whole || x.method == "GET" && x.fields.Peek("Range") != nil && p.rangeless(x)
	key, whole := x.flightKey(found), x.method == "GET" && (x.fields.Peek("Range") == nil || x.whole)
	if hold := p.holds.find(key, x.arrived); hold != nil && found.Stored == nil && whole {
		x.note.collapsed = true
		p.originProblem(x, hold.status, hold.err)
		return
	}
	for range joinsMax {
		f, leader := p.join(key, whole)
		if (f == nil || leader) && p.landedMeanwhile(f, x) {
			return
		}
		if f == nil {
			break
		}
		if leader {
			p.begin(f, x, found, true)
		}
		l, err := p.await(f, x)
		x.endRelay()
		if err != nil {
			if leader {
				p.abandon(f)
			}
			p.originProblem(x, 0, err)
			return
		}
		x.note.collapsed = !leader
		if s := l.answer(); s != nil && !leader {
			if l.failed == 0 && p.cache.Outdated(s) { // whoever asks since the purge gets something newer
				f.Land()
				continue
			}
			if !s.Suits(&x.request, x.route.Cache) {
				key = x.variantKey(s.Verdict.Vary)
				continue
			}
		}
		if p.answerLanding(x, l, leader) {
			return
		}
		if leader || l.body == nil || !l.body.Broken() {
			break
		}
		f.Land() // nobody can have this one any more: the next is for all who come
	}
	x.note.collapsed, x.note.stored = false, false
	if !whole {
		if !p.answerFromBlocks(x, found) {
			p.forwardAlone(x)
		}
		return
	}
	p.forwardUncacheable(x, found)
}

// await waits for what a flight brings, as long as the client does.
func (p *Proxy) await(f *coalesce.Flight[*landing], x *exchange) (*landing, error) {
	ctx, cancel := x.lasting(p.life)
	defer cancel()
	return f.Wait(ctx)
}

// abandon leaves to others what a flight brings, when its starter is gone. It
// goes on as long as somebody else reads it.
func (p *Proxy) abandon(f *coalesce.Flight[*landing]) {
	p.work.Go(func() {
		l, err := f.Wait(p.life)
		switch {
		case err != nil:
		case l.only != nil:
			l.only.res.Body.Close() // what it says is for nobody
			if l.only.stay != nil {
				l.only.stay.done()
			}
		case l.mine != nil:
			l.mine.Close()
		}
	})
}

// join finds the flight for the key. There is none where whole is false and
// none is under way.
func (p *Proxy) join(key []byte, whole bool) (f *coalesce.Flight[*landing], leader bool) {
	if !whole {
		return p.flights.Find(key), false
	}
	return p.flights.Join(key)
}

// forwardAlone passes on a request for less than the whole: a phone that seeks
// in a film must not have all of it fetched, nor wait for it.
func (p *Proxy) forwardAlone(x *exchange) {
	if x.method == "GET" {
		x.note.detail = "range"
	}
	p.forward(x, outcomeBypass)
}

// landedMeanwhile answers a request whose response was stored since its
// look-up, and ends the flight, if it has begun one.
func (p *Proxy) landedMeanwhile(f *coalesce.Flight[*landing], x *exchange) bool {
	found := p.cache.Lookup(&x.request, x.route.Cache, time.Now())
	if found.Outcome != cache.Hit {
		return false
	}
	if f != nil {
		f.Publish(&landing{fresh: found.Stored})
		f.Land()
	}
	x.note = note{}
	x.note.found(&found)
	p.answerStored(x, found.Stored, outcomeHit)
	return true
}

// answer is the response that a flight brought for all whom it suits, or nil.
func (l *landing) answer() *cache.Stored {
	if l.fresh != nil {
		return l.fresh
	}
	return l.head
}

// answerLanding answers with what a flight brought. It returns false when that
// is not for this client: then it goes to the origin by itself.
func (p *Proxy) answerLanding(x *exchange, l *landing, leader bool) bool {
	x.note.detail = l.detail
	switch {
	case l.only != nil && leader:
		p.answerOrigin(x, l.only.res, l.only.stay, new(originBody), outcomeMiss)
	case l.err != nil:
		p.originProblem(x, l.status, l.err)
	case l.only != nil:
		return false
	case l.fresh != nil:
		now := time.Now()
		x.note.timed, x.note.ttl, x.note.ages = true, l.fresh.FreshFor(now), l.fresh.Age(now)
		if l.failed != 0 {
			x.note.status, x.note.detail = max(0, l.failed), "stale-if-error"
			p.answerStored(x, l.fresh, outcomeStaleOnError)
		} else {
			x.note.status = 304
			p.answerStored(x, l.fresh, outcomeRevalidated)
		}
	default:
		return p.answerGrowing(x, l, leader)
	}
	return true
}

// answerGrowing answers from a body that still grows.
func (p *Proxy) answerGrowing(x *exchange, l *landing, leader bool) bool {
	x.outcome = outcomeMiss
	if !leader {
		x.outcome = outcomeCollapsed
	}
	x.note.stored = l.head.Verdict.Store
	takes := x.takes(l.head)
	to := l.head.Coding()
	if takes.Refuses(to) && decodable(to) && !takes.Refuses(cache.Identity) {
		if cache.Untouchable(l.head.Fields) {
			if leader {
				l.mine.Close()
			}
			return false
		}
		to = cache.Identity
	}
	if status, tag := cache.Conditional(x.fields, l.head, to, &takes); status != 0 {
		if leader {
			l.mine.Release() // the next who asks may not have it yet
		}
		p.answerNotModified(x, l.head, tag)
		return true
	}
	fields := x.aged(l.head, leader)
	if x.method == "HEAD" {
		p.sendGrowing(x, l, fields, to, &pieceSource{})
		return true
	}
	part := askedPart(x, l.head, l.length)
	if part.from > l.body.Size()+p.window && !x.whole {
		return false // by itself it is there sooner
	}
	r := l.mine
	if !leader {
		var err error
		if r, err = l.body.NewReader(); err != nil {
			return p.landedMeanwhile(nil, x) // its beginning is gone
		}
	}
	if x.leave != nil {
		r.Until(x.leave.Done())
	}
	skipped := r.Skip(part.from) // of what lies in the spool
	src := l.rest(x, r)
	if c, ok := src.(*continued); ok {
		c.got = skipped
	}
	if part.verdict != rangeIgnored {
		p.answerPart(x, fields, part, &partSource{from: src, skip: part.from - skipped, left: part.to - part.from})
		return true
	}
	p.sendGrowing(x, l, fields, to, src)
	return true
}

// sendGrowing streams a flight's body in the coding to: its own, or decoded.
func (p *Proxy) sendGrowing(x *exchange, l *landing, fields field.List, to cache.Coding, r source) {
	if own := l.head.Coding(); to != own {
		p.sendDecoded(x, l.head.Status, cache.CodedFields(fields, to), own, r)
		return
	}
	x.out.stream(x, l.head.Status, fields, l.length, r)
}

// flightPlan is what a fetch knows: its own copies, as the client who started
// it may be gone before it ends.
type flightPlan struct {
	route   *Route
	send    *origin.Request
	request cache.Request   // of the starter, in owned memory
	old     *cache.Stored   // to be validated, or served on error; may be nil
	others  []*cache.Stored // without old: what a 304 may name instead
	read    bool            // the starter will read
	ended   func()          // called when the fetch is over; may be nil
}

// begin starts the fetch of a flight: a task of the proxy's own. read says
// that x waits for what it brings.
func (p *Proxy) begin(f *coalesce.Flight[*landing], x *exchange, found *cache.Found, read bool) {
	plan := &flightPlan{route: x.route, send: x.canonical(), old: found.Stored, read: read}
	if !read {
		plan.ended = x.route.Origin.recovery.release
	}
	plan.request = cache.Request{
		Method: "GET",
		Key:    append([]byte(nil), x.request.Key...),
		Fields: plan.send.Fields,
	}
	if plan.old != nil {
		plan.send.Fields = plan.old.Validators(plan.send.Fields)
	} else {
		plan.others = found.Others
		plan.send.Fields = cache.AppendTags(plan.send.Fields, plan.others)
	}
	if read {
		plan.send.OnInformational = x.relay()
	}
	p.counters.flights.Add(1)
	p.work.Go(func() { p.fetch(f, plan) })
}

// fetch runs once per flight, owned by the proxy and not by the client who
// came first. Whatever happens, it publishes and lands.
func (p *Proxy) fetch(f *coalesce.Flight[*landing], plan *flightPlan) {
	defer func() {
		if e := recover(); e != nil {
			p.counters.panics.Add(1)
			p.log.Error("a flight panicked", "panic", e, "key", string(plan.request.Key), "stack", string(debug.Stack()))
		}
		// Whoever still waits hears this; where something was published before, it stands.
		f.Publish(&landing{err: errNoResponse})
		f.Land()
		if plan.ended != nil {
			plan.ended()
		}
	}()
	ctx, cancel := plan.route.context(p.life)
	limit := plan.route.Origin.Limit
	if err := limit.Acquire(ctx); err != nil {
		cancel()
		f.Publish(p.failed(plan, 0, err))
		return
	}
	handedOver := false
	defer func() {
		if !handedOver {
			cancel()
			limit.Release()
		}
	}()
	requestTime := time.Now()
	p.cache.Begin(&plan.request)
	res, err := plan.route.Origin.Pool.Do(ctx, plan.send)
	if err != nil {
		if p.life.Err() == nil {
			plan.route.Origin.recovery.failed(time.Now())
		}
		p.failedFlight(f, plan, err)
		return
	}
	if serverError(res.Status) {
		plan.route.Origin.recovery.failed(time.Now())
	} else {
		plan.route.Origin.recovery.succeeded(time.Now())
	}
	t := &touchdown{p: p, f: f, plan: plan, res: res, requestTime: requestTime, responseTime: time.Now(), ctx: ctx, cancel: cancel}
	handedOver = t.handedOver()
}

// failedFlight tells everybody that the origin gave no answer, and keeps that
// for those who come next.
func (p *Proxy) failedFlight(f *coalesce.Flight[*landing], plan *flightPlan, err error) {
	l := p.failed(plan, 0, err)
	p.hold(f, l)
	f.Publish(l)
}

// failed is what is published when the origin gave no answer, or an error.
func (p *Proxy) failed(plan *flightPlan, status int, err error) *landing {
	if p.standsIn(plan.old, time.Now()) {
		l := &landing{fresh: plan.old, failed: status}
		if status == 0 {
			l.failed = -1
		}
		return l
	}
	return &landing{err: err, status: status}
}

// standsIn reports whether old, which may be nil, may answer while the origin
// fails.
func (p *Proxy) standsIn(old *cache.Stored, now time.Time) bool {
	return old != nil && old.MayServeOnError(now) && !p.cache.Gone(old)
}

// readerBody is a flight's reader as a response's body.
type readerBody struct{ sourceReader }

// Close implements io.Closer.
func (b *readerBody) Close() error {
	b.from.Close()
	return nil
}

var (
	errOriginStatus = errors.New("the origin answered with an error")
	errNoResponse   = errors.New("fetching: ended without a response")
)

// serverError reports the statuses that stale-if-error is for (RFC 5861
// section 4).
func serverError(status int) bool {
	return status == 500 || status == 502 || status == 503 || status == 504
}
