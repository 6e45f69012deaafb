package cache

import (
	"math/bits"
	"strings"
	"unsafe"

	"firstbell/proxy/field"
)

// What is kept of a response is small and there is much of it, so it is kept
// in few pieces: all its strings share one allocation, and names that every
// response has cost nothing.

// knownNames are spelled as nearly everybody spells them.
var knownNames = func() map[string]string {
	known := make(map[string]string)
	for name := range strings.FieldsSeq(`Accept-Ranges Access-Control-Allow-Origin Alt-Svc Cache-Control
		Content-Disposition Content-Encoding Content-Language Content-Length Content-Location
		Content-Security-Policy Content-Type Date ETag Expires Last-Modified Link Location Permissions-Policy
		Pragma Referrer-Policy Server Strict-Transport-Security Vary Via X-Content-Type-Options
		X-Frame-Options X-Powered-By X-XSS-Protection Accept-Encoding Accept-Language Cookie Origin`) {
		known[name] = name
	}
	return known
}()

// compact puts the key into s, if it is short, and what does not go there, the
// variant and the fields into one piece of memory of its own, and returns how
// large that is.
func (s *Stored) compact() (bytes int) {
	for i, f := range s.Fields {
		if name, ok := knownNames[f.Name]; ok {
			s.Fields[i].Name = name
		} else {
			bytes += len(f.Name)
		}
		bytes += len(f.Value)
	}
	bytes += len(s.variant)
	if len(s.key) > nearBytes {
		bytes += len(s.key)
	}
	room := make([]byte, 0, bytes)
	keep := func(text string) string {
		if text == "" {
			return ""
		}
		at := len(room)
		room = append(room, text...)
		return unsafe.String(&room[at], len(text))
	}
	if n := copy(s.near[:], s.key); n > 0 && n == len(s.key) {
		s.key = unsafe.String(&s.near[0], n)
	} else {
		s.key = keep(s.key)
	}
	s.variant = keep(s.variant)
	for i, f := range s.Fields {
		if _, ok := knownNames[f.Name]; !ok {
			s.Fields[i].Name = keep(f.Name)
		}
		s.Fields[i].Value = keep(f.Value)
	}
	return bytes
}

// fieldsSize is what a list of so many fields takes.
func fieldsSize(l field.List) int64 { return allocated(cap(l) * int(unsafe.Sizeof(field.Field{}))) }

// allocated is about what n bytes take when they are allocated: up to 32 KiB
// there are about eight sizes to every doubling, above whole pages.
func allocated(n int) int64 {
	switch {
	case n == 0:
		return 0
	case n > 32<<10:
		return int64(n+8191) &^ 8191
	}
	step := max(16, 1<<bits.Len(uint(n-1))>>4)
	return int64((n + step - 1) / step * step)
}
