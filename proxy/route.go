package proxy

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"firstbell/cache"
	"firstbell/proxy/admission"
	"firstbell/proxy/origin"
)

// Upstream is an origin as routes use it: its servers, and how much it is asked
// at once.
type Upstream struct {
	Name  string
	Pool  *origin.Pool
	Limit *admission.Limiter

	recovery recovery
}

// Route says what happens to the requests it takes. Exactly one of Origin,
// CheckIn, Collect and Local is set. A Route is not changed once it is in a Table.
type Route struct {
	Hosts   []string // exact, "*.name" for exactly one label more, or "*"
	Methods []string // empty: all
	Path    string   // exact, or ending in "/*" for whole segments; empty: all

	Origin      *Upstream
	Cache       *cache.Policy // nil: nothing is cached or collapsed
	IgnoreQuery []string      // parameters left out of the cache key
	Uncoded     bool          // responses are not coded here
	CheckIn     *CheckIn
	Collect     *Collect
	Local       Local     // answers from what firstbell holds itself
	Identity    *Identity // who may use the route; nil: everybody
	Access      *Access   // from where it may be used; nil: from everywhere
	WebSocket   bool      // the origin may be asked for a WebSocket
	Live        *Live     // the route is for what lasts, with these limits; nil: WebSockets and event streams may, within the usual ones

	// Redirect sends what is asked in plain to https, with 308 or 301; nil: it is
	// answered.
	Redirect *Redirect
	// HSTS is the value of Strict-Transport-Security in answers over https;
	// empty: none is added.
	HSTS string

	// Requests with content go to the origin once all of it is here, and what a
	// slow client does not take of an answer waits here, so that no client holds
	// a place at the origin. These let contents pass as they come instead, for
	// routes where both sides talk.
	StreamsRequests, StreamsAnswers bool

	// Total bounds a whole exchange with the origin, its body included;
	// 0: only the idle limits of the phases hold.
	Total time.Duration
}

// Redirect is how requests in plain are sent to https.
type Redirect struct {
	Status int    // 301 or 308
	Port   string // empty: 443
}

// Table is a set of routes that can be searched. It never changes: a reload
// brings another one.
type Table struct {
	exact    map[string][]*Route
	wildcard map[string][]*Route // by what follows the first label
	any      []*Route
}

// NewTable arranges routes. Among those that take a host, an exact name goes
// before a wildcard and a wildcard before "*"; then the longest path wins, and
// among equal paths the one that names the method.
func NewTable(routes []*Route) *Table {
	t := &Table{exact: make(map[string][]*Route), wildcard: make(map[string][]*Route)}
	for _, rt := range routes {
		if rt.Path == "" {
			rt.Path = "/*"
		}
		for _, host := range rt.Hosts {
			host = strings.ToLower(host)
			if host == "*" {
				t.any = append(t.any, rt)
			} else if rest, ok := strings.CutPrefix(host, "*."); ok {
				t.wildcard[rest] = append(t.wildcard[rest], rt)
			} else {
				t.exact[host] = append(t.exact[host], rt)
			}
		}
	}
	for _, set := range t.exact {
		arrange(set)
	}
	for _, set := range t.wildcard {
		arrange(set)
	}
	arrange(t.any)
	return t
}

func arrange(set []*Route) {
	slices.SortStableFunc(set, func(a, b *Route) int {
		return cmp.Or(
			cmp.Compare(pathRank(b.Path), pathRank(a.Path)),
			strings.Compare(a.Path, b.Path),
			cmp.Compare(min(1, len(b.Methods)), min(1, len(a.Methods))),
		)
	})
}

// pathRank orders patterns: longer first, and exact before a subtree of the
// same length.
func pathRank(pattern string) int {
	if prefix, subtree := strings.CutSuffix(pattern, "/*"); subtree {
		return 2 * len(prefix)
	}
	return 2*len(pattern) + 1
}

// find returns the route that takes a request. Without one, allow lists the
// methods that the path would take (405), or is empty when no route takes host
// and path (404).
func (t *Table) find(host, path []byte, method string) (rt *Route, allow []string) {
	if set := t.exact[string(host)]; set != nil {
		if rt, allow = pick(set, path, method); rt != nil || allow != nil {
			return rt, allow
		}
	}
	if i := bytes.IndexByte(host, '.'); i > 0 {
		if set := t.wildcard[string(host[i+1:])]; set != nil {
			if rt, allow = pick(set, path, method); rt != nil || allow != nil {
				return rt, allow
			}
		}
	}
	return pick(t.any, path, method)
}

// Serves reports whether any route takes requests for the host, which is in
// lower case and without port.
func (t *Table) Serves(host string) bool {
	if len(t.any) > 0 || t.exact[host] != nil {
		return true
	}
	_, rest, found := strings.Cut(host, ".")
	return found && t.wildcard[rest] != nil
}

// pick takes the longest path first and lets methods choose among routes of
// that path only: a GET on the check-in path is 405, not another route's page.
func pick(set []*Route, path []byte, method string) (rt *Route, allow []string) {
	won := ""
	for _, rt := range set {
		if won != "" && rt.Path != won {
			break
		}
		if won == "" && !matchPath(rt.Path, path) {
			continue
		}
		won = rt.Path
		if len(rt.Methods) == 0 || slices.Contains(rt.Methods, method) ||
			method == "HEAD" && slices.Contains(rt.Methods, "GET") {
			return rt, nil
		}
		allow = append(allow, rt.Methods...)
	}
	return nil, allow
}
