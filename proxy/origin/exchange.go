package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/websocket"
)

// informationalMax bounds the 1xx responses before the final one.
const informationalMax = 16

// Response is what Do returns. Body is never nil and must be closed.
type Response struct {
	Status int
	// Fields are the end-to-end fields, as sent and in order. Content-Length,
	// fields of one connection only, and those that Connection names are left
	// out.
	Fields field.List
	// ContentLength is the length of Body, -1 if unknown. Without a Body by
	// rule (HEAD, 304) it is the length that the origin named, or -1.
	ContentLength int64
	// Body is the content as it arrives. Only a whole message ends in io.EOF;
	// one cut short ends in io.ErrUnexpectedEOF, anything else in an *Error.
	// Close before io.EOF closes the connection. Read and Close are for one
	// goroutine at a time; cancelling Do's context interrupts both.
	Body io.ReadCloser
	// Switched is the connection, and Early what has come of the other protocol
	// with the head, once the server has switched (Status 101); nil otherwise.
	// It is the caller's from then on, without deadlines, until Body.Close.
	Switched net.Conn
	Early    []byte
	// Announced is the Trailer field, less the names that may not be in one.
	Announced string
	// Trailer returns the trailer fields, once Body has returned io.EOF, less
	// those that may not be in one (RFC 9110 section 6.5.1).
	Trailer func() field.List

	exchange *exchange
}

// Interrupt ends a Read of Body under way, and every later one, as cancelling
// Do's context would. Anybody may call it until Body.Close has returned.
func (r *Response) Interrupt() {
	if x := r.exchange; x != nil && x.state.CompareAndSwap(running, interrupted) {
		x.c.abort()
	}
}

// A Room is what an exchange lives in. Who keeps one for the next exchange
// spares it its garbage.
type Room struct {
	x exchange
	h headRoom
}

// bodyMode says what ends a response's content (RFC 9112 section 6.3).
type bodyMode uint8

const (
	bodyNone bodyMode = iota
	bodySized
	bodyChunked
	bodyUntilClose
)

// exchange is one request and its response on one connection, and the
// response's Body.
type exchange struct {
	ctx    context.Context
	p      *Pool
	c      *conn
	r      *Request
	up     *upload     // nil when the request went out in one piece
	unhook func() bool // stops watching ctx; nil when ctx cannot be done, or the connection is bound to it
	res    Response
	heads  *headRoom // where heads are parsed into; nil: into memory of their own
	state  atomic.Uint32

	mode      bodyMode
	left      int64 // bodySized: content left
	chunks    chunks
	heard     bool // a byte of a response has come
	last      bool // the connection ends with this exchange
	keepAlive time.Duration

	err error // what Read returns from now on

	header, idle time.Duration // Timeouts of this exchange
}

// The states of an exchange.
const (
	running     = iota
	interrupted // the connection has been closed, and is to be released
	released    // the connection is given back or closed
)

// roundTrip sends out, which is the request's head and perhaps its content,
// and returns at the final response's head. On an error the connection is
// closed and Body no longer read.
func (p *Pool) roundTrip(ctx context.Context, c *conn, r *Request, out []byte, inline bool) (*exchange, error) {
	x := r.room()
	x.ctx, x.p, x.c, x.r, x.header, x.idle, x.last = ctx, p, c, r, r.Header, r.Idle, p.cfg.Preface != 0
	setDefault(&x.header, p.cfg.Timeouts.Header)
	setDefault(&x.idle, p.cfg.Timeouts.Idle)
	c.attachBuf()
	switch {
	case r.Lasting:
		c.bind(ctx)
	case ctx.Done() != nil:
		x.unhook = context.AfterFunc(ctx, c.abort)
	}
	h, doing, err := x.run(out, inline)
	if err == errStale {
		c.detachBuf()
		if x.unhook != nil {
			x.unhook()
		}
		return x, err
	}
	if err != nil {
		return x, x.fail(doing, err)
	}
	x.begin(&h)
	return x, nil
}

// room returns what an exchange for r lives in.
func (r *Request) room() *exchange {
	if r.Room == nil {
		return new(exchange)
	}
	r.Room.x = exchange{heads: &r.Room.h}
	return &r.Room.x
}

// errStale says that a connection which was idle has been used up meanwhile:
// its server has closed it, or said something unasked. Nothing was sent.
var errStale = errors.New("the idle connection is of no use any more")

// run sends and waits. The string says what was being done when it failed.
func (x *exchange) run(out []byte, inline bool) (head, string, error) {
	c := x.c
	uploading := x.r.hasContent() && !inline
	if !uploading {
		c.readWithin(x.header)
	}
	if c.plain && !uploading {
		rest, err := c.ask(out)
		switch {
		case err == errStale:
			return head{}, "", err
		case err != nil && len(rest) > 0:
			return x.lastWords(err)
		case err != nil:
			return head{}, doingHead, err
		}
		out = rest
	} else if c.reused && !c.quiet() {
		return head{}, "", errStale
	}
	if len(out) > 0 {
		_ = c.nc.SetWriteDeadline(time.Now().Add(x.header)) // a closed connection shows at the write
		if _, err := c.nc.Write(out); err != nil {
			return x.lastWords(err)
		}
	}
	if uploading {
		c.lendTimer() // to upload, which sets it when all is sent
		x.up = newUpload(c, x.r, x.p.cfg.Timeouts.Send, x.header)
		go x.up.run()
	}
	h, err := x.readFinal()
	if err != nil {
		return head{}, doingHead, err
	}
	return h, "", nil
}

const (
	doingConnect = "connecting to"
	doingSend    = "sending the request to"
	doingHead    = "waiting for the response of"
	doingBody    = "reading the response of"
)

// lastWords looks for a response after sending failed with cause: a server
// that refuses a request early closes its side while we still send.
func (x *exchange) lastWords(cause error) (head, string, error) {
	if errors.Is(cause, os.ErrDeadlineExceeded) || x.ctx.Err() != nil {
		return head{}, doingSend, cause
	}
	x.c.readWithin(afterSendErrorMax)
	h, err := x.readFinal()
	if err != nil {
		return head{}, doingSend, cause
	}
	h.last = true
	return h, "", nil
}

// readFinal reads heads until the final one, passing on the others.
func (x *exchange) readFinal() (head, error) {
	cfg := &x.p.cfg
	for range informationalMax + 1 {
		h, err := x.c.readHead(x.heads, cfg.HeadBytesMax, cfg.FieldsMax)
		x.heard = x.heard || err == nil || x.c.buffered() > 0
		if err != nil {
			return h, err
		}
		if h.status == 101 && x.r.WebSocket {
			return h, x.checkSwitch(&h)
		}
		if h.status >= 200 {
			if x.up != nil {
				x.up.final()
				x.c.dueTimer()
			}
			return h, nil
		}
		if err := x.inform(&h); err != nil {
			return h, err
		}
	}
	return head{}, malformed("more than %d informational responses", informationalMax)
}

// inform handles a 1xx response and starts the time for the next head.
func (x *exchange) inform(h *head) error {
	if h.status == 101 {
		return malformed("101 Switching Protocols without having been asked")
	}
	if h.status != 100 && x.r.OnInformational != nil {
		x.r.OnInformational(h.status, h.fields)
	}
	if x.up != nil {
		if h.status == 100 {
			x.up.mayProceed()
		}
		x.up.informed()
		return nil
	}
	x.c.readWithin(x.header)
	return nil
}

// checkSwitch checks a 101 against the handshake that it is to answer.
func (x *exchange) checkSwitch(h *head) error {
	err := websocket.CheckResponse(x.r.Fields.Get("Sec-WebSocket-Key"), x.r.Fields, h.fields, h.upgrade, h.options)
	if err != nil {
		return fmt.Errorf("%w: %w", malformed("101 Switching Protocols to another handshake"), err)
	}
	return nil
}

// handOver makes the connection the caller's.
func (x *exchange) handOver() {
	c := x.c
	x.res.Switched, x.res.Early = c.nc, append([]byte(nil), (*c.buf)[c.r:c.w]...)
	c.r, c.w = 0, 0
	c.detachBuf()
	x.last, x.mode, x.err = true, bodyNone, io.EOF
	_ = c.nc.SetDeadline(time.Time{}) // fails for a closed connection only: then reading tells
}

// SetIdle changes how long Read waits for more.
func (x *exchange) SetIdle(d time.Duration) { x.idle = d }

// begin makes the response out of its head.
func (x *exchange) begin(h *head) {
	x.last = x.last || h.last
	x.keepAlive = h.keepAlive
	x.res = Response{Status: h.status, Fields: h.fields, ContentLength: h.length, Body: x, Trailer: noTrailer, exchange: x}
	if h.status == 101 {
		x.handOver()
		return
	}
	switch {
	case x.r.Method == "HEAD" || h.status == 304:
	case h.status == 204:
		x.res.ContentLength = 0
		x.last = x.last || h.chunked || h.length > 0 // who knows what follows
	case h.chunked:
		x.mode = bodyChunked
		x.res.Trailer, x.res.Announced = x.trailer, h.trailer
	case h.length < 0:
		x.mode = bodyUntilClose
		x.last = true
	case h.length > 0:
		x.mode, x.left = bodySized, h.length
	}
	if x.up != nil && !x.up.whole.Load() && (h.status >= 400 || h.last || x.up.refused()) {
		// RFC 9112 section 9.5 asks a client to stop sending to a server that
		// has refused already.
		x.last = true
		x.up.halt()
	}
	if x.mode == bodyNone {
		x.err = io.EOF
		x.release(true)
	}
}

func noTrailer() field.List { return nil }

func (x *exchange) trailer() field.List { return x.chunks.trailer }

// Read is Response.Body's.
func (x *exchange) Read(p []byte) (n int, err error) {
	if x.err != nil || len(p) == 0 {
		return 0, x.err
	}
	idle := x.idle
	switch x.mode {
	case bodySized:
		n, err = x.c.read(p[:min(int64(len(p)), x.left)], idle)
		if x.left -= int64(n); x.left == 0 {
			err = io.EOF
		} else if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	case bodyChunked:
		n, err = x.readChunked(p, idle)
	case bodyUntilClose:
		n, err = x.c.read(p, idle)
	}
	if err != nil {
		x.err = x.end(err)
	}
	return n, x.err
}

// Ready reports whether Read has content without waiting for the server.
func (x *exchange) Ready() bool {
	if x.err != nil || x.c.buffered() == 0 {
		return false
	}
	return x.mode != bodyChunked || x.chunks.ready((*x.c.buf)[x.c.r:x.c.w])
}

// readChunked tells the end of the message from the end of the connection.
func (x *exchange) readChunked(p []byte, idle time.Duration) (int, error) {
	limits := trailerLimits{x.p.cfg.HeadBytesMax, x.p.cfg.FieldsMax}
	n, whole, err := x.chunks.read(x.c, p, idle, limits)
	switch {
	case whole:
		return n, io.EOF
	case err == io.EOF:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// end gives the connection back after io.EOF, closes it after anything else,
// and returns what Read is to say.
func (x *exchange) end(err error) error {
	if err == io.EOF {
		x.release(true)
		return err
	}
	kind := kindOf(x.ctx, err)
	if x.state.Load() == interrupted {
		kind = context.Canceled
	}
	x.release(false)
	x.c.srv.countFailure(kind)
	if kind == ErrCut {
		return io.ErrUnexpectedEOF
	}
	return &Error{Doing: doingBody, Server: x.c.srv.addr, Kind: kind, Err: err, MayHaveReached: true}
}

// Close is Response.Body's.
func (x *exchange) Close() error {
	x.release(false)
	if x.err == nil {
		x.err = ErrClosed
	}
	if x.up != nil {
		<-x.up.done
	}
	return nil
}

// fail ends an exchange that has no response, and returns why as an *Error.
func (x *exchange) fail(doing string, err error) error {
	kind := kindOf(x.ctx, err)
	x.release(false)
	if x.up != nil {
		<-x.up.done
		bodyErr, sendErr := x.up.errs()
		switch {
		case x.ctx.Err() != nil || kind == ErrMalformed:
		case bodyErr != nil:
			doing, kind, err = doingSend, ErrRequestBody, bodyErr
		case sendErr != nil:
			doing, kind, err = doingSend, kindOf(x.ctx, sendErr), sendErr
		}
	}
	x.c.srv.countFailure(kind)
	return &Error{Doing: doing, Server: x.c.srv.addr, Kind: kind, Err: err, MayHaveReached: true}
}

// release gives the connection back if the exchange is complete and another
// may follow, and closes it otherwise. Only the first call counts.
func (x *exchange) release(complete bool) {
	was := x.state.Swap(released)
	if was == released {
		return
	}
	complete = complete && was == running
	if x.up != nil {
		complete = x.settleUpload(complete)
	}
	if x.unhook != nil && !x.unhook() || x.r.Lasting && x.ctx.Err() != nil {
		complete = false // ctx is done: the connection is being closed
	}
	c := x.c
	again := complete && !x.last && c.buffered() == 0
	c.detachBuf()
	c.srv.inFlight.Add(-1)
	if again {
		c.srv.put(c, x.keepAlive)
		return
	}
	c.end()
}

// settleUpload waits for the end of a request that the server has whole, stops
// any other, and reports whether the connection is clean behind it.
func (x *exchange) settleUpload(complete bool) bool {
	if !complete || !x.up.whole.Load() {
		x.up.halt()
		return false
	}
	<-x.up.done // within Timeouts.Send
	bodyErr, sendErr := x.up.errs()
	return bodyErr == nil && sendErr == nil
}
