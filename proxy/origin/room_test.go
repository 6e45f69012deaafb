package origin

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/proxy/field"
)

func TestARoomHoldsOneExchangeAfterAnother(t *testing.T) {
	var asked atomic.Int64
	p := newTCP(t, Config{}, func(f *fakeConn) {
		for head := f.readHead(); head != ""; head = f.readHead() {
			n := int(asked.Add(1))
			f.say("HTTP/1.1 103 Early Hints\r\nLink: <" + strconv.Itoa(n) + ">\r\n\r\n")
			f.say("HTTP/1.1 200 OK\r\nX-N: " + strings.Repeat("x", n*500) + strconv.Itoa(n) + "\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n" + strconv.Itoa(n%10) + "\r\n0\r\nX-Last: " + strconv.Itoa(n) + "\r\n\r\n")
		}
	})
	r := get()
	r.Lasting, r.Room = true, new(Room)
	r.OnInformational = func(_ int, fields field.List) {
		if got, want := fields.Get("Link"), "<"+strconv.FormatInt(asked.Load(), 10)+">"; got != want {
			t.Errorf("got the hint %s, want %s", got, want)
		}
	}
	for i := range 20 {
		want := strconv.Itoa(i + 1)
		res, err := p.Do(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if string(body) != want[len(want)-1:] || err != nil || res.Fields.Get("X-N") != strings.Repeat("x", (i+1)*500)+want || res.Trailer().Get("X-Last") != want {
			t.Errorf("response %s: got %q, %v, %d fields, trailer %v", want, body, err, len(res.Fields), res.Trailer())
		}
		_ = res.Body.Close()
	}
	if st := p.Stats().Servers[0]; st.Opened != 1 {
		t.Errorf("%d connections, want 1", st.Opened)
	}
}

func TestALastingContextEndsWhatIsBoundToIt(t *testing.T) {
	gone := make(chan bool, 2)
	p := newTCP(t, Config{}, func(f *fakeConn) {
		f.readHead()
		f.say(answerOK)
		f.readHead() // gets no answer
		f.readHead()
		gone <- true
	})
	ctx, end := context.WithCancel(t.Context())
	send := func() *Request { return &Request{Method: "GET", Target: "/", Host: "a.test", Lasting: true} }
	if _, _, err := do(ctx, p, send()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := p.Do(ctx, send())
		ended <- err
	}()
	for p.Stats().Servers[0].InFlight == 0 {
		time.Sleep(time.Millisecond)
	}
	end()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the exchange under way ended with %v, want context.Canceled", err)
	}
	<-gone
	if st := p.Stats().Servers[0]; st.InFlight != 0 || st.Failures != 0 {
		t.Errorf("got %+v, want nothing in flight and nobody to blame", st)
	}
	other, stop := context.WithCancel(t.Context())
	defer stop()
	if _, _, err := do(other, p, send()); err != nil {
		t.Errorf("with another context: %v, want a response", err)
	}
}

func TestInterruptEndsARead(t *testing.T) {
	p := newTCP(t, Config{}, func(f *fakeConn) {
		for f.readHead() != "" {
			f.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
		}
	})
	res, err := p.Do(t.Context(), get())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(res.Interrupt)
	_, err = io.ReadAll(res.Body)
	wg.Wait()
	wantKind(t, err, context.Canceled)
	_ = res.Body.Close()
	res.Interrupt() // of what is over: nothing
	if st := p.Stats().Servers[0]; st.InFlight != 0 || st.Failures != 0 || st.Idle != 0 {
		t.Errorf("got %+v, want no connection left and nobody to blame", st)
	}
}

func TestInterruptingWhatIsOverHarmsNobody(t *testing.T) {
	p := newTCP(t, Config{}, saying(answerOK, answerOK))
	res, err := p.Do(t.Context(), get())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(res.Body)
	res.Interrupt() // the connection is another's by now
	if _, body := mustDo(t, p, get()); body != "ok" || p.Stats().Servers[0].Reused != 1 {
		t.Errorf("got %q by %+v, want ok by the same connection", body, p.Stats().Servers[0])
	}
}

// TestATimeLimitHoldsToTheMoment has the timer of an earlier request go off
// within a later one.
func TestATimeLimitHoldsToTheMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 * time.Second
		p := newFake(t, Config{Timeouts: Timeouts{Header: limit, Idle: limit}}, func(f *fakeConn) {
			f.readHead()
			f.say(answerOK)
			f.readHead()
			time.Sleep(7 * time.Second) // in time
			f.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
			time.Sleep(7 * time.Second) // in time again
			f.say("ok")
			f.readHead()
			f.readHead() // nothing more comes
		})
		mustDo(t, p, get())
		time.Sleep(3 * time.Second)
		if _, body := mustDo(t, p, get()); body != "okok" {
			t.Errorf("got %q, want okok", body)
		}
		time.Sleep(3 * time.Second)
		began := time.Now()
		_, err := p.Do(t.Context(), get())
		if wantKind(t, err, ErrTimeout); time.Since(began) != limit {
			t.Errorf("ended after %v, want %v", time.Since(began), limit)
		}
	})
}

func TestARequestLargerThanTheSocketArrivesWhole(t *testing.T) {
	large := strings.Repeat("x", 4<<20)
	p := newTCP(t, Config{HeadBytesMax: 8 << 20}, func(f *fakeConn) {
		for head := f.readHead(); head != ""; head = f.readHead() {
			if !strings.Contains(head, large) {
				t.Errorf("a head of %d bytes arrived, want %d", len(head), len(large))
			}
			f.say(answerOK)
		}
	})
	r := get()
	r.Fields = field.List{{Name: "X-Large", Value: large}}
	for range 3 {
		if _, body := mustDo(t, p, r); body != "ok" {
			t.Errorf("got %q, want ok", body)
		}
	}
}

func TestAStaleConnectionTakesNoLongContentEither(t *testing.T) {
	closed := make(chan bool)
	p := newTCP(t, Config{}, func(f *fakeConn) {
		if head := f.readHead(); strings.HasPrefix(head, "POST") {
			f.wantRead("3\r\nabc\r\n0\r\n\r\n")
		}
		f.say(answerOK)
		_ = f.Conn.(*net.TCPConn).Close()
		closed <- true
	})
	for range 3 {
		if _, body := mustDo(t, p, post(strings.NewReader("abc"), -1)); body != "ok" {
			t.Errorf("got %q, want ok", body)
		}
		<-closed
	}
	if st := p.Stats(); st.Servers[0].Opened != 3 || st.Servers[0].Reused != 0 || st.Retries != 0 {
		t.Errorf("got %+v, want three connections and no retry", st)
	}
}
