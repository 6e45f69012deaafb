package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"firstbell/attendance/sink"
	"firstbell/proxy/field"
)

// Sink is one place elsewhere that hears of every check-in, or of what routes
// collect for it. Exactly one of its kinds is given.
type Sink struct {
	Name    string       `yaml:"name" eg:"lms"`        // keeps its place in the journal under this name; what the URL says unless said
	Takes   string       `yaml:"takes" eg:"collected"` // check_ins or collected; check_ins unless said
	HTTP    *HTTPSink    `yaml:"http" eg:"{url: \"http://10.0.0.5:8080/api/attendance/bulk\"}"`
	XAPI    *XAPISink    `yaml:"xapi" eg:"{url: \"https://lrs.example/xapi\", home_page: \"https://{school}.school.example\", basic_file: /etc/firstbell/lrs.basic}"`
	Caliper *CaliperSink `yaml:"caliper" eg:"{url: \"https://caliper.example/events\", sensor: \"https://firstbell.school.example\", home_page: \"https://{school}.school.example\"}"`
	Replay  *ReplaySink  `yaml:"replay" eg:"{url: \"http://10.0.0.5:8080\", path: \"/attendance/{student_id}\", body: '{\"status\": \"{status}\"}', rate: 50/s}"`
}

// Endpoint is what every kind of sink has.
type Endpoint struct {
	URL         string        `yaml:"url" eg:"\"http://10.0.0.5:8080/api/attendance/bulk\""`
	TokenFile   string        `yaml:"token_file" eg:"/etc/firstbell/lms.token"` // sent as Authorization: Bearer
	TokenEnv    string        `yaml:"token_env" eg:"LMS_TOKEN"`                 // the same, from the environment
	TokenHeader string        `yaml:"token_header" eg:"X-Api-Key"`              // the token goes into this field, bare
	BasicFile   string        `yaml:"basic_file" eg:"/etc/firstbell/lrs.basic"` // user:password, sent as Authorization: Basic
	BasicEnv    string        `yaml:"basic_env" eg:"LRS_BASIC"`                 // the same, from the environment
	Batch       int           `yaml:"batch" eg:"1000"`                          // records in one request, or of a replay in one bulk; 1000 unless said
	Timeout     time.Duration `yaml:"timeout" eg:"30s"`                         // for one request; 30 s unless said

	Header http.Header `yaml:"-"` // the credential
}

// HTTPSink is a bulk endpoint.
type HTTPSink struct {
	Endpoint
	Format string `yaml:"format" eg:"ndjson"` // json, an array, or ndjson; json unless said
	Coding string `yaml:"coding" eg:"zstd"`   // of requests: gzip, zstd or none; none unless said
}

// XAPISink is a Learning Record Store.
type XAPISink struct {
	Endpoint
	Version    string `yaml:"version" eg:"\"1.0.3\""`                                   // 1.0.3 or 2.0.0; 1.0.3 unless said
	HomePage   string `yaml:"home_page" eg:"\"https://{school}.school.example\""`       // of the accounts of a school
	Activity   string `yaml:"activity" eg:"\"https://{school}.school.example/{date}\""` // home_page/attendance/{date}/{period} unless said
	Verb       string `yaml:"verb" eg:"\"http://adlnet.gov/expapi/verbs/attended\""`    // attended unless said
	Extensions string `yaml:"extensions" eg:"\"https://school.example/xapi/\""`         // what their IRIs begin with
}

// CaliperSink is a Caliper 1.2 endpoint.
type CaliperSink struct {
	Endpoint
	Sensor   string `yaml:"sensor" eg:"\"https://firstbell.school.example\""`
	HomePage string `yaml:"home_page" eg:"\"https://{school}.school.example\""`
	Actor    string `yaml:"actor" eg:"\"https://{school}.school.example/users/{student_id}\""` // home_page/users/{student_id} unless said
}

// ReplaySink is an origin that knows one request per student and nothing else.
type ReplaySink struct {
	Endpoint
	Method      string            `yaml:"method" eg:"PUT"` // POST unless said
	Path        string            `yaml:"path" eg:"\"/attendance/{student_id}\""`
	Headers     map[string]string `yaml:"headers" eg:"{X-School: \"{school}\"}"`
	ContentType string            `yaml:"content_type" eg:"application/x-www-form-urlencoded"` // application/json unless said; says how values are escaped
	Body        string            `yaml:"body" eg:"'{\"student\": \"{student_id}\"}'"`
	Rate        Rate              `yaml:"rate" eg:"50/s"`       // requests, at most; 50/s unless said
	Concurrency int               `yaml:"concurrency" eg:"4"`   // requests at once; 4 unless said
	Taken       []int             `yaml:"taken" eg:"[302]"`     // statuses that mean taken, beside 2xx
	Duplicate   []int             `yaml:"duplicate" eg:"[409]"` // statuses that mean that it has the record
	Refused     []int             `yaml:"refused" eg:"[404]"`   // statuses that mean this record alone, beside 400, 409, 413 and 422
}

// Rate is how often something may happen in a second.
type Rate float64

func (r *Rate) choose(d *decoder, n ast.Node, path string) {
	const fix = "write how many in a second or a minute, such as 50/s or 30/m"
	text, ok := scalarText(n)
	if !ok {
		d.problem(d.at[path], path, "expected a rate, found "+kindOf(n), fix)
		return
	}
	number, unit, _ := strings.Cut(text, "/")
	v, err := strconv.ParseFloat(number, 64)
	per := map[string]float64{"s": 1, "m": 60}[unit]
	switch {
	case err != nil || per == 0:
		d.problem(d.at[path], path, fmt.Sprintf("%q is not a rate", text), fix)
	case !(v/per >= 0.01 && v/per <= 10_000):
		d.problem(d.at[path], path, fmt.Sprintf("%s is not between 0.01/s and 10000/s", text), fix)
	default:
		*r = Rate(v / per)
	}
}

// Endpoint is what the sink has in common with all others; nil without a kind.
func (s *Sink) Endpoint() *Endpoint {
	switch {
	case s.HTTP != nil:
		return &s.HTTP.Endpoint
	case s.XAPI != nil:
		return &s.XAPI.Endpoint
	case s.Caliper != nil:
		return &s.Caliper.Endpoint
	case s.Replay != nil:
		return &s.Replay.Endpoint
	}
	return nil
}

// Kind is the key that says what the sink is.
func (s *Sink) Kind() string {
	switch {
	case s.HTTP != nil:
		return "http"
	case s.XAPI != nil:
		return "xapi"
	case s.Caliper != nil:
		return "caliper"
	}
	return "replay"
}

// TakesCollected says whether the sink is for what routes collect.
func (s *Sink) TakesCollected() bool { return s.Takes == takesCollected }

const (
	takesCheckIns  = "check_ins"
	takesCollected = "collected"
)

func (s *Sink) defaults() {
	if s.Takes == "" {
		s.Takes = takesCheckIns
	}
	if e := s.Endpoint(); e != nil {
		if e.Batch == 0 {
			e.Batch = 1000
		}
		if e.Timeout == 0 {
			e.Timeout = 30 * time.Second
		}
	}
}

func (v *validator) sinks(a *Attendance) {
	names := map[string]int{}
	for i := range a.Sinks {
		v.sink(fmt.Sprintf("attendance.sinks[%d]", i), &a.Sinks[i], i, names)
	}
}

func (v *validator) sink(path string, s *Sink, index int, names map[string]int) {
	var kinds []string
	for kind, given := range map[string]bool{"http": s.HTTP != nil, "xapi": s.XAPI != nil, "caliper": s.Caliper != nil, "replay": s.Replay != nil} {
		if given || v.given(path+"."+kind) {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	switch {
	case len(kinds) == 0:
		v.wrong(path+".http", `write {http: {url: "http://10.0.0.5:8080/api/attendance/bulk"}}`, "the sink says nowhere to deliver to")
		return
	case len(kinds) > 1:
		v.wrong(path+"."+kinds[1], "make a sink of its own of it", "the sink is %s already", kinds[0])
		return
	}
	e := s.Endpoint()
	if e == nil {
		return // its kind had a problem of its own
	}
	if v.given(path+".takes") && s.Takes != takesCheckIns && s.Takes != takesCollected {
		v.wrong(path+".takes", "write takes: collected, or leave it out for check-ins", "%q is neither check_ins nor collected", s.Takes)
	}
	if s.TakesCollected() && (s.XAPI != nil || s.Caliper != nil) {
		v.wrong(path+".takes", "deliver it by http or replay", "%s has no form for what is collected, only for check-ins", s.Kind())
	}
	path += "." + s.Kind()
	u := v.endpoint(path, e)
	v.sinkName(strings.TrimSuffix(path, "."+s.Kind())+".name", s, u, index, names)
	switch {
	case s.HTTP != nil:
		v.httpSink(path, s.HTTP)
	case s.XAPI != nil:
		c := s.XAPI.config()
		v.parts(path, c.Check())
	case s.Caliper != nil:
		c := s.Caliper.config()
		v.parts(path, c.Check())
	default:
		v.replaySink(path, s)
	}
}

// endpoint checks what every kind has; it returns the URL, nil for none.
func (v *validator) endpoint(path string, e *Endpoint) *url.URL {
	u, err := url.Parse(e.URL)
	switch {
	case e.URL == "":
		v.wrong(path+".url", `add url: "http://10.0.0.5:8080/api/attendance/bulk"`, "there is no URL to deliver to")
		u = nil
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		v.wrong(path+".url", `write "http://10.0.0.5:8080/api/attendance/bulk"`, "%q is not a URL with http:// or https://", e.URL)
		u = nil
	case u.User != nil:
		v.wrong(path+".url", "put the secret into a file and name it by basic_file", "a URL with a password in it ends in logs")
	case u.Fragment != "":
		v.wrong(path+".url", "remove what follows #", "%q has a fragment", e.URL)
	}
	if v.given(path+".batch") && (e.Batch < 1 || e.Batch > 10_000) {
		v.wrong(path+".batch", "write 1 to 10000, such as 1000", "%d records are not a batch", e.Batch)
	}
	first := ""
	for _, c := range []namedField{{"token_file", e.TokenFile}, {"token_env", e.TokenEnv}, {"basic_file", e.BasicFile}, {"basic_env", e.BasicEnv}} {
		switch {
		case c.value == "" && v.given(path+"."+c.name):
			v.wrong(path+"."+c.name, "write where the secret is, or remove it", "it names nothing")
		case c.value == "":
		case first != "":
			v.wrong(path+"."+c.name, "keep one of them", "there is a credential already, by %s", first)
		default:
			first = c.name
		}
	}
	if v.given(path + ".token_header") {
		switch {
		case !field.IsToken(e.TokenHeader):
			v.wrong(path+".token_header", "write a field name, such as X-Api-Key", "%q is not a field name", e.TokenHeader)
		case e.TokenFile == "" && e.TokenEnv == "":
			v.wrong(path+".token_header", "add token_file or token_env", "there is no token to send in it")
		}
	}
	e.TokenFile, e.BasicFile = v.beside(e.TokenFile), v.beside(e.BasicFile)
	if first != "" && u != nil && u.Scheme == "http" && !Loopback(u.Host) && !Loopback(u.Host+":80") {
		v.warn(path+"."+first, "use https:// unless the network between is yours alone", "the credential goes over http:// in the clear")
	}
	return u
}

func (v *validator) sinkName(path string, s *Sink, u *url.URL, index int, names map[string]int) {
	switch {
	case s.Name == "" && u == nil:
		return
	case s.Name == "":
		s.Name = plainName(u.Host + u.Path)
	case plainName(s.Name) != s.Name || len(s.Name) > 64:
		v.wrong(path, "use letters, digits, - and _, at most 64", "%q cannot name a file", s.Name)
	}
	if first, twice := names[s.Name]; twice {
		v.wrong(path, "give each a name of its own", "sinks[%d] keeps its place under the name %s too", first, s.Name)
	}
	names[s.Name] = index
}

func (v *validator) httpSink(path string, h *HTTPSink) {
	if v.given(path+".format") && h.Format != "json" && h.Format != "ndjson" {
		v.wrong(path+".format", "write json or ndjson", "%q is not a format", h.Format)
	}
	if v.given(path+".coding") && !slices.Contains([]string{"gzip", "zstd", "none"}, h.Coding) {
		v.wrong(path+".coding", "write gzip, zstd or none", "%q is not a coding of requests", h.Coding)
	}
}

func (v *validator) replaySink(path string, s *Sink) {
	r := s.Replay
	if u, err := url.Parse(r.URL); err == nil && u.Host != "" && (u.Path != "" && u.Path != "/" || u.RawQuery != "") {
		v.wrong(path+".url", fmt.Sprintf("write url: %q and the rest into path", u.Scheme+"://"+u.Host), "a replay's url is the origin alone")
	}
	if !s.TakesCollected() && r.Path == "" {
		v.wrong(path+".path", `add path: "/attendance/{student_id}"`, "nothing says which path each student's request goes to")
		return
	}
	for name := range r.Headers {
		switch {
		case !field.IsToken(name):
			v.wrong(join(path+".headers", name), "write a field name, such as X-School", "%q is not a field name", name)
		case slices.Contains([]string{"authorization", "cookie", "proxy-authorization"}, strings.ToLower(name)):
			v.wrong(join(path+".headers", name), "put the service's credential into a file and name it by token_file or basic_file", "a credential does not belong into this file")
		case slices.Contains([]string{"host", "content-length", "transfer-encoding", "connection", "content-type", "idempotency-key"}, strings.ToLower(name)):
			v.wrong(join(path+".headers", name), "remove it", "%s is set by firstbell", name)
		}
	}
	if v.given(path+".concurrency") && (r.Concurrency < 1 || r.Concurrency > 256) {
		v.wrong(path+".concurrency", "write 1 to 256, such as 4", "%d requests at once is no bound for an origin that is slow", r.Concurrency)
	}
	seen := map[int]string{}
	for _, list := range []struct {
		name string
		all  []int
	}{{"taken", r.Taken}, {"duplicate", r.Duplicate}, {"refused", r.Refused}} {
		for i, status := range list.all {
			at := fmt.Sprintf("%s.%s[%d]", path, list.name, i)
			switch {
			case status < 300 || status > 499 || status == 408 || status == 429:
				v.wrong(at, "write a status from 300 to 499, but not 408 or 429", "%d cannot mean %s", status, list.name)
			case seen[status] != "":
				v.wrong(at, "keep it in one list", "%d means %s already", status, seen[status])
			}
			seen[status] = list.name
		}
	}
	c := r.config(s.TakesCollected())
	v.parts(path, c.Check())
}

// parts shows what package sink says about a part of the configuration.
func (v *validator) parts(path string, err error) {
	var part *sink.PartError
	if !errors.As(err, &part) {
		return
	}
	fixes := map[string]string{
		"home_page": `write home_page: "https://{school}.school.example"`,
		"sensor":    `write sensor: "https://firstbell.school.example"`,
		"version":   `write version: "1.0.3"`,
		"path":      `write path: "/attendance/{student_id}"`,
		"body":      `write body: '{"student": "{student_id}", "status": "{status}"}'`,
	}
	what, fix := split(part.Reason)
	v.wrong(path+"."+part.Part, or(fix, or(fixes[part.Part], "see the sample in deploy/firstbell.yaml")), "%s", what)
}

// config, of each kind, is what package sink takes but for name, place and
// credential.
func (x *XAPISink) config() sink.XAPIConfig {
	return sink.XAPIConfig{Version: x.Version, HomePage: x.HomePage, Activity: x.Activity, Verb: x.Verb, Extensions: x.Extensions}
}

func (c *CaliperSink) config() sink.CaliperConfig {
	return sink.CaliperConfig{Sensor: c.Sensor, HomePage: c.HomePage, Actor: c.Actor}
}

func (r *ReplaySink) config(collected bool) sink.ReplayConfig {
	c := sink.ReplayConfig{
		Collected: collected, Method: r.Method, Path: r.Path, ContentType: r.ContentType, Body: r.Body,
		PerSecond: float64(r.Rate), Concurrency: r.Concurrency,
		Statuses: sink.Statuses{Taken: r.Taken, Duplicate: r.Duplicate, Refused: r.Refused},
	}
	for _, name := range SortedKeys(r.Headers) {
		c.Fields = append(c.Fields, sink.Field{Name: name, Value: r.Headers[name]})
	}
	return c
}

// Open opens the sink in a directory of its own. Nothing is sent yet.
func (s *Sink) Open(dir string) (*sink.Sink, error) {
	e := s.Endpoint()
	c := sink.Config{Name: s.Name, Dir: dir, Endpoint: sink.Endpoint{URL: e.URL, Header: e.Header, Timeout: e.Timeout}}
	switch {
	case s.HTTP != nil:
		c.Endpoint.Coding = s.HTTP.Coding
		return sink.OpenHTTP(sink.HTTPConfig{Config: c, NDJSON: s.HTTP.Format == "ndjson"})
	case s.XAPI != nil:
		x := s.XAPI.config()
		x.Config = c
		return sink.OpenXAPI(x)
	case s.Caliper != nil:
		x := s.Caliper.config()
		x.Config = c
		return sink.OpenCaliper(x)
	}
	r := s.Replay.config(s.TakesCollected())
	r.Config = c
	return sink.OpenReplay(r)
}

// credential reads what the sink shows of itself to the other side.
func (v *validator) credential(path string, s *Sink) {
	e := s.Endpoint()
	if e == nil {
		return
	}
	path += "." + s.Kind()
	e.Header = http.Header{}
	var token, basic string
	switch {
	case e.TokenFile != "":
		token = v.secretFile(path+".token_file", e.TokenFile)
	case e.TokenEnv != "":
		token = v.secretEnv(path+".token_env", e.TokenEnv)
	case e.BasicFile != "":
		basic = v.secretFile(path+".basic_file", e.BasicFile)
	case e.BasicEnv != "":
		basic = v.secretEnv(path+".basic_env", e.BasicEnv)
	}
	switch {
	case token != "" && e.TokenHeader != "":
		e.Header.Set(e.TokenHeader, token)
	case token != "":
		e.Header.Set("Authorization", "Bearer "+token)
	case basic != "" && !strings.Contains(basic, ":"):
		v.wrong(path, "write user:password on one line", "the credential for Basic has no colon")
	case basic != "":
		e.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(basic)))
	}
}

// secretEnv is what the environment holds under the name.
func (v *validator) secretEnv(path, name string) string {
	secret := strings.TrimSpace(os.Getenv(name))
	if secret == "" || strings.ContainsAny(secret, "\r\n") {
		v.wrong(path, "set it where firstbell is started, such as in an EnvironmentFile", "the environment has no %s of one line", name)
		return ""
	}
	return secret
}
