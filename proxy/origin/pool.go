package origin

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
)

// serverTriesMax bounds the servers tried for one request: with two seconds to
// connect each, nobody waits longer than six to hear that the origin is gone.
const serverTriesMax = 3

// Pool is the outbound side towards one origin. All methods may be called at
// once from many goroutines.
type Pool struct {
	cfg     Config
	servers []*server
	turn    atomic.Uint64 // round robin
	budget  budget
	closed  atomic.Bool
	retries atomic.Uint64
}

// Stats are the figures of one moment, and totals since New.
type Stats struct {
	Servers []ServerStats
	Retries uint64 // requests sent again because a reused connection had died
}

// ServerStats are one server's figures.
type ServerStats struct {
	Address  string // host:port
	Healthy  bool
	InFlight int    // requests whose response is not complete
	Idle     int    // connections kept for the next request
	Requests uint64 // sent, health checks left out
	Failures uint64 // connects, responses and contents that failed or took too long
	Opened   uint64 // connections
	Reused   uint64 // requests that found an idle connection
}

// New returns a pool, or all that is wrong with cfg. It opens no connection.
func New(cfg Config) (*Pool, error) {
	cfg, err := cfg.withDefaults()
	problems := []error{err}
	p := &Pool{cfg: cfg}
	p.budget.tokens.Store(budgetMax)
	for _, s := range cfg.Servers {
		srv, err := p.newServer(s)
		problems = append(problems, err)
		p.servers = append(p.servers, srv)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return p, nil
}

// Introduces reports whether requests are to say For whom they are.
func (p *Pool) Introduces() bool { return p.cfg.Preface != 0 }

// Do sends r and returns at the head of its final response. ctx governs the
// whole exchange, the response's Body included; one made by package context
// costs no goroutine. Do returns a response or an *Error, never both.
//
// The server is the less busy of the next two healthy ones in the round. When
// all are unhealthy they are tried all the same.
func (p *Pool) Do(ctx context.Context, r *Request) (*Response, error) {
	if p.closed.Load() {
		return nil, p.refuse(ErrClosed, nil)
	}
	if err := ctx.Err(); err != nil { // or it would cost an idle connection
		return nil, p.refuse(err, nil)
	}
	buf := getBuf()
	defer putBuf(buf)
	out, err := r.appendHead((*buf)[:0])
	*buf = out[:0]
	if err != nil {
		return nil, p.refuse(ErrRequest, err)
	}
	inline := r.hasContent() && r.ContentLength > 0 && r.ContentLength <= inlineBytesMax && !r.Expect
	if inline {
		out, err = r.takeInline(out)
		*buf = out[:0]
		if err != nil {
			return nil, p.refuse(ErrRequestBody, err)
		}
	}
	p.budget.earn()
	return p.send(ctx, r, out, inline)
}

// refuse is the error of a request of which nothing was sent.
func (p *Pool) refuse(kind, err error) error {
	return &Error{Doing: "sending a request to", Server: p.cfg.Name, Kind: kind, Err: err}
}

// send tries servers until one can be connected to.
func (p *Pool) send(ctx context.Context, r *Request, out []byte, inline bool) (*Response, error) {
	var err error
	var tried [serverTriesMax]*server
	for n := range tried {
		s := p.pick(tried[:n])
		if s == nil {
			break
		}
		tried[n] = s
		var res *Response
		if res, err = p.sendTo(ctx, s, r, out, inline); err == nil {
			return res, nil
		}
		if e := err.(*Error); e.MayHaveReached || ctx.Err() != nil {
			break
		}
	}
	if err == nil {
		err = p.refuse(ErrBusy, nil)
	}
	return nil, err
}

// sendTo sends to one server, once more if its idle connection proves dead.
// Every error is an *Error.
func (p *Pool) sendTo(ctx context.Context, s *server, r *Request, out []byte, inline bool) (*Response, error) {
	c, err := s.take(ctx, r)
	if err != nil {
		return nil, err
	}
	s.requests.Add(1)
	reused := c.reused // c may be another's once the response has come
	x, err := p.roundTrip(ctx, c, r, out, inline)
	for err == errStale {
		c.end()
		if c, err = s.next(ctx, r); err != nil {
			return nil, err
		}
		reused = c.reused
		x, err = p.roundTrip(ctx, c, r, out, inline)
	}
	if reused {
		s.reused.Add(1)
	}
	if err == nil {
		return &x.res, nil
	}
	if !reused || x.heard || !r.repeatable() || !errors.Is(err, ErrCut) || !p.budget.spend() {
		return nil, err
	}
	first := err
	if c, err = s.takeFresh(ctx, r); err != nil {
		return nil, first // which says that the request may have been acted on
	}
	p.retries.Add(1)
	s.requests.Add(1)
	if x, err = p.roundTrip(ctx, c, r, out, inline); err != nil {
		return nil, err
	}
	return &x.res, nil
}

// pick chooses a server not yet tried, nil if there is none with room.
func (p *Pool) pick(tried []*server) *server {
	n := uint64(len(p.servers))
	first := p.turn.Add(1)
	var best, unhealthy *server
	for i := range n {
		s := p.servers[(first+i)%n]
		switch {
		case slices.Contains(tried, s) || s.full():
		case !s.healthy():
			if unhealthy == nil {
				unhealthy = s
			}
		case best == nil:
			best = s
		case s.inFlight.Load() < best.inFlight.Load():
			return s
		default:
			return best
		}
	}
	if best == nil {
		return unhealthy
	}
	return best
}

// Close closes the idle connections and refuses new requests. Responses being
// read go on; their connections are closed behind them.
func (p *Pool) Close() error {
	p.closed.Store(true)
	for _, s := range p.servers {
		s.close()
	}
	return nil
}

// Stats returns the figures of this moment.
func (p *Pool) Stats() Stats {
	st := Stats{Retries: p.retries.Load(), Servers: make([]ServerStats, 0, len(p.servers))}
	for _, s := range p.servers {
		st.Servers = append(st.Servers, s.stats())
	}
	return st
}

const (
	// A request earns a tenth of a retry, so that retries stay under 10 % of the
	// requests; ten are there from the start, for pools that do little.
	budgetPerRequest = 1
	budgetPerRetry   = 10
	budgetMax        = 10 * budgetPerRetry
)

// budget bounds retries to a share of the requests.
type budget struct{ tokens atomic.Int64 }

func (b *budget) earn() {
	if b.tokens.Load() < budgetMax {
		b.tokens.Add(budgetPerRequest)
	}
}

// spend reports whether a retry may be made, and pays for it.
func (b *budget) spend() bool {
	if b.tokens.Add(-budgetPerRetry) < 0 {
		b.tokens.Add(budgetPerRetry)
		return false
	}
	return true
}
