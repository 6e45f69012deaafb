package lms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// Config says which platform to be.
type Config struct {
	Seed      uint64
	Hosts     []string // one per school, told apart by their first labels
	MediaHost string   // where all schools find the media
	Lessons   int      // per school, and a page each
	Segments  int      // of media per lesson
	Heart     Heart
	Secret    []byte // signs sessions

	// Period is what the platform knows of the timetable, for check-ins that
	// come to it directly.
	Period Period
}

// Period is the one period of the morning.
type Period struct {
	Name, Date             string
	Opens, LateAfter, Ends time.Time
}

// Server is the platform.
type Server struct {
	cfg      Config
	heart    *heart
	library  *library
	schools  map[string]string // a school's id, which is its host's first label, to that host
	register register
	count    count
	http     *http.Server
}

// New makes the content and an empty register. Nothing listens yet.
func New(cfg Config) (*Server, error) {
	if len(cfg.Hosts) == 0 || cfg.MediaHost == "" || cfg.Lessons < 1 || cfg.Segments < 1 {
		return nil, errors.New("opening the platform: hosts, a media host, lessons and segments are needed")
	}
	s := &Server{
		cfg:     cfg,
		heart:   newHeart(cfg.Heart),
		library: newLibrary(&cfg),
		schools: make(map[string]string, len(cfg.Hosts)),
	}
	for _, h := range cfg.Hosts {
		s.schools[leftmost(h)] = h
	}
	s.count.began = time.Now()
	s.count.fetched = make(map[resource]int)
	s.register.open()
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		// Connections are reset on purpose here; net/http has an opinion on that.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return s, nil
}

// Serve answers on l until the context ends, then closes every connection. Its
// error is nil when that was why.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { s.http.Close() })()
	err := s.http.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serving the platform on %s: %w", l.Addr(), err)
}

// List is the content of the host's lesson list.
func (s *Server) List(host string) *Content { return s.library.lists[host] }

// Lesson is the page of the host's lesson n, 0-based, followed by its segments.
func (s *Server) Lesson(host string, n int) []*Content { return s.library.lessons[host][n] }
