package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Load reads the file and everything it names. Without errors among the
// problems the Config is complete, with defaults filled in and paths seen from
// the directory of the file; with errors it is nil. Problems may hold warnings
// either way.
func Load(file string) (*Config, Problems) {
	text, err := readFile(file)
	if err != nil {
		return nil, Problems{{File: file, What: err.Error(), Fix: "name a file that can be read: -config FILE"}}
	}
	return read(file, text, (*validator).serving)
}

// LoadToRead is Load for those who only read what firstbell wrote: nothing
// needs to be writable, and files with tokens stay closed, but for the store's
// password.
func LoadToRead(file string) (*Config, Problems) {
	text, err := readFile(file)
	if err != nil {
		return nil, Problems{{File: file, What: err.Error(), Fix: "name a file that can be read: -config FILE"}}
	}
	return read(file, text, (*validator).reading)
}

func readFile(file string) ([]byte, error) {
	text, err := readBounded(file, fileBytesMax)
	if e, ok := err.(*fs.PathError); ok {
		if os.IsNotExist(e) {
			return nil, fmt.Errorf("there is no such file")
		}
		return nil, fmt.Errorf("it cannot be read: %w", e.Err)
	}
	return text, err
}

// LoadOps reads no more than where a running firstbell is asked, and the token
// for it, so that a file with mistakes elsewhere can still be used to ask.
func LoadOps(file string) (address, token string, problems Problems) {
	text, err := readFile(file)
	if err != nil {
		return "", "", Problems{{File: file, What: err.Error(), Fix: "name a file that can be read: -config FILE"}}
	}
	root, p := parse(file, text)
	if p != nil {
		return "", "", withSource(Problems{*p}, file, text)
	}
	d := newDecoder(file)
	c := &Config{File: file}
	d.decode(root, "", position{1, 1}, reflect.ValueOf(c).Elem(), structField{})
	v := &validator{decoder: d, c: c}
	d.problems = nil
	v.listen()
	if c.Ops.TokenFile != "" {
		c.Ops.Token = v.secretFile("ops.token_file", c.Ops.TokenFile)
	}
	return c.Listen.Ops, c.Ops.Token, withSource(d.problems.Errors(), file, text)
}

// Read is Load for a text that is at hand; file names it and says where the
// paths in it begin. It does not look at the machine: files that the text
// names are not read.
func Read(file string, text []byte) (*Config, Problems) {
	return read(file, text, func(*validator) {})
}

// read is Read, and then a look at the machine.
func read(file string, text []byte, look func(*validator)) (*Config, Problems) {
	root, p := parse(file, text)
	if p != nil {
		return nil, withSource(Problems{*p}, file, text)
	}
	d := newDecoder(file)
	c := &Config{File: file}
	d.decode(root, "", position{1, 1}, reflect.ValueOf(c).Elem(), structField{eg: "{listen: …, origins: …, routes: …}"})
	if !d.bad[""] {
		v := &validator{decoder: d, c: c}
		v.all()
		c.defaults()
		look(v)
	}
	d.problems.sort(file)
	problems := withSource(d.problems, file, text)
	if len(problems.Errors()) > 0 {
		return nil, problems
	}
	c.Digest = c.digest(text)
	return c, problems
}

// digest tells one reading from another: the file and what it names.
func (c *Config) digest(text []byte) string {
	h := sha256.New()
	h.Write(text)
	if c.Schools.File != "" {
		if more, err := os.ReadFile(c.Schools.File); err == nil {
			h.Write(more)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// passwords are those in URLs.
var passwords = regexp.MustCompile(`(://[^\s/:@"']*:)[^\s/"']+(@)|([?&](?:ssl)?password=)[^\s&"']+()`)

// withoutPasswords is a line of the file as it may be shown.
func withoutPasswords(line string) string { return passwords.ReplaceAllString(line, "$1$3…$2") }

// withSource adds to each problem the line it stands on.
func withSource(ps Problems, file string, text []byte) Problems {
	lines := strings.Split(string(text), "\n")
	for i := range ps {
		if n := ps[i].Line; ps[i].File == file && ps[i].Source == "" && n > 0 && n <= len(lines) {
			ps[i].Source = shorten(withoutPasswords(strings.TrimRight(lines[n-1], "\r")))
		}
	}
	return ps
}

// decodeInto is decode for a value in a chooser, on behalf of its own path.
func decodeInto[T any](d *decoder, n ast.Node, path string, into *T) {
	d.decode(n, path, d.at[path], reflect.ValueOf(into).Elem(), structField{})
}
