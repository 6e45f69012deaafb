package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"firstbell/bench/bell"
	"firstbell/bench/lms"
	"firstbell/cmd/firstbell/config"
)

// handful is what some students hold.
type handful []bell.Hand

func (h handful) Hand(i int) bell.Hand { return h[i] }

func (h handful) Hands() iter.Seq2[int, bell.Hand] {
	return func(yield func(int, bell.Hand) bool) {
		for i := range h {
			if !yield(i, h[i]) {
				return
			}
		}
	}
}

// The class of the comparison's tests: two present, one late, one who never
// came.
const classFirst = 1_780_000_000_000 // Unix ms

func class(t *testing.T) (*bell.Roster, handful, []exportRow) {
	t.Helper()
	roster, err := bell.NewRoster(4, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	hold := func(n byte, s bell.Status) bell.Hand {
		return bell.Hand{Pressed: true, Period: bell.Held{ID: [16]byte{15: n}, First: classFirst, Status: s}}
	}
	hands := handful{hold(1, bell.Present), hold(2, bell.Present), hold(3, bell.Late), {}}
	var rows []exportRow
	for i := range hands {
		st := roster.Student(i)
		r := exportRow{School: "s01", Class: st.ClassID, Student: st.ID, Period: "1", Status: "absent"}
		if hands[i].Pressed {
			r.Status = hands[i].Period.Status.String()
			r.Receipt = fmt.Sprintf("00000000-0000-0000-0000-%012d", i+1)
			r.FirstArrival = time.UnixMilli(classFirst).UTC().Format(time.RFC3339Nano)
		}
		rows = append(rows, r)
	}
	return roster, hands, rows
}

// compared runs rows through a comparison, as export and as origin's register.
func compared(roster *bell.Roster, hands handful, export, origin []exportRow) *comparison {
	c := newComparison(roster, hands)
	for i := range export {
		c.takeExport(&export[i])
	}
	for _, r := range origin {
		if r.Status == "absent" {
			continue
		}
		at, _ := time.Parse(time.RFC3339Nano, r.FirstArrival)
		c.takeOrigin(&lms.Record{Receipt: r.Receipt, Student: r.Student, Class: r.Class, School: r.School, Period: r.Period, Status: r.Status, FirstArrival: at})
	}
	c.finish()
	return c
}

func TestComparisonFindsWhateverIsWrong(t *testing.T) {
	type rows = []exportRow
	for _, c := range []struct {
		name  string
		spoil func(export, origin rows) (rows, rows)
		count func(*comparison) int64
	}{
		{"a receipt that the export lost", func(e, o rows) (rows, rows) { return e[1:], o }, func(c *comparison) int64 { return c.lost }},
		{"a receipt that never reached the origin", func(e, o rows) (rows, rows) { return e, o[:2] }, func(c *comparison) int64 { return c.lost }},
		{"a row twice", func(e, o rows) (rows, rows) { return append(e, e[0]), o }, func(c *comparison) int64 { return c.duplicates }},
		{"a row twice at the origin", func(e, o rows) (rows, rows) { return e, append(o, o[2]) }, func(c *comparison) int64 { return c.duplicates }},
		{"a row of somebody who never pressed", func(e, o rows) (rows, rows) {
			e[3].Status = "present"
			return e, o
		}, func(c *comparison) int64 { return c.invented }},
		{"a row of nobody", func(e, o rows) (rows, rows) {
			e[3].Student = "9999999"
			return e, o
		}, func(c *comparison) int64 { return c.unknownRows }},
		{"absent with a receipt in hand", func(e, o rows) (rows, rows) {
			e[0].Status = "absent"
			return e, o
		}, func(c *comparison) int64 { return c.absentThoughHere }},
		{"another status than the receipt's", func(e, o rows) (rows, rows) {
			e[0].Status = "late"
			return e, o
		}, func(c *comparison) int64 { return c.differ }},
		{"a later arrival than the receipt's", func(e, o rows) (rows, rows) {
			e[0].FirstArrival = time.UnixMilli(classFirst + 1).UTC().Format(time.RFC3339Nano)
			return e, o
		}, func(c *comparison) int64 { return c.differ }},
		{"another receipt", func(e, o rows) (rows, rows) {
			e[0].Receipt = e[1].Receipt
			return e, o
		}, func(c *comparison) int64 { return c.differ }},
		{"another class", func(e, o rows) (rows, rows) {
			e[0].Class = "s01-9-99"
			return e, o
		}, func(c *comparison) int64 { return c.differ }},
	} {
		t.Run(c.name, func(t *testing.T) {
			roster, hands, rows := class(t)
			export, origin := c.spoil(append([]exportRow(nil), rows...), append([]exportRow(nil), rows...))
			if got := c.count(compared(roster, hands, export, origin)); got == 0 {
				t.Error("it was not found")
			}
		})
	}
}

func TestComparisonOfAGoodMorningFindsNothing(t *testing.T) {
	roster, hands, rows := class(t)
	earlier := append([]exportRow(nil), rows...) // a retry proved an earlier arrival
	earlier[2].FirstArrival, earlier[2].Status = time.UnixMilli(classFirst-5000).UTC().Format(time.RFC3339Nano), "present"
	for _, export := range [][]exportRow{rows, earlier} {
		c := compared(roster, hands, export, rows)
		if n := c.lost + c.duplicates + c.invented + c.unknownRows + c.differ + c.absentThoughHere + c.without; n != 0 {
			t.Errorf("%d problems in a good morning: %q", n, c.examples)
		}
		if c.present+c.late != 3 || c.absent != 1 || c.storeRows != 3 || c.receipts != 3 {
			t.Errorf("%d present, %d late, %d absent, %d rows, %d receipts; want 3 in all, 1, 3, 3", c.present, c.late, c.absent, c.storeRows, c.receipts)
		}
	}
}

func TestDemoPlaysInAMorningWhateverTheTimeHere(t *testing.T) {
	for hour := range 24 {
		for _, minute := range []int{0, 59} {
			now := time.Date(2026, 12, 31, hour, minute, 59, 0, time.UTC)
			local := now.In(demoZone(now))
			if local.Hour() != 9 {
				t.Errorf("at %s UTC the demo plays at %s in %s, want nine in the morning", now.Format(time.TimeOnly), local.Format(time.TimeOnly), local.Location())
			}
		}
	}
}

func TestDemoConfigIsFreeOfProblems(t *testing.T) {
	o := demoOptions{students: 60, schools: 2, dir: filepath.Join(t.TempDir(), "morning"), duration: 6 * time.Second}
	st, err := openStage(t.Context(), &o, newScreen(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	defer st.close(false)
	if err := st.plan(time.Now(), time.Second); err != nil {
		t.Fatal(err)
	}
	c, problems := config.Load(st.config())
	if len(problems.Errors()) > 0 {
		t.Fatalf("the demo's configuration has problems: %v", problems)
	}
	p := c.Timetable.Periods[0]
	for _, want := range []struct {
		got  string
		want time.Time
	}{{p.Opens, st.morning.Opens}, {p.Starts, st.morning.Starts}, {p.LateAfter, st.morning.LateAfter}, {p.Ends, st.morning.Ends}} {
		if want.got != want.want.Format(time.TimeOnly) {
			t.Errorf("the file says %s where the bell plays %s", want.got, want.want.Format(time.TimeOnly))
		}
	}
}

func TestDemoLeavesOtherPeoplesDirectoriesAlone(t *testing.T) {
	dir := t.TempDir()
	theirs := filepath.Join(dir, "report.html")
	if err := os.WriteFile(theirs, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := demoOptions{students: 1, schools: 1, dir: dir}
	if _, err := openStage(t.Context(), &o, newScreen(io.Discard)); err == nil || !strings.Contains(err.Error(), "-dir") {
		t.Errorf("somebody else's directory: error %v, want one that names -dir", err)
	}
	if text, _ := os.ReadFile(theirs); string(text) != "mine" {
		t.Errorf("somebody else's report.html now holds %q", text)
	}
}

func TestTwoDemosDoNotShareADirectory(t *testing.T) {
	o := demoOptions{students: 1, schools: 1, dir: filepath.Join(t.TempDir(), "morning")}
	st, err := openStage(t.Context(), &o, newScreen(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStage(t.Context(), &o, newScreen(io.Discard)); err == nil || !strings.Contains(err.Error(), "another demo") {
		t.Errorf("the second demo: error %v, want one that says another is at work", err)
	}
	st.close(true)
	if _, err := os.Stat(o.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a morning that was broken off left its directory: %v", err)
	}
}

func TestTwoDemosDoNotShareAPort(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		l, http, ops, err := takePorts()
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for _, addr := range []string{l.Addr().String(), http, ops} {
			if seen[addr] {
				t.Errorf("%s was given out twice", addr)
			}
			seen[addr] = true
		}
	}
}

func TestDemoFlagsAreRefusedKindly(t *testing.T) {
	for _, args := range [][]string{
		{"-students", "0"}, {"-students", "9999999"}, {"-schools", "0"}, {"-duration", "1s"}, {"-dir", ""}, {"now"}, {"-nonsense"},
	} {
		if _, err := demoOptionsOf(args, io.Discard); exitCode(err) != 2 {
			t.Errorf("demo %v: error %v with exit code %d, want a usage error with 2", args, err, exitCode(err))
		}
	}
	o, err := demoOptionsOf(nil, io.Discard)
	if err != nil || o.students != 20000 || o.schools != 40 || o.duration != demoDuration || !o.kill || o.dir != "morning" {
		t.Errorf("without flags: %+v, %v", o, err)
	}
}

// demoChild, set to 1 in the environment, makes this test binary a firstbell: the
// demo starts processes, and the one it starts should be what is tested.
const demoChild = "FIRSTBELL_DEMO_CHILD"

func init() {
	if os.Getenv(demoChild) == "1" {
		main()
	}
}

func TestDemoKeepsItsPromisesThroughAKill(t *testing.T) {
	if testing.Short() {
		t.Skip("left out with -short: a morning takes ten seconds")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(demoChild, "1")
	var out bytes.Buffer
	o := demoOptions{students: 300, schools: 3, seed: 7, dir: filepath.Join(t.TempDir(), "morning"), dirNamed: true, duration: 6 * time.Second, kill: true, json: true}
	d := &demo{demoOptions: o, program: program, screen: newScreen(&out)}
	if err := d.run(t.Context()); err != nil {
		t.Fatalf("the demo: %v\n%s", err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var f figures
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &f); err != nil {
		t.Fatalf("the last line is no JSON: %v\n%s", err, lines[len(lines)-1])
	}
	if f.Students != 300 || f.Kills != 1 || f.ReceiptsLost != 0 || f.DuplicateRows != 0 || f.Leaks != 0 ||
		f.StoreRows != f.Receipts || f.Present+f.Late+f.Absent != 300 || f.Present+f.Late+f.Outside != f.StoreRows {
		t.Errorf("the figures do not add up: %s", lines[len(lines)-1])
	}
	for _, name := range []string{"firstbell.yaml", "report.html", "register.jsonl", "attendance-" + f.Date + ".xlsx", "attendance.db", "roster/users.csv"} {
		if info, err := os.Stat(filepath.Join(o.dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s was not left behind: %v", name, err)
		}
	}
}
