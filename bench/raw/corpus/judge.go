package corpus

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Verdict says what a proxy made of a case.
type Verdict string

// What a proxy may make of a case. The first three are as they should be.
const (
	Refused Verdict = "refused"     // nothing of it was passed on
	Taken   Verdict = "one meaning" // passed on in a form that the case lists
	Silent  Verdict = "no answer"   // nothing was passed on, and nothing said

	RefusedValid Verdict = "REFUSED"   // although it is valid
	Ambiguous    Verdict = "AMBIGUOUS" // passed on so that not everybody reads it alike
	Other        Verdict = "OTHER"     // passed on as something else, or as more
	Passed       Verdict = "PASSED"    // with a field that must not be
	Cut          Verdict = "AS WHOLE"  // a malformed answer passed for a whole one
	Poisoned     Verdict = "POISONED"  // the next to ask got what was left of it
)

// Bad reports whether a proxy should not have done so.
func (v Verdict) Bad() bool { return v != Refused && v != Taken && v != Silent }

// An Outcome is what a proxy made of a case.
type Outcome struct {
	*Case
	Verdict Verdict
	Detail  string // what came and what was wanted, for people
}

// judge says what became of the case c, by what its client and its origin got.
func (p *play) judge(c *Case, seen []*Request) *Outcome {
	o := &Outcome{Case: c}
	if p.Reply != "" {
		o.Verdict, o.Detail = p.judgeAnswer()
		return o
	}
	o.Verdict, o.Detail = p.judgeRequest(seen)
	return o
}

func (p *play) judgeRequest(seen []*Request) (Verdict, string) {
	var forms []string
	for _, r := range seen {
		if r.Ambiguous != "" {
			return Ambiguous, fmt.Sprintf("the origin got %s: %.120q", r.Ambiguous, r.Raw)
		}
		for _, never := range p.Never {
			if strings.Contains(strings.ToLower(r.Raw), never) {
				return Passed, fmt.Sprintf("the origin got %q in %.400q", never, r.Raw)
			}
		}
		if host := bareHost(r.Host); host != bareHost(p.Case.Host) {
			return Other, fmt.Sprintf("the origin got the host %q, want %q", r.Host, p.Case.Host)
		}
		forms = append(forms, r.String())
	}
	got := strings.Join(forms, " & ")
	var first answer
	if len(p.answers) > 0 {
		first = *p.answers[0]
	}
	switch {
	case len(seen) > 0 && !slices.Contains(p.Sees, got):
		return Other, fmt.Sprintf("the origin got %.200s; allowed: %.200s", got, strings.Join(p.Sees, " or "))
	case len(seen) == 0 && p.Want == Take:
		return RefusedValid, fmt.Sprintf("the client got %.100s and the origin nothing", first.String())
	case len(seen) == 0 && first.status == 0 && !first.closed && !p.End:
		return Silent, ""
	case len(seen) == 0:
		return Refused, first.String()
	case first.status >= 400:
		return RefusedValid, fmt.Sprintf("the origin got it, but the client %.100s", first.String())
	}
	return Taken, got
}

// bareHost is a host in lower case without port and final dot.
func bareHost(h string) string {
	if i := strings.LastIndexByte(h, ':'); i > strings.LastIndexByte(h, ']') {
		h = h[:i]
	}
	return strings.TrimSuffix(strings.ToLower(h), ".")
}

func (p *play) judgeAnswer() (Verdict, string) {
	var first answer
	if len(p.answers) > 0 {
		first = *p.answers[0]
	}
	for _, a := range []*answer{&first, p.again} {
		if a == nil {
			continue
		}
		for _, never := range p.Never {
			if strings.Contains(strings.ToLower(a.raw), never) {
				return Passed, fmt.Sprintf("the client got %q in %.300q", never, a.raw)
			}
		}
	}
	plain := fmt.Sprintf("200 %q", "plain /"+p.id)
	taken := first.err == nil && slices.Contains(p.Gets, first.String())
	switch {
	case !taken && !first.refused() && first.String() != plain: // plain: asked again by the proxy itself
		return Cut, fmt.Sprintf("the client got %.150s%s; allowed: an error or %s", first.String(), unclear(first.err), strings.Join(p.Gets, " or "))
	case !taken && p.Want == Take:
		return RefusedValid, fmt.Sprintf("the client got %.100s%s, want %s", first.String(), unclear(first.err), strings.Join(p.Gets, " or "))
	}
	if a := p.again; a != nil && !a.refused() && a.String() != plain && !slices.Contains(p.Gets, a.String()) && !p.bodyless(a) {
		return Poisoned, fmt.Sprintf("asked again the client got %.150s, want %s", a.String(), plain)
	}
	after := fmt.Sprintf("200 %q", "plain /"+p.id+"/after")
	if a := p.after; a != nil && !a.refused() && a.String() != after {
		return Poisoned, fmt.Sprintf("the next request got %.150s, want %s", a.String(), after)
	}
	if taken {
		return Taken, first.String()
	}
	return Refused, first.String()
}

// bodyless reports whether a is the plain answer to a HEAD.
func (p *play) bodyless(a *answer) bool {
	return strings.HasPrefix(p.Send, "HEAD ") && a.String() == `200 ""`
}

// refused reports an error, no answer, or one that is visibly broken.
func (a *answer) refused() bool {
	var unclear *errAmbiguous
	if errors.As(a.err, &unclear) {
		return false
	}
	return a.status == 0 || a.status >= 500 && a.status < 600 || a.err != nil
}

func unclear(err error) string {
	var unclear *errAmbiguous
	if errors.As(err, &unclear) {
		return " with " + unclear.why
	}
	return ""
}
