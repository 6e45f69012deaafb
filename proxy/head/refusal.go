package head

// A Refusal says why a field section has no single meaning. It is an error.
type Refusal struct {
	Index  int    // among Refusals
	Status int    // to answer with; 0: the message is malformed, a stream error
	Reason string // for a counter: a few words with hyphens
	Detail string // for people
}

// Error implements error.
func (r *Refusal) Error() string { return r.Detail }

// The refusals. Each is one counter.
var (
	refusePseudoOrder   = refusal(0, "pseudo-order", "a pseudo-field comes behind a field")
	refusePseudoTwice   = refusal(0, "pseudo-twice", "a pseudo-field is there twice")
	refusePseudoUnknown = refusal(0, "pseudo-unknown", "a pseudo-field is none of a request")
	refusePseudoMissing = refusal(0, "pseudo-missing", "a pseudo-field that every request has is missing")
	refuseMethod        = refusal(0, "method", "the method is not a name")
	refusePath          = refusal(0, "path", "the path is empty, or begins with no slash")
	refuseAuthority     = refusal(0, "authority", "the authority is missing, empty, or names a user")
	refuseHost          = refusal(0, "host", "the Host field does not name the authority that :authority names")
	refuseName          = refusal(0, "field-name", "a field's name is empty, has an upper-case letter or another character that no name has")
	refuseValue         = refusal(0, "field-value", "a field's value holds a control character, or begins or ends with a blank")
	refuseConnection    = refusal(0, "connection-field", "a field is one of a connection of HTTP/1.1")
	refuseLength        = refusal(0, "content-length", "the request must have at most one Content-Length, of digits only")
	refuseTrailer       = refusal(0, "trailer", "the trailer section holds a pseudo-field")
	refuseExpect        = refusal(417, "expectation", "the only expectation met here is 100-continue")
	refuseFields        = refusal(431, "fields", "the request has too many fields")

	// RefuseSize is for a field section that is larger than BytesMax, which its
	// reader may know before it is decoded.
	RefuseSize = refusal(431, "head-size", "the request's head is too large")
	// RefuseTime is for a field section that does not end within its time.
	RefuseTime = refusal(408, "head-time", "the request did not arrive in time")
	// RefuseContent is for content that is longer or shorter than the length
	// announced.
	RefuseContent = refusal(0, "content", "the content is not as long as its Content-Length says")
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
