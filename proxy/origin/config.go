package origin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Config describes one origin. Zero values mean the documented defaults.
type Config struct {
	// Name is what errors call the origin.
	Name string
	// Servers are the URLs of its servers, each a host and perhaps a port behind
	// http:// or https://.
	Servers []string
	// TLS is how those behind https:// are spoken to; nil: verified by the CAs
	// that the system trusts. Without a ServerName each is asked for by its host
	// in Servers. It is not changed any more. Connect bounds the handshake, too.
	TLS *tls.Config
	// ConnsMax bounds the requests at one server at once, each of which has a
	// connection. Default 4096.
	ConnsMax int
	// IdleMax bounds the idle connections kept to one server: no more than there
	// were requests at once. Default 1024.
	IdleMax int
	// HeadBytesMax bounds a response's head, and its trailer section. Default
	// 64 KiB.
	HeadBytesMax int
	// FieldsMax bounds the field lines of a response's head, and of its trailer
	// section. Default 256.
	FieldsMax int
	Timeouts  Timeouts
	Health    Health
	// Preface has every connection begin with a header of the PROXY protocol in
	// this version, 1 or 2, that says for whom it is: Request.For. Such a
	// connection carries one request. Default 0: none.
	Preface int
	// Dial opens a connection; the default is a net.Dialer's DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Timeouts bound each phase of a request.
type Timeouts struct {
	// Connect bounds opening a connection. Default 2 s.
	Connect time.Duration
	// Send bounds how long the server may take to accept each piece of the
	// request's content. Default 30 s.
	Send time.Duration
	// Header bounds the time from the end of the request until the response's
	// head is complete; each 1xx response starts it anew. A request sent in one
	// piece counts from its beginning. Default 30 s.
	Header time.Duration
	// Idle bounds the wait for more of a response's content. Default 30 s.
	Idle time.Duration
	// KeepAlive is how long an idle connection is kept. A shorter time named by
	// the server in a Keep-Alive field is respected. Default 60 s.
	KeepAlive time.Duration
}

// Health describes the active health check of each server. Without a Path
// there is none, and only failing connects set a server aside.
type Health struct {
	// Path is the target of the GET, such as /healthz. Any 2xx or 3xx answer is
	// a success; two failures in a row take the server out, two successes in a
	// row take it in again.
	Path string
	// Host is the Host field of the GET; the default is the server's own.
	Host string
	// Every is the time between two checks. Default 2 s. A check that takes
	// longer than this (at least 1 s, at most Timeouts.Header) has failed.
	Every time.Duration
}

// withDefaults returns c with every zero value replaced, or every problem.
func (c Config) withDefaults() (Config, error) {
	var problems []error
	if len(c.Servers) == 0 {
		problems = append(problems, fmt.Errorf("origin %q: no servers; add one, such as http://10.0.0.5:8080", c.Name))
	}
	if p := c.Health.Path; p != "" && (p[0] != '/' || !validTarget(p)) {
		problems = append(problems, fmt.Errorf("origin %q: health path %q: not a path; write one such as /healthz", c.Name, p))
	}
	if !validHost(c.Health.Host) {
		problems = append(problems, fmt.Errorf("origin %q: health host %q: not a host name", c.Name, c.Health.Host))
	}
	if c.Preface < 0 || c.Preface > 2 {
		problems = append(problems, fmt.Errorf("origin %q: version %d of the PROXY protocol: there are 1 and 2", c.Name, c.Preface))
	}
	for _, n := range []*int{&c.ConnsMax, &c.IdleMax, &c.HeadBytesMax, &c.FieldsMax} {
		if *n < 0 {
			problems = append(problems, fmt.Errorf("origin %q: a limit of %d: limits are positive", c.Name, *n))
		}
	}
	t := &c.Timeouts
	for _, d := range []*time.Duration{&t.Connect, &t.Send, &t.Header, &t.Idle, &t.KeepAlive, &c.Health.Every} {
		if *d < 0 {
			problems = append(problems, fmt.Errorf("origin %q: a time limit of %v: time limits are positive", c.Name, *d))
		}
	}
	setDefault(&c.ConnsMax, 4096)
	setDefault(&c.IdleMax, 1024)
	setDefault(&c.HeadBytesMax, 64<<10)
	setDefault(&c.FieldsMax, 256)
	setDefault(&t.Connect, 2*time.Second)
	setDefault(&t.Send, 30*time.Second)
	setDefault(&t.Header, 30*time.Second)
	setDefault(&t.Idle, 30*time.Second)
	setDefault(&t.KeepAlive, time.Minute)
	setDefault(&c.Health.Every, 2*time.Second)
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	return c, errors.Join(problems...)
}

func setDefault[T int | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

// sessionsMax is how many TLS sessions with a server are kept to be resumed.
const sessionsMax = 64

// tlsFor is how one server is spoken to by TLS.
func (c *Config) tlsFor(host string) *tls.Config {
	t := c.TLS.Clone() // of nil it is nil
	if t == nil {
		t = new(tls.Config)
	}
	t.ServerName = cmp.Or(t.ServerName, host)
	t.MinVersion = max(t.MinVersion, tls.VersionTLS12)
	t.NextProtos = []string{"http/1.1"}
	if t.ClientSessionCache == nil {
		t.ClientSessionCache = tls.NewLRUClientSessionCache(sessionsMax)
	}
	return t
}

// newServer reads one entry of Config.Servers.
func (p *Pool) newServer(text string) (*server, error) {
	addr, host, secure, err := serverAddress(text)
	if err != nil {
		return nil, fmt.Errorf("origin %q: %w", p.cfg.Name, err)
	}
	s := &server{addr: addr, p: p}
	if secure {
		s.secure = p.cfg.tlsFor(host)
	}
	return s, nil
}

// serverAddress reads one entry of Config.Servers into host:port and host.
func serverAddress(s string) (addr, host string, secure bool, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", "", false, fmt.Errorf("server %q: %w", s, errors.Unwrap(err))
	}
	secure = u.Scheme == "https"
	switch {
	case !secure && u.Scheme != "http" || u.Hostname() == "":
		return "", "", false, fmt.Errorf("server %q: not a server; write http://host:port or https://host:port", s)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return "", "", false, fmt.Errorf("server %q: more than scheme, host and port; a request's target is forwarded as it came", s)
	}
	port := u.Port()
	if port == "" {
		port = "80"
		if secure {
			port = "443"
		}
	}
	return net.JoinHostPort(u.Hostname(), port), u.Hostname(), secure, nil
}
