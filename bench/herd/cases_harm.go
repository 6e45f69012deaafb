package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A verdict sorts what clients saw of a content that may have been cut short.
type verdict struct {
	whole   int // all of it
	visible int // an error status, or a response that its framing shows to be broken
	short   int // the forbidden one: a clean 200 that is not the content
	waiting int // nothing more came while the client waited
}

// sortOut judges answers against the one content that is right.
func sortOut(answers []answer, want []byte) (v verdict) {
	for i := range answers {
		switch a := &answers[i]; {
		case a.is(want):
			v.whole++
		case a.ending == late:
			v.waiting++
		case a.ending == broken || a.status >= 400:
			v.visible++
		default:
			v.short++
		}
	}
	return v
}

// String lists what there was.
func (v verdict) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{v.whole, "whole"}, {v.visible, "visibly broken"}, {v.short, "short but clean"}, {v.waiting, "waiting"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

// originDies: the origin's connection ends in mid-body with ten readers.
func (s *suite) originDies(ctx context.Context) {
	for _, chunked := range []bool{false, true} {
		sc := s.scene("dies", 256<<10, dies(chunked, 500*time.Millisecond))
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		answers := herd(ctx, s.proxy, 10, same(sc.path))
		cancel()
		v := sortOut(answers, sc.body)
		if chunked {
			// Nothing says what is missing, nor how much.
			s.judge("length unknown: short but clean, of 10", fmt.Sprintf("%d (%s)", v.short, v), "0", v.short == 0)
		} else {
			s.judge("length and ETag known: whole, of 10", v.String(), "10 whole", v.whole == 10)
			s.count("length and ETag known: short but clean", v.short, 0)
			parts, again := sc.parts(), max(0, sc.fetches()-sc.parts()-1)
			s.judge("length and ETag known: asked again", fmt.Sprintf("%d ranges, %d whole", parts, again), "≤ 1 range", parts <= 1 && again == 0)
		}
		s.origin.remove(sc)
	}
}

// unavailable: the origin says 503.
func (s *suite) unavailable(ctx context.Context) {
	sc := s.scene("503", 0, func(sc *scene, w http.ResponseWriter, r *http.Request) {
		if sc.pause(r.Context(), 100*time.Millisecond) {
			http.Error(w, "the learning platform is not there", http.StatusServiceUnavailable)
		}
	})
	defer s.origin.remove(sc)
	answers := herd(ctx, s.proxy, 30, same(sc.path))
	s.count("origin fetches, 30 clients", sc.fetches(), 2)
	s.count("blank answers", countOf(answers, blank), 0)
	s.count("answers that are no error", countOf(answers, func(a *answer) bool { return a.ending == clean && a.status < 400 }), 0)
}

// blank reports an answer that tells a person nothing.
func blank(a *answer) bool { return a.status == 0 || len(a.content) == 0 }

// A page is made for the user who asks, and says so.
func page(sc *scene, user string) string {
	return fmt.Sprintf("%s: the marks of %s.", sc.path, user)
}

// leakUsers ask for the same URL at once.
const leakUsers = 20

// leakKinds are the ways in which a page says that it is one user's, or does
// not say it.
var leakKinds = []struct {
	what       string
	credential string // the request's field
	field      func(h http.Header, user string)
}{
	{"no-store", "Cookie: user=", func(h http.Header, _ string) { h.Set("Cache-Control", "no-store") }},
	{"private", "Cookie: user=", func(h http.Header, _ string) { h.Set("Cache-Control", "private, max-age=60") }},
	{"Set-Cookie", "Cookie: user=", func(h http.Header, user string) {
		h.Set("Cache-Control", "max-age=60")
		h.Set("Set-Cookie", "session=of-"+user)
	}},
	{"Vary: Cookie", "Cookie: user=", func(h http.Header, _ string) {
		h.Set("Cache-Control", "max-age=60")
		h.Set("Vary", "Cookie")
	}},
	{"no directives", "Cookie: user=", func(h http.Header, _ string) {
		h.Set("Last-Modified", time.Now().AddDate(0, -1, 0).UTC().Format(http.TimeFormat)) // heuristics would have it fresh for days
	}},
	{"Authorization", "Authorization: Bearer ", func(h http.Header, _ string) { h.Set("Cache-Control", "max-age=60") }}, // RFC 9111 section 3.5
}

// leaks: users ask for the same URL at once, and once more when the first herd
// has been answered.
func (s *suite) leaks(ctx context.Context) {
	for _, kind := range leakKinds {
		sc := s.scene("leak", 0, func(sc *scene, w http.ResponseWriter, r *http.Request) {
			if sc.pause(r.Context(), 100*time.Millisecond) {
				kind.field(w.Header(), user(r))
				io.WriteString(w, page(sc, user(r)))
			}
		})
		harmed := make(map[int]bool)
		own := 0
		for range 2 {
			for i, a := range herd(ctx, s.proxy, leakUsers, func(i int) ask {
				return ask{path: sc.path, fields: []string{kind.credential + name(i)}}
			}) {
				switch foreign := foreign(sc, &a, name(i)); {
				case foreign:
					harmed[i] = true
				case a.ok() && string(a.content) == page(sc, name(i)):
					own++
				}
			}
		}
		value := fmt.Sprint(len(harmed))
		if missing := 2*leakUsers - own; missing > len(harmed)*2 {
			value += fmt.Sprintf(" (%d without a page)", missing)
		}
		s.judge("another user's content, of 20: "+kind.what, value, "0", len(harmed) == 0 && own == 2*leakUsers)
		s.origin.remove(sc)
	}
}

func name(i int) string { return fmt.Sprintf("student-%02d", i) }

// foreign reports that an answer holds anything made for another user.
func foreign(sc *scene, a *answer, own string) bool {
	for i := range leakUsers {
		other := name(i)
		if other == own {
			continue
		}
		if strings.Contains(string(a.content), other) || strings.Contains(strings.Join(a.fields.Values("Set-Cookie"), " "), other) {
			return true
		}
	}
	return false
}

// stallMax is how long clients wait for a content that has stalled.
const stallMax = 3 * time.Second

// badFraming: the origin's framing lies.
func (s *suite) badFraming(ctx context.Context) {
	const size = 50 << 10
	head := func(length int) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n", length)
	}
	for _, lie := range []struct {
		what string
		want func(body []byte) []byte // the content, if it can be had
		play func(sc *scene, w io.Writer)
	}{
		{"Content-Length too long", nil, func(sc *scene, w io.Writer) {
			io.WriteString(w, head(2*size))
			w.Write(sc.body)
		}},
		{"Content-Length too short", func(b []byte) []byte { return b[:size/2] }, func(sc *scene, w io.Writer) {
			io.WriteString(w, head(size/2))
			w.Write(sc.body)
		}},
		{"a chunk's size is nonsense", nil, func(sc *scene, w io.Writer) {
			io.WriteString(w, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n")
			(&chunks{w}).Write(sc.body[:size/2])
			io.WriteString(w, "not a size\r\n")
		}},
		{"header section, 10 KiB, then nothing", nil, func(sc *scene, w io.Writer) {
			io.WriteString(w, head(size))
			w.Write(sc.body[:10<<10])
			sc.pause(context.Background(), 2*stallMax) // ends with the case
		}},
	} {
		sc := s.scene("framing", size, raw(func(sc *scene, w io.Writer, _ *http.Request) { lie.play(sc, w) }))
		bounded, cancel := context.WithTimeout(ctx, stallMax)
		answers := herd(bounded, s.proxy, 5, same(sc.path))
		cancel()
		s.origin.remove(sc)
		want := append([]byte("not to be had: "), sc.body...)
		if lie.want != nil {
			want = lie.want(sc.body)
		}
		v := sortOut(answers, want)
		s.judge(lie.what+": short but clean, of 5", fmt.Sprintf("%d (%s)", v.short, v), "0", v.short == 0)
	}
	s.afterwards(ctx)
}

// afterwards asks for other URLs: what was too much of the last case's
// contents must not be taken for the beginning of another answer.
func (s *suite) afterwards(ctx context.Context) {
	const urls = 20
	right := 0
	for range urls {
		sc := s.scene("afterwards", 1<<10, whole(0))
		if a := s.proxy.get(ctx, ask{path: sc.path}); sc.given(&a) {
			right++
		}
		s.origin.remove(sc)
	}
	s.all("then other URLs: whole", right, urls)
}
