package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/attendance"
	"firstbell/cache"
	"firstbell/coalesce"
	"firstbell/proxy/head"
	"firstbell/proxy/http1"
	"firstbell/proxy/http3"
	"firstbell/proxy/spool"
)

// Options are what a Proxy is made of. Cache is required; Recorder is as soon
// as a route takes check-ins.
type Options struct {
	Cache    *cache.Cache
	Recorder Recorder
	Log      *slog.Logger // nil: nothing is logged
	Access   AccessLog
	// FlightWindow bounds what a flight beyond a route's MaxObjectBytes holds
	// in memory; 0 is 4 MiB.
	FlightWindow int64
	// Covers reports whether the certificate shown to clients who name sni in
	// their TLS handshake, or none where it is empty, is good for host. nil: for
	// sni alone.
	Covers func(sni, host string) bool
	// Challenge is the content for a CA that asks in plain for a path below
	// /.well-known/acme-challenge/ of a host that is served; nil: it goes to
	// the host's route, as what Challenge does not know.
	Challenge func(host, path string) ([]byte, bool)

	Limits Limits // of clients' connections
	// Spools is where contents wait for the origin, and answers for their
	// client; nil: nothing waits, and a slow client holds a place at the origin.
	Spools *spool.Store
	// Clients says who they are and what they may; nil: nobody is trusted, and
	// everybody may.
	Clients *Clients
	// LiveMax bounds the live exchanges, WebSockets and event streams among
	// them; 0 is LiveMax.
	LiveMax int
}

// A Recorder takes what is answered once it is durable: *attendance.Recorder does.
// Its methods are as there.
type Recorder interface {
	Take(ctx context.Context, p attendance.Press) (attendance.Receipt, error)
	// Submit is Take for who does not wait: with waits, w is told later.
	Submit(p attendance.Press, pending *attendance.Pending, w attendance.Waiter) (receipt attendance.Receipt, waits bool, err error)
	Collect(ctx context.Context, it attendance.Item) (attendance.ReceiptID, error)
	// SubmitItem is Collect for who does not wait, in the same way.
	SubmitItem(it attendance.Item, pending *attendance.Pending, w attendance.Waiter) (id attendance.ReceiptID, waits bool, err error)
	// Seen may return "" when nobody can say.
	Seen(at time.Time, credential []byte) string
	// Contradicted keeps nothing of the strings.
	Contradicted(host, student, field, claimed string)
}

// A Proxy answers requests by its routes.
type Proxy struct {
	cache    *cache.Cache
	recorder Recorder
	log      *slog.Logger
	access   accessLog
	window   int64
	spools   *spool.Store // nil: none
	covers   func(sni, host string) bool
	prove    func(host, path string) ([]byte, bool) // Options.Challenge

	table    atomic.Pointer[Table]
	flights  *coalesce.Group[*landing]
	blocks   *coalesce.Group[*blockLanding]
	kept     atomic.Int64 // bytes that flights keep beyond their first MiB
	holds    holds
	live     *liveSet
	coder    *coder
	decoders *decoders
	counters counters
	draining atomic.Bool
	limits   atomic.Pointer[Limits]
	altSvc   atomic.Pointer[string]  // where HTTP/3 is; nil: nowhere
	clients  atomic.Pointer[Clients] // nil: nothing is to be found out or limited

	allowances *allowances

	door *door

	// life ends when Shutdown gives up waiting: fetches and waits end with it.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup // fetches under way

	mu        sync.Mutex // guards what follows
	listeners []net.Listener
	serving   sync.WaitGroup // Serve, by listener
	quicDoors []*quicDoor
}

// New returns a proxy that serves the table.
func New(o Options, t *Table) *Proxy {
	p := &Proxy{
		cache:    o.Cache,
		recorder: o.Recorder,
		log:      o.Log,
		window:   o.FlightWindow,
		spools:   o.Spools,
		covers:   o.Covers,
		prove:    o.Challenge,
		flights:  coalesce.NewGroup[*landing](),
		blocks:   coalesce.NewGroup[*blockLanding](),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.window <= 0 {
		p.window = flightWindowBytes
	}
	if p.covers == nil {
		p.covers = func(sni, host string) bool { return sni == host }
	}
	p.live = newLiveSet(o.LiveMax)
	p.counters.refused = make([]atomic.Int64, len(http1.Refusals()))
	p.counters.refusedHeads = make([]atomic.Int64, len(head.Refusals()))
	p.counters.h3Errors = make(map[http3.Code]*atomic.Int64)
	for _, code := range http3.Codes() {
		p.counters.h3Errors[code] = new(atomic.Int64)
	}
	p.access.set(o.Access, p.log)
	p.SetLimits(o.Limits)
	p.allowances = newAllowances()
	p.SetClients(o.Clients)
	p.life, p.end = context.WithCancel(context.Background())
	p.table.Store(t)
	p.coder, p.decoders = newCoder(p), newDecoders()
	p.door = newDoor(p)
	return p
}

// Swap puts another table in the place of the one in use, at once. Exchanges
// under way go on by the old one.
func (p *Proxy) Swap(t *Table) { p.table.Store(t) }

// Serves reports whether any route takes requests for the host, which is in
// lower case and without port.
func (p *Proxy) Serves(host string) bool { return p.table.Load().Serves(host) }

// SetAccess changes what the access log holds, at once.
func (p *Proxy) SetAccess(a AccessLog) { p.access.set(a, p.log) }

// SetLimits changes what clients are held to: a connection from its next
// request on. Connections beyond a lower limit stay.
func (p *Proxy) SetLimits(l Limits) { p.limits.Store(l.withDefaults()) }

// Serve answers HTTP/1.1 from ln until Shutdown or an error of the listener.
// After Shutdown it returns nil.
func (p *Proxy) Serve(ln net.Listener) error { return p.take(ln, nil) }

// ServeTLS is Serve for connections that begin with a TLS handshake. Which
// protocols are spoken inside is agreed there: secure.NextProtos are Protocols,
// or some of them.
func (p *Proxy) ServeTLS(ln net.Listener, secure *tls.Config) error { return p.take(ln, secure) }

func (p *Proxy) take(ln net.Listener, secure *tls.Config) error {
	ours := &listener{Listener: ln}
	p.mu.Lock()
	if p.draining.Load() { // shut may have closed all it knew of by now
		p.mu.Unlock()
		return ours.Close()
	}
	p.listeners = append(p.listeners, ours)
	p.serving.Add(1)
	p.mu.Unlock()
	defer p.serving.Done()
	err := p.door.serve(ours, secure)
	if p.draining.Load() || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// drainMoment is how long kept-alive connections are still answered, with
// Connection: close, after no new ones are taken: a request that was on its
// way meets an answer instead of a reset.
const drainMoment = time.Second

// Shutdown takes no more connections, answers what is under way, and returns
// nil once all is answered, or the context's error: then what was left has
// been broken off. It does not wait once nobody is left. Live exchanges are
// ended: WebSockets with a Close frame, event streams between two events.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.shut()
	p.mu.Lock()
	doors := p.quicDoors
	p.mu.Unlock()
	for _, d := range doors {
		d.refuse()
	}
	defer p.part(ctx)()
	p.serving.Wait() // whoever was taken last is inside
	now := make(chan struct{})
	close(now)
	awaitEmpty(ctx, now, func() bool { return p.isEmpty(doors) })
	return p.finish(ctx)
}

// awaitEmpty waits until empty says so, or ctx ends, or, once hurry is closed, for
// no longer than drainMoment in all.
func awaitEmpty(ctx context.Context, hurry <-chan struct{}, empty func() bool) {
	moment := time.NewTimer(drainMoment)
	defer moment.Stop()
	tick := time.NewTicker(retireLook)
	defer tick.Stop()
	hurried, over := false, false
	for !empty() && !(hurried && over) {
		select {
		case <-tick.C:
		case <-moment.C:
			over = true
		case <-hurry:
			hurry, hurried = nil, true
		case <-ctx.Done():
			return
		}
	}
}

// isEmpty reports whether no connection is open.
func (p *Proxy) isEmpty(doors []*quicDoor) bool {
	for _, d := range doors {
		if d.open.Load() > 0 || !d.isEmpty() {
			return false
		}
	}
	return p.door.isEmpty()
}

// Retire is Shutdown for when another process answers at the same address by
// now: connections of HTTP/1 that are kept alive have until ctx ends to send one
// more request, whose answer tells them to go, or, once hurry is closed, the
// moment that Shutdown gives them; those of HTTP/2 and HTTP/3 are told at once,
// and the handshakes of HTTP/3 under way are taken to their end. It does not wait
// once nobody is left.
// Live exchanges are ended as by Shutdown: their clients find the other process.
func (p *Proxy) Retire(ctx context.Context, hurry <-chan struct{}) error {
	p.shut()
	defer p.part(ctx)()
	http3Ended := p.retireHTTP3(ctx, hurry)
	p.serving.Wait() // whoever was taken last is inside
	p.door.tell()
	awaitEmpty(ctx, hurry, p.door.isEmpty)
	http3Ended()
	return p.finish(ctx)
}

// retireHTTP3 begins to end HTTP/3, which has one rule for all its connections;
// what it returns waits until that is done.
func (p *Proxy) retireHTTP3(ctx context.Context, hurry <-chan struct{}) (wait func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all sync.WaitGroup
	for _, d := range p.quicDoors {
		all.Go(func() { _ = d.retire(ctx, hurry) }) // finish hears of it, too
	}
	return all.Wait
}

// retireLook is how often Retire looks whether somebody is left.
const retireLook = 10 * time.Millisecond

// part begins to end the live exchanges; what it returns waits until each has
// been told.
func (p *Proxy) part(ctx context.Context) (told func()) {
	done := make(chan struct{})
	go func() { defer close(done); p.live.shutdown(ctx) }()
	return func() { <-done }
}

// shut takes no more connections, and has every answer from here on be its
// connection's last.
func (p *Proxy) shut() {
	p.draining.Store(true)
	p.mu.Lock()
	for _, ln := range p.listeners {
		_ = ln.Close() // who closed it already has the error
	}
	doors := p.quicDoors
	p.mu.Unlock()
	p.door.drain()
	for _, d := range doors {
		d.drain()
	}
}

// finish answers what is under way, and ends.
func (p *Proxy) finish(ctx context.Context) error {
	defer p.end()
	p.mu.Lock()
	doors := p.quicDoors
	p.mu.Unlock()
	ended := make(chan error, len(doors))
	for _, d := range doors {
		go func() { ended <- d.shutdown(ctx) }()
	}
	err := p.door.shutdown(ctx)
	for range doors {
		err = cmp.Or(err, <-ended)
	}
	p.coder.close()
	done := make(chan struct{})
	go func() { p.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		p.end()
		<-done // every fetch ends with the proxy's life
		err = errors.Join(err, ctx.Err())
	}
	return err
}

// panicked reports a panic in an exchange; the exchange alone is lost.
func (p *Proxy) panicked(x *exchange, e any) {
	p.counters.panics.Add(1)
	x.passage = nil // who knows what is under way
	p.log.Error("an exchange panicked", "panic", e, "method", x.method,
		"host", string(x.host), "target", x.target.shown(), "stack", string(debug.Stack()))
}

// finished is called once for every exchange, when its answer is over.
func (p *Proxy) finished(x *exchange) {
	took := time.Since(x.arrived)
	if x.counted.by != 0 {
		p.allowances.release(&x.counted)
	}
	p.counters.finished(x, took)
	p.access.line(x, took)
}

// Fetches reports whether a flight for a cache key is under way.
func (p *Proxy) Fetches(key []byte) bool { return p.flights.Find(key) != nil }

// AwaitFlight waits, no longer than ctx, until no flight for a cache key is under
// way that began before.
func (p *Proxy) AwaitFlight(ctx context.Context, key []byte) {
	f := p.flights.Find(key)
	if f == nil {
		return
	}
	if l, err := f.Wait(ctx); err != nil || l.only != nil {
		return // nothing that others may have
	}
	tick := time.NewTicker(flightLook)
	defer tick.Stop()
	for p.flights.Find(key) == f {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// flightLook is how often AwaitFlight looks whether a flight has landed: it
// waits for whole bodies, of which nobody is told.
const flightLook = time.Millisecond
