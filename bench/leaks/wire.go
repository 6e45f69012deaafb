package leaks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// headBytesMax bounds a header section, and what is read of a line.
const headBytesMax = 16 << 10

// contentBytesMax bounds a content: no resource has half as much.
const contentBytesMax = 1 << 20

// A line is a field line.
type line struct{ name, value string }

// A head is a start line and the fields behind it.
type head struct {
	start string
	lines []line
	raw   []byte
}

// read reads a header section. io.EOF: the connection ended before it.
func (h *head) read(in *bufio.Reader) error {
	h.raw, h.lines = h.raw[:0], h.lines[:0]
	for {
		b, err := in.ReadSlice('\n')
		h.raw = append(h.raw, b...)
		switch {
		case err == io.EOF && len(h.raw) > 0:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case len(h.raw) > headBytesMax:
			return errors.New("a header section that does not end")
		}
		if len(b) <= 2 && strings.TrimRight(string(b), "\r\n") == "" {
			break
		}
	}
	s := string(h.raw)
	h.start, s, _ = strings.Cut(s, "\r\n")
	for s != "\r\n" && s != "" {
		var l string
		l, s, _ = strings.Cut(s, "\r\n")
		name, value, ok := strings.Cut(l, ":")
		if !ok {
			return fmt.Errorf("%q is no field line", l)
		}
		h.lines = append(h.lines, line{reveal(name), strings.TrimSpace(value)})
	}
	return nil
}

// get is the value of the first line with the name, or "".
func (h *head) get(name string) string {
	for i := range h.lines {
		if len(h.lines[i].name) == len(name) && strings.EqualFold(h.lines[i].name, name) {
			return h.lines[i].value
		}
	}
	return ""
}

// framing says how long the content behind a header section is: a number, -1
// for chunks, -2 when only the connection's end tells.
func (h *head) framing() (int, error) {
	if c := h.get("Transfer-Encoding"); c != "" {
		if !strings.EqualFold(c, "chunked") {
			return 0, fmt.Errorf("transfer coding %q", c)
		}
		return -1, nil
	}
	l := h.get("Content-Length")
	if l == "" {
		return -2, nil
	}
	n, err := strconv.Atoi(l)
	if err != nil || n < 0 || n > contentBytesMax {
		return 0, fmt.Errorf("Content-Length %q", l)
	}
	return n, nil
}

// readContent appends a content to dst until its framing says that this is
// all; any other end is an error. A trailer section goes to trailer. stop,
// which may be nil, is asked after each piece whether to go on.
func readContent(dst []byte, in *bufio.Reader, framing int, trailer *[]line, stop func(n int) bool) ([]byte, error) {
	switch framing {
	case -1:
		return readChunks(dst, in, trailer, stop)
	case -2:
		b, err := readPiece(dst, in, contentBytesMax, stop)
		if err == io.ErrUnexpectedEOF {
			err = nil // the end of the connection is the end of the content
		}
		return b, err
	}
	return readPiece(dst, in, framing, stop)
}

var errLeft = errors.New("the client left")

// readPiece appends n bytes; io.ErrUnexpectedEOF when there are fewer.
func readPiece(dst []byte, in *bufio.Reader, n int, stop func(n int) bool) ([]byte, error) {
	for n > 0 {
		if in.Buffered() == 0 {
			if _, err := in.Peek(1); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return dst, err
			}
		}
		b, _ := in.Peek(min(n, in.Buffered())) // what is buffered is there
		dst = append(dst, b...)
		n -= len(b)
		_, _ = in.Discard(len(b)) // the same
		if stop != nil && stop(len(dst)) {
			return dst, errLeft
		}
	}
	return dst, nil
}

func readChunks(dst []byte, in *bufio.Reader, trailer *[]line, stop func(n int) bool) ([]byte, error) {
	for {
		l, err := readLine(in)
		if err != nil {
			return dst, err
		}
		size, err := strconv.ParseUint(l, 16, 31)
		if err != nil || len(dst)+int(size) > contentBytesMax {
			return dst, fmt.Errorf("chunk size %q", l)
		}
		if size == 0 {
			return dst, readTrailer(in, trailer)
		}
		if dst, err = readPiece(dst, in, int(size), stop); err != nil {
			return dst, err
		}
		if l, err = readLine(in); err != nil || l != "" {
			return dst, fmt.Errorf("behind a chunk: %q, %w", l, errors.Join(err, io.ErrUnexpectedEOF))
		}
	}
}

func readTrailer(in *bufio.Reader, trailer *[]line) error {
	for {
		l, err := readLine(in)
		if err != nil || l == "" {
			return err
		}
		if name, value, ok := strings.Cut(l, ":"); ok && trailer != nil {
			*trailer = append(*trailer, line{name, strings.TrimSpace(value)})
		}
	}
}

func readLine(in *bufio.Reader) (string, error) {
	b, err := in.ReadSlice('\n')
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimRight(string(b), "\r\n"), err
}

// httpDate is how dates are written (RFC 9110 section 5.6.7).
func httpDate(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") }
