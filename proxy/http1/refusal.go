package http1

// A Refusal says why a request has no single meaning. It is an error.
type Refusal struct {
	Index  int    // among Refusals
	Status int    // to answer with
	Reason string // for a counter: a few words with hyphens
	Detail string // for people
}

// Error implements error.
func (r *Refusal) Error() string { return r.Detail }

// The refusals. Each is one counter.
var (
	refuseStartLine = refusal(400, "start-line", "the request line is not \"method target HTTP/1.1\"")
	refuseMethod    = refusal(400, "method", "the method is not a name")
	refuseTarget    = refusal(400, "target", "the request target holds a character that must be percent-encoded")
	refuseVersion   = refusal(505, "version", "only HTTP/1.0 and HTTP/1.1 are spoken here")
	refuseLineEnd   = refusal(400, "line-end", "a line of the request's head does not end in CRLF")
	refuseFold      = refusal(400, "folded-line", "a field line is folded; write it in one line")
	refuseName      = refusal(400, "field-name", "a field's name holds a space or another character that no name has")
	refuseValue     = refusal(400, "field-value", "a field's value holds a control character")
	refuseFields    = refusal(431, "fields", "the request has too many fields")
	refuseHost      = refusal(400, "host", "the request must have exactly one Host field")
	refuseLength    = refusal(400, "content-length", "the request must have at most one Content-Length, of digits only")
	refuseBoth      = refusal(400, "length-and-coding", "the request has both a Content-Length and a Transfer-Encoding")
	refuseCoding    = refusal(501, "transfer-coding", "the only transfer coding taken here is one chunked, in HTTP/1.1")
	refuseExpect    = refusal(417, "expectation", "the only expectation met here is 100-continue")
	refuseChunk     = refusal(400, "chunk", "the content's chunks are malformed")
	refuseTrailer   = refusal(400, "trailer", "the trailer section is malformed or too large")

	// RefuseSize is for whoever reads a head that does not end within its
	// bound.
	RefuseSize = refusal(431, "head-size", "the request's head is too large")
	// RefuseTime is for a head that does not end within its time.
	RefuseTime = refusal(408, "head-time", "the request did not arrive in time")
)

// all are the refusals there are, each at its Index.
var all []*Refusal

// Refusals returns every refusal there is, each at its Index.
func Refusals() []*Refusal { return all }

func refusal(status int, reason, detail string) *Refusal {
	r := &Refusal{len(all), status, reason, detail}
	all = append(all, r)
	return r
}
