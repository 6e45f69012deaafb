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

// refresh looks for segments it does not know yet, drops those that are gone,
// and reads what new links say.
func (c *chain) refresh() error {
	found := map[string]bool{}
	var errs []error
	c.aside = c.aside[:0]
	for _, dir := range c.dirs {
		names, err := c.fs.List(dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("listing journal directory %s: %w", dir, err))
			continue
		}
		for _, name := range names {
			if strings.HasSuffix(name, asideSuffix) {
				c.aside = append(c.aside, filepath.Join(dir, name))
			}
			if strings.HasSuffix(name, suffix) {
				found[filepath.Join(dir, name)] = true
			}
		}
	}
	if len(errs) == len(c.dirs) {
		return errors.Join(append(errs, errNoJournal)...)
	}
	slices.Sort(c.aside)
	c.segs = slices.DeleteFunc(c.segs, func(s *segment) bool { return !found[s.path] })
	for _, s := range c.segs {
		delete(found, s.path)
	}
	for path := range found {
		s, err := c.load(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return err
		}
		c.segs = append(c.segs, s)
	}
	for _, s := range c.segs {
		if !s.started {
			c.probe(s, false)
		}
	}
	c.order()
	return nil
}

// load reads a segment's header, and its name where the header is destroyed.
// Its error is a *VersionError, or fs.ErrNotExist.
func (c *chain) load(path string) (*segment, error) {
	s := &segment{path: path, dataEnd: headerBytes}
	s.number, s.id, _ = parseName(path)
	f, err := c.fs.Open(path, false)
	if errors.Is(err, fs.ErrNotExist) {
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
	c.probe(s, true)
	return s, nil
}

// probe finds out whether a segment is in use, and reads its link. The first
// time it looks behind the zeros, too.
func (c *chain) probe(s *segment, thorough bool) {
	f, err := c.fs.Open(s.path, false)
	if err != nil {
		return
	}
	defer f.Close()
	sc := newScan(f, s.id)
	if !thorough && sc.zeroAt(headerBytes) {
		return
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
