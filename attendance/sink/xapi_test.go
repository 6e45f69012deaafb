package sink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"firstbell/attendance"
)

func TestStatementsAreWellFormedAndKnownByTheReceipt(t *testing.T) {
	for _, version := range []string{"1.0.3", "2.0.0"} {
		l := newLRS(t, version)
		s := l.open(t.TempDir())
		b := bulk(1, 301)
		b.Events[0].ClassIsKey, b.Events[0].Student = true, `민 "a"/b`
		done, err := deliver(s, b)
		if err != nil || done != (attendance.Delivered{Rows: 300, Writes: 1}) || len(l.statements) != 300 {
			t.Fatalf("%s: got %+v %v and %d statements, want 300 in one request", version, done, err, len(l.statements))
		}
		first := l.statements[b.Events[0].ID.String()]
		if first == nil {
			t.Fatalf("%s: there is no statement under the receipt's id", version)
		}
		account := first["actor"].(map[string]any)["account"].(map[string]any)
		extensions := first["context"].(map[string]any)["extensions"].(map[string]any)
		object := first["object"].(map[string]any)
		if account["homePage"] != "https://north.school.example" || account["name"] != `민 "a"/b` || first["verb"].(map[string]any)["id"] != verbAttended ||
			extensions[extensionsDefault+"status"] != "present" || extensions[extensionsDefault+"period"] != "1" || object["id"] != "https://north.school.example/attendance/2026-05-04/1/3b" {
			t.Errorf("%s: got %v", version, first)
		}
	}
}

func TestOneBadStatementIsPartedOutOfTheArray(t *testing.T) {
	l := newLRS(t, "1.0.3")
	l.poison["s00040"] = true
	dir := t.TempDir()
	s := l.open(dir)
	done, err := deliver(s, bulk(1, 101))
	if err != nil || done.Rows != 99 || done.Parked != 1 || done.Writes != l.posts || len(l.statements) != 99 {
		t.Fatalf("got %+v %v in %d requests, %d kept, want 99 and 1 parked", done, err, l.posts, len(l.statements))
	}
	if students, reasons := parkedStudents(t, dir); !slices.Equal(students, []string{"s00040"}) || !strings.Contains(reasons[0], "400: cannot take s00040") {
		t.Errorf("got parked %v %v", students, reasons)
	}
}

// The answer got lost, or the process died: the same statements come again. An
// LRS that accepts them takes them once; one that answers 409 has each compared.
func TestStatementsThatAreThereAreDuplicates(t *testing.T) {
	for _, strict := range []bool{false, true} {
		l := newLRS(t, "1.0.3")
		l.strict = strict
		dir := t.TempDir()
		s := l.open(dir)
		l.after = func(w http.ResponseWriter) bool { panic(http.ErrAbortHandler) }
		if _, err := deliver(s, bulk(1, 31)); err == nil {
			t.Fatal("got no error of an answer that got lost")
		}
		l.mu.Lock()
		l.after = nil
		l.mu.Unlock()
		done, err := deliver(l.open(dir), bulk(1, 31))
		want := attendance.Delivered{Rows: 30, Writes: 1}
		if strict {
			want = attendance.Delivered{Duplicates: 30, Writes: done.Writes}
		}
		if err != nil || done != want || len(l.statements) != 30 {
			t.Errorf("strict %v: got %+v %v and %d statements, want %+v and 30", strict, done, err, len(l.statements), want)
		}
		if students, _ := parkedStudents(t, dir); len(students) > 0 {
			t.Errorf("strict %v: parked %v, want nothing", strict, students)
		}
	}
}

// A statement never changes. A better arrival of the same check-in voids the old
// statement and brings another; as often as it comes, there is one of each.
func TestABetterArrivalVoidsTheStatementAndBringsAnother(t *testing.T) {
	l := newLRS(t, "1.0.3")
	s := l.open(t.TempDir())
	if _, err := deliver(s, bulk(1, 4)); err != nil {
		t.Fatal(err)
	}
	better := arrival(2)
	better.Kind, better.Verified, better.Seq = attendance.KindVerifiedArrival, true, 4
	b := &attendance.Bulk{First: 4, Next: 5, Events: []attendance.Event{better}}
	for range 2 {
		s.begun, s.at = nil, attendance.Position{Next: 4} // as after a crash
		if done, err := deliver(s, b); err != nil || done.Parked != 0 {
			t.Fatalf("got %+v %v, want it delivered", done, err)
		}
	}
	valid := 0
	for id, st := range l.statements {
		name := st["actor"].(map[string]any)["account"].(map[string]any)["name"]
		if name != "s00002" || l.voided[id] || st["verb"].(map[string]any)["id"] == verbVoided {
			continue
		}
		valid++
		if got := st["context"].(map[string]any)["extensions"].(map[string]any)[extensionsDefault+"verified"]; got != true {
			t.Errorf("the statement that holds says verified: %v, want true", got)
		}
	}
	if valid != 1 || len(l.statements) != 5 || !l.voided[better.ID.String()] {
		t.Errorf("got %d valid statements about the student and %d in all, want 1 and 5", valid, len(l.statements))
	}
}

func TestAStatementThatIsNotOursIsParked(t *testing.T) {
	l := newLRS(t, "1.0.3")
	dir := t.TempDir()
	s := l.open(dir)
	other := arrival(2)
	other.Student = "somebody else"
	if _, err := deliver(s, &attendance.Bulk{First: 1, Next: 2, Events: []attendance.Event{other}}); err != nil {
		t.Fatal(err)
	}
	b := bulk(2, 3) // under the same id
	if done, err := deliver(s, b); err != nil || done.Parked != 1 {
		t.Fatalf("got %+v %v, want it parked", done, err)
	}
	if _, reasons := parkedStudents(t, dir); !strings.Contains(reasons[0], "409: the LRS has another statement") {
		t.Errorf("got %v", reasons)
	}
}

func TestWhatIsNoLRSStopsTheSink(t *testing.T) {
	say := func(code int, body string) func(http.ResponseWriter) bool {
		return func(w http.ResponseWriter) bool {
			w.WriteHeader(code)
			fmt.Fprint(w, body)
			return true
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter) bool
		stop   bool
	}{
		"login page":     {say(200, "<html>"), true},
		"empty":          {say(204, ""), true},
		"too few ids":    {say(200, `["00010000-0000-8000-8000-000000000000"]`), true},
		"ids of others":  {say(200, `["a","b","c"]`), true},
		"401":            {say(401, ""), true},
		"404":            {say(404, ""), true},
		"302":            {say(302, ""), true},
		"503":            {say(503, ""), false},
		"429":            {say(429, ""), false},
		"connection cut": {func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) }, false},
	} {
		l := newLRS(t, "1.0.3")
		l.answer = c.answer
		dir := t.TempDir()
		s := l.open(dir)
		_, err := s.Deliver(context.Background(), bulk(1, 4))
		var how *attendance.DeliverError
		errors.As(err, &how)
		if err == nil || (how != nil && how.Stop) != c.stop {
			t.Errorf("%s: got %v, want an error, stop %v", name, err, c.stop)
		}
		if students, _ := parkedStudents(t, dir); len(students) > 0 {
			t.Errorf("%s: parked %v", name, students)
		}
		wantPosition(t, s, attendance.Position{Next: 1, Until: 4})
	}
}

// What an LRS may add or write in another form makes no difference; anything
// else does.
func TestStatementsAreComparedByTheSpecification(t *testing.T) {
	x := XAPIConfig{HomePage: "https://{school}.school.example"}
	l, err := x.lrs()
	if err != nil {
		t.Fatal(err)
	}
	e := arrival(1)
	rec := recordOf(&e)
	st := l.statement(&rec)
	for name, c := range map[string]struct {
		change func(map[string]any)
		same   bool
	}{
		"as it is":           {func(map[string]any) {}, true},
		"id in capitals":     {func(m map[string]any) { m["id"] = strings.ToUpper(st.ID) }, true},
		"another zone":       {func(m map[string]any) { m["timestamp"] = "2026-05-04T00:00:00.0000Z" }, true},
		"another moment":     {func(m map[string]any) { m["timestamp"] = "2026-05-04T09:00:01+09:00" }, false},
		"display":            {func(m map[string]any) { delete(m["verb"].(map[string]any), "display") }, true},
		"another verb":       {func(m map[string]any) { m["verb"].(map[string]any)["id"] = "http://x/" }, false},
		"definition":         {func(m map[string]any) { delete(m["object"].(map[string]any), "definition") }, true},
		"another object":     {func(m map[string]any) { m["object"].(map[string]any)["id"] = "http://x/" }, false},
		"another extension":  {func(m map[string]any) { m["context"].(map[string]any)["extensions"] = map[string]any{} }, false},
		"another student":    {func(m map[string]any) { m["actor"] = map[string]any{} }, false},
		"a result":           {func(m map[string]any) { m["result"] = map[string]any{"success": true} }, false},
		"what an LRS stores": {func(m map[string]any) { m["stored"], m["authority"], m["version"] = "x", map[string]any{}, "1.0.3" }, true},
	} {
		sent, err := plainStatement(&st)
		kept, err2 := plainStatement(&st)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		c.change(kept)
		if got := sameStatement(sent, kept); got != c.same {
			t.Errorf("%s: got the same %v, want %v", name, got, c.same)
		}
	}
}
