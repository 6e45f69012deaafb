package corpus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options say where the proxy is.
type Options struct {
	Dial   func() (net.Conn, error) // opens a connection to the proxy
	Origin net.Listener             // where the proxy finds the origin; Play closes it
	Host   string                   // a name that the proxy serves
	Wait   time.Duration            // for an answer; 2 s when 0
}

// workers is how many cases are played at once.
const workers = 8

// Play plays the cases and judges each by all that came of it until the last
// was over. The error says why they could not be played.
func Play(ctx context.Context, o Options, cases []*Case) ([]*Outcome, error) {
	if o.Wait == 0 {
		o.Wait = 2 * time.Second
	}
	plays := make([]*play, len(cases))
	byID := map[string]*Case{}
	for i, c := range cases {
		id := fmt.Sprintf("case%04dx", i)
		filled := *c
		for _, s := range []*string{&filled.Send, &filled.Reply, &filled.Host} {
			*s = fill(*s, id, o.Host)
		}
		filled.Sees, filled.Gets = fillAll(c.Sees, id, o.Host), fillAll(c.Gets, id, o.Host)
		plays[i], byID[id] = &play{Options: &o, Case: &filled, id: id}, &filled
	}
	at := newOrigin(o.Origin, byID)
	defer at.close()
	next := make(chan *play)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for p := range next {
				p.run()
			}
		})
	}
	for _, p := range plays {
		select {
		case next <- p:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	at.settle()
	at.close()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var all []*Outcome
	for i, p := range plays {
		if p.failed != nil {
			return nil, fmt.Errorf("playing case %s: %w", cases[i].Name, p.failed)
		}
		all = append(all, p.judge(cases[i], at.requests(p.id)))
	}
	if stray := at.requests(""); len(stray) > 0 {
		all = append(all, &Outcome{Case: &Case{Name: "of no case", Want: Refuse}, Verdict: Other,
			Detail: fmt.Sprintf("the origin got %d requests that belong to no case, such as %.80q", len(stray), stray[0].Raw)})
	}
	return all, nil
}

func fillAll(all []string, id, host string) (filled []string) {
	for _, s := range all {
		filled = append(filled, fill(s, id, host))
	}
	return filled
}

// play is one case being played.
type play struct {
	*Options
	*Case
	id string

	answers []*answer // to what the case sends
	again   *answer   // to the same once more; nil in cases without a Reply
	after   *answer   // to a plain request behind them; nil in cases without a Reply
	failed  error     // the proxy could not be connected to
}

// answer is what a client got for a request.
type answer struct {
	status int // 0: none
	body   string
	raw    string
	err    error // why it is not whole
	closed bool  // the connection ended instead of an answer
}

func (a *answer) String() string {
	switch {
	case a.status == 0 && a.closed:
		return "no answer"
	case a.status == 0:
		return "silence"
	}
	s := fmt.Sprintf("%d %q", a.status, a.body)
	if a.err != nil {
		s += ", broken off"
	}
	return s
}

// A line is a connection to the proxy.
type line struct {
	net.Conn
	tape *tape
	in   *bufio.Reader
}

func (p *play) dial() *line {
	c, err := p.Dial()
	if err != nil {
		p.failed = err
		return nil
	}
	t := &tape{from: c}
	return &line{c, t, bufio.NewReader(t)}
}

func (p *play) run() {
	l := p.dial()
	if l == nil {
		return
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = l.SetWriteDeadline(time.Now().Add(p.Wait))
		_, _ = io.WriteString(l, p.Send) // a proxy may refuse before it has all of it
	}()
	if p.End {
		<-sent
		_ = l.Close()
		return
	}
	defer func() { <-sent; _ = l.Close() }()
	method, _, _ := strings.Cut(strings.TrimLeft(p.Send, "\r\n"), " ")
	for len(p.answers) < p.wanted() {
		a := l.answer(method, p.Wait)
		p.answers = append(p.answers, a)
		if a.status == 0 || a.err != nil {
			break
		}
	}
	if p.Reply != "" {
		p.askOn(l, method)
	}
}

// wanted is how many answers there may be.
func (p *play) wanted() int {
	n := 1
	for _, s := range p.Sees {
		n = max(n, strings.Count(s, " & ")+1)
	}
	return n
}

// askOn looks whether the first answer does harm to the next ones.
func (p *play) askOn(l *line, method string) {
	p.again = p.ask(&l, p.Send, method)
	if p.failed == nil {
		p.after = p.ask(&l, fill("GET /{id}/after HTTP/1.1\r\nHost: {host}\r\n\r\n", p.id, p.Options.Host), "GET")
	}
	_ = l.Close()
}

// ask asks on the connection, on a new one when that has ended.
func (p *play) ask(l **line, request, method string) *answer {
	for range 2 {
		_ = (*l).SetWriteDeadline(time.Now().Add(p.Wait))
		if _, err := io.WriteString(*l, request); err == nil {
			if a := (*l).answer(method, p.Wait); a.status != 0 || !a.closed {
				return a
			}
		}
		fresh := p.dial()
		if fresh == nil {
			break
		}
		_ = (*l).Close()
		*l = fresh
	}
	return &answer{closed: true}
}

// answer reads the final response to a request.
func (l *line) answer(method string, wait time.Duration) *answer {
	_ = l.SetReadDeadline(time.Now().Add(wait))
	a := &answer{}
	begin := l.tape.kept.Len() - l.in.Buffered()
	for {
		m, err := readHead(l.in)
		if err != nil {
			var ne net.Error
			a.closed = !errors.As(err, &ne) || !ne.Timeout()
			a.err = err
			return a
		}
		if a.status = status(m.start); a.status < 200 && a.status != 101 {
			continue
		}
		a.err = l.content(m, method, a.status)
		a.body = m.body
		a.raw = l.tape.kept.String()[begin:]
		return a
	}
}

// status is that of a status line, 999 for what is none.
func status(line string) int {
	if len(line) < 12 || !strings.HasPrefix(line, "HTTP/1.") {
		return 999
	}
	n, err := strconv.Atoi(line[9:12])
	if err != nil || n < 100 {
		return 999
	}
	return n
}

func (l *line) content(m *message, method string, status int) error {
	length, said, err := m.framing()
	switch {
	case err != nil:
		return err
	case method == "HEAD" || status == 101 || status == 204 || status == 304:
		return nil
	case said:
		return m.readBody(l.in, length)
	}
	b, err := io.ReadAll(io.LimitReader(l.in, bodyMax))
	m.body = string(b)
	return err
}
