package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/cmd/firstbell/config"
)

// reloads counts and remembers what came of reading the file again.
type reloads struct {
	mu     sync.Mutex // one reload at a time
	good   atomic.Uint64
	bad    atomic.Uint64
	latest atomic.Pointer[reloaded]
}

// reloaded is what came of reading the file again once.
type reloaded struct {
	At           time.Time `json:"at"`
	By           string    `json:"by"`
	OK           bool      `json:"ok"`
	Digest       string    `json:"digest,omitempty"`        // of the file now in force
	Problems     []string  `json:"problems,omitempty"`      // why the old one stays in force
	Warnings     []string  `json:"warnings,omitempty"`      //
	NeedsRestart []string  `json:"needs_restart,omitempty"` // settings that differ and wait for a restart
}

// reload reads the whole file, checks it, and puts it in force at once; a file
// with a mistake changes nothing. Cache, journal and flights live on.
func (s *server) reload(by string) *reloaded {
	s.reloads.mu.Lock()
	defer s.reloads.mu.Unlock()
	out := &reloaded{At: time.Now(), By: by}
	switch {
	case s.upgrades.busy.Load():
		return s.reloadedTo(out, []string{"an upgrade is under way: the new process reads the file; try again should it be given up"})
	case s.bereft.Load():
		return s.reloadedTo(out, []string{"the journal was let go for an upgrade that failed, and cannot be had again yet; the log says why"})
	}
	c, problems := config.Load(s.options.file)
	for _, p := range problems.Warnings() {
		out.Warnings = append(out.Warnings, p.String())
	}
	for _, p := range problems.Errors() {
		out.Problems = append(out.Problems, p.String())
	}
	if c != nil {
		if err := s.apply(c, out); err != nil {
			out.Problems = append(out.Problems, err.Error())
		}
	}
	return s.reloadedTo(out, out.Problems)
}

// reloadedTo remembers and tells what came of a reload.
func (s *server) reloadedTo(out *reloaded, problems []string) *reloaded {
	out.Problems, out.OK = problems, len(problems) == 0
	out.Digest = s.now.Load().config.Digest
	s.reloads.latest.Store(out)
	if !out.OK {
		s.reloads.bad.Add(1)
		for _, p := range out.Problems {
			s.log.Error("the file has a mistake, the old one stays in force", "problem", p)
		}
		return out
	}
	s.reloads.good.Add(1)
	s.log.Info("the file is in force", "by", out.By, "digest", out.Digest, "needs_restart", out.NeedsRestart)
	return out
}

// apply puts c in force. What can fail comes first; after an error nothing has
// changed.
func (s *server) apply(c *config.Config, out *reloaded) error {
	was, sinks := s.now.Load(), c.Attendance
	out.NeedsRestart = needsRestart(was.config, c)
	keepUntilRestart(c, was.config)
	if c.Attendance == nil {
		for i, r := range c.Routes {
			if r.CheckIn != nil {
				return fmt.Errorf("routes[%d] takes check-ins, and attendance begins only with a restart", i)
			}
		}
	}
	if err := s.sinksAreThere(c); err != nil {
		return err
	}
	origins, fresh, err := openOrigins(c, was.origins)
	if err != nil {
		return err
	}
	who, strangers, err := openIdentities(c, s.log, origins, was.who)
	if err != nil {
		return err
	}
	takes := s.takes.Load()
	rooms := openRooms(c, was.rooms)
	table, err := tableOf(c, origins, who, rooms, takes)
	if err != nil {
		return err
	}
	clients, err := clientsOf(c)
	if err != nil {
		return err
	}
	if takes != nil {
		if err := takes.schoolsChanged(c); err != nil {
			return err
		}
	}
	if err := s.proxy.Pin(c.Cache.Pin, int64(c.Cache.PinMemory)); err != nil {
		return err
	}
	if s.certs != nil {
		if err := s.certs.Load(config.Pairs(&c.TLS)); err != nil {
			return err
		}
		s.certs.Want(s.work, c.ACMENames())
	}
	s.runOrigins(fresh)
	s.runIdentities(strangers)
	resize(origins)
	s.proxy.Swap(table)
	s.proxy.SetLimits(c.Limits.Proxy())
	s.proxy.SetClients(clients)
	rooms.resize(c)
	s.proxy.SetLiveMax(c.Limits.Live)
	s.proxy.SetAccess(accessLogOf(c, s.options))
	s.now.Store(&setting{config: c, origins: origins, who: who, rooms: rooms, loaded: out.At})
	s.retire(was.origins, origins)
	was.who.retire(who)
	if takes != nil {
		if sinks != nil {
			takes.renewCredentials(sinks)
		}
		takes.retryNow()
	}
	return nil
}

// sinksAreThere wants every route that collects to have its sink by now.
func (s *server) sinksAreThere(c *config.Config) error {
	takes := s.takes.Load()
	for i, r := range c.Routes {
		if r.Collect == nil {
			continue
		}
		if takes == nil || takes.collecting(r.Collect.Sink) == nil {
			return fmt.Errorf("routes[%d] collects for the sink %s, and that begins only with a restart", i, r.Collect.Sink)
		}
	}
	return nil
}

// keepUntilRestart leaves in c what a running process does not change, so that
// what is in force and what is shown are the same.
func keepUntilRestart(c, was *config.Config) {
	if bares(was, c) {
		c.Ops = was.Ops
	}
	c.Spool = was.Spool
	c.Listen, c.Attendance = was.Listen, was.Attendance
	c.TLS.TicketKeys, c.TLS.ACME = was.TLS.TicketKeys, was.TLS.ACME
	c.Cache.Memory, c.Cache.Disk = was.Cache.Memory, was.Cache.Disk
}

// retireAfter is how long an origin that no route leads to any more keeps its
// connections: exchanges under way go on by the old table.
const retireAfter = time.Minute

// retire lets go of origins that are not in force any more.
func (s *server) retire(was, is map[string]*upstream) {
	for name, u := range was {
		if now := is[name]; now != nil && now.Pool == u.Pool {
			continue
		}
		s.jobs.Go(func() {
			t := time.NewTimer(retireAfter)
			defer t.Stop()
			select {
			case <-t.C:
			case <-s.work.Done():
			}
			u.stop()
		})
	}
}
