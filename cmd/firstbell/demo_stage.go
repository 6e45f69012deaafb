package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"firstbell/bench/bell"
	"firstbell/bench/lms"
)

// Lesson content per school, and how many media segments a lesson has.
const (
	demoLessons  = 3 // one per grade
	demoSegments = 3
	demoMedia    = "media." + bell.Domain
)

// demoAtOnce is what firstbell may ask the origin at once. The origin has 40
// places: the rest is for bulk attendance and health checks, which do not queue.
const demoAtOnce = 32

// stage is everything around firstbell: the directory, the roster, the origin,
// the timetable.
type stage struct {
	o        *demoOptions
	marker   *os.File // held for as long as the directory is ours
	isNew    bool     // the directory was made by us
	roster   *bell.Roster
	lms      *lms.Server
	secret   []byte
	lmsDone  chan error
	lmsClose context.CancelFunc

	lmsAddr, httpAddr, opsAddr string
	listener                   net.Listener

	zone    *time.Location
	morning bell.Morning
}

// openStage makes the directory and the roster, and takes the addresses. The
// origin is not up yet: it has to know the timetable.
func openStage(ctx context.Context, o *demoOptions, s *screen) (*stage, error) {
	roster, err := bell.NewRoster(o.students, o.schools, o.seed)
	if err != nil {
		return nil, err
	}
	st := &stage{o: o, roster: roster, secret: make([]byte, 32)}
	rand.Read(st.secret)
	if err := st.takeDir(); err != nil {
		return nil, err
	}
	st.zone = demoZone(time.Now())
	if !o.direct {
		s.print(fmt.Sprintf("Writing the roster of %s students in %d schools …", thousands(int64(o.students)), o.schools))
		err = roster.WriteOneRoster(filepath.Join(o.dir, "roster"), time.Now().In(st.zone))
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		st.listener, st.httpAddr, st.opsAddr, err = takePorts()
	}
	if err == nil {
		st.lmsAddr = st.listener.Addr().String()
	}
	if ctx.Err() != nil {
		err = errBrokenOff
	}
	if err != nil {
		st.close(brokenOff(err))
		return nil, err
	}
	return st, nil
}

// demoMarker names the file by which a directory is known as the demo's own.
const demoMarker = ".firstbell-demo"

// demoFiles are what the demo leaves in its directory; a new run takes away
// these, and nothing else.
var demoFiles = []string{"roster", "journal", "firstbell.yaml", "firstbell.log", "attendance.db", "attendance.db-*", "attendance-*.xlsx", "register.jsonl", "report.html", ".*.tmp*"}

// takeDir makes the directory, or takes it over when an earlier demo made it.
func (st *stage) takeDir() error {
	dir := st.o.dir
	err := os.Mkdir(dir, 0o755)
	st.isNew = err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the demo's directory: %w", err)
	}
	marker := filepath.Join(dir, demoMarker)
	if !st.isNew {
		if _, err := os.Lstat(marker); err != nil && !isEmptyDir(dir) {
			return fmt.Errorf("%s is there already and is not the demo's; name another directory with -dir", dir)
		}
	}
	f, err := os.OpenFile(marker, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("taking the demo's directory: %w", err)
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return fmt.Errorf("another demo is at work in %s; wait for it, or name another directory with -dir", dir)
	}
	st.marker = f
	return st.clear()
}

// clear removes what an earlier run left.
func (st *stage) clear() error {
	for _, pattern := range demoFiles {
		names, err := filepath.Glob(filepath.Join(st.o.dir, pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.RemoveAll(name); err != nil {
				return fmt.Errorf("clearing what an earlier demo left: %w", err)
			}
		}
	}
	return nil
}

func isEmptyDir(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) == 0
}

// keeps reports whether the directory outlives a morning that is broken off.
func (st *stage) keeps() bool { return st.o.dirNamed || st.o.stay }

// close ends the origin and lets go of the directory. A morning that was broken
// off takes its directory along, unless somebody named it.
func (st *stage) close(brokenOff bool) {
	if st.lmsClose != nil {
		st.lmsClose()
		<-st.lmsDone
	} else if st.listener != nil {
		st.listener.Close()
	}
	if brokenOff && !st.keeps() {
		st.removeDir()
	}
	st.marker.Close()
}

// removeDir takes away what the demo made: all of a directory of its own, its
// own files in one that was there. What cannot be removed is in plain sight.
func (st *stage) removeDir() {
	if st.isNew {
		_ = os.RemoveAll(st.o.dir)
		return
	}
	if st.clear() == nil {
		_ = os.Remove(filepath.Join(st.o.dir, demoMarker))
		_ = os.Remove(st.o.dir) // stays when somebody else's files are in it
	}
}

// The demo's ports: firstbell, the origin, firstbell's operators. Those after
// them, in tens, are for demos beside it. All lie below the range from which
// outgoing connections take theirs, so that nobody gets firstbell's by chance
// while it is dead.
const (
	demoPort     = 18080
	demoPortsMax = 100 // groups to look at
)

// takePorts opens the origin's listener and finds the two addresses beside it
// free. Every demo holds its origin's port as long as it lives, so no two of them
// ever choose the same for their firstbells.
func takePorts() (origin net.Listener, http, ops string, err error) {
	var first error
	for port := demoPort; port < demoPort+10*demoPortsMax; port += 10 {
		origin, err = net.Listen("tcp", loopback(port+1))
		if err == nil {
			http, ops = loopback(port), loopback(port+2)
			if err = errors.Join(isFree(http), isFree(ops)); err == nil {
				return origin, http, ops, nil
			}
			origin.Close()
		}
		if first == nil {
			first = err
		}
	}
	return nil, "", "", fmt.Errorf("looking for three free ports from %d on: %w", demoPort, first)
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func isFree(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// demoZone is a zone in which it is just past nine in the morning, whatever the
// time of day here: a school day must not end at midnight.
func demoZone(now time.Time) *time.Location {
	hours := 9 - now.UTC().Hour()
	if hours < -12 {
		hours += 24
	}
	name := "Etc/GMT"
	if hours != 0 {
		name = fmt.Sprintf("Etc/GMT%+d", -hours) // POSIX counts westward
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		panic(err) // main links package time/tzdata in
	}
	return loc
}

// startup is a first guess at how long firstbell takes to get ready.
func (st *stage) startup() time.Duration {
	return 2*time.Second + time.Duration(st.roster.Students())*8*time.Microsecond
}

// plan lays the morning into the near future, writes the configuration, and
// opens the origin the first time.
func (st *stage) plan(now time.Time, ahead time.Duration) error {
	first := now.Add(ahead).Truncate(time.Second).Add(time.Second).In(st.zone)
	at := 0
	moment := func(part float64) time.Time {
		at = max(at+1, int(part*st.o.duration.Seconds()+0.5))
		return first.Add(time.Duration(at) * time.Second)
	}
	st.morning = bell.Morning{
		First: first, Opens: moment(0.10), Starts: moment(0.40), LateAfter: moment(0.70), Ends: moment(1),
		Date: first.Format(time.DateOnly), Period: "1",
	}
	if st.lms == nil {
		if err := st.openLMS(); err != nil {
			return err
		}
	}
	if st.o.direct {
		return nil
	}
	for _, left := range []string{"journal", "attendance.db*"} {
		names, _ := filepath.Glob(filepath.Join(st.o.dir, left))
		for _, n := range names {
			if err := os.RemoveAll(n); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(st.config(), []byte(st.yaml()), 0o644); err != nil {
		return fmt.Errorf("writing the demo's configuration: %w", err)
	}
	return nil
}

// openLMS starts the origin in this process: its service times are sleeps, so it
// takes little from what is measured, and it outlives firstbell.
func (st *stage) openLMS() error {
	hosts := make([]string, st.roster.Schools())
	for s := range hosts {
		hosts[s] = st.roster.Host(s)
	}
	m := &st.morning
	var err error
	st.lms, err = lms.New(lms.Config{
		Seed: st.o.seed, Hosts: hosts, MediaHost: demoMedia, Lessons: demoLessons, Segments: demoSegments, Secret: st.secret,
		Period: lms.Period{Name: m.Period, Date: m.Date, Opens: m.Opens, LateAfter: m.LateAfter, Ends: m.Ends},
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	st.lmsClose, st.lmsDone = stop, make(chan error, 1)
	go func() { st.lmsDone <- st.lms.Serve(ctx, st.listener) }()
	return nil
}

// killAt is shortly after the bell, when the most check-ins are on their way and
// everybody refused by it can still be in time.
func (st *stage) killAt() time.Time {
	return st.morning.Starts.Add(st.morning.LateAfter.Sub(st.morning.Starts) / 10)
}

func (st *stage) config() string { return filepath.Join(st.o.dir, "firstbell.yaml") }

func (st *stage) workbook() string {
	return filepath.Join(st.o.dir, "attendance-"+st.morning.Date+".xlsx")
}

// bell is what the students are told.
func (st *stage) bell(conns int, direct bool) bell.Config {
	addr := st.httpAddr
	if direct {
		addr = st.lmsAddr
	}
	return bell.Config{
		Roster: st.roster, Content: newDemoContent(st.roster, st.lms), Morning: st.morning, Seed: st.o.seed,
		Addr: addr, CheckInPath: "/attendance/check-in", MePath: "/me", Session: st.lms.Session, Connections: conns,
	}
}

// demoContent tells the bell what the platform's content has to be.
type demoContent struct {
	lists   []bell.Resource
	lessons [][][]bell.Resource // by school and grade
}

func newDemoContent(r *bell.Roster, p *lms.Server) *demoContent {
	resource := func(c *lms.Content) bell.Resource {
		return bell.Resource{Host: c.Host, Path: c.Path, Bytes: int64(len(c.Body)), CRC: c.CRC}
	}
	d := &demoContent{}
	for s := range r.Schools() {
		host := r.Host(s)
		d.lists = append(d.lists, resource(p.List(host)))
		var lessons [][]bell.Resource
		for n := range demoLessons {
			var lesson []bell.Resource
			for _, c := range p.Lesson(host, n) {
				lesson = append(lesson, resource(c))
			}
			lessons = append(lessons, lesson)
		}
		d.lessons = append(d.lessons, lessons)
	}
	return d
}

func (d *demoContent) List(school int) bell.Resource            { return d.lists[school] }
func (d *demoContent) Lesson(school, grade int) []bell.Resource { return d.lessons[school][grade-1] }

// opening says what is about to happen.
func (st *stage) opening(direct, kill bool) string {
	m := &st.morning
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s students, %d schools, one bell at %s (%s). A few seconds stand for minutes.\n",
		thousands(int64(st.roster.Students())), st.roster.Schools(), m.Starts.Format("15:04:05"), st.zone)
	fmt.Fprintf(&b, "  origin      http://%s  serves %d requests at a time\n", st.lmsAddr, st.lms.Places())
	if direct {
		b.WriteString("  firstbell   left out\n")
		return b.String()
	}
	fmt.Fprintf(&b, "  firstbell   http://%s  asks it at most %d at once\n", st.httpAddr, demoAtOnce)
	if kill {
		fmt.Fprintf(&b, "  kill -9     at %s\n", st.killAt().Format("15:04:05"))
	}
	return b.String()
}

// yaml is the configuration. It is left behind for reading.
func (st *stage) yaml() string {
	clock := func(t time.Time) string { return t.Format("15:04:05") }
	m := &st.morning
	return fmt.Sprintf(demoYAML,
		m.Date, st.httpAddr, st.opsAddr, st.zone,
		m.Period, clock(m.Opens), clock(m.Starts), clock(m.LateAfter), clock(m.Ends),
		st.lmsAddr, demoAtOnce, st.lmsAddr, max(256, st.roster.Schools()/4))
}

const demoYAML = `# The morning of %s, as "firstbell demo" played it.
# Look at it with:  firstbell check -config firstbell.yaml

listen:
  http: "%s"      # what students reach; every school's name points here
  ops: "%s"       # health, metrics and status, for operators only

# The demo lets seconds stand for minutes, and plays where it is nine in the
# morning now. A school would write its own zone, days such as
# [mon, tue, wed, thu, fri], and times such as "09:00".
timezone: %s
timetable:
  days: [mon, tue, wed, thu, fri, sat, sun]
  periods:
    - {name: "%s", opens: "%s", starts: "%s", late_after: "%s", ends: "%s"}

origins:
  lms:
    servers: ["http://%s"]
    concurrency: {max: %d, queue: 8192, wait: 20s}    # the origin bears 40 at a time
    health: {path: /healthz, every: 2s}

attendance:
  journal: journal                  # a receipt means: on disk, here
  store: sqlite:attendance.db       # what exports are made from
  roster: roster                    # OneRoster CSV: who is absent, not only who is here
  sinks:
    - {name: lms, http: {url: "http://%s/api/attendance/bulk"}}

cache:
  memory: %dMiB

routes:
  # Check-ins are answered from the journal, with the origin up or down. Nobody
  # vouches for the sender here, and every record says so.
  - hosts: ["*.school.example", "*.localhost"]
    methods: [POST]
    path: /attendance/check-in
    identity: none
    check_in: {student: "json:/student_id", class: "json:/class_id", attempt: "json:/attempt"}

  # Lessons and media are the same for everybody, although every request carries
  # a cookie: cookies are left out both ways, and one answer serves all.
  - hosts: ["*.school.example", "*.localhost"]
    path: /lessons/*
    origin: lms
    cache: {anonymous: true, default_ttl: 10m, stale_while_revalidate: 1h, stale_if_error: 24h}
  - hosts: ["*.school.example", "*.localhost"]
    path: /media/*
    origin: lms
    cache: {anonymous: true, default_ttl: 1h, stale_if_error: 24h}

  # Everything else belongs to one student: passed on, a few at a time.
  - hosts: ["*.school.example", "*.localhost"]
    origin: lms

log:
  per_second: 50    # access lines in full; above that, one of a hundred
`
