package head

import "firstbell/proxy/field"

var all field.Refusals

// The refusals. Each is one counter.
var (
	refusePseudoOrder   = all.New(0, "pseudo-order", "a pseudo-field comes behind a field")
	refusePseudoTwice   = all.New(0, "pseudo-twice", "a pseudo-field is there twice")
	refusePseudoUnknown = all.New(0, "pseudo-unknown", "a pseudo-field is none of a request")
	refusePseudoMissing = all.New(0, "pseudo-missing", "a pseudo-field that every request has is missing")
	refuseMethod        = all.New(0, "method", "the method is not a name")
	refusePath          = all.New(0, "path", "the path is empty, or begins with no slash")
	refuseAuthority     = all.New(0, "authority", "the authority is missing, empty, or names a user")
	refuseHost          = all.New(0, "host", "the Host field does not name the authority that :authority names")
	refuseName          = all.New(0, "field-name", "a field's name is empty, has an upper-case letter or another character that no name has")
	refuseValue         = all.New(0, "field-value", "a field's value holds a control character, or begins or ends with a blank")
	refuseConnection    = all.New(0, "connection-field", "a field is one of a connection of HTTP/1.1")
	refuseLength        = all.New(0, "content-length", "the request must have at most one Content-Length, of digits only")
	refuseTrailer       = all.New(0, "trailer", "the trailer section holds a pseudo-field")
	refuseExpect        = all.New(417, "expectation", "the only expectation met here is 100-continue")
	refuseFields        = all.New(431, "fields", "the request has too many fields")

	// RefuseSize is for a field section that is larger than BytesMax, which its
	// reader may know before it is decoded.
	RefuseSize = all.New(431, "head-size", "the request's head is too large")
	// RefuseTime is for a field section that does not end within its time.
	RefuseTime = all.New(408, "head-time", "the request did not arrive in time")
	// RefuseContent is for content that is longer or shorter than the length
	// announced.
	RefuseContent = all.New(0, "content", "the content is not as long as its Content-Length says")
)

// Refusals returns every refusal there is, each at its Index. All are
// *field.Refusal.
func Refusals() field.Refusals { return all }
