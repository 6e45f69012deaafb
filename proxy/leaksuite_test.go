package proxy

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"

	"firstbell/bench/leaks"
	"firstbell/cache"
)

// leakSetting is the number in the environment variable, or what it is without.
func leakSetting(t *testing.T, name string, without int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return without
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q: want a number", name, s)
	}
	return n
}

// A leakRun is one world of the leak suite: how firstbell is set up in it.
type leakRun struct {
	name   string
	policy cache.Policy
	window int64
	disk   bool // little memory above a disk, and restarts
	tells  bool // the anonymous route is none
}

var leakRuns = []leakRun{
	{name: "by the responses alone"},
	{name: "defaults and stale use", policy: cache.Policy{DefaultTTL: 2 * time.Second, StaleWhileRevalidate: 2 * time.Second, StaleIfError: 4 * time.Second}},
	{name: "small windows", policy: cache.Policy{MaxObjectBytes: 16 << 10, StaleIfError: 3 * time.Second}, window: 8 << 10},
	{name: "disk and restarts", policy: cache.Policy{StaleIfError: 3 * time.Second}, disk: true},
}

// play runs the leak suite against a proxy in memory, in fake time.
func (l *leakRun) play(t *testing.T, seed uint64, requests int, change func(*leaks.Options)) *leaks.Report {
	t.Helper()
	originLn := fasthttputil.NewInmemoryListener()
	h := &house{t: t, run: l, origin: originLn}
	if l.disk {
		h.dir = t.TempDir()
	}
	h.open()
	o := leaks.Options{
		Seed: seed, Requests: requests, Clients: 48,
		Dial:    h.dial,
		Network: "10.0.0.",
		Origin:  originLn,
		Pause:   20 * time.Millisecond, Patience: 2 * time.Minute, Stall: 45 * time.Second,
		Flaws: true, Outages: true, Reloads: true, Anonymous: true,
		DefaultTTL: l.policy.DefaultTTL, StaleWhileRevalidate: l.policy.StaleWhileRevalidate, StaleIfError: l.policy.StaleIfError,
		Purge: h.purge,
	}
	if change != nil {
		change(&o)
	}
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() { h.restartEvery(2*time.Second, stop); close(stopped) }()
	r, err := leaks.Run(t.Context(), o)
	close(stop)
	<-stopped
	if err != nil {
		t.Fatal(err)
	}
	h.gate.nothingLeft()
	h.close()
	return r
}

// A house is where a run's proxies live, one after the other.
type house struct {
	t      *testing.T
	run    *leakRun
	origin *fasthttputil.InmemoryListener
	dir    string // of the disk; empty: none, and no restarts

	mu   sync.Mutex // guards gate: nil while there is none
	gate *gate
	end  func() // ends the cache's Run
}

func (h *house) open() {
	g := &gate{t: h.t, ln: fasthttputil.NewInmemoryListener(), window: h.run.window}
	if h.dir != "" {
		g.memory, g.disk = 1<<20, &cache.DiskOptions{Path: h.dir, Bytes: 64 << 20}
	}
	open := h.run.policy
	open.Anonymous = !h.run.tells
	g.launch(h.origin.Dial, func(up *Upstream) []*Route {
		return []*Route{
			{Hosts: []string{"*"}, Path: "/open/*", Origin: up, Cache: &open},
			{Hosts: []string{"*"}, Origin: up, Cache: &h.run.policy},
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { g.cache.Run(ctx); close(done) }()
	h.end = func() { cancel(); <-done }
	h.mu.Lock()
	h.gate = g
	h.mu.Unlock()
}

// now is the gate that is open, waiting until there is one.
func (h *house) now() *gate {
	for {
		h.mu.Lock()
		g := h.gate
		h.mu.Unlock()
		if g != nil {
			return g
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (h *house) dial(_ context.Context, n int) (net.Conn, error) {
	for {
		c, err := h.now().ln.DialWithLocalAddr(&net.TCPAddr{IP: net.IPv4(10, 0, 0, byte(n+1)), Port: 1000})
		if err == nil {
			return c, nil
		}
		time.Sleep(10 * time.Millisecond) // it has just been closed
	}
}

func (h *house) purge(p leaks.Purge) error {
	one := func(s string) []string {
		if s == "" {
			return nil
		}
		return []string{s}
	}
	_, err := h.now().proxy.Purge(context.Background(), &Purge{URLs: one(p.URL), Hosts: one(p.Host), Prefixes: one(p.Prefix), Tags: one(p.Tag), Hard: p.Hard})
	return err
}

// restartEvery puts another proxy in the place of the one that runs, over the
// same disk, again and again.
func (h *house) restartEvery(d time.Duration, stop <-chan struct{}) {
	for h.dir != "" {
		select {
		case <-stop:
			return
		case <-time.After(d):
		}
		h.close()
		h.open()
	}
}

// close ends the proxy that runs.
func (h *house) close() {
	h.mu.Lock()
	g := h.gate
	h.gate = nil
	h.mu.Unlock()
	g.land()
	h.end()
	g.cache.Close()
}

// nothingLeft checks that what was taken for requests has been given back.
func (g *gate) nothingLeft() {
	g.t.Helper()
	time.Sleep(5 * time.Minute) // every stalled origin and slow client is given up
	if n := g.upstream.Limit.Stats().InUse; n != 0 {
		g.t.Errorf("places at the origin still held: %d", n)
	}
	if n := g.proxy.flights.Len(); n != 0 {
		g.t.Errorf("flights that never landed: %d", n)
	}
	if n := g.proxy.kept.Load(); n != 0 {
		g.t.Errorf("bytes of bodies still kept by flights: %d", n)
	}
	if n := g.proxy.counters.panics.Load(); n != 0 {
		g.t.Errorf("panics: %d", n)
	}
}

// TestNoByteReachesAnybodyItIsNotMeantFor plays the leak suite.
// FIRSTBELL_LEAK_REQUESTS says how many requests, FIRSTBELL_LEAK_SEED repeats a
// run.
func TestNoByteReachesAnybodyItIsNotMeantFor(t *testing.T) {
	requests, seed := leakSetting(t, "FIRSTBELL_LEAK_REQUESTS", leakRequests), leakSetting(t, "FIRSTBELL_LEAK_SEED", 0)
	if testing.Short() {
		requests /= 10
	}
	if seed == 0 {
		seed = int(time.Now().UnixNano() % 1e9)
	}
	const runMax = 50_000 // of one world: a run remembers each response
	runs := max(len(leakRuns), requests/runMax)
	shared, coded := make(map[string]int), 0
	for i := range runs {
		l := leakRuns[i%len(leakRuns)]
		t.Run(l.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := l.play(t, uint64(seed+i), requests/runs, nil)
				for _, f := range r.Findings {
					t.Errorf("FIRSTBELL_LEAK_SEED=%d, %s: %s", seed, l.name, f.String())
				}
				if n := r.Leaked(); n > 0 {
					t.Errorf("FIRSTBELL_LEAK_SEED=%d, %s: %d of %d answers broke a rule: %v", seed, l.name, n, r.Requests, r.Counts)
				}
				for kind, n := range r.SharedKinds {
					shared[kind] += n
				}
				coded += r.Coded
				var table strings.Builder
				if err := r.Print(&table); err == nil {
					t.Log(table.String())
				}
			})
		})
	}
	if coded == 0 {
		t.Error("no answer was coded by firstbell: nothing is proved by its not leaking")
	}
	for _, kind := range leaks.Shareable() {
		if shared[kind] == 0 && requests >= runMax {
			t.Errorf("no answer of %q was shared: nothing is proved by its not leaking", kind)
		}
	}
}

// TestTheLeakSuiteSeesEveryKindOfLeak blinds the proxy for one rule after the
// other.
func TestTheLeakSuiteSeesEveryKindOfLeak(t *testing.T) {
	for _, blind := range leaks.Blindnesses() {
		var r *leaks.Report
		for seed := uint64(1); seed <= 20 && (r == nil || r.Counts[blind.Want] == 0); seed++ { // some are seldom
			inBubble(t, func(t *testing.T) {
				l := leakRun{policy: cache.Policy{DefaultTTL: 2 * time.Second}}
				r = l.play(t, seed, 800, func(o *leaks.Options) {
					o.Blind, o.Only, o.Outages, o.Anonymous, o.Purge = &blind, blind.Only, false, false, nil
					o.Pause = 300 * time.Millisecond // so that lifetimes end
				})
			})
		}
		if r.Counts[blind.Want] == 0 {
			t.Errorf("blind to %s: found %v, want %q among it", blind.Rule, r.Counts, blind.Want)
		}
		if len(r.Findings) == 0 || r.Findings[0].History == "" {
			t.Errorf("blind to %s: a finding without its history", blind.Rule)
		}
	}
	inBubble(t, func(t *testing.T) {
		l := leakRun{}
		r := l.play(t, 1, 2000, func(o *leaks.Options) {
			o.Only, o.Pause = []string{"public", "public-auth", "class"}, 100*time.Millisecond
			o.Purge = func(leaks.Purge) error { return nil }
		})
		if r.Counts[leaks.Unchanged] == 0 || r.Purges == 0 {
			t.Errorf("%d purges that do nothing: found %v, want %q among it", r.Purges, r.Counts, leaks.Unchanged)
		}
	})
	inBubble(t, func(t *testing.T) {
		l := leakRun{tells: true}
		r := l.play(t, 1, 300, func(o *leaks.Options) { o.Only = []string{"public"} })
		if r.Counts[leaks.Told] == 0 {
			t.Errorf("an anonymous route that tells who asks: found %v, want %q among it", r.Counts, leaks.Told)
		}
	})
	inBubble(t, func(t *testing.T) {
		l := leakRun{}
		r := l.play(t, 1, 300, func(o *leaks.Options) {
			o.Only, o.Patience = []string{"stalls"}, time.Millisecond
		})
		if r.Counts[leaks.Silence] == 0 {
			t.Errorf("answers that are late: found %v, want %q among it", r.Counts, leaks.Silence)
		}
	})
}
