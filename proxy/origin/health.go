package origin

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"firstbell/proxy/field"
)

const (
	checksDown = 2 // failures in a row that take a server out
	checksUp   = 2 // successes in a row that take it in again
)

// Run checks the servers' health, if Config.Health asks for it, and closes idle
// connections grown old, until ctx is done; then it returns nil. Without Run
// the pool works, and closes old connections only when it comes upon them.
func (p *Pool) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if p.cfg.Health.Path != "" {
		for _, s := range p.servers {
			wg.Go(func() { s.watch(ctx) })
		}
	}
	every := time.NewTicker(max(p.cfg.Timeouts.KeepAlive/4, time.Second))
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-every.C:
			for _, s := range p.servers {
				s.sweep(now)
			}
		}
	}
}

// watch checks one server for as long as ctx lasts.
func (s *server) watch(ctx context.Context) {
	every := s.p.cfg.Health.Every
	inARow := 0 // successes if positive, failures if negative
	for ctx.Err() == nil {
		err := s.check(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			inARow = max(inARow, 0) + 1
		} else {
			inARow = min(inARow, 0) - 1
		}
		if inARow >= checksUp {
			s.down.Store(false)
		} else if -inARow >= checksDown {
			s.down.Store(true)
		}
		select {
		case <-ctx.Done():
		case <-time.After(every - every/10 + rand.N(every/5+1)):
		}
	}
}

// check asks once, on a fresh connection, as that is what new requests need
// when it matters.
func (s *server) check(ctx context.Context) error {
	h := &s.p.cfg.Health
	ctx, cancel := context.WithTimeout(ctx, min(max(h.Every, time.Second), s.p.cfg.Timeouts.Header))
	defer cancel()
	host := h.Host
	if host == "" {
		host = s.addr
	}
	r := &Request{Method: "GET", Target: h.Path, Host: host, Fields: field.List{{Name: "User-Agent", Value: "firstbell"}}}
	buf := getBuf()
	defer putBuf(buf)
	out, err := r.appendHead((*buf)[:0])
	*buf = out[:0]
	if err != nil {
		return err
	}
	s.inFlight.Add(1)
	c, err := s.dialOrLeave(ctx, r)
	if err != nil {
		return err
	}
	x, err := s.p.roundTrip(ctx, c, r, out, false)
	if err != nil {
		return err
	}
	x.last = true
	defer func() { _ = x.Close() }()
	if x.res.Status < 200 || x.res.Status >= 400 {
		return fmt.Errorf("health check of %s: status %d", s.addr, x.res.Status)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(x, 64<<10))
	return err
}
