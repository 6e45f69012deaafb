package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A server that cannot be connected to is set aside for about this long,
	// twice as long each time it happens again: short enough that a restart
	// costs a second, long enough that a dead server costs nobody much.
	asideMin = 250 * time.Millisecond
	asideMax = 10 * time.Second
)

// server is one server of an origin.
type server struct {
	addr   string
	secure *tls.Config // nil: in plain
	p      *Pool

	inFlight atomic.Int64
	requests atomic.Uint64
	failures atomic.Uint64
	opened   atomic.Uint64
	reused   atomic.Uint64

	down       atomic.Bool  // by active health checks
	asideUntil atomic.Int64 // Unix nanoseconds; 0: the last connect worked

	mu           sync.Mutex // guards below
	idle         []*conn    // the one used last is on top, and is taken first
	closed       bool
	connectFails int // in a row
}

// take returns a connection for one request, an idle one where there is one. It
// counts as in flight from then on until an exchange releases it.
func (s *server) take(ctx context.Context, r *Request) (*conn, error) {
	if s.p.cfg.Preface != 0 {
		return s.takeFresh(ctx, r)
	}
	if !s.enter() {
		return nil, &Error{Doing: doingConnect, Server: s.addr, Kind: ErrBusy}
	}
	return s.next(ctx, r)
}

// next is take for a request that counts already, which it does not do any more
// after an error. Whether an idle connection is usable is looked at when it is
// used.
func (s *server) next(ctx context.Context, r *Request) (*conn, error) {
	now := time.Now()
	for c := s.pop(); c != nil; c = s.pop() {
		if c.young(now) {
			c.reused = true
			return c, nil
		}
		c.end()
	}
	return s.dialOrLeave(ctx, r)
}

// takeFresh is take without the idle connections.
func (s *server) takeFresh(ctx context.Context, r *Request) (*conn, error) {
	if !s.enter() {
		return nil, &Error{Doing: doingConnect, Server: s.addr, Kind: ErrBusy}
	}
	return s.dialOrLeave(ctx, r)
}

// enter counts a request in, unless there are as many as may be.
func (s *server) enter() bool {
	if s.inFlight.Add(1) > int64(s.p.cfg.ConnsMax) {
		s.inFlight.Add(-1)
		return false
	}
	return true
}

func (s *server) full() bool { return s.inFlight.Load() >= int64(s.p.cfg.ConnsMax) }

func (s *server) dialOrLeave(ctx context.Context, r *Request) (*conn, error) {
	c, err := s.dial(ctx, r)
	if err != nil {
		s.inFlight.Add(-1)
	}
	return c, err
}

// dial opens a connection and remembers how that went.
func (s *server) dial(ctx context.Context, r *Request) (*conn, error) {
	limited, cancel := context.WithTimeout(ctx, s.p.cfg.Timeouts.Connect)
	defer cancel()
	nc, err := s.open(limited, r)
	if err == nil {
		s.opened.Add(1)
		s.welcome()
		return newConn(s, nc), nil
	}
	kind := ErrConnect
	switch {
	case ctx.Err() != nil: // the caller went away: the server is not to blame
		return nil, &Error{Doing: doingConnect, Server: s.addr, Kind: ctx.Err(), Err: err}
	case limited.Err() != nil || errors.Is(kindOf(ctx, err), ErrTimeout):
		err = fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	s.countFailure(kind)
	s.setAside()
	return nil, &Error{Doing: doingConnect, Server: s.addr, Kind: kind, Err: err}
}

// open opens a connection, and has the server prove who it is where it speaks
// TLS.
func (s *server) open(ctx context.Context, r *Request) (net.Conn, error) {
	nc, err := s.p.cfg.Dial(ctx, "tcp", s.addr)
	if err == nil && s.p.cfg.Preface != 0 {
		err = s.introduce(ctx, nc, r)
	}
	if err != nil || s.secure == nil {
		return nc, err
	}
	t := &tlsConn{below: &ending{Conn: nc}}
	t.Conn = tls.Client(t.below, s.secure)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = nc.Close() // the handshake's error says more
		return nil, fmt.Errorf("the TLS handshake: %w", err)
	}
	return t, nil
}

// countFailure counts what the server is to blame for.
func (s *server) countFailure(kind error) {
	switch kind {
	case ErrConnect, ErrTimeout, ErrCut, ErrMalformed:
		s.failures.Add(1)
	}
}

// setAside keeps requests away for a while. The many connects that fail at
// once count as one.
func (s *server) setAside() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.UnixNano() < s.asideUntil.Load() {
		return
	}
	d := min(asideMin<<min(s.connectFails, 10), asideMax)
	s.connectFails++
	d = d*3/4 + rand.N(d/2) // a quarter more or less, so that servers do not return as one
	s.asideUntil.Store(now.Add(d).UnixNano())
}

// welcome takes a server in again that could be connected to.
func (s *server) welcome() {
	if s.asideUntil.Load() == 0 {
		return
	}
	s.mu.Lock()
	s.connectFails = 0
	s.asideUntil.Store(0)
	s.mu.Unlock()
}

// healthy reports whether neither a failing connect nor health checks keep the
// server out.
func (s *server) healthy() bool {
	if s.down.Load() {
		return false
	}
	until := s.asideUntil.Load()
	return until == 0 || time.Now().UnixNano() >= until
}

// pop takes the idle connection used last, nil if there is none.
func (s *server) pop() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.idle) - 1
	if n < 0 {
		return nil
	}
	c := s.idle[n]
	s.idle[n] = nil
	s.idle = s.idle[:n]
	return c
}

// put keeps a connection for the next request, or closes it if there are
// enough. keepAlive is the idle time the server named, or 0.
func (s *server) put(c *conn, keepAlive time.Duration) {
	c.idleSince = time.Now()
	c.idleMax = s.p.cfg.Timeouts.KeepAlive
	if keepAlive > 0 {
		c.idleMax = min(c.idleMax, keepAlive)
	}
	s.mu.Lock()
	keep := !s.closed && len(s.idle) < s.p.cfg.IdleMax
	if keep {
		s.idle = append(s.idle, c)
	}
	s.mu.Unlock()
	if !keep {
		c.end()
	}
}

// sweep closes the connections that have been idle for too long, or that the
// server has closed.
func (s *server) sweep(now time.Time) {
	s.mu.Lock()
	kept := s.idle[:0]
	var gone []*conn
	for _, c := range s.idle {
		if c.usable(now) {
			kept = append(kept, c)
		} else {
			gone = append(gone, c)
		}
	}
	clear(s.idle[len(kept):])
	s.idle = kept
	s.mu.Unlock()
	for _, c := range gone {
		c.end()
	}
}

// close closes the idle connections, and every other once it is released.
func (s *server) close() {
	s.mu.Lock()
	idle := s.idle
	s.idle, s.closed = nil, true
	s.mu.Unlock()
	for _, c := range idle {
		c.end()
	}
}

func (s *server) stats() ServerStats {
	s.mu.Lock()
	idle := len(s.idle)
	s.mu.Unlock()
	return ServerStats{
		Address: s.addr, Healthy: s.healthy(), InFlight: int(s.inFlight.Load()), Idle: idle,
		Requests: s.requests.Load(), Failures: s.failures.Load(),
		Opened: s.opened.Load(), Reused: s.reused.Load(),
	}
}

// introduce writes whom a connection is for in front of everything else. After
// an error the connection is closed.
func (s *server) introduce(ctx context.Context, nc net.Conn, r *Request) error {
	header := r.For.AppendV1
	if s.p.cfg.Preface == 2 {
		header = r.For.AppendV2
	}
	var err error
	if deadline, limited := ctx.Deadline(); limited {
		err = nc.SetWriteDeadline(deadline)
	}
	if err == nil {
		_, err = nc.Write(header(nil))
	}
	if err != nil {
		_ = nc.Close() // the write's error says more
		return fmt.Errorf("the PROXY protocol header: %w", err)
	}
	return nil
}
