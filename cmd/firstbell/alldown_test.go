package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"firstbell/attendance/pgtest"
)

// A place is an address where nobody listens until it is opened.
type place struct {
	address string
	server  *http.Server
}

func newPlace(t *testing.T) *place {
	t.Helper()
	return &place{address: freeAddress(t)}
}

func (p *place) open(t *testing.T, h http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	p.server = &http.Server{Handler: h}
	go p.server.Serve(l)
	t.Cleanup(func() { p.server.Close() })
}

// heard is what a sink was told: the receipts under each key, and how often.
type heard struct {
	mu       sync.Mutex
	receipts map[string]map[string]int
}

func (h *heard) take(w http.ResponseWriter, r *http.Request) {
	var records []struct{ Key, Receipt string }
	if err := json.NewDecoder(r.Body).Decode(&records); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, rec := range records {
		if h.receipts[rec.Key] == nil {
			h.receipts[rec.Key] = map[string]int{}
		}
		h.receipts[rec.Key][rec.Receipt]++
	}
}

// bellOf is a firstbell in a process of its own, through its lives, and the
// students in front of it.
type bellOf struct {
	t    *testing.T
	file string

	mu       sync.Mutex // guards what follows
	web, ops string
	cmd      *exec.Cmd
	receipts map[string]string // by student
}

// start begins a life and returns when it takes check-ins.
func (b *bellOf) start() {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	log := newNoise()
	cmd := exec.Command(self, "serve", "-config", b.file)
	cmd.Env = append(os.Environ(), demoChild+"=1", "PGPASSWORD="+pgtest.Password)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	deadline := time.After(time.Minute)
	for {
		if m := servingLine.FindStringSubmatch(log.String()); m != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.web, b.ops, b.cmd = m[1], m[2], cmd
			return
		}
		select {
		case <-log.more:
		case <-deadline:
			b.t.Fatalf("firstbell does not start while everything is down:\n%s", log)
		}
	}
}

func (b *bellOf) kill() {
	b.t.Helper()
	if err := b.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		b.t.Fatal(err)
	}
	_ = b.cmd.Wait()
}

// press presses until there is a receipt, as a student would.
func (b *bellOf) press(ctx context.Context, student string) error {
	for ctx.Err() == nil {
		b.mu.Lock()
		url := "http://" + b.web + "/check-in"
		b.mu.Unlock()
		req, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(fmt.Sprintf(`{"student_id":%q,"class_id":"c1"}`, student)))
		if err != nil {
			return err
		}
		req.Host = "hangang.school.example"
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		var receipt struct{ Receipt string }
		if err != nil || res.StatusCode != 200 || json.Unmarshal(text, &receipt) != nil {
			continue
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if first := b.receipts[student]; first != "" && first != receipt.Receipt {
			return fmt.Errorf("%s got the receipts %s and %s", student, first, receipt.Receipt)
		}
		b.receipts[student] = receipt.Receipt
		return nil
	}
	return fmt.Errorf("%s has no receipt: %w", student, ctx.Err())
}

// bell lets students press, each twice, from many sides; half is called once
// half of the presses have their receipt.
func (b *bellOf) bell(students int, half func()) {
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	var given atomic.Int64
	var sides sync.WaitGroup
	reached := make(chan struct{})
	for side := range 32 {
		sides.Go(func() {
			for n := side; n < 2*students; n += 32 {
				if err := b.press(ctx, fmt.Sprintf("s%04d", n%students)); err != nil {
					b.t.Error(err)
					return
				}
				if given.Add(1) == int64(students) {
					close(reached)
				}
			}
		})
	}
	select {
	case <-reached:
		half()
	case <-ctx.Done():
	}
	sides.Wait()
}

func (b *bellOf) status() *statusReport {
	b.t.Helper()
	_, text := ask(b.t, "GET", "http://"+b.ops+"/status", "")
	var r statusReport
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		b.t.Fatalf("reading the status: %v\n%s", err, text)
	}
	return &r
}

func (b *bellOf) deliveries(r *statusReport) map[string]deliveryStatus {
	all := map[string]deliveryStatus{"store": r.Attendance.Store.Delivery}
	for _, s := range r.Attendance.Sinks {
		all[s.Name] = s.Delivery
	}
	return all
}

// Origin, login, database and every sink are down through a whole bell, and
// firstbell is killed in the middle of it. Receipts are given all along; then
// everything comes up, and everything arrives.
func TestAttendanceWithEverythingElseDead(t *testing.T) {
	const students = 400
	db := pgtest.Start(t)
	location := db.Database(t)
	origin, sinks := newPlace(t), []*place{newPlace(t), newPlace(t)}
	file := writeFile(t, "http://"+origin.address,
		"journal: journal\n", "journal: journal\n  store: \""+location+"\"\n",
		"sinks: [{name: lms, http: {url: \"http://"+origin.address+"/bulk\"}}]",
		fmt.Sprintf(`sinks: [{name: first, http: {url: "http://%s/bulk"}}, {name: second, http: {url: "http://%s/bulk", batch: 37}}]`, sinks[0].address, sinks[1].address))
	db.Stop(t)

	b := &bellOf{t: t, file: file, receipts: map[string]string{}}
	b.start()
	for _, dead := range []string{"GET /lessons/1", "POST /login"} {
		method, path, _ := strings.Cut(dead, " ")
		if status, _ := ask(t, method, "http://"+b.web+path, ""); status < 500 {
			t.Errorf("%s: got %d from an origin that is down", dead, status)
		}
	}
	b.bell(students, func() {
		b.kill()
		b.start()
	})
	if len(b.receipts) != students {
		t.Fatalf("got %d receipts, want %d", len(b.receipts), students)
	}
	awaitStatus(t, b, "show what waits and why", func(d deliveryStatus, _ uint64) bool { return d.Age > 0 && d.Error != "" && d.Rows == 0 })
	if _, metrics := ask(t, "GET", "http://"+b.ops+"/metrics", ""); !strings.Contains(metrics, `firstbell_delivery_oldest_seconds{to="store"}`) {
		t.Error("the metrics do not tell the age of what waits for the store")
	}

	db.Start(t)
	told := make([]*heard, len(sinks))
	for i, s := range sinks {
		told[i] = &heard{receipts: map[string]map[string]int{}}
		s.open(t, told[i].take)
	}
	origin.open(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "this is %s\n", r.URL.Path) })
	ask(t, "POST", "http://"+b.ops+"/reload", "") // ends the pauses
	awaitStatus(t, b, "deliver everything", func(d deliveryStatus, end uint64) bool { return d.Next >= end && d.Age == 0 && d.Error == "" })

	stored := strings.Fields(db.SQL(t, location, "SELECT student_id || '=' || receipt FROM firstbell.check_ins"))
	if len(stored) != students {
		t.Errorf("got %d rows in the database, want %d", len(stored), students)
	}
	for _, row := range stored {
		if student, receipt, _ := strings.Cut(row, "="); b.receipts[student] != receipt {
			t.Errorf("row %s, receipt %s", row, b.receipts[student])
		}
	}
	for i, h := range told {
		seen := 0
		for key, receipts := range h.receipts {
			for receipt, times := range receipts {
				if seen++; b.receipts[key[strings.LastIndex(key, "/")+1:]] != receipt || times != 1 {
					t.Errorf("sink %d heard of %s with receipt %s, %d times", i, key, receipt, times)
				}
			}
		}
		if seen != students {
			t.Errorf("sink %d heard of %d check-ins, want %d", i, seen, students)
		}
	}
	exportEqualsReceipts(t, b)
}

// awaitStatus waits until all deliveries are as wanted.
func awaitStatus(t *testing.T, b *bellOf, what string, as func(d deliveryStatus, end uint64) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		r, all := b.status(), true
		for _, d := range b.deliveries(r) {
			all = all && as(d, r.Attendance.Journal.Next)
		}
		if all {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("deliveries do not %s; journal at %d: %+v", what, r.Attendance.Journal.Next, b.deliveries(r))
		}
	}
}

func exportEqualsReceipts(t *testing.T, b *bellOf) {
	t.Helper()
	t.Setenv("PGPASSWORD", pgtest.Password)
	out := filepath.Join(t.TempDir(), "register.jsonl")
	if _, stderr, err := firstbell(t, "export", "-config", b.file, "-o", out); err != nil {
		t.Fatalf("export: %v\n%s", err, stderr)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(lines) != len(b.receipts) {
		t.Errorf("the register has %d lines, want %d", len(lines), len(b.receipts))
	}
	for _, line := range lines {
		var row struct {
			Student string `json:"student_id"`
			Receipt string
		}
		if err := json.Unmarshal(line, &row); err != nil || b.receipts[row.Student] != row.Receipt {
			t.Errorf("the register says %s, the receipt %s", line, b.receipts[row.Student])
		}
	}
}
