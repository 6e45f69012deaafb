package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"time"
	"unsafe"

	"firstbell/attendance"
	"firstbell/proxy/field"
)

// checkInBytesMax bounds a check-in's content unless its route says otherwise:
// 64 KiB is three hundred times what one needs.
const checkInBytesMax = 64 << 10

// CheckIn says where a route finds what a check-in is made of.
type CheckIn struct {
	Student Ref // required
	Class   Ref
	Period  Ref
	Date    Ref
	Attempt Ref // without it, the Idempotency-Key field is read

	ClassIsKey bool // a student checks in once per class and period
	BytesMax   int64
	Reply      *Reply // nil: 200 and the receipt as JSON
}

// Ref says where in a request a value stands. The zero Ref stands nowhere.
type Ref struct {
	Kind RefKind
	Name string   // form field, header field or claim
	Path []string // the segments of a JSON pointer, unescaped
}

// RefKind says in what part of a request a Ref looks.
type RefKind uint8

// The kinds of Ref.
const (
	RefNone RefKind = iota
	RefJSON
	RefForm
	RefHeader
	RefClaim
)

// ParseRef reads "json:/pointer" (RFC 6901), "form:name", "header:Name", or
// "claim:name" of what the route's identity vouches for.
func ParseRef(s string) (Ref, error) {
	kind, rest, ok := strings.Cut(s, ":")
	switch {
	case !ok || rest == "":
		return Ref{}, fmt.Errorf("%q does not say where the value stands; write json:/pointer, form:name, header:Name or claim:name", s)
	case kind == "json":
		if rest[0] != '/' {
			return Ref{}, fmt.Errorf("the JSON pointer in %q must begin with a slash, such as json:/student_id", s)
		}
		r := Ref{Kind: RefJSON, Path: strings.Split(rest[1:], "/")}
		for i, segment := range r.Path {
			r.Path[i] = strings.ReplaceAll(strings.ReplaceAll(segment, "~1", "/"), "~0", "~")
		}
		return r, nil
	case kind == "form":
		return Ref{Kind: RefForm, Name: rest}, nil
	case kind == "header":
		return Ref{Kind: RefHeader, Name: rest}, nil
	case kind == "claim":
		return Ref{Kind: RefClaim, Name: rest}, nil
	}
	return Ref{}, fmt.Errorf("%q: %s is no place for a value; write json:/pointer, form:name, header:Name or claim:name", s, kind)
}

// takeCheckIn answers a check-in once it is on disk. It waits behind no
// origin's limit.
func (p *Proxy) takeCheckIn(x *exchange, rule *CheckIn) {
	x.outcome = outcomeCheckIn
	out, able := x.out.(postponer)
	if !able {
		x.mayWait()
	}
	r := readings.Get().(*reading)
	r.proxy, r.x, r.rule, r.out = p, x, rule, out
	press, ok := p.readCheckIn(x, rule, r)
	if !ok {
		r.free()
		return
	}
	if able && out.postpones() {
		receipt, waits, err := p.recorder.Submit(press, &r.pending, r)
		if waits {
			out.postpone(r)
			return
		}
		r.receipt, r.err = receipt, err
	} else {
		// The recorder answers everybody, at the latest when it ends.
		r.receipt, r.err = p.recorder.Take(context.Background(), press)
	}
	r.answer()
}

// readCheckIn returns the check-in that the request makes. It returns false when
// it has answered that it makes none.
func (p *Proxy) readCheckIn(x *exchange, rule *CheckIn, r *reading) (press attendance.Press, ok bool) {
	status, err := r.read(x, rule)
	if err == nil {
		status = 400
		press, err = r.press(x, rule)
	}
	if err != nil {
		x.outcome = outcomeCheckInInvalid
		p.problem(x, status, err.Error(), nil)
		return press, false
	}
	if x.person != nil {
		if what, claimed := x.vouch(rule, &press); what != "" {
			p.contradicted(x, what, claimed)
			return press, false
		}
		if press.FirstSeen != "" {
			press.Session = x.route.Identity.Verifier.Session(nil, &x.asker)
		}
	}
	return press, true
}

// Settled implements attendance.Waiter.
func (r *reading) Settled(receipt attendance.Receipt, err error) {
	r.receipt, r.err = receipt, err
	r.out.ready()
}

// answer implements answerer.
func (r *reading) answer() {
	defer r.free()
	switch {
	case r.collects != nil:
		r.answerCollected()
	case r.err != nil:
		r.proxy.refuseCheckIn(r.x, r.err)
	case r.rule.Reply != nil:
		r.written = r.rule.Reply.send(r.x, &r.receipt, r.written[:0])
	default:
		r.written = append(r.receipt.AppendJSON(r.written[:0]), '\n')
		r.x.out.send(r.x, 200, checkInFields, r.written)
	}
}

var checkInFields = field.List{
	{Name: "Content-Type", Value: "application/json"},
	{Name: "Cache-Control", Value: "no-store"},
}

// firstSeenName is the field, and firstSeenCookie the cookie, in which a
// refused press carries when it came.
const (
	firstSeenName   = "First-Seen"
	firstSeenCookie = "firstbell_first_seen"
)

// refuseCheckIn says why there is no receipt, loudly, and when to come back.
func (p *Proxy) refuseCheckIn(x *exchange, err error) {
	var invalid *attendance.FieldError
	if errors.As(err, &invalid) {
		x.outcome = outcomeCheckInInvalid
		p.problem(x, 400, "the check-in's "+invalid.Error(), nil)
		return
	}
	x.outcome = outcomeCheckInRefused
	wait := 2 * time.Second
	var refused *attendance.Refused
	var more field.List
	if errors.As(err, &refused) {
		wait = refused.RetryAfter
		if refused.FirstSeen != "" {
			more = field.List{
				{Name: firstSeenName, Value: refused.FirstSeen},
				{Name: "Set-Cookie", Value: firstSeenCookie + "=" + refused.FirstSeen + "; Max-Age=900; Path=/; HttpOnly; SameSite=Lax" + x.secureCookie()},
			}
		}
	}
	p.problem(x, 503, "the check-in could not be recorded yet; press again in a moment, the time of this press counts",
		append(more, retryAfter(wait)))
}

// firstSeenFields carry a token to the next press.
func firstSeenFields(token string) field.List {
	return field.List{
		{Name: firstSeenName, Value: token},
		{Name: "Set-Cookie", Value: firstSeenCookie + "=" + token + "; Max-Age=900; Path=/; HttpOnly; SameSite=Lax"},
	}
}

// reading is a check-in being read, and then what became of it. It is kept
// between check-ins.
type reading struct {
	content []byte
	written []byte // the answer
	form    url.Values

	proxy    *Proxy
	x        *exchange
	rule     *CheckIn
	collects *Collect  // instead
	out      postponer // whom to tell; nil: who waits itself
	pending  attendance.Pending
	receipt  attendance.Receipt
	err      error
}

var readings = sync.Pool{New: func() any { return new(reading) }}

func (r *reading) free() {
	if cap(r.content) > checkInBytesMax {
		r.content = nil
	}
	r.form, r.x, r.rule, r.collects, r.out, r.err = nil, nil, nil, nil, nil, nil
	readings.Put(r)
}

// read takes in the content and parses what the rule needs of it.
func (r *reading) read(x *exchange, rule *CheckIn) (status int, err error) {
	most := rule.BytesMax
	if most <= 0 {
		most = checkInBytesMax
	}
	if x.length > most {
		return 413, tooLarge(most)
	}
	r.content = r.content[:0]
	if x.body != nil {
		if r.content, err = readAll(r.content, x.body, most); err != nil {
			if errors.Is(err, errTooLong) {
				return 413, tooLarge(most)
			}
			return notWhole(err), errors.New("the check-in did not arrive whole, or not in time")
		}
	}
	kinds := rule.kinds()
	if kinds&(1<<RefJSON) != 0 {
		if !validJSON(r.content) {
			return 400, errors.New("the check-in's content is not JSON")
		}
	}
	if kinds&(1<<RefForm) != 0 {
		if r.form, err = url.ParseQuery(string(r.content)); err != nil {
			return 400, errors.New("the check-in's content is not a form (application/x-www-form-urlencoded)")
		}
	}
	return 0, nil
}

func tooLarge(most int64) error {
	return fmt.Errorf("a check-in has at most %d bytes here", most)
}

// kinds are the parts of a request that the rule looks into, as bits.
func (c *CheckIn) kinds() (bits int) {
	for _, ref := range [...]Ref{c.Student, c.Class, c.Period, c.Date, c.Attempt} {
		bits |= 1 << ref.Kind
	}
	return bits
}

// readAll appends all of r to dst, at most most bytes, or errTooLong.
func readAll(dst []byte, r io.Reader, most int64) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if int64(len(dst)) > most {
			return dst, errTooLong
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// press is the check-in that the request makes. Its strings are valid while r
// and x are.
func (r *reading) press(x *exchange, rule *CheckIn) (attendance.Press, error) {
	press := attendance.Press{
		Host:       text(x.host),
		ClassIsKey: rule.ClassIsKey,
		FirstSeen:  firstSeen(x.fields),
	}
	for _, v := range [...]struct {
		name string
		ref  *Ref
		to   *string
	}{
		{"student", &rule.Student, &press.Student},
		{"class", &rule.Class, &press.Class},
		{"period", &rule.Period, &press.Period},
		{"date", &rule.Date, &press.Date},
		{"attempt", &rule.Attempt, &press.Attempt},
	} {
		if v.ref.Kind == RefNone {
			continue
		}
		value, err := r.value(x, v.ref)
		if err != nil {
			return press, fmt.Errorf("the check-in's %s: %w", v.name, err)
		}
		*v.to = value
	}
	if rule.Attempt.Kind == RefNone {
		press.Attempt = strings.Trim(text(x.fields.Peek("Idempotency-Key")), `"`)
	}
	return press, nil
}

// value reads what a Ref points to; empty when it is not there.
func (r *reading) value(x *exchange, ref *Ref) (string, error) {
	switch ref.Kind {
	case RefClaim:
		if x.person == nil {
			return "", nil
		}
		return x.person.Claim(ref.Name), nil
	case RefHeader:
		return text(bytes.TrimSpace(x.fields.Peek(ref.Name))), nil
	case RefForm:
		values := r.form[ref.Name]
		switch len(values) {
		case 0:
			return "", nil
		case 1:
			return values[0], nil
		}
		return "", errTwice
	}
	return pointed(r.content, ref.Path)
}

// firstSeen returns what an earlier refusal handed out.
func firstSeen(f field.Fields) string {
	if token := f.Peek(firstSeenName); token != nil {
		return text(token)
	}
	for pair := range bytes.SplitSeq(f.Peek("Cookie"), []byte(";")) {
		if name, value, ok := bytes.Cut(bytes.TrimSpace(pair), []byte("=")); ok && string(name) == firstSeenCookie {
			return text(value)
		}
	}
	return ""
}

// text is b as a string without a copy, for what does not outlive b.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
