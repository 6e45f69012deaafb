package leaks

import (
	"errors"
	"fmt"
	"time"
)

// errSound says that nothing goes wrong this time.
var errSound = errors.New("nothing is wrong")

// misbehave does what the resource's flaw, or an outage, is; errSound when it is
// nothing this time.
func (d *desk) misbehave(a *asked) error {
	if d.w.down(time.Now()) {
		if d.IntN(2) == 0 {
			return errEnd
		}
		return d.fail(a)
	}
	flaw := a.res.kind.flaw
	switch {
	case flaw == sound || !d.w.options.Flaws:
		return errSound
	case flaw == headTalks:
		return d.talk(a)
	case flaw == trails || flaw == nominates:
		return errSound // its responses are always so
	case flaw == earlyHints:
		s := &served{res: a.res, rep: d.w.repOf(a.res, &a.traits, a.res.version.Load()), by: a.traits, reach: own, at: time.Now()}
		d.w.serve(s)
		if err := d.send([]byte("HTTP/1.1 103 Early\r\nLink: </a>; rel=preload\r\nX-Hint: " + mark(s.serial) + "\r\nSet-Cookie: session=" + mark(s.serial) + "\r\n\r\n")); err != nil {
			return err
		}
		return errSound
	case flaw == unasked206 && a.ranges != "", d.IntN(3) > 0, flaw == stalls && d.IntN(16) > 0:
		return errSound
	}
	return d.stumble(a, flaw)
}

// stumble does what goes wrong now and then.
func (d *desk) stumble(a *asked, flaw flaw) error {
	switch flaw {
	case fails:
		return d.fail(a)
	case drops:
		return errEnd
	case cuts:
		s := d.prepare(a)
		if a.method == "HEAD" || a.ranges != "" {
			return d.respond(a, s, 0)
		}
		return d.respond(a, s, 1+d.IntN(max(1, s.rep.size-1)))
	case stalls:
		s := d.prepare(a)
		if a.method == "HEAD" {
			return d.respond(a, s, 0) // whole with its head: whoever was next on the connection would wait in vain
		}
		b := append(d.head(d.out[:0], s, 200), fmt.Sprintf("Content-Length: %d\r\n\r\n", s.rep.size)...)
		if err := d.send(b); err != nil {
			return err
		}
		d.pause(d.w.options.Stall)
		return errEnd
	}
	return d.lie(a, flaw)
}

// fail answers 503 with a page for the one who asked.
func (d *desk) fail(a *asked) error {
	s := d.prepare(a)
	s.reach, s.coded, s.cookie = own, false, true
	s.ends.Store(1)
	a.res.note("origin answers 503", s.serial, a.question, a.user)
	d.content = appendCells(d.content[:0], s.rep.id, 0, s.rep.size)
	b := fmt.Appendf(d.out[:0], "HTTP/1.1 503 Down\r\nX-Mark: %s\r\nSet-Cookie: session=%s\r\nContent-Length: %d\r\n\r\n", mark(s.serial), mark(s.serial), len(d.content))
	if a.method == "HEAD" {
		return d.send(b)
	}
	return d.send(append(b, d.content...))
}

// nonsense is the content of a response that nobody should believe.
const nonsense = "nope"

// lie sends what is no answer to the request. A lie fits one read of any
// client, so that it is there to be seen when the response before it ends.
func (d *desk) lie(a *asked, flaw flaw) error {
	s := d.prepare(a)
	s.coded = false
	s.ends.Store(1)
	content := appendCells(nil, s.rep.id, 0, min(s.rep.size, 900))
	b := d.head(d.out[:0], s, 200)
	d.last = true
	switch flaw {
	case overruns:
		d.last = false
		b = fmt.Appendf(b, "Content-Length: %d\r\n\r\n", s.rep.size)
		if a.method != "HEAD" {
			b = appendCells(b, s.rep.id, 0, s.rep.size)
		}
		b = append(b, d.poison(s)...)
	case unasked304:
		b = append(d.head(d.out[:0], s, 304), "\r\n"...)
	case unasked206:
		half := len(content) / 2
		b = fmt.Appendf(d.head(d.out[:0], s, 206), "Content-Range: bytes 0-%d/%d\r\nContent-Length: %d\r\n\r\n", half-1, len(content), half)
		if half == 0 || a.method == "HEAD" {
			return errEnd
		}
		b = append(b, content[:half]...)
	case garbles:
		b = append(b, [...]string{"no colon here\r\n", "X-Nul: a\x00b\r\n", ": no name\r\n", "Content-Length : 4\r\n", "X-Bare: a\rSet-Cookie: b\r\n"}[d.IntN(5)]...)
		b = append(append(b, "Content-Length: 4\r\n\r\n"...), nonsense...)
	case frames:
		b = append(b, [...]string{
			"Content-Length: 4\r\nContent-Length: 40\r\n\r\n",
			"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n" + nonsense + "\r\n0\r\n\r\n",
			"Transfer-Encoding: gzip, chunked\r\n\r\n4\r\n" + nonsense + "\r\n0\r\n\r\n",
			"Content-Length: -4\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
		}[d.IntN(5)]...)
		b = append(b, d.poison(s)...)
	}
	if err := d.send(b); err != nil || d.last {
		return errors.Join(err, errEnd)
	}
	return nil
}

// poison is a whole response for the one who asked, sent where no response is
// due: whose answer it is taken for has got another's.
func (d *desk) poison(s *served) []byte {
	p := &served{res: s.res, rep: s.rep, by: s.by, reach: own, at: time.Now(), cookie: true}
	p.ends.Store(1)
	d.w.serve(p)
	b := d.head(nil, p, 200)
	size := min(p.rep.size, 500)
	b = fmt.Appendf(b, "Content-Length: %d\r\n\r\n", size)
	return appendCells(b, p.rep.id, 0, size)
}

// talk answers HEAD with content, which is the beginning of the next answer to
// whoever believes it.
func (d *desk) talk(a *asked) error {
	if a.method != "HEAD" {
		return errSound
	}
	s := d.prepare(a)
	s.ends.Store(1)
	b := d.head(d.out[:0], s, 200)
	b = fmt.Appendf(b, "Content-Length: %d\r\n\r\n", s.rep.size)
	return d.send(append(b, d.poison(s)...))
}
