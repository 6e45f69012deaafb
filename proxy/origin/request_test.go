package origin

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/proxy/field"
)

const answer204 = "HTTP/1.1 204 No Content\r\n\r\n"

// pieces is a content whose every Read is one piece, sent by the test.
type pieces struct {
	next    chan string   // closed: the end
	stopped chan struct{} // closed by StopBody
}

func newPieces() *pieces { return &pieces{make(chan string), make(chan struct{})} }

func (b *pieces) Read(p []byte) (int, error) {
	select {
	case s, ok := <-b.next:
		if !ok {
			return 0, io.EOF
		}
		return copy(p, s), nil
	case <-b.stopped:
		return 0, errors.New("stopped")
	}
}

func (b *pieces) stop() { close(b.stopped) }

func post(body io.Reader, length int64) *Request {
	return &Request{Method: "POST", Target: "/in", Host: "a.test", Body: body, ContentLength: length}
}

func TestTheRequestIsWrittenAsItIs(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 4096) // 64 KiB: not sent in one piece
	for _, c := range []struct {
		name string
		r    Request
		want string
	}{
		{"target byte for byte", Request{Method: "GET", Target: "/a%2Fb/../c?x=%zz&y=\xc3\xa9", Host: "a.test:8080"},
			"GET /a%2Fb/../c?x=%zz&y=\xc3\xa9 HTTP/1.1\r\nHost: a.test:8080\r\n\r\n"},
		{"OPTIONS *", Request{Method: "OPTIONS", Target: "*", Host: "a.test"}, "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n"},
		{"fields in order, ours left out", Request{Method: "GET", Target: "/", Host: "a.test", Fields: field.List{
			{Name: "B", Value: "1"}, {Name: "a", Value: ""}, {Name: "B", Value: "2"}, {Name: "host", Value: "evil"}, {Name: "Content-Length", Value: "5"},
			{Name: "transfer-encoding", Value: "chunked"}, {Name: "Connection", Value: "close"}, {Name: "Upgrade", Value: "h2c"}, {Name: "TE", Value: "x"}}},
			"GET / HTTP/1.1\r\nHost: a.test\r\nB: 1\r\na: \r\nB: 2\r\n\r\n"},
		{"POST without content", *post(nil, 0), "POST /in HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"},
		{"short content", *post(strings.NewReader("abc"), 3), "POST /in HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc"},
		{"no more than the length", *post(strings.NewReader("abcdef"), 3), "POST /in HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc"},
		{"long content", *post(strings.NewReader(long), int64(len(long))), "POST /in HTTP/1.1\r\nHost: a.test\r\nContent-Length: 65536\r\n\r\n" + long},
		{"unknown length", *post(strings.NewReader(long[:40000]), -1), "POST /in HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"8000\r\n" + long[:32768] + "\r\n1c40\r\n" + long[32768:40000] + "\r\n0\r\n\r\n"},
		{"unknown length, none", *post(strings.NewReader(""), -1), "POST /in HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"unknown length without a Body", *post(nil, -1), "POST /in HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"},
		{"trailers but forbidden ones", Request{Method: "PUT", Target: "/", Host: "a.test", Body: strings.NewReader("a"), ContentLength: -1,
			Trailer: func() field.List {
				return field.List{{Name: "Digest", Value: "x"}, {Name: "Host", Value: "evil"}, {Name: "Bad", Value: "a\r\nb"}, {Name: "A b", Value: "c"}}
			}}, "PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nDigest: x\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFake(t, Config{}, func(f *fakeConn) {
					f.wantRead(c.want)
					f.say(answer204)
					f.wantEnd()
				})
				mustDo(t, p, &c.r)
				if st := p.Stats().Servers[0]; st.Idle != 1 {
					t.Errorf("%d idle connections behind the request, want 1", st.Idle)
				}
				_ = p.Close()
			})
		})
	}
}

func TestARequestThatCouldBecomeTwoIsRefused(t *testing.T) {
	p := newFake(t, Config{}, func(*fakeConn) { t.Error("a connection was opened") })
	for name, change := range map[string]func(r *Request){
		"no method":             func(r *Request) { r.Method = "" },
		"space in the method":   func(r *Request) { r.Method = "GET /x" },
		"CONNECT":               func(r *Request) { r.Method = "CONNECT" },
		"no target":             func(r *Request) { r.Target = "" },
		"absolute target":       func(r *Request) { r.Target = "http://b.test/" },
		"space in the target":   func(r *Request) { r.Target = "/a HTTP/1.1" },
		"CR in the target":      func(r *Request) { r.Target = "/\r\nA: b" },
		"NUL in the target":     func(r *Request) { r.Target = "/\x00" },
		"CR in the host":        func(r *Request) { r.Host = "a\r\nB: c" },
		"space in the host":     func(r *Request) { r.Host = "a b" },
		"CR in a field name":    func(r *Request) { r.Fields = field.List{{Name: "A\r\nB", Value: "c"}} },
		"colon in a field name": func(r *Request) { r.Fields = field.List{{Name: "A:", Value: "c"}} },
		"LF in a field value":   func(r *Request) { r.Fields = field.List{{Name: "A", Value: "b\nC: d"}} },
		"NUL in a field value":  func(r *Request) { r.Fields = field.List{{Name: "A", Value: "b\x00"}} },
		"negative length":       func(r *Request) { r.ContentLength = -2 },
		"length without Body":   func(r *Request) { r.ContentLength = 5 },
	} {
		r := get()
		change(r)
		_, err := p.Do(t.Context(), r)
		if e := wantKind(t, err, ErrRequest); e.MayHaveReached {
			t.Errorf("%s: MayHaveReached is true", name)
		}
	}
}

func TestContentGoesOutAsItComes(t *testing.T) {
	for _, length := range []int64{-1, 20000} {
		synctest.Test(t, func(t *testing.T) {
			body := newPieces()
			got := make(chan bool)
			p := newFake(t, Config{}, func(f *fakeConn) {
				f.readHead()
				got <- true
				for _, want := range []string{"abc", "d"} {
					if length < 0 {
						want = map[string]string{"abc": "3\r\nabc\r\n", "d": "1\r\nd\r\n"}[want]
					}
					f.wantRead(want)
					got <- true
				}
				if length < 0 {
					f.wantRead("0\r\n\r\n")
				} else {
					f.wantRead(strings.Repeat("x", 20000-4))
				}
				f.say(answer204)
				f.readHead()
			})
			done := make(chan error)
			go func() {
				_, _, err := do(t.Context(), p, post(body, length))
				done <- err
			}()
			<-got // the head is there before any content
			body.next <- "abc"
			<-got
			body.next <- "d"
			<-got
			if length >= 0 {
				body.next <- strings.Repeat("x", 20000-4)
			}
			close(body.next)
			if err := <-done; err != nil {
				t.Errorf("Do with length %d = %v, want nil", length, err)
			}
			if st := p.Stats().Servers[0]; st.Idle != 1 {
				t.Errorf("%d idle connections, want 1", st.Idle)
			}
		})
	}
}

func TestShortContentIsReadBeforeAConnectionIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newPieces()
		p := newFake(t, Config{}, saying(answer204))
		done := make(chan error)
		go func() {
			_, _, err := do(t.Context(), p, post(body, 4))
			done <- err
		}()
		body.next <- "abc"
		synctest.Wait()
		if st := p.Stats().Servers[0]; st.InFlight != 0 || st.Opened != 0 {
			t.Errorf("%+v while content of 4 bytes trickles in, want no connection", st)
		}
		body.next <- "d"
		if err := <-done; err != nil {
			t.Errorf("Do = %v, want nil", err)
		}
	})
}

func TestAnEarlyRefusalStopsTheContent(t *testing.T) {
	for _, head := range []string{
		"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			body := newPieces()
			p := newFake(t, Config{}, func(f *fakeConn) {
				f.readHead()
				f.wantRead("3\r\nabc\r\n")
				f.say(head)
				f.say("large")
				f.wantEnd()
			})
			r := post(body, -1)
			r.StopBody = body.stop
			go func() { body.next <- "abc" }()
			res, err := p.Do(t.Context(), r) // while Body has no more to give
			if err != nil {
				t.Fatal(err)
			}
			<-body.stopped
			content, err := io.ReadAll(res.Body)
			if string(content) != "large" || err != nil {
				t.Errorf("content %q, %v; want large", content, err)
			}
			_ = res.Body.Close()
			if st := p.Stats().Servers[0]; st.Idle != 0 || st.InFlight != 0 {
				t.Errorf("%+v, want the connection closed", st)
			}
		})
	}
}

func TestAnEarlyRefusalIsSeenWhileTheOriginTakesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, func(f *fakeConn) {
			f.readHead()
			f.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno") // and never reads again
			time.Sleep(time.Hour)
		})
		start := time.Now()
		_, body, err := do(t.Context(), p, post(strings.NewReader(strings.Repeat("x", 1<<20)), 1<<20))
		if body != "no" || err != nil || time.Since(start) != 0 {
			t.Errorf("content %q, %v after %v; want no at once", body, err, time.Since(start))
		}
		time.Sleep(2 * time.Hour)
	})
}

func TestAnEarlySuccessLetsTheContentGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newPieces()
		p := newFake(t, Config{}, func(f *fakeConn) { // an origin that echoes
			f.readHead()
			f.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for _, chunk := range []string{"1\r\na\r\n", "1\r\nb\r\n", "0\r\n\r\n"} {
				f.wantRead(chunk)
				f.say(chunk)
			}
			f.readHead()
		})
		res, err := p.Do(t.Context(), post(body, -1))
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		for _, want := range []string{"a", "b"} {
			body.next <- want
			if n, err := res.Body.Read(buf); string(buf[:n]) != want || err != nil {
				t.Errorf("Read = %q, %v; want %q", buf[:n], err, want)
			}
		}
		close(body.next)
		if n, err := res.Body.Read(buf); n != 0 || err != io.EOF {
			t.Errorf("Read = %d, %v; want io.EOF", n, err)
		}
		_ = res.Body.Close()
		if st := p.Stats().Servers[0]; st.Idle != 1 {
			t.Errorf("%d idle connections, want 1", st.Idle)
		}
	})
}

func TestAResponseThatEndsFirstEndsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newPieces()
		p := newFake(t, Config{}, func(f *fakeConn) {
			f.readHead()
			f.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			f.wantEnd()
		})
		r := post(body, -1)
		r.StopBody = body.stop
		if _, content := mustDo(t, p, r); content != "ok" {
			t.Errorf("content %q, want ok", content)
		}
		<-body.stopped
		if st := p.Stats().Servers[0]; st.Idle != 0 {
			t.Errorf("%d idle connections, want 0", st.Idle)
		}
	})
}

func TestContentThatBreaksOffIsSeenByTheOrigin(t *testing.T) {
	broken := errors.New("the student has left")
	for _, c := range []struct {
		name    string
		r       *Request
		reached bool
		cause   error
	}{
		{"chunked", post(io.MultiReader(strings.NewReader("abc"), failing{broken}), -1), true, broken},
		{"length", post(io.MultiReader(strings.NewReader("abc"), failing{broken}), 20000), true, broken},
		{"shorter than its length", post(strings.NewReader("abc"), 20000), true, io.ErrUnexpectedEOF},
		{"short", post(io.MultiReader(strings.NewReader("abc"), failing{broken}), 5), false, broken},
		{"short, shorter than its length", post(strings.NewReader("abc"), 5), false, io.ErrUnexpectedEOF},
		{"short and empty", post(strings.NewReader(""), 5), false, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opened := false
				p := newFake(t, Config{}, func(f *fakeConn) {
					opened = true
					f.readHead()
					if rest, err := io.ReadAll(f.br); strings.HasSuffix(string(rest), "0\r\n\r\n") || err != nil {
						t.Errorf("the origin received %q (%v), want it broken off", rest, err)
					}
				})
				_, _, err := do(t.Context(), p, c.r)
				e := wantKind(t, err, ErrRequestBody)
				if e.MayHaveReached != c.reached || !errors.Is(err, c.cause) {
					t.Errorf("got %v (may have reached: %v), want %v because of %v", err, e.MayHaveReached, c.reached, c.cause)
				}
				synctest.Wait()
				if opened != c.reached {
					t.Errorf("a connection was opened: %v, want %v", opened, c.reached)
				}
				if st := p.Stats().Servers[0]; st.Failures != 0 || st.InFlight != 0 {
					t.Errorf("%+v, want no failure of the server and nothing in flight", st)
				}
			})
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestNobodyReadsTheContentBehindAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newPieces()
		p := newFake(t, Config{}, func(f *fakeConn) {
			f.readHead()
			f.say("nonsense")
		})
		r := post(body, -1)
		r.StopBody = body.stop
		_, err := p.Do(t.Context(), r)
		wantKind(t, err, ErrMalformed)
		select {
		case body.next <- "abc":
			t.Error("the content was read behind Do's return")
		case <-time.After(time.Hour):
		}
	})
}

func TestACancelledContextEndsEveryPhase(t *testing.T) {
	silent := func(f *fakeConn) { _, _ = io.Copy(io.Discard, f) }
	headOnly := func(f *fakeConn) {
		f.readHead()
		f.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
		silent(f)
	}
	stoppable := func() *Request {
		body := newPieces()
		r := post(body, -1)
		r.StopBody = body.stop
		return r
	}
	for name, c := range map[string]struct {
		serve func(f *fakeConn)
		r     func() *Request
	}{
		"waiting for the head":      {silent, get},
		"sending the request":       {func(*fakeConn) { time.Sleep(time.Hour) }, get},
		"waiting for content":       {headOnly, get},
		"sending content":           {silent, stoppable},
		"sending and waiting":       {headOnly, stoppable},
		"content nobody takes":      {func(f *fakeConn) { f.readHead(); time.Sleep(time.Hour) }, func() *Request { return post(strings.NewReader(strings.Repeat("x", 1<<20)), -1) }},
		"short content nobody took": {func(*fakeConn) { time.Sleep(time.Hour) }, func() *Request { return post(strings.NewReader("abc"), 3) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				p := newFake(t, Config{}, c.serve)
				start := time.Now()
				_, _, err := do(ctx, p, c.r())
				wantKind(t, err, context.DeadlineExceeded)
				if took := time.Since(start); took != 5*time.Second {
					t.Errorf("it took %v, want 5s", took)
				}
				if st := p.Stats().Servers[0]; st.InFlight != 0 || st.Idle != 0 || st.Failures != 0 {
					t.Errorf("%+v, want nothing in flight, nothing idle, and no blame", st)
				}
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

func TestACancelledContextCostsNoIdleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, saying(answer204, answer204, ""))
		mustDo(t, p, get())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := do(ctx, p, get())
		if e := wantKind(t, err, context.Canceled); e.MayHaveReached {
			t.Error("MayHaveReached is true for a request that was never sent")
		}
		mustDo(t, p, get())
		if st := p.Stats().Servers[0]; st.Opened != 1 {
			t.Errorf("%d connections opened, want 1", st.Opened)
		}
	})
}

func TestAContextThatEndsBehindTheResponseHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, saying(answerOK, answerOK, ""))
		ctx, cancel := context.WithCancel(t.Context())
		if _, _, err := do(ctx, p, get()); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		mustDo(t, p, post(nil, 0)) // which would not be sent again
		if st := p.Stats().Servers[0]; st.Opened != 1 || st.Idle != 1 {
			t.Errorf("%+v, want one connection used twice", st)
		}
	})
}

func TestAConnectionClosedByItsContextIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, saying(answerOK))
		ctx, cancel := context.WithCancel(t.Context())
		res, err := p.Do(ctx, get())
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if body, err := io.ReadAll(res.Body); string(body) != "ok" || err != nil {
			t.Errorf("content %q, %v; want ok, which had come already", body, err)
		}
		_ = res.Body.Close()
		if st := p.Stats().Servers[0]; st.Idle != 0 || st.InFlight != 0 {
			t.Errorf("%+v, want the connection closed", st)
		}
	})
}

func TestDoWaitsForTheContentsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, func(f *fakeConn) {
			f.readHead()
			time.Sleep(time.Second) // Body is being read by now
			f.say("nonsense")
		})
		start := time.Now()
		_, err := p.Do(t.Context(), post(sleepy{5 * time.Second}, -1)) // without a StopBody
		wantKind(t, err, ErrMalformed)
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("Do returned after %v, want 5s, when Body's Read has returned", took)
		}
	})
}

func TestContentThatNeverComesNorEndsIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, func(f *fakeConn) { _, _ = io.Copy(io.Discard, f) })
		_, _, err := do(t.Context(), p, post(failing{nil}, -1))
		if wantKind(t, err, ErrRequestBody); !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("got %v, want no progress", err)
		}
	})
}

func TestEveryPhaseHasItsLimit(t *testing.T) {
	limits := Timeouts{Connect: 1 * time.Second, Send: 3 * time.Second, Header: 5 * time.Second, Idle: 7 * time.Second}
	silent := func(f *fakeConn) { _, _ = io.Copy(io.Discard, f) }
	for name, c := range map[string]struct {
		serve func(f *fakeConn)
		r     func() *Request
		want  time.Duration
	}{
		"head":          {silent, get, 5 * time.Second},
		"half a head":   {func(f *fakeConn) { f.readHead(); f.say("HTTP/1.1 200"); silent(f) }, get, 5 * time.Second},
		"nothing taken": {func(*fakeConn) { time.Sleep(time.Hour) }, get, 5 * time.Second},
		"dribbled head": {func(f *fakeConn) { f.readHead(); dribble(f, "HTTP/1.1 200 OK\r\nA: b\r\n\r\n") }, get, 5 * time.Second},
		"head after 1xx": {func(f *fakeConn) {
			f.readHead()
			time.Sleep(4 * time.Second)
			f.say("HTTP/1.1 102 Processing\r\n\r\n")
			silent(f)
		}, get, 9 * time.Second},
		"content": {func(f *fakeConn) { f.readHead(); f.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"); silent(f) }, get, 7 * time.Second},
		"chunk line": {func(f *fakeConn) {
			f.readHead()
			f.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3")
			silent(f)
		}, get, 7 * time.Second},
		"trailer": {func(f *fakeConn) {
			f.readHead()
			f.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
			silent(f)
		}, get, 7 * time.Second},
		"until close": {func(f *fakeConn) { f.readHead(); f.say("HTTP/1.1 200 OK\r\n\r\nabc"); silent(f) }, get, 7 * time.Second},
		"head behind content": {silent, func() *Request {
			return post(io.MultiReader(sleepy{8 * time.Second}, strings.NewReader("a")), -1)
		}, 13 * time.Second}, // the request's own 8 s count against nobody
		"content not taken": {func(f *fakeConn) { f.readHead(); time.Sleep(time.Hour) }, func() *Request {
			return post(strings.NewReader(strings.Repeat("x", 1<<20)), -1)
		}, 3*time.Second + afterSendErrorMax},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFake(t, Config{Timeouts: limits}, c.serve)
				start := time.Now()
				_, _, err := do(t.Context(), p, c.r())
				wantKind(t, err, ErrTimeout)
				if took := time.Since(start); took != c.want {
					t.Errorf("it took %v, want %v", took, c.want)
				}
				if st := p.Stats().Servers[0]; st.InFlight != 0 || st.Idle != 0 || st.Failures != 1 {
					t.Errorf("%+v, want the connection closed and one failure", st)
				}
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

// dribble writes a byte each second.
func dribble(f *fakeConn, s string) {
	for _, c := range []byte(s) {
		time.Sleep(time.Second)
		f.say(string(c))
	}
}

// sleepy is a content that makes its reader wait once.
type sleepy struct{ d time.Duration }

func (s sleepy) Read([]byte) (int, error) {
	time.Sleep(s.d)
	return 0, io.EOF
}

func TestSlowButSteadyContentIsNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := strings.Repeat("x", 100)
		p := newFake(t, Config{Timeouts: Timeouts{Idle: 2 * time.Second, Header: 3 * time.Second}}, func(f *fakeConn) {
			f.readHead()
			f.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
			dribble(f, want)
		})
		if _, body := mustDo(t, p, get()); body != want {
			t.Errorf("content %q, want %q", body, want)
		}
	})
}
