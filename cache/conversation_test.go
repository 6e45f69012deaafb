package cache

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/proxy/field"
)

// The caching rules are conversations in testdata/*.txt. Each begins with a
// line "## RFC section: promise" and goes on, a line each:
//
//	policy anonymous default_ttl=60s   what the route says; also
//	                                   stale_while_revalidate, stale_if_error, max_object
//	> GET /a                           a request, then its fields
//	> Accept: text/html
//	= miss uri-miss                    what Lookup is to find
//	delay 5s                           the origin thinks
//	< 200                              its answer, then its fields
//	< Cache-Control: max-age=60
//	= shared stored                    what Judge, or Freshen or Named for a 304, is to say
//	error                              no answer instead
//	= serves
//	wait 30s                           time goes by
//	invalidate /a
//	purge soft tag lesson-17           also hard; url, host, prefix
//
// An expectation names words that have to be among those got. {-10s} in a
// field value is the HTTP-date ten seconds ago. What may be stored is put, what
// is learnt is marked for ten minutes. A line that begins with # says why.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations found: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			for _, c := range readConversations(t, name) {
				t.Run(c.title, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { newTalk(t).run(c) })
				})
			}
		})
	}
}

type conversation struct {
	title string
	file  string
	line  int // of the first of lines
	lines []string
}

func readConversations(t *testing.T, name string) (all []conversation) {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimRight(sc.Text(), " ")
		if title, ok := strings.CutPrefix(line, "## "); ok {
			all = append(all, conversation{title: title, file: name, line: n + 1})
		} else if len(all) > 0 {
			c := &all[len(all)-1]
			c.lines = append(c.lines, line)
		}
	}
	return all
}

// talk plays one conversation.
type talk struct {
	t      *testing.T
	cache  *Cache
	policy Policy
	where  string

	request  *Request
	fields   field.List
	asked    time.Time
	found    *Found
	status   int
	response field.List

	got []string // what the next expectation is compared with
}

func newTalk(t *testing.T) *talk {
	c, err := New(Options{MemoryBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return &talk{t: t, cache: c}
}

func (k *talk) run(c conversation) {
	defer k.cache.Close()
	for i, line := range c.lines {
		k.where = fmt.Sprintf("%s:%d", c.file, c.line+i)
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "", "#":
		case "policy":
			k.setPolicy(rest)
		case "wait", "delay":
			k.settle()
			time.Sleep(k.duration(rest))
		case ">":
			k.readRequest(rest)
		case "<":
			k.readResponse(rest)
		case "=":
			k.settle()
			k.expect(rest)
		case "error":
			k.failFetch()
		case "invalidate":
			k.settle()
			k.cache.Invalidate(keyOf(rest))
		case "purge":
			k.settle()
			k.purge(rest)
		default:
			k.t.Fatalf("%s: cannot read %q", k.where, line)
		}
	}
	k.settle()
}

func keyOf(target string) []byte { return []byte("http school.example " + target) }

func (k *talk) readRequest(rest string) {
	if method, target, ok := strings.Cut(rest, " "); ok && !strings.HasSuffix(method, ":") {
		k.settle()
		k.request, k.fields, k.found = &Request{Method: method, Key: keyOf(target)}, field.List{}, nil
		return
	}
	k.fields = append(k.fields, k.field(rest))
}

func (k *talk) readResponse(rest string) {
	if n, err := strconv.Atoi(rest); err == nil {
		k.settle()
		k.status, k.response = n, nil
		return
	}
	k.response = append(k.response, k.field(rest))
}

var ago = regexp.MustCompile(`\{([-+]?[0-9hms]+)\}`)

func (k *talk) field(line string) field.Field {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		k.t.Fatalf("%s: no field: %q", k.where, line)
	}
	value = ago.ReplaceAllStringFunc(value, func(s string) string {
		return time.Now().Add(k.duration(strings.Trim(s, "{}"))).UTC().Format(httpDate)
	})
	return field.Field{Name: name, Value: strings.TrimSpace(value)}
}

// settle does what the lines so far ask for: the look-up of a request read,
// the storing of a response read.
func (k *talk) settle() {
	switch {
	case k.status != 0:
		k.answer()
		k.status = 0
	case k.request != nil && k.found == nil:
		k.request.Fields = k.fields
		k.asked = time.Now()
		k.cache.Begin(k.request)
		f := k.cache.Lookup(k.request, &k.policy, k.asked)
		k.found = &f
		k.got = describe(k.fields, &f)
	}
}

func describe(r field.List, f *Found) (got []string) {
	got = append(got, f.Outcome.String(), f.Reason, f.Detail,
		fmt.Sprintf("vary=%s", strings.Join(f.Vary, ",")))
	if f.Uncacheable {
		got = append(got, "uncacheable")
	} else {
		got = append(got, "collapse")
	}
	if f.OnlyIfCached {
		got = append(got, "only-if-cached")
	}
	for _, v := range AppendTags(nil, f.Others) {
		got = append(got, "offers="+strings.ReplaceAll(v.Value, " ", ""))
	}
	if f.Stored == nil {
		if len(f.Others) == 0 {
			got = append(got, "offers-nothing")
		}
		return append(got, "nothing")
	}
	got = append(got, "stored", fmt.Sprintf("age=%d", f.Age/time.Second), fmt.Sprintf("ttl=%d", f.TTL/time.Second))
	for _, v := range f.Stored.Validators(nil) {
		got = append(got, "sends="+v.Name)
	}
	accepts := ReadAccepts(r)
	conditional, _ := Conditional(r, f.Stored, f.Stored.Coding(), &accepts)
	got = append(got, fmt.Sprintf("conditional=%d", conditional), fmt.Sprintf("status=%d", f.Stored.Status))
	for _, v := range f.Stored.Fields {
		got = append(got, v.Name+":"+strings.ReplaceAll(v.Value, " ", "_"), "has="+v.Name)
	}
	return got
}

func (k *talk) answer() {
	now := time.Now()
	if k.status == 304 && k.found.Stored != nil {
		s, ok := k.cache.Freshen(k.found.Stored, k.request, &k.policy, k.response, k.asked, now)
		k.got = []string{"refused"}
		if ok {
			k.got = append([]string{"freshened"}, verdictWords(&s.Verdict)...)
		}
		return
	}
	if k.status == 304 && len(k.found.Others) > 0 {
		s, ok := k.cache.Named(k.found.Others, k.request, &k.policy, k.response, k.asked, now)
		k.got = []string{"refused"}
		if ok {
			k.got = append([]string{"named"}, verdictWords(&s.Verdict)...)
		}
		return
	}
	if k.request.Method == "HEAD" && k.status == 200 {
		length := int64(-1)
		if n := parseDelta(view(k.response.Get("Content-Length"))); n.valid() {
			length = int64(n)
		}
		k.cache.FreshenByHead(k.request, &k.policy, k.response, length, k.asked, now)
	}
	v := Judge(k.request, &k.policy, k.status, k.response, k.asked, now)
	k.got = verdictWords(&v)
	if v.LearnUncacheable {
		k.cache.MarkUncacheable(k.request, 10*time.Minute)
	}
	if v.Store && !k.cache.Put(k.cache.NewStored(k.request, v, k.status, k.response, k.body(), k.asked, now)) {
		k.got = append(k.got, "displaced-nothing")
	}
}

// body is the content of the response: what its X-Body says.
func (k *talk) body() []byte { return []byte(cmp.Or(k.response.Get("X-Body"), "body")) }

func verdictWords(v *Verdict) []string {
	words := []string{"unshared", "unstored", "unlearnt", v.Detail, "vary=" + strings.Join(v.Vary, ","),
		fmt.Sprintf("lifetime=%d", v.Lifetime/time.Second), fmt.Sprintf("age=%d", v.Age/time.Second),
		fmt.Sprintf("swr=%d", v.StaleWhileRevalidate/time.Second), fmt.Sprintf("sie=%d", v.StaleIfError/time.Second)}
	if v.Share {
		words[0] = "shared"
	}
	if v.Store {
		words[1] = "stored"
	}
	if v.LearnUncacheable {
		words[2] = "learnt"
	}
	return words
}

func (k *talk) failFetch() {
	k.settle()
	k.got = []string{"fails"}
	if s := k.found.Stored; s != nil && s.MayServeOnError(time.Now()) {
		k.got = []string{"serves"}
	}
}

// expect compares; a word with ! in front must not be there.
func (k *talk) expect(words string) {
	for _, w := range strings.Fields(words) {
		name, not := strings.CutPrefix(w, "!")
		there := false
		for _, g := range k.got {
			there = there || g == name
		}
		if there == not {
			k.t.Errorf("%s: got %q, want %s", k.where, k.got, w)
		}
	}
}

func (k *talk) setPolicy(words string) {
	for _, w := range strings.Fields(words) {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "anonymous":
			k.policy.Anonymous = true
		case "default_ttl":
			k.policy.DefaultTTL = k.duration(value)
		case "stale_while_revalidate":
			k.policy.StaleWhileRevalidate = k.duration(value)
		case "stale_if_error":
			k.policy.StaleIfError = k.duration(value)
		case "max_object":
			k.policy.MaxObjectBytes, _ = strconv.ParseInt(value, 10, 64)
		default:
			k.t.Fatalf("%s: no such policy: %q", k.where, w)
		}
	}
}

func (k *talk) purge(words string) {
	how, rest, _ := strings.Cut(words, " ")
	kind, text, _ := strings.Cut(rest, " ")
	by, ok := map[string]SelectBy{"url": ByURL, "host": ByHost, "prefix": ByPrefix, "tag": ByTag}[kind]
	if !ok {
		k.t.Fatalf("%s: no such selector: %q", k.where, kind)
	}
	counts, err := k.cache.Purge([]Selector{{by, text}}, how == "hard")
	if err != nil {
		k.t.Fatalf("%s: %v", k.where, err)
	}
	k.got = []string{fmt.Sprintf("count=%d", counts[0])}
}

func (k *talk) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		k.t.Fatalf("%s: %v", k.where, err)
	}
	return d
}
