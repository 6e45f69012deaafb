package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"firstbell/cmd/firstbell/config"
)

// noise is a writer that many may use, and read.
type noise struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newNoise() *noise { return &noise{more: make(chan struct{}, 1)} }

func (n *noise) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case n.more <- struct{}{}:
	default:
	}
	return n.text.Write(p)
}

func (n *noise) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// firstbell runs the command with args and returns what it said.
func firstbell(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	err = run(t.Context(), args, &out, &errs)
	return out.String(), errs.String(), err
}

// running is a firstbell that serves in this process.
type running struct {
	web, ops string // addresses
	https    string // "" in quotes without one
	http3    string // as above
	log      *noise
	stop     func() error // ends it as SIGTERM does
}

var servingLine = regexp.MustCompile(`msg=serving http=(\S+) ops=(\S*) https=(\S*) http3=(\S*)`)

func serve(t *testing.T, file string, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{log: newNoise()}
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, append([]string{"serve", "-config", file}, args...), io.Discard, r.log)
	}()
	r.stop = sync.OnceValue(func() error {
		http.DefaultClient.CloseIdleConnections() // whose end it would wait for
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("ending firstbell: %v\n%s", err, r.log)
		}
	})
	for {
		if m := servingLine.FindStringSubmatch(r.log.String()); m != nil {
			r.web, r.ops, r.https, r.http3 = m[1], m[2], m[3], m[4]
			return r
		}
		select {
		case <-r.log.more:
		case err := <-ended:
			ended <- nil
			t.Fatalf("firstbell did not start: %v\n%s", err, r.log)
		}
	}
}

// newOrigin is a server that answers /a with a text and that takes bulks of check-ins.
func newOrigin(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bulk" {
			_, _ = io.Copy(io.Discard, r.Body)
			return
		}
		fmt.Fprintf(w, "this is %s\n", r.URL.Path)
	}))
	t.Cleanup(s.Close)
	return s
}

// schoolZone is where the tests' schools are: there it is morning when they
// begin, so that no day ends in the middle of one.
var schoolZone = demoZone(time.Now())

// writeFile writes the file of a whole installation into a directory of its
// own and returns its name.
func writeFile(t *testing.T, originURL string, edits ...string) string {
	t.Helper()
	text := fmt.Sprintf(`listen: {http: "127.0.0.1:0", ops: "127.0.0.1:0"}
timezone: %s
timetable:
  days: [mon, tue, wed, thu, fri, sat, sun]
  periods:
    - {name: "1", opens: "00:00", starts: "00:00", late_after: "24:00", ends: "24:00"}
origins:
  lms: {servers: ["%s"], concurrency: {max: 8}}
attendance:
  journal: journal
  sinks: [{name: lms, http: {url: "%s/bulk"}}]
routes:
  - {hosts: ["*"], path: /check-in, identity: none, check_in: {student: "json:/student_id", class: "json:/class_id"}}
  - {hosts: ["*"], path: /lessons/*, origin: lms, cache: {anonymous: true, default_ttl: 10m}}
  - {hosts: ["*"], origin: lms}
`, schoolZone, originURL, originURL)
	text = strings.NewReplacer(edits...).Replace(text)
	file := filepath.Join(t.TempDir(), "firstbell.yaml")
	rewrite(t, file, text)
	return file
}

func rewrite(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func edit(t *testing.T, file string, edits ...string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, file, strings.NewReplacer(edits...).Replace(string(text)))
}

// ask sends a request; fields are names and values in turn.
func ask(t *testing.T, method, url, body string, fields ...string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
		if fields[i] == "Host" {
			req.Host = fields[i+1]
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestUnknownCommandsAreHelpedAndExitWithTwo(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "no command given"},
		{"sreve", "did you mean firstbell serve?"},
		{"chek", "did you mean firstbell check?"},
		{"nonsense", "see firstbell help"},
		{"check", "-config FILE"},
		{"check -config a b", `"b" is not a flag`},
		{"check -conf a", "flag provided but not defined"},
		{"serve -config a -log-format xml", "choose text or json"},
		{"export -config a -format pdf", "choose csv, xlsx or jsonl"},
		{"inspect", "-config FILE"},
	} {
		_, _, err := firstbell(t, strings.Fields(c.args)...)
		if err == nil || exitCode(err) != 2 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("firstbell %s: got %v with exit code %d, want %q and 2", c.args, err, exitCode(err), c.want)
		}
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	for _, c := range commands() {
		stdout, stderr, err := firstbell(t, "help", c.name)
		if err != nil || stdout == "" {
			t.Errorf("firstbell help %s: got %v, %q, %q", c.name, err, stdout, stderr)
		}
	}
	if stdout, _, err := firstbell(t, "--help"); err != nil || !strings.Contains(stdout, "usage: firstbell COMMAND") {
		t.Errorf("firstbell --help: got %v and %q", err, stdout)
	}
}

func TestCheckSaysWhatAFileMeans(t *testing.T) {
	file := writeFile(t, "http://10.0.0.5:8080")
	stdout, _, err := firstbell(t, "check", "-config", file)
	if err != nil {
		t.Fatalf("a good file was refused: %v\n%s", err, stdout)
	}
	for _, want := range []string{"identity: none", "origin lms, one answer for everybody", "requests lose Cookie", "no roster", ": ok, 3 warnings"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("check does not say %q:\n%s", want, stdout)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), "journal")); err == nil {
		t.Error("check made the journal's directory; want nothing started")
	}
}

func TestCheckShowsEveryProblemWithItsLine(t *testing.T) {
	file := writeFile(t, "http://10.0.0.5:8080", "timezone", "timezoen", "origin: lms}", "origin: lsm}")
	stdout, _, err := firstbell(t, "check", "-config", file)
	if exitCode(err) != 1 || !isSaid(err) {
		t.Errorf("got %v, want exit code 1 and nothing left to say", err)
	}
	for _, want := range []string{":2:1: timezoen: unknown key; did you mean timezone?", "     2 | timezoen: " + schoolZone.String(), "did you mean lms?", "2 errors"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("check does not say %q:\n%s", want, stdout)
		}
	}
}

func TestCheckListsBrokenRosterRowsAndLoadsTheOthers(t *testing.T) {
	file := writeFile(t, "http://10.0.0.5:8080", "journal: journal\n", "journal: journal\n  roster: roster\n")
	dir := filepath.Join(filepath.Dir(file), "roster")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"orgs.csv":        "sourcedId,name,type\nhangang,Hangang,school\n",
		"users.csv":       "sourcedId,orgSourcedIds,role,givenName,familyName,username,enabledUser\ns1,hangang,student,Min,Kim,s1,true\n,hangang,student,No,Id,x,true\n",
		"classes.csv":     "sourcedId,title,schoolSourcedId\nc1,One,hangang\n",
		"enrollments.csv": "sourcedId,classSourcedId,schoolSourcedId,userSourcedId,role\ne1,c1,hangang,s1,student\n",
	} {
		rewrite(t, filepath.Join(dir, name), text)
	}
	stdout, _, err := firstbell(t, "check", "-config", file)
	if err != nil || !strings.Contains(stdout, "users.csv:3: ") || !strings.Contains(stdout, "1 users in 1 schools; left out: 1 row") {
		t.Errorf("got %v:\n%s\nwant users.csv:3 listed and one user loaded", err, stdout)
	}
}

func TestTheWholeWayOfALessonAndACheckIn(t *testing.T) {
	file := writeFile(t, newOrigin(t).URL)
	r := serve(t, file)
	for range 2 {
		if status, answer := ask(t, "GET", "http://"+r.web+"/lessons/1", ""); status != 200 || answer != "this is /lessons/1\n" {
			t.Errorf("a lesson: got %d %q", status, answer)
		}
		waitStored(t, r, 1)
	}
	status, answer := ask(t, "POST", "http://"+r.web+"/check-in", `{"student_id":"s1","class_id":"c1"}`, "Host", "hangang.school.example")
	if status != 200 || !strings.Contains(answer, `"school":"hangang"`) || !strings.Contains(answer, `"verified":false`) {
		t.Errorf("a check-in: got %d %s", status, answer)
	}
	if status, answer := ask(t, "GET", "http://"+r.ops+"/readyz", ""); status != 200 {
		t.Errorf("/readyz: got %d %s, want 200", status, answer)
	}
	wantRegister(t, file, "while serve runs")
	wantStatus(t, r)
	if err := r.stop(); err != nil {
		t.Fatalf("ending: %v", err)
	}
	wantRegister(t, file, "after serve ended")
	stdout, _, err := firstbell(t, "inspect", "-config", file, "-records")
	if err != nil || !strings.Contains(stdout, `student="s1"`) {
		t.Errorf("inspect -records: got %v and %s", err, stdout)
	}
	stdout, _, err = firstbell(t, "inspect", "-json", filepath.Join(filepath.Dir(file), "journal"))
	var report journalJSON
	if err != nil || json.Unmarshal([]byte(stdout), &report) != nil || report.Records != 2 {
		t.Errorf("inspect -json: got %v and %s, want the check-in and its seal", err, stdout)
	}
}

// wantRegister wants an export with the one check-in in it.
func wantRegister(t *testing.T, file, when string) {
	t.Helper()
	stdout, stderr, err := firstbell(t, "export", "-config", file, "-format", "jsonl")
	if err != nil || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, `"student_id":"s1"`) || !strings.Contains(stdout, `"status":"present"`) {
		t.Errorf("export %s: got %v and %q, want one line with s1 present", when, err, stdout)
	}
	if !strings.Contains(stderr, "as of: ") || !strings.Contains(stderr, "absent: unknown") {
		t.Errorf("export %s rests on: %s; want as of, and absent unknown", when, stderr)
	}
}

// wantStatus wants the numbers that scripts read.
func wantStatus(t *testing.T, r *running) {
	t.Helper()
	s := r.await(t, "three answers", func(s *statusReport) bool { return total(s.Requests) >= 3 })
	if !s.Ready || s.Attendance.Receipts != 1 || s.Requests["hit"] != 1 || s.Requests["miss"] != 1 || s.Config.Digest == "" || len(s.Attendance.Sinks) != 1 {
		t.Errorf("/status: got %+v", s)
	}
	_, metrics := ask(t, "GET", "http://"+r.ops+"/metrics", "")
	for _, want := range []string{
		`firstbell_proxy_requests_total{outcome="hit"} 1`, "firstbell_attendance_receipts_total 1", "firstbell_wal_open 1",
		`firstbell_delivery_oldest_seconds{to="sink lms"}`, `firstbell_admission_waiting{origin="lms"} 0`, "firstbell_config_reload_failed 0",
		"firstbell_cache_objects 1", `firstbell_origin_requests_total{origin="lms"`, "firstbell_proxy_request_duration_seconds_count 3",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if _, html := ask(t, "GET", "http://"+r.ops+"/", ""); !strings.Contains(html, "<h2>Attendance</h2>") || !strings.Contains(html, "</html>") {
		t.Errorf("the page is not whole: %s", html)
	}
}

// says waits until the log has text: it may be written a moment behind an answer.
func (r *running) says(t *testing.T, text string) {
	t.Helper()
	limit := time.After(time.Minute)
	for !strings.Contains(r.log.String(), text) {
		select {
		case <-r.log.more:
		case <-limit:
			t.Fatalf("the log lacks %q:\n%s", text, r.log)
		}
	}
}

// total is how many answers were counted.
func total(requests map[string]int64) (n int64) {
	for _, c := range requests {
		n += c
	}
	return n
}

func TestAPortInUseIsOneLineAndNothingIsStarted(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := writeFile(t, "http://10.0.0.5:8080", `http: "127.0.0.1:0"`, fmt.Sprintf("http: %q", taken.Addr()))
	_, stderr, err := firstbell(t, "serve", "-config", file)
	if err == nil || exitCode(err) != 1 || !strings.Contains(err.Error(), "the port is in use") || strings.Contains(err.Error(), "\n") || stderr != "" {
		t.Errorf("got %v and %q, want one line about the port", err, stderr)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); len(left) != 1 {
		t.Errorf("it left %v, want only the file", left)
	}
}

func TestASecondProcessOnTheJournalIsOneLine(t *testing.T) {
	file := writeFile(t, newOrigin(t).URL)
	r := serve(t, file)
	_, _, err := firstbell(t, "serve", "-config", file)
	if err == nil || exitCode(err) != 1 || !strings.Contains(err.Error(), "in use by") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want one line that says that the journal is in use", err)
	}
	if status, answer := ask(t, "GET", "http://"+r.ops+"/readyz", ""); status != 200 {
		t.Errorf("the first one is not ready any more: %d %s", status, answer)
	}
}

func TestAJournalThatCannotBeMadeIsOneLine(t *testing.T) {
	file := writeFile(t, "http://10.0.0.5:8080", "journal: journal", "journal: firstbell.yaml")
	_, stderr, err := firstbell(t, "serve", "-config", file)
	if exitCode(err) != 1 || !strings.Contains(stderr, "attendance.journal: ") || !strings.Contains(stderr, "is a file; name a directory") {
		t.Errorf("got %v and %q", err, stderr)
	}
}

// waitStored waits until so many responses are stored: an answer is whole a
// moment before.
func waitStored(t *testing.T, r *running, n int64) {
	t.Helper()
	r.await(t, fmt.Sprintf("%d responses stored", n), func(s *statusReport) bool { return s.Cache.Objects >= n })
}

// await returns what /status says once it says what is bound to come: an answer
// is counted, stored and passed on a moment after its client has it.
func (r *running) await(t *testing.T, what string, come func(*statusReport) bool) *statusReport {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, answer := ask(t, "GET", "http://"+r.ops+"/status", "")
		s := new(statusReport)
		if err := json.Unmarshal([]byte(answer), s); err != nil {
			t.Fatalf("/status is %s: %v", answer, err)
		}
		if come(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s: /status is %s", what, answer)
		}
	}
}

func TestReloadTakesAllOfAFileOrNothing(t *testing.T) {
	file := writeFile(t, newOrigin(t).URL)
	r := serve(t, file)
	reload := func() (int, reloaded) {
		t.Helper()
		status, answer := ask(t, "POST", "http://"+r.ops+"/reload", "")
		var out reloaded
		if err := json.Unmarshal([]byte(answer), &out); err != nil {
			t.Fatalf("%v: %s", err, answer)
		}
		return status, out
	}
	ask(t, "GET", "http://"+r.web+"/lessons/1", "")
	waitStored(t, r, 1)

	edit(t, file, "path: /lessons/*", "path: /lectures/*", "max: 8", "max: 9x")
	if status, out := reload(); status != 422 || out.OK || len(out.Problems) != 1 || !strings.Contains(out.Problems[0], "concurrency.max") {
		t.Errorf("a file with a mistake: got %d %+v", status, out)
	}
	if _, metrics := ask(t, "GET", "http://"+r.ops+"/metrics", ""); !strings.Contains(metrics, "firstbell_config_reload_failed 1") {
		t.Error("the refused file does not show in the metrics")
	}
	ask(t, "GET", "http://"+r.web+"/lessons/1", "")

	edit(t, file, "max: 9x", "max: 9", "journal: journal", "journal: other")
	if status, out := reload(); status != 200 || !out.OK || fmt.Sprint(out.NeedsRestart) != "[attendance.journal]" {
		t.Errorf("a good file: got %d %+v; want the journal to wait for a restart", status, out)
	}
	ask(t, "GET", "http://"+r.web+"/lessons/1", "")
	ask(t, "GET", "http://"+r.web+"/lectures/1", "")
	s := r.await(t, "four answers", func(s *statusReport) bool {
		return s.Requests["miss"]+s.Requests["hit"]+s.Requests["pass"] >= 4
	})
	if s.Requests["miss"] != 2 || s.Requests["hit"] != 1 || s.Requests["pass"] != 1 || s.Origins[0].Max != 9 || s.Config.Reloads != 1 || s.Config.Failed != 1 {
		t.Errorf("got %+v\nwant misses for both paths, one hit before and a pass after, and 9 at once", s)
	}
}

func TestOpsLetsNoStrangerIn(t *testing.T) {
	file := writeFile(t, newOrigin(t).URL)
	r := serve(t, file)
	for _, c := range []struct {
		name   string
		status int
		method string
		fields []string
	}{
		{"a script", 200, "GET", nil},
		{"a page of another site", 403, "POST", []string{"Sec-Fetch-Site", "cross-site"}},
		{"an old browser on another site", 403, "POST", []string{"Origin", "http://evil.example"}},
		{"a name that leads to this machine", 403, "GET", []string{"Host", "evil.example"}},
		{"a browser at localhost", 200, "GET", []string{"Host", "localhost:9900"}},
	} {
		path := map[string]string{"GET": "/status", "POST": "/reload"}[c.method]
		if status, answer := ask(t, c.method, "http://"+r.ops+path, "", c.fields...); status != c.status {
			t.Errorf("%s: got %d %s, want %d", c.name, status, answer, c.status)
		}
	}
	if status, _ := ask(t, "GET", "http://"+r.ops+"/reload", ""); status != 405 {
		t.Errorf("GET /reload: got %d, want 405", status)
	}
}

func TestOpsTokenIsAskedFor(t *testing.T) {
	file := writeFile(t, newOrigin(t).URL, "timezone:", "ops: {token: 0123456789abcdef}\ntimezone:")
	r := serve(t, file)
	for _, c := range []struct {
		name   string
		status int
		fields []string
	}{
		{"no token", 401, nil},
		{"another token", 401, []string{"Authorization", "Bearer 0123456789abcdeF"}},
		{"the token", 200, []string{"Authorization", "Bearer 0123456789abcdef", "Host", "ops.example"}},
		{"the token as a password", 200, []string{"Authorization", "Basic b3BzOjAxMjM0NTY3ODlhYmNkZWY="}},
	} {
		if status, answer := ask(t, "GET", "http://"+r.ops+"/status", "", c.fields...); status != c.status {
			t.Errorf("%s: got %d %s, want %d", c.name, status, answer, c.status)
		}
	}
}

func TestAReloadDoesNotBareTheOpsListener(t *testing.T) {
	read := func(ops, token string) *config.Config {
		t.Helper()
		text := fmt.Sprintf("listen: {http: \":80\", ops: %q}\n%s\norigins: {a: {servers: [\"http://b\"]}}\nroutes: [{hosts: [\"*\"], origin: a}]\n", ops, token)
		c, problems := config.Read("firstbell.yaml", []byte(text))
		if c == nil {
			t.Fatal(problems)
		}
		return c
	}
	was := read(":9900", "ops: {token: 0123456789abcdef}")
	is := read("127.0.0.1:9900", "")
	if got := lists(needsRestart(was, is)); got != "listen, ops" {
		t.Errorf("waiting for a restart: got %q, want listen, ops", got)
	}
	if keepUntilRestart(is, was); is.Ops.Token != was.Ops.Token || is.Listen != was.Listen {
		t.Errorf("the listener on %s is guarded by %q until the restart", is.Listen.Ops, is.Ops.Token)
	}
}

func TestStatusAndReloadAskTheRunningOne(t *testing.T) {
	address := freeAddress(t)
	file := writeFile(t, newOrigin(t).URL, `ops: "127.0.0.1:0"`, fmt.Sprintf("ops: %q", address))
	if _, _, err := firstbell(t, "status", "-config", file); err == nil || !strings.Contains(err.Error(), "does firstbell serve run?") {
		t.Errorf("status without a running one: got %v", err)
	}
	r := serve(t, file)
	if stdout, _, err := firstbell(t, "status", "-config", file); err != nil || !strings.Contains(stdout, "ready, up") || !strings.Contains(stdout, "journal   open") {
		t.Errorf("status: got %v and %s", err, stdout)
	}
	edit(t, file, "timezone:", "cache: {pin: [\"*/lessons/*\", a.example/start], pin_memory: 1MiB}\ntimezone:")
	if stdout, _, err := firstbell(t, "reload", "-config", file); err != nil || !strings.Contains(stdout, "in force: digest") {
		t.Errorf("reload: got %v and %s", err, stdout)
	}
	ask(t, "GET", "http://"+r.web+"/lessons/1", "")
	waitStored(t, r, 1)
	if stdout, _, err := firstbell(t, "status", "-config", file); err != nil || !strings.Contains(stdout, "1 pinned, ") || !strings.Contains(stdout, "of 1048576 bytes") {
		t.Errorf("status with a pinned lesson: got %v and %s", err, stdout)
	}
	edit(t, file, "max: 8", "max: x")
	if stdout, _, err := firstbell(t, "reload", "-config", file); exitCode(err) != 1 || !strings.Contains(stdout, "concurrency.max") {
		t.Errorf("reload of a file with a mistake: got %v and %s", err, stdout)
	}
}

func TestPurgeAsksTheRunningOneAndIsLogged(t *testing.T) {
	address := freeAddress(t)
	file := writeFile(t, newOrigin(t).URL, `ops: "127.0.0.1:0"`, fmt.Sprintf("ops: %q", address))
	r := serve(t, file)
	outcome := func() string {
		t.Helper()
		res, err := http.Get("http://" + r.web + "/lessons/1?a=b")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		waitStored(t, r, 1)
		return res.Header.Get("Cache-Status")
	}
	outcome()
	for _, c := range []struct{ args, said, next string }{
		{"-dry-run -prefix " + r.web + "/lessons", "1 stored responses would be now stale", "; hit"},
		{"-prefix " + r.web + "/lessons -host none.example", "host none.example: 0 stored responses in memory now stale\nprefix ", "fwd=stale"},
		{"-hard -url http://" + r.web + "/lessons/1?a=b", "1 stored responses in memory gone", "fwd=uri-miss"},
		{"-hard -host 127.0.0.1", "1 stored responses in memory gone", "fwd=uri-miss"},
	} {
		stdout, stderr, err := firstbell(t, append([]string{"purge", "-config", file}, strings.Fields(c.args)...)...)
		if err != nil || !strings.Contains(stdout, c.said) {
			t.Errorf("purge %s: got %v, %s%s; want %q", c.args, err, stdout, stderr, c.said)
		}
		if got := outcome(); !strings.Contains(got, c.next) {
			t.Errorf("after purge %s: Cache-Status %s, want %s", c.args, got, c.next)
		}
	}
	for _, c := range []struct {
		args string
		code int
		said string
	}{
		{"", 2, "say what"},
		{"-url a.example", 1, "write a host and a path"},
		{"-prefix a.example/../b?c", 1, "no query"},
		{"-tag a,b", 1, "one tag"},
		{"-host a/b", 1, "write a name"},
		{"-url http://a.example/x/../y", 1, "dot segment"},
	} {
		_, _, err := firstbell(t, append([]string{"purge", "-config", file}, strings.Fields(c.args)...)...)
		if exitCode(err) != c.code || !strings.Contains(err.Error(), c.said) {
			t.Errorf("purge %s: exit %d, %v; want %d, %q", c.args, exitCode(err), err, c.code, c.said)
		}
	}
	if status, answer := ask(t, "POST", "http://"+r.ops+"/purge", `{"tagz": ["a"]}`); status != 422 || !strings.Contains(answer, "tagz") {
		t.Errorf("POST /purge with an unknown key: %d %s, want 422", status, answer)
	}
	if status, answer := ask(t, "POST", "http://"+r.ops+"/purge", `{"hosts": ["*"], "by": "the publishing tool"}`, "Authorization", "Basic Y21zOng="); status != 200 {
		t.Errorf("POST /purge: %d %s, want 200", status, answer)
	}
	for _, want := range []string{`msg=purged by_prefix=` + r.web + `/lessons count=1 hard=false dry_run=true from=127.0.0.1:`, `msg=purged by_host=* count=1 hard=false dry_run=false from="\"cms\" at 127.0.0.1:`, `by="the publishing tool"`} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, r.log)
		}
	}
	stdout, _, _ := firstbell(t, "status", "-config", file)
	if !strings.Contains(stdout, `5 selectors purged, last by host * from "cms" at 127.0.0.1:`) {
		t.Errorf("status: got %s, want the last purge", stdout)
	}
}

func TestEndingAnswersWhatIsUnderWay(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-goOn
		fmt.Fprint(w, "late, but whole")
	}))
	t.Cleanup(slow.Close)
	r := serve(t, writeFile(t, slow.URL))
	type answered struct {
		text string
		err  error
	}
	got := make(chan answered, 1)
	go func() {
		res, err := http.Get("http://" + r.web + "/slow")
		if err != nil {
			got <- answered{"", err}
			return
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		got <- answered{string(text), err}
	}()
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	for !strings.Contains(r.log.String(), "msg=draining") {
		<-r.log.more
	}
	close(goOn)
	if a := <-got; a.err != nil || a.text != "late, but whole" {
		t.Errorf("the request under way got %q, %v", a.text, a.err)
	}
	if err := <-ended; err != nil {
		t.Errorf("ending: %v", err)
	}
	if _, err := net.DialTimeout("tcp", r.web, time.Second); err == nil {
		t.Error("it still takes connections")
	}
}
