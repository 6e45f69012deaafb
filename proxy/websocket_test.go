package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"firstbell/proxy/admission"
	"firstbell/proxy/field"
	"firstbell/proxy/identity"
	"firstbell/proxy/websocket"
)

// The handshake of RFC 6455 section 1.3.
const (
	wsAsk = "GET /class/7 HTTP/1.1\r\nHost: school.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
	wsAgreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)

// forClasses is a route for WebSockets within limits.
func forClasses(l *Live) func(*Upstream) []*Route {
	return func(up *Upstream) []*Route {
		return []*Route{{Hosts: []string{"*"}, Origin: up, WebSocket: true, Live: l}}
	}
}

// spoken is a frame of text; a client's is masked, with zeros.
func spoken(masked bool, text string) []byte {
	b := []byte{0x81, byte(len(text))}
	if masked {
		b[1] |= 0x80
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, text...)
}

// aWebSocket is one through the gate: the client's connection, what comes from
// there, and the origin's connection.
func aWebSocket(t *testing.T, l *Live) (g *gate, client net.Conn, from *bufio.Reader, origin net.Conn) {
	t.Helper()
	at := make(chan net.Conn, 1)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	g, _ = newRawGate(t, forClasses(l), func(c net.Conn) {
		io.WriteString(c, wsAgreed)
		at <- c
		<-over
	})
	client, from = sendHead(t, g, wsAsk)
	if got := readLine(t, from); got != "HTTP/1.1 101 Switching Protocols" {
		t.Fatalf("got %q, want 101", got)
	}
	for readLine(t, from) != "" {
	}
	return g, client, from, <-at
}

// wants reads what is expected, and says what came instead.
func wants(t *testing.T, from io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(from, got)
	if !bytes.Equal(got, want) {
		t.Errorf("got %q and %v, want %q", got[:n], err, want)
	}
}

// closed reads a Close frame and returns code and reason.
func closed(t *testing.T, from io.Reader) string {
	t.Helper()
	var h [2]byte
	if _, err := io.ReadFull(from, h[:]); err != nil || h[0] != 0x88 {
		t.Fatalf("got % x and %v, want a Close frame", h, err)
	}
	var mask [4]byte
	if h[1]&0x80 != 0 {
		io.ReadFull(from, mask[:])
	}
	b := make([]byte, h[1]&0x7f)
	io.ReadFull(from, b)
	for i := range b {
		b[i] ^= mask[i&3]
	}
	return fmt.Sprint(int(b[0])<<8|int(b[1]), " ", string(b[2:]))
}

func (g *gate) live() LiveStats { return g.proxy.Stats().Live }

// counts waits until everything in the bubble waits, and compares.
func counts(t *testing.T, g *gate, now int, endedBy string) {
	t.Helper()
	settle()
	st := g.live()
	if st.Now["websocket"] != now {
		t.Errorf("there are %d WebSockets, want %d", st.Now["websocket"], now)
	}
	for reason, n := range st.Ended {
		if want := reason == endedBy; (n == 1) != want || n > 1 {
			t.Errorf("ended by %s: %d, want by %q once", reason, n, endedBy)
		}
	}
	if n := g.upstream.Limit.Stats().InUse; n != 0 {
		t.Errorf("%d places of the origin's limit are held, want none", n)
	}
}

func TestAWebSocketPassesFramesBothWaysAndItsCloseFrames(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, client, from, origin := aWebSocket(t, nil)
		counts(t, g, 1, "")
		client.Write(spoken(true, "here"))
		wants(t, origin, spoken(true, "here"))
		origin.Write(spoken(false, "welcome"))
		wants(t, from, spoken(false, "welcome"))
		bye := websocket.CloseFrame(true, 1000, "")
		client.Write(bye)
		wants(t, origin, bye)
		counts(t, g, 1, "")
		answer := websocket.CloseFrame(false, 1000, "")
		origin.Write(answer)
		wants(t, from, answer)
		if rest, err := io.ReadAll(from); len(rest) > 0 || err != nil {
			t.Errorf("behind the Close frame came %q and %v, want the end", rest, err)
		}
		if rest, _ := io.ReadAll(origin); len(rest) > 0 {
			t.Errorf("the origin got %q behind the Close frame", rest)
		}
		counts(t, g, 0, "client")
		if st := g.live(); st.Received != int64(len(spoken(true, "here"))+len(bye)) || st.Sent != int64(len(spoken(false, "welcome"))+len(answer)) {
			t.Errorf("counted %d bytes received and %d sent", st.Received, st.Sent)
		}
	})
}

func TestWhatComesWithTheHandshakeIsPassedOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		got := make(chan []byte, 1)
		g, _ := newRawGate(t, forClasses(nil), func(c net.Conn) {
			c.Write(append([]byte(wsAgreed), spoken(false, "early")...))
			b := make([]byte, len(spoken(true, "eager")))
			io.ReadFull(c, b)
			got <- b
		})
		_, from := sendHead(t, g, wsAsk+string(spoken(true, "eager")))
		for readLine(t, from) != "" {
		}
		wants(t, from, spoken(false, "early"))
		if b := <-got; !bytes.Equal(b, spoken(true, "eager")) {
			t.Errorf("the origin got %q, want what came with the request", b)
		}
	})
}

func TestHandshakesThatLieAreRefused(t *testing.T) {
	for _, c := range []struct{ name, old, new, status, reason string }{
		{"no Connection", "Connection: Upgrade\r\n", "", "400", "connection"},
		{"another version", "Version: 13", "Version: 8", "400", "version"},
		{"no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", "400", "key"},
		{"a body", "Upgrade: websocket\r\n", "Upgrade: websocket\r\nContent-Length: 2\r\n", "400", "content"},
		{"a POST", "GET", "POST", "400", "method"},
		{"an answer in it", "Upgrade: websocket\r\n", "Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n", "400", "answer-field"},
	} {
		inBubble(t, func(t *testing.T) {
			g, o := newRawGate(t, forClasses(nil))
			got := g.raw(strings.Replace(strings.Replace(wsAsk, c.old, c.new, 1), "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
			if !strings.HasPrefix(got, "HTTP/1.1 "+c.status) || !strings.Contains(got, "Sec-WebSocket-Version: 13\r\n") {
				t.Errorf("%s: got %q, want %s and the version", c.name, got, c.status)
			}
			if n := g.live().Refused[c.reason]; n != 1 || len(o.received) != 0 {
				t.Errorf("%s: counted %v, want %s once; the origin was asked %d times, want never", c.name, g.live().Refused, c.reason, len(o.received))
			}
		})
	}
}

func TestOtherUpgradesAreNotMade(t *testing.T) {
	for _, c := range []struct{ name, old, new string }{
		{"h2c", "Upgrade: websocket", "Upgrade: h2c"},
		{"HTTP/1.0", "HTTP/1.1", "HTTP/1.0"},
	} {
		inBubble(t, func(t *testing.T) {
			g, o := newRawGate(t, forClasses(nil), says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
			got := g.raw(strings.Replace(strings.Replace(wsAsk, c.old, c.new, 1), "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
			if !strings.HasPrefix(got, "HTTP/1.1 200") {
				t.Errorf("%s: got %q, want the page", c.name, got)
			}
			if sent := <-o.received; strings.Contains(sent, "Upgrade") {
				t.Errorf("%s: the origin got %q, want no upgrade in it", c.name, sent)
			}
		})
	}
}

func TestARouteWithoutWebSocketOpensNone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, o := newRawGate(t, plain, says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"))
		if got := g.raw(strings.Replace(wsAsk, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("got %q, want the page", got)
		}
		if sent := <-o.received; strings.Contains(sent, "Upgrade") {
			t.Errorf("the origin got %q, want no upgrade in it", sent)
		}
	})
}

func TestOriginsThatAnswerAnotherHandshakeAreNotBelieved(t *testing.T) {
	for _, c := range []struct{ name, old, new, reason string }{
		{"wrong Accept", "s3pP", "s3pQ", "origin-accept"},
		{"no Upgrade", "Upgrade: websocket\r\n", "", "origin-upgrade"},
		{"another protocol", ": chat", ": gossip", "origin-protocol"},
		{"an extension unasked", "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "origin-extension"},
		{"content", "\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nabc", ""},
	} {
		inBubble(t, func(t *testing.T) {
			g, _ := newRawGate(t, forClasses(nil), says(strings.Replace(wsAgreed, c.old, c.new, 1)))
			got := g.raw(strings.Replace(wsAsk, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
			if !strings.HasPrefix(got, "HTTP/1.1 502") {
				t.Errorf("%s: got %q, want 502", c.name, got)
			}
			if n := g.live().Refused[c.reason]; c.reason != "" && n != 1 {
				t.Errorf("%s: counted %v, want %s once", c.name, g.live().Refused, c.reason)
			}
			counts(t, g, 0, "origin")
		})
	}
}

func TestAnOriginMayAnswerAHandshakeWithAPage(t *testing.T) {
	for _, status := range []string{"200 OK", "401 Unauthorized", "404 Not Found"} {
		inBubble(t, func(t *testing.T) {
			g, _ := newRawGate(t, forClasses(nil), says("HTTP/1.1 "+status+"\r\nContent-Length: 4\r\n\r\npage"))
			got := g.raw(strings.Replace(wsAsk, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
			if !strings.HasPrefix(got, "HTTP/1.1 "+status) || !strings.HasSuffix(got, "page") {
				t.Errorf("got %q, want %s and its page", got, status)
			}
			counts(t, g, 0, "origin")
		})
	}
}

func TestAnUnasked101IsNoAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newRawGate(t, plain, says(wsAgreed))
		if res := g.get("/"); res.StatusCode != 502 {
			t.Errorf("got %d, want 502", res.StatusCode)
		}
	})
}

func TestAWebSocketIsTakenFromPagesOfTheHostOnly(t *testing.T) {
	x := &exchange{webSocket: byUpgrade, route: &Route{}, authority: []byte("school.example")}
	i := &Identity{}
	i.credential.Ambient = true
	for from, want := range map[string]error{"http://evil.example": errCrossSite, "http://school.example": nil} {
		x.fields = field.List{{Name: "Origin", Value: from}}
		if err := i.belongs(x, &identity.Person{}); err != want {
			t.Errorf("a page of %s: got %v, want %v", from, err, want)
		}
	}
}

func TestAQuietWebSocketEndsAndBothSidesAreTold(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, client, from, origin := aWebSocket(t, &Live{Idle: time.Minute})
		time.Sleep(50 * time.Second)
		client.Write(spoken(true, "still here"))
		wants(t, origin, spoken(true, "still here"))
		began := time.Now()
		if got := closed(t, from); got != "1001 nothing was said for too long" || time.Since(began) != time.Minute {
			t.Errorf("after %v the client was told %q, want going away after a minute", time.Since(began), got)
		}
		if got := closed(t, origin); got != "1001 nothing was said for too long" {
			t.Errorf("the origin was told %q, want going away", got)
		}
		client.Write(websocket.CloseFrame(true, 1001, ""))
		origin.Write(websocket.CloseFrame(false, 1001, ""))
		if _, err := io.ReadAll(from); err != nil || time.Since(began) != time.Minute {
			t.Errorf("the connection ended with %v after %v, want cleanly and at once", err, time.Since(began))
		}
		counts(t, g, 0, "idle")
	})
}

func TestAWebSocketEndsWithItsLifetimeHoweverBusy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, client, from, origin := aWebSocket(t, &Live{Idle: time.Minute, Lifetime: time.Hour})
		began := time.Now()
		go func() {
			for {
				if _, err := client.Write(spoken(true, "tick")); err != nil {
					return
				}
				time.Sleep(10 * time.Second)
			}
		}()
		go io.Copy(io.Discard, origin)
		if got := closed(t, from); got != "1001 open for as long as may be" || time.Since(began).Round(time.Minute) != time.Hour {
			t.Errorf("after %v the client was told %q, want going away after an hour", time.Since(began), got)
		}
		origin.Close()
		client.Close()
		time.Sleep(closeTimeMax)
		counts(t, g, 0, "lifetime")
	})
}

func TestShutdownTellsBothSidesBetweenTwoFrames(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, client, from, origin := aWebSocket(t, nil)
		long := spoken(false, strings.Repeat("x", 100))
		origin.Write(long[:50])
		wants(t, from, long[:50])
		ended := make(chan struct{})
		go func() { g.land(); close(ended) }()
		time.Sleep(time.Second)
		if got := closed(t, origin); got != "1001 the server restarts" {
			t.Errorf("the origin was told %q, want going away", got)
		}
		origin.Write(append(long[50:], spoken(false, "too late")...))
		wants(t, from, long[50:])
		if got := closed(t, from); got != "1001 the server restarts" {
			t.Errorf("the client was told %q, want going away", got)
		}
		client.Write(websocket.CloseFrame(true, 1001, ""))
		origin.Write(websocket.CloseFrame(false, 1001, ""))
		if rest, err := io.ReadAll(from); len(rest) > 0 || err != nil {
			t.Errorf("behind the Close frame came %q and %v", rest, err)
		}
		<-ended
		g.land = func() {}
		counts(t, g, 0, "shutdown")
	})
}

func TestShutdownDoesNotWaitForEndsThatSayNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _, from, origin := aWebSocket(t, nil)
		began := time.Now()
		g.land()
		g.land = func() {}
		if took := time.Since(began); took > 2*closeTimeMax {
			t.Errorf("shutting down took %v, want at most %v", took, 2*closeTimeMax)
		}
		closed(t, from)
		closed(t, origin)
		counts(t, g, 0, "shutdown")
	})
}

func TestAWebSocketOutlivesAReload(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, client, from, origin := aWebSocket(t, nil)
		g.proxy.Swap(NewTable(nil))
		client.Write(spoken(true, "here"))
		wants(t, origin, spoken(true, "here"))
		origin.Write(spoken(false, "still"))
		wants(t, from, spoken(false, "still"))
		origin.Close()
	})
}

func TestFramesBehindACloseFrameReachNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, client, from, origin := aWebSocket(t, nil)
		bye := websocket.CloseFrame(true, 1000, "")
		client.Write(append(bye, spoken(true, "one more")...))
		wants(t, origin, bye)
		client.Write(spoken(true, "and another"))
		origin.Write(websocket.CloseFrame(false, 1000, ""))
		wants(t, from, websocket.CloseFrame(false, 1000, ""))
		if rest, _ := io.ReadAll(origin); len(rest) > 0 {
			t.Errorf("the origin got %q behind the Close frame", rest)
		}
		counts(t, g, 0, "client")
		if n := g.live().Refused["late-client"]; n != 1 {
			t.Errorf("counted %v, want late-client once", g.live().Refused)
		}
	})
}

func TestWhoSendsNoFrameIsToldAndCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, client, from, origin := aWebSocket(t, nil)
		client.Write(append(spoken(true, "fine"), spoken(false, "not masked")...))
		wants(t, origin, spoken(true, "fine"))
		if got := closed(t, origin); got != "1001 the other side broke the protocol" {
			t.Errorf("the origin was told %q", got)
		}
		if got := closed(t, from); got != "1002 what came is no frame" {
			t.Errorf("the client was told %q", got)
		}
		origin.Close()
		client.Close()
		time.Sleep(closeTimeMax)
		counts(t, g, 0, "malformed")
	})
}

func TestASideThatIsGoneEndsTheWebSocket(t *testing.T) {
	for _, by := range []string{"client", "origin"} {
		inBubble(t, func(t *testing.T) {
			g, client, from, origin := aWebSocket(t, nil)
			gone, other := client, io.Reader(origin)
			if by == "origin" {
				gone, other = origin, from
			}
			gone.Close()
			began := time.Now()
			if rest, _ := io.ReadAll(other); len(rest) > 0 || time.Since(began) > closeTimeMax {
				t.Errorf("%s gone: the other got %q after %v, want the end within %v", by, rest, time.Since(began), closeTimeMax)
			}
			counts(t, g, 0, by)
		})
	}
}

func TestASideThatTakesNothingIsCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, client, _, origin := aWebSocket(t, nil)
		go func() {
			b := append([]byte{0x82, 127, 0, 0, 0, 0, 0x40, 0, 0, 0}, make([]byte, 1<<16)...)
			for {
				if _, err := origin.Write(b); err != nil {
					return
				}
				b = b[10:]
				b = append(make([]byte, 10), b...)
			}
		}()
		time.Sleep(2 * time.Minute)
		counts(t, g, 0, "slow")
		client.Close()
	})
}

func TestLiveExchangesHaveLimitsOfTheirOwn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		over := make(chan struct{})
		stays := func(c net.Conn) { io.WriteString(c, wsAgreed); <-over }
		g, _ := newRawGate(t, func(up *Upstream) []*Route {
			return []*Route{
				{Hosts: []string{"*"}, Path: "/class/*", Origin: up, WebSocket: true, Live: &Live{Limit: admission.New(2, 0, 0)}},
				{Hosts: []string{"*"}, Path: "/other/*", Origin: up, WebSocket: true},
			}
		}, stays, stays, stays)
		g.proxy.SetLiveMax(3)
		open := func(path string) string {
			_, r := sendHead(t, g, strings.Replace(wsAsk, "/class/7", path, 1))
			return readLine(t, r)
		}
		for i, c := range []struct{ path, want string }{
			{"/class/1", "HTTP/1.1 101"}, {"/class/2", "HTTP/1.1 101"}, {"/class/3", "HTTP/1.1 503"},
			{"/other/1", "HTTP/1.1 101"}, {"/other/2", "HTTP/1.1 503"},
		} {
			if got := open(c.path); !strings.HasPrefix(got, c.want) {
				t.Errorf("%d. %s: got %q, want %s", i, c.path, got, c.want)
			}
		}
		settle()
		st := g.live()
		if st.Now["websocket"] != 3 || st.Refused["route"] != 1 || st.Refused["total"] != 1 || st.Max != 3 {
			t.Errorf("got %+v, want 3 open, one refused by its route and one by the total", st)
		}
		close(over)
	})
}
