//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A trial is a case that is played with one server after the other.
type trial struct {
	name  string
	quick bool
	play  func(a *arena, ctx context.Context, s *server) error // with one server
	alone func(a *arena, ctx context.Context) error            // or with those that it finds itself
}

// trials are played in this order.
var trials = []trial{
	{name: "herd of 1,000 on a cold URL, origin takes 1 s", quick: true, play: func(a *arena, ctx context.Context, s *server) error { return a.coldHerd(s, 1000) }},
	{name: "herd of 5,000 on a cold URL, origin takes 1 s", play: func(a *arena, ctx context.Context, s *server) error { return a.coldHerd(s, 5000) }},
	{name: "herd of 1,000, uncacheable, origin takes 200 ms", play: (*arena).aloneHerd},
	{name: "5 MiB over 2 s, 100 followers", play: (*arena).followers},
	{name: "5,000 idle connections", play: func(a *arena, ctx context.Context, s *server) error {
		return a.idle(ctx, s, idleConnections, inPlain, true)
	}},
	{name: "2,000 idle connections of HTTP/2 over TLS", play: func(a *arena, ctx context.Context, s *server) error {
		return a.idle(ctx, s, idleOverTLS, overHTTP2, false)
	}},
	{name: "WebSockets, 1,000 connections", alone: (*arena).socketsThrough},
	{name: "reload under load", play: (*arena).reload},
	{name: "upgrade under load", play: (*arena).upgrade},
	{name: "stop and start", play: (*arena).restart},
	{name: "durable receipts, against a bare answer to the same POST", alone: (*arena).receipts},
	{name: "a million check-ins", alone: (*arena).million},
	{name: "attendance end to end, against one INSERT for each", alone: (*arena).attendance},
}

// note notes one server's value. Facts come in the order they are first noted in.
func (a *arena) note(what string, s *server, number float64, value string) {
	name := a.trial
	i := slices.IndexFunc(a.facts, func(f *fact) bool { return f.Case == name && f.What == what })
	if i < 0 {
		i = len(a.facts)
		a.facts = append(a.facts, &fact{Case: name, What: what, Value: make(map[string]string), Number: make(map[string]float64)})
	}
	a.facts[i].Value[s.name], a.facts[i].Number[s.name] = value, number
}

// try plays a trial with every server.
func (a *arena) try(ctx context.Context, t *trial) error {
	a.trial = t.name
	if t.alone != nil {
		return t.alone(a, ctx)
	}
	for _, s := range a.servers {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := t.play(a, ctx, s); err != nil {
			if s.name == ours {
				return fmt.Errorf("firstbell: %w", err)
			}
			first, _, _ := strings.Cut(err.Error(), "\n")
			a.note("fault", s, 0, first)
		}
	}
	return nil
}

// fresh is a path that nobody has asked for before.
func (a *arena) fresh(kind string) string {
	return "/" + kind + "/" + strconv.FormatInt(numbers.Add(1), 10)
}

// once has n clients that are connected already ask for one thing at once.
func (a *arena) once(s *server, n int, request string) (t tally, first, last time.Duration, asked int64, err error) {
	c, err := newCrowd(s.site.Listen, n)
	if err != nil {
		return t, 0, 0, 0, err
	}
	defer c.close()
	asked = a.origin.asked.Load()
	t = c.burst(always([]byte(request)), 200, func(sent int) bool { return sent >= n })
	asked = a.origin.asked.Load() - asked
	firsts := make([]time.Duration, 0, n)
	for i := range c.lines {
		if l := &c.lines[i]; l.took > 0 {
			firsts, last = append(firsts, l.first), max(last, l.took)
		}
	}
	if len(firsts) > 0 {
		slices.Sort(firsts)
		first = firsts[len(firsts)*99/100]
	}
	return t, first, last, asked, nil
}

func (a *arena) coldHerd(s *server, n int) error {
	t, first, _, asked, err := a.once(s, n, get(a.fresh("slow")))
	if err != nil {
		return err
	}
	a.note("requests at the origin", s, float64(asked), strconv.FormatInt(asked, 10))
	a.note("first byte, 99 of 100 clients", s, first.Seconds(), lasting(first))
	a.note("without an answer", s, float64(t.failed+t.wrong), strconv.Itoa(t.failed+t.wrong))
	return nil
}

// aloneHerd asks twice: who has learnt that nobody may share the answer does not
// have the second herd wait for each other.
func (a *arena) aloneHerd(_ context.Context, s *server) error {
	request := get(a.fresh("alone"))
	for _, what := range []string{"the last has its answer", "the last of the next herd, same URL"} {
		t, _, last, _, err := a.once(s, 1000, request)
		if err != nil {
			return err
		}
		value := lasting(last)
		if bad := t.failed + t.wrong; bad > 0 {
			value += fmt.Sprintf(", %d without", bad)
			last = answerMax
		}
		a.note(what, s, last.Seconds(), value)
	}
	return nil
}

// follow asks once over a connection of its own and says when the first byte of
// the content came, and whether all of it did.
func follow(ctx context.Context, addr, request string, bytesWanted int) (first time.Duration, whole bool) {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, false
	}
	defer c.Close()
	if c.SetDeadline(time.Now().Add(answerMax)) != nil {
		return 0, false
	}
	began := time.Now()
	if _, err := io.WriteString(c, request); err != nil {
		return 0, false
	}
	buf := make([]byte, 256<<10)
	var head []byte
	var b body
	got := 0
	for {
		n, err := c.Read(buf)
		p := buf[:n]
		if !b.open && got == 0 {
			head = append(head, p...)
			end := bytes.Index(head, []byte("\r\n\r\n"))
			if end >= 0 {
				var status int
				if status, b, err = readHead(head[:end+2]); err != nil || status != 200 {
					return first, false
				}
				p = head[end+4:]
				got = 1
			} else {
				p = nil
			}
		}
		if len(p) > 0 && first == 0 {
			first = time.Since(began)
		}
		got += len(p)
		if _, e := b.take(p); e != nil {
			return first, false
		}
		if got > 0 && !b.open {
			return first, got >= bytesWanted
		}
		if err != nil {
			return first, false
		}
	}
}

// followers: one begins a download that dribbles in, a hundred come after it.
func (a *arena) followers(ctx context.Context, s *server) error {
	request := get(a.fresh("dribble"))
	asked := a.origin.asked.Load()
	const n = 101
	var wg sync.WaitGroup
	firsts, wholes := make([]time.Duration, n), make([]bool, n)
	for i := range n {
		wg.Go(func() {
			if i > 0 {
				time.Sleep(300*time.Millisecond + time.Duration(i)*10*time.Millisecond)
			}
			firsts[i], wholes[i] = follow(ctx, s.site.Listen, request, dribbleBytes)
		})
	}
	wg.Wait()
	whole := 0
	for _, w := range wholes {
		if w {
			whole++
		}
	}
	worst := slices.Max(firsts[1:])
	fetches := a.origin.asked.Load() - asked
	a.note("requests at the origin", s, float64(fetches), strconv.FormatInt(fetches, 10))
	a.note("a follower's first byte, worst", s, worst.Seconds(), lasting(worst))
	a.note("whole", s, float64(whole), fmt.Sprintf("%d of %d", whole, n))
	return nil
}

func (a *arena) reload(ctx context.Context, s *server) error {
	if s.peer.reload == nil || !s.keeps {
		return nil
	}
	c, err := newCrowd(s.site.Listen, 64)
	if err != nil {
		return err
	}
	defer c.close()
	request := get("/media/1024")
	if _, err := exchange(ctx, s.site.Listen, []byte(request)); err != nil {
		return err
	}
	end := time.Now().Add(2 * time.Second)
	told := make(chan error, 1)
	timer := time.AfterFunc(500*time.Millisecond, func() { told <- s.peer.reload(s) })
	defer timer.Stop()
	asked := a.origin.asked.Load()
	t := c.burst(always([]byte(request)), 200, func(int) bool { return time.Now().After(end) })
	if err := <-told; err != nil {
		return err
	}
	asked = a.origin.asked.Load() - asked
	a.note("failed requests", s, float64(t.failed+t.wrong), fmt.Sprintf("%d of %d", t.failed+t.wrong, t.failed+t.wrong+t.answers))
	a.note("connections closed, and made again", s, float64(t.again), strconv.Itoa(t.again))
	a.note("requests at the origin", s, float64(asked), strconv.FormatInt(asked, 10))
	return nil
}

// stored is how many responses are stored before a restart.
const stored = 200

// many asks for one after the other of what is stored below base.
func many(base string) requester { return numberedBy(get(base+"/{}"), stored, false) }

// many asks for each of them once, over connections of their own, and returns
// how often the origin was asked.
func (a *arena) many(ctx context.Context, s *server, base string) (asked int64, err error) {
	before, next := a.origin.asked.Load(), many(base)
	for range stored {
		if _, err := exchange(ctx, s.site.Listen, next(nil)); err != nil {
			return 0, err
		}
	}
	return a.origin.asked.Load() - before, nil
}

// restart stops the server and starts it again with what it has on disk.
func (a *arena) restart(ctx context.Context, s *server) error {
	if !s.keeps {
		return nil
	}
	base := a.fresh("many")
	for range 3 { // by then all know that they are wanted
		if _, err := a.many(ctx, s, base); err != nil {
			return err
		}
	}
	time.Sleep(500 * time.Millisecond) // what is stored a moment later
	program := s.cmd.Path
	s.stop()
	began := time.Now()
	again, err := s.peer.start(ctx, a.halves, program, s.site)
	if err != nil {
		return errors.Join(errors.New("it did not start again"), err)
	}
	again.release = s.release
	*s = *again
	took := time.Since(began)
	fetched, err := a.many(ctx, s, base)
	if err != nil {
		return err
	}
	a.note("stored responses fetched again, of "+strconv.Itoa(stored), s, float64(fetched), strconv.FormatInt(fetched, 10))
	a.note("from starting to the first answer", s, took.Seconds(), lasting(took))
	return nil
}

// lasting is a duration as the table shows it.
func lasting(d time.Duration) string {
	if d >= 10*time.Second {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	if d >= time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(d.Microseconds())/1e3), ".0") + " ms"
}
