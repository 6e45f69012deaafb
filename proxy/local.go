package proxy

import (
	"context"
	"time"

	"firstbell/proxy/field"
)

// Local answers a GET from what firstbell holds itself, such as receipts. host
// is in lower case without port; both are valid during the call. It may be
// called by many at once and bounds its own work.
type Local func(ctx context.Context, host, path string) LocalAnswer

// LocalAnswer is what a Local says. Without a Body it is a problem, told in
// Detail.
type LocalAnswer struct {
	Status       int
	ContentType  string
	CacheControl string
	Body         []byte

	Detail     string
	RetryAfter time.Duration // 0: none
}

// localMax is how long a Local may take.
const localMax = 10 * time.Second

func (p *Proxy) answerLocal(x *exchange, local Local) {
	x.mayWait()
	x.outcome = outcomeLocal
	ctx, cancel := context.WithTimeout(p.life, localMax)
	defer cancel()
	a := local(ctx, string(x.host), string(x.target.path))
	if a.Body == nil {
		var more field.List
		if a.RetryAfter > 0 {
			more = field.List{retryAfter(a.RetryAfter)}
		}
		p.problem(x, a.Status, a.Detail, more)
		return
	}
	x.out.send(x, a.Status, field.List{
		{Name: "Content-Type", Value: a.ContentType},
		{Name: "Cache-Control", Value: a.CacheControl},
	}, a.Body)
}
