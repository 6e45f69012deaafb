package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"firstbell/bench/bell"
)

// someFigures are a small morning with everything in it.
func someFigures() *figures {
	first := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return first.Add(time.Duration(s) * time.Second) }
	c := chartData{first: first, step: time.Second, n: 5, arrived: []float64{1, 2, 900, 4, 0}, pressed: []float64{0, 1, 700, 5, 1},
		receipt: []float64{0, 1, 300, 400, 6}, sent: []float64{9, 9, 9000, 9, 9}, failed: []float64{0, 0, 80, 0, 0}, origin: []float64{1, 1, 1, 1, 1},
		lessons: []float64{1, 1, 0, 0, 0}, inside: []float64{1, 1, 1, 1, 1}, p50: []float64{0, 0.3, 0.5, 0, 2}, p99: []float64{0, 2, 1200, 0, 9}, pageP99: []float64{1, 2, 3, 4, 5}}
	c.marks = []chartMark{{10, "opens"}, {40, "bell"}, {70, "late"}, {100, "ends"}}
	c.bands = []chartBand{{45, 5, "kill -9"}}
	return &figures{
		Students: 20000, Schools: 2, Date: "2026-05-04", Receipts: 19400, StoreRows: 19400, Kills: 1, BrokenPromises: []string{},
		promises: []promise{{true, "no receipt is lost", "0 of 19,400"}, {false, "nobody is <b>late</b>", "3 & more"}},
		kinds:    []kindFigures{{Name: "lesson list", Counts: bell.Counts{Sent: 20, Answered: 19, Broken: 1}, P99: time.Second}},
		schools:  []schoolFigures{{"s01", 9000, 500, 300}, {"s02", 9000, 900, 300}}, chart: c,
		morning: bell.Morning{First: first, Opens: at(0), Starts: at(2), LateAfter: at(3), Ends: at(5)}, command: "firstbell demo",
	}
}

func TestReportPageIsWholeAndSelfContained(t *testing.T) {
	for _, direct := range []bool{false, true} {
		r := someFigures()
		r.Direct, r.OriginFalls = direct, 3
		file := filepath.Join(t.TempDir(), "report.html")
		if err := writeReport(file, r); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		page := string(text)
		charts := 4
		if direct {
			charts = 5
		}
		if got := strings.Count(page, `preserveAspectRatio="none" role="img" aria-label="`); got != charts {
			t.Errorf("direct %v: %d charts with words for those who cannot see them, want %d", direct, got, charts)
		}
		for _, bad := range []string{"ZgotmplZ", "<no value>", "NaN", "Inf", "http://", "https://", "<script", "<link", "<b>late", "%!"} {
			if strings.Contains(page, bad) {
				t.Errorf("direct %v: the page holds %q", direct, bad)
			}
		}
		if !strings.HasSuffix(page, "</html>\n") {
			t.Errorf("the page ends with %q", page[len(page)-20:])
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
			t.Errorf("writing it left %v", left)
		}
	}
}

func TestFiguresKeepTheNamesProgramsRead(t *testing.T) {
	line, err := json.Marshal(someFigures())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(`students client_requests origin_requests receipts receipts_lost duplicate_rows
		checkins_pressed store_rows bulk_writes absent late present p50_ms p99_ms failed_requests leaks
		lesson_requests lesson_origin_requests store_statements broken_promises`) {
		if _, ok := got[name]; !ok {
			t.Errorf("the line of JSON has no %q", name)
		}
	}
	if strings.Contains(string(line), "\n") {
		t.Error("the figures take more than one line")
	}
}

func TestABrokenPromiseIsNamed(t *testing.T) {
	roster, hands, rows := class(t)
	c := compared(roster, hands, rows[1:], rows)
	r := &figures{Students: 4, Receipts: c.receipts, ReceiptsLost: c.lost, StoreRows: c.storeRows, OriginRows: c.originRows,
		Present: c.present, Late: c.late, Absent: c.absent, OriginPlaces: 1, MostFetched: 1}
	r.judge(c)
	err := brokenPromises(r.BrokenPromises)
	if len(r.BrokenPromises) == 0 || !strings.Contains(err.Error(), "no receipt is lost") {
		t.Errorf("a lost receipt: %q; want the promise named", r.BrokenPromises)
	}
	if exitCode(err) != 1 {
		t.Errorf("a broken promise ends with %d, want 1", exitCode(err))
	}
}

func TestNumbersReadWell(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{312 * time.Microsecond: "0.3 ms", 12 * time.Millisecond: "12 ms", 1340 * time.Millisecond: "1.3 s"} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %q, want %q", d, got, want)
		}
	}
}
