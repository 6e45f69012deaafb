package sink

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"firstbell/attendance"
)

var kim = Asked{Author: "kim", Why: "the class exists now"}

func TestParkedRecordsAreTriedAgainOrDroppedWithAnAuditLine(t *testing.T) {
	o := newOrigin(t, 3, 7, 12, 19)
	dir := t.TempDir()
	s := o.open(dir)
	if done, err := deliver(s, bulk(1, 31)); err != nil || done.Parked != 4 || s.ParkedNow() != 4 {
		t.Fatalf("got %+v %v and %d parked, want 4", done, err, s.ParkedNow())
	}
	key := func(n int) string { e := arrival(n); return e.WireKey() }
	delete(o.poison, "s00003")
	delete(o.poison, "s00007")
	handled, err := s.Retry(t.Context(), []string{key(3), key(12), "of another sink"}, kim)
	if err != nil || len(handled) != 2 || handled[0].Result != "delivered" || handled[1].Result != "parked" || !strings.Contains(handled[1].Reason, "422") {
		t.Errorf("retry: got %+v %v, want one delivered and one still parked", handled, err)
	}
	handled, err = s.Drop(t.Context(), []string{key(12)}, kim)
	if err != nil || len(handled) != 1 || handled[0].Result != "dropped" {
		t.Errorf("drop: got %+v %v", handled, err)
	}
	if handled, err = s.Retry(t.Context(), nil, kim); err != nil || len(handled) != 2 {
		t.Errorf("retry of all: got %+v %v, want the two that are left", handled, err)
	}
	if students, _ := parkedStudents(t, dir); !slices.Equal(students, []string{"s00019"}) || s.ParkedNow() != 1 {
		t.Errorf("got parked %v, %d now, want s00019 alone", students, s.ParkedNow())
	}
	var audit []string
	for p, err := range ReadHandled(dir) {
		if err != nil || p.Author != "kim" || p.Why != kim.Why || p.Time.IsZero() {
			t.Errorf("got the audit line %+v %v, want who, when and why", p, err)
		}
		audit = append(audit, strings.TrimSuffix(p.Key[len(p.Key)-2:]+" "+p.Settled, " "))
	}
	if got, want := strings.Join(audit, ", "), "03 delivered, 12, 12 dropped, 07 delivered, 19"; got != want {
		t.Errorf("got the audit lines %s, want %s", got, want)
	}
	again := o.open(dir) // after a restart
	if again.ParkedNow() != 1 || o.stored[key(3)] != 1 || o.stored[key(12)] != 0 {
		t.Errorf("after a restart: got %d parked, %d and %d stored, want 1, 1 and 0", again.ParkedNow(), o.stored[key(3)], o.stored[key(12)])
	}
	wantPosition(t, s, attendance.Position{Next: 31})
}

func TestARetryToAnEndpointThatIsDownLeavesAllParked(t *testing.T) {
	o := newOrigin(t, 3)
	dir := t.TempDir()
	s := o.open(dir)
	if _, err := deliver(s, bulk(1, 11)); err != nil {
		t.Fatal(err)
	}
	o.answer = func(w http.ResponseWriter, _ []string) bool { w.WriteHeader(503); return true }
	if handled, err := s.Retry(t.Context(), nil, kim); err == nil || len(handled) != 0 || s.ParkedNow() != 1 {
		t.Errorf("got %+v %v and %d parked, want the error and it parked as before", handled, err, s.ParkedNow())
	}
}

// A crash anywhere in the file leaves each record parked or not, never half.
func TestTheParkedFileMayEndAnywhere(t *testing.T) {
	o := newOrigin(t, 3, 7)
	dir := t.TempDir()
	s := o.open(dir)
	if _, err := deliver(s, bulk(1, 11)); err != nil {
		t.Fatal(err)
	}
	e := arrival(3)
	if _, err := s.Drop(t.Context(), []string{e.WireKey()}, kim); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, parkedFile))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n <= len(whole); n += 7 {
		cut := t.TempDir()
		if err := os.WriteFile(filepath.Join(cut, parkedFile), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		lines := strings.Count(string(whole[:n]), "\n")
		want := []int{0, 1, 2, 1}[lines]
		open, err := readParked(cut)
		if err != nil || len(open) != want {
			t.Fatalf("cut to %d bytes, %d lines: got %d parked, %v, want %d", n, lines, len(open), err, want)
		}
		f, err := openParked(cut)
		if err != nil {
			t.Fatal(err)
		}
		again := Sink{parked: f, lot: map[parkedID]bool{}}
		rec := recordOf(&e)
		if err := again.park([]Parked{newParked(&rec, "again")}); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if after, err := readParked(cut); err != nil || !slices.ContainsFunc(after, func(p Parked) bool { return p.Position == 3 }) {
			t.Fatalf("cut to %d bytes: what was parked afterwards is not there: %v", n, err)
		}
	}
}
