package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"firstbell/proxy/field"
	"firstbell/proxy/identity"
)

// Identity is who may use a route: one of JWT, Cookie and ForwardAuth says how
// that is found out. On a check-in route None says out loud that nobody asks.
type Identity struct {
	None        bool          // identity: none
	JWT         *JWT          `yaml:"jwt" eg:"{jwks: \"http://10.0.0.5:8080/jwks.json\"}"`
	Cookie      *SignedCookie `yaml:"cookie" eg:"{name: firstbell_session, key_file: /etc/firstbell/cookie.keys}"`
	ForwardAuth *ForwardAuth  `yaml:"forward_auth" eg:"{origin: lms, path: /auth/me, pass: [\"cookie:session\"]}"`
	Login       string        `yaml:"login" eg:"\"https://login.school.example/?return={return}\""` // where a browser goes that nobody vouches for
	WhenDown    string        `yaml:"when_down" eg:"unverified"`                                    // refuse unless said
	Sessions    int           `yaml:"sessions" eg:"262144"`                                         // credentials remembered; 262144 unless said
}

// JWT is a signed token and whose signature is good.
type JWT struct {
	JWKS       string         `yaml:"jwks" eg:"\"http://10.0.0.5:8080/jwks.json\""` // a URL or a file
	Keep       string         `yaml:"keep" eg:"/var/lib/firstbell/jwks.json"`       // the last good set of a URL; within the journal unless said
	Refresh    time.Duration  `yaml:"refresh" eg:"10m"`                             // between two looks at the set; 10 min unless said
	SecretFile string         `yaml:"secret_file" eg:"/etc/firstbell/jwt.secret"`   // HS256: one secret a line
	SecretEnv  string         `yaml:"secret_env" eg:"FIRSTBELL_JWT_SECRET"`         // the same in the environment
	Algorithms []string       `yaml:"algorithms" eg:"[RS256, ES256]"`               // of a set; RS256, ES256 and EdDSA unless said
	From       string         `yaml:"from" eg:"\"cookie:session\""`                 // bearer unless said
	Issuer     string         `yaml:"issuer" eg:"https://login.school.example"`     // any unless said
	Audience   string         `yaml:"audience" eg:"firstbell"`                      // any unless said
	Leeway     *time.Duration `yaml:"leeway" eg:"60s" zero:"ok"`                    // between the clocks; 60 s unless said
	Student    string         `yaml:"student" eg:"sub"`                             // claims that name them; sub unless said
	School     string         `yaml:"school" eg:"school"`                           // not read unless said
	Class      string         `yaml:"class" eg:"class"`                             // not read unless said

	Secrets [][]byte `yaml:"-"` // what secret_file or secret_env holds
}

// SignedCookie is a cookie that the learning platform signs.
type SignedCookie struct {
	Name    string `yaml:"name" eg:"firstbell_session"`
	KeyFile string `yaml:"key_file" eg:"/etc/firstbell/cookie.keys"` // one key a line, the newest first
	KeyEnv  string `yaml:"key_env" eg:"FIRSTBELL_COOKIE_KEYS"`       // the same in the environment
	School  bool   `yaml:"school"`                                   // every cookie must name its school

	Keys [][]byte `yaml:"-"` // what key_file or key_env holds
}

// ForwardAuth is a question to the login service.
type ForwardAuth struct {
	Origin       string         `yaml:"origin" eg:"lms"`
	Path         string         `yaml:"path" eg:"/auth/me"`
	Pass         []string       `yaml:"pass" eg:"[\"cookie:session\", \"header:Authorization\"]"` // what makes up the credential
	Student      string         `yaml:"student" eg:"X-Student"`                                   // fields of the answer; X-Student unless said
	School       string         `yaml:"school" eg:"X-School"`                                     // not read unless said
	Class        string         `yaml:"class" eg:"X-Class"`                                       // not read unless said
	TTL          time.Duration  `yaml:"ttl" eg:"5m"`                                              // how long a yes is used; 5 min unless said
	NegativeTTL  time.Duration  `yaml:"negative_ttl" eg:"5s"`                                     // how long a no is; 5 s unless said
	StaleIfError *time.Duration `yaml:"stale_if_error" eg:"12h" zero:"ok"`                        // how long a yes serves while the service is down; 12 h unless said
}

func (i *Identity) choose(d *decoder, n ast.Node, path string) {
	if text, ok := scalarText(n); ok && text == "none" {
		i.None = true
		return
	}
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		d.decodeStruct(n, path, d.at[path], reflect.ValueOf(i).Elem(), "{jwt: {jwks: …}}")
	default:
		d.problem(d.at[path], path, fmt.Sprintf("expected none or a mapping, found %s", kindOf(n)),
			"write identity: {jwt: …}, {cookie: …} or {forward_auth: …}; or identity: none")
	}
}

// verifies says whether somebody vouches.
func (i *Identity) verifies() bool { return i.JWT != nil || i.Cookie != nil || i.ForwardAuth != nil }

// Kind is the key of the one that vouches; empty for none.
func (i *Identity) Kind() string {
	switch {
	case i.JWT != nil:
		return "jwt"
	case i.Cookie != nil:
		return "cookie"
	case i.ForwardAuth != nil:
		return "forward_auth"
	}
	return ""
}

// claimProblem says why there is no such claim.
func (i *Identity) claimProblem(name string) (what, fix string) {
	own := func(named map[string]bool) (string, string) {
		if named[name] {
			return "", ""
		}
		return fmt.Sprintf("identity.%s vouches for no %s", i.Kind(), name), `write "claim:student", or name the field that holds it`
	}
	switch {
	case i.JWT != nil:
		if strings.HasPrefix(name, "/") && !isPointer(name) {
			return fmt.Sprintf("%q is not a JSON pointer (RFC 6901)", name), `write "claim:sub" or "claim:/context/id"`
		}
		return "", ""
	case i.Cookie != nil:
		return own(map[string]bool{"student": true, "school": true, "class": true})
	case i.ForwardAuth != nil:
		f := i.ForwardAuth
		return own(map[string]bool{"student": true, "school": f.School != "", "class": f.Class != ""})
	}
	return "a claim needs somebody who vouches for it, and the route's identity is none", `write identity: {jwt: …}, or take the field from the request: "json:/student_id"`
}

// identity checks what vouches on a route.
func (v *validator) identity(route string, r *Route) {
	i, path := &r.Identity, route+".identity"
	kinds := 0
	for _, there := range []bool{i.JWT != nil, i.Cookie != nil, i.ForwardAuth != nil} {
		if there {
			kinds++
		}
	}
	switch kinds {
	case 0:
		if v.identityMeant(path) {
			return
		}
		v.wrong(path, "add jwt: {jwks: …}, cookie: {key_file: …} or forward_auth: {origin: …}", "nothing says who vouches")
		return
	case 1:
	default:
		v.wrong(path, "keep one of jwt, cookie and forward_auth", "there are two ways to find out who asks, and they could disagree")
		return
	}
	switch {
	case i.JWT != nil:
		v.jwt(path+".jwt", i.JWT)
	case i.Cookie != nil:
		v.signedCookie(path+".cookie", i.Cookie)
	default:
		v.forwardAuth(path+".forward_auth", i.ForwardAuth)
	}
	v.login(path+".login", i.Login)
	if v.given(path+".sessions") && (i.Sessions < 1000 || i.Sessions > 1<<24) {
		v.wrong(path+".sessions", "write 1000 to 16777216; each takes about 300 bytes", "%d is not a sensible number of sessions", i.Sessions)
	}
	v.whenDown(path, r)
	v.wantSchool(path, r)
}

// identityMeant says whether somebody was to vouch, by a key that had a problem.
func (v *validator) identityMeant(path string) bool {
	return v.bad[path+".jwt"] || v.bad[path+".cookie"] || v.bad[path+".forward_auth"]
}

func (v *validator) whenDown(path string, r *Route) {
	at := path + ".when_down"
	switch w := r.Identity.WhenDown; {
	case w == "" && !v.given(at) || w == "refuse":
	case w != "unverified":
		v.wrong(at, "write refuse or unverified", "%q is not what can be done", w)
	case r.CheckIn == nil:
		v.wrong(at, "remove it", "only a check-in can be taken unverified")
	case r.CheckIn.Student == "" || strings.HasPrefix(r.CheckIn.Student, "claim:"):
		v.wrong(at, `let the request name the student: check_in: {student: "json:/student_id"}; what a credential says goes before it`,
			"without a login service nothing would say which student checks in")
	}
}

// wantSchool warns where a student of one school could be taken for one of
// another.
func (v *validator) wantSchool(path string, r *Route) {
	i := &r.Identity
	named := i.JWT != nil && i.JWT.School != "" || i.Cookie != nil && i.Cookie.School || i.ForwardAuth != nil && i.ForwardAuth.School != ""
	several := len(r.Hosts) > 1 || slices.ContainsFunc(r.Hosts, func(h string) bool { return strings.HasPrefix(h, "*") })
	if !named && several {
		eg := map[string]string{"jwt": "school: school", "cookie": "school: true", "forward_auth": "school: X-School"}[i.Kind()]
		v.warn(path+"."+i.Kind(), "add "+eg+", unless student ids are unique over all of them",
			"the route serves several schools, and a credential of one is good at the others")
	}
}

func (v *validator) jwt(path string, j *JWT) {
	ways := 0
	for _, text := range []string{j.JWKS, j.SecretFile, j.SecretEnv} {
		if text != "" {
			ways++
		}
	}
	if ways != 1 {
		v.wrong(path, `write jwks: "http://10.0.0.5:8080/jwks.json", or secret_file for HS256`, "%s", map[bool]string{true: "nothing says with which keys tokens are signed", false: "keys come from more than one place"}[ways == 0])
	}
	if j.JWKS != "" {
		v.jwks(path, j)
	} else {
		for _, key := range []string{"keep", "refresh", "algorithms"} {
			if v.given(path + "." + key) {
				v.wrong(path+"."+key, "remove it", "it is about a key set, and there is none: a shared secret means HS256")
			}
		}
	}
	j.SecretFile = v.beside(j.SecretFile)
	if j.From == "" {
		j.From = "bearer"
	}
	if _, err := identity.ParseSource(j.From); err != nil {
		what, fix := split(err.Error())
		v.wrong(path+".from", fix, "%s", what)
	}
	if j.Leeway == nil {
		leeway := identity.DefaultLeeway
		j.Leeway = &leeway
	} else if *j.Leeway > 10*time.Minute {
		v.wrong(path+".leeway", "write 60s, and set the clocks", "%s keep ended tokens alive", *j.Leeway)
	}
	if j.Student == "" {
		j.Student = "sub"
	}
	for name, claim := range map[string]string{"student": j.Student, "school": j.School, "class": j.Class} {
		if strings.HasPrefix(claim, "claim:") {
			v.wrong(path+"."+name, fmt.Sprintf("write %s: %s", name, strings.TrimPrefix(claim, "claim:")), "only claims stand here, without claim:")
		}
	}
}

func (v *validator) jwks(path string, j *JWT) {
	for i, a := range j.Algorithms {
		if !slices.Contains(identity.Algorithms, a) {
			v.wrong(fmt.Sprintf("%s.algorithms[%d]", path, i), "write some of RS256, ES256, EdDSA", "%q is not an algorithm for keys of a set", a)
		}
	}
	if v.given(path+".algorithms") && len(j.Algorithms) == 0 {
		v.wrong(path+".algorithms", "leave it out for all of them", "an empty list lets no token in")
	}
	if j.Refresh == 0 {
		j.Refresh = identity.DefaultRefresh
	} else if j.Refresh < 10*time.Second || j.Refresh > 24*time.Hour {
		v.wrong(path+".refresh", "write 10s to 24h, such as 10m", "%s is not a sensible time between two looks", j.Refresh)
	}
	if !identity.IsURL(j.JWKS) {
		if strings.Contains(j.JWKS, "://") {
			v.wrong(path+".jwks", `write "https://login.school.example/jwks.json", or a file`, "%q is neither a URL with http:// or https:// nor a file", j.JWKS)
		}
		if v.given(path + ".keep") {
			v.wrong(path+".keep", "remove it", "a file needs no copy of itself")
		}
		j.JWKS = v.beside(j.JWKS)
		return
	}
	u, err := url.Parse(j.JWKS)
	switch {
	case err != nil || u.Host == "":
		v.wrong(path+".jwks", `write "https://login.school.example/jwks.json"`, "%q is not a URL", j.JWKS)
	case u.User != nil:
		v.wrong(path+".jwks", "public keys need no password; remove it", "a URL with a password in it ends in logs")
	case u.Scheme == "http" && !nearby(u.Hostname()):
		v.warn(path+".jwks", "write https://", "who can change what travels between here and %s can log in as anybody", u.Host)
	}
	j.Keep = v.beside(j.Keep)
	if j.Keep == "" && v.c.Attendance == nil {
		v.warn(path+".jwks", "add keep: /var/lib/firstbell/jwks.json", "after a restart while the issuer is down nobody can be verified")
	}
}

// nearby says whether a host is on a network of our own.
func nearby(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()
	}
	return !strings.Contains(host, ".") || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".internal")
}

func (v *validator) signedCookie(path string, c *SignedCookie) {
	if c.Name == "" {
		c.Name = "firstbell_session"
	}
	if !field.IsToken(c.Name) {
		v.wrong(path+".name", "write firstbell_session", "%q is not a cookie's name", c.Name)
	}
	switch {
	case c.KeyFile == "" && c.KeyEnv == "":
		v.wrong(path, "add key_file: /etc/firstbell/cookie.keys; make a key with: openssl rand -hex 32", "nothing says with which key cookies are signed")
	case c.KeyFile != "" && c.KeyEnv != "":
		v.wrong(path+".key_env", "keep key_file", "key_file and key_env are both given")
	}
	c.KeyFile = v.beside(c.KeyFile)
}

func (v *validator) forwardAuth(path string, f *ForwardAuth) {
	names := SortedKeys(v.c.Origins)
	switch {
	case f.Origin == "":
		v.wrong(path+".origin", "add origin: lms", "nothing says whom to ask")
	case v.c.Origins[f.Origin] == nil && !v.given(join("origins", f.Origin)) && !v.bad["origins"]:
		fix := "known origins: " + strings.Join(names, ", ")
		if meant := nearest(f.Origin, names); meant != "" {
			fix = fmt.Sprintf("did you mean %s?", meant)
		}
		v.wrong(path+".origin", fix, "there is no origin %q", f.Origin)
	}
	if f.Path == "" {
		v.wrong(path+".path", "add path: /auth/me", "nothing says what to ask for")
	} else if what, fix := pathProblem(f.Path); what != "" {
		v.wrong(path+".path", fix, "%s", what)
	}
	if len(f.Pass) == 0 {
		v.wrong(path+".pass", `add pass: ["cookie:session"], the cookie that the login service knows a session by`, "nothing is passed on that says who asks")
	}
	for i, p := range f.Pass {
		if _, err := identity.ParseSource(p); err != nil || p == "bearer" {
			v.wrong(fmt.Sprintf("%s.pass[%d]", path, i), `write "cookie:session" or "header:Authorization"`, "%q is nothing to pass on", p)
		}
	}
	f.Student = or(f.Student, identity.DefaultStudentField)
	for _, name := range []struct{ key, value string }{{"student", f.Student}, {"school", f.School}, {"class", f.Class}} {
		if name.value != "" && !field.IsToken(name.value) {
			v.wrong(path+"."+name.key, "write the name of a field of the answer, such as X-Student", "%q is not a field name", name.value)
		}
	}
	stale := identity.DefaultStaleIfError
	if f.StaleIfError == nil {
		f.StaleIfError = &stale
	}
	for _, d := range []struct {
		key   string
		value *time.Duration
		unset time.Duration
		max   time.Duration
	}{
		{"ttl", &f.TTL, identity.DefaultTTL, 24 * time.Hour}, {"negative_ttl", &f.NegativeTTL, identity.DefaultNegativeTTL, 5 * time.Minute},
		{"stale_if_error", f.StaleIfError, 0, 7 * 24 * time.Hour},
	} {
		if *d.value == 0 {
			*d.value = d.unset
		}
		if *d.value > d.max {
			v.wrong(path+"."+d.key, fmt.Sprintf("write at most %s", d.max), "%s is long for an answer that may have changed", *d.value)
		}
	}
}

func (v *validator) login(path, text string) {
	if text == "" {
		if v.given(path) {
			v.wrong(path, "remove it, or write the URL of the login page", "it is empty")
		}
		return
	}
	const eg = `write "https://login.school.example/?return={return}"`
	u, err := url.Parse(strings.ReplaceAll(text, "{return}", "x"))
	switch {
	case err != nil || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }):
		v.wrong(path, eg, "%q is not a URL", text)
	case u.Scheme == "" && strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "//"):
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil:
	default:
		v.wrong(path, eg, "%q is neither a URL with http:// or https:// nor a path", text)
	}
}

// identitySecrets reads the keys that routes name, and looks at key sets that
// are files.
func (v *validator) identitySecrets() {
	for n, r := range v.c.Routes {
		if r == nil {
			continue
		}
		path := fmt.Sprintf("routes[%d].identity", n)
		if j := r.Identity.JWT; j != nil {
			j.Secrets = v.secrets(path+".jwt.secret_file", j.SecretFile, path+".jwt.secret_env", j.SecretEnv)
			if j.JWKS != "" && !identity.IsURL(j.JWKS) {
				v.keySetFile(path+".jwt.jwks", j.JWKS)
			}
			if j.Keep != "" {
				v.writableFile(path+".jwt.keep", j.Keep)
			}
		}
		if c := r.Identity.Cookie; c != nil {
			c.Keys = v.secrets(path+".cookie.key_file", c.KeyFile, path+".cookie.key_env", c.KeyEnv)
		}
	}
}

func (v *validator) keySetFile(path, name string) {
	text, err := readBounded(name, 1<<20)
	if err != nil {
		v.wrong(path, "create it, or write a URL", "%s: %s", name, reasonOf(err))
		return
	}
	if _, err := identity.ParseKeySet(text); err != nil {
		v.wrong(path, "write a JWK Set (RFC 7517) with the issuer's public keys", "%s: %s", name, err)
	}
}

// secretsMax bounds the keys of one file.
const secretsMax = 8

// secrets reads keys from a file, one a line, or from the environment, with
// space between them.
func (v *validator) secrets(filePath, file, envPath, env string) [][]byte {
	path, where, text := filePath, file, ""
	switch {
	case file != "":
		all, err := readBounded(file, 64<<10)
		if err != nil {
			v.wrong(path, "create it, readable for firstbell alone; make a key with: openssl rand -hex 32", "%s: %s", file, reasonOf(err))
			return nil
		}
		text = string(all)
	case env != "":
		path, where, text = envPath, "the variable "+env, os.Getenv(env)
	default:
		return nil
	}
	var keys [][]byte
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' || file == "" && r == ' ' }) {
		key := strings.TrimSpace(line)
		if key == "" || strings.HasPrefix(key, "#") {
			continue
		}
		if len(key) < identity.SecretBytesMin {
			v.wrong(path, "make one with: openssl rand -hex 32", "a key in %s has %d characters, fewer than %d", where, len(key), identity.SecretBytesMin)
			return nil
		}
		keys = append(keys, []byte(key))
	}
	if len(keys) == 0 || len(keys) > secretsMax {
		v.wrong(path, fmt.Sprintf("put 1 to %d keys there, the newest first; make one with: openssl rand -hex 32", secretsMax), "%s holds %d keys", where, len(keys))
		return nil
	}
	return keys
}
