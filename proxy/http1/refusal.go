package http1

import "firstbell/proxy/field"

var all field.Refusals

// The refusals. Each is one counter.
var (
	refuseStartLine = all.New(400, "start-line", "the request line is not \"method target HTTP/1.1\"")
	refuseMethod    = all.New(400, "method", "the method is not a name")
	refuseTarget    = all.New(400, "target", "the request target holds a character that must be percent-encoded")
	refuseVersion   = all.New(505, "version", "only HTTP/1.0 and HTTP/1.1 are spoken here")
	refuseLineEnd   = all.New(400, "line-end", "a line of the request's head does not end in CRLF")
	refuseFold      = all.New(400, "folded-line", "a field line is folded; write it in one line")
	refuseName      = all.New(400, "field-name", "a field's name holds a space or another character that no name has")
	refuseValue     = all.New(400, "field-value", "a field's value holds a control character")
	refuseFields    = all.New(431, "fields", "the request has too many fields")
	refuseHost      = all.New(400, "host", "the request must have exactly one Host field")
	refuseLength    = all.New(400, "content-length", "the request must have at most one Content-Length, of digits only")
	refuseBoth      = all.New(400, "length-and-coding", "the request has both a Content-Length and a Transfer-Encoding")
	refuseCoding    = all.New(501, "transfer-coding", "the only transfer coding taken here is one chunked, in HTTP/1.1")
	refuseExpect    = all.New(417, "expectation", "the only expectation met here is 100-continue")
	refuseChunk     = all.New(400, "chunk", "the content's chunks are malformed")
	refuseTrailer   = all.New(400, "trailer", "the trailer section is malformed or too large")

	// RefuseSize is for whoever reads a head that does not end within its
	// bound.
	RefuseSize = all.New(431, "head-size", "the request's head is too large")
	// RefuseTime is for a head that does not end within its time.
	RefuseTime = all.New(408, "head-time", "the request did not arrive in time")
)

// Refusals returns every refusal there is, each at its Index. All are
// *field.Refusal.
func Refusals() field.Refusals { return all }
