package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/wal"
)

// deploy/kill-nine sets these: how often, and which program. Without them it is
// ten times this test's own binary.
const (
	killRounds  = "FIRSTBELL_KILL_ROUNDS"
	killProgram = "FIRSTBELL_KILL_PROGRAM"
)

// killed is a firstbell that is killed again and again, and what students hold.
type killed struct {
	t       *testing.T
	program string
	file    string

	mu      sync.Mutex // guards what follows
	pressed map[string]bool
	held    map[string]string // the receipt, as it was answered, by student
	again   int               // presses that got a receipt they had before
}

func TestKillNineUnderLoadLosesNoReceipt(t *testing.T) {
	k := &killed{t: t, program: os.Getenv(killProgram), pressed: map[string]bool{}, held: map[string]string{}}
	if k.program == "" {
		t.Setenv(demoChild, "1")
		var err error
		if k.program, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	rounds := 10
	if text := os.Getenv(killRounds); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", killRounds, err)
		}
	}
	k.file = writeFile(t, newOrigin(t).URL)
	for round := range rounds {
		k.round(round, false)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	k.round(rounds, true)
	k.check()
	t.Logf("%d rounds: %d receipts given, %d presses got theirs again", rounds, len(k.held), k.again)
}

// pressers press at once, each without a pause.
const pressers = 16

// round starts firstbell, presses, and ends it in the middle: with SIGKILL, or
// in good order.
func (k *killed) round(round int, inGoodOrder bool) {
	cmd := exec.Command(k.program, "serve", "-config", k.file, "-access-log=false")
	said := newNoise()
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	url, ok := k.serving(said, ended)
	if !ok {
		k.t.Fatalf("round %d: firstbell did not start:\n%s", round, said)
	}
	ctx, stop := context.WithCancel(k.t.Context())
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: pressers}}
	for p := range pressers {
		wg.Go(func() { k.press(ctx, client, url, round, p) })
	}
	time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond)
	if inGoodOrder {
		stop()
		wg.Wait()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			k.t.Errorf("ending: %v\n%s", err, said)
		}
		return
	}
	_ = cmd.Process.Kill()
	<-ended
	stop()
	wg.Wait()
	client.CloseIdleConnections()
}

func (k *killed) serving(said *noise, ended chan error) (url string, ok bool) {
	limit := time.After(time.Minute)
	for {
		if m := servingLine.FindStringSubmatch(said.String()); m != nil {
			return "http://" + m[1] + "/check-in", true
		}
		select {
		case <-said.more:
		case err := <-ended:
			ended <- err
			return "", false
		case <-limit:
			return "", false
		}
	}
}

// press checks students in until firstbell is gone; every fourth press is one of
// an earlier round again.
func (k *killed) press(ctx context.Context, client *http.Client, url string, round, presser int) {
	for n := 0; ctx.Err() == nil; n++ {
		student := fmt.Sprintf("r%d-p%d-%d", round, presser, n)
		if n%4 == 3 && round > 0 {
			student = fmt.Sprintf("r%d-p%d-%d", rand.IntN(round), presser, rand.IntN(8))
		}
		k.mu.Lock()
		k.pressed[student] = true
		k.mu.Unlock()
		body := fmt.Sprintf(`{"student_id":%q,"class_id":"c1"}`, student)
		req, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader([]byte(body)))
		if err != nil {
			k.t.Error(err)
			return
		}
		req.Host = "hangang.school.example"
		res, err := client.Do(req)
		if err != nil {
			return // killed
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 {
			continue
		}
		k.hold(student, string(text))
	}
}

// hold keeps a receipt; the same student always gets the same one.
func (k *killed) hold(student, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if was, ok := k.held[student]; ok {
		k.again++
		if was != text {
			k.t.Errorf("student %s had %snow gets %s", student, was, text)
		}
		return
	}
	k.held[student] = text
}

// check holds the receipts against journal, store and export.
func (k *killed) check() {
	r, err := wal.OpenReader(filepath.Join(filepath.Dir(k.file), "journal"))
	if err != nil {
		k.t.Fatal(err)
	}
	defer r.Close()
	fold, _, err := foldJournal(r, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, d := range r.Damage() {
		if d.Alarm() {
			k.t.Errorf("a kill was taken for damage: %v", d)
		}
	}
	found := map[string]attendance.Row{}
	for _, row := range fold.Rows() {
		found[row.Student] = row
		if !k.pressed[row.Student] {
			k.t.Errorf("%s is invented", row.Key())
		}
	}
	for student, text := range k.held {
		row, ok := found[student]
		if !ok {
			k.t.Errorf("the receipt of %s is lost: %s", student, text)
		} else if want := string(row.Receipt.AppendJSON(nil)) + "\n"; text != want {
			k.t.Errorf("student %s holds %s the journal has %s", student, text, want)
		}
	}
	text, _, err := firstbell(k.t, "reconcile", "-config", k.file, "-json")
	var out reconciled
	if jsonErr := json.Unmarshal([]byte(text), &out); jsonErr != nil || err != nil || int(out.Books["store"].Rows) != len(found) || out.Waiting != 0 {
		k.t.Errorf("reconcile: %v, %v: %s\nwant %d rows everywhere", err, jsonErr, text, len(found))
	}
}
