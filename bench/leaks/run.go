package leaks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// Options say what to play against which proxy, and what the proxy has been
// told beside what responses say.
type Options struct {
	Seed     uint64
	Requests int
	Clients  int // connections at once; 0 is 48

	// Dial connects to the proxy, from the client address of that number (0 to
	// 3): Network, which is "127.0.0." unless said, and number+1.
	Dial    func(ctx context.Context, address int) (net.Conn, error)
	Network string
	// OneAddress says that all clients come from one address, whatever Dial is
	// asked for: then nothing is found out about addresses.
	OneAddress bool
	// Origin is where the proxy finds its origin. Run closes it.
	Origin net.Listener
	// Hosts are the names of the schools, at least two; nil for one.test and
	// two.test.
	Hosts []string

	// Pause is the mean time between two questions of a client.
	Pause time.Duration
	// Patience is how long an answer may take; 0 is a minute.
	Patience time.Duration
	// Stall is how long an origin stalls that does; 0 is 2 s.
	Stall time.Duration
	// Slack is what the machine may add to the age of an answer.
	Slack time.Duration

	// Flaws makes origins cut, lie and stall; Outages makes all of them fail for
	// a while now and then.
	Flaws, Outages bool

	// What the proxy uses where a response does not say it, or does not forbid.
	DefaultTTL, StaleWhileRevalidate, StaleIfError time.Duration
	// Reloads says that the proxy promises to answer no-cache in a request with
	// what the origin has vouched for within a second.
	Reloads bool
	// Anonymous says that what is below /open/ is an anonymous route: Cookie and
	// Authorization do not reach the origin, nor Set-Cookie clients.
	Anonymous bool

	// Purge, where it is set, makes the proxy forget what a purge means: take it
	// out when it is hard, else make it stale. It returns when that holds.
	Purge func(p Purge) error
	// Blind, where it is set, is what the proxy cannot see: for the tests of the
	// suite itself.
	Blind *Blindness
	// Only are the names of the kinds of URLs to ask for; nil for all.
	Only []string
}

// A Purge means one URL (host, path and query), one host, a prefix (host, path
// and "/*") or a tag. Exactly one of them is set.
type Purge struct {
	URL, Host, Prefix, Tag string
	Hard                   bool
}

// Run plays the questions and returns what it found. An error says that it
// could not be played; then there is no report.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Dial == nil || o.Origin == nil || o.Requests < 1 {
		return nil, errors.New("running the leak suite: it needs a proxy, an origin and a number of requests")
	}
	setDefault(&o.Network, "127.0.0.")
	setDefault(&o.Clients, 48)
	setDefault(&o.Patience, time.Minute)
	setDefault(&o.Stall, 2*time.Second)
	if len(o.Hosts) == 0 {
		o.Hosts = []string{"one.test", "two.test"}
	}
	w := newWorld(o)
	org := &origin{w: w, ln: o.Origin, conns: make(map[net.Conn]struct{})}
	go org.listen()
	var wg sync.WaitGroup
	for n := range o.Clients {
		k := newAsker(w, n)
		wg.Go(func() { k.run(ctx) })
	}
	if o.Purge != nil {
		wg.Go(func() { w.purgeAll(ctx) })
	}
	wg.Wait()
	org.close()
	r := &w.tally.Report
	r.Requests, r.Took, r.Fetches = int(w.questions.Load()), time.Since(w.began), len(w.sent)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("running the leak suite: %d of %d requests were made: %w", r.Requests, o.Requests, err)
	}
	return r, nil
}

func setDefault[T int | string | time.Duration](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Shareable are the names of the kinds of URLs that a good cache shares.
func Shareable() (names []string) {
	for i := range kinds {
		if r := kinds[i].reach; (r == everyone || r == open) && kinds[i].life > 0 && kinds[i].cookie != 1 {
			names = append(names, kinds[i].name)
		}
	}
	return names
}

// queries are the queries under which each path is there: other resources,
// whatever they look like.
var queries = []string{"", "?a=1&b=2", "?b=2&a=1", "?A=1&b=2", "?"}

// newWorld lays the resources out: every kind at every host under the same
// paths, with some of the queries.
func newWorld(o Options) *world {
	w := &world{options: o, began: time.Now(), byURL: make(map[string]*resource), reps: make(map[repKey]*rep)}
	w.tally.Seed, w.tally.Counts, w.tally.SharedKinds = o.Seed, make(map[Leak]int), make(map[string]int)
	w.tally.Kinds = make(map[Leak]map[string]int)
	for i, query := range queries {
		for n := range kinds {
			k := &kinds[n]
			if len(o.Only) > 0 && !slices.Contains(o.Only, k.name) {
				continue
			}
			for _, host := range o.Hosts {
				if i > 1 && (n+i)%4 != 0 {
					continue
				}
				w.add(k, host, "/"+k.name+query, false)
			}
			if o.Anonymous && i < 2 {
				w.add(k, o.Hosts[0], "/open/"+k.name+query, true)
			}
		}
	}
	w.shuffle()
	return w
}

func (w *world) add(k *kind, host, target string, open bool) {
	r := &resource{id: len(w.resources), kind: k, host: host, target: target, open: open}
	r.version.Store(1)
	for _, other := range w.resources[max(0, len(w.resources)-2):] {
		if other.host == host && !other.open && !open {
			r.twin = other
		}
	}
	w.resources = append(w.resources, r)
	w.byURL[host+" "+target] = r
}

// shuffle puts the resources into the order of the seed, in which the first are
// the popular ones.
func (w *world) shuffle() {
	rng := rand.New(rand.NewPCG(w.options.Seed, 0))
	rng.Shuffle(len(w.resources), func(i, j int) { w.resources[i], w.resources[j] = w.resources[j], w.resources[i] })
	for i, r := range w.resources {
		r.id = i
	}
}
