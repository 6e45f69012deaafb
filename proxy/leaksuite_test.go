package proxy

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
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
	tells  bool // the anonymous route is none
}

var leakRuns = []leakRun{
	{name: "by the responses alone"},
	{name: "defaults and stale use", policy: cache.Policy{DefaultTTL: 2 * time.Second, StaleWhileRevalidate: 2 * time.Second, StaleIfError: 4 * time.Second}},
	{name: "small windows", policy: cache.Policy{MaxObjectBytes: 16 << 10, StaleIfError: 3 * time.Second}, window: 8 << 10},
}

// play runs the leak suite against a proxy in memory, in fake time.
func (l *leakRun) play(t *testing.T, seed uint64, requests int, change func(*leaks.Options)) *leaks.Report {
	t.Helper()
	originLn := fasthttputil.NewInmemoryListener()
	g := &gate{t: t, ln: fasthttputil.NewInmemoryListener()}
	open := l.policy
	open.Anonymous = !l.tells
	g.window = l.window
	g.start(originLn.Dial, func(up *Upstream) []*Route {
		return []*Route{
			{Hosts: []string{"*"}, Path: "/open/*", Origin: up, Cache: &open},
			{Hosts: []string{"*"}, Origin: up, Cache: &l.policy},
		}
	}, func() { originLn.Close() })
	o := leaks.Options{
		Seed: seed, Requests: requests, Clients: 48,
		Dial: func(_ context.Context, n int) (net.Conn, error) {
			return g.ln.DialWithLocalAddr(&net.TCPAddr{IP: net.IPv4(10, 0, 0, byte(n+1)), Port: 1000})
		},
		Network: "10.0.0.",
		Origin:  originLn,
		Pause:   20 * time.Millisecond, Patience: 2 * time.Minute, Stall: 45 * time.Second,
		Flaws: true, Outages: true, Reloads: true, Anonymous: true,
		DefaultTTL: l.policy.DefaultTTL, StaleWhileRevalidate: l.policy.StaleWhileRevalidate, StaleIfError: l.policy.StaleIfError,
	}
	if change != nil {
		change(&o)
	}
	r, err := leaks.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	g.nothingLeft()
	return r
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
	shared := make(map[string]int)
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
				var table strings.Builder
				if err := r.Print(&table); err == nil {
					t.Log(table.String())
				}
			})
		})
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
		inBubble(t, func(t *testing.T) {
			l := leakRun{policy: cache.Policy{DefaultTTL: 2 * time.Second}}
			r := l.play(t, 1, 800, func(o *leaks.Options) {
				o.Blind, o.Only, o.Outages, o.Anonymous = &blind, blind.Only, false, false
				o.Pause = 300 * time.Millisecond // so that lifetimes end
			})
			if r.Counts[blind.Want] == 0 {
				t.Errorf("blind to %s: found %v, want %q among it", blind.Rule, r.Counts, blind.Want)
			}
			if len(r.Findings) == 0 || r.Findings[0].History == "" {
				t.Errorf("blind to %s: a finding without its history", blind.Rule)
			}
		})
	}
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
