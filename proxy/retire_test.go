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
)

// TestWhoIsRetiredTellsEveryConnectionBeforeItCloses has three clients keep a
// connection: one asks again, one keeps silent, one waits for its answer.
func TestWhoIsRetiredTellsEveryConnectionBeforeItCloses(t *testing.T) {
	for _, hurried := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			goOn := make(chan struct{})
			g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					<-goOn
				}
				fmt.Fprint(w, "this is ", r.URL.Path)
			}, cached(cache.Policy{}))
			asks, silent, waits := keptTo(t, g), keptTo(t, g), keptTo(t, g)
			for _, c := range []*kept{asks, silent, waits} {
				if head := c.ask("/first"); strings.Contains(head, "Connection: close") {
					t.Errorf("before: %s", head)
				}
			}
			slow := make(chan string, 1)
			go func() { head := waits.ask("/slow"); slow <- head }()
			settle()

			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			hurry, retired, began := make(chan struct{}), make(chan error, 1), time.Now()
			if hurried {
				close(hurry)
			}
			go func() { retired <- g.proxy.Retire(ctx, hurry) }()
			settle()
			if head := asks.ask("/again"); !strings.Contains(head, "200 OK") || !strings.Contains(head, "Connection: close") {
				t.Errorf("the next answer: got %s, want 200 with Connection: close", head)
			}
			time.Sleep(500 * time.Millisecond)
			close(goOn)
			if head := <-slow; !strings.Contains(head, "200 OK") || !strings.Contains(head, "Connection: close") {
				t.Errorf("what was under way: got %s", head)
			}
			want := drainMoment
			if !hurried {
				time.Sleep(9 * time.Second)
				want = time.Since(began)
				if head := silent.ask("/late"); !strings.Contains(head, "200 OK") || !strings.Contains(head, "Connection: close") {
					t.Errorf("after seconds of silence: got %s", head)
				}
			}
			if err := <-retired; err != nil || time.Since(began) > want+2*retireLook {
				t.Errorf("hurried %v: retired after %v with %v, want %v", hurried, time.Since(began), err, want)
			}
		})
	}
}

// kept is a client with one connection.
type kept struct {
	t  *testing.T
	c  net.Conn
	in *bufio.Reader
}

func keptTo(t *testing.T, g *gate) *kept {
	t.Helper()
	c, err := g.ln.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &kept{t, c, bufio.NewReader(c)}
}

// ask returns the head of the answer.
func (k *kept) ask(path string) string {
	fmt.Fprintf(k.c, "GET %s HTTP/1.1\r\nHost: school.example\r\n\r\n", path)
	res, err := http.ReadResponse(k.in, nil)
	if err != nil {
		k.t.Errorf("%s: %v", path, err)
		return ""
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		k.t.Errorf("%s: %v", path, err)
	}
	if res.Close {
		return res.Status + " Connection: close"
	}
	return res.Status
}

func TestAFlightIsAwaited(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		goOn := make(chan struct{})
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			<-goOn
			w.Header().Set("Cache-Control", "max-age=60")
			fmt.Fprint(w, "a lesson")
		}, cached(cache.Policy{}))
		key := []byte(scheme() + " school.example /a")
		g.proxy.AwaitFlight(t.Context(), key) // there is none
		answered := make(chan struct{})
		go func() { g.do("GET", "/a", nil); close(answered) }()
		settle()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if g.proxy.AwaitFlight(short, key); time.Since(began) != time.Second {
			t.Errorf("it waited %v, want as long as it may", time.Since(began))
		}
		awaited := make(chan int, 1)
		go func() {
			g.proxy.AwaitFlight(t.Context(), key)
			awaited <- len(g.cache.HandOverOf(key))
		}()
		close(goOn)
		if n := <-awaited; n != 1 {
			t.Errorf("awaited, %d are stored, want 1", n)
		}
		<-answered // who asks is given the time to read it
	})
}
