package proxy

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"

	"firstbell/cache"
	"firstbell/proxy/field"
)

// answerStored answers with a stored response: the whole of it, a part, or
// that it has not changed.
func (p *Proxy) answerStored(x *exchange, s *cache.Stored, as outcome) {
	x.outcome = as
	if cache.Conditional(x.fields, s) == 304 {
		p.answerNotModified(x, s)
		return
	}
	coded := s.Fields.Has("Content-Encoding")
	if !coded && x.fields.Peek("Range") != nil && x.method == "GET" && s.Status == 200 && p.answerRange(x, s) {
		return
	}
	if coded && !acceptsGzip(x.fields) && isGzip(s.Fields) {
		p.sendCoded(x, s.Status, withAge(s.Fields, x), int64(len(s.Body)), &pieceSource{piece: s.Body})
		return
	}
	x.out.stored(x, s)
}

func withAge(fields field.List, x *exchange) field.List {
	return append(fields[:len(fields):len(fields)], field.Field{Name: "Age", Value: string(x.note.age(nil))})
}

// answerNotModified tells the client that what it has is good (RFC 9110
// section 15.4.5).
func (p *Proxy) answerNotModified(x *exchange, s *cache.Stored) {
	var kept field.List
	for _, f := range s.Fields {
		switch strings.ToLower(f.Name) {
		case "cache-control", "content-location", "date", "etag", "expires", "vary", "last-modified":
			kept = append(kept, f)
		}
	}
	if x.note.hit {
		kept = withAge(kept, x)
	}
	x.out.send(x, 304, kept, nil)
}

// answerRange answers with one part of a stored response (RFC 9110 section
// 14). It returns false when the whole is to be sent: several parts, a unit
// that is not bytes, an If-Range that no longer holds.
func (p *Proxy) answerRange(x *exchange, s *cache.Stored) bool {
	if condition := x.fields.Peek("If-Range"); condition != nil && !ifRange(condition, s.Fields) {
		return false
	}
	size := int64(len(s.Body))
	from, to, verdict := readRange(x.fields.Peek("Range"), size)
	switch verdict {
	case rangeIgnored:
		return false
	case rangeUnsatisfiable:
		p.problem(x, 416, "the content has "+strconv.FormatInt(size, 10)+" bytes",
			field.List{{Name: "Content-Range", Value: "bytes */" + strconv.FormatInt(size, 10)}})
		return true
	}
	fields := append(withAge(s.Fields, x), field.Field{
		Name:  "Content-Range",
		Value: "bytes " + strconv.FormatInt(from, 10) + "-" + strconv.FormatInt(to-1, 10) + "/" + strconv.FormatInt(size, 10),
	})
	x.out.stream(x, 206, fields, to-from, &pieceSource{piece: s.Body[from:to]})
	return true
}

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

// readRange reads a Range field of one range; to is exclusive.
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

// sendCoded streams a response, decoded for a client that refuses the coding
// which we asked the origin for.
func (p *Proxy) sendCoded(x *exchange, status int, fields field.List, length int64, body source) {
	if x.asked.Fields != nil && isGzip(fields) && !acceptsGzip(x.fields) && !strings.Contains(fields.Get("Cache-Control"), "no-transform") {
		fields, length = decodedFields(fields), -1
		if x.method != "HEAD" {
			body = &gunzipSource{from: body}
		}
	}
	x.out.stream(x, status, fields, length, body)
}

// decodedFields are a coded response's fields without the coding: another
// representation, so a strong entity tag is no longer one.
func decodedFields(fields field.List) field.List {
	kept := make(field.List, 0, len(fields))
	for _, f := range fields {
		switch {
		case equalName(f.Name, "Content-Encoding"):
			continue
		case equalName(f.Name, "ETag") && !strings.HasPrefix(f.Value, "W/"):
			f.Value = "W/" + f.Value
		}
		kept = append(kept, f)
	}
	return kept
}

func isGzip(fields field.List) bool {
	coding := fields.Get("Content-Encoding")
	return equalName(coding, "gzip") || equalName(coding, "x-gzip")
}

// acceptsGzip reads Accept-Encoding (RFC 9110 section 12.5.3). A client that
// sends none takes any coding by the letter; it is a program that is better
// off with none.
func acceptsGzip(f field.Fields) bool {
	value := f.Peek("Accept-Encoding")
	if value == nil {
		return false
	}
	accepted := false
	for member := range bytes.SplitSeq(value, []byte(",")) {
		coding, weight, _ := bytes.Cut(member, []byte(";"))
		coding = bytes.TrimSpace(coding)
		q := strings.ReplaceAll(strings.ToLower(string(bytes.TrimSpace(weight))), " ", "")
		refused := strings.HasPrefix(q, "q=0") && strings.Trim(q[3:], ".0") == ""
		switch {
		case field.EqualName(coding, "gzip"), field.EqualName(coding, "x-gzip"):
			return !refused
		case string(coding) == "*":
			accepted = !refused
		}
	}
	return accepted
}

// pieceSource is a body that is there in one piece.
type pieceSource struct{ piece []byte }

// Next implements source.
func (s *pieceSource) Next() ([]byte, error) {
	if len(s.piece) == 0 {
		return nil, io.EOF
	}
	p := s.piece
	s.piece = nil
	return p, nil
}

// Close implements source.
func (s *pieceSource) Close() {}

// gunzipSource decodes a source.
type gunzipSource struct {
	from source
	in   sourceReader
	zr   *gzip.Reader
	buf  *[]byte
}

// Next implements source.
func (g *gunzipSource) Next() ([]byte, error) {
	if g.zr == nil {
		g.in.from = g.from
		zr, err := gzip.NewReader(&g.in)
		if err == io.EOF && g.in.read == 0 {
			return nil, io.EOF // nothing at all is nothing, too
		}
		if err != nil {
			return nil, cutShort(err)
		}
		g.zr, g.buf = zr, pieces.Get().(*[]byte)
	}
	for {
		n, err := g.zr.Read(*g.buf)
		if n > 0 {
			return (*g.buf)[:n], nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close implements source.
func (g *gunzipSource) Close() {
	if g.buf != nil {
		pieces.Put(g.buf)
		g.buf = nil
	}
	g.from.Close()
}

// sourceReader is a source as an io.Reader.
type sourceReader struct {
	from source
	rest []byte
	read int64
}

// Read implements io.Reader.
func (r *sourceReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		piece, err := r.from.Next()
		if err != nil {
			return 0, err
		}
		r.rest = piece
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.read += int64(n)
	return n, nil
}

func equalName(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// listHas reports whether a comma-separated list has the member.
func listHas(list, member string) bool {
	for m := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(m), member) {
			return true
		}
	}
	return false
}
