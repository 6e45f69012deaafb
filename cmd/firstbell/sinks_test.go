package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"firstbell/cmd/firstbell/config"
	"firstbell/cmd/firstbell/handover"
)

// receivers is a server that takes what every kind of sink sends, and tells
// what came. It refuses who is in poison.
type receivers struct {
	*httptest.Server
	mu     sync.Mutex // guards what follows
	more   chan struct{}
	got    map[string]map[string]bool // by path: names of students, or bodies
	poison string
	down   string // paths that answer 503
}

func newReceivers(t *testing.T) *receivers {
	r := &receivers{got: map[string]map[string]bool{}, more: make(chan struct{}, 1)}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receivers) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.Contains(r.down, req.URL.Path) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if r.poison != "" && strings.Contains(string(body), r.poison) {
		http.Error(w, "unknown student", http.StatusUnprocessableEntity)
		return
	}
	var names, ids []string
	switch req.URL.Path {
	case "/xapi/statements":
		var all []struct {
			ID    string
			Actor struct{ Account struct{ Name string } }
		}
		json.Unmarshal(body, &all)
		for _, s := range all {
			names, ids = append(names, s.Actor.Account.Name), append(ids, s.ID)
		}
		json.NewEncoder(w).Encode(ids)
	case "/caliper":
		var e struct {
			Data []struct{ Extensions map[string]any }
		}
		json.Unmarshal(body, &e)
		for _, ev := range e.Data {
			names = append(names, fmt.Sprint(ev.Extensions["student_id"]))
		}
	case "/progress":
		var all []struct{ Body string }
		json.Unmarshal(body, &all)
		for _, b := range all {
			names = append(names, b.Body)
		}
	case "/bulk":
		var all []struct {
			Student string `json:"student_id"`
		}
		json.Unmarshal(body, &all)
		for _, one := range all {
			names = append(names, one.Student)
		}
	default:
		if req.Header.Get("Authorization") == "Bearer service-token" {
			names = []string{strings.TrimPrefix(req.URL.Path, "/old/")}
		}
	}
	path := req.URL.Path
	if strings.HasPrefix(path, "/old/") {
		path = "/old"
	}
	if r.got[path] == nil {
		r.got[path] = map[string]bool{}
	}
	for _, name := range names {
		r.got[path][name] = true
	}
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *receivers) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// wait waits until so many came to the path.
func (r *receivers) wait(t *testing.T, path string, want int) {
	t.Helper()
	give := time.After(time.Minute)
	for {
		r.mu.Lock()
		n := len(r.got[path])
		r.mu.Unlock()
		if n >= want {
			return
		}
		select {
		case <-r.more:
		case <-give:
			t.Fatalf("%s: got %d, want %d", path, n, want)
		}
	}
}

const sinksOfEveryKind = `sinks:
    - {name: lms, http: {url: "URL/bulk", format: json, coding: none}}
    - {name: lrs, xapi: {url: "URL/xapi", home_page: "https://{school}.school.example"}}
    - {name: analytics, caliper: {url: "URL/caliper", sensor: "https://firstbell.school.example", home_page: "https://{school}.school.example"}}
    - {name: old, replay: {url: "URL", path: "/old/{student_id}", body: '{"status": "{status}"}', rate: 200/s, token_env: OLD_TOKEN}}
    - {name: progress, takes: collected, http: {url: "URL/progress"}}
`

func TestEverySinkHearsOfItsOwn(t *testing.T) {
	t.Setenv("OLD_TOKEN", "service-token")
	to := newReceivers(t)
	address := freeAddress(t)
	file := writeFile(t, to.URL,
		`sinks: [{name: lms, http: {url: "`+to.URL+`/bulk"}}]`+"\n", strings.ReplaceAll(sinksOfEveryKind, "URL", to.URL),
		`ops: "127.0.0.1:0"`, fmt.Sprintf("ops: %q", address),
		"routes:\n", "routes:\n  - {hosts: [\"*\"], path: /progress, collect: {sink: progress, key: \"json:/id\"}}\n")
	stdout, _, err := firstbell(t, "check", "-config", file)
	for _, want := range []string{"old: check-ins", "at most 200 a second", "50s", "as xAPI statements", "as Caliper events", "with a credential", "kept as it comes, for the sink progress, known by json:/id", "collect means"} {
		if err != nil || !strings.Contains(stdout, want) || strings.Contains(stdout, "service-token") {
			t.Errorf("check: got %v and\n%s\nwant %q", err, stdout, want)
		}
	}
	to.poison = "s2"
	r := serve(t, file)
	for n := range 4 {
		if status, answer := ask(t, "POST", "http://"+r.web+"/check-in", fmt.Sprintf(`{"student_id":"s%d"}`, n), "Host", "hangang.school.example"); status != 200 {
			t.Fatalf("a check-in: %d %s", status, answer)
		}
		body := fmt.Sprintf(`{"id": "%d", "at": 7}`, n)
		for range 2 {
			if status, answer := ask(t, "POST", "http://"+r.web+"/progress", body, "Host", "hangang.school.example"); status != 200 || !strings.Contains(answer, `"durable":"disk"`) {
				t.Fatalf("a beacon: %d %s", status, answer)
			}
		}
	}
	for path, want := range map[string]int{"/bulk": 3, "/xapi/statements": 3, "/caliper": 3, "/old": 4, "/progress": 4} {
		to.wait(t, path, want)
	}
	if strings.Contains(r.log.String(), `"at": 7`) || strings.Contains(r.log.String(), "service-token") {
		t.Errorf("a body or a credential is in the log:\n%s", r.log)
	}
	wantSinkFigures(t, r)
	dealWithParked(t, to, r, file)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if stdout, _, err := firstbell(t, "inspect", "-config", file, "-records"); err != nil || !strings.Contains(stdout, `sink="progress" path="/progress" key="3"`) || strings.Contains(stdout, `"at"`) {
		t.Errorf("inspect: got %v and\n%s\nwant what was collected, and nothing of its body", err, stdout)
	}
	http.DefaultClient.CloseIdleConnections() // to the one that ended
	if _, _, err := firstbell(t, "attendance", "retry", "-config", file, "-author", "kim", "-reason", "x", "-all"); err == nil || !strings.Contains(err.Error(), "start it, then ask again") {
		t.Errorf("retry without a running firstbell: got %v, want what to do", err)
	}
	if stdout, _, err := firstbell(t, "attendance", "parked", "-config", file); err != nil || !strings.Contains(stdout, "nothing") {
		t.Errorf("parked without a running firstbell: got %v %s", err, stdout)
	}
}

// wantSinkFigures wants each sink in status and metrics.
func wantSinkFigures(t *testing.T, r *running) {
	t.Helper()
	s := r.await(t, "the last bulks to be settled", func(s *statusReport) bool {
		behind := uint64(0)
		for _, k := range s.Attendance.Sinks {
			behind += k.Delivery.Lag
		}
		return behind == 0
	})
	kinds := ""
	for _, k := range s.Attendance.Sinks {
		kinds += fmt.Sprintf("%s %s %d, ", k.Kind, k.Takes, k.Parked)
	}
	if want := "http check_ins 1, xapi check_ins 1, caliper check_ins 1, replay check_ins 0, http collected 0, "; kinds != want {
		t.Errorf("/status: got %s, want %s", kinds, want)
	}
	if c := s.Attendance.Collect; c.Records != 4 || c.Repeats != 4 || c.Differing != 0 {
		t.Errorf("/status: got %+v collected, want 4 and 4 again", c)
	}
	_, metrics := ask(t, "GET", "http://"+r.ops+"/metrics", "")
	for _, want := range []string{`firstbell_delivery_parked{to="sink lrs"} 1`, `firstbell_delivery_lag_records{to="sink progress"} 0`, "firstbell_collect_records_total 4",
		`firstbell_collect_repeats_total{body="same"} 4`, `firstbell_delivery_lost_total{to="sink progress"} 0`, `firstbell_delivery_oldest_seconds{to="sink old"} 0`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// dealWithParked retries and drops s2, whom three sinks refused.
func dealWithParked(t *testing.T, to *receivers, r *running, file string) {
	t.Helper()
	stdout, _, err := firstbell(t, "attendance", "parked", "-config", file)
	if err != nil || strings.Count(stdout, "/s2  answered 422: unknown student") != 3 {
		t.Errorf("parked: got %v and\n%s\nwant s2 three times", err, stdout)
	}
	var key string
	jsonLines, _, err := firstbell(t, "attendance", "parked", "-config", file, "-sink", "lms", "-json")
	var line parkedLine
	if err != nil || json.Unmarshal([]byte(jsonLines), &line) != nil || line.Sink != "lms" {
		t.Errorf("parked -json: got %v and %s", err, jsonLines)
	}
	key = line.Key
	for _, args := range []string{"", "-author kim", "-reason x -author kim", "-author kim -reason x -all " + key} {
		if _, _, err := firstbell(t, append([]string{"attendance", "drop", "-config", file}, strings.Fields(args)...)...); exitCode(err) != 2 {
			t.Errorf("drop %s: got %v, want it to ask for what is missing", args, err)
		}
	}
	if stdout, _, err := firstbell(t, "attendance", "retry", "-config", file, "-author", "kim", "-reason", "too early", "-sink", "lrs", key); err == nil || !strings.Contains(stdout, "parked  answered 422") {
		t.Errorf("retry of what is refused again: got %v and %s", err, stdout)
	}
	if stdout, _, err := firstbell(t, "attendance", "drop", "-config", file, "-author", "kim", "-reason", "test account", "-sink", "analytics", key); err != nil || !strings.Contains(stdout, "dropped") {
		t.Errorf("drop: got %v and %s", err, stdout)
	}
	to.set(func() { to.poison = "" })
	if stdout, _, err := firstbell(t, "attendance", "retry", "-config", file, "-author", "kim", "-reason", "enrolled by now", "-all"); err != nil || strings.Count(stdout, "delivered") != 2 || !strings.Contains(stdout, "0 are parked now") {
		t.Errorf("retry: got %v and %s, want it delivered to two sinks", err, stdout)
	}
	to.wait(t, "/xapi/statements", 4)
	to.wait(t, "/bulk", 4)
	if _, _, err := firstbell(t, "attendance", "retry", "-config", file, "-author", "kim", "-reason", "again", key); err == nil || !strings.Contains(err.Error(), "is not parked") {
		t.Errorf("retry of what is not parked: got %v", err)
	}
	if _, _, err := firstbell(t, "attendance", "retry", "-config", file, "-author", "kim", "-reason", "again", "-sink", "nobody", key); err == nil || !strings.Contains(err.Error(), "no sink of that name") {
		t.Errorf("retry at a sink that is none: got %v", err)
	}
	audit, _, err := firstbell(t, "attendance", "parked", "-config", file, "-handled")
	for _, want := range []string{"by kim  dropped", "test account", "by kim  delivered", "enrolled by now", "refused again: answered 422"} {
		if err != nil || !strings.Contains(audit, want) {
			t.Errorf("the audit lines: got %v and\n%s\nwant %q", err, audit, want)
		}
	}
	if !strings.Contains(r.log.String(), "author=kim") {
		t.Error("the log says nothing of who dealt with parked records")
	}
}

func TestACollectRouteNeedsItsSinkAtAReload(t *testing.T) {
	to := newReceivers(t)
	file := writeFile(t, to.URL)
	r := serve(t, file)
	edit(t, file, "sinks: [", `sinks: [{name: progress, takes: collected, http: {url: "`+to.URL+`/progress"}}, `,
		"routes:\n", "routes:\n  - {hosts: [\"*\"], path: /progress, collect: {sink: progress}}\n")
	status, answer := ask(t, "POST", "http://"+r.ops+"/reload", "")
	if status != 422 || !strings.Contains(answer, "begins only with a restart") {
		t.Errorf("got %d %s, want the reload to be refused", status, answer)
	}
}

// A token that was renewed is in force with a reload, without a restart.
func TestARenewedCredentialIsInForceAtAReload(t *testing.T) {
	tokens := make(chan string, 100)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens <- r.Header.Get("Authorization")
		if r.Header.Get("Authorization") != "Bearer second" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(other.Close)
	file := writeFile(t, other.URL, `/bulk"}`, `/bulk", token_file: token}`)
	token := filepath.Join(filepath.Dir(file), "token")
	rewrite(t, token, "first\n")
	r := serve(t, file)
	ask(t, "POST", "http://"+r.web+"/check-in", `{"student_id":"s1"}`, "Host", "hangang.school.example")
	if got := <-tokens; got != "Bearer first" {
		t.Errorf("got %q, want the first token", got)
	}
	rewrite(t, token, "second\n")
	if status, answer := ask(t, "POST", "http://"+r.ops+"/reload", ""); status != 200 || strings.Contains(answer, "needs_restart") {
		t.Errorf("reload: got %d %s, want it in force", status, answer)
	}
	for got := ""; got != "Bearer second"; {
		select {
		case got = <-tokens:
		case <-time.After(time.Minute):
			t.Fatal("the second token was never sent")
		}
	}
}

// A sink that is down holds no segment: what the journal let go of it reads from
// the store. One of collected writes does hold, as nothing else has them.
func TestADeadSinkHoldsNoSegment(t *testing.T) {
	to := newReceivers(t)
	to.down = "/bulk"
	file := writeFile(t, to.URL, "sinks: [", `sinks: [{name: progress, takes: collected, http: {url: "`+to.URL+`/progress"}}, `,
		"routes:\n", "routes:\n  - {hosts: [\"*\"], path: /progress, collect: {sink: progress, key: \"json:/id\"}}\n")
	press := func(r *running, from, to int, path, body string) {
		t.Helper()
		for n := from; n < to; n++ {
			if status, answer := ask(t, "POST", "http://"+r.web+path, fmt.Sprintf(body, n), "Host", "hangang.school.example"); status != 200 {
				t.Fatalf("%s: %d %s", path, status, answer)
			}
		}
	}
	r := serve(t, file)
	press(r, 0, 5, "/check-in", `{"student_id":"s%d"}`)
	press(r, 0, 1, "/progress", `{"id":"%d"}`)
	to.wait(t, "/progress", 1)
	to.set(func() { to.down = "/bulk /progress" })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = serve(t, file)
	press(r, 1, 3, "/progress", `{"id":"%d"}`)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(filepath.Dir(file), "journal")
	before := segments(t, journal)

	// A night later nothing of it is needed for today's presses any more.
	s, stop := startOpen(t, file)
	for s.takes.Load().toStore.Stats().Next == 0 || s.takes.Load().sinks[0].delivery.Stats().Failures == 0 || s.takes.Load().sinks[1].delivery.Stats().Failures == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	held, lms := s.takes.Load().sinks[0].delivery.Stats().Next, s.takes.Load().sinks[1].delivery.Stats().Next
	if needed := s.takes.Load().toStore.Stats().Next; held > needed || lms >= held {
		t.Fatalf("the sinks are at %d and %d, the store at %d; want lms behind", held, lms, needed)
	}
	if err := s.takes.Load().remove(held); err != nil { // what a sink of collected writes holds stays
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(journal, before[0])); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the first segment is there (%v), want it gone", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}

	// With the disk about to be full the hold is lost, and what goes is counted.
	s, stop = startOpen(t, file)
	for s.takes.Load().toStore.Stats().Next == 0 || s.takes.Load().sinks[0].delivery.Stats().Next == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if err := s.takes.Load().loseHold(); err != nil || s.takes.Load().sinks[0].lost.Load() != 0 {
		t.Errorf("got %v and %d lost, want nothing lost: today's receipts need the segment", err, s.takes.Load().sinks[0].lost.Load())
	}
	if err := stop(); err != nil {
		t.Error(err)
	}

	to.set(func() { to.down = "" })
	s, stop = startOpen(t, file)
	to.wait(t, "/bulk", 5)
	to.wait(t, "/progress", 3)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := s.takes.Load().sinks[1].delivery.Stats().FromPast; n != 5 {
		t.Errorf("got %d from the store, want 5", n)
	}
}

// startOpen starts what serve runs, with its parts at hand.
func startOpen(t *testing.T, file string) (*server, func() error) {
	t.Helper()
	c, problems := config.Load(file)
	if c == nil {
		t.Fatal(problems)
	}
	s, err := open(t.Context(), c, &serveOptions{file: file}, newLogger(io.Discard, "text"), &inherited{sockets: &handover.Sockets{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, nil) }()
	stop := sync.OnceValue(func() error { http.DefaultClient.CloseIdleConnections(); cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	return s, stop
}

func segments(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".wal") {
			names = append(names, e.Name())
		}
	}
	return names
}
