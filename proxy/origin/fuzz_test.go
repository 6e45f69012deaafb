package origin

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"firstbell/proxy/field"
)

// heads are answers of every kind: where the fuzzers start, and as plain tests
// what they run.
var heads = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
	"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\nabc",
	"HTTP/1.1 200\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
	"HTTP/1.1 200 OK\nA: b\n\n",
	"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\td\r\nB : e\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA  \r\n0123456789\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\nContent-Length: 3\r\nConnection: close, x\r\nx: 1\r\n\r\nabcdef",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
	"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
	"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nKeep-Alive: timeout=5\r\n\r\n",
}

// memConn is a connection that has received data and then ended.
type memConn struct{ io.Reader }

func (memConn) Write(p []byte) (int, error)      { return len(p), nil }
func (memConn) Close() error                     { return nil }
func (memConn) LocalAddr() net.Addr              { return nil }
func (memConn) RemoteAddr() net.Addr             { return nil }
func (memConn) SetDeadline(time.Time) error      { return nil }
func (memConn) SetReadDeadline(time.Time) error  { return nil }
func (memConn) SetWriteDeadline(time.Time) error { return nil }

// readAnswer reads data as the response to a GET.
func readAnswer(t *testing.T, data []byte) (*Response, string, error) {
	p, err := New(Config{Servers: []string{"http://a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	c := newConn(p.servers[0], memConn{bytes.NewReader(data)})
	x, err := p.roundTrip(t.Context(), c, get(), nil, false)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(x.res.Body)
	_ = x.Close()
	return &x.res, string(body), err
}

// FuzzResponse holds our reading of a response against net/http's: where both
// accept one they must agree, and nothing that could be misread gets out.
func FuzzResponse(f *testing.F) {
	for _, s := range heads {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		res, body, err := readAnswer(t, data)
		var e *Error
		switch {
		case err != nil && err != io.ErrUnexpectedEOF && !errors.As(err, &e):
			t.Fatalf("error %v is neither an *Error nor io.ErrUnexpectedEOF", err)
		case res == nil:
			return
		}
		wantClean(t, res.Fields)
		wantClean(t, res.Trailer())
		if err == nil && res.ContentLength >= 0 && res.Status != 304 && int64(len(body)) != res.ContentLength {
			t.Fatalf("%d bytes of content and no error, want %d", len(body), res.ContentLength)
		}
		theirs, theirBody, theirErr := readStandard(data)
		if err != nil || theirErr != nil {
			return
		}
		if theirs.StatusCode != res.Status || theirBody != body {
			t.Fatalf("status %d and content %q, net/http reads %d and %q", res.Status, body, theirs.StatusCode, theirBody)
		}
		if bytes.Contains(bytes.ToLower(data), []byte("connection")) {
			return // net/http neither removes what that names, nor keeps it to see
		}
		if ours, want := sorted(res.Fields), sortedHeader(theirs.Header); ours != want {
			t.Fatalf("fields\n%s\nnet/http reads\n%s", ours, want)
		}
	})
}

// wantClean stops the test if a field could become something else on its way.
func wantClean(t *testing.T, l field.List) {
	for _, f := range l {
		if !validName(f.Name) || strings.ContainsAny(f.Value, "\r\n\x00") || field.HopByHopName(f.Name) || isFraming(f.Name) {
			t.Fatalf("field %q: %q passed", f.Name, f.Value)
		}
	}
}

// readStandard reads data with net/http, 1xx responses skipped as we do.
func readStandard(data []byte) (*http.Response, string, error) {
	br := bufio.NewReader(bytes.NewReader(data))
	for {
		res, err := http.ReadResponse(br, &http.Request{Method: "GET"})
		if err != nil {
			return nil, "", err
		}
		if res.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(res.Body)
		return res, string(body), err
	}
}

// blanks makes one space of what stood for an obs-fold: net/http joins with a
// single space, we put one for each byte.
func blanks(s string) string { return strings.Join(strings.Fields(s), " ") }

func sorted(l field.List) string {
	var all []string
	for _, f := range l {
		all = append(all, http.CanonicalHeaderKey(f.Name)+": "+blanks(f.Value))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// sortedHeader leaves out the fields of one connection, as we do.
func sortedHeader(h http.Header) string {
	var all []string
	for name, values := range h {
		name = http.CanonicalHeaderKey(strings.TrimRight(name, " \t")) // which net/http leaves there
		if field.HopByHopName(name) || isFraming(name) {
			continue
		}
		for _, v := range values {
			all = append(all, name+": "+blanks(v))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// FuzzChunked holds our reading of chunked content against net/http's, and
// ours in pieces against ours at once.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{"0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "a\r\n0123456789\r\n3 ;x\r\nabc\r\n0\r\nA: b\r\n\r\n", "fffffffffffffff\r\n", "1\r\na\r\n1\r\nb", "2\r\nabc\r\n"} {
		f.Add([]byte(s))
	}
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	f.Fuzz(func(t *testing.T, data []byte) {
		message := append([]byte(head), data...)
		res, body, err := readAnswer(t, message)
		if res == nil {
			t.Fatalf("the head was refused: %v", err)
		}
		_, theirs, theirErr := readStandard(message)
		if err == nil && theirErr == nil && body != theirs {
			t.Fatalf("content %q, net/http reads %q", body, theirs)
		}
		// Sent a byte at a time the same must come out.
		p, _ := New(Config{Servers: []string{"http://a.test"}})
		c := newConn(p.servers[0], memConn{&oneByOne{message}})
		x, slowErr := p.roundTrip(t.Context(), c, get(), nil, false)
		if slowErr != nil {
			t.Fatalf("byte by byte the head was refused: %v", slowErr)
		}
		slow, slowErr := io.ReadAll(&oneAtATime{x})
		_ = x.Close()
		if string(slow) != body || fmt.Sprint(slowErr) != fmt.Sprint(err) {
			t.Fatalf("byte by byte %q, %v; at once %q, %v", slow, slowErr, body, err)
		}
	})
}

// oneByOne gives its data a byte at a time.
type oneByOne struct{ data []byte }

func (r *oneByOne) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:1], r.data)
	r.data = r.data[n:]
	return n, nil
}

// oneAtATime asks for a byte at a time.
type oneAtATime struct{ r io.Reader }

func (r *oneAtATime) Read(p []byte) (int, error) { return r.r.Read(p[:1]) }
