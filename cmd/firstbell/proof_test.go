package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"firstbell/bench/ports"
)

// checkIn presses for a student and returns the receipt's id.
func checkIn(t *testing.T, r *running, student string) string {
	t.Helper()
	status, answer := ask(t, "POST", "http://"+r.web+"/check-in", fmt.Sprintf(`{"student_id":%q,"class_id":"c1"}`, student), "Host", "hangang.school.example")
	var out struct {
		Receipt string `json:"receipt"`
	}
	if err := json.Unmarshal([]byte(answer), &out); err != nil || status != 200 {
		t.Fatalf("a check-in: got %d %s", status, answer)
	}
	return out.Receipt
}

// signedReceipt asks for a receipt with its proof and writes it into a file.
func signedReceipt(t *testing.T, r *running, id string) string {
	t.Helper()
	status, answer := ask(t, "GET", "http://"+r.web+"/check-in/receipts/"+id, "", "Host", "hangang.school.example")
	if status != 200 {
		t.Fatalf("GET of receipt %s: got %d %s\n%s", id, status, answer, r.log)
	}
	file := filepath.Join(t.TempDir(), "receipt.json")
	rewrite(t, file, answer)
	return file
}

func TestAReceiptIsProvedOfflineWhateverHappensToTheServer(t *testing.T) {
	file := writeFile(t, newOrigin(t).URL, `ops: "127.0.0.1:0"`, fmt.Sprintf("ops: %q", freeAddress(t)))
	r := serve(t, file)
	id := checkIn(t, r, "s1")
	fresh := signedReceipt(t, r, id) // not in the store yet
	_, text := ask(t, "GET", "http://"+r.web+keysPath, "", "Host", "hangang.school.example")
	keys := filepath.Join(t.TempDir(), "keys.json")
	rewrite(t, keys, text)
	if stdout, _, err := firstbell(t, "attendance", "keys", "-config", file, "-rotate"); err != nil || strings.Count(stdout, `"kid"`) != 2 {
		t.Fatalf("rotating: got %v and %s, want two keys", err, stdout)
	}
	later := checkIn(t, r, "s2") // sealed with another key
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if stdout, _, err := firstbell(t, "verify", "-keys", keys, fresh); err != nil || !strings.Contains(stdout, "proved\n  receipt "+id+": student s1 of school hangang, present") {
		t.Errorf("with serve ended: got %v and %s", err, stdout)
	}
	if _, _, err := firstbell(t, "attendance", "keys", "-config", file, "-rotate"); err != nil {
		t.Errorf("rotating while nothing serves: %v", err)
	}
	again := serve(t, file)
	afterwards := signedReceipt(t, again, later) // from the store, by now
	if stdout, _, err := firstbell(t, "verify", "-keys", keys, afterwards); exitCode(err) != 1 || !strings.Contains(stdout, "NOT PROVED: it was sealed with key") {
		t.Errorf("with keys from before: got %v and %s, want it to miss the key", err, stdout)
	}
	if _, _, err := firstbell(t, "attendance", "keys", "-config", file, "-o", keys); err != nil {
		t.Fatal(err)
	}
	if stdout, _, err := firstbell(t, "verify", "-keys", keys, fresh, afterwards); err != nil || strings.Count(stdout, "proved") != 2 {
		t.Errorf("with all keys: got %v and %s", err, stdout)
	}
	text2, _ := os.ReadFile(fresh)
	rewrite(t, fresh, strings.Replace(string(text2), `"present"`, `"late"`, 1))
	if stdout, _, err := firstbell(t, "verify", "-keys", keys, fresh); exitCode(err) != 1 || !isSaid(err) || !strings.Contains(stdout, `says status "late", sealed was "present"`) {
		t.Errorf("a touched receipt: got %v and %s", err, stdout)
	}
}

func TestNothingIsLearntByAskingForReceipts(t *testing.T) {
	r := serve(t, writeFile(t, newOrigin(t).URL))
	id := checkIn(t, r, "s1")
	var first string
	for _, c := range []struct{ host, path string }{
		{"hangang.school.example", "/check-in/receipts/01020304-0506-8708-890a-0b0c0d0e0f10"},
		{"hangang.school.example", "/check-in/receipts/"},
		{"hangang.school.example", "/check-in/receipts"},
		{"hangang.school.example", "/check-in/receipts/s1"},
		{"hangang.school.example", "/check-in/receipts/" + id + "/more"},
		{"hangang.school.example", "/check-in/receipts/more/" + id},
		{"dongdaemun.school.example", "/check-in/receipts/" + id}, // another school's
	} {
		status, answer := ask(t, "GET", "http://"+r.web+c.path, "", "Host", c.host)
		if first == "" {
			first = answer
		}
		if status != 404 || answer != first {
			t.Errorf("%s at %s: got %d %s, want 404 and the same words", c.path, c.host, status, answer)
		}
	}
	if status, _ := ask(t, "POST", "http://"+r.web+"/check-in/receipts/"+id, "", "Host", "hangang.school.example"); status != 405 {
		t.Errorf("POST to a receipt: got %d, want 405", status)
	}
	for range 3 { // from memory, too
		signedReceipt(t, r, id)
	}
}

func TestAWrongTimetableIsCorrectedByEvents(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("serve runs %v", running), func(t *testing.T) { correctTimetable(t, running) })
	}
}

func correctTimetable(t *testing.T, serves bool) {
	ops := freeAddress(t)
	// Everybody is late for a lesson that is over all day.
	file := writeFile(t, newOrigin(t).URL, `late_after: "24:00", ends: "24:00"`, `late_after: "00:00", ends: "24:00"`, `ops: "127.0.0.1:0"`, fmt.Sprintf("ops: %q", ops))
	r := serve(t, file)
	id := checkIn(t, r, "s1")
	checkIn(t, r, "s2")
	date := time.Now().In(schoolZone).Format(time.DateOnly)
	recompute := func(more ...string) (string, error) {
		stdout, stderr, err := firstbell(t, append([]string{"attendance", "recompute", "-config", file, "-date", date, "-author", "kim", "-reason", "the bell was wrong"}, more...)...)
		return stdout + stderr, err
	}
	if stdout, err := recompute(); err != nil || !strings.Contains(stdout, "0 of 2 check-ins come out differently") {
		t.Fatalf("by the same timetable: got %v and %s", err, stdout)
	}
	edit(t, file, `late_after: "00:00"`, `late_after: "24:00"`)
	if _, err := recompute(); err == nil || !strings.Contains(err.Error(), "run firstbell reload first") {
		t.Errorf("with a file that is not in force: got %v, want to be told to reload", err)
	}
	if _, _, err := firstbell(t, "reload", "-config", file); err != nil {
		t.Fatal(err)
	}
	if !serves {
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if serves {
		if stdout, err := recompute("-dry-run"); err != nil || !strings.Contains(stdout, "1 late") || !strings.Contains(stdout, "nothing recorded") || !strings.Contains(stdout, "2 of 2") {
			t.Errorf("-dry-run: got %v and %s", err, stdout)
		}
		if stdout, err := recompute("-school", "elsewhere"); err != nil || !strings.Contains(stdout, "0 of 0") {
			t.Errorf("another school: got %v and %s", err, stdout)
		}
	}
	if stdout, err := recompute(); err != nil || !strings.Contains(stdout, "2 of 2 check-ins come out differently; 2 corrections recorded") {
		t.Errorf("got %v and %s", err, stdout)
	}
	if stdout, err := recompute(); serves && (err != nil || !strings.Contains(stdout, "0 of 2")) {
		t.Errorf("again: got %v and %s, want nothing left to correct", err, stdout)
	}
	if !serves {
		r = serve(t, file)
	}
	if stdout, _, err := firstbell(t, "export", "-config", file, "-format", "jsonl"); err != nil || strings.Count(stdout, `"status":"present"`) != 2 {
		t.Errorf("export: got %v and %s, want both present", err, stdout)
	}
	if got := checkIn(t, r, "s1"); got != id {
		t.Errorf("pressed again: got receipt %s, want %s", got, id)
	}
	text, err := os.ReadFile(signedReceipt(t, r, id))
	if err != nil || !strings.Contains(string(text), `"author": "kim"`) || !strings.Contains(string(text), `"old_status": "late"`) {
		t.Errorf("the receipt does not say that it was corrected: %v %s", err, text)
	}
	stdout, _, err := firstbell(t, "inspect", "-config", file, "-records")
	if err != nil || strings.Count(stdout, "\tcorrection\t") != 2 || !strings.Contains(stdout, `late -> present, by "kim": "the bell was wrong"`) {
		t.Errorf("inspect: got %v and %s", err, stdout)
	}
}

func TestRecomputeRefusesWhereServeRunsAndCannotBeAsked(t *testing.T) {
	file := writeFile(t, newOrigin(t).URL, `, ops: "127.0.0.1:0"`, ``)
	serve(t, file)
	_, _, err := firstbell(t, "attendance", "recompute", "-config", file, "-date", "2026-05-04", "-author", "kim", "-reason", "x")
	if exitCode(err) != 1 || !strings.Contains(err.Error(), "firstbell serve runs and cannot be asked") || !strings.Contains(err.Error(), "in use by") {
		t.Errorf("got %v, want it to say that serve runs", err)
	}
}

func TestInspectShowsFramesOfOneSegment(t *testing.T) {
	file := writeFile(t, newOrigin(t).URL)
	r := serve(t, file)
	checkIn(t, r, "s1")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "journal", "*.wal"))
	stdout, _, err := firstbell(t, "inspect", "-frames", segments[0])
	for _, want := range []string{"\tlink\t", `student="s1"`, "\tseal\tof 1 records", "\tend\t"} {
		if err != nil || !strings.Contains(stdout, want) {
			t.Errorf("-frames: got %v, want %q in\n%s", err, want, stdout)
		}
	}
	stdout, _, err = firstbell(t, "inspect", "-json", "-frames", segments[0])
	var first frameJSON
	if err != nil || json.Unmarshal([]byte(strings.SplitN(stdout, "\n", 2)[0]), &first) != nil || first.Kind != "link" || first.Offset != 4096 {
		t.Errorf("-frames -json: got %v and %s", err, stdout)
	}
	if _, _, err := firstbell(t, "inspect", "-frames", segments[0], "-config", file); exitCode(err) != 2 {
		t.Errorf("-frames with -config: got %v, want a usage error", err)
	}
}

// freeAddress is an address that nobody listens on, nor will by chance.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := ports.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
