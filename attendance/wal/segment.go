package wal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// segment is one file of the journal, as far as it is known.
type segment struct {
	path       string
	number, id uint64
	host       string
	created    time.Time
	bytes      int64 // set aside when it was made; 0: not known

	size  int64 // of the file
	whole bool  // its space was set aside when it was made

	headerErr error       // why the header could not be used; the name was
	openErr   error       // why the file could not be opened at all
	started   bool        // holds at least one frame, or bytes that are no frame
	link      *link       // nil: not started, or destroyed
	base      uint64      // first number it holds or would hold; 0: not known
	end       *segmentEnd // what a later link says; nil: nothing says where it ends

	// Found by reading it to its end.
	first, last uint64
	records     int64
	dataEnd     int64 // offset behind the last frame
	closed      bool  // an end frame was read
	unreadable  int64
	damaged     bool
	lost        uint64 // the number of a last record that is there and wrong
}

func (s *segment) dir() string { return filepath.Dir(s.path) }

// openEnded says whether nothing states where this segment ends.
func (s *segment) openEnded() bool { return s.end == nil }

// chain is the segments of a journal in the order of their numbers.
type chain struct {
	fs    FS
	dirs  []string
	segs  []*segment
	aside []string // files set aside earlier
	final bool     // nobody writes: what cannot be read now never will be
}

// errNoJournal is an empty place.
var errNoJournal = errors.New("no journal directory can be read")

// roundsMax bounds refresh. A round costs a listing, beginning a segment three
// syncs or more, so that even two rounds in a row are rare.
const roundsMax = 100

// refresh brings the chain up to what is on disk: new segments, links written
// since, segments removed. Its error is a *VersionError, or says what cannot be
// read just now; then nothing may be judged by the chain.
//
// A log in use begins segments in order, and removes them in order. So what a
// segment says of an earlier one holds only for an earlier one looked at later:
// a round that finds a segment newly in use is followed by another.
func (c *chain) refresh() error {
	defer c.order()
	for range roundsMax {
		more, err := c.look()
		if err != nil || !more {
			return err
		}
	}
	return errors.New("segments are begun faster than they can be listed")
}

// look is one round of refresh. more: a segment is newly found in use.
func (c *chain) look() (more bool, err error) {
	found, err := c.list()
	if err != nil {
		return false, err
	}
	c.segs = slices.DeleteFunc(c.segs, func(s *segment) bool { return !found[s.path] && c.removed(s) })
	for _, s := range c.segs {
		delete(found, s.path)
		if s.started {
			continue
		}
		if err := c.probe(s, false); err != nil {
			return false, err
		}
		more = more || s.started
	}
	for path := range found {
		s, err := c.load(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return false, err
		}
		c.segs = append(c.segs, s)
		more = more || s.started
	}
	return more, nil
}

// removed says whether a segment that was not listed is not there either: a
// directory that cannot be listed just now removes nothing.
func (c *chain) removed(s *segment) bool {
	f, err := c.fs.Open(s.path, false)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, fs.ErrNotExist)
}

// list gives the paths of all segments, and notes the files set aside.
func (c *chain) list() (map[string]bool, error) {
	found := map[string]bool{}
	var errs []error
	c.aside = c.aside[:0]
	for _, dir := range c.dirs {
		names, err := c.fs.List(dir)
		if passing(err) {
			return nil, fmt.Errorf("listing journal directory %s: %w", dir, err)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("listing journal directory %s: %w", dir, err))
			continue
		}
		for _, name := range names {
			if strings.HasSuffix(name, asideSuffix) || strings.HasSuffix(name, shutSuffix) {
				c.aside = append(c.aside, filepath.Join(dir, name))
			}
			if strings.HasSuffix(name, suffix) {
				found[filepath.Join(dir, name)] = true
			}
		}
	}
	if len(errs) == len(c.dirs) {
		return nil, errors.Join(append(errs, errNoJournal)...)
	}
	slices.Sort(c.aside)
	return found, nil
}

// passing says whether an error is about the process or the system, not about
// the file: it proves nothing, and another time may be better.
func passing(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EINTR)
}

// load reads a segment's header, and its name where the header is destroyed.
// Its error is a *VersionError, fs.ErrNotExist, or passing.
func (c *chain) load(path string) (*segment, error) {
	s := &segment{path: path, dataEnd: headerBytes}
	s.number, s.id, _ = parseName(path)
	f, err := c.fs.Open(path, false)
	if errors.Is(err, fs.ErrNotExist) || passing(err) {
		return nil, err
	}
	if err != nil {
		s.openErr = err
		return s, nil
	}
	defer f.Close()
	w := window{file: f}
	h, err := decodeHeader(w.at(0, headerBytes))
	var newer *VersionError
	switch {
	case errors.As(err, &newer):
		newer.Path = path
		return nil, newer
	case err != nil && w.refused != nil:
		s.headerErr = w.refused
	case err != nil:
		s.headerErr = err
	default:
		s.number, s.id, s.created, s.bytes, s.host = h.number, h.id, h.created, h.bytes, h.host
	}
	return s, c.probe(s, true)
}

// probe finds out whether a segment is in use, and reads its link. The first
// time it looks behind the zeros, too. Its error is passing.
func (c *chain) probe(s *segment, thorough bool) error {
	f, err := c.fs.Open(s.path, false)
	if passing(err) {
		return err
	}
	if err != nil {
		return nil
	}
	defer f.Close()
	sc := newScan(f, s.id)
	if !thorough && sc.zeroAt(headerBytes) {
		return nil
	}
	first, g := sc.next()
	switch {
	case first == nil:
		// Beside a writer this may be a link that is just being written.
		s.started = c.final && g != nil && !g.zero
	case first.kind == kindLink && g == nil:
		s.started, s.link, s.base = true, sc.link, sc.link.base
	default:
		s.started, s.base = true, first.seq
	}
	return nil
}

// order sorts the segments and spreads what links say about ends.
func (c *chain) order() {
	type key struct{ number, id uint64 }
	ends := map[key]segmentEnd{}
	for _, s := range c.segs {
		if s.link == nil {
			continue
		}
		for _, e := range s.link.ends {
			k := key{e.number, e.id}
			if had, ok := ends[k]; !ok || e.offset > had.offset {
				ends[k] = e
			}
		}
	}
	for _, s := range c.segs {
		if e, ok := ends[key{s.number, s.id}]; ok {
			s.end = &e
		}
	}
	c.sort()
}

// sort brings the segments into the order of what they hold. Numbers of
// segments agree with that but where one directory was away while the other
// went on. A segment with a destroyed link stays behind the one made before it,
// one not in use goes last.
func (c *chain) sort() {
	slices.SortFunc(c.segs, func(a, b *segment) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.path, b.path))
	})
	place := make(map[*segment]uint64, len(c.segs))
	var before uint64
	for _, s := range c.segs {
		switch {
		case !s.started && s.openErr == nil:
			place[s] = math.MaxUint64
			continue
		case s.base != 0:
			before = s.base
		}
		place[s] = before
	}
	slices.SortStableFunc(c.segs, func(a, b *segment) int {
		return cmp.Compare(place[a], place[b])
	})
}

// inUse lists the segments that hold something.
func (c *chain) inUse() []*segment {
	i := len(c.segs)
	for i > 0 && !c.segs[i-1].started && c.segs[i-1].openErr == nil {
		i--
	}
	return c.segs[:i]
}

// find gives the segment with this number and id, or nil.
func (c *chain) find(number, id uint64) *segment {
	for _, s := range c.segs {
		if s.number == number && s.id == id {
			return s
		}
	}
	return nil
}
