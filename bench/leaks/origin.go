package leaks

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An origin answers for all resources of a world.
type origin struct {
	w  *world
	ln net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

// listen answers until the listener is closed.
func (o *origin) listen() {
	for {
		c, err := o.ln.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		o.conns[c] = struct{}{}
		o.mu.Unlock()
		o.wg.Go(func() { o.converse(c) })
	}
}

// close ends every connection and waits.
func (o *origin) close() {
	_ = o.ln.Close() // nobody is to come any more
	o.mu.Lock()
	for c := range o.conns {
		_ = c.Close() // who answers on it finds out
	}
	o.mu.Unlock()
	o.wg.Wait()
}

// A desk answers the requests of one connection.
type desk struct {
	o       *origin
	w       *world
	c       net.Conn
	in      *bufio.Reader
	request head
	out     []byte
	content []byte
	coded   []byte
	last    bool // the connection ends with this answer
	rand.PCG
	*rand.Rand
}

func (o *origin) converse(c net.Conn) {
	d := &desk{o: o, w: o.w, c: c, in: bufio.NewReader(c)}
	d.Rand = rand.New(&d.PCG)
	defer func() {
		_ = c.Close() // whatever is left
		o.mu.Lock()
		delete(o.conns, c)
		o.mu.Unlock()
	}()
	for !d.last {
		if err := d.request.read(d.in); err != nil {
			return
		}
		if err := d.answer(); err != nil {
			return
		}
	}
}

// errEnd ends a connection.
var errEnd = errors.New("the connection ends here")

// An asked is a request as the origin reads it.
type asked struct {
	traits
	method string
	res    *resource
	gzip   bool
	tag    string // If-None-Match
	ranges string
	ifTag  string // If-Range
}

// read takes the request apart and reads its content.
func (d *desk) read() (a asked, err error) {
	h := &d.request
	method, rest, _ := strings.Cut(h.start, " ")
	target, _, _ := strings.Cut(rest, " ")
	host := h.get("Host")
	if d.w.options.Blind != nil {
		method, target, host = h.get("X-True-Method"), h.get("X-True-Target"), h.get("X-True-Host")
	}
	number, _ := strconv.ParseUint(h.get("X-Question"), 10, 32)
	a = asked{method: method, res: d.w.byURL[host+" "+target], tag: h.get("If-None-Match"), ranges: h.get("Range"), ifTag: h.get("If-Range")}
	a.question = uint32(number)
	a.user = users - 1
	if c := h.get("Cookie"); c != "" {
		_, user, ok := strings.Cut(c, "user=")
		a.cookie = ok
		a.user, _ = strconv.Atoi(user)
	}
	if c := h.get("Authorization"); c != "" {
		a.auth = true
		a.user, _ = strconv.Atoi(strings.TrimPrefix(c, "Bearer "))
	}
	a.language, a.class = indexOf(languages, h.get("Accept-Language")), indexOf(classes, h.get("X-Class"))
	a.address = addressOf(h.get("X-Forwarded-For"))
	a.noStore = strings.Contains(h.get("Cache-Control"), "no-store")
	a.gzip = takesGzip(h.get("Accept-Encoding"))
	if a.method == "POST" && d.w.options.Flaws && number%17 == 0 {
		return a, nil // it answers before it has read the content
	}
	framing, err := h.framing()
	if err != nil {
		return a, err
	}
	content := h.get("X-Content")
	if framing != -2 {
		b, err := readContent(nil, d.in, framing, nil, nil)
		if err != nil {
			return a, err
		}
		content = string(b)
	}
	if n, ok := strings.CutPrefix(content, "ask="); ok {
		i, _ := strconv.Atoi(n)
		a.content = int8(i)
	}
	return a, nil
}

func indexOf(list []string, value string) int8 {
	for i, s := range list {
		if s == value || strings.ReplaceAll(s, " ", "") == strings.ReplaceAll(value, " ", "") {
			return int8(i)
		}
	}
	return -1
}

// addressOf reads the last address of an X-Forwarded-For: which of the clients'
// own it is, or a number that none of them has.
func addressOf(value string) int8 {
	value = strings.TrimSpace(value[strings.LastIndexByte(value, ',')+1:])
	if value == "" {
		return 99
	}
	n, err := strconv.Atoi(value[strings.LastIndexByte(value, '.')+1:])
	if err != nil || n > addresses {
		return 99
	}
	return int8(n - 1)
}

// addresses is from how many addresses clients connect: x.x.x.1 and on.
const addresses = 4

// takesGzip reads what firstbell, nginx and the clients here send.
func takesGzip(value string) bool {
	for m := range strings.SplitSeq(value, ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(m), ";")
		if strings.EqualFold(name, "gzip") {
			return strings.Trim(strings.TrimPrefix(weight, "q="), "0.") != "" || weight == ""
		}
	}
	return false
}

// answer answers one request.
func (d *desk) answer() error {
	a, err := d.read()
	if err != nil {
		return err
	}
	if a.res == nil {
		d.last = true
		return d.send([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
	}
	d.PCG.Seed(d.w.options.Seed, uint64(a.question)<<8|uint64(a.res.id&0xff))
	a.res.note("asks the origin: "+a.method, 0, a.question, a.user)
	if a.res.open && (a.cookie || a.auth) {
		d.w.found(Finding{Leak: Told, Detail: "to the origin", res: a.res})
	}
	if d.IntN(3) > 0 {
		d.pause(time.Duration(d.IntN(20)) * time.Millisecond)
	}
	if a.method != "GET" && a.method != "HEAD" {
		return d.change(&a)
	}
	if d.IntN(200) == 0 {
		a.res.version.Add(1) // somebody edits it
	}
	if err := d.misbehave(&a); err != errSound {
		return err
	}
	return d.respond(&a, d.prepare(&a), 0)
}

// pause waits in the run's own measure of time.
func (d *desk) pause(t time.Duration) { time.Sleep(t) }

// prepare decides what the response is.
func (d *desk) prepare(a *asked) *served {
	k := a.res.kind
	version := a.res.version.Load()
	s := &served{res: a.res, rep: d.w.repOf(a.res, &a.traits, version), by: a.traits, reach: k.reach}
	if k.flips && version%2 == 0 {
		s.reach = own
	}
	s.cookie = k.cookie > 0 && d.IntN(k.cookie) == 0
	s.coded = k.coded && a.gzip
	s.at = time.Now()
	d.w.serve(s)
	return s
}

// tagOf is the entity tag of a representation as it is sent.
func tagOf(s *served) string {
	k := s.res.kind
	var tag string
	switch {
	case k.noTag:
		return ""
	case k.oneTag:
		tag = fmt.Sprintf("v%d", s.rep.of.version)
	default:
		tag = fmt.Sprintf("r%x", s.rep.id)
	}
	if s.coded {
		tag += "-gz"
	}
	if k.weak {
		return `W/"` + tag + `"`
	}
	return `"` + tag + `"`
}

// bytesOf makes the content of a response.
func (d *desk) bytesOf(s *served) []byte {
	d.content = appendCells(d.content[:0], s.rep.id, 0, s.rep.size)
	if !s.coded {
		return d.content
	}
	d.coded = appendGzip(d.coded[:0], d.content)
	return d.coded
}

// longAgo is when the first versions of all that has a date were made.
var longAgo = time.Date(1999, 3, 2, 9, 0, 0, 0, time.UTC)

// head appends a header section without what frames the content.
func (d *desk) head(b []byte, s *served, status int) []byte {
	blind := d.w.options.Blind
	k := s.res.kind
	b = append(append(append(append(b, "HTTP/1.1 "...), strconv.Itoa(status)...), " Said\r\nDate: "...), httpDate(s.at)...)
	b = append(b, "\r\n"...)
	put := func(name, value string) {
		b = append(append(append(append(b, blind.response(name)...), ": "...), value...), "\r\n"...)
	}
	for _, f := range k.fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == "Last-Modified" {
			value = httpDate(longAgo.Add(time.Duration(s.rep.of.version) * time.Second))
		}
		if strings.EqualFold(name, "Cache-Control") {
			if k.flips && s.reach == own {
				value = "private"
			}
			value = blind.control(value)
		}
		put(name, value)
	}
	if k.text && status != 304 {
		put("Content-Type", "text/html; charset=utf-8")
	}
	put("Cache-Tag", "all, "+k.name)
	put("X-Mark", mark(s.serial))
	if s.cookie {
		put("Set-Cookie", "session="+mark(s.serial))
	}
	if k.secret {
		put("X-Secret", mark(s.serial))
	}
	if status >= 300 && status < 400 && status != 304 {
		put("Location", "/for/"+mark(s.serial))
	}
	if tag := tagOf(s); tag != "" {
		put("ETag", tag)
	}
	if k.told {
		put("Content-Language", blind.language(languages[s.rep.of.language]))
	}
	if s.coded && status != 304 {
		put("Content-Encoding", "gzip")
	}
	return b
}

// respond sends the response, or 304, or the part asked for. Of the content
// only so many bytes are sent when cut is not 0; then the connection ends.
func (d *desk) respond(a *asked, s *served, cut int) error {
	k := s.res.kind
	status := k.status
	if status == 0 {
		status = 200
	}
	defer func() { s.ends.Store(int64(time.Since(s.at)) + 1) }()
	tag := tagOf(s)
	if status == 200 && a.tag != "" && tag != "" && (d.matches(a.tag, tag)) {
		s.res.note("origin says 304", s.serial, a.question, a.user)
		return d.send(append(d.head(d.out[:0], s, 304), "\r\n"...))
	}
	content := d.bytesOf(s)
	if status == 200 && a.ranges != "" && a.method == "GET" && (a.ifTag == "" || a.ifTag == tag && !k.weak) {
		if from, to, ok := onePart(a.ranges, len(content)); ok {
			s.res.note("origin sends a part", s.serial, a.question, a.user)
			b := d.head(d.out[:0], s, 206)
			b = fmt.Appendf(b, "Content-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n", from, to-1, len(content), to-from)
			return d.send(append(b, content[from:to]...))
		}
	}
	s.res.note("origin answers "+strconv.Itoa(status), s.serial, a.question, a.user)
	return d.sendWhole(a, s, status, content, cut)
}

func (d *desk) matches(condition, tag string) bool {
	if d.w.options.Blind != nil && d.w.options.Blind.vouches {
		return true
	}
	for t := range strings.SplitSeq(condition, ",") {
		if strings.TrimPrefix(strings.TrimSpace(t), "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

func (d *desk) sendWhole(a *asked, s *served, status int, content []byte, cut int) error {
	b := d.head(d.out[:0], s, status)
	chunked := s.res.kind.chunks && cut >= 0
	toEnd := cut > 0 && d.w.options.Blind != nil && d.w.options.Blind.endings
	switch {
	case toEnd:
		b = append(b, "Connection: close\r\n\r\n"...)
	case chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n\r\n"...)
	default:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(content)), 10), "\r\n\r\n"...)
	}
	if a.method == "HEAD" {
		return d.send(b)
	}
	if cut > 0 {
		content = content[:min(cut, len(content))]
	}
	pieces := 1
	if len(content) > 64 && d.IntN(8) == 0 {
		pieces = 3
	}
	for i := range pieces {
		piece := content[len(content)*i/pieces : len(content)*(i+1)/pieces]
		switch {
		case !chunked || toEnd:
			b = append(b, piece...)
		case len(piece) > 0:
			b = append(append(append(strconv.AppendInt(b, int64(len(piece)), 16), "\r\n"...), piece...), "\r\n"...)
		}
		if chunked && !toEnd && cut == 0 && i == pieces-1 {
			b = append(b, "0\r\n"...)
			if s.res.kind.flaw == trails {
				b = append(append(b, "Set-Cookie: session="+mark(s.serial)+"\r\nX-Secret: "...), mark(s.serial)+"\r\n"...)
			}
			b = append(b, "\r\n"...)
		}
		if err := d.send(b); err != nil {
			return err
		}
		b = b[:0]
		if i < pieces-1 {
			d.pause(time.Duration(1+d.IntN(15)) * time.Millisecond)
		}
	}
	if cut > 0 {
		return errEnd
	}
	return nil
}

// send writes b and keeps its memory for the next time.
func (d *desk) send(b []byte) error {
	d.out = b
	_, err := d.c.Write(b)
	return err
}

// onePart reads a Range of one part.
func onePart(value string, size int) (from, to int, ok bool) {
	spec, ok := strings.CutPrefix(value, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash || strings.Contains(spec, ",") || first == "" {
		return 0, 0, false
	}
	from, err := strconv.Atoi(first)
	if err != nil || from >= size {
		return 0, 0, false
	}
	to = size
	if last != "" {
		n, err := strconv.Atoi(last)
		if err != nil {
			return 0, 0, false
		}
		to = min(size, n+1)
	}
	return from, to, from < to
}

// change answers what is meant to change the resource.
func (d *desk) change(a *asked) error {
	s := &served{res: a.res, by: a.traits, reach: own, changed: true, at: time.Now()}
	refused := d.IntN(6) == 0
	if !refused {
		a.res.version.Add(1)
	}
	var location string
	if twin := a.res.twin; !refused && twin != nil && d.IntN(3) == 0 {
		s.twin = twin.version.Add(1)
		location = twin.target
	}
	s.rep = d.w.repOf(a.res, &a.traits, a.res.version.Load())
	d.w.serve(s)
	s.ends.Store(1)
	status := [...]int{200, 200, 201, 204, 303}[d.IntN(5)]
	if refused {
		status = 403
	}
	a.res.note(fmt.Sprintf("origin answers %s with %d", a.method, status), s.serial, a.question, a.user)
	b := fmt.Appendf(d.out[:0], "HTTP/1.1 %d Done\r\nDate: %s\r\nX-Mark: %s\r\nCache-Control: max-age=60\r\n", status, httpDate(s.at), mark(s.serial))
	if location != "" {
		b = fmt.Appendf(b, "Content-Location: %s\r\n", location)
	}
	d.last = a.method == "POST" && d.w.options.Flaws && a.question%17 == 0
	if d.last {
		b = append(b, "Connection: close\r\n"...)
	}
	if status == 204 {
		return d.send(append(b, "\r\n"...))
	}
	d.content = appendCells(d.content[:0], s.rep.id, 0, s.rep.size)
	b = fmt.Appendf(b, "Content-Length: %d\r\n\r\n", len(d.content))
	return d.send(append(b, d.content...))
}
