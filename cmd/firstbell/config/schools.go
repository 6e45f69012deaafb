package config

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// schoolsBytesMax bounds the schools file: 64 MiB is half a million schools.
const schoolsBytesMax = 64 << 20

// SortedKeys is the keys of m in their order.
func SortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// schools checks the list in the file; the CSV file is for readSchools.
func (v *validator) schools() {
	seen := newSchoolSet(v.c)
	for i := range v.c.Schools.List {
		s := &v.c.Schools.List[i]
		path := fmt.Sprintf("schools[%d]", i)
		s.File, s.Line = v.file, v.where(path).line
		seen.check(s, func(field, what, fix string) { v.wrong(path+"."+field, fix, "%s", what) })
	}
	v.c.Schools.File = v.beside(v.c.Schools.File)
	if v.c.Timetable == nil && len(v.c.Timetables) > 0 && !v.given("timetable") && !v.given("schools") {
		v.wrong("timetables", "name one for each school under schools:, or write timetable: for all", "no school uses these timetables")
	}
}

// A schoolSet finds what schools cannot have in common.
type schoolSet struct {
	c     *Config
	ids   map[string]*School
	hosts map[string]*School
}

func newSchoolSet(c *Config) *schoolSet {
	return &schoolSet{c: c, ids: map[string]*School{}, hosts: map[string]*School{}}
}

// check shows what is wrong with s and puts its hosts into their normal form.
func (set *schoolSet) check(s *School, wrong func(field, what, fix string)) {
	if what, fix := schoolIDProblem(s.ID); what != "" {
		wrong("id", what, fix)
	} else if first := set.ids[s.ID]; first != nil {
		wrong("id", fmt.Sprintf("the school %s is there a second time, first on line %d", s.ID, first.Line), "give all its hosts in one place")
	} else {
		set.ids[s.ID] = s
	}
	for i, h := range s.Hosts {
		host, what, fix := normalHost(h)
		if strings.HasPrefix(host, "*") || strings.HasPrefix(host, "[") {
			what, fix = fmt.Sprintf("%s is not one host name", host), "write each name; a school without hosts is found by its id as the first label of a name"
		}
		if what == "" && set.hosts[host] != nil {
			what = fmt.Sprintf("%s belongs to the school %s on line %d", host, set.hosts[host].ID, set.hosts[host].Line)
			fix = "remove it in one place"
		}
		if what != "" {
			wrong(fmt.Sprintf("hosts[%d]", i), what, fix)
			continue
		}
		s.Hosts[i] = host
		set.hosts[host] = s
	}
	if s.Timezone != "" {
		if _, reason := zoneOf(s.Timezone); reason != "" {
			wrong("timezone", reason, "write a name of the IANA list, such as Asia/Seoul, or leave it empty")
		}
	}
	set.checkTimetable(s, wrong)
}

func (set *schoolSet) checkTimetable(s *School, wrong func(field, what, fix string)) {
	if s.Timetable == "" {
		if set.c.Timetable == nil && len(set.c.Timetables) > 0 {
			wrong("timetable", "the school has no timetable, and there is none for all", "name one: "+strings.Join(SortedKeys(set.c.Timetables), ", "))
		}
		return
	}
	if _, found := set.c.Timetables[s.Timetable]; found {
		return
	}
	names := SortedKeys(set.c.Timetables)
	fix := "add it under timetables:"
	if meant := nearest(s.Timetable, names); meant != "" {
		fix = fmt.Sprintf("did you mean %s?", meant)
	} else if len(names) > 0 {
		fix = "known timetables: " + strings.Join(names, ", ")
	}
	wrong("timetable", fmt.Sprintf("there is no timetable %q", s.Timetable), fix)
}

func schoolIDProblem(id string) (what, fix string) {
	switch {
	case id == "":
		return "the school has no id", "add the id the roster knows it by, such as hangang"
	case len(id) > 256:
		return "the id is longer than 256 bytes", "shorten it"
	case !utf8.ValidString(id) || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.TrimSpace(id) != id:
		return fmt.Sprintf("the id %q holds control characters or space around it", shorten(id)), "write letters and digits"
	}
	return "", ""
}

// readSchools reads the CSV file, each problem with its own line and column.
func (v *validator) readSchools() {
	file := v.c.Schools.File
	if file == "" {
		return
	}
	text, err := readBounded(file, schoolsBytesMax)
	if err != nil {
		v.wrong("schools", "create it with the columns id,hosts,timezone,timetable", "the file cannot be read: %s", reasonOf(err))
		return
	}
	list, problems := parseSchools(file, text, v.c)
	v.c.Schools.List = list
	v.problems = append(v.problems, problems...)
}

// parseSchools reads the columns id, hosts (separated by spaces or ;),
// timezone and timetable, named in the first line, in any order.
func parseSchools(file string, text []byte, c *Config) (list []School, problems Problems) {
	lines := strings.Split(string(text), "\n")
	add := func(line, column int, field, what, fix string) {
		p := Problem{File: file, Line: line, Column: column, Path: field, What: what, Fix: fix}
		if line > 0 && line <= len(lines) {
			p.Source = shorten(strings.TrimRight(lines[line-1], "\r"))
		}
		if len(problems) < problemsMax {
			problems = append(problems, p)
		}
	}
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("\ufeff"))))
	r.FieldsPerRecord, r.ReuseRecord = -1, true
	head, err := r.Read()
	if err != nil {
		add(1, 1, "", "the file has no first line with the names of the columns", "begin with id,hosts,timezone,timetable")
		return nil, problems
	}
	columns, ok := schoolColumns(head, add)
	if !ok {
		return nil, problems
	}
	width := len(head)
	set := newSchoolSet(c)
	for {
		record, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			line, column, what := 0, 0, err.Error()
			if e, ok := errors.AsType[*csv.ParseError](err); ok {
				line, column, what = e.Line, e.Column, e.Err.Error()
			}
			add(line, column, "", "not CSV: "+what, "look for a missing quote")
			break
		}
		line, _ := r.FieldPos(0)
		if len(record) != width {
			add(line, 1, "", fmt.Sprintf("the line has %d fields, the first line names %d", len(record), width), "separate several hosts by spaces, not commas")
			continue
		}
		s := schoolOf(record, columns)
		s.File, s.Line = file, line
		list = append(list, s)
		set.check(&list[len(list)-1], func(field, what, fix string) {
			_, column := r.FieldPos(columns[strings.TrimRight(field, "[]0123456789")])
			add(line, column, field, what, fix)
		})
	}
	if len(list) == 0 && len(problems) == 0 {
		add(1, 1, "", "the file names no school", "add a line for each school")
	}
	return list, problems
}

func schoolColumns(head []string, add func(line, column int, field, what, fix string)) (map[string]int, bool) {
	known := []string{"id", "hosts", "timezone", "timetable"}
	columns := map[string]int{}
	ok := true
	for i, name := range head {
		name = strings.TrimSpace(name)
		fix := "known columns: " + strings.Join(known, ", ")
		if meant := nearest(name, known); meant != "" {
			fix = fmt.Sprintf("did you mean %s?", meant)
		}
		if !slices.Contains(known, name) {
			add(1, 1, "", fmt.Sprintf("unknown column %q", name), fix)
			ok = false
		} else if _, twice := columns[name]; twice {
			add(1, 1, "", fmt.Sprintf("the column %s is there twice", name), "remove one")
			ok = false
		}
		columns[name] = i
	}
	for _, name := range known[:2] {
		if _, found := columns[name]; !found && ok {
			add(1, 1, "", fmt.Sprintf("the column %s is missing", name), "begin with id,hosts,timezone,timetable")
			ok = false
		}
	}
	return columns, ok
}

func schoolOf(record []string, columns map[string]int) School {
	cell := func(name string) string {
		i, ok := columns[name]
		if !ok {
			return ""
		}
		return strings.Clone(strings.TrimSpace(record[i]))
	}
	return School{
		ID: cell("id"), Timezone: cell("timezone"), Timetable: cell("timetable"),
		Hosts: strings.FieldsFunc(cell("hosts"), func(r rune) bool { return r == ' ' || r == ';' || r == '\t' }),
	}
}

// reasonOf is what an error of the file system says without naming the file.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
