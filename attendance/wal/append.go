package wal

import (
	"errors"
	"fmt"
	"time"
)

// Append writes records in order and returns the number of the first once all
// of them are on disk; the others follow it without a gap. One write, one sync.
// Called by one goroutine at a time. records are not kept.
//
// ErrTooLarge, ErrFull and ErrClosed: nothing was written. ErrDown: either the
// log was down already, or it is from now on, and what reached the disk is not
// known; nobody will read it, its numbers are not given out again, and the
// records may be appended anew once Health says that the log is open.
// No records: nothing is done.
func (l *Log) Append(records [][]byte) (first uint64, err error) {
	n, err := l.measure(records)
	if err != nil {
		return 0, err
	}
	l.turn <- struct{}{}
	defer func() { <-l.turn }()

	l.mu.Lock()
	state, why, first := l.state, l.why, l.next
	l.mu.Unlock()
	switch {
	case state == Closed:
		return 0, fmt.Errorf("appending %d records: %w", len(records), ErrClosed)
	case state == Down:
		return 0, fmt.Errorf("appending %d records: %w: %w", len(records), ErrDown, why)
	case len(records) == 0:
		return first, nil
	}
	if err := l.makeRoom(n, first); err != nil {
		return 0, fmt.Errorf("appending %d records: %w", len(records), err)
	}
	l.encode(records, first)
	if err := l.commit(len(records)); err != nil {
		return 0, fmt.Errorf("appending records %d to %d: %w", first, first+uint64(len(records))-1, err)
	}
	return first, nil
}

// measure says how many bytes the frames of records take.
func (l *Log) measure(records [][]byte) (int64, error) {
	n := int64(0)
	for i, r := range records {
		if len(r) > RecordBytesMax {
			return 0, fmt.Errorf("appending %d records: record %d of them has %d bytes, at most %d: %w", len(records), i, len(r), RecordBytesMax, ErrTooLarge)
		}
		n += frameBytes + int64(len(r))
	}
	if most := l.opt.SegmentBytes - headerBytes - linkBytesMax - frameBytes; n > most {
		return 0, fmt.Errorf("appending %d records: %d bytes, at most %d in one segment: %w", len(records), n, most, ErrTooLarge)
	}
	return n, nil
}

// linkBytesMax bounds the link of a segment begun because the one before was
// full: it names that one, and one more whose first write failed.
const linkBytesMax = frameBytes + 8 + 4*endBytes

// makeRoom sees to it that n bytes and an end frame fit into the segment in
// use. After an error nothing has changed but the state.
func (l *Log) makeRoom(n int64, first uint64) error {
	l.buf = l.buf[:0]
	if l.file != nil && l.off+n+frameBytes <= l.room {
		return l.mayGrow(n)
	}
	m, err := l.takeReady()
	if err != nil {
		if errors.Is(err, ErrFull) {
			l.setState(Full, err)
			return err
		}
		l.setState(Down, err)
		l.askLife()
		return fmt.Errorf("%w: %w", ErrDown, err)
	}
	l.roll(m, first)
	return nil
}

// mayGrow refuses where the segment's space could not be set aside and the
// disk is about to be full.
func (l *Log) mayGrow(n int64) error {
	if l.cur.whole {
		return nil
	}
	if err := l.hasRoom(l.cur.dir(), n); err != nil {
		l.setState(Full, err)
		return err
	}
	return nil
}

// takeReady gives the segment made ahead, or makes one.
func (l *Log) takeReady() (*made, error) {
	l.hurry.Store(true)
	l.making <- struct{}{}
	l.hurry.Store(false)
	defer func() { <-l.making }()
	l.mu.Lock()
	m := l.ready
	l.ready = nil
	l.mu.Unlock()
	if m != nil {
		return m, nil
	}
	m, err := l.make(nil, false)
	if err == nil {
		l.mu.Lock()
		l.stats.Waited++
		l.mu.Unlock()
	}
	return m, err
}

// roll puts m into use. Its link goes out with the first records.
func (l *Log) roll(m *made, first uint64) {
	if l.file != nil {
		l.file.Close() // everything in it is synced
		l.ends = append(l.ends, segmentEnd{l.cur.number, l.cur.id, l.off, l.cur.last, endAcknowledged})
	}
	lnk := &link{why: whyFull, base: first, ends: l.ends}
	l.idSeed = seed(m.seg.id)
	l.buf = appendFrame(l.buf, m.seg.id, l.idSeed, kindLink, first, 0, lnk.encode())
	m.seg.started, m.seg.base, m.seg.link = true, first, lnk
	l.use(m)
}

// use makes m the segment in use. The caller holds turn.
func (l *Log) use(m *made) {
	if m.seg.dir() != l.opt.Dir {
		l.warn("records go to the spare directory %s", m.seg.dir())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur != nil {
		l.sealed = append(l.sealed, l.cur)
	}
	l.file, l.off, l.room = m.file, m.off, l.opt.SegmentBytes
	l.cur = m.seg
	l.cur.whole = m.whole
	l.anchored = false
	l.stats.Segments++
}

// encode puts the frames of records behind what buf holds already.
func (l *Log) encode(records [][]byte, first uint64) {
	for i, r := range records {
		l.buf = appendFrame(l.buf, l.cur.id, l.idSeed, kindRecord, first+uint64(i), uint32(i), r)
	}
}

// commit writes buf and syncs it. When that fails the segment is given up.
func (l *Log) commit(records int) error {
	began := time.Now()
	_, err := l.file.WriteAt(l.buf, l.off)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return l.giveUp(records, full(err))
	}
	took := time.Since(began)
	l.off += int64(len(l.buf))
	l.ends = l.ends[:0]

	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cur
	if c.first == 0 {
		c.first = l.next
	}
	c.last = l.next + uint64(records) - 1
	c.records += int64(records)
	c.dataEnd = l.off
	c.size = max(c.size, l.off)
	l.next += uint64(records)
	l.anchored = true
	l.state, l.why = Opened, nil
	l.stats.Appends++
	l.stats.Records += uint64(records)
	l.stats.Bytes += uint64(len(l.buf))
	l.stats.SyncTotal += took
	l.stats.SyncSlowest = max(l.stats.SyncSlowest, took)
	if l.ready == nil {
		l.askNext()
	}
	return nil
}

// giveUp ends the use of a segment that refused a write or a sync. What lies
// behind its last acknowledged record is unknown from now on: the numbers it
// may hold are skipped, and the next link says where it ends.
func (l *Log) giveUp(records int, err error) error {
	l.file.Close()
	l.file = nil
	c := l.cur
	e := segmentEnd{c.number, c.id, l.off, c.last, endAcknowledged | endUnknown}
	l.ends = append(l.ends, e)
	l.mu.Lock()
	c.end = &e
	if len(l.damages) < damagesMax {
		l.damages = append(l.damages, Damage{
			Kind: Unknown, Segment: c.path, Offset: l.off, Bytes: int64(len(l.buf)),
			From: l.next, To: l.next + uint64(records) - 1, Detail: err.Error(),
		})
	}
	l.failed = l.next
	l.next += uint64(records)
	l.sealed = append(l.sealed, c)
	l.cur = nil
	l.anchored = false
	l.stats.Failures++
	l.mu.Unlock()
	l.warn("segment %s was given up: %v", c.path, err)
	l.setState(Down, err)
	l.hurry.Store(true) // the keeper is to stop writing zeros
	l.askLife()
	return fmt.Errorf("%w: %w", ErrDown, err)
}

func (l *Log) askNext() {
	select {
	case l.wantNext <- struct{}{}:
	default:
	}
}

func (l *Log) askLife() {
	select {
	case l.wantLife <- struct{}{}:
	default:
	}
}
