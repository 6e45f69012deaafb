package proxy

import (
	"io"
	"strings"

	"firstbell/cache"
	"firstbell/proxy/field"
)

// answerStored answers with a stored response: the whole of it in the coding
// that suits the client, a part, or that it has not changed.
func (p *Proxy) answerStored(x *exchange, s *cache.Stored, as outcome) {
	x.outcome = as
	if s.Large() && !p.openLarge(x, s) {
		return
	}
	takes := x.takes(s)
	send := s.Select(&takes)
	best := takes.Best()
	if send == nil || send.Coding() != best {
		p.wish(x, s, best)
	}
	to := cache.Identity
	decode := send == nil && decodable(s.Coding()) && !takes.Refuses(cache.Identity)
	if !decode {
		if send == nil {
			send = s // nothing here is what it takes: RFC 9110 section 12.4.1
		}
		to = send.Coding()
	}
	if status, tag := cache.Conditional(x.fields, s, to, &takes); status == 304 {
		p.answerNotModified(x, s, tag)
		return
	}
	if x.fields.Peek("Range") != nil && p.answerRange(x, s, &takes) {
		return
	}
	switch {
	case decode && cache.Untouchable(s.Fields) && (as == outcomeHit || as == outcomeStale):
		x.note = note{forwarded: "bypass", detail: "coding"}
		p.forward(x, outcomeBypass)
	case decode:
		p.sendStoredDecoded(x, s)
	default:
		if send != s {
			x.note.detail = to.String()
			if x.method == "GET" {
				x.saved = s.Length() - send.Length()
			}
		}
		if send.Large() || send.Paged() != nil {
			x.out.stream(x, send.Status, withAge(send.Fields, x), send.Length(), x.contentOf(send).part(0, send.Length()))
			return
		}
		x.out.stored(x, send)
	}
}

// takes is what codings the client takes of s, as far as its route has them.
func (x *exchange) takes(s *cache.Stored) cache.Accepts {
	a := cache.ReadAccepts(x.fields)
	if x.route.Uncoded {
		a.Only(s.Coding())
	}
	return a
}

func withAge(fields field.List, x *exchange) field.List {
	return append(fields[:len(fields):len(fields)], field.Field{Name: "Age", Value: string(x.note.age(nil))})
}

// answerNotModified tells the client that what it has, under the tag, is good
// (RFC 9110 section 15.4.5).
func (p *Proxy) answerNotModified(x *exchange, s *cache.Stored, tag string) {
	kept := make(field.List, 0, 8)
	for _, f := range s.Fields {
		for _, name := range [...]string{"Date", "Vary", "Expires", "Cache-Control", "Last-Modified", "Content-Location"} {
			if field.EqualName(f.Name, name) {
				kept = append(kept, f)
			}
		}
	}
	if tag != "" {
		kept = append(kept, field.Field{Name: "ETag", Value: tag})
	}
	if x.note.hit {
		kept = withAge(kept, x)
	}
	x.out.send(x, 304, kept, nil)
}

// sendDecoded streams content that comes in a coding, decoded. fields are
// those of the identity coding.
func (p *Proxy) sendDecoded(x *exchange, status int, fields field.List, c cache.Coding, body source) {
	if x.method != "HEAD" {
		body = &decodedSource{from: body, coding: c}
	}
	x.out.stream(x, status, fields, -1, body)
}

// sendAsked streams an answer to this client alone, decoded where the client
// refuses the coding that the origin chose.
func (p *Proxy) sendAsked(x *exchange, status int, fields field.List, length int64, body source) {
	if x.route.Cache != nil {
		takes, c := cache.ReadAccepts(x.fields), cache.CodingOf(fields)
		if decodable(c) && takes.Refuses(c) && !takes.Refuses(cache.Identity) && !cache.Untouchable(fields) {
			p.sendDecoded(x, status, weakened(fields), c, body)
			return
		}
	}
	x.out.stream(x, status, fields, length, body)
}

// weakened are the fields of a response that is decoded on its way and not
// stored. Its origin will be asked about it again, so it knows the tag: one
// that no longer names the bytes (RFC 9110 section 8.8.1).
func weakened(fields field.List) field.List {
	kept := make(field.List, 0, len(fields))
	for _, f := range fields {
		switch {
		case field.EqualName(f.Name, "Content-Encoding"), field.EqualName(f.Name, "Content-Length"):
			continue
		case field.EqualName(f.Name, "ETag") && !strings.HasPrefix(f.Value, "W/"):
			f.Value = "W/" + f.Value
		}
		kept = append(kept, f)
	}
	return kept
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

// Ready implements eager.
func (s *pieceSource) Ready() bool { return true }

// Close implements source.
func (s *pieceSource) Close() {}

func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// listHas reports whether a comma-separated list has the member.
func listHas(list, member string) bool {
	for m := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(m), member) {
			return true
		}
	}
	return false
}
