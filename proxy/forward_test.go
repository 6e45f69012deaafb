package proxy

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"firstbell/cache"
	"firstbell/proxy/admission"
)

func TestTheOriginSeesTheTargetByteForByte(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RequestURI, " ", r.Host) }, plain)
		for _, target := range []string{"/a%2Fb", "/a//b/", "/%EA%B5%90?q=%20&&x", "/a?", "/a;b=1?x=/../y", "/~%7e", "/...", "/a.b/.c"} {
			got := g.raw("GET " + target + " HTTP/1.1\r\nHost: School.Example:8080\r\nConnection: close\r\n\r\n")
			if want := target + " School.Example:8080"; !strings.HasSuffix(got, "\r\n\r\n"+want) {
				t.Errorf("%s: the origin saw %q, want %q", target, got[strings.LastIndex(got, "\n")+1:], want)
			}
		}
	})
}

func TestATargetWithTwoMeaningsIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {}, plain)
		for _, target := range []string{"/../a", "/a/..", "/a/./b", "/%2e%2E/a", "/.%2e", `/a\b`, "/a%5Cb", "/a%00", "/a%zz", "/a%2", "/a#b"} {
			got := g.raw("GET " + target + " HTTP/1.1\r\nHost: school.example\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("%s: got %.40q, want 400", target, got)
			}
		}
		for _, host := range []string{"", "a b", "a/b", "school.example:x", "[::1", "a@b", "school.example:123456"} {
			got := g.raw("GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("Host %q: got %.40q, want 400", host, got)
			}
		}
		if n := len(g.fetched()); n != 0 {
			t.Errorf("refused requests that reached the origin: %v", g.fetched())
		}
	})
}

func TestFieldsOfOneConnectionAreNotPassedOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, o := newRawGate(t, plain, says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Once\r\nX-Once: 1\r\nKeep-Alive: timeout=5\r\nX-Kept: yes\r\nProxy-Authenticate: Basic\r\nSet-Cookie: a=1; Path=/x\r\nSet-Cookie: a=2\r\n\r\nok"))
		got := g.raw("GET /p HTTP/1.1\r\nHost: school.example\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nUpgrade: h2c\r\n" +
			"Proxy-Authorization: Basic x\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Host: evil\r\nX-Real-IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nx-forwarded_proto: https\r\nX-Original-URL: /admin\r\nX-Rewrite-Url: /admin\r\nX-Accel-Redirect: /admin\r\nVia: 1.0 fred\r\nCookie: a=b;c=d\r\nX-End: yes\r\n\r\n")
		seen := <-o.received
		for _, gone := range []string{"X-Hop", "TE:", "Upgrade", "Proxy-Authorization", "6.6.6.6", "evil", "/admin", "X_", "https"} {
			if strings.Contains(seen, gone) {
				t.Errorf("the origin saw %q in\n%s", gone, seen)
			}
		}
		for _, there := range []string{"Via: 1.0 fred, 1.1 firstbell\r\n", "X-End: yes\r\n", "Cookie: a=b;c=d\r\n", "X-Forwarded-For: ", "X-Forwarded-Host: school.example\r\n", "X-Forwarded-Proto: http\r\n", "host=school.example;proto=http\r\n", "Host: school.example\r\n"} {
			if !strings.Contains(seen, there) {
				t.Errorf("the origin did not see %q in\n%s", there, seen)
			}
		}
		for _, gone := range []string{"X-Once", "Keep-Alive", "Proxy-Authenticate"} {
			if strings.Contains(got, gone) {
				t.Errorf("the client saw %q in\n%s", gone, got)
			}
		}
		for _, there := range []string{"X-Kept: yes\r\n", "Set-Cookie: a=1; Path=/x\r\n", "Set-Cookie: a=2\r\n", "\r\n\r\nok"} {
			if !strings.Contains(got, there) {
				t.Errorf("the client did not see %q in\n%s", there, got)
			}
		}
	})
}

// TestARequestCutOffNeverLooksWhole cuts uploads at several places.
func TestARequestCutOffNeverLooksWhole(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		whole := make(chan string, 10)
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			if b, err := io.ReadAll(r.Body); err == nil {
				whole <- string(b)
			}
		}, plain)
		long := strings.Repeat("x", 20000)
		for _, cut := range []string{
			"Content-Length: 30000\r\n\r\n" + long,
			"Content-Length: 10\r\n\r\nabc",
			"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
			"Transfer-Encoding: chunked\r\n\r\n3\r\nab",
			"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
			"Transfer-Encoding: chunked\r\n\r\n",
		} {
			c, _ := g.ln.Dial()
			io.WriteString(c, "POST /p HTTP/1.1\r\nHost: school.example\r\n"+cut)
			settle()
			c.Close()
			settle()
			time.Sleep(time.Second)
			select {
			case b := <-whole:
				t.Errorf("%.50q: the origin got %d bytes as a whole request", cut, len(b))
			default:
			}
		}
		for _, fine := range []string{"Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"} {
			g.raw("POST /p HTTP/1.1\r\nHost: school.example\r\nConnection: close\r\n" + fine)
			select {
			case b := <-whole:
				if b != "abc" {
					t.Errorf("%q: the origin got %q, want abc", fine, b)
				}
			default:
				t.Errorf("%q did not reach the origin", fine)
			}
		}
	})
}

func TestAnUploadReachesTheOriginAsItComesWhereItsRouteSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		saw := make(chan string, 10)
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			b := make([]byte, 100)
			for {
				n, err := r.Body.Read(b)
				if n > 0 {
					saw <- string(b[:n])
				}
				if err != nil {
					return
				}
			}
		}, func(up *Upstream) []*Route {
			return []*Route{{Hosts: []string{"*"}, Origin: up, StreamsRequests: true}}
		})
		pr, pw := io.Pipe()
		go g.do("POST", "/up", pr)
		for _, part := range []string{"one", "two"} {
			io.WriteString(pw, part)
			if got := <-saw; got != part {
				t.Errorf("the origin saw %q, want %q before the rest was sent", got, part)
			}
		}
		pw.Close()
		settle()
	})
}

func TestOneHTTP10ClientGetsNoChunks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
		g, _ := newRawGate(t, plain, says(chunked))
		got := g.raw("GET / HTTP/1.0\r\nHost: school.example\r\n\r\n")
		if !strings.HasSuffix(got, "\r\n\r\nhello") || strings.Contains(got, "chunked") {
			t.Errorf("an HTTP/1.0 client got %q, want the content as it is, ended by the connection", got)
		}
	})
}

func TestTheOriginIsAskedNoMoreAtOnceThanItsLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		now, most := make(chan int, 1), 0
		now <- 0
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			n := <-now + 1
			most = max(most, n)
			now <- n
			time.Sleep(time.Second)
			now <- <-now - 1
		}, plain)
		g.upstream.Limit.Resize(3, 5, 10*time.Second)
		answers := map[int]int{}
		for _, a := range herd(20, func(int) *answer { return g.get("/p") }) {
			answers[a.StatusCode]++
			if a.StatusCode == 503 && a.Header.Get("Retry-After") == "" {
				t.Error("a 503 without Retry-After")
			}
		}
		<-now
		if most != 3 {
			t.Errorf("at once: got %d, want 3", most)
		}
		if answers[200] != 8 || answers[503] != 12 {
			t.Errorf("answers: got %v, want 8 served (3 at once, 5 queued) and 12 refused", answers)
		}
	})
}

func TestStoredResponsesAnswerConditionsAndRanges(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=600")
			w.Header().Set("ETag", `"v1"`)
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, "0123456789")
		}, cached(cache.Policy{}))
		for _, c := range []struct {
			name, method string
			fields       []string
			status       int
			body, field  string
		}{
			{"first", "GET", nil, 200, "0123456789", "Content-Type: text/plain"},
			{"hit", "GET", nil, 200, "0123456789", "Age: 7"},
			{"HEAD", "HEAD", nil, 200, "", "Content-Length: 10"},
			{"not modified", "GET", []string{`If-None-Match: "v1"`}, 304, "", `Etag: "v1"`},
			{"modified", "GET", []string{`If-None-Match: "v0"`}, 200, "0123456789", `Etag: "v1"`},
			{"range", "GET", []string{"Range: bytes=2-4"}, 206, "234", "Content-Range: bytes 2-4/10"},
			{"suffix", "GET", []string{"Range: bytes=-3"}, 206, "789", "Content-Range: bytes 7-9/10"},
			{"open", "GET", []string{"Range: bytes=8-"}, 206, "89", "Content-Range: bytes 8-9/10"},
			{"beyond", "GET", []string{"Range: bytes=20-"}, 416, "", "Content-Range: bytes */10"},
			{"if-range holds", "GET", []string{"Range: bytes=0-0", `If-Range: "v1"`}, 206, "0", ""},
			{"if-range broken", "GET", []string{"Range: bytes=0-0", `If-Range: "v0"`}, 200, "0123456789", ""},
			{"another unit", "GET", []string{"Range: pages=1-2"}, 200, "0123456789", ""},
		} {
			a := g.do(c.method, "/l", nil, c.fields...)
			name, value, _ := strings.Cut(c.field, ": ")
			if a.StatusCode != c.status || (c.status != 416 && a.body != c.body) || a.Header.Get(name) != value {
				t.Errorf("%s: got %d %q with %s %q; want %d %q with %q", c.name, a.StatusCode, a.body, name, a.Header.Get(name), c.status, c.body, value)
			}
			time.Sleep(7 * time.Second)
			if c.name != "first" {
				continue
			}
		}
		if n := len(g.fetched()); n != 1 {
			t.Errorf("fetches: got %d, want 1: %v", n, g.fetched())
		}
	})
}

// TestDateIsTheOrigins asks for stored and streamed responses, and for our own.
func TestDateIsTheOrigins(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const date = "Sat, 01 Jan 2000 00:00:00 GMT"
		ok := "HTTP/1.1 200 OK\r\nDate: " + date + "\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok"
		g, _ := newRawGate(t, cached(cache.Policy{}), says(ok), says(strings.Replace(ok, "max-age=600", "no-store", 1)))
		for _, c := range []struct{ path, method, want string }{
			{"/l", "GET", date}, {"/l", "GET", date}, {"/l", "HEAD", date}, {"/other", "GET", date},
			{"/a/..", "GET", "Sat, 01 Jan 2000 00:00:28 GMT"},
		} {
			got := g.raw(c.method + " " + c.path + " HTTP/1.1\r\nHost: school.example\r\nConnection: close\r\n\r\n")
			if strings.Count(got, "\r\nDate: ") != 1 || !strings.Contains(got, "\r\nDate: "+c.want+"\r\n") {
				t.Errorf("%s %s: got %q, want one Date, %q", c.method, c.path, got, c.want)
			}
			time.Sleep(7 * time.Second)
		}
		if got := g.raw("GET /a/.. HTTP/1.1\r\nHost: school.example\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request\r\n") {
			t.Errorf("a refusal begins with %.40q", got)
		}
		if got := g.raw("GET /l HTTP/1.1\r\nHost: school.example\r\nIf-Modified-Since: " + date + "\r\nConnection: close\r\n\r\n"); strings.Contains(got, "Content-Length") {
			t.Errorf("a 304 names a length of its own: %q", got)
		}
	})
}

func TestWhoRefusesGzipGetsItDecoded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		page := strings.Repeat("a page of a lesson. ", 500)
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "gzip" {
				t.Errorf("the origin was asked for %q, want our own gzip", r.Header.Get("Accept-Encoding"))
			}
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("ETag", `"z"`)
			zw := gzip.NewWriter(w)
			io.WriteString(zw, page)
			zw.Close()
		}, cached(cache.Policy{}))
		g.proxy.coder.close() // as it is before there are variants
		for round := range 2 {
			for _, c := range []struct {
				accept string
				coded  bool
			}{{"", false}, {"gzip, br", true}, {"br", false}, {"gzip;q=0", false}, {"*", true}, {"identity, gzip;q=0.001", true}} {
				var fields []string
				if c.accept != "" {
					fields = []string{"Accept-Encoding: " + c.accept}
				}
				a := g.get("/l", fields...)
				got := a.body
				if coded := a.Header.Get("Content-Encoding") == "gzip"; coded != c.coded {
					t.Errorf("round %d, %q: coded %v, want %v", round, c.accept, coded, c.coded)
				} else if coded {
					zr, err := gzip.NewReader(strings.NewReader(a.body))
					if err != nil {
						t.Fatal(err)
					}
					b, _ := io.ReadAll(zr)
					got = string(b)
				}
				if got != page {
					t.Errorf("round %d, %q: got %d bytes of page, want %d", round, c.accept, len(got), len(page))
				}
				if !strings.Contains(a.Header.Get("Vary"), "Accept-Encoding") {
					t.Errorf("%q: Vary %q does not name Accept-Encoding", c.accept, a.Header.Get("Vary"))
				}
			}
		}
		if n := len(g.fetched()); n != 1 {
			t.Errorf("fetches: got %d, want 1", n)
		}
	})
}

func TestDrainingLosesNoRequest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Second)
			fmt.Fprint(w, "done")
		}, plain)
		kept, _ := g.ln.Dial()
		fmt.Fprint(kept, "GET /first HTTP/1.1\r\nHost: school.example\r\n\r\n")
		buf := make([]byte, 4096)
		kept.Read(buf)
		var got []string
		wait := make(chan struct{})
		go func() {
			defer close(wait)
			for _, a := range herd(10, func(int) *answer { return g.get("/slow") }) {
				got = append(got, a.body)
			}
		}()
		time.Sleep(time.Second)
		g.upstreamShutdown()
		time.Sleep(500 * time.Millisecond)
		fmt.Fprint(kept, "GET /last HTTP/1.1\r\nHost: school.example\r\n\r\n")
		last, _ := io.ReadAll(kept)
		if !bytes.Contains(last, []byte("Connection: close")) || !bytes.HasSuffix(last, []byte("done")) {
			t.Errorf("a kept connection during drain got %q, want an answer and Connection: close", last)
		}
		<-wait
		for i, body := range got {
			if body != "done" {
				t.Errorf("request %d under way at SIGTERM got %q", i, body)
			}
		}
	})
}

// upstreamShutdown begins a shutdown and goes on.
func (g *gate) upstreamShutdown() { go g.proxy.Shutdown(g.t.Context()) }

func TestRoutesAreFoundByHostThenPathThenMethod(t *testing.T) {
	up := &Upstream{Limit: admission.New(1, 1, time.Second)}
	route := func(path, hosts string, methods ...string) *Route {
		return &Route{Hosts: strings.Fields(hosts), Path: path, Methods: methods, Origin: up}
	}
	routes := []*Route{
		route("", "*"),                                // 0
		route("/lessons/*", "*.school.example"),       // 1
		route("", "*.school.example"),                 // 2
		route("/lessons/1", "*.school.example"),       // 3
		route("/check-in", "*", "POST"),               // 4
		route("/lessons/video/*", "a.school.example"), // 5
		route("/form", "b.example", "GET"),            // 6
		route("/form", "b.example", "POST"),           // 7
	}
	table := NewTable(routes)
	for _, c := range []struct {
		host, method, path string
		want               int // index, -404 or -405
	}{
		{"other.example", "GET", "/x", 0},
		{"a.school.example", "GET", "/lessons/2", 1},
		{"a.school.example", "GET", "/lessons", 1},
		{"a.school.example", "GET", "/lessonsX", 2},
		{"a.school.example", "GET", "/lessons/1", 3},
		{"a.school.example", "GET", "/lessons/video/7", 5},
		{"b.a.school.example", "GET", "/lessons/2", 0},
		{"school.example", "GET", "/", 0},
		{"x.example", "POST", "/check-in", 4},
		{"x.example", "GET", "/check-in", -405},
		{"a.school.example", "POST", "/check-in", 2},
		{"b.example", "HEAD", "/form", 6},
		{"b.example", "POST", "/form", 7},
		{"b.example", "PUT", "/form", -405},
		{"b.example", "GET", "/else", 0},
	} {
		rt, allow := table.find([]byte(c.host), []byte(c.path), c.method)
		got := -404
		for i := range routes {
			if routes[i] == rt {
				got = i
			}
		}
		if rt == nil && allow != nil {
			got = -405
		}
		if got != c.want {
			t.Errorf("%s %s%s: got route %d, want %d", c.method, c.host, c.path, got, c.want)
		}
	}
}

func FuzzReadTarget(f *testing.F) {
	for _, s := range []string{"/", "/a%2Fb?x", "/..", "/%2e", "*", "/a%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, refusal := readTarget([]byte(s))
		if refusal != "" {
			return
		}
		whole := string(got.path)
		if got.query != nil {
			whole += "?" + string(got.query)
		}
		if whole != s {
			t.Errorf("%q was read as path %q, query %q", s, got.path, got.query)
		}
		for segment := range strings.SplitSeq(strings.ReplaceAll(strings.ToLower(string(got.path)), "%2e", "."), "/") {
			if segment == "." || segment == ".." {
				t.Errorf("%q holds a dot segment", s)
			}
		}
	})
}

// TestPassingOnHoldsLittleMemory sends a large body through in both directions.
func TestPassingOnHoldsLittleMemory(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(25)) // what is held counts, not garbage
	const size = 96 << 20
	received := make(chan int64, 1)
	g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			n, _ := io.Copy(io.Discard, r.Body)
			received <- n
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		w.(http.Flusher).Flush()
		piece := make([]byte, 1<<20)
		for range size >> 20 {
			w.Write(piece)
		}
	}, cached(cache.Policy{MaxObjectBytes: 8 << 20}))
	peak := watchHeap(t)
	res, err := g.client.Get(scheme() + "://school.example/big")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
		t.Errorf("download: got %d bytes, %v; want %d", n, err, size)
	}
	res.Body.Close()
	g.do("POST", "/up", io.LimitReader(zeros{}, size))
	if n := <-received; n != size {
		t.Errorf("upload: the origin got %d bytes, want %d", n, size)
	}
	if most := peak(); most > 64<<20 {
		t.Errorf("heap grew to %d MiB while %d MiB went through", most>>20, size>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

var _ net.Conn = (*conn)(nil)

// TestAGetWithContentIsNobodyElses asks with GET and content (RFC 9110 section
// 9.3.1): the answer may depend on it, and it is not in the cache key.
func TestAGetWithContentIsNobodyElses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(50 * time.Millisecond)
			content, _ := io.ReadAll(r.Body)
			lesson(w, "found: "+string(content))
		}, cached(cache.Policy{}))
		for round := range 2 {
			for i, a := range herd(10, func(i int) *answer {
				if i == 0 {
					return g.get("/search")
				}
				return g.do("GET", "/search", strings.NewReader(fmt.Sprint("class ", i)))
			}) {
				want := fmt.Sprint("found: class ", i)
				if i == 0 {
					want = "found: "
				}
				if a.body != want {
					t.Errorf("round %d: asked for class %d, got %q (%s)", round, i, a.body, a.cacheStatus())
				}
			}
		}
	})
}

// TestAPartThatNobodyAskedForIsNoAnswer lets the origin answer requests for the
// whole with 206, or with 304.
func TestAPartThatNobodyAskedForIsNoAnswer(t *testing.T) {
	part := says("HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nContent-Range: bytes 0-3/10\r\nContent-Length: 4\r\n\r\npart")
	same := says("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n")
	for _, c := range []struct {
		name   string
		routes func(*Upstream) []*Route
		answer func(net.Conn)
		field  string
		status int
	}{
		{"206 to all", cached(cache.Policy{}), part, "X-None: 1", 502},
		{"206 to one", plain, part, "X-None: 1", 502},
		{"206 to a condition", plain, part, `If-None-Match: "a"`, 502},
		{"206 to a range", plain, part, "Range: bytes=0-3", 206},
		{"304 to all", cached(cache.Policy{}), same, "X-None: 1", 502},
		{"304 to all, whose starter has a condition", cached(cache.Policy{}), same, `If-None-Match: "a"`, 502},
		{"304 to one", plain, same, "X-None: 1", 502},
		{"304 to a range", plain, same, "Range: bytes=0-3", 502},
		{"304 to a condition", plain, same, "If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT", 304},
	} {
		inBubble(t, func(t *testing.T) {
			g, _ := newRawGate(t, c.routes, c.answer, c.answer)
			if a := g.get("/l", c.field); a.StatusCode != c.status {
				t.Errorf("%s: got %d %q, want %d", c.name, a.StatusCode, a.body, c.status)
			}
		})
	}
}
