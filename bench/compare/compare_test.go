//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// speak accepts connections and answers each request with the pieces, written
// one by one.
func speak(t *testing.T, pieces ...string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					for _, p := range pieces {
						if p == "EOF" {
							return
						}
						if _, err := io.WriteString(c, p); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

func TestTheCrowdCountsWholeAnswersOnly(t *testing.T) {
	large := strings.Repeat("x", 300<<10)
	for _, c := range []struct {
		name   string
		pieces []string
		whole  bool
	}{
		{"with a length", []string{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"}, true},
		{"in pieces", []string{"HTTP/1.1 20", "0 OK\r\nContent-Le", "ngth: 3\r\n\r", "\na", "bc"}, true},
		{"empty", []string{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}, true},
		{"large", []string{"HTTP/1.1 200 OK\r\ncontent-length: 307200\r\n\r\n", large}, true},
		{"in chunks", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"}, true},
		{"in torn chunks", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1", "0;a=b\r", "\n0123456789abcdef\r", "\n0\r\nTrailer: x\r\n", "\r\n"}, true},
		{"in large chunks", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4b000\r\n" + large + "\r\n0\r\n\r\n"}, true},
		{"another status", []string{"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"}, false},
		{"cut short", []string{"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nabc", "EOF"}, false},
		{"cut in a chunk", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30\r\nabc", "EOF"}, false},
		{"cut in the head", []string{"HTTP/1.1 200 OK\r\nContent-", "EOF"}, false},
		{"without an end", []string{"HTTP/1.1 200 OK\r\n\r\nabc"}, false},
		{"more than asked for", []string{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"}, false},
		{"no HTTP", []string{"SSH-2.0-OpenSSH_9.2p1 Debian\r\n\r\n"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			crowd, err := newCrowd(speak(t, c.pieces...), 4)
			if err != nil {
				t.Fatal(err)
			}
			defer crowd.close()
			got := crowd.burst(always([]byte("GET / HTTP/1.1\r\n\r\n")), 200, func(sent int) bool { return sent >= 12 })
			if c.whole && (got.bad() != nil || got.answers != 12) {
				t.Errorf("got %d answers (%v), want 12", got.answers, got.bad())
			}
			if !c.whole && (got.bad() == nil || got.answers > 0) {
				t.Errorf("got %d good answers (%v), want none, and an error", got.answers, got.bad())
			}
		})
	}
}

func TestTheCrowdComesBackWhenItIsDisconnectedBetweenRequests(t *testing.T) {
	crowd, err := newCrowd(speak(t, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "EOF"), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer crowd.close()
	got := tally{}
	for range 5 {
		got.add(crowd.burst(always([]byte("GET / HTTP/1.1\r\n\r\n")), 200, func(sent int) bool { return sent >= 2 }))
	}
	if got.answers == 0 {
		t.Errorf("got no answer (%v), want at least the first of each connection", got.bad())
	}
}

func TestAFamilysCPUTimeIsCounted(t *testing.T) {
	pids := family(os.Getpid())
	before := used(pids)
	sum := 0
	for i := range 50_000_000 {
		sum += i * i
	}
	after := used(pids)
	if got := after.since(before).cpu; got <= 0 {
		t.Errorf("after %d rounds of arithmetic (%d): got %v of CPU time, want some", 50_000_000, sum, got)
	}
	if got := memory(pids); got < 1<<20 {
		t.Errorf("got %d bytes of memory, want at least a MiB", got)
	}
}

func TestEveryPeersConfigurationIsFilledIn(t *testing.T) {
	for _, p := range peers {
		for _, tls := range []bool{false, true} {
			at, err := newSite(filepath.Join(t.TempDir(), p.name), "127.0.0.1:1", tls)
			if err != nil {
				t.Fatal(err)
			}
			at.Private = tls
			if err := p.render(at); err != nil {
				t.Fatal(err)
			}
			names, err := filepath.Glob(at.Dir + "/*")
			if err != nil || len(names) < 4 { // two keys, both in one, and a configuration
				t.Errorf("%s: got %d files (%v), want a configuration beside the keys", p.name, len(names), err)
			}
			for _, n := range names {
				b, err := os.ReadFile(n)
				if err != nil {
					t.Fatal(err)
				}
				if s := string(b); strings.Contains(s, "{{") || strings.Contains(s, "<no value>") {
					t.Errorf("%s: %s is not filled in:\n%s", p.name, filepath.Base(n), s)
				}
			}
		}
	}
}

// turnsOf is a report of one case with a figure for each turn.
func turnsOf(name string, firstbell, fasthttp []float64) *report {
	r := &row{Case: name, Connections: 64, Unit: "us", Cells: []*cell{{Server: ours, Rounds: firstbell}, {Server: "fasthttp", Rounds: fasthttp}}}
	r.compare([]bar{{"fasthttp", 2}})
	return &report{Rows: []*row{r}, Servers: []about{{Name: ours}}}
}

func TestTheGuardActsFarOutsideTheNoiseOnly(t *testing.T) {
	for _, c := range []struct {
		name                string
		firstbell, fasthttp []float64
		fails               bool
	}{
		{"hit, 1 KiB", []float64{16, 17, 40}, []float64{15, 16, 12}, false},
		{"hit, 1 KiB", []float64{90, 16, 17}, []float64{10, 16, 17}, false}, // one bad turn
		{"hit, 1 KiB", []float64{50, 60, 55}, []float64{15, 16, 15}, true},
		{"hit, 1 MiB", []float64{5000, 6000, 5500}, []float64{15, 16, 15}, false}, // not guarded
	} {
		r := turnsOf(c.name, c.firstbell, c.fasthttp)
		if err := r.guard(true); (err != nil) != c.fails {
			t.Errorf("%s, %v against %v: got %v, want an error: %v", c.name, c.firstbell, c.fasthttp, err, c.fails)
		}
		if err := r.guard(false); err != nil {
			t.Errorf("%s without -guard: got %v, want nothing", c.name, err)
		}
	}
}

func TestTheTableSaysWhatWasMeasured(t *testing.T) {
	r := turnsOf("hit, 1 KiB", []float64{12, 15, 18}, []float64{15, 15, 15})
	r.Rows[0].Cells[0].Cost, r.Rows[0].Cells[0].Busy = 15, 1
	r.Rows[0].Cells[1].Cost, r.Rows[0].Cells[1].Busy = 15, 0.5
	r.Rows[0].Cells = append(r.Rows[0].Cells, &cell{Server: "nginx", Fault: errors.New("it ended").Error()})
	got := r.markdown()
	for _, want := range []string{
		"| hit, 1 KiB, 64 connections | 15.0 | 15.0* | failed |",
		"| hit, 1 KiB, 64 connections | 1.00x (0.80–1.20) tie | – |",
		"nginx: it ended", "Bars met: 1 of 1.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, got)
		}
	}
}

func TestANumberIsNeverSentTwice(t *testing.T) {
	d := duel{talk: morning}
	seen := map[string]bool{}
	for range 2 {
		next := d.requester()
		for i := range 3 * len(morning) {
			got := string(next(nil))
			if i%len(morning) == len(morning)-1 && seen[got] {
				t.Fatalf("the same check-in twice: %q", got)
			}
			seen[got] = true
			_, body, _ := strings.Cut(got, "\r\n\r\n")
			if strings.HasPrefix(got, "POST") && !strings.Contains(got, fmt.Sprintf("Content-Length: %d\r\n", len(body))) {
				t.Fatalf("%d bytes of content in %q", len(body), got)
			}
		}
	}
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-keep" { // as kept starts it
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := run(ctx, os.Args[1:], os.Stdout)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestWhoIsReplacedIsKeptAndEnded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orphan")
	self, args, err := kept("/bin/sh", []string{"-c", "sleep 600 & echo $! >" + file + "x; mv " + file + "x " + file})
	if err != nil {
		t.Fatal(err)
	}
	s, err := launch(halves{servers: -1}, self, args, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	keeper, orphan := s.cmd.Process.Pid, 0
	if err := until(ctx, "the shell's child is not the keeper's only one", func() bool {
		b, _ := os.ReadFile(file)
		orphan, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return orphan > 0 && slices.Equal(family(keeper), []int{keeper, orphan})
	}); err != nil {
		t.Fatalf("%v: got %v, want the keeper and %d", err, family(keeper), orphan)
	}
	select {
	case <-s.ended:
		t.Fatalf("the keeper ended (%v) before the last that came of its program; it said:\n%s", s.why, s.said)
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-ctx.Done():
		t.Fatal("told to end, the keeper did not")
	}
	if err := syscall.Kill(orphan, 0); err != syscall.ESRCH {
		t.Errorf("process %d is still there (%v) after the keeper has ended", orphan, err)
	}
}

func TestPacedRequestsCountFromTheirMoment(t *testing.T) {
	crowd, err := newCrowd(speak(t, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer crowd.close()
	// A thousand a second over two connections: whether the machine keeps up or
	// not, all are sent, each is timed, and no sooner than its moment.
	began := time.Now()
	got, took := crowd.timed(always([]byte("GET / HTTP/1.1\r\n\r\n")), 1000, 100*time.Millisecond)
	if got.bad() != nil || got.answers != 100 || len(took) != 100 || !slices.IsSorted(took) || took[0] <= 0 {
		t.Errorf("got %d answers (%v) and %d times, want 100 in order", got.answers, got.bad(), len(took))
	}
	if wall := time.Since(began); wall < 99*time.Millisecond || got.wall > wall {
		t.Errorf("100 requests at 1,000 a second took %v (%v by the tally), want 99 ms at least", wall, got.wall)
	}
	if got, _ := crowd.timed(always([]byte("GET / HTTP/1.1\r\n\r\n")), 0, time.Millisecond); got.bad() != nil || got.answers == 0 {
		t.Errorf("at full speed: got %d answers (%v), want some", got.answers, got.bad())
	}
	if crowd.times != nil {
		t.Error("times are still kept")
	}
}

func TestReceiptsAreJudgedBesideABareAnswer(t *testing.T) {
	a := &arena{trial: "durable receipts"}
	gate, floor := &server{peer: &peer{name: ours}}, &server{peer: &peer{name: "fasthttp"}}
	for what, v := range map[string][2]float64{
		receiptsAnswers + "64 connections, full speed":   {700, 1000},
		receiptsAnswers + "1000 connections, full speed": {500, 1000},
		receiptsAnswers + "64 connections, half":         {500, 1000}, // is no bar: the rate was given
		receiptsTail + "64 connections, full speed":      {0.012, 0.003},
		receiptsTail + "1000 connections, full speed":    {0.014, 0.003},
		syncMedian: {0.001, 0},
	} {
		a.note(what, gate, v[0], "x")
		if v[1] > 0 {
			a.note(what, floor, v[1], "y")
		}
	}
	a.judge()
	for what, met := range map[string][]bool{
		receiptsAnswers + "64 connections, full speed": {true}, receiptsAnswers + "1000 connections, full speed": {false}, receiptsAnswers + "64 connections, half": nil,
		receiptsTail + "64 connections, full speed": {true}, receiptsTail + "1000 connections, full speed": {false}, syncMedian: nil,
	} {
		var got []bool
		for _, b := range a.fact(what).Bars {
			got = append(got, b.Met)
		}
		if !slices.Equal(got, met) {
			t.Errorf("%s: got bars %v, want %v", what, got, met)
		}
	}
	r := &report{Facts: a.facts, Servers: []about{{Name: ours}}}
	if got := r.markdown(); !strings.Contains(got, "| firstbell | fasthttp |") {
		t.Errorf("the table lacks the bare answer:\n%s", got)
	}
}
