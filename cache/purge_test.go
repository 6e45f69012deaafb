package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"firstbell/proxy/field"
)

func purge(t testing.TB, c *Cache, hard bool, s ...Selector) []int64 {
	t.Helper()
	counts, err := c.Purge(s, hard)
	if err != nil {
		t.Fatalf("Purge: %v", err)
	}
	return counts
}

func tagged(c *Cache, key, tag string) *Stored {
	return object(c, request(key), 10, field.Field{Name: "Surrogate-Key", Value: tag})
}

func TestSelectorsThatMeanNothingAreRefused(t *testing.T) {
	c := newCache(t, 1<<20)
	for _, s := range []Selector{
		{ByURL, "school.example"}, {ByURL, "school.example lessons"}, {ByURL, ""}, {ByTag, ""}, {ByHost, ""},
		{ByPrefix, "school.example"}, {ByPrefix, "school.example lessons"}, {'x', "a"},
		{ByPrefix, "a " + strings.Repeat("/a", prefixDepthMax+1)}, {ByTag, strings.Repeat("a", selectorBytesMax+1)},
	} {
		if _, err := c.Purge([]Selector{{ByHost, "*"}, s}, true); err == nil {
			t.Errorf("purging by %v %.40q: no error", s.By, s.Text)
		}
	}
	if got := c.purges.latest.Load(); got != 0 {
		t.Errorf("a refused purge is in force as generation %d", got)
	}
}

func TestDryRunCountsAndChangesNothing(t *testing.T) {
	c := newCache(t, 4<<20)
	for i := range 100 {
		c.Put(tagged(c, fmt.Sprintf("http school.example /%d", i), fmt.Sprint("grade-", i%4)))
	}
	counts, whole, err := c.CountPurge(t.Context(), []Selector{{ByTag, "grade-1"}, {ByHost, "school.example"}, {ByTag, "grade-9"}})
	if err != nil || !whole || fmt.Sprint(counts) != "[25 100 0]" {
		t.Errorf("counts %v, %v; want [25 100 0]", counts, err)
	}
	for i := range 100 {
		if f := c.Lookup(request(fmt.Sprintf("http school.example /%d", i)), &Policy{}, nine); f.Outcome != Hit {
			t.Fatalf("after a dry run: %v, want hit", f.Outcome)
		}
	}
	purge(t, c, true, Selector{ByTag, "grade-1"}, Selector{ByTag, "grade-2"})
	if s := c.Stats(); s.Objects != 50 || s.Purges != 2 {
		t.Errorf("%d objects, %d purges; want 50 and 2: a hard purge gives its memory back", s.Objects, s.Purges)
	}
	audit(t, c)
}

// What only the disk holds is counted, and what both hold once.
func TestDryRunCountsWhatLiesOnDisk(t *testing.T) {
	dir := t.TempDir()
	put := func(c *Cache, from, to int) {
		for i := from; i < to; i++ {
			c.Put(tagged(c, fmt.Sprintf("http school.example /%d", i), "lesson"))
		}
		written(t, c)
	}
	before, end := onDisk(t, dir)
	put(before, 0, 30)
	end()
	c, end := onDisk(t, dir)
	defer end()
	put(c, 20, 40) // ten of them anew
	want := func(ctx context.Context, counted, third int64, all bool) {
		t.Helper()
		counts, whole, err := c.CountPurge(ctx, []Selector{{ByTag, "lesson"}, {ByTag, "lesson"}, {ByURL, "school.example /3"}})
		if err != nil || whole != all || counts[0] != counted || counts[1] != counted || all && counts[2] != third {
			t.Errorf("counts %v, whole %t, %v; want %d twice and %d, %t", counts, whole, err, counted, third, all)
		}
	}
	want(t.Context(), 40, 1, true)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	want(over, 20, 0, false)
	purge(t, c, true, Selector{ByPrefix, "school.example /3"})
	want(t.Context(), 39, 0, true)
}

// Many write, purge and look at once. Whoever looks after a hard purge has
// returned never sees what a fetch from before it brought.
func TestNoLookupFindsWhatWasPurgedBeforeItBegan(t *testing.T) {
	c := newCache(t, 4<<20)
	var began, returned atomic.Uint64 // the youngest purge that did
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(9, uint64(w)))
			for range 2000 {
				key := fmt.Sprintf("http school.example /%d", rnd.IntN(20))
				r := request(key)
				c.Begin(r)
				brought := began.Load() // younger purges began after the fetch
				res := field.List{{Name: "Cache-Control", Value: "max-age=60"}, {Name: "Cache-Tag", Value: "all"}, {Name: "X-Purge", Value: fmt.Sprint(brought)}}
				s := c.NewStored(r, Judge(r, &Policy{}, 200, res, nine, nine), 200, res, nil, nine, nine)
				if rnd.IntN(3) == 0 {
					c.Put(s)
				}
				before := returned.Load()
				if f := c.Lookup(request(key), &Policy{}, nine); f.Stored != nil {
					var got uint64
					fmt.Sscan(f.Stored.Fields.Get("X-Purge"), &got)
					if got < before {
						t.Errorf("a look-up after purge %d found what was fetched before purge %d", before, got+1)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for n := range uint64(100) {
			began.Store(n + 1)
			if _, err := c.Purge([]Selector{{ByTag, "all"}}, true); err != nil {
				t.Error(err)
			}
			returned.Store(n + 1)
		}
	})
	wg.Wait()
	audit(t, c)
}

func TestRulesBeyondTheBoundAreForgottenSafely(t *testing.T) {
	c := newCache(t, 8<<20)
	early := request("http school.example /early")
	c.Begin(early)
	kept := request("http school.example /kept")
	c.Put(object(c, kept, 10))
	doomed := request("http school.example /doomed")
	c.Put(object(c, doomed, 10))
	purge(t, c, true, Selector{ByURL, "school.example /doomed"})
	softened := request("http school.example /softened")
	c.Put(object(c, softened, 10))
	purge(t, c, false, Selector{ByURL, "school.example /softened"})
	many := make([]Selector, rulesMax/8)
	for i := range 9 {
		for j := range many {
			many[j] = Selector{ByTag, fmt.Sprint(i, "-", j)}
		}
		purge(t, c, true, many...)
	}
	if n := len(c.purges.rules); n > rulesMax {
		t.Errorf("%d rules are remembered, want at most %d", n, rulesMax)
	}
	for _, test := range []struct {
		r    *Request
		want Outcome
		held bool
	}{{kept, Hit, true}, {doomed, Miss, false}, {softened, Miss, true}} {
		if f := c.Lookup(test.r, &Policy{}, nine); f.Outcome != test.want || (f.Stored != nil) != test.held {
			t.Errorf("%s: %v, stored %v; want %v, %v", test.r.Key, f.Outcome, f.Stored != nil, test.want, test.held)
		}
	}
	res := field.List{{Name: "Cache-Control", Value: "max-age=60"}}
	if c.Put(c.NewStored(early, Judge(early, &Policy{}, 200, res, nine, nine), 200, res, nil, nine, nine)) {
		t.Error("a fetch from before what is forgotten was stored, although it might have been purged")
	}
}

func TestPurgesOutliveTheProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "purges")
	open := func() *Cache {
		c, err := New(Options{MemoryBytes: 1 << 20, PurgeFile: file})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := open()
	gone, soft, fine := tagged(c, "http a /gone", "x"), tagged(c, "http a /soft", "y"), tagged(c, "http a /fine", "z")
	purge(t, c, true, Selector{ByTag, "x"}, Selector{ByTag, "line\nbreak \"quote\" \xff"})
	purge(t, c, false, Selector{ByTag, "y"})
	later := tagged(c, "http a /gone", "x")
	c.Close()

	// A torn line is what a crash leaves of a purge that nobody was told of.
	f, _ := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString("99999999999999999 hard \"tz")
	f.Close()
	c = open()
	for _, test := range []struct {
		s          *Stored
		gone, soft bool
	}{{gone, true, false}, {soft, false, true}, {fine, false, false}, {later, false, false}} {
		test.s.seen.Store(test.s.born) // as one that was read from a disk
		test.s.soft.Store(0)
		if got := c.purged(test.s); got != test.gone || (test.s.soft.Load() != 0) != test.soft {
			t.Errorf("after a restart %s: purged %v, soft %v; want %v, %v", test.s.key, got, test.s.soft.Load() != 0, test.gone, test.soft)
		}
	}
	if n := len(c.purges.rules); n != 3 {
		t.Errorf("%d rules, want 3", n)
	}
	newest := tagged(c, "http a /new", "z")
	c.Close()

	text, _ := os.ReadFile(file)
	os.WriteFile(file, []byte(strings.Replace(string(text), "hard", "soft", 1)), 0o600)
	c = open()
	for _, s := range []*Stored{gone, soft, fine, later, newest} {
		s.seen.Store(s.born)
		if !c.purged(s) {
			t.Errorf("a rule was damaged, and %s, which it may have meant, is served", s.key)
		}
	}
	if s := tagged(c, "http a /new", "z"); c.purged(s) {
		t.Error("what is stored after the damage was found is not served")
	}
}

func TestPurgeThatCannotBeWrittenDownHoldsAndSaysSo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{MemoryBytes: 1 << 20, PurgeFile: filepath.Join(dir, "purges")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Put(tagged(c, "http a /a", "x"))
	c.purges.file.f.Close() // a disk that fails
	os.RemoveAll(dir)
	if _, err := c.Purge([]Selector{{ByTag, "x"}}, true); err == nil || !strings.Contains(err.Error(), "writing down") {
		t.Errorf("error %v, want one about writing the purge down", err)
	}
	if f := c.Lookup(request("http a /a"), &Policy{}, nine); f.Stored != nil {
		t.Error("the purge does not hold")
	}
	os.Mkdir(dir, 0o700)
	if _, err := c.Purge([]Selector{{ByTag, "y"}}, true); err != nil {
		t.Errorf("the disk works again: %v", err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "purges")); strings.Count(string(text), "hard") != 2 {
		t.Errorf("the file holds\n%s\nwant both purges", text)
	}
}

func TestLookupAfterAPurgeAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("with -race, sync.Pool drops a part of what it is given on purpose")
	}
	c := newCache(t, 1<<20)
	r := request("http www.school.example /lessons/a/b?c")
	c.Put(object(c, r, 10, field.Field{Name: "Cache-Tag", Value: "a,b"}))
	n := testing.AllocsPerRun(1000, func() {
		c.purges.latest.Add(1) // as a purge does
		if f := c.Lookup(r, &Policy{}, nine); f.Outcome != Hit {
			t.Fatalf("%v, want hit", f.Outcome)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
