package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"
)

const (
	// A name that the CA finds at fault is tried again after a minute, then
	// after four times as long each time: four tries in the first hour, one
	// less than Let's Encrypt bears.
	againMin = time.Minute
	againMax = 6 * time.Hour

	// While the CA itself is at fault, or our disk, nobody asks for so long,
	// twice as long each time; then one does.
	pauseMin = time.Minute
	pauseMax = time.Hour
)

// blame says whose fault it is that there is no certificate.
type blame int

const (
	blameName  blame = iota // the CA says: the name's
	blameHaste              // it was asked too often, for this name or at all
	blameCA                 // the CA did not answer as it should, or what it said could not be kept
)

// ca is what a queue asks.
type ca interface {
	// order gets a certificate for name, and takes no longer than a few minutes.
	// Many may be asked for at once.
	order(ctx context.Context, name string, renew bool) (*tls.Certificate, error)
	// load returns the certificate that was got before; nil without one.
	load(ctx context.Context, name string) (*tls.Certificate, error)
	blame(err error) blame
}

// queue has certificates got and renewed for names, one after the other, and as
// many as a CA bears.
type queue struct {
	ca     ca
	log    *slog.Logger
	limits Limits
	got    func() // called without the lock when a name has another certificate
	wake   chan struct{}

	mu     sync.Mutex // guards what follows
	names  map[string]*wanted
	busy   int
	orders []time.Time            // of the last hour, oldest first
	news   map[string][]time.Time // by registered domain: first certificates of the last week, oldest first
	pause  time.Duration          // the last one; 0 when the last order was answered
	until  time.Time              // nobody asks before
	why    string                 // the error that it is for

	ordered, failed uint64
}

// wanted is a name that shall have a certificate.
type wanted struct {
	name    string
	domain  string       // the registered domain that CAs count by
	cert    *certificate // nil until there is one
	next    time.Time    // it is due
	tries   int          // failed ones in a row
	busy    bool
	problem string // of the last try
	waits   bool   // for the CA, which was at fault
}

func newQueue(c ca, limits Limits, log *slog.Logger, got func()) *queue {
	limits.OrdersPerHour = cmp.Or(limits.OrdersPerHour, 80)
	limits.NewPerDomain = cmp.Or(limits.NewPerDomain, 45)
	limits.AtOnce = cmp.Or(limits.AtOnce, 4)
	return &queue{ca: c, log: log, limits: limits, got: got, wake: make(chan struct{}, 1), names: map[string]*wanted{}, news: map[string][]time.Time{}}
}

// want replaces the names. Those that are new are looked for on disk first; an
// error there is one for the name alone.
func (q *queue) want(ctx context.Context, names []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := q.names
	q.names = make(map[string]*wanted, len(names))
	for _, name := range names {
		if w := before[name]; w != nil {
			q.names[name] = w
			continue
		}
		w := &wanted{name: name, domain: registered(name), next: time.Now()}
		c, err := q.ca.load(ctx, name)
		if err != nil {
			w.problem = err.Error()
		}
		if c != nil {
			w.cert = &certificate{c, "acme"}
			w.next = renewAt(name, c.Leaf)
			if since := time.Since(c.Leaf.NotBefore); since < 7*24*time.Hour {
				q.news[w.domain] = append(q.news[w.domain], c.Leaf.NotBefore)
			}
		}
		q.names[name] = w
	}
	for _, times := range q.news {
		slices.SortFunc(times, time.Time.Compare)
	}
	q.poke()
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// registered is what a name's certificates are counted by.
func registered(name string) string {
	if d, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return d
	}
	return name
}

// renewAt is when a third of a certificate's time is left, or up to a twelfth
// before: by its name, so that those that came together are renewed apart.
func renewAt(name string, leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	h := fnv.New32a()
	h.Write([]byte(name))
	early := time.Duration(float64(life/12) * float64(h.Sum32()) / (1 << 32))
	return leaf.NotAfter.Add(-life/3 - early)
}

// run orders what is due, until ctx ends and every order with it.
func (q *queue) run(ctx context.Context) {
	var orders sync.WaitGroup
	defer orders.Wait()
	for ctx.Err() == nil {
		w, wait := q.next(time.Now())
		if w != nil {
			orders.Go(func() { q.try(ctx, w) })
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// lookMax is how long the queue sleeps at most.
const lookMax = time.Hour

// next returns the name to order for now, or how long there is none: those that
// have no certificate first, then those that are due the longest.
func (q *queue) next(now time.Time) (w *wanted, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait = lookMax
	free := q.limits.AtOnce
	if q.pause > 0 {
		free = 1
		if d := q.until.Sub(now); d > 0 {
			return nil, min(d, wait)
		}
	}
	if q.busy >= free {
		return nil, wait // who ends wakes us
	}
	q.orders = since(q.orders, now.Add(-time.Hour))
	if len(q.orders) >= q.limits.OrdersPerHour {
		return nil, q.orders[0].Add(time.Hour).Sub(now)
	}
	for _, one := range q.names {
		if one.busy {
			continue
		}
		due := one.next
		if one.cert == nil {
			if free := q.freeLocked(one.domain, now); free.After(now) && free.After(due) {
				due = free
				one.problem = fmt.Sprintf("waits until %s: %s has had %d new certificates within a week", free.UTC().Format(time.RFC3339), one.domain, q.limits.NewPerDomain)
			}
		}
		if d := due.Sub(now); d > 0 {
			wait = min(wait, d)
		} else if w == nil || before(one, w) {
			w = one
		}
	}
	if w != nil {
		w.busy = true
		q.busy++
		q.orders = append(q.orders, now)
		if w.cert == nil {
			q.news[w.domain] = append(q.news[w.domain], now)
		}
	}
	return w, wait
}

func before(a, b *wanted) bool {
	if (a.cert == nil) != (b.cert == nil) {
		return a.cert == nil
	}
	return a.next.Before(b.next)
}

// freeLocked is when a registered domain may have one more new certificate.
func (q *queue) freeLocked(domain string, now time.Time) time.Time {
	times := since(q.news[domain], now.Add(-7*24*time.Hour))
	if len(times) == 0 {
		delete(q.news, domain)
		return now
	}
	q.news[domain] = times
	if len(times) < q.limits.NewPerDomain {
		return now
	}
	return times[len(times)-q.limits.NewPerDomain].Add(7 * 24 * time.Hour)
}

// since drops what is not after t.
func since(times []time.Time, t time.Time) []time.Time {
	n, _ := slices.BinarySearchFunc(times, t.Add(1), time.Time.Compare)
	return times[n:]
}

// try orders once for w.
func (q *queue) try(ctx context.Context, w *wanted) {
	c, err := q.ca.order(ctx, w.name, w.cert != nil)
	q.mu.Lock()
	w.busy = false
	q.busy--
	q.poke()
	if err != nil {
		if ctx.Err() == nil {
			q.failedLocked(w, err)
		}
		q.mu.Unlock()
		return
	}
	q.ordered++
	if q.pause > pauseMin {
		q.recoveredLocked()
	}
	q.pause, q.why = 0, ""
	w.cert, w.tries, w.problem, w.waits = &certificate{c, "acme"}, 0, "", false
	w.next = renewAt(w.name, c.Leaf)
	if soon := time.Now().Add(againMin); w.next.Before(soon) {
		w.next = soon // whatever the CA thinks of time
	}
	q.mu.Unlock()
	q.log.Info("a certificate has been issued", "name", w.name, "expires", c.Leaf.NotAfter)
	q.got()
}

// recoveredLocked lets those go at once that waited for the CA alone.
func (q *queue) recoveredLocked() {
	for _, w := range q.names {
		if w.waits {
			w.next, w.tries, w.waits = time.Now(), 0, false
		}
	}
}

// failedLocked decides who waits, and for how long: the name, and with a CA at
// fault everybody. A name for which the CA only seems to be at fault, as it never
// ends there, waits longer each time and holds the others up less and less.
func (q *queue) failedLocked(w *wanted, err error) {
	q.failed++
	w.problem = err.Error()
	w.tries++
	if times := q.news[w.domain]; w.cert == nil && len(times) > 0 {
		q.news[w.domain] = times[:len(times)-1] // it does not count
	}
	wait := min(againMin<<min(2*(w.tries-1), 20), againMax)
	switch blame := q.ca.blame(err); {
	case blame == blameName:
		q.pause, q.why, w.waits = 0, "", false // it does answer
	case q.pause > 0 && time.Now().Before(q.until):
		// Of those that failed together one counts.
		w.tries--
		w.waits, wait = true, time.Until(q.until)
	default:
		w.waits = true
		q.pause = min(max(2*q.pause, pauseMin), pauseMax)
		q.until = time.Now().Add(spread(q.pause))
		q.why = err.Error()
		if blame == blameHaste {
			wait = max(wait, time.Hour)
		}
		q.log.Error("no certificates are got for now; those that are there are shown on", "pause", q.pause, "name", w.name, "error", err)
	}
	w.next = time.Now().Add(spread(wait))
	if !w.waits {
		q.log.Warn("there is no certificate for a name", "name", w.name, "tries", w.tries, "next", w.next, "error", err)
	}
}

// spread is d, give or take an eighth.
func spread(d time.Duration) time.Duration { return d*7/8 + rand.N(d/4+1) }

// certificates returns what there is, by name.
func (q *queue) certificates() []*certificate {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := make([]*certificate, 0, len(q.names))
	for _, w := range q.names {
		if w.cert != nil {
			all = append(all, w.cert)
		}
	}
	slices.SortFunc(all, func(a, b *certificate) int { return cmp.Compare(a.Leaf.DNSNames[0], b.Leaf.DNSNames[0]) })
	return all
}

// ACMEStats say how getting certificates goes.
type ACMEStats struct {
	Wanted  int    // names
	Missing int    // of them, those without a certificate
	Failing int    // of them, those whose last try failed
	Ordered uint64 // certificates got
	Failed  uint64 // orders that came to nothing
	Now     int    // orders under way
	Paused  string // why nobody is asked at the moment; empty: they are
	Until   time.Time
}

func (q *queue) stats() (st ACMEStats, problems []Status) {
	q.mu.Lock()
	defer q.mu.Unlock()
	st = ACMEStats{Wanted: len(q.names), Ordered: q.ordered, Failed: q.failed, Now: q.busy}
	if q.pause > 0 {
		st.Paused, st.Until = q.why, q.until
	}
	for _, w := range q.names {
		one := Status{From: "acme", Names: []string{w.name}, Problem: w.problem}
		if w.cert == nil {
			st.Missing++
			one.Problem = cmp.Or(one.Problem, "it has not been issued yet")
		} else {
			one.Expires = w.cert.Leaf.NotAfter
			if err := Untimely(w.cert.Leaf, time.Now()); err != nil {
				one.Problem = err.Error()
			}
		}
		if w.problem != "" {
			st.Failing++
		}
		problems = append(problems, one)
	}
	return st, problems
}
