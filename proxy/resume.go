package proxy

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	"firstbell/coalesce"
	"firstbell/proxy/field"
	"firstbell/proxy/origin"
)

// resumesMax bounds how often one flight is continued: an origin that dies more
// often than that is not going to bring the rest.
const resumesMax = 3

// resuming is the content of a flight's response which, when the origin dies in
// the middle of it, goes on where it was cut (RFC 9110 sections 13.1.5 and
// 14.2), so that nobody who reads it notices. It counts the bytes as they are
// sent: coded ones where the content is coded. It asks again within the place
// at the origin that the flight holds, and within the flight's time.
type resuming struct {
	t      *touchdown
	body   io.ReadCloser // of the response that is read now
	etag   string
	coding string
	total  int64

	got   int64 // bytes read so far
	asked int   // how often it was asked for the rest
	mark  int64 // got when that was last done; -1: never
}

// content is the response's content, which resumes where that can be done
// without doubt: the strong entity tag names these very bytes, and their number
// is known.
func (t *touchdown) content() io.ReadCloser {
	res := t.res
	etag := res.Fields.Get("ETag")
	if res.Status != 200 || res.ContentLength < 0 || !strongTag(etag) || listHas(res.Fields.Get("Accept-Ranges"), "none") {
		return res.Body
	}
	return &resuming{
		t: t, body: res.Body, mark: -1,
		etag: etag, coding: res.Fields.Get("Content-Encoding"), total: res.ContentLength,
	}
}

// strongTag reports one strong entity tag (RFC 9110 section 8.8.3).
func strongTag(etag string) bool {
	return len(etag) >= 2 && etag[0] == '"' && strings.IndexByte(etag[1:], '"') == len(etag)-2
}

// Read implements io.Reader.
func (r *resuming) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.got += int64(n)
		if n > 0 && err != io.EOF {
			return n, nil // an error comes again with the next read
		}
		if err == nil || err == io.EOF || !r.resumed(err) {
			return n, err
		}
	}
}

// Close implements io.Closer.
func (r *resuming) Close() error { return r.body.Close() }

// resumed asks for the rest and reports whether that is what now comes.
func (r *resuming) resumed(cause error) bool {
	cut := errors.Is(cause, io.ErrUnexpectedEOF) || errors.Is(cause, origin.ErrTimeout)
	if !cut || r.asked == resumesMax || r.got == r.mark || r.t.ctx.Err() != nil {
		return false
	}
	r.asked, r.mark = r.asked+1, r.got
	r.body.Close() // it has ended; the connection is of no more use
	body, err := r.restFrom(r.t.ctx, r.got)
	if err != nil {
		return false
	}
	r.body = body
	r.t.p.counters.flightsResumed.Add(1)
	return true
}

// restFrom asks for the very same bytes from an offset on, within a place at the
// origin that the caller has.
func (r *resuming) restFrom(ctx context.Context, from int64) (io.ReadCloser, error) {
	res, err := r.t.plan.route.Origin.Pool.Do(ctx, r.request(from))
	if err != nil {
		return nil, err
	}
	if !r.continues(res, from) {
		res.Body.Close()
		return nil, errOtherRest
	}
	return res.Body, nil
}

var errOtherRest = errors.New("what came is not the rest of the same content")

// request is the flight's request, for the rest of the very same bytes only.
func (r *resuming) request(from int64) *origin.Request {
	plan := r.t.plan
	fields := plan.request.Fields.(field.List) // as begin made it, without preconditions
	send := *plan.send
	send.OnInformational = nil // it was the starter's, who has the final response's head by now
	send.Fields = append(fields[:len(fields):len(fields)],
		field.Field{Name: "Range", Value: "bytes=" + strconv.FormatInt(from, 10) + "-"},
		field.Field{Name: "If-Range", Value: r.etag},
	)
	return &send
}

// continues reports whether a response is exactly what is missing. The entity
// tag alone is not believed: there are origins that give the coded and the
// plain content the same one.
func (r *resuming) continues(res *origin.Response, from int64) bool {
	return res.Status == 206 &&
		res.ContentLength == r.total-from &&
		res.Fields.Get("Content-Range") == contentRange(from, r.total, r.total) &&
		res.Fields.Get("ETag") == r.etag &&
		res.Fields.Get("Content-Encoding") == r.coding
}

// continued is what one client reads of a flight, and goes on by a request of
// its own, through admission, when the flight could not wait for it any longer.
// Where the rest cannot be had without doubt the answer ends visibly broken.
type continued struct {
	source
	x   *exchange // whose answer it is
	t   *touchdown
	of  *resuming // nil: nothing can be continued
	got int64
	own bool // the source is the client's own by now
}

// Next implements source.
func (c *continued) Next() ([]byte, error) {
	p, err := c.source.Next()
	if errors.Is(err, coalesce.ErrTooSlow) && c.of != nil && !c.own && c.goOn() {
		p, err = c.source.Next()
	}
	c.got += int64(len(p))
	return p, err
}

// goOn puts a request for the rest in the place of the flight.
func (c *continued) goOn() bool {
	p, rt := c.t.p, c.t.plan.route
	s := new(stay)
	s.ctx, s.cancel = rt.context(p.life)
	if err := s.admit(rt.Origin.Limit); err != nil {
		s.done()
		return false
	}
	body, err := c.of.restFrom(s.ctx, c.got)
	if err != nil {
		s.done()
		return false
	}
	c.source.Close()
	c.source, c.own = new(originBody).of(p, c.x, body, nil, s), true
	p.counters.flightsResumed.Add(1)
	return true
}
