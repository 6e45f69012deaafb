package wal

import (
	"fmt"
	"slices"
	"time"
)

// State says whether Append takes records.
type State int

const (
	// Opened: Append takes records.
	Opened State = iota
	// Full: Append returns ErrFull until there is room.
	Full
	// Down: Append returns ErrDown until a new segment holds.
	Down
	// Closed: Append returns ErrClosed.
	Closed
)

func (s State) String() string {
	switch s {
	case Opened:
		return "open"
	case Full:
		return "full"
	case Down:
		return "down"
	case Closed:
		return "closed"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Stats counts since Open.
type Stats struct {
	Appends, Records, Bytes uint64 // acknowledged; Bytes as written
	Failures                uint64 // Appends that reached the disk and failed
	SyncTotal, SyncSlowest  time.Duration
	Segments                uint64 // begun
	Waited                  uint64 // of those, not made ahead in time
}

// Health is what whoever watches the journal needs to know.
type Health struct {
	State State
	Why   error     // why it is not open
	Since time.Time // when State last changed
	// Amber says what needs a person although records are taken; empty: nothing.
	Amber   []string
	Next    uint64
	Segment string // path of the segment in use; "": none
	// Bytes is what all segments take up, Max and Reserve are as configured,
	// Free is what the file system of the segment in use (else of Dir) has left;
	// -1: it does not say.
	Bytes, Max, Reserve, Free int64
	Stats                     Stats
}

// Health may be called at any time; it makes one call to the file system.
func (l *Log) Health() Health {
	l.mu.Lock()
	h := Health{
		State: l.state, Why: l.why, Since: l.since, Amber: slices.Clone(l.amber),
		Next: l.next, Bytes: l.usedLocked(), Max: l.opt.Max, Reserve: l.opt.Reserve, Stats: l.stats,
	}
	dir := l.opt.Dir
	if l.cur != nil {
		h.Segment, dir = l.cur.path, l.cur.dir()
	}
	l.mu.Unlock()
	free, err := l.fs.Free(dir)
	if err != nil {
		free = -1
	}
	h.Free = free
	return h
}

// usedLocked is what all segments take up on disk.
func (l *Log) usedLocked() int64 {
	var n int64
	for _, s := range l.sealed {
		n += s.size
	}
	if l.cur != nil {
		n += l.cur.size
	}
	if l.ready != nil {
		n += l.ready.seg.size
	}
	return n
}

// setState notes a change; the caller does not hold mu.
func (l *Log) setState(s State, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == Closed {
		return
	}
	if l.state != s {
		l.since = time.Now()
	}
	l.state, l.why = s, why
}

// warn adds an amber line unless it is there already.
func (l *Log) warn(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.amber, s) || len(l.amber) >= amberMax {
		return
	}
	l.amber = append(l.amber, s)
}

// unwarn takes an amber line back.
func (l *Log) unwarn(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.amber = slices.DeleteFunc(l.amber, func(s string) bool { return s == line })
}

const amberMax = 32
