package roster

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	orgsCSV = "sourcedId,status,name,type,identifier\n" +
		"o1,active,Hanbit Middle School,school,HANBIT\n" +
		"o2,,Saebom School,school,\n" +
		"d1,active,The District,district,D\n"
	usersCSV = "sourcedId,status,role,givenName,familyName,orgSourcedIds\n" +
		"s1,active,student,Mina,Kim,o1\n" +
		"s2,active,student,민수,이,\"o1,d1\"\n" +
		"s3,active,student,Ada,\"O'Neil, Jr\",\"o1; o2\"\n" +
		"s4,tobedeleted,student,Gone,Away,o1\n" +
		"s5,active,student,No,Class,o1\n" +
		"t1,active,teacher,Tea,Cher,o1\n"
	classesCSV = "sourcedId,status,title,classType,schoolSourcedId\n" +
		"c2,active,2-1,homeroom,o1\n" +
		"c1,active,Math,scheduled,o1\n" +
		"c3,active,Art,scheduled,o2\n"
	enrollmentsCSV = "sourcedId,status,classSourcedId,schoolSourcedId,userSourcedId,role,beginDate,endDate\n" +
		"e1,active,c1,o1,s1,student,2026-03-02,2026-07-18\n" +
		"e2,active,c2,o1,s1,student,,\n" +
		"e3,active,c1,o1,s2,student,2026-05-04T00:00:00Z,\n" +
		"e4,active,c1,o1,t1,teacher,,\n" +
		"e5,active,c3,o2,s3,student,,\n" +
		"e6,active,c1,o1,s3,student,2026-03-02,2026-05-04\n"
)

func files() map[string]string {
	return map[string]string{"orgs.csv": orgsCSV, "users.csv": usersCSV, "classes.csv": classesCSV, "enrollments.csv": enrollmentsCSV}
}

func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t testing.TB, files map[string]string) (*Roster, Problems) {
	t.Helper()
	r, problems, err := Load(write(t, files))
	if err != nil {
		t.Fatal(err)
	}
	return r, problems
}

func loadGood(t testing.TB, files map[string]string) *Roster {
	t.Helper()
	r, problems := load(t, files)
	for _, p := range problems.List {
		t.Errorf("problem: %s", p)
	}
	return r
}

func school(t testing.TB, r *Roster, id string) *School {
	t.Helper()
	s, ok := r.School(id)
	if !ok {
		t.Fatalf("no school %q", id)
	}
	return s
}

func date(s string) time.Time {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return t
}

func ids(students iter.Seq[Student]) string {
	var out []string
	for s := range students {
		out = append(out, s.ID)
	}
	return strings.Join(out, " ")
}

func classIDs(classes iter.Seq[Class]) string {
	var out []string
	for c := range classes {
		out = append(out, c.ID)
	}
	return strings.Join(out, " ")
}

func expected(s *School, on string) string {
	var out []string
	for st, c := range s.Expected(date(on)) {
		out = append(out, st.ID+":"+c.ID)
	}
	return strings.Join(out, " ")
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestWhoBelongsWhere(t *testing.T) {
	r := loadGood(t, files())
	o1, o2 := school(t, r, "hanbit"), school(t, r, "o2")
	want(t, "students of o1", ids(o1.Students()), "s1 s2 s3 s5")
	want(t, "students of o2", ids(o2.Students()), "s3")
	want(t, "classes of o1", classIDs(o1.Classes()), "c1 c2")
	want(t, "classes of o2", classIDs(o2.Classes()), "c3")
	want(t, "classes of s1", classIDs(o1.ClassesOf("s1", date("2026-05-04"))), "c1 c2")
	want(t, "classes of s3 in o2", classIDs(o2.ClassesOf("s3", date("2026-05-04"))), "c3")
	if c, ok := o1.Class("c2"); !ok || c != (Class{ID: "c2", Title: "2-1", Homeroom: true}) {
		t.Errorf("class c2: got %+v %v", c, ok)
	}
	for _, id := range []string{"t1", "s4", "nobody", ""} {
		if st, ok := o1.Student(id); ok {
			t.Errorf("student %q: got %+v, want none", id, st)
		}
	}
	if _, ok := o2.Class("c1"); ok {
		t.Error("o2 has the class c1 of o1")
	}
}

func TestEnrollmentsHoldFromBeginUntilEnd(t *testing.T) {
	o1 := school(t, loadGood(t, files()), "hanbit")
	for on, in := range map[string]string{"2026-03-01": "", "2026-03-02": "s1 s3", "2026-05-03": "s1 s3", "2026-05-04": "s1 s2", "2026-07-17": "s1 s2", "2026-07-18": "s2"} {
		want(t, "in c1 on "+on, ids(o1.InClass("c1", date(on))), in)
	}
	late := time.Date(2026, 5, 4, 1, 0, 0, 0, time.FixedZone("", 9*3600)) // still the 3rd in UTC
	want(t, "in c1, by the date of the given zone", ids(o1.InClass("c1", late)), "s1 s2")
}

// s1 is shown in his homeroom although c1 comes first; s3 has left c1, which is
// not to be absent; s5 has never been in a class, and is expected all the same.
func TestExpectedOncePerStudent(t *testing.T) {
	r := loadGood(t, files())
	want(t, "expected on 05-04", expected(school(t, r, "hanbit"), "2026-05-04"), "s1:c2 s2:c1 s5:")
	want(t, "expected on 03-02", expected(school(t, r, "hanbit"), "2026-03-02"), "s1:c2 s3:c1 s5:")
	want(t, "expected at o2", expected(school(t, r, "o2"), "2026-05-04"), "s3:c3")
	if c, ok := school(t, r, "hanbit").Home("s3", date("2026-05-04")); ok {
		t.Errorf("home of s3, who has left: got %+v, want not expected", c)
	}
}

func TestSchoolIsFoundByIdentifierThenSourcedID(t *testing.T) {
	f := files()
	f["orgs.csv"] = "sourcedId,name,identifier\no1,First,o2\no2,Second,X\no3,Third,x\no4,Fourth,\n"
	delete(f, "classes.csv")
	f["classes.csv"], f["users.csv"] = "sourcedId,schoolSourcedId\n", "sourcedId,givenName,familyName\n"
	f["enrollments.csv"] = "classSourcedId,userSourcedId,role\n"
	r, problems := load(t, f)
	for id, name := range map[string]string{"O2": "First", "o1": "First", "x": "Second", "o3": "Third", "o4": "Fourth"} {
		want(t, "school "+id, school(t, r, id).Name, name)
	}
	var all []string
	for _, s := range r.Schools() {
		all = append(all, s.ID())
		want(t, "school of its own id "+s.ID(), school(t, r, s.ID()).Name, s.Name)
	}
	want(t, "ids", strings.Join(all, " "), "o2 o3 o4 x")
	var got []string
	for _, p := range problems.List {
		got = append(got, fmt.Sprintf("%d %s", p.Line, p.Column))
	}
	want(t, "problems", strings.Join(got, ", "), "4 identifier, 3 sourcedId")
}

func TestNames(t *testing.T) {
	o1 := school(t, loadGood(t, files()), "hanbit")
	for id, name := range map[string]string{"s1": "Mina Kim", "s2": "이민수", "s3": "Ada O'Neil, Jr"} {
		st, _ := o1.Student(id)
		want(t, "name of "+id, st.Name(), name)
	}
	want(t, "one name", Student{Family: "Suharto"}.Name(), "Suharto")
}

// The same roster as OneRoster 1.2 writes it, with a byte order mark, CRLF,
// other order and case of columns, columns nobody knows and roles.csv.
func TestOneRoster12(t *testing.T) {
	f := files()
	f["users.csv"] = "\xef\xbb\xbfFAMILYNAME,givenname,pronouns,sourcedid,primaryOrgSourcedId,,\r\n" +
		"Kim,Mina,she,s1,o1,,\r\n이,민수,,s2,o1,,\r\nJr,Ada,,s3,o1,,\r\nClass,No,,s5,,,\r\nCher,Tea,,t1,o1,,\r\n"
	f["roles.csv"] = "sourcedId,status,userSourcedId,roleType,role,orgSourcedId\nr1,active,s5,primary,student,o1\nr2,active,t1,primary,teacher,o1\nr3,tobedeleted,t1,primary,student,o1\n"
	o1 := school(t, loadGood(t, f), "hanbit")
	want(t, "students", ids(o1.Students()), "s1 s2 s3 s5")
	want(t, "expected", expected(o1, "2026-05-04"), "s1:c2 s2:c1 s5:")
}

func TestBrokenRowsAreListedAndGoodOnesLoad(t *testing.T) {
	f := files()
	f["orgs.csv"] = orgsCSV + "o1,active,Again,school,\n,active,No id,school,\n"
	f["users.csv"] = "sourcedId,status,role,givenName,familyName,orgSourcedIds\n" +
		"s1,active,student,Mina,Kim,o1\n" + // 2
		"s1,active,student,Twice,Kim,o1\n" + // 3
		"s2,maybe,student,A,B,o1\n" + // 4
		"s3,active,student,\"never closed,B,o1\n" + // 5
		"s4,active,student,\xc0\xcc,B,o1\n" + // 6
		"s5,active,student,A,B\n" + // 7
		"s6,active,student,A,B,o1,o2\n" + // 8
		"s7,active,student,\"A\"B,B,o1\n" + // 9
		"s8,active,student,A,B,nowhere\n" + // 10
		strings.Repeat("x", 70<<10) + "\n" + // 11
		"\n" +
		"s9,active,student,\"two\nlines\",\"say \"\"hi\"\"\",o1\n" + // 13, 14
		"s10,active,student,A,B,o1" // 15
	f["classes.csv"] = classesCSV + "c9,active,X,scheduled,d1\n"
	f["enrollments.csv"] = "classSourcedId,userSourcedId,role,beginDate,endDate\nc1,s1,student,02.03.2026,\nc1,s99,student,,\nc99,s10,student,,\nc1,t99,teacher,,\nc1,s10,student,,\n"
	r, problems := load(t, f)
	var got []string
	for _, p := range problems.List {
		got = append(got, fmt.Sprintf("%s:%d %s", p.File, p.Line, p.Column))
		if p.Reason == "" {
			t.Errorf("%v has no reason", p)
		}
	}
	wantList := []string{
		"orgs.csv:5 sourcedId", "orgs.csv:6 sourcedId",
		"users.csv:3 sourcedId", "users.csv:4 status", "users.csv:5 ", "users.csv:6 givenName", "users.csv:7 ", "users.csv:8 ", "users.csv:9 ", "users.csv:10 orgSourcedIds", "users.csv:11 ",
		"classes.csv:5 schoolSourcedId",
		"enrollments.csv:2 beginDate", "enrollments.csv:3 userSourcedId", "enrollments.csv:4 classSourcedId",
	}
	if !slices.Equal(got, wantList) {
		t.Errorf("problems: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wantList, "\n"))
	}
	if r.Problems() != len(wantList) {
		t.Errorf("the roster counts %d problems, want %d", r.Problems(), len(wantList))
	}
	o1 := school(t, r, "hanbit")
	want(t, "students that loaded", ids(o1.Students()), "s1 s10 s9")
	st, _ := o1.Student("s9")
	want(t, "quoted name", st.Name(), "two\nlines say \"hi\"")
	want(t, "in c1", ids(o1.InClass("c1", date("2026-05-04"))), "s10")
}

func TestProblemListIsBounded(t *testing.T) {
	f := files()
	f["users.csv"] = usersCSV + strings.Repeat("broken\n", 3000)
	_, problems := load(t, f)
	if len(problems.List) != 1000 || problems.More != 2000 || problems.Total() != 3000 {
		t.Errorf("got %d listed and %d more of %d, want 1000 and 2000 of 3000", len(problems.List), problems.More, problems.Total())
	}
}

func TestHalfARosterIsNone(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(map[string]string)
		says   []string
	}{
		{"no file", func(f map[string]string) { delete(f, "classes.csv") }, []string{"classes.csv", "no such file"}},
		{"empty file", func(f map[string]string) { f["users.csv"] = "" }, []string{"users.csv", "empty", "name the columns"}},
		{"no column", func(f map[string]string) { f["users.csv"] = "sourcedId,givenName\n" }, []string{"users.csv", "line 1", "familyName"}},
		{"semicolons", func(f map[string]string) { f["orgs.csv"] = strings.ReplaceAll(orgsCSV, ",", ";") }, []string{"orgs.csv", "sourcedId", "commas"}},
		{"UTF-16", func(f map[string]string) { f["orgs.csv"] = "\xff\xfes\x00" }, []string{"orgs.csv", "UTF-16", "UTF-8"}},
		{"broken header", func(f map[string]string) { f["orgs.csv"] = "\"sourcedId\n" }, []string{"orgs.csv", "line 1", "quote"}},
	} {
		f := files()
		c.change(f)
		r, _, err := Load(write(t, f))
		if err == nil || r != nil {
			t.Errorf("%s: got %v, %v, want no roster and an error", c.name, r, err)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: got %q, want it to say %q", c.name, err, s)
			}
		}
	}
	if _, _, err := Load(filepath.Join(t.TempDir(), "nowhere")); err == nil {
		t.Error("a directory that is not there: got no error")
	}
}

func TestVersionFollowsTheFiles(t *testing.T) {
	first := loadGood(t, files()).Version()
	if again := loadGood(t, files()).Version(); again != first || len(first) != 16 {
		t.Errorf("the same files again: got %q, want %q", again, first)
	}
	f := files()
	f["enrollments.csv"] += "e7,active,c2,o1,s2,student,,\n"
	if changed := loadGood(t, f).Version(); changed == first {
		t.Errorf("after a change the version is still %s", changed)
	}
	var none *Roster
	want(t, "version of no roster", none.Version(), "")
}

// writeBig writes a roster of n students in schools of 500, each in five classes.
func writeBig(t testing.TB, n int) string {
	dir := t.TempDir()
	file := func(name, header string) (add func(format string, args ...any), done func()) {
		var b strings.Builder
		b.WriteString(header)
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return func(format string, args ...any) {
				fmt.Fprintf(&b, format, args...)
				if b.Len() > 1<<20 {
					f.WriteString(b.String())
					b.Reset()
				}
			}, func() {
				f.WriteString(b.String())
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
	}
	org, orgsDone := file("orgs.csv", "sourcedId,name,type,identifier\n")
	user, usersDone := file("users.csv", "sourcedId,role,givenName,familyName,orgSourcedIds\n")
	class, classesDone := file("classes.csv", "sourcedId,title,classType,schoolSourcedId\n")
	enrollment, enrollmentsDone := file("enrollments.csv", "sourcedId,classSourcedId,userSourcedId,role,beginDate,endDate\n")
	for i := range n {
		s := i / 500
		if i%500 == 0 {
			org("org-%05d,School %d,school,school%d\n", s, s, s)
			for c := range 20 {
				class("class-%05d-%02d,Class %d,scheduled,org-%05d\n", s, c, c, s)
			}
		}
		user("a3f1c2d4-0000-4000-8000-%012d,student,Given%d,Family%d,org-%05d\n", i, i%3000, i%1000, s)
		for c := range 5 {
			enrollment("e%d-%d,class-%05d-%02d,a3f1c2d4-0000-4000-8000-%012d,student,2026-03-02,2027-02-28\n", i, c, s, (i+c)%20, i)
		}
	}
	orgsDone()
	usersDone()
	classesDone()
	enrollmentsDone()
	return dir
}

// doc.go promises 177 MB for a million students in five classes each; a
// fiftieth of them is measured here.
func TestMemoryPerStudentIsBounded(t *testing.T) {
	const students = 20_000
	dir := writeBig(t, students)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r, problems, err := Load(dir)
	if err != nil || problems.Total() > 0 {
		t.Fatal(err, problems)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	perStudent := float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / students
	if perStudent > 250 {
		t.Errorf("a student takes %.0f bytes once loaded, want at most 250", perStudent)
	}
	if r.Users() != students || school(t, r, "school7").Size() != 500 {
		t.Errorf("got %d users and %d in a school, want %d and 500", r.Users(), school(t, r, "school7").Size(), students)
	}
}

func BenchmarkLoad(b *testing.B) {
	const students = 100_000
	dir := writeBig(b, students)
	for b.Loop() {
		if _, _, err := Load(dir); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/students, "ns/student")
}
