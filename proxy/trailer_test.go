package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"firstbell/cache"
)

// chunkedAnswer is an answer with a trailer section, some of it forbidden.
const chunkedAnswer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest, Content-Length, Grpc-Status\r\n%s\r\n" +
	"4\r\nwiki\r\n0\r\nDigest: sha=1\r\nContent-Length: 99\r\nSet-Cookie: a=b\r\nGrpc-Status: 0\r\n\r\n"

func TestTrailerFieldsReachWhoTakesThemAndNobodyElse(t *testing.T) {
	for _, c := range []struct{ name, asks, want string }{
		{"TE: trailers", "TE: trailers\r\nConnection: TE\r\n", "0\r\nDigest: sha=1\r\nGrpc-Status: 0\r\n\r\n"},
		{"among others", "TE: gzip;q=0.5, trailers\r\nConnection: close, te\r\n", "0\r\nDigest: sha=1\r\nGrpc-Status: 0\r\n\r\n"},
		{"nothing", "", "wiki\r\n0\r\n\r\n"},
		{"TE that is not for us", "TE: trailers\r\n", "wiki\r\n0\r\n\r\n"},
		{"another coding", "TE: gzip\r\nConnection: TE\r\n", "wiki\r\n0\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, o := newRawGate(t, plain, says(strings.Replace(chunkedAnswer, "%s", "", 1)))
				got := g.raw("GET / HTTP/1.1\r\nHost: school.example\r\n" + c.asks + "\r\n")
				if !strings.HasSuffix(got, c.want) {
					t.Errorf("got %q, want it to end in %q", got, c.want)
				}
				announced := strings.Contains(got, "\r\nTrailer: Digest, Grpc-Status\r\n")
				takes := strings.Contains(c.want, "Digest")
				if announced != takes {
					t.Errorf("announced %v, want %v: %q", announced, takes, got)
				}
				sent := strings.ToLower(<-o.received)
				if asked := strings.Contains(sent, "\r\nte: trailers\r\nconnection: te\r\n"); asked != takes {
					t.Errorf("the origin was asked for trailers: %v, want %v: %q", asked, takes, sent)
				}
			})
		})
	}
}

func TestTrailerFieldsAreNeitherStoredNorMerged(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newRawGate(t, cached(cache.Policy{}), says(strings.Replace(chunkedAnswer, "%s", "Cache-Control: max-age=60\r\n", 1)))
		const ask = "GET / HTTP/1.1\r\nHost: school.example\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n"
		for visit := range 2 {
			got := g.raw(ask)
			g.letLand()
			if !strings.Contains(got, "wiki") || strings.Contains(got, "Digest") || strings.Contains(got, "Grpc-Status") {
				t.Errorf("visit %d: got %q, want wiki and no trailer field", visit, got)
			}
		}
	})
}

func TestTrailerFieldsOfARequestReachTheOrigin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		got := make(chan string, 1)
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			got <- fmt.Sprint(string(body), err, r.Trailer)
		}, plain)
		answer := g.raw("POST / HTTP/1.1\r\nHost: school.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" +
			"4\r\nwiki\r\n0\r\nDigest: sha=1\r\nCookie: a=b\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 200") {
			t.Errorf("got %q, want 200", answer)
		}
		if sent, want := <-got, "wiki<nil> map[Digest:[sha=1]]"; sent != want {
			t.Errorf("the origin got %q, want %q", sent, want)
		}
	})
}

func TestATrailerThatFramesIsRefused(t *testing.T) {
	for _, f := range []string{"Content-Length: 3", "transfer-encoding: chunked", "Host: evil.example", "No Name: x", "Fold: a\r\n b"} {
		inBubble(t, func(t *testing.T) {
			g, _ := newRawGate(t, plain, func(c net.Conn) { io.Copy(io.Discard, c) })
			got := g.raw("POST / HTTP/1.1\r\nHost: school.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + f + "\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 400") {
				t.Errorf("trailer %q: got %q, want 400", f, got)
			}
			if n := g.proxy.Stats().Malformed["trailer"]; n != 1 {
				t.Errorf("trailer %q: counted %d malformed trailers, want 1", f, n)
			}
		})
	}
}

// sendHead writes a request's head and returns what answers are read from.
func sendHead(t *testing.T, g *gate, head string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := g.ln.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

func readLine(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("reading a line: %v", err)
	}
	return strings.TrimSpace(line)
}

const expecting = "PUT /homework HTTP/1.1\r\nHost: school.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"

func TestContentIsAwaitedUntilTheOriginWantsIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var wanted time.Time
		g, o := newRawGate(t, streams, func(c net.Conn) {
			time.Sleep(300 * time.Millisecond)
			wanted = time.Now()
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			b := make([]byte, 5)
			io.ReadFull(c, b)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"+string(b))
		})
		c, r := sendHead(t, g, expecting)
		if got := readLine(t, r); got != "HTTP/1.1 100 Continue" {
			t.Fatalf("got %q, want 100", got)
		}
		if at := time.Now(); at.Before(wanted) || wanted.IsZero() {
			t.Errorf("100 came at %v, before the origin said so at %v", at, wanted)
		}
		if head := <-o.received; !strings.Contains(head, "Expect: 100-continue\r\n") {
			t.Errorf("the origin got %q, want the expectation in it", head)
		}
		readLine(t, r)
		io.WriteString(c, "essay")
		if got := readLine(t, r); got != "HTTP/1.1 200 OK" {
			t.Errorf("got %q, want 200", got)
		}
	})
}

func TestContentThatTheOriginRefusesIsNeverSent(t *testing.T) {
	for _, refusal := range []string{"401 Unauthorized", "413 Content Too Large", "302 Found"} {
		inBubble(t, func(t *testing.T) {
			more := make(chan string, 1)
			g, _ := newRawGate(t, streams, func(c net.Conn) {
				io.WriteString(c, "HTTP/1.1 "+refusal+"\r\nContent-Length: 2\r\n\r\nno")
				rest, _ := io.ReadAll(c)
				more <- string(rest)
			})
			_, r := sendHead(t, g, expecting)
			all, _ := io.ReadAll(r)
			if got := string(all); !strings.HasPrefix(got, "HTTP/1.1 "+refusal[:3]) || !strings.Contains(got, "Connection: close\r\n") {
				t.Errorf("got %q, want %s and a connection that ends", got, refusal)
			}
			if rest := <-more; rest != "" {
				t.Errorf("the origin that answered %s got %q as well", refusal, rest)
			}
		})
	}
}

func TestAnOriginThatIsSilentAboutAnExpectationGetsTheContent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newRawGate(t, streams, func(c net.Conn) {
			b := make([]byte, 5)
			io.ReadFull(c, b)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"+string(b))
		})
		c, r := sendHead(t, g, expecting)
		began := time.Now()
		if got := readLine(t, r); got != "HTTP/1.1 100 Continue" || time.Since(began) != time.Second {
			t.Errorf("after %v got %q, want 100 after a second", time.Since(began), got)
		}
		readLine(t, r)
		io.WriteString(c, "essay")
		if got := readLine(t, r); got != "HTTP/1.1 200 OK" {
			t.Errorf("got %q, want 200", got)
		}
	})
}
