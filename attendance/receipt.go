package attendance

import (
	"encoding/hex"
	"fmt"
	"time"
	"unicode/utf8"

	"firstbell/attendance/timetable"
)

// ReceiptID names a check-in: a UUIDv8 (RFC 9562 section 5.8) cut from
// HMAC-SHA256 over its key. The same key has the same id for as long as the
// site keeps its secret.
type ReceiptID [16]byte

// String returns the usual form of a UUID, lower case.
func (id ReceiptID) String() string {
	var b [36]byte
	return string(id.append(b[:0]))
}

func (id ReceiptID) append(dst []byte) []byte {
	dst = hex.AppendEncode(dst, id[0:4])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[4:6])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[6:8])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[8:10])
	dst = append(dst, '-')
	return hex.AppendEncode(dst, id[10:16])
}

// ParseReceiptID reads what String writes.
func ParseReceiptID(s string) (ReceiptID, error) {
	var id ReceiptID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, fmt.Errorf("reading receipt %.40q: not a UUID", s)
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return id, fmt.Errorf("reading receipt %.40q: %w", s, err)
	}
	return id, nil
}

// OutsidePeriod is the period of a check-in that arrived while no period took
// any. No timetable has a period of that name.
const OutsidePeriod = string(timetable.Outside)

// Receipt is the answer to a check-in that is on disk.
type Receipt struct {
	ID           ReceiptID
	School       string
	Student      string
	Class        string // of the press that counts; empty when it named none
	Date         timetable.Date
	Period       string    // OutsidePeriod when no period was on
	FirstArrival time.Time // milliseconds; its zone has the school's offset at that moment
	Status       timetable.Status
	Verified     bool
}

// AppendJSON appends the receipt as one JSON object in the names of the wire:
// receipt, student_id, school, class_id, date, period, first_arrival, status,
// durable, verified.
func (r *Receipt) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	dst = r.appendMembers(dst)
	return append(dst, '}')
}

// AppendRecordJSON appends the receipt as AppendJSON does, with the member
// "key" in front: one element of a bulk POST.
func (r *Receipt) AppendRecordJSON(dst []byte, key string) []byte {
	dst = append(dst, `{"key":`...)
	dst = appendJSONString(dst, key)
	dst = append(dst, ',')
	dst = r.appendMembers(dst)
	return append(dst, '}')
}

func (r *Receipt) appendMembers(dst []byte) []byte {
	dst = append(dst, `"receipt":"`...)
	dst = r.ID.append(dst)
	dst = append(dst, `","student_id":`...)
	dst = appendJSONString(dst, r.Student)
	dst = append(dst, `,"school":`...)
	dst = appendJSONString(dst, r.School)
	dst = append(dst, `,"class_id":`...)
	dst = appendJSONString(dst, r.Class)
	dst = append(dst, `,"date":"`...)
	dst = appendDate(dst, r.Date)
	dst = append(dst, `","period":`...)
	dst = appendJSONString(dst, r.Period)
	dst = append(dst, `,"first_arrival":"`...)
	dst = appendTime(dst, r.FirstArrival)
	dst = append(dst, `","status":"`...)
	dst = append(dst, r.Status...)
	dst = append(dst, `","durable":"disk","verified":`...)
	if r.Verified {
		return append(dst, "true"...)
	}
	return append(dst, "false"...)
}

// AppendID appends the id in its usual form, without allocating.
func (r *Receipt) AppendID(dst []byte) []byte { return r.ID.append(dst) }

// AppendDate appends the date as 2006-01-02, without allocating.
func (r *Receipt) AppendDate(dst []byte) []byte { return appendDate(dst, r.Date) }

// AppendFirstArrival appends the first arrival as AppendJSON writes it.
func (r *Receipt) AppendFirstArrival(dst []byte) []byte { return appendTime(dst, r.FirstArrival) }

// appendJSONString appends s as a JSON string (RFC 8259 section 7); bytes that
// are not UTF-8 become U+FFFD.
func appendJSONString(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	plain := 0 // start of the bytes not yet copied
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[plain:i]...), "\uFFFD"...)
				plain = i + 1
			}
			i += n
			continue
		}
		if c < ' ' || c == '"' || c == '\\' {
			dst = append(dst, s[plain:i]...)
			if c < ' ' {
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			} else {
				dst = append(dst, '\\', c)
			}
			plain = i + 1
		}
		i++
	}
	return append(append(dst, s[plain:]...), '"')
}
