package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"firstbell/attendance/timetable"
	"firstbell/proxy"
)

// A validator says what the values must mean together. It shows nothing about
// a field that had a problem before, or about what stands within it.
type validator struct {
	*decoder
	c *Config
}

// wrong is an error about the field at path; a field that is missing is shown
// where what should hold it stands.
func (v *validator) wrong(path, fix, format string, args ...any) {
	if v.muted(path) {
		return
	}
	v.problem(v.where(path), path, fmt.Sprintf(format, args...), fix)
}

// warn is a problem that does not keep the file from being used.
func (v *validator) warn(path, fix, format string, args ...any) {
	if v.muted(path) {
		return
	}
	if len(v.problems) >= 2*problemsMax {
		return
	}
	pos := v.where(path)
	v.problems = append(v.problems, Problem{File: v.file, Line: pos.line, Column: pos.column, Path: path,
		What: fmt.Sprintf(format, args...), Fix: fix, Warning: true})
}

func (v *validator) muted(path string) bool {
	for p := path; p != ""; p = parent(p) {
		if v.bad[p] {
			return true
		}
	}
	return false
}

func (v *validator) where(path string) position {
	for p := path; p != ""; p = parent(p) {
		if at, ok := v.at[p]; ok {
			return at
		}
	}
	return position{1, 1}
}

// given says whether the file has something at path.
func (v *validator) given(path string) bool {
	_, ok := v.at[path]
	return ok || v.bad[path]
}

// parent is the path that holds path; the top holds "".
func parent(path string) string {
	if strings.HasSuffix(path, "]") {
		if i := strings.LastIndex(path, "["); i >= 0 {
			return path[:i]
		}
	}
	if i := strings.LastIndex(path, "."); i >= 0 {
		return path[:i]
	}
	return ""
}

// split takes a reason of another package apart: what; way out.
func split(reason string) (what, fix string) {
	what, fix, _ = strings.Cut(reason, "; ")
	return what, fix
}

func (v *validator) all() {
	v.listen()
	v.tls()
	v.limits()
	v.spool()
	v.clients()
	v.zone()
	v.timetables()
	v.schools()
	v.origins()
	v.attendance()
	v.routes()
	v.bounds()
}

func (v *validator) listen() {
	l := &v.c.Listen
	if l.HTTP == "" && l.HTTPS != "" {
		// Only over TLS: nothing to say.
	} else if l.HTTP == "" {
		v.wrong("listen.http", `add listen: {http: ":8080"}`, "there is no address to listen on")
	} else {
		v.address("listen.http", l.HTTP, ":8080")
	}
	if l.Ops != "" && v.address("listen.ops", l.Ops, "127.0.0.1:9900") {
		if l.Ops == l.HTTP && !strings.HasSuffix(l.Ops, ":0") {
			v.wrong("listen.ops", `give it a port of its own, such as "127.0.0.1:9900"`, "%s is taken by listen.http", l.Ops)
		}
		if !Loopback(l.Ops) && !v.given("ops.token") && !v.given("ops.token_file") {
			v.wrong("listen.ops", "add ops: {token_file: /etc/firstbell/ops.token}, or listen on 127.0.0.1",
				"%s can be reached from elsewhere and no token guards it", l.Ops)
		}
	}
	o := &v.c.Ops
	if l.Ops == "" && (v.given("ops.token") || v.given("ops.token_file")) {
		v.wrong("ops", `add listen: {ops: "127.0.0.1:9900"}`, "there is no ops listener to guard")
	}
	switch {
	case v.given("ops.token") && v.given("ops.token_file"):
		v.wrong("ops.token", "keep token_file", "token and token_file are both given")
	case o.TokenFile != "":
		o.TokenFile = v.beside(o.TokenFile)
	case v.given("ops.token"):
		v.tokenLength("ops.token", o.Token)
	}
}

func (v *validator) tokenLength(path, token string) {
	if len(token) < 16 {
		v.wrong(path, "make one with: openssl rand -hex 16", "the token has %d characters, fewer than 16", len(token))
	}
}

// secretFile is the one line of the file, without the space around it.
func (v *validator) secretFile(path, name string) string {
	text, err := readBounded(name, 4096)
	if err != nil {
		v.wrong(path, "create it, readable for firstbell alone", "%s: %s", name, reasonOf(err))
		return ""
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" || strings.ContainsAny(secret, "\r\n") {
		v.wrong(path, "write the token into it, on one line", "%s does not hold one line of text", name)
	}
	return secret
}

// address checks host:port, where host may be empty or an IP address.
func (v *validator) address(path, text, eg string) bool {
	fix := fmt.Sprintf("write %q", eg)
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n < 65536 {
		v.wrong(path, fmt.Sprintf("write %q", ":"+text), "%q is a port without an address", text)
		return false
	}
	if strings.Contains(text, "://") {
		v.wrong(path, fix, "%q is a URL, not an address", text)
		return false
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		v.wrong(path, fix, "%q is not an address and a port", text)
		return false
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		v.wrong(path, fix+" with a port from 1 to 65535", "%q is not a port", port)
		return false
	}
	if host == "" || host == "localhost" {
		return true
	}
	if _, err := netip.ParseAddr(host); err != nil {
		v.wrong(path, fix, "%q is not an IP address", host)
		return false
	}
	return true
}

// Loopback says whether only this machine can reach the address.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func (v *validator) zone() {
	v.c.Location = v.location("timezone", v.c.Timezone)
	if v.c.Attendance != nil && v.c.Timezone == "" && !v.given("timezone") {
		v.wrong("timezone", "add the zone the schools are in, such as timezone: Asia/Seoul", "check-ins are dated, but there is no time zone")
	}
}

// location is the zone of that name, UTC when it has no name or none such.
func (v *validator) location(path, name string) *time.Location {
	if name == "" {
		return time.UTC
	}
	loc, reason := zoneOf(name)
	if reason != "" {
		v.wrong(path, "write a name of the IANA list, such as Asia/Seoul", "%s", reason)
		return time.UTC
	}
	return loc
}

func zoneOf(name string) (*time.Location, string) {
	if name == "Local" {
		return nil, `"Local" depends on the machine`
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Sprintf("there is no time zone %q", name)
	}
	return loc, ""
}

func (v *validator) timetables() {
	if v.c.Timetable != nil {
		v.timetable("timetable", v.c.Timetable)
	}
	for _, name := range slices.Sorted(maps.Keys(v.c.Timetables)) {
		if t := v.c.Timetables[name]; t != nil {
			v.timetable(join("timetables", name), t)
		}
	}
}

// Spec is what the package timetable reads.
func (t *Timetable) Spec() timetable.Spec {
	s := timetable.Spec{Days: t.Days, Holidays: t.Holidays}
	for _, p := range t.Periods {
		s.Periods = append(s.Periods, timetable.PeriodSpec(p))
	}
	return s
}

func (v *validator) timetable(path string, t *Timetable) {
	_, err := timetable.New(t.Spec())
	for _, err := range flatten(err) {
		field, reason := "", err.Error()
		if e, ok := err.(*timetable.FieldError); ok {
			field, reason = "."+e.Field, e.Reason
		}
		what, fix := split(reason)
		v.wrong(path+field, fix, "%s", what)
	}
	if len(t.Periods) == 0 {
		v.wrong(path+".periods", `add one, such as periods: [{name: "1", starts: "09:00", ends: "09:45"}]`, "there are no periods")
	}
}

// flatten is the errors that err joins.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var list []error
		for _, e := range many.Unwrap() {
			list = append(list, flatten(e)...)
		}
		return list
	}
	return []error{err}
}

func (v *validator) origins() {
	used := map[string]bool{}
	for _, r := range v.c.Routes {
		if r != nil {
			used[r.Origin] = true
			if f := r.Identity.ForwardAuth; f != nil {
				used[f.Origin] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.c.Origins)) {
		path, o := join("origins", name), v.c.Origins[name]
		if o == nil {
			continue
		}
		if len(o.Servers) == 0 {
			v.wrong(path+".servers", `add servers: ["http://10.0.0.5:8080"]`, "the origin has no servers")
		}
		seen := map[string]bool{}
		for i, s := range o.Servers {
			at := fmt.Sprintf("%s.servers[%d]", path, i)
			if v.server(at, s) && seen[s] {
				v.wrong(at, "remove one", "%s is there twice", s)
			}
			seen[s] = true
		}
		v.originTLS(path+".tls", o)
		v.concurrency(path+".concurrency", o.Concurrency)
		if v.given(path+".proxy_protocol") && o.Preface != "v1" && o.Preface != "v2" {
			v.wrong(path+".proxy_protocol", "write v1 or v2, as its servers are set to", "%q is no version of the PROXY protocol", o.Preface)
		}
		if o.Health != nil {
			v.health(path+".health", o.Health)
		}
		if !used[name] && !v.bad["routes"] {
			v.warn(path, "remove it, or name it in a route", "no route leads to this origin")
		}
	}
}

func (v *validator) concurrency(path string, c Concurrency) {
	if c.Max > 1<<20 {
		v.wrong(path+".max", "write how many requests it answers at once, such as 256", "%d is no bound", c.Max)
	}
	if c.Queue != nil && *c.Queue > 1<<20 {
		v.wrong(path+".queue", "leave it out for 8 times max", "%d requests waiting is no bound", *c.Queue)
	}
}

func (v *validator) health(path string, h *Health) {
	if !strings.HasPrefix(h.Path, "/") {
		v.wrong(path+".path", "write health: {path: /healthz}", "%q is not a path", h.Path)
	}
	if h.Host != "" {
		if host, what, _ := normalHost(h.Host); what != "" || strings.HasPrefix(host, "*") {
			v.wrong(path+".host", "write the name that the server answers to, such as www.school.example", "%q is not a host name", h.Host)
		}
	}
	if v.given(path+".every") && h.Every < 100*time.Millisecond {
		v.wrong(path+".every", "write 2s", "%s is too often", h.Every)
	}
}

// server checks http://host:port and https://host:port.
func (v *validator) server(path, text string) bool {
	const eg = `write "http://10.0.0.5:8080"`
	u, err := url.Parse(text)
	switch {
	case err != nil || !strings.Contains(text, "://"):
		v.wrong(path, fmt.Sprintf("write %q", "http://"+text), "%q is not a URL", text)
	case u.Scheme != "http" && u.Scheme != "https":
		v.wrong(path, eg, "%q is not a scheme firstbell speaks to an origin", u.Scheme)
	case u.Hostname() == "":
		v.wrong(path, eg, "%q names no host", text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		v.wrong(path, fmt.Sprintf("write %q", u.Scheme+"://"+u.Host), "a server is a host and a port; %q says more", text)
	case u.Port() != "" && !validPort(u.Port()):
		v.wrong(path, eg, "%q is not a port", u.Port())
	default:
		return true
	}
	return false
}

func validPort(text string) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n > 0 && n < 65536
}

// beside is name, seen from the directory of the file that names it.
func (v *validator) beside(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(v.file), name)
}

// bounds are limits on numbers that have no other rule.
func (v *validator) bounds() {
	if m := v.c.Cache.Memory; v.given("cache.memory") && m < 1<<20 {
		v.wrong("cache.memory", "write what the machine can spare, such as 2GiB", "%s holds no lesson", m)
	}
	for i, pin := range v.c.Cache.Pin {
		if err := proxy.CheckPin(pin); err != nil {
			v.wrong(fmt.Sprintf("cache.pin[%d]", i), `write a URL such as "www.school.example/start", or a prefix such as "*.school.example/lessons/*"`, "%q cannot be pinned: %v", pin, err)
		}
	}
	m, pinned := v.c.Cache.Memory, v.c.Cache.PinMemory
	if m == 0 {
		m = memoryDefault
	}
	if pinned > m*2/5 {
		v.wrong("cache.pin_memory", "leave the larger part of cache.memory to everything else", "%s of %s is more than two fifths", pinned, m)
	}
	if len(v.c.Cache.Pin) == 0 && v.given("cache.pin_memory") {
		v.warn("cache.pin_memory", "add pin, or remove it", "nothing is pinned")
	}
	v.cacheDisk()
	if d := v.c.Listen.Drain; v.given("listen.drain") && (d < 100*time.Millisecond || d > time.Hour) {
		v.wrong("listen.drain", "write 100ms to 1h, such as 30s", "%s is not a sensible time", d)
	}
}

// cacheDisk checks where the cache is kept on disk.
func (v *validator) cacheDisk() {
	if !v.given("cache.disk") {
		return
	}
	d := &v.c.Cache.Disk
	if d.Path == "" {
		v.wrong("cache.disk.path", "add path: /var/lib/firstbell/cache", "there is no directory for the cache on disk")
	}
	d.Path = v.beside(d.Path)
	if d.Size < diskMin {
		v.wrong("cache.disk.size", "write what the disk can spare, such as 100GiB", "%s is not enough for a cache on disk", d.Size)
	}
	if a := v.c.Attendance; a != nil {
		for _, journal := range [...]string{a.Journal, a.JournalSpare} {
			if d.Path != "" && journal != "" && (within(d.Path, journal) || within(journal, d.Path)) {
				v.wrong("cache.disk.path", "name a directory of its own, such as /var/lib/firstbell/cache", "it is the journal, or within it, or around it")
			}
		}
	}
}

// diskMin is the smallest cache on disk: less is no more than memory holds.
const diskMin = 64 << 20

// readBounded reads a file of at most max bytes.
func readBounded(name string, max int64) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory", name)
	case info.Size() > max:
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, info.Size(), max)
	}
	return os.ReadFile(name)
}
