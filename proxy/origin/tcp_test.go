package origin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"firstbell/proxy/field"
)

// newTCP returns a pool whose every connection is a loopback socket to serve,
// which is closed when serve returns.
func newTCP(t *testing.T, cfg Config, serve func(f *fakeConn)) *Pool {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			f := newFakeConn(t, nc)
			f.n = n
			wg.Go(func() {
				defer nc.Close()
				serve(f)
			})
		}
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = l.Close() })
	cfg.Servers = []string{"http://" + l.Addr().String()}
	return newPool(t, cfg)
}

func TestAnIdleConnectionTheOriginClosedIsNotUsed(t *testing.T) {
	closed := make(chan bool)
	p := newTCP(t, Config{}, func(f *fakeConn) {
		f.readHead()
		f.say(answerOK)
		f.Close()
		closed <- true
	})
	for range 10 {
		// A POST is never sent twice: each must find a connection that lives.
		if _, body := mustDo(t, p, post(strings.NewReader("abc"), 3)); body != "ok" {
			t.Errorf("content %q, want ok", body)
		}
		<-closed
	}
	if st := p.Stats(); st.Servers[0].Opened != 10 || st.Servers[0].Reused != 0 || st.Retries != 0 {
		t.Errorf("%+v, want 10 connections and no retry", st)
	}
}

func TestAnIdleConnectionThatSpokeUnaskedIsNotUsed(t *testing.T) {
	said := make(chan bool)
	p := newTCP(t, Config{}, func(f *fakeConn) {
		for f.readHead() != "" {
			f.say(answerOK)
			<-said
			if f.n == 0 {
				f.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
				said <- true
			}
		}
	})
	mustDo(t, p, get())
	said <- true
	<-said
	if _, body := mustDo(t, p, get()); body != "ok" {
		t.Errorf("content %q, want ok", body)
	}
	said <- true
	if st := p.Stats().Servers[0]; st.Opened != 2 {
		t.Errorf("%d connections opened, want 2", st.Opened)
	}
}

func TestARefusalOverTCPReachesAClientThatStillSends(t *testing.T) {
	p := newTCP(t, Config{}, func(f *fakeConn) {
		f.readHead()
		f.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge")
		// An origin that does it well: it stops sending, and takes what comes until the client has seen it.
		_ = f.Conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, f.br)
	})
	for range 20 {
		res, body, err := do(t.Context(), p, post(io.LimitReader(zeros{}, 64<<20), -1))
		if err != nil || res.Status != 413 || body != "large" {
			t.Fatalf("got %v with %q, want 413 with large", err, body)
		}
	}
}

func TestARefusalThatResetsTheConnectionEndsTheRequest(t *testing.T) {
	p := newTCP(t, Config{}, func(f *fakeConn) {
		f.readHead()
		f.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge") // and closes on unread content
	})
	for range 20 {
		// The kernel decides whether the answer survives the reset. Either way
		// the request ends, and nothing but the answer passes for it.
		res, body, err := do(t.Context(), p, post(io.LimitReader(zeros{}, 64<<20), -1))
		switch {
		case err == nil && res.Status == 413 && body == "large":
		case errors.Is(err, ErrCut) || errors.Is(err, io.ErrUnexpectedEOF):
		default:
			t.Fatalf("got %q, %v; want 413 with large, or a cut", body, err)
		}
	}
	if st := p.Stats().Servers[0]; st.Idle != 0 || st.InFlight != 0 {
		t.Errorf("%+v, want every connection closed", st)
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAResetIsNotTheEndOfContent(t *testing.T) {
	for _, head := range []string{"HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"} {
		read := make(chan bool)
		p := newTCP(t, Config{}, func(f *fakeConn) {
			f.readHead()
			f.say(head + "ab")
			<-read
			_ = f.Conn.(*net.TCPConn).SetLinger(0) // makes Close a reset
		})
		res, err := p.Do(t.Context(), get())
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, err := io.ReadFull(res.Body, buf[:2])
		if string(buf[:n]) != "ab" || err != nil {
			t.Errorf("Read = %q, %v; want ab", buf[:n], err)
		}
		read <- true
		if n, err := res.Body.Read(buf); n != 0 || err != io.ErrUnexpectedEOF {
			t.Errorf("%q: Read behind a reset = %d, %v; want io.ErrUnexpectedEOF", head, n, err)
		}
		_ = res.Body.Close()
	}
}

// TestAgainstNetHTTP runs many clients at once against Go's own server, which
// answers with what it received.
func TestAgainstNetHTTP(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		if err != nil {
			t.Errorf("the origin read %d bytes: %v", n, err)
		}
		w.Header().Set("X-Sum", fmt.Sprintf("%x", h.Sum(nil)))
		w.Header().Set("X-Target", r.RequestURI)
		w.Header().Set("X-Trailer", r.Trailer.Get("Digest"))
		w.Header().Add("Trailer", "Digest")
		if r.Header.Get("X-Hang-Up") != "" {
			w.Header().Set("Connection", "close")
		}
		_, _ = io.CopyN(w, zeros{}, 2*n)
		w.Header().Set("Digest", "x")
	}))
	defer srv.Close()
	p := newPool(t, Config{Servers: []string{srv.URL}, Timeouts: Timeouts{Connect: time.Minute, Header: time.Minute}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for worker := range 20 {
		wg.Go(func() {
			for i := range 20 {
				size := (worker*20 + i) * 251 % 100_000
				content := bytes.Repeat([]byte{byte(i)}, size)
				r := post(bytes.NewReader(content), int64(size))
				r.Target = fmt.Sprintf("/%d%%2F%d?", worker, i)
				if i%2 == 0 {
					r.ContentLength = -1
					r.Trailer = func() field.List { return field.List{{Name: "Digest", Value: "y"}} }
					r.Fields = field.List{{Name: "X-Announced", Value: "no"}}
				}
				if i%10 == 9 {
					r.Fields = field.List{{Name: "X-Hang-Up", Value: "1"}}
				}
				res, body, err := do(ctx, p, r)
				if err != nil {
					t.Errorf("%d bytes: %v", size, err)
					return
				}
				sum := fmt.Sprintf("%x", sha256.Sum256(content))
				if res.Fields.Get("X-Sum") != sum || len(body) != 2*size || res.Fields.Get("X-Target") != r.Target {
					t.Errorf("%d bytes to %s: %d came back, fields %s", size, r.Target, len(body), lines(res.Fields))
				}
				if res.ContentLength < 0 && res.Trailer().Get("Digest") != "x" {
					t.Errorf("trailer %q, want Digest: x", lines(res.Trailer()))
				}
			}
		})
	}
	wg.Wait()
	st := p.Stats().Servers[0]
	if st.InFlight != 0 || st.Failures != 0 || st.Opened > 20+40 {
		t.Errorf("%+v, want nothing in flight, no failure, at most 60 connections for 400 requests", st)
	}
	p.Close()
}

// TestCancellingAtAnyMomentLeaksNothing is for the race detector, and for the
// leak check at the end of all tests.
func TestCancellingAtAnyMomentLeaksNothing(t *testing.T) {
	p := newTCP(t, Config{}, func(f *fakeConn) {
		for f.readHead() != "" {
			f.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for range 5 {
				f.say("3\r\nabc\r\n")
			}
			f.say("0\r\n\r\n")
		}
	})
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					for range (i * worker) % 50 {
						_ = p.Stats() // some work, so that the moments differ
					}
					cancel()
				}()
				r := get()
				if i%3 == 0 {
					r = post(io.LimitReader(zeros{}, 1<<20), -1)
				}
				if _, body, err := do(ctx, p, r); err == nil && body != "abcabcabcabcabc" {
					t.Errorf("content %q without an error", body)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if st := p.Stats().Servers[0]; st.InFlight != 0 {
		t.Errorf("%d in flight at the end, want 0", st.InFlight)
	}
	p.Close()
}

func TestAnExchangeAllocatesLittle(t *testing.T) {
	answer := []byte(answerOK) // the origin must not allocate: it would be counted
	p := newTCP(t, Config{}, func(f *fakeConn) {
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return
			}
			if _, err := f.Write(answer); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	content := strings.NewReader("a=b")
	form := post(content, 3)
	form.Lasting, form.Room = true, new(Room)
	for name, c := range map[string]struct {
		ctx  context.Context
		r    *Request
		most float64
	}{
		"context that cannot end":   {context.Background(), get(), 3}, // the exchange, its head, its fields
		"cancellable context":       {ctx, get(), 6},
		"lasting context":           {ctx, &Request{Method: "GET", Target: "/", Host: "a.test", Lasting: true}, 3},
		"in a room":                 {ctx, &Request{Method: "GET", Target: "/", Host: "a.test", Lasting: true, Room: new(Room)}, 0},
		"in a room, with a content": {ctx, form, 0},
	} {
		if n := testing.AllocsPerRun(200, func() {
			content.Reset("a=b")
			res, err := p.Do(c.ctx, c.r)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := res.Body.Read(buf); string(buf[:n]) != "ok" || err != io.EOF {
				t.Fatalf("Read = %q, %v; want ok, io.EOF", buf[:n], err)
			}
			_ = res.Body.Close()
		}); n > c.most && !raceEnabled {
			t.Errorf("%s: %v allocations, want at most %v", name, n, c.most)
		}
	}
}
