package attendance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// told is what the log says of contradictions, by whose credential named whom.
func told(t *testing.T, l *fakeLog) map[string]uint32 {
	t.Helper()
	events, err := Contradictions(l.journal)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]uint32)
	for _, e := range events {
		out[fmt.Sprintf("%s %s of %s named %s %s", e.Date, e.Student, e.School, e.Contradiction.Field, e.Contradiction.Claimed)] = e.Contradiction.Times
	}
	return out
}

const atNorth = "north.school.example"

func TestContradictionsAreEvidenceInTheJournal(t *testing.T) {
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		r := mustNew(t, Config{Log: l, Secret: secret})
		stop := run(t, r)
		began := time.Now()
		for range 3 {
			r.Contradicted(atNorth, "s1", ContradictsStudent, "s2")
			time.Sleep(time.Second)
		}
		r.Contradicted(atNorth, "s1", ContradictsClass, "3c")
		time.Sleep(evidenceEvery)
		synctest.Wait()
		want := map[string]uint32{"2000-01-01 s1 of north named student s2": 3, "2000-01-01 s1 of north named class 3c": 1}
		if got := told(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		e := l.events(t)[slices.IndexFunc(l.events(t), func(e Event) bool { return e.Contradiction.Field == ContradictsStudent })]
		if !e.FirstArrival.Equal(began) || !e.Contradiction.Last.Equal(began.Add(2*time.Second)) {
			t.Errorf("got from %s to %s, want from %s for two seconds", e.FirstArrival, e.Contradiction.Last, began)
		}

		// One more is not told before the count has doubled; an end in good order tells all.
		r.Contradicted(atNorth, "s1", ContradictsStudent, "s2")
		appends := l.count()
		time.Sleep(time.Minute)
		synctest.Wait()
		if l.count() != appends {
			t.Errorf("got %d appends for a fourth time, want none yet", l.count()-appends)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		want["2000-01-01 s1 of north named student s2"] = 4
		if got := told(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("at the end: got %v, want %v", got, want)
		}

		// The next process goes on counting where this one ended.
		r = mustNew(t, Config{Log: l, Journal: l.journal, Secret: secret})
		stop = run(t, r)
		r.Contradicted(atNorth, "s1", ContradictsStudent, "s2")
		take(t, r, press("s1")) // and its roll is a roll of check-ins
		time.Sleep(time.Hour + contradictionSweep + evidenceEvery)
		synctest.Wait()
		want["2000-01-01 s1 of north named student s2"] = 5
		if got := told(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("after a restart and an hour: got %v, want %v", got, want)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if rows := l.rows(t); len(rows) != 1 || rows[0].Student != "s1" {
			t.Errorf("rows: got %v, want one of s1", rows)
		}
	})
}

func TestContradictionsCannotFillTheDisk(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		// One credential names three hundred, again and again.
		for range 10 {
			for n := range 300 {
				r.Contradicted(atNorth, "s1", ContradictsStudent, fmt.Sprint("mate", n))
			}
			time.Sleep(time.Second)
		}
		synctest.Wait()
		got := told(t, l)
		if len(got) != contradictionNamesMax+1 || got["2000-01-01 s1 of north named student "] == 0 {
			t.Errorf("got %d names, want %d and one of the rest", len(got), contradictionNamesMax)
		}
		if n := len(l.events(t)); n > 7*(contradictionNamesMax+1) {
			t.Errorf("got %d records for %d counts up to 3,000, want no more than doublings", n, len(got))
		}

		// So do credentials of many schools.
		for n := range contradictionsMax + 8000 {
			r.Contradicted(fmt.Sprintf("school%d.example", n%10_000), fmt.Sprint("s", n), ContradictsStudent, "mate")
		}
		if n := len(r.contradictions.known); n > contradictionsMax+1 {
			t.Errorf("got %d counts in memory, want at most %d", n, contradictionsMax)
		}
		rest := r.hashers.get().contradiction(dateOfDay(10957), "", "", ContradictsStudent, "")
		if k := r.contradictions.known[rest]; k == nil || k.event.Contradiction.Times < 4000 {
			t.Errorf("got %+v for those that nothing has room for, want the rest of them", k)
		}

		// The next day all of it is told and forgotten.
		time.Sleep(16 * time.Hour)
		synctest.Wait()
		if n, names := len(r.contradictions.known), len(r.contradictions.names); n != 0 || names != 0 {
			t.Errorf("a day later: got %d counts and %d credentials in memory, want none", n, names)
		}
		sum := uint32(0)
		for _, times := range told(t, l) {
			sum += times
		}
		if want := uint32(3_000 + contradictionsMax + 8000); sum != want {
			t.Errorf("a day later: got %d in the journal, want %d", sum, want)
		}
	})
}

func TestWhatIsClaimedMayBeAnything(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		for _, claimed := range []string{strings.Repeat("x", 257), "a\x00b", "\xff", ""} {
			r.Contradicted(atNorth, "s1", ContradictsStudent, claimed)
		}
		time.Sleep(evidenceEvery)
		synctest.Wait()
		if got := told(t, l); len(got) != 1 || got["2000-01-01 s1 of north named student "] != 4 {
			t.Errorf("got %v, want four without a name", got)
		}
	})
}
