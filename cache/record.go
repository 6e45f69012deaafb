package cache

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"firstbell/proxy/field"
)

// The head of a record on disk is a stored response without its key, variant
// and body: a byte that says which way it is written, then numbers, times,
// flags and strings one after the other. Strings and lists have their length
// before them.
const headVersion = 1

var errHead = errors.New("the head of a stored response cannot be read")

// appendHead appends what is kept on disk of s beside key, variant and body.
func (s *Stored) appendHead(b []byte) []byte {
	v := &s.Verdict
	b = append(b, headVersion)
	b = binary.AppendUvarint(b, uint64(s.Status))
	b = binary.AppendUvarint(b, s.born)
	b = appendTime(appendTime(b, s.responseTime), v.date)
	for _, d := range [...]time.Duration{v.Age, v.Lifetime, v.StaleWhileRevalidate, v.StaleIfError} {
		b = binary.AppendVarint(b, int64(d))
	}
	flags := uint64(0)
	for i, set := range [...]bool{v.Share, v.Store, v.LearnUncacheable, v.explicit, v.permitted, v.errorReply, v.validate, v.mustValidate, s.generated} {
		if set {
			flags |= 1 << i
		}
	}
	b = binary.AppendUvarint(b, flags)
	b = appendString(b, v.Detail)
	b = appendStrings(appendStrings(appendStrings(b, v.Vary), v.withheld), s.tags)
	b = binary.AppendUvarint(b, uint64(len(s.Fields)))
	for _, f := range s.Fields {
		b = appendString(appendString(b, f.Name), f.Value)
	}
	return b
}

// appendTime appends a time of the wall, in UTC; the zero time is the smallest
// number.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(b, math.MinInt64)
	}
	return binary.AppendVarint(b, t.UnixNano())
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// readStored makes a stored response without a body of what appendHead wrote.
func readStored(key, variant, head []byte) (*Stored, error) {
	r := headReader{rest: head}
	if r.byte() != headVersion {
		return nil, errHead
	}
	s := &Stored{key: string(key), variant: string(variant)}
	v := &s.Verdict
	s.Status = int(r.uint())
	s.born = r.uint()
	s.seen.Store(s.born)
	s.responseTime, v.date = r.time(), r.time()
	for _, to := range [...]*time.Duration{&v.Age, &v.Lifetime, &v.StaleWhileRevalidate, &v.StaleIfError} {
		*to = time.Duration(r.int())
	}
	flags := r.uint()
	for i, to := range [...]*bool{&v.Share, &v.Store, &v.LearnUncacheable, &v.explicit, &v.permitted, &v.errorReply, &v.validate, &v.mustValidate, &s.generated} {
		*to = flags&(1<<i) != 0
	}
	v.Detail = r.string()
	v.Vary, v.withheld, s.tags = r.strings(), r.strings(), r.strings()
	for range r.count(2) {
		s.Fields = append(s.Fields, field.Field{Name: r.string(), Value: r.string()})
	}
	if r.bad || len(r.rest) > 0 || !v.Store {
		return nil, errHead
	}
	s.index()
	return s, nil
}

// headReader takes a head apart; bad is set when it is not one.
type headReader struct {
	rest []byte
	bad  bool
}

func (r *headReader) byte() byte {
	if len(r.rest) == 0 {
		r.bad = true
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return c
}

func (r *headReader) uint() uint64 {
	n, used := binary.Uvarint(r.rest)
	if used <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[used:]
	return n
}

func (r *headReader) int() int64 {
	n, used := binary.Varint(r.rest)
	if used <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[used:]
	return n
}

func (r *headReader) time() time.Time {
	n := r.int()
	if n == math.MinInt64 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func (r *headReader) string() string {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

// count reads the length of a list whose members have at least so many bytes.
func (r *headReader) count(least uint64) uint64 {
	n := r.uint()
	if n*least > uint64(len(r.rest)) || n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return 0
	}
	return n
}

func (r *headReader) strings() (list []string) {
	for range r.count(1) {
		list = append(list, r.string())
	}
	return list
}
