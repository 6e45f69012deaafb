package field

// A Refusal says why a request has no single meaning. It is an error.
type Refusal struct {
	Index  int    // among the Refusals that it is one of
	Status int    // to answer with; 0: the message is malformed, a stream error of HTTP/2 and HTTP/3
	Reason string // for a counter: a few words with hyphens
	Detail string // for people
}

// Error implements error.
func (r *Refusal) Error() string { return r.Detail }

// Refusals are those of one reader, each at its Index.
type Refusals []*Refusal

// New adds one.
func (all *Refusals) New(status int, reason, detail string) *Refusal {
	r := &Refusal{len(*all), status, reason, detail}
	*all = append(*all, r)
	return r
}
