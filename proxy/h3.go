package proxy

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"firstbell/cache"
	"firstbell/proxy/field"
	"firstbell/proxy/head"
	"firstbell/proxy/http3"
)

// h3 is an exchange over HTTP/3, and what answers it.
type h3 struct {
	exchange
	conn    *h3Conn
	lane    *quic.Stream
	message http3.Message
	head    head.Head
	upload  h3Upload
	out3    []byte // what is written: kept between exchanges
	pacer
	section []byte // a field section while it is put together

	mu    sync.Mutex // guards begun: an upload may be read while the answer begins
	begun bool       // of the final response something was written
	err   error      // writing the answer
}

var h3s = sync.Pool{New: func() any {
	h := new(h3)
	h.stripe = nextStripe.Add(1)
	h.out3 = make([]byte, 0, 2<<10)
	h.head.Extended = true
	return h
}}

// exchange serves the request of a stream.
func (c *h3Conn) exchange(s *quic.Stream) {
	h := h3s.Get().(*h3)
	h.conn, h.lane = c, s
	h.message.Reset(s)
	if h.begin() {
		h.serve()
		h.settle()
		h.letGo()
		c.door.proxy.finished(&h.exchange)
	}
	h.exchange.reset()
	h.message.Release()
	h.upload = h3Upload{}
	h.conn, h.lane, h.begun, h.err, h.pacer = nil, nil, false, nil, pacer{}
	if cap(h.out3) > headBytesMax {
		h.out3 = nil
	}
	h3s.Put(h)
}

// begin reads the request's head, and reports whether there is a request to be
// served. What is none is answered for here.
func (h *h3) begin() bool {
	h.pacer = h.conn.door.proxy.door.newPacer()
	_ = h.lane.SetReadDeadline(time.Now().Add(h.limits.Header)) // never fails
	section, err := h.message.Head(head.BytesMax)
	if err == nil {
		h.head.Reset()
		if err = http3.Section(section, h.head.Add); err == nil {
			err = h.head.End()
		}
	}
	none := false
	if err == nil && h.contentMayFollow() {
		none, err = h.message.Empty()
	}
	if err == nil && !none && h.head.Length == 0 {
		err = head.RefuseContent
	}
	if err != nil {
		h.refuse(err)
		return false
	}
	if none {
		h.head.Length = 0
	}
	return true
}

// contentMayFollow reports whether it has to be waited for what is behind the
// head: a request without content may say so by its stream's end alone, and
// what it asks for depends on it. Who waits for 100 will send some.
func (h *h3) contentMayFollow() bool {
	return h.head.Length == 0 || h.head.Length < 0 && safe(methodName(h.head.Method)) && !h.head.Continue
}

// refuse answers what is no request with one meaning.
func (h *h3) refuse(err error) {
	p := h.conn.door.proxy
	if timedOut(err) {
		err = head.RefuseTime
	}
	if err == http3.ErrTooLarge {
		err = head.RefuseSize
	}
	var refusal *field.Refusal
	if errors.As(err, &refusal) {
		p.counters.malformedHead(refusal)
		if refusal.Status == 0 {
			h.reset(http3.MessageError)
			return
		}
		body := problemJSON(nil, refusal.Status, refusal.Detail)
		h.send(&h.exchange, refusal.Status, field.List{{Name: "Content-Type", Value: problemType}, {Name: "Cache-Control", Value: "no-store"}}, body)
		h.close()
		return
	}
	if e := http3.IsProtocol(err); e != nil {
		if !e.Stream {
			h.conn.fail(e)
			return
		}
		p.counters.http3Error(e.Code)
		h.reset(e.Code)
		return
	}
	h.conn.gaveUp() // the client ended the stream
	h.reset(http3.RequestCancelled)
}

// reset ends the stream in both directions.
func (h *h3) reset(code http3.Code) {
	h.lane.CancelRead(quic.StreamErrorCode(code))
	h.lane.CancelWrite(quic.StreamErrorCode(code))
}

// close ends an answer that is whole. A client that still sends is told that
// nobody listens any more, which is no error (RFC 9114 section 4.1).
func (h *h3) close() {
	_ = h.lane.Close() // fails for what is reset only
	h.lane.CancelRead(quic.StreamErrorCode(http3.NoError))
}

// settle ends the stream behind the answer.
func (h *h3) settle() {
	h.upload.stop() // nobody reads it any more
	switch {
	case h.upload.broke != nil:
		h.refuse(h.upload.broke)
	case h.err == nil:
		h.close()
	case h.exchange.left():
		h.conn.gaveUp()
		h.reset(http3.RequestCancelled)
	default:
		h.lane.SetReliableBoundary()
		h.reset(http3.InternalError)
	}
}

// serve answers the request. A panic costs this exchange, nothing else.
func (h *h3) serve() {
	p := h.conn.door.proxy
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
	if status, refusal := h.read(); refusal != "" {
		p.refuse(x, status, refusal)
		return
	}
	p.serve(x)
}

// read fills the exchange. A refusal says why the request is not served here,
// and with which status.
func (h *h3) read() (status int, refusal string) {
	x := &h.exchange
	x.fields, x.out = &h.head, h
	x.arrived, x.scheme, x.version = time.Now(), "https", "3"
	x.remote, x.tls = h.conn.remote, h.conn.tls
	x.leave = h.lane.Context()
	x.method = methodName(h.head.Method)
	x.authority = h.head.Authority
	if x.length = h.head.Length; x.length != 0 && h.head.Protocol == nil {
		h.upload.begin(h)
		x.body, x.stopBody, x.expects = &h.upload, h.upload.stop, h.head.Continue
		if x.length < 0 {
			x.trailer = h.upload.trailer
		}
	}
	x.takesTrailers = h.head.Peek("TE") != nil // which has no other value here
	raw := h.head.Path
	switch {
	case h.head.Protocol != nil:
		if string(h.head.Protocol) != "websocket" || h.head.Length >= 0 {
			return http.StatusNotImplemented, "the only protocol that is connected to here is websocket"
		}
		x.method, x.webSocket, x.length = "GET", byExtendedCONNECT, 0
	case x.method == "CONNECT":
		raw = rootTarget // it has none
	}
	if status, refusal = x.readRequest(raw); refusal == "" && string(h.head.Scheme) != x.scheme {
		return http.StatusBadRequest, "the request is for another scheme than https"
	}
	return status, refusal
}

// open begins the head of an answer in h.section.
func (h *h3) open(status int, fields field.List) {
	h.section = appendSection(h.section[:0], status, fields)
}

// appendSection begins the field section of an answer.
func appendSection(b []byte, status int, fields field.List) []byte {
	return appendFields(http3.AppendStatus(b, status), fields, http3.AppendField)
}

// prepareSection makes the field section of a stored response once, for all who
// ask for it.
func prepareSection(s *cache.Stored) []byte {
	b := appendSection(nil, s.Status, s.Fields.Without(func(name string) bool { return field.EqualName(name, "Age") }))
	if s.Status != http.StatusNoContent && s.Status != http.StatusNotModified {
		b = http3.AppendField(b, "content-length", strconv.Itoa(len(s.Body)))
	}
	return b[:len(b):len(b)]
}

func (h *h3) length(n int64) {
	var digits [20]byte
	h.section = http3.AppendField(h.section, "content-length", text(strconv.AppendInt(digits[:0], n, 10)))
}

// end makes what open began a frame in h.out3, and returns it.
func (h *h3) end() []byte {
	if h.note.says() {
		var said [160]byte
		h.section = http3.AppendField(h.section, "cache-status", text(h.note.append(said[:0])))
	}
	if hsts := h.hsts(); hsts != "" {
		h.section = http3.AppendField(h.section, "strict-transport-security", hsts)
	}
	return append(http3.AppendHeaders(h.out3[:0], len(h.section)), h.section...)
}

// write writes what is ready, and content that is there already. It returns
// how much of the content was written, all of it unless h.err is set.
func (h *h3) write(ready, content []byte) (n int) {
	h.mu.Lock()
	h.begun = true
	h.mu.Unlock()
	if len(content) <= bodyCopyMax {
		before := len(ready)
		ready = append(ready, content...)
		n = h.put(ready)
		h.out3 = ready[:0]
		return max(0, n-before)
	}
	h.put(ready)
	h.out3 = ready[:0]
	return h.put(content)
}

// put writes p in pieces, each with a time limit of its own, which is prolonged
// for who takes MinRate.
func (h *h3) put(p []byte) (n int) {
	for h.err == nil && n < len(p) {
		_ = h.lane.SetWriteDeadline(time.Now().Add(h.patience())) // never fails
		wrote, err := h.lane.Write(p[n:min(len(p), n+writePieceMax)])
		n += wrote
		h.err = h.wroteSome(int64(wrote), err)
	}
	return n
}

// stored implements responder.
func (h *h3) stored(x *exchange, s *cache.Stored) {
	ready := s.Prepared(cache.FormQPACK)
	if ready == nil {
		ready = prepareSection(s)
		s.SetPrepared(cache.FormQPACK, ready)
	}
	var digits [20]byte
	h.section = http3.AppendField(append(h.section[:0], ready...), "age", text(x.note.age(digits[:0])))
	content := s.Body
	if bodyless(x, s.Status) {
		content = nil
	}
	x.status = s.Status
	x.sent = int64(h.whole(content))
}

// whole writes an answer whose content is there.
func (h *h3) whole(content []byte) int {
	ready := h.end()
	if len(content) > 0 {
		ready = http3.AppendData(ready, int64(len(content)))
	}
	return h.write(ready, content)
}

// send implements responder.
func (h *h3) send(x *exchange, status int, fields field.List, body []byte) {
	h.open(status, fields)
	if status != http.StatusNoContent && status != http.StatusNotModified {
		h.length(int64(len(body)))
	}
	if bodyless(x, status) {
		body = nil
	}
	x.status = status
	x.sent = int64(h.whole(body))
}

// stream implements responder.
func (h *h3) stream(x *exchange, status int, fields field.List, length int64, body source) {
	defer body.Close()
	x.status = status
	h.open(status, fields)
	none := bodyless(x, status)
	if length >= 0 && status != http.StatusNoContent && (status != http.StatusNotModified || length > 0) {
		h.length(length)
	}
	if t, ok := body.(trailed); ok && x.takesTrailers && length < 0 && t.Announced() != "" {
		h.section = http3.AppendField(h.section, "trailer", t.Announced())
	}
	ready := h.end()
	if none {
		h.write(ready, nil)
		return
	}
	if length > 0 {
		ready = http3.AppendData(ready, length)
	}
	if err := h.copy(x, ready, length, body); err != nil && h.err == nil {
		h.err = err
	}
}

// copy writes what is ready, with the first piece where that is there already,
// and every other piece as it comes: in one frame when the length is known,
// else in a frame each.
func (h *h3) copy(x *exchange, ready []byte, length int64, body source) error {
	if e, ok := body.(eager); !ok || !e.Ready() {
		h.write(ready, nil)
		ready = h.out3[:0]
	}
	for h.err == nil {
		p, err := body.Next()
		if err == io.EOF && (length < 0 || x.sent == length) {
			h.write(h.appendTrailer(ready, x, body), nil)
			return h.err
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err == nil && length >= 0 && x.sent+int64(len(p)) > length {
			err = errTooLong
		}
		if err != nil {
			h.write(ready, nil)
			return err
		}
		if length < 0 {
			ready = http3.AppendData(ready, int64(len(p)))
		}
		x.sent += int64(h.write(ready, p))
		ready = h.out3[:0]
	}
	return h.err
}

// appendTrailer appends the trailer fields of a body to a client who takes them.
func (h *h3) appendTrailer(b []byte, x *exchange, body source) []byte {
	t, ok := body.(trailed)
	if !ok || !x.takesTrailers {
		return b
	}
	fields := t.Trailer()
	if len(fields) == 0 {
		return b
	}
	h.section = http3.BeginTrailers(h.section[:0])
	for _, f := range fields {
		h.section = http3.AppendField(h.section, f.Name, f.Value)
	}
	return append(http3.AppendHeaders(b, len(h.section)), h.section...)
}

// switched implements switcher.
func (h *h3) switched(x *exchange, fields field.List) (side, error) {
	x.status = http.StatusOK
	h.message.Tunnel()
	h.open(http.StatusOK, fields.Without(func(name string) bool { return field.EqualName(name, "Sec-WebSocket-Accept") }))
	h.write(append(http3.AppendHeaders(h.out3[:0], len(h.section)), h.section...), nil)
	return &h3Side{h}, h.err
}

// h3Side is a stream as one side of a tunnel.
type h3Side struct{ *h3 }

// Read implements io.Reader. What breaks the protocol ends the connection.
func (w *h3Side) Read(p []byte) (int, error) {
	n, err := w.message.Read(p)
	if e := http3.IsProtocol(err); e != nil {
		w.conn.fail(e)
	}
	return n, err
}

// Write implements io.Writer, at the client's pace.
func (w *h3Side) Write(p []byte) (int, error) {
	n := w.write(http3.AppendData(w.out3[:0], int64(len(p))), p)
	return n, w.err
}

// CloseWrite implements side.
func (w *h3Side) CloseWrite() error { return w.lane.Close() }

// SetReadDeadline implements side.
func (w *h3Side) SetReadDeadline(t time.Time) error { return w.lane.SetReadDeadline(t) }

// Close implements io.Closer: settle ends the stream.
func (w *h3Side) Close() error { return nil }

// inform implements responder. A client that does not take it at once goes
// without.
func (h *h3) inform(status int, fields field.List) {
	section := http3.AppendStatus(nil, status)
	for _, f := range fields {
		section = http3.AppendField(section, f.Name, f.Value)
	}
	h.informOnce(section)
}

func (h *h3) informOnce(section []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.begun {
		_ = h.lane.TryWriteAll(append(http3.AppendHeaders(nil, len(section)), section...))
	}
}
