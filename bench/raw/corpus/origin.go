package corpus

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"
)

// A Request is what an origin got.
type Request struct {
	Method, Target, Host, Body string
	Raw                        string // its bytes
	Ambiguous                  string // why not everybody reads it alike; else the rest is as everybody does
}

// String is the method, the target, and the content in quotes unless there is
// none.
func (r *Request) String() string {
	s := r.Method + " " + r.Target
	if r.Body != "" {
		s += fmt.Sprintf(" %q", r.Body)
	}
	return s
}

// origin records the requests that reach it, by the number of their case, and
// answers each. A request that ends too early is none.
type origin struct {
	ln    net.Listener
	conns sync.WaitGroup

	mu      sync.Mutex // guards below
	cases   map[string]*Case
	seen    map[string][]*Request // "" holds those of no case
	replied map[string]bool       // the case's own answer has been given
	open    map[net.Conn]struct{}
	closed  bool
	last    time.Time // something came
}

// idText is what stands for a case's number on the wire.
var idText = regexp.MustCompile(`case[0-9]{4}x`)

func newOrigin(ln net.Listener, cases map[string]*Case) *origin {
	o := &origin{ln: ln, cases: cases, seen: map[string][]*Request{}, replied: map[string]bool{}, open: map[net.Conn]struct{}{}}
	o.conns.Add(1)
	go o.serve()
	return o
}

func (o *origin) serve() {
	defer o.conns.Done()
	for {
		c, err := o.ln.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		if o.closed {
			o.mu.Unlock()
			_ = c.Close()
			return
		}
		o.open[c] = struct{}{}
		o.conns.Add(1)
		o.mu.Unlock()
		go func() {
			defer o.conns.Done()
			o.converse(c)
			o.mu.Lock()
			delete(o.open, c)
			o.mu.Unlock()
			_ = c.Close()
		}()
	}
}

// close ends what is under way.
func (o *origin) close() {
	_ = o.ln.Close()
	o.mu.Lock()
	o.closed = true
	for c := range o.open {
		_ = c.Close()
	}
	o.mu.Unlock()
	o.conns.Wait()
}

// tape keeps the bytes of the message being read.
type tape struct {
	from io.Reader
	kept bytes.Buffer
}

// Read implements io.Reader.
func (t *tape) Read(p []byte) (int, error) {
	n, err := t.from.Read(p)
	t.kept.Write(p[:n])
	return n, err
}

func (o *origin) converse(c net.Conn) {
	t := &tape{from: c}
	r := bufio.NewReader(t)
	for {
		req, err := readRequest(r, c)
		if req == nil {
			return // the connection's end, or a request that has none
		}
		raw := t.kept.Bytes()[:t.kept.Len()-r.Buffered()]
		req.Raw = string(raw)
		if err != nil {
			// What is behind it may belong to it.
			_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = io.CopyN(io.Discard, r, lineMax)
			req.Raw = t.kept.String()
		}
		id, reply, closes := o.record(req)
		if reply == "" {
			reply = o.plain(req, id)
		}
		if _, werr := io.WriteString(c, reply); werr != nil || closes || err != nil {
			return
		}
		rest := append([]byte(nil), t.kept.Bytes()[len(raw):]...)
		t.kept.Reset()
		t.kept.Write(rest)
	}
}

// readRequest reads one request. It returns nil when none is complete, and an
// error beside it when it is ambiguous.
func readRequest(r *bufio.Reader, c io.Writer) (*Request, error) {
	m, err := readHead(r)
	req := &Request{}
	if err == nil {
		err = req.readStart(m)
	}
	if err == nil {
		var length int64
		if length, _, err = m.framing(); err == nil && length != 0 {
			if len(m.values("Expect")) > 0 {
				if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
					return nil, err
				}
			}
			err = m.readBody(r, length)
		}
		req.Body = m.body
	}
	var unclear *errAmbiguous
	switch {
	case errors.As(err, &unclear):
		req.Ambiguous = unclear.why
		return req, err
	case err != nil:
		return nil, err
	}
	return req, nil
}

func (r *Request) readStart(m *message) error {
	parts := strings.Split(m.start, " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" || hasControls(parts[1]) ||
		parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0" || strings.ContainsAny(parts[1], "#\t") {
		return ambiguous("the request line %.60q", m.start)
	}
	r.Method, r.Target = parts[0], parts[1]
	hosts := m.values("Host")
	if len(hosts) != 1 {
		return ambiguous("%d Host fields", len(hosts))
	}
	r.Host = hosts[0]
	return nil
}

// record keeps the request and returns how it is to be answered: as its case
// says when it is the first of that case, plainly otherwise.
func (o *origin) record(r *Request) (id, reply string, closes bool) {
	id = idText.FindString(r.Raw)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen[id] = append(o.seen[id], r)
	o.last = time.Now()
	c := o.cases[id]
	if c == nil || c.Reply == "" || o.replied[id] {
		return id, "", false
	}
	o.replied[id] = true
	return id, c.Reply, c.Close
}

// plain is an answer that says what it is to. Nobody may store it.
func (o *origin) plain(r *Request, id string) string {
	body := "plain " + r.Target
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nCache-Control: no-store\r\nX-Case: %s\r\n\r\n", len(body), id)
	if r.Method == "HEAD" {
		return head
	}
	return head + body
}

// settle waits until nothing has come for a moment, at most a second.
func (o *origin) settle() {
	const quiet = 100 * time.Millisecond
	for range 10 {
		o.mu.Lock()
		since := time.Since(o.last)
		o.mu.Unlock()
		if since >= quiet {
			return
		}
		time.Sleep(quiet)
	}
}

// requests are those of a case, in the order in which they came.
func (o *origin) requests(id string) []*Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen[id]
}
