package cache

import (
	"fmt"
	"testing"
)

func TestPinnedStaysWhateverComes(t *testing.T) {
	c := newCache(t, 4<<20)
	early := request("http school.example /lessons/early")
	c.Put(object(c, early, 1000))
	if err := c.Pin([]Selector{{ByPrefix, "*.example /lessons/*"}, {ByURL, "school.example /start?a"}}, 256<<10); err != nil {
		t.Fatal(err)
	}
	pinned := []*Request{early, request("https school.example /lessons/1"), request("http school.example /start?a")}
	for _, r := range pinned[1:] {
		c.Put(object(c, r, 1000))
	}
	other := request("http school.example /start")
	c.Put(object(c, other, 1000))
	for i := range 10_000 {
		c.Put(object(c, request(fmt.Sprintf("http school.example /%d", i)), 1000))
	}
	for _, r := range pinned {
		if f := c.Lookup(r, &Policy{}, nine); f.Outcome != Hit {
			t.Errorf("%s is pinned: %v, want hit", r.Key, f.Outcome)
		}
	}
	if f := c.Lookup(other, &Policy{}, nine); f.Outcome != Miss {
		t.Errorf("%s is not pinned: %v, want miss", other.Key, f.Outcome)
	}
	if s := c.Stats(); s.PinnedKeys != 3 || s.PinnedBytes < 3000 || s.PinnedMaxBytes != 256<<10 {
		t.Errorf("%d keys and %d of %d bytes pinned, want 3 and their bytes of 256 KiB", s.PinnedKeys, s.PinnedBytes, s.PinnedMaxBytes)
	}
	audit(t, c)

	// Purges and invalidations take what is pinned, too.
	purge(t, c, true, Selector{ByURL, "school.example /start?a"})
	c.Invalidate(pinned[1].Key)
	if s := c.Stats(); s.PinnedKeys != 1 {
		t.Errorf("%d keys pinned, want 1", s.PinnedKeys)
	}
	if err := c.Pin(nil, 0); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.PinnedKeys != 0 || s.PinnedBytes != 0 {
		t.Errorf("without pins %d keys and %d bytes are pinned", s.PinnedKeys, s.PinnedBytes)
	}
	audit(t, c)
}

func TestPinsBeyondTheirBudgetAreKeptLikeEverythingElse(t *testing.T) {
	c := newCache(t, 4<<20)
	if err := c.Pin([]Selector{{ByHost, "*"}}, 100<<10); err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		r := request(fmt.Sprintf("http a /%d", i))
		if c.Put(object(c, r, 2000)); c.Lookup(r, &Policy{}, nine).Outcome != Hit {
			t.Fatalf("object %d is not found after Put", i)
		}
	}
	audit(t, c)
	if s := c.Stats(); s.PinnedBytes < 90<<10 || s.PinsRefused < 4000 || s.Bytes() < s.MaxBytes*9/10 {
		t.Errorf("%d bytes pinned, %d refused, %d bytes in all; want nearly 100 KiB, the rest, and a full memory", s.PinnedBytes, s.PinsRefused, s.Bytes())
	}
	for _, bytes := range []int64{-1, 3 << 20} {
		if err := c.Pin(nil, bytes); err == nil {
			t.Errorf("pinning %d bytes of 4 MiB: no error", bytes)
		}
	}
	if err := c.Pin([]Selector{{ByTag, "a"}}, 0); err == nil {
		t.Error("pinning by tag: no error")
	}
}
