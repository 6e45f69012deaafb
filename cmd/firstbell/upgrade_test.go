package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// deploy/upgrades sets these: how often, and which program. Without them it is
// eight times this test's own binary.
const (
	upgradeRounds  = "FIRSTBELL_UPGRADE_ROUNDS"
	upgradeProgram = "FIRSTBELL_UPGRADE_PROGRAM"
)

// counted is an origin that counts what it is asked for.
type counted struct {
	mu    sync.Mutex // guards what follows
	asked map[string]int
	now   int // requests for lessons and pages that are being answered
	most  int
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/bulk" {
		_, _ = io.Copy(io.Discard, r.Body)
		return
	}
	c.mu.Lock()
	c.asked[r.URL.Path]++
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	time.Sleep(time.Duration(1+rand.IntN(4)) * time.Millisecond) // others come meanwhile
	if strings.HasPrefix(r.URL.Path, "/page/") {
		w.Header().Set("Cache-Control", "no-store")
	}
	fmt.Fprintf(w, "this is %s\n%s", r.URL.Path, strings.Repeat("content ", 250))
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
}

// rawClient asks over one connection at a time, which it keeps until it is told
// to close it. It never asks twice: what fails has failed.
type rawClient struct {
	address string
	conn    net.Conn
	in      *bufio.Reader
	closes  int // connections that the other side said it would close
}

func (c *rawClient) ask(method, path, body string) (status int, text string, err error) {
	if c.conn == nil {
		if c.conn, err = net.Dial("tcp", c.address); err != nil {
			return 0, "", err
		}
		c.in = bufio.NewReader(c.conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(time.Minute))
	_, err = fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: hangang.school.example\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
	if err != nil {
		return 0, "", err
	}
	res, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return 0, "", err
	}
	all, err := io.ReadAll(res.Body)
	if res.Close {
		c.closes++
		_ = c.conn.Close()
		c.conn = nil
	}
	return res.StatusCode, string(all), err
}

// upgradeLoad is what clients do while firstbell is replaced.
type upgradeLoad struct {
	*killed
	address  string
	requests atomic.Int64
	cold     atomic.Int64 // the lesson that everybody asks for next
	told     atomic.Int64 // connections closed with a word before
	vain     atomic.Int64 // check-ins that waited for the journal as long as they may

	overHTTP3 atomic.Int64 // requests
	dialled   atomic.Int64 // connections of HTTP/3
}

func (l *upgradeLoad) run(ctx context.Context) (wait func()) {
	var wg sync.WaitGroup
	for n := range 12 {
		wg.Go(func() {
			c := &rawClient{address: l.address}
			for i := 0; ctx.Err() == nil && !l.t.Failed(); i++ {
				l.once(c, n, i)
			}
			l.told.Add(int64(c.closes))
			if c.conn != nil {
				_ = c.conn.Close()
			}
		})
	}
	return wg.Wait
}

func (l *upgradeLoad) once(c *rawClient, n, i int) {
	method, path, body, student := "GET", "", "", ""
	switch n % 4 {
	case 0:
		path = fmt.Sprintf("/lessons/%d", rand.IntN(50))
	case 1:
		path = fmt.Sprintf("/lessons/cold-%d", l.cold.Load()+int64(rand.IntN(2)))
		if i%8 == 7 {
			l.cold.Add(1)
		}
	case 2:
		path = fmt.Sprintf("/page/%d-%d", n, i)
	case 3:
		student = fmt.Sprintf("p%d-%d", n, i-i%5) // every fifth is new
		method, path, body = "POST", "/check-in", fmt.Sprintf(`{"student_id":%q,"class_id":"c1"}`, student)
		l.mu.Lock()
		l.pressed[student] = true
		l.mu.Unlock()
	}
	asked := time.Now()
	status, text, err := c.ask(method, path, body)
	l.requests.Add(1)
	switch {
	case student != "" && status == 503 && time.Since(asked) >= clerkPatience:
		l.vain.Add(1) // this machine is too slow for a new process within that time
	case err != nil || status != 200:
		l.t.Errorf("%s %s: got %d, %v, %.200s; want 200", method, path, status, err, text)
	case student != "":
		l.hold(student, text)
	case !strings.HasPrefix(text, "this is "+path+"\n"):
		l.t.Errorf("%s: got %.100q", path, text)
	}
}

func TestUpgradesUnderLoadLoseNothing(t *testing.T) {
	program, rounds := os.Getenv(upgradeProgram), 8
	if program == "" {
		t.Setenv(demoChild, "1")
		var err error
		if program, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv(upgradeRounds); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", upgradeRounds, err)
		}
	}
	lms := &counted{asked: map[string]int{}}
	srv := httptest.NewServer(lms)
	defer srv.Close()
	file, ca := writeHTTP3File(t, srv.URL, "hangang.school.example")
	first := startServing(t, program, file)
	l := &upgradeLoad{killed: &killed{t: t, file: file, pressed: map[string]bool{}, held: map[string]string{}}, address: first.web}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wait := l.run(ctx)
	waitHTTP3 := l.runHTTP3(ctx, first.http3, ca)
	worst := 0.0
	for round := range rounds {
		var u upgraded
		_, text := ask(t, "POST", "http://"+first.ops+"/upgrade", "")
		if err := json.Unmarshal([]byte(text), &u); err != nil || !u.OK || u.Generation != round+2 {
			t.Errorf("upgrade %d: %v, %s\n%s", round, err, text, first.said)
		}
		worst = max(worst, u.Took)
		if t.Failed() {
			t.Fatalf("in round %d:\n%s", round, first.said)
		}
	}
	stop()
	wait()
	waitHTTP3()
	first.endLast(t, rounds+1)
	for path, n := range lms.asked {
		if strings.HasPrefix(path, "/lessons/") && n != 1 {
			t.Errorf("%s was fetched %d times", path, n)
		}
	}
	if lms.most > 9 { // one more while the old process uses all
		t.Errorf("the origin was asked for %d at once, with concurrency.max 8", lms.most)
	}
	if vain := l.vain.Load(); vain > int64(len(l.held)/10) {
		t.Errorf("%d check-ins waited in vain, %d had their receipt; want hardly any", vain, len(l.held))
	}
	l.check()
	t.Logf("%d upgrades, the slowest took %.2f s: %d requests, %d receipts, %d check-ins that waited in vain, %d lessons; %d connections were told to close; over HTTP/3 %d requests on %d connections",
		rounds, worst, l.requests.Load(), len(l.held), l.vain.Load(), len(lms.asked), l.told.Load(), l.overHTTP3.Load(), l.dialled.Load())
}

// serving is a firstbell that other processes take over from. What all of them
// say is in said.
type serving struct {
	web, ops string
	http3    string
	said     *noise
	cmd      *exec.Cmd
	ended    chan struct{} // closed when the last of them has ended
}

func startServing(t *testing.T, program, file string, args ...string) *serving {
	t.Helper()
	return startWith(t, exec.Command(program, append([]string{"serve", "-config", file, "-access-log=false"}, args...)...))
}

func startWith(t *testing.T, cmd *exec.Cmd, files ...*os.File) *serving {
	t.Helper()
	s := &serving{cmd: cmd, said: newNoise(), ended: make(chan struct{})}
	s.cmd.Stderr, s.cmd.ExtraFiles = s.said, files
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait() // it returns when nobody holds standard error any more
		close(s.ended)
	}()
	t.Cleanup(func() {
		if s.ops != "" {
			if pid := s.pid(t); pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		_ = s.cmd.Process.Kill()
	})
	limit := time.After(time.Minute)
	for {
		if m := servingLine.FindStringSubmatch(s.said.String()); m != nil {
			s.web, s.ops, s.http3 = m[1], m[2], m[4]
			return s
		}
		select {
		case <-s.said.more:
		case <-s.ended:
			t.Fatalf("firstbell did not start:\n%s", s.said)
		case <-limit:
			t.Fatalf("firstbell did not start:\n%s", s.said)
		}
	}
}

// pid is the process that serves now, or 0.
func (s *serving) pid(t *testing.T) int {
	res, err := http.Get("http://" + s.ops + "/status")
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	var r statusReport
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
		return 0
	}
	return r.Process.PID
}

// endLast ends the process that serves, which is of that generation, as SIGTERM
// does.
func (s *serving) endLast(t *testing.T, generation int) {
	t.Helper()
	_, answer := ask(t, "GET", "http://"+s.ops+"/status", "")
	var r statusReport
	if err := json.Unmarshal([]byte(answer), &r); err != nil || r.Process.Generation != generation {
		t.Fatalf("/status: %v, got %+v, want generation %d", err, r.Process, generation)
	}
	http.DefaultClient.CloseIdleConnections() // whose end it would wait for
	if err := syscall.Kill(r.Process.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(time.Minute):
		t.Fatalf("somebody is left:\n%s", s.said)
	}
}
