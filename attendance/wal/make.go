package wal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"
)

// fillBytes is one step of writing zeros ahead: small enough that a sync of the
// segment in use, which may wait for it, is not held up for long.
const fillBytes = 1 << 20

var zeros [fillBytes]byte

// errStopped ends the making of a segment when the log is closed.
var errStopped = errors.New("the journal was closed")

// make creates a segment in the first directory that takes it, with the link
// if there is one, and reads back what it wrote. ahead: there is time to write
// its space with zeros; writing over zeros syncs in about half the time of
// writing into space merely promised, for the file system then has nothing of
// its own to note. The caller holds making.
func (l *Log) make(lnk *link, ahead bool) (*made, error) {
	var errs []error
	for _, dir := range l.dirs {
		if err := l.hasRoom(dir, l.opt.SegmentBytes); err != nil {
			errs = append(errs, err)
			continue
		}
		m, err := l.makeIn(dir, lnk, ahead)
		if err == nil {
			return m, nil
		}
		errs = append(errs, fmt.Errorf("making a segment in %s: %w", dir, err))
	}
	return nil, errors.Join(errs...)
}

// hasRoom says whether n more bytes in dir respect Max and Reserve.
func (l *Log) hasRoom(dir string, n int64) error {
	l.mu.Lock()
	used := l.usedLocked()
	l.mu.Unlock()
	if l.opt.Max > 0 && used+n > l.opt.Max {
		return fmt.Errorf("%w: %d bytes in use of at most %d", ErrFull, used, l.opt.Max)
	}
	free, err := l.fs.Free(dir)
	if err != nil {
		return nil // the write itself will tell
	}
	if free < n || free-n < l.opt.Reserve {
		return fmt.Errorf("%w: %d bytes free in %s, %d are to stay free", ErrFull, free, dir, l.opt.Reserve)
	}
	return nil
}

func (l *Log) makeIn(dir string, lnk *link, ahead bool) (m *made, err error) {
	l.mu.Lock()
	l.number++
	seg := &segment{number: l.number, host: l.opt.Host, created: time.Now(), bytes: l.opt.SegmentBytes}
	l.mu.Unlock()
	seg.id = newID()
	seg.path = filepath.Join(dir, segmentName(seg.number, seg.id))
	file, err := l.fs.Create(seg.path + newSuffix)
	if err != nil {
		return nil, err
	}
	m = &made{seg: seg, file: file, off: headerBytes}
	defer func() {
		if err != nil {
			file.Close()
			l.fs.Remove(seg.path + newSuffix)
			l.fs.Remove(seg.path)
		}
	}()
	switch err = file.Allocate(seg.bytes); {
	case err == nil:
		m.whole = true
	case !errors.Is(err, errors.ErrUnsupported):
		return nil, full(err)
	}
	head := (&header{number: seg.number, id: seg.id, created: seg.created, bytes: seg.bytes, host: seg.host}).encode()
	if lnk != nil {
		seg.started, seg.base, seg.link = true, lnk.base, lnk
		head = appendFrame(head, seg.id, seed(seg.id), kindLink, lnk.base, 0, lnk.encode())
		m.off = int64(len(head))
	}
	if _, err = file.WriteAt(head, 0); err != nil {
		return nil, full(err)
	}
	if ahead {
		var filled bool
		if filled, err = l.fill(file, seg.bytes); err != nil {
			return nil, full(err)
		}
		m.whole = m.whole || filled
	}
	if err = l.publish(m, head); err != nil {
		return nil, full(err)
	}
	seg.size, err = file.Size()
	return m, err
}

// publish makes the segment last under its name and reads it back from the disk.
func (l *Log) publish(m *made, head []byte) error {
	if err := m.file.Sync(); err != nil {
		return err
	}
	if err := l.fs.Rename(m.seg.path+newSuffix, m.seg.path); err != nil {
		return err
	}
	if err := l.fs.SyncDir(m.seg.dir()); err != nil {
		return err
	}
	m.file.Forget()
	back := make([]byte, len(head))
	if _, err := m.file.ReadAt(back, 0); err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	if !bytes.Equal(back, head) {
		return errors.New("reading back: not what was written")
	}
	return nil
}

// fill writes zeros, and stops early when somebody waits for the segment.
func (l *Log) fill(f File, size int64) (filled bool, err error) {
	for off := int64(headerBytes); off < size; off += fillBytes {
		select {
		case <-l.stop:
			return false, errStopped
		default:
		}
		if l.hurry.Load() {
			return false, nil
		}
		if _, err := f.WriteAt(zeros[:min(fillBytes, size-off)], off); err != nil {
			return false, err
		}
		if err := f.Sync(); err != nil {
			return false, err
		}
	}
	return true, nil
}

// discard removes a segment that never held a record. What remains after an
// error is an empty file, which the next Open removes.
func (l *Log) discard(m *made) {
	m.file.Close()
	if l.fs.Remove(m.seg.path) == nil {
		l.fs.SyncDir(m.seg.dir())
	}
}

// full adds ErrFull to the system's own ways of saying so.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

func newID() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:]) // never fails
		id := binary.LittleEndian.Uint64(b[:])
		if uint32(id) != 0 {
			return id
		}
	}
}
