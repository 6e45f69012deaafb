//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// This file measures connections that nobody uses.

const (
	idleConnections = 5000
	// A handshake each costs both sides: fewer have to do over TLS.
	idleOverTLS = 2000
	// quiet is how long they have been idle when memory is read.
	quiet = 3 * time.Second
	// parked is when those are put aside that ask no more: after 5 s, seen once
	// in a while.
	parked = 8 * time.Second
)

// A holding is connections that are kept. sweep drops those that the server has
// closed, and returns their number.
type holding interface {
	sweep() int
	close()
}

// inPlain connects n clients, each of which asks twice. Such a function returns
// nil where the server does not speak that.
func inPlain(s *server, target string, n int) (holding, error) {
	c, err := newCrowd(s.site.Listen, n)
	if err != nil {
		return nil, err
	}
	t := c.burst(always([]byte(get(target))), 200, func(sent int) bool { return sent >= 2*n })
	if err := t.bad(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// overHTTP2 is inPlain over TLS, each asking for eight things at once, twice.
func overHTTP2(s *server, target string, n int) (holding, error) {
	if !s.h2 || s.site.TLS == "" {
		return nil, nil
	}
	m := &multiplex{lines: make([]*h2line, n)}
	var next atomic.Int64
	t := together(newcomersAtOnce, func(int) bool { return next.Load() >= int64(n) }, func(int) (got int, err error) {
		i := next.Add(1) - 1
		if i >= int64(n) {
			return 0, nil
		}
		if m.lines[i], err = newH2Line(s.site.TLS, target, smallLine); err != nil {
			return 0, err
		}
		return m.lines[i].exchange() // a server does not wait for long for the first
	})
	err := t.bad()
	for _, l := range m.lines {
		if err == nil {
			_, err = l.exchange()
		}
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// idle is played with a server of its own, which no herd has made grow before.
// aside says that some servers put such connections aside.
func (a *arena) idle(ctx context.Context, s *server, n int, connect func(*server, string, int) (holding, error), aside bool) error {
	alone, err := a.startOne(ctx, s.peer, s.cmd.Path, s.name+"-idle")
	if err != nil {
		return err
	}
	defer alone.stop()
	target := "/media/1024"
	if !s.keeps {
		target = "/page/me"
	}
	few, err := connect(alone, target, 10)
	if few == nil {
		return err
	}
	few.close()
	before := alone.memory()
	all, err := connect(alone, target, n)
	if err != nil {
		return err
	}
	defer all.close()
	began := time.Now()
	note := func(what string, after time.Duration) error {
		pause(ctx, time.Until(began.Add(after)))
		each := max(0, float64(alone.memory()-before)/float64(n)/1024)
		a.note(what, s, each, figure(each))
		return ctx.Err()
	}
	if err := note("KiB of memory for each, 3 s after their last answer", quiet); err != nil {
		return err
	}
	if aside && s.peer.parks != nil {
		pause(ctx, time.Until(began.Add(parked)))
		if err := s.peer.parks(ctx, alone); err != nil {
			return err
		}
		if err := note("the same when they have been put aside", parked+quiet); err != nil {
			return err
		}
	}
	if gone := all.sweep(); gone > 0 {
		a.note("closed by the server meanwhile", s, float64(gone), strconv.Itoa(gone))
	}
	return nil
}

// collect has firstbell look for what it needs no more, as it does by itself
// within two minutes at the latest; then the memory goes back to the system.
func collect(ctx context.Context, s *server) error {
	for range 2 { // what a pool keeps goes with the second
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.site.Ops+"/debug/pprof/heap?gc=1", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			return fmt.Errorf("having firstbell collect its garbage: status %d (%v)", res.StatusCode, err)
		}
	}
	return nil
}
