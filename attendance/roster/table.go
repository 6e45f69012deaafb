package roster

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one row, or one field of it, that was left out.
type Problem struct {
	File   string // "users.csv"
	Line   int    // from 1; the first line of the row
	Column string // as OneRoster names it; empty when it is about the whole row
	Reason string // what is wrong, and the way out where there is one
}

func (p Problem) String() string {
	if p.Column == "" {
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Reason)
	}
	return fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Column, p.Reason)
}

// problemsMax is how many problems are kept: more than anybody reads, and
// enough to see the pattern.
const problemsMax = 1000

// Problems lists what was left out while loading.
type Problems struct {
	List []Problem // the first 1,000, in the order of the files
	More int       // how many came after them
}

// Total returns how many problems there were.
func (p *Problems) Total() int { return len(p.List) + p.More }

func (p *Problems) add(one Problem) {
	if len(p.List) == problemsMax {
		p.More++
		return
	}
	p.List = append(p.List, one)
}

// row is one record of a table, read by column name.
type row struct {
	table    *table
	line     int
	fields   []string
	problems *Problems
}

// table is what a file's header says.
type table struct {
	file    string
	columns map[string]int // by the name that the loader uses; absent columns are not in it
	width   int
}

// get returns a field without the spaces around it, empty when its column is
// absent. It shares memory with the whole row: clone what is kept.
func (r *row) get(column string) string {
	i, ok := r.table.columns[column]
	if !ok {
		return ""
	}
	return strings.TrimSpace(r.fields[i])
}

// id returns a field that must not be empty; ok is false, and the problem
// noted, when it is or when it is longer than ids may be.
func (r *row) id(column string) (value string, ok bool) {
	value = r.get(column)
	switch {
	case value == "":
		r.bad(column, "it is empty")
		return "", false
	case len(value) > idBytesMax:
		r.bad(column, "%d bytes are more than %d", len(value), idBytesMax)
		return "", false
	}
	return value, true
}

func (r *row) bad(column, format string, args ...any) {
	r.problems.add(Problem{File: r.table.file, Line: r.line, Column: column, Reason: fmt.Sprintf(format, args...)})
}

// active reports whether the row's status lets it count, and notes a status
// that OneRoster does not have.
func (r *row) active() bool {
	switch status := strings.ToLower(r.get("status")); status {
	case "", "active":
		return true
	case "tobedeleted", "inactive":
		return false
	default:
		r.bad("status", "%.40q is not a status; write active or tobedeleted, or leave it empty", status)
		return false
	}
}

// source reads the files of one directory and digests them on the way.
type source struct {
	dir      string
	digest   hash.Hash
	problems *Problems
}

func newSource(dir string, problems *Problems) *source {
	return &source{dir: dir, digest: sha256.New(), problems: problems}
}

// spec names a file and the columns that the loader reads.
type spec struct {
	file     string
	needs    []string // columns without which the file cannot be understood
	takes    []string // columns that may be there
	optional bool     // the file may be absent
}

// each calls take for every record that can be read. An error means that the
// file as a whole is of no use, or take's own.
func (s *source) each(sp spec, take func(*row) error) error {
	f, err := os.Open(filepath.Join(s.dir, sp.file))
	if err != nil {
		if sp.optional && errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err // names the file
	}
	defer f.Close()
	fmt.Fprintf(s.digest, "%s\n", sp.file)
	if err := s.rows(newRecords(io.TeeReader(f, s.digest)), sp, take); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(s.dir, sp.file), err)
	}
	return nil
}

func (s *source) rows(in *records, sp spec, take func(*row) error) error {
	t, err := readHeader(in, sp)
	if err != nil {
		return err
	}
	for {
		fields, broken, err := in.read()
		r := row{table: t, line: in.line, fields: fields, problems: s.problems}
		switch {
		case err == io.EOF:
			return nil
		case broken:
			r.bad("", "%v", err)
			continue
		case err != nil:
			return fmt.Errorf("line %d: %w", in.line, err)
		}
		if !r.fits() {
			continue
		}
		if err := take(&r); err != nil {
			return fmt.Errorf("line %d: %w", in.line, err)
		}
	}
}

// fits reports whether the row has as many fields as the header and is UTF-8,
// and notes the problem if not.
func (r *row) fits() bool {
	for len(r.fields) > r.table.width && r.fields[len(r.fields)-1] == "" {
		r.fields = r.fields[:len(r.fields)-1] // spreadsheets add empty columns
	}
	if len(r.fields) != r.table.width {
		r.bad("", "it has %d fields, the header has %d; quote a field that holds a comma", len(r.fields), r.table.width)
		return false
	}
	for i, field := range r.fields {
		if !utf8.ValidString(field) {
			r.bad(r.table.name(i), "it is not UTF-8; save the file as CSV UTF-8")
			return false
		}
	}
	return true
}

// name returns the name of a column that the loader reads, else its number.
func (t *table) name(i int) string {
	for name, at := range t.columns {
		if at == i {
			return name
		}
	}
	return fmt.Sprintf("column %d", i+1)
}

var byteOrderMark = []byte("\xef\xbb\xbf")

func readHeader(in *records, sp spec) (*table, error) {
	if start, _ := in.in.Peek(3); bytes.Equal(start, byteOrderMark) {
		in.in.Discard(len(byteOrderMark))
	} else if bytes.HasPrefix(start, []byte("\xff\xfe")) || bytes.HasPrefix(start, []byte("\xfe\xff")) {
		return nil, errors.New("it is UTF-16; save it as CSV UTF-8")
	}
	header, _, err := in.read()
	if err == io.EOF {
		return nil, errors.New("it is empty; its first line must name the columns")
	}
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", in.line, err)
	}
	for len(header) > 0 && header[len(header)-1] == "" {
		header = header[:len(header)-1]
	}
	t := &table{file: sp.file, columns: map[string]int{}, width: len(header)}
	for _, name := range slices.Concat(sp.needs, sp.takes) {
		i := slices.IndexFunc(header, func(h string) bool { return strings.EqualFold(strings.TrimSpace(h), name) })
		if i >= 0 {
			t.columns[name] = i
		}
	}
	for _, name := range sp.needs {
		if _, ok := t.columns[name]; !ok {
			return nil, fmt.Errorf("line %d: there is no column %s, only %.200q; the first line must name the columns, with commas between", in.line, name, header)
		}
	}
	return t, nil
}
