package attendance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"firstbell/attendance/timetable"
)

// One record of the journal is one event. The frame around it (length,
// checksum, sequence number) belongs to package wal. Numbers are little-endian;
// a text is its length as an unsigned varint, then its bytes, at most 256.
//
//	arrival (kind 1), verified arrival (kind 3)
//
//	0      1      2      3      4         8           24           32
//	+------+------+------+------+---------+-----------+------------+
//	| kind | ver. | flags|status| date    | receipt   | first      |
//	|      |  1   |      |      | days    | 16 bytes  | arrival ms |
//	+------+------+------+------+---------+-----------+------------+
//	| raw - first, ms (signed varint) | zone offset, min (s. varint)|
//	+---------+--------+---------+-------+-----------+-------------+
//	| school  | period | student | class | timetable | attempt     |
//	| text    | text   | text    | text  | text      | 8, if flag  |
//	+---------+--------+---------+-------+-----------+-------------+
//
//	presses (kind 2)
//
//	0      1      2      3      4         8           24           32
//	+------+------+------+------+---------+-----------+------------+---------+
//	| kind | ver. |  0   |  0   | date    | receipt   | raw ms     | presses |
//	|      |  1   |      |      | days    | 16 bytes  |            | varint  |
//	+------+------+------+------+---------+-----------+------------+---------+
//
// date is days since 1970-01-01; moments are milliseconds since then, UTC. The
// raw arrival is when the press that made the record arrived, the first
// arrival what counts. presses is how often the key was pressed in all, not
// since the last such event, so that reading one twice changes nothing.
//
// status: 1 present, 2 late, 3 outside. flags: 1 verified, 2 the class belongs to the key, 4 an attempt follows;
// 8 and 16 say where the first arrival is from (see Basis).
//
// A version only ever adds fields behind the ones drawn here; a reader ignores
// what it does not know. A layout that differs gets a new kind. Kinds 4
// (correction) and 5 (digest of a day) are kept free for what their names say.
const (
	eventVersion    = 1
	eventHeadBytes  = 32
	fieldBytesMax   = 256
	flagVerified    = 1
	flagClassIsKey  = 2
	flagAttempt     = 4
	flagBasisShift  = 3
	flagBasisMask   = 3
	attemptBytes    = 8
	eventBytesMax   = eventHeadBytes + 2*binary.MaxVarintLen64 + 5*(2+fieldBytesMax) + attemptBytes
	pressesBytesMax = eventHeadBytes + binary.MaxVarintLen64
)

// Kind tells events apart. A kind that this version does not know is no error:
// the event is kept and skipped.
type Kind uint8

const (
	KindArrival         Kind = 1 // a key's first arrival, or an earlier one proved later
	KindPresses         Kind = 2 // how often a key has been pressed: evidence
	KindVerifiedArrival Kind = 3 // takes the place of an unverified arrival
)

// Basis says how the first arrival of an event is known.
type Basis uint8

const (
	BasisClock  Basis = 0 // the press itself
	BasisToken  Basis = 1 // a refused press, proved by its token
	BasisMemory Basis = 2 // a refused press, or one with the same attempt, that the process remembered
)

// Event is one decoded record of the journal. Which fields are set depends on
// its kind.
type Event struct {
	Seq  uint64 // position in the journal; set by who reads it, 0 otherwise
	Kind Kind

	// KindArrival, KindVerifiedArrival.
	Receipt              // FirstArrival is what counts
	ClassIsKey bool      // the class belongs to the key
	RawArrival time.Time // when the press that made this record arrived
	Timetable  string    // version of the timetable that gave period and status
	Attempt    uint64    // digest of the attempt, 0 without one
	Basis      Basis     //

	// KindPresses: Receipt.ID, Receipt.Date, RawArrival and this.
	Presses uint32 // how often the key has been pressed in all
}

// errCutShort says that a record ends inside a field.
var errCutShort = errors.New("the record ends too early")

// appendArrival appends an event of kind arrival or verified arrival.
func appendArrival(dst []byte, e *Event) []byte {
	flags := byte(e.Basis&flagBasisMask) << flagBasisShift
	if e.Verified {
		flags |= flagVerified
	}
	if e.ClassIsKey {
		flags |= flagClassIsKey
	}
	if e.Attempt != 0 {
		flags |= flagAttempt
	}
	first := e.FirstArrival.UnixMilli()
	dst = appendHead(dst, e.Kind, flags, statusCode(e.Status), e.Date, &e.ID, first)
	dst = binary.AppendVarint(dst, e.RawArrival.UnixMilli()-first)
	dst = binary.AppendVarint(dst, int64(offsetMinutes(e.FirstArrival)))
	for _, s := range [...]string{e.School, e.Period, e.Student, e.Class, e.Timetable} {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	if e.Attempt != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, e.Attempt)
	}
	return dst
}

// appendPresses appends an event of kind presses.
func appendPresses(dst []byte, id *ReceiptID, date timetable.Date, rawMs int64, presses uint32) []byte {
	dst = appendHead(dst, KindPresses, 0, 0, date, id, rawMs)
	return binary.AppendUvarint(dst, uint64(presses))
}

func appendHead(dst []byte, k Kind, flags byte, status byte, d timetable.Date, id *ReceiptID, ms int64) []byte {
	dst = append(dst, byte(k), eventVersion, flags, status)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(dayNumber(d)))
	dst = append(dst, id[:]...)
	return binary.LittleEndian.AppendUint64(dst, uint64(ms))
}

// AppendEvent appends the event as the journal holds it: what DecodeEvent
// reads. Kinds that this version does not know cannot be written.
func AppendEvent(dst []byte, e *Event) ([]byte, error) {
	switch e.Kind {
	case KindArrival, KindVerifiedArrival:
		for _, s := range [...]string{e.School, e.Period, e.Student, e.Class, e.Timetable} {
			if len(s) > fieldBytesMax {
				return dst, fmt.Errorf("writing an event: a field of %d bytes, at most %d", len(s), fieldBytesMax)
			}
		}
		return appendArrival(dst, e), nil
	case KindPresses:
		return appendPresses(dst, &e.ID, e.Date, e.RawArrival.UnixMilli(), e.Presses), nil
	}
	return dst, fmt.Errorf("writing an event: unknown kind %d", e.Kind)
}

// DecodeEvent reads one record of the journal. The event does not refer to
// data. An unknown kind is not an error: only Kind is set.
func DecodeEvent(data []byte) (Event, error) {
	if len(data) < 2 {
		return Event{}, fmt.Errorf("reading an event of %d bytes: %w", len(data), errCutShort)
	}
	e := Event{Kind: Kind(data[0])}
	var err error
	switch e.Kind {
	case KindArrival, KindVerifiedArrival:
		err = e.decodeArrival(data)
	case KindPresses:
		err = e.decodePresses(data)
	}
	if err != nil {
		return Event{}, fmt.Errorf("reading an event of kind %d: %w", data[0], err)
	}
	return e, nil
}

func (e *Event) decodeHead(data []byte) (flags byte, ms int64, err error) {
	if len(data) < eventHeadBytes {
		return 0, 0, errCutShort
	}
	if data[1] < eventVersion {
		return 0, 0, fmt.Errorf("version %d does not exist", data[1])
	}
	day := int32(binary.LittleEndian.Uint32(data[4:]))
	if day < dayMin || day > dayMax {
		return 0, 0, fmt.Errorf("day %d since 1970-01-01", day)
	}
	e.Date = dateOfDay(day)
	copy(e.ID[:], data[8:24])
	return data[2], int64(binary.LittleEndian.Uint64(data[24:])), nil
}

func (e *Event) decodeArrival(data []byte) error {
	flags, first, err := e.decodeHead(data)
	if err != nil {
		return err
	}
	if e.Status = statusOfCode(data[3]); e.Status == "" {
		return fmt.Errorf("status %d does not exist", data[3])
	}
	e.Verified = flags&flagVerified != 0
	e.ClassIsKey = flags&flagClassIsKey != 0
	e.Basis = Basis(flags >> flagBasisShift & flagBasisMask)

	c := cursor{rest: string(data[eventHeadBytes:])}
	delta := c.varint()
	offset := c.varint()
	if offset < -offsetMax || offset > offsetMax {
		return fmt.Errorf("zone offset of %d minutes", offset)
	}
	e.FirstArrival = time.UnixMilli(first).In(fixedZone(int16(offset)))
	e.RawArrival = time.UnixMilli(first + delta).UTC()
	for _, s := range [...]*string{&e.School, &e.Period, &e.Student, &e.Class, &e.Timetable} {
		*s = c.text()
	}
	if flags&flagAttempt != 0 {
		e.Attempt = c.uint64()
	}
	return c.err
}

func (e *Event) decodePresses(data []byte) error {
	_, raw, err := e.decodeHead(data)
	if err != nil {
		return err
	}
	e.RawArrival = time.UnixMilli(raw).UTC()
	c := cursor{rest: string(data[eventHeadBytes:])}
	e.Presses = uint32(min(c.uvarint(), 1<<32-1))
	return c.err
}

// The first and the last day that a date of four digits can name.
const (
	dayMin = -719162 // 0001-01-01
	dayMax = 2932896 // 9999-12-31
)

// statuses by their code on disk; 0 is none.
var statuses = [...]timetable.Status{"", timetable.Present, timetable.Late, timetable.Outside}

func statusCode(s timetable.Status) byte {
	for code, known := range statuses {
		if s == known {
			return byte(code)
		}
	}
	return 0
}

func statusOfCode(code byte) timetable.Status {
	if int(code) >= len(statuses) {
		return ""
	}
	return statuses[code]
}

// cursor reads fields off the front of rest. After the first error everything
// reads as zero.
type cursor struct {
	rest string
	err  error
}

func (c *cursor) fail(err error) {
	c.rest = ""
	if c.err == nil {
		c.err = err
	}
}

func (c *cursor) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(c.rest) && i < binary.MaxVarintLen64; i++ {
		b := c.rest[i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			c.rest = c.rest[i+1:]
			return v
		}
	}
	c.fail(errCutShort)
	return 0
}

func (c *cursor) varint() int64 {
	u := c.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (c *cursor) text() string {
	n := c.uvarint()
	if n > fieldBytesMax {
		c.fail(fmt.Errorf("a field of %d bytes, at most %d", n, fieldBytesMax))
		return ""
	}
	if uint64(len(c.rest)) < n {
		c.fail(errCutShort)
		return ""
	}
	s := c.rest[:n]
	c.rest = c.rest[n:]
	return s
}

func (c *cursor) uint64() uint64 {
	if len(c.rest) < 8 {
		c.fail(errCutShort)
		return 0
	}
	v := binary.LittleEndian.Uint64([]byte(c.rest[:8]))
	c.rest = c.rest[8:]
	return v
}
