package proxy

import (
	"bytes"
	"io"
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
	if part := askedPart(x, s, int64(len(s.Body))); part.verdict != rangeIgnored {
		p.answerPart(x, withAge(s.Fields, x), part, &pieceSource{piece: s.Body[part.from:part.to]})
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
