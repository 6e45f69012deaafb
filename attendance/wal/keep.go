package wal

import (
	"errors"
	"slices"
	"time"
)

// keep makes segments ahead of their use and brings a log that is down back to
// life. It runs from Open to Close.
func (l *Log) keep() {
	defer close(l.stopped)
	want := l.wantNext
	var again <-chan time.Time
	l.askNext()
	for {
		select {
		case <-l.stop:
			return
		case <-l.wantLife:
			l.revive()
		case <-again:
			again, want = nil, l.wantNext
			l.askNext()
		case <-want:
			if !l.makeAhead() {
				again, want = time.After(ReviveEvery), nil
			}
		}
	}
}

const amberAhead = "no segment could be made ahead"

// makeAhead makes the next segment. A failure is no emergency yet: the segment
// in use goes on, and whoever fills it tries once more.
func (l *Log) makeAhead() bool {
	l.making <- struct{}{}
	defer func() { <-l.making }()
	l.mu.Lock()
	needed := l.ready == nil && l.state != Closed && l.cur != nil
	l.mu.Unlock()
	if !needed {
		return true
	}
	m, err := l.make(nil, true)
	if errors.Is(err, errStopped) {
		return true
	}
	if err != nil {
		l.warn(amberAhead)
		return false
	}
	l.unwarn(amberAhead)
	l.mu.Lock()
	l.ready = m
	l.mu.Unlock()
	return true
}

// revive tries a new segment at once and then every ReviveEvery until one
// holds, in Dir, then in Spare.
func (l *Log) revive() {
	for {
		err := l.tryLife()
		if err == nil {
			return
		}
		l.setState(Down, err)
		select {
		case <-l.stop:
			return
		case <-time.After(ReviveEvery):
		}
	}
}

// tryLife puts a fresh segment into use. Its link is on disk before the first
// record is, so that the numbers given up are never given out again.
func (l *Log) tryLife() error {
	l.making <- struct{}{}
	l.hurry.Store(false)
	defer func() { <-l.making }()
	l.mu.Lock()
	stale := l.ready
	l.ready = nil
	next := l.next
	l.mu.Unlock()
	if stale != nil {
		l.discard(stale) // made before the failure: not to be trusted more than the rest
	}
	l.turn <- struct{}{}
	ends := slices.Clone(l.ends)
	<-l.turn
	m, err := l.make(&link{why: whyRevived, base: next, ends: ends}, false)
	if err != nil {
		return err
	}
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.begin(m)
	return nil
}

// begin puts a segment into use whose link is on disk. The caller holds turn.
func (l *Log) begin(m *made) {
	l.use(m)
	l.idSeed = seed(m.seg.id)
	l.ends = l.ends[:0]
	l.mu.Lock()
	l.anchored, l.failed = true, 0
	l.mu.Unlock()
	l.setState(Opened, nil)
	l.askNext()
}
