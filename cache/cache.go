package cache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/proxy/field"
)

// Options are the settings of a Cache.
type Options struct {
	// MemoryBytes bounds what is kept in memory, fields and bookkeeping
	// included; 0 is 256 MiB, less than 1 MiB an error.
	MemoryBytes int64

	// PurgeFile is where purges are written down, so that they hold for what a
	// disk keeps through a restart; empty: in the directory of Disk, and
	// without one they end with the process.
	PurgeFile string

	// Disk keeps stored responses through a restart; nil: memory alone does.
	Disk *DiskOptions
}

// Cache keeps stored responses. All methods may be called at once.
type Cache struct {
	memory      *memory
	tier        *tier // the disk below; nil without one
	uncacheable uncacheable
	ranges      uncacheable // what LearnRanges was told, salted
	pages       pages
	purges      purges
	census      census
	peer        atomic.Pointer[peering] // another process's cache, or nil
	scratch     sync.Pool               // of *[]byte, for variant keys

	lookups [counterCells]lookupCounts
	puts    atomic.Uint64
	refused atomic.Uint64
	learnt  atomic.Uint64

	purgeCount atomic.Uint64
}

// New makes a cache, empty but for what its disk holds: that answers at once.
// Run must be started for objects to reach the disk. Close ends it.
func New(o Options) (*Cache, error) {
	m, err := newMemory(o.MemoryBytes)
	if err != nil {
		return nil, err
	}
	c := &Cache{memory: m}
	if o.Disk != nil {
		if c.tier, err = openTier(c, o.Disk); err != nil {
			return nil, err
		}
		if o.PurgeFile == "" {
			o.PurgeFile = purgeFileIn(o.Disk.Path)
		}
	}
	if o.PurgeFile != "" {
		if err := openPurgeFile(o.PurgeFile, &c.purges); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	c.scratch.New = func() any { b := make([]byte, 0, 512); return &b }
	return c, nil
}

// Run brings objects to disk until ctx is done, whose error it returns once
// what is on its way to disk is there. It is called once.
func (c *Cache) Run(ctx context.Context) error {
	if c.tier != nil {
		c.tier.run(ctx)
	}
	<-ctx.Done()
	return ctx.Err()
}

// Close lets the files go. Run must have returned, and nothing may be called
// any more.
func (c *Cache) Close() error {
	err := errors.Join(c.purges.file.close(), c.pages.close())
	if c.tier != nil {
		err = errors.Join(err, c.tier.store.Close())
	}
	return err
}

// Outcome is what a look-up came to.
type Outcome uint8

const (
	Miss   Outcome = iota // to be fetched, or validated when there is a Stored
	Hit                   // Stored answers
	Stale                 // Stored answers now, and is to be validated in the background
	Bypass                // the request has to go to the origin by itself
)

func (o Outcome) String() string {
	return [...]string{"miss", "hit", "stale", "bypass"}[o]
}

// Found is what Lookup found.
type Found struct {
	Outcome Outcome

	// Stored answers on Hit and Stale. On Miss it is the stored response that
	// may be validated, and that may serve when the origin fails
	// (MayServeOnError), or nil.
	Stored *Stored

	// Others are, where none of the variants of the key suits the request,
	// those that the origin may name in a 304 all the same: the fetch carries
	// their entity tags (AppendTags), and Named takes the 304. At most eight.
	Others []*Stored

	// Reason says why the request goes forward, in the words of RFC 9211
	// section 2.2: uri-miss, vary-miss, stale, request, bypass, method. Empty
	// on Hit. Detail may say more.
	Reason, Detail string

	// Freshen: on Hit, Stored is popular and will be stale soon; freshened in
	// the background by now, it never is. See early.go.
	Freshen bool

	Age, TTL time.Duration // of Stored; TTL is negative when it is stale

	// Uncacheable: what the key names was found not to be shareable lately, so
	// nobody should wait for somebody else's fetch of it.
	Uncacheable bool

	// OnlyIfCached: on Miss the client wants a 504 and no fetch (RFC 9111
	// section 5.2.1.7).
	OnlyIfCached bool

	// Vary are the names of the newest response known for the key: with
	// VariantKey they tell which flight to join.
	Vary []string

	inMain bool
}

// reloadFloor is the age up to which a stored response does even for a
// request that wants it validated (no-cache, max-age=0: the reload button).
// A thousand students who press it at nine cost the origin one validation a
// second, and what they see is never older than that. Request directives are
// advice (RFC 9111 section 5.2.1).
const reloadFloor = time.Second

// Lookup finds what the cache has for a request. What is in memory it finds
// without a lock; what is not it looks for on disk, if there is one. On a Hit or
// Stale from memory it allocates nothing when the request's fields are a field.List or
// have PeekAll, as the proxy's do.
func (c *Cache) Lookup(r *Request, p *Policy, now time.Time) Found {
	f := c.lookup(r, p, now)
	c.count(&f)
	return f
}

func (c *Cache) lookup(r *Request, p *Policy, now time.Time) Found {
	if r.Method != "GET" && r.Method != "HEAD" {
		return Found{Outcome: Bypass, Reason: "method"}
	}
	w := wishesOf(r.Fields)
	if w.noStore {
		return Found{Outcome: Bypass, Reason: "request", Detail: "no-store"}
	}
	if originOnly(r.Fields) {
		return Found{Outcome: Bypass, Reason: "request", Detail: "precondition"}
	}
	f := Found{Outcome: Miss, Reason: "uri-miss", OnlyIfCached: w.onlyIfCached}
	c.lookInMemory(&f, &w, r, p, now)
	if c.tier != nil && f.Outcome == Miss && f.Stored == nil {
		c.lookOnDisk(&f, &w, r, p, now)
	}
	if f.Outcome == Miss && f.Stored == nil {
		if other := c.peer.Load(); other != nil && c.lookElsewhere(other, r.Key) {
			f.Others = nil
			c.lookInMemory(&f, &w, r, p, now)
		}
	}
	if f.Outcome == Miss {
		f.Uncacheable = c.uncacheable.has(c.memory.index.hash(r.Key), now)
	}
	return f
}

// lookInMemory is the look-up of what is in memory.
func (c *Cache) lookInMemory(f *Found, w *wishes, r *Request, p *Policy, now time.Time) {
	if e := c.memory.get(r.Key); e != nil {
		f.inMain = e.where.Load() == inMain
		f.Vary = e.variants[0].Verdict.Vary
		f.Reason = "vary-miss"
		switch s := c.selectVariant(e, r.Fields); {
		case s == nil:
			f.Others = c.others(e.variants, r, p)
		case c.purged(s):
			c.memory.swap(s, nil)
			f.Reason, f.Detail = "uri-miss", "purged"
		default:
			f.consider(s, w, r, p, now)
			f.Freshen = f.Outcome == Hit && c.due(s, f.TTL)
		}
	}
}

// lookOnDisk is the look-up of what is not in memory.
func (c *Cache) lookOnDisk(f *Found, w *wishes, r *Request, p *Policy, now time.Time) {
	s, vary, read := c.tier.find(r)
	if f.Vary == nil {
		f.Vary = vary
	}
	switch {
	case s != nil:
		f.Reason, f.Others = "vary-miss", nil
		f.consider(s, w, r, p, now)
	case len(read) > 0:
		f.Reason = "vary-miss"
		if len(f.Others) == 0 {
			f.Others = c.others(read, r, p)
		}
	}
}

// consider decides what s is good for.
func (f *Found) consider(s *Stored, w *wishes, r *Request, p *Policy, now time.Time) {
	if !s.Verdict.MayAnswer(r, p) {
		f.Outcome, f.Reason, f.Detail = Bypass, "bypass", "credentials"
		return
	}
	f.Stored = s
	f.Age, f.TTL = s.Age(now), s.FreshFor(now)
	reason, detail := w.against(f.Age, f.TTL, now.Sub(s.responseTime))
	switch {
	case f.TTL > 0 && reason == "":
		f.Outcome, f.Reason = Hit, ""
	case reason != "":
		f.Reason, f.Detail = reason, detail
	case s.servesStale(-f.TTL, w):
		f.Outcome, f.Reason = Stale, "stale"
	default:
		f.Reason = "stale"
	}
}

// against returns why a stored response that may be fresh does not do for the
// request, or "" (RFC 9111 section 5.2.1). validated is how long ago the
// origin last vouched for it.
func (w *wishes) against(age, left, validated time.Duration) (reason, detail string) {
	reload := validated >= reloadFloor || validated < 0
	switch {
	case w.noCache && reload:
		return "request", "no-cache"
	case w.maxAge.valid() && reload && age > w.maxAge.duration():
		return "request", "max-age"
	case w.minFresh.valid() && left > 0 && left < w.minFresh.duration():
		return "request", "min-fresh"
	}
	return "", ""
}

// servesStale reports whether s may be sent although it is stale since
// staleness, without the origin being in trouble.
func (s *Stored) servesStale(staleness time.Duration, w *wishes) bool {
	v := &s.Verdict
	switch {
	case v.validate:
		return false
	case w.maxStale.valid() && !v.mustValidate && staleness <= w.maxStale.duration():
		return true
	}
	return w.maxAge == absent && w.minFresh == absent && staleness < v.StaleWhileRevalidate
}

// wishesOf reads Cache-Control or, without it, Pragma (RFC 9111 section 5.4).
func wishesOf(f field.Fields) wishes {
	if v, there := allLines(f, "Cache-Control"); there {
		return parseWishes(v)
	}
	w := noWishes()
	if v := f.Peek("Pragma"); v != nil {
		w.noCache = parseWishes(v).noCache
	}
	return w
}

// selectVariant returns the newest of e's stored responses whose selecting
// fields match (RFC 9111 section 4.1), or nil.
func (c *Cache) selectVariant(e *entry, f field.Fields) *Stored {
	var names []string
	var key []byte
	var scratch *[]byte
	var found *Stored
	for i, s := range e.variants {
		vary := s.Verdict.Vary
		if len(vary) == 0 {
			found = s
			break
		}
		if scratch == nil {
			scratch = c.scratch.Get().(*[]byte)
		}
		if i == 0 || !sameNames(vary, names) {
			names, key = vary, VariantKey((*scratch)[:0], vary, f)
		}
		if s.variant == string(key) {
			found = s
			break
		}
	}
	if scratch != nil {
		if *scratch = key; cap(key) <= scratchMax {
			c.scratch.Put(scratch)
		}
	}
	return found
}

// scratchMax keeps one huge Cookie from staying in the pool for ever.
const scratchMax = 64 << 10

// Put stores s, which its Verdict must allow, in the place of the stored
// response of the same key and variant. When it returns true, Lookup finds s
// until the budget or an invalidation takes it, and a key that s shows to be
// shareable is no longer remembered as uncacheable.
//
// It returns false when s may not be stored, when it is larger than
// MaxObjectBytes allows, when it is an error and would displace a response that
// may still serve on error, or when its key was invalidated or it was purged
// for good since its fetch began (Begin): then s answers nobody.
func (c *Cache) Put(s *Stored) bool {
	if !s.Verdict.Store {
		c.refused.Add(1)
		return false
	}
	now := s.responseTime
	c.adoptSame(s)
	kept := !c.purged(s) && c.memory.put(s, func(old *Stored) bool {
		return s.Verdict.errorReply && !old.Verdict.errorReply && old.MayServeOnError(now) && !c.purged(old)
	})
	if !kept {
		c.refused.Add(1)
		return false
	}
	c.puts.Add(1)
	if other := c.peer.Load(); other != nil {
		other.Stored(view(s.key))
	}
	if c.tier != nil {
		c.tier.put(s)
	}
	if s.Verdict.fresh() {
		c.uncacheable.forget(c.memory.index.hash(view(s.key)))
	}
	return true
}

// MaxObjectBytes is the size of the largest object that Put takes, its fields
// and bookkeeping included: an eighth of the memory.
func (c *Cache) MaxObjectBytes() int64 { return c.memory.largest() - entryBytes }

// Invalidate takes out every stored response of the key, and reports whether
// there was one. Look-ups that begin afterwards do not find it, nor what a
// fetch brings that had begun before.
func (c *Cache) Invalidate(key []byte) bool {
	there := c.InvalidateHere(key)
	if other := c.peer.Load(); other != nil {
		other.Invalidated(key)
		c.memory.remove(key) // it may have been handed over meanwhile
	}
	return there
}

// InvalidateHere is Invalidate for what another process has told of: it is not
// told again.
func (c *Cache) InvalidateHere(key []byte) bool {
	there := c.memory.remove(key)
	if c.tier != nil {
		head := c.tier.store.Remove(headKey(key)) // blocks are found through it alone
		there = c.tier.store.Remove(key) || head || there
		// Who looked it up meanwhile had it from disk, and has perhaps put it
		// into memory.
		c.memory.remove(key)
	}
	return there
}

// MarkUncacheable remembers for d that what r asks for is not shareable. The
// table has room for 65,536 keys; a full one forgets the soonest to expire.
func (c *Cache) MarkUncacheable(r *Request, d time.Duration) {
	c.learnt.Add(1)
	c.uncacheable.add(c.memory.index.hash(r.Key), time.Now(), d)
}
