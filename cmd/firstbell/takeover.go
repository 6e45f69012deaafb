package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/store"
	"firstbell/attendance/wal"
	"firstbell/cache"
	"firstbell/cmd/firstbell/config"
	"firstbell/cmd/firstbell/handover"
	"firstbell/proxy"
)

// This file is the new process's side of an upgrade; upgrade.go is the old one's.
// In order:
//
//	new: reads the file, takes over the listeners, makes all that the old process
//	     does not hold alone, and reads the journal as far as it goes
//	old: Release: closes the journal, store, sinks, the cache's disk; check-ins
//	     wait, at both
//	new: opens them, reads the rest of the journal, takes check-ins, and serves
//	old: Serving: takes no more connections, and answers what it has
//	new: reads the socket of HTTP/3, and passes on to the old process what is for
//	     its connections (see package datagrams)
//	new: takes over what the old process has in memory, and asks it for what has
//	     not come yet
//	old: Late: gives what it has fetched since, and ends

// heir is this process, for the process that it takes over from: that calls its
// methods (see net/rpc). Who calls before this process serves waits a while.
type heir struct {
	clerk *clerk // takes check-ins before all else is there
	s     *server
	ready chan struct{} // closed once s is set, and serves
}

var errNotYet = errors.New("not serving yet")

// serves has what waits, and what comes, be done.
func (h *heir) serves(s *server) {
	h.s = s
	close(h.ready)
}

func (h *heir) server() (*server, error) {
	t := time.NewTimer(clerkPatience)
	defer t.Stop()
	select {
	case <-h.ready:
		return h.s, nil
	case <-t.C:
		return nil, errNotYet
	}
}

// Take is what nextDesk asks for.
func (h *heir) Take(p attendance.Press, a *DeskAnswer) (err error) {
	a.Receipt, err = h.clerk.Take(context.Background(), p)
	a.say(err)
	return nil
}

// Collect is what nextDesk asks for.
func (h *heir) Collect(it attendance.Item, a *DeskAnswer) (err error) {
	a.ID, err = h.clerk.Collect(context.Background(), it)
	a.say(err)
	return nil
}

// A ReceiptAsk is who asks for a receipt, and where.
type ReceiptAsk struct{ Host, Path string }

// Receipt answers a request for a receipt that came to the old process.
func (h *heir) Receipt(ask ReceiptAsk, a *proxy.LocalAnswer) error {
	s, err := h.server()
	if err != nil {
		return err
	}
	takes := s.takes.Load()
	if takes == nil {
		return errNotYet // it hands over itself
	}
	ctx, cancel := context.WithTimeout(s.work, deskMax)
	defer cancel()
	*a = takes.desk.answer(ctx, ask.Host, ask.Path)
	return nil
}

// Ask is what a twin asks for.
func (h *heir) Ask(q Question, all *[]cache.Handed) error {
	s, err := h.server()
	if err != nil {
		return err
	}
	if s.twin.heard(q) { // else the old process answers a question of ours first
		s.awaitFlight(q.Key)
	}
	*all = s.cache.HandOverOf(q.Key)
	return nil
}

// Late takes over what the old process has fetched since its memory was.
func (h *heir) Late(all []cache.Handed, done *bool) error {
	s, err := h.server()
	if err == nil {
		*done = true
		for i := range all {
			s.cache.Adopt(&all[i])
		}
	}
	return err
}

// Invalidated is what a twin asks for.
func (h *heir) Invalidated(key []byte, done *bool) error {
	s, err := h.server()
	if err == nil {
		*done = true
		s.cache.InvalidateHere(key)
	}
	return err
}

// Purged is what a twin asks for.
func (h *heir) Purged(p PurgeNote, done *bool) error {
	s, err := h.server()
	if err == nil {
		*done = true
		_, err = s.cache.PurgeHere(p.Selectors, p.Hard)
	}
	return err
}

// A PurgeNote tells the other process of a purge.
type PurgeNote struct {
	Selectors []cache.Selector
	Hard      bool
}

// inherited is what a process began with.
type inherited struct {
	sockets *handover.Sockets
	before  *handover.Predecessor // nil: nobody
	heir    *heir
}

// inherit is called before the process opens anything.
func inherit() (*inherited, error) {
	sockets, before, err := handover.Inherit()
	if err != nil {
		return nil, err
	}
	in := &inherited{sockets: sockets, before: before, heir: &heir{clerk: newClerk(), ready: make(chan struct{})}}
	if before != nil {
		err = before.Talk(in.heir)
	}
	return in, err
}

// callMax is how long the other process may take for what takes no time.
const callMax = 5 * time.Second

// failed tells the old process why this one does not serve.
func (in *inherited) failed(why error) {
	if in.before == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callMax)
	defer cancel()
	var done bool
	_ = in.before.Call(ctx, "Old.Failed", why.Error(), &done) // it sees that this process ends
}

// preparation is what a new process has read of the journal while the old one
// still writes it.
type preparation struct {
	recorder *attendance.Recorder
	known    uint64                    // a position that the store has
	survey   *wal.Survey               // what need not be read again
	notify   atomic.Pointer[attendant] // who hears of appends, once all is open

	work       context.Context // of the process
	clerk      *clerk          // who goes to the recorder as soon as it takes check-ins
	othersFree func(context.Context) error
}

// JournalAt is where the old process's journal is, and how far it goes.
type JournalAt struct {
	Dir  string
	Next uint64
}

// prepare reads the journal that the old process writes, so that only the rest
// is left to be read when it is free. It returns nil where there is nothing to
// read before: then the start reads all of it.
func (in *inherited) prepare(ctx context.Context, c *config.Config) (*preparation, error) {
	if in.before == nil || c.Attendance == nil {
		return nil, nil
	}
	call, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	var at JournalAt
	if err := in.before.Call(call, "Old.Journal", 0, &at); err != nil {
		if errors.Is(err, handover.ErrGone) {
			return nil, nil // then the journal is free already
		}
		return nil, err
	}
	conf := c.Attendance
	if at.Next <= 1 || at.Dir != conf.Journal {
		return nil, nil
	}
	schools, err := schoolsOf(c)
	if err != nil {
		return nil, err
	}
	secret, err := attendance.OpenSecret(conf.Journal, false)
	if err != nil {
		return nil, err
	}
	ready := &preparation{othersFree: in.othersFree}
	if ready.survey, err = wal.MakeSurvey(conf.Journal, conf.JournalSpare); err != nil {
		return nil, err
	}
	past, err := wal.OpenReader(conf.Journal, conf.JournalSpare)
	if err != nil {
		return nil, err
	}
	defer past.Close()
	if ready.known, err = store.KnownPosition(conf.Journal); err != nil {
		return nil, err
	}
	ready.recorder, err = attendance.New(attendance.Config{
		Journal: attendance.ReadJournal(past), Until: at.Next, Secret: secret, Schools: schools, Grace: conf.Grace,
		OnAppend: func(next uint64) {
			if a := ready.notify.Load(); a != nil {
				a.appended(next)
			}
		},
	})
	return ready, err
}

// releaseMax is how long the old process may take to let go of the journal: what
// is under way is written, and deliveries are broken off.
const releaseMax = 20 * time.Second

// othersFree waits until the old process has let go of store and sinks, too.
func (in *inherited) othersFree(ctx context.Context) error {
	if in.before == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseMax)
	defer cancel()
	var done bool
	err := in.before.Call(ctx, "Old.Rest", 0, &done)
	if errors.Is(err, handover.ErrGone) {
		err = in.before.AwaitEnd(ctx)
	}
	if err != nil {
		return fmt.Errorf("taking over store and sinks from process %d: %w", in.before.PID, err)
	}
	return nil
}

// release has the old process let go of what only one process can have. An old
// process that is gone has let go of everything.
func (in *inherited) release(ctx context.Context) error {
	if in.before == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseMax)
	defer cancel()
	var done bool
	err := in.before.Call(ctx, "Old.Release", 0, &done)
	if errors.Is(err, handover.ErrGone) {
		err = in.before.AwaitEnd(ctx)
	}
	if err != nil {
		return fmt.Errorf("taking over from process %d: %w", in.before.PID, err)
	}
	return nil
}

// Introduction is what the new process says of itself when it serves.
type Introduction struct {
	PID     int
	Version string
}

// announce tells the old process that this one serves. The error says that the
// old one has given this one up, and goes on by itself.
func (s *server) announce() error {
	before := s.inherited.before
	if before == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.work, callMax)
	defer cancel()
	var done bool
	err := before.Call(ctx, "Old.Serving", Introduction{PID: os.Getpid(), Version: buildVersion().Version}, &done)
	if err != nil && !errors.Is(err, handover.ErrGone) {
		return fmt.Errorf("taking over from process %d: %w", before.PID, err)
	}
	go s.settleIn(before)
	return nil
}

// memoryBatch is how much the new process asks for at once of what the old one
// has in memory: less than anybody would wait for behind it.
const memoryBatch = 4 << 20

// settleIn takes over what the old process has in memory, and forgets it when it
// has ended.
func (s *server) settleIn(before *handover.Predecessor) {
	began, count, bytes := time.Now(), 0, int64(0)
	err := s.takeMemory(before, &count, &bytes)
	if err != nil {
		s.log.Warn("what the process before this one had in memory did not come over whole", "process", before.PID, "responses", count, "error", err)
	} else {
		s.log.Info("took over what the process before this one had in memory", "process", before.PID,
			"responses", count, "bytes", bytes, "after", time.Since(began).Round(time.Millisecond))
	}
	tick := time.NewTicker(sharesEvery)
	defer tick.Stop()
	for sharing := true; sharing; {
		select {
		case <-before.Gone():
			sharing = false
		case <-s.work.Done():
			sharing = false
		case <-tick.C:
			s.shareOrigins(before)
		}
	}
	s.cache.SetPeer(nil)
	_ = before.Close() // nobody is there any more
	resize(s.now.Load().origins)
	s.log.Info("the process before this one has ended", "process", before.PID)
	close(s.alone)
}

func (s *server) takeMemory(before *handover.Predecessor, count *int, bytes *int64) error {
	for {
		var batch []cache.Handed
		ctx, cancel := context.WithTimeout(s.work, time.Minute)
		err := before.Call(ctx, "Old.Memory", memoryBatch, &batch)
		cancel()
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			return s.thankYou(before)
		}
		for i := range batch {
			*bytes += int64(len(batch[i].Body))
			if s.cache.Adopt(&batch[i]) {
				*count++
			}
		}
		s.shareOrigins(before)
	}
}

// thankYou lets the old process forget what this one has taken over.
func (s *server) thankYou(before *handover.Predecessor) error {
	ctx, cancel := context.WithTimeout(s.work, callMax)
	defer cancel()
	var done bool
	if err := before.Call(ctx, "Old.Taken", 0, &done); !errors.Is(err, handover.ErrGone) {
		return err
	}
	return nil // it did not wait to be answered
}

// sharesEvery is how often the places that the old process keeps at origins are
// asked for.
const sharesEvery = 25 * time.Millisecond

// shareOrigins leaves to the old process the places that it keeps at each origin:
// both together have as many as one alone, or one more while the old one uses all.
func (s *server) shareOrigins(before *handover.Predecessor) {
	ctx, cancel := context.WithTimeout(s.work, callMax)
	defer cancel()
	theirs := map[string]int{}
	if err := before.Call(ctx, "Old.Origins", 0, &theirs); err != nil {
		return // it is gone, or the next look tells
	}
	for name, u := range s.now.Load().origins {
		o := u.made.Concurrency
		u.Limit.Resize(max(1, o.Max-theirs[name]), *o.Queue, o.Wait)
	}
}

// twin is the cache of the other process, while there are two. It is a
// cache.Peer.
//
// Where both miss the same thing, one of them fetches it: who asks first is
// waited for, and the new process waits where both ask at once. What the old one
// has answered with nothing is the new one's to fetch.
type twin struct {
	link    *handover.Link
	service string // of the other
	log     *slog.Logger

	places chan struct{} // questions under way

	mu     sync.Mutex // guards what follows
	number uint64     // of the last question
	asked  map[string]*question
	left   map[string]uint64   // the old process's: the question of the new one's that found nothing, by key
	stored map[string]struct{} // the old process's: what was stored here since; nil: the new one's, or given away
}

// question is one that all who want to know wait for.
type question struct {
	number   uint64
	answered chan struct{}
	all      []cache.Handed
}

// Question is a question to the other process.
type Question struct {
	Key    []byte
	Number uint64
	After  uint64 // the question of the other's, about the same, that was answered with nothing before; 0: none
}

const (
	// twinPlaces bounds the questions that are under way at once.
	twinPlaces = 64
	// twinMax is how long somebody waits for the other process, which waits for
	// what it fetches itself, before he asks the origin.
	twinMax = 2 * time.Second
	// twinFlightMax leaves the answer time to arrive.
	twinFlightMax = twinMax * 3 / 4
	// leftMax bounds what is known to be the new process's to fetch.
	leftMax = 4096
	// storedMax bounds what an old process remembers to have stored: it brings
	// to their end what fetches there are, and takes no connections any more.
	storedMax = 1 << 16
)

func newTwin(link *handover.Link, service string, log *slog.Logger) *twin {
	return &twin{link: link, service: service, log: log, places: make(chan struct{}, twinPlaces),
		asked: map[string]*question{}, left: map[string]uint64{}}
}

// heard says whether this process, the new one, knows what the old one has of a
// key that it asks for: it waits for the answer that the old one has given, but
// for no other question of this process's.
func (t *twin) heard(q Question) bool {
	t.mu.Lock()
	mine := t.asked[string(q.Key)]
	t.mu.Unlock()
	if mine == nil {
		return true
	}
	if mine.number != q.After {
		return false
	}
	<-mine.answered
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.asked[string(q.Key)] == nil
}

// leave leaves it to the new process to fetch what it asks for, unless this one,
// the old, fetches it, or asks for it itself. It reports that.
func (t *twin) leave(q Question, fetches func() bool) (left bool, asking <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine := t.asked[string(q.Key)]; mine != nil {
		return false, mine.answered
	}
	if fetches() {
		return false, nil
	}
	if len(t.left) >= leftMax {
		clear(t.left)
	}
	t.left[string(q.Key)] = q.Number
	return true, nil
}

// Ask implements cache.Peer.
func (t *twin) Ask(key []byte) []cache.Handed {
	t.mu.Lock()
	if q := t.asked[string(key)]; q != nil {
		t.mu.Unlock()
		<-q.answered
		return q.all
	}
	t.number++
	q := &question{number: t.number, answered: make(chan struct{})}
	asks := Question{Key: key, Number: q.number, After: t.left[string(key)]}
	t.asked[string(key)] = q
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.asked, string(key))
		t.mu.Unlock()
		close(q.answered)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), twinMax)
	defer cancel()
	select {
	case t.places <- struct{}{}:
		defer func() { <-t.places }()
	case <-ctx.Done():
		return nil
	}
	var all []cache.Handed
	if t.link.Call(ctx, t.service+".Ask", asks, &all) == nil { // else it is as if it had nothing
		q.all = all
	}
	return q.all
}

// Stored implements cache.Peer.
func (t *twin) Stored(key []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stored != nil && len(t.stored) < storedMax {
		t.stored[string(key)] = struct{}{}
	}
}

// Invalidated implements cache.Peer.
func (t *twin) Invalidated(key []byte) { t.tell("Invalidated", key) }

// Purged implements cache.Peer.
func (t *twin) Purged(selectors []cache.Selector, hard bool) {
	t.tell("Purged", PurgeNote{selectors, hard})
}

// tell returns when the other process knows, or is gone.
func (t *twin) tell(method string, what any) {
	ctx, cancel := context.WithTimeout(context.Background(), callMax)
	defer cancel()
	var done bool
	err := t.link.Call(ctx, t.service+"."+method, what, &done)
	if err != nil && !errors.Is(err, handover.ErrGone) {
		t.log.Warn("the other process was not told of a change, and may still answer with what was there before", "error", err)
	}
}

// awaitFlight waits a while for what is being fetched under a key.
func (s *server) awaitFlight(key []byte) {
	ctx, cancel := context.WithTimeout(s.work, twinFlightMax)
	defer cancel()
	s.proxy.AwaitFlight(ctx, key)
}
