package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"firstbell/cache"
)

// film is content of n bytes in which every place differs from its neighbours.
func film(n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%d,", b.Len())
	}
	return b.String()[:n]
}

// cutHead is the head of a response that may be resumed, but for fields added.
func cutHead(length int, more string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"v1\"\r\nContent-Length: %d\r\n%s\r\n", length, more)
}

// cuts is a script that sends a head, a part of the content, and then dies. It
// takes its time before each, so that every reader is there.
func cuts(head, part string) func(net.Conn) {
	return func(c net.Conn) {
		for _, what := range []string{head, part} {
			time.Sleep(100 * time.Millisecond)
			io.WriteString(c, what)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// goesOn is a script that sends part of the rest of content from an offset on.
func goesOn(content string, from, to int, more string) func(net.Conn) {
	return says(fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n%s\r\n",
		from, len(content)-1, len(content), len(content)-from, more) + content[from:to])
}

// asked returns the heads of the requests that reached the origin.
func (o *rawOrigin) asked() []string {
	var heads []string
	for len(o.received) > 0 {
		heads = append(heads, <-o.received)
	}
	return heads
}

func TestReadersDoNotNoticeThatTheOriginDied(t *testing.T) {
	for _, c := range []struct {
		size, at int
		policy   cache.Policy
	}{
		{200_000, 0, cache.Policy{}}, {200_000, 1, cache.Policy{}}, {200_000, 4095, cache.Policy{}},
		{200_000, 131_072, cache.Policy{}}, {200_000, 199_999, cache.Policy{}},
		{2 << 20, 1 << 20, cache.Policy{}},
		{6 << 20, 3 << 20, cache.Policy{MaxObjectBytes: 64 << 10}}, // beyond what is kept
	} {
		inBubble(t, func(t *testing.T) {
			content := film(c.size)
			g, o := newRawGate(t, cached(c.policy), cuts(cutHead(c.size, ""), content[:c.at]), goesOn(content, c.at, c.size, ""))
			for i, a := range herd(10, func(int) *answer { return g.get("/l", `If-None-Match: "old"`) }) {
				if a.StatusCode != 200 || a.body != content || a.err != nil {
					t.Errorf("cut at %d of %d: client %d got %d with %d bytes, %v", c.at, c.size, i, a.StatusCode, len(a.body), a.err)
				}
			}
			asked := o.asked()
			if len(asked) != 2 {
				t.Fatalf("cut at %d of %d: the origin was asked %d times, want 2", c.at, c.size, len(asked))
			}
			for _, field := range []string{"GET /l HTTP/1.1\r\n", fmt.Sprintf("\r\nRange: bytes=%d-\r\n", c.at), "\r\nIf-Range: \"v1\"\r\n", "\r\nAccept-Encoding: gzip\r\n"} {
				if !strings.Contains(asked[1], field) {
					t.Errorf("cut at %d of %d: asked again with %q, want %q in it", c.at, c.size, asked[1], field)
				}
			}
			if strings.Contains(asked[1], "If-None-Match") {
				t.Errorf("cut at %d of %d: asked again under a condition of a client: %q", c.at, c.size, asked[1])
			}
			if st := g.proxy.Stats(); st.FlightsResumed != 1 || st.FlightsBroken != 0 {
				t.Errorf("cut at %d of %d: counted %d resumed, %d broken; want 1, 0", c.at, c.size, st.FlightsResumed, st.FlightsBroken)
			}
			if c.policy.MaxObjectBytes == 0 {
				settle() // the readers have the last byte before the flight has landed
				if a := g.get("/l"); a.body != content || !strings.Contains(a.cacheStatus(), "hit") {
					t.Errorf("cut at %d of %d: afterwards %d bytes (%s), want a hit", c.at, c.size, len(a.body), a.cacheStatus())
				}
			}
		})
	}
}

// TestNothingOfTheSecondHeadIsPassedOn: the readers have had a head.
func TestNothingOfTheSecondHeadIsPassedOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		content := film(1000)
		g, _ := newRawGate(t, cached(cache.Policy{}), cuts(cutHead(1000, ""), content[:400]), func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
			goesOn(content, 400, 1000, "X-Second: yes\r\n")(c)
		})
		got := g.raw("GET /l HTTP/1.1\r\nHost: school.example\r\nConnection: close\r\n\r\n")
		if head, body, _ := strings.Cut(got, "\r\n\r\n"); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || strings.Contains(head, "X-Second") || body != content {
			t.Errorf("got %q and %d bytes, want the first head and the whole content", head, len(body))
		}
	})
}

// TestACodedBodyIsResumedAsItWasSent cuts within the coding, which some readers
// refuse.
func TestACodedBodyIsResumedAsItWasSent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		content := film(300_000)
		var zipped bytes.Buffer
		zw := gzip.NewWriter(&zipped)
		io.WriteString(zw, content)
		zw.Close()
		coded, at, coding := zipped.String(), zipped.Len()/2, "Content-Encoding: gzip\r\n"
		g, o := newRawGate(t, cached(cache.Policy{}), cuts(cutHead(len(coded), coding), coded[:at]), goesOn(coded, at, len(coded), coding))
		for i, a := range herd(10, func(i int) *answer {
			return g.get("/l", "Accept-Encoding: "+[]string{"gzip", "identity"}[i%2])
		}) {
			if want := []string{coded, content}[i%2]; a.body != want || a.err != nil {
				t.Errorf("client %d: got %d bytes, %v; want %d", i, len(a.body), a.err, len(want))
			}
		}
		if n := len(o.asked()); n != 2 {
			t.Errorf("the origin was asked %d times, want 2", n)
		}
	})
}

// TestNothingButTheRestContinuesABody lets the origin answer the second request
// with anything but exactly the bytes that are missing.
func TestNothingButTheRestContinuesABody(t *testing.T) {
	content := film(1000)
	second := func(status, etag, contentRange, more, body string) func(net.Conn) {
		return says("HTTP/1.1 " + status + "\r\nETag: " + etag + "\r\nContent-Range: " + contentRange + "\r\n" + more + "\r\n" + body)
	}
	length := func(n int) string { return fmt.Sprintf("Content-Length: %d\r\n", n) }
	first := cuts(cutHead(1000, ""), content[:400])
	noETag := strings.Replace(cutHead(1000, ""), "ETag: \"v1\"\r\n", "", 1)
	for _, c := range []struct {
		name   string
		first  func(net.Conn)
		second func(net.Conn)
		asked  int
	}{
		{"the whole again", first, says(cutHead(1000, "") + content), 2},
		{"another entity tag", first, second("206 Partial Content", `"v2"`, "bytes 400-999/1000", length(600), strings.Repeat("x", 600)), 2},
		{"a weak entity tag", first, second("206 Partial Content", `W/"v1"`, "bytes 400-999/1000", length(600), content[400:]), 2},
		{"another beginning", first, second("206 Partial Content", `"v1"`, "bytes 399-998/1000", length(600), content[399:999]), 2},
		{"another end", first, second("206 Partial Content", `"v1"`, "bytes 400-899/1000", length(500), content[400:900]), 2},
		{"another total", first, second("206 Partial Content", `"v1"`, "bytes 400-999/1001", length(600), content[400:]), 2},
		{"total not said", first, second("206 Partial Content", `"v1"`, "bytes 400-999/*", length(600), content[400:]), 2},
		{"less than it says", first, second("206 Partial Content", `"v1"`, "bytes 400-999/1000", length(500), content[400:900]), 2},
		{"more than it says", first, second("206 Partial Content", `"v1"`, "bytes 400-999/1000", length(601), content[400:]+"x"), 2},
		{"length not said", first, second("206 Partial Content", `"v1"`, "bytes 400-999/1000", "Connection: close\r\n", content[400:900]), 2},
		{"coded", first, second("206 Partial Content", `"v1"`, "bytes 400-999/1000", length(600)+"Content-Encoding: gzip\r\n", content[400:]), 2},
		{"several parts", first, says("HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nContent-Type: multipart/byteranges; boundary=b\r\nContent-Length: 600\r\n\r\n" + content[400:]), 2},
		{"no such range", first, second("416 Range Not Satisfiable", `"v1"`, "bytes */1000", length(0), ""), 2},
		{"an error", first, says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), 2},
		{"nothing", first, func(net.Conn) {}, 2},

		{"a first answer with a weak entity tag", cuts(strings.Replace(cutHead(1000, ""), `"v1"`, `W/"v1"`, 1), content[:400]), nil, 1},
		{"a first answer with two entity tags", cuts(strings.Replace(cutHead(1000, ""), `"v1"`, `"v1", "v2"`, 1), content[:400]), nil, 1},
		{"a first answer without entity tag", cuts(noETag, content[:400]), nil, 1},
		{"a first answer of unknown length", cuts("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"v1\"\r\nTransfer-Encoding: chunked\r\n\r\n190\r\n", content[:400]), nil, 1},
		{"a first answer that takes no ranges", cuts(cutHead(1000, "Accept-Ranges: none\r\n"), content[:400]), nil, 1},
		{"a first answer that is no 200", cuts(strings.Replace(cutHead(1000, ""), "200 OK", "404 Not Found", 1), content[:400]), nil, 1},
	} {
		inBubble(t, func(t *testing.T) {
			scripts := []func(net.Conn){c.first}
			if c.second != nil {
				scripts = append(scripts, c.second)
			}
			g, o := newRawGate(t, cached(cache.Policy{}), scripts...)
			for i, a := range herd(3, func(int) *answer { return g.get("/l") }) {
				if a.err == nil || a.body != content[:400] {
					t.Errorf("%s: client %d got %q and then %v, want the first 400 bytes and a broken answer", c.name, i, a.body, a.err)
				}
			}
			if n := len(o.asked()); n != c.asked {
				t.Errorf("%s: the origin was asked %d times, want %d", c.name, n, c.asked)
			}
			if st := g.proxy.Stats(); st.FlightsResumed != 0 || st.FlightsBroken != 1 {
				t.Errorf("%s: counted %d resumed, %d broken; want 0, 1", c.name, st.FlightsResumed, st.FlightsBroken)
			}
		})
	}
}

func TestAnOriginThatDiesAgainAndAgainIsGivenUp(t *testing.T) {
	content := film(1000)
	first := cuts(cutHead(1000, ""), content[:100])
	for _, c := range []struct {
		name   string
		rest   []func(net.Conn)
		asked  int
		gotten int // bytes; 1000: whole
	}{
		{"whole at the last", []func(net.Conn){goesOn(content, 100, 200, ""), goesOn(content, 200, 300, ""), goesOn(content, 300, 1000, "")}, 4, 1000},
		{"once too often", []func(net.Conn){goesOn(content, 100, 200, ""), goesOn(content, 200, 300, ""), goesOn(content, 300, 400, ""), goesOn(content, 400, 1000, "")}, 4, 400},
		{"no progress", []func(net.Conn){goesOn(content, 100, 100, ""), goesOn(content, 100, 1000, "")}, 2, 100},
	} {
		inBubble(t, func(t *testing.T) {
			g, o := newRawGate(t, cached(cache.Policy{}), append([]func(net.Conn){first}, c.rest...)...)
			for i, a := range herd(3, func(int) *answer { return g.get("/l") }) {
				if whole := c.gotten == len(content); a.body != content[:c.gotten] || (a.err == nil) != whole {
					t.Errorf("%s: client %d got %d bytes, %v; want %d", c.name, i, len(a.body), a.err, c.gotten)
				}
			}
			if n := len(o.asked()); n != c.asked {
				t.Errorf("%s: the origin was asked %d times, want %d", c.name, n, c.asked)
			}
		})
	}
}

func TestResumingKeepsTheRoutesTimeAndItsPlaceAtTheOrigin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		content := film(1000)
		var g *gate
		g, _ = newRawGate(t, func(up *Upstream) []*Route {
			return []*Route{{Hosts: []string{"*"}, Origin: up, Cache: &cache.Policy{}, Total: 2 * time.Second}}
		}, cuts(cutHead(1000, ""), content[:400]), func(c net.Conn) {
			if n := g.upstream.Limit.Stats().InUse; n != 1 {
				t.Errorf("places at the origin while resuming: got %d, want 1", n)
			}
			time.Sleep(10 * time.Second)
		})
		a := g.get("/l")
		if a.err == nil || a.body != content[:400] || a.took > 2010*time.Millisecond {
			t.Errorf("got %d bytes, %v after %v; want a broken answer after the route's 2 s", len(a.body), a.err, a.took)
		}
		settle()
		if n := g.upstream.Limit.Stats().InUse; n != 0 {
			t.Errorf("places at the origin afterwards: got %d, want 0", n)
		}
	})
}

// TestLeavingWhileABodyIsResumed lets readers leave between the cut and the
// rest: one of them harms nobody, all of them end the fetch.
func TestLeavingWhileABodyIsResumed(t *testing.T) {
	for _, stay := range []bool{true, false} {
		inBubble(t, func(t *testing.T) {
			content := film(4 << 20)
			ended := make(chan error, 1)
			g, _ := newRawGate(t, cached(cache.Policy{}), cuts(cutHead(len(content), ""), content[:100_000]), func(c net.Conn) {
				time.Sleep(2 * time.Second)
				goesOn(content, 100_000, 100_000, "")(c)
				for rest := content[100_000:]; ; {
					n, err := io.WriteString(c, rest[:min(len(rest), 64<<10)])
					if rest = rest[n:]; err != nil || rest == "" {
						ended <- err
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
			_, leave := g.begin("/l")
			arrive()
			time.AfterFunc(time.Second, leave)
			if stay {
				if a := g.get("/l"); a.body != content || a.err != nil {
					t.Errorf("who stayed got %d bytes, %v; want %d", len(a.body), a.err, len(content))
				}
			}
			select {
			case err := <-ended:
				if (err == nil) != stay {
					t.Errorf("somebody stays: %v; the origin's sending ended with %v", stay, err)
				}
			case <-time.After(time.Minute):
				t.Error("the origin still sends a minute later")
			}
		})
	}
}

// TestWhoIsTooSlowForTheOthersGoesOnAlone lets one client of a flight beyond
// what is kept read a thousand times slower than the rest.
func TestWhoIsTooSlowForTheOthersGoesOnAlone(t *testing.T) {
	content := film(2 << 20)
	for _, c := range []struct {
		name, etag string
		whole      bool
		fetches    int
	}{
		{"the rest can be asked for", `"v1"`, true, 2},
		{"nothing tells versions apart", "", false, 1},
	} {
		// The window is so small that who wakes late finds the beginning gone, and
		// goes alone: then nobody is held up, and it is played again.
		joined := false
		play := func(t *testing.T) {
			gate := &gate{window: 64 << 10}
			g := gate.open(t, func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(100 * time.Millisecond) // until all are there
				w.Header().Set("Cache-Control", "max-age=60")
				if c.etag != "" {
					w.Header().Set("ETag", c.etag)
				}
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
			}, cached(cache.Policy{MaxObjectBytes: 64 << 10}))
			slow, leave := g.begin("/film")
			defer leave()
			arrive()
			for i, a := range herd(3, func(int) *answer { return g.get("/film") }) {
				if a.body != content || a.err != nil {
					t.Errorf("%s: fast client %d got %d bytes, %v; want all", c.name, i, len(a.body), a.err)
				}
				if held := a.took - 100*time.Millisecond; held > flightPatience+100*slack() { // 6 MiB of packets take their time
					t.Errorf("%s: fast client %d was held up %v, want at most %v", c.name, i, held, flightPatience)
				}
			}
			res := <-slow
			if res == nil {
				t.Fatal("the slow client got no answer")
			}
			got, err := io.ReadAll(res.Body)
			if joined = len(g.fetched()) == c.fetches; !joined {
				return
			}
			if whole := err == nil && string(got) == content; whole != c.whole || !strings.HasPrefix(content, string(got)) {
				t.Errorf("%s: the slow client got %d bytes, %v; want all: %v", c.name, len(got), err, c.whole)
			}
		}
		for try := 0; try < 50 && !joined && !t.Failed(); try++ {
			inBubble(t, play)
		}
		if !joined {
			t.Errorf("%s: in 50 plays never did all join one fetch", c.name)
		}
	}
}
