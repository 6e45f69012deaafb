package leaks

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A resource is one URL at one host.
type resource struct {
	id      int
	kind    *kind
	host    string
	target  string // path and query, as sent
	open    bool   // on an anonymous route
	twin    *resource
	version atomic.Uint32 // of its contents, raised by every change

	mu     sync.Mutex // guards all below
	sure   uint32     // the version that somebody was told of when they changed it
	soft   uint32     // the version that came with the last soft purge
	softAt time.Time  // when that was done
	trace  [traceEvents]event
	at     int // of the next event
}

// traceEvents are remembered of each resource.
const traceEvents = 24

// An event is something that happened to a resource.
type event struct {
	when   time.Time
	what   string
	serial uint32 // of a response, or 0
	asker  uint32 // number of the question
	user   int
}

func (r *resource) note(what string, serial, asker uint32, user int) {
	r.mu.Lock()
	r.trace[r.at%traceEvents] = event{time.Now(), what, serial, asker, user}
	r.at++
	r.mu.Unlock()
}

// confirmed is the version below which nobody should be answered any more.
func (r *resource) confirmed() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sure
}

func (r *resource) confirm(version uint32) {
	r.mu.Lock()
	r.sure = max(r.sure, version)
	r.mu.Unlock()
}

// history is what was noted last, oldest first.
func (r *resource) history(until time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for i := max(0, r.at-traceEvents); i < r.at; i++ {
		e := &r.trace[i%traceEvents]
		fmt.Fprintf(&b, "  %8.3f s  question %-7d user %-2d  %s", -until.Sub(e.when).Seconds(), e.asker, e.user, e.what)
		if e.serial != 0 {
			fmt.Fprintf(&b, " %s", mark(e.serial))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// A rep is one representation: what a resource's content is for those for whom
// the same aspects are the same.
type rep struct {
	id   uint32
	of   repKey
	res  *resource
	size int
}

// A repKey says for whom, of what and in which version a representation is.
type repKey struct {
	resource                  int
	version                   uint32
	cookie, auth, class, asks int8
	language, address         int8
}

// A served is a response as the origin sent it.
type served struct {
	serial  uint32
	res     *resource
	rep     *rep
	by      traits // of the request that it answers
	reach   reach
	at      time.Time // when its header section was made
	cookie  bool      // it sets one
	coded   bool
	ends    atomic.Int64 // when its content was sent, in nanoseconds since at; 0: not yet
	changed bool         // it confirms a change
	twin    uint32       // and the change of the resource's twin to this version; 0: none
}

// A world is the state of a run that both ends know.
type world struct {
	options   Options
	began     time.Time
	resources []*resource
	byURL     map[string]*resource // host, space, target

	mu   sync.Mutex // guards reps and all
	reps map[repKey]*rep
	all  []*rep
	sent []*served // by serial less 1

	questions atomic.Uint32
	tally     tally
}

// repOf returns the representation for a request.
func (w *world) repOf(res *resource, t *traits, version uint32) *rep {
	key := repKey{resource: res.id, version: version}
	by := res.kind.by
	if by&byCookie != 0 && t.cookie {
		key.cookie = int8(t.user) + 1
	}
	if by&byAuth != 0 && t.auth {
		key.auth = int8(t.user) + 1
	}
	if by&byLanguage != 0 {
		key.language = t.language + 1
	}
	if by&byTongue != 0 {
		key.language = tongue(t.language)
	}
	if by&byClass != 0 {
		key.class = t.class + 1
	}
	if by&byAddress != 0 {
		key.address = t.address + 1
	}
	if by&byContent != 0 {
		key.asks = t.content + 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.reps[key]
	if r == nil {
		r = &rep{id: uint32(len(w.all)) + 1, of: key, res: res}
		r.size = sizeOf(res.kind, r.id)
		w.reps[key], w.all = r, append(w.all, r)
	}
	return r
}

// sizeOf is the length of a content: no two follow each other alike, so that
// lengths do not fit when contents are mixed up.
func sizeOf(k *kind, id uint32) int {
	n := int(id * 2654435761 >> 8)
	if k.big {
		return 17<<10 + n%(32<<10)
	}
	if n%16 == 0 {
		return n / 16 % 3 * 17 // 0, 17 or 34 bytes
	}
	return 64 + n%1500
}

func (w *world) repByID(id uint32) *rep {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == 0 || int(id) > len(w.all) {
		return nil
	}
	return w.all[id-1]
}

// serve remembers a response and numbers it.
func (w *world) serve(s *served) {
	w.mu.Lock()
	w.sent = append(w.sent, s)
	s.serial = uint32(len(w.sent))
	w.mu.Unlock()
}

func (w *world) servedBy(serial uint32) *served {
	w.mu.Lock()
	defer w.mu.Unlock()
	if serial == 0 || int(serial) > len(w.sent) {
		return nil
	}
	return w.sent[serial-1]
}

// The origin fails on purpose for downTime in every downEvery.
const downEvery, downTime = 20 * time.Second, 1500 * time.Millisecond

// down reports whether the origin fails on purpose now.
func (w *world) down(now time.Time) bool {
	return w.options.Outages && now.Sub(w.began)%downEvery > downEvery-downTime
}

// failing reports whether the origin failed on purpose at any time between two
// moments, or so shortly before that it may still be held against it.
func (w *world) failing(from, to time.Time) bool {
	if !w.options.Outages {
		return false
	}
	from = from.Add(-heldMax)
	if to.Sub(from) >= downEvery-downTime {
		return true
	}
	return w.down(from) || w.down(to) || w.began.Add(from.Sub(w.began).Truncate(downEvery)+downEvery).Before(to)
}

// heldMax is for how long a proxy may hold a failure against an origin.
const heldMax = 2 * time.Second

// permits says which rule a response breaks that answers a question, by the
// header section alone, and in what way; none when the origin permits it.
func (w *world) permits(q *question, s *served) (Leak, string) {
	switch {
	case s.res.host != q.res.host && s.res.target == q.res.target:
		return OtherURL, "another host's"
	case s.res != q.res:
		return OtherURL, s.res.host + s.res.target
	case s.by.question == q.question:
		return None, ""
	case s.changed:
		return UserPage, "the answer to a change"
	case s.cookie && !s.res.open:
		return CookiePage, s.res.kind.name
	case s.by.noStore:
		return NoStoreAsked, s.res.kind.name
	}
	if leak := w.reaches(q, s); leak != None {
		return leak, s.res.kind.name
	}
	asks := q.traits
	if q.res.open {
		asks.cookie, asks.auth = false, false // the origin is not told
	}
	if leak, why := differs(&asks, &s.by, s.res.kind.vary); leak != None {
		return leak, why
	}
	return w.tooOld(q, s)
}

// reaches says whom the response was for, if not for the one who asks.
func (w *world) reaches(q *question, s *served) Leak {
	if s.res.open && s.reach != own {
		return None // nobody says who they are
	}
	credentials := s.by.cookie || s.by.auth || q.cookie || q.auth
	switch {
	case s.reach == own:
		return UserPage
	case s.reach == checked && credentials:
		return ValidatedPage
	case s.reach == checked:
		return Unvalidated
	case s.reach == plain && credentials:
		return SilentPage
	case s.reach == everyone && (s.by.auth || q.auth):
		return AuthPage
	}
	return None
}

// differs says which of the aspects that tell requests apart are different.
func differs(a, b *traits, vary aspect) (Leak, string) {
	switch {
	case vary&byCookie != 0 && (a.cookie != b.cookie || a.cookie && a.user != b.user):
		return VaryPage, "Cookie"
	case vary&byAuth != 0 && (a.auth != b.auth || a.auth && a.user != b.user):
		return VaryPage, "Authorization"
	case vary&byLanguage != 0 && a.language != b.language:
		return VaryPage, "Accept-Language"
	case vary&byClass != 0 && a.class != b.class:
		return VaryPage, "X-Class"
	case vary&byAddress != 0 && a.address >= 0 && a.address != b.address:
		return VaryPage, "X-Forwarded-For"
	case vary&byContent != 0 && a.content != b.content:
		return ContentIgnored, ""
	}
	return None, ""
}

// clockSlack is for Date and Age, which know whole seconds only, and for
// the way between the ends.
const clockSlack = 300 * time.Millisecond

// tooOld says that a response which may be shared is used for longer than it
// may be.
func (w *world) tooOld(q *question, s *served) (Leak, string) {
	if s.rep.of.version < q.floor {
		return Unchanged, s.res.kind.name
	}
	k, now := s.res.kind, time.Now()
	life, stale, onErr := k.life, k.stale, k.onErr
	if k.silent {
		life = max(life, w.options.DefaultTTL)
	}
	if !k.strict {
		stale = max(stale, w.options.StaleWhileRevalidate)
		onErr = max(onErr, w.options.StaleIfError)
	}
	troubled := k.flaw != sound || w.failing(s.at, now)
	if troubled {
		stale = max(stale, onErr)
	}
	if !k.strict || k.stale > 0 || k.onErr > 0 {
		stale = max(stale, q.maxStale)
	}
	ends := s.ends.Load()
	if ends == 0 {
		return None, "" // it still comes
	}
	done := s.at.Add(time.Duration(ends))
	until := s.at.Add(life)
	if done.After(until) {
		until = done
	}
	slack := clockSlack + w.options.Slack
	if version, at := s.res.madeStale(); s.rep.of.version < version && at.Before(until) && q.at.After(at) {
		until = at // from then on it is stale
	}
	switch {
	case q.at.After(until.Add(stale + slack)):
		return Stale, fmt.Sprintf("%s, %.1f s too late", k.name, q.at.Sub(until.Add(stale)).Seconds())
	case q.reload && w.options.Reloads && !troubled && q.at.After(done.Add(time.Second+slack)):
		return Stale, k.name + ", to a reload"
	}
	return None, ""
}
