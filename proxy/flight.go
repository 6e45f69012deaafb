package proxy

import (
	"context"
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

// touchdown is a fetch whose response's header section has arrived.
type touchdown struct {
	p                         *Proxy
	f                         *coalesce.Flight[*landing]
	plan                      *flightPlan
	res                       *origin.Response
	requestTime, responseTime time.Time
	ctx                       context.Context
	cancel                    context.CancelFunc
}

// handedOver decides by the header section who may have the response, and
// brings it home. It returns true when the starter took the response over,
// and with it the place at the origin.
func (t *touchdown) handedOver() bool {
	p, plan, res := t.p, t.plan, t.res
	if res.Status == 304 && (plan.old != nil || len(plan.others) > 0) {
		return t.freshened()
	}
	if unasked(res.Status, plan.send.Fields) {
		res.Body.Close()
		p.failedFlight(t.f, plan, errUnasked)
		return false
	}
	if serverError(res.Status) && p.standsIn(plan.old, t.responseTime) {
		res.Body.Close()
		t.f.Publish(p.failed(plan, res.Status, nil))
		return false
	}
	policy := plan.route.Cache
	fields := res.Fields
	if policy.Anonymous {
		fields = fields.Without(func(name string) bool { return field.EqualName(name, "Set-Cookie") })
	}
	fields = t.withVaryOnCoding(fields)
	v := cache.Judge(&plan.request, policy, res.Status, fields, t.requestTime, t.responseTime)
	if isEvents(fields) {
		v = cache.Verdict{LearnUncacheable: true, Detail: "events"}
	}
	if v.Share {
		t.fill(v, fields, false)
		return false
	}
	if v.LearnUncacheable {
		p.cache.MarkUncacheable(&plan.request, uncacheableFor)
	}
	if v.Store && plan.read {
		t.fill(v, fields, true)
		return false
	}
	res.Fields = fields
	l := &landing{detail: v.Detail, only: &private{res: res, stay: &stay{ctx: t.ctx, cancel: t.cancel, limit: plan.route.Origin.Limit}}}
	if serverError(res.Status) {
		// The others are told that the origin fails, not what it said to one.
		l.err, l.status = errOriginStatus, res.Status
		p.hold(t.f, l)
	}
	if !plan.read {
		res.Body.Close()
	}
	t.f.Publish(l)
	return plan.read
}

// freshened takes a 304: the stored response is the answer again. One that is
// about another response than those asked about is worth nothing: then the whole
// is asked for.
func (t *touchdown) freshened() (handedOver bool) {
	t.res.Body.Close()
	plan := t.plan
	if s, ok := t.validated(); ok {
		if s.Verdict.LearnUncacheable {
			t.p.cache.MarkUncacheable(&plan.request, uncacheableFor)
		}
		t.f.Publish(&landing{fresh: s})
		return false
	}
	plan.old, plan.others = nil, nil
	plan.send.Fields = plan.request.Fields.(field.List)
	t.requestTime = time.Now()
	t.p.cache.Begin(&plan.request)
	res, err := plan.route.Origin.Pool.Do(t.ctx, plan.send)
	if err != nil {
		t.p.failedFlight(t.f, plan, err)
		return false
	}
	t.res, t.responseTime = res, time.Now()
	return t.handedOver()
}

// validated is the stored response that a 304 is about.
func (t *touchdown) validated() (*cache.Stored, bool) {
	c, plan, news := t.p.cache, t.plan, t.res.Fields
	about := plan.old
	if about == nil {
		about = plan.others[0]
	}
	if news.Has("Vary") && cache.VariesByCoding(about.Fields) {
		news = withVary(news)
	}
	if plan.old != nil {
		return c.Freshen(plan.old, &plan.request, plan.route.Cache, news, t.requestTime, t.responseTime)
	}
	return c.Named(plan.others, &plan.request, plan.route.Cache, news, t.requestTime, t.responseTime)
}

// fill brings the body home and stores it. All whom it suits read it as it
// grows, or the starter alone when only is set: a response that must be
// validated at every use answers the request that brought it. It returns when
// the next look-up will hit.
func (t *touchdown) fill(v cache.Verdict, fields field.List, only bool) {
	p, plan, res := t.p, t.plan, t.res
	content := t.content()
	defer content.Close()
	keep := plan.route.Cache.MaxObjectBytes
	if keep <= 0 {
		keep = keepBytesMax
	}
	var granted int64
	defer func() { p.kept.Add(-granted) }()
	var spool *cache.Spool
	body := coalesce.NewBody(res.ContentLength, coalesce.Limits{
		Spill: func() coalesce.Spill {
			sp, err := p.cache.Spool(p.cache.NewStored(&plan.request, v, res.Status, fields, nil, t.requestTime, t.responseTime))
			if err != nil {
				return nil // no disk, or it takes nothing now: the window does
			}
			spool = sp
			return sp
		},
		Keep: min(keep, p.cache.MaxObjectBytes()), Window: p.window, Patience: flightPatience,
		Allow: func(n int64) bool {
			if p.kept.Add(n) > keptBytesMax {
				p.kept.Add(-n)
				return false
			}
			granted += n
			return true
		},
	})
	defer body.End(errNoResponse) // of no effect but when filling it panicked
	body.OnIdle(func(size int64) bool {
		return res.ContentLength < 0 || res.ContentLength-size > nearlyDoneBytes
	}, func() { t.f.Land(); t.cancel() })
	l := &landing{
		head:   p.cache.NewStored(&plan.request, v, res.Status, fields, nil, t.requestTime, t.responseTime),
		body:   body,
		length: res.ContentLength,
		detail: v.Detail,
		rest: func(x *exchange, of source) source {
			from, _ := content.(*resuming) // nil where that is not possible
			return &continued{source: of, x: x, t: t, of: from}
		},
	}
	if plan.read {
		l.mine, _ = body.NewReader() // nothing is gone of a body that has not begun
	}
	if only {
		t.f.Publish(&landing{detail: v.Detail, only: &private{
			res: &origin.Response{Status: res.Status, Fields: fields, ContentLength: l.length, Body: &readerBody{sourceReader{from: l.mine}}},
		}})
	} else {
		t.f.Publish(l)
	}
	defer func() {
		if spool != nil {
			t.settle(body, spool)
		}
	}()
	if err := body.Fill(content); err != nil {
		p.counters.flightsBroken.Add(1)
		return
	}
	if whole, ok := body.Bytes(); ok && v.Store {
		p.cache.Put(p.cache.NewStored(&plan.request, v, res.Status, fields, whole, t.requestTime, t.responseTime))
	}
}

// settle keeps a body that went to disk, if all of it is there and the route
// lets one of its size be stored. Who reads it from there goes on.
func (t *touchdown) settle(body *coalesce.Body, spool *cache.Spool) {
	spool.Retain() // until the next look-up finds it
	defer spool.Release()
	defer body.ShutSpill()
	most := t.plan.route.Cache.MaxObjectBytes
	if !body.Spilled() || most > 0 && body.Size() > most {
		spool.Discard()
		return
	}
	spool.Keep()
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

// withVaryOnCoding adds the Vary that a response needs which others may get in
// another coding, now or once its variants are there.
func (t *touchdown) withVaryOnCoding(fields field.List) field.List {
	if fields.Has("Content-Encoding") || !t.plan.route.Uncoded && codable(t.res.Status, fields, t.res.ContentLength) {
		return withVary(fields)
	}
	return fields
}

func withVary(fields field.List) field.List {
	if cache.VariesByCoding(fields) {
		return fields
	}
	return append(fields[:len(fields):len(fields)], field.Field{Name: "Vary", Value: "Accept-Encoding"})
}
