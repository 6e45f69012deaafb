package bell

import (
	"errors"
	"fmt"
	"time"
)

// Resource is a piece of lesson content and what it has to be.
type Resource struct {
	Host, Path string
	Bytes      int64
	CRC        uint32 // CRC-32C
}

// Content is what there is to see; its methods may be called by any number of
// goroutines at once.
type Content interface {
	// List is the page on which a school's lessons are listed.
	List(school int) Resource
	// Lesson is the page of the grade's lesson, followed by its media segments.
	Lesson(school, grade int) []Resource
}

// Config says which morning to play, and against whom. Times of zero and
// numbers of zero get the defaults named here.
type Config struct {
	Roster  *Roster
	Content Content
	Morning Morning
	Seed    uint64

	Addr        string                      // host:port of the server that answers for all schools
	CheckInPath string                      // takes a POST with student_id, class_id, attempt
	MePath      string                      // answers with JSON holding the asker's student_id
	Session     func(student string) string // the student's session cookie, name=value

	Patience    time.Duration // for one answer; 10 s
	Tries       int           // per request, the first included; 14
	Connections int           // at once, all lanes together; 1,536
}

func (c *Config) complete() error {
	if c.Patience == 0 {
		c.Patience = 10 * time.Second
	}
	if c.Tries == 0 {
		// With the pauses of pause, 14 tries last about half a minute: longer than
		// a restart, shorter than somebody stays in front of a dead page.
		c.Tries = 14
	}
	if c.Connections == 0 {
		c.Connections = 1536
	}
	m := &c.Morning
	switch {
	case c.Roster == nil || c.Content == nil || c.Session == nil:
		return errors.New("playing the bell: a roster, content and sessions are needed")
	case c.Addr == "" || c.CheckInPath == "" || c.MePath == "":
		return errors.New("playing the bell: an address, a check-in path and a personal page's path are needed")
	case c.Connections < int(lanes):
		return fmt.Errorf("playing the bell: %d connections; at least %d are needed", c.Connections, lanes)
	case m.Opens.Before(m.First) || !m.Opens.Before(m.Starts) || !m.Starts.Before(m.LateAfter) || !m.LateAfter.Before(m.Ends):
		return errors.New("playing the bell: the morning is out of order; first <= opens < starts < late after < ends")
	}
	return nil
}
