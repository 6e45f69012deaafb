package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The bytes on disk. They stay for ever: a change needs a new version number
// and a reader for the old one. All numbers are little-endian, all checksums
// are CRC-32C (Castagnoli).
//
// A segment is one file, <number>-<id>.wal: ten decimal digits or more, then
// sixteen hexadecimal digits. Number says in which order segments were made,
// id is drawn at random. The name repeats what the header says, so a segment
// whose header was destroyed is still read.
//
//	0                                4096
//	+--------------------------------+------+-------+-------+-- - --+---------+
//	| header, one page               | link | record| record| . . . | zeros   |
//	+--------------------------------+------+-------+-------+-- - --+---------+
//
// Header:
//
//	 0  8  magic  89 'F' 'B' 'W' 'A' 'L' 0d 0a
//	 8  4  format version, 1
//	12  4  where frames begin, 4096
//	16  8  segment number
//	24  8  segment id
//	32  8  creation time, nanoseconds since 1970 UTC
//	40  8  bytes set aside for this segment when it was made
//	48  2  length of the host name, at most 255
//	50  n  host name
//	    ..  zeros
//	4092 4  checksum of the 4092 bytes before
//
// Frame, 24 bytes and the data, one after the other without padding:
//
//	 0  4  checksum of the 8 bytes of the segment id, then of all that follows
//	 4  3  length of the data
//	 7  1  kind: 1 link, 2 record, 3 end
//	 8  8  sequence number
//	16  4  low half of the segment id
//	20  4  place in its Append: 0 for the first record of an Append, 1 for the next
//	24  n  data
//
// Twenty-four zero bytes are no frame: zeros are where nothing was written yet
// (the low half of an id is never zero). The place in its Append tells, for
// any record that can be read, which numbers had been synced before it was
// written: all those below sequence number - place. That is how a hole left by
// a power cut in the last, unacknowledged Append is told from damage.
//
// Link, the first frame of every segment in use; its sequence number is the
// first one this segment will hold. It says where the segments before it end:
//
//	0  4  why this segment was begun: 1 the one before is full,
//	      2 the log was opened, 3 the one before could not be written
//	4  4  how many ends follow
//	8 40  each: number (8), id (8), offset behind its last record (8),
//	      last sequence number or 0 (8), flags (4), zeros (4)
//
// Flags of an end: 1 the writer itself acknowledged everything before it,
// 2 found by reading the segment when the log was opened, 4 an Append failed
// here, what lies behind is unknown and belongs to nobody.
//
// End, the last frame of a segment that was closed in good order; no data; its
// sequence number is the one that would have come next.
const (
	headerBytes = 4096
	frameBytes  = 24
	endBytes    = 40
	version     = 1
	hostMax     = 255
	suffix      = ".wal"
	newSuffix   = ".new"        // being made: never holds a record
	asideSuffix = ".damaged"    // set aside: never removed by this package
	shutSuffix  = ".unreadable" // likewise: nobody knows what is in it
	lockName    = "lock"

	kindLink   = 1
	kindRecord = 2
	kindEnd    = 3

	whyFull    = 1
	whyOpened  = 2
	whyRevived = 3

	endAcknowledged = 1
	endFound        = 2
	endUnknown      = 4
)

// RecordBytesMax bounds one record. The largest thing a route may collect is
// 64 KiB; 1 MiB leaves room for what surrounds it.
const RecordBytesMax = 1 << 20

const magic = "\x89FBWAL\r\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errNotOurs    = errors.New("not a journal segment")
	errHeaderRead = errors.New("header does not match its checksum")
)

// header is what a segment says about itself.
type header struct {
	number, id uint64
	created    time.Time
	bytes      int64
	host       string
}

func (h *header) encode() []byte {
	p := make([]byte, headerBytes)
	copy(p, magic)
	le := binary.LittleEndian
	le.PutUint32(p[8:], version)
	le.PutUint32(p[12:], headerBytes)
	le.PutUint64(p[16:], h.number)
	le.PutUint64(p[24:], h.id)
	le.PutUint64(p[32:], uint64(h.created.UnixNano()))
	le.PutUint64(p[40:], uint64(h.bytes))
	host := h.host[:min(len(h.host), hostMax)]
	le.PutUint16(p[48:], uint16(len(host)))
	copy(p[50:], host)
	le.PutUint32(p[headerBytes-4:], crc32.Checksum(p[:headerBytes-4], castagnoli))
	return p
}

// VersionError is a segment of a format this program does not know. It is
// never touched; a newer program reads it.
type VersionError struct {
	Path    string
	Version uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("reading segment %s: format version %d is newer than this program (it reads version %d)", e.Path, e.Version, version)
}

func decodeHeader(p []byte) (header, error) {
	le := binary.LittleEndian
	if len(p) < headerBytes {
		return header{}, errHeaderRead
	}
	if le.Uint32(p[headerBytes-4:]) != crc32.Checksum(p[:headerBytes-4], castagnoli) {
		return header{}, errHeaderRead
	}
	if string(p[:8]) != magic {
		return header{}, errNotOurs
	}
	if v := le.Uint32(p[8:]); v != version {
		return header{}, &VersionError{Version: v}
	}
	n := le.Uint16(p[48:])
	if le.Uint32(p[12:]) != headerBytes || n > hostMax {
		return header{}, errHeaderRead
	}
	return header{
		number:  le.Uint64(p[16:]),
		id:      le.Uint64(p[24:]),
		created: time.Unix(0, int64(le.Uint64(p[32:]))),
		bytes:   int64(le.Uint64(p[40:])),
		host:    string(p[50 : 50+n]),
	}, nil
}

func segmentName(number, id uint64) string {
	return fmt.Sprintf("%010d-%016x%s", number, id, suffix)
}

// parseName reads number and id out of a segment's file name.
func parseName(path string) (number, id uint64, ok bool) {
	base, ok := strings.CutSuffix(filepath.Base(path), suffix)
	if !ok {
		return 0, 0, false
	}
	a, b, ok := strings.Cut(base, "-")
	if !ok || len(a) < 10 || len(b) != 16 {
		return 0, 0, false
	}
	number, err := strconv.ParseUint(a, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	id, err = strconv.ParseUint(b, 16, 64)
	if err != nil || uint32(id) == 0 {
		return 0, 0, false
	}
	return number, id, true
}

// seed is where the checksum of every frame of a segment begins.
func seed(id uint64) uint32 {
	var p [8]byte
	binary.LittleEndian.PutUint64(p[:], id)
	return crc32.Checksum(p[:], castagnoli)
}

// frame is one frame as read. data points into the reader's buffer.
type frame struct {
	kind  byte
	seq   uint64
	place uint32
	data  []byte
}

func (f *frame) size() int64 { return frameBytes + int64(len(f.data)) }

// appendFrame adds one frame to b.
func appendFrame(b []byte, id uint64, idSeed uint32, kind byte, seq uint64, place uint32, data []byte) []byte {
	at := len(b)
	le := binary.LittleEndian
	b = append(b, 0, 0, 0, 0)
	b = le.AppendUint32(b, uint32(len(data))|uint32(kind)<<24)
	b = le.AppendUint64(b, seq)
	b = le.AppendUint32(b, uint32(id))
	b = le.AppendUint32(b, place)
	b = append(b, data...)
	le.PutUint32(b[at:], crc32.Update(idSeed, castagnoli, b[at+4:]))
	return b
}

// frameLength says how long the frame that begins with p claims to be, and
// whether it can be one of segment id at all. p holds at least frameBytes.
func frameLength(p []byte, id uint64) (int64, bool) {
	le := binary.LittleEndian
	w := le.Uint32(p[4:])
	kind, n := w>>24, int64(w&0xffffff)
	if le.Uint32(p[16:]) != uint32(id) || kind < kindLink || kind > kindEnd || n > RecordBytesMax {
		return 0, false
	}
	return frameBytes + n, true
}

// decodeFrame reads the frame that fills p exactly, as frameLength gave it.
func decodeFrame(p []byte, idSeed uint32) (frame, bool) {
	le := binary.LittleEndian
	if le.Uint32(p) != crc32.Update(idSeed, castagnoli, p[4:]) {
		return frame{}, false
	}
	return frame{
		kind:  p[7],
		seq:   le.Uint64(p[8:]),
		place: le.Uint32(p[20:]),
		data:  p[frameBytes:],
	}, true
}

// segmentEnd is what a link says about a segment before it.
type segmentEnd struct {
	number, id uint64
	offset     int64
	last       uint64
	flags      uint32
}

// link is the data of a segment's first frame.
type link struct {
	why  uint32
	base uint64 // the frame's sequence number
	ends []segmentEnd
}

func (l *link) encode() []byte {
	le := binary.LittleEndian
	p := le.AppendUint32(nil, l.why)
	p = le.AppendUint32(p, uint32(len(l.ends)))
	for _, e := range l.ends {
		p = le.AppendUint64(p, e.number)
		p = le.AppendUint64(p, e.id)
		p = le.AppendUint64(p, uint64(e.offset))
		p = le.AppendUint64(p, e.last)
		p = le.AppendUint32(p, e.flags)
		p = le.AppendUint32(p, 0)
	}
	return p
}

func decodeLink(f *frame) (*link, bool) {
	le := binary.LittleEndian
	if f.kind != kindLink || len(f.data) < 8 {
		return nil, false
	}
	l := &link{why: le.Uint32(f.data), base: f.seq}
	p := f.data[8:]
	if uint64(len(p)) != uint64(le.Uint32(f.data[4:]))*endBytes {
		return nil, false
	}
	for ; len(p) > 0; p = p[endBytes:] {
		l.ends = append(l.ends, segmentEnd{
			number: le.Uint64(p),
			id:     le.Uint64(p[8:]),
			offset: int64(le.Uint64(p[16:])),
			last:   le.Uint64(p[24:]),
			flags:  le.Uint32(p[32:]),
		})
	}
	return l, true
}
