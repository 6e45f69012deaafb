package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGoodFileIsReadWholeWithDefaults(t *testing.T) {
	c, problems := Read("/etc/firstbell/firstbell.yaml", []byte(good))
	if c == nil {
		t.Fatalf("the good file was refused:\n%s", problems)
	}
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	check("zone", c.Location.String(), "Asia/Seoul")
	check("store", c.Attendance.Store, "sqlite:/var/lib/firstbell/attendance.db")
	check("grace", c.Attendance.Grace, 15*time.Minute)
	check("cache", c.Cache.Memory, Size(1<<30))
	check("queue", *c.Origins["lms"].Concurrency.Queue, 2048)
	check("ttl", c.Routes[1].Cache.DefaultTTL, 10*time.Minute)
	check("path of the last route", c.Routes[2].Path, "/*")
	check("sink", c.Attendance.Sinks[0].Name, "10-0-0-5-8080-bulk")
	check("access log", *c.Log.Access, true)
}

func TestSmallestUsefulFile(t *testing.T) {
	c, problems := Read("firstbell.yaml", []byte(`listen: {http: ":8080"}
origins:
  lms: {servers: ["http://10.0.0.5:8080"]}
routes:
  - {hosts: ["*"], origin: lms, cache: {}}
`))
	if c == nil || len(problems) > 0 {
		t.Fatalf("got problems, want none:\n%s", problems)
	}
}

func TestAllProblemsAreShownAtOnceInTheOrderOfTheFile(t *testing.T) {
	text := strings.NewReplacer("Asia/Seoul", "Mars", "09:10", "9:10", "1GiB", "1", "default_ttl", "dfault_ttl", "origin: lms", "origin: lsm").Replace(good)
	_, problems := Read("firstbell.yaml", []byte(text))
	var got []string
	for _, p := range problems.Errors() {
		got = append(got, p.Path)
	}
	want := []string{"timezone", "timetable.periods[0].late_after", "cache.memory", "routes[1].origin", "routes[1].cache.dfault_ttl", "routes[2].origin"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestAProblemShowsItsLine(t *testing.T) {
	_, problems := Read("firstbell.yaml", []byte(strings.Replace(good, "1GiB", "1", 1)))
	if got, want := problems.Errors()[0].Source, "cache: {memory: 1}"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAnchorsAndMergesAreFollowed(t *testing.T) {
	c, problems := Read("firstbell.yaml", []byte(`x-lessons: &lessons
  anonymous: true
  default_ttl: 10m
listen: {http: ":8080"}
origins:
  lms: &lms {servers: ["http://10.0.0.5:8080"]}
  other: *lms
routes:
  - {hosts: [a.example], origin: lms, cache: *lessons}
  - {hosts: [b.example], origin: other, cache: {<<: *lessons, default_ttl: 1m}}
`))
	if c == nil {
		t.Fatalf("got problems, want none:\n%s", problems)
	}
	a, b := c.Routes[0].Cache, c.Routes[1].Cache
	if a.DefaultTTL != 10*time.Minute || b.DefaultTTL != time.Minute || !b.Anonymous {
		t.Errorf("got %+v and %+v; want 10m, and 1m with anonymous", a, b)
	}
	if got := c.Origins["other"].Servers; !slices.Equal(got, []string{"http://10.0.0.5:8080"}) {
		t.Errorf("the aliased origin has the servers %v", got)
	}
}

func TestAnchorsThatGrowWithoutEndAreRefusedQuickly(t *testing.T) {
	var b strings.Builder
	b.WriteString("x-a0: &a0 [a.example]\n")
	for i := 1; i < 10; i++ {
		b.WriteString("routes" + string(rune('0'+i)) + ": &a" + string(rune('0'+i)) + " [" + strings.Repeat("*a"+string(rune('0'+i-1))+", ", 9) + "]\n")
	}
	for name, text := range map[string]string{
		"within itself":  "routes: &a\n  - *a\n",
		"in a circle":    "routes: &a\n  - hosts: &b [*a, *b]\n",
		"merged":         "origins: &a\n  <<: *a\n",
		"ten to the ten": strings.ReplaceAll(b.String(), "routes", "x-"),
	} {
		if c, problems := Read("firstbell.yaml", []byte(text)); c != nil || len(problems) > problemsMax {
			t.Errorf("%s: got %d problems; want some, at most %d", name, len(problems), problemsMax)
		}
	}
}

func TestHostsAreComparedInOneForm(t *testing.T) {
	for in, want := range map[string]string{
		"WWW.School.Example.": "www.school.example",
		"학교.example":          "xn--9d0b527e.example",
		"*.School.Example":    "*.school.example",
		"10.0.0.7":            "10.0.0.7",
		"[::1]":               "[::1]",
		"lms_old.local":       "lms_old.local",
		"*":                   "*",
	} {
		if got, what, _ := normalHost(in); got != want || what != "" {
			t.Errorf("%q: got %q (%s), want %q", in, got, what, want)
		}
	}
}

func TestWarningsDoNotKeepAFileFromBeingUsed(t *testing.T) {
	text := strings.Replace(good, "  roster: /etc/firstbell/roster\n", "", 1) +
		"  - hosts: [\"*.school.example\", other.example]\n    origin: lms\n"
	text = strings.Replace(text, "  lms:\n", "  idle: {servers: [\"http://10.0.0.9\"]}\n  lms:\n", 1)
	c, problems := Read("firstbell.yaml", []byte(text))
	if c == nil {
		t.Fatalf("refused:\n%s", problems.Errors())
	}
	for _, want := range []string{"anybody can check in for anybody", "no roster", "no route leads to this origin", "already takes *.school.example"} {
		if !strings.Contains(problems.Error(), want) {
			t.Errorf("no warning says %q in:\n%s", want, problems)
		}
	}
}

func TestRoutesOfDifferentMethodsAreBothReached(t *testing.T) {
	_, problems := Read("firstbell.yaml", []byte(`listen: {http: ":8080"}
origins: {lms: {servers: ["http://a:1"]}}
routes:
  - {hosts: [a.example], origin: lms}
  - {hosts: [a.example], methods: [GET], origin: lms}
  - {hosts: [a.example], methods: [POST], origin: lms}
`))
	if len(problems) != 0 {
		t.Errorf("got problems, want none:\n%s", problems)
	}
}

// csvRows are schools files and the one problem each has.
var csvRows = []struct {
	name, text   string
	line, column int
	what, fix    string
}{
	{"empty", "", 1, 1, "no first line", "id,hosts"},
	{"unknown column", "id,host\na,a.example\n", 1, 1, `unknown column "host"`, "did you mean hosts?"},
	{"column twice", "id,hosts,id\n", 1, 1, "twice", "remove one"},
	{"column missing", "hosts,timezone\n", 1, 1, "column id is missing", "begin with"},
	{"nothing below", "id,hosts\n", 1, 1, "no school", "add a line"},
	{"too many fields", "id,hosts\na,a.example,b.example\n", 2, 1, "3 fields", "by spaces"},
	{"open quote", "id,hosts\na,\"a.example\n", 2, 0, "not CSV", "quote"},
	{"no id", "id,hosts\n,a.example\n", 2, 1, "no id", "roster"},
	{"id twice", "id,hosts\na,a.example\na,b.example\n", 3, 1, "second time, first on line 2", "one place"},
	{"host twice", "id,hosts\na,a.example\nb,b.example A.EXAMPLE\n", 3, 3, "belongs to the school a on line 2", "remove it"},
	{"wildcard", "id,hosts\na,*.a.example\n", 2, 3, "not one host name", "each name"},
	{"unknown zone", "id,hosts,timezone\na,a.example,Mars\n", 2, 13, "no time zone", "Asia/Seoul"},
	{"unknown timetable", "id,hosts,timezone,timetable\na,a.example,,lat\n", 2, 14, "no timetable", "did you mean late?"},
}

func TestEveryMistakeInASchoolsFileIsNamedWithItsPlace(t *testing.T) {
	c := &Config{Timetable: &Timetable{}, Timetables: map[string]*Timetable{"late": {}}}
	for _, r := range csvRows {
		t.Run(r.name, func(t *testing.T) {
			_, problems := parseSchools("schools.csv", []byte(r.text), c)
			if len(problems) != 1 {
				t.Fatalf("got %d problems, want 1:\n%s", len(problems), problems)
			}
			p := problems[0]
			if p.File != "schools.csv" || p.Line != r.line || r.column > 0 && p.Column != r.column {
				t.Errorf("got %s, want line %d, column %d", p, r.line, r.column)
			}
			if !strings.Contains(p.What, r.what) || !strings.Contains(p.Fix, r.fix) {
				t.Errorf("got %s\nwant %q, then %q", p, r.what, r.fix)
			}
		})
	}
}

func TestSchoolsFileMayHaveItsColumnsInAnyOrder(t *testing.T) {
	list, problems := parseSchools("schools.csv", []byte("\ufefftimetable,hosts,id\r\n,b.example;c.example d.example,b\r\n"), &Config{})
	if len(problems) > 0 || len(list) != 1 || list[0].ID != "b" || len(list[0].Hosts) != 3 || list[0].Line != 2 {
		t.Errorf("got %+v and problems %v", list, problems)
	}
}

// writeConfig is a directory with good in it, moved to that directory.
func writeConfig(t *testing.T, edit func(string) string) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	text := strings.NewReplacer("/var/lib/firstbell/", "", "/etc/firstbell/", "").Replace(good)
	if edit != nil {
		text = edit(text)
	}
	file = filepath.Join(dir, "firstbell.yaml")
	write(t, file, text)
	if err := os.Mkdir(filepath.Join(dir, "roster"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRelativePathsBeginWhereTheFileLies(t *testing.T) {
	dir, file := writeConfig(t, nil)
	c, problems := Load(file)
	if c == nil {
		t.Fatal(problems)
	}
	if got, want := c.Attendance.Journal, filepath.Join(dir, "journal"); got != want {
		t.Errorf("journal: got %s, want %s", got, want)
	}
	if _, err := os.Stat(c.Attendance.Journal); err == nil {
		t.Error("reading the file made the journal's directory; want nothing started")
	}
}

func TestWhatTheMachineLacksIsNamed(t *testing.T) {
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	schools := "schools:\n  - {id: hangang, hosts: [hangang.school.example]}"
	for _, m := range []struct {
		name      string
		edit      func(string) string
		path      string
		what, fix string
	}{
		{"journal below nothing", replace("journal: journal", "journal: no/such/journal"), "attendance.journal", "is not there", "mkdir -p"},
		{"journal is a file", replace("journal: journal", "journal: firstbell.yaml"), "attendance.journal", "is a file", "name a directory"},
		{"store is a directory", replace("sqlite:attendance.db", "sqlite:roster"), "attendance.store", "is a directory", "name a file"},
		{"store below nothing", replace("sqlite:attendance.db", "sqlite:no/a.db"), "attendance.store", "is not there", "mkdir -p"},
		{"no password file", replace("sqlite:attendance.db", "postgres://db/a\n  store_password_file: no"), "attendance.store_password_file", "no such file", "create it"},
		{"no roster", replace("roster: roster", "roster: rooster"), "attendance.roster", "no such file", "orgs.csv"},
		{"no schools file", replace(schools, "schools: schools.csv"), "schools", "no such file", "id,hosts"},
		{"no token file", replace("timezone:", "ops: {token_file: token}\ntimezone:"), "ops.token_file", "no such file", "create it"},
		{"token file of two lines", replace("timezone:", "ops: {token_file: firstbell.yaml}\ntimezone:"), "ops.token_file", "one line", "one line"},
		{"sink's token file", replace(`bulk"}`, `bulk", token_file: no}`), "attendance.sinks[0].http.token_file", "no such file", "create it"},
	} {
		t.Run(m.name, func(t *testing.T) {
			_, file := writeConfig(t, m.edit)
			c, problems := Load(file)
			if c != nil || len(problems.Errors()) != 1 {
				t.Fatalf("want one error, got:\n%s", problems)
			}
			p := problems.Errors()[0]
			if p.Path != m.path || p.Line == 0 || !strings.Contains(p.What, m.what) || !strings.Contains(p.Fix, m.fix) {
				t.Errorf("got %s\nwant %s: %q, then %q", p, m.path, m.what, m.fix)
			}
		})
	}
	if _, problems := Load("/no/such/file.yaml"); len(problems) != 1 || problems[0].What != "there is no such file" {
		t.Errorf("a file that is not there: got %v", problems)
	}
}

// TestUnwritableDirectoryIsNamed takes a directory in which nobody can make
// anything, not even root.
func TestUnwritableDirectoryIsNamed(t *testing.T) {
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("left out: there is no /proc here")
	}
	_, file := writeConfig(t, func(s string) string { return strings.Replace(s, "journal: journal", "journal: /proc/self", 1) })
	if _, problems := Load(file); len(problems.Errors()) != 1 || !strings.Contains(problems.Error(), "cannot be written to") {
		t.Errorf("got %v", problems)
	}
}

// FuzzRead: whatever the file holds, reading ends without a panic, and each
// problem has a place and a way out.
func FuzzRead(f *testing.F) {
	f.Add([]byte(good))
	for _, m := range mistakes {
		text := m.new
		if m.old != "" {
			text = strings.Replace(good, m.old, m.new, 1)
		}
		f.Add([]byte(strings.Replace(text, "▸", "", 1)))
	}
	f.Add([]byte("a: &a [*a, *a]\n<<: *a\n? {b: c}\n: |\n  x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, problems := Read("fuzz.yaml", text)
		if c == nil && len(problems.Errors()) == 0 {
			t.Fatal("refused without a problem")
		}
		for _, p := range problems {
			if p.What == "" || p.Fix == "" || p.Line < 1 && len(text) <= fileBytesMax {
				t.Errorf("a problem without place or way out: %s", p)
			}
		}
	})
}

// FuzzSchools is the same for the schools file.
func FuzzSchools(f *testing.F) {
	for _, r := range csvRows {
		f.Add([]byte(r.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, problems := parseSchools("fuzz.csv", text, &Config{})
		if len(list) == 0 && len(problems) == 0 {
			t.Error("neither schools nor problems")
		}
	})
}
