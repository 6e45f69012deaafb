package leaks

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"
)

// An asker is one client: a connection at a time, on which many users ask, as
// behind a school's own proxy.
type asker struct {
	w       *world
	draw    draw
	address int8

	conn    net.Conn
	in      *bufio.Reader
	out     []byte
	asks    int // answers given on this connection
	a       answer
	buf     []byte // for what a content should be
	coded   []byte
	decoded []byte
	seen    counts
}

// counts are an asker's own, added to the report at its end.
type counts struct {
	shared, notModified, parts, problems, left, broken, coded int
	kinds                                                     map[string]int
}

// An answer is what a client saw.
type answer struct {
	head
	status  int // 0: none came
	early   []string
	content []byte
	trailer []line
	err     error // why it is not whole; nil: it ended as its framing says
	left    bool
	fresh   bool // it was the first on its connection
}

func newAsker(w *world, n int) *asker {
	k := &asker{w: w, address: int8(n % addresses)}
	if w.options.OneAddress {
		k.address = -1
	}
	k.draw = draw{Rand: rand.New(rand.NewPCG(w.options.Seed, uint64(n)+1)), w: w, held: make(map[int]*holding)}
	k.seen.kinds = make(map[string]int)
	return k
}

// run asks until there are enough questions.
func (k *asker) run(ctx context.Context) {
	defer k.hangUp()
	for ctx.Err() == nil && int(k.w.questions.Load()) < k.w.options.Requests {
		if p := k.w.options.Pause; p > 0 && !k.draw.oneIn(4) {
			time.Sleep(rand.N(2 * p))
		}
		if k.draw.oneIn(100) {
			k.hangUp()
		}
		first := k.draw.question(k.address)
		questions := []*question{first}
		if first.safe() && first.leave == stays && first.body == nil && k.draw.oneIn(20) {
			for range 1 + k.draw.IntN(2) {
				if q := k.draw.question(k.address); q.safe() && q.body == nil {
					q.leave = stays
					questions = append(questions, q)
				}
			}
		}
		k.ask(ctx, questions)
	}
	k.w.count(func(r *Report) {
		r.Shared += k.seen.shared
		r.NotModified += k.seen.notModified
		r.Parts += k.seen.parts
		r.Problems += k.seen.problems
		r.Left += k.seen.left
		r.Broken += k.seen.broken
		r.Coded += k.seen.coded
		for name, n := range k.seen.kinds {
			r.SharedKinds[name] += n
		}
	})
}

func (k *asker) hangUp() {
	if k.conn != nil {
		_ = k.conn.Close() // it is not wanted any more
		k.conn = nil
	}
}

// ask sends questions at once and judges the answers.
func (k *asker) ask(ctx context.Context, questions []*question) {
	if k.conn == nil {
		conn, err := k.w.options.Dial(ctx, max(0, int(k.address)))
		if err != nil {
			if ctx.Err() == nil {
				k.w.found(Finding{Leak: Causeless, Detail: "connecting: " + err.Error()})
			}
			return
		}
		k.conn, k.in, k.asks = conn, bufio.NewReader(conn), 0
	}
	k.out = k.out[:0]
	for _, q := range questions {
		q.at, q.floor = time.Now(), q.res.confirmed()
		k.out = q.append(k.out, k.w.options.Blind)
	}
	_ = k.conn.SetDeadline(time.Now().Add(k.w.options.Patience)) // a closed connection shows at the write
	if _, err := k.conn.Write(k.out); err != nil {
		k.hangUp()
		return // the server had closed it; nobody knows what became of it
	}
	for i, q := range questions {
		if q.leave == leavesAtOnce || q.leave == leavesLater {
			if q.leave == leavesLater {
				time.Sleep(time.Duration(k.draw.IntN(12)) * time.Millisecond)
			}
			q.res.note("client leaves", 0, q.question, q.user)
			k.seen.left++
			k.hangUp()
			return
		}
		a := k.read(q)
		if i > 0 {
			a.fresh = false
		}
		k.judge(q, a)
		k.asks++
		if a.err != nil || a.left || strings.EqualFold(a.get("Connection"), "close") {
			k.hangUp()
			return
		}
	}
	if n := k.in.Buffered(); n > 0 {
		b, _ := k.in.Peek(min(n, 80)) // they are there
		last := questions[len(questions)-1]
		k.w.found(Finding{Leak: Unasked, Detail: strconv.Quote(string(b)), Question: last.String(), res: last.res})
		k.hangUp()
	}
}

// read reads one answer.
func (k *asker) read(q *question) *answer {
	a := &k.a
	a.status, a.early, a.trailer, a.content, a.err, a.left, a.fresh = 0, a.early[:0], a.trailer[:0], a.content[:0], nil, false, k.asks == 0
	a.lines = a.lines[:0]
	for {
		if a.err = a.head.read(k.in); a.err != nil {
			return a
		}
		_, rest, _ := strings.Cut(a.start, " ")
		code, _, _ := strings.Cut(rest, " ")
		status, err := strconv.Atoi(code)
		if err != nil || !strings.HasPrefix(a.start, "HTTP/1.1 ") {
			a.err = errors.New("a status line that is none: " + a.start)
			return a
		}
		if status >= 200 {
			a.status = status
			break
		}
		a.early = append(a.early, a.get("X-Hint"), strings.TrimPrefix(a.get("Set-Cookie"), "session="))
	}
	if q.method == "HEAD" || a.status == 204 || a.status == 304 {
		return a
	}
	framing, err := a.framing()
	if err != nil {
		a.err = err
		return a
	}
	var stop func(int) bool
	if q.leave == leavesInContent {
		stop = func(n int) bool { return n >= q.leaveAt }
	}
	a.content, a.err = readContent(a.content, k.in, framing, &a.trailer, stop)
	if b := k.w.options.Blind; b != nil && b.swaps && len(a.content) > 2*cellBytes && k.draw.oneIn(20) {
		appendCells(a.content[:cellBytes], 1<<31, cellBytes, 2*cellBytes)
	}
	if a.err == errLeft {
		a.err, a.left = nil, true
		k.seen.left++
	}
	if framing == -2 && a.err == nil {
		k.hangUpAfter()
	}
	return a
}

// hangUpAfter notes that the connection has come to its end.
func (k *asker) hangUpAfter() { k.a.lines = append(k.a.lines, line{"Connection", "close"}) }

// late reports an answer that did not come in time.
func late(err error) bool {
	var timed interface{ Timeout() bool }
	return errors.As(err, &timed) && timed.Timeout()
}
