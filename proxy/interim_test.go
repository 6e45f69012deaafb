package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"firstbell/cache"
)

// hints is an origin's answer with an informational one before it.
func hints(c net.Conn) {
	io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nSet-Cookie: s=1\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n")
	time.Sleep(time.Second)
	io.WriteString(c, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok")
}

const (
	hintsWant  = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
	closeField = "Host: school.example\r\nConnection: close\r\n\r\n"
)

// TestInformationalResponsesReachTheirClient: RFC 9110 section 15.2.
func TestInformationalResponsesReachTheirClient(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for what, routes := range map[string]func(*Upstream) []*Route{"cached": cached(cache.Policy{}), "passed on": plain} {
			g, _ := newRawGate(t, routes, hints, hints)
			c, err := g.ln.Dial()
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			go io.WriteString(c, "GET /l HTTP/1.1\r\n"+closeField)
			first := make([]byte, len(hintsWant))
			if _, err := io.ReadFull(c, first); err != nil || string(first) != hintsWant {
				t.Errorf("%s: first came %q (%v), want %q", what, first, err, hintsWant)
			}
			if took := time.Since(began); took >= time.Second {
				t.Errorf("%s: the informational response came after %v, want it at once", what, took)
			}
			rest, _ := io.ReadAll(c)
			c.Close()
			if !strings.HasPrefix(string(rest), "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(string(rest), "\r\n\r\nok") || strings.Contains(string(rest), "Link") {
				t.Errorf("%s: then came %q, want the final response with its own fields", what, rest)
			}
		}
	})
}

// TestInformationalResponsesAreNotStored: RFC 9111 section 3 is about final
// responses.
func TestInformationalResponsesAreNotStored(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newRawGate(t, cached(cache.Policy{}), hints)
		g.raw("GET /l HTTP/1.1\r\n" + closeField)
		settle()
		got := g.raw("GET /l HTTP/1.1\r\n" + closeField)
		if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || strings.Contains(got, "Link") || !strings.Contains(got, "firstbell; hit") {
			t.Errorf("from the cache: got %q, want the final response alone", got)
		}
	})
}

func TestHTTP10KnowsNoInformationalResponses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newRawGate(t, cached(cache.Policy{}), hints)
		got := g.raw("GET /l HTTP/1.0\r\n" + closeField)
		if strings.Contains(got, "103") || !strings.HasSuffix(got, "\r\n\r\nok") {
			t.Errorf("got %q, want the final response alone", got)
		}
	})
}

// TestInformationalResponsesKeepTheirPlace sends requests in advance, whole
// and in pieces: what belongs to the second must not come before, or within,
// the answer to the first.
func TestInformationalResponsesKeepTheirPlace(t *testing.T) {
	overHTTP(t)
	inBubble(t, func(t *testing.T) {
		long := strings.Repeat("x", 5000)
		first := says("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 5000\r\n\r\n" + long)
		one, two := "GET /first HTTP/1.1\r\nHost: school.example\r\n\r\n", "GET /second HTTP/1.1\r\n"+closeField
		for what, pieces := range map[string][]string{
			"one after another": {one, two},
			"both at once":      {one + two},
			"cut in the second": {one + two[:10], two[10:]},
			"cut in the first":  {one[:10], one[10:] + two},
		} {
			g, _ := newRawGate(t, cached(cache.Policy{}), first, hints)
			g.get("/first")
			c, err := g.ln.Dial()
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for _, piece := range pieces {
					io.WriteString(c, piece)
					time.Sleep(time.Second)
				}
			}()
			all, _ := io.ReadAll(c)
			c.Close()
			answers := strings.SplitN(string(all), long, 2)
			if len(answers) != 2 || strings.Contains(answers[0], "103") {
				t.Fatalf("%s: got %q, want the first answer whole and alone", what, all)
			}
			hinted := strings.HasPrefix(answers[1], hintsWant)
			if got := strings.TrimPrefix(answers[1], hintsWant); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "ok") {
				t.Errorf("%s: second answer %q, want it whole", what, got)
			}
			if !hinted {
				t.Errorf("%s: the informational response was not passed on", what)
			}
		}
	})
}
