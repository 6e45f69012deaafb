package export

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"firstbell/attendance/timetable"
)

// Counts are the lines of a register by status.
type Counts struct {
	Present, Late, Absent, Outside int
	NotOnRoster                    int // of the lines above, check-ins of strangers
}

// Lines returns how many lines there are in all.
func (c *Counts) Lines() int { return c.Present + c.Late + c.Absent + c.Outside }

func (c *Counts) add(l *Line) {
	switch l.Status {
	case string(timetable.Present):
		c.Present++
	case string(timetable.Late):
		c.Late++
	case Absent:
		c.Absent++
	default:
		c.Outside++
	}
	if l.OnRoster != nil && !*l.OnRoster {
		c.NotOnRoster++
	}
}

// Summary says what a register holds and what it rests on.
type Summary struct {
	Counts
	AsOf           AsOf
	Filter         Filter
	HasRoster      bool
	RosterVersion  string
	RosterProblems int
	// Unknown says for which schools it is not known who is absent, and why;
	// nil without a roster, when it is known for none.
	Unknown map[string]string
	// Notes are sentences that a reader must know besides, at most 1,000.
	Notes []string

	notBegun     int  // periods of schools that begin after AsOf.At
	otherTable   int  // lines whose status another timetable gave
	classUnknown bool // the filter's class is in no roster
}

const notesMax = 1000

func (s *Summary) note(format string, args ...any) {
	if len(s.Notes) < notesMax {
		s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
	}
}

func (s *Summary) unknown(school, why string) {
	if s.Unknown == nil {
		s.Unknown = map[string]string{}
	}
	s.Unknown[school] = why
}

// noteNamesNotMet says that the filter asks for something nobody has heard of:
// an empty register would look like a school without students.
func (r *register) noteNamesNotMet() {
	f := &r.Filter
	if f.Class != "" && r.Roster != nil && !r.classFound {
		r.summary.note("class %q is in none of the schools that were looked at: who is absent from it is unknown", f.Class)
		r.summary.classUnknown = true
	}
	if f.Period != "" && !r.periodFound {
		r.summary.note("period %q is in no timetable of these days, and nobody checked in for it", f.Period)
	}
}

// absent says how many are absent: a number, or "unknown" where the roster or a
// timetable is missing for the school. An empty school stands for all of them.
func (s *Summary) absent(school string, n int) string {
	switch {
	case !s.HasRoster || s.classUnknown || s.Unknown[school] != "":
		return "unknown"
	case school == "" && len(s.Unknown) > 0:
		return fmt.Sprintf("%d, unknown for %d schools", n, len(s.Unknown))
	}
	return strconv.Itoa(n)
}

// Fact is one thing a register rests on, for people to read.
type Fact struct{ Name, Value string }

// Facts lists them in the order they are shown.
func (s *Summary) Facts() []Fact {
	days := s.Filter.From.String()
	if s.Filter.To != s.Filter.From {
		days += " to " + s.Filter.To.String()
	}
	facts := []Fact{{"date", days}}
	for _, f := range []Fact{{"school", s.Filter.School}, {"class", s.Filter.Class}, {"period", s.Filter.Period}} {
		if f.Value != "" {
			facts = append(facts, f)
		}
	}
	if !s.AsOf.At.IsZero() {
		facts = append(facts, Fact{"as of", s.AsOf.At.Format(time.RFC3339)})
	}
	facts = append(facts,
		Fact{"last journal position", positionText(s.AsOf.Position)},
		Fact{"missing journal numbers", listText(s.AsOf.Missing)},
		Fact{"roster", s.rosterText()},
		Fact{"present", strconv.Itoa(s.Present)},
		Fact{"late", strconv.Itoa(s.Late)},
		Fact{"absent", s.absent("", s.Absent)},
		Fact{"outside", strconv.Itoa(s.Outside)},
	)
	if s.HasRoster {
		facts = append(facts, Fact{"not on the roster", strconv.Itoa(s.NotOnRoster)})
	}
	if s.notBegun > 0 {
		facts = append(facts, Fact{"not begun", fmt.Sprintf("%d periods of schools had not begun: nobody is absent from them yet", s.notBegun)})
	}
	if s.otherTable > 0 {
		facts = append(facts, Fact{"other timetable", fmt.Sprintf("%d check-ins have the period and status that an earlier timetable gave them", s.otherTable)})
	}
	facts = append(facts, s.unknownFacts()...)
	for _, note := range slices.Concat(s.AsOf.Incidents, s.Notes) {
		facts = append(facts, Fact{"note", note})
	}
	return facts
}

func positionText(n uint64) string {
	if n == 0 {
		return "none"
	}
	return strconv.FormatUint(n, 10)
}

// listMax is how many entries of a list are spelled out.
const listMax = 100

func listText(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	text := strings.Join(list[:min(len(list), listMax)], ", ")
	if len(list) > listMax {
		text += fmt.Sprintf(" and %d more", len(list)-listMax)
	}
	return text
}

func (s *Summary) rosterText() string {
	if !s.HasRoster {
		return "none: who is absent is unknown"
	}
	text := "version " + s.RosterVersion
	if s.RosterProblems > 0 {
		text += fmt.Sprintf("; %d rows or fields of it could not be read, so students may be missing from the register", s.RosterProblems)
	}
	return text
}

// unknownFacts names the schools whose absent students are unknown, by reason.
func (s *Summary) unknownFacts() []Fact {
	byReason := map[string][]string{}
	for school, why := range s.Unknown {
		byReason[why] = append(byReason[why], school)
	}
	var facts []Fact
	for why, schools := range byReason {
		slices.Sort(schools)
		facts = append(facts, Fact{"absent unknown", why + ": " + listText(schools)})
	}
	slices.SortFunc(facts, func(a, b Fact) int { return strings.Compare(a.Value, b.Value) })
	return facts
}
