package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/attendance"
	"firstbell/cmd/firstbell/handover"
)

const (
	// clerkPatience is how long a check-in waits for the journal to change
	// hands. It is on disk some tens of milliseconds after that.
	clerkPatience = 2 * time.Second

	// clerkQueue bounds those who wait, as a recorder bounds them.
	clerkQueue = attendance.DefaultMaxWaiting
)

// A clerk takes check-ins, and what is collected, to whoever has the journal: the
// recorder of this process, the next process, or, while the journal changes
// hands, nobody. Then they wait: no longer than clerkPatience, no more than
// clerkQueue, and who waits in vain is told when the press came. It is a
// proxy.Recorder.
type clerk struct {
	desk    atomic.Pointer[desk]
	waiting atomic.Int64
	waited  atomic.Uint64 // times that somebody had to wait
	refused atomic.Uint64 // of those, in vain
}

// desk is where the clerk goes. It is never changed; the next takes its place.
type desk struct {
	to    taker                // nil: nobody has the journal
	far   bool                 // to is in another process, which may not be there yet
	token *attendance.Recorder // says when a press came that is refused; nil: nobody does
	next  chan struct{}        // closed when another desk is in use
}

// taker is who has the journal: *attendance.Recorder or a nextDesk.
type taker interface {
	Take(ctx context.Context, p attendance.Press) (attendance.Receipt, error)
	Collect(ctx context.Context, it attendance.Item) (attendance.ReceiptID, error)
}

func newClerk() *clerk {
	c := &clerk{}
	c.desk.Store(&desk{next: make(chan struct{})})
	return c
}

// goTo has the clerk go to another desk from now on. token turns away who waits
// there in vain.
func (c *clerk) goTo(to taker, token *attendance.Recorder) {
	_, far := to.(nextDesk)
	old := c.desk.Swap(&desk{to: to, far: far, token: token, next: make(chan struct{})})
	close(old.next)
}

// hold has everybody wait.
func (c *clerk) hold() { c.goTo(nil, c.desk.Load().token) }

// Take implements proxy.Recorder.
func (c *clerk) Take(ctx context.Context, p attendance.Press) (attendance.Receipt, error) {
	r, vain, err := goAndAsk(ctx, c, taker.Take, p)
	if vain != nil {
		err = vain.turnAway(p)
	}
	return r, err
}

// Submit implements proxy.Recorder. Who has to wait for a journal that changes
// hands does so in a goroutine of its own.
func (c *clerk) Submit(p attendance.Press, pending *attendance.Pending, w attendance.Waiter) (attendance.Receipt, bool, error) {
	e := c.errand(w)
	e.press = p
	return sendOff(e, func(r *attendance.Recorder) (attendance.Receipt, bool, error) { return r.Submit(p, pending, e) })
}

// SubmitItem implements proxy.Recorder, in the same way.
func (c *clerk) SubmitItem(it attendance.Item, pending *attendance.Pending, w attendance.Waiter) (attendance.ReceiptID, bool, error) {
	e := c.errand(w)
	e.item, e.isItem = it, true
	return sendOff(e, func(r *attendance.Recorder) (attendance.ReceiptID, bool, error) { return r.SubmitItem(it, pending, e) })
}

// sendOff submits what an errand is about to who has the journal in this process.
// Who has it elsewhere, or nobody, is gone to and waited for by the errand itself.
func sendOff[A any](e *errand, submit func(*attendance.Recorder) (A, bool, error)) (a A, waits bool, err error) {
	var none A
	if r, ok := e.clerk.desk.Load().to.(*attendance.Recorder); ok {
		a, waits, err = submit(r)
		if waits {
			return none, true, nil // e may be another's by now
		}
		if err == nil || !moving(err) {
			e.done()
			return a, false, err
		}
	}
	go e.run()
	return none, true, nil
}

// errand is a press, or an Item, that somebody waits for who does not wait
// himself.
type errand struct {
	clerk  *clerk
	press  attendance.Press
	item   attendance.Item // instead
	isItem bool
	waiter attendance.Waiter
}

func (c *clerk) errand(w attendance.Waiter) *errand {
	e := errands.Get().(*errand)
	e.clerk, e.waiter = c, w
	return e
}

var errands = sync.Pool{New: func() any { return new(errand) }}

func (e *errand) done() {
	*e = errand{}
	errands.Put(e)
}

// Settled implements attendance.Waiter.
func (e *errand) Settled(r attendance.Receipt, err error) {
	if err != nil && moving(err) {
		go e.run()
		return
	}
	w := e.waiter
	e.done()
	w.Settled(r, err)
}

// run waits for whoever has the journal.
func (e *errand) run() {
	w := e.waiter
	var r attendance.Receipt
	var err error
	if e.isItem {
		r.ID, err = e.clerk.Collect(context.Background(), e.item)
	} else {
		r, err = e.clerk.Take(context.Background(), e.press)
	}
	e.done()
	w.Settled(r, err)
}

// Collect implements proxy.Recorder.
func (c *clerk) Collect(ctx context.Context, it attendance.Item) (attendance.ReceiptID, error) {
	id, vain, err := goAndAsk(ctx, c, taker.Collect, it)
	if vain != nil {
		err = turnedAway()
	}
	return id, err
}

// goAndAsk asks whoever has the journal, and waits while nobody has. vain is the
// desk where it was waited for nothing, nil when there is an answer.
func goAndAsk[Q, A any](ctx context.Context, c *clerk, ask func(taker, context.Context, Q) (A, error), q Q) (a A, vain *desk, err error) {
	var since time.Time
	for {
		d := c.desk.Load()
		if d.far && since.IsZero() {
			since = time.Now()
		}
		if d.to != nil {
			a, err = ask(d.to, ctx, q)
			if err == nil || !moving(err) {
				return a, nil, err
			}
			if c.desk.Load() == d && errors.Is(err, attendance.ErrStopped) {
				return a, nil, err // it ends, and nobody takes over
			}
		}
		if !c.wait(ctx, d, &since) {
			var none A
			return none, d, nil
		}
	}
}

// Seen implements proxy.Recorder.
func (c *clerk) Seen(at time.Time, credential []byte) string {
	d := c.desk.Load()
	if d.token == nil {
		return ""
	}
	return d.token.Seen(at, credential)
}

// Contradicted implements proxy.Recorder. In a process that has handed its journal
// over, the log has it alone.
func (c *clerk) Contradicted(host, student, field, claimed string) {
	if d := c.desk.Load(); d.token != nil {
		d.token.Contradicted(host, student, field, claimed)
	}
}

// moving says that nothing was recorded because the journal changes hands.
func moving(err error) bool {
	return errors.Is(err, attendance.ErrStopped) || errors.Is(err, handover.ErrGone)
}

// wait waits until another desk than d is in use; false when that takes too
// long, or too many wait.
func (c *clerk) wait(ctx context.Context, d *desk, since *time.Time) bool {
	if since.IsZero() {
		*since = time.Now()
	}
	c.waited.Add(1)
	if c.waiting.Add(1) > clerkQueue {
		c.waiting.Add(-1)
		c.refused.Add(1)
		return false
	}
	defer c.waiting.Add(-1)
	t := time.NewTimer(time.Until(since.Add(clerkPatience)))
	defer t.Stop()
	select {
	case <-d.next:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	c.refused.Add(1)
	return false
}

// turnAway refuses a press, with the token of when it came.
func (d *desk) turnAway(p attendance.Press) error {
	if d.token == nil {
		return turnedAway()
	}
	return d.token.TurnAway(p)
}

func turnedAway() error {
	return &attendance.Refused{RetryAfter: time.Second + rand.N(4*time.Second), Err: attendance.ErrStopped}
}

// nextDesk is the desk in the next process. It is a taker.
type nextDesk struct{ link *handover.Link }

// deskMax is how long the next process may take to answer: it waits, too.
const deskMax = 2 * clerkPatience

// DeskAnswer is what the next process says of a check-in, or of what is collected.
type DeskAnswer struct {
	Receipt attendance.Receipt
	ID      attendance.ReceiptID

	// Why there is none: a FieldError, or a Refused.
	Field, Reason string
	Refused       bool
	Busy          bool
	RetryAfter    time.Duration
	FirstSeen     string
}

// Take implements taker.
func (n nextDesk) Take(ctx context.Context, p attendance.Press) (attendance.Receipt, error) {
	var a DeskAnswer
	if err := n.call(ctx, "New.Take", p, &a); err != nil {
		return attendance.Receipt{}, err
	}
	return a.Receipt, a.err()
}

// Collect implements taker.
func (n nextDesk) Collect(ctx context.Context, it attendance.Item) (attendance.ReceiptID, error) {
	var a DeskAnswer
	if err := n.call(ctx, "New.Collect", it, &a); err != nil {
		return a.ID, err
	}
	return a.ID, a.err()
}

// call makes of every failure that the desk cannot be had.
func (n nextDesk) call(ctx context.Context, method string, args, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, deskMax)
	defer cancel()
	if err := n.link.Call(ctx, method, args, reply); err != nil {
		return errors.Join(handover.ErrGone, err)
	}
	return nil
}

// say puts what became of a check-in into the answer.
func (a *DeskAnswer) say(err error) {
	var field *attendance.FieldError
	var refused *attendance.Refused
	switch {
	case errors.As(err, &field):
		a.Field, a.Reason = field.Field, field.Reason
	case errors.As(err, &refused):
		a.Refused, a.RetryAfter, a.FirstSeen = true, refused.RetryAfter, refused.FirstSeen
		a.Busy = errors.Is(err, attendance.ErrBusy)
	case err != nil:
		a.Refused, a.RetryAfter = true, clerkPatience
	}
}

// err is what say was told.
func (a *DeskAnswer) err() error {
	switch {
	case a.Field != "":
		return &attendance.FieldError{Field: a.Field, Reason: a.Reason}
	case a.Busy:
		return &attendance.Refused{RetryAfter: a.RetryAfter, FirstSeen: a.FirstSeen, Err: attendance.ErrBusy}
	case a.Refused:
		return &attendance.Refused{RetryAfter: a.RetryAfter, FirstSeen: a.FirstSeen, Err: attendance.ErrDown}
	}
	return nil
}
