package attendance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"firstbell/attendance/seal"
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
//	correction (kind 4): an arrival as above that takes the place of what was
//	recorded before, because the timetable was wrong; behind the attempt follow
//
//	+----------+------------+--------+--------+--------+
//	| of       | old status | old    | author | reason |
//	| uvarint  | 1 byte     | period | text   | text   |
//	+----------+------------+--------+--------+--------+
//
//	digest of a day (kind 5)
//
//	0      1      2             4         8          16         24       32      64
//	+------+------+-------------+---------+----------+----------+--------+-------+
//	| kind | ver. |      0      | date    | made, ms | before   | rows   | sum   |
//	|      |  1   |             | days    |          | position |        |       |
//	+------+------+-------------+---------+----------+----------+--------+-------+
//
//	seal (kind 6): covers so many records directly before it
//
//	0      1      2             4         8          16         48          112
//	+------+------+-------------+---------+----------+----------+-----------+
//	| kind | ver. |      0      | records | key id   | root     | signature |
//	|      |  1   |             | 4 bytes | 8 bytes  | 32 bytes | 64 bytes  |
//	+------+------+-------------+---------+----------+----------+-----------+
//
// A seal with the sequence number s that covers n records makes s-n to s-1 the
// leaves of a Merkle tree, in this order, each leaf the whole record as drawn
// here (package seal says what is hashed and signed). It is appended together
// with them. Journals of versions that did not seal have no such records; what
// is in them counts as before, and has no proof. Counts of presses and
// contradictions are not sealed: they are evidence; nor is what is collected,
// which is no check-in.
//
// In a correction, of is the position of the record that it corrects. In a
// digest, sum is the sum over the day's rows (digest.go says of what), and
// before says that it counts all records below that position.
//
// date is days since 1970-01-01; moments are milliseconds since then, UTC. The
// raw arrival is when the press that made the record arrived, the first
// arrival what counts. presses is how often the key was pressed in all, not
// since the last such event, so that reading one twice changes nothing.
//
// status: 1 present, 2 late, 3 outside. flags: 1 verified, 2 the class belongs to the key, 4 an attempt follows;
// 8 and 16 say where the first arrival is from (see Basis).
//
//	collected (kind 8): another small write, kept as it came
//
//	0      1      2      3      4         8           24           32
//	+------+------+------+------+---------+-----------+------------+
//	| kind | ver. |  0   |  0   | date    | receipt   | arrival ms |
//	|      |  1   |      |      | days    | 16 bytes  |            |
//	+------+------+------+------+---------+-----------+------------+
//	| sink | zone offset, | school | key  | path      | content    |
//	| text | min (s. v.)  | text   | text | long text | type text  |
//	+------+--------------+--------+------+-----------+------------+
//	| body: its length as an unsigned varint, at most 65,536; bytes |
//	+---------------------------------------------------------------+
//
//	repeats (kind 9): how often a collected key came again
//
//	0      1      2      3      4         8           24        32
//	+------+------+------+------+---------+-----------+---------+---------+-----------+
//	| kind | ver. |  0   |  0   | date    | receipt   | raw ms  | repeats | differing |
//	|      |  1   |      |      | days    | 16 bytes  |         | varint  | varint    |
//	+------+------+------+------+---------+-----------+---------+---------+-----------+
//
//	contradiction (kind 10): check-ins that named somebody else than their credential
//
//	0      1      2      3      4         8           24           32
//	+------+------+------+------+---------+-----------+------------+
//	| kind | ver. | field|  0   | date    | id        | first      |
//	|      |  1   |      |      | days    | 16 bytes  | arrival ms |
//	+------+------+------+------+---------+-----------+------------+
//	| last - first, ms | zone offset, | times  | school | student | claimed |
//	| (signed varint)  | min (s. v.)  | varint | text   | text    | text    |
//	+------------------+--------------+--------+--------+---------+---------+
//
// field: 1 the student, 2 the class was named otherwise. student is whose the
// credential is, claimed what the content named; times is how often that day in
// all, so that of records with one id the last holds. An empty claimed stands for
// names beyond the bound on one credential, an empty student or school for
// credentials beyond the bound on all, each counted together.
//
// A long text has at most 2,048 bytes. A collected record names the sink that
// it is for first, so that others pass it over without reading on. repeats is
// how often the key came in all after its first time, while it was remembered,
// and differing how often with another body; the first body counts.
//
// A version only ever adds fields behind the ones drawn here; a reader ignores
// what it does not know. A layout that differs gets a new kind.
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
	KindArrival         Kind = 1  // a key's first arrival, or an earlier one proved later
	KindPresses         Kind = 2  // how often a key has been pressed: evidence
	KindVerifiedArrival Kind = 3  // takes the place of an unverified arrival
	KindCorrection      Kind = 4  // takes the place of an arrival that a wrong timetable misjudged
	KindDigest          Kind = 5  // what all rows of a day come to
	KindSeal            Kind = 6  // proves the records before it
	KindCollected       Kind = 8  // another small write, for one sink
	KindRepeats         Kind = 9  // how often a collected key came again: evidence
	KindContradiction   Kind = 10 // check-ins that named somebody else than their credential: evidence
)

// Basis says how the first arrival of an event is known.
type Basis uint8

const (
	BasisClock  Basis = 0 // the press itself
	BasisToken  Basis = 1 // a refused press, proved by its token
	BasisMemory Basis = 2 // a refused press, or one with the same attempt, that the process remembered
	BasisRecord Basis = 3 // another record, which a correction put elsewhere
)

// Event is one decoded record of the journal. Which fields are set depends on
// its kind.
type Event struct {
	Seq  uint64 // position in the journal; set by who reads it, 0 otherwise
	Kind Kind

	// KindArrival, KindVerifiedArrival, KindCorrection.
	Receipt              // FirstArrival is what counts
	ClassIsKey bool      // the class belongs to the key
	RawArrival time.Time // when the press that made this record arrived
	Timetable  string    // version of the timetable that gave period and status
	Attempt    uint64    // digest of the attempt, 0 without one
	Basis      Basis     //

	// KindPresses: Receipt.ID, Receipt.Date, RawArrival and this.
	Presses uint32 // how often the key has been pressed in all

	Correction *Correction // KindCorrection
	Digest     *DayDigest  // KindDigest, with Receipt.Date and RawArrival
	Seal       *seal.Seal  // KindSeal

	// KindCollected: Receipt.ID, Receipt.School, Receipt.Date, RawArrival, the
	// same moment in the school's zone as Receipt.FirstArrival, and this.
	Collected *Collected

	// KindRepeats: Receipt.ID, Receipt.Date, RawArrival and these.
	Repeats, Differing uint32

	// KindContradiction: Receipt.ID, Receipt.School, Receipt.Date, whose credential
	// it was as Receipt.Student, the first time as Receipt.FirstArrival and as
	// RawArrival, and this.
	Contradiction *Contradiction
}

// Correction says what a correcting event replaces, and why. RawArrival is when
// it was made.
type Correction struct {
	Of        uint64 // position of the record that it corrects
	OldStatus timetable.Status
	OldPeriod string
	Author    string
	Reason    string
}

// DayDigest is what all rows of a day come to.
type DayDigest struct {
	Before uint64 // records below this position count
	Sum    Sum
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

func appendCorrection(dst []byte, e *Event) []byte {
	c := e.Correction
	dst = appendArrival(dst, e)
	dst = binary.AppendUvarint(dst, c.Of)
	dst = append(dst, statusCode(c.OldStatus))
	for _, s := range [...]string{c.OldPeriod, c.Author, c.Reason} {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	return dst
}

func appendDigest(dst []byte, e *Event) []byte {
	le := binary.LittleEndian
	dst = append(dst, byte(KindDigest), eventVersion, 0, 0)
	dst = le.AppendUint32(dst, uint32(dayNumber(e.Date)))
	dst = le.AppendUint64(dst, uint64(e.RawArrival.UnixMilli()))
	dst = le.AppendUint64(dst, e.Digest.Before)
	dst = le.AppendUint64(dst, e.Digest.Sum.Rows)
	return append(dst, e.Digest.Sum.Digest[:]...)
}

func appendSeal(dst []byte, s *seal.Seal) []byte {
	dst = append(dst, byte(KindSeal), eventVersion, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, s.Leaves)
	dst = append(dst, s.Key[:]...)
	dst = append(dst, s.Root[:]...)
	return append(dst, s.Signature[:]...)
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
	texts := []string{e.School, e.Period, e.Student, e.Class, e.Timetable}
	if e.Correction != nil {
		texts = append(texts, e.Correction.OldPeriod, e.Correction.Author, e.Correction.Reason)
	}
	if e.Contradiction != nil {
		texts = append(texts, e.Contradiction.Claimed)
	}
	for _, s := range texts {
		if len(s) > fieldBytesMax {
			return dst, fmt.Errorf("writing an event: a field of %d bytes, at most %d", len(s), fieldBytesMax)
		}
	}
	switch {
	case e.Kind == KindArrival || e.Kind == KindVerifiedArrival:
		return appendArrival(dst, e), nil
	case e.Kind == KindPresses:
		return appendPresses(dst, &e.ID, e.Date, e.RawArrival.UnixMilli(), e.Presses), nil
	case e.Kind == KindCorrection && e.Correction != nil:
		return appendCorrection(dst, e), nil
	case e.Kind == KindDigest && e.Digest != nil:
		return appendDigest(dst, e), nil
	case e.Kind == KindSeal && e.Seal != nil:
		return appendSeal(dst, e.Seal), nil
	case e.Kind == KindCollected:
		return appendCollectedEvent(dst, e)
	case e.Kind == KindRepeats:
		return appendRepeats(dst, &e.ID, e.Date, e.RawArrival.UnixMilli(), e.Repeats, e.Differing), nil
	case e.Kind == KindContradiction && e.Contradiction != nil:
		return appendContradiction(dst, e), nil
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
	case KindArrival, KindVerifiedArrival, KindCorrection:
		err = e.decodeArrival(data)
	case KindPresses:
		err = e.decodePresses(data)
	case KindDigest:
		err = e.decodeDigest(data)
	case KindSeal:
		err = e.decodeSeal(data)
	case KindCollected:
		err = e.decodeCollected(data)
	case KindRepeats:
		err = e.decodeRepeats(data)
	case KindContradiction:
		err = e.decodeContradiction(data)
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
	if e.Kind == KindCorrection {
		e.Correction = &Correction{Of: c.uvarint(), OldStatus: statusOfCode(c.byte())}
		for _, s := range [...]*string{&e.Correction.OldPeriod, &e.Correction.Author, &e.Correction.Reason} {
			*s = c.text()
		}
	}
	return c.err
}

const (
	digestBytes = 64
	sealBytes   = 112
)

func (e *Event) decodeDigest(data []byte) error {
	if len(data) < digestBytes {
		return errCutShort
	}
	le := binary.LittleEndian
	day := int32(le.Uint32(data[4:]))
	if data[1] < eventVersion || day < dayMin || day > dayMax {
		return fmt.Errorf("version %d, day %d since 1970-01-01", data[1], day)
	}
	e.Date = dateOfDay(day)
	e.RawArrival = time.UnixMilli(int64(le.Uint64(data[8:]))).UTC()
	e.Digest = &DayDigest{Before: le.Uint64(data[16:]), Sum: Sum{Rows: le.Uint64(data[24:]), Digest: [32]byte(data[32:64])}}
	return nil
}

func (e *Event) decodeSeal(data []byte) error {
	if len(data) < sealBytes {
		return errCutShort
	}
	if data[1] < eventVersion {
		return fmt.Errorf("version %d does not exist", data[1])
	}
	e.Seal = &seal.Seal{
		Leaves: binary.LittleEndian.Uint32(data[4:]), Key: seal.KeyID(data[8:16]),
		Root: seal.Hash(data[16:48]), Signature: [seal.SignatureBytes]byte(data[48:112]),
	}
	return nil
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

func (c *cursor) text() string { return c.longText(fieldBytesMax) }

func (c *cursor) longText(most uint64) string {
	n := c.uvarint()
	if n > most {
		c.fail(fmt.Errorf("a field of %d bytes, at most %d", n, most))
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

func (c *cursor) byte() byte {
	if c.rest == "" {
		c.fail(errCutShort)
		return 0
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b
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
