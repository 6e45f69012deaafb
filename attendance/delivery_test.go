package attendance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeTarget keeps rows by key and checks that bulks come as promised.
type fakeTarget struct {
	mu       sync.Mutex // guards what follows while a delivery runs
	at       Position
	from     uint64 // where a target without a position is expected to begin
	rows     Fold
	bulks    []int // events in each
	fail     error // what Deliver answers
	keeps    bool  // a failing Deliver has taken the rows all the same
	last     *Bulk // the bulk that failed: it must come again
	misused  string
	attempts []time.Time
}

func (f *fakeTarget) Position(context.Context) (Position, error) { return f.at, nil }

func (f *fakeTarget) Deliver(_ context.Context, b *Bulk) (Delivered, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts = append(f.attempts, time.Now())
	if b.First != max(f.at.Next, f.from) || (f.last != nil && (f.last.First != b.First || f.last.Next != b.Next || len(f.last.Events) != len(b.Events))) {
		f.misused = fmt.Sprintf("bulk [%d, %d) at position %+v after %+v", b.First, b.Next, f.at, f.last)
	}
	if f.fail == nil || f.keeps {
		for i := range b.Events {
			f.rows.Add(&b.Events[i])
		}
	}
	if f.fail != nil {
		f.last = b
		return Delivered{Writes: 1}, f.fail
	}
	f.last, f.at = nil, Position{Next: b.Next}
	f.bulks = append(f.bulks, len(b.Events))
	return Delivered{Rows: len(b.Events), Writes: 1}, nil
}

func (f *fakeTarget) set(fail error, keeps bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.keeps = fail, keeps
}

// seen returns the sizes of the bulks taken, the moments of all tries, and how
// many rows there are.
func (f *fakeTarget) seen() (bulks []int, attempts []time.Time, rows int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.bulks), slices.Clone(f.attempts), f.rows.Len()
}

// delivering runs f in a bubble with a recorder whose journal is being
// delivered to a fake target.
func delivering(t *testing.T, f func(t *testing.T, l *fakeLog, r *Recorder, d *Delivery, target *fakeTarget)) {
	t.Helper()
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l, target := &fakeLog{}, &fakeTarget{}
		var acknowledged atomic.Uint64
		acknowledged.Store(1)
		d := NewDelivery(DeliveryConfig{Name: "store", Journal: l.journal, Target: target, End: acknowledged.Load})
		r := mustNew(t, Config{Log: l, Secret: secret, OnAppend: func(next uint64) {
			acknowledged.Store(next)
			d.Notify(next)
		}})
		stop := run(t, r)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		f(t, l, r, d, target)
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Delivery.Run: %v", err)
		}
		target.fail = nil
		if err := d.Drain(context.Background()); err != nil {
			t.Errorf("Drain: %v", err)
		}
		if target.misused != "" {
			t.Error("the target was misused: " + target.misused)
		}
		if got, want := fmt.Sprint(target.rows.Rows()), fmt.Sprint(l.rows(t)); got != want {
			t.Errorf("delivered\n%s\nwant what the journal holds\n%s", got, want)
		}
	})
}

func takeMany(t *testing.T, r *Recorder, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		take(t, r, press(fmt.Sprint(i)))
	}
}

func TestDeliveryStaysBulk(t *testing.T) {
	delivering(t, func(t *testing.T, l *fakeLog, r *Recorder, d *Delivery, target *fakeTarget) {
		l.takes = time.Millisecond // 1,000 check-ins a second
		takeMany(t, r, 0, 5500)
		time.Sleep(2 * DefaultGather)
		synctest.Wait()
		s := d.Stats()
		bulks, _, _ := target.seen()
		if s.Rows != 5500 || s.Writes > 7 || s.Next != 5501 || !s.Oldest.IsZero() {
			t.Errorf("got %+v in bulks of %v, want 5,500 rows in at most 7 writes", s, bulks)
		}
		for _, n := range bulks {
			if n > DefaultBulkMax {
				t.Errorf("got a bulk of %d, want at most %d", n, DefaultBulkMax)
			}
		}
	})
}

func TestDeliveryGathersButNotForLong(t *testing.T) {
	delivering(t, func(t *testing.T, l *fakeLog, r *Recorder, d *Delivery, target *fakeTarget) {
		begin := time.Now()
		take(t, r, press("a"))
		time.Sleep(time.Second)
		take(t, r, press("b"))
		synctest.Wait()
		bulks, _, _ := target.seen()
		if s := d.Stats(); len(bulks) != 0 || !s.Oldest.Equal(begin) {
			t.Errorf("after a second: got bulks %v and oldest %s, want none and %s", bulks, s.Oldest, begin)
		}
		time.Sleep(DefaultGather)
		synctest.Wait()
		if bulks, _, _ = target.seen(); fmt.Sprint(bulks) != "[2]" {
			t.Errorf("got bulks %v, want one of 2", bulks)
		}
	})
}

func TestDeliveryOutlivesItsTarget(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		t.Run(fmt.Sprintf("keeps=%v", keeps), func(t *testing.T) {
			delivering(t, func(t *testing.T, l *fakeLog, r *Recorder, d *Delivery, target *fakeTarget) {
				takeMany(t, r, 0, 10)
				time.Sleep(10 * time.Second)
				begin := time.Now()
				target.set(errors.New("database is locked"), keeps)
				takeMany(t, r, 10, 40) // receipts go on
				time.Sleep(10 * time.Minute)
				s := d.Stats()
				if s.Err == nil || !strings.Contains(s.Err.Error(), "delivering records 11 to 40 to store: database is locked") || !s.Oldest.Equal(begin) || s.Failures < 20 {
					t.Errorf("got %+v, want the error, its story and the age of the oldest record", s)
				}
				_, attempts, _ := target.seen()
				for i := 1; i < len(attempts); i++ {
					if pause := attempts[i].Sub(attempts[i-1]); i > 1 && (pause < pauseMin/2 || pause > pauseMax) {
						t.Errorf("got a pause of %v, want %v to %v", pause, pauseMin/2, pauseMax)
					}
				}
				target.set(nil, false)
				d.Retry()
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if s := d.Stats(); s.Err != nil || s.Next != 41 || !s.Oldest.IsZero() {
					t.Errorf("after it came back: got %+v, want everything delivered", s)
				}
			})
		})
	}
}

func TestStoppedTargetIsLeftAlone(t *testing.T) {
	delivering(t, func(t *testing.T, l *fakeLog, r *Recorder, d *Delivery, target *fakeTarget) {
		target.set(&DeliverError{Err: errors.New("it answered 401"), Stop: true}, false)
		take(t, r, press("a"))
		time.Sleep(14 * time.Minute)
		synctest.Wait()
		_, attempts, _ := target.seen()
		if s := d.Stats(); !s.Stopped || len(attempts) != 3 {
			t.Errorf("got %+v after %d tries in 14 minutes, want it stopped after 3", s, len(attempts))
		}
		target.set(nil, false)
		d.Retry()
		synctest.Wait()
		if s := d.Stats(); s.Stopped || s.Rows != 1 {
			t.Errorf("after Retry: got %+v, want it delivered at once", s)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	delivering(t, func(t *testing.T, l *fakeLog, r *Recorder, d *Delivery, target *fakeTarget) {
		target.set(&DeliverError{Err: errors.New("it answered 429"), RetryAfter: 2 * time.Minute}, false)
		take(t, r, press("a"))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if _, attempts, _ := target.seen(); len(attempts) != 3 {
			t.Errorf("got %d tries in 5 minutes, want 3, two minutes apart", len(attempts))
		}
	})
}

// What the journal shows before its append has returned may never be promised,
// and is not delivered.
func TestOnlyAcknowledgedRecordsAreDelivered(t *testing.T) {
	delivering(t, func(t *testing.T, l *fakeLog, r *Recorder, d *Delivery, target *fakeTarget) {
		take(t, r, press("a"))
		l.set(errDisk, true)
		if _, err := r.Take(t.Context(), press("b")); !errors.Is(err, ErrDown) {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, _, rows := target.seen(); rows != 1 {
			t.Errorf("got %d rows delivered, want 1", rows)
		}
		l.set(nil, false)
		take(t, r, press("b"))
	})
}

func TestBulkThatWasBegunComesAgainAsItWas(t *testing.T) {
	l := &fakeLog{}
	for n := range 50 {
		e := sampleEvent()
		e.ID[0], e.Student = byte(n), fmt.Sprint(n)
		l.records = append(l.records, appendArrival(nil, &e))
	}
	l.records[20] = []byte{1, 2, 3} // cannot be read: skipped and counted
	target := &fakeTarget{at: Position{Next: 11, Until: 41}}
	d := NewDelivery(DeliveryConfig{Name: "sink", Journal: l.journal, Target: target, BulkMax: 7, Gather: time.Hour})
	if err := d.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(target.bulks); got != "[29 7 3]" || d.Stats().Undecodable != 1 {
		t.Errorf("got bulks %s and %d skipped, want [29 7 3] and 1", got, d.Stats().Undecodable)
	}
}

func TestPositionOfAnotherJournalBeginsAnew(t *testing.T) {
	l := &fakeLog{}
	e := sampleEvent()
	l.records = append(l.records, appendArrival(nil, &e))
	target := &fakeTarget{}
	d := NewDelivery(DeliveryConfig{Name: "store", Journal: l.journal, Target: positionElsewhere{target}, End: func() uint64 { return 2 }})
	if err := d.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := d.Stats(); !s.Rewound || target.rows.Len() != 1 {
		t.Errorf("got %+v and %d rows, want it told and everything delivered", s, target.rows.Len())
	}
}

type positionElsewhere struct{ *fakeTarget }

func (positionElsewhere) Position(context.Context) (Position, error) {
	return Position{Next: 1000}, nil
}

func TestDrainSaysWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		e := sampleEvent()
		l.records = append(l.records, appendArrival(nil, &e))
		broken := errors.New("the disk is gone")
		reads := 0
		d := NewDelivery(DeliveryConfig{Name: "store", Target: &fakeTarget{}, Journal: func(from uint64) iter.Seq2[Record, error] {
			if reads++; reads < 4 {
				return func(yield func(Record, error) bool) { yield(Record{}, broken) }
			}
			return l.journal(from)
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := d.Drain(ctx); !errors.Is(err, broken) || !strings.Contains(err.Error(), "store") {
			t.Errorf("got %v, want what is left, where and why", err)
		}
		if err := d.Drain(t.Context()); err != nil { // it comes back at the fourth try
			t.Error(err)
		}
	})
}
