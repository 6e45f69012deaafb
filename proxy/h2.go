package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"firstbell/cache"
	"firstbell/proxy/field"
	"firstbell/proxy/http2"
	"firstbell/proxy/peer"
)

// streamsMax is how many requests a connection of HTTP/2 may have open at once:
// what browsers use of it.
const streamsMax = 128

// h2Conn is a connection that speaks HTTP/2. It is an occupant of the door.
type h2Conn struct {
	*http2.Conn
	remote string // the client's address, without port
	ends   peer.Header
	scheme string // of what is asked over it
	tls    secured
}

// wake implements occupant.
func (c *h2Conn) wake() { c.End() }

// giveWay implements idler.
func (c *h2Conn) giveWay() bool { return c.EndIfIdle() }

// breakOff implements occupant.
func (c *h2Conn) breakOff() {
	nc := c.NetConn()
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	_ = nc.Close() // what is under way finds out
}

// newHTTP2 is what the proxy's connections of HTTP/2 have in common.
func newHTTP2(p *Proxy) *http2.Server {
	return http2.NewServer(http2.Config{
		Handler:         p.exchangeHTTP2,
		Malformed:       p.counters.malformedHead,
		ExtendedConnect: true,
		StreamsMax:      streamsMax,
		Times: func() http2.Times {
			l := p.limits.Load()
			return http2.Times{Idle: l.Idle, Head: l.Header, Grace: l.Grace, MinRate: l.MinRate, Write: l.Grace / 2}
		},
		AwaitRoom:   awaitRoomBelow,
		SlowContent: func() { p.door.parted[partedBody].Add(1) },
		SlowReading: func() { p.door.parted[partedReading].Add(1) },
	})
}

// serveHTTP2 serves a connection that speaks HTTP/2, until it ends.
func (d *door) serveHTTP2(nc net.Conn) { d.goOnWithHTTP2(nc, nil) }

// goOnWithHTTP2 is serveHTTP2 for a connection of which some has been read.
func (d *door) goOnWithHTTP2(nc net.Conn, received []byte) {
	c := &h2Conn{remote: nc.RemoteAddr().String(), ends: endsOf(nc), scheme: "http"}
	if p, ok := nc.(*proxied); ok && p.secure {
		c.scheme = "https"
	}
	if host, _, err := net.SplitHostPort(c.remote); err == nil {
		c.remote = host
	}
	if t, ok := nc.(*tls.Conn); ok {
		c.scheme, c.tls = "https", securedBy(t)
	}
	c.Conn = d.http2.NewConn(nc, received, c)
	if !d.enter(c) {
		_ = nc.Close() // too late for it
		return
	}
	defer d.leave(c)
	if d.proxy.draining.Load() {
		c.Drain()
	}
	c.Serve()
}

// h2 is an exchange over HTTP/2, and what answers it.
type h2 struct {
	exchange
	raw   *http2.Stream
	conn  *h2Conn
	block []byte // the header block being made: kept between exchanges
	text  [160]byte
	err   error // writing the answer
	begun bool  // of the final response something was written
}

var h2s = sync.Pool{New: func() any {
	h := new(h2)
	h.stripe = nextStripe.Add(1)
	h.block = make([]byte, 0, 1<<10)
	return h
}}

// exchangeHTTP2 serves the request of a stream.
func (p *Proxy) exchangeHTTP2(s *http2.Stream) {
	h := h2s.Get().(*h2)
	h.raw, h.conn = s, s.Owner().(*h2Conn)
	h.serve(p)
	if h.err != nil {
		s.Abort()
	}
	h.letGo()
	p.finished(&h.exchange)
	h.exchange.reset()
	h.raw, h.conn, h.err, h.begun = nil, nil, nil, false
	if cap(h.block) > headBytesMax {
		h.block = nil
	}
	h2s.Put(h)
}

// serve answers the request. A panic costs this exchange, nothing else.
func (h *h2) serve(p *Proxy) {
	x := &h.exchange
	defer func() {
		if e := recover(); e != nil {
			p.panicked(x, e)
			if h.begun {
				h.err = errPanicked
				return
			}
			h.send(x, http.StatusInternalServerError, nil, nil)
		}
	}()
	if status, refusal := h.read(p); refusal != "" {
		p.refuse(x, status, refusal)
		return
	}
	p.serve(x)
}

// read fills the exchange. A refusal says why the request is not served here,
// and with which status.
func (h *h2) read(p *Proxy) (status int, refusal string) {
	x, s := &h.exchange, h.raw
	x.fields, x.out, x.leave = &s.Head, h, s
	x.arrived, x.scheme, x.version = time.Now(), h.conn.scheme, "2"
	x.remote, x.ends, x.tls = h.conn.remote, &h.conn.ends, h.conn.tls
	x.method = methodName(s.Head.Method)
	x.authority = s.Head.Authority
	if r := s.Refused; r != nil {
		p.counters.malformedHead(r)
		return r.Status, r.Detail
	}
	if x.length = s.Head.Length; x.length != 0 && !h.provesEmpty() {
		x.body, x.stopBody, x.expects = s, s.StopReading, s.Head.Continue
		if x.length < 0 {
			x.trailer = h.trailer
		}
	}
	x.takesTrailers = string(s.Head.Peek("TE")) == "trailers"
	raw := s.Head.Path
	switch {
	case s.Head.Protocol != nil:
		if refusal := h.readProtocol(); refusal != "" {
			return http.StatusNotImplemented, refusal
		}
	case x.method == "CONNECT":
		raw = rootTarget // it has none
	}
	if status, refusal = x.readRequest(raw); refusal == "" && x.scheme == "https" && string(s.Head.Scheme) != x.scheme {
		return http.StatusBadRequest, "the request is for another scheme than https"
	}
	x.elsewhere = p.elsewhere(x)
	return status, refusal
}

// readProtocol reads an extended CONNECT (RFC 8441), which opens a WebSocket as
// a GET with Upgrade does over HTTP/1.1. What follows it is no content.
func (h *h2) readProtocol() (refusal string) {
	x := &h.exchange
	if string(h.raw.Head.Protocol) != "websocket" || h.raw.Head.Length >= 0 {
		return "the only protocol that is connected to here is websocket"
	}
	x.method, x.webSocket = "GET", byExtendedCONNECT
	x.body, x.stopBody, x.trailer, x.length, x.expects = nil, nil, nil, 0, false
	return ""
}

// switched implements switcher.
func (h *h2) switched(x *exchange, fields field.List) (side, error) {
	h.aside()
	x.status = http.StatusOK
	_ = h.raw.SetReadDeadline(time.Time{}) // always nil: what comes now comes when it comes
	h.write(appendBlock(h.block[:0], http.StatusOK, fields.Without(func(name string) bool { return field.EqualName(name, "Sec-WebSocket-Accept") })), nil, false)
	return &h2Side{Stream: h.raw}, h.err
}

// h2Side is a stream as one side of a tunnel.
type h2Side struct {
	*http2.Stream
	ended bool // we have sent all; of who writes
}

// Write implements io.Writer. The client's windows have the time that they have
// for any answer.
func (w *h2Side) Write(p []byte) (int, error) { return w.Stream.Write(nil, p, false) }

// CloseWrite implements side.
func (w *h2Side) CloseWrite() error {
	if w.ended {
		return nil
	}
	w.ended = true
	_, err := w.Stream.Write(nil, nil, true)
	return err
}

// Close implements io.Closer. Nobody reads or writes any more.
func (w *h2Side) Close() error { return w.CloseWrite() }

// provesEmpty waits for the content of a request that mostly has none, and
// reports that it has none: a client may say so by the stream's end alone.
func (h *h2) provesEmpty() bool {
	if h.length > 0 || !safe(h.method) || h.raw.Head.Continue || !h.raw.Empty() {
		return false
	}
	h.length = 0
	return true
}

// trailer returns the request's trailer fields, once its content has ended.
func (h *h2) trailer() (l field.List) {
	t := h.raw.Trailer()
	if t == nil {
		return nil
	}
	return field.Copy(t, func(name []byte) bool { return !field.HopByHop(name) })
}

// aside implements waiter.
func (h *h2) aside() { h.raw.Aside() }

// appendBlock begins the header block of an answer.
func appendBlock(b []byte, status int, fields field.List) []byte {
	return appendFields(http2.AppendStatus(b, status), fields, http2.AppendField)
}

// The names that every answer may have, ready for a block.
var (
	ageInBlock         = http2.AppendName(nil, "age")
	lengthInBlock      = http2.AppendName(nil, "content-length")
	cacheStatusInBlock = http2.AppendName(nil, "cache-status")
	trailerInBlock     = http2.AppendName(nil, "trailer")
	altSvcInBlock      = http2.AppendName(nil, "alt-svc")
)

func (h *h2) appendLength(b []byte, n int64) []byte {
	return http2.AppendValue(append(b, lengthInBlock...), strconv.AppendInt(h.text[:0], n, 10))
}

// end appends what the cache did, and that browsers keep to https.
func (h *h2) end(b []byte) []byte {
	if hsts := h.hsts(); hsts != "" {
		b = http2.AppendField(b, "strict-transport-security", hsts)
	}
	if h.note.says() {
		b = http2.AppendValue(append(b, cacheStatusInBlock...), h.note.append(h.text[:0]))
	}
	if h.elsewhere != "" {
		b = http2.AppendValue(append(b, altSvcInBlock...), append(h.text[:0], h.elsewhere...))
	}
	return b
}

// write writes a header block, if there is one, and content that is there
// already; last says that the answer ends behind it. It returns how much of the
// content was written, all of it unless h.err is set.
func (h *h2) write(block, content []byte, last bool) (n int) {
	h.begun = true
	n, h.err = h.raw.Write(block, content, last)
	if block != nil {
		h.block = block[:0]
	}
	return n
}

// stored implements responder.
func (h *h2) stored(x *exchange, s *cache.Stored) {
	ready := s.Prepared(cache.FormHPACK)
	if ready == nil {
		ready = prepareBlock(s)
		s.SetPrepared(cache.FormHPACK, ready)
	}
	b := append(append(h.block[:0], ready...), ageInBlock...)
	b = http2.AppendValue(b, x.note.age(h.text[:0]))
	content := s.Body
	if bodyless(x, s.Status) {
		content = nil
	}
	x.status = s.Status
	x.sent = int64(h.write(h.end(b), content, true))
}

// prepareBlock makes the header block of a stored response once, for all who
// ask for it.
func prepareBlock(s *cache.Stored) []byte {
	b := appendBlock(nil, s.Status, s.Fields.Without(func(name string) bool { return field.EqualName(name, "Age") }))
	if s.Status != http.StatusNoContent && s.Status != http.StatusNotModified {
		b = http2.AppendValue(append(b, lengthInBlock...), strconv.AppendInt(nil, int64(len(s.Body)), 10))
	}
	return b[:len(b):len(b)]
}

// send implements responder.
func (h *h2) send(x *exchange, status int, fields field.List, body []byte) {
	b := appendBlock(h.block[:0], status, fields)
	if status != http.StatusNoContent && status != http.StatusNotModified {
		b = h.appendLength(b, int64(len(body)))
	}
	if bodyless(x, status) {
		body = nil
	}
	x.status = status
	x.sent = int64(h.write(h.end(b), body, true))
}

// stream implements responder.
func (h *h2) stream(x *exchange, status int, fields field.List, length int64, body source) {
	defer body.Close()
	h.aside()
	x.status = status
	b := appendBlock(h.block[:0], status, fields)
	if length >= 0 && status != http.StatusNoContent && (status != http.StatusNotModified || length > 0) {
		b = h.appendLength(b, length)
	}
	none := bodyless(x, status)
	if t, ok := body.(trailed); ok && !none && x.takesTrailers && t.Announced() != "" {
		b = http2.AppendValue(append(b, trailerInBlock...), []byte(t.Announced()))
	}
	b = h.end(b)
	if none {
		h.write(b, nil, true)
		return
	}
	if err := h.copy(x, b, length, body); err != nil && h.err == nil {
		h.err = err
	}
}

// copy writes the header block, with the first piece where that is there
// already, and every other piece as it comes. Where trailer fields may follow,
// the end is known with them only.
func (h *h2) copy(x *exchange, block []byte, length int64, body source) error {
	tail, tailed := body.(trailed)
	tailed = tailed && x.takesTrailers
	if e, ok := body.(eager); length != 0 && (!ok || !e.Ready()) {
		h.write(block, nil, false)
		block = nil
	}
	ended := false
	rests, _ := body.(resting)
	for h.err == nil {
		if rests != nil && block == nil && x.sent < length { // its end would need no window
			if h.err = h.awaitWindow(rests); h.err != nil {
				break
			}
		}
		p, err := body.Next()
		if err == io.EOF && (length < 0 || x.sent == length) {
			if ended {
				return nil
			}
			if tailed {
				return h.endWithTrailer(block, tail.Trailer())
			}
			h.write(block, nil, true)
			return h.err
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err == nil && length >= 0 && x.sent+int64(len(p)) > length {
			err = errTooLong
		}
		if err != nil {
			if ended {
				return nil // the client has all of it
			}
			return err
		}
		ended = length >= 0 && x.sent+int64(len(p)) == length && !tailed
		x.sent += int64(h.write(block, p, ended))
		block = nil
	}
	return h.err
}

// awaitWindow returns once the client takes more of the answer, so that nobody
// holds a piece of it until then.
func (h *h2) awaitWindow(body resting) error {
	body.Rest()
	n, err := h.raw.AwaitWindow()
	if err == nil {
		body.Most(n)
	}
	return err
}

// endWithTrailer ends the answer with trailer fields, if there are any.
func (h *h2) endWithTrailer(block []byte, trailer field.List) error {
	var b []byte
	for _, f := range trailer {
		if !field.HopByHopName(f.Name) {
			b = http2.AppendField(b, f.Name, f.Value)
		}
	}
	if len(b) == 0 {
		h.write(block, nil, true)
		return h.err
	}
	if block != nil {
		if h.write(block, nil, false); h.err != nil {
			return h.err
		}
	}
	h.write(b, nil, true)
	return h.err
}

// inform implements responder. A client that does not take it at once goes
// without.
func (h *h2) inform(status int, fields field.List) {
	b := http2.AppendStatus(nil, status)
	for _, f := range fields {
		b = http2.AppendField(b, f.Name, f.Value)
	}
	h.raw.Inform(b, informTimeMax)
}
