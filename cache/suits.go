package cache

// Suits reports whether s may answer r, its freshness apart: the selecting
// fields match (RFC 9111 section 4.1), and s may answer whoever r says is
// asking. It is what Lookup asks of a stored response, for those who wait for
// one that is still under way.
func (s *Stored) Suits(r *Request, p *Policy) bool {
	return s.Verdict.MayAnswer(r, p) && s.variant == string(VariantKey(nil, s.Verdict.Vary, r.Fields))
}
