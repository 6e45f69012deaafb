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
