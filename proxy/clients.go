package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"firstbell/attendance"
	"firstbell/proxy/admission"
	"firstbell/proxy/field"
	"firstbell/proxy/peer"
)

// Clients says where clients' addresses are found, which of them may come in,
// and how much each may ask. The zero value trusts nobody, lets everybody in
// and limits nothing.
type Clients struct {
	// Trusted are the proxies in front of this one: what they say of the client
	// counts, and the limits of one address do not hold for theirs.
	Trusted peer.Set
	// RFC7239 says that they write Forwarded; otherwise X-Forwarded-For and
	// X-Forwarded-Proto count, and Forwarded does not.
	RFC7239 bool
	// Preface says that each of their connections begins with a header of the
	// PROXY protocol.
	Preface bool

	Access Access // of all clients

	V6Bits    int // of IPv6 addresses, which are one client; 64 when 0
	PerClient Allowance
	PerSchool Allowance
	Schools   *attendance.Schools // finds the school of a host; needed for PerSchool
}

// Access says which addresses may come in: those of Allow, or all where that is
// empty, but none of Deny.
type Access struct {
	Allow, Deny peer.Set
}

// lets reports whether a may come in. Where there is no address, as from
// within this process, nothing is denied.
func (s *Access) lets(a netip.Addr) bool {
	return !a.IsValid() || !s.Deny.Has(a) && (s.Allow.Empty() || s.Allow.Has(a))
}

// Allowance is how much one client, or one school, may ask.
type Allowance struct {
	Rate   admission.Rate // of requests; none when its Every is 0
	AtOnce int            // requests that wait for the end of their answer; 0: no limit
	// CheckIns says that check-ins and other small writes count and are refused,
	// too. A school behind one address sends all of its own within a minute.
	CheckIns bool
}

// clientKeysMax bounds the clients, and the schools, whose rates are remembered
// at once: 64 Ki take 6 MiB.
const clientKeysMax = 64 << 10

// allowances count what clients and schools ask. They outlive a change of
// Clients.
type allowances struct {
	clientRates *admission.Rates[netip.Addr]
	schoolRates *admission.Rates[string]
	clientsNow  *admission.Counts[netip.Addr]
	schoolsNow  *admission.Counts[string]

	denied      atomic.Int64 // requests, by address
	unreadable  atomic.Int64 // requests whose Forwarded field makes no sense
	prefaceless atomic.Int64 // connections of trusted proxies without a header
}

func newAllowances() *allowances {
	return &allowances{
		clientRates: admission.NewRates[netip.Addr](clientKeysMax), schoolRates: admission.NewRates[string](clientKeysMax),
		clientsNow: admission.NewCounts[netip.Addr](), schoolsNow: admission.NewCounts[string](),
	}
}

// SetClients changes who clients are and what they may, at once. nil is the
// zero value, and costs a request nothing.
func (p *Proxy) SetClients(c *Clients) {
	if c != nil && c.V6Bits == 0 {
		filled := *c
		filled.V6Bits = 64
		c = &filled
	}
	p.clients.Store(c)
}

// counted is what an exchange holds of the allowances until it is over.
type counted struct {
	client netip.Addr
	school string
	by     uint8 // byClient, bySchool
}

const (
	byClient = 1 << iota
	bySchool
)

// release gives back what the exchange holds.
func (a *allowances) release(c *counted) {
	if c.by&byClient != 0 {
		a.clientsNow.Leave(c.client)
	}
	if c.by&bySchool != 0 {
		a.schoolsNow.Leave(c.school)
	}
	*c = counted{}
}

// whence finds out who asks: x.client and, behind a trusted proxy, x.remote and
// x.scheme. It answers and reports false where that cannot be told, or where
// nobody from there is let in.
func (p *Proxy) whence(x *exchange, c *Clients) bool {
	x.client = addressOf(x.remote)
	trusted := c.Trusted.Has(x.client)
	if trusted {
		if !p.believe(x, c) {
			return false
		}
		trusted = c.Trusted.Has(x.client)
	}
	if !trusted && !c.Access.lets(x.client) {
		p.deny(x)
		return false
	}
	return true
}

func addressOf(remote string) netip.Addr {
	a, err := netip.ParseAddr(remote)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// believe takes from a trusted proxy's fields who the client is, and whether it
// speaks TLS.
func (p *Proxy) believe(x *exchange, c *Clients) bool {
	from, proto := x.client, ""
	if c.RFC7239 {
		lines := x.lines("Forwarded")
		client, by, err := peer.ForwardedClient(from, lines, &c.Trusted)
		if err != nil {
			p.allowances.unreadable.Add(1)
			p.refuse(x, http.StatusBadRequest, err.Error())
			return false
		}
		x.client, proto = client, by
	} else {
		x.client = peer.Client(from, x.lines("X-Forwarded-For"), &c.Trusted)
		if lines := x.lines("X-Forwarded-Proto"); len(lines) == 1 {
			proto = strings.ToLower(string(lines[0]))
		}
	}
	if x.client != from {
		x.remote = x.client.String()
	}
	if proto == "http" || proto == "https" {
		x.scheme = proto
	}
	return true
}

// lines are the values of every line with the name.
func (x *exchange) lines(name string) (all [][]byte) {
	if x.fields.Peek(name) == nil {
		return nil
	}
	for n, v := range x.fields.All() {
		if field.EqualName(n, name) {
			all = append(all, v)
		}
	}
	return all
}

// welcome reports whether the client may use its route, and may ask now;
// otherwise it answers. Without limits it costs two comparisons.
func (p *Proxy) welcome(x *exchange, c *Clients) bool {
	rt := x.route
	if rt.Access != nil {
		if c == nil {
			x.client = addressOf(x.remote)
		}
		if !rt.Access.lets(x.client) {
			p.deny(x)
			return false
		}
	}
	if c == nil {
		return true
	}
	small := rt.CheckIn != nil || rt.Collect != nil
	if a := &c.PerClient; a.limits(small) && x.client.IsValid() && !c.Trusted.Has(x.client) {
		who := peer.Network(x.client, c.V6Bits)
		if !allowed(p, x, a, who, p.allowances.clientRates, p.allowances.clientsNow, "too many requests come from your network; please wait a little") {
			return false
		}
		if a.AtOnce > 0 {
			x.counted.client, x.counted.by = who, x.counted.by|byClient
		}
	}
	if a := &c.PerSchool; a.limits(small) && c.Schools != nil {
		school := c.Schools.Find(string(x.host)).ID
		if !allowed(p, x, a, school, p.allowances.schoolRates, p.allowances.schoolsNow, "too many requests come from your school; please wait a little") {
			return false
		}
		if a.AtOnce > 0 {
			x.counted.school, x.counted.by = school, x.counted.by|bySchool
		}
	}
	return true
}

// limits reports whether it bounds a request, a small write where small is
// true.
func (a *Allowance) limits(small bool) bool {
	return (a.Rate.Every > 0 || a.AtOnce > 0) && (!small || a.CheckIns)
}

// allowed counts one request of the key, or answers 429.
func allowed[K comparable](p *Proxy, x *exchange, a *Allowance, key K, rates *admission.Rates[K], now *admission.Counts[K], detail string) bool {
	wait := time.Second + time.Duration(x.arrived.Nanosecond()) // spread by when it came
	if a.AtOnce == 0 || now.Enter(key, a.AtOnce) {
		if a.Rate.Every == 0 {
			return true
		}
		again, ok := rates.Take(key, a.Rate, x.arrived)
		if ok {
			return true
		}
		wait = again
		if a.AtOnce > 0 {
			now.Leave(key)
		}
	}
	x.outcome = outcomeLimited
	p.problem(x, http.StatusTooManyRequests, detail, field.List{retryAfter(wait)})
	return false
}

func (p *Proxy) deny(x *exchange) {
	p.allowances.denied.Add(1)
	x.outcome = outcomeDenied
	p.problem(x, http.StatusForbidden, "this is not served to your network", nil)
}

// ClientStats say how the allowances are used.
type ClientStats struct {
	Denied      int64            // requests of addresses that are not let in
	Unreadable  int64            // requests whose Forwarded field, from a trusted proxy, is malformed
	Prefaceless int64            // connections of trusted proxies without a PROXY protocol header
	Limited     map[string]int64 // requests refused, by the limit: client-rate, client-at-once, school-rate, school-at-once
	Clients     int              // whose rate is remembered
	Schools     int
}

func (a *allowances) stats() ClientStats {
	s := ClientStats{Denied: a.denied.Load(), Unreadable: a.unreadable.Load(), Prefaceless: a.prefaceless.Load(), Limited: map[string]int64{}}
	var n uint64
	s.Clients, n = a.clientRates.Stats()
	s.Limited["client-rate"] = int64(n)
	s.Schools, n = a.schoolRates.Stats()
	s.Limited["school-rate"] = int64(n)
	_, n = a.clientsNow.Stats()
	s.Limited["client-at-once"] = int64(n)
	_, n = a.schoolsNow.Stats()
	s.Limited["school-at-once"] = int64(n)
	return s
}

// forWhom is what an origin is told in front of who asks.
func (x *exchange) forWhom() peer.Header {
	h := peer.Header{Secure: x.scheme == "https"}
	if x.ends != nil {
		h.From, h.To = x.ends.From, x.ends.To
	}
	client := x.client
	if !client.IsValid() {
		client = addressOf(x.remote)
	}
	if client.IsValid() && h.From.Addr() != client {
		h.From = netip.AddrPortFrom(client, 0) // a field says no port
	}
	if h.From.IsValid() && !h.To.IsValid() {
		h.To = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		if client.Is4() {
			h.To = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
	}
	return h
}

// endsOf are the ends of a client's connection.
func endsOf(nc net.Conn) peer.Header {
	return peer.Header{From: portOf(nc.RemoteAddr()), To: portOf(nc.LocalAddr())}
}

func portOf(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := tcp.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// proxied is a connection that a trusted proxy made for somebody else, as it
// said in front. Its bytes are those of the connection below.
type proxied struct {
	net.Conn
	from   net.Addr
	to     net.Addr // where the client found the proxy
	secure bool     // the client speaks TLS with the proxy
}

// RemoteAddr implements net.Conn: it is the client's.
func (c *proxied) RemoteAddr() net.Addr { return c.from }

// LocalAddr implements net.Conn: it is the one that the client asked.
func (c *proxied) LocalAddr() net.Addr { return c.to }

// bare is the connection below what a trusted proxy said of it.
func bare(nc net.Conn) net.Conn {
	if p, ok := nc.(*proxied); ok {
		return p.Conn
	}
	return nc
}

// prefaceTimeMax is how long a trusted proxy may take for its header, which it
// sends at once.
const prefaceTimeMax = 5 * time.Second

// readPreface reads the header of the PROXY protocol that a trusted proxy's
// connection begins with.
func (d *door) readPreface(nc net.Conn) (net.Conn, error) {
	if err := nc.SetReadDeadline(time.Now().Add(prefaceTimeMax)); err != nil {
		return nil, err
	}
	h, err := peer.ReadHeader(nc)
	if err != nil {
		d.proxy.allowances.prefaceless.Add(1)
		d.proxy.log.Debug("reading the PROXY protocol header", "remote", nc.RemoteAddr().String(), "error", err)
		return nil, err
	}
	if err := nc.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if !h.From.IsValid() {
		return nc, nil // the proxy's own, such as a health check
	}
	return &proxied{Conn: nc, from: net.TCPAddrFromAddrPort(h.From), to: net.TCPAddrFromAddrPort(h.To), secure: h.Secure}, nil
}
