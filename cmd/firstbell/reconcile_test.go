package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
	"firstbell/attendance/wal"
)

// installation is a firstbell that took check-ins and ended: its file, journal,
// keys and store.
type installation struct {
	t    *testing.T
	file string
	ids  []string // of the receipts of s0, s1 …
}

func newInstallation(t *testing.T, students int) *installation {
	t.Helper()
	in := &installation{t: t, file: writeFile(t, newOrigin(t).URL)}
	r := serve(t, in.file)
	for i := range students {
		in.ids = append(in.ids, checkIn(t, r, fmt.Sprintf("s%d", i)))
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	return in
}

// copy is the same in another place, to be harmed.
func (in *installation) copy() *installation {
	in.t.Helper()
	dir := in.t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "x"), os.DirFS(filepath.Dir(in.file))); err != nil {
		in.t.Fatal(err)
	}
	return &installation{in.t, filepath.Join(dir, "x", filepath.Base(in.file)), in.ids}
}

func (in *installation) path(name string) string { return filepath.Join(filepath.Dir(in.file), name) }

func (in *installation) sql(query string, args ...any) {
	in.t.Helper()
	db, err := sql.Open("sqlite", in.path("attendance.db"))
	if err == nil {
		_, err = db.Exec(query, args...)
		db.Close()
	}
	if err != nil {
		in.t.Fatalf("%s: %v", query, err)
	}
}

// frame finds the record of a student in the journal's files.
func (in *installation) frame(student string) (segment string, f wal.Frame) {
	in.t.Helper()
	segments, _ := filepath.Glob(in.path("journal/*.wal"))
	for _, segment := range segments {
		for f, err := range wal.Dump(segment) {
			if err != nil {
				in.t.Fatal(err)
			}
			if e, err := attendance.DecodeEvent(f.Data); err == nil && f.Kind == "record" && e.Student == student {
				return segment, f
			}
		}
	}
	in.t.Fatalf("no record of %s", student)
	return "", wal.Frame{}
}

// harm changes one byte of a student's record in the journal; forged makes its
// checksum right again.
func (in *installation) harm(student string, forged bool) {
	in.t.Helper()
	segment, f := in.frame(student)
	file, err := os.ReadFile(segment)
	if err != nil {
		in.t.Fatal(err)
	}
	b := file[f.Offset : f.Offset+f.Bytes]
	b[24+3] = 2 // its status: late
	if forged {
		id, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(segment)[11:], ".wal"), 16, 64)
		if err != nil {
			in.t.Fatal(err)
		}
		var seed [8]byte
		binary.LittleEndian.PutUint64(seed[:], id)
		castagnoli := crc32.MakeTable(crc32.Castagnoli)
		binary.LittleEndian.PutUint32(b, crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, b[4:]))
	}
	if err := os.WriteFile(segment, file, 0o600); err != nil {
		in.t.Fatal(err)
	}
}

// append records events as firstbell would.
func (in *installation) append(events ...attendance.Event) {
	in.t.Helper()
	c, err := loadAttendance("test", in.file, in.t.Output())
	if err == nil {
		h := &journalHand{name: "test", file: in.file, config: c, stderr: in.t.Output()}
		err = h.take(in.t.Context(), func(a *attendant) error { return a.recorder.Record(in.t.Context(), events) })
	}
	if err != nil {
		in.t.Fatal(err)
	}
}

func (in *installation) reconcile(args ...string) (*reconciled, string, error) {
	in.t.Helper()
	text, _, err := firstbell(in.t, append([]string{"reconcile", "-config", in.file, "-json"}, args...)...)
	if err != nil && !isSaid(err) {
		in.t.Fatalf("reconcile: %v", err)
	}
	var out reconciled
	if jsonErr := json.Unmarshal([]byte(text), &out); jsonErr != nil {
		in.t.Fatalf("reconcile: %v: %s", jsonErr, text)
	}
	var all []string
	for _, d := range out.List {
		all = append(all, d.String())
	}
	return &out, strings.Join(all, "\n"), err
}

func today() timetable.Date {
	return timetable.DateOf(time.Now().In(schoolZone))
}

func key(student string) string { return today().String() + "/hangang/1/" + student }

func TestReconcileNamesExactlyWhatDiffers(t *testing.T) {
	whole := newInstallation(t, 6)
	out, diff, err := whole.reconcile()
	if err != nil || diff != "" || out.Books["receipts"].Rows != 6 || out.Waiting != 0 || len(out.Groups) != 1 || !out.Groups[0].Agree {
		t.Fatalf("untouched: got %v, %+v\n%s", err, out, diff)
	}
	for _, c := range []struct {
		name string
		harm func(in *installation)
		want []string // all there is, each beginning like that
	}{
		{"a row is missing in the store", func(in *installation) {
			in.sql("DELETE FROM arrivals WHERE student_id = 's1'")
		}, []string{"export: missing " + key("s1"), "store: missing " + key("s1") + " (record "}},
		{"a row is altered", func(in *installation) {
			in.sql("UPDATE arrivals SET status = 'late' WHERE student_id = 's2'")
		}, []string{"export: altered " + key("s2"), "store: altered " + key("s2") + ` (status is "late", the journal says "present")`}},
		{"a class is altered", func(in *installation) {
			in.sql("UPDATE arrivals SET class_id = 'c9' WHERE student_id = 's2'")
		}, []string{"export: altered " + key("s2"), "store: altered " + key("s2") + ` (class_id is "c9", the journal says "c1")`}},
		{"a row is extra", func(in *installation) {
			in.sql(`INSERT INTO arrivals SELECT date, school, period, 'ghost', class_key, class_id, status, first_arrival, utc_offset, verified,
				x'0102030405068708890a0b0c0d0e0f10', timetable, position FROM arrivals WHERE student_id = 's1'`)
		}, []string{"export: extra " + key("ghost") + " (the journal has no", "store: extra " + key("ghost") + " (the journal has no such check-in)"}},
		{"a row is doubled", func(in *installation) {
			in.sql(`INSERT INTO arrivals SELECT date, school, period, 's1-again', class_key, class_id, status, first_arrival, utc_offset, verified,
				receipt, timetable, position FROM arrivals WHERE student_id = 's1'`)
		}, []string{"store: doubled " + key("s1-again") + " (receipt " + whole.ids[1] + " is there twice)"}},
		{"the store is gone", func(in *installation) {
			os.Remove(in.path("attendance.db"))
		}, []string{"export: unreadable", "store: unreadable"}},
		{"a sink parked one", func(in *installation) {
			line := fmt.Sprintf(`{"time":"2026-05-04T00:00:00Z","position":3,"key":%q,"reason":"no such course"}`+"\n", key("s3"))
			os.WriteFile(in.path("journal/sink-lms/parked.jsonl"), []byte(line), 0o600)
		}, []string{"sink lms: parked " + key("s3") + " (no such course)"}},
		{"a record of the journal is damaged", func(in *installation) {
			in.harm("s1", false)
		}, []string{"journal: damage (", "journal: missing " + key("s1") + " (record "}},
		{"a record of the journal is forged", func(in *installation) {
			in.harm("s1", true)
		}, []string{"export: altered " + key("s1"), "receipts: seal (records ", "store: altered " + key("s1") + ` (status is "present", the journal says "late")`}},
		{"the keys are gone", func(in *installation) {
			os.RemoveAll(in.path("journal/keys"))
		}, []string{"receipts: seal (the seal ", "receipts: seal (the seal ", "receipts: seal (the seal ", "receipts: seal (the seal ", "receipts: seal (the seal ", "receipts: seal (the seal "}},
		{"the digest of the day is another", func(in *installation) {
			e := attendance.Event{Kind: attendance.KindDigest, RawArrival: time.Now(), Digest: &attendance.DayDigest{Before: 1 << 50, Sum: attendance.Sum{Rows: 7}}}
			e.Date = today()
			in.append(e)
		}, []string{"journal: digest (recorded on "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := whole.copy()
			in.t = t
			c.harm(in)
			out, diff, err := in.reconcile()
			if exitCode(err) != 1 || out.Total != len(c.want) || len(out.List) != len(c.want) {
				t.Fatalf("got exit code %d and\n%s\nwant\n%s", exitCode(err), diff, strings.Join(c.want, "\n"))
			}
			for i, want := range c.want {
				if !strings.HasPrefix(out.List[i].String(), want) {
					t.Errorf("got %s\nwant %s …", out.List[i], want)
				}
			}
		})
	}
}

func TestReconcileWhileServeRuns(t *testing.T) {
	file := writeFile(t, newOrigin(t).URL)
	r := serve(t, file)
	in := &installation{t: t, file: file}
	for i := range 3 {
		checkIn(t, r, fmt.Sprintf("s%d", i))
	}
	out, diff, err := in.reconcile() // the store gathers for seconds
	if err != nil || diff != "" || out.Books["journal"].Rows != 3 || out.Books["export"].Rows != 3 || out.Waiting+int(out.Books["store"].Rows) != 3 {
		t.Errorf("got %v, %+v\n%s\nwant 3 in the journal, and what is not in the store yet to wait", err, out, diff)
	}
	text, _, err := firstbell(t, "reconcile", "-config", file)
	if err != nil || !strings.Contains(text, "the counts agree") {
		t.Errorf("for people: got %v and %s", err, text)
	}
	if out, _, err := in.reconcile("-date", "2020-01-01"); err != nil || out.Books["journal"].Rows != 0 {
		t.Errorf("a day without check-ins: got %v %+v", err, out)
	}
	if out, _, err := in.reconcile("-school", "elsewhere"); err != nil || out.Books["journal"].Rows != 0 {
		t.Errorf("another school: got %v %+v", err, out)
	}
}

func TestADayThatIsOverGetsItsDigest(t *testing.T) {
	in := newInstallation(t, 1)
	var events []attendance.Event
	day := timetable.Date{Year: 2020, Month: 3, Day: 2}
	for i := range 3 {
		e := attendance.Event{Kind: attendance.KindArrival, RawArrival: day.At(9*3600, time.UTC)}
		e.ID = attendance.ReceiptID{0: byte(i), 6: 0x80, 8: 0x80}
		e.School, e.Student, e.Period, e.Date, e.Status, e.FirstArrival = "hangang", fmt.Sprint(i), "1", day, timetable.Present, e.RawArrival
		events = append(events, e)
	}
	in.append(events...)
	r := serve(t, in.file)
	for !strings.Contains(r.log.String(), `msg="a day is over" date=2020-03-02 check_ins=3`) {
		<-r.log.more
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	out, diff, err := in.reconcile("-date", "2020-03-02")
	if err != nil || out.Digest == nil || out.Digest.Rows != 3 || out.Digest.Digest != out.Books["store"].Digest {
		t.Errorf("got %v, %+v\n%s\nwant the digest of 3, and the store to come to it", err, out, diff)
	}
	in.harm("1", true)
	if _, diff, _ := in.reconcile("-date", "2020-03-02"); !strings.Contains(diff, "journal: digest (recorded on ") {
		t.Errorf("a forged record: got\n%s\nwant the digest to differ", diff)
	}
	again := serve(t, in.file)
	if err := again.stop(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(again.log.String(), "a day is over"); n != 0 {
		t.Errorf("%d days got another digest at the next start", n)
	}
}

func TestReconcileListsAllDifferencesIntoAFile(t *testing.T) {
	in := newInstallation(t, 25)
	in.sql("DELETE FROM arrivals")
	list := filepath.Join(t.TempDir(), "list.jsonl")
	out, _, err := in.reconcile("-o", list)
	text, readErr := os.ReadFile(list)
	if exitCode(err) != 1 || readErr != nil || strings.Count(string(text), "\n") != 50 || out.Total != 50 || len(out.List) != differencesShown {
		t.Errorf("got %v %v, %d differences of which %d are shown and %d written; want 50, %d and 50", err, readErr, out.Total, len(out.List), strings.Count(string(text), "\n"), differencesShown)
	}
	people, _, _ := firstbell(t, "reconcile", "-config", in.file)
	if !strings.Contains(people, "… and 30 more; -o FILE has all of them") {
		t.Errorf("for people: %s", people)
	}
}

// The digest is recomputed as digest.go tells an auditor to.
func TestAnAuditorComesToTheSameDigest(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here")
	}
	in := newInstallation(t, 5)
	source, err := os.ReadFile("../../attendance/digest.go")
	if err != nil {
		t.Fatal(err)
	}
	var program strings.Builder
	_, rest, _ := strings.Cut(string(source), "with an export as JSON Lines:\n//\n")
	for line := range strings.SplitSeq(rest, "\n") {
		text, ok := strings.CutPrefix(line, "//\t")
		if !ok {
			break
		}
		program.WriteString(text + "\n")
	}
	jsonl, _, err := firstbell(t, "export", "-config", in.file, "-format", "jsonl")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-c", program.String())
	cmd.Stdin = strings.NewReader(jsonl)
	got, err := cmd.CombinedOutput()
	out, _, _ := in.reconcile()
	want := fmt.Sprintf("%d %s\n", out.Books["journal"].Rows, out.Books["journal"].Digest)
	if err != nil || string(got) != want {
		t.Errorf("an auditor comes to %q (%v), reconcile to %q", got, err, want)
	}
}
