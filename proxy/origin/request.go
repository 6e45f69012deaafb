package origin

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/peer"
)

// inlineBytesMax is the longest content of known length that is read whole
// before a connection is taken, and sent in one piece with the head: a form or
// a check-in that trickles in holds no connection.
const inlineBytesMax = 16 << 10

// Request is what Do sends.
type Request struct {
	// For says who asks, where the origin wants to be told in front
	// (Config.Preface); the zero value: nobody but firstbell.
	For    peer.Header
	Method string
	// Target is the request target in origin-form (or "*"), sent byte for byte.
	Target string
	Host   string
	// Fields are the end-to-end fields. Host, framing and connection fields in
	// it are left out: those are written here.
	Fields field.List
	// Body is the content, nil or not read if ContentLength is 0. Nobody reads
	// it any more once Do returned an error or the response's Body.Close has
	// returned; until then another goroutine may. Its reads need a time limit of
	// their own.
	Body io.Reader
	// ContentLength is the length of Body, of which no more is read; -1 means
	// unknown, and each Read is sent at once as a chunk.
	ContentLength int64
	// WebSocket asks the server to switch protocols. Fields hold the handshake of
	// RFC 6455 but for Upgrade and Connection, which are written here. A 101 that
	// does not answer it is an ErrMalformed.
	WebSocket bool
	// Header and Idle take the place of the pool's Timeouts of those names, where
	// they are not 0.
	Header, Idle time.Duration
	// Expect has the server asked before content is sent (RFC 9110 section
	// 10.1.1): it is sent once the server said 100, or nothing for a second, and
	// not at all when the final response came first.
	Expect bool
	// TakesTrailers tells the server that trailer fields are wanted.
	TakesTrailers bool
	// Trailer is asked after Body's io.EOF when ContentLength is -1; may be nil.
	// Fields forbidden or invalid in a trailer section are left out.
	Trailer func() field.List
	// StopBody, if not nil, is called at most once, when the rest of Body is not
	// wanted (the final response came first, or the exchange failed). A pending
	// Read of Body must return soon after it.
	StopBody func()
	// OnInformational is called, within Do, for every 1xx response but 100; may
	// be nil.
	OnInformational func(status int, fields field.List)
	// Lasting says that Do's context is that of many exchanges, and ends when all
	// are to end: connections are bound to it once.
	Lasting bool
	// Room is where the response is made, its fields and strings with it: none of
	// it is to be used any more once Room is given to another request. That may be
	// done when Do has returned an error, or Body.Close has returned. It holds as
	// much as the largest head before. nil: in memory of its own.
	Room *Room
}

func (r *Request) hasContent() bool { return r.Body != nil && r.ContentLength != 0 }

// repeatable reports whether sending the request twice is the same as sending
// it once (RFC 9110 section 9.2.2) and whether there is nothing to send again
// but the head.
func (r *Request) repeatable() bool {
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return !r.hasContent()
	}
	return false
}

// appendHead checks the request and appends its head. What could be read as
// another message is refused.
func (r *Request) appendHead(b []byte) ([]byte, error) {
	switch {
	case !validName(r.Method) || r.Method == "CONNECT":
		return b, fmt.Errorf("method %q", clip(r.Method))
	case r.Target == "" || r.Target[0] != '/' && r.Target != "*" || !validTarget(r.Target):
		return b, fmt.Errorf("target %q", clip(r.Target))
	case !validHost(r.Host):
		return b, fmt.Errorf("host %q", clip(r.Host))
	case r.ContentLength < -1:
		return b, fmt.Errorf("content length %d", r.ContentLength)
	case r.WebSocket && (r.Method != "GET" || r.hasContent()):
		return b, fmt.Errorf("a WebSocket handshake with method %s, or with content", r.Method)
	case r.ContentLength > 0 && r.Body == nil:
		return b, fmt.Errorf("content length %d without content", r.ContentLength)
	}
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Host...)
	b = append(b, "\r\n"...)
	for i := range r.Fields {
		f := &r.Fields[i]
		if !validName(f.Name) || !validValue(f.Value) {
			return b, fmt.Errorf("field %q, or its value", clip(f.Name)) // the value may be a secret
		}
		if !isWrittenHere(f.Name) {
			b = appendField(b, f.Name, f.Value)
		}
	}
	switch {
	case r.hasContent() && r.ContentLength < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case r.hasContent() || r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH":
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, max(r.ContentLength, 0), 10)
		b = append(b, "\r\n"...)
	}
	if r.expects() {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	switch {
	case r.WebSocket:
		b = append(b, "Upgrade: websocket\r\nConnection: Upgrade\r\n"...)
	case r.TakesTrailers:
		b = append(b, "TE: trailers\r\nConnection: TE\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

func (r *Request) expects() bool { return r.Expect && r.hasContent() }

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// isWrittenHere reports whether a field is this package's to write.
func isWrittenHere(name string) bool {
	switch len(name) {
	case len("Host"):
		return strings.EqualFold(name, "Host")
	case len("Expect"):
		return strings.EqualFold(name, "Expect")
	case len("Content-Length"):
		return strings.EqualFold(name, "Content-Length")
	}
	return field.HopByHopName(name)
}

// takeInline appends content short enough to go out with the head.
func (r *Request) takeInline(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, make([]byte, r.ContentLength)...)
	_, err := io.ReadFull(r.Body, b[start:])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}
