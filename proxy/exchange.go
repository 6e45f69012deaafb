package proxy

import (
	"context"
	"io"
	"iter"
	"net/netip"
	"strings"
	"time"

	"firstbell/cache"
	"firstbell/cache/disk"
	"firstbell/proxy/field"
	"firstbell/proxy/identity"
	"firstbell/proxy/peer"
	"firstbell/proxy/spool"
)

// An exchange is one request and the way to answer it, whatever protocol it
// came by. Its bytes belong to the connection: who keeps them copies them.
// It belongs to one goroutine.
type exchange struct {
	method    string
	target    target
	authority []byte // as received
	host      []byte // lower case, no port, no trailing dot
	scheme    string // http or https
	version   string // 1.0, 1.1, 2, 3
	fields    field.Fields
	body      io.Reader       // nil when the request has none; never ends cleanly when cut off
	length    int64           // of body; -1 when it is not known
	stopBody  func()          // makes reads of body return soon, when it is not wanted any more; may be nil
	expects   bool            // the client waits for 100 before it sends body: the first read of that brings it
	remote    string          // address of the client, without port
	client    netip.Addr      // the same, once whence has found it
	ends      *peer.Header    // of the client's connection, whose From is not the client's behind a trusted proxy; nil: not known
	counted   counted         // what it holds of the allowances
	tls       secured         // what is known of its TLS connection
	leave     context.Context // ends when the client gives the request up; nil where the protocol does not say
	arrived   time.Time

	trailer   func() field.List // of body, once that has returned io.EOF; nil: there is none to pass on
	webSocket webSocketAsk      // whether it asks for a WebSocket

	takesTrailers bool // the client takes trailer fields behind the content of its answer

	out responder

	route  *Route
	asker  identity.Request // what the route's verifier looks at
	person *identity.Person // who asks, where the route wants to know; else nil
	asked  askedFields      // the request as the cache sees it
	note   note             // what Cache-Status will say

	elsewhere string // the Alt-Svc field for its client, over HTTP/2; "": none

	request cache.Request // what the cache is asked; set by ask
	relayed *relay        // informational responses on their way here, or nil
	whole   bool          // it asks for a part, and its origin has only the whole

	// What it holds until its answer is over; letGo gives it back.
	passage *passage     // nil: none
	content *spool.Spool // the request's; nil: it is not taken in
	taking  bool         // takeIn is to be called again when more of it has come, with passed
	passed  outcome
	large   *disk.Record // the body of the stored response that answers; nil: it is not on disk
	waited  bool         // somebody waits for the responder's return, and does something then

	// Told to the access log and the counters.
	status   int
	sent     int64
	received int64    // of a WebSocket
	lived    *liveOne // the place that it had among the live; nil: none
	saved    int64    // bytes that sent is less by, as a variant made here was sent
	outcome  outcome
	stripe   uint32 // which counters to use

	scratch [2][]byte // kept between exchanges: host, and cache key or content
}

// responder is what a protocol can do with an answer. Exactly one of its
// methods but inform is called for an exchange, once, and nothing is done behind
// that but by who called serve: stream may return before the answer is over.
type responder interface {
	// inform passes an informational response on at once, where the client's
	// protocol has them. It is called before the others, never at the same time.
	inform(status int, fields field.List)
	// stored answers with a stored response. The note is written behind its
	// fields. Nothing is copied of the body.
	stored(x *exchange, s *cache.Stored)
	// send answers with fields of our own, or of a stored response, which hold
	// nothing of another connection, and a small body, which it copies.
	send(x *exchange, status int, fields field.List, body []byte)
	// stream answers with a body that comes as it comes; length is -1 when it
	// is not known. The source is closed in any case. When it ends with
	// anything but io.EOF, or not at length, the client sees a broken answer.
	stream(x *exchange, status int, fields field.List, length int64, body source)
}

// waiter is a responder whose goroutine has other things to do as well: before
// an exchange waits for anything but its client, it says so.
type waiter interface{ aside() }

// mayWait says that what follows may take its time.
func (x *exchange) mayWait() {
	if w, ok := x.out.(waiter); ok {
		w.aside()
	}
}

// MayWait is mayWait, for verifiers.
func (x *exchange) MayWait() { x.mayWait() }

// postponer is a responder whose exchange may be answered when its goroutine has
// gone on to others.
type postponer interface {
	// postpones reports whether that may be now.
	postpones() bool
	// postpone has a answer the exchange once ready is called, which may have
	// been already. Who has called it touches the exchange no more.
	postpone(a answerer)
	// ready may be called by anybody, once, for an exchange that is postponed or
	// about to be. It does not wait.
	ready()
}

// answerer answers an exchange that was postponed.
type answerer interface{ answer() }

// watcher is a responder that can look whether the client is still there.
type watcher interface {
	// watch calls gone once the client has left, unless stop was called before;
	// when that returns, gone is not called any more. Nothing reads the request's
	// content meanwhile.
	watch(gone func()) (stop func())
}

// source hands a body out piece by piece.
type source interface {
	// Next returns the bytes that follow, valid until the next call, waiting
	// until there are some; io.EOF at the clean end.
	Next() ([]byte, error)
	Close()
}

// trailed is a source behind which trailer fields may come (RFC 9110 section
// 6.5). They go to clients that take them, and are never merged into fields.
type trailed interface {
	// Announced is the Trailer field that tells of them beforehand, or "".
	Announced() string
	// Trailer returns them once Next has returned io.EOF, less what must not
	// stand in a trailer section.
	Trailer() field.List
}

// eager is a source that knows whether its next bytes are there already: the
// head of the answer then goes out together with them.
type eager interface {
	Ready() bool
}

// resting is a source that can be left alone while its client is waited for.
type resting interface {
	// Rest says that what Next returned last was sent: the source holds no
	// buffer until it is asked for more.
	Rest()
	// Most bounds what Next returns to what the client takes, which is not 0.
	Most(n int)
}

// reset makes the exchange ready for the next request. Nothing may refer to
// the last one any more.
func (x *exchange) reset() {
	scratch, stripe := x.scratch, x.stripe
	*x = exchange{stripe: stripe}
	x.scratch = [2][]byte{scratch[0][:0], scratch[1][:0]}
}

// letGo gives back what the exchange held. Its answer is over.
func (x *exchange) letGo() {
	if x.content != nil {
		x.content.Close()
		x.content = nil
	}
	if x.large != nil {
		x.large.Release()
		x.large = nil
	}
	if x.passage != nil {
		x.passage.end()
		x.passage = nil
	}
}

// left reports whether the client is known to have given the request up.
func (x *exchange) left() bool { return x.leave != nil && x.leave.Err() != nil }

// lasting is a context for what x alone waits for: it ends with the parent, or
// when the client gives the request up.
func (x *exchange) lasting(parent context.Context) (context.Context, context.CancelFunc) {
	if x.leave == nil {
		return parent, func() {}
	}
	ctx, cancel := context.WithCancel(parent)
	stop := context.AfterFunc(x.leave, cancel)
	return ctx, func() { stop(); cancel() }
}

// askedFields are the fields that decide which stored response answers, as the
// origin is sent them: the client's, but with the Accept-Encoding and the
// forwarding fields that are firstbell's own, so that nobody is given what was
// made for the address that they only claim, and on an anonymous route without
// what tells students apart.
type askedFields struct {
	field.Fields
	x         *exchange
	coding    []byte // our own Accept-Encoding; empty: none
	anonymous bool
	identity  *Identity // of the route; nil: none
	one       [1][]byte // PeekAll's answer for what is overridden
}

// PeekAll returns the value of every line with the name, valid until the next
// call.
func (a *askedFields) PeekAll(name string) [][]byte {
	if v, mine := a.override(name); mine {
		if len(v) == 0 {
			return nil
		}
		a.one[0] = v
		return a.one[:]
	}
	if all, ok := a.Fields.(interface{ PeekAll(string) [][]byte }); ok {
		return all.PeekAll(name)
	}
	var lines [][]byte
	for n, v := range a.Fields.All() {
		if field.EqualName(n, name) {
			lines = append(lines, v)
		}
	}
	return lines
}

// Peek implements field.Fields.
func (a *askedFields) Peek(name string) []byte {
	if v, mine := a.override(name); mine {
		return v
	}
	return a.Fields.Peek(name)
}

func (a *askedFields) override(name string) (value []byte, mine bool) {
	switch len(name) {
	case len("Accept-Encoding"):
		if strings.EqualFold(name, "Accept-Encoding") {
			return a.coding, true
		}
	}
	if ours([]byte(name)) {
		return a.x.forwarding(name), true
	}
	if a.anonymous {
		return nil, a.identity.carries(name) || personal(name)
	}
	// Whatever field the credential stands in, what comes for it is shared only
	// as what came for an Authorization field is (RFC 9111 section 3.5).
	if strings.EqualFold(name, "Authorization") && a.invents() {
		return []byte{}, true
	}
	return nil, false
}

// invents reports whether the cache is shown an Authorization field that the
// client did not send.
func (a *askedFields) invents() bool {
	return a.identity != nil && !a.anonymous && a.Fields.Peek("Authorization") == nil
}

// personal reports whether a field tells one student from another.
func personal(name string) bool {
	return strings.EqualFold(name, "Cookie") || strings.EqualFold(name, "Authorization")
}

// All implements field.Fields.
func (a *askedFields) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		if len(a.coding) > 0 && !yield([]byte("Accept-Encoding"), a.coding) {
			return
		}
		for n, v := range a.Fields.All() {
			if _, mine := a.override(string(n)); mine {
				continue
			}
			if !yield(n, v) {
				return
			}
		}
		if a.invents() {
			yield([]byte("Authorization"), nil)
		}
	}
}
