package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// oneLesson: a hundred ask for one lesson that takes the origin a second.
func (s *suite) oneLesson(ctx context.Context) {
	sc := s.scene("lesson", 20<<10, whole(time.Second))
	defer s.origin.remove(sc)
	answers := herd(ctx, s.proxy, 100, same(sc.path))
	s.once("origin fetches, 100 clients", sc.fetches())
	s.all("whole", countOf(answers, sc.given), len(answers))
	_, slowest := spread(answers, took)
	s.note("slowest client", ms(slowest))
}

// given reports an answer with all of the scene's content.
func (s *scene) given(a *answer) bool { return a.is(s.body) }

const (
	// A learnt URL may cost this much of what it costs without a proxy that
	// collapses; the rest is the proxy's own work.
	learntRatio = 1.2
	// An unknown URL costs two turns: until the header section is there, which
	// says that the response is one client's alone, it is the same as a lesson
	// that all may share (case 1). Then everybody asks for themselves.
	unknownRatio = 2 * learntRatio
)

// noStore: fifty ask for what may not be shared, and then again.
func (s *suite) noStore(ctx context.Context) {
	alone := func(sc *scene, w http.ResponseWriter, r *http.Request) {
		if sc.pause(r.Context(), 200*time.Millisecond) {
			w.Header().Set("Cache-Control", "no-store")
			w.Write(sc.body)
		}
	}
	sc, beside := s.scene("no-store", 10<<10, alone), s.scene("no-store", 10<<10, alone)
	defer s.origin.remove(sc)
	defer s.origin.remove(beside)
	_, base := spread(herd(ctx, s.direct, 50, same(beside.path)), took)

	for _, turn := range []struct {
		what  string
		ratio float64
	}{{"slowest of 50, URL unknown", unknownRatio}, {"slowest of 50, same URL again (learnt)", learntRatio}} {
		answers := herd(ctx, s.proxy, 50, same(sc.path))
		_, slowest := spread(answers, took)
		ratio := slowest.Seconds() / base.Seconds()
		whole := countOf(answers, sc.given)
		value := fmt.Sprintf("%s, %.1fx of no collapsing", ms(slowest), ratio)
		if whole < len(answers) {
			value += fmt.Sprintf(", %d of %d whole", whole, len(answers))
		}
		s.judge(turn.what, value, fmt.Sprintf("≤ %.1fx", turn.ratio), ratio <= turn.ratio && whole == len(answers))
	}
}

// firstByteMax is how long a follower may wait for the first byte of a body
// that has begun.
const firstByteMax = 50 * time.Millisecond

// slowBody: followers come while the content dribbles in.
func (s *suite) slowBody(ctx context.Context) {
	sc := s.scene("slow", 512<<10, dribble(0, 2*time.Second))
	defer s.origin.remove(sc)
	first := make(chan answer, 1)
	go func() { first <- s.proxy.get(ctx, ask{path: sc.path}) }()
	sc.started(ctx)
	followers := make([]answer, 30)
	var wg sync.WaitGroup
	for i := range followers {
		wg.Go(func() {
			sleep(ctx, 100*time.Millisecond+time.Duration(i)*50*time.Millisecond)
			followers[i] = s.proxy.get(ctx, ask{path: sc.path})
		})
	}
	wg.Wait()
	leader := <-first
	s.once("origin fetches, 31 clients", sc.fetches())
	median, worst := spread(followers, func(a *answer) time.Duration {
		if a.first == 0 {
			return a.took // none came: as bad as waiting to the end
		}
		return a.first
	})
	s.judge("followers' first byte, worst", ms(worst), "≤ "+ms(firstByteMax), worst <= firstByteMax)
	s.note("followers' first byte, median", ms(median))
	s.all("whole", countOf(append(followers, leader), sc.given), 31)
}

// sleep waits, or returns early when the context ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// leaving is when the first client leaves: after a time, or with so many bytes
// of the content.
type leaving struct {
	when  string
	after time.Duration
	bytes int
	torn  bool // the origin's header section comes in two parts
}

// firstLeaves: the client whose request began the fetch leaves, ten others stay.
func (s *suite) firstLeaves(ctx context.Context) {
	for _, l := range []leaving{
		{when: "at once", after: 20 * time.Millisecond},
		{when: "before the header section", after: 300 * time.Millisecond},
		{when: "in the header section", after: leaveHead + leaveTorn/2, torn: true},
		{when: "with the first byte", bytes: 1},
		{when: "in mid-body", bytes: 64 << 10},
		{when: "with the last byte", bytes: leaveBytes},
	} {
		s.leave(ctx, l)
	}
	s.allLeave(ctx)
	s.allLeaveLate(ctx)
}

// The origin's answer in case 4: half a second to the header section, half a
// second for the content. A header section in two parts takes a while more.
const (
	leaveHead, leaveBody = 500 * time.Millisecond, 500 * time.Millisecond
	leaveTorn            = 200 * time.Millisecond
	leaveBytes           = 256 << 10
)

// torn answers like dribble, but with a pause in its header section.
func torn(after, pause, over time.Duration) player {
	return raw(func(sc *scene, w io.Writer, r *http.Request) {
		ctx := context.Background() // ends with the case at the latest
		if !sc.pause(ctx, after) {
			return
		}
		io.WriteString(w, "HTTP/1.1 200 OK\r\nCache-Control: max-a")
		if !sc.pause(ctx, pause) {
			return
		}
		fmt.Fprintf(w, "ge=60\r\nConnection: close\r\nETag: %s\r\nContent-Length: %d\r\n\r\n", sc.tag(), len(sc.body))
		sc.drip(ctx, w, sc.body, over)
	})
}

// stayRatio is "no added wait" for those who stay, and a tenth for the machine.
const stayRatio = 1.1

func (s *suite) leave(ctx context.Context, l leaving) {
	plays := dribble(leaveHead, leaveBody)
	if l.torn {
		plays = torn(leaveHead, leaveTorn, leaveBody)
	}
	sc := s.scene("leave", leaveBytes, plays)
	defer s.origin.remove(sc)
	stay, leave := context.WithCancel(ctx)
	defer leave()
	left := make(chan struct{})
	go func() {
		defer close(left)
		s.proxy.get(stay, ask{path: sc.path, leaveAfter: l.bytes})
	}()
	sc.started(ctx)
	if l.after > 0 {
		time.AfterFunc(l.after, leave)
	}
	sleep(ctx, 10*time.Millisecond) // the first is surely the first
	beside := s.scene("leave", leaveBytes, plays)
	defer s.origin.remove(beside)
	alone := make(chan answer, 1)
	go func() { alone <- s.direct.get(ctx, ask{path: beside.path}) }()
	others := herd(ctx, s.proxy, 10, same(sc.path))
	leave()
	<-left
	base := (<-alone).took
	median, _ := spread(others, took)
	ratio := median.Seconds() / base.Seconds()
	s.once("leaves "+l.when+": fetches", sc.fetches())
	s.judge("leaves "+l.when+": median of the others", fmt.Sprintf("%s, %.2fx of undisturbed", ms(median), ratio), fmt.Sprintf("≤ %.1fx", stayRatio), ratio <= stayRatio)
	s.all("leaves "+l.when+": whole", countOf(others, sc.given), len(others))
}

// allLeave: nobody is left reading what takes the origin four seconds more.
func (s *suite) allLeave(ctx context.Context) {
	sc := s.scene("leave", 8<<20, dribble(0, 4*time.Second))
	defer s.origin.remove(sc)
	herd(ctx, s.proxy, 5, func(int) ask { return ask{path: sc.path, leaveAfter: 64 << 10} })
	began := time.Now()
	sleep(ctx, 2*time.Second)
	sc.mu.Lock()
	gone, asked := sc.gone, sc.asked
	sc.mu.Unlock()
	value := "goes on"
	if !gone.IsZero() {
		value = "stops after " + ms(max(0, gone.Sub(began)))
	}
	s.note("all leave in mid-body: the fetch", fmt.Sprintf("%s (%d asked)", value, asked))
}

// allLeaveLate: nobody is left reading when the fetch is nearly done. Then it
// goes on: the lesson is asked for again in a moment.
func (s *suite) allLeaveLate(ctx context.Context) {
	const size, left = 1 << 20, 64 << 10
	sc := s.scene("leave", size, dribble(0, time.Second))
	defer s.origin.remove(sc)
	herd(ctx, s.proxy, 5, func(int) ask { return ask{path: sc.path, leaveAfter: size - left} })
	sleep(ctx, time.Second)
	a := s.proxy.get(ctx, ask{path: sc.path})
	s.judge("all leave just before the end, and one comes back: fetches, whole", fmt.Sprintf("%d, %t", sc.fetches(), sc.given(&a)), "1, true", sc.fetches() == 1 && sc.given(&a))
}

// mixed: HEAD, GET and Range for the same, at once, by who comes first; and
// once more when it has landed.
func (s *suite) mixed(ctx context.Context) {
	for _, first := range []string{"GET", "Range", "HEAD"} {
		sc := s.scene("mixed", 96<<10, whole(300*time.Millisecond))
		began := make(chan answer, 1)
		go func() { began <- s.proxy.get(ctx, mixedAsk(sc, first)) }()
		sc.started(ctx)
		answers := herd(ctx, s.proxy, 30, func(i int) ask { return mixedAsk(sc, mixedKinds[i%len(mixedKinds)]) })
		right := 0
		if a := <-began; rightFor(sc, first, &a) {
			right++
		}
		fetches := sc.fetches()
		answers = append(answers, herd(ctx, s.proxy, 30, func(i int) ask { return mixedAsk(sc, mixedKinds[i%len(mixedKinds)]) })...)
		for i := range answers {
			if rightFor(sc, mixedKinds[i%30%len(mixedKinds)], &answers[i]) {
				right++
			}
		}
		s.all(first+" first: right answers", right, len(answers)+1)
		what := first + " first: fetches, and once landed"
		value := fmt.Sprintf("%d, +%d", fetches, sc.fetches()-fetches)
		if first == "GET" { // the fetch that is under way brings what all of them ask for
			s.judge(what, value, "1, +0", fetches == 1 && sc.fetches() == 1)
		} else {
			s.note(what, value)
		}
		s.origin.remove(sc)
	}
}

// mixedKinds are the questions of the mixed herd.
var mixedKinds = []string{"GET", "HEAD", "Range", "last bytes", "no such range"}

func mixedAsk(sc *scene, kind string) ask {
	q := ask{path: sc.path}
	switch kind {
	case "HEAD":
		q.method = "HEAD"
	case "Range":
		q.fields = []string{"Range: bytes=1000-49999"}
	case "last bytes":
		q.fields = []string{"Range: bytes=-500"}
	case "no such range":
		q.fields = []string{"Range: bytes=9000000-"}
	}
	return q
}

// rightFor judges an answer of the mixed herd. Who asks for a range may be
// given the whole (RFC 9110 section 14.2).
func rightFor(sc *scene, kind string, a *answer) bool {
	part := func(from, to int) bool {
		want := fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(sc.body))
		return a.ending == clean && a.status == 206 && !a.more &&
			a.fields.Get("Content-Range") == want && string(a.content) == string(sc.body[from:to])
	}
	switch kind {
	case "HEAD":
		length := a.fields.Get("Content-Length")
		return a.ok() && len(a.content) == 0 && (length == "" || length == fmt.Sprint(len(sc.body)))
	case "Range":
		return sc.given(a) || part(1000, 50000)
	case "last bytes":
		return sc.given(a) || part(len(sc.body)-500, len(sc.body))
	case "no such range":
		return sc.given(a) || a.ending == clean && a.status == 416 && !a.more
	}
	return sc.given(a)
}

const (
	// coldLanes URLs are under way at once, each asked for by coldClients: 256
	// connections, kept from one URL to the next.
	coldLanes, coldClients = 64, 4
)

// cold: a herd on each of many URLs that nobody has asked for.
func (s *suite) cold(ctx context.Context) {
	scenes := make([]*scene, s.colds)
	for i := range scenes {
		scenes[i] = s.scene("cold", 4<<10, whole(50*time.Millisecond))
		defer s.origin.remove(scenes[i])
	}
	began := time.Now()
	next := make(chan *scene)
	failed := make(chan int, coldLanes)
	for range coldLanes {
		go func() { failed <- s.lane(ctx, next) }()
	}
	for _, sc := range scenes {
		next <- sc
	}
	close(next)
	errors := 0
	for range coldLanes {
		errors += <-failed
	}
	total, most := 0, 0
	for _, sc := range scenes {
		total, most = total+sc.fetches(), max(most, sc.fetches())
	}
	s.judge(fmt.Sprintf("fetches for %d URLs x %d clients", s.colds, coldClients), fmt.Sprintf("%.3f a URL, most %d", float64(total)/float64(s.colds), most), "1 each", total == s.colds && most == 1)
	s.count("errors", errors, 0)
	s.note("time", ms(time.Since(began)))
}

// lane plays one URL after the other: all its clients ask for the same at
// once. It returns how many were not given the whole.
func (s *suite) lane(ctx context.Context, next <-chan *scene) (failed int) {
	lines := make([]line, coldClients)
	for i := range lines {
		lines[i].client = s.proxy
		defer lines[i].close()
	}
	for sc := range next {
		answers := make([]answer, coldClients)
		var wg sync.WaitGroup
		for i := range lines {
			wg.Go(func() { answers[i] = lines[i].get(ctx, ask{path: sc.path}) })
		}
		wg.Wait()
		failed += coldClients - countOf(answers, sc.given)
	}
	return failed
}
