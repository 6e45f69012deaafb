package proxy

import (
	"strconv"
	"time"

	"firstbell/cache"
	"firstbell/proxy/field"
)

// note is what the Cache-Status field (RFC 9211) will say of an exchange. The
// zero note says nothing: the cache had no part in it.
type note struct {
	hit       bool
	forwarded string // the token of fwd, such as uri-miss
	status    int    // of the origin's answer, when it is not what the client gets
	stored    bool
	collapsed bool
	detail    string // a token
	ages      time.Duration
	ttl       time.Duration
	timed     bool // ttl is meant
}

func (n *note) found(f *cache.Found) {
	n.detail = f.Detail
	switch f.Outcome {
	case cache.Hit, cache.Stale:
		n.hit, n.timed, n.ttl, n.ages = true, true, f.TTL, f.Age
	default:
		n.forwarded = f.Reason
	}
}

// age appends the value of the Age field: whole seconds.
func (n *note) age(dst []byte) []byte {
	return strconv.AppendInt(dst, int64(n.ages/time.Second), 10)
}

// aged are the fields of s as they are passed on while s arrives: with its age
// where that is known to the second, or where s came for another (RFC 9111
// section 5.1).
func (x *exchange) aged(s *cache.Stored, first bool) field.List {
	x.note.ages = s.Age(time.Now())
	if first && x.note.ages < time.Second {
		return s.Fields
	}
	return withAge(s.Fields, x)
}

// says reports whether there is a Cache-Status.
func (n *note) says() bool { return n.hit || n.forwarded != "" }

// append appends the value of the Cache-Status field.
func (n *note) append(dst []byte) []byte {
	dst = append(dst, "firstbell"...)
	if n.hit {
		dst = append(dst, "; hit"...)
	} else {
		dst = append(append(dst, "; fwd="...), n.forwarded...)
	}
	if n.status != 0 {
		dst = strconv.AppendInt(append(dst, "; fwd-status="...), int64(n.status), 10)
	}
	if n.timed {
		dst = strconv.AppendInt(append(dst, "; ttl="...), int64(n.ttl/time.Second), 10)
	}
	if n.stored {
		dst = append(dst, "; stored"...)
	}
	if n.collapsed {
		dst = append(dst, "; collapsed"...)
	}
	if n.detail != "" {
		dst = append(append(dst, "; detail="...), n.detail...)
	}
	return dst
}
