package http2

import (
	"strings"
	"testing"
	"time"
)

// FuzzConnection sends arbitrary bytes, with the greeting before them or
// without: whatever they are, the connection ends in time, nothing is left of
// it, and what it sends can be read.
func FuzzConnection(f *testing.F) {
	f.Add([]byte(preface), false)
	f.Add(cat(ask(1, "/"), post(3, "/"), data(3, "abc", true)), true)
	f.Add(cat(settings(settingWindow, 3), ask(1, "/big/100"), window(1, 4), appendReset(nil, 1, CodeCancel), ask(3, "/half")), true)
	f.Add(cat(post(1, "/"), data(1, "abc", false), frame(frameHeaders, flagEnd|flagEndBlock, 1, fields("a: b")...), frame(framePing, 0, 0, make([]byte, 8)...)), true)
	f.Add(cat(frame(frameHeaders, flagEnd|flagPriority, 1, 0, 0, 0, 1, 0), frame(frameContinuation, flagEndBlock, 1, 0x82, 0x3f, 0xff), frame(frameGoAway, 0, 0, make([]byte, 8)...)), true)
	f.Fuzz(func(t *testing.T, b []byte, greeted bool) {
		converseAs(t, testConfig, func(p *peer) {
			if greeted {
				p.send(preface, settings())
			}
			p.send(b)
			time.Sleep(10 * time.Minute)
			got := p.frames()
			if strings.Contains(got, "cannot be read") {
				t.Errorf("got %s", got)
			}
			if !strings.HasSuffix(got, "end") && !strings.Contains(string(b), "/hang") {
				t.Errorf("it is still open: %s", got)
			}
		})
	})
}

// FuzzPieces has the same bytes come in pieces: what they are answered must not
// depend on that.
func FuzzPieces(f *testing.F) {
	f.Add(cat(ask(1, "/"), ask(3, "/fields", "cookie: a", "cookie: b"), frame(framePing, 0, 0, make([]byte, 8)...)), 7)
	f.Add(cat(ask(1, "/", "Bad: x"), settings(settingTable, 0), ask(3, "/big/20000")), 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		n = max(1, min(n, 1<<12))
		if len(b)/n > 1000 {
			return
		}
		answered := func(n int) (got string) {
			converse(t, func(p *peer) {
				for rest := b; len(rest) > 0; {
					m := min(n, len(rest))
					p.send(rest[:m])
					rest = rest[m:]
				}
				got = p.frames()
			})
			return got
		}
		if strings.Contains(string(b), "POST") || strings.Contains(string(b), "/hang") || strings.Contains(string(b), "/later") {
			return // what comes in time, and what order, is a matter of luck there
		}
		whole := answered(len(b) + 1)
		if got := answered(n); got != whole && !strings.Contains(whole, "goaway") && !strings.Contains(whole, "reset") {
			t.Errorf("in pieces of %d: got  %s\nin one: %s", n, got, whole)
		}
	})
}
