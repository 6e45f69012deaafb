package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// jump is how far the numbers move on when part of the journal could not be
// looked at, such as a spare disk that is not mounted: more records than it can
// hold, and still small enough for a JSON number eight thousand times over.
const jump = 1 << 40

// open brings a journal to the point where records can be appended.
func (l *Log) open() error {
	blind, err := l.lockDirs()
	if err != nil {
		return err
	}
	c := &chain{fs: l.fs, dirs: l.dirs, final: true}
	if err := c.refresh(); err != nil {
		return err
	}
	l.settle(c)
	c.segs = nil // what was read so far may have come from memory alone
	if err := c.refresh(); err != nil {
		return err
	}
	w := &walk{chain: c, count: true, read: l.opt.Survey, report: func(d Damage) { l.damages = append(l.damages, d) }}
	for {
		if _, ok := w.next(); !ok {
			break
		}
	}
	if w.err != nil {
		return w.err
	}
	l.setAside()
	for _, d := range l.damages {
		if d.Alarm() {
			l.warn("%s", d.String())
		}
	}
	l.adopt(c, w.seen, blind)
	return l.start(c)
}

// lockDirs takes both directories. blind: one of them cannot be looked at, or
// is empty while the other is not.
func (l *Log) lockDirs() (blind bool, err error) {
	var fresh, old int
	var errs []error
	for _, dir := range []string{l.opt.Dir, l.opt.Spare} {
		if dir == "" {
			continue
		}
		existed, err := l.lockDir(dir)
		if errors.Is(err, ErrLocked) {
			return false, err
		}
		if err != nil {
			errs = append(errs, err)
			l.warn("directory %s cannot be used: %v", dir, err)
			blind = true
			continue
		}
		l.dirs = append(l.dirs, dir)
		if existed {
			old++
		} else {
			fresh++
		}
	}
	if len(l.dirs) == 0 {
		return false, errors.Join(errs...)
	}
	return blind || fresh > 0 && old > 0, nil
}

func (l *Log) lockDir(dir string) (existed bool, err error) {
	if err := l.fs.MkdirAll(dir); err != nil {
		return false, err
	}
	lock, existed, err := l.fs.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return existed, err
	}
	l.locks = append(l.locks, lock)
	return existed, l.fs.SyncDir(dir)
}

// settle makes what a crash left behind certain, one way or the other, before
// it is believed: segments with an open end are synced, and the system's copy
// in memory is dropped, for after a failed sync it may show what the disk does
// not hold. Segments that were never finished go.
func (l *Log) settle(c *chain) {
	for _, dir := range l.dirs {
		names, err := l.fs.List(dir)
		if err != nil {
			continue
		}
		for _, name := range names {
			if strings.HasSuffix(name, suffix+newSuffix) {
				l.fs.Remove(filepath.Join(dir, name))
			}
		}
		l.fs.SyncDir(dir)
	}
	for _, s := range c.segs {
		if !s.openEnded() || s.openErr != nil {
			continue
		}
		f, err := l.fs.Open(s.path, true)
		if err != nil {
			l.warn("segment %s cannot be synced: %v", s.path, err)
			continue
		}
		if err := f.Sync(); err != nil {
			l.warn("segment %s cannot be synced: %v", s.path, err)
		}
		f.Forget()
		f.Close()
	}
}

// adopt takes over the segments found, and decides the next number: behind
// everything that was read, named or reserved, and behind everything that a
// torn end could have held. So a number that somebody once saw, before a power
// cut took the record away, never names another record.
func (l *Log) adopt(c *chain, seen uint64, blind bool) {
	next := max(seen, l.opt.After) + 1
	lost := uint64(0)
	for _, s := range c.segs {
		l.number = max(l.number, s.number)
		s.size = l.sizeOf(s)
		if s.base != 0 {
			next = max(next, s.base, s.last+1)
		}
		if s.end != nil {
			next = max(next, s.end.last+1)
		}
		if s.openErr != nil && s.openEnded() {
			blind = true
		}
		if s.started && s.openEnded() && !s.closed {
			lost += uint64(max(s.size, s.bytes)-s.dataEnd)/frameBytes + 1
		}
		if s.started && s.openEnded() {
			flags := uint32(endFound)
			if s.closed {
				flags = endAcknowledged
			}
			l.ends = append(l.ends, segmentEnd{s.number, s.id, s.dataEnd, max(s.last, s.lost), flags})
		}
	}
	if blind {
		lost = max(lost, jump)
	}
	l.next = next + lost
}

func (l *Log) sizeOf(s *segment) int64 {
	f, err := l.fs.Open(s.path, false)
	if err != nil {
		return 0
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return 0
	}
	return n
}

// start begins a segment of its own: what an earlier process wrote is never
// written to again, but for giving back the zeros behind its end.
func (l *Log) start(c *chain) error {
	for _, s := range c.segs {
		switch {
		case s.started || s.openErr != nil || s.headerErr != nil:
			l.sealed = append(l.sealed, s)
		case l.fs.Remove(s.path) == nil: // made ahead, never used
			l.fs.SyncDir(s.dir())
		}
	}
	m, err := l.make(&link{why: whyOpened, base: l.next, ends: l.ends}, false)
	switch {
	case errors.Is(err, ErrFull):
		l.setState(Full, err)
		return nil
	case err != nil:
		return err
	}
	l.begin(m)
	for _, s := range l.sealed {
		if s.openEnded() && s.started {
			l.trim(s)
		}
	}
	return nil
}

// trim gives back the zeros behind a segment's last byte. Bytes of a torn tail
// stay where they are until the segment goes.
func (l *Log) trim(s *segment) {
	f, err := l.fs.Open(s.path, true)
	if err != nil {
		return
	}
	defer f.Close()
	w := window{file: f}
	end := w.lastNonZero(s.dataEnd, s.size)
	if w.refused != nil || f.Truncate(end) != nil {
		return
	}
	s.size = end
}

// setAside copies damaged bytes into a file of their own, which this package
// never removes.
func (l *Log) setAside() {
	for i := range l.damages {
		d := &l.damages[i]
		if d.Kind != Damaged || d.Bytes == 0 {
			continue
		}
		path := fmt.Sprintf("%s.%d%s", d.Segment, d.Offset, asideSuffix)
		if err := l.copyAside(path, d); err != nil {
			l.warn("setting damage aside as %s: %v", path, err)
			continue
		}
		d.SetAside = path
	}
}

func (l *Log) copyAside(path string, d *Damage) error {
	if f, err := l.fs.Open(path, false); err == nil {
		n, err := f.Size()
		f.Close()
		if err == nil && n == d.Bytes {
			return nil // at an earlier start
		}
		return errors.New("a file of another size has this name")
	}
	from, err := l.fs.Open(d.Segment, false)
	if err != nil {
		return err
	}
	defer from.Close()
	l.fs.Remove(path + newSuffix) // from a start that was cut short
	to, err := l.fs.Create(path + newSuffix)
	if err != nil {
		return err
	}
	defer to.Close()
	w := window{file: from}
	for off := d.Offset; off < d.Offset+d.Bytes; {
		p := w.at(off, int(min(windowBytes, d.Offset+d.Bytes-off)))
		if len(p) == 0 {
			break
		}
		if _, err := to.WriteAt(p, off-d.Offset); err != nil {
			return err
		}
		off += int64(len(p))
	}
	if err := to.Sync(); err != nil {
		return err
	}
	if err := l.fs.Rename(path+newSuffix, path); err != nil {
		return err
	}
	return l.fs.SyncDir(filepath.Dir(path))
}
