package wal

import (
	"fmt"
)

// RemoveBefore removes the segments that hold only records with numbers below
// seq, oldest first; never the one in use, and nothing while no segment is in
// use. Each is read once more before it goes: one with damage is renamed to
// <name>.damaged instead, one that cannot be opened to <name>.unreadable; this
// package never removes either. After an error the rest is still there.
func (l *Log) RemoveBefore(seq uint64) error {
	l.making <- struct{}{}
	defer func() { <-l.making }()
	for {
		s := l.oldest(seq)
		if s == nil {
			return nil
		}
		if err := l.remove(s); err != nil {
			return fmt.Errorf("removing segment %s: %w", s.path, err)
		}
		l.mu.Lock()
		l.sealed = l.sealed[1:]
		l.mu.Unlock()
	}
}

// oldest gives the oldest segment if all its records are below seq.
func (l *Log) oldest(seq uint64) *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sealed) == 0 || !l.anchored {
		return nil
	}
	s := l.sealed[0]
	last := s.last
	if s.end != nil {
		last = max(last, s.end.last)
	}
	if last == 0 && s.base != 0 {
		last = s.base - 1
	}
	if last >= seq {
		return nil
	}
	return s
}

func (l *Log) remove(s *segment) error {
	intact, err := l.intact(s)
	aside := ""
	switch {
	case err != nil:
		aside = shutSuffix
	case !intact || s.damaged || s.unreadable > 0 || s.headerErr != nil:
		aside = asideSuffix
	}
	if aside != "" {
		err = l.fs.Rename(s.path, s.path+aside)
	} else {
		err = l.fs.Remove(s.path)
	}
	if err != nil {
		return err
	}
	// One by one, so that a power cut never leaves a hole in the order.
	return l.fs.SyncDir(s.dir())
}

// intact reads a segment through. The error says why it cannot be opened.
func (l *Log) intact(s *segment) (bool, error) {
	f, err := l.fs.Open(s.path, false)
	if err != nil {
		return false, err
	}
	defer f.Close()
	sc := newScan(f, s.id)
	sc.limit = s.dataEnd
	if s.end != nil {
		sc.limit = s.end.offset
	}
	for {
		fr, g := sc.next()
		if g != nil {
			return false, nil
		}
		if fr == nil {
			return true, nil
		}
	}
}
