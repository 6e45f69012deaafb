package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"firstbell/cache"
	"firstbell/cmd/firstbell/config"
	"firstbell/cmd/firstbell/handover"
	"firstbell/proxy"
	"firstbell/proxy/certs"
	"firstbell/proxy/spool"
)

const serveUsage = `serve -config FILE

Answers requests as the file says until SIGTERM or SIGINT; then it takes no new
connections, answers what is under way, and ends. SIGHUP has it read the file
again: all of it is taken, or nothing. SIGUSR2, or firstbell upgrade, has the
program that is on disk now take over: sockets, journal and cache go to the new
process, no request is lost, and if it does not start this one goes on. Sockets
that systemd hands over (firstbell.socket) are used.`

// serveOptions are the flags of serve.
type serveOptions struct {
	file      string
	logFormat string
	access    bool
	accessSet bool // -access-log was given
	sample    int
	pidFile   string
}

func serveOptionsOf(args []string, stderr io.Writer) (*serveOptions, error) {
	var o serveOptions
	f := newFlags("serve", serveUsage, stderr)
	f.StringVar(&o.file, "config", "", "`FILE` that says what to do")
	f.StringVar(&o.logFormat, "log-format", "text", "`text` or json")
	f.BoolVar(&o.access, "access-log", true, "write a line per request; goes before log.access in the file")
	f.IntVar(&o.sample, "access-log-sample", 0, "at high rates write one request in `N`; goes before log.sample in the file")
	f.StringVar(&o.pidFile, "pid-file", "", "`FILE` to write the process's number to, for whoever wants one")
	if err := parseFlags(f, args); err != nil {
		return nil, err
	}
	o.accessSet = flagGiven(f, "access-log")
	switch {
	case o.file == "":
		return nil, usageError("firstbell serve: name the file: -config FILE")
	case o.logFormat != "text" && o.logFormat != "json":
		return nil, usageError(fmt.Sprintf("firstbell serve: -log-format %q: choose text or json", o.logFormat))
	case o.sample < 0:
		return nil, usageError("firstbell serve: -access-log-sample: choose 1 or more")
	}
	return &o, nil
}

func runServe(ctx context.Context, args []string, _, stderr io.Writer) error {
	o, err := serveOptionsOf(args, stderr)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2) // before anything takes time: without it they end the process
	defer signal.Stop(signals)
	in, err := inherit()
	if err != nil {
		return err
	}
	program, err := handover.ThisProgram(append([]string{"serve"}, args...))
	if err != nil {
		return err
	}
	c, err := loadConfig(o.file, stderr)
	if err != nil {
		in.failed(err)
		return err
	}
	s, err := open(ctx, c, o, newLogger(stderr, o.logFormat), in)
	if err != nil {
		in.failed(err)
		return err
	}
	s.program = program
	return s.run(ctx, signals)
}

func newLogger(w io.Writer, format string) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// A server is everything that runs. open makes it, run uses it up.
type server struct {
	log     *slog.Logger
	options *serveOptions
	started time.Time

	web, opsNet net.Listener // nil where the file names no address
	secureNet   net.Listener // as above: what speaks TLS
	certs       *certs.Store // nil without secureNet
	h3          http3Door    // HTTP/3
	cache       *cache.Cache
	spools      *spool.Store
	takes       atomic.Pointer[attendant] // check-ins; nil without attendance, and while another process has it
	clerk       *clerk
	proxy       *proxy.Proxy
	ops         *http.Server

	program    handover.Program
	generation int // 1, and one more with each process that takes over
	inherited  *inherited
	twin       *twin         // the cache of the process before this one; nil without one
	alone      chan struct{} // closed when that process has ended
	upgrades   upgrades
	handing    *handing        // set once upgrades.replaced is closed
	stopping   context.Context // done when this process is to end
	stop       context.CancelFunc
	bereft     atomic.Bool // what was let go for a new process cannot be had again yet

	ready   atomic.Bool
	reloads reloads
	purged  atomic.Pointer[purgeAnswered] // the last that changed something, or nil
	now     atomic.Pointer[setting]       // what is in force

	work context.Context // ends when requests have been answered
	end  context.CancelFunc
	jobs sync.WaitGroup // background work
}

// A setting is one reading of the file, in force as a whole.
type setting struct {
	config  *config.Config
	origins map[string]*upstream
	who     *identities
	rooms   rooms
	loaded  time.Time
}

// boundMemory has the garbage collector keep the process near what the cache may
// take: without it a full cache and as much garbage beside it is normal. A
// fifth, and 256 MiB for everything else, lets it run seldom enough. GOMEMLIMIT
// goes before it. Of either goes off, until ctx ends, what the cache keeps outside
// of the heap, where the collector does not see it.
func boundMemory(ctx context.Context, cacheBytes int64, outside func() int64) error {
	limit, step := cacheBytes*6/5+256<<20, max(cacheBytes/64, 4<<20)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	} else if limit = debug.SetMemoryLimit(-1); limit == math.MaxInt64 {
		return nil // there is to be none
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for told := int64(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// It stops the world for a moment: not for every body.
		if n := outside(); n > told+step || n < told-step {
			debug.SetMemoryLimit(max(limit-n, 64<<20)) // a GOMEMLIMIT may be less than the cache
			told = n
		}
	}
}

// open makes all that can fail before anything is started. After an error
// nothing is left open.
func open(ctx context.Context, c *config.Config, o *serveOptions, log *slog.Logger, in *inherited) (s *server, err error) {
	s = &server{log: log, options: o, started: time.Now(), inherited: in, generation: 1, clerk: newClerk()}
	if in.heir != nil {
		s.clerk = in.heir.clerk
	}
	s.stopping, s.stop = context.WithCancel(ctx)
	s.alone, s.upgrades.replaced, s.upgrades.hurry = make(chan struct{}), make(chan struct{}), make(chan struct{})
	s.work, s.end = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for _, l := range []struct {
		to           *net.Listener
		key, address string
	}{{&s.web, "http", c.Listen.HTTP}, {&s.secureNet, "https", c.Listen.HTTPS}, {&s.opsNet, "ops", c.Listen.Ops}} {
		if l.address == "" {
			continue
		}
		if *l.to, err = s.listen(l.key, l.address); err != nil {
			return s, err
		}
	}
	if err := s.openHTTP3(c); err != nil {
		return s, err
	}
	if left := in.sockets.CloseUnused(); len(left) > 0 {
		log.Warn("sockets were handed over that the file does not listen on", "sockets", lists(left))
	}
	if err := s.openCertificates(c); err != nil {
		return s, err
	}
	origins, fresh, err := openOrigins(c, nil)
	if err != nil {
		return s, fmt.Errorf("making the origins: %w", err)
	}
	who, strangers, err := openIdentities(c, log, origins, nil)
	if err != nil {
		return s, err
	}
	if err := s.openWhatOneHas(ctx, c); err != nil {
		return s, err
	}
	rooms := openRooms(c, nil)
	table, err := tableOf(c, origins, who, rooms, s.takes.Load())
	if err != nil {
		return s, err
	}
	s.runOrigins(fresh)
	s.runIdentities(strangers)
	s.now.Store(&setting{config: c, origins: origins, who: who, rooms: rooms, loaded: s.started})
	clients, err := clientsOf(c)
	if err != nil {
		return s, err
	}
	spools, err := spool.Open(spoolOf(c))
	if err != nil {
		return s, fmt.Errorf("opening the spool: %w; name a directory on a disk: spool: {path: /var/lib/firstbell/spool}", err)
	}
	s.spools = spools
	s.proxy = proxy.New(proxy.Options{Spools: spools, Cache: s.cache, Recorder: s.clerk, Log: log, Access: accessLogOf(c, o), Covers: s.covers(), Challenge: s.challenge(), Limits: c.Limits.Proxy(), Clients: clients, LiveMax: c.Limits.Live}, table)
	if err := s.proxy.Pin(c.Cache.Pin, int64(c.Cache.PinMemory)); err != nil {
		return s, err
	}
	s.ops = newOps(s)
	return s, nil
}

// openWhatOneHas opens what only one process can have: from here on the process
// before this one is without it.
func (s *server) openWhatOneHas(ctx context.Context, c *config.Config) error {
	in := s.inherited
	ready, err := in.prepare(ctx, c)
	if err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	if ready != nil {
		ready.work, ready.clerk = s.work, s.clerk
		s.clerk.goTo(nil, ready.recorder)
	}
	if err := in.release(ctx); err != nil {
		return err
	}
	if c.Attendance != nil {
		if ready == nil {
			err = in.othersFree(ctx)
		}
		var takes *attendant
		if err == nil {
			takes, err = openAttendance(ctx, c, s.log, ready)
		}
		if err != nil {
			return fmt.Errorf("starting attendance: %w", err)
		}
		s.takes.Store(takes)
	}
	if s.cache, err = cache.New(cacheOf(c)); err != nil {
		return fmt.Errorf("making the cache: %w", err)
	}
	if before := in.before; before != nil {
		s.generation = before.Generation
		s.twin = newTwin(before.Link, handover.OldService, s.log)
		s.cache.SetPeer(s.twin)
	}
	return nil
}

// listen opens listen.KEY of the file, or takes it over. Its socket goes to the
// next process by that name.
func (s *server) listen(key, address string) (net.Listener, error) {
	ln, err := s.inherited.sockets.Listen(key, address)
	if err == nil {
		return ln, nil
	}
	return nil, listenProblem(key, address, err)
}

// run serves until ctx ends or a listener breaks, then answers what is under
// way and closes everything. It is called once.
func (s *server) run(ctx context.Context, signals <-chan os.Signal) error {
	broken := make(chan error, 4)
	s.background("the bound of the memory", func(ctx context.Context) error {
		return boundMemory(ctx, int64(s.now.Load().config.Cache.Memory), func() int64 { return s.cache.Stats().PagedBytes })
	})
	s.background("the cache", s.cache.Run)
	if a := s.takes.Load(); a != nil {
		a.start(s)
	}
	if before := s.inherited.before; before != nil {
		s.inherited.heir.serves(s)
		s.shareOrigins(before)
	}
	if s.web != nil {
		go func() { broken <- s.proxy.Serve(s.web) }()
	}
	if s.secureNet != nil {
		s.background("the certificates", s.certs.Run)
		go func() { broken <- s.proxy.ServeTLS(s.secureNet, s.certs.Config(proxy.Protocols...)) }()
	}
	if s.opsNet != nil {
		go func() {
			if err := s.ops.Serve(s.opsNet); !errors.Is(err, net.ErrClosed) { // by Serving
				broken <- err
			}
		}()
	}
	s.ready.Store(true)
	err := s.announce()
	if err == nil && s.now.Load().config.Listen.HTTP3 != "" { // the process before reads the socket until here
		s.takeOverHTTP3()
		go func() { broken <- s.serveHTTP3(s.stopping) }()
	}
	if err == nil {
		err = s.tellSystem()
	}
	if err == nil {
		s.log.Info("serving", "http", addrOf(s.web), "ops", addrOf(s.opsNet), "https", addrOf(s.secureNet), "http3", s.http3Address(), "version", buildVersion().Version, "generation", s.generation)
	}
	replaced := false
	for serving := err == nil; serving; {
		select {
		case sig := <-signals:
			if sig == syscall.SIGUSR2 {
				go s.upgrade("SIGUSR2")
			} else {
				s.reload("SIGHUP")
			}
		case <-s.upgrades.replaced:
			s.log.Info("answering what is left", "longest", s.now.Load().config.Listen.Drain)
			serving, replaced = false, true
		case err = <-broken:
			serving = false
		case <-ctx.Done():
			s.log.Info("draining", "longest", s.now.Load().config.Listen.Drain)
			serving = false
		}
	}
	s.ready.Store(false)
	replaced = replaced || s.noMoreUpgrades()
	s.tellEnd(replaced)
	if replaced {
		err = errors.Join(err, s.giveWay())
	} else {
		err = errors.Join(err, s.drain())
	}
	err = errors.Join(err, s.close())
	s.log.Info("ended", "after", time.Since(s.started).Round(time.Second))
	return err
}

// drain answers what is under way.
func (s *server) drain() error {
	ctx, cancel := context.WithTimeout(s.work, s.now.Load().config.Listen.Drain)
	defer cancel()
	if err := s.proxy.Shutdown(ctx); err != nil {
		return fmt.Errorf("ending with requests under way: %w", err)
	}
	return nil
}

// close ends the background work, in the order in which it depends on each
// other, and lets everything go. It is also how open undoes what it began.
func (s *server) close() error {
	s.ready.Store(false)
	s.stop()
	var errs []error
	takes := s.takes.Load()
	if takes != nil {
		errs = append(errs, takes.finish())
	}
	s.end()
	s.jobs.Wait()
	if takes != nil {
		errs = append(errs, takes.close())
	}
	if now := s.now.Load(); now != nil {
		for _, u := range now.origins {
			u.stop()
		}
	}
	if s.cache != nil {
		errs = append(errs, s.cache.Close())
	}
	if s.certs != nil {
		s.certs.Close()
	}
	if s.ops != nil {
		errs = append(errs, s.ops.Close())
	}
	for _, ln := range []net.Listener{s.web, s.secureNet, s.opsNet} {
		if ln != nil {
			_ = ln.Close() // a server has closed it already, or nobody used it
		}
	}
	if socket, _ := s.h3.get(); socket != nil {
		_ = socket.Close() // as above
	}
	return errors.Join(errs...)
}

// background runs work until the server ends; an error before that is logged.
func (s *server) background(name string, work func(context.Context) error) {
	s.jobs.Go(func() {
		if err := work(s.work); err != nil && s.work.Err() == nil {
			s.log.Error("stopped working", "what", name, "error", err)
		}
	})
}

// runOrigins starts what the origins do by themselves.
func (s *server) runOrigins(fresh map[string]*upstream) {
	for name, u := range fresh {
		ctx, cancel := context.WithCancel(s.work)
		u.stop = func() {
			cancel()
			_ = u.Pool.Close() // always nil: it closes idle connections
		}
		s.jobs.Go(func() {
			if err := u.Pool.Run(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("stopped working", "what", "the health checks of origin "+name, "error", err)
			}
		})
	}
}

func addrOf(ln net.Listener) string {
	if ln == nil {
		return ""
	}
	return ln.Addr().String()
}
