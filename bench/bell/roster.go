package bell

import (
	"fmt"
	"math/rand/v2"
	"strconv"
)

// classSize is how many students sit in one class.
const classSize = 28

// grades is how many years a school teaches; each has a lesson of its own.
const grades = 3

// Roster is who goes to which school and class. Nothing of it is kept in
// memory: every student is computed from the seed and a number, so a million
// cost as much as one.
type Roster struct {
	students, schools         int
	seed                      uint64
	schoolDigits, placeDigits int
}

// Student is one line of the roster.
type Student struct {
	ID            string // digits with leading zeros, the same as in the CSV
	School        int    // 0-based; see Roster.SchoolID and Roster.Host
	Grade         int    // 1..3
	ClassID       string
	Given, Family string
}

// NewRoster lays out students over schools as evenly as numbers allow.
func NewRoster(students, schools int, seed uint64) (*Roster, error) {
	switch {
	case students < 1:
		return nil, fmt.Errorf("laying out a roster: %d students; at least 1 is needed", students)
	case schools < 1:
		return nil, fmt.Errorf("laying out a roster: %d schools; at least 1 is needed", schools)
	case schools > students:
		return nil, fmt.Errorf("laying out a roster: %d schools for %d students; some would be empty", schools, students)
	}
	largest := (students + schools - 1) / schools
	return &Roster{
		students: students, schools: schools, seed: seed,
		schoolDigits: max(2, len(strconv.Itoa(schools))),
		placeDigits:  max(5, len(strconv.Itoa(largest))),
	}, nil
}

// Students is how many there are; they are numbered from 0.
func (r *Roster) Students() int { return r.students }

// Schools is how many there are; they are numbered from 0.
func (r *Roster) Schools() int { return r.schools }

// SchoolID is the leftmost label of the school's host name, such as "s01".
func (r *Roster) SchoolID(school int) string {
	return fmt.Sprintf("s%0*d", r.schoolDigits, school+1)
}

// Host is the name under which the school is reached.
func (r *Roster) Host(school int) string { return r.SchoolID(school) + "." + Domain }

// Domain is the common end of all host names (a name nobody can own, RFC 2606).
const Domain = "school.example"

// size is how many students the school has.
func (r *Roster) size(school int) int {
	n := r.students / r.schools
	if school < r.students%r.schools {
		n++
	}
	return n
}

// first is the number of the school's first student.
func (r *Roster) first(school int) int {
	return school*(r.students/r.schools) + min(school, r.students%r.schools)
}

// classes is how many classes the school has.
func (r *Roster) classes(school int) int {
	return (r.size(school) + classSize - 1) / classSize
}

// place says where student i sits: the school and the seat in it.
func (r *Roster) place(i int) (school, seat int) {
	small, larger := r.students/r.schools, r.students%r.schools
	if i < larger*(small+1) {
		return i / (small + 1), i % (small + 1)
	}
	i -= larger * (small + 1)
	return larger + i/small, i % small
}

// class is the grade and name of the school's class number c.
func (r *Roster) class(school, c int) (grade int, id string) {
	n := r.classes(school)
	grade = c*grades/n + 1
	firstOfGrade := ((grade-1)*n + grades - 1) / grades
	return grade, fmt.Sprintf("%s-%d-%02d", r.SchoolID(school), grade, c-firstOfGrade+1)
}

// Student is number i, 0 <= i < Students().
func (r *Roster) Student(i int) Student {
	school, seat := r.place(i)
	grade, class := r.class(school, seat/classSize)
	rnd := rand.New(rand.NewPCG(r.seed^0x6e616d65, uint64(i)))
	return Student{
		ID:      r.id(school, seat),
		School:  school,
		Grade:   grade,
		ClassID: class,
		Given:   given[rnd.IntN(len(given))],
		Family:  family[rnd.IntN(len(family))],
	}
}

func (r *Roster) id(school, seat int) string {
	return fmt.Sprintf("%0*d%0*d", r.schoolDigits, school+1, r.placeDigits, seat+1)
}

// Index finds the number of the student with the id; false when nobody on this
// roster has it.
func (r *Roster) Index(id string) (int, bool) {
	if len(id) != r.schoolDigits+r.placeDigits {
		return 0, false
	}
	school, err1 := strconv.ParseUint(id[:r.schoolDigits], 10, 31)
	seat, err2 := strconv.ParseUint(id[r.schoolDigits:], 10, 31)
	if err1 != nil || err2 != nil || school < 1 || int(school) > r.schools {
		return 0, false
	}
	if seat < 1 || int(seat) > r.size(int(school)-1) {
		return 0, false
	}
	return r.first(int(school)-1) + int(seat) - 1, true
}

// Names as they stand in registers, beyond ASCII on purpose: an export that
// spoils them is wrong.
var (
	family = []string{"김", "이", "박", "최", "정", "강", "조", "윤", "장", "임", "한", "오", "서", "신", "권", "황", "안", "송", "류", "홍", "남궁", "O'Brien", "Müller", "Nguyễn"}
	given  = []string{"민준", "서연", "도윤", "지우", "시우", "서현", "하준", "하은", "주원", "민서", "지호", "윤서", "준우", "채원", "예준", "지민", "유진", "수아", "Zoë", "Anh Thư", "José", "Aoife"}
)
