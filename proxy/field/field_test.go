package field

import "testing"

func TestNamesAreComparedWithoutCase(t *testing.T) {
	l := List{{"Content-Type", "text/html"}, {"vary", "Accept"}, {"Vary", "Cookie"}}
	if got := l.Get("content-TYPE"); got != "text/html" {
		t.Errorf("Get(content-TYPE) = %q, want text/html", got)
	}
	if got := string(l.Peek("VARY")); got != "Accept" {
		t.Errorf("Peek(VARY) = %q, want the first line", got)
	}
	if l.Peek("Age") != nil {
		t.Error("a field that is not there has a value")
	}
}

func TestConnectionNamesItsOptions(t *testing.T) {
	l := List{{"Connection", "close, X-Once"}, {"connection", " x-Twice "}}
	for name, want := range map[string]bool{"x-once": true, "X-TWICE": true, "X-Other": false} {
		if got := ConnectionNames(l, []byte(name)); got != want {
			t.Errorf("ConnectionNames(%s) = %v, want %v", name, got, want)
		}
	}
	if !HopByHop([]byte("transfer-encoding")) || HopByHop([]byte("Content-Length")) {
		t.Error("HopByHop: want transfer-encoding in, Content-Length out")
	}
}

func TestCopyOwnsItsBytes(t *testing.T) {
	from := List{{"A", "1"}, {"B", "2"}}
	got := Copy(from, func(n []byte) bool { return string(n) != "A" })
	if len(got) != 1 || got[0] != (Field{"B", "2"}) {
		t.Errorf("Copy = %v, want only B", got)
	}
	var read Fields = from
	if n := testing.AllocsPerRun(100, func() { _, _ = read.Peek("C"), read.Peek("b") }); n != 0 {
		t.Errorf("looking for a field allocates %v times, want 0", n)
	}
}

func TestLinesAreFoundInWhateverCase(t *testing.T) {
	var l Lines
	for range 2 { // as of the next request, too
		l.Reset()
		for _, f := range [][2]string{{"Accept", "a"}, {"accept-Encoding", "gzip"}, {"ACCEPT", "b"}, {"x", ""}} {
			l.Add([]byte(f[0]), []byte(f[1]))
		}
		if got := l.Peek("accept"); string(got) != "a" {
			t.Errorf("accept: got %q, want a", got)
		}
		if got := l.PeekAll("Accept"); len(got) != 2 || string(got[1]) != "b" {
			t.Errorf("every Accept: got %q, want a and b", got)
		}
		for _, name := range []string{"X", "y", "Accept-Encodin", "@ccept"} {
			if got := l.Peek(name); got != nil {
				t.Errorf("%s: got %q, want nothing", name, got)
			}
		}
		if got := len(l.PeekAll("cookie")); got != 0 {
			t.Errorf("cookie: got %d lines, want none", got)
		}
		if name, value := l.Line(l.Len() - 3); string(name) != "accept-Encoding" || string(value) != "gzip" {
			t.Errorf("the second line: got %q: %q", name, value)
		}
	}
}

func TestNamesAreEqualOnlyInTheCaseOfLetters(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"Host", "hOST", true}, {"Host", "Hosts", false}, {"", "", true}, {"a-b", "A-B", true},
		{"a_b", "a\x7fb", false}, {"@", "`", false}, {"[", "{", false}, {"k", "\u212a", false},
	} {
		if got := EqualName(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: got %v, want %v", c.a, c.b, got, c.want)
		}
		if got := EqualName([]byte(c.a), c.b); got != c.want {
			t.Errorf("%q, as bytes, and %q: got %v, want %v", c.a, c.b, got, c.want)
		}
	}
}
