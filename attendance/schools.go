package attendance

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"firstbell/attendance/timetable"
)

// School is where a check-in belongs and by which clock and bell it is judged.
type School struct {
	ID        string
	Zone      *time.Location
	Timetable *timetable.Timetable // nil: every check-in is outside
}

// SchoolEntry is one line of the schools file.
type SchoolEntry struct {
	School
	Hosts []string // exact host names; none: the school is found by its id as the leftmost label
}

// Schools tells which school a host name stands for. It never changes, so any
// number of goroutines may use it; a reload makes a new one.
type Schools struct {
	byHost map[string]School
	byID   map[string]School
	rest   School // zone and timetable of schools without an entry
	zones  []*time.Location
}

// NewSchools builds the table from entries. zone and tt belong to schools
// without an entry, and to entries that leave theirs nil; a nil zone is UTC.
// The error joins everything that is wrong with the entries.
func NewSchools(zone *time.Location, tt *timetable.Timetable, entries []SchoolEntry) (*Schools, error) {
	if zone == nil {
		zone = time.UTC
	}
	s := &Schools{
		byHost: make(map[string]School),
		byID:   make(map[string]School),
		rest:   School{Zone: zone, Timetable: tt},
		zones:  []*time.Location{zone},
	}
	var problems []error
	for i, e := range entries {
		if err := s.add(e); err != nil {
			problems = append(problems, fmt.Errorf("schools[%d] (id %.40q): %w", i, e.ID, err))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return s, nil
}

func (s *Schools) add(e SchoolEntry) error {
	if e.ID == "" {
		return errors.New("no id; add one, such as the school's short name")
	}
	if reason := unfit(e.ID); reason != "" {
		return errors.New("its id " + reason)
	}
	if _, twice := s.byID[e.ID]; twice {
		return errors.New("the id is there twice; put all hosts of a school into one entry")
	}
	school := e.School
	if school.Zone == nil {
		school.Zone = s.rest.Zone
	}
	if school.Timetable == nil {
		school.Timetable = s.rest.Timetable
	}
	s.byID[school.ID] = school
	s.zones = append(s.zones, school.Zone)
	for _, h := range e.Hosts {
		h = strings.TrimSuffix(strings.ToLower(h), ".")
		if h == "" || strings.ContainsAny(h, "*:/ ") {
			return fmt.Errorf("host %.60q is not an exact host name; write it without port and wildcard", h)
		}
		if other, twice := s.byHost[h]; twice {
			return fmt.Errorf("host %.60q belongs to school %q already; a host stands for one school", h, other.ID)
		}
		s.byHost[h] = school
	}
	return nil
}

// Find returns the school of a host: lower case, no port, no trailing dot. A
// host without an entry stands for the school whose id is its leftmost label;
// an IP address stands for itself. The id refers to host's bytes.
func (s *Schools) Find(host string) School {
	if school, ok := s.byHost[host]; ok {
		return school
	}
	return s.School(leftmostLabel(host))
}

// School returns the school of that id, with the default zone and timetable
// when it has no entry.
func (s *Schools) School(id string) School {
	if school, ok := s.byID[id]; ok {
		return school
	}
	school := s.rest
	school.ID = id
	return school
}

// oldestDate returns the earliest date that any school has at t.
func (s *Schools) oldestDate(t time.Time) timetable.Date {
	oldest := timetable.DateOf(t.In(s.zones[0]))
	for _, zone := range s.zones[1:] {
		if d := timetable.DateOf(t.In(zone)); d.Compare(oldest) < 0 {
			oldest = d
		}
	}
	return oldest
}

func leftmostLabel(host string) string {
	label, _, dotted := strings.Cut(host, ".")
	if (dotted && label != "" && label[0] >= '0' && label[0] <= '9') || strings.Contains(label, ":") {
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
			return host
		}
	}
	return label
}
