package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/sink"
	"firstbell/attendance/store"
	"firstbell/attendance/wal"
	"firstbell/cmd/firstbell/config"
)

// An attendant is all that takes check-ins and carries them on.
type attendant struct {
	log       *slog.Logger
	dirs      []string // of the journal
	retention time.Duration
	store     store.Store
	place     string // the store's location, as it may be shown
	journal   *wal.Log
	readers   []*wal.Reader // one for each delivery
	begins    atomic.Uint64 // the journal has nothing before this position
	recorder  *attendance.Recorder
	keys      *attendance.Keys
	rotate    time.Duration // 0: never
	desk      *receiptDesk
	room      roomWatch
	toStore   *attendance.Delivery
	sinks     []*sinkDelivery

	stopTaking func() // ends the recorder
	recording  sync.WaitGroup
	stopJobs   func() // ends what carries on; nil: nothing does
	jobs       sync.WaitGroup
	lastErr    error // of the recorder; read after recording is done
}

// A sinkDelivery is one sink and what carries records to it.
type sinkDelivery struct {
	name     string
	kind     string
	url      string
	collects bool          // what routes collect, not check-ins
	gone     uint64        // what loseHold counted ends here; the watch's alone
	lost     atomic.Uint64 // records that the journal let go of before they were delivered
	target   *sink.Sink
	delivery *attendance.Delivery
}

// takes is which records the sink is for, as the file says it.
func (s *sinkDelivery) takes() string {
	if s.collects {
		return "collected"
	}
	return "check_ins"
}

// openAttendance opens store, journal and sinks, and reads back what today's
// presses need. After an error nothing is left open.
// ready is what was read before, or nil.
func openAttendance(ctx context.Context, c *config.Config, log *slog.Logger, ready *preparation) (a *attendant, err error) {
	conf := c.Attendance
	a = &attendant{log: log, dirs: []string{conf.Journal, conf.JournalSpare}, retention: conf.Retention, place: store.Shown(conf.Store), rotate: *conf.Signing.Rotate}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
			a = nil
		}
	}()
	schools, err := schoolsOf(c)
	if err != nil {
		return a, err
	}
	a.desk = newReceiptDesk(a)
	if ready == nil {
		if a.store, err = store.Open(ctx, storeOptions(conf)); err != nil {
			return a, err
		}
		if err = a.openJournal(conf, schools, a.store.Known(), nil); err != nil {
			return a, err
		}
	} else {
		began := time.Now() // check-ins wait: they come before all else
		if err = a.openJournal(conf, schools, ready.known, ready); err != nil {
			return a, err
		}
		a.beginTaking(ready.work)
		ready.clerk.goTo(a.recorder, a.recorder)
		log.Info("check-ins are taken by this process", "after", time.Since(began).Round(time.Millisecond), "segments_known", ready.survey.Segments())
		if err = ready.othersFree(ctx); err != nil {
			return a, err
		}
		if a.store, err = store.Open(ctx, storeOptions(conf)); err != nil {
			return a, err
		}
		defer ready.notify.Store(a)
	}
	if a.toStore, err = a.openDelivery(attendance.DeliveryConfig{Name: "store", Target: a.store, Known: a.store.Known(), BulkMax: storeBulkMax, Gather: storeGather}); err != nil {
		return a, err
	}
	for _, s := range conf.Sinks {
		if err = a.openSink(&s); err != nil {
			return a, err
		}
	}
	return a, nil
}

// openJournal opens the journal and what reads and seals it; known is a position
// that is known to be taken.
func (a *attendant) openJournal(conf *config.Attendance, schools *attendance.Schools, known uint64, ready *preparation) (err error) {
	o := journalOptions(conf, known)
	if ready != nil {
		o.Survey = ready.survey
	}
	if a.journal, err = wal.Open(o); err != nil {
		return err
	}
	for _, d := range a.journal.Damage() {
		logDamage(a.log, d)
	}
	if a.keys, err = attendance.OpenKeys(conf.Signing.Keys); err != nil {
		return err
	}
	return a.openRecorder(conf, schools, ready)
}

func storeOptions(conf *config.Attendance) store.Options {
	return store.Options{Location: conf.Store, Password: conf.StorePassword, Journal: conf.Journal}
}

func (a *attendant) openRecorder(conf *config.Attendance, schools *attendance.Schools, ready *preparation) error {
	past, err := wal.OpenReader(a.dirs...)
	if err != nil {
		return err
	}
	defer past.Close()
	a.begins.Store(past.First())
	key, _ := a.keys.Current()
	if ready != nil {
		a.recorder = ready.recorder
		a.recorder.SetKey(key)
		return a.recorder.CatchUp(a.journal, attendance.ReadJournal(past))
	}
	secret, err := attendance.OpenSecret(conf.Journal, a.journal.Next() <= 1)
	if err != nil {
		return err
	}
	a.recorder, err = attendance.New(attendance.Config{
		Log:      a.journal,
		Journal:  attendance.ReadJournal(past),
		Secret:   secret,
		Schools:  schools,
		Key:      key,
		Grace:    conf.Grace,
		OnAppend: a.appended,
	})
	return err
}

// appended tells those who deliver of what the journal holds now.
func (a *attendant) appended(next uint64) {
	if a.toStore == nil {
		return // a command has the journal, the next start delivers
	}
	a.toStore.Notify(next)
	for _, s := range a.sinks {
		s.delivery.Notify(next)
	}
}

// Nobody waits for the store: its bulks may be larger and later than those of
// sinks. The more rows a bulk brings, the more of them share a page that SQLite
// writes: at 16,000 a row costs two thirds of what it does at 4,000. They are
// 5 MB of memory. Exports read the journal past the last one, so they show every
// check-in at once.
const (
	storeBulkMax = 16000
	storeGather  = 5 * time.Second
)

// openDelivery completes what a delivery is made of with a reader of its own.
func (a *attendant) openDelivery(c attendance.DeliveryConfig) (*attendance.Delivery, error) {
	r, err := wal.OpenReader(a.dirs...)
	if err != nil {
		return nil, err
	}
	a.readers = append(a.readers, r)
	c.Journal, c.End, c.Begins = attendance.ReadJournal(r), a.journal.Next, a.begins.Load
	return attendance.NewDelivery(c), nil
}

func (a *attendant) openSink(c *config.Sink) error {
	// Beside the segments, whose names are all different: what must be kept
	// together lies together.
	s := &sinkDelivery{name: c.Name, kind: c.Kind(), url: c.Endpoint().URL, collects: c.TakesCollected()}
	var err error
	if s.target, err = c.Open(filepath.Join(a.dirs[0], "sink-"+c.Name)); err != nil {
		return err
	}
	a.sinks = append(a.sinks, s)
	d := attendance.DeliveryConfig{Name: c.Name, Target: s.target, BulkMax: c.Endpoint().Batch}
	if s.collects {
		d.Collected = c.Name // the store has none of it
	} else {
		d.Past = a.store.Between
	}
	s.delivery, err = a.openDelivery(d)
	return err
}

// renewCredentials gives each sink the credential that the file names now.
func (a *attendant) renewCredentials(c *config.Attendance) {
	for i := range c.Sinks {
		for _, s := range a.sinks {
			if e := c.Sinks[i].Endpoint(); s.name == c.Sinks[i].Name && s.kind == c.Sinks[i].Kind() && s.url == e.URL {
				s.target.SetHeader(e.Header)
			}
		}
	}
}

// collecting is the sink of that name for what routes collect, or nil.
func (a *attendant) collecting(name string) *sinkDelivery {
	for _, s := range a.sinks {
		if s.name == name && s.collects {
			return s
		}
	}
	return nil
}

// start begins to take check-ins and to carry them on.
func (a *attendant) start(s *server) {
	a.beginTaking(s.work)
	work, end := context.WithCancel(s.work)
	a.stopJobs = end
	carry := func(name string, run func(context.Context) error) {
		a.jobs.Go(func() {
			if err := run(work); err != nil && work.Err() == nil {
				a.log.Error("stopped working", "what", name, "error", err)
			}
		})
	}
	carry("the delivery to the store", a.toStore.Run)
	for _, d := range a.sinks {
		carry("the delivery to "+d.name, d.delivery.Run)
	}
	carry("the retention of the journal", a.retain)
	carry("the watch over attendance", a.watch)
	carry("the keeping of keys and digests", a.keepBooks)
	s.clerk.goTo(a.recorder, a.recorder)
}

// beginTaking begins to take check-ins, unless it has begun.
func (a *attendant) beginTaking(work context.Context) {
	if a.stopTaking != nil {
		return
	}
	ctx, cancel := context.WithCancel(work)
	a.stopTaking = cancel
	a.recording.Go(func() { a.lastErr = a.recorder.Run(ctx) })
}

// handOver ends all at once and closes the journal, for another process to take:
// those that joined a batch are still written and answered. rest lets go of
// everything else; what is not delivered is for the other to deliver.
func (a *attendant) handOver() (rest func() error, err error) {
	a.stopJobs()
	err = errors.Join(a.finish(), a.journal.Close())
	return func() error {
		a.jobs.Wait()
		return a.letGo()
	}, err
}

// finish takes no more check-ins; those that joined a batch are still written
// and answered.
func (a *attendant) finish() error {
	if a.stopTaking == nil {
		return nil
	}
	a.stopTaking()
	a.recording.Wait()
	err := a.lastErr
	a.lastErr = nil // it is told once
	return err
}

// closeMax is how long the store may take at the end to hold what the journal
// holds. What is left then is delivered at the next start.
const closeMax = 5 * time.Second

// close lets everything go, after the last check-ins went into the store.
func (a *attendant) close() error {
	err := a.finish() // of no effect but where opening the rest went wrong
	if a.stopJobs == nil {
		return errors.Join(err, a.letGo())
	}
	a.stopJobs()
	a.jobs.Wait()
	if a.toStore != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeMax)
		if err := a.toStore.Drain(ctx); err != nil {
			a.log.Warn("the store is behind the journal; the next start goes on", "error", err)
		}
		cancel()
	}
	return errors.Join(err, a.letGo())
}

// letGo closes all that was opened.
func (a *attendant) letGo() error {
	var errs []error
	for _, s := range a.sinks {
		errs = append(errs, s.target.Close())
	}
	for _, r := range a.readers {
		errs = append(errs, r.Close())
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	if a.journal != nil {
		errs = append(errs, a.journal.Close())
	}
	return errors.Join(errs...)
}

// retainEvery is how often segments are looked at that may go. A day's journal
// of a million check-ins is four segments.
const retainEvery = time.Hour

// retain removes segments that are delivered everywhere and older than the
// retention.
func (a *attendant) retain(ctx context.Context) error {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := a.removeBefore(now.Add(-a.retention)); err != nil {
				a.log.Error("old segments stay", "error", err)
			}
		}
	}
}

// needed is the position from which on the journal is needed: by the store, by
// a restart, which must know today's receipts, and, with their hold, by sinks
// of what is collected, which nothing else keeps. Sinks of check-ins hold
// nothing: what they lack they read from the store. 0: nothing may go yet.
func (a *attendant) needed(sinksHold bool) uint64 {
	upTo := a.toStore.Stats().Next
	for _, s := range a.sinks {
		if s.collects && sinksHold {
			upTo = min(upTo, s.delivery.Stats().Next)
		}
	}
	if keep := a.recorder.KeepFrom(); keep != 0 {
		upTo = min(upTo, keep)
	}
	return upTo
}

// removeBefore removes what arrived before a moment and is not needed any more.
func (a *attendant) removeBefore(moment time.Time) error {
	upTo := a.needed(true)
	if upTo == 0 {
		return nil // a delivery has not begun yet
	}
	r, err := wal.OpenReader(a.dirs...)
	if err != nil {
		return err
	}
	defer r.Close()
	for rec, err := range r.Records(0) {
		if err != nil {
			return err
		}
		if rec.Seq >= upTo {
			break
		}
		e, err := attendance.DecodeEvent(rec.Data)
		if err == nil && e.RawArrival.After(moment) {
			upTo = rec.Seq
			break
		}
	}
	return a.remove(upTo)
}

// loseHold makes room in the journal when its disk is about to be full: sinks
// lose their hold, and what is in the store, and needed by no restart, goes
// whatever the retention says. Sinks of check-ins read the store instead. What
// was collected and not delivered is lost with it, and counted.
func (a *attendant) loseHold() error {
	upTo := a.needed(false)
	err := a.remove(upTo)
	r, readErr := wal.OpenReader(a.dirs...)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	gone := min(upTo, r.First()) // segments go as a whole
	for _, s := range a.sinks {
		if next := max(s.delivery.Stats().Seen, s.gone); s.collects && next != 0 && next < gone {
			a.log.Error("the disk is full: the journal let go of what was collected and not delivered", "sink", s.name, "from", next, "before", gone)
			s.lost.Add(gone - next)
			s.gone = gone
		}
	}
	return errors.Join(err, r.Close())
}

// remove lets the journal's records before a position go, as far as whole
// segments hold only such. From then on sinks ask the store for them, whether
// they are gone already or not.
func (a *attendant) remove(upTo uint64) error {
	for {
		begins := a.begins.Load()
		if upTo <= begins || a.begins.CompareAndSwap(begins, upTo) {
			break
		}
	}
	return a.journal.RemoveBefore(upTo)
}

// watchEvery is how often states are compared that belong into the log.
const watchEvery = 5 * time.Second

// watch writes changes into the log: the journal going down and coming back,
// damage, deliveries that fail and recover.
func (a *attendant) watch(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	damages := len(a.journal.Damage())
	journal, failing, share := wal.Opened, map[string]string{}, 0.0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		h := a.journal.Health()
		if h.State != journal {
			if journal = h.State; journal == wal.Opened {
				a.log.Info("the journal takes check-ins again", "segment", h.Segment)
			} else {
				a.log.Error("the journal takes no check-ins", "state", h.State.String(), "why", h.Why)
			}
		}
		share = a.watchRoom(&h, share)
		all := a.journal.Damage()
		for _, d := range all[min(damages, len(all)):] {
			logDamage(a.log, d)
		}
		damages = len(all)
		for _, st := range a.deliveries() {
			logDelivery(a.log, st, failing)
		}
	}
}

// deliveries is how each delivery has done, the store first.
func (a *attendant) deliveries() []attendance.DeliveryStats {
	all := []attendance.DeliveryStats{a.toStore.Stats()}
	for _, s := range a.sinks {
		all = append(all, s.delivery.Stats())
	}
	return all
}

func logDelivery(log *slog.Logger, st attendance.DeliveryStats, failing map[string]string) {
	why := ""
	if st.Err != nil {
		why = st.Err.Error()
	}
	if why == failing[st.Name] {
		return
	}
	failing[st.Name] = why
	switch {
	case why == "":
		log.Info("check-ins are delivered again", "to", st.Name)
	case st.Stopped:
		log.Error("delivery stopped; somebody must look", "to", st.Name, "error", why)
	default:
		log.Warn("check-ins are not delivered and will be tried again", "to", st.Name, "error", why)
	}
}

func logDamage(log *slog.Logger, d wal.Damage) {
	if d.Alarm() {
		log.Error("the journal is damaged; what could be read is kept", "damage", d.String(), "set_aside", d.SetAside)
		return
	}
	log.Info("the journal ended in the middle of a write that nobody was told of", "damage", d.String())
}

// retryNow ends the pauses of deliveries that failed.
func (a *attendant) retryNow() {
	a.toStore.Retry()
	for _, s := range a.sinks {
		s.delivery.Retry()
	}
}

// schoolsChanged puts the schools of another file in force.
func (a *attendant) schoolsChanged(c *config.Config) error {
	schools, err := schoolsOf(c)
	if err != nil {
		return fmt.Errorf("reading the schools: %w", err)
	}
	a.recorder.SetSchools(schools)
	return nil
}
