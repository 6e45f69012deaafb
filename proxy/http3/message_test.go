package http3

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/quic-go/qpack"
)

// frame is a frame as it is sent.
func frame(kind uint64, payload string) string {
	b := appendVarint(nil, kind)
	return string(appendVarint(b, uint64(len(payload)))) + payload
}

// section encodes lines of names and values.
func section(lines ...string) string {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(lines); i += 2 {
		if err := e.WriteField(qpack.HeaderField{Name: lines[i], Value: lines[i+1]}); err != nil {
			panic(err)
		}
	}
	return b.String()
}

// read reads a whole message: its head, its content, its trailers.
func read(src io.Reader) (head, content, trailers string, err error) {
	m := new(Message)
	m.Reset(src)
	h, err := m.Head(1 << 10)
	if err != nil {
		return "", "", "", err
	}
	head = string(h)
	all, err := io.ReadAll(m)
	return head, string(all), string(m.Trailers()), err
}

func TestAMessageIsReadWhole(t *testing.T) {
	grease := frame(0x21, "whatever")
	for what, sent := range map[string]string{
		"no content":              frame(frameHeaders, "head"),
		"content":                 frame(frameHeaders, "head") + frame(frameData, "con") + frame(frameData, "") + frame(frameData, "tent"),
		"trailers":                frame(frameHeaders, "head") + frame(frameData, "content") + frame(frameHeaders, "tail"),
		"trailers behind nothing": frame(frameHeaders, "head") + frame(frameHeaders, "tail"),
		"unknown frames":          grease + frame(frameHeaders, "head") + grease + frame(frameData, "content") + grease + frame(frameHeaders, "tail") + grease,
		"long integers":           "\xc0\x00\x00\x00\x00\x00\x00\x01\x80\x00\x00\x04head\x40\x00\x40\x07content",
	} {
		for way, src := range map[string]io.Reader{"at once": strings.NewReader(sent), "byte by byte": iotest.OneByteReader(strings.NewReader(sent))} {
			head, content, trailers, err := read(src)
			wantContent, wantTrailers := "", ""
			if strings.Contains(sent, "con") {
				wantContent = "content"
			}
			if strings.Contains(sent, "tail") {
				wantTrailers = "tail"
			}
			if err != nil || head != "head" && what != "trailers" && wantTrailers == "" || content != wantContent || trailers != wantTrailers {
				t.Errorf("%s, %s: head %q, content %q, trailers %q, %v", what, way, head, content, trailers, err)
			}
		}
	}
}

func TestWhatBreaksTheProtocolHasItsError(t *testing.T) {
	head := frame(frameHeaders, "head")
	for what, c := range map[string]struct {
		sent   string
		code   Code
		stream bool
	}{
		"nothing":                      {"", RequestIncomplete, true},
		"unknown frames alone":         {frame(0x21, "x"), RequestIncomplete, true},
		"content first":                {frame(frameData, "x"), FrameUnexpected, false},
		"SETTINGS":                     {frame(frameSettings, ""), FrameUnexpected, false},
		"GOAWAY behind the head":       {head + frame(frameGoAway, "\x00"), FrameUnexpected, false},
		"PUSH_PROMISE":                 {head + frame(framePushPromise, "x"), FrameUnexpected, false},
		"MAX_PUSH_ID":                  {head + frame(frameMaxPushID, "\x00"), FrameUnexpected, false},
		"CANCEL_PUSH":                  {head + frame(frameCancelPush, "\x00"), FrameUnexpected, false},
		"HTTP/2's PRIORITY":            {head + frame(framePriority, "x"), FrameUnexpected, false},
		"HTTP/2's PING":                {frame(framePing, "x"), FrameUnexpected, false},
		"HTTP/2's WINDOW_UPDATE":       {head + frame(frameWindow, "x"), FrameUnexpected, false},
		"HTTP/2's CONTINUATION":        {head + frame(frameContinue, "x"), FrameUnexpected, false},
		"content behind trailers":      {head + head + frame(frameData, "x"), FrameUnexpected, false},
		"trailers behind trailers":     {head + head + head, FrameUnexpected, false},
		"cut in a type":                {head + "\x40", FrameError, false},
		"cut before a length":          {head + "\x00", FrameError, false},
		"cut in a length":              {head + "\x00\x40", FrameError, false},
		"cut in the head":              {head[:3], FrameError, false},
		"cut in content":               {head + "\x00\x05abc", FrameError, false},
		"cut in trailers":              {head + "\x01\x05abc", FrameError, false},
		"cut in an unknown frame":      {head + "\x21\x05abc", FrameError, false},
		"a head too large":             {frame(frameHeaders, strings.Repeat("x", 1<<10+1)), ExcessiveLoad, true},
		"a head of no bound":           {"\x01\xff\xff\xff\xff\xff\xff\xff\xff", ExcessiveLoad, false},
		"too much that means nothing":  {head + frame(0x21, strings.Repeat("x", unwantedBytesMax)), ExcessiveLoad, false},
		"a flood of empty frames":      {head + strings.Repeat(frame(frameData, ""), unwantedBytesMax/frameCost+1), ExcessiveLoad, false},
		"a flood of unknown frames":    {strings.Repeat(frame(0x21, ""), unwantedBytesMax/frameCost+1), ExcessiveLoad, false},
		"an unknown frame of no bound": {"\x21\xff\xff\xff\xff\xff\xff\xff\xff", ExcessiveLoad, false},
	} {
		_, _, _, err := read(strings.NewReader(c.sent))
		if e := IsProtocol(err); e == nil || e.Code != c.code || e.Stream != c.stream {
			t.Errorf("%s: got %v, want %v, of the stream: %v", what, err, c.code, c.stream)
		}
	}
}

// A stream that breaks is no end of the message, at whatever byte.
func TestABrokenStreamIsNoEnd(t *testing.T) {
	sent := frame(frameHeaders, "head") + frame(frameData, "content") + frame(0x21, "x") + frame(frameHeaders, "tail")
	reset := errors.New("reset")
	for n := range len(sent) + 1 {
		_, _, _, err := read(io.MultiReader(strings.NewReader(sent[:n]), iotest.ErrReader(reset)))
		if !errors.Is(err, reset) {
			t.Errorf("broken behind %d bytes: got %v, want the stream's error", n, err)
		}
	}
}

func TestEmptyTellsWhetherContentFollows(t *testing.T) {
	for sent, want := range map[string]bool{
		frame(frameHeaders, "head"): true,
		frame(frameHeaders, "head") + frame(frameData, "") + frame(0x21, "x"):     true,
		frame(frameHeaders, "head") + frame(frameData, "content"):                 false,
		frame(frameHeaders, "head") + frame(0x21, "x") + frame(frameData, "cont"): false,
		frame(frameHeaders, "head") + frame(frameHeaders, "tail"):                 false,
	} {
		m := new(Message)
		m.Reset(strings.NewReader(sent))
		if _, err := m.Head(100); err != nil {
			t.Fatal(err)
		}
		if got, err := m.Empty(); got != want || err != nil {
			t.Errorf("%q: Empty says %v, %v; want %v", sent, got, err, want)
		}
		all, err := io.ReadAll(m)
		if err != nil || strings.Contains(sent, "cont") != (len(all) > 0) {
			t.Errorf("%q: then %q, %v was read", sent, all, err)
		}
	}
}

// FuzzMessage: nothing makes the reader hang, panic or read more than was sent,
// and a cut is never taken for an end.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(frame(frameHeaders, section(":method", "GET", ":path", "/")) + frame(frameData, "content") + frame(frameHeaders, section("digest", "x"))))
	f.Add([]byte(frame(0x21, "x") + frame(frameHeaders, "\x00\x00\xd1") + frame(frameData, "")))
	f.Add([]byte("\x01\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		head, content, trailers, err := read(bytes.NewReader(sent))
		if n := len(head) + len(content) + len(trailers); n > len(sent) {
			t.Errorf("%d bytes were read of %d", n, len(sent))
		}
		if err != nil && IsProtocol(err) == nil {
			t.Errorf("got %v, want an error of the protocol", err)
		}
		cut := errors.New("cut")
		if _, _, _, err := read(io.MultiReader(bytes.NewReader(sent), iotest.ErrReader(cut))); err == nil {
			t.Error("a stream that broke was read as whole")
		}
		for _, s := range []string{head, trailers} {
			if err := Section([]byte(s), func(string, string) error { return nil }); err != nil && IsProtocol(err) == nil {
				t.Errorf("decoding %q: %v", s, err)
			}
		}
	})
}
