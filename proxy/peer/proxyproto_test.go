package peer

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

func v2(command, family byte, rest string) string {
	return signature + string([]byte{command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(rest)))) + rest
}

const ends4 = "\xc0\x00\x02\x01\xc6\x33\x64\x07\xc8\x22\x01\xbb"

func TestHeadersAreReadToTheLetter(t *testing.T) {
	for name, c := range map[string]struct {
		bytes, from, to string
		secure          bool
	}{
		"version 1":               {"PROXY TCP4 192.0.2.1 198.51.100.7 51234 443\r\n", "192.0.2.1:51234", "198.51.100.7:443", false},
		"version 1, IPv6":         {"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n", "[2001:db8::1]:0", "[2001:db8::2]:65535", false},
		"version 1, unknown":      {"PROXY UNKNOWN\r\n", "", "", false},
		"version 1, unknown tail": {"PROXY UNKNOWN ffff:f...f:ffff 1 2\r\n", "", "", false},
		"version 2":               {v2(0x21, 0x11, ends4), "192.0.2.1:51234", "198.51.100.7:443", false},
		"version 2, IPv6":         {v2(0x21, 0x21, strings.Repeat("\x20", 16)+strings.Repeat("\x21", 16)+"\x00\x01\x00\x02"), "[2020:2020:2020:2020:2020:2020:2020:2020]:1", "[2121:2121:2121:2121:2121:2121:2121:2121]:2", false},
		"version 2, TLS":          {v2(0x21, 0x11, ends4+"\x20\x00\x05\x01\x00\x00\x00\x00"), "192.0.2.1:51234", "198.51.100.7:443", true},
		"version 2, TLVs":         {v2(0x21, 0x11, ends4+"\x02\x00\x03abc\x04\x00\x00"), "192.0.2.1:51234", "198.51.100.7:443", false},
		"version 2, local":        {v2(0x20, 0, ""), "", "", false},
		"version 2, local named":  {v2(0x20, 0x11, ends4), "", "", false},
		"version 2, unspecified":  {v2(0x21, 0, "whatever"), "", "", false},
		"version 2, unix":         {v2(0x21, 0x31, strings.Repeat("\x00", 216)), "", "", false},
		"version 2, checksum":     {withChecksum(0), "192.0.2.1:51234", "198.51.100.7:443", false},
	} {
		r := strings.NewReader(c.bytes + "GET / HTTP/1.1\r\n")
		h, err := ReadHeader(iotest.OneByteReader(r))
		from, to := "", ""
		if h.From.IsValid() {
			from, to = h.From.String(), h.To.String()
		}
		if err != nil || from != c.from || to != c.to || h.Secure != c.secure {
			t.Errorf("%s: got %s to %s, secure %v, %v; want %s to %s, secure %v", name, from, to, h.Secure, err, c.from, c.to, c.secure)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "GET / HTTP/1.1\r\n" {
			t.Errorf("%s: behind it %q is left", name, rest)
		}
	}
}

func withChecksum(change uint32) string {
	b := []byte(v2(0x21, 0x11, ends4+"\x03\x00\x04\x00\x00\x00\x00"))
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, castagnoli)+change)
	return string(b)
}

func TestWhatIsNoHeaderIsRefused(t *testing.T) {
	for _, bytes := range []string{
		"", "PROXY TCP4 192.0.2.1", "GET / HTTP/1.1\r\n\r\n", "proxy TCP4 192.0.2.1 198.51.100.7 51234 443\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.7 51234 443\n", "PROXY TCP4 192.0.2.1 198.51.100.7 51234 443\r\r\n",
		"PROXY TCP4 192.0.2.1  198.51.100.7 51234 443\r\n", "PROXY TCP4 192.0.2.1 198.51.100.7 51234 443 \r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.7 51234\r\n", "PROXY TCP4 192.0.2.1 198.51.100.7 51234 65536\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.7 051234 443\r\n", "PROXY TCP4 192.0.2.1 198.51.100.7 +1 443\r\n",
		"PROXY TCP4 192.0.2.01 198.51.100.7 1 443\r\n", "PROXY TCP4 2001:db8::1 198.51.100.7 1 443\r\n",
		"PROXY TCP6 192.0.2.1 2001:db8::1 1 443\r\n", "PROXY TCP6 fe80::1%eth0 2001:db8::1 1 443\r\n",
		"PROXY TCP5 192.0.2.1 198.51.100.7 1 443\r\n", "PROXY UNKNOWNX 192.0.2.1\r\n",
		"PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n",
		v2(0x21, 0x11, ends4[:11]), v2(0x21, 0x11, ends4+"\x02\x00"), v2(0x21, 0x11, ends4+"\x02\x00\x02a"),
		v2(0x22, 0x11, ends4), v2(0x11, 0x11, ends4), v2(0x21, 0x12, ends4), v2(0x21, 0x13, ends4), v2(0x21, 0x41, ends4),
		v2(0x21, 0x11, ends4)[:20], v2(0x21, 0x11, ends4+strings.Repeat("\x04\x00\x00", 2000)),
		v2(0x21, 0x11, ends4+"\x03\x00\x03abc"), v2(0x21, 0x11, ends4+"\x20\x00\x01\x01"), withChecksum(1),
		signature[:11] + "\r",
	} {
		if h, err := ReadHeader(strings.NewReader(bytes)); !errors.Is(err, ErrHeader) {
			t.Errorf("%.60q: got %+v, %v; want ErrHeader", bytes, h, err)
		}
	}
	if _, err := ReadHeader(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a reader that fails: got %v, want its error", err)
	}
}

func TestAHeaderIsReadAsItWasWritten(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:51234"), netip.MustParseAddrPort("[2001:db8::1]:443")
	for _, h := range []Header{
		{}, {From: four, To: netip.MustParseAddrPort("198.51.100.7:80")}, {From: six, To: netip.MustParseAddrPort("[2001:db8::2]:80")},
		{From: four, To: netip.MustParseAddrPort("198.51.100.7:80"), Secure: true},
	} {
		plain := h
		plain.Secure = false // not said in version 1
		for text, want := range map[string]Header{string(h.AppendV1(nil)): plain, string(h.AppendV2(nil)): h} {
			if got, err := ReadHeader(strings.NewReader(text)); err != nil || got != want {
				t.Errorf("%q: got %+v, %v; want %+v", text, got, err, want)
			}
		}
	}
	mixed := Header{From: four, To: six}
	got, err := ReadHeader(strings.NewReader(string(mixed.AppendV1(nil))))
	if err != nil || got.From != four || got.To != six {
		t.Errorf("two families: got %+v, %v; want %+v", got, err, mixed)
	}
}

// FuzzReadHeader: what is read is bounded, and says the same when written again.
func FuzzReadHeader(f *testing.F) {
	for _, s := range []string{"PROXY TCP4 192.0.2.1 198.51.100.7 51234 443\r\n", "PROXY UNKNOWN\r\n", v2(0x21, 0x11, ends4), withChecksum(0), v2(0x20, 0, "")} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := strings.NewReader(s)
		h, err := ReadHeader(r)
		if used := len(s) - r.Len(); used > 16+v2Max {
			t.Errorf("read %d bytes", used)
		}
		if err != nil {
			if !errors.Is(err, ErrHeader) {
				t.Errorf("%q: got %v, want ErrHeader", s, err)
			}
			return
		}
		if h.From.IsValid() != h.To.IsValid() {
			t.Errorf("%q: got one end of %+v", s, h)
		}
		if again, err := ReadHeader(strings.NewReader(string(h.AppendV2(nil)))); err != nil || again != h && h.From.IsValid() {
			t.Errorf("%q: got %+v, written again %+v, %v", s, h, again, err)
		}
	})
}
