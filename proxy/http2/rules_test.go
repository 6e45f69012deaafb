package http2

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"firstbell/proxy/head"
)

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestWhatEachFrameIsAnswered holds frames of a stranger against what RFC 9113
// says of them, rule by rule.
func TestWhatEachFrameIsAnswered(t *testing.T) {
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	for _, c := range []struct {
		what   string
		sends  []byte
		then   []byte // sent once that has been answered
		want   string
		reason string // counted once; "": none is
	}{
		{"a request", ask(1, "/"), nil, `headers 1 :status=200, data 1 "hello" end`, ""},
		{"two at once", cat(ask(1, "/"), ask(3, "/")), nil, `headers 1 :status=200, data 1 "hello" end, headers 3 :status=200, data 3 "hello" end`, ""},
		{"content", cat(post(1, "/"), data(1, "abc", true)), nil, `headers 1 :status=200, data 1 "3 bytes, <nil>" end`, ""},
		{"content and its end apart", cat(post(1, "/"), data(1, "abc", false), data(1, "", true)), nil, `headers 1 :status=200, data 1 "3 bytes, <nil>" end`, ""},
		{"trailers", cat(post(1, "/"), data(1, "abc", false), frame(frameHeaders, flagEnd|flagEndBlock, 1, fields("digest: x")...)), nil,
			`headers 1 :status=200, data 1 "3 bytes, <nil>, digest=x" end`, ""},
		{"padding", cat(post(1, "/"), frame(frameData, flagEnd|flagPadded, 1, []byte("\x04abc"+zeros(4))...)), nil, `headers 1 :status=200, data 1 "3 bytes, <nil>" end`, ""},
		{"a head in pieces", cat(frame(frameHeaders, flagEnd, 1, fields(":method: GET", ":scheme: https")...), frame(frameContinuation, 0, 1, fields(":path: /")...),
			frame(frameContinuation, flagEndBlock, 1, fields(":authority: a")...)), nil, `headers 1 :status=200, data 1 "hello" end`, ""},
		{"a head with priority and padding", frame(frameHeaders, flagEnd|flagEndBlock|flagPriority|flagPadded, 1,
			[]byte("\x02"+"\x00\x00\x00\x03\x10"+string(ask(1, "/")[frameHeadBytes:])+zeros(2))...), nil, `headers 1 :status=200, data 1 "hello" end`, ""},
		{"crumbs of cookies", ask(1, "/fields", "cookie: a=1", "x: y", "cookie: b=2"), nil, `headers 1 :status=200, data 1 "cookie=a=1; b=2|x=y|" end`, ""},
		{"103 before the answer", ask(1, "/early"), nil, `headers 1 :status=103 link=</a.css>, headers 1 :status=200 end`, ""},
		{"ping", frame(framePing, 0, 0, []byte("whatever")...), nil, `ping "whatever" end`, ""},
		{"ping's answer", frame(framePing, flagEnd, 0, []byte("whatever")...), nil, ``, ""},
		{"a frame of an unknown type", cat(frame(0x42, 0xff, 1, 1, 2, 3), ask(1, "/")), nil, `headers 1 :status=200, data 1 "hello" end`, ""},
		{"an unknown setting", settings(0xf00f, 1), nil, `settings ack`, ""},
		{"a smaller table", cat(settings(settingTable, 0), ask(1, "/")), nil, `settings ack, headers 1 :status=200, data 1 "hello" end`, ""},
		{"an answer not ended", ask(1, "/half"), nil, `headers 1 :status=200, data 1 "half", reset 1 internal`, ""},
		{"no answer", ask(1, "/nothing"), nil, `reset 1 internal`, ""},
		{"content that nobody reads", post(1, "/unread"), nil, `headers 1 :status=200, data 1 "enough" end, reset 1 no`, ""},
		{"content after that", post(1, "/unread"), cat(data(1, "abc", true), ask(3, "/")),
			`headers 1 :status=200, data 1 "enough" end, reset 1 no, headers 3 :status=200, data 3 "hello" end`, ""},
		{"a priority for nobody", frame(framePriority, 0, 7, 0, 0, 0, 0, 1), nil, ``, ""},
		{"the client leaves", frame(frameGoAway, 0, 0, []byte(zeros(8))...), nil, `end`, ""},
		{"100 for who waits for it", post(1, "/", "expect: 100-continue"), data(1, "abc", true),
			`headers 1 :status=100, headers 1 :status=200, data 1 "3 bytes, <nil>" end`, ""},

		// Section 4.
		{"4.2 larger than allowed", frame(frameData, 0, 1, make([]byte, frameMax+1)...), nil, `goaway 0 frame-size, end`, "frame-size"},
		{"4.3 a block that is none", frame(frameHeaders, flagEnd|flagEndBlock, 1, 0xff, 0xff, 0xff, 0xff, 0xff), nil, `goaway 1 compression, end`, "compression"},
		{"4.3 a block cut off", frame(frameHeaders, flagEnd|flagEndBlock, 1, 0x00, 0x05, 'a'), nil, `goaway 1 compression, end`, "compression"},
		{"4.3 another frame within a block", cat(frame(frameHeaders, flagEnd, 1, fields(":method: GET")...), frame(framePing, 0, 0, make([]byte, 8)...)), nil, `goaway 1 protocol, end`, "continuation"},
		{"4.3 another stream within a block", cat(frame(frameHeaders, flagEnd, 1, fields(":method: GET")...), frame(frameContinuation, flagEndBlock, 3)), nil, `goaway 1 protocol, end`, "continuation"},
		// Section 5.
		{"5.1 content for a stream not begun", data(5, "x", false), nil, `goaway 0 protocol, end`, "idle-stream"},
		{"5.1 a reset for a stream not begun", appendReset(nil, 5, 0), nil, `goaway 0 protocol, end`, "idle-stream"},
		{"5.1 a window for a stream not begun", window(5, 1), nil, `goaway 0 protocol, end`, "idle-stream"},
		{"5.1 content behind the end", ask(1, "/"), data(1, "x", true), `headers 1 :status=200, data 1 "hello" end, goaway 1 stream-closed, end`, "closed-stream"},
		{"5.1 content behind the end of one still answered", cat(ask(1, "/hang"), data(1, "x", true)), nil, `reset 1 stream-closed`, "half-closed-stream"},
		{"5.1 a head for a stream that ended", ask(3, "/"), ask(3, "/"), `headers 3 :status=200, data 3 "hello" end, goaway 3 stream-closed, end`, "closed-stream"},
		{"5.1 a head behind the end of one still answered", cat(ask(3, "/hang"), ask(3, "/")), nil, `reset 3 stream-closed`, "half-closed-stream"},
		{"5.1 content behind one's own reset", cat(ask(1, "/hang"), appendReset(nil, 1, CodeCancel), data(1, "x", true)), nil, `goaway 1 stream-closed, end`, "closed-stream"},
		{"5.1 windows and resets for what has ended", cat(ask(1, "/"), window(1, 5), appendReset(nil, 1, CodeCancel), frame(framePriority, 0, 1, 0, 0, 0, 0, 1), frame(framePing, 0, 0, []byte("12345678")...)), nil,
			`headers 1 :status=200, data 1 "hello" end, ping "12345678" end`, ""},
		{"5.1.1 an even stream", ask(2, "/"), nil, `goaway 0 protocol, end`, "frame"},
		{"5.1.1 a stream before the last", ask(5, "/"), ask(3, "/"), `headers 5 :status=200, data 5 "hello" end, goaway 5 stream-closed, end`, "closed-stream"},
		{"5.3.1 itself as what it depends on", frame(frameHeaders, flagEnd|flagEndBlock|flagPriority, 1, append([]byte{0, 0, 0, 1, 0}, ask(1, "/")[frameHeadBytes:]...)...), nil, `reset 1 protocol`, "stream-frame"},
		{"5.3.1 that in a frame of its own", cat(ask(1, "/hang"), frame(framePriority, 0, 1, 0, 0, 0, 1, 0)), nil, `reset 1 protocol`, "stream-frame"},
		// Section 6.
		{"6.1 content for the connection", data(0, "x", false), nil, `goaway 0 protocol, end`, "frame"},
		{"6.1 more padding than frame", cat(post(1, "/"), frame(frameData, flagPadded, 1, 4, 1, 2, 3)), nil, `goaway 1 protocol, end`, "frame"},
		{"6.2 a head for the connection", ask(0, "/"), nil, `goaway 0 protocol, end`, "frame"},
		{"6.2 more padding than head", frame(frameHeaders, flagPadded|flagEndBlock, 1, 4, 1, 2, 3), nil, `goaway 0 protocol, end`, "frame"},
		{"6.2 no room for its priority", frame(frameHeaders, flagPriority|flagEndBlock, 1, 4, 1, 2, 3), nil, `goaway 0 frame-size, end`, "frame-size"},
		{"6.3 a priority for the connection", frame(framePriority, 0, 0, 0, 0, 0, 0, 1), nil, `goaway 0 protocol, end`, "frame"},
		{"6.3 a priority too short", cat(ask(1, "/hang"), frame(framePriority, 0, 1, 0, 0, 0, 0)), nil, `reset 1 frame-size`, "frame-size"},
		{"6.4 a reset of the connection", appendReset(nil, 0, 0), nil, `goaway 0 protocol, end`, "frame"},
		{"6.4 a reset too short", cat(ask(1, "/hang"), frame(frameReset, 0, 1, 0, 0, 0)), nil, `goaway 1 frame-size, end`, "frame-size"},
		{"6.5 settings of a stream", frame(frameSettings, 0, 1), nil, `goaway 0 protocol, end`, "frame"},
		{"6.5 settings cut off", frame(frameSettings, 0, 0, 0, 1, 0), nil, `goaway 0 frame-size, end`, "frame-size"},
		{"6.5 an acknowledgement that says something", frame(frameSettings, flagEnd, 0, 0, 1, 0, 0, 0, 0), nil, `goaway 0 frame-size, end`, "frame-size"},
		{"6.5.2 push neither on nor off", settings(settingPush, 2), nil, `goaway 0 protocol, end`, "settings"},
		{"6.5.2 a window too large", settings(settingWindow, 1<<31), nil, `goaway 0 flow-control, end`, "flow-control"},
		{"6.5.2 frames too small", settings(settingFrame, frameMax-1), nil, `goaway 0 protocol, end`, "settings"},
		{"6.5.2 frames too large", settings(settingFrame, 1<<24), nil, `goaway 0 protocol, end`, "settings"},
		{"6.6 a push by the client", frame(framePush, flagEndBlock, 1, 0, 0, 0, 2), nil, `goaway 0 protocol, end`, "frame"},
		{"6.7 a ping of a stream", frame(framePing, 0, 1, make([]byte, 8)...), nil, `goaway 0 protocol, end`, "frame"},
		{"6.7 a ping of another size", frame(framePing, 0, 0, make([]byte, 7)...), nil, `goaway 0 frame-size, end`, "frame-size"},
		{"6.8 a stream goes away", frame(frameGoAway, 0, 1, make([]byte, 8)...), nil, `goaway 0 protocol, end`, "frame"},
		{"6.8 says not from where", frame(frameGoAway, 0, 0, make([]byte, 7)...), nil, `goaway 0 frame-size, end`, "frame-size"},
		{"6.9 no window", window(0, 0), nil, `goaway 0 protocol, end`, "frame"},
		{"6.9 no window for a stream", cat(ask(1, "/hang"), window(1, 0)), nil, `reset 1 protocol`, "stream-frame"},
		{"6.9 a window cut off", frame(frameWindow, 0, 0, 0, 0, 1), nil, `goaway 0 frame-size, end`, "frame-size"},
		{"6.9.1 too wide a window", window(0, windowMax), nil, `goaway 0 flow-control, end`, "flow-control"},
		{"6.9.1 too wide a window for a stream", cat(ask(1, "/hang"), window(1, windowMax)), nil, `reset 1 flow-control`, "stream-flow-control"},
		{"6.9.2 a setting makes it too wide", cat(ask(1, "/hang"), window(1, windowMax-windowFirst), settings(settingWindow, windowFirst+1)), nil, `goaway 1 flow-control, end`, "flow-control"},
		{"6.10 a continuation of nothing", frame(frameContinuation, flagEndBlock, 1), nil, `goaway 0 protocol, end`, "continuation"},
		{"6.10 a continuation of what has ended", cat(ask(1, "/"), frame(frameContinuation, flagEndBlock, 1)), nil, `headers 1 :status=200, data 1 "hello" end, goaway 1 protocol, end`, "continuation"},
		// Section 8.
		{"8.1 trailers that are not the end", cat(post(1, "/"), frame(frameHeaders, flagEndBlock, 1, fields("a: b")...)), nil, `reset 1 protocol`, "trailer-section"},
		{"8.1 pseudo-fields in trailers", cat(post(1, "/"), frame(frameHeaders, flagEnd|flagEndBlock, 1, fields(":path: /")...)), nil, `reset 1 protocol`, "trailer-section"},
		{"8.1.1 more content than announced", cat(post(1, "/", "content-length: 2"), data(1, "abc", true)), nil, `reset 1 protocol`, "content"},
		{"8.1.1 less content than announced", cat(post(1, "/", "content-length: 4"), data(1, "abc", true)), nil, `reset 1 protocol`, "content"},
		{"8.1.1 content announced and none sent", ask(1, "/", "content-length: 4"), nil, `reset 1 protocol`, "content"},
		{"8.1.1 less content, then trailers", cat(post(1, "/", "content-length: 4"), data(1, "abc", false), frame(frameHeaders, flagEnd|flagEndBlock, 1, fields("a: b")...)), nil, `reset 1 protocol`, "content"},
		{"8.2.1 upper case", ask(1, "/", "Accept: x"), nil, `reset 1 protocol`, "field-name"},
		{"8.2.1 a line break in a value", ask(1, "/", "a: b\r\nc: d"), nil, `reset 1 protocol`, "field-value"},
		{"8.2.2 of a connection", ask(1, "/", "connection: close"), nil, `reset 1 protocol`, "connection-field"},
		{"8.2.2 another coding", ask(1, "/", "te: gzip"), nil, `reset 1 protocol`, "connection-field"},
		{"8.3 no method", frame(frameHeaders, flagEnd|flagEndBlock, 1, fields(":scheme: https", ":path: /", ":authority: a")...), nil, `reset 1 protocol`, "pseudo-missing"},
		{"8.3 behind a field", ask(1, "/", "a: b", ":path: /"), nil, `reset 1 protocol`, "pseudo-twice"},
		{"8.3.1 another authority", ask(1, "/", "host: other.example"), nil, `reset 1 protocol`, "host"},
		{"8.5 a protocol that was not offered", frame(frameHeaders, flagEndBlock, 1, fields(":method: CONNECT", ":protocol: websocket", ":scheme: https", ":path: /", ":authority: a")...), nil, `reset 1 protocol`, "pseudo-unknown"},
		{"an expectation that nobody meets", ask(1, "/", "expect: tea"), nil, `headers 1 :status=417 end`, ""},
		{"too many fields", appendBlock(nil, append(slices.Clone(ask(1, "/")[frameHeadBytes:]), bytes.Repeat(fields("a: b"), head.FieldsMax+1)...), true, 1), nil, `headers 1 :status=431 end`, ""},
		{"a head too large", appendBlock(nil, append(slices.Clone(ask(1, "/")[frameHeadBytes:]), fields("a: "+strings.Repeat("x", 16<<10))...), true, 1), nil, `headers 1 :status=431 end`, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			converse(t, func(p *peer) {
				p.send(c.sends)
				p.send(c.then)
				if got := p.frames(); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				for _, r := range Refusals() {
					want := int64(0)
					if r.Reason == c.reason {
						want = 1
					}
					if got := p.srv.Refused(r.Index); got != want {
						t.Errorf("counted %d of %s, want %d", got, r.Reason, want)
					}
					if r.Reason == c.reason {
						return
					}
				}
				if c.reason != "" && !slices.Equal(p.bad, []string{c.reason}) {
					t.Errorf("got %q as what is wrong with heads, want %s", p.bad, c.reason)
				}
			})
		})
	}
}
