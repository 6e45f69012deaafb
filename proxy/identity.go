package proxy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/attendance"
	"firstbell/proxy/field"
	"firstbell/proxy/identity"
)

// Verifier finds out who sends a request; package identity has those we know.
type Verifier interface {
	// Verify returns whom the request's credential vouches for, or an
	// *identity.Refusal. The person is shared: nobody changes it.
	Verify(ctx context.Context, r *identity.Request) (*identity.Person, error)
	// Credential says where credentials stand.
	Credential() identity.Credential
	// Session appends what the request's credential is made of.
	Session(dst []byte, r *identity.Request) []byte
}

// Identity says who may use a route: whoever the verifier knows, at the school
// that they belong to. It is not changed once a route has it.
type Identity struct {
	Verifier Verifier

	// Schools finds the school of a host, which must be the one that the
	// credential names, if it names one.
	Schools *attendance.Schools

	// Login is where a browser is sent that nobody vouches for; "{return}" in it
	// becomes the URL that was asked for. Empty: it gets a page.
	Login string

	// Unverified lets check-ins in, as unverified ones, while it cannot be found
	// out who sends them because the issuer or the login service is down. The
	// check-in must name its student itself.
	Unverified bool

	credential identity.Credential
}

// NewIdentity returns i, ready for a route.
func NewIdentity(i Identity) *Identity {
	i.credential = i.Verifier.Credential()
	return &i
}

// carries reports whether a request's field holds the credential, or a part.
func (i *Identity) carries(name string) bool {
	if i == nil {
		return false
	}
	for _, f := range i.credential.Fields {
		if strings.EqualFold(f, name) {
			return true
		}
	}
	return false
}

// identify finds out who asks, and returns false when it has answered because
// nobody may who does.
func (p *Proxy) identify(x *exchange, i *Identity) bool {
	x.asker = identity.Request{Fields: x.fields, Host: x.host, Authority: x.authority, Scheme: x.scheme, Waiter: x}
	person, err := i.Verifier.Verify(p.life, &x.asker)
	if err == nil {
		err = i.belongs(x, person)
	}
	if err == nil {
		x.person = person
		return true
	}
	if i.Unverified && x.route.CheckIn != nil && identity.Down(err) {
		return true
	}
	p.refuseIdentity(x, i, err)
	return false
}

var (
	errElsewhere = &identity.Refusal{Status: 403, Code: "insufficient_scope", Reason: "this credential is of another school"}
	errCrossSite = &identity.Refusal{Status: 403, Reason: "this does not come from a page of this school"}
)

// belongs reports why a person may not do this here.
func (i *Identity) belongs(x *exchange, person *identity.Person) error {
	if person.School != "" && i.Schools != nil && i.Schools.Find(text(x.host)).ID != person.School {
		return errElsewhere
	}
	if (x.route.CheckIn != nil || x.webSocket != noWebSocket) && i.credential.Ambient && !sameSite(x) {
		return errCrossSite
	}
	return nil
}

// sameSite reports whether the browser says that one of this host's own pages
// makes the request. A browser sends cookies with the forms and the WebSockets
// of any site; only these two fields, which no page can set, tell whose form it was.
func sameSite(x *exchange) bool {
	if site := x.fields.Peek("Sec-Fetch-Site"); len(site) > 0 {
		return string(site) == "same-origin"
	}
	from := x.fields.Peek("Origin")
	for _, scheme := range [...]string{"https://", "http://"} { // ours is not known behind a terminator
		if host, ok := bytes.CutPrefix(from, []byte(scheme)); ok {
			return bytes.EqualFold(host, x.authority) || bytes.EqualFold(host, defaultPort(x.authority, scheme))
		}
	}
	return false
}

// defaultPort is an authority without the port that its scheme has anyway.
func defaultPort(authority []byte, scheme string) []byte {
	port := ":80"
	if scheme == "https://" {
		port = ":443"
	}
	return bytes.TrimSuffix(authority, []byte(port))
}

// refuseIdentity says why nobody may: to a browser with the way to the login, to
// a program as RFC 6750 section 3 has it.
func (p *Proxy) refuseIdentity(x *exchange, i *Identity, err error) {
	x.outcome = outcomeUnidentified
	r, ok := errors.AsType[*identity.Refusal](err)
	if !ok { // no verifier does that
		r = &identity.Refusal{Status: 503, Reason: "it cannot be found out who you are at the moment", RetryAfter: 2 * time.Second}
	}
	switch r.Status {
	case 403:
		x.outcome = outcomeForbidden
		p.problem(x, 403, r.Reason, i.challenge(r))
	case 503:
		p.problem(x, 503, r.Reason, append(p.firstSeenOf(x, i), retryAfter(cmp.Or(r.RetryAfter, 2*time.Second))))
	case 401:
		if i.Login != "" && (x.method == "GET" || x.method == "HEAD") && wantsPage(x.fields) {
			p.sendToLogin(x, i.Login)
			return
		}
		p.problem(x, 401, r.Reason, i.challenge(r))
	default:
		p.problem(x, r.Status, r.Reason, i.challenge(r))
	}
}

// firstSeenOf has a check-in whose sender cannot be found out at the moment
// count from now on, once they press again with the same credential.
func (p *Proxy) firstSeenOf(x *exchange, i *Identity) field.List {
	if x.route.CheckIn == nil {
		return nil
	}
	session := i.Verifier.Session(nil, &x.asker)
	if len(session) == 0 {
		return nil
	}
	token := p.recorder.Seen(x.arrived, session)
	if token == "" {
		return nil
	}
	return firstSeenFields(token)
}

// challenge is the WWW-Authenticate field of a refusal.
func (i *Identity) challenge(r *identity.Refusal) field.List {
	if r.Challenge != "" {
		return field.List{{Name: "WWW-Authenticate", Value: r.Challenge}}
	}
	if r.Status == 403 && r.Code == "" {
		return nil
	}
	value := i.credential.Scheme + ` realm="school"`
	if r.Code != "" {
		value += `, error="` + r.Code + `", error_description="` + quotable(r.Reason) + `"`
	}
	return field.List{{Name: "WWW-Authenticate", Value: value}}
}

// quotable is s with what RFC 6750 section 3 does not allow in a description
// taken out.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}

func (p *Proxy) sendToLogin(x *exchange, login string) {
	here := x.scheme + "://" + string(x.authority) + string(x.target.raw)
	x.out.send(x, 302, field.List{
		{Name: "Location", Value: strings.ReplaceAll(login, "{return}", url.QueryEscape(here))},
		{Name: "Cache-Control", Value: "no-store"},
		{Name: "Vary", Value: "Accept"},
	}, nil)
}

// vouch puts into the press what the credential says. It returns which field the
// request says otherwise, empty when none, and what it says there.
func (x *exchange) vouch(rule *CheckIn, press *attendance.Press) (contradicts, claimed string) {
	press.Verified = true
	person := x.person
	if rule.Student.Kind != RefClaim {
		if press.Student != "" && press.Student != person.Student {
			return attendance.ContradictsStudent, press.Student
		}
		press.Student = person.Student
	}
	if person.Class != "" && rule.Class.Kind != RefNone && rule.Class.Kind != RefClaim {
		if press.Class != "" && press.Class != person.Class {
			return attendance.ContradictsClass, press.Class
		}
		press.Class = person.Class
	}
	return "", ""
}

// contradicted answers a check-in that speaks for somebody else, and keeps it
// as evidence: in the journal, in the counts of the school, and in the log.
func (p *Proxy) contradicted(x *exchange, what, claimed string) {
	p.recorder.Contradicted(text(x.host), x.person.Student, what, claimed)
	x.outcome = outcomeForbidden
	school := string(x.host)
	if s := x.route.Identity.Schools; s != nil {
		school = s.Find(school).ID
	}
	if p.counters.contradictions.add(school, x.arrived) {
		p.log.Warn("a check-in speaks for somebody else than its credential does", "school", school,
			"credential_of", x.person.Student, "differs_in", what, "remote", x.remote)
	}
	p.problem(x, 403, "the check-in names another "+what+" than the one who is logged in", nil)
}

// contradictions counts them by school.
type contradictions struct {
	mu       sync.Mutex // guards bySchool
	bySchool map[string]uint64

	second atomic.Int64 // the second that lines counts
	lines  atomic.Int64
}

const (
	// contradictionSchoolsMax bounds the schools that are counted each for
	// itself: a name may be whatever a client sent as its host.
	contradictionSchoolsMax = 10_000
	// contradictionLinesMax a second are logged: the counts have them all.
	contradictionLinesMax = 20
)

// add counts one and reports whether it is worth a line in the log.
func (c *contradictions) add(school string, at time.Time) bool {
	c.mu.Lock()
	if c.bySchool == nil {
		c.bySchool = make(map[string]uint64)
	}
	if _, there := c.bySchool[school]; !there && len(c.bySchool) >= contradictionSchoolsMax {
		school = "(others)"
	}
	c.bySchool[school]++
	c.mu.Unlock()
	if last := c.second.Load(); last < at.Unix() && c.second.CompareAndSwap(last, at.Unix()) {
		c.lines.Store(0)
	}
	return c.lines.Add(1) <= contradictionLinesMax
}

// all returns the counts; nil when there are none.
func (c *contradictions) all() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bySchool) == 0 {
		return nil
	}
	out := make(map[string]uint64, len(c.bySchool))
	for school, n := range c.bySchool {
		out[school] = n
	}
	return out
}
