package cache

import (
	"time"

	"firstbell/proxy/field"
)

// FreshenByHead takes the 200 to a HEAD that was forwarded (RFC 9111 section
// 4.3.5): a stored response to GET that it is about is freshened by it, and one
// that it shows to have changed is stale from now on. An answer in another
// coding says nothing, nor one to a request that the stored response may not
// answer. length is the content's as the answer names it, -1 when it does not. r
// was begun (Begin) before it was sent.
func (c *Cache) FreshenByHead(r *Request, p *Policy, res field.List, length int64, requestTime, responseTime time.Time) {
	e := c.memory.get(r.Key)
	if e == nil {
		return
	}
	s := c.selectVariant(e, r.Fields)
	switch {
	case s == nil || s.Status != 200 || c.Gone(s) || !s.Verdict.MayAnswer(r, p),
		res.Get("Content-Encoding") != s.Fields.Get("Content-Encoding"):
		return
	case !s.describedBy(res, length):
		// What is stale already has been so for longer.
		s.soft.CompareAndSwap(0, uint64(max(1, responseTime.UnixMicro())))
		return
	}
	get := *r
	get.Method = "GET"
	c.Freshen(s, &get, p, res, requestTime, responseTime)
}

// describedBy reports whether the fields of a HEAD's answer are about s: their
// validators and length, where they have them, are its own. Without any of them
// nobody knows, and a changed page is the worse mistake.
func (s *Stored) describedBy(res field.List, length int64) bool {
	if length >= 0 && length != s.Length() {
		return false
	}
	return s.namedBy(res) && (length >= 0 || res.Has("ETag") || res.Has("Last-Modified"))
}
