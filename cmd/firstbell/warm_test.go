package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// process is a firstbell in a process of its own, which can be killed.
type process struct {
	cmd      *exec.Cmd
	web, ops string
}

// startProcess starts this test binary as a firstbell.
func startProcess(t *testing.T, file string) *process {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, log := &process{cmd: exec.Command(program, "serve", "-config", file)}, newNoise()
	p.cmd.Env = append(os.Environ(), demoChild+"=1")
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	timeout := time.After(time.Minute)
	for {
		if m := servingLine.FindStringSubmatch(log.String()); m != nil {
			p.web, p.ops = m[1], m[2]
			return p
		}
		select {
		case <-log.more:
		case <-timeout:
			t.Fatalf("firstbell did not start:\n%s", log)
		}
	}
}

// kill ends it as kill -9 does; calling it again does nothing.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}

// stop ends it as SIGTERM does.
func (p *process) stop(t *testing.T) {
	t.Helper()
	http.DefaultClient.CloseIdleConnections() // whose end it would wait for
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("ending firstbell: %v", err)
	}
}

func (p *process) status(t *testing.T) *statusReport {
	t.Helper()
	_, answer := ask(t, "GET", "http://"+p.ops+"/status", "")
	var s statusReport
	if err := json.Unmarshal([]byte(answer), &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// lessons asks for 500 lessons, each several times by many at once, and returns
// how many answers were right.
func lessons(t *testing.T, web string, rounds int) (right int64) {
	t.Helper()
	var good atomic.Int64
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	for g := range 16 {
		wg.Go(func() {
			for i := g; i < 500*rounds; i += 16 {
				req, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("http://%s/lessons/%d", web, i%500), nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Host = "hangang.school.example" // the key of what is stored; the port is another each time
				res, err := client.Do(req)
				if err != nil {
					t.Errorf("lesson %d: %v", i%500, err)
					return
				}
				text := make([]byte, 3000)
				n, _ := res.Body.Read(text)
				res.Body.Close()
				if res.StatusCode == 200 && strings.HasPrefix(string(text[:n]), fmt.Sprintf("this is /lessons/%d\n", i%500)) {
					good.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return good.Load()
}

// TestAWarmRestartCostsTheOriginNothing kills a real process whose cache is
// warm, and starts another with a dead origin; then again with a clean end.
func TestAWarmRestartCostsTheOriginNothing(t *testing.T) {
	var fetches atomic.Int64
	lms := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		w.Header().Set("Cache-Tag", "all")
		fmt.Fprintf(w, "this is %s\n%s", r.URL.Path, strings.Repeat("content ", 250))
	}))
	t.Cleanup(lms.Close)
	file := writeFile(t, lms.URL, "timezone:", "cache: {memory: 64MiB, disk: {path: cache, size: 256MiB}}\ntimezone:")
	p := startProcess(t, file)
	if n := lessons(t, p.web, 1); n != 500 || fetches.Load() != 500 {
		t.Fatalf("%d right answers for %d fetches, want 500 each", n, fetches.Load())
	}
	for end := time.Now().Add(time.Minute); p.status(t).Cache.Disk.Objects < 500; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not on disk: %+v", p.status(t).Cache.Disk)
		}
	}
	wantInspected(t, file, "while serve runs")
	p.kill()
	wantInspected(t, file, "after kill -9")
	lms.Close()
	for _, when := range []string{"kill -9", "a clean end"} {
		p = startProcess(t, file)
		if n := lessons(t, p.web, 2); n != 1000 {
			t.Errorf("after %s, with a dead origin: %d right answers of 1000", when, n)
		}
		// An answer is counted a moment after its client has it.
		for end := time.Now().Add(time.Minute); p.status(t).Requests["hit"] < 1000 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		}
		if s := p.status(t); s.Requests["hit"] != 1000 || s.Cache.Disk.Hits < 500 || len(s.Cache.Disk.Alarms) != 0 {
			t.Errorf("after %s: requests %v, disk %+v; want hits alone", when, s.Requests, s.Cache.Disk)
		}
		_, metrics := ask(t, "GET", "http://"+p.ops+"/metrics", "")
		for _, want := range []string{"firstbell_cache_disk_objects 500", `firstbell_cache_disk_alarms_total{kind="damaged"} 0`, "firstbell_cache_disk_paused 0"} {
			if !strings.Contains(metrics, want) {
				t.Errorf("after %s: /metrics lacks %s", when, want)
			}
		}
		p.stop(t)
	}
}

// freshFor is what is left of ten minutes, some of which may be over.
var freshFor = regexp.MustCompile(`fresh for ([5-9]m|10m0s)`)

// wantInspected wants inspect cache to list the 500 lessons.
func wantInspected(t *testing.T, file, when string) {
	t.Helper()
	stdout, _, err := firstbell(t, "inspect", "cache", "-config", file)
	if err != nil || strings.Count(stdout, "/lessons/") != 500 || !strings.Contains(stdout, "500 stored responses") || !freshFor.MatchString(stdout) {
		t.Errorf("inspect cache %s: %v, %d lines with a lesson\n%.500s", when, err, strings.Count(stdout, "/lessons/"), stdout)
	}
	dir := filepath.Join(filepath.Dir(file), "cache")
	stdout, _, err = firstbell(t, "inspect", "cache", "-json", "-host", "hangang.school.example", "-limit", "7", dir)
	var one cachedJSON
	first, _, _ := strings.Cut(stdout, "\n")
	if err != nil || strings.Count(stdout, "\n") != 7 || json.Unmarshal([]byte(first), &one) != nil || one.Status != 200 || one.TTL <= 0 || len(one.Tags) != 1 || one.Tags[0] != "all" {
		t.Errorf("inspect cache -json %s: %v\n%s", when, err, stdout)
	}
	if stdout, _, err = firstbell(t, "inspect", "cache", "-json", "-prefix", one.URL, dir); err != nil || !strings.Contains(stdout, one.URL) {
		t.Errorf("inspect cache -prefix %s %s: %v\n%s", one.URL, when, err, stdout)
	}
}

func TestASecondProcessOnTheCacheIsOneLine(t *testing.T) {
	lms := newOrigin(t)
	dir := filepath.Join(t.TempDir(), "cache")
	edits := []string{"timezone:", "cache: {disk: {path: " + dir + ", size: 256MiB}}\ntimezone:"}
	serve(t, writeFile(t, lms.URL, edits...))
	_, _, err := firstbell(t, "serve", "-config", writeFile(t, lms.URL, edits...))
	if exitCode(err) != 1 || !strings.Contains(err.Error(), "in use by process") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want one line that says that the cache is in use", err)
	}
}

func TestInspectCacheWithoutOne(t *testing.T) {
	file := writeFile(t, "http://10.0.0.5:8080")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-config", file}, 1, "no cache.disk"},
		{[]string{filepath.Join(filepath.Dir(file), "nothing")}, 1, "not a directory"},
		{[]string{filepath.Dir(file)}, 1, "holds no cache"},
		{nil, 2, "-config FILE"},
		{[]string{"-limit", "-1", filepath.Dir(file)}, 2, "0 or more"},
	} {
		_, _, err := firstbell(t, append([]string{"inspect", "cache"}, c.args...)...)
		if exitCode(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("inspect cache %v: %v with %d, want %q and %d", c.args, err, exitCode(err), c.want, c.code)
		}
	}
}
