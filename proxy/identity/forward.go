package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/coalesce"
	"firstbell/proxy/field"
	"firstbell/proxy/origin"
)

const (
	// askMax bounds one question to a login service, its wait for a place
	// included.
	askMax = 5 * time.Second
	// outageAfter failures in a row mean that the service is down, whoever is
	// asked about: then one question a second finds out when it is back, and
	// nobody else waits for it.
	outageAfter = 3
	probeEvery  = time.Second
	// failedHold is how long a credential whose question failed is not asked
	// about again while an older answer serves.
	failedHold = 2 * time.Second
	// answerBytesMax is how much of an answer's content is read to keep its
	// connection.
	answerBytesMax = 64 << 10
)

// Defaults of ForwardAuthConfig.
const (
	DefaultTTL          = 5 * time.Minute
	DefaultNegativeTTL  = 5 * time.Second
	DefaultStaleIfError = 12 * time.Hour
	DefaultStudentField = "X-Student"
)

// An Asker sends a request to the login service; *origin.Pool is one.
type Asker interface {
	Do(ctx context.Context, r *origin.Request) (*origin.Response, error)
}

// A Limit bounds what the service is asked at once; *admission.Limiter is one.
type Limit interface {
	Acquire(ctx context.Context) error
	Release()
}

// ForwardAuthConfig says whom to ask and what.
type ForwardAuthConfig struct {
	Asker  Asker
	Limit  Limit
	Target string   // path and query of the question, a GET
	Pass   []string // "cookie:name" or "header:Name": what makes up the credential, and all that is passed

	// The fields of a 2xx answer that name the person; School and Class may be
	// empty: not read.
	Student, School, Class string

	TTL          time.Duration // how long a 2xx is used
	NegativeTTL  time.Duration // how long a 401 or 403 is
	StaleIfError time.Duration // how long beyond TTL a 2xx is used while the service is down
	Sessions     int           // remembered; 0: DefaultSessions
}

// ForwardAuth verifies by asking the login service, once per credential.
type ForwardAuth struct {
	cfg    ForwardAuthConfig
	pass   []Source
	known  *known
	ends   *coalesce.Group[entry]
	counts *counts
	asked  *asking
}

// asking is how the questions went.
type asking struct {
	asked, failed, stale atomic.Uint64

	inRow   atomic.Int32 // failures without a success between them
	probeAt atomic.Int64 // unix ms: while the service is down, when it may be asked again

	mu   sync.Mutex // guards last
	last string
}

// NewForwardAuth returns a verifier, or what is wrong with its configuration.
func NewForwardAuth(c ForwardAuthConfig) (*ForwardAuth, error) {
	v := &ForwardAuth{cfg: c, known: newKnown(c.Sessions), ends: coalesce.NewGroup[entry](), counts: new(counts), asked: new(asking)}
	if c.Asker == nil || c.Limit == nil || !strings.HasPrefix(c.Target, "/") || c.Student == "" || c.TTL <= 0 {
		return nil, errors.New("making a forward-auth verifier: it needs an origin, a path, a field that names the student and a time to live")
	}
	if len(c.Pass) == 0 {
		return nil, errors.New("making a forward-auth verifier: it passes nothing on that says who asks")
	}
	for _, text := range c.Pass {
		s, err := ParseSource(text)
		if err != nil || s.kind == fromBearer {
			return nil, fmt.Errorf("making a forward-auth verifier: %q is nothing to pass on; write cookie:name or header:Name", text)
		}
		v.pass = append(v.pass, s)
	}
	return v, nil
}

// With returns the verifier for another connection to the same service: it
// knows what v knows, and from then on both learn from each other.
func (v *ForwardAuth) With(a Asker, l Limit) *ForwardAuth {
	other := *v
	other.cfg.Asker, other.cfg.Limit = a, l
	return &other
}

// Credential implements Verifier.
func (v *ForwardAuth) Credential() Credential {
	c := Credential{Scheme: "Cookie"}
	for _, s := range v.pass {
		one := s.credential()
		c.Ambient = c.Ambient || one.Ambient
		c.Fields = append(c.Fields, one.Fields...)
		if s.kind == fromField && strings.EqualFold(s.name, "Authorization") {
			// A browser repeats the answer to a Basic challenge by itself.
			c.Ambient, c.Scheme = true, "Bearer"
		}
	}
	return c
}

// Stats implements Verifier.
func (v *ForwardAuth) Stats() Stats {
	s := v.counts.stats("forward_auth", v.known)
	a := v.asked
	s.Asked, s.Failed, s.Stale = a.asked.Load(), a.failed.Load(), a.stale.Load()
	s.Outage = a.inRow.Load() >= outageAfter
	a.mu.Lock()
	s.LastErr = a.last
	a.mu.Unlock()
	return s
}

// Run implements Verifier: it forgets sessions that have ended.
func (v *ForwardAuth) Run(ctx context.Context) error { return v.known.run(ctx) }

// Verify implements Verifier.
func (v *ForwardAuth) Verify(ctx context.Context, r *Request) (*Person, error) {
	d, refusal := v.digest(r)
	if refusal != nil {
		return nil, v.counts.refused(refusal)
	}
	e, ok := v.known.get(&d)
	now := time.Now().UnixMilli()
	if !ok || now >= e.until {
		r.mayWait()
		e = v.settle(ctx, r, d, e, now)
	} else {
		v.known.countWarm(&d)
	}
	if e.person == nil {
		return nil, v.counts.refused(e.refusal)
	}
	return e.person, nil
}

// digest is that of all that is passed on, and of the host it is passed on for:
// one session id may stand for two people on two hosts.
func (v *ForwardAuth) digest(r *Request) (digest, *Refusal) {
	s := v.known.begin()
	s.add(r.Host)
	there, most := false, 0
	for _, source := range v.pass {
		value, refusal := source.find(r.Fields)
		if refusal != nil {
			s.end()
			return digest{}, refusal
		}
		there, most = there || len(value) > 0, most+len(value)
		if most > credentialBytesMax {
			s.end()
			return digest{}, errLong
		}
		s.add(value)
	}
	d := s.end()
	if !there {
		return d, errNone
	}
	return d, nil
}

// Session implements Verifier.
func (v *ForwardAuth) Session(dst []byte, r *Request) []byte {
	before := len(dst)
	dst = append(append(dst, r.Host...), 0)
	there := false
	for _, source := range v.pass {
		value, refusal := source.find(r.Fields)
		if refusal != nil || len(dst)-before+len(value) > credentialBytesMax+len(r.Host) {
			return dst[:before]
		}
		there = there || len(value) > 0
		dst = append(append(dst, value...), 0) // no field's value has a NUL
	}
	if !there {
		return dst[:before]
	}
	return dst
}

var errServiceDown = down("the login service cannot be reached at the moment", 2*time.Second)

// settle finds out what is not known, together with everybody who wants to
// know the same. old is what was known, if anything.
func (v *ForwardAuth) settle(ctx context.Context, r *Request, d digest, old entry, now int64) entry {
	if !v.asked.may(now) {
		return v.orStale(d, old, now, false)
	}
	f, leader := v.ends.Join(d[:])
	if !leader {
		e, err := f.Wait(ctx)
		if err != nil {
			return entry{refusal: errServiceDown}
		}
		return e
	}
	e := entry{refusal: errServiceDown}
	defer func() {
		f.Publish(e)
		f.Land()
	}()
	if again, ok := v.known.get(&d); ok && again.until > now {
		e = again // somebody else's flight has landed in between
		return e
	}
	e, err := v.ask(ctx, r)
	v.asked.heard(err)
	if err != nil {
		e = v.orStale(d, old, now, true)
		return e
	}
	v.counts.verified.Add(1)
	v.known.put(d, e)
	return e
}

// orStale is what to go by when the service cannot be asked.
func (v *ForwardAuth) orStale(d digest, old entry, now int64, hold bool) entry {
	if old.person == nil || now >= old.stale {
		return entry{refusal: errServiceDown}
	}
	v.asked.stale.Add(1)
	if hold {
		old.until = min(now+failedHold.Milliseconds(), old.stale)
		v.known.put(d, old)
	}
	return old
}

// may reports whether the service may be asked: always, but for an outage, in
// which one question a second is.
func (a *asking) may(now int64) bool {
	if a.inRow.Load() < outageAfter {
		return true
	}
	at := a.probeAt.Load()
	return now >= at && a.probeAt.CompareAndSwap(at, now+probeEvery.Milliseconds())
}

// heard notes how a question went.
func (a *asking) heard(err error) {
	a.asked.Add(1)
	text := ""
	if err == nil {
		a.inRow.Store(0)
	} else {
		a.failed.Add(1)
		text = err.Error()
		if n := a.inRow.Load(); n < outageAfter {
			a.inRow.Add(1)
		}
		a.probeAt.Store(time.Now().Add(probeEvery).UnixMilli())
	}
	a.mu.Lock()
	a.last = text
	a.mu.Unlock()
}

// ask puts the question. An error means that there was no answer to it.
func (v *ForwardAuth) ask(ctx context.Context, r *Request) (entry, error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	if err := v.cfg.Limit.Acquire(ctx); err != nil {
		return entry{}, err
	}
	defer v.cfg.Limit.Release()
	res, err := v.cfg.Asker.Do(ctx, v.question(r))
	if errors.Is(err, origin.ErrRequest) { // the service is not to blame for it
		return v.denied(401, "", time.Now()), nil
	}
	if err != nil {
		return entry{}, err
	}
	_, _ = io.CopyN(io.Discard, res.Body, answerBytesMax) // to keep the connection; its content says nothing
	_ = res.Body.Close()
	now := time.Now()
	switch {
	case 200 <= res.Status && res.Status < 300:
		return v.accepted(res.Fields, now)
	case res.Status == 401 || res.Status == 403:
		return v.denied(res.Status, res.Fields.Get("WWW-Authenticate"), now), nil
	case 300 <= res.Status && res.Status < 400: // to its login page
		return v.denied(401, "", now), nil
	}
	return entry{}, fmt.Errorf("the login service answers %d", res.Status)
}

// question is the GET with what is passed on and nothing else of the client's.
func (v *ForwardAuth) question(r *Request) *origin.Request {
	q := &origin.Request{Method: "GET", Target: v.cfg.Target, Host: string(r.Authority)}
	var cookies []byte
	for _, s := range v.pass {
		value, _ := s.find(r.Fields)
		switch {
		case len(value) == 0:
		case s.kind == fromCookie:
			if cookies != nil {
				cookies = append(cookies, "; "...)
			}
			cookies = append(append(append(cookies, s.name...), '='), value...)
		default:
			q.Fields = append(q.Fields, field.Field{Name: s.name, Value: string(value)})
		}
	}
	if cookies != nil {
		q.Fields = append(q.Fields, field.Field{Name: "Cookie", Value: string(cookies)})
	}
	q.Fields = append(q.Fields,
		field.Field{Name: "Accept", Value: "*/*"},
		field.Field{Name: "Via", Value: "1.1 firstbell"},
		field.Field{Name: "X-Forwarded-Host", Value: string(r.Authority)},
		field.Field{Name: "X-Forwarded-Proto", Value: r.Scheme},
	)
	return q
}

// accepted is whom a 2xx answer names.
func (v *ForwardAuth) accepted(fields field.List, now time.Time) (entry, error) {
	p := &Person{}
	for _, f := range [...]struct {
		name string
		to   *string
	}{{v.cfg.Student, &p.Student}, {v.cfg.School, &p.School}, {v.cfg.Class, &p.Class}} {
		if f.name == "" {
			continue
		}
		value, twice := oneLine(fields, f.name)
		if reason := unfit(string(value)); reason != "" || twice {
			return entry{}, fmt.Errorf("the field %s of the login service's answer cannot be read", f.name)
		}
		*f.to = string(bytes.TrimSpace(value))
	}
	switch {
	case p.Student == "":
		return entry{}, fmt.Errorf("the login service's answer names no student in its field %s", v.cfg.Student)
	case v.cfg.School != "" && p.School == "":
		return entry{}, fmt.Errorf("the login service's answer names no school in its field %s", v.cfg.School)
	}
	p.claims = []claim{{"student", p.Student}, {"school", p.School}, {"class", p.Class}}
	p.Expires = now.Add(v.cfg.TTL)
	return entry{person: p, until: p.Expires.UnixMilli(), stale: p.Expires.Add(v.cfg.StaleIfError).UnixMilli()}, nil
}

// denied is the login service's no.
func (v *ForwardAuth) denied(status int, challenge string, now time.Time) entry {
	r := &Refusal{Status: status, Code: "invalid_token", Reason: "the login service does not know this session; log in again", Challenge: challenge}
	if status == 403 {
		r.Code, r.Reason = "insufficient_scope", "the login service does not allow this"
	}
	return entry{refusal: r, until: now.Add(v.cfg.NegativeTTL).UnixMilli()}
}
