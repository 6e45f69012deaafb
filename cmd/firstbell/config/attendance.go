package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"firstbell/attendance/store"
	"firstbell/proxy"
	"firstbell/proxy/field"
)

func (v *validator) attendance() {
	a := v.c.Attendance
	if a == nil {
		return
	}
	if a.Journal == "" {
		v.wrong("attendance.journal", "add journal: /var/lib/firstbell/journal", "there is no journal directory, and a receipt means on disk")
	}
	a.Journal, a.JournalSpare = v.beside(a.Journal), v.beside(a.JournalSpare)
	a.Roster = v.beside(a.Roster)
	if a.JournalSpare != "" && (within(a.JournalSpare, a.Journal) || within(a.Journal, a.JournalSpare)) {
		v.wrong("attendance.journal_spare", "name a directory on another disk", "it is the journal, or within it, or around it")
	}
	v.store(a)
	if v.given("attendance.grace") && a.Grace > 24*time.Hour {
		v.wrong("attendance.grace", "write 15m", "%s lets check-ins be dated back by days", a.Grace)
	}
	v.keeping(a)
	v.sinks(a)
	if v.c.Timetable == nil && len(v.c.Timetables) == 0 && !v.given("timetable") && !v.given("timetables") {
		v.warn("attendance", "add timetable: {days: …, periods: …}", "there is no timetable, so every check-in counts as outside")
	}
	if a.Roster == "" {
		v.warn("attendance", "add roster: /etc/firstbell/roster with OneRoster CSV files", "there is no roster, so exports cannot say who is absent")
	}
	if !slices.ContainsFunc(v.c.Routes, func(r *Route) bool { return r != nil && (r.CheckIn != nil || r.Collect != nil) }) && !v.bad["routes"] {
		v.warn("attendance", "add a route with check_in", "no route takes check-ins")
	}
}

// journalMin is three segments of the journal: one in use, one made ahead, one
// to be read.
const journalMin = 3 * 64 << 20

// keeping checks what bounds the journal and how it is sealed.
func (v *validator) keeping(a *Attendance) {
	if v.given("attendance.disk.max") && a.Disk.Max < journalMin {
		v.wrong("attendance.disk.max", "write 20GiB; a morning of a million check-ins is 160MB", "%s does not hold three segments of 64MiB", a.Disk.Max)
	}
	if a.Signing.Keys != "" {
		a.Signing.Keys = v.beside(a.Signing.Keys)
	}
	if r := a.Signing.Rotate; r != nil && *r != 0 && *r < time.Hour {
		v.wrong("attendance.signing.rotate", "write 8760h, or 0s for never", "%s is too often: every key ever used is kept and published", *r)
	}
}

// within says whether a is b or a directory in it.
func within(a, b string) bool {
	rel, err := filepath.Rel(b, a)
	return a != "" && b != "" && err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func (v *validator) store(a *Attendance) {
	const path, eg = "attendance.store", "write sqlite:/var/lib/firstbell/attendance.db or postgres://firstbell@10.0.0.7/attendance"
	kind, rest, found := strings.Cut(a.Store, ":")
	postgres := kind == "postgres" || kind == "postgresql"
	switch {
	case a.Store == "":
		if v.given(path) {
			v.wrong(path, eg, "the store is empty")
		}
	case postgres:
		v.postgres(path, a)
	case !found || kind != "sqlite":
		v.wrong(path, eg, "%q is not a store", store.Shown(a.Store))
	case strings.HasPrefix(rest, "//"):
		v.wrong(path, fmt.Sprintf("write sqlite:/%s", strings.TrimLeft(rest, "/")), "a path follows sqlite: directly, %q has slashes too many", a.Store)
	case rest == "" || strings.HasSuffix(rest, "/") || strings.ContainsAny(rest, "?#"):
		v.wrong(path, eg, "%q names no file", a.Store)
	default:
		a.Store = "sqlite:" + v.beside(rest)
	}
	if a.PasswordFile = v.beside(a.PasswordFile); a.PasswordFile != "" && !postgres {
		v.wrong("attendance.store_password_file", "remove it", "SQLite has no password")
	}
}

// postgres checks what can be checked without asking the database.
func (v *validator) postgres(path string, a *Attendance) {
	if err := store.Check(a.Store); err != nil {
		v.wrong(path, "write postgres://firstbell@10.0.0.7/attendance", "%v", err)
		return
	}
	u, err := url.Parse(a.Store)
	if err != nil {
		return // a form that only PostgreSQL's own library reads
	}
	if _, given := u.User.Password(); given || u.Query().Has("password") {
		v.warn(path, "put it into a file and name that by store_password_file, or set PGPASSWORD", "everybody who may read this file reads the password")
	}
}

// plainName is s with what cannot stand in a file name made -.
func plainName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, s)
	return strings.Trim(s, "-")
}

func (v *validator) checkInRoute(path string, r *Route) {
	if r.CheckIn == nil {
		return // had a problem of its own
	}
	if v.c.Attendance == nil && !v.given("attendance") {
		v.wrong(path+".check_in", "add attendance: {journal: /var/lib/firstbell/journal}", "check-ins need a journal, and there is no attendance section")
	}
	if r.Path == "" || strings.HasSuffix(r.Path, "/*") {
		v.wrong(path+".path", "add path: /attendance/check-in", "a check-in route needs one exact path")
	}
	for i, m := range r.Methods {
		if m != "POST" {
			v.wrong(fmt.Sprintf("%s.methods[%d]", path, i), "write methods: [POST], or leave it out", "check-ins are POSTs, not %s", m)
		}
	}
	for _, other := range []struct{ key, why string }{
		{"origin", "check-ins are answered here; what the origin should hear of goes through attendance.sinks"},
		{"cache", "check-ins are never stored in a cache"},
		{"timeouts", "check-ins do not wait for an origin"},
		{"request_buffering", "check-ins do not go to an origin"},
		{"response_buffering", "check-ins are answered here"},
		{"websocket", "a WebSocket is opened by an origin, and this route asks none"},
		{"live", "this route answers at once"},
	} {
		if v.given(path + "." + other.key) {
			v.wrong(path+"."+other.key, "remove it", "%s", other.why)
		}
	}
	switch {
	case r.Identity.None:
		v.warn(path+".identity", "let a token, a cookie or the login service vouch: identity: {jwt: …}, {cookie: …} or {forward_auth: …}",
			"anybody can check in for anybody here; records, receipts and exports say verified: false")
	case r.Identity.verifies() || v.identityMeant(path+".identity"):
		v.identity(path, r)
	default:
		v.wrong(path+".identity", "write identity: {jwt: …}, {cookie: …} or {forward_auth: …}; or identity: none, and know that anybody can check in for anybody",
			"the route does not say who vouches for the student")
	}
	if slices.Contains(r.Hosts, "*") {
		v.warn(path+".hosts", `name the schools' hosts, such as "*.school.example"`, "whatever name a request carries becomes a school")
	}
	v.checkInFields(path+".check_in", r.CheckIn, &r.Identity)
	if r.Reply != nil {
		v.reply(path+".reply", r.Reply)
	}
}

func (v *validator) reply(path string, r *Reply) {
	if r.Status == 0 && r.ContentType == "" && r.Body == "" && r.Redirect == "" {
		v.wrong(path, `write reply: {status: 201}, or leave it out for 200 and the receipt as JSON`, "the reply says nothing")
	}
	if _, err := proxy.NewReply(proxy.ReplyConfig(*r)); err != nil {
		what, fix := split(err.Error())
		v.wrong(path, or(fix, "write one of those"), "%s", what)
	}
}

func (v *validator) checkInFields(path string, c *CheckIn, id *Identity) {
	if c.Student == "" && !id.verifies() {
		v.wrong(path+".student", `add student: "json:/student_id"`, "nothing says which student checks in")
	}
	if c.PerClass && c.Class == "" {
		v.wrong(path+".class", `add class: "json:/class_id"`, "per_class is set, but nothing says which class it is")
	}
	if v.given(path+".max_bytes") && (c.MaxBytes < 256 || c.MaxBytes > 1<<20) {
		v.wrong(path+".max_bytes", "write 256B to 1MiB, such as 64KiB", "%s is not a sensible size of a check-in", c.MaxBytes)
	}
	body := ""
	for _, f := range c.fields() {
		at := path + "." + f.name
		if f.value == "" {
			if v.given(at) {
				v.wrong(at, `write "json:/`+f.name+`", or remove it`, "the field says nowhere")
			}
			continue
		}
		kind, what, fix := checkInField(f.value)
		if kind == "claim" && what == "" {
			what, fix = id.claimProblem(f.value[len("claim:"):])
		}
		if what != "" {
			v.wrong(at, fix, "%s", what)
			continue
		}
		if kind == "claim" {
			continue
		}
		if kind != "header" && body != "" && kind != body {
			v.wrong(at, "take all of them from "+body+":, or from header:", "content is either JSON or a form, and another field is taken from %s:", body)
		}
		if kind != "header" && body == "" {
			body = kind
		}
	}
}

type namedField struct{ name, value string }

func (c *CheckIn) fields() []namedField {
	return []namedField{{"student", c.Student}, {"class", c.Class}, {"period", c.Period}, {"date", c.Date}, {"attempt", c.Attempt}}
}

// checkInField checks json:/pointer, form:name or header:Name.
func checkInField(text string) (kind, what, fix string) {
	const eg = `write "json:/student_id", "form:student_id" or "header:X-Student"`
	kind, rest, found := strings.Cut(text, ":")
	switch {
	case found && kind == "claim":
		if rest == "" {
			return kind, "claim: names no claim", `write "claim:sub"`
		}
	case found && kind == "json":
		if !isPointer(rest) {
			fix = eg
			if rest != "" && rest[0] != '/' && !strings.HasPrefix(rest, "$") {
				fix = fmt.Sprintf("write %q", "json:/"+strings.ReplaceAll(rest, ".", "/"))
			}
			return kind, fmt.Sprintf("%q is not a JSON pointer (RFC 6901)", rest), fix
		}
	case found && kind == "form":
		if rest == "" {
			return kind, "form: names no field", eg
		}
	case found && kind == "header":
		if !field.IsToken(rest) {
			return kind, fmt.Sprintf("%q is not a field name", rest), eg
		}
		switch strings.ToLower(rest) {
		case "host", "content-length", "transfer-encoding", "connection":
			return kind, fmt.Sprintf("%s is read by the protocol itself", rest), eg
		}
	default:
		return kind, fmt.Sprintf("%q does not say where the field stands", text), eg
	}
	return kind, "", ""
}

// isPointer is RFC 6901 for a member of an object: at least one /name.
func isPointer(s string) bool {
	if !strings.HasPrefix(s, "/") {
		return false
	}
	for i := range len(s) {
		if s[i] == '~' && (i+1 == len(s) || s[i+1] != '0' && s[i+1] != '1') {
			return false
		}
	}
	return true
}
