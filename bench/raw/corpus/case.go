package corpus

import (
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
)

//go:embed *.txt
var files embed.FS

// Want says what a proxy may make of a case.
type Want string

// What a proxy may make of a case.
const (
	Refuse Want = "refuse" // the origin sees nothing of it, or the client none of the answer
	Take   Want = "take"   // it is valid, and passed on in one of the forms
	Either Want = "either"
)

// A Case is one conversation: what a client sends, what the origin answers,
// and what may come of it.
type Case struct {
	Name string
	File string // that holds it
	RFC  string // number and section
	Want Want

	Send  string // what the client sends; a GET unless the case says it
	Reply string // what the origin answers; empty: a plain 200
	End   bool   // the client closes behind what it sends
	Close bool   // the origin closes behind its answer

	Sees  []string // requests as the origin may see them, each as a Request's String, with " & " between two
	Gets  []string // the answer as the client may get it: status and quoted content
	Host  string   // that the origin may see, less its port; the proxy's unless the case says it
	Never []string // what must not be passed on, either way, in any spelling of case
}

// Read returns the cases that belong to the package, in the order of the files.
//
// A file is lines. "#" begins a comment; "case NAME" a case. Then "rfc", "want",
// "host", "sees", "gets" and "never" with a value, "end", "close", and the bytes: "send"
// or "reply" begins them, "> " goes before a line that ends in CRLF, "+ " before
// bytes without anything added. In both \r, \n, \t, \0, \xHH and \\ stand for a
// byte, {id} for the case's number, {host} for the host that the proxy serves,
// and {x*9} for nine times x.
func Read() ([]*Case, error) {
	names, err := fs.Glob(files, "*.txt")
	if err != nil {
		return nil, err
	}
	var all []*Case
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		cases, err := parse(name, string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, cases...)
	}
	return all, nil
}

func parse(file, text string) ([]*Case, error) {
	var all []*Case
	var c *Case
	var bytes *string
	for i, line := range strings.Split(text, "\n") {
		key, value, _ := strings.Cut(line, " ")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var err error
		switch {
		case key == "case":
			c, bytes = &Case{Name: value, File: file}, nil
			all = append(all, c)
		case c == nil:
			err = fmt.Errorf("%q before the first case", key)
		case key == ">" || key == "+":
			err = c.add(bytes, key, value)
		case key == "send":
			bytes = &c.Send
		case key == "reply":
			bytes = &c.Reply
		default:
			err = c.set(key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s:%d: %w", file, i+1, err)
		}
	}
	for _, c := range all {
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("reading %s: case %s: %w", file, c.Name, err)
		}
	}
	return all, nil
}

func (c *Case) add(to *string, key, value string) error {
	if to == nil {
		return fmt.Errorf("bytes before send or reply")
	}
	text, err := unescape(value)
	if err != nil {
		return err
	}
	*to += text
	if key == ">" {
		*to += "\r\n"
	}
	return nil
}

func (c *Case) set(key, value string) error {
	switch key {
	case "rfc":
		c.RFC = value
	case "want":
		c.Want = Want(value)
	case "sees":
		c.Sees = append(c.Sees, repeat(value))
	case "gets":
		c.Gets = append(c.Gets, repeat(value))
	case "never":
		text, err := unescape(value)
		c.Never = append(c.Never, strings.ToLower(text))
		return err
	case "host":
		c.Host = value
	case "end":
		c.End = true
	case "close":
		c.Close = true
	default:
		return fmt.Errorf("%q is no key", key)
	}
	return nil
}

// check finds cases that could not be judged.
func (c *Case) check() error {
	if c.Send == "" && c.Reply != "" {
		c.Send = "GET /{id} HTTP/1.1\r\nHost: {host}\r\n\r\n"
	}
	if c.Host == "" {
		c.Host = "{host}"
	}
	forms := c.Sees
	if c.Reply != "" {
		forms = c.Gets
	}
	switch {
	case c.RFC == "":
		return fmt.Errorf("no rfc")
	case c.Send == "":
		return fmt.Errorf("nothing to send")
	case !strings.Contains(c.Send, "{id}"):
		return fmt.Errorf("no {id} by which the origin knows it")
	case c.Want != Refuse && c.Want != Take && c.Want != Either:
		return fmt.Errorf("want %q; write refuse, take or either", c.Want)
	case c.Want == Refuse && len(forms) > 0 || c.Want != Refuse && len(forms) == 0:
		return fmt.Errorf("want %s with %d forms", c.Want, len(forms))
	}
	return nil
}

// unescape resolves what stands for bytes, but for {id} and {host}.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			text, used, err := unescapeOne(s[i+1:])
			if err != nil {
				return "", err
			}
			b.WriteString(text)
			i += used
		case '{':
			star, end := strings.IndexByte(s[i:], '*'), strings.IndexByte(s[i:], '}')
			if star < 2 || end < star {
				b.WriteByte('{')
				continue
			}
			n, err := strconv.Atoi(s[i+star+1 : i+end])
			if err != nil || n < 1 || n > 1<<20 {
				return "", fmt.Errorf("%q: not a number of times", s[i:i+end+1])
			}
			what, err := unescape(s[i+1 : i+star])
			if err != nil {
				return "", err
			}
			b.WriteString(strings.Repeat(what, n))
			i += end
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}

// times is {x*9}.
var times = regexp.MustCompile(`\{([^*{}]+)\*([0-9]+)\}`)

// repeat resolves {x*9} and leaves everything else as it is: forms are written
// as they are compared.
func repeat(s string) string {
	return times.ReplaceAllStringFunc(s, func(m string) string {
		parts := times.FindStringSubmatch(m)
		n, _ := strconv.Atoi(parts[2]) // digits
		return strings.Repeat(parts[1], min(n, 1<<20))
	})
}

// unescapeOne resolves what follows a backslash.
func unescapeOne(s string) (text string, used int, err error) {
	if s == "" {
		return "", 0, fmt.Errorf("a backslash at the line's end")
	}
	switch s[0] {
	case 'r':
		return "\r", 1, nil
	case 'n':
		return "\n", 1, nil
	case 't':
		return "\t", 1, nil
	case '0':
		return "\x00", 1, nil
	case '\\':
		return "\\", 1, nil
	case 'x':
		if len(s) > 2 {
			if n, err := strconv.ParseUint(s[1:3], 16, 8); err == nil {
				return string([]byte{byte(n)}), 3, nil
			}
		}
	}
	return "", 0, fmt.Errorf("\\%.3s stands for nothing", s)
}

// fill puts the case's number and the host in their places.
func fill(s, id, host string) string {
	return strings.NewReplacer("{id}", id, "{host}", host).Replace(s)
}
