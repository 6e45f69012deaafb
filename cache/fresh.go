package cache

import (
	"time"

	"firstbell/proxy/field"
)

const (
	// heuristicMax bounds what is guessed from Last-Modified: a lesson that
	// has not changed for a year may still change for tomorrow.
	heuristicMax = 24 * time.Hour

	// heuristicShare is the part of a response's age at the origin for which
	// it is taken to stay as it is (RFC 9111 section 4.2.2 names 10 %).
	heuristicShare = 10
)

// head is what this package reads in the field section of a response, found
// in one pass over every line.
type head struct {
	cacheControl, cdnControl []byte // all lines joined
	vary                     []byte // all lines joined

	age, date, expires, lastModified, etag, contentLength []byte // the first line

	hasCacheControl, hasCDNControl, hasVary, hasExpires, setCookie bool
}

// readHead copies what it needs of res.
func readHead(res field.Fields) (h head) {
	for name, v := range res.All() {
		var low [18]byte
		switch string(lower(low[:0], name)) {
		case "cache-control":
			h.cacheControl, h.hasCacheControl = joinLine(h.cacheControl, v, h.hasCacheControl)
		case "cdn-cache-control":
			h.cdnControl, h.hasCDNControl = joinLine(h.cdnControl, v, h.hasCDNControl)
		case "vary":
			h.vary, h.hasVary = joinLine(h.vary, v, h.hasVary)
		case "set-cookie":
			h.setCookie = true
		case "age":
			firstLine(&h.age, v)
		case "date":
			firstLine(&h.date, v)
		case "last-modified":
			firstLine(&h.lastModified, v)
		case "etag":
			firstLine(&h.etag, v)
		case "content-length":
			firstLine(&h.contentLength, v)
		case "expires":
			firstLine(&h.expires, v)
			h.hasExpires = true
		}
	}
	return h
}

// joinLine is the joined value of a field after one more line.
func joinLine(all, line []byte, there bool) ([]byte, bool) {
	if there {
		all = append(all, ',')
	}
	return append(all, line...), true
}

func firstLine(to *[]byte, v []byte) {
	if *to == nil {
		*to = append(make([]byte, 0, len(v)), v...)
	}
}

// parseAge reads Age: the first member of the first line, ignored unless it
// is digits only (RFC 9111 section 5.1).
func parseAge(b []byte) time.Duration {
	for i, c := range b {
		if c == ',' {
			b = b[:i]
			break
		}
	}
	return parseDelta(trim(b)).duration()
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// initialAge is the corrected initial age of RFC 9111 section 4.2.3: how old
// the response was when it arrived. A Date from the future makes it no
// younger, a clock that ran backwards during the request no older.
func initialAge(age time.Duration, date, requestTime, responseTime time.Time) time.Duration {
	apparent := max(0, responseTime.Sub(date))
	delay := max(0, responseTime.Sub(requestTime))
	return max(apparent, addTime(age, delay))
}

// addTime is a+b for durations that are not negative; what is too long for a
// Duration is the longest one.
func addTime(a, b time.Duration) time.Duration {
	if s := a + b; s >= a {
		return s
	}
	return 1<<63 - 1
}

// explicitLifetime is the freshness lifetime that the response states (RFC
// 9111 section 4.2.1): s-maxage, else max-age, else Expires less Date. A
// directive or an Expires that cannot be read makes it stale.
func explicitLifetime(c *directives, h *head, targeted bool, date time.Time) (time.Duration, bool) {
	switch {
	case c.sMaxAge != absent:
		return c.sMaxAge.duration(), true
	case c.maxAge != absent:
		return c.maxAge.duration(), true
	case h.hasExpires && !targeted:
		expires, ok := parseDate(h.expires, date)
		if !ok {
			return 0, true
		}
		return max(0, expires.Sub(date)), true
	}
	return 0, false
}

// heuristicLifetime is a guess from Last-Modified (RFC 9111 section 4.2.2).
func heuristicLifetime(h *head, date time.Time) time.Duration {
	modified, ok := parseDate(h.lastModified, date)
	if !ok {
		return 0
	}
	return min(max(0, date.Sub(modified))/heuristicShare, heuristicMax)
}

// heuristicStatus reports whether a response with the status may be stored
// and guessed about without its saying so (RFC 9110 section 15.1, less 206).
func heuristicStatus(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// defaultStatus reports whether a route's default_ttl speaks for the status:
// for pages and lasting redirects, not for errors, since a lesson published at
// 8:58 must not stay a 404 because somebody looked at 8:57.
func defaultStatus(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308:
		return true
	}
	return false
}

// understood reports whether the caching rules of the status are known and
// followed here, which must-understand asks for (RFC 9111 section 5.2.2.3).
func understood(status int) bool {
	switch {
	case heuristicStatus(status):
		return true
	case status == 201, status == 202, status == 205, status == 302, status == 303, status == 307:
		return true
	case 400 <= status && status <= 417, 421 <= status && status <= 426, status == 428, status == 429, status == 431, status == 451:
		return status != 402 && status != 416
	case 500 <= status && status <= 505, status == 511:
		return true
	}
	return false
}
