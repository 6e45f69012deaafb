package roster

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// Bounds of a roster: several times a large country's schools, and a refusal
// before memory runs out.
const (
	schoolsMax     = 1 << 20
	usersMax       = 1 << 24
	classesMax     = 1 << 23
	enrollmentsMax = 1 << 27
	idBytesMax     = 256
	nameBytesMax   = 512
	namesMax       = 1 << 18
)

// loader holds what only loading needs.
type loader struct {
	*source
	r           *Roster
	orgs        map[string]int32 // index into r.schools by sourcedId
	users       map[string]uint32
	classes     map[string]uint32
	members     []uint64 // school << 32 | user
	enrollments []enrollment
	terms       map[term]uint32
	ids         *strings.Builder  // where keep puts them
	names       map[string]string // names seen, so that equal ones share memory
}

// Load reads the roster in dir. What it had to leave out is in Problems, also
// beside an error. An error means that there is no roster: the directory or a
// file is missing, a file lacks a column, is empty or is beyond the bounds.
func Load(dir string) (*Roster, Problems, error) {
	var problems Problems
	l := &loader{
		source: newSource(dir, &problems), r: &Roster{},
		orgs: map[string]int32{}, users: map[string]uint32{}, classes: map[string]uint32{},
		terms: map[term]uint32{}, ids: &strings.Builder{}, names: map[string]string{},
	}
	if err := l.load(); err != nil {
		return nil, problems, fmt.Errorf("loading the roster: %w", err)
	}
	l.r.problems = problems.Total()
	return l.r, problems, nil
}

func (l *loader) load() error {
	if info, err := os.Stat(l.dir); err != nil {
		return err
	} else if !info.IsDir() {
		return &fs.PathError{Op: "read", Path: l.dir, Err: errors.New("it is not a directory; name the one that holds users.csv")}
	}
	for _, part := range []struct {
		spec spec
		take func(*row) error
	}{
		{spec{file: "orgs.csv", needs: []string{"sourcedId"}, takes: []string{"status", "name", "type", "identifier"}}, l.takeOrg},
		{spec{file: "users.csv", needs: []string{"sourcedId", "givenName", "familyName"}, takes: []string{"status", "role", "orgSourcedIds", "orgSourcedId", "primaryOrgSourcedId"}}, l.takeUser},
		{spec{file: "roles.csv", needs: []string{"userSourcedId", "role", "orgSourcedId"}, takes: []string{"status"}, optional: true}, l.takeRole},
		{spec{file: "classes.csv", needs: []string{"sourcedId", "schoolSourcedId"}, takes: []string{"status", "title", "classType"}}, l.takeClass},
		{spec{file: "enrollments.csv", needs: []string{"classSourcedId", "userSourcedId", "role"}, takes: []string{"status", "beginDate", "endDate"}}, l.takeEnrollment},
	} {
		if err := l.each(part.spec, part.take); err != nil {
			return err
		}
	}
	l.finish()
	return nil
}

func full(what string, n, limit int) error {
	if n < limit {
		return nil
	}
	return fmt.Errorf("there are more than %d %s; split the roster", limit, what)
}

func (l *loader) takeOrg(r *row) error {
	id, ok := r.id("sourcedId")
	if !ok || !r.active() {
		return nil
	}
	if kind := r.get("type"); kind != "" && !strings.EqualFold(kind, "school") {
		l.orgs[strings.Clone(id)] = notSchool
		return nil
	}
	if _, twice := l.orgs[id]; twice {
		r.bad("sourcedId", "%.40q is there twice; the first one counts", id)
		return nil
	}
	id = strings.Clone(id)
	l.orgs[id] = int32(len(l.r.schools))
	l.r.schools = append(l.r.schools, &School{SourcedID: id, Identifier: strings.Clone(r.get("identifier")), Name: l.name(r, "name"), line: r.line, roster: l.r})
	return full("orgs", len(l.orgs), schoolsMax)
}

// notSchool stands for an org that exists but takes no students: a district.
const notSchool = -1

func (l *loader) takeUser(r *row) error {
	id, ok := r.id("sourcedId")
	if !ok || !r.active() {
		return nil
	}
	if _, twice := l.users[id]; twice {
		r.bad("sourcedId", "%.40q is there twice; the first one counts", id)
		return nil
	}
	u := user{id: l.keep(id), given: l.name(r, "givenName"), family: l.name(r, "familyName")}
	at := uint32(len(l.r.users))
	l.r.users = append(l.r.users, u)
	l.users[u.id] = at
	if isStudent(r.get("role")) {
		for _, column := range []string{"orgSourcedIds", "orgSourcedId", "primaryOrgSourcedId"} {
			l.belongs(r, column, at)
		}
	}
	return full("users", len(l.users), usersMax)
}

// isStudent knows OneRoster's role; an empty one leaves it to roles.csv and
// enrollments.csv.
func isStudent(role string) bool { return strings.EqualFold(role, "student") }

// belongs makes a user a student of the orgs that a field lists.
func (l *loader) belongs(r *row, column string, at uint32) {
	for id := range strings.FieldsFuncSeq(r.get(column), func(c rune) bool { return c == ',' || c == ';' }) {
		id = strings.TrimSpace(id)
		org, ok := l.orgs[id]
		switch {
		case id == "":
		case !ok:
			r.bad(column, "there is no active org %.40q in orgs.csv", id)
		case org != notSchool:
			l.members = append(l.members, uint64(org)<<32|uint64(at))
		}
	}
}

func (l *loader) takeRole(r *row) error {
	if !r.active() || !isStudent(r.get("role")) {
		return nil
	}
	id, ok := r.id("userSourcedId")
	if !ok {
		return nil
	}
	at, ok := l.users[id]
	if !ok {
		r.bad("userSourcedId", "there is no active user %.40q in users.csv", id)
		return nil
	}
	l.belongs(r, "orgSourcedId", at)
	return full("roles", len(l.members), enrollmentsMax)
}

func (l *loader) takeClass(r *row) error {
	id, ok := r.id("sourcedId")
	if !ok || !r.active() {
		return nil
	}
	if _, twice := l.classes[id]; twice {
		r.bad("sourcedId", "%.40q is there twice; the first one counts", id)
		return nil
	}
	org, ok := l.orgs[r.get("schoolSourcedId")]
	if !ok || org == notSchool {
		r.bad("schoolSourcedId", "there is no active school %.40q in orgs.csv", r.get("schoolSourcedId"))
		return nil
	}
	c := class{Class: Class{ID: l.keep(id), Title: l.name(r, "title"), Homeroom: strings.EqualFold(r.get("classType"), "homeroom")}, school: uint32(org)}
	l.classes[c.ID] = uint32(len(l.r.classes))
	l.r.classes = append(l.r.classes, c)
	return full("classes", len(l.classes), classesMax)
}

func (l *loader) takeEnrollment(r *row) error {
	if !r.active() || !isStudent(r.get("role")) {
		return nil
	}
	classID, ok1 := r.id("classSourcedId")
	userID, ok2 := r.id("userSourcedId")
	if !ok1 || !ok2 {
		return nil
	}
	c, ok1 := l.classes[classID]
	if !ok1 {
		r.bad("classSourcedId", "there is no active class %.40q in classes.csv", classID)
	}
	u, ok2 := l.users[userID]
	if !ok2 {
		r.bad("userSourcedId", "there is no active user %.40q in users.csv", userID)
	}
	from, ok3 := r.day("beginDate", math.MinInt32)
	to, ok4 := r.day("endDate", math.MaxInt32)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return nil
	}
	l.enrollments = append(l.enrollments, enrollment{class: c, user: u, term: l.term(term{from, to})})
	return full("enrollments", len(l.enrollments), enrollmentsMax)
}

// day reads a date, or the date of a moment such as 2026-03-02T00:00:00Z, as
// days since 1970-01-01.
func (r *row) day(column string, empty int32) (day int32, ok bool) {
	text := r.get(column)
	if text == "" {
		return empty, true
	}
	date, _, _ := strings.Cut(text, "T")
	t, err := time.Parse(time.DateOnly, date)
	if err != nil {
		r.bad(column, "%.40q is not a date; write it as 2026-03-02", text)
		return 0, false
	}
	return dayOf(t), true
}

func (l *loader) term(t term) uint32 {
	at, ok := l.terms[t]
	if !ok {
		at = uint32(len(l.r.terms))
		l.terms[t] = at
		l.r.terms = append(l.r.terms, t)
	}
	return at
}

// keep returns a copy of an id. Many copies share one piece of memory: a million
// ids by themselves would be rounded up to half as much again.
func (l *loader) keep(id string) string {
	if l.ids.Len()+len(id) > l.ids.Cap() {
		l.ids = &strings.Builder{}
		l.ids.Grow(64 << 10)
	}
	from := l.ids.Len()
	l.ids.WriteString(id)
	return l.ids.String()[from:]
}

// name returns a field as it is kept: names repeat, so equal ones share memory.
// One that is too long is cut between characters and noted.
func (l *loader) name(r *row, column string) string {
	s := r.get(column)
	if len(s) > nameBytesMax {
		r.bad(column, "%d bytes are more than %d; it is cut", len(s), nameBytesMax)
		s = strings.ToValidUTF8(s[:nameBytesMax], "")
	}
	if kept, ok := l.names[s]; ok {
		return kept
	}
	s = strings.Clone(s)
	if len(l.names) < namesMax {
		l.names[s] = s
	}
	return s
}

// finish puts everything in order and lets go of what only loading needed.
func (l *loader) finish() {
	l.r.version = hex.EncodeToString(l.digest.Sum(nil)[:8])
	l.users, l.classes, l.names = nil, nil, nil
	l.sortUsers()
	l.sortClasses()
	l.fileEnrollments()
	l.fileMembers()
	l.nameSchools()
}

// sortUsers puts the users in the order of their ids and moves what points to
// them.
func (l *loader) sortUsers() {
	moved := sortMoved(l.r.users, func(a, b user) int { return strings.Compare(a.id, b.id) })
	for i := range l.enrollments {
		l.enrollments[i].user = moved[l.enrollments[i].user]
	}
	for i, m := range l.members {
		l.members[i] = m&^math.MaxUint32 | uint64(moved[uint32(m)])
	}
}

func (l *loader) sortClasses() {
	moved := sortMoved(l.r.classes, func(a, b class) int {
		return cmp.Or(cmp.Compare(a.school, b.school), strings.Compare(a.ID, b.ID))
	})
	for i := range l.enrollments {
		l.enrollments[i].class = moved[l.enrollments[i].class]
	}
	for i := range l.r.classes {
		s := l.r.schools[l.r.classes[i].school]
		if s.classesTo == 0 {
			s.classesFrom = i
		}
		s.classesTo = i + 1
	}
}

// done marks a place in sortMoved that has its element.
const done = math.MaxUint32

// sortMoved sorts list and returns where each of its elements went.
func sortMoved[T any](list []T, compare func(a, b T) int) []uint32 {
	order := make([]uint32, len(list))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortStableFunc(order, func(a, b uint32) int { return compare(list[a], list[b]) })
	moved := make([]uint32, len(list))
	for to, from := range order {
		moved[from] = uint32(to)
	}
	for start := range order { // each cycle of the permutation, with one element in hand
		first, at := list[start], uint32(start)
		for order[at] != uint32(start) && order[at] != done {
			list[at] = list[order[at]]
			at, order[at] = order[at], done
		}
		if order[at] != done {
			list[at], order[at] = first, done
		}
	}
	return moved
}

// fileEnrollments orders the enrollments by class and by user.
func (l *loader) fileEnrollments() {
	r := l.r
	r.enrollments, l.enrollments = slices.Clip(l.enrollments), nil
	slices.SortFunc(r.enrollments, func(a, b enrollment) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.user, b.user), cmp.Compare(a.term, b.term))
	})
	r.byUser = make([]uint32, len(r.enrollments))
	for i, e := range r.enrollments {
		r.byUser[i] = uint32(i)
		c := &r.classes[e.class]
		if c.to == 0 {
			c.from = uint32(i)
		}
		c.to = uint32(i) + 1
	}
	slices.SortFunc(r.byUser, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(r.enrollments[a].user, r.enrollments[b].user), cmp.Compare(a, b))
	})
	last := uint64(math.MaxUint64)
	for _, i := range r.byUser { // a user's classes come school by school
		e := r.enrollments[i]
		m := uint64(r.classes[e.class].school)<<32 | uint64(e.user)
		if m != last {
			l.members = append(l.members, m)
		}
		last = m
	}
}

// fileMembers hands each school its students.
func (l *loader) fileMembers() {
	slices.Sort(l.members)
	l.members = slices.Compact(l.members)
	all := make([]uint32, len(l.members))
	for i, m := range l.members {
		all[i] = uint32(m)
	}
	for from := 0; from < len(l.members); {
		org, to := l.members[from]>>32, from
		for to < len(l.members) && l.members[to]>>32 == org {
			to++
		}
		l.r.schools[org].members = all[from:to:to]
		from = to
	}
}

// nameSchools gives the schools the ids by which they are found. Identifiers go
// before sourcedIds, and of two equal ones the first school keeps it.
func (l *loader) nameSchools() {
	l.r.byName = make(map[string]*School, 2*len(l.r.schools))
	for _, s := range l.r.schools {
		l.nameSchool(s, "identifier", s.Identifier)
	}
	for _, s := range l.r.schools {
		l.nameSchool(s, "sourcedId", s.SourcedID)
	}
}

func (l *loader) nameSchool(s *School, column, name string) {
	id := strings.ToLower(name)
	if id == "" {
		return
	}
	other, taken := l.r.byName[id]
	switch {
	case !taken:
		l.r.byName[id] = s
		s.id = cmp.Or(s.id, id)
	case other != s:
		l.problems.add(Problem{File: "orgs.csv", Line: s.line, Column: column, Reason: fmt.Sprintf("%.40q already stands for the school on line %d and is not this one's", id, other.line)})
	}
}
