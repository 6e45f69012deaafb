package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/bench/ports"
)

// realLRS is the statement service of Learning Locker, an LRS that is in use,
// keeping everything in memory.
type realLRS struct {
	t   *testing.T
	url string
}

const realLRSPackage = "@learninglocker/xapi-statements"

// startRealLRS starts it where it is installed: node finds it under the directory
// that FIRSTBELL_LRS names. It drags 500 packages along (190 MB), so nothing here
// installs it:
//
//	npm install --prefix DIR --ignore-scripts --omit=dev @learninglocker/xapi-statements@7.8.0
//	FIRSTBELL_LRS=DIR go test -run RealLRS ./attendance/sink
func startRealLRS(t *testing.T) *realLRS {
	t.Helper()
	dir := os.Getenv("FIRSTBELL_LRS")
	if dir == "" {
		t.Skip("no LRS is installed: left out is delivery to a real one; real_lrs_test.go says how to have it")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("FIRSTBELL_LRS is set, and there is no node: %v", err)
	}
	addr, err := ports.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(node, filepath.Join(dir, "node_modules", realLRSPackage, "dist", "server.js"))
	cmd.Dir = t.TempDir() // it keeps files beside itself
	cmd.Env = append(os.Environ(), "EXPRESS_PORT="+port, "AUTH_REPO=test", "EVENTS_REPO=redis", "MODELS_REPO=memory", "STORAGE_REPO=memory",
		"SERVICE_AWAIT_UPDATES=true", "WINSTON_CONSOLE_LEVEL=error", "MONGO_URL=mongodb://127.0.0.1:1/none", "REDIS_URL=redis://127.0.0.1:1/0")
	said := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the LRS said:\n%.2000s", said)
		}
	})
	l := &realLRS{t, "http://" + addr + "/xAPI/"}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		res, err := http.Get(l.url + "about")
		if err == nil {
			res.Body.Close()
			return l
		}
		select {
		case <-ended:
			t.Fatal("the LRS ended at once")
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the LRS does not answer: %v", err)
		}
	}
}

func (l *realLRS) open(dir string) *Sink {
	l.t.Helper()
	s, err := OpenXAPI(XAPIConfig{HomePage: "https://{school}.school.example", Config: Config{Name: "lrs", Dir: dir, Endpoint: Endpoint{
		URL: l.url, Header: http.Header{"Authorization": {"Basic dTpw"}}, Timeout: time.Minute,
	}}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	return s
}

// statement asks the LRS for one; nil when it has none.
func (l *realLRS) statement(by, id string) (s *statement) {
	l.t.Helper()
	req, err := http.NewRequest("GET", l.url+"statements?"+by+"="+id, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("X-Experience-API-Version", "1.0.3")
	req.Header.Set("Authorization", "Basic dTpw")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil || res.StatusCode != 200 {
		l.t.Fatalf("asking for %s: %s, %v", id, res.Status, err)
	}
	return s
}

func TestARealLRSTakesStatementsOnceUnderTheirReceipts(t *testing.T) {
	l := startRealLRS(t)
	dir := t.TempDir()
	b := bulk(1, 301)
	b.Events[0].ClassIsKey, b.Events[0].Student = true, `민 "a"/b`
	if done, err := deliver(l.open(dir), b); err != nil || done != (attendance.Delivered{Rows: 300, Writes: 1}) {
		t.Fatalf("got %+v %v, want 300 in one request", done, err)
	}
	for _, e := range []*attendance.Event{&b.Events[0], &b.Events[299]} {
		if s := l.statement("statementId", e.ID.String()); s == nil || s.Actor.Account.Name != e.Student || s.Verb.ID != verbAttended || s.Context.Extensions[extensionsDefault+"receipt"] != e.ID.String() {
			t.Errorf("the LRS has %+v under %s, want the attendance of %s", s, e.ID, e.Student)
		}
	}

	// The answer got lost: another process sends the same again.
	again := t.TempDir()
	if done, err := deliver(l.open(again), b); err != nil || done.Parked > 0 || done.Rows+done.Duplicates != 300 {
		t.Errorf("again: got %+v %v, want 300 taken or there", done, err)
	}

	// One of a bulk is another student's under the same id (409), one has an id
	// that is no UUID of any version (400): both are parked, the others kept.
	mixed := bulk(301, 401)
	other := b.Events[9] // s00010's receipt
	other.Student, other.Seq = "somebody else", 340
	mixed.Events[39] = other
	mixed.Events[59].ID = attendance.ReceiptID{0: 9, 6: 0xf0, 8: 0x10}
	parked := t.TempDir()
	s := l.open(parked)
	s.at = attendance.Position{Next: 301}
	done, err := deliver(s, mixed)
	var how *attendance.DeliverError
	if errors.As(err, &how) && how.Stop { // two of a hundred are more than one percent
		done, err = deliver(s, mixed)
	}
	students, reasons := parkedStudents(t, parked)
	slices.Sort(students)
	if err != nil || done.Rows+done.Duplicates+done.Parked < 98 || !slices.Equal(students, []string{"s00360", "somebody else"}) ||
		!strings.Contains(fmt.Sprint(reasons), "409: the LRS has another statement") || !strings.Contains(fmt.Sprint(reasons), "400") {
		t.Errorf("a mixed bulk: got %+v %v, parked %v because %v", done, err, students, reasons)
	}
	if kept := l.statement("statementId", other.ID.String()); kept == nil || kept.Actor.Account.Name != "s00010" {
		t.Errorf("under the id that two claim: got %+v, want s00010's", kept)
	}
	if l.statement("statementId", mixed.Events[99].ID.String()) == nil {
		t.Error("the last of the mixed bulk is not there")
	}

	// A better arrival voids the statement and brings another.
	better := b.Events[4]
	better.Kind, better.Verified, better.Seq = attendance.KindVerifiedArrival, true, 401
	s.at = attendance.Position{Next: 401}
	if done, err := deliver(s, &attendance.Bulk{First: 401, Next: 402, Events: []attendance.Event{better}}); err != nil || done.Parked > 0 {
		t.Fatalf("a better arrival: got %+v %v", done, err)
	}
	rec := recordOf(&better)
	x := XAPIConfig{HomePage: "https://{school}.school.example"}
	maker, err := x.lrs()
	if err != nil {
		t.Fatal(err)
	}
	replaced := maker.statement(&rec)
	if l.statement("voidedStatementId", better.ID.String()) == nil || l.statement("statementId", better.ID.String()) != nil {
		t.Error("the first statement is not voided")
	}
	if l.statement("statementId", derivedID(&replaced, "replacement")) == nil {
		t.Error("there is no statement of the better arrival")
	}
}
