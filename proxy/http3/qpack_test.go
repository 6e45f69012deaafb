package http3

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/quic-go/qpack"
)

func TestAnAnswersHeadIsDecodedByAnother(t *testing.T) {
	fields := []string{"Content-Type", "text/html; charset=utf-8", "ETag", `"v1"`, "X-Own", "", "X-" + strings.Repeat("long", 40), strings.Repeat("ü", 200), "Vary", "Accept-Encoding"}
	for name := range staticNames {
		fields = append(fields, name, "x")
	}
	for status := range 600 {
		if status < 100 {
			continue
		}
		b := AppendStatus(nil, status)
		for i := 0; i < len(fields); i += 2 {
			b = AppendField(b, fields[i], fields[i+1])
		}
		next := qpack.NewDecoder().Decode(b)
		if f, err := next(); err != nil || f.Name != ":status" || f.Value != string(rune('0'+status/100))+string(rune('0'+status/10%10))+string(rune('0'+status%10)) {
			t.Fatalf("status %d is decoded as %v, %v", status, f, err)
		}
		for i := 0; i < len(fields); i += 2 {
			if f, err := next(); err != nil || f.Name != strings.ToLower(fields[i]) || f.Value != fields[i+1] {
				t.Fatalf("%s: %s is decoded as %v, %v", fields[i], fields[i+1], f, err)
			}
		}
		if _, err := next(); err != io.EOF {
			t.Fatalf("behind the last field: %v", err)
		}
	}
}

func TestSectionsThatNeedADynamicTableAreRefused(t *testing.T) {
	add := func(string, string) error { return nil }
	for what, s := range map[string]string{
		"empty":                   "",
		"a prefix alone, cut":     "\x00",
		"inserts required":        "\x01\x00",
		"a dynamic index":         "\x00\x00\x80",
		"a dynamic name":          "\x00\x00\x40\x00",
		"a post-base index":       "\x00\x00\x10",
		"a post-base name":        "\x00\x00\x00\x00",
		"a static index of none":  "\x00\x00\xff\x40",
		"a cut string":            "\x00\x00\x23abc\x05ab",
		"bad Huffman":             "\x00\x00\x29\xff\x00",
		"a length without end":    "\x00\x00\x27\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"a prefix without an end": "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		if e := IsProtocol(Section([]byte(s), add)); e == nil || e.Code != DecompressionFailed {
			t.Errorf("%s: got %v, want QPACK_DECOMPRESSION_FAILED", what, e)
		}
	}
	// A base means nothing where there is no dynamic table, however it is written.
	var got string
	if err := Section([]byte("\x00\xff\x00\xd1"), func(n, v string) error { got += n + v; return nil }); err != nil || got != ":methodGET" {
		t.Errorf("with a base: got %q, %v", got, err)
	}
	stop := errors.New("stop")
	if err := Section([]byte("\x00\x00\xd1\xd1"), func(string, string) error { return stop }); err != stop {
		t.Errorf("got %v, want the reader's own error", err)
	}
}

func TestWritingAHeadAllocatesNothing(t *testing.T) {
	b := make([]byte, 0, 1<<10)
	if n := testing.AllocsPerRun(100, func() {
		b = AppendField(AppendField(AppendStatus(b[:0], 200), "Content-Type", "text/html"), "X-Own", "1")
	}); n != 0 {
		t.Errorf("writing a head allocates %v times, want 0", n)
	}
}
