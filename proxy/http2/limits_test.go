package http2

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// counted wants so many refusals for a reason.
func (p *peer) counted(reason string, want int64) {
	p.t.Helper()
	for _, r := range Refusals() {
		if r.Reason == reason {
			if got := p.srv.Refused(r.Index); got != want {
				p.t.Errorf("counted %d of %s, want %d", got, reason, want)
			}
			return
		}
	}
	p.t.Errorf("there is no reason %q", reason)
}

func (p *peer) wants(want string) {
	p.t.Helper()
	if got := p.frames(); got != want {
		p.t.Errorf("got  %.300s\nwant %.300s", got, want)
	}
}

// TestFloodsEndTheConnection sends each kind of what costs a client little and a
// server more, until it is refused, and counts how much that took.
func TestFloodsEndTheConnection(t *testing.T) {
	for _, c := range []struct {
		what   string
		first  []byte
		again  func(n int) []byte // the n-th time, from 0
		most   int                // times, before it is over
		reason string
	}{
		{"pings", nil, func(int) []byte { return frame(framePing, 0, 0, make([]byte, 8)...) }, idleFramesMax + 1, "control-flood"},
		{"settings", nil, func(int) []byte { return settings(settingTable, 0) }, idleFramesMax + 1, "control-flood"},
		{"priorities", nil, func(int) []byte { return frame(framePriority, 0, 1, 0, 0, 0, 3, 1) }, idleFramesMax + 1, "control-flood"},
		{"frames of no type", nil, func(int) []byte { return frame(0x77, 0, 0) }, idleFramesMax + 1, "control-flood"},
		{"windows for what has ended", ask(1, "/"), func(int) []byte { return window(1, 1) }, idleFramesMax + 1, "control-flood"},
		{"empty content", post(1, "/"), func(int) []byte { return data(1, "", false) }, idleFramesMax + 1, "control-flood"},
		{"padding alone", post(1, "/"), func(int) []byte { return frame(frameData, flagPadded, 1, 3, 0, 0, 0) }, idleFramesMax + 1, "control-flood"},
		{"empty continuations", frame(frameHeaders, flagEnd, 1), func(int) []byte { return frame(frameContinuation, 0, 1) }, idleFramesMax + 1, "control-flood"},
		{"a head without end", frame(frameHeaders, flagEnd, 1), func(int) []byte { return frame(frameContinuation, 0, 1, bytes.Repeat(fields("a: b"), 2000)...) }, blockBytesMax/10000 + 2, "header-block-size"},
		{"requests taken back", nil, func(n int) []byte {
			return cat(ask(uint32(2*n+1), "/hang"), appendReset(nil, uint32(2*n+1), CodeCancel))
		}, resetsMax + 2, "rapid-reset"},
		{"malformed requests", nil, func(n int) []byte { return ask(uint32(2*n+1), "/", "Bad: x") }, resetsMax + 2, "rapid-reset"},
		{"streams that the client breaks itself", nil, func(n int) []byte {
			return cat(ask(uint32(2*n+1), "/hang"), window(uint32(2*n+1), 0))
		}, resetsMax + 2, "rapid-reset"},
	} {
		t.Run(c.what, func(t *testing.T) {
			converse(t, func(p *peer) {
				p.send(c.first)
				p.frames()
				for n := range 2 * c.most {
					p.send(c.again(n))
					if got := p.frames(); strings.HasSuffix(got, " calm, end") {
						if n > c.most+4*idleFramesEarned {
							t.Errorf("it took %d times, want at most %d", n, c.most)
						}
						p.counted(c.reason, 1)
						return
					}
				}
				t.Errorf("%d times were borne", 2*c.most)
			})
		})
	}
}

// TestWhatBrowsersDoIsNoFlood: windows for what is sent, a page left now and
// then, keep-alive pings.
func TestWhatBrowsersDoIsNoFlood(t *testing.T) {
	converse(t, func(p *peer) {
		id := uint32(1)
		for range 200 {
			p.send(ask(id, "/big/60000"))
			for range 30 { // a client that opens both windows for every 4 KiB
				p.send(window(0, 4000), window(id, 4000))
			}
			if got := p.frames(); !strings.HasSuffix(got, " end") || strings.Contains(got, "goaway") {
				t.Fatalf("stream %d: got %s", id, got)
			}
			id += 2
		}
		for range 100 {
			p.send(ask(id, "/hang"), appendReset(nil, id, CodeCancel), frame(framePing, 0, 0, make([]byte, 8)...))
			time.Sleep(time.Second / 4)
			id += 2
		}
		if got := p.frames(); strings.Contains(got, "goaway") {
			t.Errorf("got %s", got)
		}
	})
}

func TestMoreStreamsThanAllowedAreRefused(t *testing.T) {
	converse(t, func(p *peer) {
		for n := range 8 {
			p.send(ask(uint32(2*n+1), "/hang"))
		}
		p.wants("")
		p.send(ask(17, "/"))
		p.wants("reset 17 refused-stream")
		p.counted("streams", 1)
		p.send(appendReset(nil, 1, CodeCancel), ask(19, "/"))
		p.wants(`headers 19 :status=200, data 19 "hello" end`)
	})
}

// TestHandlersOfRequestsTakenBackCount: streams are reset, their handlers go on.
func TestHandlersOfRequestsTakenBackCount(t *testing.T) {
	converse(t, func(p *peer) {
		for n := range 8 * handlersSlack {
			p.send(ask(uint32(2*n+1), "/later"), appendReset(nil, uint32(2*n+1), CodeCancel))
		}
		p.send(ask(101, "/"))
		p.wants("reset 101 refused-stream")
		time.Sleep(2 * time.Minute)
	})
}

func TestTimeIsBounded(t *testing.T) {
	for _, c := range []struct {
		what   string
		sends  []byte
		within time.Duration // it is over
		want   string
		reason string
	}{
		{"idle", nil, 75 * time.Second, "goaway 0 no, end", ""},
		{"idle behind a request", ask(1, "/"), 75 * time.Second, `headers 1 :status=200, data 1 "hello" end, goaway 1 no, end`, ""},
		{"half a frame", []byte{0, 0, 8, 6, 0}, 10 * time.Second, "goaway 0 calm, end", "head-time"},
		{"a head that does not end", frame(frameHeaders, flagEnd, 1), 10 * time.Second, "goaway 1 calm, end", "head-time"},
		{"half a frame of content", cat(post(1, "/hang"), data(1, "hello", true)[:12]), 30 * time.Second, `goaway 1 calm, end`, "head-time"},
		{"content that does not come", post(1, "/"), 30 * time.Second, `headers 1 :status=200, data 1 "0 bytes, the client sent nothing for too long" end, reset 1 no`, ""},
		{"no window", cat(settings(settingWindow, 3), ask(1, "/")), 30 * time.Second, `settings ack, headers 1 :status=200, data 1 "hel", reset 1 cancel`, "window-stall"},
	} {
		t.Run(c.what, func(t *testing.T) {
			converse(t, func(p *peer) {
				p.send(c.sends)
				before := p.frames()
				time.Sleep(c.within - time.Second)
				if got := p.frames(); got != "" {
					t.Errorf("too early: got %s", got)
				}
				time.Sleep(2 * time.Second)
				got := strings.TrimPrefix(before+", "+p.frames(), ", ")
				if got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				if c.reason != "" {
					p.counted(c.reason, 1)
				}
			})
		})
	}
}

func TestAConnectionThatSaysNothingIsOver(t *testing.T) {
	for what, sends := range map[string]string{"nothing": "", "half a preface": preface[:10], "no settings": preface} {
		t.Run(what, func(t *testing.T) {
			converseAs(t, testConfig, func(p *peer) {
				p.send(sends)
				time.Sleep(11 * time.Second)
				if got := p.frames(); !strings.HasSuffix(got, "goaway 0 protocol, end") {
					t.Errorf("got %s", got)
				}
				p.counted("preface-time", 1)
			})
		})
	}
	for what, sends := range map[string]string{"HTTP/1.1": "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "another frame first": preface + string(ask(1, "/")),
		"an acknowledgement first": preface + string(frame(frameSettings, flagEnd, 0))} {
		t.Run(what, func(t *testing.T) {
			converseAs(t, testConfig, func(p *peer) {
				p.send(sends)
				if got := p.frames(); !strings.HasSuffix(got, "goaway 0 protocol, end") {
					t.Errorf("got %s", got)
				}
				p.counted("preface", 1)
			})
		})
	}
}

// TestPingsKeepNoIdleConnection: what carries no request is no use of it.
func TestPingsKeepNoIdleConnection(t *testing.T) {
	converse(t, func(p *peer) {
		for range 20 {
			p.send(frame(framePing, flagEnd, 0, make([]byte, 8)...))
			time.Sleep(5 * time.Second)
		}
		p.wants("goaway 0 no, end")
	})
}

// TestAnOpenStreamKeepsItsConnection, however quiet it is.
func TestAnOpenStreamKeepsItsConnection(t *testing.T) {
	converse(t, func(p *peer) {
		p.send(ask(1, "/hang"))
		time.Sleep(time.Hour)
		p.send(ask(3, "/"))
		p.wants(`headers 3 :status=200, data 3 "hello" end`)
	})
}

func TestWindowsAreKept(t *testing.T) {
	converse(t, func(p *peer) {
		p.send(settings(settingWindow, 10), ask(1, "/big/25"))
		p.wants(`settings ack, headers 1 :status=200, data 1 "xxxxxxxxxx"`)
		p.send(window(1, 5))
		p.wants(`data 1 "xxxxx"`)
		p.send(settings(settingWindow, 18)) // eight more
		p.wants(`settings ack, data 1 "xxxxxxxx"`)
		p.send(settings(settingWindow, 0)) // less than nothing is left
		p.send(window(1, 17))
		p.wants(`settings ack`)
		p.send(window(1, 3))
		p.wants(`data 1 "xx" end`)
	})
	converse(t, func(p *peer) { // the connection's window
		p.send(settings(settingWindow, 1<<20), ask(1, "/big/70000"))
		p.wants(`settings ack, headers 1 :status=200, data 1 16375, data 1 16375, data 1 16375, data 1 16375, data 1 "` + strings.Repeat("x", windowFirst-4*16375) + `"`)
		p.send(window(0, 1<<20))
		p.wants(`data 1 4465 end`)
	})
}

// TestWhatIsReadIsGivenBack sends much more than any window, and more than the
// windows allow.
func TestWhatIsReadIsGivenBack(t *testing.T) {
	converse(t, func(p *peer) {
		p.send(post(1, "/"))
		sent, left, connLeft := 0, windowFirst, recvWindow
		for sent < 3<<20 {
			n := min(left, connLeft, frameMax)
			if n <= 0 {
				t.Fatalf("no window is left behind %d bytes", sent)
			}
			p.send(data(1, strings.Repeat("x", n), false))
			sent, left, connLeft = sent+n, left-n, connLeft-n
			for f := range strings.SplitSeq(p.frames(), ", ") {
				var stream, more int
				if k, _ := fmt.Sscanf(f, "window %d %d", &stream, &more); k == 2 && stream == 0 {
					connLeft += more
				} else if k == 2 {
					left += more
				}
			}
		}
		p.send(data(1, "", true))
		p.wants(fmt.Sprintf(`headers 1 :status=200, data 1 "%d bytes, <nil>" end`, sent))
	})
	for what, c := range map[string]struct{ want, reason string }{
		"stream": {"reset 1 flow-control", "stream-flow-control"}, "connection": {"goaway 31 flow-control, end", "flow-control"},
	} {
		t.Run("more than the window of the "+what, func(t *testing.T) {
			converse(t, func(p *peer) {
				p.srv.config.StreamsMax = 100
				streams := 1
				if what == "connection" {
					streams = 16
				}
				for i := range streams {
					id := uint32(2*i + 1)
					p.send(post(id, "/hang"))
					for range 3 {
						p.send(data(id, strings.Repeat("x", frameMax), false))
					}
					p.send(data(id, strings.Repeat("x", frameMax-1), false))
				}
				p.wants("")
				p.send(data(uint32(2*streams-1), strings.Repeat("x", frameMax), false))
				p.wants(c.want)
				p.counted(c.reason, 1)
			})
		})
	}
}

// TestAClientThatReadsNothing costs what its connection may hold, and no more
// than its time.
func TestAClientThatReadsNothing(t *testing.T) {
	converse(t, func(p *peer) {
		p.send(settings(settingWindow, windowMax), window(0, windowMax-windowFirst))
		p.frames()
		p.stopReading()
		var before, after runtime.MemStats
		runtime.GC() // what is held counts, not garbage
		runtime.ReadMemStats(&before)
		go func() {
			for i := range 8 {
				p.c.Write(ask(uint32(2*i+1), "/big/10000000"))
			}
			for range 100_000 { // answers that nobody takes
				if _, err := p.c.Write(frame(framePing, 0, 0, make([]byte, 8)...)); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		runtime.GC()
		runtime.ReadMemStats(&after)
		// The handlers' own 10 MB each are not the connection's.
		if got := int64(after.HeapAlloc) - int64(before.HeapAlloc) - 80_000_000; got > 4<<20 {
			t.Errorf("it holds %d bytes", got)
		}
		time.Sleep(31 * time.Second)
		select {
		case <-p.over:
		default:
			t.Error("it is still served after 31 s")
		}
	})
}

// TestStreamsTakeTurns: a small answer does not wait for a large one's end.
func TestStreamsTakeTurns(t *testing.T) {
	converse(t, func(p *peer) {
		p.send(settings(settingWindow, windowMax), window(0, windowMax-windowFirst))
		p.frames()
		again := p.stopReading()
		p.readSlowly()
		go p.c.Write(cat(ask(1, "/big/3000000"), ask(3, "/big/3000000"), ask(5, "/")))
		synctest.Wait()
		again()
		time.Sleep(time.Second)
		got := p.frames()
		small := strings.Index(got, `data 5 "hello" end`)
		if small < 0 || small > len(got)/10 {
			t.Errorf("the small answer came at %d of %d: %.1000s", small, len(got), got)
		}
		for _, want := range []string{"data 1 3375 end", "data 3 3375 end"} {
			if !strings.Contains(got, want) {
				t.Errorf("there is no %s", want)
			}
		}
		if one := strings.LastIndex(got, "data 1 16375,"); one < len(got)*8/10 {
			t.Errorf("stream 1 had its last piece at %d of %d", one, len(got))
		}
	})
}

func TestGoingAwayTakesTwoSteps(t *testing.T) {
	converse(t, func(p *peer) {
		p.send(ask(1, "/later"))
		p.conn.Drain()
		p.wants("goaway 2147483647 no")
		p.send(ask(3, "/"))
		p.wants(`headers 3 :status=200, data 3 "hello" end`)
		p.conn.End()
		p.wants("goaway 3 no")
		p.send(post(5, "/"), data(5, "abc", true), window(5, 1)) // the client had not heard of it
		p.wants("")
		time.Sleep(time.Minute)
		p.wants("headers 1 :status=200 end, end")
	})
	converse(t, func(p *peer) {
		p.conn.End()
		p.wants("goaway 0 no, end")
	})
}

// TestContentEndsAsItsClientEnds: nothing that was cut off reads as whole.
func TestContentEndsAsItsClientEnds(t *testing.T) {
	var result string
	config := func(p *peer) Config {
		c := testConfig(p)
		c.Handler = func(s *Stream) {
			n, err := io.Copy(io.Discard, s)
			result = fmt.Sprintf("%d bytes, %v, %v", n, err, s.Err())
		}
		return c
	}
	for what, c := range map[string]struct {
		sends []byte
		want  string
	}{
		"its end":        {data(1, "de", true), "5 bytes, <nil>, <nil>"},
		"a reset":        {appendReset(nil, 1, CodeCancel), "3 bytes, unexpected EOF, context canceled"},
		"the connection": {frame(framePing, 0, 1), "3 bytes, unexpected EOF, context canceled"},
		"bad trailers":   {frame(frameHeaders, flagEnd|flagEndBlock, 1, fields(":a: b")...), "3 bytes, unexpected EOF, context canceled"},
	} {
		t.Run(what, func(t *testing.T) {
			converseAs(t, config, func(p *peer) {
				p.send(preface, settings(), post(1, "/"), data(1, "abc", false))
				p.send(c.sends)
				if result != c.want {
					t.Errorf("got %s, want %s", result, c.want)
				}
			})
		})
	}
}

// TestContentComesAtARate: who sends some now and then is borne as long as it
// comes to 256 bytes a second.
func TestContentComesAtARate(t *testing.T) {
	for _, c := range []struct {
		each int // bytes every ten seconds
		want string
	}{
		{2600, `headers 1 :status=200, data 1 "52000 bytes, <nil>" end`},
		{1000, `headers 1 :status=200, data 1 "4000 bytes, the client sent nothing for too long" end, reset 1 no`},
	} {
		converse(t, func(p *peer) {
			p.send(post(1, "/"))
			for range 20 {
				time.Sleep(10 * time.Second)
				p.send(data(1, strings.Repeat("x", c.each), false))
			}
			p.send(data(1, "", true))
			got := p.frames()
			got = regexp.MustCompile(`window \d+ \d+, `).ReplaceAllString(got, "")
			if got != c.want {
				t.Errorf("%d bytes every ten seconds: got %s, want %s", c.each, got, c.want)
			}
			if slow := c.each < 2560; slow != slices.Equal(p.slow, []string{"content"}) {
				t.Errorf("%d bytes every ten seconds: counted %q as slow", c.each, p.slow)
			}
		})
	}
}

// TestAnswersAreTakenAtARate: the same for who opens windows.
func TestAnswersAreTakenAtARate(t *testing.T) {
	for _, c := range []struct {
		each int64 // bytes of window every ten seconds
		ends bool
	}{{2600, false}, {1000, true}} {
		converse(t, func(p *peer) {
			p.send(settings(settingWindow, 0), ask(1, "/big/100000"))
			ended := false
			for range 30 {
				time.Sleep(10 * time.Second)
				p.send(window(1, c.each), window(0, c.each))
				ended = ended || strings.Contains(p.frames(), "reset 1 cancel")
			}
			if ended != c.ends || ended != slices.Equal(p.slow, []string{"reading"}) {
				t.Errorf("%d bytes every ten seconds: ended %t, want %t; counted %q", c.each, ended, c.ends, p.slow)
			}
		})
	}
}
