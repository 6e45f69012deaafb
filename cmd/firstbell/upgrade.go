package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/cache"
	"firstbell/cmd/firstbell/handover"
	"firstbell/proxy"
)

// This file is the old process's side of an upgrade; takeover.go is the new
// one's, and says what happens in which order.

var ( // but for tests constants
	// prepareMax is how long a new process may take before it wants the journal:
	// it reads that once, at some hundred megabytes a second.
	prepareMax = 5 * time.Minute
	// takeMax is how long it may take from then on to serve.
	takeMax = 30 * time.Second
	// hurryMax is how long an upgrade waits for the process before this one.
	hurryMax = 5 * time.Second
	// memoryMax is how long a process that is replaced waits for the new one to
	// take over what it has in memory.
	memoryMax = time.Minute
)

// upgraded is what came of an upgrade.
type upgraded struct {
	At         time.Time `json:"at"`
	By         string    `json:"by"`
	OK         bool      `json:"ok"`
	PID        int       `json:"pid,omitempty"` // of the new process
	Generation int       `json:"generation"`    // of the process that serves
	Version    string    `json:"version,omitempty"`
	Took       float64   `json:"took"`              // seconds
	Problem    string    `json:"problem,omitempty"` // why the old process goes on
}

// upgrades counts and remembers what came of upgrades of this process.
type upgrades struct {
	underWay sync.Mutex  // held by the one that is
	busy     atomic.Bool // underWay is held
	bad      atomic.Uint64
	latest   atomic.Pointer[upgraded]

	replaced chan struct{} // closed when another process serves in our place
	hurry    chan struct{} // closed when whoever is left should go
	hurried  sync.Once
}

// upgrade has another process, of the program as it is on disk now, take over,
// and returns when that serves or has been given up: then everything is as it
// was before.
func (s *server) upgrade(by string) *upgraded {
	out := &upgraded{At: time.Now(), By: by, Generation: s.generation}
	err := s.beginUpgrade()
	if err == nil {
		err = s.tryUpgrade(out)
		s.upgrades.busy.Store(false)
		s.upgrades.underWay.Unlock()
	}
	out.OK, out.Took = err == nil, time.Since(out.At).Seconds()
	if err != nil {
		out.Problem = err.Error()
		s.upgrades.bad.Add(1)
		s.log.Error("no other process took over, this one goes on", "by", by, "problem", err)
	}
	s.upgrades.latest.Store(out)
	return out
}

// noMoreUpgrades ends an upgrade that is under way, and reports whether this
// process has been replaced all the same.
func (s *server) noMoreUpgrades() (replaced bool) {
	s.stop()
	s.upgrades.underWay.Lock()
	defer s.upgrades.underWay.Unlock()
	select {
	case <-s.upgrades.replaced:
		return true
	default:
		return false
	}
}

// beginUpgrade says why there can be no upgrade now.
func (s *server) beginUpgrade() error {
	if os.Getpid() == 1 {
		return errors.New("this is process 1 of a container, which ends with it; start a container of the new image beside this one instead")
	}
	if !s.upgrades.underWay.TryLock() {
		return errors.New("an upgrade is under way already")
	}
	select {
	case <-s.upgrades.replaced:
		s.upgrades.underWay.Unlock()
		return errors.New("this process has been replaced already; ask the one that serves now")
	case <-s.stopping.Done():
		s.upgrades.underWay.Unlock()
		return errors.New("firstbell is ending")
	default:
	}
	s.reloads.mu.Lock() // one that is under way comes to its end
	s.upgrades.busy.Store(true)
	s.reloads.mu.Unlock()
	return nil
}

// tryUpgrade starts a process and sees it serve. After an error it is gone, and
// this process has everything again.
func (s *server) tryUpgrade(out *upgraded) error {
	if err := s.seeOffPredecessor(); err != nil {
		return err
	}
	s.log.Info("upgrading", "program", s.program.Path, "by", out.By)
	h := &handing{s: s, linked: make(chan struct{}), released: make(chan struct{}), failed: make(chan string, 1), served: make(chan struct{}), taken: make(chan struct{})}
	next, err := handover.Start(s.program, s.generation+1, s.inherited.sockets, os.Stderr, h)
	if err != nil {
		return err
	}
	h.next = next
	close(h.linked)
	if err = h.wait(); err == nil {
		out.PID, out.Generation, out.Version = next.PID, s.generation+1, h.intro.Version
		s.log.Info("another process has taken over", "process", out.PID, "version", out.Version, "generation", out.Generation)
		return nil
	}
	return errors.Join(err, h.giveUp())
}

// seeOffPredecessor waits for the process that this one took over from: three at
// once are enough.
func (s *server) seeOffPredecessor() error {
	before := s.inherited.before
	if before == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.stopping, hurryMax)
	defer cancel()
	var done bool
	_ = before.Call(ctx, "Old.Hurry", 0, &done) // it may have ended
	select {
	case <-s.alone:
		return nil
	case <-ctx.Done():
	}
	return fmt.Errorf("process %d, which this one took over from, still answers requests; it ends within listen.drain (%v), try again then",
		before.PID, s.now.Load().config.Listen.Drain)
}

// handing is one attempt to hand over. The new process calls its methods (see
// net/rpc).
type handing struct {
	s      *server
	linked chan struct{} // closed once next is set
	next   *handover.Successor

	released chan struct{}        // closed by Release
	failed   chan string          // why the new process does not serve, as it says
	served   chan struct{}        // closed by Serving
	twin     atomic.Pointer[twin] // the new process's cache, once that serves

	mu     sync.Mutex // guards what follows
	state  handState
	intro  Introduction
	rest   chan struct{} // set by Release: closed when store and sinks are let go
	memory func() (cache.Handed, bool)
	taken  chan struct{} // closed when the new process has all of it
}

type handState uint8

const (
	handPreparing handState = iota
	handReleased            // this process has let go of the journal and the disk
	handServed              // the new process serves
	handGivenUp
)

// wait waits until the new process serves, or does not.
func (h *handing) wait() error {
	limit := time.NewTimer(prepareMax)
	defer limit.Stop()
	released := h.released
	for {
		select {
		case <-h.served:
			return nil
		case <-released:
			released = nil
			limit.Reset(takeMax)
		case why := <-h.failed:
			return fmt.Errorf("the new process does not start: %s", strings.TrimSpace(why))
		case <-h.next.Ended():
			select {
			case why := <-h.failed:
				return fmt.Errorf("the new process does not start: %s", strings.TrimSpace(why))
			default:
			}
			return fmt.Errorf("the new process (%d) ended before it served: %s; the log has its last words", h.next.PID, h.next.How())
		case <-limit.C:
			return fmt.Errorf("the new process (%d) did not become ready in time and was ended", h.next.PID)
		case <-h.s.stopping.Done():
			return errors.New("firstbell is ending")
		}
	}
}

// giveUp ends the new process and takes everything back.
func (h *handing) giveUp() error {
	h.mu.Lock()
	if h.state == handServed {
		h.mu.Unlock()
		return nil // at the very last moment
	}
	was := h.state
	h.state = handGivenUp
	h.mu.Unlock()
	h.next.Kill()
	resize(h.s.now.Load().origins)
	if was == handReleased {
		<-h.rest
		return h.s.takeBack()
	}
	return nil
}

// Journal tells where the journal is and how far it goes.
func (h *handing) Journal(_ int, at *JournalAt) error {
	if a := h.s.takes.Load(); a != nil {
		*at = JournalAt{Dir: a.dirs[0], Next: a.journal.Next()}
	}
	return nil
}

// Release lets go of what only one process can have: check-ins wait until the
// new one takes them.
func (h *handing) Release(_ int, done *bool) error {
	<-h.linked
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != handPreparing {
		return errors.New("it has been given up")
	}
	s := h.s
	h.rest = make(chan struct{})
	if a := s.takes.Load(); a == nil {
		close(h.rest)
	} else {
		began := time.Now()
		s.clerk.hold()
		moved := func(ctx context.Context, host, path string) (answer proxy.LocalAnswer, err error) {
			err = h.next.Call(ctx, "New.Receipt", ReceiptAsk{host, path}, &answer)
			return answer, err
		}
		a.desk.moved.Store(&moved)
		rest, err := a.handOver()
		if err != nil {
			s.log.Error("closing the journal for the next process", "error", err)
		}
		go func() {
			defer close(h.rest)
			if err := rest(); err != nil {
				s.log.Error("closing store and sinks for the next process", "error", err)
			}
		}()
		s.takes.Store(nil)
		s.clerk.goTo(nextDesk{h.next.Link}, a.recorder)
		s.log.Info("the journal is free for the next process", "after", time.Since(began).Round(time.Millisecond))
	}
	if err := s.cache.Release(); err != nil {
		s.log.Warn("closing the cache directory for the next process", "error", err)
	}
	h.state = handReleased
	close(h.released)
	*done = true
	return nil
}

// Rest returns when store and sinks are free, too.
func (h *handing) Rest(_ int, done *bool) error {
	<-h.released
	<-h.rest
	*done = true
	return nil
}

// Failed hears why the new process does not serve.
func (h *handing) Failed(why string, done *bool) error {
	select {
	case h.failed <- why:
	default:
	}
	*done = true
	return nil
}

// Serving hears that the new process serves: this one takes no more
// connections.
func (h *handing) Serving(who Introduction, done *bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != handReleased {
		return errors.New("it was not ready in time and has been given up")
	}
	s := h.s
	h.state, h.intro = handServed, who
	h.memory, _ = iter.Pull(s.cache.HandOver())
	other := newTwin(h.next.Link, handover.NewService, s.log)
	other.stored = map[string]struct{}{}
	h.twin.Store(other)
	s.cache.SetPeer(other)
	if err := handover.Notify(fmt.Sprintf("MAINPID=%d", who.PID)); err != nil {
		s.log.Warn("systemd does not know the new process", "error", err)
	}
	if s.opsNet != nil { // who asks next is to ask the new process
		s.ops.SetKeepAlivesEnabled(false)
		_ = s.opsNet.Close() // the new process has the socket
	}
	close(h.served)
	s.handing = h
	close(s.upgrades.replaced)
	*done = true
	return nil
}

// Memory returns about so many bytes of what memory holds, and nothing when all
// of it has been returned.
func (h *handing) Memory(bytes int, batch *[]cache.Handed) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.memory == nil {
		return errors.New("it is not handed over")
	}
	for took := 0; took < bytes; {
		one, more := h.memory()
		if !more {
			break
		}
		took += len(one.Body) + len(one.Head) + len(one.Key)
		*batch = append(*batch, one)
	}
	return nil
}

// Taken hears that the new process has taken over what memory held.
func (h *handing) Taken(_ int, done *bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == handServed {
		select {
		case <-h.taken:
		default:
			close(h.taken)
		}
	}
	*done = true
	return nil
}

// Origins tells how many places this process keeps at each origin: those in use,
// and an eighth beside them for who still asks here.
func (h *handing) Origins(_ int, keeps *map[string]int) error {
	*keeps = map[string]int{}
	for name, u := range h.s.now.Load().origins {
		o := u.made.Concurrency
		n := min(o.Max, u.Limit.Stats().InUse+max(1, o.Max/8))
		u.Limit.Resize(n, *o.Queue, o.Wait)
		(*keeps)[name] = n
	}
	return nil
}

// askLooks is how often Ask looks again when what is asked for began to be
// fetched meanwhile.
const askLooks = 4

// Ask is what a twin asks for.
func (h *handing) Ask(q Question, all *[]cache.Handed) error {
	s := h.s
	ctx, cancel := context.WithTimeout(s.work, twinFlightMax)
	defer cancel()
	for range askLooks {
		s.proxy.AwaitFlight(ctx, q.Key)
		if *all = s.cache.HandOverOf(q.Key); len(*all) > 0 {
			return nil
		}
		twin := h.twin.Load()
		if twin == nil {
			return nil // it does not serve yet, as far as this process knows
		}
		left, asking := twin.leave(q, func() bool { return s.proxy.Fetches(q.Key) })
		if left {
			return nil
		}
		if asking != nil {
			select {
			case <-asking:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// Invalidated is what a twin asks for.
func (h *handing) Invalidated(key []byte, done *bool) error {
	h.s.cache.InvalidateHere(key)
	*done = true
	return nil
}

// Purged is what a twin asks for.
func (h *handing) Purged(p PurgeNote, done *bool) error {
	_, err := h.s.cache.PurgeHere(p.Selectors, p.Hard)
	*done = true
	return err
}

// Hurry has idle connections end now.
func (h *handing) Hurry(_ int, done *bool) error {
	h.s.upgrades.hurried.Do(func() { close(h.s.upgrades.hurry) })
	*done = true
	return nil
}

// takeBackEvery is how often what was let go is tried to be had again.
const takeBackEvery = 5 * time.Second

// takeBack takes back what Release let go. What cannot be had at once is tried
// again in the background: the error says so.
func (s *server) takeBack() error {
	err := s.tryTakeBack()
	if err == nil || s.stopping.Err() != nil {
		return err
	}
	s.bereft.Store(true)
	s.clerk.hold()
	s.log.Error("what was let go for the new process cannot be had again, and will be tried again", "error", err)
	s.background("taking back the journal", func(ctx context.Context) error {
		tick := time.NewTicker(takeBackEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			s.upgrades.underWay.Lock()
			again := s.tryTakeBack()
			s.upgrades.underWay.Unlock()
			if again == nil {
				s.bereft.Store(false)
				s.log.Info("what was let go for the new process is here again")
				return nil
			}
		}
	})
	return fmt.Errorf("the journal or the cache directory cannot be had again just now, and is tried again every %v: %w", takeBackEvery, err)
}

func (s *server) tryTakeBack() error {
	now := s.now.Load()
	err := s.cache.Retake()
	if now.config.Attendance == nil || s.takes.Load() != nil {
		return err
	}
	a, opened := openAttendance(s.work, now.config, s.log, nil)
	if opened != nil {
		return errors.Join(err, opened)
	}
	table, arranged := tableOf(now.config, now.origins, now.who, now.rooms, a)
	if arranged != nil {
		return errors.Join(err, arranged, a.close())
	}
	s.proxy.Swap(table)
	s.takes.Store(a)
	a.start(s)
	return err
}

// giveWay answers what is left after another process has taken over.
func (s *server) giveWay() error {
	ctx, cancel := context.WithTimeout(s.work, s.now.Load().config.Listen.Drain)
	defer cancel()
	var ops sync.WaitGroup
	ops.Go(func() {
		_ = s.ops.Shutdown(ctx) // the question that began this is answered, others end with the process
	})
	err := s.proxy.Retire(ctx, s.upgrades.hurry)
	if err != nil {
		err = fmt.Errorf("ending with requests under way: %w", err)
	}
	ops.Wait()
	s.handing.giveLate()
	<-s.handing.rest
	limit := time.NewTimer(memoryMax)
	defer limit.Stop()
	select {
	case <-s.handing.taken:
	case <-s.handing.next.Gone():
	case <-limit.C:
		err = errors.Join(err, errors.New("the new process did not take over what is in memory"))
	}
	return err
}

// giveLate gives the new process what was fetched here since it took over what
// memory held: nobody may have asked for it there yet.
func (h *handing) giveLate() {
	t := h.twin.Load()
	t.mu.Lock()
	stored := t.stored
	t.stored = nil
	t.mu.Unlock()
	var batch []cache.Handed
	took := 0
	give := func() {
		ctx, cancel := context.WithTimeout(h.s.work, callMax)
		defer cancel()
		var done bool
		if err := h.next.Call(ctx, "New.Late", batch, &done); err != nil && !errors.Is(err, handover.ErrGone) {
			h.s.log.Warn("the new process did not take over what was fetched here last, and fetches it again", "error", err)
		}
		batch, took = nil, 0
	}
	for key := range stored {
		for _, one := range h.s.cache.HandOverOf([]byte(key)) {
			batch = append(batch, one)
			if took += len(one.Body) + len(one.Head) + len(one.Key); took >= memoryBatch {
				give()
			}
		}
	}
	if len(batch) > 0 {
		give()
	}
}

// serveUpgrade answers POST /upgrade when another process serves, or has been
// given up.
func (s *server) serveUpgrade(w http.ResponseWriter, _ *http.Request) {
	out := s.upgrade("POST /upgrade")
	status := http.StatusOK
	if !out.OK {
		status = http.StatusUnprocessableEntity
	}
	sayJSON(w, status, out)
}
