package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// filmTime is how long the origin takes for the film of case 11.
	filmTime = 4 * time.Second
	// heldMax is how long a slow client may hold up the others, and a tenth of
	// the film for the machine.
	heldMax = 5*time.Second + filmTime/10
)

// slowFollowers: of those who watch a film together, one reads at two thirds of
// the origin's speed and one a thousand times slower.
func (s *suite) slowFollowers(ctx context.Context) {
	sc := s.scene("film", s.film, dribble(100*time.Millisecond, filmTime))
	defer s.origin.remove(sc)
	speed := s.film / int(filmTime/time.Second)
	bounded, cancel := context.WithTimeout(ctx, 5*filmTime)
	defer cancel()
	slowest, crawling := make(chan answer, 1), make(chan answer, 1)
	go func() { slowest <- s.proxy.get(bounded, ask{path: sc.path, rate: speed * 2 / 3}) }()
	leave, left := context.WithCancel(bounded)
	defer left()
	go func() { crawling <- s.proxy.get(leave, ask{path: sc.path, rate: max(1, speed/1000)}) }()
	sc.started(ctx)
	answers := herd(bounded, s.proxy, 5, same(sc.path))
	_, worst := spread(answers, took)
	s.all("the others: whole", countOf(answers, sc.given), len(answers))
	held := max(0, worst-filmTime)
	s.judge("the others: held up, worst", ms(held), "≤ 5 s", held <= heldMax)
	slow := <-slowest
	s.judge("at two thirds of the speed: whole", fmt.Sprint(sc.given(&slow)), "true", sc.given(&slow))
	left()
	crawl := <-crawling
	prefix := len(crawl.content) <= len(sc.body) && string(crawl.content) == string(sc.body[:len(crawl.content)])
	s.judge("a thousand times slower: still given, or visibly broken", fmt.Sprint(prefix && crawl.ending != clean), "true", prefix && crawl.ending != clean)
	s.judge("fetches of the whole, and of ranges", fmt.Sprintf("%d, %d", sc.fetches()-sc.parts(), sc.parts()), "1, ≤ 2", sc.fetches()-sc.parts() == 1 && sc.parts() <= 2)
}

// noAnswers: the origin says what is no answer to a request for the whole.
func (s *suite) noAnswers(ctx context.Context) {
	for _, c := range []struct {
		what, head string
		content    int
	}{
		{"304 to a fetch without validators", "304 Not Modified\r\nETag: \"a\"", -1},
		{"206 to a request for the whole", "206 Partial Content\r\nContent-Range: bytes 0-999/4000", 1000},
	} {
		sc := s.scene("none", 4000, raw(func(sc *scene, w io.Writer, _ *http.Request) {
			sc.pause(context.Background(), 100*time.Millisecond)
			fmt.Fprintf(w, "HTTP/1.1 %s\r\nCache-Control: max-age=60\r\nConnection: close\r\n", c.head)
			if c.content < 0 {
				io.WriteString(w, "\r\n")
				return
			}
			fmt.Fprintf(w, "Content-Length: %d\r\n\r\n%s", c.content, sc.body[:c.content])
		}))
		answers := herd(ctx, s.proxy, 5, same(sc.path))
		s.origin.remove(sc)
		s.count(c.what+": passed on as if it were one, of 5", countOf(answers, func(a *answer) bool {
			return a.ending == clean && a.status < 400
		}), 0)
	}
}
