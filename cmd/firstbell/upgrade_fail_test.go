package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"firstbell/cmd/firstbell/handover"
)

// testHeir, in the environment, makes this test binary a new process that does
// not become ready, in the way that it says.
const testHeir = "FIRSTBELL_TEST_HEIR"

func init() {
	how := os.Getenv(testHeir)
	if how == "" {
		return
	}
	in, err := inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(9)
	}
	var done bool
	switch how {
	case "ends":
		os.Exit(3)
	case "says why":
		in.failed(errors.New("the file has a mistake in line 7"))
		os.Exit(1)
	case "ends with everything":
		_ = in.before.Call(context.Background(), "Old.Release", 0, &done)
		os.Exit(4)
	case "hangs with everything":
		_ = in.before.Call(context.Background(), "Old.Release", 0, &done)
	}
	select {}
}

// setHeir has the server's next upgrade start this test binary as such a process.
func setHeir(t *testing.T, s *server, how string) {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(testHeir, how)
	s.program = handover.Program{Path: path, Dir: t.TempDir(), Args: []string{"-test.run", "^$"}}
}

func TestAnUpgradeThatFailsChangesNothing(t *testing.T) {
	was := [...]time.Duration{prepareMax, takeMax}
	t.Cleanup(func() { prepareMax, takeMax = was[0], was[1] })
	lms := &counted{asked: map[string]int{}}
	srv := httptest.NewServer(lms)
	t.Cleanup(srv.Close)
	file := writeFile(t, srv.URL, "timezone:", "cache: {memory: 64MiB, disk: {path: cache, size: 64MiB}}\ntimezone:")
	s, stop := startOpen(t, file)
	for !s.ready.Load() {
		time.Sleep(time.Millisecond)
	}
	web := "http://" + s.web.Addr().String()
	works := func(after string, n int) {
		t.Helper()
		for _, student := range []string{"always", fmt.Sprintf("s%d", n)} {
			if status, text := ask(t, "POST", web+"/check-in", fmt.Sprintf(`{"student_id":%q,"class_id":"c1"}`, student), "Host", "hangang.school.example"); status != 200 {
				t.Errorf("after %s: a check-in got %d %s", after, status, text)
			}
		}
		for i := range n + 1 {
			path := fmt.Sprintf("/lessons/%d", i)
			if status, text := ask(t, "GET", web+path, ""); status != 200 || !strings.HasPrefix(text, "this is "+path) {
				t.Errorf("after %s: %s got %d %.60s", after, path, status, text)
			}
		}
	}
	works("nothing", 0)
	for n, c := range []struct{ how, want string }{
		{"ends", "ended before it served: exit status 3"},
		{"says why", "the file has a mistake in line 7"},
		{"hangs", "did not become ready in time"},
		{"ends with everything", "ended before it served: exit status 4"},
		{"hangs with everything", "did not become ready in time"},
		{"is not there", "starting /nowhere/firstbell"},
	} {
		setHeir(t, s, c.how)
		prepareMax, takeMax = time.Minute, time.Minute
		switch c.how {
		case "hangs":
			prepareMax = 300 * time.Millisecond
		case "hangs with everything":
			takeMax = 300 * time.Millisecond
		case "is not there":
			s.program.Path = "/nowhere/firstbell"
		}
		status, text := ask(t, "POST", "http://"+s.opsNet.Addr().String()+"/upgrade", "")
		var u upgraded
		if err := json.Unmarshal([]byte(text), &u); err != nil || status != 422 || u.OK || u.Generation != 1 || !strings.Contains(u.Problem, c.want) {
			t.Errorf("a new process that %s: got %d %s, want 422 and %q", c.how, status, text, c.want)
		}
		works("a new process that "+c.how, n+1)
		if got := s.processReport(); got.UpgradesFailed != uint64(n+1) || got.LastUpgrade == nil || got.LastUpgrade.OK || s.notReady() != "" {
			t.Errorf("a new process that %s: the status says %+v, %s", c.how, got, s.notReady())
		}
	}
	for path, n := range lms.asked {
		if strings.HasPrefix(path, "/lessons/") && n != 1 {
			t.Errorf("%s was fetched %d times, want once", path, n)
		}
	}
	for end := time.Now().Add(time.Minute); s.cache.Stats().Disk.Objects < 7; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("on disk: got %+v, want the 7 lessons", s.cache.Stats().Disk)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("ending: %v", err)
	}
	stdout, _, err := firstbell(t, "export", "-config", file, "-format", "jsonl")
	if err != nil || strings.Count(stdout, "\n") != 8 {
		t.Errorf("export: %v, %s; want 8 check-ins", err, stdout)
	}
}

func TestOneUpgradeAtATimeAndNoneAtTheEnd(t *testing.T) {
	s, stop := startOpen(t, writeFile(t, newOrigin(t).URL))
	for !s.ready.Load() {
		time.Sleep(time.Millisecond)
	}
	setHeir(t, s, "hangs")
	first := make(chan *upgraded, 1)
	go func() { first <- s.upgrade("the first") }()
	for !s.upgrades.busy.Load() {
		time.Sleep(time.Millisecond)
	}
	if u := s.upgrade("the second"); u.OK || u.Problem != "an upgrade is under way already" {
		t.Errorf("the second: got %+v", u)
	}
	if r := s.reload("the test"); r.OK || !strings.Contains(r.Problems[0], "an upgrade is under way") {
		t.Errorf("a reload meanwhile: got %+v", r)
	}
	if err := stop(); err != nil {
		t.Errorf("ending: %v", err)
	}
	if u := <-first; u.OK || u.Problem != "firstbell is ending" {
		t.Errorf("the first: got %+v", u)
	}
	if u := s.upgrade("the third"); u.OK || u.Problem != "firstbell is ending" {
		t.Errorf("the third: got %+v", u)
	}
}

// TestAMistakeInTheFileIsToldToWhoeverAsks asks as people do, and then mends
// the file: all of it takes effect.
func TestAMistakeInTheFileIsToldToWhoeverAsks(t *testing.T) {
	t.Setenv(demoChild, "1")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A relative name that leads elsewhere by now is what starts.
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Symlink(program, "firstbell"); err != nil {
		t.Fatal(err)
	}
	ops := freeAddress(t)
	file := writeFile(t, newOrigin(t).URL, `ops: "127.0.0.1:0"`, fmt.Sprintf("ops: %q", ops))
	s := startServing(t, "./firstbell", file, "-pid-file", filepath.Join(dir, "firstbell.pid"))
	wantPID := func(pid int) {
		t.Helper()
		want, got := strconv.Itoa(pid)+"\n", ""
		for end := time.Now().Add(time.Minute); got != want && time.Now().Before(end); time.Sleep(time.Millisecond) {
			text, _ := os.ReadFile("firstbell.pid") // whoever serves writes it a moment later
			got = string(text)
		}
		if got != want {
			t.Errorf("the PID file: got %q, want %q", got, want)
		}
	}
	wantPID(s.cmd.Process.Pid)
	edit(t, file, "max: 8", "max: eight")
	_, _, err = firstbell(t, "upgrade", "-config", file)
	if exitCode(err) != 1 || !strings.Contains(fmt.Sprint(err), "the old process goes on") || !strings.Contains(fmt.Sprint(err), "concurrency.max") {
		t.Errorf("with a mistake in the file: got %v", err)
	}
	wantPID(s.cmd.Process.Pid)
	web := freeAddress(t)
	edit(t, file, "max: eight", "max: 9", `http: "127.0.0.1:0"`, fmt.Sprintf("http: %q", web))
	if err := errors.Join(os.Symlink(program, "firstbell.new"), os.Rename("firstbell.new", "firstbell")); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := firstbell(t, "upgrade", "-config", file)
	if err != nil || !strings.Contains(stdout, "serves as generation 2") {
		t.Fatalf("upgrade: %v, %s%s\n%s", err, stdout, stderr, s.said)
	}
	if status, text := ask(t, "GET", "http://"+web+"/lessons/1", ""); status != 200 {
		t.Errorf("at the new address: got %d %s", status, text)
	}
	wantPID(s.pid(t))
	s.endLast(t, 2)
	if _, err := os.Stat("firstbell.pid"); !os.IsNotExist(err) {
		t.Errorf("the PID file is still there: %v", err)
	}
}

// TestAnOldProcessKilledInTheMiddleIsSucceeded kills it while the new process
// prepares, and once more when that has been given the journal.
func TestAnOldProcessKilledInTheMiddleIsSucceeded(t *testing.T) {
	t.Setenv(demoChild, "1")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"msg=upgrading", "the journal is free"} {
		t.Run(when, func(t *testing.T) {
			file := writeFile(t, newOrigin(t).URL, "timezone:", "cache: {memory: 64MiB, disk: {path: cache, size: 64MiB}}\ntimezone:")
			s := startServing(t, program, file)
			if status, text := ask(t, "POST", "http://"+s.web+"/check-in", `{"student_id":"s1","class_id":"c1"}`); status != 200 {
				t.Fatalf("a check-in: got %d %s", status, text)
			}
			if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			s.waitSaid(t, when)
			for !hasHeir(t, s.cmd.Process.Pid) && !strings.Contains(s.said.String(), "generation=2") {
				time.Sleep(time.Millisecond)
			}
			if err := s.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			s.waitSaid(t, "generation=2")
			if status, text := ask(t, "POST", "http://"+s.web+"/check-in", `{"student_id":"s1","class_id":"c1"}`); status != 200 || !strings.Contains(text, `"s1"`) {
				t.Errorf("a check-in: got %d %s\n%s", status, text, s.said)
			}
			s.waitSaid(t, "the process before this one has ended")
			s.endLast(t, 2)
		})
	}
}

// hasHeir says whether a process has started another that runs by now.
func hasHeir(t *testing.T, pid int) bool {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(tasks) == 0 {
		t.Skip("this system does not tell the children of a process")
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // the thread may have ended
		for _, child := range strings.Fields(string(text)) {
			if environ, err := os.ReadFile("/proc/" + child + "/environ"); err == nil && strings.Contains(string(environ), "FIRSTBELL_HANDOVER=") {
				return true
			}
		}
	}
	return false
}

// waitSaid waits until the processes have said something.
func (s *serving) waitSaid(t *testing.T, text string) {
	t.Helper()
	limit := time.After(time.Minute)
	for !strings.Contains(s.said.String(), text) {
		select {
		case <-s.said.more:
		case <-limit:
			t.Fatalf("nobody says %q:\n%s", text, s.said)
		}
	}
}

// TestWhatIsUnderWayEndsInTheOldProcess has all kinds of things be half done
// when another process takes over.
func TestWhatIsUnderWayEndsInTheOldProcess(t *testing.T) {
	t.Setenv(demoChild, "1")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	goOn := make(chan struct{})
	var corrected atomic.Pointer[string]
	corrected.Store(new(string))
	lms := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bulk" {
			_, _ = io.Copy(io.Discard, r.Body)
			return
		}
		fmt.Fprintf(w, "this is %s%s", r.URL.Path, *corrected.Load())
		if r.URL.Path == "/long" {
			_ = http.NewResponseController(w).Flush()
			<-goOn
			fmt.Fprint(w, ", all of it")
		}
	}))
	t.Cleanup(lms.Close)
	s := startServing(t, program, writeFile(t, lms.URL))
	client := func() *rawClient { return &rawClient{address: s.web} }
	wantAnswer := func(c *rawClient, method, path, body, want string, closed bool) string {
		t.Helper()
		status, text, err := c.ask(method, path, body)
		if err != nil || status != 200 || !strings.Contains(text, want) || (c.conn == nil) != closed {
			t.Errorf("%s %s: got %d %q, %v, closed %v; want %q, closed %v\n%s", method, path, status, text, err, c.conn == nil, want, closed, s.said)
		}
		return text
	}
	reader, purged, presser, asker, slow := client(), client(), client(), client(), client()
	wantAnswer(reader, "GET", "/lessons/1", "", "this is", false)
	wantAnswer(purged, "GET", "/lessons/2", "", "this is", false)
	mine := wantAnswer(presser, "POST", "/check-in", `{"student_id":"s1","class_id":"c1"}`, `"s1"`, false)
	wantAnswer(asker, "GET", "/lessons/1", "", "this is", false)
	wantAnswer(slow, "GET", "/lessons/1", "", "this is", false)
	var receipt struct{ Receipt string }
	if err := json.Unmarshal([]byte(mine), &receipt); err != nil {
		t.Fatal(err)
	}
	const late = `{"student_id":"late","class_id":"c1"}`
	fmt.Fprintf(slow.conn, "POST /check-in HTTP/1.1\r\nHost: hangang.school.example\r\nContent-Length: %d\r\n\r\n%s", len(late), late[:10])
	long, err := http.Get("http://" + s.web + "/long")
	if err != nil {
		t.Fatal(err)
	}
	defer long.Body.Close()

	var u upgraded
	_, text := ask(t, "POST", "http://"+s.ops+"/upgrade", "")
	if err := json.Unmarshal([]byte(text), &u); err != nil || !u.OK {
		t.Fatalf("upgrade: %v, %s\n%s", err, text, s.said)
	}
	if _, text := ask(t, "GET", "http://"+s.ops+"/status", ""); !strings.Contains(text, fmt.Sprintf(`"before": %d`, s.cmd.Process.Pid)) {
		t.Errorf("the status does not name the process before: %s", text)
	}
	for end := time.Now().Add(time.Minute); reader.conn != nil && time.Now().Before(end) && !t.Failed(); {
		status, text, err := reader.ask("GET", "/lessons/1", "") // the old process hears in a moment that it has been replaced
		if err != nil || status != 200 || text != "this is /lessons/1" {
			t.Errorf("GET /lessons/1: got %d %q, %v", status, text, err)
		}
	}
	if reader.conn != nil {
		t.Errorf("a connection to the old process is never told to close\n%s", s.said)
	}
	word := ", corrected"
	corrected.Store(&word)
	if status, text := ask(t, "POST", "http://"+s.ops+"/purge", `{"hosts": ["hangang.school.example"]}`); status != 200 {
		t.Errorf("purging: %d %s", status, text)
	}
	wantAnswer(purged, "GET", "/lessons/2", "", "corrected", true)
	if again := wantAnswer(presser, "POST", "/check-in", `{"student_id":"s1","class_id":"c1"}`, `"s1"`, true); again != mine {
		t.Errorf("the same check-in: got %s, had %s", again, mine)
	}
	wantAnswer(asker, "GET", "/check-in/receipts/"+receipt.Receipt, "", receipt.Receipt, true)
	fmt.Fprint(slow.conn, late[10:])
	res, err := http.ReadResponse(slow.in, nil)
	if err != nil || res.StatusCode != 200 || !res.Close {
		t.Errorf("a check-in that came in two halves: %v, %+v", err, res)
	}
	close(goOn)
	if all, err := io.ReadAll(long.Body); err != nil || string(all) != "this is /long, all of it" {
		t.Errorf("a long answer: got %q, %v", all, err)
	}
	http.DefaultClient.CloseIdleConnections()
	s.waitSaid(t, "the process before this one has ended")
	wantAnswer(client(), "GET", "/lessons/2", "", "corrected", false)
	s.endLast(t, 2)
}

// TestSystemdFollowsTheProcessThatServes plays systemd: it hands over a socket,
// hears who serves, and has the sockets kept through an upgrade.
func TestSystemdFollowsTheProcessThatServes(t *testing.T) {
	t.Setenv(demoChild, "1")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	notify := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", notify)
	hears := func() string {
		t.Helper()
		b := make([]byte, 1000)
		_ = systemd.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := systemd.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file := writeFile(t, newOrigin(t).URL, `http: "127.0.0.1:0"`, `http: ":1"`)
	// As systemd does: the number of the process is known once it is there.
	s := startWith(t, exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec "$0" "$@"`, program, "serve", "-config", file), f)
	if s.web != ln.Addr().String() {
		t.Fatalf("it serves at %s, want systemd's %s", s.web, ln.Addr())
	}
	first := s.cmd.Process.Pid
	if got, want := hears(), fmt.Sprintf("MAINPID=%d\nREADY=1\nSTATUS=serving, generation 1", first); got != want {
		t.Errorf("at the start systemd hears %q, want %q", got, want)
	}
	var u upgraded
	_, text := ask(t, "POST", "http://"+s.ops+"/upgrade", "")
	if err := json.Unmarshal([]byte(text), &u); err != nil || !u.OK {
		t.Fatalf("upgrade: %v, %s\n%s", err, text, s.said)
	}
	for _, want := range []string{fmt.Sprintf("MAINPID=%d", u.PID), fmt.Sprintf("MAINPID=%d\nREADY=1\nSTATUS=serving, generation 2", u.PID)} {
		if got := hears(); got != want {
			t.Errorf("at the upgrade systemd hears %q, want %q", got, want)
		}
	}
	if status, text := ask(t, "GET", "http://"+s.web+"/lessons/1", ""); status != 200 {
		t.Errorf("at systemd's socket: got %d %s", status, text)
	}
	s.endLast(t, 2)
	if got := hears(); got != "STOPPING=1" {
		t.Errorf("at the end systemd hears %q, want STOPPING=1", got)
	}
}
