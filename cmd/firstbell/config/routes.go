package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"firstbell/proxy/field"

	"golang.org/x/net/idna"
)

func (v *validator) routes() {
	if len(v.c.Routes) == 0 {
		v.wrong("routes", `add one, such as routes: [{hosts: ["*"], origin: lms, cache: {}}]`, "there are no routes, so nothing would be answered")
	}
	taken := map[patternAt]methodSet{}
	for i, r := range v.c.Routes {
		if r == nil {
			continue
		}
		path := fmt.Sprintf("routes[%d]", i)
		v.hosts(path+".hosts", r)
		v.methods(path+".methods", r)
		v.path(path+".path", r)
		v.routeTLS(path+".tls", r)
		v.prefixes(path+".allow", r.Allow)
		v.prefixes(path+".deny", r.Deny)
		switch {
		case r.CheckIn != nil || v.given(path+".check_in"):
			v.checkInRoute(path, r)
		case r.Collect != nil || v.given(path+".collect"):
			v.collectRoute(path, r)
		default:
			v.originRoute(path, r)
		}
		if !v.bad[path+".path"] && !v.bad[path+".methods"] {
			v.reach(path, i, r, taken)
		}
	}
}

func (v *validator) hosts(path string, r *Route) {
	if len(r.Hosts) == 0 {
		v.wrong(path, `add hosts: ["*.school.example"], or ["*"] for every name`, "the route has no hosts")
	}
	for i, h := range r.Hosts {
		at := fmt.Sprintf("%s[%d]", path, i)
		host, what, fix := normalHost(h)
		if what != "" {
			v.wrong(at, fix, "%s", what)
			continue
		}
		if slices.Contains(r.Hosts[:i], host) {
			v.wrong(at, "remove one", "%s is there twice", host)
		}
		r.Hosts[i] = host
	}
}

// normalHost is a host pattern as routes compare it: lower case, without the
// final dot, in its ASCII form. It is an exact name or address, *.name for
// exactly one label before name, or * for every name.
func normalHost(text string) (host, what, fix string) {
	const eg = `write a name such as "www.school.example", "*.school.example" or "*"`
	if text == "*" {
		return text, "", ""
	}
	if strings.Contains(text, "://") || strings.Contains(text, "/") {
		return "", fmt.Sprintf("%q is more than a host name", text), eg
	}
	if ip, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		if ip.Is6() {
			return "[" + ip.String() + "]", "", ""
		}
		return ip.String(), "", ""
	}
	if name, port, found := strings.Cut(text, ":"); found {
		if _, err := strconv.Atoi(port); err == nil {
			return "", fmt.Sprintf("%q has a port, and routes go by name alone", text), fmt.Sprintf("write %q", name)
		}
	}
	name, wild := strings.CutPrefix(text, "*.")
	if strings.Contains(name, "*") {
		return "", fmt.Sprintf("in %q the * is not the whole first label", text), eg
	}
	name = strings.TrimSuffix(name, ".")
	ascii, err := idna.Lookup.ToASCII(name)
	if err != nil && plainLabels(strings.ToLower(name)) {
		ascii, err = strings.ToLower(name), nil // names with _ are used inside schools
	}
	if err != nil || !plainLabels(ascii) {
		return "", fmt.Sprintf("%q is not a host name", text), eg
	}
	if wild {
		return "*." + ascii, "", ""
	}
	return ascii, "", ""
}

// plainLabels says whether name is made of letters, digits, - and _ in labels
// of at most 63 bytes, 253 in all.
func plainLabels(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

func (v *validator) methods(path string, r *Route) {
	if v.given(path) && len(r.Methods) == 0 {
		v.wrong(path, "leave methods out for all of them", "an empty list lets no request in")
	}
	for i, m := range r.Methods {
		at := fmt.Sprintf("%s[%d]", path, i)
		upper := strings.ToUpper(m)
		switch {
		case !field.IsToken(m):
			v.wrong(at, "write methods: [GET, HEAD]", "%q is not a method", m)
		case m != upper:
			v.wrong(at, "write "+upper, "methods are in capitals, %q is not", m)
		case m == "CONNECT":
			v.wrong(at, "remove it", "firstbell opens no tunnels")
		case slices.Contains(r.Methods[:i], m):
			v.wrong(at, "remove one", "%s is there twice", m)
		}
	}
}

func (v *validator) path(path string, r *Route) {
	if r.Path == "" {
		if v.given(path) {
			v.wrong(path, "leave path out for every path, or write /lessons/*", "the path is empty")
		}
		return
	}
	if what, fix := pathProblem(r.Path); what != "" {
		v.wrong(path, fix, "%s", what)
	}
}

// pathProblem says why a path pattern could never match, or not as meant.
func pathProblem(p string) (what, fix string) {
	name, wild := strings.CutSuffix(p, "/*")
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Sprintf("%q does not begin with /", p), fmt.Sprintf("write %q", "/"+strings.TrimPrefix(p, "*"))
	case strings.Contains(name, "*"):
		fix := "write /lessons/* for everything below /lessons"
		if !wild && strings.HasSuffix(p, "*") && strings.Count(p, "*") == 1 {
			fix = fmt.Sprintf("write %q, which matches whole segments", strings.TrimSuffix(p, "*")+"/*")
		}
		return fmt.Sprintf("in %q the * is not the whole last segment", p), fix
	case strings.ContainsAny(p, "?#"):
		return fmt.Sprintf("%q holds a query or a fragment, and routes go by path alone", p), fmt.Sprintf("write %q", p[:strings.IndexAny(p, "?#")])
	case strings.ContainsAny(p, `\`):
		return fmt.Sprintf("%q holds a backslash, and such requests are refused", p), "use /"
	}
	for _, c := range []byte(p) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>^`{|}", c) >= 0 {
			return fmt.Sprintf("%q holds characters that stand encoded in a request", p), fmt.Sprintf("write %q", encodePath(p))
		}
	}
	for segment := range strings.SplitSeq(p, "/") {
		for i := 0; i < len(segment); i++ {
			if segment[i] == '%' && (i+2 >= len(segment) || !isHex(segment[i+1]) || !isHex(segment[i+2])) {
				return fmt.Sprintf("%q has a %% without two hexadecimal digits", p), "write %25 for the sign itself"
			}
		}
		if plain := strings.ReplaceAll(strings.ToLower(segment), "%2e", "."); plain == "." || plain == ".." {
			return fmt.Sprintf("%q has a segment %s, and such requests are refused", p, segment), "write the path without it"
		}
	}
	return "", ""
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func encodePath(p string) string {
	var b strings.Builder
	for _, c := range []byte(p) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>^`{|}", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func (v *validator) originRoute(path string, r *Route) {
	names := SortedKeys(v.c.Origins)
	switch {
	case r.Origin == "":
		eg := "lms"
		if len(names) > 0 {
			eg = names[0]
		}
		v.wrong(path+".origin", fmt.Sprintf("add origin: %s", eg), "the route has no origin")
	case v.bad["origins"]:
	case v.c.Origins[r.Origin] == nil && !v.given(join("origins", r.Origin)):
		fix := fmt.Sprintf(`add origins: {%s: {servers: ["http://10.0.0.5:8080"]}}`, r.Origin)
		if strings.Contains(r.Origin, "://") {
			fix = fmt.Sprintf("give it a name: origins: {lms: {servers: [%q]}}, and write origin: lms", r.Origin)
		} else if meant := nearest(r.Origin, names); meant != "" {
			fix = fmt.Sprintf("did you mean %s?", meant)
		} else if len(names) > 0 {
			fix = "known origins: " + strings.Join(names, ", ")
		}
		v.wrong(path+".origin", fix, "there is no origin %q", r.Origin)
	}
	switch {
	case r.Identity.None:
		v.wrong(path+".identity", "remove it", "identity: none is for routes that take check-ins; here it says nothing, as nobody is asked who they are")
	case v.given(path + ".identity"):
		v.identity(path, r)
	}
	if v.given(path + ".reply") {
		v.wrong(path+".reply", "remove it", "reply says how a check-in is answered, and this route takes none")
	}
	if r.Cache != nil {
		v.cache(path+".cache", r.Cache)
	}
	v.live(path, r)
}

func (v *validator) cache(path string, c *Cache) {
	if v.given(path+".max_object") && c.MaxObject < 1<<10 {
		v.wrong(path+".max_object", "write the largest response worth storing, such as 16MiB", "%s stores nothing", c.MaxObject)
	}
	for i, name := range c.IgnoreQuery {
		at := fmt.Sprintf("%s.ignore_query[%d]", path, i)
		if name == "" || strings.ContainsAny(name, "&=#?*") {
			v.wrong(at, "write the parameter's name as it stands in the query, such as utm_source", "%q is not a parameter's name", name)
		}
	}
	if c.Anonymous && c.DefaultTTL == 0 {
		v.warn(path+".anonymous", "add default_ttl: 10m unless the origin always sends Cache-Control",
			"without default_ttl only responses with their own lifetime are stored")
	}
}

// patternAt is one host and path of a route.
type patternAt struct{ host, path string }

// methodSet says which route takes a method at a place; "" stands for all.
type methodSet map[string]int

// reach finds routes, and hosts of routes, that an earlier one leaves nothing.
// A route that names a method goes before one that takes all, so only equals
// take from each other.
func (v *validator) reach(path string, index int, r *Route, taken map[patternAt]methodSet) {
	methods := r.Methods
	if r.CheckIn != nil || r.Collect != nil {
		methods = []string{"POST"}
	}
	if len(methods) == 0 {
		methods = []string{""}
	}
	p := r.Path
	if p == "" {
		p = "/*"
	}
	var lost []string
	earlier := 0
	for _, h := range r.Hosts {
		at := patternAt{h, p}
		if taken[at] == nil {
			taken[at] = methodSet{}
		}
		covered := true
		for _, m := range methods {
			if by, ok := taken[at][m]; ok {
				earlier = by
				continue
			}
			covered = false
			taken[at][m] = index
		}
		if covered {
			lost = append(lost, h)
		}
	}
	if len(lost) == 0 {
		return
	}
	line := v.where(fmt.Sprintf("routes[%d]", earlier)).line
	if len(lost) == len(r.Hosts) {
		v.wrong(path, "remove one, or give one of them another path, host or method",
			"the route is never reached: routes[%d] on line %d takes the same hosts, path and methods", earlier, line)
		return
	}
	v.warn(path+".hosts", "remove it here or there", "routes[%d] on line %d already takes %s", earlier, line, strings.Join(lost, ", "))
}
