package proxy

import (
	"context"
	"time"

	"firstbell/cache"
	"firstbell/coalesce"
	"firstbell/proxy/field"
	"firstbell/proxy/origin"
)

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
