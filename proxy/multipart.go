package proxy

import (
	"crypto/rand"
	"io"

	"firstbell/proxy/field"
)

// answerParts answers with several parts of a body as multipart/byteranges
// (RFC 9110 section 14.6). The fields are those of the whole.
func (p *Proxy) answerParts(x *exchange, fields field.List, body content, set []span) {
	src := newMultipart(body, set, fields.Get("Content-Type"))
	fields = fields.Without(func(name string) bool { return field.EqualName(name, "Content-Type") })
	fields = append(fields, field.Field{Name: "Content-Type", Value: "multipart/byteranges; boundary=" + src.boundary})
	x.out.stream(x, 206, fields, src.length(), src)
}

// multipart hands out parts of a body, each after its head. It holds the heads
// and one piece of the body.
type multipart struct {
	boundary string
	body     content
	set      []span
	heads    []string // one before each part, and the end

	next int    // of heads
	now  source // of the part after heads[next-1]; nil before it begins
}

// newMultipart makes a message of parts. The boundary is random, so that no
// content can hold it on purpose; contentType may be empty.
func newMultipart(body content, set []span, contentType string) *multipart {
	m := &multipart{boundary: rand.Text(), body: body, set: set}
	start := "--" + m.boundary + "\r\n"
	for _, s := range set {
		head := start
		if contentType != "" {
			head += "Content-Type: " + contentType + "\r\n"
		}
		m.heads = append(m.heads, head+"Content-Range: "+contentRange(s.from, s.to, body.size())+"\r\n\r\n")
		start = "\r\n--" + m.boundary + "\r\n"
	}
	m.heads = append(m.heads, "\r\n--"+m.boundary+"--\r\n")
	return m
}

// length is of the whole message.
func (m *multipart) length() (n int64) {
	for _, h := range m.heads {
		n += int64(len(h))
	}
	for _, s := range m.set {
		n += s.to - s.from
	}
	return n
}

// Next implements source.
func (m *multipart) Next() ([]byte, error) {
	if m.now != nil {
		piece, err := m.now.Next()
		if err != io.EOF {
			return piece, err
		}
		m.Close()
	}
	if m.next == len(m.heads) {
		return nil, io.EOF
	}
	head := m.heads[m.next]
	if m.next < len(m.set) {
		s := m.set[m.next]
		m.now = m.body.part(s.from, s.to)
	}
	m.next++
	return []byte(head), nil
}

// Close implements source.
func (m *multipart) Close() {
	if m.now != nil {
		m.now.Close()
		m.now = nil
	}
}
