package config

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodSink = `{http: {url: "http://10.0.0.5:8080/bulk"}}`

var sinkMistakes = []mistake{
	{"two kinds", goodSink, `{http: {url: "http://a/"}, ▸xapi: {url: "http://a/", home_page: "https://{school}.example"}}`, "attendance.sinks[0].xapi", "is http already", "of its own"},
	{"takes something else", goodSink, `{takes: ▸all, http: {url: "http://a/"}}`, "attendance.sinks[0].takes", `"all"`, "takes: collected"},
	{"collected into an LRS", goodSink, `{takes: ▸collected, xapi: {url: "http://a/", home_page: "https://{school}.example"}}`, "attendance.sinks[0].takes", "xapi has no form", "http or replay"},
	{"name in its old place", goodSink, `{http: {▸name: lms, url: "http://a/"}}`, "attendance.sinks[0].http.name", "unknown key", ""},
	{"name that is no file", goodSink, `{name: ▸"a/b", http: {url: "http://a/"}}`, "attendance.sinks[0].name", "cannot name a file", "letters"},
	{"format", goodSink, `{http: {url: "http://a/", format: ▸xml}}`, "attendance.sinks[0].http.format", `"xml"`, "ndjson"},
	{"coding", goodSink, `{http: {url: "http://a/", coding: ▸br}}`, "attendance.sinks[0].http.coding", `"br"`, "zstd"},
	{"two credentials", goodSink, `{http: {url: "http://127.0.0.1/", token_env: A, basic_env: ▸B}}`, "attendance.sinks[0].http.basic_env", "by token_env", "keep one"},
	{"token field without token", goodSink, `{http: {url: "http://a/", token_header: ▸X-Key}}`, "attendance.sinks[0].http.token_header", "no token", "token_file"},
	{"xapi without home page", goodSink, `{▸xapi: {url: "http://a/"}}`, "attendance.sinks[0].xapi.home_page", "is missing", "{school}"},
	{"xapi version", goodSink, `{xapi: {url: "http://a/", home_page: "https://{school}.example", version: ▸"1.1"}}`, "attendance.sinks[0].xapi.version", "1.0.3", "1.0.3"},
	{"home page that is no IRI", goodSink, `{xapi: {url: "http://a/", home_page: ▸"{school}"}}`, "attendance.sinks[0].xapi.home_page", "does not make an IRI", "https://"},
	{"home page of a student", goodSink, `{xapi: {url: "http://a/", home_page: ▸"https://a/{student_id}"}}`, "attendance.sinks[0].xapi.home_page", "no field {student_id}", "{school}"},
	{"caliper without sensor", goodSink, `{▸caliper: {url: "http://a/", home_page: "https://{school}.example"}}`, "attendance.sinks[0].caliper.sensor", "not an IRI", "sensor:"},
	{"replay without path", goodSink, `{▸replay: {url: "http://a", body: "{}"}}`, "attendance.sinks[0].replay.path", "nothing says which path", "{student_id}"},
	{"replay with an unknown field", goodSink, `{replay: {url: "http://a", path: ▸"/x/{student}", body: "{}"}}`, "attendance.sinks[0].replay.path", "no field {student}", "{student_id}"},
	{"replay of a path in the URL", goodSink, `{replay: {url: ▸"http://a/b", path: "/x", body: "{}"}}`, "attendance.sinks[0].replay.url", "the origin alone", `"http://a"`},
	{"replay of what is no JSON", goodSink, `{replay: {url: "http://a", path: "/x", body: ▸"{ a }"}}`, "attendance.sinks[0].replay.body", "not JSON", "body:"},
	{"replay with a field outside of a string", goodSink, `{replay: {url: "http://a", path: "/x", body: ▸'{"a": {student_id}}'}}`, "attendance.sinks[0].replay.body", "outside of a string", `"{student_id}"`},
	{"replay with a client's credential", goodSink, `{replay: {url: "http://a", path: "/x", body: "{}", headers: {Cookie: ▸"a=b"}}}`, "attendance.sinks[0].replay.headers.Cookie", "does not belong into this file", "token_file"},
	{"replay without end", goodSink, `{replay: {url: "http://a", path: "/x", body: "{}", rate: ▸fast}}`, "attendance.sinks[0].replay.rate", "not a rate", "50/s"},
	{"replay too fast", goodSink, `{replay: {url: "http://a", path: "/x", body: "{}", rate: ▸1000000/s}}`, "attendance.sinks[0].replay.rate", "between", "50/s"},
	{"replay of too many at once", goodSink, `{replay: {url: "http://a", path: "/x", body: "{}", concurrency: ▸5000}}`, "attendance.sinks[0].replay.concurrency", "no bound", "4"},
	{"replay with a status that means later", goodSink, `{replay: {url: "http://a", path: "/x", body: "{}", refused: [404, ▸503]}}`, "attendance.sinks[0].replay.refused[1]", "503 cannot mean refused", "300 to 499"},
	{"replay with a status twice", goodSink, `{replay: {url: "http://a", path: "/x", body: "{}", taken: [302], refused: [▸302]}}`, "attendance.sinks[0].replay.refused[0]", "means taken already", "one list"},
}

// collects is a good file with one sink of collected writes, and a route's
// collect section.
func collects(section string, more ...string) string {
	return strings.NewReplacer("SECTION", section, "MORE", strings.Join(more, "")).Replace(`listen: {http: ":8080"}
timezone: Asia/Seoul
timetable: {days: [mon], periods: [{name: "1", starts: "09:00", ends: "09:45"}]}
attendance:
  journal: /var/lib/firstbell/journal
  roster: /etc/firstbell/roster
  sinks:
    - {name: progress, takes: collected, http: {url: "http://10.0.0.5:8080/progress"}}
    - {name: lms, http: {url: "http://10.0.0.5:8080/bulk"}}
routes:
  - hosts: ["*.school.example"]
    path: /progress/*
    collect: SECTION
MORE`)
}

var collectMistakes = []mistake{
	{"no sink", "", strings.Replace(collects(`{}`), "    collect", "    ▸collect", 1), "routes[0].collect.sink", "nothing says where", "takes: collected"},
	{"unknown sink", "", collects(`{sink: ▸progres}`), "routes[0].collect.sink", `no sink "progres"`, "did you mean progress?"},
	{"sink of check-ins", "", collects(`{sink: ▸lms}`), "routes[0].collect.sink", "takes check-ins", "takes: collected"},
	{"key of nothing", "", collects(`{sink: progress, key: ▸""}`), "routes[0].collect.key", "does not say where", "json:/"},
	{"key of a claim", "", collects(`{sink: progress, key: ▸"claim:sub"}`), "routes[0].collect.key", "", "json:/id"},
	{"key of a cookie", "", collects(`{sink: progress, key: ▸"header:Cookie"}`), "routes[0].collect.key", "never written down", "json:/id"},
	{"key of two kinds", "", collects(`{sink: progress, key: ["json:/a", ▸"form:b"]}`), "routes[0].collect.key[1]", "either JSON or a form", "json:"},
	{"key that is a mapping", "", strings.Replace(collects(`{sink: progress, key: {}}`), "key:", "▸key:", 1), "routes[0].collect.key", "a list of places", "json:/id"},
	{"too large", "", collects(`{sink: progress, max_bytes: ▸1MiB}`), "routes[0].collect.max_bytes", "not a small write", "64KiB"},
	{"another status", "", collects(`{sink: progress, status: ▸202}`), "routes[0].collect.status", "202", "204"},
	{"with an origin", "", collects(`{sink: progress}`, "    origin: ▸lms\n"), "routes[0].origin", "in bulk", "remove it"},
	{"with an identity", "", collects(`{sink: progress}`, "    identity: ▸none\n"), "routes[0].identity", "for routes that take check-ins", "remove it"},
	{"with a reply", "", collects(`{sink: progress}`, "    ▸reply: {status: 201}\n"), "routes[0].reply", "how a check-in is answered", "remove it"},
	{"by GET", "", collects(`{sink: progress}`, "    methods: [▸GET]\n"), "routes[0].methods[0]", "by POST", "POST"},
}

func TestSinksOfEveryKindAreRead(t *testing.T) {
	text := strings.Replace(good, "    - "+goodSink, `    - {name: bulk, http: {url: "https://a.example/bulk", format: ndjson, coding: zstd}}
    - {name: lrs, xapi: {url: "https://lrs.example/xapi", version: "2.0.0", home_page: "https://{school}.school.example", basic_env: LRS}}
    - {name: caliper, caliper: {url: "https://c.example/events", sensor: "https://firstbell.school.example", home_page: "https://{school}.school.example"}}
    - {name: old, replay: {url: "http://10.0.0.5:8080", path: "/a/{student_id}?d={date}", headers: {X-School: "{school}"}, content_type: application/x-www-form-urlencoded, body: "status={status}", rate: 30/m, taken: [302]}}
    - {name: progress, takes: collected, replay: {url: "http://10.0.0.5:8080"}}`, 1)
	c, problems := Read("firstbell.yaml", []byte(text))
	if c == nil {
		t.Fatalf("got problems, want none:\n%s", problems.Errors())
	}
	for i, want := range []string{"http", "xapi", "caliper", "replay", "replay"} {
		s := &c.Attendance.Sinks[i]
		if s.Kind() != want || s.Endpoint().Batch != 1000 || s.TakesCollected() != (i == 4) {
			t.Errorf("sink %d: got %s, a batch of %d, collected %v", i, s.Kind(), s.Endpoint().Batch, s.TakesCollected())
		}
		opened, err := s.Open(filepath.Join(t.TempDir(), s.Name))
		if err != nil {
			t.Errorf("opening %s: %v", s.Name, err)
			continue
		}
		opened.Close()
	}
	if r := c.Attendance.Sinks[3].Replay.Rate; r != 0.5 {
		t.Errorf("30/m: got %v a second, want 0.5", r)
	}
}

func TestCredentialsComeFromFilesAndTheEnvironmentAlone(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"token": "abc\n", "basic": "user:pass word\n", "nocolon": "user"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SINK_TOKEN", "from the environment")
	for _, c := range []struct{ keys, field, want, problem string }{
		{"token_file: token", "Authorization", "Bearer abc", ""},
		{"token_env: SINK_TOKEN", "Authorization", "Bearer from the environment", ""},
		{"token_file: token, token_header: X-Api-Key", "X-Api-Key", "abc", ""},
		{"basic_file: basic", "Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("user:pass word")), ""},
		{"basic_file: nocolon", "", "", "no colon"},
		{"token_env: NOBODY_SET_THIS", "", "", "the environment has no NOBODY_SET_THIS"},
		{"token_file: missing", "", "", "no such file"},
	} {
		text := strings.Replace(good, "/bulk\"}", "/bulk\", "+c.keys+"}", 1)
		text = strings.NewReplacer("/var/lib/firstbell", dir, "  roster: /etc/firstbell/roster\n", "").Replace(text)
		file := filepath.Join(dir, "firstbell.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, problems := Load(file)
		if c.problem != "" {
			if loaded != nil || !strings.Contains(problems.Error(), c.problem) {
				t.Errorf("%s: got %v, want a problem with %q", c.keys, problems, c.problem)
			}
			continue
		}
		if loaded == nil {
			t.Errorf("%s: %v", c.keys, problems)
			continue
		}
		if got := loaded.Attendance.Sinks[0].Endpoint().Header.Get(c.field); got != c.want {
			t.Errorf("%s: got %s: %q, want %q", c.keys, c.field, got, c.want)
		}
	}
}

func TestCollectIsRead(t *testing.T) {
	for section, want := range map[string]int{`{sink: progress}`: 0, `{sink: progress, key: "json:/id"}`: 1, `{sink: progress, key: ["json:/student", "json:/lesson"], status: 204}`: 2} {
		c, problems := Read("firstbell.yaml", []byte(collects(section)))
		if c == nil {
			t.Fatalf("%s: %v", section, problems)
		}
		if c, problems := Read("firstbell.yaml", []byte(collects(section, "    identity: {jwt: {jwks: \"https://login.example/jwks.json\"}}\n"))); c == nil || c.Routes[0].Identity.JWT == nil {
			t.Errorf("with an identity: %v", problems)
		}
		if got := c.Routes[0].Collect; len(got.Key) != want || got.Sink != "progress" {
			t.Errorf("%s: got %+v", section, got)
		}
	}
}
