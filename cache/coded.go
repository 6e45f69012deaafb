package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"iter"
	"slices"
	"strings"

	"firstbell/proxy/field"
)

// A stored response may have its content in other codings too: variants that
// were made from it, each a Stored of its own with its own fields and entity
// tag. They are reached through it alone, share its verdict and age, are
// accounted with it and gone with it.

// codedSet is never changed; a variant more makes a new one.
type codedSet struct {
	in   [Codings]*Stored
	left [Codings]bool // tried, and not worth keeping
}

// Coding is the coding of s's own content.
func (s *Stored) Coding() Coding { return s.coding }

// In returns the variant of s in the coding, which may be s itself, or nil.
func (s *Stored) In(c Coding) *Stored {
	if c == s.coding {
		return s
	}
	if set := s.coded.Load(); set != nil && c < OtherCoding {
		return set.in[c]
	}
	return nil
}

// Select returns the variant of s that suits best: of the highest weight, and
// the smallest among equals. It returns nil when there is none that the client
// takes.
func (s *Stored) Select(a *Accepts) *Stored {
	if s.coding == OtherCoding {
		return s // nobody here can tell
	}
	var best *Stored
	most := uint16(0)
	if w := a.weights[s.coding]; w > 0 {
		best, most = s, w
	}
	set := s.coded.Load()
	if set == nil {
		return best
	}
	for c, v := range set.in {
		if w := a.weights[c]; v != nil && w > 0 && (w > most || w == most && v.Length() < best.Length()) {
			best, most = v, w
		}
	}
	return best
}

// wishesMade is how often a variant is wished for before it is made: content
// that is asked for once is not worth it.
const wishesMade = 2

// Wish notes that a client would have been served better by the variant of s
// in the coding. It returns true to the one whose wish is enough for making
// it; then, and while it is there or not worth keeping, it only reads.
func (s *Stored) Wish(c Coding) bool {
	w := &s.wishes[c]
	return w.Load() < wishesMade && w.Add(1) == wishesMade
}

// Unwish takes back that somebody makes the variant: later wishes count anew.
func (s *Stored) Unwish(c Coding) { s.wishes[c].Store(0) }

// KeepCoded keeps body as the variant of s in the coding: the same content,
// which nobody changes afterwards. It reports false, and keeps nothing, when s
// is not in the cache any more, or too large together with its variants.
func (c *Cache) KeepCoded(s *Stored, to Coding, body []byte) bool {
	v := s.variantIn(to, body)
	if v == nil || !c.memory.keepCoded(s, to, v) {
		c.LeaveCoded(s, to)
		return false
	}
	return true
}

// LeaveCoded notes that the variant of s in the coding is not worth keeping.
func (c *Cache) LeaveCoded(s *Stored, to Coding) {
	for {
		old := s.coded.Load()
		set := old.with()
		set.left[to] = true
		if s.coded.CompareAndSwap(old, set) {
			return
		}
	}
}

// with is a copy that may be changed.
func (set *codedSet) with() *codedSet {
	if set == nil {
		return new(codedSet)
	}
	again := *set
	return &again
}

// Holds reports whether the cache holds s itself, and not one that took its
// place.
func (c *Cache) Holds(s *Stored) bool {
	e := c.memory.index.get(c.memory.index.hash(view(s.key)))
	return e != nil && e.key == s.key && slices.Contains(e.variants, s)
}

// keepCoded adds v to s and accounts for it, if s is still in the index.
func (m *memory) keepCoded(s *Stored, to Coding, v *Stored) bool {
	hash := m.index.hash(view(s.key))
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.index.get(hash)
	if e == nil || e.key != s.key || !slices.Contains(e.variants, s) || e.size+v.size > m.largest() {
		return false
	}
	for {
		old := s.coded.Load()
		if old != nil && old.in[to] != nil {
			return true
		}
		set := old.with()
		set.in[to] = v
		if s.coded.CompareAndSwap(old, set) {
			break
		}
	}
	s.codedBytes += v.size
	m.replaceLocked(e, newEntry(hash, e.variants...))
	return true
}

// total is what s is accounted with, its variants included. It is called under
// memory.mu, or before s is known to anybody else.
func (s *Stored) total() int64 { return s.size + s.codedBytes }

// variantIn makes the variant of s with the body, or returns nil where the
// coding of s must stay.
func (s *Stored) variantIn(to Coding, body []byte) *Stored {
	if to == s.coding || s.coding == OtherCoding || Untouchable(s.Fields) {
		return nil
	}
	v := &Stored{
		Status: s.Status, Fields: CodedFields(s.Fields, to), Body: body, Verdict: s.Verdict,
		key: s.key, variant: s.variant, responseTime: s.responseTime, generated: s.generated,
	}
	v.measure(0) // it shares most of its text with s
	return v
}

// CodedFields are the fields of a response whose content is sent in another
// coding than it came in: Content-Encoding and what depends on it (RFC 9110
// section 8.8.3.3: another coding has another entity tag).
func CodedFields(fields field.List, to Coding) field.List {
	kept := make(field.List, 0, len(fields)+2)
	varies := false
	for _, f := range fields {
		switch {
		case field.EqualName(f.Name, "Content-Encoding"), field.EqualName(f.Name, "Content-Length"):
			continue
		case field.EqualName(f.Name, "ETag"):
			f.Value = CodedTag(f.Value, to)
		case field.EqualName(f.Name, "Vary"):
			varies = varies || listsCoding(f.Value)
		}
		kept = append(kept, f)
	}
	if to != Identity {
		kept = append(kept, field.Field{Name: "Content-Encoding", Value: to.String()})
	}
	if !varies {
		kept = append(kept, field.Field{Name: "Vary", Value: "Accept-Encoding"})
	}
	return kept
}

// VariesByCoding reports whether a response says that it depends on
// Accept-Encoding.
func VariesByCoding(fields field.List) bool {
	for _, f := range fields {
		if field.EqualName(f.Name, "Vary") && listsCoding(f.Value) {
			return true
		}
	}
	return false
}

func listsCoding(vary string) bool {
	for m := range strings.SplitSeq(vary, ",") {
		if m = strings.Trim(m, " \t"); m == "*" || field.EqualName(m, "Accept-Encoding") {
			return true
		}
	}
	return false
}

// tagMark stands before the coding's name at the end of an entity tag that
// firstbell derived, and at the beginning of one that it generated. Servers
// that write codings into tags use other signs, so ours are never theirs.
const tagMark = '~'

// StrongTag reports whether value is the strong entity tag of s itself (RFC
// 9110 section 8.8.3.2): it names the very bytes of its content.
func (s *Stored) StrongTag(value []byte) bool { return sameStrong(value, s.etag) }

// CodedTag is the entity tag of the same content in another coding: "abc" in
// zstd is "abc~zstd". What is no entity tag stays as it is.
func CodedTag(tag string, to Coding) string {
	if _, _, ok := parseETag(view(tag)); !ok {
		return tag
	}
	tag = strings.Trim(tag, " \t")
	return tag[:len(tag)-1] + string(tagMark) + to.String() + `"`
}

// splitTag takes what CodedTag added off the opaque part of an entity tag. coded
// is false where there is nothing of that kind.
func splitTag(opaque []byte) (base []byte, c Coding, coded bool) {
	inner := opaque[:len(opaque)-1]
	i := bytes.LastIndexByte(inner, tagMark)
	if i < 1 {
		return opaque, Identity, false
	}
	for c := Identity; c < OtherCoding; c++ {
		if string(inner[i+1:]) == codingNames[c] {
			return append(inner[:i:i], '"'), c, true
		}
	}
	return opaque, Identity, false
}

// generateTag gives s a strong entity tag where its origin gave none: the
// content, its type and its coding name it, so it is the same after the same
// content was fetched again, and at another firstbell. It is never sent to the
// origin.
func (s *Stored) generateTag() {
	if s.Body == nil {
		return
	}
	if h := s.digester(); h != nil {
		h.Write(s.Body)
		s.tagBy(h)
	}
}

// digester takes the content that an entity tag is to be generated of. It is
// nil where none is needed.
func (s *Stored) digester() hash.Hash {
	if s.Status != 200 || s.Fields.Has("ETag") {
		return nil
	}
	h := sha256.New()
	for _, name := range [...]string{"Content-Type", "Content-Encoding", "Content-Language"} {
		h.Write(view(s.Fields.Get(name)))
		h.Write([]byte{0})
	}
	return h
}

// tagBy gives s the entity tag of the content that h has taken. s is not known
// to anybody else yet; its fields may be.
func (s *Stored) tagBy(h hash.Hash) {
	var sum [sha256.Size]byte
	// 120 bits: nobody meets the same tag twice, and 20 characters travel.
	name := base64.RawURLEncoding.EncodeToString(h.Sum(sum[:0])[:15])
	s.Fields = append(s.Fields[:len(s.Fields):len(s.Fields)], field.Field{Name: "ETag", Value: `"` + string(tagMark) + name + `"`})
	s.generated = true
}

// OriginTags is a list of entity tags, from an If-Match, If-None-Match or
// If-Range, as the origin knows them: what CodedTag added is taken off, and
// tags that firstbell generated are left out. changed tells whether that is
// another list, which is empty where nothing was left.
func OriginTags(list []byte) (own []byte, changed bool) {
	for tag, at := range tags(list) {
		base, _, coded := splitTag(tag)
		switch {
		case base[1] == tagMark:
			changed = true
			continue
		case coded:
			changed = true
		}
		if len(own) > 0 {
			own = append(own, ", "...)
		}
		own = append(append(own, list[at:][:weakness(list[at:])]...), base...)
	}
	if !changed {
		return list, false
	}
	return own, true
}

// ClientTag is the entity tag of a client's list that stands for the origin's
// tag: the same content, in the coding that the client has. Without one it is
// etag itself.
func ClientTag(list []byte, etag string) string {
	own, _, ok := parseETag(view(etag))
	if !ok {
		return etag
	}
	found := etag
	for tag, at := range tags(list) {
		if bytes.Equal(tag, own) {
			return etag
		}
		if base, _, coded := splitTag(tag); coded && bytes.Equal(base, own) {
			found = string(list[at:][:weakness(list[at:])]) + string(tag)
		}
	}
	return found
}

// weakness is the length of the W/ that b begins with, or 0.
func weakness(b []byte) int {
	if len(b) > 1 && b[0] == 'W' {
		return 2
	}
	return 0
}

// tags yields the opaque part of every entity tag in a list and where the tag
// begins, up to what is none.
func tags(list []byte) iter.Seq2[[]byte, int] {
	return func(yield func([]byte, int) bool) {
		for rest := bytes.TrimLeft(list, " \t,"); len(rest) > 0; rest = bytes.TrimLeft(rest, " \t,") {
			at := len(list) - len(rest)
			opaque, _, more, ok := cutETag(rest)
			if !ok || !yield(opaque, at) {
				return
			}
			rest = more
		}
	}
}

// adopt gives s the variants of old, whose content is the same, with fields of
// its own. s is not known to anybody else yet.
func (s *Stored) adopt(old *Stored) {
	set := old.coded.Load()
	if set == nil || s.coding != old.coding {
		return
	}
	mine := &codedSet{left: set.left}
	for c, v := range set.in {
		if v == nil {
			continue
		}
		if mine.in[c] = s.variantIn(Coding(c), v.Body); mine.in[c] != nil {
			s.codedBytes += mine.in[c].size
		}
	}
	for c := range s.wishes {
		if mine.in[c] != nil || mine.left[c] {
			s.wishes[c].Store(wishesMade)
		}
	}
	s.coded.Store(mine)
}

// adoptSame gives s the variants of the stored response that it is about to
// replace, where the origin sent the same bytes again.
func (c *Cache) adoptSame(s *Stored) {
	e := c.memory.index.get(c.memory.index.hash(view(s.key)))
	if e == nil || e.key != s.key {
		return
	}
	for _, old := range e.variants {
		if old.variant == s.variant && old.Status == s.Status && sameNames(old.Verdict.Vary, s.Verdict.Vary) && sameBody(old, s) {
			if s.adopt(old); s.total()+entryBytes > c.memory.largest() {
				s.codedBytes = 0
				s.coded.Store(nil)
			}
			return
		}
	}
}
