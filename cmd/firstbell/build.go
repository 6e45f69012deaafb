package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
	"firstbell/cache"
	"firstbell/cmd/firstbell/config"
	"firstbell/proxy"
	"firstbell/proxy/admission"
	"firstbell/proxy/origin"
)

// This file turns what the file says into what the packages take.

// upstream is an origin in use and what it was made from.
type upstream struct {
	*proxy.Upstream
	made config.Origin
	stop func() // ends its health checks and closes its idle connections
}

// openOrigins makes the origins of c. Those of old that are the same are kept:
// their connections, health and counters live on; so does the limiter of each
// name, with its new bounds. fresh are those that were made now and need Run.
// Nothing of old changes; see retireOrigins and resize.
func openOrigins(c *config.Config, old map[string]*upstream) (all, fresh map[string]*upstream, err error) {
	all, fresh = map[string]*upstream{}, map[string]*upstream{}
	var problems []error
	for _, name := range config.SortedKeys(c.Origins) {
		o := c.Origins[name]
		before := old[name]
		if before != nil && samePool(&before.made, o) {
			all[name] = &upstream{Upstream: before.Upstream, made: *o, stop: before.stop}
			continue
		}
		pool, err := origin.New(originConfig(name, o))
		if err != nil {
			problems = append(problems, err)
			continue
		}
		u := &upstream{Upstream: &proxy.Upstream{Name: name, Pool: pool}, made: *o}
		if before != nil {
			u.Limit = before.Limit
		} else {
			u.Limit = admission.New(o.Concurrency.Max, *o.Concurrency.Queue, o.Concurrency.Wait)
		}
		all[name], fresh[name] = u, u
	}
	return all, fresh, errors.Join(problems...)
}

// samePool says whether an origin needs no other connections.
func samePool(a, b *config.Origin) bool {
	return slices.Equal(a.Servers, b.Servers) && a.Preface == b.Preface && a.Timeouts == b.Timeouts && a.TLS.Digest == b.TLS.Digest && a.TLS.ServerName == b.TLS.ServerName && reflect.DeepEqual(a.Health, b.Health)
}

// resize gives each limiter the bounds of its origin.
func resize(all map[string]*upstream) {
	for _, u := range all {
		u.Limit.Resize(u.made.Concurrency.Max, *u.made.Concurrency.Queue, u.made.Concurrency.Wait)
	}
}

func originConfig(name string, o *config.Origin) origin.Config {
	c := origin.Config{
		Name:    name,
		Servers: o.Servers,
		TLS:     o.TLS.Config,
		// The limiter bounds the whole origin, and limits.live what lasts: a bound
		// of a server's own below that would refuse what was admitted.
		ConnsMax: 1 << 23,
		Timeouts: origin.Timeouts{
			Connect: o.Timeouts.Connect, Send: o.Timeouts.Send, Header: o.Timeouts.Header,
			Idle: o.Timeouts.Idle, KeepAlive: o.Timeouts.KeepAlive,
		},
	}
	switch o.Preface {
	case "v1":
		c.Preface = 1
	case "v2":
		c.Preface = 2
	}
	if o.Health != nil {
		c.Health = origin.Health{Path: o.Health.Path, Host: o.Health.Host, Every: o.Health.Every}
	}
	return c
}

// tableOf is the routes of c over the given origins and verifiers. takes hands
// out receipts; nil without attendance.
func tableOf(c *config.Config, origins map[string]*upstream, who *identities, rooms rooms, takes *attendant) (*proxy.Table, error) {
	schools, err := schoolsOf(c)
	if err != nil {
		return nil, err
	}
	var routes []*proxy.Route
	for i, r := range c.Routes {
		rt := &proxy.Route{Hosts: r.Hosts, Methods: r.Methods, Path: r.Path, Total: r.Timeouts.Total,
			StreamsRequests: isNo(r.RequestBuffering), StreamsAnswers: isNo(r.ResponseBuffering)}
		rt.Redirect, rt.HSTS = c.OverTLS(r)
		switch {
		case r.CheckIn != nil:
			rt.Methods = []string{"POST"}
			rt.CheckIn, err = checkInOf(r)
		case r.Collect != nil:
			rt.Methods = []string{"POST"}
			rt.Collect, err = collectOf(r.Collect)
		case origins[r.Origin] == nil:
			err = fmt.Errorf("there is no origin %q", r.Origin)
		default:
			rt.Origin = origins[r.Origin].Upstream
		}
		if err != nil {
			return nil, fmt.Errorf("arranging routes[%d]: %w", i, err)
		}
		if rt.Access, err = accessOf(r.Allow, r.Deny); err != nil {
			return nil, fmt.Errorf("arranging routes[%d]: %w", i, err)
		}
		rt.WebSocket, rt.Live = r.WebSocket, liveOf(r, rooms)
		if r.Cache != nil {
			rt.Cache, rt.IgnoreQuery, rt.Uncoded = policyOf(r.Cache), r.Cache.IgnoreQuery, !*r.Cache.Compress
		}
		if v := who.ofRoute[i]; v != nil {
			rt.Identity = proxy.NewIdentity(proxy.Identity{
				Verifier: v.Verifier, Schools: schools, Login: r.Identity.Login, Unverified: r.Identity.WhenDown == "unverified",
			})
		}
		routes = append(routes, rt)
		if rt.CheckIn != nil && takes != nil {
			routes = append(routes, takes.localRoutes(rt)...)
		}
	}
	return proxy.NewTable(routes), nil
}

// isNo says whether a setting that is yes unless said is no.
func isNo(b *bool) bool { return b != nil && !*b }

func policyOf(c *config.Cache) *cache.Policy {
	return &cache.Policy{
		Anonymous: c.Anonymous, DefaultTTL: c.DefaultTTL,
		StaleWhileRevalidate: c.StaleWhileRevalidate, StaleIfError: c.StaleIfError,
		MaxObjectBytes: int64(c.MaxObject),
	}
}

// cacheOf is what the cache is made of.
func cacheOf(conf *config.Config) cache.Options {
	c := &conf.Cache
	o := cache.Options{MemoryBytes: int64(c.Memory)}
	if c.Disk.Path != "" {
		o.Disk = &cache.DiskOptions{Path: c.Disk.Path, Bytes: int64(c.Disk.Size)}
	}
	if a := conf.Attendance; a != nil && o.Disk != nil {
		o.Disk.KeepFree = int64(*a.Disk.Reserve) + cacheGivesWay
	}
	return o
}

func checkInOf(r *config.Route) (*proxy.CheckIn, error) {
	c := r.CheckIn
	out := &proxy.CheckIn{ClassIsKey: c.PerClass, BytesMax: int64(c.MaxBytes)}
	var problems []error
	if r.Reply != nil {
		reply, err := proxy.NewReply(proxy.ReplyConfig(*r.Reply))
		problems = append(problems, err)
		out.Reply = reply
	}
	for _, f := range []struct {
		text string
		to   *proxy.Ref
	}{
		{c.Student, &out.Student}, {c.Class, &out.Class}, {c.Period, &out.Period},
		{c.Date, &out.Date}, {c.Attempt, &out.Attempt},
	} {
		if f.text == "" {
			continue
		}
		ref, err := proxy.ParseRef(f.text)
		problems = append(problems, err)
		*f.to = ref
	}
	return out, errors.Join(problems...)
}

func collectOf(c *config.Collect) (*proxy.Collect, error) {
	out := &proxy.Collect{Sink: c.Sink, BytesMax: int64(c.MaxBytes), NoContent: c.Status == 204}
	var problems []error
	for _, place := range c.Key {
		ref, err := proxy.ParseRef(place)
		problems = append(problems, err)
		out.Key = append(out.Key, ref)
	}
	return out, errors.Join(problems...)
}

// schoolsOf is the schools of c with their zones and timetables.
func schoolsOf(c *config.Config) (*attendance.Schools, error) {
	var all *timetable.Timetable
	if c.Timetable != nil {
		t, err := timetable.New(c.Timetable.Spec())
		if err != nil {
			return nil, fmt.Errorf("reading the timetable: %w", err)
		}
		all = t
	}
	named := map[string]*timetable.Timetable{}
	for name, t := range c.Timetables {
		made, err := timetable.New(t.Spec())
		if err != nil {
			return nil, fmt.Errorf("reading the timetable %s: %w", name, err)
		}
		named[name] = made
	}
	zones := map[string]*time.Location{}
	var entries []attendance.SchoolEntry
	for _, s := range c.Schools.List {
		e := attendance.SchoolEntry{School: attendance.School{ID: s.ID, Timetable: named[s.Timetable]}, Hosts: s.Hosts}
		if s.Timezone != "" {
			if zones[s.Timezone] == nil {
				zone, err := time.LoadLocation(s.Timezone)
				if err != nil {
					return nil, fmt.Errorf("reading the zone of school %s: %w", s.ID, err)
				}
				zones[s.Timezone] = zone
			}
			e.Zone = zones[s.Timezone]
		}
		entries = append(entries, e)
	}
	return attendance.NewSchools(c.Location, all, entries)
}

func accessLogOf(c *config.Config, o *serveOptions) proxy.AccessLog {
	a := proxy.AccessLog{Off: !*c.Log.Access, PerSecond: c.Log.PerSecond, Sample: c.Log.Sample}
	if o.accessSet {
		a.Off = !o.access
	}
	if o.sample > 0 {
		a.Sample = o.sample
	}
	return a
}

// needsRestart names the settings that differ and that a running process does
// not change.
func needsRestart(was, is *config.Config) []string {
	var names []string
	add := func(name string, same bool) {
		if !same {
			names = append(names, name)
		}
	}
	add("listen", was.Listen == is.Listen)
	add("tls.ticket_keys", was.TLS.TicketKeys == is.TLS.TicketKeys)
	add("tls.acme", sameACME(was.TLS.ACME, is.TLS.ACME))
	add("ops", !bares(was, is))
	add("spool", was.Spool == is.Spool)
	add("cache.memory", was.Cache.Memory == is.Cache.Memory)
	add("cache.disk", was.Cache.Disk == is.Cache.Disk)
	a, b := was.Attendance, is.Attendance
	if a == nil || b == nil {
		add("attendance", a == b)
		return names
	}
	add("attendance.journal", a.Journal == b.Journal)
	add("attendance.journal_spare", a.JournalSpare == b.JournalSpare)
	add("attendance.store", a.Store == b.Store && a.StorePassword == b.StorePassword)
	add("attendance.grace", a.Grace == b.Grace)
	add("attendance.retention", a.Retention == b.Retention)
	add("attendance.sinks", slices.EqualFunc(a.Sinks, b.Sinks, sameSink))
	return names
}

// sameACME says whether certificates are got in the same way. The names are
// another matter: they follow the routes.
func sameACME(a, b *config.ACME) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.Roots, y.Roots = nil, nil
	return reflect.DeepEqual(x, y)
}

// sameSink says whether two sinks differ in their credential at most, which a
// running process renews.
func sameSink(a, b config.Sink) bool {
	x, y := a.Endpoint(), b.Endpoint()
	if a.Kind() != b.Kind() || x == nil || y == nil {
		return false
	}
	was := y.Header
	y.Header = x.Header
	defer func() { y.Header = was }()
	return reflect.DeepEqual(a, b)
}

// bares says whether the new file takes the token away from an ops listener
// that stays within reach of others until the restart.
func bares(was, is *config.Config) bool {
	return is.Ops.Token == "" && was.Ops.Token != "" && !config.Loopback(was.Listen.Ops)
}

// lists is names with commas between them.
func lists(names []string) string { return strings.Join(names, ", ") }
