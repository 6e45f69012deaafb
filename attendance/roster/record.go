package roster

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// Bounds of one record. A OneRoster row is some 300 bytes; a quote that is never
// closed must not swallow the rest of the file.
const (
	recordBytesMax = 64 << 10
	recordLinesMax = 16
	fieldsMax      = 256
)

var (
	errQuoteOpen  = errors.New("a quote is opened and not closed; close it, or double it if it belongs to the text")
	errQuoteAfter = errors.New("text follows a closing quote; double the quotes that belong to the text")
	errTooLong    = errors.New("the row is longer than 64 KiB")
	errManyFields = errors.New("the row has more than 256 fields")
)

// records reads CSV as RFC 4180 has it, with LF or CRLF, one record at a time.
// A record it cannot read costs that record's first line alone: reading goes on
// with the line after it.
type records struct {
	in      *bufio.Reader
	ahead   [][]byte // the lines of the record in hand after its first
	pending [][]byte // lines given back, because the record in hand was broken
	failed  error    // what reading said after the pending lines
	line    int      // the line that the last record began on
	next    int      // the line that comes next
	text    []byte   // the last record's fields, one after the other
	ends    []int    // where in text each of them ends
	out     []string // what read returned last
}

func newRecords(r io.Reader) *records {
	return &records{in: bufio.NewReaderSize(r, recordBytesMax), next: 1}
}

// read returns the next record's fields. The slice holds until the next call;
// the strings may be kept, but share one piece of memory. Empty lines are passed
// over. When broken is true, err says why the record cannot be read, and the
// next one can; any other error ends the reading.
func (r *records) read() (fields []string, broken bool, err error) {
	for {
		line, err := r.readLine()
		r.line = r.next
		if err != nil {
			r.next++ // a line too long is one line
			return nil, err == errTooLong, err
		}
		r.next++
		if len(line) == 0 {
			continue
		}
		if err := r.split(line); err != nil {
			r.next -= len(r.ahead)
			r.pending = append(r.ahead, r.pending...)
			return nil, true, err
		}
		return r.fields(), false, nil
	}
}

// readLine returns the next line without its line end. It holds until the next
// call.
func (r *records) readLine() ([]byte, error) {
	if len(r.pending) > 0 {
		line := r.pending[0]
		r.pending = r.pending[1:]
		return line, nil
	}
	if err := r.failed; err != nil {
		r.failed = nil
		return nil, err
	}
	line, err := r.in.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		for err == bufio.ErrBufferFull {
			_, err = r.in.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
		return nil, errTooLong
	}
	if err != nil && (err != io.EOF || len(line) == 0) {
		return nil, err
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

// split takes the fields of the record that begins with line, reading further
// lines while a quote is open.
func (r *records) split(line []byte) error {
	r.text, r.ends, r.ahead = r.text[:0], r.ends[:0], nil
	for {
		if len(r.ends) == fieldsMax {
			return errManyFields
		}
		rest, more, err := r.field(line)
		if err != nil {
			return err
		}
		r.ends = append(r.ends, len(r.text))
		if !more {
			return nil
		}
		line = rest
	}
}

// field takes one field off line; more is true when a comma followed it.
func (r *records) field(line []byte) (rest []byte, more bool, err error) {
	if len(line) > 0 && line[0] == '"' {
		return r.quoted(line[1:])
	}
	value, rest, more := bytes.Cut(line, []byte(","))
	r.text = append(r.text, value...)
	return rest, more, nil
}

// quoted takes a field whose opening quote has been taken.
func (r *records) quoted(line []byte) (rest []byte, more bool, err error) {
	for {
		i := bytes.IndexByte(line, '"')
		switch {
		case i < 0:
			r.text = append(append(r.text, line...), '\n')
			if line, err = r.nextOfRecord(); err != nil {
				return nil, false, err
			}
		case i+1 < len(line) && line[i+1] == '"':
			r.text = append(r.text, line[:i+1]...)
			line = line[i+2:]
		default:
			r.text = append(r.text, line[:i]...)
			line = line[i+1:]
			if len(line) == 0 {
				return nil, false, nil
			}
			if line[0] != ',' {
				return nil, false, errQuoteAfter
			}
			return line[1:], true, nil
		}
	}
}

// nextOfRecord returns the line that goes on the record in hand.
func (r *records) nextOfRecord() ([]byte, error) {
	if len(r.ahead) == recordLinesMax-1 || len(r.text) > recordBytesMax {
		return nil, errQuoteOpen
	}
	line, err := r.readLine()
	if err != nil {
		r.failed = err
		return nil, errQuoteOpen
	}
	line = bytes.Clone(line)
	r.ahead = append(r.ahead, line)
	r.next++
	return line, nil
}

func (r *records) fields() []string {
	all, from := string(r.text), 0
	r.out = r.out[:0]
	for _, end := range r.ends {
		r.out = append(r.out, all[from:end])
		from = end
	}
	return r.out
}
