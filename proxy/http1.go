package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"firstbell/cache"
	"firstbell/proxy/field"
)

// This file is the only one that knows fasthttp's RequestCtx: it fills an
// exchange from one and answers an exchange with one.

const (
	headBytesMax = 16 << 10         // request line and fields; a school's cookies reach 6 kB
	headTimeMax  = 10 * time.Second // for the rest of a head that did not come at once
	idleTimeMax  = 75 * time.Second // between two requests of a connection
)

// http1 serves HTTP/1.1 and HTTP/1.0.
type http1 struct {
	proxy *Proxy
	srv   fasthttp.Server
}

func newHTTP1(p *Proxy) *http1 {
	s := &http1{proxy: p}
	s.srv = fasthttp.Server{
		Handler:                      s.handle,
		ErrorHandler:                 s.refuse,
		ReadBufferSize:               headBytesMax,
		NoDefaultServerHeader:        true,
		NoDefaultDate:                true,
		NoDefaultContentType:         true,
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		SecureErrorLogMessage:        true,
		Logger:                       quiet{},
	}
	return s
}

// quiet keeps what clients do wrong out of the log; the counters have it.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

func (s *http1) serve(ln net.Listener) error {
	return s.srv.Serve(ln)
}

// shutdown ends the server once every exchange under way is answered, or with
// the context.
func (s *http1) shutdown(ctx context.Context) error { return s.srv.ShutdownWithContext(ctx) }

// h1 is an exchange over HTTP/1, and what answers it.
type h1 struct {
	exchange
	ctx    *fasthttp.RequestCtx
	server *http1
	conn   *clientConn
	lines  h1Fields
	upload h1Body
	out1   outgoing
	later  bool // the answer is streamed after the handler returned
}

var h1s = sync.Pool{New: func() any {
	h := new(h1)
	h.stripe = nextStripe.Add(1)
	return h
}}

var nextStripe atomic.Uint32

func (s *http1) handle(ctx *fasthttp.RequestCtx) {
	h := h1s.Get().(*h1)
	h.ctx, h.server = ctx, s
	if h.conn, _ = ctx.Conn().(*clientConn); h.conn != nil {
		length := ctx.Request.Header.ContentLength()
		h.conn.asked(length > 0 || length == -1)
		h.conn.phase = phaseContent
	}
	defer h.handled()
	x := &h.exchange
	if status, refusal := h.read(); refusal != "" {
		s.proxy.refuse(x, status, refusal)
		return
	}
	s.proxy.serve(x)
}

// read fills the exchange. A refusal says why the request has no single
// meaning, and with which status.
func (h *h1) read() (status int, refusal string) {
	x, req := &h.exchange, &h.ctx.Request.Header
	h.lines.h = req
	x.fields, x.out = &h.lines, h
	x.arrived, x.scheme, x.version = h.ctx.Time(), "http", "1.1"
	if !req.IsHTTP11() {
		x.version = "1.0"
	}
	if h.conn != nil {
		x.remote = h.conn.remote
	}
	x.method = methodName(req.Method())
	x.authority = req.Host()
	raw := req.RequestURI()
	if rest, ok := bytes.CutPrefix(raw, []byte("http://")); ok { // absolute-form, RFC 9112 section 3.2.2
		slash := bytes.IndexByte(rest, '/')
		if slash < 0 || !bytes.EqualFold(rest[:slash], x.authority) {
			return fasthttp.StatusBadRequest, "the request target and the Host field name different authorities"
		}
		raw = rest[slash:]
	}
	if len(raw) > targetBytesMax {
		return fasthttp.StatusRequestURITooLong, "the request target is too long"
	}
	var ok bool
	if x.host, ok = readAuthority(x.scratch[0][:0], x.authority); !ok {
		return fasthttp.StatusBadRequest, "the Host field is missing or is not a host name"
	}
	x.scratch[0] = x.host
	if x.target, refusal = readTarget(raw); refusal != "" {
		return fasthttp.StatusBadRequest, refusal
	}
	if x.method == "" || x.method == "CONNECT" || x.method == "TRACE" {
		return fasthttp.StatusNotImplemented, "this method is not served here"
	}
	x.length = int64(req.ContentLength())
	if x.length < -1 {
		x.length = 0
	}
	if stream := h.ctx.RequestBodyStream(); stream != nil && x.length != 0 {
		h.upload.h, h.upload.stream = h, stream
		x.body, x.stopBody = &h.upload, h.upload.stop
	} else if x.length != 0 {
		return fasthttp.StatusBadRequest, "this request cannot have content"
	}
	return 0, ""
}

// methodName returns the method as a string of ours, or "" for what is no
// method of ours to pass on.
func methodName(m []byte) string {
	switch string(m) {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "HEAD":
		return "HEAD"
	}
	if len(m) > 32 {
		return ""
	}
	for _, c := range m {
		if c < 'A' || c > 'Z' {
			if c != '-' {
				return ""
			}
		}
	}
	return string(m)
}

// handled ends the handler: an exchange that is answered whole is over, one
// that is streamed goes on until its stream is closed.
func (h *h1) handled() {
	if e := recover(); e != nil {
		h.server.proxy.panicked(&h.exchange, e)
		h.ctx.Response.Reset()
		h.ctx.Response.SetConnectionClose()
		h.ctx.SetStatusCode(fasthttp.StatusInternalServerError)
		h.status, h.later = fasthttp.StatusInternalServerError, false
	}
	if h.server.proxy.draining.Load() {
		h.ctx.Response.SetConnectionClose()
	}
	if h.conn != nil {
		h.conn.phase = phaseIdle
	}
	if !h.later {
		h.finish()
	}
}

// finish tells the proxy that the exchange is over and gives it back.
func (h *h1) finish() {
	h.server.proxy.finished(&h.exchange)
	h.exchange.reset()
	h.ctx, h.server, h.conn, h.lines, h.later = nil, nil, nil, h1Fields{}, false
	if h.upload.stream != nil {
		h.upload = h1Body{}
	}
	h.out1 = outgoing{}
	h1s.Put(h)
}

// refuse answers what fasthttp's reader could not make a request of.
func (s *http1) refuse(ctx *fasthttp.RequestCtx, err error) {
	if c, ok := ctx.Conn().(*clientConn); ok && !c.began {
		_ = c.Close() // it was opened in advance and not needed: no answer is due
		return
	}
	status, detail := fasthttp.StatusBadRequest, "this is not an HTTP/1.1 request"
	var small *fasthttp.ErrSmallBuffer
	var timeout net.Error
	switch {
	case errors.As(err, &small):
		status, detail = fasthttp.StatusRequestHeaderFieldsTooLarge, "the request's fields are too large"
	case errors.As(err, &timeout) && timeout.Timeout():
		status, detail = fasthttp.StatusRequestTimeout, "the request did not arrive in time"
	}
	s.proxy.counters.malformed(status)
	ctx.Response.Reset()
	ctx.Response.SetConnectionClose()
	ctx.SetStatusCode(status)
	ctx.Response.Header.Set("Content-Type", problemType)
	ctx.Response.SetBody(problemJSON(nil, status, detail))
}

// stored implements responder.
func (h *h1) stored(x *exchange, s *cache.Stored) {
	ready, _ := s.Prepared().(*fasthttp.ResponseHeader)
	if ready == nil {
		ready = h.prepare(s)
		s.SetPrepared(ready)
	}
	res := &h.ctx.Response
	ready.CopyTo(&res.Header)
	res.Header.AddBytesKV(ageName, x.age())
	h.noteOn(res)
	res.SetBodyRaw(s.Body)
	x.status, x.sent = s.Status, int64(len(s.Body))
}

var (
	ageName         = []byte("Age")
	cacheStatusName = []byte("Cache-Status")
)

// prepare builds the head of a stored response once, for all who ask for it.
func (h *h1) prepare(s *cache.Stored) *fasthttp.ResponseHeader {
	h.setHead(s.Status, s.Fields.Without(func(name string) bool { return equalName(name, "Age") }))
	ready := new(fasthttp.ResponseHeader)
	h.ctx.Response.Header.CopyTo(ready)
	return ready
}

// setHead writes status and fields, less what frames the message: that is
// fasthttp's to write.
func (h *h1) setHead(status int, fields field.List) {
	to := &h.ctx.Response.Header
	setDate(to, fields)
	to.SetStatusCode(status)
	for _, f := range fields {
		if !equalName(f.Name, "Content-Length") && !field.HopByHop([]byte(f.Name)) {
			to.Add(f.Name, f.Value) // passes over Date
		}
	}
}

// datedHead is a response head with nothing but a Date. fasthttp takes a Date
// only from a head that it parsed; as most answers of a second have the same,
// the last one is kept.
type datedHead struct {
	date string
	head fasthttp.ResponseHeader
}

var lastDated atomic.Pointer[datedHead]

// setDate begins a head with the Date among fields, or of now where there is
// none (RFC 9110 section 6.6.1). to is the head of a response that fasthttp
// gave us: it carries the server's will that there be no Date but ours.
func setDate(to *fasthttp.ResponseHeader, fields field.List) {
	date := fields.Get("Date")
	if date == "" {
		date = dateNow(time.Now())
	}
	d := lastDated.Load()
	if d == nil || d.date != date {
		d = &datedHead{date: date}
		to.CopyTo(&d.head)
		raw := "HTTP/1.1 200 OK\r\nDate: " + date + "\r\nContent-Length: 0\r\n\r\n"
		if err := d.head.Read(bufio.NewReader(strings.NewReader(raw))); err != nil {
			return // no field value: better no Date than a broken head
		}
		d.head.Del("Content-Length")
		d.head.SetStatusMessage(nil) // the status says it
		d.head.SetNoDefaultContentType(true)
		lastDated.Store(d)
	}
	d.head.CopyTo(to)
}

// send implements responder.
func (h *h1) send(x *exchange, status int, fields field.List, body []byte) {
	res := &h.ctx.Response
	setDate(&res.Header, fields)
	res.Header.SetStatusCode(status)
	for _, f := range fields {
		res.Header.Add(f.Name, f.Value)
	}
	h.noteOn(res)
	res.SetBody(body)
	x.status, x.sent = status, int64(len(body))
}

// noteOn adds the Cache-Status field.
func (h *h1) noteOn(res *fasthttp.Response) {
	if status := h.cacheStatus(); len(status) > 0 {
		res.Header.AddBytesKV(cacheStatusName, status)
	}
}

// stream implements responder.
func (h *h1) stream(x *exchange, status int, fields field.List, length int64, body source) {
	res := &h.ctx.Response
	h.setHead(status, fields)
	h.noteOn(res)
	x.status = status
	if x.method == "HEAD" || status == fasthttp.StatusNoContent || status == fasthttp.StatusNotModified {
		body.Close()
		res.SkipBody = true
		if length >= 0 {
			res.Header.SetContentLength(int(length))
		}
		return
	}
	h.out1 = outgoing{h: h, src: body, length: length}
	h.later = true
	if length < 0 && x.version == "1.0" {
		h.streamToClose(res)
		return
	}
	res.ImmediateHeaderFlush = true
	res.SetBodyStream(&h.out1, int(length))
}

// streamToClose answers an HTTP/1.0 client, who knows no chunks: the end of the
// connection is the end of the content.
func (h *h1) streamToClose(res *fasthttp.Response) {
	res.Header.SetContentLength(-2) // no framing field, and Connection: close
	head := res.Header.AppendBytes(nil)
	out := &h.out1
	h.ctx.HijackSetNoResponse(true)
	h.ctx.Hijack(func(c net.Conn) {
		defer out.Close()
		if _, err := c.Write(head); err == nil {
			_, err = out.copyTo(c)
			if err != nil {
				abort(c)
			}
		}
	})
}

// abort resets a connection rather than ending it, so that a body delimited by
// the connection's end does not look whole.
func abort(c net.Conn) {
	if cc, ok := c.(*clientConn); ok {
		c = cc.Conn
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the reset is all that is left to do for the client
	}
}

// outgoing is a streamed answer on its way to the client. Where the length is
// known it writes to the connection itself, every piece as it comes: the
// bytes of a slow origin do not wait in a buffer for more.
type outgoing struct {
	h      *h1
	src    source
	length int64 // -1: not known
	reader sourceReader
}

// SupportsBodyWriteTo implements fasthttp.BodyWriterTo.
func (o *outgoing) SupportsBodyWriteTo() bool { return true }

// WriteTo implements fasthttp.BodyWriterTo. fasthttp has flushed the head
// before, and flushes after each Write to a chunked body's w.
func (o *outgoing) WriteTo(w io.Writer) (int64, error) {
	if o.length >= 0 && o.h.conn != nil {
		w = o.h.conn
	}
	return o.copyTo(w)
}

func (o *outgoing) copyTo(w io.Writer) (n int64, err error) {
	for {
		p, err := o.src.Next()
		if err == io.EOF {
			if o.length >= 0 && n != o.length {
				return n, io.ErrUnexpectedEOF
			}
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if o.length >= 0 && n+int64(len(p)) > o.length {
			return n, errTooLong
		}
		wrote, err := w.Write(p)
		n += int64(wrote)
		o.h.sent = n
		if err != nil {
			return n, err
		}
	}
}

var errTooLong = errors.New("content longer than its announced length")

// Read implements io.Reader, which a body stream has to.
func (o *outgoing) Read(p []byte) (int, error) {
	if o.reader.from == nil {
		o.reader.from = o.src
	}
	return o.reader.Read(p)
}

// Close implements io.Closer: fasthttp calls it when the answer is over,
// however it ended.
func (o *outgoing) Close() error {
	if o.src == nil {
		return nil
	}
	o.src.Close()
	o.src = nil
	o.h.finish()
	return nil
}

// h1Fields lets the rest of the proxy read fasthttp's request fields: as they
// were sent, every line for itself.
type h1Fields struct{ h *fasthttp.RequestHeader }

// Peek implements field.Fields.
func (f *h1Fields) Peek(name string) []byte {
	if v := f.h.Peek(name); len(v) > 0 {
		return v
	}
	return nil
}

// PeekAll returns the value of every line with the name, valid until the next
// call.
func (f *h1Fields) PeekAll(name string) [][]byte { return f.h.PeekAll(name) }

// All implements field.Fields.
func (f *h1Fields) All() iter.Seq2[[]byte, []byte] { return f.h.AllInOrder() }

// h1Body reads a request's content and knows a cut from an end.
type h1Body struct {
	h      *h1
	stream io.Reader
	read   int64

	mu      sync.Mutex // guards stopped, and the read deadline with it
	stopped bool
}

// prefetchedMax is how much of an announced content fasthttp has read before
// the handler is called.
const prefetchedMax = 8 << 10

// errStopped ends an upload whose rest nobody wants.
var errStopped = errors.New("the rest of the content is not wanted")

// stop makes the Read under way, and every later one, return soon.
func (b *h1Body) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	if c := b.h.conn; c != nil {
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // a connection that refuses this is closed: nothing to stop
	}
}

// extend gives the client time for the next piece.
func (b *h1Body) extend() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return errStopped
	}
	if c := b.h.conn; c != nil && (b.h.length < 0 || b.h.length > prefetchedMax) {
		return c.SetReadDeadline(time.Now().Add(uploadIdleMax))
	}
	return nil
}

// Read implements io.Reader. A content cut off by the client ends with
// io.ErrUnexpectedEOF.
func (b *h1Body) Read(p []byte) (int, error) {
	if err := b.extend(); err != nil {
		return 0, err
	}
	n, err := b.stream.Read(p)
	b.read += int64(n)
	if err != io.EOF {
		return n, err
	}
	cut := b.h.length >= 0 && b.read < b.h.length // fasthttp calls this an end, too
	if c := b.h.conn; b.h.length < 0 && c != nil {
		cut = c.ended
	}
	if cut {
		return n, io.ErrUnexpectedEOF
	}
	return n, io.EOF
}
