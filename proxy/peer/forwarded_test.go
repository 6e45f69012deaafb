package peer

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func lines(text string) (all [][]byte) {
	if text == "" {
		return nil
	}
	for l := range strings.SplitSeq(text, "\n") {
		all = append(all, []byte(l))
	}
	return all
}

func TestTheClientIsTheRightMostWhoIsNotTrusted(t *testing.T) {
	trusted := set(t, "10.0.0.0/8", "2001:db8:1::/48")
	for _, c := range []struct{ from, field, want string }{
		{"192.0.2.1", "6.6.6.6", "192.0.2.1"}, // a stranger's claim
		{"10.0.0.1", "", "10.0.0.1"},
		{"10.0.0.1", "192.0.2.1", "192.0.2.1"},
		{"10.0.0.1", "6.6.6.6, 192.0.2.1", "192.0.2.1"}, // what the client sent stands left
		{"10.0.0.1", "6.6.6.6,192.0.2.1,10.0.0.2", "192.0.2.1"},
		{"10.0.0.1", "6.6.6.6\n192.0.2.1\n 10.0.0.2 , 10.0.0.3\t", "192.0.2.1"},
		{"10.0.0.1", "10.0.0.9, 10.0.0.2", "10.0.0.9"}, // asked from within
		{"10.0.0.1", "192.0.2.1:51234", "192.0.2.1"},
		{"10.0.0.1", "2001:db8::1", "2001:db8::1"},
		{"10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"},
		{"10.0.0.1", "[2001:db8::1], [2001:db8:1::5]", "2001:db8::1"},
		{"10.0.0.1", "::ffff:192.0.2.1", "192.0.2.1"},
		{"10.0.0.1", "192.0.2.1,,", "192.0.2.1"},
		{"10.0.0.1", "6.6.6.6, unknown", "10.0.0.1"},
		{"10.0.0.1", "6.6.6.6, 192.0.2.1 10.0.0.2", "10.0.0.1"},
		{"10.0.0.1", "fe80::1%eth0", "10.0.0.1"},
		{"10.0.0.1", "[192.0.2.1]", "10.0.0.1"},
		{"10.0.0.1", "192.0.2.01", "10.0.0.1"},
		{"10.0.0.1", strings.Repeat("10.0.0.2,", 100) + "10.0.0.2", "10.0.0.2"},
	} {
		if got := Client(netip.MustParseAddr(c.from), lines(c.field), trusted); got.String() != c.want {
			t.Errorf("from %s with %.80q: got %s, want %s", c.from, c.field, got, c.want)
		}
	}
}

func TestForwardedNamesTheClientAndItsProtocol(t *testing.T) {
	trusted := set(t, "10.0.0.0/8")
	for _, c := range []struct{ from, field, want, proto string }{
		{"192.0.2.1", "for=6.6.6.6;proto=https", "192.0.2.1", ""},
		{"10.0.0.1", "for=192.0.2.1;proto=https", "192.0.2.1", "https"},
		{"10.0.0.1", "for=6.6.6.6;proto=wss, For=192.0.2.1; Proto=HTTPS;host=a.example;by=10.0.0.1", "192.0.2.1", "https"},
		{"10.0.0.1", "for=6.6.6.6\nfor=192.0.2.1;proto=https,for=10.0.0.2;proto=http", "192.0.2.1", "https"},
		{"10.0.0.1", `for="[2001:db8::1]:443"`, "2001:db8::1", ""},
		{"10.0.0.1", `for=192.0.2.1:51234`, "192.0.2.1", ""},
		{"10.0.0.1", `for="192.0.2.1, 6.6.6.6"`, "10.0.0.1", ""},
		{"10.0.0.1", "for=6.6.6.6, for=unknown;proto=https", "10.0.0.1", "https"},
		{"10.0.0.1", "for=6.6.6.6, for=_hidden", "10.0.0.1", ""},
		{"10.0.0.1", "for=6.6.6.6, proto=https", "10.0.0.1", "https"},
		{"10.0.0.1", ", for=192.0.2.1 ,", "192.0.2.1", ""},
		{"10.0.0.1", "", "10.0.0.1", ""},
	} {
		got, proto, err := ForwardedClient(netip.MustParseAddr(c.from), lines(c.field), trusted)
		if err != nil || got.String() != c.want || proto != c.proto {
			t.Errorf("from %s with %q: got %s by %q, %v; want %s by %q", c.from, c.field, got, proto, err, c.want, c.proto)
		}
	}
	for _, field := range []string{
		`for="192.0.2.1`, `for=", for=192.0.2.1`, `for=a b`, `for`, `for=`, `=a`, `for=a;;proto=b`, `for=a;`, `for=a;for=b`,
		`for="a\"b"`, `for =a`, `for=[2001:db8::1]`, "for=a\x00",
	} {
		if _, _, err := ForwardedClient(netip.MustParseAddr("10.0.0.1"), lines(field), trusted); !errors.Is(err, ErrForwarded) {
			t.Errorf("%q: got %v, want ErrForwarded", field, err)
		}
	}
}

// FuzzForwarded: whatever strangers send left of what a trusted proxy appends
// changes nothing, or is an error; and none is made up.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"", "for=1.2.3.4", `for="`, `for="[::1]:1";proto=https, `, "unknown", "10.0.0.7, 10.0.0.8"} {
		f.Add(s)
	}
	trusted := set(f, "10.0.0.0/8")
	from, client := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsAny(s, "\r\n") {
			return
		}
		if got := Client(from, lines(s+", 192.0.2.1"), trusted); got != client {
			t.Errorf("X-Forwarded-For: %q before it: got %s", s, got)
		}
		got, _, err := ForwardedClient(from, lines(s+", for=192.0.2.1"), trusted)
		if err == nil && got != client {
			t.Errorf("Forwarded: %q before it: got %s", s, got)
		}
		if got, _, err = ForwardedClient(from, append(lines(s), []byte("for=192.0.2.1")), trusted); err == nil && got != client {
			t.Errorf("Forwarded: %q in a line before it: got %s", s, got)
		}
		if got := Client(client, lines(s), trusted); got != client {
			t.Errorf("from a stranger with %q: got %s", s, got)
		}
		if got := Client(from, lines(s), trusted); got != from && !bytes.ContainsAny([]byte(s), ".:") {
			t.Errorf("%q: got %s", s, got)
		}
	})
}
