package proxy

import (
	"bytes"
	"net/http"
	"strconv"
	"sync"
	"time"

	"firstbell/proxy/field"
)

// An informational response (RFC 9110 section 15.2) is for the client whose
// request brought it, and for nobody else: it is neither stored nor told to
// those who join a flight.

// interimTimeMax is how long a client may keep an informational response from
// being sent. A flight waits that long, and no longer, for the one who began it.
const interimTimeMax = 100 * time.Millisecond

// relay passes informational responses from a flight on to the exchange that
// began it, until that has its answer.
type relay struct {
	mu sync.Mutex
	to *exchange // guarded by mu; nil: it is over
}

// relay returns what an origin's informational responses are given to. It is
// to be ended before the exchange is answered.
func (x *exchange) relay() func(status int, fields field.List) {
	r := &relay{to: x}
	x.relayed = r
	return r.pass
}

func (r *relay) pass(status int, fields field.List) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to != nil {
		r.to.inform(status, fields)
	}
}

// endRelay waits for the informational response being written, if any; no
// other comes after it.
func (x *exchange) endRelay() {
	if r := x.relayed; r != nil {
		r.mu.Lock()
		r.to = nil
		r.mu.Unlock()
		x.relayed = nil
	}
}

// inform passes an informational response on. Set-Cookie is left out: what
// logs a student in belongs to the final response, where the rules for it are
// kept.
func (x *exchange) inform(status int, fields field.List) {
	if status <= 101 || status > 199 {
		return
	}
	x.out.inform(status, fields.Without(func(name string) bool {
		return field.HopByHop([]byte(name)) || equalName(name, "Set-Cookie") || equalName(name, "Content-Length")
	}))
}

// inform implements responder. Who speaks HTTP/1.0 knows no informational
// responses (RFC 9110 section 15.2), and behind answers that still wait in
// fasthttp's buffer there is no place for one.
func (h *h1) inform(status int, fields field.List) {
	c := h.conn
	if c == nil || c.ahead || h.version == "1.0" {
		return
	}
	b := strconv.AppendInt([]byte("HTTP/1.1 "), int64(status), 10)
	b = append(append(append(b, ' '), http.StatusText(status)...), "\r\n"...)
	for _, f := range fields {
		b = append(append(b, f.Name...), ": "...)
		b = append(append(b, f.Value...), "\r\n"...)
	}
	c.inform(append(b, "\r\n"...))
}

// inform writes a whole informational response. A connection that does not
// take it in time is cut, as half of one leaves nothing to go on with.
func (c *clientConn) inform(head []byte) {
	c.writeBy = time.Time{} // the next Write sets its own limit again
	err := c.Conn.SetWriteDeadline(time.Now().Add(interimTimeMax))
	if err == nil {
		_, err = c.Conn.Write(head)
	}
	if err != nil {
		abort(c)
		_ = c.Conn.Close() // the exchange finds out when it writes
	}
}

var headEnd = []byte("\r\n\r\n")

// heard notes how a read ended.
func (c *clientConn) heard(b []byte) { c.headWhole = bytes.HasSuffix(b, headEnd) }

// asked notes that a request was read. fasthttp keeps an answer back while it
// has bytes of the next request. It has none when the connection's last read
// ended just where the request's head did, and this one needed a read of its
// own. Once that is in doubt it stays so: informational responses are advice.
func (c *clientConn) asked(content bool) {
	c.ahead = c.ahead || c.unsure || c.phase == phaseIdle
	c.unsure = c.unsure || content || !c.headWhole
}
