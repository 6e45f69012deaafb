package cache

import (
	"bytes"
	"slices"
	"time"

	"firstbell/proxy/field"
)

// Accept-Language is spelled in a thousand ways, and few of them lead to a page
// of their own. So a fetch for a request that none of its key's variants suits
// carries their entity tags, and a 304 that names one spares the content (RFC
// 9110 section 13.1.2, RFC 9111 section 4.3.1).
//
// By the tag alone nothing is believed: there are origins whose tags tell
// versions apart and not languages, or not users. The two requests may differ in
// nothing but what is negotiated, and the 304 has to say itself that it is about
// the same: the field that the negotiation decides has the stored value, and its
// own header section lets the response be shared. Anything else is fetched whole.
//
// The variant that was named stays as it was: what may be updated by a 304 are
// the stored responses that could have been chosen for its request (RFC 9111
// section 4.3.4), and it is none of them.

const (
	// othersMax is how many entity tags one fetch carries, and otherTagMax how
	// long each may be: together no more than a cookie.
	othersMax   = 8
	otherTagMax = 128
)

// decidedBy is the field of a response that says how a field of its request was
// answered. Selecting fields that are not here may say who is asking.
var decidedBy = map[string]string{
	"Accept":          "Content-Type",
	"Accept-Language": "Content-Language",
}

// others are those of a key's variants, none of which r selects, that a 304 to r
// may name: the newest come first.
func (c *Cache) others(variants []*Stored, r *Request, p *Policy) (list []*Stored) {
	for _, s := range variants {
		if len(list) == othersMax {
			break
		}
		named := func(v *Stored) bool { return sameWeak(v.etag, s.etag) }
		if s.mayBeNamed(r, p) && !slices.ContainsFunc(list, named) && s.tellsApart(variants) && !c.Gone(s) {
			list = append(list, s)
		}
	}
	return list
}

// mayBeNamed reports whether a 304 to r could prove that s is the answer: r may
// have s, as far as s itself says whose it is, and s has an entity tag of the
// origin's and what the 304 has to repeat.
func (s *Stored) mayBeNamed(r *Request, p *Policy) bool {
	v := &s.Verdict
	if s.Status != 200 || s.Large() || s.misnamed.Load() || !v.Share || !v.explicit || len(v.withheld) > 0 || !v.MayAnswer(r, p) {
		return false
	}
	tag, _, ok := parseETag(s.originTag())
	if !ok || len(tag) > otherTagMax {
		return false
	}
	_, ok = s.decisions(r)
	return ok
}

// tellsApart reports whether no variant with another content has the entity tag
// of s.
func (s *Stored) tellsApart(variants []*Stored) bool {
	for _, v := range variants {
		if v != s && sameWeak(v.etag, s.etag) && !sameBody(v, s) {
			return false
		}
	}
	return true
}

// decisions are the names of the fields that s and a 304 to r must have in
// common. There are none where r differs in more than what is negotiated, or s
// does not say how that was decided.
func (s *Stored) decisions(r *Request) (names []string, ok bool) {
	its, asked := view(s.variant), VariantKey(nil, s.Verdict.Vary, r.Fields)
	for _, name := range s.Verdict.Vary {
		var a, b []byte
		var ok bool
		if a, its, ok = cutSelecting(its, name); !ok {
			return nil, false
		}
		if b, asked, ok = cutSelecting(asked, name); !ok {
			return nil, false
		}
		if bytes.Equal(a, b) {
			continue
		}
		decided := decidedBy[name]
		if decided == "" || !s.Fields.Has(decided) {
			return nil, false
		}
		names = append(names, decided)
	}
	return names, len(names) > 0
}

// AppendTags appends an If-None-Match with the entity tags of others, as Found
// has them, if there are any.
func AppendTags(dst field.List, others []*Stored) field.List {
	if len(others) == 0 {
		return dst
	}
	var list []byte
	for i, s := range others {
		if i > 0 {
			list = append(list, ", "...)
		}
		list = append(list, s.etag...)
	}
	return append(dst, field.Field{Name: "If-None-Match", Value: string(list)})
}

// Named takes a 304 to a fetch with the tags of others. It returns the response
// that answers the request, stored among the variants of its key: that of the
// others which the 304 names, with the fields of the 304 in it. False means that
// it names none, or does not prove that it means it for this request: the caller
// fetches again without the tags, which are not offered any more.
func (c *Cache) Named(others []*Stored, r *Request, p *Policy, res304 field.List, requestTime, responseTime time.Time) (*Stored, bool) {
	for _, old := range others {
		if !old.provedBy(r, res304) || c.Gone(old) {
			continue
		}
		own := Judge(r, p, old.Status, unpersonal(res304, p), requestTime, responseTime)
		s := old.renewed(r, p, res304, requestTime, responseTime)
		if !own.Share || !own.explicit || !s.Verdict.Share || !sameNames(s.Verdict.Vary, old.Verdict.Vary) {
			break
		}
		s.variant = string(VariantKey(nil, s.Verdict.Vary, r.Fields))
		s.index()
		s.adopt(old)
		c.Put(s)
		return s, true
	}
	for _, old := range others {
		old.misnamed.Store(true)
	}
	return nil, false
}

// provedBy reports whether a 304 to r names s by its entity tag, and says itself
// that what was negotiated came to the same.
func (s *Stored) provedBy(r *Request, res304 field.List) bool {
	if !res304.Has("ETag") || !s.namedBy(res304) {
		return false
	}
	names, ok := s.decisions(r)
	for _, name := range names {
		its, _ := joinList(s.Fields, name)
		said, there := joinList(res304, name)
		ok = ok && there && bytes.Equal(its, said)
	}
	return ok
}
