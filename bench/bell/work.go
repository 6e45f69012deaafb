package bell

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// requestsPerConn is after how many requests a connection is closed and opened
// anew: students come and go.
const requestsPerConn = 40

// worker runs errands one after the other over a connection of its own.
type worker struct {
	p       *Player
	request []byte

	mu   sync.Mutex // guards conn against the end of the morning
	conn *conn
	over bool
}

// work runs errands of one lane until it is closed.
func (p *Player) work(ctx context.Context, l *lane) {
	w := &worker{p: p}
	defer context.AfterFunc(ctx, w.end)()
	defer w.end()
	for {
		e, ok := l.take()
		if !ok {
			return
		}
		p.run(ctx, w, &e)
	}
}

// end closes the connection, also under a request that is waiting.
func (w *worker) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.conn != nil {
		w.conn.Close()
	}
}

// run makes one try of an errand and decides what the student does next.
func (p *Player) run(ctx context.Context, w *worker, e *errand) {
	st := p.cfg.Roster.Student(int(e.student))
	due := p.begun.Add(e.due)
	if e.kind == CheckIn {
		p.pressing(e, time.Now())
	}
	out, a := w.try(ctx, e, &st)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	p.count(e, out, now, now.Sub(due))
	if e.kind == CheckIn && a.status != 0 {
		p.heard(e, now)
	}
	e.tries++
	switch {
	case out == answered:
		if e.kind == CheckIn {
			p.toHand.Add(now.Sub(p.begun.Add(e.clicked)))
		}
		p.follow(e)
	case out.retried(a.status) && int(e.tries) < p.cfg.Tries && now.Before(p.cfg.Morning.Ends.Add(patienceAfter)):
		p.tryAgain(e, &a, now)
		return
	default:
		p.counts[e.kind].gaveUp.Add(1)
	}
	if p.pending.Add(-1) == 0 {
		p.agenda.nudge()
	}
}

// patienceAfter is how long after the period's end students still try.
const patienceAfter = 15 * time.Second

// tryAgain puts the errand back on the agenda. Cookies that came with a refusal
// are sent with the next try.
func (p *Player) tryAgain(e *errand, a *answer, now time.Time) {
	next := *e
	next.due = now.Sub(p.begun) + pause(int(e.tries), a.retryAfter)
	session, _, _ := strings.Cut(p.cfg.Session(""), "=")
	for _, pair := range a.cookies {
		if name, _, _ := strings.Cut(pair, "="); name != session {
			next.jar = "; " + pair
		}
	}
	p.agenda.push(next)
}

// pause is how long a page's script waits before the next try: 200 ms, doubled
// each time up to 3 s, give or take half; at least what the server asked for.
func pause(tries int, asked time.Duration) time.Duration {
	d := min(200*time.Millisecond<<min(tries-1, 5), 3*time.Second)
	d = scale(d, 0.5+rand.Float64())
	if asked > 0 {
		d = max(d, scale(asked, 1+0.2*rand.Float64()))
	}
	return d
}

// count books the outcome of one try.
func (p *Player) count(e *errand, out outcome, now time.Time, took time.Duration) {
	c, s := &p.counts[e.kind], p.timeline.at(now)
	if out == answered {
		c.answered.Add(1)
		s.answered.Add(1)
		p.times[e.kind].Add(took)
		p.timeline.wait(now, e.kind, took)
		return
	}
	s.failed.Add(1)
	switch out {
	case refused:
		c.refused.Add(1)
	case errored:
		c.errors.Add(1)
	case broken:
		c.broken.Add(1)
	case timedOut:
		c.timedOut.Add(1)
	case wrong:
		c.wrong.Add(1)
	}
}

// try sends the request and judges the answer. Like a browser it sends a request
// once more, at once, when a kept connection turns out to be dead.
func (w *worker) try(ctx context.Context, e *errand, st *Student) (outcome, answer) {
	w.request = w.p.appendRequest(w.request[:0], e, st)
	deadline := time.Now().Add(w.p.cfg.Patience)
	for {
		fresh := w.conn == nil
		if fresh {
			if err := w.dial(ctx, deadline); err != nil {
				return outcomeOf(err), answer{}
			}
		}
		a, sent, err := w.conn.roundTrip(w.request, e.kind == Me || e.kind == CheckIn, deadline)
		if sent {
			w.p.counts[e.kind].sent.Add(1)
			w.p.timeline.at(time.Now()).sent.Add(1)
		}
		out := answered
		if err != nil {
			out = outcomeOf(err)
		} else {
			out = w.p.judge(e, st, &a, time.Now())
		}
		if err != nil || a.closes || w.conn.served >= requestsPerConn {
			w.hangUp()
		}
		if err != nil && !fresh && a.status == 0 && out == broken && ctx.Err() == nil {
			w.p.counts[e.kind].broken.Add(1)
			continue
		}
		if err != nil {
			a.status = 0
		}
		return out, a
	}
}

func (w *worker) dial(ctx context.Context, deadline time.Time) error {
	d := net.Dialer{Deadline: deadline, KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", w.p.cfg.Addr)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		c.Close()
		return net.ErrClosed
	}
	w.conn = newConn(c)
	return nil
}

func (w *worker) hangUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn.Close()
	w.conn = nil
}

// outcomeOf sorts the ways in which a connection fails.
func outcomeOf(err error) outcome {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return timedOut
	case errors.Is(err, io.EOF), errors.Is(err, errShort), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPIPE):
		return broken
	}
	var netErr net.Error
	if errors.As(err, &netErr) {
		if netErr.Timeout() {
			return timedOut
		}
		return broken
	}
	return wrong // bytes that are no HTTP
}

// appendRequest writes the errand as a browser would send it.
func (p *Player) appendRequest(b []byte, e *errand, st *Student) []byte {
	host, path := p.cfg.Roster.Host(st.School), ""
	method := "GET "
	switch e.kind {
	case Me:
		path = p.cfg.MePath
	case CheckIn:
		method, path = "POST ", p.cfg.CheckInPath
	default:
		r := p.resource(e, st)
		host, path = r.Host, r.Path
	}
	b = append(append(append(append(b, method...), path...), " HTTP/1.1\r\nHost: "...), host...)
	b = append(append(append(b, "\r\nCookie: "...), p.cfg.Session(st.ID)...), e.jar...)
	b = append(b, "\r\nUser-Agent: "...)
	b = append(b, device(e)...)
	b = append(b, "\r\nAccept: */*\r\nAccept-Language: ko,en;q=0.5\r\nAccept-Encoding: identity\r\n"...)
	if e.kind != CheckIn {
		return append(b, "\r\n"...)
	}
	var room [160]byte
	body := append(room[:0], `{"student_id":"`...)
	body = append(append(body, st.ID...), `","class_id":"`...)
	body = append(append(body, st.ClassID...), `","attempt":"`...)
	body = append(strconv.AppendUint(body, p.attempt(e), 16), `"}`...)
	b = append(append(b, "Origin: http://"...), host...)
	b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n\r\n"...)
	return append(b, body...)
}

// device is the browser an errand comes from: the second press of some students
// comes from another one.
func device(e *errand) string {
	if e.n == pressSecond && e.kind == CheckIn {
		return "Mozilla/5.0 (Windows NT 10.0; Win64; x64) firstbell-bell"
	}
	return "Mozilla/5.0 (Linux; Android 14) firstbell-bell"
}
