package corpus

import (
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// only returns the cases with these names.
func only(t *testing.T, names ...string) (cases []*Case) {
	t.Helper()
	all, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		for _, n := range names {
			if c.Name == n {
				cases = append(cases, c)
			}
		}
	}
	if len(cases) != len(names) {
		t.Fatalf("found %d of %d cases", len(cases), len(names))
	}
	return cases
}

// verdicts plays cases through a proxy at ln and returns what came of each.
func verdicts(t *testing.T, proxy, origin net.Listener, cases []*Case) map[string]Verdict {
	t.Helper()
	outcomes, err := Play(t.Context(), Options{
		Dial:   func() (net.Conn, error) { return net.Dial("tcp", proxy.Addr().String()) },
		Origin: origin, Host: "school.example", Wait: 20 * time.Second,
	}, cases)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Verdict{}
	for _, o := range outcomes {
		got[o.Name] = o.Verdict
	}
	return got
}

func TestNamesAndBytesOfCasesAreTheirOwn(t *testing.T) {
	all, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	seen, sent := map[string]bool{}, map[string]string{}
	for _, c := range all {
		if seen[c.Name] {
			t.Errorf("two cases are called %s", c.Name)
		}
		if other := sent[c.Send+c.Reply]; other != "" {
			t.Errorf("%s and %s send the same", c.Name, other)
		}
		seen[c.Name], sent[c.Send+c.Reply] = true, c.Name
	}
	if len(all) < 250 {
		t.Errorf("got %d cases, want 250 at least", len(all))
	}
}

func TestBytesAreReadAsWritten(t *testing.T) {
	cases, err := parse("x.txt", "case a\nrfc 1\nwant either\nsees GET /{id} \"{a*3}\\r\"\nsend\n> GET /{id}\n+ \\x41\\0\\t\\\\{b*3}{c\n>\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cases[0].Send, "GET /{id}\r\nA\x00\t\\bbb{c\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := cases[0].Sees[0], `GET /{id} "aaa\r"`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for text, why := range map[string]string{
		"rfc 1": "before the first case", "case a\nsend\n> x\\q": "stands for nothing", "case a\n> x": "before send",
		"case a\nrfc 1\nwant take\nsend\n> {id}": "with 0 forms", "case a\nrfc 1\nwant refuse\nsend\n> x": "no {id}",
		"case a\ncolour red": "no key",
	} {
		if _, err := parse("x.txt", text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: got %v, want %q", text, err, why)
		}
	}
}

// TestATunnelIsFoundOut plays a proxy that passes everything on.
func TestATunnelIsFoundOut(t *testing.T) {
	proxy, origin := listen(t), listen(t)
	go func() {
		for {
			c, err := proxy.Accept()
			if err != nil {
				return
			}
			o, err := net.Dial("tcp", origin.Addr().String())
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(o, c); _ = o.Close() }()
			go func() { _, _ = io.Copy(c, o); _ = c.Close() }()
		}
	}()
	want := map[string]Verdict{
		"plain": Taken, "three-in-advance": Taken, "binary-content": Taken, "sized-content-cut-off": Refused,
		"length-and-chunked": Ambiguous, "length-twice-differing": Ambiguous, "coding-space-before-colon": Ambiguous,
		"chunk-size-plus": Ambiguous, "trailer-host": Ambiguous, "one-line-ends-in-lf": Ambiguous, "host-twice": Ambiguous,
		"nul-in-value": Ambiguous, "folded-line": Ambiguous, "lines-end-in-cr": Ambiguous,
		"trace": Other, "absolute-form-other-host": Other, "fold-hides-length": Ambiguous,
		"forwarded-for": Passed, "hop-by-hop": Passed, "upgrade-h2c": Passed,
		"answer-with-length": Taken, "answer-chunked-cut": Refused, "answer-length-and-chunked": Cut,
		"answer-switches-unasked": Cut, "answer-second-behind-length": Poisoned, "answer-status-beyond-599": Cut,
		"answer-hop-by-hop": Passed, "answer-name-with-space": Cut,
	}
	names := make([]string, 0, len(want))
	for n := range want {
		names = append(names, n)
	}
	got := verdicts(t, proxy, origin, only(t, names...))
	for n, w := range want {
		if got[n] != w {
			t.Errorf("%s: got %q, want %q", n, got[n], w)
		}
	}
}

// TestAForgivingProxyIsFoundOut plays the standard library's, which refuses most
// and mends some.
func TestAForgivingProxyIsFoundOut(t *testing.T) {
	ln, origin := listen(t), listen(t)
	to := &url.URL{Scheme: "http", Host: origin.Addr().String()}
	srv := &http.Server{Handler: httputil.NewSingleHostReverseProxy(to)}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	want := map[string]Verdict{
		"plain": Taken, "length-twice-equal": Taken, "length-twice-differing": Refused, "host-twice": Refused,
		"lines-end-in-lf": Taken, "forwarded-for": Passed, "answer-length-cut": Refused, "sized-content-cut-off": Refused,
	}
	names := make([]string, 0, len(want))
	for n := range want {
		names = append(names, n)
	}
	got := verdicts(t, ln, origin, only(t, names...))
	for n, w := range want {
		if got[n] != w {
			t.Errorf("%s: got %q, want %q", n, got[n], w)
		}
	}
}
