package bell

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRosterNumbersAndIdsBelongTogether(t *testing.T) {
	for _, c := range []struct{ students, schools int }{{1, 1}, {3, 3}, {300, 7}, {20000, 40}, {12345, 101}} {
		r, err := NewRoster(c.students, c.schools, 1)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		schools := map[int]bool{}
		for i := range r.Students() {
			s := r.Student(i)
			if got, ok := r.Index(s.ID); !ok || got != i {
				t.Fatalf("%d students in %d schools: student %d has id %s, which is number %d", c.students, c.schools, i, s.ID, got)
			}
			if s.Grade < 1 || s.Grade > grades {
				t.Fatalf("student %d is in grade %d", i, s.Grade)
			}
			seen[s.ID], schools[s.School] = true, true
		}
		if len(seen) != c.students || len(schools) != c.schools {
			t.Errorf("%d ids in %d schools, want %d in %d", len(seen), len(schools), c.students, c.schools)
		}
	}
	r, _ := NewRoster(300, 7, 1)
	for _, id := range []string{"", "0100000", "0100044", "0800001", "01-0001", "1"} {
		if i, ok := r.Index(id); ok {
			t.Errorf("id %q of nobody is number %d", id, i)
		}
	}
}

func TestRosterRefusesWhatCannotBe(t *testing.T) {
	for _, c := range []struct{ students, schools int }{{0, 1}, {1, 0}, {2, 3}} {
		if _, err := NewRoster(c.students, c.schools, 1); err == nil {
			t.Errorf("%d students in %d schools made a roster", c.students, c.schools)
		}
	}
}

func TestOneRosterFilesAgreeWithEachOther(t *testing.T) {
	r, err := NewRoster(300, 3, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := r.WriteOneRoster(dir, time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	rows := func(name string) []map[string]string {
		t.Helper()
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		all, err := csv.NewReader(f).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var out []map[string]string
		for _, line := range all[1:] {
			m := map[string]string{}
			for i, v := range line {
				m[all[0][i]] = v
			}
			out = append(out, m)
		}
		return out
	}
	ids := func(name string) map[string]bool {
		out := map[string]bool{}
		for _, row := range rows(name) {
			if out[row["sourcedId"]] {
				t.Errorf("%s has %s twice", name, row["sourcedId"])
			}
			out[row["sourcedId"]] = true
		}
		return out
	}
	orgs, users, classes, courses := ids("orgs.csv"), ids("users.csv"), ids("classes.csv"), ids("courses.csv")
	sessions := ids("academicSessions.csv")
	if len(orgs) != 3 || len(users) != 300 || len(ids("enrollments.csv")) != 300 {
		t.Errorf("%d orgs, %d users, %d enrolments; want 3, 300, 300", len(orgs), len(users), len(ids("enrollments.csv")))
	}
	for _, c := range rows("classes.csv") {
		if !courses[c["courseSourcedId"]] || !orgs[c["schoolSourcedId"]] || !sessions[c["termSourcedIds"]] {
			t.Errorf("class %v refers to what is not there", c)
		}
	}
	for _, e := range rows("enrollments.csv") {
		if !classes[e["classSourcedId"]] || !users[e["userSourcedId"]] || !orgs[e["schoolSourcedId"]] {
			t.Errorf("enrolment %v refers to what is not there", e)
		}
	}
}
