package bell

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// castagnoli is the polynomial processors compute at memory speed: ten
// gigabytes of media cost one second.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	headLinesMax  = 100      // field lines of an answer
	keptBodyBytes = 16 << 10 // of a body that somebody reads; the rest is only counted
	readBytes     = 32 << 10 // one read; a media segment takes a few
)

// answer is one response, read to its end.
type answer struct {
	status     int
	retryAfter time.Duration // 0: not said
	cookies    []string      // name=value of every Set-Cookie
	length     int64         // of the body, as received
	crc        uint32        // CRC-32C of the body
	body       []byte        // its first keptBodyBytes, if asked for; valid until the next request
	closes     bool          // the connection ends with this response
}

// errShort says that a message ended before it was complete.
var errShort = errors.New("the answer was cut short")

// conn is one HTTP/1.1 connection, used by one goroutine.
type conn struct {
	net.Conn
	r      *bufio.Reader
	served int    // answers read
	buf    []byte // one read
	kept   []byte // backs answer.body
}

func newConn(c net.Conn) *conn {
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 4<<10), buf: make([]byte, readBytes)}
}

// roundTrip writes one request and reads its answer to the end. sent reports
// whether all of the request went out. After an error the connection is of no
// further use.
func (c *conn) roundTrip(request []byte, keepBody bool, deadline time.Time) (a answer, sent bool, err error) {
	if err := c.SetDeadline(deadline); err != nil {
		return a, false, err
	}
	if _, err := c.Write(request); err != nil {
		return a, false, err
	}
	a, err = c.readAnswer(keepBody)
	c.served++
	return a, true, err
}

func (c *conn) readAnswer(keepBody bool) (answer, error) {
	for {
		a, framing, err := c.readHead()
		if err != nil {
			return a, err
		}
		if a.status >= 200 {
			return a, c.readBody(&a, framing, keepBody)
		}
		if a.status == 101 {
			return a, errors.New("the answer switches protocols, which nobody asked for")
		}
	}
}

// framing says how the end of a body is found.
type framing struct {
	length  int64 // -1: not said
	chunked bool
}

func (c *conn) readHead() (a answer, f framing, err error) {
	f.length = -1
	line, err := c.readLine()
	if err != nil {
		return a, f, err
	}
	minor, status, ok := parseStatusLine(line)
	if !ok {
		return a, f, fmt.Errorf("the answer begins with %.40q", line)
	}
	a.status, a.closes = status, minor == 0
	for range headLinesMax {
		line, err := c.readLine()
		if err != nil {
			return a, f, err
		}
		if len(line) == 0 {
			return a, f, nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t") {
			return a, f, fmt.Errorf("the answer has a field line %.40q", line)
		}
		if err := takeField(&a, &f, name, bytes.TrimSpace(value)); err != nil {
			return a, f, err
		}
	}
	return a, f, fmt.Errorf("the answer has more than %d field lines", headLinesMax)
}

// takeField keeps the few fields that a browser's script would act on.
func takeField(a *answer, f *framing, name, value []byte) error {
	switch {
	case equalFold(name, "Content-Length"):
		n, err := strconv.ParseUint(string(value), 10, 62)
		if err != nil || f.length >= 0 && f.length != int64(n) {
			return fmt.Errorf("the answer says Content-Length: %.40q", value)
		}
		f.length = int64(n)
	case equalFold(name, "Transfer-Encoding"):
		if !equalFold(value, "chunked") {
			return fmt.Errorf("the answer says Transfer-Encoding: %.40q", value)
		}
		f.chunked = true
	case equalFold(name, "Connection"):
		a.closes = a.closes || equalFold(value, "close")
	case equalFold(name, "Retry-After"):
		if s, err := strconv.ParseUint(string(value), 10, 16); err == nil {
			a.retryAfter = time.Duration(s) * time.Second
		}
	case equalFold(name, "Set-Cookie"):
		pair, _, _ := strings.Cut(string(value), ";")
		a.cookies = append(a.cookies, strings.TrimSpace(pair))
	}
	return nil
}

func parseStatusLine(line []byte) (minor, status int, ok bool) {
	// HTTP/1.1 200 OK
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return 0, 0, false
	}
	status, err := strconv.Atoi(string(line[9:12]))
	return int(line[7] - '0'), status, err == nil && status >= 100 && (len(line) == 12 || line[12] == ' ')
}

// readLine reads one line of a head, without its end.
func (c *conn) readLine() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	switch {
	case err == nil:
		return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errors.New("the answer has a line of more than 4 KiB")
	case errors.Is(err, io.EOF) && len(line) > 0:
		return nil, errShort
	}
	return nil, err
}

func (c *conn) readBody(a *answer, f framing, keep bool) error {
	a.body = c.kept[:0]
	defer func() { c.kept = a.body }()
	switch {
	case a.status == 204 || a.status == 304:
		return nil
	case f.chunked && f.length >= 0:
		return errors.New("the answer is framed twice, by Content-Length and by chunks")
	case f.chunked:
		return c.readChunks(a, keep)
	case f.length >= 0:
		return c.readN(a, f.length, keep)
	}
	a.closes = true
	for {
		if err := c.readSome(a, readBytes, keep); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (c *conn) readChunks(a *answer, keep bool) error {
	for {
		line, err := c.readLine()
		if err != nil {
			return asShort(err)
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 62)
		if err != nil {
			return fmt.Errorf("a chunk begins with %.40q", line)
		}
		if n == 0 {
			return c.skipTrailer()
		}
		if err := c.readN(a, int64(n), keep); err != nil {
			return err
		}
		if line, err := c.readLine(); err != nil {
			return asShort(err)
		} else if len(line) > 0 {
			return fmt.Errorf("a chunk of %d bytes is followed by %.40q", n, line)
		}
	}
}

func (c *conn) skipTrailer() error {
	for range headLinesMax {
		if line, err := c.readLine(); err != nil || len(line) == 0 {
			return asShort(err)
		}
	}
	return fmt.Errorf("the trailer has more than %d lines", headLinesMax)
}

// readN takes exactly n bytes into the answer.
func (c *conn) readN(a *answer, n int64, keep bool) error {
	for n > 0 {
		before := a.length
		if err := c.readSome(a, int(min(n, readBytes)), keep); err != nil {
			return asShort(err)
		}
		n -= a.length - before
	}
	return nil
}

// readSome takes at most limit bytes into the answer.
func (c *conn) readSome(a *answer, limit int, keep bool) error {
	n, err := c.r.Read(c.buf[:limit])
	part := c.buf[:n]
	a.crc = crc32.Update(a.crc, castagnoli, part)
	a.length += int64(n)
	if keep && len(a.body) < keptBodyBytes {
		a.body = append(a.body, part[:min(n, keptBodyBytes-len(a.body))]...)
	}
	if n > 0 {
		return nil
	}
	return err
}

func asShort(err error) error {
	if errors.Is(err, io.EOF) {
		return errShort
	}
	return err
}

func equalFold(b []byte, s string) bool {
	return len(b) == len(s) && strings.EqualFold(string(b), s)
}
