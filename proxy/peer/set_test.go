package peer

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

func set(t testing.TB, texts ...string) *Set {
	t.Helper()
	s, err := NewSet(texts)
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

func TestASetHasItsPrefixesAlone(t *testing.T) {
	s := set(t, "10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "2001:db8::/32", "::ffff:198.51.100.0/120", "203.0.113.0/25", "203.0.113.128/25")
	for text, want := range map[string]bool{
		"10.0.0.0": true, "10.255.255.255": true, "9.255.255.255": false, "11.0.0.0": false,
		"192.0.2.7": true, "192.0.2.6": false, "192.0.2.8": false, "::ffff:10.1.2.3": true,
		"2001:db8::": true, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": true, "2001:db9::": false, "2001:db8::1%eth0": true,
		"198.51.100.9": true, "198.51.101.0": false, "203.0.113.127": true, "203.0.113.200": true, "::": false,
	} {
		if got := s.Has(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
	if s.Has(netip.Addr{}) || new(Set).Has(netip.MustParseAddr("10.0.0.1")) || !new(Set).Empty() {
		t.Error("an invalid address, or anything in an empty set: got true, want false")
	}
}

func TestASetAgreesWithItsPrefixesOneByOne(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 3))
	address := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(rnd.IntN(4)), byte(rnd.IntN(256)), byte(rnd.IntN(256))})
	}
	for range 200 {
		var texts []string
		var prefixes []netip.Prefix
		for range rnd.IntN(20) {
			p := netip.PrefixFrom(address(), 8+rnd.IntN(25)).Masked()
			texts, prefixes = append(texts, p.String()), append(prefixes, p)
		}
		s := set(t, texts...)
		for range 100 {
			a, want := address(), false
			for _, p := range prefixes {
				want = want || p.Contains(a)
			}
			if got := s.Has(a); got != want {
				t.Fatalf("%s in %v: got %v, want %v", a, texts, got, want)
			}
		}
	}
}

func TestWhatIsNoPrefixIsSaid(t *testing.T) {
	for text, why := range map[string]string{
		"10.0.0.1/8": "the prefix is 10.0.0.0/8", "10.0.0.0/33": "not a prefix", "school": "not an address", "": "not an address",
		"fe80::1%eth0": "not an address", "::ffff:0.0.0.0/64": "", "::ffff:10.0.0.0/80": "", "10.0.0.0/": "not a prefix",
	} {
		if _, err := NewSet([]string{text}); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: got %v, want %q", text, err, why)
		}
	}
}

func TestAHouseholdIsOneNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::",
	} {
		if got := Network(netip.MustParseAddr(text), 64); got.String() != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if got := Network(netip.MustParseAddr("2001:db8:1:2::3"), 48).String(); got != "2001:db8:1::" {
		t.Errorf("by 48 bits: got %s, want 2001:db8:1::", got)
	}
	if Network(netip.Addr{}, 64).IsValid() {
		t.Error("no address: got one")
	}
}

func TestLookingUpAllocatesNothing(t *testing.T) {
	s, a := set(t, "10.0.0.0/8", "2001:db8::/32"), netip.MustParseAddr("2001:db8::1")
	if n := testing.AllocsPerRun(100, func() { s.Has(a); Network(a, 64) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}
