package peer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Set is a set of addresses. The zero Set is empty. It does not change.
type Set struct {
	ranges []span // apart from each other, in order
}

type span struct{ first, last netip.Addr }

// NewSet returns the addresses that the texts name, each an address or a prefix
// in CIDR notation.
func NewSet(texts []string) (Set, error) {
	var s Set
	for _, text := range texts {
		p, err := ParsePrefix(text)
		if err != nil {
			return Set{}, err
		}
		s.ranges = append(s.ranges, span{p.Addr(), lastOf(p)})
	}
	slices.SortFunc(s.ranges, func(a, b span) int { return a.first.Compare(b.first) })
	kept := s.ranges[:0]
	for _, r := range s.ranges {
		if n := len(kept); n > 0 && r.first.Compare(kept[n-1].last) <= 0 {
			if kept[n-1].last.Less(r.last) {
				kept[n-1].last = r.last
			}
			continue
		}
		kept = append(kept, r)
	}
	s.ranges = kept
	return s, nil
}

// ParsePrefix reads an address or a prefix whose address has no bits behind it.
// IPv4 within IPv6 is IPv4.
func ParsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not an address", text)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a prefix", text)
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its prefix; the prefix is %s", text, p.Masked())
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q is IPv4 written as IPv6", text)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, nil
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b) // of the right length
	return last
}

// Empty reports whether nothing is in the set.
func (s *Set) Empty() bool { return len(s.ranges) == 0 }

// Has reports whether the address is in the set. An invalid one is in none.
func (s *Set) Has(a netip.Addr) bool {
	if len(s.ranges) == 0 || !a.IsValid() {
		return false
	}
	a = a.Unmap().WithZone("")
	low, high := 0, len(s.ranges)
	for low < high {
		middle := (low + high) / 2
		if s.ranges[middle].last.Less(a) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low < len(s.ranges) && s.ranges[low].first.Compare(a) <= 0
}

// Network is the prefix that stands for an address where addresses are counted:
// an IPv4 address by itself, an IPv6 one by its first bits, as one household
// has all of a /64.
func Network(a netip.Addr, v6Bits int) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	p, err := a.Prefix(v6Bits)
	if err != nil {
		return a
	}
	return p.Addr()
}
