package proxy

import (
	"context"
	"io"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"firstbell/cache"
	"firstbell/coalesce"
	"firstbell/proxy/field"
	"firstbell/proxy/origin"
)

// blockLanding is what a flight for one block brings, published when the
// response's header section is there, or when there will be none. The zero one
// says that the content cannot be had in blocks: everybody goes alone.
type blockLanding struct {
	of     *cache.Incomplete // what the block is of
	body   *coalesce.Body    // its bytes as they arrive; nil: they are on disk
	stored atomic.Bool       // they are there by now, too
	status int               // the origin's, where it is told
	stale  bool              // the origin failed, and the block answers all the same
	err    error             // instead: for everybody; status 0: no answer
	whole  bool              // instead: the origin sends the whole, and a flight for that is under way
	again  bool              // instead: ask anew
}

// changesApart is the time within which a content that changes twice is not
// taken for one that is edited: servers behind one name give it each their own
// entity tag, and blocks of the two would end every other answer.
const changesApart = 10 * time.Second

// blockFetch is the task that brings one block: the proxy's own, as a flight's
// is.
type blockFetch struct {
	p      *Proxy
	f      *coalesce.Flight[*blockLanding]
	plan   *flightPlan
	n      int64
	old    *cache.Incomplete // what is known of the content; may be nil
	ctx    context.Context
	cancel context.CancelFunc

	checks                    bool // the block is there: asked is whether it still holds
	requestTime, responseTime time.Time
}

// beginBlock starts the fetch of block n of what old says, which may be nil.
// cancel ends it.
func (p *Proxy) beginBlock(f *coalesce.Flight[*blockLanding], plan *flightPlan, n int64, old *cache.Incomplete, ctx context.Context, cancel context.CancelFunc) {
	b := &blockFetch{p: p, f: f, plan: plan, n: n, old: old, ctx: ctx, cancel: cancel}
	p.work.Go(b.run)
}

// run fetches. Whatever happens, it publishes and lands.
func (b *blockFetch) run() {
	defer func() {
		if e := recover(); e != nil {
			b.p.counters.panics.Add(1)
			b.p.log.Error("the fetch of a block panicked", "panic", e, "key", string(b.plan.request.Key), "stack", string(debug.Stack()))
		}
		b.f.Publish(&blockLanding{err: errNoResponse}) // where something was published before, it stands
		b.f.Land()
		b.cancel()
	}()
	// Another flight may have landed since this one was found missing.
	request := b.plan.request
	if of, how := b.p.cache.FindIncomplete(&request, b.plan.route.Cache, time.Now()); of != nil && how.Outcome == cache.Hit {
		if b.old = of; of.Has(b.n) {
			b.f.Publish(&blockLanding{of: of})
			return
		}
	}
	limit := b.plan.route.Origin.Limit
	if err := limit.Acquire(b.ctx); err != nil {
		b.failed(0, err)
		return
	}
	defer limit.Release()
	b.requestTime = time.Now()
	b.p.cache.Begin(&request)
	b.p.counters.blocks.Add(1)
	health := &b.plan.route.Origin.recovery
	res, err := b.plan.route.Origin.Pool.Do(b.ctx, b.asks())
	if err != nil {
		if b.ctx.Err() == nil {
			health.failed(time.Now())
		}
		b.failed(0, err)
		return
	}
	defer res.Body.Close()
	b.responseTime = time.Now()
	if serverError(res.Status) {
		health.failed(b.responseTime)
		b.failed(res.Status, errOriginStatus)
		return
	}
	health.succeeded(b.responseTime)
	b.landed(&request, res)
}

// failed tells everybody that there was no answer. Who has the block, or the
// content's head, may go on by that where it may serve on error.
func (b *blockFetch) failed(status int, err error) {
	switch {
	case b.ctx.Err() == context.Canceled && b.p.life.Err() == nil:
		b.f.Publish(&blockLanding{again: true}) // who fetched ahead has left
	case b.checks && b.p.standsIn(b.old.Stored, time.Now()):
		b.f.Publish(&blockLanding{of: b.old, status: status, stale: true})
	default:
		b.f.Publish(&blockLanding{err: err, status: status})
	}
}

// asks is the request for the block, and for nothing when it is there and still
// holds. It has no If-Range: a 206 names its content by itself, and of other
// content one block is sent that can be used, not the whole that cannot.
func (b *blockFetch) asks() *origin.Request {
	send := *b.plan.send
	first := b.n * cache.BlockBytes
	last := first + cache.BlockBytes - 1 // no sender minds that it lies behind the end
	fields := send.Fields.Without(func(name string) bool { return field.EqualName(name, "Accept-Encoding") })
	fields = append(fields[:len(fields):len(fields)],
		field.Field{Name: "Accept-Encoding", Value: "identity"},
		field.Field{Name: "Range", Value: "bytes=" + strconv.FormatInt(first, 10) + "-" + strconv.FormatInt(last, 10)})
	if b.checks = b.old != nil && b.old.Has(b.n); b.checks {
		fields = b.old.Validators(fields)
	}
	send.Fields = fields
	return &send
}

// landed decides by the header section what came.
func (b *blockFetch) landed(request *cache.Request, res *origin.Response) {
	switch {
	case res.Status == 304 && b.checks && b.old.NamedBy(res.Fields):
		fields := b.old.Updated(res.Fields, b.responseTime)
		if of := b.head(request, fields, b.old.Total); of != nil {
			b.f.Publish(&blockLanding{of: of, status: 304})
			return
		}
		b.old.Drop()
	case res.Status == 206:
		b.part(request, res)
	case res.Status == 200:
		b.whole(request, res)
	case res.Status == 404 || res.Status == 410 || res.Status == 416 || res.Status == 304:
		if b.old != nil {
			b.old.Drop() // it is gone, or shorter by now, or another
		}
	case res.Status < 400:
		b.p.cache.LearnRanges(request, cache.Alone, rangesLearntFor)
	}
	b.f.Publish(&blockLanding{})
}

// part takes a 206.
func (b *blockFetch) part(request *cache.Request, res *origin.Response) {
	first := b.n * cache.BlockBytes
	total, ok := partTotal(res, first, first+cache.BlockBytes)
	if !ok {
		b.p.cache.LearnRanges(request, cache.Alone, rangesLearntFor)
		return
	}
	fields := res.Fields.Without(func(name string) bool { return field.EqualName(name, "Content-Range") })
	of := b.head(request, fields, total)
	if of != nil && b.old != nil && !of.SameContent(b.old) {
		b.p.counters.blocksChanged.Add(1)
		if b.p.cache.ChangedAgain(request, changesApart) {
			of.Drop() // servers that do not agree
			of = nil
		}
	}
	if of == nil {
		if b.old != nil {
			b.old.Drop() // it may not be shared any more, or not be put together
		}
		b.p.cache.LearnRanges(request, cache.Alone, rangesLearntFor)
		return
	}
	b.fill(of, res.Body)
}

// head is what the fields, as of a 200 to a request for the whole, make of the
// content: nil where it may not be shared or not be put together.
func (b *blockFetch) head(request *cache.Request, fields field.List, total int64) *cache.Incomplete {
	policy := b.plan.route.Cache
	if policy.MaxObjectBytes > 0 && total > policy.MaxObjectBytes {
		return nil
	}
	if policy.Anonymous {
		fields = fields.Without(func(name string) bool { return field.EqualName(name, "Set-Cookie") })
	}
	if !b.plan.route.Uncoded && codable(200, fields, total) {
		fields = withVary(fields)
	}
	v := cache.Judge(request, policy, 200, fields, b.requestTime, b.responseTime)
	for _, name := range v.Vary {
		if !field.EqualName(name, "Accept-Encoding") {
			return nil
		}
	}
	return b.p.cache.OfBlocks(b.p.cache.NewStored(request, v, 200, fields, nil, b.requestTime, b.responseTime), total)
}

// fill brings the block home and stores it. All read it as it grows.
func (b *blockFetch) fill(of *cache.Incomplete, content io.Reader) {
	length := of.BlockLen(b.n)
	body := coalesce.NewBody(length, coalesce.Limits{Keep: cache.BlockBytes, Window: cache.BlockBytes})
	defer body.End(errNoResponse) // of no effect but when filling it panicked
	body.OnIdle(func(size int64) bool { return length-size > nearlyDoneBytes }, func() { b.f.Land(); b.cancel() })
	l := &blockLanding{of: of, body: body}
	b.f.Publish(l)
	if body.Fill(content) != nil {
		b.p.counters.flightsBroken.Add(1)
		return
	}
	if block, ok := body.Bytes(); ok && of.PutBlock(b.n, block) {
		l.stored.Store(true)
	}
}

// whole takes a 200: of other content than was known, which is asked for anew,
// or of an origin that knows no ranges. Then it is the answer of the flight for
// the whole, unless one is under way already, and the next who ask for a part
// begin by that.
func (b *blockFetch) whole(request *cache.Request, res *origin.Response) {
	if b.old != nil {
		b.old.Drop()
		b.p.counters.blocksChanged.Add(1)
		b.f.Publish(&blockLanding{again: true})
		return
	}
	b.p.cache.LearnRanges(request, cache.Whole, rangesLearntFor)
	f, leads := b.p.flights.Join(request.Key)
	b.f.Publish(&blockLanding{whole: true})
	b.f.Land()
	if !leads {
		return
	}
	defer func() {
		f.Publish(&landing{err: errNoResponse})
		f.Land()
	}()
	plan := *b.plan
	plan.request = *request
	t := &touchdown{p: b.p, f: f, plan: &plan, res: res, requestTime: b.requestTime, responseTime: b.responseTime, ctx: b.ctx, cancel: b.cancel}
	t.handedOver() // nobody is the starter of this one: it hands nothing over
}

// partTotal reads the Content-Range of a 206 (RFC 9110 section 14.4) to a
// request for the bytes from first up to, but not including, end. It reports
// the length of the whole, and false for anything but that very part of it.
func partTotal(res *origin.Response, first, end int64) (total int64, ok bool) {
	span, size, ok := strings.Cut(strings.TrimPrefix(res.Fields.Get("Content-Range"), "bytes "), "/")
	if !ok {
		return 0, false
	}
	total, ok = readOffset(size)
	if !ok || total <= first || total >= 1<<62 {
		return 0, false
	}
	end = min(end, total)
	if res.Fields.Get("Content-Range") != contentRange(first, end, total) || span == "" {
		return 0, false
	}
	return total, res.ContentLength < 0 || res.ContentLength == end-first
}
