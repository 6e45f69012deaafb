package leaks

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// traits are what an origin may tell requests apart by.
type traits struct {
	question uint32 // its number
	user     int    // who asks; only what cookie and auth show is told
	cookie   bool
	auth     bool
	language int8 // index in languages
	class    int8 // index in classes
	address  int8 // index in addresses
	content  int8 // of a GET; 0: none
	noStore  bool
}

var (
	languages = []string{"", "ko", "en", "ko, en;q=0.5"}
	classes   = []string{"", "1A", "1B", `"1A, 1B"`}
	codings   = []coding{
		{"", []string{"gzip", "br", "zstd"}}, {"gzip", []string{"gzip"}}, {"gzip, deflate, br, zstd", []string{"gzip", "br", "zstd"}},
		{"identity", nil}, {"gzip;q=0", nil}, {"*;q=0.5, gzip;q=0.0", []string{"br", "zstd"}}, {"GZIP;q=0.3", []string{"gzip"}},
		{"br", []string{"br"}}, {"zstd, br;q=0", []string{"zstd"}},
	}
)

// A coding is an Accept-Encoding and what it takes beside the content as it is.
type coding struct {
	value string
	takes []string
}

// tongue is the index in languages of the one that a request in another spelling
// is answered in.
func tongue(language int8) int8 {
	if strings.HasPrefix(languages[max(0, language)], "ko") {
		return 1
	}
	return 2
}

// users are as many as share the connections; the last is nobody, who sends no
// credentials.
const users = 12

// A question is a request as it will be judged.
type question struct {
	traits
	res      *resource
	method   string
	coding   int           // index in codings
	at       time.Time     // when it was asked
	floor    uint32        // the version that was confirmed then
	reload   bool          // it asked for one that is validated
	onlyIf   bool          // only-if-cached
	maxStale time.Duration // it takes one that is stale for so long
	tag      string        // of If-None-Match
	held     *rep          // what it was the tag of
	coded    []byte        // what of it came in which coding, where the proxy made that
	from, to int           // of a Range, to exclusive; to 0: none, -1: to the end
	ifRange  string
	parts    bool   // the Range has several parts
	body     []byte // its content
	chunked  bool   // sent in chunks
	leave    leaving
	leaveAt  int // bytes of content after which the client leaves
	claim    string
}

// leaving is when a client leaves early.
type leaving uint8

const (
	stays leaving = iota
	leavesAtOnce
	leavesLater
	leavesInContent
)

// safe reports whether the question changes nothing.
func (q *question) safe() bool { return q.method == "GET" || q.method == "HEAD" }

// A draw is where an asker's questions come from.
type draw struct {
	*rand.Rand
	w    *world
	held map[int]*holding // by resource
}

// A holding is what a browser has kept of a resource.
type holding struct {
	traits traits
	tag    string
	rep    *rep
	coded  []byte // the content as it came, where the proxy coded it
}

func (d *draw) oneIn(n int) bool { return d.IntN(n) == 0 }

// question draws the next one.
func (d *draw) question(address int8) *question {
	w := d.w
	q := &question{res: w.resources[d.popular(len(w.resources))], method: "GET"}
	q.question = w.questions.Add(1)
	q.address = address
	q.who(d)
	q.coding = d.IntN(len(codings))
	switch d.IntN(40) {
	case 0, 1, 2:
		q.method = "HEAD"
	case 3:
		q.method = [...]string{"POST", "POST", "PUT", "DELETE", "PATCH", "FROB"}[d.IntN(6)]
		q.body, q.chunked = make([]byte, d.IntN(300)), d.oneIn(3)
		for i := range q.body {
			q.body[i] = 'x'
		}
	}
	if q.method == "GET" && q.res.kind.by&byContent != 0 && d.oneIn(2) {
		q.content = int8(1 + d.IntN(3))
		q.body = []byte("ask=" + strconv.Itoa(int(q.content)))
	}
	if q.safe() {
		q.wishes(d)
	}
	if d.oneIn(25) {
		q.leave, q.leaveAt = leaving(1+d.IntN(3)), 1+d.IntN(400)
	}
	if d.oneIn(4) {
		q.claim = w.options.Network + strconv.Itoa(1+d.IntN(addresses))
	}
	return q
}

// popular draws one of n, the first ones often.
func (d *draw) popular(n int) int {
	x := d.Float64()
	return int(x * x * x * float64(n))
}

// who draws the traits.
func (q *question) who(d *draw) {
	q.user = d.IntN(users)
	switch d.IntN(12) {
	case 0, 1, 2, 3:
	case 4:
		q.auth = true
	case 5:
		q.auth, q.cookie = true, true
	default:
		q.cookie = true
	}
	q.language, q.class = int8(d.IntN(len(languages))), int8(d.IntN(len(classes)))
	if q.res.open {
		q.cookie, q.auth = d.oneIn(2), d.oneIn(4)
	}
}

// wishes draws the directives, conditions and ranges of a question.
func (q *question) wishes(d *draw) {
	switch d.IntN(30) {
	case 0:
		q.reload = true
	case 1:
		q.noStore = true
	case 2:
		q.onlyIf = true
	case 3:
		q.maxStale = time.Duration(1+d.IntN(3)) * time.Second
	}
	if h := d.held[q.res.id]; h != nil && d.oneIn(4) {
		// A browser asks again as the user that it was.
		q.user, q.cookie, q.auth = h.traits.user, h.traits.cookie, h.traits.auth
		q.language, q.class = h.traits.language, h.traits.class
		q.tag, q.held = h.tag, h.rep
	}
	if q.method == "GET" && q.body == nil && d.oneIn(12) {
		q.ranges(d)
	}
}

func (q *question) ranges(d *draw) {
	q.from, q.to = d.IntN(900), -1
	switch d.IntN(4) {
	case 0:
	case 1:
		q.parts = true
		q.to = q.from + 20
	default:
		q.to = q.from + 1 + d.IntN(600)
	}
	if h := d.held[q.res.id]; h != nil && d.oneIn(3) {
		q.ifRange, q.coded, q.tag, q.held = h.tag, h.coded, "", nil
	}
}

// append writes the request.
func (q *question) append(b []byte, blind *Blindness) []byte {
	host, target, method := q.res.host, q.res.target, q.method
	b = append(append(append(append(b, blind.method(method)...), ' '), blind.target(target)...), " HTTP/1.1\r\n"...)
	put := func(name, value string) {
		if value != "" {
			b = append(append(append(append(b, blind.request(name)...), ": "...), value...), "\r\n"...)
		}
	}
	put("Host", blind.host(host))
	if blind != nil {
		put("X-True-Host", host)
		put("X-True-Target", target)
		put("X-True-Method", method)
	}
	put("X-Question", strconv.FormatUint(uint64(q.question), 10))
	if q.cookie {
		put("Cookie", "theme=dark; user="+strconv.Itoa(q.user))
	}
	if q.auth {
		put("Authorization", "Bearer "+strconv.Itoa(q.user))
	}
	put("Accept-Language", languages[q.language])
	put("X-Class", classes[q.class])
	put("Accept-Encoding", codings[q.coding].value)
	put("X-Forwarded-For", q.claim)
	put("Cache-Control", q.directives())
	put("If-None-Match", q.tag)
	put("Range", q.rangeValue())
	put("If-Range", q.ifRange)
	switch {
	case q.content > 0 && blind.hidesContent():
		put("X-Content", string(q.body))
	case q.chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n\r\n"...)
		if len(q.body) > 0 {
			b = append(strconv.AppendInt(b, int64(len(q.body)), 16), "\r\n"...)
			b = append(append(b, q.body...), "\r\n"...)
		}
		return append(b, "0\r\n\r\n"...)
	case q.body != nil:
		put("Content-Length", strconv.Itoa(len(q.body)))
		return append(append(b, "\r\n"...), q.body...)
	}
	return append(b, "\r\n"...)
}

func (q *question) directives() string {
	var list []string
	if q.reload {
		list = append(list, "no-cache")
	}
	if q.noStore {
		list = append(list, "no-store")
	}
	if q.onlyIf {
		list = append(list, "only-if-cached")
	}
	if q.maxStale > 0 {
		list = append(list, fmt.Sprintf("max-stale=%d", q.maxStale/time.Second))
	}
	return strings.Join(list, ", ")
}

func (q *question) rangeValue() string {
	switch {
	case q.to == 0:
		return ""
	case q.parts:
		from, to := q.second()
		return fmt.Sprintf("bytes=%d-%d,%d-%d", q.from, q.to-1, from, to-1)
	case q.to < 0:
		return fmt.Sprintf("bytes=%d-", q.from)
	}
	return fmt.Sprintf("bytes=%d-%d", q.from, q.to-1)
}

// second is the second part that is asked for: near the first, so that a server
// may send both as one, or far from it.
func (q *question) second() (from, to int) {
	from = q.to + 30
	if q.question%2 == 0 {
		from += 500
	}
	return from, from + 41
}

// String names the question for a finding.
func (q *question) String() string {
	return fmt.Sprintf("question %d: %s", q.question, strings.TrimSpace(strings.ReplaceAll(string(q.append(nil, nil)), "\r\n", " | ")))
}
