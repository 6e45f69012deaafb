package origin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"firstbell/proxy/field"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeConn is an origin's side of one connection, on which a test plays the
// origin byte by byte.
type fakeConn struct {
	t *testing.T
	net.Conn
	br *bufio.Reader
	n  int // 0 for the first connection of the pool, 1 for the second …
}

func newFakeConn(t *testing.T, nc net.Conn) *fakeConn {
	return &fakeConn{t: t, Conn: nc, br: bufio.NewReader(nc)}
}

// readHead reads a request's head, its empty line included; "" at the end of
// the connection.
func (f *fakeConn) readHead() string {
	var b strings.Builder
	for {
		line, err := f.br.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return ""
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// say writes s; the client may be gone, which is for the client's side of the
// test to judge.
func (f *fakeConn) say(s string) { _, _ = io.WriteString(f.Conn, s) }

// wantRead reads exactly want.
func (f *fakeConn) wantRead(want string) {
	got := make([]byte, len(want))
	n, err := io.ReadFull(f.br, got)
	if string(got[:n]) != want || err != nil {
		f.t.Errorf("the origin received %q (%v), want %q", got[:n], err, want)
	}
}

// wantEnd reports an error unless the client closes without another byte.
func (f *fakeConn) wantEnd() {
	if rest, err := io.ReadAll(f.br); len(rest) > 0 || err != nil {
		f.t.Errorf("the origin received %q (%v), want the connection's end", rest, err)
	}
}

// newFake returns a pool whose every connection is a pipe to serve, which is
// closed when serve returns. It is closed with the test.
func newFake(t *testing.T, cfg Config, serve func(f *fakeConn)) *Pool {
	t.Helper()
	n := 0
	cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		f := newFakeConn(t, theirs)
		f.n = n
		n++
		go func() {
			defer theirs.Close()
			serve(f)
		}()
		return ours, nil
	}
	return newPool(t, cfg)
}

func newPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	if cfg.Servers == nil {
		cfg.Servers = []string{"http://origin.test:80"}
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatalf("New = %v, want nil", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// saying returns an origin that answers each request with the next of answers,
// on any connection, and hangs up behind the last.
func saying(answers ...string) func(f *fakeConn) {
	return func(f *fakeConn) {
		for len(answers) > 0 && f.readHead() != "" {
			answer := answers[0]
			answers = answers[1:]
			f.say(answer)
		}
	}
}

func get() *Request { return &Request{Method: "GET", Target: "/", Host: "a.test"} }

// do sends r and reads the response to its end. The error is Do's, or Body's.
func do(ctx context.Context, p *Pool, r *Request) (*Response, string, error) {
	res, err := p.Do(ctx, r)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(res.Body)
	return res, string(body), errors.Join(err, res.Body.Close())
}

// mustDo is do for what is to succeed.
func mustDo(t *testing.T, p *Pool, r *Request) (*Response, string) {
	t.Helper()
	res, body, err := do(t.Context(), p, r)
	if err != nil {
		t.Fatalf("%s %s: %v, want a response", r.Method, r.Target, err)
	}
	return res, body
}

// wantKind reports an error unless err is an *Error of the kind.
func wantKind(t *testing.T, err, kind error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, kind) {
		t.Fatalf("got %v, want an *Error that is %q", err, kind)
	}
	return e
}

// lines writes a list like a head, for comparing.
func lines(l field.List) string {
	var b strings.Builder
	for _, f := range l {
		b.WriteString(f.Name + ": " + f.Value + "\n")
	}
	return b.String()
}
