package cache

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"firstbell/proxy/field"
)

func TestAcceptEncodingIsReadByTheLetter(t *testing.T) {
	for _, c := range []struct {
		value string
		want  string // weights of identity, gzip, zstd, br
		best  Coding
	}{
		{"gzip", "[1 1000 0 0]", Gzip},
		{"gzip, deflate, br, zstd", "[1 1000 1000 1000]", Brotli},
		{"gzip;q=0.5,br;q=0.25", "[1 500 0 250]", Gzip},
		{" GZip ;\tQ=0.123 ", "[1 123 0 0]", Gzip},
		{"x-gzip", "[1 1000 0 0]", Gzip},
		{"*", "[1000 1000 1000 1000]", Brotli},
		{"*;q=0", "[0 0 0 0]", OtherCoding},
		{"*;q=0, br", "[0 0 0 1000]", Brotli},
		{"identity;q=0, *;q=0.5, br;q=0", "[0 500 500 0]", Zstd},
		{"identity;q=0", "[0 0 0 0]", OtherCoding},
		{"identity", "[1000 0 0 0]", Identity},
		{"identity;q=0.5, gzip;q=0.4", "[500 400 0 0]", Identity},
		{"gzip;q=0", "[1 0 0 0]", Identity},
		{"gzip;q=0.000", "[1 0 0 0]", Identity},
		{"gzip;q=1.", "[1 1000 0 0]", Gzip},
		{"", "[1 0 0 0]", Identity},
		{",, ,gzip,", "[1 1000 0 0]", Gzip},
		{"gzip;q=0, gzip", "[1 0 0 0]", Identity}, // the first counts
		{"deflate, compress", "[1 0 0 0]", Identity},
		// What is malformed counts for nothing.
		{"gzip;q=1.5, br", "[1 0 0 1000]", Brotli},
		{"gzip;q=-1", "[1 0 0 0]", Identity},
		{"gzip;q=0.1234", "[1 0 0 0]", Identity},
		{"gzip;q=.5", "[1 0 0 0]", Identity},
		{"gzip;q", "[1 0 0 0]", Identity},
		{"gzip;q=", "[1 0 0 0]", Identity},
		{"gzip;level=9", "[1 0 0 0]", Identity},
		{"gzip;q=1;q=0", "[1 0 0 0]", Identity},
		{"gzip br", "[1 0 0 0]", Identity},
		{";q=1", "[1 0 0 0]", Identity},
	} {
		a := ReadAccepts(field.List{{Name: "accept-encoding", Value: c.value}})
		if got := fmt.Sprint(a.weights); got != c.want || a.Best() != c.best {
			t.Errorf("%q: weights %s, best %s; want %s, %s", c.value, got, a.Best(), c.want, c.best)
		}
	}
	lines := ReadAccepts(field.List{{Name: "Accept-Encoding", Value: "br"}, {Name: "Accept-Encoding", Value: "gzip;q=0"}})
	if got := fmt.Sprint(lines.weights); got != "[1 0 0 1000]" {
		t.Errorf("two lines: weights %s, want those of both", got)
	}
	none := ReadAccepts(field.List{})
	if none.Best() != Identity || !none.Refuses(Gzip) || !none.Takes(Gzip) {
		t.Errorf("no Accept-Encoding: best %s; want identity, though any coding is taken by the letter", none.Best())
	}
}

// coded is a stored response of size bytes and what its variants would be.
func coded(c *Cache, key string, size int, fields ...field.Field) (*Request, *Stored) {
	r := request(key)
	s := object(c, r, size, fields...)
	c.Put(s)
	return r, s
}

func TestVariantsAreAccountedAndGoWithTheirParent(t *testing.T) {
	c := newCache(t, 4<<20)
	r, s := coded(c, "http a /lesson", 20<<10, field.Field{Name: "ETag", Value: `"v1"`})
	before := bytesOf(c)
	for _, to := range []Coding{Gzip, Brotli} {
		if !c.KeepCoded(s, to, make([]byte, 5<<10)) {
			t.Fatalf("%s is not kept", to)
		}
	}
	audit(t, c)
	if grown := bytesOf(c) - before; grown < 10<<10 || grown > 14<<10 {
		t.Errorf("two variants of 5 KiB are accounted with %d bytes", grown)
	}
	f := c.Lookup(r, &Policy{}, nine)
	if f.Stored.In(Gzip) == nil || f.Stored.In(Brotli) == nil || f.Stored.In(Zstd) != nil || f.Stored.In(Identity) != s {
		t.Errorf("found with gzip %v, br %v, zstd %v", f.Stored.In(Gzip), f.Stored.In(Brotli), f.Stored.In(Zstd))
	}
	v := s.In(Brotli)
	if got := v.Fields.Get("ETag") + v.Fields.Get("Content-Encoding") + v.Fields.Get("Vary"); got != `"v1~br"brAccept-Encoding` {
		t.Errorf("the variant says %s", got)
	}
	// The same bytes again: nothing is made anew.
	again := object(c, r, 20<<10, field.Field{Name: "ETag", Value: `"v2"`})
	c.Put(again)
	audit(t, c)
	if v := again.In(Brotli); v == nil || v.Fields.Get("ETag") != `"v2~br"` {
		t.Errorf("the same content under another tag: variant %v, want the old bytes with the new tag", v)
	}
	if c.KeepCoded(s, Zstd, make([]byte, 1<<10)) {
		t.Error("a variant of what was replaced is kept")
	}
	// Other bytes: the variants are of the past.
	other := object(c, r, 21<<10)
	c.Put(other)
	audit(t, c)
	if other.In(Brotli) != nil {
		t.Error("other content has the variants of what it replaced")
	}
	c.KeepCoded(other, Brotli, make([]byte, 5<<10))
	c.Invalidate(r.Key)
	audit(t, c)
	if n := bytesOf(c); n != 0 {
		t.Errorf("%d bytes are accounted after everything was invalidated", n)
	}
	if c.KeepCoded(other, Gzip, make([]byte, 5<<10)) || c.Holds(other) {
		t.Error("a variant of what was invalidated is kept")
	}
}

func TestVariantsStayWithinTheBudget(t *testing.T) {
	c := newCache(t, 1<<20)
	for i := range 300 {
		_, s := coded(c, fmt.Sprint("key ", i), 2<<10)
		for to := Gzip; to < OtherCoding; to++ {
			c.KeepCoded(s, to, make([]byte, 1<<10))
		}
		if i%50 == 0 {
			audit(t, c)
		}
	}
	_, s := coded(c, "large", int(c.MaxObjectBytes())-4<<10)
	if c.KeepCoded(s, Gzip, make([]byte, 8<<10)) {
		t.Error("a variant is kept that makes its entry too large")
	}
	audit(t, c)
}

// TestVariantsWhileEverythingMoves has variants made, asked for, freshened and
// invalidated at once.
func TestVariantsWhileEverythingMoves(t *testing.T) {
	c := newCache(t, 2<<20)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 300 {
				r := request(fmt.Sprint("key ", i%7))
				f := c.Lookup(r, &Policy{}, nine)
				switch {
				case f.Stored == nil:
					c.Put(object(c, r, 2<<10, field.Field{Name: "ETag", Value: `"v1"`}))
				case i%11 == worker:
					c.Invalidate(r.Key)
				case i%5 == worker:
					c.Begin(r)
					c.Freshen(f.Stored, r, &Policy{}, field.List{{Name: "ETag", Value: `"v1"`}, {Name: "Cache-Control", Value: "max-age=60"}}, nine, nine)
				default:
					c.KeepCoded(f.Stored, Coding(1+i%3), bytes.Repeat([]byte{'x'}, 512))
				}
			}
		})
	}
	all.Wait()
	audit(t, c)
}

func TestAWishIsGrantedOnce(t *testing.T) {
	c := newCache(t, 1<<20)
	_, s := coded(c, "key", 2<<10)
	var granted []int
	for i := range 10 {
		if s.Wish(Brotli) {
			granted = append(granted, i)
		}
	}
	if fmt.Sprint(granted) != "[1]" {
		t.Errorf("wishes %v were granted, want the second alone", granted)
	}
	s.Unwish(Brotli)
	if s.Wish(Brotli) || !s.Wish(Brotli) {
		t.Error("after Unwish the second wish is not the one that is granted")
	}
}

func TestUntouchableIsSaidInManyWays(t *testing.T) {
	for text, want := range map[string]bool{
		"Cache-Control: max-age=60, no-transform": true, "cache-control: NO-TRANSFORM": true,
		"Content-MD5: x": true, "Digest: x": true, "Content-Digest: x": true, "Repr-Digest: x": true, "Content-Range: x": true,
		"Cache-Control: max-age=60": false, "X-Digest: x": false, "Want-Digest: x": false,
	} {
		name, value, _ := strings.Cut(text, ": ")
		if got := Untouchable(field.List{{Name: "Date", Value: "x"}, {Name: name, Value: value}}); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

// TestAGeneratedTagIsNotTheOrigins: a tag of ours never validates at the origin,
// and a 304 that brings a tag speaks of other content than ours.
func TestAGeneratedTagIsNotTheOrigins(t *testing.T) {
	c := newCache(t, 1<<20)
	r, s := coded(c, "key", 2<<10, field.Field{Name: "Last-Modified", Value: nine.Add(-time.Hour).Format(httpDate)})
	if tag := s.Fields.Get("ETag"); !strings.HasPrefix(tag, `"~`) {
		t.Fatalf("ETag %q, want one of ours", tag)
	}
	if got := s.Validators(nil); len(got) != 1 || got[0].Name != "If-Modified-Since" {
		t.Errorf("validators %v, want If-Modified-Since alone", got)
	}
	if _, ok := c.Freshen(s, r, &Policy{}, field.List{{Name: "ETag", Value: s.Fields.Get("ETag")}}, nine, nine); ok {
		t.Error("a 304 with a tag freshens what has none of the origin")
	}
	fresh, ok := c.Freshen(s, r, &Policy{}, field.List{{Name: "Cache-Control", Value: "max-age=9"}}, nine, nine)
	if !ok || fresh.Fields.Get("ETag") != s.Fields.Get("ETag") || len(fresh.Validators(nil)) != 1 {
		t.Errorf("freshened %v: ETag %q, validators %v", ok, fresh.Fields.Get("ETag"), fresh.Validators(nil))
	}
}

func FuzzAccepts(f *testing.F) {
	for _, s := range []string{"gzip", "br;q=0.5, *;q=0", "identity;q=0", "gzip;q=1.0001", ";;q=,", "*;q=0.000,*;q=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		a := ReadAccepts(field.List{{Name: "Accept-Encoding", Value: value}})
		best := a.Best()
		for c := range OtherCoding {
			if a.weights[c] > 1000 {
				t.Fatalf("%q: %s has weight %d", value, c, a.weights[c])
			}
			if best == OtherCoding && !a.Refuses(c) || best != OtherCoding && a.weights[c] > a.weights[best] {
				t.Fatalf("%q: best is %s, but %s has weight %d", value, best, c, a.weights[c])
			}
		}
		lines := ReadAccepts(field.List{{Name: "Accept-Encoding", Value: ""}, {Name: "Accept-Encoding", Value: value}})
		if lines != a {
			t.Fatalf("%q: another line before it makes %v of %v", value, lines, a)
		}
	})
}

func FuzzTags(f *testing.F) {
	f.Add([]byte(`"abc", W/"abc~br", "~abcdefghij~gzip"`), `"abc"`)
	f.Add([]byte(`"~", "~~gzip", "~gzip"`), `W/"~gzip"`)
	f.Fuzz(func(t *testing.T, list []byte, tag string) {
		own, changed := OriginTags(list)
		if again, more := OriginTags(own); changed && more && len(again) > len(own) {
			t.Fatalf("%q is %q to the origin, and again %q", list, own, again)
		}
		if !changed && !bytes.Equal(own, list) {
			t.Fatalf("%q is %q although nothing was changed", list, own)
		}
		if _, _, ok := parseETag([]byte(tag)); !ok {
			return
		}
		for c := range OtherCoding {
			coded := CodedTag(tag, c)
			if sameWeak([]byte(coded), []byte(tag)) {
				t.Fatalf("%s in %s has the same tag", tag, c)
			}
			if own, changed := OriginTags([]byte(coded)); !changed || !sameWeak(own, []byte(tag)) && len(own) > 0 {
				t.Fatalf("%s in %s is %s, which is %s to the origin", tag, c, coded, own)
			}
			if got := ClientTag([]byte(coded), tag); !sameWeak([]byte(got), []byte(coded)) {
				t.Fatalf("who has %s hears of %s", coded, got)
			}
		}
	})
}

// TestASpooledBodyGetsATag as one in memory does, through a restart.
func TestASpooledBodyGetsATag(t *testing.T) {
	dir := t.TempDir()
	c, end := onDisk(t, dir)
	r := request("http school.example /film")
	res := field.List{{Name: "Cache-Control", Value: "max-age=3600"}, {Name: "Content-Type", Value: "video/mp4"}}
	body := bytes.Repeat([]byte("film"), 1<<19)
	c.Begin(r)
	v := Judge(r, &Policy{}, 200, res, nine, nine)
	want := c.NewStored(r, v, 200, res, body, nine, nine).Fields.Get("ETag")
	head := c.NewStored(r, v, 200, res, nil, nine, nine)
	if head.Fields.Has("ETag") {
		t.Errorf("ETag %s before the content is there", head.Fields.Get("ETag"))
	}
	w, err := c.Spool(head)
	if err != nil {
		t.Fatal(err)
	}
	for half := range 2 {
		w.Write(body[half<<20 : (half+1)<<20])
	}
	kept, ok := w.Keep()
	if !ok || kept.Fields.Get("ETag") != want || head.Fields.Has("ETag") {
		t.Fatalf("Keep: %v, ETag %s; want %s", ok, kept.Fields.Get("ETag"), want)
	}
	for range 2 {
		f := c.Lookup(r, &Policy{}, nine)
		if f.Outcome != Hit || f.Stored.Fields.Get("ETag") != want || len(f.Stored.Validators(nil)) != 0 {
			t.Errorf("%s with ETag %s; want a hit with %s, of which the origin hears nothing", f.Outcome, f.Stored.Fields.Get("ETag"), want)
		}
		end()
		c, end = onDisk(t, dir)
	}
	end()
}
