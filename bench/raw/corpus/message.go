package corpus

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	lineMax   = 64 << 10
	fieldsMax = 1000
	bodyMax   = 4 << 20
)

// A message is a request or an answer as everybody reads it.
type message struct {
	start  string // the first line
	fields [][2]string
	body   string
}

// errAmbiguous is of bytes that not everybody reads alike.
type errAmbiguous struct{ why string }

func (e *errAmbiguous) Error() string { return e.why }

func ambiguous(format string, args ...any) error { return &errAmbiguous{fmt.Sprintf(format, args...)} }

// values are those of every field line with the name.
func (m *message) values(name string) (all []string) {
	for _, f := range m.fields {
		if strings.EqualFold(f[0], name) {
			all = append(all, f[1])
		}
	}
	return all
}

// readLine reads a line that ends in CRLF and holds no other CR, and returns it
// without. io.EOF is an end before its first byte.
func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if err == io.EOF && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		if len(line) > lineMax {
			return "", ambiguous("a line of more than %d bytes", lineMax)
		}
	}
	text, whole := strings.CutSuffix(string(line), "\r\n")
	if !whole || strings.ContainsAny(text, "\r") {
		return "", ambiguous("a line does not end in CRLF, or holds a CR: %.60q", line)
	}
	return text, nil
}

// readHead reads a start line and fields, up to the empty line.
func readHead(r *bufio.Reader) (*message, error) {
	m := &message{}
	var err error
	if m.start, err = readLine(r); err != nil {
		return nil, err
	}
	for len(m.fields) < fieldsMax {
		line, err := readLine(r)
		if err != nil {
			return nil, cutOff(err)
		}
		if line == "" {
			return m, nil
		}
		name, value, found := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !found || !isToken(name) || hasControls(value) {
			return nil, ambiguous("the field line %.60q", line)
		}
		m.fields = append(m.fields, [2]string{name, value})
	}
	return nil, ambiguous("more than %d fields", fieldsMax)
}

func cutOff(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

func hasControls(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// framing is how a message's content ends: its length, -1 for chunked, or none
// said.
func (m *message) framing() (length int64, said bool, err error) {
	lengths, codings := m.values("Content-Length"), m.values("Transfer-Encoding")
	switch {
	case len(lengths) > 0 && len(codings) > 0:
		return 0, false, ambiguous("both Content-Length and Transfer-Encoding")
	case len(lengths) > 1 || len(codings) > 1:
		return 0, false, ambiguous("its framing twice")
	case len(codings) == 1:
		if !strings.EqualFold(codings[0], "chunked") {
			return 0, false, ambiguous("the transfer coding %q", codings[0])
		}
		return -1, true, nil
	case len(lengths) == 0:
		return 0, false, nil
	}
	n, err := strconv.ParseUint(lengths[0], 10, 62)
	if err != nil || strings.TrimLeft(lengths[0], "0123456789") != "" {
		return 0, false, ambiguous("the Content-Length %q", lengths[0])
	}
	return int64(n), true, nil
}

// readBody reads content of a length, or chunked when it is -1.
func (m *message) readBody(r *bufio.Reader, length int64) error {
	if length >= 0 {
		b := make([]byte, min(length, bodyMax))
		n, err := io.ReadFull(r, b)
		m.body = string(b[:n])
		if err == nil {
			_, err = io.CopyN(io.Discard, r, length-int64(n))
		}
		return cutOff(err)
	}
	for {
		line, err := readLine(r)
		if err != nil {
			return cutOff(err)
		}
		digits, extension, _ := strings.Cut(line, ";")
		size, err := strconv.ParseUint(digits, 16, 31)
		if err != nil || strings.Trim(digits, "0123456789abcdefABCDEF") != "" || hasControls(extension) || size > bodyMax {
			return ambiguous("the chunk size %.40q", line)
		}
		if size == 0 {
			return m.readTrailer(r)
		}
		b := make([]byte, size+2)
		n, err := io.ReadFull(r, b)
		m.body += string(b[:min(n, int(size))])
		if err != nil {
			return cutOff(err)
		}
		if string(b[size:]) != "\r\n" {
			return ambiguous("no CRLF behind a chunk")
		}
	}
}

func (m *message) readTrailer(r *bufio.Reader) error {
	for {
		line, err := readLine(r)
		if err != nil || line == "" {
			return cutOff(err)
		}
		name, value, found := strings.Cut(line, ":")
		if !found || !isToken(name) || hasControls(value) {
			return ambiguous("the trailer line %.60q", line)
		}
		for _, frames := range [...]string{"Content-Length", "Transfer-Encoding", "Host", "Trailer", "Connection"} {
			if strings.EqualFold(name, frames) {
				return ambiguous("a trailer field %s", name)
			}
		}
	}
}
