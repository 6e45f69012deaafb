package certs

import (
	"slices"
	"strings"
	"time"
)

// Status is one certificate as it is.
type Status struct {
	From    string    // the file, or who issued it
	Names   []string  // what it is for
	Expires time.Time // of what is in use
	Problem string    // why what is in the files is not in use, or not good; empty
}

// ACME says how getting certificates goes; nil without it.
func (s *Store) ACME() *ACMEStats {
	if s.queue == nil {
		return nil
	}
	st, _ := s.queue.stats()
	return &st
}

// ToLookAt returns the certificates in use, or wanted and missing, those with a problem first, then by
// when they expire, and how many have a problem.
func (s *Store) ToLookAt() (all []Status, problems int) {
	all = s.status()
	if s.queue != nil {
		_, wanted := s.queue.stats()
		all = append(all, wanted...)
	}
	for _, st := range all {
		if st.Problem != "" {
			problems++
		}
	}
	slices.SortStableFunc(all, func(a, b Status) int {
		if (a.Problem == "") != (b.Problem == "") {
			return strings.Compare(b.Problem, a.Problem)
		}
		return a.Expires.Compare(b.Expires)
	})
	return all, problems
}

func (s *Store) status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.files))
	for _, f := range s.files {
		st := Status{From: f.Cert, Names: namesOf(f.now.Leaf), Expires: f.now.Leaf.NotAfter}
		if f.problem != nil {
			st.Problem = f.problem.Error()
		} else if err := Untimely(f.now.Leaf, time.Now()); err != nil {
			st.Problem = err.Error()
		}
		all = append(all, st)
	}
	return all
}

// TicketsProblem is why the file with the keys of session tickets is not in
// use; empty when it is, or when there is none.
func (s *Store) TicketsProblem() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tickets.problem == nil {
		return ""
	}
	return s.tickets.problem.Error()
}
