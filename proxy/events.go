package proxy

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/origin"
)

// An event stream (Server-Sent Events, WHATWG HTML section 9.2) is for the one
// who asked, has no end, and its pieces are passed on as they come. It is never
// waited for by others, stored or coded.

const eventStream = "text/event-stream"

// eventGraceMax is how long an event under way may take to end when the stream
// is to.
const eventGraceMax = 2 * time.Second

// wantsEvents reports a request of an EventSource: it says so, and nothing else.
func wantsEvents(f field.Fields) bool {
	return bytes.Equal(f.Peek("Accept"), []byte(eventStream))
}

// isEvents reports a response that is an event stream.
func isEvents(fields field.List) bool {
	kind, _, _ := strings.Cut(fields.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), eventStream)
}

// lasts makes a response that turns out to last a live exchange. It reports
// false when there is no place: then that has been answered.
func (p *Proxy) lasts(x *exchange, res *origin.Response, s *stay) bool {
	if s.place != nil {
		s.place.turn(liveEvents)
		return true
	}
	if err := s.enter(p.live, liveEvents); err != nil {
		res.Body.Close() // nobody gets it
		s.done()
		p.originProblem(x, 0, err)
		return false
	}
	s.giveBack()
	if b, ok := res.Body.(interface{ SetIdle(time.Duration) }); ok {
		b.SetIdle(x.route.Live.idle())
	}
	return true
}

// liveBody is the body of a live exchange. An event stream ends between two
// events when it is to end: its client comes back with the last one's id, and
// has missed nothing. Anything else ends visibly broken, as ever.
type liveBody struct {
	*originBody
	stay   *stay
	events bool // where events end is known
	tail   []byte

	mu      sync.Mutex // guards what follows
	why     endReason
	waiting bool // for the origin
	between bool // two events
}

func newLiveBody(b *originBody, fields field.List, s *stay) *liveBody {
	events := isEvents(fields) && !fields.Has("Content-Encoding")
	l := &liveBody{originBody: b, stay: s, events: events, between: events, tail: make([]byte, 0, 3)}
	s.place.hold(0, l.end)
	return l
}

// Next implements source.
func (b *liveBody) Next() ([]byte, error) {
	b.mu.Lock()
	if b.why != notEnded && b.between {
		b.mu.Unlock()
		return nil, io.EOF
	}
	b.waiting = true
	b.mu.Unlock()
	p, err := b.originBody.Next()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = false
	if err == nil {
		b.between = b.events && b.endsEvent(p)
		return p, nil
	}
	if b.why == notEnded {
		if errors.Is(err, origin.ErrTimeout) {
			b.why = endIdle
		} else {
			b.why = endOrigin
		}
		b.stay.ended(b.why)
	}
	if b.between && b.why != endOrigin {
		return nil, io.EOF
	}
	return nil, err
}

// Close implements source.
func (b *liveBody) Close() {
	b.originBody.Close()
	b.stay.done()
}

// endsEvent reports whether the stream, p its next bytes, stands behind an empty
// line.
func (b *liveBody) endsEvent(p []byte) bool {
	if len(p) >= cap(b.tail) {
		b.tail = append(b.tail[:0], p[len(p)-cap(b.tail):]...)
	} else {
		both := append(append(make([]byte, 0, 2*cap(b.tail)), b.tail...), p...)
		b.tail = append(b.tail[:0], both[max(0, len(both)-cap(b.tail)):]...)
	}
	t := b.tail
	switch {
	case bytes.HasSuffix(t, []byte("\r\n")):
		t = t[:len(t)-2]
	case t[len(t)-1] == '\n' || t[len(t)-1] == '\r':
		t = t[:len(t)-1]
	default:
		return false
	}
	return len(t) == 0 || t[len(t)-1] == '\n' || t[len(t)-1] == '\r'
}

// end has the stream end: at once between two events, soon within one. When
// firstbell ends, what has no place to end goes on for as long as it waits.
func (b *liveBody) end(why endReason) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.why != notEnded || why == endShutdown && !b.events {
		return
	}
	b.why = why
	b.stay.ended(why)
	if why == endClient || !b.events || b.between && b.waiting {
		b.stay.stop()
		return
	}
	time.AfterFunc(eventGraceMax, b.stay.stop)
}
