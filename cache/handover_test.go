package cache

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"firstbell/proxy/field"
)

// neighbour is another process's cache in this one.
type neighbour struct {
	c *Cache

	mu     sync.Mutex // guards what follows
	asked  int
	stored []string
}

func (n *neighbour) Stored(key []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stored = append(n.stored, string(key))
}

func (n *neighbour) Ask(key []byte) []Handed {
	n.mu.Lock()
	n.asked++
	n.mu.Unlock()
	return n.c.HandOverOf(key)
}

func (n *neighbour) Invalidated(key []byte) { n.c.InvalidateHere(key) }

func (n *neighbour) Purged(selectors []Selector, hard bool) {
	_, _ = n.c.PurgeHere(selectors, hard)
}

// handedOver has one cache take over what another has in memory.
func handedOver(from, to *Cache) (n int) {
	for h := range from.HandOver() {
		if to.Adopt(&h) {
			n++
		}
	}
	return n
}

func TestAllOfMemoryIsHandedOver(t *testing.T) {
	old, next := newCache(t, 8<<20), newCache(t, 8<<20)
	next.SetPeer(&neighbour{c: old})
	for i := range 100 {
		r := request(fmt.Sprintf("https school.example /lessons/%d", i), field.Field{Name: "Accept-Language", Value: "ko"})
		if !old.Put(object(old, r, 3000+i, field.Field{Name: "Vary", Value: "Accept-Language"}, field.Field{Name: "Cache-Tag", Value: fmt.Sprint("t", i%2)})) {
			t.Fatal("not stored")
		}
		old.Lookup(r, &Policy{}, nine)
	}
	if n := handedOver(old, next); n != 100 {
		t.Errorf("handed over: got %d, want 100", n)
	}
	next.SetPeer(nil)
	for i := range 100 {
		r := request(fmt.Sprintf("https school.example /lessons/%d", i), field.Field{Name: "Accept-Language", Value: "ko"})
		was, is := old.Lookup(r, &Policy{}, nine), next.Lookup(r, &Policy{}, nine)
		if is.Outcome != Hit || len(is.Stored.Body) != 3000+i || is.TTL != was.TTL || fmt.Sprint(is.Stored.Fields) != fmt.Sprint(was.Stored.Fields) {
			t.Fatalf("lesson %d: got %v, %v; had %v, %v", i, is.Outcome, is.Stored, was.Outcome, was.Stored)
		}
	}
	audit(t, next)
	if counts, err := next.Purge([]Selector{{ByTag, "t1"}}, false); err != nil || counts[0] != 50 {
		t.Errorf("purging by a tag: %v, %v; want 50", counts, err)
	}
}

// Whoever hands over what memory has goes by this for what comes later.
func TestThePeerHearsWhatIsStored(t *testing.T) {
	old, next := newCache(t, 8<<20), newCache(t, 8<<20)
	there, here := &neighbour{c: next}, &neighbour{c: old}
	old.SetPeer(there)
	next.SetPeer(here)
	key := "https school.example /lessons/1"
	old.Put(object(old, begun(old, key), 100))
	if f := next.Lookup(request(key), &Policy{}, nine); f.Outcome != Hit {
		t.Errorf("the other has it: got %v", f.Outcome)
	}
	if fmt.Sprint(there.stored, here.stored) != fmt.Sprintf("[%s] []", key) {
		t.Errorf("told of %q and %q, want of %q, once, where it was not fetched", there.stored, here.stored, key)
	}
}

func TestWhatIsNotHereIsAskedForThere(t *testing.T) {
	old, next := newCache(t, 8<<20), newCache(t, 8<<20)
	there := &neighbour{c: old}
	next.SetPeer(there)
	key := "https school.example /lessons/1"
	if f := next.Lookup(request(key), &Policy{}, nine); f.Outcome != Miss || f.Reason != "uri-miss" {
		t.Errorf("nobody has it: got %v, %s", f.Outcome, f.Reason)
	}
	old.Put(object(old, begun(old, key), 100))
	for range 3 {
		if f := next.Lookup(request(key), &Policy{}, nine); f.Outcome != Hit {
			t.Errorf("the other has it: got %v", f.Outcome)
		}
	}
	if there.asked != 2 {
		t.Errorf("asked %d times, want 2: what came is here", there.asked)
	}
}

// TestWhatIsChangedIsChangedInBoth has what was sent before a change arrive
// behind it.
func TestWhatIsChangedIsChangedInBoth(t *testing.T) {
	key := "https school.example /lessons/1"
	for _, c := range []struct {
		name   string
		change func(c *Cache)
		want   Outcome
	}{
		{"invalidated", func(c *Cache) { c.Invalidate([]byte(key)) }, Miss},
		{"purged for good", func(c *Cache) { _, _ = c.Purge([]Selector{{ByURL, "school.example /lessons/1"}}, true) }, Miss},
		{"purged softly", func(c *Cache) { _, _ = c.Purge([]Selector{{ByHost, "school.example"}}, false) }, Miss},
	} {
		for _, here := range []bool{true, false} {
			old, next := newCache(t, 8<<20), newCache(t, 8<<20)
			old.SetPeer(&neighbour{c: next})
			next.SetPeer(&neighbour{c: old})
			old.Put(object(old, begun(old, key), 100))
			late := old.HandOverOf([]byte(key))
			if next.Lookup(request(key), &Policy{}, nine).Outcome != Hit {
				t.Fatal("not handed over")
			}
			if here {
				c.change(next)
			} else {
				c.change(old)
			}
			for i := range late {
				next.Adopt(&late[i])
			}
			for name, cache := range map[string]*Cache{"old": old, "new": next} {
				if f := cache.Lookup(request(key), &Policy{}, nine); f.Outcome != c.want {
					t.Errorf("%s in the new one (%v): the %s one has %v, want %v", c.name, here, name, f.Outcome, c.want)
				}
			}
		}
	}
}

func TestTheDiskGoesToTheNextProcess(t *testing.T) {
	dir := t.TempDir()
	old, endOld := onDisk(t, dir)
	for i := range 20 {
		old.Put(object(old, begun(old, fmt.Sprintf("https school.example /lessons/%d", i)), 3000))
	}
	written(t, old)
	if _, err := old.Purge([]Selector{{ByURL, "school.example /lessons/0"}}, true); err != nil {
		t.Fatal(err)
	}
	if err := old.Release(); err != nil {
		t.Fatal(err)
	}
	old.Put(object(old, begun(old, "https school.example /lessons/late"), 3000))
	next, endNext := onDisk(t, dir)
	next.SetPeer(&neighbour{c: old})
	if n := handedOver(old, next); n != 20 {
		t.Errorf("handed over: got %d, want 19 and the one that came late", n)
	}
	written(t, next)
	if st := next.Stats().Disk; st.Stored != 1 || st.Objects < 20 {
		t.Errorf("on disk: %d written again, %d there; want the late one written alone", st.Stored, st.Objects)
	}
	next.SetPeer(nil)
	if f := next.Lookup(request("https school.example /lessons/0"), &Policy{}, nine); f.Outcome != Miss {
		t.Errorf("what was purged before: got %v, want a miss", f.Outcome)
	}
	endOld()
	endNext()
	again, end := onDisk(t, dir)
	for i := 1; i < 20; i++ {
		if f := again.Lookup(request(fmt.Sprintf("https school.example /lessons/%d", i)), &Policy{}, nine); f.Outcome != Hit {
			t.Errorf("lesson %d after a restart: got %v, want a hit", i, f.Outcome)
		}
	}
	end()
}

func TestWhatWasReleasedCanBeTakenBack(t *testing.T) {
	dir := t.TempDir()
	c, end := onDisk(t, dir)
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	was, err := os.ReadFile(purgeFileIn(dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Purge([]Selector{{ByTag, "a"}}, true); err != nil {
		t.Errorf("purging while it is released: %v", err)
	}
	if is, err := os.ReadFile(purgeFileIn(dir)); err != nil || string(is) != string(was) {
		t.Errorf("released, the file of purges was changed: %v, %s", err, is)
	}
	if err := c.Retake(); err != nil {
		t.Fatal(err)
	}
	c.Put(object(c, begun(c, "https school.example /a"), 3000))
	written(t, c)
	if n := c.Stats().Disk.Objects; n != 1 {
		t.Errorf("taken back, %d are on disk, want 1", n)
	}
	end()
	var rules purges
	if err := rules.readFile(purgeFileIn(dir)); err != nil || rules.rules["ta"].hard == 0 {
		t.Errorf("the purge that came meanwhile is not written down: %v, %+v", err, rules.rules)
	}
}
