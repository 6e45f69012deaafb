package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"firstbell/cache"
	"firstbell/proxy/admission"
)

const eventsHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"

// chunk frames text as one chunk.
func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// listen opens an event stream through the gate and returns what comes, behind
// the head of the answer.
func listen(t *testing.T, g *gate, more string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, r := sendHead(t, g, "GET /events HTTP/1.1\r\nHost: school.example\r\n"+more+"\r\n")
	for readLine(t, r) != "" {
	}
	return c, r
}

func TestEventsAreNeverWaitedForSharedOrStored(t *testing.T) {
	for _, accept := range []string{"text/event-stream", "*/*"} { // of an EventSource, of a script
		inBubble(t, func(t *testing.T) {
			g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				w.Header().Set("Cache-Control", "public, max-age=60") // which no event stream is
				for i := range 3 {
					fmt.Fprintf(w, "data: %d\n\n", i)
					w.(http.Flusher).Flush()
					time.Sleep(time.Second)
				}
			}, cached(cache.Policy{}))
			first, all := make(chan time.Duration, 10), make(chan string, 10)
			for range 10 {
				go func() {
					a := g.get("/events", "Accept: "+accept)
					first <- a.first
					all <- a.body
				}()
			}
			for range 10 {
				if d := <-first; d > 0 {
					t.Errorf("Accept %s: the first event came after %v, want at once", accept, d)
				}
				if got, want := <-all, "data: 0\n\ndata: 1\n\ndata: 2\n\n"; got != want {
					t.Errorf("Accept %s: got %q, want %q", accept, got, want)
				}
			}
			if n := len(g.fetched()); n != 10 {
				t.Errorf("Accept %s: %d fetches for 10 listeners, want 10", accept, n)
			}
			settle()
			if st := g.live(); st.Begun["events"] != 10 || st.Ended["origin"] != 10 {
				t.Errorf("Accept %s: counted %+v, want 10 event streams that the origin ended", accept, st)
			}
		})
	}
}

func TestAnEventStreamHoldsNoPlaceOfItsOrigin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		over := make(chan struct{})
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/page" {
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			<-over
		}, plain)
		g.upstream.Limit.Resize(1, 0, 0)
		for range 3 {
			listen(t, g, "")
		}
		if a := g.get("/page"); a.StatusCode != 200 {
			t.Errorf("beside three listeners a page got %d, want 200", a.StatusCode)
		}
		settle()
		if st := g.live(); st.Now["events"] != 3 {
			t.Errorf("there are %d event streams, want 3", st.Now["events"])
		}
		g.proxy.SetLiveMax(3)
		if a := g.get("/events"); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
			t.Errorf("the fourth listener got %d, want 503 and Retry-After", a.StatusCode)
		}
		close(over)
	})
}

func TestEventsPassAtTheEndAsWholeOnes(t *testing.T) {
	for _, c := range []struct{ name, head, sent, after, want string }{
		{"between two", "", "data: 1\n\n", "", chunk("data: 1\n\n") + "0\r\n\r\n"},
		{"none yet", "", "", "", "0\r\n\r\n"},
		{"CRLF", "", "data: 1\r\n\r\n", "", chunk("data: 1\r\n\r\n") + "0\r\n\r\n"},
		{"CR", "", "data: 1\r\r", "", chunk("data: 1\r\r") + "0\r\n\r\n"},
		{"within one that ends", "", "data: 1\n", "data: 2\n\n", chunk("data: 1\n") + chunk("data: 2\n\n") + "0\r\n\r\n"},
		{"within one that does not end", "", "data: 1\n", "", chunk("data: 1\n")},
		{"coded, so nobody knows", "Content-Encoding: gzip\r\n", "data: 1\n\n", "", chunk("data: 1\n\n")},
	} {
		inBubble(t, func(t *testing.T) {
			over := make(chan struct{})
			g, _ := newRawGate(t, plain, func(conn net.Conn) {
				io.WriteString(conn, eventsHead+c.head+"\r\n")
				if c.sent != "" {
					io.WriteString(conn, chunk(c.sent))
				}
				time.Sleep(2 * time.Second)
				if c.after != "" {
					io.WriteString(conn, chunk(c.after))
				}
				<-over
			})
			_, r := listen(t, g, "")
			settle()
			ctx, cancel := contextOf(10 * time.Second)
			defer cancel()
			go func() {
				time.Sleep(time.Second)
				_ = g.proxy.Shutdown(ctx) // what ends it is judged by what the client got
			}()
			got, _ := io.ReadAll(r)
			if string(got) != c.want {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
			close(over)
		})
	}
}

func TestAQuietEventStreamEndsBetweenEvents(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		over := make(chan struct{})
		g, _ := newRawGate(t, forLive(&Live{Idle: 90 * time.Second}), func(c net.Conn) {
			io.WriteString(c, eventsHead+"\r\n"+chunk("data: 1\n\n"))
			<-over
		})
		_, r := listen(t, g, "")
		began := time.Now()
		got, err := io.ReadAll(io.LimitReader(r, int64(len(chunk("data: 1\n\n")+"0\r\n\r\n"))))
		if !strings.HasSuffix(string(got), "0\r\n\r\n") || err != nil || time.Since(began) != 90*time.Second {
			t.Errorf("after %v got %q and %v, want a whole end after 90s", time.Since(began), got, err)
		}
		settle()
		if st := g.live(); st.Ended["idle"] != 1 {
			t.Errorf("counted %v, want one ended by idle", st.Ended)
		}
		close(over)
	})
}

func TestAnEventStreamEndsWithItsLifetime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for r.Context().Err() == nil {
				io.WriteString(w, "data: tick\n\n")
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Second)
			}
		}, forLive(&Live{Lifetime: time.Hour}))
		a := g.get("/events")
		if a.err != nil || a.took != time.Hour || !strings.HasSuffix(a.body, "\n\n") {
			t.Errorf("after %v ended with %v, want whole events and an end after an hour", a.took, a.err)
		}
		settle()
		if st := g.live(); st.Ended["lifetime"] != 1 {
			t.Errorf("counted %v, want one ended by its lifetime", st.Ended)
		}
	})
}

// forLive is a route for what lasts.
func forLive(l *Live) func(*Upstream) []*Route {
	return func(up *Upstream) []*Route {
		return []*Route{{Hosts: []string{"*"}, Origin: up, Live: l}}
	}
}

func TestALongPollWaitsLongerThanAnOriginMay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/poll" {
				time.Sleep(2 * time.Minute)
			} else {
				time.Sleep(31 * time.Second)
			}
			io.WriteString(w, "news")
		}, func(up *Upstream) []*Route {
			return []*Route{{Hosts: []string{"*"}, Path: "/poll", Origin: up, Live: &Live{Idle: 3 * time.Minute}}, {Hosts: []string{"*"}, Origin: up}}
		})
		g.upstream.Limit.Resize(1, 0, 0)
		done := make(chan *answer)
		for range 2 {
			go func() { done <- g.get("/poll") }()
		}
		settle()
		if st := g.live(); st.Now["other"] != 2 || g.upstream.Limit.Stats().InUse != 0 {
			t.Errorf("there are %d that wait, and they hold %d places of the origin; want 2 and none", st.Now["other"], g.upstream.Limit.Stats().InUse)
		}
		for range 2 {
			if a := <-done; a.StatusCode != 200 || a.body != "news" || a.took != 2*time.Minute {
				t.Errorf("after %v got %d %q, want news after 2m", a.took, a.StatusCode, a.body)
			}
		}
		if a := g.get("/other"); a.StatusCode != 504 {
			t.Errorf("elsewhere a silent origin got %d %q after %v, want 504", a.StatusCode, a.body, a.took)
		}
	})
}

func TestAListenerWhoLeavesIsNoLongerWaitedFor(t *testing.T) {
	for _, when := range []string{"before the head", "behind the head"} {
		inBubble(t, func(t *testing.T) {
			gone := make(chan time.Time, 1)
			g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
				if when == "behind the head" {
					w.Header().Set("Content-Type", "text/event-stream")
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done()
				gone <- time.Now()
			}, forLive(&Live{Idle: time.Hour}))
			c, _ := sendHead(t, g, "GET /events HTTP/1.1\r\nHost: school.example\r\n\r\n")
			time.Sleep(time.Minute)
			left := time.Now()
			c.Close()
			if at := <-gone; !at.Equal(left) {
				t.Errorf("%s: the origin heard of it %v later, want at once", when, at.Sub(left))
			}
			settle()
			if st := g.live(); st.Ended["client"] != 1 || st.Now["other"]+st.Now["events"] != 0 {
				t.Errorf("%s: counted %+v, want one ended by its client", when, st)
			}
		})
	}
}

func TestWhatIsSentAheadIsTheNextRequest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			io.WriteString(w, r.URL.Path)
		}, forLive(&Live{}))
		c, r := sendHead(t, g, "GET /first HTTP/1.1\r\nHost: school.example\r\n\r\n")
		time.Sleep(time.Second)
		io.WriteString(c, "GET /second HTTP/1.1\r\nHost: school.example\r\n\r\nGET /third HTTP/1.1\r\nHost: school.exa")
		time.Sleep(time.Second)
		io.WriteString(c, "mple\r\n\r\n")
		for _, want := range []string{"/first", "/second", "/third"} {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			if body, _ := io.ReadAll(res.Body); string(body) != want {
				t.Errorf("got %q, want %q", body, want)
			}
		}
	})
}

func TestALongPollIsAnsweredAtShutdown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, forLive(&Live{Idle: time.Hour}))
		_, r := sendHead(t, g, "GET /poll HTTP/1.1\r\nHost: school.example\r\n\r\n")
		settle()
		began := time.Now()
		g.land()
		g.land = func() {}
		got := readLine(t, r)
		if !strings.HasPrefix(got, "HTTP/1.1 503") || time.Since(began) > 2*time.Second {
			t.Errorf("after %v got %q, want 503 at once", time.Since(began), got)
		}
	})
}

func TestARoutesLivePlacesAreItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		over := make(chan struct{})
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) { <-over }, forLive(&Live{Limit: admission.New(1, 0, 0)}))
		go g.get("/poll")
		settle()
		if a := g.get("/poll"); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
			t.Errorf("the second got %d, want 503 and Retry-After", a.StatusCode)
		}
		close(over)
		settle()
	})
}

func contextOf(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
