package proxy

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"firstbell/cache"
	"firstbell/proxy/field"
)

// part is what a Range asks for of a content of size bytes; to is exclusive.
type part struct {
	from, to, size int64
	verdict        rangeVerdict
}

// askedPart is the part that x asks for of a response whose content has size
// bytes (RFC 9110 section 14.2). The verdict is rangeIgnored when the whole is
// to be sent: no Range, several parts, a unit that is not bytes, an If-Range
// that does not hold, a response that is coded or no 200, a size not known.
func askedPart(x *exchange, head *cache.Stored, size int64) part {
	asked := x.fields.Peek("Range")
	if asked == nil || x.method != "GET" || head.Status != 200 || size < 0 || head.Fields.Has("Content-Encoding") {
		return part{}
	}
	if condition := x.fields.Peek("If-Range"); condition != nil && !ifRange(condition, head.Fields) {
		return part{}
	}
	pt := part{size: size}
	pt.from, pt.to, pt.verdict = readRange(asked, size)
	return pt
}

// wantsOnePart reports whether x asks for one range of bytes.
func (x *exchange) wantsOnePart() bool {
	_, _, verdict := readRange(x.fields.Peek("Range"), 1<<62)
	return verdict != rangeIgnored
}

// answerPart answers with a part, which src hands out, or that there is none.
// The fields are those of the whole.
func (p *Proxy) answerPart(x *exchange, fields field.List, pt part, src source) {
	if pt.verdict == rangeUnsatisfiable {
		src.Close()
		size := strconv.FormatInt(pt.size, 10)
		p.problem(x, 416, "the content has "+size+" bytes", field.List{{Name: "Content-Range", Value: "bytes */" + size}})
		return
	}
	fields = append(fields[:len(fields):len(fields)], field.Field{Name: "Content-Range", Value: contentRange(pt.from, pt.to, pt.size)})
	x.out.stream(x, 206, fields, pt.to-pt.from, src)
}

// contentRange is the value of a Content-Range (RFC 9110 section 14.4); to is
// exclusive.
func contentRange(from, to, size int64) string {
	return "bytes " + strconv.FormatInt(from, 10) + "-" + strconv.FormatInt(to-1, 10) + "/" + strconv.FormatInt(size, 10)
}

// partSource hands out a part of a source, and leaves it when that is done.
type partSource struct {
	from source
	skip int64 // bytes before the part that are still to come
	left int64 // bytes of the part that are still to come
}

// Next implements source.
func (s *partSource) Next() ([]byte, error) {
	for s.left > 0 {
		piece, err := s.from.Next()
		if err != nil {
			return nil, cutShort(err)
		}
		passed := min(s.skip, int64(len(piece)))
		s.skip -= passed
		if piece = piece[passed:]; len(piece) == 0 {
			continue
		}
		piece = piece[:min(s.left, int64(len(piece)))]
		s.left -= int64(len(piece))
		return piece, nil
	}
	return nil, io.EOF
}

// Close implements source.
func (s *partSource) Close() { s.from.Close() }

// ifRange reports whether an If-Range holds: a strong entity tag, or the very
// date of Last-Modified (RFC 9110 section 13.1.5).
func ifRange(condition []byte, of field.List) bool {
	if bytes.HasPrefix(condition, []byte(`"`)) {
		return string(condition) == of.Get("ETag")
	}
	modified := of.Get("Last-Modified")
	return modified != "" && modified == string(condition)
}

type rangeVerdict uint8

const (
	rangeIgnored rangeVerdict = iota
	rangeGiven
	rangeUnsatisfiable
)

// readRange reads a Range field of one range; to is exclusive. from and to are 0
// but for rangeGiven.
func readRange(value []byte, size int64) (from, to int64, verdict rangeVerdict) {
	spec, ok := bytes.CutPrefix(value, []byte("bytes="))
	if !ok || bytes.IndexByte(spec, ',') >= 0 {
		return 0, 0, rangeIgnored
	}
	first, last, ok := strings.Cut(strings.Trim(string(spec), " \t"), "-")
	if !ok {
		return 0, 0, rangeIgnored
	}
	from, to = -1, size
	if first != "" {
		if from, ok = readOffset(first); !ok {
			return 0, 0, rangeIgnored
		}
	}
	if last != "" {
		n, ok := readOffset(last)
		switch {
		case !ok || from > n:
			return 0, 0, rangeIgnored
		case from < 0: // the last n bytes
			from = max(0, size-n)
			if n == 0 {
				return 0, 0, rangeUnsatisfiable
			}
		case n < size:
			to = n + 1
		}
	} else if from < 0 {
		return 0, 0, rangeIgnored
	}
	if from >= size {
		return 0, 0, rangeUnsatisfiable
	}
	return from, to, rangeGiven
}

// readOffset reads digits; what exceeds 18 of them is past every end.
func readOffset(s string) (int64, bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	s = strings.TrimLeft(s, "0")
	if s == "" {
		return 0, true
	}
	if len(s) > 18 {
		return 1 << 62, true
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
