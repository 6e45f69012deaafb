package proxy

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/cache"
	"firstbell/proxy/field"
	"firstbell/proxy/http1"
	"firstbell/proxy/websocket"
)

// h1 is an exchange over HTTP/1, and what answers it.
type h1 struct {
	exchange
	conn      *conn
	head      http1.Head
	upload    upload
	headBytes int              // as received
	out1      []byte           // what is written: kept between exchanges
	look      func(fd uintptr) // sets room; made once
	room      bool             // the client's socket takes more
	rest      rest             // of the answer
	stays     bool             // it waits for its client with a goroutine

	mu    sync.Mutex // guards begun: an upload may be read while the answer begins
	begun bool       // of the final response something was written
	last  bool       // the connection ends behind this exchange
	err   error      // writing the answer

	// Of an exchange that is answered later, by whoever comes second: who put it
	// off, or who knows the answer.
	then  answerer
	meets atomic.Int32
	next  *h1 // in the lane's list
}

var h1s = sync.Pool{New: func() any {
	h := new(h1)
	h.stripe = nextStripe.Add(1)
	h.out1 = make([]byte, 0, 512)
	h.upload.stopping = h.upload.stop
	return h
}}

var nextStripe atomic.Uint32

// exchange serves the request whose head is the next n bytes received, and
// says what becomes of the connection: with later, it is no longer the caller's.
func (c *conn) exchange(n int) fate {
	h := h1s.Get().(*h1)
	b := (*c.in)[c.r : c.r+n]
	c.r += n
	c.quick++
	if err := h.head.Parse(b); err != nil {
		h1s.Put(h)
		c.refuse(err)
		return over
	}
	h.conn, h.last, h.headBytes = c, h.head.Last, n
	h.serve()
	if h.rest.body != nil || h.taking {
		return h.stepAside()
	}
	if h.then != nil {
		if h.meets.Add(1) == 1 {
			return later
		}
		return h.answerNow()
	}
	return h.finish()
}

// answerNow answers an exchange that was put off.
func (h *h1) answerNow() fate {
	h.answerThen()
	return h.finish()
}

func (h *h1) answerThen() {
	defer h.recovered()
	h.then.answer()
}

// finish is the end of an exchange.
func (h *h1) finish() fate {
	c := h.conn
	h.letGo()
	again := h.settled()
	c.door.proxy.finished(&h.exchange)
	h.exchange.reset()
	if h.upload.h != nil {
		h.upload.end()
	}
	h.conn, h.begun, h.last, h.stays, h.err, h.then = nil, false, false, false, nil, nil
	h.meets.Store(0)
	if cap(h.out1) > answerKeptMax {
		h.out1 = nil
	}
	h1s.Put(h)
	return again
}

// postpones implements postponer.
func (h *h1) postpones() bool { return h.conn.turn != nil }

// postpone implements postponer.
func (h *h1) postpone(a answerer) { h.then = a }

// ready implements postponer.
func (h *h1) ready() {
	if h.meets.Add(1) == 2 {
		h.conn.lane.answer(h)
	}
}

// aside implements waiter.
func (h *h1) aside() {
	h.conn.quick = 0
	h.conn.aside()
}

// serve answers the request, or has it answered later. A panic costs this
// exchange and its connection, nothing else.
func (h *h1) serve() {
	defer h.recovered()
	x := &h.exchange
	p := h.conn.door.proxy
	if status, refusal := h.read(); refusal != "" {
		p.refuse(x, status, refusal)
		return
	}
	p.serve(x)
}

// recovered ends an exchange that panicked.
func (h *h1) recovered() {
	e := recover()
	if e == nil {
		return
	}
	h.conn.door.proxy.panicked(&h.exchange, e)
	h.last = true
	if h.begun {
		h.broken(errPanicked)
		return
	}
	h.send(&h.exchange, http.StatusInternalServerError, nil, nil)
}

var errPanicked = errors.New("the exchange panicked")

// read fills the exchange. A refusal says why the request has no single
// meaning, and with which status.
func (h *h1) read() (status int, refusal string) {
	x := &h.exchange
	x.fields, x.out = &h.head, h
	x.arrived, x.scheme, x.version = time.Now(), h.conn.scheme, "1.1"
	if h.head.Minor == 0 {
		x.version = "1.0"
	}
	x.remote, x.ends, x.tls = h.conn.remote, &h.conn.ends, h.conn.tls
	x.method = methodName(h.head.Method)
	if x.length = h.head.Length; x.length != 0 {
		h.upload.begin(h, h.headBytes)
		x.body, x.stopBody, x.expects = &h.upload, h.upload.stopping, h.head.Continue
		if x.length < 0 {
			x.trailer = h.upload.trailer
		}
	}
	if h.head.Minor > 0 && h.head.Peek("Upgrade") != nil && websocket.Asks(&h.head) {
		x.webSocket = byUpgrade
	}
	x.takesTrailers = h.head.Minor > 0 && takesTrailers(&h.head)
	var raw []byte
	if raw, x.authority, refusal = h.readTargetForm(); refusal != "" {
		return http.StatusBadRequest, refusal
	}
	return x.readRequest(raw)
}

// takesTrailers reports "TE: trailers" (RFC 9110 section 10.1.4), meant for us.
func takesTrailers(f field.Fields) bool {
	return listHas(string(f.Peek("TE")), "trailers") && field.ConnectionNames(f, []byte("TE"))
}

var httpScheme, httpsScheme, rootTarget = []byte("http://"), []byte("https://"), []byte("/")

// readTargetForm returns the target in origin-form and the authority it is
// for: an absolute-form (RFC 9112 section 3.2.2) names the same as Host does.
func (h *h1) readTargetForm() (raw, authority []byte, refusal string) {
	raw, authority = h.head.Target, h.head.Host
	scheme := httpScheme
	if h.scheme == "https" {
		scheme = httpsScheme
	}
	if raw[0] == '/' || len(raw) < len(scheme) || !bytes.EqualFold(raw[:len(scheme)], scheme) {
		return raw, authority, ""
	}
	rest := raw[len(scheme):]
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if authority != nil && !bytes.EqualFold(rest[:end], authority) {
		return nil, nil, "the request target and the Host field name different authorities"
	}
	authority = rest[:end]
	switch rest = rest[end:]; {
	case len(rest) == 0:
		return rootTarget, authority, ""
	case rest[0] == '?':
		return append([]byte{'/'}, rest...), authority, ""
	}
	return rest, authority, ""
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
	for _, c := range m {
		if (c < 'A' || c > 'Z') && c != '-' {
			return ""
		}
	}
	return string(m)
}

// refused counts what is wrong with the content of a request.
func (h *h1) refused(err error) {
	if r, ok := err.(*field.Refusal); ok {
		h.conn.door.proxy.counters.malformed(r)
	}
}

// settled makes the connection ready for the next request, and says whether there
// may be one.
func (h *h1) settled() fate {
	c := h.conn
	whole := h.head.Length == 0 || h.upload.settle()
	if h.err != nil {
		return over
	}
	if !whole || h.last && c.w > c.r {
		c.linger()
		return over
	}
	if h.last {
		return over
	}
	return again
}

// The head of an answer is put together in h.out1: open begins it, end closes
// it, and whoever writes it says how the content is framed.

func appendStatusLine(b []byte, status int) []byte {
	if status == http.StatusOK {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10)
	return append(append(append(b, ' '), http.StatusText(status)...), "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

func appendLength(b []byte, n int64) []byte {
	return append(strconv.AppendInt(append(b, "Content-Length: "...), n, 10), "\r\n"...)
}

// appendHead appends the status line and fields.
func appendHead(b []byte, status int, fields field.List) []byte {
	return appendFields(appendStatusLine(b, status), fields, appendField)
}

// appendFields appends an answer's fields as a protocol writes them, with the
// Date of now where there is none (RFC 9110 section 6.6.1), less what frames the
// message or belongs to a connection of HTTP/1.1.
func appendFields(b []byte, fields field.List, add func(b []byte, name, value string) []byte) []byte {
	dated := false
	for _, f := range fields {
		switch len(f.Name) {
		case len("Date"):
			dated = dated || field.EqualName(f.Name, "Date")
		case len("Content-Length"):
			if field.EqualName(f.Name, "Content-Length") {
				continue
			}
		}
		if !field.HopByHopName(f.Name) {
			b = add(b, f.Name, f.Value)
		}
	}
	if !dated {
		b = add(b, "Date", dateNow(time.Now()))
	}
	return b
}

// end appends what the cache did, what becomes of the connection, and the
// empty line.
func (h *h1) end(b []byte) []byte {
	if h.note.says() {
		b = append(h.note.append(append(b, "Cache-Status: "...)), "\r\n"...)
	}
	if hsts := h.hsts(); hsts != "" {
		b = appendField(b, "Strict-Transport-Security", hsts)
	}
	if at := h.conn.door.proxy.elsewhere(&h.exchange); at != "" {
		b = appendField(b, "Alt-Svc", at)
	}
	h.last = h.last || h.conn.door.proxy.draining.Load()
	switch {
	case h.last:
		b = append(b, "Connection: close\r\n"...)
	case h.head.Minor == 0:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

// begin says that the answer begins: no informational response follows.
func (h *h1) begin() {
	h.mu.Lock()
	h.begun = true
	h.mu.Unlock()
}

// broken ends the connection so that the client sees that the answer is not
// whole.
func (h *h1) broken(err error) {
	h.err = err
	h.conn.abort()
}

// write writes a head and the content that is there already. It returns how
// much of the content was written, all of it unless h.err is set.
func (h *h1) write(head, content []byte) int { return h.writeParts(head, content, nil) }

// writeChunk writes what head holds, if anything, and one chunk.
func (h *h1) writeChunk(head, content []byte) int {
	head = append(strconv.AppendInt(head, int64(len(content)), 16), "\r\n"...)
	return h.writeParts(head, content, lineEnd)
}

var lineEnd = []byte("\r\n")

func (h *h1) writeParts(head, content, end []byte) (n int) {
	h.begin()
	switch {
	case len(head) == 0 && len(end) == 0:
		n, h.err = h.conn.write(content)
		return n
	case len(content) > bodyCopyMax && !h.conn.oneRecord(len(head)+len(content)+len(end)):
		n, h.err = h.conn.writeParts(head, content, end)
	default:
		before := len(head)
		head = append(append(head, content...), end...)
		n, h.err = h.conn.write(head)
		n = min(len(content), max(0, n-before))
	}
	h.out1 = head[:0]
	return n
}

// bodyless reports whether no content follows an answer's head, whatever its
// fields say (RFC 9112 section 6.3).
func bodyless(x *exchange, status int) bool {
	return x.method == "HEAD" || status == http.StatusNoContent || status == http.StatusNotModified
}

// stored implements responder.
func (h *h1) stored(x *exchange, s *cache.Stored) {
	ready := s.Prepared(cache.FormLines)
	if ready == nil {
		ready = prepare(s)
		s.SetPrepared(cache.FormLines, ready)
	}
	b := append(h.out1[:0], ready...)
	b = append(x.note.age(append(b, "Age: "...)), "\r\n"...)
	content := s.Body
	if bodyless(x, s.Status) {
		content = nil
	}
	x.status = s.Status
	x.sent = int64(h.write(h.end(b), content))
}

// prepare builds the head of a stored response once, for all who ask for it.
func prepare(s *cache.Stored) []byte {
	b := appendHead(nil, s.Status, s.Fields.Without(func(name string) bool { return field.EqualName(name, "Age") }))
	if s.Status != http.StatusNoContent && s.Status != http.StatusNotModified {
		b = appendLength(b, int64(len(s.Body)))
	}
	return b[:len(b):len(b)]
}

// tooMuchToCome reports whether more of the request's content is to come than
// is read only to save the connection.
func (h *h1) tooMuchToCome() bool {
	left := h.upload.left()
	return left < 0 || left > drainBytesMax
}

// send implements responder.
func (h *h1) send(x *exchange, status int, fields field.List, body []byte) {
	b := appendHead(h.out1[:0], status, fields)
	if status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified {
		b = appendLength(b, int64(len(body)))
	}
	if h.head.Length != 0 && h.tooMuchToCome() {
		h.last = true
	}
	if bodyless(x, status) {
		body = nil
	}
	x.status = status
	x.sent = int64(h.write(h.end(b), body))
}

// stream implements responder.
func (h *h1) stream(x *exchange, status int, fields field.List, length int64, body source) {
	h.aside()
	x.status = status
	b := appendHead(h.out1[:0], status, fields)
	none := bodyless(x, status)
	chunked := false
	switch {
	case length >= 0 && status != http.StatusNoContent && (status != http.StatusNotModified || length > 0):
		b = appendLength(b, length)
	case none:
	case h.head.Minor == 0: // who knows no chunks: the connection's end is the content's
		h.last = true
	default:
		chunked = true
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		if t, ok := body.(trailed); ok && x.takesTrailers && t.Announced() != "" {
			b = appendField(b, "Trailer", t.Announced())
		}
	}
	if x.expects && h.upload.isStopped() {
		h.last = true // it waits to send what nobody wants
	}
	b = h.end(b)
	if none {
		h.write(b, nil)
		body.Close()
		return
	}
	h.rest = rest{body: body, length: length, chunked: chunked}
	h.sendRest(b)
}

var errTooLong = errors.New("content longer than its announced length")

// watch implements watcher.
func (h *h1) watch(gone func()) (stop func()) { return h.conn.watch(gone) }

// switched implements switcher.
func (h *h1) switched(x *exchange, fields field.List) (side, error) {
	h.aside()
	b := appendHead(h.out1[:0], http.StatusSwitchingProtocols, fields)
	b = append(b, "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"...)
	x.status = http.StatusSwitchingProtocols
	h.last = true
	if h.write(b, nil); h.err != nil {
		return nil, h.err
	}
	c := h.conn
	var early []byte
	if c.r < c.w {
		early = append(early, (*c.in)[c.r:c.w]...)
		c.r = c.w
	}
	_ = c.Conn.SetReadDeadline(time.Time{}) // fails for a closed connection only: then reading tells
	w := newNetSide(c.Conn, c.raw, early, c.Conn.Close)
	w.write = c.write
	return w, nil
}

// inform implements responder. Who speaks HTTP/1.0 knows no informational
// responses (RFC 9110 section 15.2).
func (h *h1) inform(status int, fields field.List) {
	if h.head.Minor == 0 {
		return
	}
	b := appendStatusLine(nil, status)
	for _, f := range fields {
		b = appendField(b, f.Name, f.Value)
	}
	h.informOnce(append(b, "\r\n"...))
}

func (h *h1) informOnce(head []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.begun {
		h.conn.inform(head)
	}
}
