package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"firstbell/proxy/field"
)

// Protocols are what is spoken inside TLS over TCP, by their names in ALPN, the
// best first.
var Protocols = []string{"h2", "http/1.1"}

const (
	// greetingTimeMax is how long a client may take for its handshake. A phone at
	// the edge of its network needs three seconds for four round trips.
	greetingTimeMax = 10 * time.Second
	// greetingsMax bounds the handshakes under way: at 40 KiB each they take
	// 160 MiB. Beyond it a connection waits for its turn, within its time.
	greetingsMax = 4096
)

// secured is what an exchange knows of the TLS connection it came by. The zero
// value is that of one in plain.
type secured struct {
	is   bool
	name string // the host named in the handshake (SNI), in lower case; empty: none
}

func securedBy(t *tls.Conn) secured {
	return secured{is: true, name: strings.ToLower(t.ConnectionState().ServerName)}
}

// greetingOutcome says what became of a handshake.
type greetingOutcome uint8

const (
	greetingDone     greetingOutcome = iota
	greetingBusy                     // no turn came in time
	greetingSlow                     // the client took too long
	greetingLeft                     // the client went away
	greetingPlain                    // it spoke HTTP without TLS
	greetingGarbage                  // it spoke something else
	greetingUnknown                  // it named a host that no route serves
	greetingRejected                 // it did not take what it was shown, as the certificate
	greetingRefused                  // no version, cipher or protocol in common, or a broken message
	greetingOutcomes
)

var greetingNames = [greetingOutcomes]string{
	"done", "busy", "slow", "left", "plain-http", "not-tls", "unknown-name", "rejected-by-client", "refused",
}

// String returns the outcome as logs and metrics spell it.
func (o greetingOutcome) String() string { return greetingNames[o] }

// greeting is a connection during its handshake, and what TLS runs over after.
type greeting struct {
	net.Conn
	stranger bool // the name it asked for is not ours

	pacer
	strict bool // writes end at their deadline, however fast the client is
}

// Write implements net.Conn. It goes on beyond its deadline while the client
// takes what is sent, if slowly: TLS cannot go on behind a write that broke off.
func (g *greeting) Write(p []byte) (n int, err error) {
	for {
		wrote, err := g.Conn.Write(p[n:])
		n += wrote
		if n == len(p) || g.strict {
			return n, err
		}
		if err = g.wroteSome(int64(wrote), err); err == nil {
			err = g.extend()
		}
		if err != nil {
			return n, err
		}
	}
}

// extend implements pace.
func (g *greeting) extend() error { return g.Conn.SetWriteDeadline(time.Now().Add(g.patience())) }

// awaitRoomBelow returns once the socket of a TLS connection takes more.
func awaitRoomBelow(nc net.Conn) error {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return nil
	}
	g, ok := t.NetConn().(*greeting)
	if !ok || g.raw == nil {
		return nil
	}
	return awaitRoom(g.raw, g)
}

// UnknownName is called by whoever answers the handshake when it names a host
// that is not served here.
func (g *greeting) UnknownName() { g.stranger = true }

// wake implements occupant: who has asked for nothing yet loses nothing.
func (g *greeting) wake() { g.breakOff() }

// breakOff implements occupant.
func (g *greeting) breakOff() { _ = g.Conn.Close() } // the handshake finds out

// transport is what a connection's TLS runs over, as it was accepted.
func transport(t *tls.Conn) net.Conn {
	if g, ok := t.NetConn().(*greeting); ok {
		return bare(g.Conn)
	}
	return t.NetConn()
}

// greet takes a connection through its handshake and serves what it speaks.
func (d *door) greet(nc net.Conn, secure *tls.Config) {
	g := &greeting{Conn: nc, pacer: d.newPacer()}
	if tcp, ok := bare(nc).(*net.TCPConn); ok {
		g.tcp = tcp
		g.raw, _ = tcp.SyscallConn() // fails for a closed connection only: then reading tells
	}
	if !d.enter(g) {
		_ = nc.Close() // too late for it
		return
	}
	t, outcome := d.handshake(g, secure)
	d.leave(g)
	if outcome != greetingDone {
		d.proxy.counters.handshakes[outcome].Add(1)
		_ = nc.Close() // the client has its answer, or will have none
		return
	}
	state := t.ConnectionState()
	if state.DidResume {
		d.proxy.counters.resumed.Add(1)
	}
	d.proxy.counters.handshakes[greetingDone].Add(1)
	switch state.NegotiatedProtocol {
	case "h2":
		d.serveHTTP2(t)
	case "acme-tls/1": // a CA has seen what it wanted to (RFC 8737)
		_ = t.Close()
	default:
		d.serveHTTP1(t)
	}
}

// handshake returns the connection that came of it, in time and in turn.
func (d *door) handshake(g *greeting, secure *tls.Config) (*tls.Conn, greetingOutcome) {
	ctx, cancel := context.WithTimeout(context.Background(), greetingTimeMax)
	defer cancel()
	select {
	case d.greetings <- struct{}{}:
		defer func() { <-d.greetings }()
	case <-ctx.Done():
		return nil, greetingBusy
	}
	t := tls.Server(g, secure)
	// A handshake takes a deep stack, which who serves the connection would keep.
	shaken := make(chan error, 1)
	go func() { shaken <- t.HandshakeContext(ctx) }()
	err := <-shaken
	if err == nil {
		return t, greetingDone
	}
	outcome := g.failed(ctx, err)
	d.proxy.log.Debug("a TLS handshake came to nothing", "remote", g.RemoteAddr().String(), "reason", outcome.String(), "error", err)
	return nil, outcome
}

// failed says why there is no connection, and answers who spoke plainly.
func (g *greeting) failed(ctx context.Context, err error) greetingOutcome {
	if strange, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if strange.Conn != nil && plainHTTP(strange.RecordHeader[:]) {
			g.answerPlainly()
			return greetingPlain
		}
		return greetingGarbage
	}
	op, ok := errors.AsType[*net.OpError](err)
	switch {
	case g.stranger:
		return greetingUnknown
	case ctx.Err() != nil, timedOut(err):
		return greetingSlow
	case ok && op.Op == "remote error":
		return greetingRejected
	case ok, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
		return greetingLeft
	}
	return greetingRefused
}

// plainHTTP reports whether the first bytes are those of a request.
func plainHTTP(b []byte) bool {
	for _, method := range [...]string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH"} {
		if bytes.HasPrefix(b, []byte(method)) {
			return true
		}
	}
	return false
}

// answerPlainly tells somebody who sent a request without TLS what is wrong.
func (g *greeting) answerPlainly() {
	body := problemJSON(nil, http.StatusBadRequest, "this port speaks TLS: ask with https://")
	head := appendField(appendStatusLine(nil, http.StatusBadRequest), "Content-Type", problemType)
	head = append(append(appendLength(head, int64(len(body))), "Connection: close\r\n\r\n"...), body...)
	if g.SetDeadline(time.Now().Add(informTimeMax)) == nil {
		_, _ = g.Write(head) // more cannot be done for it
	}
}

// meant reports whether the connection that x came by is meant for its host: the
// client has seen a certificate for it, and the name in the handshake leads to
// the same route (RFC 9110 section 7.4). Who could name none, as an address is no
// name for it (RFC 6066 section 3), has named nothing else.
func (p *Proxy) meant(x *exchange, rt *Route) bool {
	name := x.tls.name
	if name == text(x.host) {
		return true
	}
	if name == "" {
		_, err := netip.ParseAddr(strings.Trim(text(x.host), "[]"))
		return err == nil || p.covers("", text(x.host))
	}
	if !p.covers(name, text(x.host)) {
		return false
	}
	same, _ := p.table.Load().find([]byte(name), x.target.path, x.method)
	return same == rt
}

// misdirected answers a request on a connection that is for another host.
func (p *Proxy) misdirected(x *exchange) {
	p.counters.misdirected.Add(1)
	p.refuse(x, http.StatusMisdirectedRequest, "this connection was made for another host; ask for this one over a connection of its own")
}

// secureCookie is what a cookie of ours ends with: one that was set over TLS is
// not sent in plain.
func (x *exchange) secureCookie() string {
	if x.scheme == "https" {
		return "; Secure"
	}
	return ""
}

// redirectMaxAge is how long a browser may remember a redirect to https: one
// that was put up by mistake is over before the next lesson.
const redirectMaxAge = "max-age=600"

// redirectToTLS sends a request in plain to the same URL by https. 301 would make
// a GET of a POST (RFC 9110 section 15.4.2), so it is for GET and HEAD alone.
func (p *Proxy) redirectToTLS(x *exchange, r *Redirect) {
	x.outcome = outcomeLocal
	status := http.StatusPermanentRedirect
	if x.method == "GET" || x.method == "HEAD" {
		status = r.Status
	}
	to := "https://" + string(x.host)
	if r.Port != "" && r.Port != "443" {
		to += ":" + r.Port
	}
	x.out.send(x, status, field.List{
		{Name: "Location", Value: to + string(x.target.raw)},
		{Name: "Cache-Control", Value: redirectMaxAge},
	}, nil)
}

// hsts is the Strict-Transport-Security field of x's answer; empty: none. A
// browser goes by the first it finds (RFC 6797 section 8.1): an origin's own
// stands before it.
func (x *exchange) hsts() string {
	if x.route == nil || x.scheme != "https" {
		return ""
	}
	return x.route.HSTS
}

var challengePath = []byte("/.well-known/acme-challenge/")

// proved answers a CA that asks whether a name is ours, if it does.
func (p *Proxy) proved(x *exchange) bool {
	if x.method != "GET" || !bytes.HasPrefix(x.target.path, challengePath) || !p.Serves(string(x.host)) {
		return false
	}
	content, known := p.prove(string(x.host), string(x.target.path))
	if !known {
		return false
	}
	x.outcome = outcomeLocal
	x.out.send(x, http.StatusOK, field.List{{Name: "Content-Type", Value: "application/octet-stream"}, {Name: "Cache-Control", Value: "no-store"}}, content)
	return true
}
