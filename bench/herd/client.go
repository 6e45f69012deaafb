package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// answerBytesMax is the most that one connection is read for: the largest
// content of any case is 48 MiB, and case 9 reads some thousand small ones.
const answerBytesMax = 64 << 20

// ending is how a response ended.
type ending int

const (
	broken ending = iota // visibly: no response, or it ended before its framing says so, or the framing makes no sense
	clean                // its framing says that this is all
	late                 // still not ended when the client stopped waiting
)

// An answer is what one client saw.
type answer struct {
	status  int // 0: no header section came
	fields  textproto.MIMEHeader
	content []byte
	ending  ending
	err     error         // why it is broken or late
	first   time.Duration // from asking (connecting included) to the first byte of content; 0: none came
	took    time.Duration // from asking to the end
	more    bool          // bytes followed that nobody asked for
}

// ok reports a response that is there to its end, with status 200.
func (a *answer) ok() bool { return a.ending == clean && a.status == 200 && !a.more }

// is reports a whole 200 with exactly this content.
func (a *answer) is(want []byte) bool { return a.ok() && bytes.Equal(a.content, want) }

// An ask is one request.
type ask struct {
	method     string // GET unless said
	path       string
	fields     []string // such as "Cookie: user=1"
	leaveAfter int      // the client leaves when it has this much content; 0: it stays
	rate       int      // bytes of content that it reads in a second; 0: all that come
}

// A client asks one server.
type client struct {
	host string // for the Host field
	dial func(context.Context) (net.Conn, error)
}

// get asks over a connection of its own. The context's end makes the client
// leave: its connection is closed at once.
func (c *client) get(ctx context.Context, q ask) answer {
	l := line{client: c}
	defer l.close()
	return l.get(ctx, q)
}

// A line is a client's connection, kept for the next question as long as the
// server agrees. It belongs to one goroutine.
type line struct {
	client *client
	conn   net.Conn
	in     *bufio.Reader
}

func (l *line) close() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// get asks, over the kept connection when there is one. A kept connection that
// the server closed meanwhile is replaced once.
func (l *line) get(ctx context.Context, q ask) answer {
	kept := l.conn != nil
	began := time.Now()
	a := l.try(ctx, q, began)
	if kept && a.ending == broken && a.status == 0 && ctx.Err() == nil {
		a = l.try(ctx, q, began)
	}
	a.took = time.Since(began)
	return a
}

func (l *line) try(ctx context.Context, q ask, began time.Time) (a answer) {
	keep := false
	defer func() {
		if a.err != nil && (ctx.Err() != nil || errors.Is(a.err, context.DeadlineExceeded)) {
			a.ending = late
		}
		if !keep {
			l.close()
		}
	}()
	if l.conn == nil {
		conn, err := l.client.dial(ctx)
		if err != nil {
			a.err = fmt.Errorf("connecting: %w", err)
			return a
		}
		l.conn, l.in = conn, bufio.NewReader(io.LimitReader(conn, answerBytesMax))
	}
	defer context.AfterFunc(ctx, func(conn net.Conn) func() { return func() { conn.Close() } }(l.conn))()
	if a.err = l.send(q); a.err != nil {
		return a
	}
	if a.err = l.head(&a); a.err != nil {
		return a
	}
	from, toEnd, err := l.content(q.method, &a)
	if err != nil {
		a.err = err
		return a
	}
	if q.rate > 0 {
		l.narrow()
	}
	if a.err = read(ctx, from, &a, began, &q); a.err != nil {
		return a
	}
	if a.err = l.trailer(&a); a.err != nil {
		return a
	}
	a.ending, a.more = clean, l.in.Buffered() > 0
	keep = !toEnd && !a.more && !strings.EqualFold(a.fields.Get("Connection"), "close")
	return a
}

func (l *line) send(q ask) error {
	var b bytes.Buffer
	method := q.method
	if method == "" {
		method = "GET"
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: herd\r\n", method, q.path, l.client.host)
	for _, f := range q.fields {
		b.WriteString(f + "\r\n")
	}
	b.WriteString("\r\n")
	if _, err := l.conn.Write(b.Bytes()); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	return nil
}

// head reads the final response's header section, passing over 1xx.
func (l *line) head(a *answer) error {
	in := textproto.NewReader(l.in)
	for {
		first, err := in.ReadLine()
		if err != nil {
			return fmt.Errorf("reading the status line: %w", err)
		}
		version, rest, _ := strings.Cut(first, " ")
		code, _, _ := strings.Cut(rest, " ")
		status, err := strconv.Atoi(code)
		if err != nil || len(code) != 3 || !strings.HasPrefix(version, "HTTP/1.") {
			return fmt.Errorf("reading the status line: %q is none", first)
		}
		fields, err := in.ReadMIMEHeader()
		if err != nil {
			return fmt.Errorf("reading the header section: %w", err)
		}
		if status >= 200 || status == http.StatusSwitchingProtocols {
			a.status, a.fields = status, fields
			return nil
		}
	}
}

// content returns what reads the response's content: it ends with io.EOF only
// where the framing says so. toEnd says that only the connection's end does.
func (l *line) content(method string, a *answer) (from io.Reader, toEnd bool, err error) {
	lengths := a.fields.Values("Content-Length")
	switch {
	case method == "HEAD" || a.status == 204 || a.status == 304:
		return bytes.NewReader(nil), false, nil
	case chunked(a):
		return httputil.NewChunkedReader(l.in), false, nil
	case len(lengths) > 1:
		return nil, false, fmt.Errorf("reading the header section: %d Content-Length fields", len(lengths))
	case len(lengths) == 0:
		return l.in, true, nil
	}
	n, err := strconv.ParseInt(lengths[0], 10, 64)
	if err != nil || n < 0 {
		return nil, false, fmt.Errorf("reading the header section: Content-Length %q", lengths[0])
	}
	return &exactly{l.in, n}, false, nil
}

func chunked(a *answer) bool {
	return strings.EqualFold(a.fields.Get("Transfer-Encoding"), "chunked")
}

// trailer reads what follows the last chunk; without it the message is cut off.
func (l *line) trailer(a *answer) error {
	if !chunked(a) || a.status == 204 || a.status == 304 {
		return nil
	}
	if _, err := textproto.NewReader(l.in).ReadMIMEHeader(); err != nil {
		return fmt.Errorf("reading the trailer section: %w", err)
	}
	return nil
}

var errLeft = errors.New("the client left")

// narrow makes the connection take little in advance, for a slow client.
func (l *line) narrow() {
	if c, ok := l.conn.(interface{ SetReadBuffer(bytes int) error }); ok {
		_ = c.SetReadBuffer(64 << 10) // without it the client is only a little less slow
	}
}

func read(ctx context.Context, from io.Reader, a *answer, began time.Time, q *ask) error {
	piece := make([]byte, 32<<10)
	if q.rate > 0 {
		piece = piece[:max(1, min(len(piece), q.rate/10))]
	}
	for {
		n, err := from.Read(piece)
		if n > 0 && a.first == 0 {
			a.first = max(time.Since(began), 1) // 0 is for none
		}
		a.content = append(a.content, piece[:n]...)
		if q.leaveAfter > 0 && len(a.content) >= q.leaveAfter {
			return errLeft
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the content after %d bytes: %w", len(a.content), err)
		}
		if q.rate > 0 {
			sleep(ctx, time.Until(began.Add(time.Duration(len(a.content))*time.Second/time.Duration(q.rate))))
		}
	}
}

// exactly reads n bytes; an earlier end is io.ErrUnexpectedEOF.
type exactly struct {
	from io.Reader
	n    int64
}

// Read implements io.Reader.
func (e *exactly) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.from.Read(p[:min(int64(len(p)), e.n)])
	e.n -= int64(n)
	if err == io.EOF && e.n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
