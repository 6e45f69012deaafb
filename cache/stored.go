package cache

import (
	"encoding/binary"
	"sync/atomic"
	"time"
	"unsafe"

	"firstbell/proxy/field"
)

// Stored is a stored response. Its exported fields are read by many at once
// and never changed. It is usable whether or not a cache holds it.
//
// Among a million of them none is near the processor, so what every look-up
// reads stands first: four cache lines, one after the other.
type Stored struct {
	entry entry // used by the index when it is alone under its key; a line, and what its list needs

	seen         atomic.Uint64 // it has been held against the rules of purges up to this generation
	responseTime time.Time
	soft         atomic.Uint64 // generation of the soft purge that made it stale, or 0

	near [nearBytes]byte // holds the key, if it is no longer

	Verdict Verdict

	Status int
	// Fields are what may be sent again: no hop-by-hop fields, none named in
	// Connection, none withheld by the response, no Age (Age says it) and
	// always a Date.
	Fields field.List
	Body   []byte // nil where the body lies in pages (Paged) or on disk (Large)

	key     string
	variant string // VariantKey of the request that brought it

	etag         []byte    // as sent; may be no entity tag
	generated    bool      // etag is ours, and says nothing to the origin
	coding       Coding    // of Body
	lastModified time.Time // zero when there is none
	size         int64     // what it is accounted with

	tags   []string // for purges
	born   uint64   // generation of purges in which its fetch began
	change uint32   // of memory.changes, when its fetch began

	// misnamed: a 304 to other selecting fields did not prove that it meant s; see named.go.
	misnamed atomic.Bool

	late    atomic.Uint32 // look-ups since it has been due for freshening
	content *content      // where the body lies, when it is too large for memory
	paged   *Paged        // the body, when it is too large for the heap
	onDisk  atomic.Uint64 // the number of its record on disk, 0 while there is none

	prepared [forms]atomic.Pointer[byte] // a length, which prefixes the bytes: one place less to look in

	coded      atomic.Pointer[codedSet] // the same content in other codings
	codedBytes int64                    // what those are accounted with; guarded by memory.mu once the cache holds s
	wishes     [Codings]atomic.Uint32   // for variants that are not there
}

// nearBytes is a cache line: most keys, such as "https school.example
// /lessons/17?week=3", are shorter.
const nearBytes = 64

// Form is one of the ways in which a header section is prepared.
type Form uint8

// The forms: as lines of HTTP/1.1, and compressed as HTTP/2 and HTTP/3 have
// them.
const (
	FormLines Form = iota
	FormHPACK
	FormQPACK
	forms
)

// SetPrepared hangs a copy of b on the stored response, which is its header
// section ready to be sent. It lives and dies with the stored response, and the
// last one set of each form stays. The memory of about one more copy of Fields
// is accounted for each.
func (s *Stored) SetPrepared(f Form, b []byte) {
	room := append(binary.NativeEndian.AppendUint64(make([]byte, 0, preparedPrefix+len(b)), uint64(len(b))), b...)
	s.prepared[f].Store(unsafe.SliceData(room))
}

// Prepared returns what SetPrepared set, or nil. Nobody changes it.
func (s *Stored) Prepared(f Form) []byte {
	p := s.prepared[f].Load()
	if p == nil {
		return nil
	}
	n := binary.NativeEndian.Uint64(unsafe.Slice(p, preparedPrefix))
	return unsafe.Slice(p, preparedPrefix+n)[preparedPrefix:]
}

// preparedPrefix is what a length takes.
const preparedPrefix = 8

// NewStored makes a stored response of a judged one. With a body, which must be
// whole, it has an entity tag even where its origin gave none. It keeps body and the
// strings of res without copying them, so nobody may change them afterwards.
// r is read during the call only. Nothing is kept in the cache until Put.
func (c *Cache) NewStored(r *Request, v Verdict, status int, res field.List, body []byte, requestTime, responseTime time.Time) *Stored {
	s := &Stored{
		Status:       status,
		Fields:       storable(res, v.withheld, v.date),
		Body:         body,
		Verdict:      v,
		key:          string(r.Key),
		variant:      string(VariantKey(nil, v.Vary, r.Fields)),
		responseTime: responseTime,
		tags:         tagsIn(res),
	}
	s.begun(r)
	s.generateTag()
	c.page(s)
	s.index()
	return s
}

// begun takes over when the fetch of r began.
func (s *Stored) begun(r *Request) {
	s.born, s.change = r.born, r.change
	s.seen.Store(r.born)
}

func tagsIn(l field.List) []string {
	if !l.Has("Surrogate-Key") && !l.Has("Cache-Tag") {
		return nil
	}
	surrogate, _ := joinList(l, "Surrogate-Key")
	tags, _ := joinList(l, "Cache-Tag")
	return tagsOf(surrogate, tags)
}

// index makes s, whose fields nobody else holds yet, small, finds what look-ups
// and validation need in them, and its size.
func (s *Stored) index() {
	s.measure(s.compact())
}

// measure finds what look-ups and validation need in s.Fields, and its size,
// with so many bytes of text of its own.
func (s *Stored) measure(text int) {
	s.etag = trim(view(s.Fields.Get("ETag")))
	s.coding = CodingOf(s.Fields)
	s.lastModified = time.Time{}
	if t, ok := parseDate(view(s.Fields.Get("Last-Modified")), s.responseTime); ok {
		s.lastModified = t
	}
	s.size = storedBytes + allocated(cap(s.Body)) + fieldsSize(s.Fields)
	if s.paged != nil {
		s.size += pageCeil(s.paged.length) + pagedBytes
	}
	s.size += allocated(text) + int64(forms)*preparedBytes
	for _, f := range s.Fields {
		s.size += int64(forms) * int64(len(f.Name)+len(f.Value)+len(": \r\n")) // what SetPrepared holds
	}
	for _, tag := range s.tags {
		s.size += 16 + allocated(len(tag))
	}
}

const (
	// storedBytes is a Stored with its Verdict and what the collector needs to
	// know of it, measured on linux/amd64.
	storedBytes = 704
	// pagedBytes is what hangs a body in pages on a Stored.
	pagedBytes = 192
	// preparedBytes is what hangs a prepared header on a Stored, beside its
	// text.
	preparedBytes = 112
)

// storable leaves out what RFC 9111 section 3.1 keeps from being stored, what
// the response withholds, tags for purges, and Age; a Date that is missing or unreadable is the
// time of arrival (RFC 9110 section 6.6.1).
func storable(res field.List, withheld []string, date time.Time) field.List {
	kept := res.Without(func(name string) bool {
		n := view(name)
		return field.HopByHop(n) || field.EqualName(name, "Age") || field.EqualName(name, "Proxy-Authentication-Info") || TagField(n) ||
			named(withheld, n) || field.ConnectionNames(res, n)
	})
	if _, ok := parseDate(view(kept.Get("Date")), date); ok {
		return kept
	}
	kept = kept.Without(func(name string) bool { return field.EqualName(name, "Date") })
	return append(kept, field.Field{Name: "Date", Value: date.UTC().Format(httpDate)})
}

// Age is the current age (RFC 9111 section 4.2.3), never negative.
func (s *Stored) Age(now time.Time) time.Duration {
	return addTime(s.Verdict.Age, max(0, now.Sub(s.responseTime)))
}

// Vouched is when the origin last vouched for the response: when it, or the 304
// that freshened it, arrived.
func (s *Stored) Vouched() time.Time { return s.responseTime }

// FreshFor is how much of the freshness lifetime is left; at or below zero the
// response is stale. One that needs validation at every use has none, one that
// was purged softly has had none since.
func (s *Stored) FreshFor(now time.Time) time.Duration {
	if s.Verdict.validate {
		return -s.Age(now)
	}
	left := s.Verdict.Lifetime - s.Age(now)
	if soft := s.soft.Load(); soft != 0 {
		left = min(left, time.UnixMicro(int64(soft)).Sub(now), -1)
	}
	return left
}

// MayServeOnError reports whether the response may be sent when the origin
// cannot be had or answers 500, 502, 503 or 504 (RFC 5861 section 4). An error
// stands in for nothing once it is stale.
func (s *Stored) MayServeOnError(now time.Time) bool {
	left := s.FreshFor(now)
	if left > 0 {
		return true
	}
	return !s.Verdict.validate && !s.Verdict.errorReply && -left < s.Verdict.StaleIfError
}

// Suits reports whether s may answer r, a follower in the flight that brought
// or freshened s: s may be given to others, its selecting fields match (RFC
// 9111 section 4.1), and it may answer whoever r says is asking. It does not
// ask whether s is fresh by now.
func (s *Stored) Suits(r *Request, p *Policy) bool {
	v := &s.Verdict
	forOthers := v.Share || v.Store && !v.validate
	return forOthers && v.MayAnswer(r, p) && s.variant == string(VariantKey(nil, v.Vary, r.Fields))
}

// Validators appends the preconditions of a validating fetch: If-None-Match
// when the response has an entity tag, If-Modified-Since when it has a
// Last-Modified (RFC 9111 section 4.3.1). Nothing appended means that it
// cannot be validated. A tag that firstbell generated is none of the origin's.
func (s *Stored) Validators(dst field.List) field.List {
	if _, _, ok := parseETag(s.originTag()); ok {
		dst = append(dst, field.Field{Name: "If-None-Match", Value: string(s.etag)})
	}
	if !s.lastModified.IsZero() {
		dst = append(dst, field.Field{Name: "If-Modified-Since", Value: s.Fields.Get("Last-Modified")})
	}
	return dst
}

// originTag is the entity tag that the origin sent, or nil.
func (s *Stored) originTag() []byte {
	if s.generated {
		return nil
	}
	return s.etag
}

// modifiedBase is what If-Modified-Since is compared with: Last-Modified, else
// Date (RFC 9111 section 4.3.2).
func (s *Stored) modifiedBase() time.Time {
	if !s.lastModified.IsZero() {
		return s.lastModified
	}
	return s.Verdict.date
}

// Freshen takes a 304 to a fetch with old's validators (RFC 9111 section
// 4.3.4). It returns old with the fields of the 304 in it, ready to answer the
// request. If the cache still holds old, that has taken its place there, or,
// when it may not be stored, old is gone; what was put or invalidated meanwhile
// stays as it is. False means that the 304 speaks of another response, or that
// old has been purged: it is left as it was, and the caller fetches again without validators. On an
// anonymous route a Set-Cookie of the 304 is left out.
func (c *Cache) Freshen(old *Stored, r *Request, p *Policy, res304 field.List, requestTime, responseTime time.Time) (*Stored, bool) {
	if !old.namedBy(res304) || c.purged(old) {
		return nil, false
	}
	s := old.renewed(r, p, res304, requestTime, responseTime)
	if !sameNames(s.Verdict.Vary, old.Verdict.Vary) {
		s.variant = string(VariantKey(nil, s.Verdict.Vary, r.Fields))
	}
	s.index()
	s.adopt(old)
	if !s.Verdict.Store {
		held := c.memory.swap(old, nil)
		if c.tier != nil {
			c.tier.freshened(old, s, held)
		}
		return s, true
	}
	held := c.memory.swap(old, s)
	if held && s.Verdict.fresh() {
		c.uncacheable.forget(c.memory.index.hash(view(s.key)))
	}
	if c.tier != nil {
		c.tier.freshened(old, s, held)
	}
	return s, true
}

// renewed is s with the fields of a 304 to r in it, judged anew. It has yet to be
// indexed, and to be given to anybody.
func (s *Stored) renewed(r *Request, p *Policy, res304 field.List, requestTime, responseTime time.Time) *Stored {
	date := responseTime
	if d, ok := parseDate(view(res304.Get("Date")), responseTime); ok {
		date = d
	}
	merged := updated(s.Fields, unpersonal(res304, p), date)
	v := Judge(r, p, s.Status, merged, requestTime, responseTime)
	again := &Stored{
		Status: s.Status, Fields: storable(merged, v.withheld, date), Body: s.Body, content: s.content, paged: s.paged, Verdict: v,
		key: s.key, variant: s.variant, responseTime: responseTime, tags: s.tags,
		generated: s.generated,
	}
	if tags := tagsIn(res304); tags != nil {
		again.tags = tags
	}
	again.begun(r)
	return again
}

// unpersonal leaves out the Set-Cookie of a 304 on an anonymous route.
func unpersonal(res304 field.List, p *Policy) field.List {
	if !p.Anonymous {
		return res304
	}
	return res304.Without(func(name string) bool { return field.EqualName(name, "Set-Cookie") })
}

// namedBy reports whether a 304 with these fields is about s: a strong
// validator must match strongly, a weak one weakly; a 304 with neither answers
// for the one that was asked about.
func (s *Stored) namedBy(res304 field.List) bool {
	if tag := view(res304.Get("ETag")); len(tag) > 0 {
		if _, weak, ok := parseETag(tag); ok && !weak {
			return sameStrong(tag, s.originTag())
		}
		return sameWeak(tag, s.originTag())
	}
	modified, ok := parseDate(view(res304.Get("Last-Modified")), s.responseTime)
	return !ok || s.lastModified.IsZero() || modified.Equal(s.lastModified)
}

// updated are stored fields after a 304 (RFC 9111 section 3.2): each field of
// the 304 replaces all stored lines of its name, but for those that describe
// the stored body.
func updated(stored, res304 field.List, date time.Time) field.List {
	describesBody := func(name string) bool {
		switch {
		case field.EqualName(name, "Content-Length"), field.EqualName(name, "Content-Encoding"), field.EqualName(name, "Content-Range"):
			return true
		}
		return false
	}
	news := endToEnd(res304.Without(describesBody))
	if !news.Has("Date") {
		news = append(news, field.Field{Name: "Date", Value: date.UTC().Format(httpDate)})
	}
	kept := stored.Without(news.Has)
	return append(kept, news...)
}

// endToEnd leaves out the fields of the connection.
func endToEnd(l field.List) field.List {
	return l.Without(func(name string) bool {
		n := view(name)
		return field.HopByHop(n) || field.ConnectionNames(l, n)
	})
}

func sameNames(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
