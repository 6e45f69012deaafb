package attendance

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/url"
	"time"
	"unicode/utf8"

	"firstbell/attendance/timetable"
)

const (
	// CollectedBytesMax bounds the body of what is collected.
	CollectedBytesMax = 64 << 10

	// CollectedPathMax bounds the path it came to.
	CollectedPathMax = 2048
)

// Collected is a small write that is no check-in, such as a progress beacon or
// a quiz answer, as it came.
type Collected struct {
	Sink        string // the one it is for
	Key         string // by which it is known, within its school and path
	Path        string // of the request, as it was sent, without its query
	ContentType string // as it was sent; may be empty
	Body        string // any bytes
}

// appendCollected appends an event of kind collected. Every field is within
// its bounds.
func appendCollected(dst []byte, id *ReceiptID, date timetable.Date, at time.Time, school string, c *Collected) []byte {
	dst = appendHead(dst, KindCollected, 0, 0, date, id, at.UnixMilli())
	dst = appendText(dst, c.Sink)
	dst = binary.AppendVarint(dst, int64(offsetMinutes(at)))
	for _, s := range [...]string{school, c.Key, c.Path, c.ContentType, c.Body} {
		dst = appendText(dst, s)
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendCollectedEvent(dst []byte, e *Event) ([]byte, error) {
	c := e.Collected
	if c == nil {
		return dst, fmt.Errorf("writing an event of kind %d: nothing was collected", e.Kind)
	}
	for _, f := range [...]struct {
		text string
		most int
	}{
		{c.Sink, fieldBytesMax}, {e.School, fieldBytesMax}, {c.Key, fieldBytesMax},
		{c.Path, CollectedPathMax}, {c.ContentType, fieldBytesMax}, {c.Body, CollectedBytesMax},
	} {
		if len(f.text) > f.most {
			return dst, fmt.Errorf("writing an event: a field of %d bytes, at most %d", len(f.text), f.most)
		}
	}
	return appendCollected(dst, &e.ID, e.Date, e.FirstArrival, e.School, c), nil
}

// appendRepeats appends an event of kind repeats.
func appendRepeats(dst []byte, id *ReceiptID, date timetable.Date, rawMs int64, repeats, differing uint32) []byte {
	dst = appendHead(dst, KindRepeats, 0, 0, date, id, rawMs)
	dst = binary.AppendUvarint(dst, uint64(repeats))
	return binary.AppendUvarint(dst, uint64(differing))
}

func (e *Event) decodeCollected(data []byte) error {
	_, ms, err := e.decodeHead(data)
	if err != nil {
		return err
	}
	c := cursor{rest: string(data[eventHeadBytes:])}
	var out Collected
	out.Sink = c.text()
	offset := c.varint()
	if offset < -offsetMax || offset > offsetMax {
		return fmt.Errorf("zone offset of %d minutes", offset)
	}
	e.FirstArrival = time.UnixMilli(ms).In(fixedZone(int16(offset)))
	e.RawArrival = time.UnixMilli(ms).UTC()
	e.School = c.text()
	out.Key = c.text()
	out.Path = c.longText(CollectedPathMax)
	out.ContentType = c.text()
	out.Body = c.longText(CollectedBytesMax)
	e.Collected = &out
	return c.err
}

func (e *Event) decodeRepeats(data []byte) error {
	_, raw, err := e.decodeHead(data)
	if err != nil {
		return err
	}
	e.RawArrival = time.UnixMilli(raw).UTC()
	c := cursor{rest: string(data[eventHeadBytes:])}
	e.Repeats = uint32(min(c.uvarint(), 1<<32-1))
	e.Differing = uint32(min(c.uvarint(), 1<<32-1))
	return c.err
}

// kindOf tells a record's kind without decoding it; 0 when there is none.
func kindOf(data []byte) Kind {
	if len(data) == 0 {
		return 0
	}
	return Kind(data[0])
}

// isFor reports whether a record was collected for the sink, without decoding
// the rest of it.
func isFor(data []byte, sink string) bool {
	if kindOf(data) != KindCollected || len(data) < eventHeadBytes {
		return false
	}
	n, size := binary.Uvarint(data[eventHeadBytes:])
	rest := data[eventHeadBytes+max(0, size):]
	return size > 0 && n == uint64(len(sink)) && uint64(len(rest)) >= n && string(rest[:n]) == sink
}

// AppendCollectedJSON appends what was collected as one JSON object in the
// names of the wire: key, receipt, school, path, content_type, arrival,
// durable, and the body: as the string "body" where it is UTF-8, else as
// "body_base64". e is an event of kind collected.
func (e *Event) AppendCollectedJSON(dst []byte) []byte {
	c := e.Collected
	dst = append(dst, `{"key":`...)
	dst = appendJSONString(dst, e.WireKey())
	dst = append(dst, `,"receipt":"`...)
	dst = e.ID.append(dst)
	dst = append(dst, `","school":`...)
	dst = appendJSONString(dst, e.School)
	dst = append(dst, `,"path":`...)
	dst = appendJSONString(dst, c.Path)
	dst = append(dst, `,"content_type":`...)
	dst = appendJSONString(dst, c.ContentType)
	dst = append(dst, `,"arrival":"`...)
	dst = appendTime(dst, e.FirstArrival)
	dst = append(dst, `","durable":"disk",`...)
	if utf8.ValidString(c.Body) {
		dst = append(dst, `"body":`...)
		return append(appendJSONString(dst, c.Body), '}')
	}
	dst = append(dst, `"body_base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, []byte(c.Body))
	return append(dst, '"', '}')
}

// WireKey is the key by which a receiver tells records apart: [Row.Key] of a
// check-in; of what was collected its school, path and key, each escaped as in
// a path (RFC 3986), joined by slashes. Empty for events of other kinds.
func (e *Event) WireKey() string {
	if e.Kind == KindCollected {
		return url.PathEscape(e.School) + "/" + url.PathEscape(e.Collected.Path) + "/" + url.PathEscape(e.Collected.Key)
	}
	if row, ok := RowOf(e); ok {
		return row.Key()
	}
	return ""
}
