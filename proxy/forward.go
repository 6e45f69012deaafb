package proxy

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"firstbell/cache"
	"firstbell/proxy/admission"
	"firstbell/proxy/field"
	"firstbell/proxy/origin"
)

// via is our entry in Via (RFC 9110 section 7.6.3).
const via = "1.1 firstbell"

// forward passes the request on by itself and streams the answer back, once its
// content is here.
func (p *Proxy) forward(x *exchange, as outcome) {
	x.mayWait()
	if p.takesIn(x) {
		p.takeIn(x, as)
		return
	}
	p.pass(x, as)
}

// pass passes the request on and streams the answer back.
func (p *Proxy) pass(x *exchange, as outcome) {
	pa, rt := newPassage(x), x.route
	pa.takeThere()
	s := &pa.stay
	if err := p.stayAt(x, s); err != nil {
		s.problem(p, err)
		return
	}
	send, ok := x.outbound(pa)
	if !ok {
		s.done()
		x.outcome = outcomeRefused
		p.problem(x, 412, "the entity tag in If-Match is not the school's server's, which gives none for this", nil)
		return
	}
	requestTime := time.Now()
	head := x.method == "HEAD" && rt.Cache != nil && len(x.request.Key) > 0
	if head {
		p.cache.Begin(&x.request)
	} else {
		send.Room = &pa.room // nobody keeps what is in there
	}
	send.Lasting = s.cancel == nil
	res, err := rt.Origin.Pool.Do(s.ctx, send)
	if err != nil {
		s.problem(p, err)
		return
	}
	if send.Lasting {
		s.res = res
	}
	if head && res.Status == 200 {
		p.cache.FreshenByHead(&x.request, rt.Cache, res.Fields, res.ContentLength, requestTime, time.Now())
	}
	if (res.Status == 206 || res.Status == 304) && safe(x.method) && unasked(res.Status, send.Fields) {
		res.Body.Close()
		s.done()
		p.originProblem(x, 0, errUnasked)
		return
	}
	p.invalidate(x, res.Status, res.Fields)
	if x.anonymous() {
		res.Fields = res.Fields.Without(func(name string) bool { return field.EqualName(name, "Set-Cookie") })
	}
	res.Fields = x.clientTag(res.Status, res.Fields)
	p.answerOrigin(x, res, s, &pa.body, as)
}

// stayAt takes the place that a request to the route's origin needs: one among
// the live where its route is for what lasts, else one of the origin's limit. s
// is to be done even after an error.
func (p *Proxy) stayAt(x *exchange, s *stay) error {
	s.x, s.ctx = x, p.life
	if x.route.Live != nil {
		s.ctx, s.cancel = context.WithCancel(p.life)
		return s.enter(p.live, liveOther)
	}
	if x.leave != nil || x.route.Total > 0 {
		lasting, end := x.lasting(p.life)
		ctx, stop := x.route.context(lasting)
		s.ctx, s.cancel = ctx, func() { stop(); end() }
	}
	return s.admit(x.route.Origin.Limit)
}

// patience is how long the origin may be silent on a route whose exchanges
// last; 0: as long as on others.
func (rt *Route) patience() time.Duration {
	if rt.Live == nil {
		return 0
	}
	return rt.Live.idle()
}

// unasked reports a response of a part, or of nothing new, to a request with
// these fields that asked for neither. It is worth nothing, and a part could be
// taken for the whole.
func unasked(status int, asked field.Fields) bool {
	switch status {
	case 206:
		return asked.Peek("Range") == nil
	case 304:
		for name := range asked.All() {
			if len(name) > 3 && bytes.EqualFold(name[:3], []byte("If-")) {
				return false
			}
		}
		return true
	}
	return false
}

var errUnasked = errors.New("a part, or 304, in answer to a request for the whole")

// answerOrigin streams a response to the client who asked for it, through body,
// which is zero. The stay, which may be nil, is done when that is over.
func (p *Proxy) answerOrigin(x *exchange, res *origin.Response, s *stay, body *originBody, as outcome) {
	x.outcome = as
	if s != nil && x.method != "HEAD" && isEvents(res.Fields) {
		s.x = x
		if !p.lasts(x, res, s) {
			return
		}
	}
	fields := res.Fields
	if x.route.Cache != nil {
		fields = withoutTags(fields)
	}
	if s != nil && s.place != nil {
		live := newLiveBody(body.of(p, x, res.Body, res, nil), fields, s)
		p.sendAsked(x, res.Status, fields, res.ContentLength, live)
		return
	}
	p.sendAsked(x, res.Status, fields, res.ContentLength, body.of(p, x, res.Body, res, s))
}

// withoutTags leaves out what is said to caches about purges; stored responses
// have lost it already.
func withoutTags(fields field.List) field.List {
	if !fields.Has("Surrogate-Key") && !fields.Has("Cache-Tag") {
		return fields
	}
	return fields.Without(func(name string) bool { return cache.TagField([]byte(name)) })
}

func (x *exchange) anonymous() bool { return x.route.Cache != nil && x.route.Cache.Anonymous }

// outbound is the client's request as the origin gets it, in pa, a view of what
// the client sent. It reports false for one with a precondition that cannot be
// true there.
func (x *exchange) outbound(pa *passage) (r *origin.Request, ok bool) {
	r = &pa.send
	*r = origin.Request{
		Method:        x.method,
		Target:        view(x.target.raw),
		Host:          view(x.authority),
		Body:          x.body,
		ContentLength: x.length,
		StopBody:      x.stopBody,
		Expect:        x.expects,
		Trailer:       x.trailer,
		TakesTrailers: x.takesTrailers,
		Header:        x.route.patience(),
		Idle:          x.route.patience(),

		OnInformational: pa.inform,
	}
	if x.route.Origin.Pool.Introduces() {
		r.For = x.forWhom()
	}
	drop := dropNothing
	if x.anonymous() {
		drop = func(name []byte) bool { return personal(view(name)) || x.route.Identity.carries(view(name)) }
	}
	pa.fields = x.endToEnd(pa.fields[:0], x.fields, drop, view)
	pa.fields, pa.values = x.appendForwarding(pa.fields, pa.values[:0])
	r.Fields = pa.fields
	if x.route.Cache == nil {
		return r, true
	}
	r.Fields, ok = originConditions(r.Fields)
	return r, ok
}

// canonical is the one request that stands for everybody who asks for the same:
// a GET for the whole of it, in the coding that we store.
func (x *exchange) canonical() *origin.Request {
	fields := x.endToEnd(make(field.List, 0, 24), &x.asked, func(name []byte) bool {
		return partial(name) || x.asked.invents() && field.EqualName(name, "Authorization")
	}, own)
	fields, _ = x.appendForwarding(fields, nil)
	return &origin.Request{
		For:    x.forWhom(),
		Method: "GET",
		Target: string(x.target.raw),
		Host:   string(x.authority),
		Fields: fields,
	}
}

// partial reports the fields that ask for a part of a response, or for it only
// under a condition.
func partial(name []byte) bool {
	return field.EqualName(name, "Range") || len(name) > 3 && bytes.EqualFold(name[:3], []byte("If-"))
}

func dropNothing([]byte) bool { return false }

// endToEnd appends the fields that go to the origin, less what drop names, each
// name and value made a string by text. The forwarding fields are not among
// them: they are ours alone, as a stranger's claims prove nothing.
func (x *exchange) endToEnd(l field.List, from field.Fields, drop func(name []byte) bool, text func([]byte) string) field.List {
	options := optionsNameFields(from)
	f, ok := from.(lined)
	if !ok {
		return appendPassing(l, from, options, drop, text)
	}
	for i := range f.Len() {
		if name, value := f.Line(i); passes(name, from, options) && !drop(name) {
			l = append(l, field.Field{Name: text(name), Value: text(value)})
		}
	}
	return l
}

func appendPassing(l field.List, from field.Fields, options bool, drop func(name []byte) bool, text func([]byte) string) field.List {
	for name, value := range from.All() {
		if passes(name, from, options) && !drop(name) {
			l = append(l, field.Field{Name: text(name), Value: text(value)})
		}
	}
	return l
}

// passes reports whether a field may go on. options says that Connection may
// name some that may not.
func passes(name []byte, from field.Fields, options bool) bool {
	return !field.HopByHop(name) && !ours(name) && !(options && field.ConnectionNames(from, name))
}

// optionsNameFields reports whether Connection may name fields of f: browsers
// say keep-alive and nothing else.
func optionsNameFields(f field.Fields) bool {
	first := f.Peek("Connection")
	if first == nil || !bytes.EqualFold(first, []byte("keep-alive")) {
		return first != nil
	}
	l, ok := f.(lined)
	if !ok {
		return true
	}
	lines := 0
	for i := range l.Len() {
		if name, _ := l.Line(i); field.EqualName(name, "Connection") {
			lines++
		}
	}
	return lines > 1
}

// forwardingNames are the fields that tell the origin who asks us.
var forwardingNames = [...]string{"Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// appendForwarding appends the forwarding fields to l, and their values to b,
// which they are views of.
func (x *exchange) appendForwarding(l field.List, b []byte) (field.List, []byte) {
	for _, name := range forwardingNames {
		begin := len(b)
		b = x.appendForwarded(b, name)
		l = append(l, field.Field{Name: name, Value: view(b[begin:])})
	}
	return l, b
}

// forwarding is the value that the origin is sent of a field which is ours to
// write; nil when it is sent none.
func (x *exchange) forwarding(name string) []byte {
	for _, n := range forwardingNames {
		if field.EqualName(n, name) {
			return x.appendForwarded(make([]byte, 0, 64), n)
		}
	}
	return nil
}

// appendForwarded appends the value of one of forwardingNames.
func (x *exchange) appendForwarded(b []byte, name string) []byte {
	switch name {
	case "Forwarded":
		return appendForwarded(b, x.remote, x.authority, x.scheme)
	case "X-Forwarded-For":
		return append(b, x.remote...)
	case "X-Forwarded-Host":
		return append(b, x.authority...)
	case "X-Forwarded-Proto":
		return append(b, x.scheme...)
	}
	if x.fields.Peek("Via") != nil {
		b = appendVia(b, x.fields)
	}
	return append(b, via...)
}

// appendVia appends what Via says already.
func appendVia(b []byte, f field.Fields) []byte {
	for n, value := range f.All() {
		if field.EqualName(n, "Via") {
			b = append(append(b, value...), ", "...)
		}
	}
	return b
}

// ours reports the fields that are written anew, or that a stranger must not
// send to an origin: they tell it where a request came from, that it was for
// another URL, how it is framed, or where to find a file. An origin behind CGI
// or WSGI reads '_' in a name as '-', so we do.
func ours(name []byte) bool {
	if n := len(name); n < len(oursByLength) {
		for _, o := range oursByLength[n] {
			if sameName(name, o) {
				return true
			}
		}
	}
	return begins(name, "X-Forwarded-") || begins(name, "X-Accel-") || begins(name, "X-Sendfile")
}

// oursByLength are the names, at their lengths. Learning platforms believe one
// or another of those that name an address: Moodle reads Client-IP first.
var oursByLength = func() (all [20][]string) {
	for _, n := range [...]string{
		"Via", "Forwarded", "X-Forwarded", "Host", "X-Host", "X-Original-Host", "Expect", "Content-Length", "Transfer-Encoding",
		"Client-IP", "X-Client-IP", "X-Real-IP", "X-Remote-IP", "X-Remote-Addr", "True-Client-IP", "CF-Connecting-IP",
		"Fastly-Client-IP", "X-Cluster-Client-IP",
		"X-Original-URL", "X-Original-URI", "X-Rewrite-URL", "X-Url-Scheme", "Front-End-Https",
		"Proxy",          // a CGI program finds it as HTTP_PROXY, and asks through it
		"HTTP2-Settings", // of an upgrade that is not made (RFC 9113 section 3.1)
	} {
		all[len(n)] = append(all[len(n)], n)
	}
	return all
}()

func begins(name []byte, with string) bool {
	return len(name) >= len(with) && sameName(name[:len(with)], with)
}

// sameName compares two names without regard to case, and to '_' for '-'.
func sameName(a []byte, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if c == '_' {
			c = '-'
		}
		if d := b[i]; c|0x20 != d|0x20 {
			return false
		}
	}
	return true
}

// appendForwarded appends the value of a Forwarded field (RFC 7239).
func appendForwarded(b []byte, remote string, host []byte, scheme string) []byte {
	b = append(b, "for="...)
	if strings.Contains(remote, ":") {
		b = append(append(append(b, `"[`...), remote...), `]"`...)
	} else {
		b = append(b, remote...)
	}
	b = append(b, ";host="...)
	if bytes.ContainsAny(host, ":[]") {
		b = append(append(append(b, '"'), host...), '"')
	} else {
		b = append(b, host...)
	}
	return append(append(b, ";proto="...), scheme...)
}

// originProblem answers when the origin did not, or with an error shared by
// many. status is the origin's, 0 when there was none.
func (p *Proxy) originProblem(x *exchange, status int, err error) {
	var busy *admission.Busy
	wait := 2 * time.Second
	detail := ""
	x.outcome = outcomeFailed
	switch {
	case x.left():
		x.outcome, status, detail = outcomeLeft, 503, "the request was given up"
	case errors.As(err, &busy):
		x.outcome, status, wait = outcomeBusy, 503, busy.RetryAfter
		detail = "too many are asking at this moment; please wait a little"
	case errors.Is(err, origin.ErrRequestBody):
		x.outcome, status, detail = outcomeRefused, notWhole(err), "the request's content did not arrive whole, or not in time"
	case errors.Is(err, origin.ErrRequest):
		x.outcome, status, detail = outcomeRefused, 400, "the request cannot be passed on"
	case errors.Is(err, origin.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		status, detail = 504, "the school's server did not answer in time"
	case errors.Is(err, origin.ErrConnect), errors.Is(err, origin.ErrBusy), errors.Is(err, context.Canceled):
		status, detail = 503, "the school's server cannot be reached at the moment"
	case status != 0:
		detail = "the school's server has a problem at the moment"
	default:
		status, detail = 502, "the school's server gave an answer that makes no sense"
	}
	if x.outcome == outcomeFailed {
		p.log.Debug("the origin failed", "origin", x.route.Origin.Name, "host", string(x.host), "error", err)
	}
	var more field.List
	if status >= 500 {
		more = field.List{retryAfter(wait)}
	}
	p.problem(x, status, detail, more)
}
