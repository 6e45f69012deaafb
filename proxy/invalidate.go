package proxy

import (
	"net/url"
	"strings"

	"firstbell/proxy/field"
)

// invalidate drops what is stored under the target of a request that may have
// changed it, and under the Location and Content-Location of the answer where
// they are of the same origin as the target (RFC 9111 section 4.4).
func (p *Proxy) invalidate(x *exchange, status int, fields field.List) {
	if x.route.Cache == nil || status >= 400 || safe(x.method) {
		return
	}
	p.cache.Invalidate(x.request.Key)
	for _, name := range [...]string{"Location", "Content-Location"} {
		if reference := fields.Get(name); reference != "" {
			p.invalidateNamed(x, reference)
		}
	}
}

// invalidateNamed drops what is stored under a URI that the answer names,
// relative to the request's target.
func (p *Proxy) invalidateNamed(x *exchange, reference string) {
	base, err := url.Parse(x.scheme + "://" + string(x.authority) + string(x.target.raw))
	if err != nil {
		return
	}
	named, err := base.Parse(reference)
	if err != nil || named.Scheme != base.Scheme || !strings.EqualFold(named.Host, base.Host) {
		return
	}
	target, refusal := readTarget([]byte(named.RequestURI()))
	if refusal != "" {
		return
	}
	if rt, _ := p.table.Load().find(x.host, target.path, "GET"); rt != nil && rt.Cache != nil {
		p.cache.Invalidate(x.appendKey(nil, rt, target))
	}
}

func safe(method string) bool {
	return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "TRACE"
}
