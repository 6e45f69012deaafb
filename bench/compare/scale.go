//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A point is what something costs firstbell at one size.
type point struct {
	what   string
	at     int
	micros float64 // CPU for a request
	memory int64   // bytes of all its processes, then
}

// planCosts are what bench/plan calculates with; its model.go says what each is.
type planCosts struct {
	Measured     string  `json:"measured"`
	HitUS        float64 `json:"hit_us"`
	HitKiBUS     float64 `json:"hit_kib_us"`
	PassUS       float64 `json:"pass_us"`
	CheckInUS    float64 `json:"check_in_us"`
	DeliverUS    float64 `json:"deliver_us"`
	ConnectUS    float64 `json:"connect_us"`
	ConnKiB      float64 `json:"connection_kib"`
	KeyKiB       float64 `json:"stored_key_kib"`
	RollBytes    float64 `json:"roll_bytes"`
	JournalBytes float64 `json:"journal_bytes"`
	StoreBytes   float64 `json:"store_bytes"`
	BaseMiB      float64 `json:"base_mib"`
}

// A scaler measures firstbell alone, at growing sizes.
type scaler struct {
	*arena
	began  time.Time
	points []point
	costs  planCosts
}

// measureScale prints the table, and writes the costs where a file is named. A
// size that would begin too late is left out, and named; then no costs are
// written, for some would be wrong.
func (a *arena) measureScale(ctx context.Context, began time.Time, stdout io.Writer) error {
	s := &scaler{arena: a, began: began}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"basics", s.basics}, {"keys", s.keys}, {"schools", s.schools}, {"routes", s.routes}, {"connections", s.connections}, {"students", s.students},
	} {
		if !a.cases.MatchString(step.name) {
			s.skipped = append(s.skipped, step.name)
			continue
		}
		fmt.Fprintf(os.Stderr, "%4.0f s  %s\n", time.Since(began).Seconds(), step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s by `go run ./bench/compare -scale` (%s), firstbell alone on one CPU, in %v.\n", began.UTC().Format("2006-01-02"), machine(), time.Since(began).Round(time.Second))
	if len(s.skipped) > 0 {
		fmt.Fprintf(&b, "Left out: %s.\n", strings.Join(s.skipped, ", "))
	}
	b.WriteString("\n| what | at | CPU us for a request | memory MiB |\n|---|---|---|---|\n")
	for _, p := range s.points {
		fmt.Fprintf(&b, "| %s | %d | %s | %d |\n", p.what, p.at, figure(p.micros), p.memory>>20)
	}
	if _, err := io.WriteString(stdout, b.String()); err != nil {
		return err
	}
	if a.options.costs == "" {
		return nil
	}
	if len(s.skipped) > 0 {
		return fmt.Errorf("%s is left as it is: not all was measured", a.options.costs)
	}
	s.costs.Measured = began.UTC().Format("2006-01-02") + " on " + machine()
	out, err := json.MarshalIndent(s.costs.rounded(), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(a.options.costs, append(out, '\n'), 0o644)
}

// rounded has four digits that count.
func (c planCosts) rounded() planCosts {
	for _, v := range []*float64{&c.HitUS, &c.HitKiBUS, &c.PassUS, &c.CheckInUS, &c.DeliverUS, &c.ConnectUS, &c.ConnKiB, &c.KeyKiB, &c.RollBytes, &c.JournalBytes, &c.StoreBytes, &c.BaseMiB} {
		*v, _ = strconv.ParseFloat(strconv.FormatFloat(*v, 'g', 4, 64), 64) // it wrote that itself
	}
	return c
}

// late reports whether there is no time for what, and notes that it is left out.
func (s *scaler) late(what string) bool {
	if time.Since(s.began) < s.budget {
		return false
	}
	s.skipped = append(s.skipped, what)
	return true
}

// begin starts a firstbell of its own, with TLS where this one can.
func (s *scaler) begin(ctx context.Context, name string, change func(*site)) (*server, error) {
	at, err := newSite(filepath.Join(s.dir, name), s.origin.addr, takesTLS(ctx, s.binary))
	if err != nil {
		return nil, err
	}
	if change != nil {
		change(at)
	}
	return peers[0].start(ctx, s.halves, s.binary, at)
}

// numberedBy puts another number below n into a request each time, at random or
// one after the other.
func numberedBy(request string, n int, random bool) requester {
	before, after, _ := strings.Cut(request, "{}")
	rnd, next := rand.New(rand.NewPCG(1, uint64(n))), 0
	return func(buf []byte) []byte {
		i := next % n
		next++
		if random {
			i = rnd.IntN(n)
		}
		return append(fmt.Appendf(append(buf, before...), "%0*d", numberDigits, i), after...)
	}
}

// cost is the median of five bursts, in microseconds of CPU for a request.
func (s *scaler) cost(server *server, conns int, next requester) (float64, error) {
	c, err := newCrowd(server.site.Listen, conns)
	if err != nil {
		return 0, err
	}
	defer c.close()
	t := c.burst(next, 200, func(sent int) bool { return sent >= 2*conns })
	var all []float64
	for range 5 {
		if err := t.bad(); err != nil {
			return 0, err
		}
		before, err := server.usage()
		if err != nil {
			return 0, err
		}
		end := time.Now().Add(s.burst)
		t = c.burst(next, 200, func(int) bool { return !time.Now().Before(end) })
		after, err := server.usage()
		if err != nil {
			return 0, err
		}
		all = append(all, float64(after.since(before).cpu.Nanoseconds())/1e3/float64(max(t.answers, 1)))
	}
	return spreadOf(all).Median, t.bad()
}

// fill asks for each of n numbers once.
func (s *scaler) fill(server *server, request string, n int) error {
	c, err := newCrowd(server.site.Listen, 64)
	if err != nil {
		return err
	}
	defer c.close()
	next, sent := numberedBy(request, n, false), 0
	// A burst has a bound in time: large fills are several.
	for sent < n {
		part := min(20_000, n-sent)
		t := c.burst(next, 200, func(out int) bool { return out >= part })
		if err := t.bad(); err != nil {
			return fmt.Errorf("storing %d responses: %w", n, err)
		}
		sent += part
	}
	return nil
}

// calm waits until the server does nothing by itself, such as writing what is
// stored to disk, for half a minute at most.
func calm(ctx context.Context, server *server) error {
	const pause, idle = 200 * time.Millisecond, 5 * time.Millisecond
	for range 30 * time.Second / pause {
		before, err := server.usage()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		after, err := server.usage()
		if err != nil || after.since(before).cpu < idle {
			return err
		}
	}
	return nil
}

// measureAt adds a point.
func (s *scaler) measureAt(server *server, what string, at, conns int, next requester) error {
	us, err := s.cost(server, conns, next)
	if err != nil {
		return fmt.Errorf("%s %d: %w", what, at, err)
	}
	s.points = append(s.points, point{what, at, us, server.memory()})
	return nil
}

func (s *scaler) basics(ctx context.Context) error {
	server, err := s.begin(ctx, "basics", nil)
	if err != nil {
		return err
	}
	defer server.stop()
	s.costs.BaseMiB = float64(server.memory()) / (1 << 20)
	for _, p := range []struct {
		what string
		talk string
		to   *float64
	}{
		{"bytes of a hit", get("/media/1024"), &s.costs.HitUS},
		{"bytes of a hit", get("/media/1048576"), &s.costs.HitKiBUS},
		{"bytes of a page passed on", get("/page/me"), &s.costs.PassUS},
	} {
		at := 1024
		if strings.Contains(p.talk, "1048576") {
			at = 1 << 20
		}
		if _, err := settled(ctx, server.site.Listen, []byte(p.talk)); err != nil {
			return err
		}
		if err := s.measureAt(server, p.what, at, 64, always([]byte(p.talk))); err != nil {
			return err
		}
		*p.to = s.points[len(s.points)-1].micros
	}
	s.costs.HitKiBUS = max(0, s.costs.HitKiBUS-s.costs.HitUS) / 1023
	return s.newConnections(server)
}

// newConnections measures connections that begin, with TLS where there is some.
func (s *scaler) newConnections(server *server) error {
	before, err := server.usage()
	if err != nil {
		return err
	}
	const n = 300
	t := newNewcomers(server, false).burst(func(sent int) bool { return sent >= n })
	if err := t.bad(); err != nil {
		return err
	}
	after, err := server.usage()
	if err != nil {
		return err
	}
	s.costs.ConnectUS = max(0, float64(after.since(before).cpu.Nanoseconds())/1e3/float64(t.answers)-s.costs.HitUS)
	what := "new connections, full TLS handshake"
	if server.site.TLS == "" {
		what = "new connections, without TLS"
	}
	s.points = append(s.points, point{what, n, s.costs.ConnectUS, server.memory()})
	return nil
}

func (s *scaler) keys(ctx context.Context) error {
	sizes := []int{1000, 10_000, 100_000, 1_000_000}
	if s.quick {
		sizes = sizes[:3]
	}
	server, err := s.begin(ctx, "keys", func(at *site) { at.Memory = "4GiB" })
	if err != nil {
		return err
	}
	defer server.stop()
	first := server.memory()
	for _, n := range sizes {
		if s.late(fmt.Sprintf("%d keys", n)) {
			break
		}
		if err := firstOf(s.fill(server, get("/many/{}"), n), calm(ctx, server)); err != nil {
			return err
		}
		if err := s.measureAt(server, "stored keys", n, 64, numberedBy(get("/many/{}"), n, true)); err != nil {
			return err
		}
		s.costs.KeyKiB = max(0, float64(server.memory()-first)/1024/float64(n)-1) // each has 1 KiB of content
	}
	return nil
}

func (s *scaler) schools(ctx context.Context) error {
	server, err := s.begin(ctx, "schools", nil)
	if err != nil {
		return err
	}
	defer server.stop()
	request := strings.ReplaceAll(get("/media/1024"), "Host: "+host, "Host: s{}.school.example")
	for _, n := range []int{10, 100, 1000, 10_000} {
		if s.late(fmt.Sprintf("%d schools", n)) {
			break
		}
		if err := firstOf(s.fill(server, request, n), calm(ctx, server)); err != nil {
			return err
		}
		if err := s.measureAt(server, "schools (hosts)", n, 64, numberedBy(request, n, true)); err != nil {
			return err
		}
	}
	return nil
}

func (s *scaler) routes(ctx context.Context) error {
	for _, n := range []int{1, 100, 10_000} {
		if s.late(fmt.Sprintf("%d routes", n)) {
			break
		}
		server, err := s.begin(ctx, fmt.Sprintf("routes%d", n), func(at *site) {
			for i := range n {
				at.Hosts = append(at.Hosts, fmt.Sprintf("r%0*d.school.example", numberDigits, i))
			}
		})
		if err != nil {
			return err
		}
		request := strings.ReplaceAll(get("/media/1024"), "Host: "+host, "Host: r{}.school.example")
		err = firstOf(s.fill(server, request, n), calm(ctx, server))
		if err == nil {
			err = s.measureAt(server, "routes", n, 64, numberedBy(request, n, true))
		}
		server.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *scaler) connections(ctx context.Context) error {
	server, err := s.begin(ctx, "connections", func(at *site) { at.Connections = at.Files - 2000 })
	if err != nil {
		return err
	}
	defer server.stop()
	if err := s.idleConnections(ctx, server); err != nil {
		return err
	}
	for _, n := range []int{100, 1000, 5000, min(15_000, server.site.Connections)} {
		if s.late(fmt.Sprintf("%d connections", n)) {
			break
		}
		if err := s.measureAt(server, "connections", n, n, always([]byte(get("/media/1024")))); err != nil {
			return err
		}
	}
	return nil
}

// idleConnections measures what a browser's connection takes while it is quiet.
func (s *scaler) idleConnections(ctx context.Context, server *server) error {
	connect, n := inPlain, idleConnections
	if server.site.TLS != "" {
		connect, n = overHTTP2, idleOverTLS
	}
	few, err := connect(server, "/media/1024", 10)
	if err != nil {
		return err
	}
	few.close()
	before := server.memory()
	all, err := connect(server, "/media/1024", n)
	if err != nil {
		return err
	}
	defer all.close()
	pause(ctx, quiet)
	s.costs.ConnKiB = max(0, float64(server.memory()-before)/float64(n)/1024)
	return ctx.Err()
}

func (s *scaler) students(ctx context.Context) error {
	server, err := s.begin(ctx, "students", nil)
	if err != nil {
		return err
	}
	defer server.stop()
	first := server.memory()
	release, err := lockStore(server.site.Dir)()
	if err != nil {
		return err
	}
	d := duel{talk: []string{checkIn}}
	total := 0
	for _, n := range []int{10_000, 100_000, 300_000} {
		if s.late(fmt.Sprintf("%d students", n)) {
			break
		}
		c, err := newCrowd(server.site.Listen, 1000)
		if err != nil {
			release()
			return err
		}
		next := d.requester()
		var last tally
		before, _ := server.usage()
		sent := 0
		for total < n && err == nil {
			part := min(50_000, n-total)
			last = c.burst(next, 200, func(out int) bool { return out >= part })
			err = last.bad()
			total, sent = total+last.answers, sent+last.answers
		}
		c.close()
		after, uerr := server.usage()
		if err != nil || uerr != nil {
			release()
			return fmt.Errorf("%d check-ins: %w", n, firstOf(err, uerr))
		}
		s.costs.CheckInUS = float64(after.since(before).cpu.Nanoseconds()) / 1e3 / float64(sent)
		s.points = append(s.points, point{"students checked in, 1,000 connections", n, s.costs.CheckInUS, server.memory()})
	}
	if total == 0 {
		release()
		return nil // there was no time
	}
	s.costs.RollBytes = max(0, float64(server.memory()-first)/float64(total))
	s.costs.JournalBytes = float64(sizeOf(server.site.Dir+"/journal")) / float64(total)
	release()
	return s.delivery(ctx, server, total)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// delivery waits until all check-ins are in the store and counts what it cost.
func (s *scaler) delivery(ctx context.Context, server *server, total int) error {
	before, err := server.usage()
	if err != nil {
		return err
	}
	if err := delivered(ctx, server, time.Minute); err != nil {
		return err
	}
	after, err := server.usage()
	if err != nil {
		return err
	}
	s.costs.DeliverUS = float64(after.since(before).cpu.Nanoseconds()) / 1e3 / float64(total)
	s.costs.StoreBytes = float64(sizeOf(server.site.Dir+"/attendance.db")+sizeOf(server.site.Dir+"/attendance.db-wal")) / float64(total)
	s.points = append(s.points, point{"check-ins carried into SQLite", total, s.costs.DeliverUS, server.memory()})
	return nil
}

// delivered waits until firstbell's store has what its journal has.
func delivered(ctx context.Context, server *server, most time.Duration) error {
	var st struct {
		Attendance struct {
			Journal struct{ Next uint64 }
			Store   struct {
				Delivery struct{ Next uint64 }
			}
		}
	}
	for range most / (100 * time.Millisecond) {
		res, err := http.Get("http://" + server.site.Ops + "/status")
		if err != nil {
			return err
		}
		err = json.NewDecoder(res.Body).Decode(&st)
		res.Body.Close()
		if err != nil {
			return fmt.Errorf("reading firstbell's status: %w", err)
		}
		if st.Attendance.Store.Delivery.Next == st.Attendance.Journal.Next {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("after %v the store has %d of %d records", most, st.Attendance.Store.Delivery.Next, st.Attendance.Journal.Next)
}

// sizeOf is the bytes of a file, or of all files below a directory, as they are
// on disk.
func sizeOf(path string) (sum int64) {
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}
