package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/wal"
	"firstbell/cmd/firstbell/config"
)

// This file is about the journal's disk: how much room is left, for how long,
// and who gives way when it runs out. The cache on disk stops first: see
// cacheGivesWay. Then the journal's past goes, as far as
// the store has it: sinks then read from the store, and receipts of before
// cannot be proved any more. Then sinks of what is collected lose their hold.
// Receipts stop last, and loudly.

// journalOptions is where and how the journal is kept; after is a position
// known to be taken.
func journalOptions(conf *config.Attendance, after uint64) wal.Options {
	return wal.Options{
		Dir: conf.Journal, Spare: conf.JournalSpare, After: after,
		Max: int64(conf.Disk.Max), Reserve: int64(*conf.Disk.Reserve),
	}
}

// cacheGivesWay is how much more than the journal's reserve the cache leaves
// free: four segments, so that it stops before the journal has to.
const cacheGivesWay = 4 * 64 << 20

const (
	// At the first two shares of its room the journal warns. From the second on
	// its past gives way, from the third on sinks of what is collected lose
	// their hold, too.
	roomHalf = 0.5
	roomLate = 0.8
	roomLast = 0.95

	// rateOver is over how long the present rate is taken.
	rateOver  = time.Hour
	rateEvery = time.Minute
)

// room is how much of the journal's room is in use.
type room struct {
	Capacity int64         // bytes that max and reserve leave to it; 0: not known
	Share    float64       // of that, in use
	Left     time.Duration // until it is full at the present rate; 0: it does not grow
}

// warning is what to tell, "" for nothing.
func (r room) warning() string {
	if r.Share < roomHalf {
		return ""
	}
	left := ", and it does not grow"
	if r.Left > 0 {
		left = fmt.Sprintf(", %.1f hours are left at the present rate", r.Left.Hours())
	}
	text := fmt.Sprintf("%.0f %% of the journal's room is in use%s", 100*r.Share, left)
	if r.Share >= roomLate {
		text += "; segments that the store has go before their time"
	}
	return text
}

// roomWatch knows how fast the journal grows.
type roomWatch struct {
	mu      sync.Mutex // guards what follows
	samples []sample   // oldest first, at most an hour's
}

type sample struct {
	at    time.Time
	bytes uint64 // written since the start
}

// see judges the journal's health at a moment.
func (w *roomWatch) see(h *wal.Health, now time.Time) room {
	r := room{Capacity: h.Max}
	if h.Free >= 0 {
		onDisk := max(0, h.Bytes+h.Free-h.Reserve)
		if r.Capacity == 0 || onDisk < r.Capacity {
			r.Capacity = onDisk
		}
	}
	if r.Capacity <= 0 {
		if h.Free >= 0 {
			r.Share = 1
		}
		return r
	}
	r.Share = min(1, float64(h.Bytes)/float64(r.Capacity))
	if perSecond := w.rate(h.Stats.Bytes, now); perSecond > 0 {
		r.Left = time.Duration(float64(max(0, r.Capacity-h.Bytes)) / perSecond * float64(time.Second))
	}
	return r
}

// rate is how many bytes a second the journal grew over the last hour.
func (w *roomWatch) rate(bytes uint64, now time.Time) float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.samples); n == 0 || now.Sub(w.samples[n-1].at) >= rateEvery {
		w.samples = append(w.samples, sample{now, bytes})
	}
	for len(w.samples) > 1 && now.Sub(w.samples[1].at) >= rateOver {
		w.samples = w.samples[1:]
	}
	oldest := w.samples[0]
	took := now.Sub(oldest.at).Seconds()
	if took <= 0 || bytes < oldest.bytes {
		return 0
	}
	return float64(bytes-oldest.bytes) / took
}

// watchRoom warns when the journal's room runs out, and makes some. before is
// the share of the last look; the new one is returned.
func (a *attendant) watchRoom(h *wal.Health, before float64) float64 {
	r := a.room.see(h, time.Now())
	for _, mark := range []float64{roomLate, roomHalf} {
		if r.Share >= mark && before < mark {
			a.log.Warn("the journal's room runs out", "warning", r.warning(), "bytes", h.Bytes, "of", r.Capacity)
			break
		}
	}
	var err error
	switch {
	case r.Share >= roomLast:
		err = a.loseHold()
	case r.Share >= roomLate:
		err = a.remove(a.needed(true))
	}
	if err != nil {
		a.log.Error("old segments stay, and the journal's room runs out", "error", err)
	}
	return r.Share
}

// keepKeys puts another key in the place of one that has been in use for long
// enough.
func (a *attendant) keepKeys() error {
	_, made := a.keys.Current()
	if a.rotate <= 0 || time.Since(made) < a.rotate {
		return nil
	}
	return a.rotateKeys()
}

// rotateKeys makes another key; batches closed from now on are sealed with it.
func (a *attendant) rotateKeys() error {
	if err := a.keys.Rotate(); err != nil {
		return err
	}
	key, _ := a.keys.Current()
	a.recorder.SetKey(key)
	a.log.Info("batches are sealed with another key", "key", key.ID)
	return nil
}

// keepDigests appends the digest of each day that is over and whose digest is
// due. The journal may not reach back to all of a day: then it stays without.
func (a *attendant) keepDigests(ctx context.Context) error {
	for _, due := range a.recorder.DigestsDue() {
		if ctx.Err() != nil {
			return nil
		}
		r, err := wal.OpenReader(a.dirs...)
		if err != nil {
			return err
		}
		before := a.journal.Next()
		sum, undecodable, err := attendance.SumDay(attendance.ReadJournal(r), due.Date, due.First, before)
		r.Close()
		if err != nil {
			return err
		}
		if sum.Rows < due.Rows || undecodable > 0 || sum.Rows == 0 {
			a.recorder.ForgetDay(due.Date) // part of it is gone, or is a newer version's
			continue
		}
		e := attendance.Event{Kind: attendance.KindDigest, RawArrival: time.Now(), Digest: &attendance.DayDigest{Before: before, Sum: sum}}
		e.Date = due.Date
		if err := a.recorder.Record(ctx, []attendance.Event{e}); err != nil {
			return err
		}
		a.log.Info("a day is over", "date", due.Date, "check_ins", sum.Rows, "digest", fmt.Sprintf("%x", sum.Digest))
	}
	return nil
}

// keepBooksEvery is how often keys and digests are looked at.
const keepBooksEvery = 10 * time.Minute

// keepBooks keeps keys and digests up, at once and then every few minutes.
func (a *attendant) keepBooks(ctx context.Context) error {
	tick := time.NewTicker(keepBooksEvery)
	defer tick.Stop()
	for {
		if err := a.keepKeys(); err != nil {
			a.log.Error("no new signing key could be made, the old one goes on", "error", err)
		}
		if err := a.keepDigests(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("the digest of a day could not be recorded and will be tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
