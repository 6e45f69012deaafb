package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/store"
	"firstbell/attendance/timetable"
	"firstbell/attendance/wal"
)

// A past is a journal and a store as an earlier run left them.
type past struct {
	t       *testing.T
	file    string
	journal *wal.Log
	next    byte // makes receipts
}

func newPast(t *testing.T) *past {
	t.Helper()
	p := &past{t: t, file: writeFile(t, "http://10.0.0.5:8080")}
	var err error
	if p.journal, err = wal.Open(wal.Options{Dir: p.path("journal"), SegmentBytes: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	if _, err := attendance.OpenSecret(p.path("journal"), true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.journal.Close() })
	return p
}

func (p *past) path(name string) string { return filepath.Join(filepath.Dir(p.file), name) }

var pastDate = timetable.Date{Year: 2020, Month: time.May, Day: 4}

// press writes one arrival into the journal.
func (p *past) press(school, student string, presses uint32) {
	p.t.Helper()
	p.next++
	e := attendance.Event{Kind: attendance.KindArrival, Receipt: attendance.Receipt{
		ID: attendance.ReceiptID{p.next}, School: school, Student: student, Class: "c1", Date: pastDate, Period: "1",
		FirstArrival: time.Date(2020, 5, 4, 9, int(p.next), 0, 0, time.FixedZone("", 9*3600)), Status: timetable.Present,
	}}
	e.RawArrival = e.FirstArrival
	events := []attendance.Event{e}
	if presses > 1 {
		events = append(events, attendance.Event{Kind: attendance.KindPresses, Presses: presses, RawArrival: e.RawArrival,
			Receipt: attendance.Receipt{ID: e.ID, Date: pastDate}})
	}
	for i := range events {
		record, err := attendance.AppendEvent(nil, &events[i])
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := p.journal.Append([][]byte{record}); err != nil {
			p.t.Fatal(err)
		}
	}
}

// deliver brings all that the journal holds by now into the store.
func (p *past) deliver() {
	p.t.Helper()
	s, err := store.Open(p.t.Context(), store.Options{Location: "sqlite:" + p.path("attendance.db"), Journal: p.path("journal")})
	if err != nil {
		p.t.Fatal(err)
	}
	defer s.Close()
	r, err := wal.OpenReader(p.path("journal"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Close()
	d := attendance.NewDelivery(attendance.DeliveryConfig{Name: "store", Journal: attendance.ReadJournal(r), Target: s, End: p.journal.Next})
	if err := d.Drain(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// register is school/student=presses of each line of the export.
func (p *past) register(args ...string) ([]string, string, error) {
	p.t.Helper()
	stdout, stderr, err := firstbell(p.t, append([]string{"export", "-config", p.file, "-date", "2020-05-04", "-format", "csv"}, args...)...)
	var list []string
	for i, line := range strings.Split(strings.TrimSpace(stdout), "\r\n") {
		if f := strings.Split(line, ","); i > 0 && len(f) > 8 {
			list = append(list, fmt.Sprintf("%s/%s=%s", f[1], f[3], f[8]))
		}
	}
	return list, stderr, err
}

func TestExportIsTheStoreAndTheJournalBeyond(t *testing.T) {
	p := newPast(t)
	p.press("namsan", "s1", 1)
	p.press("hangang", "s2", 3)
	p.deliver()
	p.press("bukhan", "s3", 1)
	p.press("hangang", "s4", 1)
	p.press("yeouido", "s5", 2)
	p.next = 1 // the second one pressed again, after the delivery
	p.press("hangang", "s2", 7)

	got, stderr, err := p.register()
	want := []string{"bukhan/s3=1", "hangang/s2=7", "hangang/s4=1", "namsan/s1=1", "yeouido/s5=2"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v\nwant %v", got, err, want)
	}
	if !strings.Contains(stderr, "last journal position: 9") {
		t.Errorf("it rests on: %s\nwant position 9", stderr)
	}
	if got, _, err := p.register("-school", "hangang"); err != nil || !slices.Equal(got, []string{"hangang/s2=7", "hangang/s4=1"}) {
		t.Errorf("one school: got %v, %v", got, err)
	}
}

func TestExportOfWhatCannotBeReadNeedsPartial(t *testing.T) {
	p := newPast(t)
	p.press("hangang", "s1", 1)
	out := p.path("out.csv")
	if _, _, err := p.register("-o", out); err == nil || exitCode(err) != 1 || !strings.Contains(err.Error(), "-partial") {
		t.Errorf("without a store: got %v, want exit code 1 and a word about -partial", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a refused export left a file")
	}
	got, stderr, err := p.register("-partial")
	if err != nil || !slices.Equal(got, []string{"hangang/s1=1"}) || !strings.Contains(stderr, "the store could not be read") {
		t.Errorf("-partial: got %v, %v and %s", got, err, stderr)
	}
}

func TestExportOfAStoreFromAnotherJournalReadsAllOfThisOne(t *testing.T) {
	p := newPast(t)
	for i := range 5 {
		p.press("hangang", fmt.Sprintf("old%d", i), 1)
	}
	p.deliver()
	p.journal.Close()
	if err := os.RemoveAll(p.path("journal")); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.journal, err = wal.Open(wal.Options{Dir: p.path("journal"), SegmentBytes: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	p.press("hangang", "new", 1)
	got, _, err := p.register()
	if err != nil || len(got) != 6 {
		t.Errorf("got %v, %v; want the five of the store and the new one", got, err)
	}
}

func TestExportWritesAFileWholeOrNotAtAll(t *testing.T) {
	p := newPast(t)
	p.press("hangang", "s1", 1)
	p.deliver()
	out := p.path("register.xlsx")
	if _, _, err := p.register("-format", "xlsx", "-o", out); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(out); err != nil || !strings.HasPrefix(string(text), "PK") {
		t.Errorf("%s is no workbook: %v", out, err)
	}
	if _, _, err := p.register("-o", p.path("no/such/dir.csv")); exitCode(err) != 1 {
		t.Errorf("a directory that is not there: got %v", err)
	}
	if left, _ := filepath.Glob(p.path(".register*")); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

func TestDatesOfAnExport(t *testing.T) {
	now := time.Date(2026, 5, 4, 23, 0, 0, 0, time.UTC).In(time.FixedZone("", 9*3600))
	for text, want := range map[string]string{
		"": "2026-05-05 0000-00-00", "2026-05-04": "2026-05-04 0000-00-00", "2026-05-04..2026-05-08": "2026-05-04 2026-05-08",
	} {
		from, to, err := parseDates(text, now)
		if got := fmt.Sprint(from, " ", to); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"tomorrow", "2026-02-30", "2026-05-04..", "04.05.2026"} {
		if _, _, err := parseDates(text, now); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestInspectNamesDamage(t *testing.T) {
	p := newPast(t)
	for i := range 20 {
		p.press("hangang", fmt.Sprintf("s%d", i), 1)
	}
	p.journal.Close()
	segments, err := filepath.Glob(p.path("journal/*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no segments: %v", err)
	}
	text, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(text), "s7")
	text[at] ^= 1
	if err := os.WriteFile(segments[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, _, err := firstbell(t, "inspect", p.path("journal"))
	if exitCode(err) != 1 || !strings.Contains(stdout, "DAMAGE: ") || !strings.Contains(stdout, "MISSING: records 8 to 8") {
		t.Errorf("got %v and\n%s\nwant record 8 missing", err, stdout)
	}
	if _, _, err := firstbell(t, "inspect", p.path("nothing")); exitCode(err) != 1 {
		t.Errorf("a directory that is not there: got %v", err)
	}
}

func TestRetentionKeepsWhatIsYoungOrNotDelivered(t *testing.T) {
	p := newPast(t)
	for i := range 900 { // some segments of 64 KiB
		p.next = byte(i)
		p.press("hangang", fmt.Sprintf("student-%d-%s", i, strings.Repeat("x", 150)), 1)
	}
	p.journal.Close()
	edit(t, p.file, `{name: lms, http: {url: "http://10.0.0.5:8080/bulk"}}`, "")
	c, err := loadConfig(p.file, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	a, err := openAttendance(t.Context(), c, newLogger(os.Stderr, "text"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	segments, err := filepath.Glob(p.path("journal/*.wal"))
	if err != nil || len(segments) < 3 {
		t.Fatalf("got the segments %v, %v; want some", segments, err)
	}
	keepsTheOldest := func(moment time.Time) bool {
		t.Helper()
		if err := a.removeBefore(moment); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(segments[0])
		return err == nil
	}
	future := time.Now().AddDate(10, 0, 0)
	if !keepsTheOldest(future) {
		t.Error("nothing was delivered, and the oldest segment is gone")
	}
	if err := a.toStore.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !keepsTheOldest(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Error("all is young, and the oldest segment is gone")
	}
	if keepsTheOldest(future) {
		t.Error("all is old and delivered, and the oldest segment is still there")
	}
}
