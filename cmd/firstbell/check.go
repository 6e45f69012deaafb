package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"firstbell/attendance/roster"
	"firstbell/attendance/store"
	"firstbell/cmd/firstbell/config"
	"firstbell/proxy"
)

const checkUsage = `check -config FILE

Reads the file and all it names exactly as serve does, shows every problem with
its line, its column and a way out, and what the file means. It starts nothing,
and exits with 1 when there is an error.`

func runCheck(_ context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("check", checkUsage, stderr)
	file := f.String("config", "", "`FILE` to check")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if *file == "" {
		return usageError("firstbell check: name the file: -config FILE")
	}
	c, problems := config.Load(*file)
	printProblems(stdout, problems)
	if c == nil {
		return said(problems.Errors())
	}
	unread, err := printMeaning(stdout, c)
	if err != nil {
		return err
	}
	count := len(problems) + unread
	fmt.Fprintf(stdout, "\n%s: ok%s\n", *file, plural(", ", count, "warning"))
	return nil
}

// loadConfig is config.Load for commands that need a file without errors. What
// is wrong goes to stderr.
func loadConfig(file string, stderr io.Writer) (*config.Config, error) {
	c, problems := config.Load(file)
	if c == nil {
		printProblems(stderr, problems.Errors())
		return nil, said(problems.Errors())
	}
	return c, nil
}

func printProblems(w io.Writer, problems config.Problems) {
	for _, p := range problems {
		fmt.Fprintln(w, p)
		if p.Source != "" {
			fmt.Fprintf(w, "%6d | %s\n", p.Line, p.Source)
		}
	}
	if errs := problems.Errors(); len(errs) > 0 {
		fmt.Fprintf(w, "%s%s\n", plural("", len(errs), "error"), plural(", ", len(problems)-len(errs), "warning"))
	}
}

// plural is "2 errors" behind before; nothing for 0.
func plural(before string, n int, noun string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return before + "1 " + noun
	}
	return fmt.Sprintf("%s%d %ss", before, n, noun)
}

// printMeaning shows what a good file means; unread is how many rows of the
// roster were left out.
func printMeaning(w io.Writer, c *config.Config) (unread int, err error) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if c.Listen.HTTP != "" {
		fmt.Fprintf(t, "listen\t%s\n", c.Listen.HTTP)
	}
	if c.Listen.HTTPS != "" {
		fmt.Fprintf(t, "tls\t%s; %s\n", c.Listen.HTTPS, tlsMeaning(&c.TLS))
	}
	if c.Listen.HTTP3 != "" {
		fmt.Fprintf(t, "http3\t%s, over UDP\n", c.Listen.HTTP3)
	}
	if c.Listen.Ops != "" {
		fmt.Fprintf(t, "ops\t%s\n", c.Listen.Ops)
	}
	l := proxy.EffectiveLimits(c.Limits.Proxy())
	fmt.Fprintf(t, "limits\t%d connections, %d of one address; a head within %s, %d bytes a second over %s\n",
		l.Connections, l.PerAddress, l.Header, l.MinRate, l.Grace)
	if c.Spool.Path != "" {
		fmt.Fprintf(t, "spool\t%s\n", c.Spool.Path)
	}
	for _, line := range clientsMeaning(c) {
		fmt.Fprintf(t, "clients\t%s\n", line)
	}
	for _, name := range config.SortedKeys(c.Origins) {
		o := c.Origins[name]
		preface := ""
		if o.Preface != "" {
			preface = "; a connection for each request, told whom it is for (PROXY protocol " + o.Preface + ")"
		}
		fmt.Fprintf(t, "origin\t%s: %s; at most %d requests at once, %d more wait up to %s%s\n",
			name, strings.Join(o.Servers, ", "), o.Concurrency.Max, *o.Concurrency.Queue, o.Concurrency.Wait, preface)
	}
	if d := c.Cache.Disk; d.Path != "" {
		fmt.Fprintf(t, "cache\t%s of memory, %s on disk in %s\n", c.Cache.Memory, d.Size, d.Path)
	} else {
		fmt.Fprintf(t, "cache\t%s of memory; a restart empties it\n", c.Cache.Memory)
	}
	if len(c.Cache.Pin) > 0 {
		fmt.Fprintf(t, "pinned\t%s\n", strings.Join(c.Cache.Pin, ", "))
	}
	if a := c.Attendance; a != nil {
		fmt.Fprintf(t, "journal\t%s: at most %s, %s stay free beside it, kept for %s\n", a.Journal, a.Disk.Max, *a.Disk.Reserve, a.Retention)
		fmt.Fprintf(t, "receipts\tsealed with the keys in %s%s\n", a.Signing.Keys, rotation(*a.Signing.Rotate))
		fmt.Fprintf(t, "store\t%s\n", store.Shown(a.Store))
		for _, s := range a.Sinks {
			fmt.Fprintf(t, "sink\t%s\n", sinkMeaning(&s))
		}
		fmt.Fprintf(t, "schools\t%s\n", schoolsMeaning(c))
	}
	t.Flush()
	if c.Attendance != nil && c.Attendance.Roster != "" {
		if unread, err = printRoster(w, c.Attendance.Roster); err != nil {
			return 0, err
		}
	}
	printRoutes(w, c)
	printNotes(w, c)
	return unread, nil
}

// sinkMeaning is what a sink is sent, and how.
func sinkMeaning(s *config.Sink) string {
	e := s.Endpoint()
	what := "check-ins"
	if s.TakesCollected() {
		what = "what routes collect"
	}
	text := fmt.Sprintf("%s: %s to %s, ", s.Name, what, e.URL)
	switch {
	case s.Replay != nil:
		text += replayMeaning(s.Replay)
	case s.XAPI != nil:
		text += fmt.Sprintf("as xAPI statements, %d at once", e.Batch)
	case s.Caliper != nil:
		text += fmt.Sprintf("as Caliper events, %d at once", e.Batch)
	case s.HTTP.Format == "ndjson":
		text += fmt.Sprintf("a line of JSON each, %d at once", e.Batch)
	default:
		text += fmt.Sprintf("an array of %d at once", e.Batch)
	}
	if len(e.Header) > 0 {
		text += ", with a credential"
	}
	return text
}

func replayMeaning(r *config.ReplaySink) string {
	rate, atOnce := float64(r.Rate), r.Concurrency
	if rate == 0 {
		rate = 50
	}
	if atOnce == 0 {
		atOnce = 4
	}
	return fmt.Sprintf("one request each, at most %.4g a second and %d at once: 10,000 of them take %s", rate, atOnce, time.Duration(10_000/rate*float64(time.Second)).Round(time.Second))
}

func keyMeaning(c *config.Collect) string {
	if len(c.Key) == 0 {
		return "Idempotency-Key"
	}
	return strings.Join(c.Key, " and ")
}

func rotation(every time.Duration) string {
	if every == 0 {
		return ", one for ever"
	}
	return fmt.Sprintf(", another after %s", every)
}

func schoolsMeaning(c *config.Config) string {
	zone := "zone " + c.Location.String()
	if len(c.Schools.List) == 0 {
		return "the first label of each host name; " + zone
	}
	from := ""
	if c.Schools.File != "" {
		from = " from " + c.Schools.File
	}
	return fmt.Sprintf("%d%s; %s unless they say otherwise", len(c.Schools.List), from, zone)
}

// printRoster loads the roster and lists the rows that were left out.
func printRoster(w io.Writer, dir string) (unread int, err error) {
	r, problems, err := roster.Load(dir)
	if err != nil {
		return 0, fmt.Errorf("reading the roster %s: %w", dir, err)
	}
	fmt.Fprintf(w, "roster   %s: %d users in %d schools%s\n", dir, r.Users(), len(r.Schools()), plural("; left out: ", problems.Total(), "row"))
	const shown = 20
	for i, p := range problems.List {
		if i == shown {
			fmt.Fprintf(w, "  … and %d more\n", problems.Total()-shown)
			break
		}
		fmt.Fprintf(w, "  %s\n", p)
	}
	return problems.Total(), nil
}

// routeAccess is from where alone a route may be used; empty for everywhere.
func routeAccess(r *config.Route) string {
	if len(r.Allow)+len(r.Deny) == 0 {
		return ""
	}
	return "; " + accessMeaning(r.Allow, r.Deny)
}

func printRoutes(w io.Writer, c *config.Config) {
	fmt.Fprintln(w, "\nroutes, the exact host first, then the longest path:")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, r := range c.Routes {
		hosts := strings.Join(r.Hosts, " ")
		if len(r.Hosts) > 3 {
			hosts = fmt.Sprintf("%s and %d more", strings.Join(r.Hosts[:3], " "), len(r.Hosts)-3)
		}
		methods := strings.Join(r.Methods, " ")
		if r.CheckIn != nil || r.Collect != nil {
			methods = "POST"
		}
		if methods == "" {
			methods = "all methods"
		}
		fmt.Fprintf(t, "  [%d]\t%s\t%s\t%s\t%s\n", i, hosts, methods, r.Path, routeMeaning(r)+routeAccess(r))
	}
	t.Flush()
}

func routeMeaning(r *config.Route) string {
	who := ""
	if k := r.Identity.Kind(); k != "" {
		who = ", for those whom " + k + " vouches for"
	}
	if r.CheckIn != nil {
		if who == "" {
			return "check-ins, identity: none"
		}
		return "check-ins" + who
	}
	if r.Collect != nil {
		return "kept as it comes, for the sink " + r.Collect.Sink + ", known by " + keyMeaning(r.Collect)
	}
	s := "origin " + r.Origin + who
	s += liveMeaning(r)
	if r.Cache == nil {
		return s + ", nothing stored"
	}
	if r.Cache.Anonymous {
		s += ", one answer for everybody"
	} else {
		s += ", stored as responses allow"
	}
	if r.Cache.DefaultTTL > 0 {
		s += fmt.Sprintf(", %s where they do not say", r.Cache.DefaultTTL)
	}
	if !*r.Cache.Compress {
		s += ", not compressed here"
	}
	return s
}

const anonymousNote = `
cache: {anonymous: true} means: requests lose Cookie and Authorization before
the origin sees them, answers lose Set-Cookie, and one answer serves everybody.
Use it where everybody may see the same, such as lessons and media; a page that
greets a student by name would greet all by the same.
`

const defaultTTLNote = `
default_ttl without anonymous applies only to requests that carry neither Cookie
nor Authorization. Most learning platforms put a cookie on every request.
`

const collectNote = `
collect means: a body is kept as it came, in the journal, before its sender gets
an answer, and goes to its sink in bulk. The same key at the same school and path
gets the same receipt; of two bodies under one key the first counts. So a key
must tell students apart, such as an id that their page makes up (a UUID), or a
list of places. Cookies, Authorization and the query are not kept. Who sends is
checked where the route has an identity, and not kept either.
`

const identityNote = `
identity means: a request goes on only with a credential that was verified, of
the school that it is for. A check-in that names another student than its
credential is 403 and evidence. What is stored on such a route is shared only as
what came for an Authorization field is: where the response says public,
s-maxage or must-revalidate.
`

const membersNote = `
identity with cache: {anonymous: true} means: everybody who was verified gets
the one answer, for which the origin saw no credential.
`

const unverifiedNote = `
when_down: unverified means: while the issuer or the login service is down,
check-ins of those whom it has not vouched for are taken as they name themselves,
with verified: false. Each press once it is up again takes their place.
`

func printNotes(w io.Writer, c *config.Config) {
	anonymous, defaults, collects, lives := false, false, false, false
	identified, members, unverified := false, false, false
	for _, r := range c.Routes {
		collects = collects || r.Collect != nil
		lives = lives || r.WebSocket || r.Live != nil
		who := r.Identity.Kind() != ""
		identified = identified || who
		members = members || who && r.Cache != nil && r.Cache.Anonymous
		unverified = unverified || r.Identity.WhenDown == "unverified"
		if r.Cache != nil {
			anonymous = anonymous || r.Cache.Anonymous
			defaults = defaults || r.Cache.DefaultTTL > 0 && !r.Cache.Anonymous
		}
	}
	if collects {
		fmt.Fprint(w, collectNote)
	}
	if anonymous {
		fmt.Fprint(w, anonymousNote)
	}
	if defaults {
		fmt.Fprint(w, defaultTTLNote)
	}
	if identified {
		fmt.Fprint(w, identityNote)
	}
	if members {
		fmt.Fprint(w, membersNote)
	}
	if unverified {
		fmt.Fprint(w, unverifiedNote)
	}
	if lives {
		fmt.Fprint(w, webSocketNote)
	}
}
