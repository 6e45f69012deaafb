package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"firstbell/proxy/field"
)

// parse reads a head as a connection does.
func parse(text string) (*Head, error) {
	b := []byte(text)
	n, err := End(b, 0)
	if err != nil {
		return nil, err
	}
	if n != len(b) {
		return nil, fmt.Errorf("the head ends after %d of %d bytes", n, len(b))
	}
	h := new(Head)
	return h, h.Parse(b)
}

func TestWhatHasTwoMeaningsIsRefused(t *testing.T) {
	const host = "Host: a.example\r\n"
	for _, c := range []struct{ head, reason string }{
		{"GET  / HTTP/1.1\r\n" + host, "target"},
		{"GET / HTTP/1.1 \r\n" + host, "target"},
		{"GET / HTTP/1.1\r\n" + host + "A: b\n", "line-end"},
		{"GET / HTTP/1.1\n" + host, "line-end"},
		{"GET\t/ HTTP/1.1\r\n" + host, "start-line"},
		{"GET / http/1.1\r\n" + host, "start-line"},
		{"GET / HTTP/1.10\r\n" + host, "start-line"},
		{"GET / HTTP/2.0\r\n" + host, "version"},
		{"PRI * HTTP/2.0\r\n", "version"},
		{"GET / HTTP/0.9\r\n" + host, "version"},
		{"GET /\r\n" + host, "start-line"},
		{"G(T / HTTP/1.1\r\n" + host, "method"},
		{" GET / HTTP/1.1\r\n" + host, "start-line"},
		{"GET /a b HTTP/1.1\r\n" + host, "target"},
		{"GET /a\x00b HTTP/1.1\r\n" + host, "target"},
		{"GET /a#b HTTP/1.1\r\n" + host, "target"},
		{"GET /a\rb HTTP/1.1\r\n" + host, "target"},
		{"GET / HTTP/1.1\r\n", "host"},
		{"GET / HTTP/1.1\r\n" + host + host, "host"},
		{"GET / HTTP/1.1\r\n" + host + "hOST: b.example\r\n", "host"},
		{"GET / HTTP/1.1\r\n" + host + "A : b\r\n", "field-name"},
		{"GET / HTTP/1.1\r\n" + host + "A b: c\r\n", "field-name"},
		{"GET / HTTP/1.1\r\n" + host + ": c\r\n", "field-name"},
		{"GET / HTTP/1.1\r\n" + host + "no colon\r\n", "field-name"},
		{"GET / HTTP/1.1\r\n" + host + "A\x00: c\r\n", "field-name"},
		{"GET / HTTP/1.1\r\n" + host + "Ä: c\r\n", "field-name"},
		{"GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n", "folded-line"},
		{"GET / HTTP/1.1\r\n A: b\r\n" + host, "folded-line"},
		{"GET / HTTP/1.1\r\n" + host + "A: b\rc\r\n", "field-value"},
		{"GET / HTTP/1.1\r\n" + host + "A: b\x00\r\n", "field-value"},
		{"GET / HTTP/1.1\r\n" + host + "A: \x1b[31m\r\n", "field-value"},
		{"GET / HTTP/1.1\r\n" + host + "A: \x7f\r\n", "field-value"},
		{"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "length-and-coding"},
		{"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 1\r\n", "content-length"},
		{"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n", "content-length"},
		{"POST / HTTP/1.1\r\n" + host + "Content-Length: 1, 1\r\n", "content-length"},
		{"POST / HTTP/1.1\r\n" + host + "Content-Length: +1\r\n", "content-length"},
		{"POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n", "content-length"},
		{"POST / HTTP/1.1\r\n" + host + "Content-Length: 0x1\r\n", "content-length"},
		{"POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n", "content-length"},
		{"POST / HTTP/1.1\r\n" + host + "Content-Length: 9999999999999999999\r\n", "content-length"},
		{"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n", "transfer-coding"},
		{"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, chunked\r\n", "transfer-coding"},
		{"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "transfer-coding"},
		{"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n", "transfer-coding"},
		{"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \"chunked\"\r\n", "transfer-coding"},
		{"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n", "transfer-coding"},
		{"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n", "transfer-coding"},
		{"POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n", "transfer-coding"},
		{"POST / HTTP/1.1\r\n" + host + "Expect: 200-ok\r\n", "expectation"},
		{"GET / HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", FieldsMax), "fields"},
	} {
		_, err := parse(c.head + "\r\n")
		var r *field.Refusal
		if !errors.As(err, &r) || r.Reason != c.reason {
			t.Errorf("%.90q: got %v, want a refusal for its %s", c.head, err, c.reason)
		}
	}
}

func TestWhatIsValidIsTaken(t *testing.T) {
	h, err := parse("POST /a%2Fb?c=%20 HTTP/1.1\r\nhost:\t a.example:8080 \r\nX-Empty:\r\nCookie: a=b; \xc3\xa4\r\nAccept: x\r\nACCEPT: y\tz\r\n" +
		"Transfer-Encoding: Chunked\r\nExpect: 100-Continue\r\nConnection: foo , Close\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if string(h.Method) != "POST" || string(h.Target) != "/a%2Fb?c=%20" || h.Minor != 1 || string(h.Host) != "a.example:8080" {
		t.Errorf("got %s %s HTTP/1.%d at %s", h.Method, h.Target, h.Minor, h.Host)
	}
	if h.Length != -1 || !h.Last || !h.Continue {
		t.Errorf("got length %d, last %v, continue %v; want -1, true, true", h.Length, h.Last, h.Continue)
	}
	if got := string(h.Peek("Accept")); got != "x" {
		t.Errorf("Accept: got %q, want the first line", got)
	}
	if got := h.PeekAll("accept"); len(got) != 2 || string(got[1]) != "y\tz" {
		t.Errorf("Accept: got %q, want both lines", got)
	}
	if h.Peek("X-Empty") != nil || h.Peek("X-None") != nil || len(h.PeekAll("X-None")) != 0 {
		t.Error("an empty and a missing field have a value")
	}
	var names []string
	for n := range h.All() {
		names = append(names, string(n))
	}
	if got := strings.Join(names, " "); got != "host X-Empty Cookie Accept ACCEPT Transfer-Encoding Expect Connection" {
		t.Errorf("fields: got %s", got)
	}
}

func TestHTTP10EndsTheConnectionUnlessAskedNotTo(t *testing.T) {
	for head, last := range map[string]bool{
		"GET / HTTP/1.0\r\n\r\n":                                             true,
		"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n":                   false,
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                                  false,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n":             true,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n": true,
	} {
		if h, err := parse(head); err != nil || h.Last != last {
			t.Errorf("%q: got %+v, %v; want last %v", head, h, err, last)
		}
	}
}

func TestParsingARequestAllocatesNothing(t *testing.T) {
	b := []byte("GET /lessons/1 HTTP/1.1\r\nHost: s01.school.example\r\nUser-Agent: Mozilla/5.0\r\nAccept: text/html\r\nAccept-Encoding: gzip, br\r\nCookie: session=0123456789abcdef\r\n\r\n")
	var h Head
	if err := h.Parse(b); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { h.Parse(b); h.Peek("Cookie"); h.Peek("Range"); h.PeekAll("Accept") }); n > 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// FuzzParse holds what is accepted against net/http's reader, which is more
// lenient: both must see the same request.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST /x?y HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "GET / HTTP/1.0\r\nA:b\r\n\r\n", "\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := []byte(s)
		n, err := End(b, 0)
		if err != nil || n <= 2 {
			return
		}
		for cut := range n { // in pieces it ends at the same place
			if got, err := End(b[:cut], max(0, cut-5)); cut > 2 && (got != 0 || err != nil) && !bytes.HasPrefix(b, []byte("\r\n")) {
				t.Fatalf("%q cut at %d: got an end at %d, %v", s[:n], cut, got, err)
			}
		}
		var h Head
		if h.Parse(b[:n]) != nil {
			return
		}
		want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b[:n])))
		if err != nil {
			return // net/http knows more of targets than this package
		}
		if want.Method != string(h.Method) || want.RequestURI != string(h.Target) || want.ContentLength != h.Length && h.Minor == 1 {
			t.Errorf("%q: got %s %s length %d, net/http has %s %s length %d", s, h.Method, h.Target, h.Length, want.Method, want.RequestURI, want.ContentLength)
		}
		lines := 0
		for name, value := range h.All() {
			lines++
			if bytes.ContainsAny(name, " \t\r\n:\x00") || bytes.ContainsAny(value, "\r\n\x00") {
				t.Errorf("%q: field %q: %q", s, name, value)
			}
		}
		if got := strings.Count(s[:n], "\n") - 2; got != lines {
			t.Errorf("%q: %d lines, %d fields", s, got, lines)
		}
	})
}
