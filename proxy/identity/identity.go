package identity

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"firstbell/proxy/field"
)

// A Verifier finds out who sends a request. Its methods may be called from any
// number of goroutines at once.
type Verifier interface {
	// Verify returns whom the request's credential vouches for. The person is
	// shared and never changes. The error is a *Refusal. It waits no longer than
	// ctx, and only for keys or answers that are not known.
	Verify(ctx context.Context, r *Request) (*Person, error)
	// Credential says where credentials stand.
	Credential() Credential
	// Session appends what the request's credential is made of, with all that it
	// depends on whom it stands for; nothing when there is none, or more than one.
	Session(dst []byte, r *Request) []byte
	// Run does what needs doing beside requests, until ctx ends.
	Run(ctx context.Context) error
	Stats() Stats
}

// A Request is what a verifier looks at. Its bytes need only be valid during
// Verify.
type Request struct {
	Fields    field.Fields
	Host      []byte // lower case, no port, no trailing dot
	Authority []byte // as the client sent it
	Scheme    string // http or https

	// Waiter is told before Verify does what takes its time: it checks a
	// signature by a public key, or waits for keys or an answer. May be nil.
	Waiter interface{ MayWait() }
}

func (r *Request) mayWait() {
	if r.Waiter != nil {
		r.Waiter.MayWait()
	}
}

// A Person is who a credential vouches for.
type Person struct {
	Student string // never empty
	School  string // empty only when the credential need not name one
	Class   string // empty when it names none
	Expires time.Time

	claims []claim
}

type claim struct{ name, value string }

// Claim returns the value of a claim that the verifier was told to keep; empty
// when the credential has none of that name.
func (p *Person) Claim(name string) string {
	for i := range p.claims {
		if p.claims[i].name == name {
			return p.claims[i].value
		}
	}
	return ""
}

// Credential says where a verifier's credentials stand in a request.
type Credential struct {
	// Ambient: a browser sends it by itself, with requests of other sites too.
	Ambient bool
	// Fields are the names of the request fields that it stands in.
	Fields []string
	// Scheme is what a 401 asks for (RFC 9110 section 11.6.1).
	Scheme string
}

// A Refusal says why nobody was found. It never holds a part of a credential.
type Refusal struct {
	Status    int    // 400, 401, 403 or 503
	Code      string // of RFC 6750 section 3.1; empty when no credential came, or for 503
	Reason    string // a sentence without its full stop
	Challenge string // WWW-Authenticate as the login service wrote it; may be empty

	// RetryAfter is when to come back after a 503.
	RetryAfter time.Duration
}

// Error implements error.
func (r *Refusal) Error() string { return r.Reason }

// Down reports whether err says that who asks could not be found out at the
// moment, which says nothing against them.
func Down(err error) bool {
	r, ok := errors.AsType[*Refusal](err)
	return ok && r.Status == 503
}

var (
	errNone  = &Refusal{Status: 401, Reason: "this needs you to be logged in"}
	errTwice = &Refusal{Status: 400, Code: "invalid_request", Reason: "the request carries more than one credential"}
	errLong  = &Refusal{Status: 401, Code: "invalid_token", Reason: "the credential is too long"}
)

// invalid is a credential that vouches for nobody.
func invalid(reason string) *Refusal {
	return &Refusal{Status: 401, Code: "invalid_token", Reason: reason}
}

// down is a credential of which nothing is known yet.
func down(reason string, retry time.Duration) *Refusal {
	return &Refusal{Status: 503, Reason: reason, RetryAfter: retry}
}

// valueBytesMax bounds what is taken from a credential, as the journal does.
const valueBytesMax = 256

// unfit says why a text names nobody; empty when it can.
func unfit(s string) string {
	if len(s) > valueBytesMax {
		return "is longer than 256 bytes"
	}
	if !utf8.ValidString(s) {
		return "is not valid UTF-8"
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }) {
		return "has a control character"
	}
	return ""
}

// Stats are counts since the verifier was made, and the state of the moment.
type Stats struct {
	Kind     string // jwt, cookie or forward_auth
	Known    int    // credentials remembered
	Warm     uint64 // found among them
	Verified uint64 // verified anew
	Missing  uint64 // requests without a credential
	Invalid  uint64 // credentials refused
	Down     uint64 // nothing could be found out

	Keys *KeyStats // of a JWKS; nil without one

	Asked   uint64 // questions to a login service
	Failed  uint64 // of those, without an answer
	Stale   uint64 // answers used past their time, as the service was down
	Outage  bool   // the login service does not answer
	LastErr string // why, of the last question that failed; empty once one succeeds
}
