package roster

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Roster holds the schools, classes and students of all files. It never changes.
type Roster struct {
	schools     []*School          // in the order of orgs.csv
	byName      map[string]*School // by lower-case identifier and sourcedId
	users       []user             // by id
	classes     []class            // by school, then id
	enrollments []enrollment       // by class, then user
	byUser      []uint32           // indices into enrollments, by user, then class
	terms       []term
	version     string
	problems    int
}

type user struct{ id, given, family string }

type class struct {
	Class
	school uint32
	from   uint32 // its enrollments are [from, to)
	to     uint32
}

type enrollment struct{ class, user, term uint32 }

// term is when an enrollment holds: days since 1970-01-01, [from, to).
type term struct{ from, to int32 }

func (t term) holds(day int32) bool { return t.from <= day && day < t.to }

// dayOf returns the calendar date of t, in its own location, as days since
// 1970-01-01.
func dayOf(t time.Time) int32 {
	y, m, d := t.Date()
	return int32(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / (24 * 60 * 60))
}

// Student is one student as the roster knows him.
type Student struct {
	ID     string // the sourcedId of users.csv
	Given  string
	Family string
}

// Name returns how the student is called on a list: given name, space, family
// name; or, where both are written in Chinese, Japanese or Korean characters,
// family name and given name without a space.
func (s Student) Name() string {
	if s.Given != "" && s.Family != "" && eastAsian(s.Given) && eastAsian(s.Family) {
		return s.Family + s.Given
	}
	return strings.TrimSpace(s.Given + " " + s.Family)
}

func eastAsian(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool {
		return !unicode.In(c, unicode.Hangul, unicode.Han, unicode.Hiragana, unicode.Katakana)
	})
}

// Class is one class of a school. The zero Class stands for none.
type Class struct {
	ID       string // the sourcedId of classes.csv
	Title    string
	Homeroom bool // its classType is homeroom
}

// School is one org of type school, with its classes and students.
type School struct {
	SourcedID  string
	Identifier string // may be empty
	Name       string

	id          string
	line        int // in orgs.csv
	roster      *Roster
	classesFrom int // its classes are roster.classes[classesFrom:classesTo]
	classesTo   int
	members     []uint32 // indices into roster.users, ascending: in the order of ids
}

// ID is the school's id in firstbell where the configuration names none: the
// identifier, or the sourcedId where there is none, in lower case. It is empty
// for a school whose names all stand for schools on earlier lines; Load lists
// those as problems.
func (s *School) ID() string { return s.id }

// Version names the files as they were read: 16 hexadecimal digits of a digest
// over their bytes. A nil Roster has none.
func (r *Roster) Version() string {
	if r == nil {
		return ""
	}
	return r.version
}

// Problems returns how many rows or fields Load had to leave out.
func (r *Roster) Problems() int { return r.problems }

// Users returns how many active users the files had, whatever their role.
func (r *Roster) Users() int { return len(r.users) }

// Schools returns all schools that have an ID, ordered by it. The caller may
// change the slice.
func (r *Roster) Schools() []*School {
	if r == nil {
		return nil
	}
	named := slices.DeleteFunc(slices.Clone(r.schools), func(s *School) bool { return s.id == "" })
	slices.SortFunc(named, func(a, b *School) int { return strings.Compare(a.id, b.id) })
	return named
}

// School finds a school by its id in firstbell: the org with that identifier,
// else the one with that sourcedId, without regard to case.
func (r *Roster) School(id string) (s *School, ok bool) {
	if r == nil {
		return nil, false
	}
	s, ok = r.byName[strings.ToLower(id)]
	return s, ok
}

// Size returns how many students belong to the school, on whatever date.
func (s *School) Size() int { return len(s.members) }

// Student finds one of the school's students.
func (s *School) Student(id string) (st Student, ok bool) {
	u, ok := s.user(id)
	if !ok {
		return Student{}, false
	}
	return s.roster.student(u), true
}

// Students yields the school's students, on whatever date, ordered by id.
func (s *School) Students() iter.Seq[Student] {
	return func(yield func(Student) bool) {
		for _, u := range s.members {
			if !yield(s.roster.student(u)) {
				return
			}
		}
	}
}

// Classes yields the school's classes, ordered by id.
func (s *School) Classes() iter.Seq[Class] {
	return func(yield func(Class) bool) {
		for i := s.classesFrom; i < s.classesTo; i++ {
			if !yield(s.roster.classes[i].Class) {
				return
			}
		}
	}
}

// Class finds one of the school's classes.
func (s *School) Class(id string) (c Class, ok bool) {
	i, ok := s.class(id)
	if !ok {
		return Class{}, false
	}
	return s.roster.classes[i].Class, true
}

// InClass yields the students enrolled in a class on the calendar date of on,
// each once, ordered by id.
func (s *School) InClass(id string, on time.Time) iter.Seq[Student] {
	return func(yield func(Student) bool) {
		i, ok := s.class(id)
		if !ok {
			return
		}
		day, last := dayOf(on), uint32(math.MaxUint32)
		c := s.roster.classes[i]
		for _, e := range s.roster.enrollments[c.from:c.to] {
			if e.user == last || !s.roster.terms[e.term].holds(day) {
				continue
			}
			last = e.user
			if !yield(s.roster.student(e.user)) {
				return
			}
		}
	}
}

// ClassesOf yields the school's classes in which a student is enrolled on the
// calendar date of on, each once, ordered by id.
func (s *School) ClassesOf(student string, on time.Time) iter.Seq[Class] {
	return func(yield func(Class) bool) {
		if u, ok := s.user(student); ok {
			s.eachClass(u, dayOf(on), yield)
		}
	}
}

// Expected yields the students who ought to come on the calendar date of on,
// each once and ordered by id, with the class under which a list shows them:
// their homeroom, or the first of their classes by id. Expected is who is
// enrolled in a class of the school on that date, and who belongs to the school
// without ever being enrolled in one of its classes; his class is the zero one.
func (s *School) Expected(on time.Time) iter.Seq2[Student, Class] {
	return func(yield func(Student, Class) bool) {
		day := dayOf(on)
		for _, u := range s.members {
			c, ok := s.home(u, day)
			if ok && !yield(s.roster.student(u), c) {
				return
			}
		}
	}
}

// Home returns the class under which a list of that date shows a student, and
// whether he is expected at all (see Expected).
func (s *School) Home(student string, on time.Time) (c Class, expected bool) {
	u, ok := s.user(student)
	if !ok {
		return Class{}, false
	}
	return s.home(u, dayOf(on))
}

func (s *School) home(u uint32, day int32) (home Class, expected bool) {
	ever := s.eachClass(u, day, func(c Class) bool {
		if home.ID == "" || c.Homeroom {
			home = c
		}
		return !c.Homeroom
	})
	return home, home.ID != "" || !ever
}

// eachClass yields the classes of the school in which a user is enrolled on
// day; ever is true when he is enrolled in any on whatever day.
func (s *School) eachClass(u uint32, day int32, yield func(Class) bool) (ever bool) {
	r, last := s.roster, uint32(math.MaxUint32)
	at, _ := slices.BinarySearchFunc(r.byUser, u, func(e, u uint32) int { return cmp.Compare(r.enrollments[e].user, u) })
	for ; at < len(r.byUser) && r.enrollments[r.byUser[at]].user == u; at++ {
		e := r.enrollments[r.byUser[at]]
		if int(e.class) < s.classesFrom || int(e.class) >= s.classesTo {
			continue
		}
		ever = true
		if e.class == last || !r.terms[e.term].holds(day) {
			continue
		}
		last = e.class
		if !yield(r.classes[e.class].Class) {
			return true
		}
	}
	return ever
}

func (r *Roster) student(u uint32) Student {
	return Student{ID: r.users[u].id, Given: r.users[u].given, Family: r.users[u].family}
}

// user finds a student of the school by id.
func (s *School) user(id string) (uint32, bool) {
	r := s.roster
	i, ok := slices.BinarySearchFunc(s.members, id, func(u uint32, id string) int { return strings.Compare(r.users[u].id, id) })
	if !ok {
		return 0, false
	}
	return s.members[i], true
}

func (s *School) class(id string) (int, bool) {
	own := s.roster.classes[s.classesFrom:s.classesTo]
	i, ok := slices.BinarySearchFunc(own, id, func(c class, id string) int { return strings.Compare(c.ID, id) })
	return s.classesFrom + i, ok
}
