package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const answerOK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestConnectionsAreReusedLastUsedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, func(f *fakeConn) {
			for f.readHead() != "" {
				f.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", f.n))
			}
		})
		first, err := p.Do(t.Context(), get())
		if err != nil {
			t.Fatal(err)
		}
		_, second := mustDo(t, p, get()) // beside the first
		_, _ = io.ReadAll(first.Body)
		_ = first.Body.Close()
		for range 3 {
			if _, body := mustDo(t, p, get()); body != "0" {
				t.Errorf("connection %s answered, want 0, which was used last", body)
			}
		}
		if st := p.Stats().Servers[0]; second != "1" || st.Opened != 2 || st.Reused != 3 || st.Idle != 2 || st.Requests != 5 {
			t.Errorf("%+v, want 2 connections opened, 3 times reused, 5 requests", st)
		}
	})
}

func TestOnlySafeRequestsAreSentTwice(t *testing.T) {
	const half = "HTTP/1.1 200 OK\r\n"
	withContent := func(method string) *Request {
		r := post(strings.NewReader("abc"), 3)
		r.Method = method
		return r
	}
	plain := func(method string) *Request {
		r := get()
		r.Method = method
		return r
	}
	for _, c := range []struct {
		name  string
		r     *Request
		last  string // said on the reused connection before it dies
		want  int    // connections opened
		works bool
	}{
		{"GET", plain("GET"), "", 2, true},
		{"HEAD", plain("HEAD"), "", 2, true},
		{"DELETE", plain("DELETE"), "", 2, true},
		{"POST", plain("POST"), "", 1, false},
		{"PATCH", plain("PATCH"), "", 1, false},
		{"POST with content", withContent("POST"), "", 1, false},
		{"PUT with content", withContent("PUT"), "", 1, false},
		{"GET behind the first byte of a response", plain("GET"), half, 1, false},
		{"GET behind a 1xx response", plain("GET"), "HTTP/1.1 103 Early Hints\r\n\r\n", 1, false},
		{"GET behind nonsense", plain("GET"), "nonsense", 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := 0
				p := newFake(t, Config{}, func(f *fakeConn) {
					f.readHead()
					f.say("HTTP/1.1 204 No Content\r\n\r\n")
					if f.readHead() != "" {
						sent++
						f.say(c.last)
					}
				})
				mustDo(t, p, get())
				_, _, err := do(t.Context(), p, c.r)
				if (err == nil) != c.works {
					t.Errorf("got %v, want it to work: %v", err, c.works)
				}
				if err != nil {
					var e *Error
					if !errors.As(err, &e) || !e.MayHaveReached {
						t.Errorf("got %#v, want an *Error that may have reached the origin", err)
					}
				}
				if st := p.Stats(); int(st.Servers[0].Opened) != c.want || int(st.Retries) != c.want-1 || sent != 1 {
					t.Errorf("%+v, want %d connections", st, c.want)
				}
			})
		})
	}
}

func TestADeadFreshConnectionIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, func(f *fakeConn) { f.readHead() })
		_, _, err := do(t.Context(), p, get())
		wantKind(t, err, ErrCut)
		if st := p.Stats().Servers[0]; st.Opened != 1 || st.Requests != 1 {
			t.Errorf("%+v, want one connection and one request", st)
		}
	})
}

func TestRetriesStayWithinTheirBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Every connection dies at its second request, and so every second
		// request would be sent again.
		p := newFake(t, Config{}, func(f *fakeConn) {
			f.readHead()
			f.say("HTTP/1.1 204 No Content\r\n\r\n")
			f.readHead()
		})
		failed := 0
		for range 1000 {
			if _, _, err := do(t.Context(), p, get()); err != nil {
				failed++
			}
		}
		if n := p.Stats().Retries; n < 90 || n > 110 || failed < 300 {
			t.Errorf("%d retries and %d failures of 1000 requests, want about 100 retries", n, failed)
		}
	})
}

func TestIdleConnectionsGrowOld(t *testing.T) {
	for _, c := range []struct {
		name, field string
		wait        time.Duration
		reused      uint64
	}{
		{"young enough", "", 9 * time.Second, 1},
		{"too old", "", 10 * time.Second, 0},
		{"what the server says, less a second", "Keep-Alive: max=5, timeout=5\r\n", 4 * time.Second, 0},
		{"younger than the server says", "Keep-Alive: timeout=5\r\n", 3 * time.Second, 1},
		{"the server says more than we do", "Keep-Alive: timeout=500\r\n", 10 * time.Second, 0},
		{"the server says nothing sensible", "Keep-Alive: timeout=soon\r\n", 9 * time.Second, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFake(t, Config{Timeouts: Timeouts{KeepAlive: 10 * time.Second}}, func(f *fakeConn) {
					for f.readHead() != "" {
						f.say("HTTP/1.1 200 OK\r\n" + c.field + "Content-Length: 0\r\n\r\n")
					}
				})
				mustDo(t, p, get())
				time.Sleep(c.wait)
				mustDo(t, p, get())
				if st := p.Stats().Servers[0]; st.Reused != c.reused || st.Idle != 1 {
					t.Errorf("%+v, want %d reused and one idle", st, c.reused)
				}
			})
		})
	}
}

func TestRunClosesOldConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, func(f *fakeConn) {
			f.readHead()
			f.say(answerOK)
			f.wantEnd()
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		mustDo(t, p, get())
		time.Sleep(80 * time.Second)
		if st := p.Stats().Servers[0]; st.Idle != 0 {
			t.Errorf("%d idle connections after 80 s, want 0", st.Idle)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{ConnsMax: 3, IdleMax: 2}, func(f *fakeConn) {
			for f.readHead() != "" {
				f.say(answerOK)
			}
		})
		var open []*Response
		for range 3 {
			res, err := p.Do(t.Context(), get())
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, res)
		}
		_, err := p.Do(t.Context(), get())
		if e := wantKind(t, err, ErrBusy); e.MayHaveReached {
			t.Error("MayHaveReached is true for a request that was never sent")
		}
		for _, res := range open {
			_, _ = io.ReadAll(res.Body)
			_ = res.Body.Close()
		}
		mustDo(t, p, get())
		if st := p.Stats().Servers[0]; st.Idle != 2 || st.InFlight != 0 || st.Opened != 3 {
			t.Errorf("%+v, want 3 opened, 2 of them kept", st)
		}
	})
}

func TestAClosedPoolLetsRequestsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, func(f *fakeConn) {
			for f.readHead() != "" {
				f.say(answerOK)
			}
		})
		other, err := p.Do(t.Context(), get())
		if err != nil {
			t.Fatal(err)
		}
		res, err := p.Do(t.Context(), get())
		if err != nil {
			t.Fatal(err)
		}
		_ = other.Body.Close()
		if err := p.Close(); err != nil {
			t.Errorf("Close = %v, want nil", err)
		}
		if body, err := io.ReadAll(res.Body); string(body) != "ok" || err != nil {
			t.Errorf("the open response gave %q, %v; want ok", body, err)
		}
		_ = res.Body.Close()
		_, err = p.Do(t.Context(), get())
		wantKind(t, err, ErrClosed)
		if st := p.Stats().Servers[0]; st.Idle != 0 || st.InFlight != 0 {
			t.Errorf("%+v, want nothing idle and nothing in flight", st)
		}
	})
}

// cluster is several servers by address, each of which can be told what to do.
type cluster struct {
	mu     sync.Mutex
	down   map[string]bool
	silent map[string]bool
	dials  map[string]int
	served map[string]int
	status string
}

var clusterServers = []string{"http://a.test:80", "http://b.test:80", "http://c.test:80"}

func newCluster(t *testing.T, cfg Config) (*cluster, *Pool) {
	k := &cluster{down: map[string]bool{}, silent: map[string]bool{}, dials: map[string]int{}, served: map[string]int{}, status: "200 OK"}
	if cfg.Servers == nil {
		cfg.Servers = clusterServers
	}
	cfg.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
		k.mu.Lock()
		name := address[:1]
		k.dials[name]++
		down, silent := k.down[name], k.silent[name]
		k.mu.Unlock()
		if silent {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if down {
			return nil, errors.New("connection refused")
		}
		ours, theirs := net.Pipe()
		go k.serve(newFakeConn(t, theirs), name)
		return ours, nil
	}
	return k, newPool(t, cfg)
}

func (k *cluster) serve(f *fakeConn, name string) {
	defer f.Close()
	for head := f.readHead(); head != ""; head = f.readHead() {
		k.mu.Lock()
		if strings.Contains(head, "/healthz") {
			name = "health of " + name[len(name)-1:]
		}
		k.served[name]++
		status := k.status
		k.mu.Unlock()
		f.say("HTTP/1.1 " + status + "\r\nContent-Length: 1\r\n\r\n" + name[len(name)-1:])
	}
}

func (k *cluster) set(down map[string]bool, name string, to bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	down[name] = to
}

func (k *cluster) count(of map[string]int, name string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return of[name]
}

func TestServersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, p := newCluster(t, Config{})
		for range 30 {
			mustDo(t, p, get())
		}
		for _, name := range []string{"a", "b", "c"} {
			if n := k.count(k.served, name); n != 10 {
				t.Errorf("server %s answered %d of 30 requests, want 10", name, n)
			}
		}
	})
}

func TestTheLessBusyOfTwoIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, p := newCluster(t, Config{Servers: clusterServers[:2]})
		busy, err := p.Do(t.Context(), get()) // one server has a response left unread
		if err != nil {
			t.Fatal(err)
		}
		defer busy.Body.Close()
		for range 10 {
			mustDo(t, p, get())
		}
		if a, b := k.count(k.served, "a"), k.count(k.served, "b"); min(a, b) != 1 || max(a, b) != 10 {
			t.Errorf("the servers answered %d and %d requests, want the busy one to have only its first", a, b)
		}
	})
}

func TestADeadServerCostsNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, p := newCluster(t, Config{})
		k.set(k.down, "b", true)
		for range 300 {
			mustDo(t, p, post(strings.NewReader("abc"), 3)) // even a POST: nothing was sent
		}
		if n := k.count(k.dials, "b"); n != 1 {
			t.Errorf("the dead server was tried %d times in no time, want 1", n)
		}
		time.Sleep(asideMin * 3 / 2)
		k.set(k.down, "b", false)
		for range 30 {
			mustDo(t, p, get())
		}
		if n := k.count(k.served, "b"); n != 10 || !p.Stats().Servers[1].Healthy {
			t.Errorf("the server answered %d of 30 requests after it came back, want 10", n)
		}
	})
}

func TestConnectsThatFailAtOnceCountAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := newCluster(t, Config{})
		s := p.servers[0]
		for range 100 {
			s.setAside()
		}
		if s.healthy() {
			t.Error("the server is not set aside")
		}
		if time.Sleep(asideMin * 3 / 2); !s.healthy() {
			t.Errorf("the server is still set aside after %v", asideMin*3/2)
		}
	})
}

func TestADeadServerIsAskedLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, p := newCluster(t, Config{})
		k.set(k.down, "a", true)
		start := time.Now()
		for time.Since(start) < 2*time.Minute {
			mustDo(t, p, get())
			time.Sleep(50 * time.Millisecond)
		}
		// After 0.25 + 0.5 + 1 + 2 + 4 + 8 s, then about every 10 s: 6 + 10.
		if n := k.count(k.dials, "a"); n < 12 || n > 22 {
			t.Errorf("tried %d times in two minutes, want about 16", n)
		}
	})
}

func TestWhenAllAreDownTheyAreTriedAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, p := newCluster(t, Config{})
		for _, name := range []string{"a", "b", "c"} {
			k.set(k.down, name, true)
		}
		for range 5 {
			_, _, err := do(t.Context(), p, get())
			if e := wantKind(t, err, ErrConnect); e.MayHaveReached || errors.Is(err, ErrTimeout) {
				t.Errorf("got %v, want no timeout and nothing sent", err)
			}
		}
		k.set(k.down, "c", false)
		mustDo(t, p, get())
	})
}

func TestConnectingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, p := newCluster(t, Config{Servers: append([]string{"http://d.test", "http://e.test"}, clusterServers...)})
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			k.set(k.silent, name, true)
		}
		start := time.Now()
		_, _, err := do(t.Context(), p, get())
		wantKind(t, err, ErrTimeout)
		if took := time.Since(start); !errors.Is(err, ErrConnect) || took != 6*time.Second {
			t.Errorf("got %v after %v, want no connection after three times 2s", err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		before := p.Stats()
		_, _, err = do(ctx, p, get())
		wantKind(t, err, context.DeadlineExceeded)
		for i, st := range p.Stats().Servers {
			if st.Failures != before.Servers[i].Failures || st.InFlight != 0 {
				t.Errorf("%+v: the caller's leaving was counted as a failure", st)
			}
		}
	})
}

func TestHealthChecksTakeServersOutAndIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, p := newCluster(t, Config{Servers: clusterServers[:2], Health: Health{Path: "/healthz", Every: 2 * time.Second}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		healthy := func() (n int) {
			for _, st := range p.Stats().Servers {
				if st.Healthy {
					n++
				}
			}
			return n
		}
		time.Sleep(10 * time.Second)
		if n := k.count(k.served, "health of a"); n < 5 || n > 6 || healthy() != 2 {
			t.Errorf("%d checks in 10 s with %d healthy, want 5 or 6, and 2", n, healthy())
		}
		k.mu.Lock()
		k.status = "503 Service Unavailable"
		k.mu.Unlock()
		time.Sleep(1700 * time.Millisecond) // too short for two checks
		if n := healthy(); n != 2 {
			t.Errorf("%d healthy after at most one failing check, want 2", n)
		}
		time.Sleep(2800 * time.Millisecond) // long enough for two
		if n := healthy(); n != 0 {
			t.Errorf("%d healthy after two failing checks, want 0", n)
		}
		if res, _ := mustDo(t, p, get()); res.Status != 503 { // fail open
			t.Errorf("status %d, want the origin's 503", res.Status)
		}
		k.mu.Lock()
		k.status = "204 No Content"
		k.mu.Unlock()
		time.Sleep(5 * time.Second)
		if n := healthy(); n != 2 {
			t.Errorf("%d healthy after two good checks, want 2", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if st := p.Stats().Servers; st[0].InFlight+st[1].InFlight != 0 || st[0].Requests+st[1].Requests != 1 {
			t.Errorf("%+v, want nothing in flight, and checks not counted as requests", st)
		}
	})
}

func TestConfigProblemsAreToldAllAtOnce(t *testing.T) {
	_, err := New(Config{Name: "lms", Servers: []string{"ftp://a", "10.0.0.5:8080", "http://a/x", "http://", "http://a b"},
		ConnsMax: -1, Timeouts: Timeouts{Idle: -1}, Health: Health{Path: "healthz", Host: "a b"}})
	if err == nil {
		t.Fatal("New = nil, want every problem")
	}
	for _, want := range []string{`"ftp://a": not a server`, `"10.0.0.5:8080"`, `"http://a/x": more than`, `"http://": not a server`, `"http://a b"`,
		"limit of -1", "time limit of -1ns", `health path "healthz"`, `health host "a b"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New does not mention %s:\n%v", want, err)
		}
	}
	if _, err := New(Config{Name: "lms"}); err == nil || !strings.Contains(err.Error(), "no servers") {
		t.Errorf("New without servers = %v, want it to say so", err)
	}
	p, err := New(Config{Servers: []string{"http://a", "http://[::1]:8080/"}})
	if err != nil {
		t.Fatalf("New = %v, want nil", err)
	}
	if st := p.Stats().Servers; st[0].Address != "a:80" || st[1].Address != "[::1]:8080" {
		t.Errorf("addresses %s and %s, want a:80 and [::1]:8080", st[0].Address, st[1].Address)
	}
}
