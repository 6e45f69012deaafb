package http2

import (
	"net"
	"sync/atomic"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/head"
)

// Config is what the connections of a Server have in common. All of it is
// required but ExtendedConnect.
type Config struct {
	// Handler serves a request; when it returns, the stream has ended. It may
	// run on the goroutine that reads the connection: then Stream.Aside has to
	// come before it waits for anything.
	Handler func(*Stream)
	// Malformed is told of each head that is malformed. Its stream ends.
	Malformed func(*field.Refusal)

	StreamsMax int // open at once on a connection
	// Times are asked for when a connection is made.
	Times func() Times
	// SlowContent is told of each content that came too slowly, SlowReading of
	// each answer for which windows were opened too slowly.
	SlowContent, SlowReading func()

	// AwaitRoom, unless it is nil, returns once a connection takes more, at the
	// pace that its client may have. It is asked where much is written, so that
	// nothing is gathered for who takes nothing.
	AwaitRoom func(net.Conn) error

	// ExtendedConnect has clients offered extended CONNECT (RFC 8441).
	ExtendedConnect bool
}

// Times bound what a client makes a connection wait for.
type Times struct {
	Idle time.Duration // without a stream
	Head time.Duration // for the rest of a head, or a frame, that did not come at once
	// Grace is how long a client may stand still that is to send content, or to
	// open a window for an answer, and over how long MinRate is averaged.
	Grace   time.Duration
	MinRate int64         // bytes a second
	Write   time.Duration // for a write to what the connection runs over
}

// patience is how much longer a client is waited for that sends, or takes,
// something: what it waits for less, what comes more.
type patience struct{ left time.Duration }

func (p *patience) earn(n int, t *Times) {
	p.left = min(p.left+time.Duration(n)*time.Second/time.Duration(t.MinRate), t.Grace)
}

// A Server has what its connections have in common.
type Server struct {
	config  Config
	refused []atomic.Int64 // by the index of a Refusal
	conns   atomic.Int64
	streams atomic.Int64
	gone    atomic.Int64
}

// NewServer returns a server for connections that have begun nothing yet.
func NewServer(c Config) *Server {
	return &Server{config: c, refused: make([]atomic.Int64, len(all))}
}

// The stages of a connection's end.
const (
	stageOpen     = iota
	stageDraining // the client is told to begin no more streams
	stageEnding   // what begins now is not served
)

// Serve serves the connection. It returns when it is closed and no handler runs
// on it any more.
func (c *Conn) Serve() {
	c.srv.conns.Add(1)
	c.run()
	<-c.over
	c.srv.conns.Add(-1)
}

// Drain tells the client to begin no more streams here (RFC 9113 section 6.8).
// Those that it has begun until it hears of that are served.
func (c *Conn) Drain() {
	if c.stage.CompareAndSwap(stageOpen, stageDraining) {
		c.nudge()
	}
}

// End serves no stream that begins from now on, and has the connection end
// behind its last answer.
func (c *Conn) End() {
	c.stage.Store(stageEnding)
	c.nudge()
}

// EndIfIdle has a connection without streams end, and reports whether it does.
func (c *Conn) EndIfIdle() bool {
	c.mu.Lock()
	idle := len(c.streams) == 0 && c.running == 0
	c.mu.Unlock()
	if idle {
		c.End()
	}
	return idle
}

// NetConn is what the connection runs over.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Refused is how often something was refused, by the Refusal's index.
func (s *Server) Refused(index int) int64 { return s.refused[index].Load() }

// Conns is how many connections are open, Streams how many requests are on
// them. Gone is how many requests clients took back before they had their
// answer.
func (s *Server) Conns() int64   { return s.conns.Load() }
func (s *Server) Streams() int64 { return s.streams.Load() }
func (s *Server) Gone() int64    { return s.gone.Load() }

func (s *Server) count(r *Refusal) {
	switch {
	case r == refuseLength:
		s.config.Malformed(head.RefuseContent)
	case r.Index >= 0:
		s.refused[r.Index].Add(1)
	}
}
