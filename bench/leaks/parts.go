package leaks

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strings"
)

// judgePart judges a 206.
func (k *asker) judgePart(q *question, a *answer, s *served) {
	k.seen.parts++
	media, parameters, _ := mime.ParseMediaType(a.get("Content-Type"))
	switch {
	case q.to == 0:
		k.found(q, a, Short, "206 to a question for the whole")
	case q.ifRange != "" && q.ifRange != a.get("ETag"):
		k.found(q, a, Foreign, "a part of another version than If-Range names")
	case media == "multipart/byteranges" && !q.parts:
		k.found(q, a, Foreign, "several parts for one")
	case media == "multipart/byteranges":
		k.judgeParts(q, a, s, parameters["boundary"])
	default:
		k.judgeOnePart(q, a, s)
	}
}

// A part is a range of bytes; to is exclusive.
type part struct{ from, to int }

// readPart reads a Content-Range for a content of size bytes.
func readPart(value string, size int) (p part, ok bool) {
	var last, of int
	n, err := fmt.Sscanf(value, "bytes %d-%d/%d", &p.from, &last, &of)
	p.to = last + 1
	return p, err == nil && n == 3 && of == size && 0 <= p.from && p.from < p.to && p.to <= size
}

// wanted are the parts that q asks for of a content of size bytes.
func (q *question) wanted(size int) (parts []part) {
	to := q.to
	if to < 0 {
		to = size
	}
	asked := []part{{q.from, to}}
	if q.parts {
		from, to := q.second()
		asked = append(asked, part{from, to})
	}
	for _, p := range asked {
		if p.to = min(p.to, size); p.from < p.to {
			parts = append(parts, p)
		}
	}
	return parts
}

// sizeFor is how many bytes the content has in the coding of the answer.
func sizeFor(q *question, a *answer, s *served) int {
	switch {
	case a.get("Content-Encoding") == "":
		return s.rep.size
	case q.coded != nil:
		return len(q.coded)
	}
	return gzipBytes(s.rep.size)
}

// judgeOnePart judges a 206 of one part: the one asked for, or what is between
// the first and the last of several.
func (k *asker) judgeOnePart(q *question, a *answer, s *served) {
	size := sizeFor(q, a, s)
	p, ok := readPart(a.get("Content-Range"), size)
	wanted := q.wanted(size)
	if !ok || len(wanted) == 0 || p.from != wanted[0].from || p.to != wanted[len(wanted)-1].to {
		k.found(q, a, Foreign, "another part than was asked for")
		return
	}
	k.judgeContent(q, a, s, p.from, p.to)
}

// judgeParts judges a multipart/byteranges.
func (k *asker) judgeParts(q *question, a *answer, s *served, boundary string) {
	if a.err != nil || a.left {
		if reps := repsIn(a.content); len(reps) > 1 || len(reps) == 1 && reps[0] != s.rep.id {
			k.found(q, a, Mixture, "in parts that are broken off")
		}
		k.cutShort(q, a)
		return
	}
	size := sizeFor(q, a, s)
	whole, _, ok := k.expect(q, a, s)
	if !ok {
		return
	}
	wanted := q.wanted(size)
	in := multipart.NewReader(bytes.NewReader(a.content), boundary)
	for n := 0; ; n++ {
		next, err := in.NextRawPart()
		if err == io.EOF {
			if n != len(wanted) {
				k.found(q, a, Short, fmt.Sprintf("%d parts, asked for %d", n, len(wanted)))
			}
			return
		}
		if err != nil || n >= len(wanted) {
			k.found(q, a, Foreign, "parts that cannot be read")
			return
		}
		content, err := io.ReadAll(next)
		p, ok := readPart(next.Header.Get("Content-Range"), size)
		switch {
		case err != nil || !ok || p != wanted[n]:
			k.found(q, a, Foreign, "other parts than were asked for")
			return
		case !bytes.Equal(content, whole[p.from:p.to]):
			k.found(q, a, Mixture, "in a part: "+strings.ToValidUTF8(string(content), "?"))
			return
		}
	}
}
