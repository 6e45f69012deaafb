package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"firstbell/attendance/wal"
	"firstbell/cmd/firstbell/config"
)

func TestTheJournalSaysHowLongItsRoomLasts(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name  string
		h     wal.Health
		share float64
		says  []string
	}{
		{"plenty", wal.Health{Bytes: 2 * gib, Max: 20 * gib, Free: 100 * gib, Reserve: gib}, 0.1, nil},
		{"half of max", wal.Health{Bytes: 10 * gib, Max: 20 * gib, Free: 100 * gib, Reserve: gib}, 0.5, []string{"50 % of the journal's room", "10.0 hours are left"}},
		{"four fifths of max", wal.Health{Bytes: 16 * gib, Max: 20 * gib, Free: 100 * gib, Reserve: gib}, 0.8, []string{"80 %", "4.0 hours", "go before their time"}},
		{"a disk that somebody else fills", wal.Health{Bytes: 3 * gib, Max: 20 * gib, Free: 2 * gib, Reserve: gib}, 0.75, []string{"75 %", "1.0 hours"}},
		{"reserve passed", wal.Health{Bytes: 0, Max: 20 * gib, Free: gib / 2, Reserve: gib}, 1, []string{"100 %"}},
		{"a file system that does not say", wal.Health{Bytes: 10 * gib, Max: 20 * gib, Free: -1, Reserve: gib}, 0.5, []string{"50 %"}},
		{"no bound at all", wal.Health{Bytes: 10 * gib, Free: -1}, 0, nil},
	} {
		var w roomWatch
		began := time.Unix(1e9, 0)
		w.see(&c.h, began)
		c.h.Stats.Bytes = gib // in an hour
		got := w.see(&c.h, began.Add(time.Hour))
		if got.Share != c.share {
			t.Errorf("%s: got share %v, want %v", c.name, got.Share, c.share)
		}
		for _, want := range c.says {
			if !strings.Contains(got.warning(), want) {
				t.Errorf("%s: got %q, want %q in it", c.name, got.warning(), want)
			}
		}
		if c.says == nil && got.warning() != "" {
			t.Errorf("%s: got %q, want no warning", c.name, got.warning())
		}
	}
}

func TestTheRateIsThatOfTheLastHour(t *testing.T) {
	var w roomWatch
	h := wal.Health{Bytes: 1 << 30, Max: 2 << 30, Free: -1}
	at := time.Unix(1e9, 0)
	for range 600 { // ten hours: a rush, then quiet
		h.Stats.Bytes += 1 << 20
		w.see(&h, at)
		at = at.Add(time.Minute)
	}
	if len(w.samples) > 62 {
		t.Errorf("%d samples are kept, want an hour's", len(w.samples))
	}
	for range 120 {
		w.see(&h, at)
		at = at.Add(time.Minute)
	}
	if r := w.see(&h, at); r.Left != 0 || !strings.Contains(r.warning(), "does not grow") {
		t.Errorf("after two quiet hours: got %v left, %q", r.Left, r.warning())
	}
}

func TestAJournalWithoutRoomRefusesLoudlyAndCountsTheFirstPress(t *testing.T) {
	file := writeFile(t, newOrigin(t).URL, "journal: journal\n", "journal: journal\n  disk: {max: 1GiB, reserve: 4096TiB}\n")
	r := serve(t, file)
	res, err := http.Post("http://"+r.web+"/check-in", "application/json", strings.NewReader(`{"student_id":"s1"}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 503 || res.Header.Get("First-Seen") == "" || res.Header.Get("Retry-After") == "" {
		t.Errorf("got %s, First-Seen %q, Retry-After %q; want 503 and both", res.Status, res.Header.Get("First-Seen"), res.Header.Get("Retry-After"))
	}
	if status, answer := ask(t, "GET", "http://"+r.ops+"/readyz", ""); status != 503 || !strings.Contains(answer, "4503599627370496 are to stay free") {
		t.Errorf("/readyz: got %d %s, want it to name the reserve", status, answer)
	}
	_, answer := ask(t, "GET", "http://"+r.ops+"/status", "")
	var s statusReport
	if err := json.Unmarshal([]byte(answer), &s); err != nil || s.Attendance.Journal.Share != 1 || !strings.Contains(strings.Join(s.Attendance.Journal.Amber, "\n"), "100 % of the journal's room") {
		t.Errorf("/status: %v, %+v", err, s.Attendance.Journal)
	}
}

// The cache stops while the journal still has segments to go.
func TestTheCacheGivesWayBeforeTheJournal(t *testing.T) {
	text := "timezone: Asia/Seoul\nlisten: {http: \":80\"}\ncache: {memory: 1GiB, disk: {path: " + t.TempDir() + "/cache, size: 100GiB}}\n" +
		"attendance: {journal: " + t.TempDir() + "/journal, disk: {reserve: 2GiB}}\norigins: {a: {servers: [\"http://b\"]}}\nroutes: [{hosts: [\"*\"], origin: a}]\n"
	c, problems := config.Read("firstbell.yaml", []byte(text))
	if c == nil {
		t.Fatal(problems)
	}
	journal := journalOptions(c.Attendance, 0)
	if o := cacheOf(c); o.Disk.KeepFree < journal.Reserve+3*64<<20 || journal.Reserve != 2<<30 || journal.Max != 20<<30 {
		t.Errorf("the cache leaves %d free, the journal %d, and takes %d", o.Disk.KeepFree, journal.Reserve, journal.Max)
	}
}
