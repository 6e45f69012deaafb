package http3

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// hear reads a unidirectional stream by its type, as a connection does.
func hear(c *Control, sent string) (kind uint64, err error) {
	s, err := c.NewStream(strings.NewReader(sent))
	if err != nil {
		return 0, err
	}
	switch s.Type {
	case StreamControl:
		return s.Type, c.Read(s)
	case StreamEncoder:
		return s.Type, c.ReadEncoder(s)
	case StreamDecoder:
		return s.Type, c.ReadDecoder(s)
	}
	return s.Type, io.EOF
}

func TestEachBreachOnACriticalStreamHasItsError(t *testing.T) {
	settings := "\x00" + frame(frameSettings, "")
	for what, c := range map[string]struct {
		sent string
		want Code
	}{
		"the end":                         {settings, ClosedCriticalStream},
		"the end before SETTINGS":         {"\x00", ClosedCriticalStream},
		"what browsers send":              {"\x00" + frame(frameSettings, "\x01\x80\x01\x00\x00\x07\x40\x64\x33\x01\x40\x40\x05") + frame(0xf0700, "\x00u=1"), ClosedCriticalStream},
		"no SETTINGS":                     {"\x00" + frame(frameGoAway, "\x00"), MissingSettings},
		"unknown frames before them":      {"\x00" + frame(0x21, ""), MissingSettings},
		"SETTINGS twice":                  {settings + frame(frameSettings, ""), FrameUnexpected},
		"a setting twice":                 {"\x00" + frame(frameSettings, "\x06\x01\x06\x01"), SettingsError},
		"a setting of HTTP/2":             {"\x00" + frame(frameSettings, "\x02\x01"), SettingsError},
		"half a setting":                  {"\x00" + frame(frameSettings, "\x06"), FrameError},
		"SETTINGS without bound":          {"\x00\x04\xff\xff\xff\xff\xff\xff\xff\xff", ExcessiveLoad},
		"SETTINGS cut":                    {"\x00\x04\x05\x06", FrameError},
		"DATA":                            {settings + frame(frameData, "x"), FrameUnexpected},
		"HEADERS":                         {settings + frame(frameHeaders, "x"), FrameUnexpected},
		"PUSH_PROMISE":                    {settings + frame(framePushPromise, "x"), FrameUnexpected},
		"HTTP/2's PING":                   {settings + frame(framePing, "x"), FrameUnexpected},
		"GOAWAY with nothing":             {settings + frame(frameGoAway, ""), FrameError},
		"GOAWAY with more":                {settings + frame(frameGoAway, "\x00\x00"), FrameError},
		"GOAWAY taken back":               {settings + frame(frameGoAway, "\x04") + frame(frameGoAway, "\x05"), IDError},
		"MAX_PUSH_ID taken back":          {settings + frame(frameMaxPushID, "\x04") + frame(frameMaxPushID, "\x03"), IDError},
		"CANCEL_PUSH":                     {settings + frame(frameCancelPush, "\x00"), IDError},
		"a flood of MAX_PUSH_ID":          {settings + strings.Repeat(frame(frameMaxPushID, "\x04"), controlBytes/frameCost), ExcessiveLoad},
		"an unknown frame without bound":  {settings + "\x21\xff\xff\xff\xff\xff\xff\xff\xff", ExcessiveLoad},
		"an encoder's capacity of 0":      {"\x02\x20", ClosedCriticalStream},
		"an encoder's capacity":           {"\x02\x21", EncoderStreamError},
		"an insert":                       {"\x02\xc1\x01x", EncoderStreamError},
		"a duplicate":                     {"\x02\x00", EncoderStreamError},
		"a flood of capacities":           {"\x02" + strings.Repeat("\x20", controlBytes/frameCost+1), ExcessiveLoad},
		"a decoder's cancellations":       {"\x03\x44\x7f\x80\x80\x01", ClosedCriticalStream},
		"a section's acknowledgement":     {"\x03\x84", DecoderStreamError},
		"an insert count":                 {"\x03\x01", DecoderStreamError},
		"a cancellation without end":      {"\x03\x7f" + strings.Repeat("\xff", controlBytes+1), ExcessiveLoad},
		"a flood of cancellations":        {"\x03" + strings.Repeat("\x44", controlBytes/frameCost+1), ExcessiveLoad},
		"a decoder cut in a cancellation": {"\x03\x7f", ClosedCriticalStream},
	} {
		_, err := hear(NewControl(), c.sent)
		if e := IsProtocol(err); e == nil || e.Code != c.want || e.Stream {
			t.Errorf("%s: got %v, want the connection's %v", what, err, c.want)
		}
	}
}

func TestRequestsPayForWhatComesWithThem(t *testing.T) {
	c := NewControl()
	sent := "\x03" + strings.Repeat("\x44", 100)
	for range 20 {
		for range 100 {
			c.Requested()
		}
		if _, err := hear(c, sent); IsProtocol(err).Code != ClosedCriticalStream {
			t.Fatalf("got %v, want nothing but the stream's end", err)
		}
	}
}

func TestOurSettingsAreRead(t *testing.T) {
	sent := string(AppendSettings(nil, 20_000))
	if kind, err := hear(NewControl(), sent+string(AppendGoAway(nil, 8))); kind != StreamControl || IsProtocol(err).Code != ClosedCriticalStream {
		t.Errorf("our control stream is read as type %d, %v", kind, err)
	}
}

// FuzzControl: whatever a client says on its streams, reading ends with it, and
// with an error of the protocol.
func FuzzControl(f *testing.F) {
	f.Add([]byte("\x00" + frame(frameSettings, "\x06\x01") + frame(frameGoAway, "\x04")))
	f.Add([]byte("\x02\x20\x20"))
	f.Add([]byte("\x03\x7f\x80\x01\x44"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		c := NewControl()
		s, err := c.NewStream(bytes.NewReader(sent))
		if err != nil {
			return
		}
		for _, read := range []func(*Stream) error{c.Read, c.ReadEncoder, c.ReadDecoder} {
			if err := read(s); IsProtocol(err) == nil {
				t.Errorf("got %v, want an error of the protocol", err)
			}
		}
	})
}
