package store

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"firstbell/attendance"
)

// copyArrivals writes rows that should have no other of their key: one that has
// ends it, and nothing of it stays. A row costs the database two thirds of what
// it costs in an INSERT of arrays, and this process half.
var copyArrivals = "COPY firstbell.arrivals (" + strings.Join(columns[:], ", ") + ") FROM STDIN (FORMAT binary)"

// copyRows sends the rows to the table, in the transaction that is open.
func copyRows(ctx context.Context, c *pgconn.PgConn, rows []*attendance.Event) (int, error) {
	tag, err := c.CopyFrom(ctx, &copyReader{rows: rows, buf: make([]byte, 0, copyBufferBytes)}, copyArrivals)
	return int(tag.RowsAffected()), err
}

// copyBufferBytes holds one portion of what pgconn asks for, and the row that
// goes beyond it.
const copyBufferBytes = 68 << 10

// copyReader reads rows in PostgreSQL's binary format ("Binary Format" under
// COPY in its manual): a header, for each row its number of fields, each field as
// its length and its bytes in network order, and a trailer.
type copyReader struct {
	rows  []*attendance.Event
	begun bool
	ended bool
	buf   []byte
	read  int // of buf
}

const copyHeader = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func (r *copyReader) Read(p []byte) (int, error) {
	if r.read == len(r.buf) {
		r.fill(len(p))
	}
	if r.read == len(r.buf) {
		return 0, io.EOF
	}
	n := copy(p, r.buf[r.read:])
	r.read += n
	return n, nil
}

// fill encodes rows until there are as many bytes as are wanted.
func (r *copyReader) fill(wanted int) {
	r.buf, r.read = r.buf[:0], 0
	if !r.begun {
		r.buf, r.begun = append(r.buf, copyHeader...), true
	}
	for len(r.buf) < min(wanted, copyBufferBytes) && len(r.rows) > 0 {
		r.buf = appendCopied(r.buf, r.rows[0])
		r.rows = r.rows[1:]
	}
	if len(r.rows) == 0 && !r.ended {
		r.buf, r.ended = append(r.buf, 0xff, 0xff), true
	}
}

// appendCopied appends a row, its fields in the order of columns.
func appendCopied(dst []byte, e *attendance.Event) []byte {
	be := binary.BigEndian
	dst = be.AppendUint16(dst, uint16(len(columns)))
	dst = be.AppendUint32(be.AppendUint32(dst, 4), uint32((midnight(e.Date).Unix()-copyEpoch.Unix())/secondsPerDay))
	for _, s := range [...]string{e.School, e.Period, e.Student, classKey(e), e.Class, string(e.Status)} {
		dst = appendCopiedText(dst, s)
	}
	first := within(e.FirstArrival)
	dst = be.AppendUint64(be.AppendUint32(dst, 8), uint64(first.UnixMicro()-copyEpoch.UnixMicro()))
	dst = be.AppendUint16(be.AppendUint32(dst, 2), uint16(utcOffset(e.FirstArrival)))
	verified := byte(0)
	if e.Verified {
		verified = 1
	}
	dst = append(be.AppendUint32(dst, 1), verified)
	dst = append(be.AppendUint32(dst, 16), e.ID[:]...)
	dst = appendCopiedText(dst, e.Timetable)
	return be.AppendUint64(be.AppendUint32(dst, 8), e.Seq)
}

func appendCopiedText(dst []byte, s string) []byte {
	s = plain(s)
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...)
}

const secondsPerDay = 24 * 60 * 60

// copyEpoch is where PostgreSQL counts from.
var copyEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
