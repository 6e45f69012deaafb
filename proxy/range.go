package proxy

import (
	"bytes"
	"io"
	"slices"
	"strconv"
	"strings"

	"firstbell/cache"
	"firstbell/proxy/field"
)

// content is a whole body, any part of which can be handed out, in any order.
type content interface {
	size() int64
	// part hands out the bytes from from up to, but not including, to. It holds
	// nothing in memory that grows with them.
	part(from, to int64) source
}

// memoryContent is a body in memory.
type memoryContent []byte

func (c memoryContent) size() int64 { return int64(len(c)) }

func (c memoryContent) part(from, to int64) source { return &pieceSource{piece: c[from:to]} }

// span is a range of bytes; to is exclusive.
type span struct{ from, to int64 }

// part is what a Range asks for of a content of size bytes.
type part struct {
	span
	size    int64
	verdict rangeVerdict
}

type rangeVerdict uint8

const (
	rangeIgnored rangeVerdict = iota
	rangeGiven
	rangeUnsatisfiable
)

const (
	// rangesMax bounds the ranges of one request; who asks for more, which no
	// viewer does, gets the whole (RFC 9110 section 14.2).
	rangesMax = 32
	// rangesGap: ranges that are no further apart than what the head of a part
	// takes become one (RFC 9110 section 15.3.7.2).
	rangesGap = 80
)

// answerRange answers with the part, or the parts, of a stored response that x
// asks for, or that there are none. They are of the identity coding, unless an
// If-Range names a variant in another. It returns false where the whole is to
// be sent: ranges that are nonsense or too many, an If-Range that does not
// hold, no identity variant (yet), several parts of a coded variant, whose
// codings no field could tell apart.
func (p *Proxy) answerRange(x *exchange, s *cache.Stored, takes *cache.Accepts) bool {
	if x.method != "GET" || s.Status != 200 {
		return false
	}
	v := s.In(cache.Identity)
	if condition := x.fields.Peek("If-Range"); condition != nil {
		v = variantNamed(condition, s)
	} else if v == nil && decodable(s.Coding()) {
		p.wish(x, s, cache.Identity)
	}
	if v == nil || !takes.Takes(v.Coding()) {
		return false
	}
	body := x.contentOf(v)
	set, verdict := readRanges(x.fields.Peek("Range"), body.size())
	switch {
	case verdict == rangeIgnored, len(set) > 1 && v.Coding() != cache.Identity:
		return false
	case verdict == rangeUnsatisfiable:
		p.answerPart(x, nil, part{size: body.size(), verdict: verdict}, &pieceSource{})
	case len(set) == 1:
		p.answerPart(x, withAge(v.Fields, x), part{span: set[0], size: body.size(), verdict: verdict}, body.part(set[0].from, set[0].to))
	default:
		p.answerParts(x, withAge(v.Fields, x), body, set)
	}
	return true
}

// variantNamed is the variant of s that an If-Range names: by its strong entity
// tag, or by the very date of Last-Modified (RFC 9110 section 13.1.5). The date
// is the same in every coding, so it names none where there may be several.
func variantNamed(condition []byte, s *cache.Stored) *cache.Stored {
	if s.StrongTag(condition) {
		return s
	}
	for c := range cache.OtherCoding {
		if v := s.In(c); v != nil && v.StrongTag(condition) {
			return v
		}
	}
	if dateHolds(condition, s.Fields) {
		return s.In(cache.Identity)
	}
	return nil
}

func dateHolds(condition []byte, of field.List) bool {
	modified := of.Get("Last-Modified")
	return modified != "" && modified == string(condition) && !cache.VariesByCoding(of)
}

// askedPart is the part that x asks for of a response that still arrives, whose
// content has size bytes (RFC 9110 section 14.2). The verdict is rangeIgnored
// when the whole is to be sent: no Range, several parts, a unit that is not
// bytes, an If-Range that does not hold, a response that is coded or no 200, a
// size not known.
func askedPart(x *exchange, head *cache.Stored, size int64) part {
	asked := x.fields.Peek("Range")
	if asked == nil || x.method != "GET" || head.Status != 200 || size < 0 || head.Coding() != cache.Identity {
		return part{}
	}
	if condition := x.fields.Peek("If-Range"); condition != nil && !head.StrongTag(condition) && !dateHolds(condition, head.Fields) {
		return part{}
	}
	pt := part{size: size}
	pt.span, pt.verdict = readRange(asked, size)
	return pt
}

// wantsOnePart reports whether x asks for one range of bytes.
func (x *exchange) wantsOnePart() bool {
	_, verdict := readRange(x.fields.Peek("Range"), 1<<62)
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

// cutUnit takes the unit off a Range. It reports false for another one than
// bytes.
func cutUnit(value []byte) (specs []byte, ok bool) {
	unit, specs, ok := bytes.Cut(value, []byte("="))
	return specs, ok && field.EqualName(unit, "bytes")
}

// readRange reads a Range field of one range.
func readRange(value []byte, size int64) (span, rangeVerdict) {
	spec, ok := cutUnit(value)
	if !ok {
		return span{}, rangeIgnored
	}
	return readSpec(spec, size)
}

// readRanges reads a Range field of any number of ranges up to rangesMax (RFC
// 9110 section 14.1.2): those that the content has, in the order asked for.
// Such as overlap or nearly touch have become one, at the first one's place,
// so what is sent is never more than the content and some heads. set is empty
// but for rangeGiven.
func readRanges(value []byte, size int64) (set []span, verdict rangeVerdict) {
	specs, ok := cutUnit(value)
	if !ok {
		return nil, rangeIgnored
	}
	asked := 0
	for spec := range bytes.SplitSeq(specs, []byte(",")) {
		if len(bytes.Trim(spec, " \t")) == 0 {
			continue
		}
		s, verdict := readSpec(spec, size)
		if asked++; asked > rangesMax || verdict == rangeIgnored {
			return nil, rangeIgnored
		}
		if verdict == rangeGiven {
			set = joined(set, s)
		}
	}
	switch {
	case asked == 0:
		return nil, rangeIgnored
	case len(set) == 0:
		return nil, rangeUnsatisfiable
	}
	return set, rangeGiven
}

// joined is set with s in it.
func joined(set []span, s span) []span {
	at := len(set)
	for {
		i := slices.IndexFunc(set, func(o span) bool { return s.from <= o.to+rangesGap && o.from <= s.to+rangesGap })
		if i < 0 {
			return slices.Insert(set, at, s)
		}
		s = span{min(s.from, set[i].from), max(s.to, set[i].to)}
		set, at = slices.Delete(set, i, i+1), min(at, i)
	}
}

// readSpec reads one range; the span is empty but for rangeGiven.
func readSpec(spec []byte, size int64) (s span, verdict rangeVerdict) {
	first, last, ok := strings.Cut(strings.Trim(string(spec), " \t"), "-")
	if !ok {
		return span{}, rangeIgnored
	}
	from, to := int64(-1), size
	if first != "" {
		if from, ok = readOffset(first); !ok {
			return span{}, rangeIgnored
		}
	}
	if last != "" {
		n, ok := readOffset(last)
		switch {
		case !ok || from > n:
			return span{}, rangeIgnored
		case from < 0: // the last n bytes
			from = max(0, size-n)
			if n == 0 {
				return span{}, rangeUnsatisfiable
			}
		case n < size:
			to = n + 1
		}
	} else if from < 0 {
		return span{}, rangeIgnored
	}
	if from >= size {
		return span{}, rangeUnsatisfiable
	}
	return span{from, to}, rangeGiven
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
