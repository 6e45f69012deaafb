//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A crowd is a number of kept connections to one server, all moved by one
// epoll loop on the goroutine that calls its methods: it spends about half of
// what the quickest server spends on a request, so that it is not the limit.
// Each connection sends a request when it has the answer to the last.
type crowd struct {
	addr   netip.AddrPort
	epoll  int
	lines  []line
	events []unix.EpollEvent
	in     []byte          // what is read into
	out    []byte          // what the next request is built in
	times  []time.Duration // how long answers took, while timed runs
}

// A line is one connection of a crowd.
type line struct {
	fd      int
	busy    bool   // a request is out
	kept    bool   // it has had an answer
	partial []byte // a head that has not come whole
	body    body
	status  int
	sent    time.Time
	first   time.Duration // from sending to the first byte of the answer
	took    time.Duration // to its last
}

// body is what is still to come of an answer's content.
type body struct {
	left    int64 // bytes of it, or of the chunk that is being read with its CRLF
	chunked bool
	head    []byte // of a chunk's size line, what has come
	last    bool   // the last chunk has come, and the trailer section is read
	open    bool   // there is content still to come
}

// requester builds the next request in buf, which is empty, and returns it.
type requester func(buf []byte) []byte

// always requests the same.
func always(request []byte) requester {
	return func([]byte) []byte { return request }
}

// inBytes is what is read at once: more than any answer but the large ones,
// whose content is thrown away unread (MSG_TRUNC of tcp(7)).
const inBytes = 1 << 20

func newCrowd(addr string, n int) (*crowd, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	c := &crowd{addr: to, events: make([]unix.EpollEvent, min(n, 256)), in: make([]byte, inBytes), lines: make([]line, n)}
	if c.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("making an epoll set: %w", err)
	}
	for i := range c.lines {
		c.lines[i].fd = -1
	}
	for i := range c.lines {
		if err := c.connect(i); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// connect connects line i anew.
func (c *crowd) connect(i int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making connection %d: %w", i, err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(c.addr.Port()), Addr: c.addr.Addr().As4()})
	if err == nil {
		err = errors.Join(unix.SetNonblock(fd, true), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	}
	if err == nil {
		err = unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd), Pad: int32(i)})
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("connecting to %s, connection %d: %w", c.addr, i, err)
	}
	c.lines[i] = line{fd: fd, partial: c.lines[i].partial[:0]}
	return nil
}

// drop closes line i.
func (c *crowd) drop(i int) {
	l := &c.lines[i]
	if l.fd >= 0 {
		unix.Close(l.fd)
	}
	l.fd, l.busy = -1, false
}

func (c *crowd) close() {
	for i := range c.lines {
		c.drop(i)
	}
	unix.Close(c.epoll)
}

// tally is what came of some requests.
type tally struct {
	answers int           // whole, with the status wanted
	wrong   int           // whole, with another status
	failed  int           // no answer, or a broken one
	again   int           // connections that the server closed behind an answer, and that were made anew
	wall    time.Duration // from the first request to the last answer
	why     error         // of the first failure
	odd     int           // such a status
}

func (t *tally) add(o tally) {
	t.answers, t.wrong, t.failed, t.again, t.wall = t.answers+o.answers, t.wrong+o.wrong, t.failed+o.failed, t.again+o.again, t.wall+o.wall
	if t.why == nil {
		t.why = o.why
	}
	if o.odd != 0 {
		t.odd = o.odd
	}
}

// because remembers the first failure's reason.
func (t *tally) because(err error) {
	if t.why == nil {
		t.why = err
	}
}

// bad says what was not as it should be; nil if nothing.
func (t *tally) bad() error {
	switch {
	case t.failed > 0:
		return fmt.Errorf("%d of %d requests without a whole answer: %w", t.failed, t.failed+t.wrong+t.answers, t.why)
	case t.wrong > 0:
		return fmt.Errorf("%d of %d answers with another status, such as %d", t.wrong, t.wrong+t.answers, t.odd)
	case t.answers == 0:
		return errors.New("no answer came")
	}
	return nil
}

// answerMax is how long a burst waits for its answers.
const answerMax = 20 * time.Second

// burst has every connection ask, again and again, until enough says so with
// the number of requests sent; then it waits for what is still out. Answers are
// expected to have the status want.
func (c *crowd) burst(next requester, want int, enough func(sent int) bool) tally {
	var t tally
	t.again = c.sweep()
	began := time.Now()
	sent, out, closing := 0, 0, false
	ask := func(i int) {
		if closing = closing || enough(sent); closing {
			return
		}
		sent++
		if err := c.send(i, next); err != nil {
			t.failed++
			t.because(err)
			return
		}
		out++
	}
	for i := range c.lines {
		if c.lines[i].fd < 0 {
			if err := c.connect(i); err != nil {
				t.failed++
				t.because(err)
				continue
			}
		}
		ask(i)
	}
	deadline := time.Now().Add(answerMax)
	for out > 0 && time.Now().Before(deadline) {
		n, err := unix.EpollWait(c.epoll, c.events, 100)
		if err != nil && err != unix.EINTR {
			t.failed, t.why = t.failed+out, err
			return t
		}
		for _, e := range c.events[:max(n, 0)] {
			i := int(e.Pad)
			if c.lines[i].fd != int(e.Fd) {
				continue // of a connection that is no more
			}
			was := c.lines[i].busy
			switch done, err := c.read(i); {
			case err != nil && !was:
				t.again++ // closed while nothing was out
				c.drop(i)
			case errors.Is(err, errClosed) && c.lines[i].kept && c.lines[i].first == 0:
				// Closed under a request on its way: a client repeats it (RFC 9112
				// section 9.3.1), and so does this one, once.
				t.again++
				c.drop(i)
				if err = c.connect(i); err == nil {
					err = c.send(i, next)
				}
				if err != nil {
					out--
					t.failed++
					t.because(err)
				}
				continue
			case err != nil:
				out--
				t.failed++
				t.because(err)
				c.drop(i)
			case done:
				out--
				t.count(c.lines[i].status, want)
				if c.times != nil {
					c.times = append(c.times, c.lines[i].took)
				}
				ask(i)
			}
			if c.lines[i].fd < 0 && !closing && c.connect(i) == nil {
				ask(i)
			}
		}
	}
	if out > 0 {
		t.failed += out
		t.why = fmt.Errorf("%d answers did not come within %v", out, answerMax)
		for i := range c.lines {
			if c.lines[i].busy {
				c.drop(i)
			}
		}
	}
	t.wall = time.Since(began)
	return t
}

func (t *tally) count(status, want int) {
	if status == want {
		t.answers++
		return
	}
	t.wrong++
	t.odd = status
}

// sweep drops the connections that the server has closed since the last burst,
// and returns their number.
func (c *crowd) sweep() (closed int) {
	for {
		n, err := unix.EpollWait(c.epoll, c.events, 0)
		if n <= 0 && err != unix.EINTR {
			return closed
		}
		for _, e := range c.events[:max(n, 0)] {
			if i := int(e.Pad); c.lines[i].fd == int(e.Fd) {
				c.drop(i)
				closed++
			}
		}
	}
}

// send sends the next request of line i. Requests are small: they fit into the
// socket or something is wrong.
func (c *crowd) send(i int, next requester) error {
	l := &c.lines[i]
	request := next(c.out[:0])
	if cap(request) > cap(c.out) && len(c.out) == 0 && cap(request) < 4096 {
		c.out = slices.Grow(c.out, 4096)
	}
	l.busy, l.sent, l.first, l.body = true, time.Now(), 0, body{}
	l.partial = l.partial[:0]
	n, err := unix.Write(l.fd, request)
	if err == nil && n < len(request) {
		err = fmt.Errorf("the socket took %d of %d bytes", n, len(request))
	}
	if err != nil {
		c.drop(i)
		return fmt.Errorf("sending a request: %w", err)
	}
	return nil
}

var errClosed = errors.New("the server closed the connection")

// read reads once from line i and reports whether its answer is whole now.
func (c *crowd) read(i int) (done bool, err error) {
	l := &c.lines[i]
	if l.body.open && !l.body.chunked && l.body.left > 16<<10 {
		// The rest of a large content is counted, not copied.
		n, _, err := unix.Recvfrom(l.fd, c.in[:min(l.body.left, inBytes)], unix.MSG_TRUNC)
		if err == unix.EAGAIN {
			return false, nil
		}
		if err != nil || n == 0 {
			return false, errors.Join(errClosed, err)
		}
		l.body.left -= int64(n)
		return l.ended(l.body.left == 0), nil
	}
	// The first read takes no more than a head and a small content, so that the
	// rest of a large one is not copied.
	n, err := unix.Read(l.fd, c.in[:64<<10])
	if err == unix.EAGAIN {
		return false, nil
	}
	if err != nil || n == 0 {
		return false, errors.Join(errClosed, err)
	}
	if !l.busy {
		return false, errors.New("bytes that nobody asked for")
	}
	got := c.in[:n]
	if l.first == 0 {
		l.first = time.Since(l.sent)
	}
	if !l.body.open {
		if len(l.partial) > 0 {
			l.partial = append(l.partial, got...)
			got = l.partial
		}
		end := bytes.Index(got, []byte("\r\n\r\n"))
		if end < 0 {
			if len(l.partial) == 0 {
				l.partial = append(l.partial, got...)
			}
			return false, nil
		}
		if l.status, l.body, err = readHead(got[:end+2]); err != nil {
			return false, err
		}
		got = got[end+4:]
	}
	rest, err := l.body.take(got)
	if err != nil {
		return false, err
	}
	if l.body.open {
		return false, nil
	}
	if len(rest) > 0 {
		return false, fmt.Errorf("%d bytes behind the answer", len(rest))
	}
	return l.ended(true), nil
}

func (l *line) ended(done bool) bool {
	if done {
		l.took = time.Since(l.sent)
		l.busy, l.body.open, l.kept = false, false, true
		l.partial = l.partial[:0]
	}
	return done
}

// readHead reads the header section of an answer, up to the last field's CRLF.
func readHead(head []byte) (status int, b body, err error) {
	if len(head) < 13 || !bytes.HasPrefix(head, []byte("HTTP/1.1 ")) {
		return 0, b, fmt.Errorf("an answer begins with %q", head[:min(len(head), 20)])
	}
	status = int(head[9]-'0')*100 + int(head[10]-'0')*10 + int(head[11]-'0')
	if status == 304 || status == 204 {
		return status, b, nil
	}
	length := int64(-1)
	for rest := head; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		field := rest[:end+1]
		rest = rest[end+1:]
		// Only the fields that frame the answer are looked at.
		if len(field) < 16 || field[0]|0x20 != 'c' && field[0]|0x20 != 't' {
			continue
		}
		name, value, _ := bytes.Cut(field, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return status, b, err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			b.chunked = bytes.EqualFold(bytes.TrimSpace(value), []byte("chunked"))
		}
	}
	if !b.chunked && length < 0 {
		return status, b, errors.New("an answer has neither a Content-Length nor chunks: its end could not be told from a failure")
	}
	b.left = max(length, 0)
	if b.chunked {
		b.left = 0
	}
	b.open = b.chunked || b.left > 0
	return status, b, nil
}

// take takes what belongs to the content and returns what is behind it.
func (b *body) take(p []byte) (rest []byte, err error) {
	for b.open && len(p) > 0 {
		if b.left > 0 {
			n := min(b.left, int64(len(p)))
			b.left -= n
			p = p[n:]
			b.open = b.chunked || b.left > 0
			continue
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			b.head = append(b.head, p...)
			return nil, nil
		}
		text := bytes.TrimSpace(append(b.head, p[:end]...))
		b.head, p = b.head[:0], p[end+1:]
		if b.last { // a trailer field, or the end
			b.open = len(text) > 0
			continue
		}
		size, _, _ := bytes.Cut(text, []byte(";"))
		n, err := strconv.ParseUint(string(size), 16, 31)
		if err != nil {
			return nil, fmt.Errorf("a chunk's size: %w", err)
		}
		if b.last = n == 0; !b.last {
			b.left = int64(n) + 2 // with its CRLF
		}
	}
	return p, nil
}
