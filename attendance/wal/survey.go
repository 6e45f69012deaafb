package wal

import "fmt"

// Survey is what was read of a journal that another process was writing: the
// segments that were over by then, each from end to end and without damage.
// Open, told of it, need not read those again, so that a journal of any size is
// open within moments.
type Survey struct {
	over map[surveyKey]surveyed
}

type surveyKey struct {
	path       string
	number, id uint64
}

// surveyed is what a walk found in one segment.
type surveyed struct {
	end           segmentEnd
	before, seen  uint64 // walk.seen as it was before the segment, and behind it
	known         bool   // before says something
	first, last   uint64
	records       int64
	dataEnd, size int64
	closed        bool
}

// MakeSurvey reads the journal in the directories, as a Reader does: it takes no
// lock and changes nothing.
func MakeSurvey(dirs ...string) (*Survey, error) {
	return makeSurvey(defaultFS(), dirs...)
}

func makeSurvey(fs FS, dirs ...string) (*Survey, error) {
	c := &chain{fs: fs}
	for _, d := range dirs {
		if d != "" {
			c.dirs = append(c.dirs, d)
		}
	}
	if err := c.refresh(); err != nil {
		return nil, fmt.Errorf("surveying journal: %w", err)
	}
	s := &Survey{over: map[surveyKey]surveyed{}}
	w := &walk{chain: c, count: true, survey: s, report: func(Damage) {}}
	for {
		if _, ok := w.next(); !ok {
			break
		}
	}
	defer w.leave()
	if w.err != nil {
		return nil, fmt.Errorf("surveying journal: %w", w.err)
	}
	return s, nil
}

// Segments is how many segments need not be read again.
func (s *Survey) Segments() int { return len(s.over) }

func keyOf(s *segment) surveyKey { return surveyKey{s.path, s.number, s.id} }

// note keeps what the walk has found in the segment that it is about to leave,
// whose end is stated.
func (s *Survey) note(w *walk) {
	size, err := w.file.Size()
	if err != nil {
		return
	}
	seg := w.cur
	s.over[keyOf(seg)] = surveyed{
		end: *seg.end, before: w.before, known: w.knew, seen: w.seen,
		first: seg.first, last: seg.last, records: seg.records, dataEnd: seg.dataEnd, size: size, closed: seg.closed,
	}
}

// passes has the walk be behind a segment as if it had read it. It reports false
// where that must be read: nobody has, or it is not as it was.
func (s *Survey) passes(w *walk, seg *segment) bool {
	if s == nil || !w.count || seg.end == nil || seg.headerErr != nil || seg.openErr != nil {
		return false
	}
	was, ok := s.over[keyOf(seg)]
	if !ok || was.end != *seg.end || was.before != w.seen || was.known != w.known {
		return false
	}
	f, err := w.chain.fs.Open(seg.path, false)
	if err != nil {
		return false
	}
	defer f.Close()
	if size, err := f.Size(); err != nil || size != was.size {
		return false
	}
	seg.first, seg.last, seg.records, seg.dataEnd, seg.closed = was.first, was.last, was.records, was.dataEnd, was.closed
	w.seen, w.known, w.after = was.seen, true, seg
	return true
}
