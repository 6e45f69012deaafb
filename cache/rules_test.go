package cache

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"firstbell/proxy/field"
)

// nine is when the bell rings in these tests.
var nine = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

func TestCacheControlIsReadToTheLetter(t *testing.T) {
	want := func(change func(*directives)) directives {
		c := noDirectives()
		change(&c)
		return c
	}
	for _, test := range []struct {
		value string
		want  directives
	}{
		{"", noDirectives()},
		{", ,\t,", noDirectives()},
		{"max-age=60", want(func(c *directives) { c.maxAge = 60 })},
		{"Max-Age=\"60\"", want(func(c *directives) { c.maxAge = 60 })},
		{"max-age=6\\0", want(func(c *directives) { c.maxAge = invalid })},
		{`max-age="6\0"`, want(func(c *directives) { c.maxAge = 60 })},
		{"max-age", want(func(c *directives) { c.maxAge = invalid })},
		{"max-age=", want(func(c *directives) { c.maxAge = invalid })},
		{"max-age=1.5", want(func(c *directives) { c.maxAge = invalid })},
		{"max-age=+5", want(func(c *directives) { c.maxAge = invalid })},
		{"max-age=60 max-age=70", want(func(c *directives) { c.maxAge = invalid })},
		{"x max-age=60", want(func(c *directives) { c.maxAge = invalid })},
		{"max-age=60;s-maxage=70", want(func(c *directives) { c.maxAge, c.sMaxAge = invalid, invalid })},
		{"max-age=4294967296", want(func(c *directives) { c.maxAge = deltaMax })},
		{"max-age=1,max-age=2", want(func(c *directives) { c.maxAge = 1 })},
		{"max-agee=60, xmax-age=60, max_age=60", noDirectives()},
		{"no-store=yes", want(func(c *directives) { c.noStore = true })},
		{"public=yes", noDirectives()},
		{"public, private", want(func(c *directives) { c.public, c.private = true, true })},
		{"must-understand", want(func(c *directives) { c.mustUnderstand, c.understood = true, true })},
		{"must-understand=1", want(func(c *directives) { c.mustUnderstand = true })},
		{`no-cache="A, b"`, want(func(c *directives) { c.withheld = []string{"A", "b"} })},
		{`no-cache="A", no-cache`, want(func(c *directives) { c.noCache = true; c.withheld = []string{"A"} })},
		{`no-cache, no-cache="A"`, want(func(c *directives) { c.noCache = true; c.withheld = []string{"A"} })},
		{`private="A" x`, want(func(c *directives) { c.private = true })},
		{`private="A;b"`, want(func(c *directives) { c.private = true })},
		{`x="no-store`, want(func(c *directives) { c.malformed = true })},
		{`x="no-store\"`, want(func(c *directives) { c.malformed = true })},
		{`"no-store", max-age=1`, want(func(c *directives) { c.maxAge = 1 })},
		{"=no-store", noDirectives()},
		{"@, (no-store), max-age=1", want(func(c *directives) { c.noStore = true; c.maxAge = 1 })},
		{"no-storeé", want(func(c *directives) { c.noStore = true })},
		{"a-directive-with-a-name-longer-than-any-known=1, max-age=1", want(func(c *directives) { c.maxAge = 1 })},
	} {
		if got := parseControl([]byte(test.value)); fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("parseControl(%q) = %+v, want %+v", test.value, got, test.want)
		}
	}
}

func TestTargetedControlIsADictionary(t *testing.T) {
	want := func(change func(*directives)) string {
		c := noDirectives()
		change(&c)
		return fmt.Sprint(c, true)
	}
	for value, want := range map[string]string{
		"public, must-understand, no-transform": want(func(c *directives) {
			c.public, c.mustUnderstand, c.understood, c.noTransform = true, true, true, true
		}),
		"public=?0, must-revalidate=?0":     want(func(*directives) {}),
		"must-revalidate, proxy-revalidate": want(func(c *directives) { c.mustRevalidate, c.proxyRevalidate = true, true }),
		"s-maxage=1, stale-while-revalidate=2, stale-if-error=3": want(func(c *directives) {
			c.sMaxAge, c.staleWhileRevalidate, c.staleIfError = 1, 2, 3
		}),
		`private="A, b", no-cache="c"`: want(func(c *directives) { c.withheld = []string{"A", "b", "c"} }),
		`private="a b"`:                want(func(c *directives) { c.private = true }),
		"no-store=1, private=x/y:z":    want(func(c *directives) { c.noStore, c.private = true, true }),
		"max-age=1, max-age=2":         want(func(c *directives) { c.maxAge = 2 }),
		`a=("b" c;d=1 );e, x=%"y"`:     want(func(*directives) {}),
		`a="\"\\"`:                     want(func(*directives) {}),
		"":                             "ignored", "max-age=-1": "ignored", "max-age=1.5": "ignored", "max-age": "ignored",
		"max-age=1234567890123456": "ignored", "a=1.2345": "ignored", "a=(b": "ignored", "a=(1,2)": "ignored", `a="\x"`: "ignored",
		`a="b`: "ignored", "a=:b": "ignored", "a=@1.5": "ignored", "a=?2": "ignored", "a;B": "ignored", "a b": "ignored", "a=\"\t\"": "ignored",
	} {
		c, ok := parseTargeted([]byte(value))
		got := fmt.Sprint(c, ok)
		if !ok {
			got = "ignored"
		}
		if got != want {
			t.Errorf("parseTargeted(%q) = %s, want %s", value, got, want)
		}
	}
}

func TestDatesAreReadInThreeFormsAndNoOther(t *testing.T) {
	at := func(y int, m time.Month, d, h, mi, s int) time.Time { return time.Date(y, m, d, h, mi, s, 0, time.UTC) }
	for _, test := range []struct {
		value string
		want  time.Time // zero: no date
	}{
		{"Sun, 06 Nov 1994 08:49:37 GMT", at(1994, 11, 6, 8, 49, 37)},
		{"sun, 06 NOV 1994 08:49:37 gmt", at(1994, 11, 6, 8, 49, 37)},
		{"Mon, 06 Nov 1994 08:49:37 GMT", at(1994, 11, 6, 8, 49, 37)},
		{"Sunday, 06-Nov-94 08:49:37 GMT", at(1994, 11, 6, 8, 49, 37)},
		{"Thursday, 18-Aug-50 02:01:18 GMT", at(2050, 8, 18, 2, 1, 18)},
		{"Sunday, 06-Nov-76 08:49:37 GMT", at(2076, 11, 6, 8, 49, 37)},
		{"Sunday, 06-Nov-77 08:49:37 GMT", at(1977, 11, 6, 8, 49, 37)},
		{"Sun Nov  6 08:49:37 1994", at(1994, 11, 6, 8, 49, 37)},
		{"Sun Nov 16 08:49:37 1994", at(1994, 11, 16, 8, 49, 37)},
		{"Sat, 31 Dec 2016 23:59:60 GMT", at(2017, 1, 1, 0, 0, 0)},
		{"Fri, 29 Feb 2024 00:00:00 GMT", at(2024, 2, 29, 0, 0, 0)},
		{"Fri, 29 Feb 2023 00:00:00 GMT", time.Time{}},
		{"Fri, 00 Mar 2023 00:00:00 GMT", time.Time{}},
		{"Sun, 06 Nov 1994 24:00:00 GMT", time.Time{}},
		{"Sun, 06 Nov 1994 08:49:37 UTC", time.Time{}},
		{"Sun, 06 Nov 1994 08:49:37 +0000", time.Time{}},
		{"Sun, 06 Nov 1994 08:49:37", time.Time{}},
		{"Sun, 06 Nov 1994 8:49:37 GMT", time.Time{}},
		{"Sun, 06 Nov 1994 08.49.37 GMT", time.Time{}},
		{"Sun, 06  Nov 1994 08:49:37 GMT", time.Time{}},
		{"Sun 06 Nov 1994 08:49:37 GMT", time.Time{}},
		{"Sun, 06-Nov-1994 08:49:37 GMT", time.Time{}},
		{"Sun, 06-Nov-94 08:49:37 GMT", time.Time{}},
		{"Sun, 06 Nov 94 08:49:37 GMT", time.Time{}},
		{"Someday, 06-Nov-94 08:49:37 GMT", time.Time{}},
		{"Sun, 06 Nuv 1994 08:49:37 GMT", time.Time{}},
		{"Sun, -6 Nov 1994 08:49:37 GMT", time.Time{}},
		{"1994-11-06T08:49:37Z", time.Time{}},
		{"784111777", time.Time{}},
		{"", time.Time{}},
		{",", time.Time{}},
	} {
		got, ok := parseDate([]byte(test.value), nine)
		if ok != !test.want.IsZero() || ok && !got.Equal(test.want) {
			t.Errorf("parseDate(%q) = %v, %v; want %v", test.value, got, ok, test.want)
		}
	}
}

func TestEntityTagsAreComparedAsTheyAreMeant(t *testing.T) {
	for _, test := range []struct {
		a, b         string
		strong, weak bool
	}{
		{`"1"`, `"1"`, true, true},
		{`W/"1"`, `"1"`, false, true},
		{`W/"1"`, `W/"1"`, false, true},
		{`W/"1"`, `W/"2"`, false, false},
		{`"1"`, `"2"`, false, false},
		{`""`, `""`, true, true},
		{`"a,b"`, `"a,b"`, true, true},
		{"\"\xc3\xbc\"", "\"\xc3\xbc\"", true, true},
		{`w/"1"`, `w/"1"`, false, false},
		{`1`, `1`, false, false},
		{`"1`, `"1`, false, false},
		{`"a b"`, `"a b"`, false, false},
		{`"1"x`, `"1"x`, false, false},
		{``, ``, false, false},
	} {
		if got := sameStrong([]byte(test.a), []byte(test.b)); got != test.strong {
			t.Errorf("sameStrong(%s, %s) = %v, want %v", test.a, test.b, got, test.strong)
		}
		if got := sameWeak([]byte(test.a), []byte(test.b)); got != test.weak {
			t.Errorf("sameWeak(%s, %s) = %v, want %v", test.a, test.b, got, test.weak)
		}
	}
}

// ifNoneMatch reports whether an If-None-Match names content with the tag.
func ifNoneMatch(value, tag []byte) bool {
	_, ok := (&Stored{etag: tag}).ifNoneMatch(value, Identity, new(Accepts))
	return ok
}

func TestIfNoneMatchFindsItsTag(t *testing.T) {
	for value, want := range map[string]bool{
		`"x"`: true, `W/"x"`: true, `"a", "x"`: true, `,, "a",W/"x" ,`: true, ` * `: true, `"a,x","x"`: true,
		`"a"`: false, `"a" "x"`: false, `x`: false, `"a", x`: false, `*, "a"`: false, ``: false, `"x`: false, `"a;"x"`: false,
	} {
		if got := ifNoneMatch([]byte(value), []byte(`"x"`)); got != want {
			t.Errorf("If-None-Match: %s matches \"x\": got %v, want %v", value, got, want)
		}
	}
	if ifNoneMatch([]byte(`bad`), []byte(`bad`)) {
		t.Error("a stored ETag that is none matches")
	}
}

func TestVaryNamesAreCanonicalSortedAndOnce(t *testing.T) {
	for value, want := range map[string]string{
		"":                        "[] true",
		"cookie, ACCEPT , cookie": "[Accept Cookie] true",
		"x-a-b":                   "[X-A-B] true",
		"*":                       "[] false",
		"a, *":                    "[] false",
		"a b":                     "[] false",
		"a;q=1":                   "[] false",
		"*a":                      "[*a] true",
	} {
		names, ok := parseVary([]byte(value))
		if got := fmt.Sprint(names, ok); got != want {
			t.Errorf("parseVary(%q) = %s, want %s", value, got, want)
		}
	}
}

func TestVariantKeysOfDifferentRequestsDiffer(t *testing.T) {
	vary := []string{"A", "B"}
	requests := []field.List{
		nil,
		{{Name: "A"}},
		{{Name: "B"}},
		{{Name: "A", Value: "1"}},
		{{Name: "B", Value: "1"}},
		{{Name: "A", Value: "1"}, {Name: "B", Value: "1"}},
		{{Name: "A", Value: "1B\x00"}},
		{{Name: "A", Value: "\"1, 2\""}},
		{{Name: "A", Value: "\"1,2\""}},
		{{Name: "A", Value: "1 2"}},
		{{Name: "A", Value: "1,2"}},
	}
	seen := map[string]int{}
	for i, r := range requests {
		key := string(VariantKey(nil, vary, r))
		if j, there := seen[key]; there {
			t.Errorf("requests %v and %v share the variant key %q", requests[j], r, key)
		}
		seen[key] = i
	}
	many := strings.Repeat("x,", 40) + "y"
	if a, b := VariantKey(nil, []string{"Accept-Encoding"}, field.List{{Name: "accept-encoding", Value: many}}),
		VariantKey(nil, []string{"Accept-Encoding"}, field.List{{Name: "accept-encoding", Value: many + ",z"}}); bytes.Equal(a, b) {
		t.Error("long lists that differ share a variant key")
	}
}

// headers is a field section without PeekAll, like an exchange's own.
type headers struct{ field.List }

func TestFieldsAreReadTheSameWhateverTheirType(t *testing.T) {
	l := field.List{{Name: "A", Value: ""}, {Name: "a", Value: "1"}, {Name: "B", Value: "2"}, {Name: "A", Value: "3"}}
	for _, f := range []field.Fields{l, headers{l}, peeker{l}} {
		if v, there := allLines(f, "A"); string(v) != ",1,3" || !there {
			t.Errorf("%T: all lines of A are %q, %v; want \",1,3\"", f, v, there)
		}
		if v, there := allLines(f, "C"); there {
			t.Errorf("%T: C is there: %q", f, v)
		}
	}
	if _, there := allLines(nil, "A"); there {
		t.Error("no fields at all have an A")
	}
}

// peeker has PeekAll, as fasthttp's headers do.
type peeker struct{ field.List }

func (p peeker) PeekAll(name string) (all [][]byte) {
	for n, v := range p.All() {
		if field.EqualName(n, name) {
			all = append(all, v)
		}
	}
	return all
}

func TestAgesNeverOverflow(t *testing.T) {
	year9999 := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	year1 := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, times := range [][3]time.Time{
		{year1, nine, nine}, {year9999, nine, nine}, {nine, year1, year9999}, {nine, year9999, year1},
	} {
		if got := initialAge(deltaMax.duration(), times[0], times[1], times[2]); got < deltaMax.duration() {
			t.Errorf("initialAge with Date %v, asked %v, answered %v = %v, want at least the Age sent", times[0], times[1], times[2], got)
		}
	}
	s := &Stored{Verdict: Verdict{Age: 1<<63 - 1, Lifetime: deltaMax.duration()}, responseTime: nine}
	if got := s.Age(year9999); got != 1<<63-1 {
		t.Errorf("Age = %v, want the longest duration", got)
	}
	if s.FreshFor(year9999) > 0 || s.MayServeOnError(nine) {
		t.Error("a response older than any lifetime is fresh")
	}
}

func TestPreparedLivesWithTheStoredResponse(t *testing.T) {
	s := &Stored{}
	if got := s.Prepared(FormLines); got != nil {
		t.Errorf("Prepared = %q before SetPrepared, want nil", got)
	}
	s.SetPrepared(FormLines, []byte("one"))
	s.SetPrepared(FormLines, []byte("two"))
	if got := s.Prepared(FormLines); string(got) != "two" {
		t.Errorf("Prepared = %v, want the last one set", got)
	}
}

func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"max-age=60", `private="a, b", no-cache`, `x="\"`, ",,=;\"", "no-store no-cache"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		was := bytes.Clone(b)
		c := parseControl(b)
		parseWishes(b)
		if !bytes.Equal(b, was) {
			t.Fatal("parsing changed its input")
		}
		for _, d := range []delta{c.maxAge, c.sMaxAge, c.staleWhileRevalidate, c.staleIfError} {
			if d < absent || d > deltaMax {
				t.Fatalf("a delta of %d", d)
			}
		}
		for _, n := range c.withheld {
			if n == "" || tokenLen([]byte(n)) != len(n) {
				t.Fatalf("withheld %q is no field name", n)
			}
		}
		// What forbids survives whatever well-formed things come before it.
		if again := parseControl([]byte("x, " + string(b))); again.noStore != c.noStore || again.private != c.private {
			t.Fatalf("%q: prohibitions change behind another directive", b)
		}
		if !c.malformed {
			if again := parseControl([]byte(string(b) + ", no-store")); !again.noStore {
				t.Fatalf("%q hides the no-store behind it", b)
			}
		}
	})
}

func FuzzDate(f *testing.F) {
	for _, s := range []string{httpDate, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, ,-: GMT"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok := parseDate(b, nine)
		if !ok {
			return
		}
		again, ok := parseDate([]byte(d.Format(httpDate)), nine)
		if d.Year() <= 9999 && (!ok || !again.Equal(d)) {
			t.Fatalf("%q is %v, which reads back as %v, %v", b, d, again, ok)
		}
	})
}

func FuzzETagList(f *testing.F) {
	for _, s := range []string{`"a"`, `W/"a", "b"`, `*`, `"a,"b`, `,,`} {
		f.Add([]byte(s), []byte(`"a"`))
	}
	f.Fuzz(func(t *testing.T, list, tag []byte) {
		matches := ifNoneMatch(list, tag)
		if _, _, ok := parseETag(tag); !ok {
			if matches && string(trim(list)) != "*" {
				t.Fatalf("%q matches in %q although it is no entity tag", tag, list)
			}
			return
		}
		if !ifNoneMatch(trim(tag), tag) {
			t.Fatalf("%q does not match itself", tag)
		}
		if !ifNoneMatch(append([]byte(`"other", `), trim(tag)...), tag) {
			t.Fatalf("%q is not found in a list", tag)
		}
	})
}

func FuzzVary(f *testing.F) {
	f.Add([]byte("Accept, *"), "a, b", "a,b")
	f.Add([]byte("Accept-Encoding,cookie"), "gzip, br", "br,GZIP")
	f.Fuzz(func(t *testing.T, vary []byte, one, two string) {
		names, ok := parseVary(vary)
		if !ok {
			return
		}
		if again, ok := parseVary([]byte(strings.Join(names, ","))); !ok || !sameNames(again, names) {
			t.Fatalf("%q is %q, which reads back as %q", vary, names, again)
		}
		for _, name := range names {
			a := VariantKey(nil, names, field.List{{Name: name, Value: one}})
			if b := VariantKey([]byte("x"), names, headers{field.List{{Name: strings.ToLower(name), Value: one}}}); string(b) != "x"+string(a) {
				t.Fatalf("%q has two keys: %q and %q", one, a, b)
			}
			b := VariantKey(nil, names, field.List{{Name: name, Value: two}})
			if bytes.Equal(a, b) && letters(one) != letters(two) {
				t.Fatalf("%q and %q share a key under %s", one, two, name)
			}
		}
	})
}

// letters are the characters that no normalisation may lose, in order of code.
func letters(s string) string {
	var n [256]int
	for i := range len(s) {
		n[s[i]|0x20*b2i('A' <= s[i] && s[i] <= 'Z')]++
	}
	n[' '], n['\t'], n[','] = 0, 0, 0
	return fmt.Sprint(n)
}

func b2i(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func FuzzCDNCacheControl(f *testing.F) {
	for _, s := range []string{"max-age=60", `private="a", x=(1 2.5 "c");p=?1`, "a=:aGk=:, b=@12, c=%\"x\"", "max-age=1,", "a;b=;c"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := parseTargeted(b)
		if !ok {
			return
		}
		for _, d := range []delta{c.maxAge, c.sMaxAge, c.staleWhileRevalidate, c.staleIfError} {
			if d != absent && !d.valid() || d > deltaMax {
				t.Fatalf("%q: a delta of %d", b, d)
			}
		}
		if again, ok := parseTargeted(append(bytes.Clone(b), ", no-store"...)); !ok || !again.noStore {
			t.Fatalf("%q hides the no-store behind it", b)
		}
	})
}
