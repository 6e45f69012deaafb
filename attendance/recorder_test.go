package attendance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/attendance/timetable"
)

func TestReceiptMeansOnDisk(t *testing.T) {
	for _, c := range []struct {
		name     string
		fail     error
		keeps    bool
		receipts int
		onDisk   int
	}{
		{"healthy", nil, false, 3, 3},
		{"fails and is lost", errDisk, false, 0, 0},
		{"fails but is kept", errDisk, true, 0, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
				l.set(c.fail, c.keeps)
				receipts := 0
				for n := range 3 {
					receipt, err := r.Take(t.Context(), press(fmt.Sprint(n)))
					switch {
					case err == nil:
						receipts++
						if got := l.rows(t); len(got) != n+1 || got[n].ID != receipt.ID {
							t.Errorf("a receipt was given, but the journal holds %d rows, want %d", len(got), n+1)
						}
					case !errors.Is(err, ErrDown) || !errors.Is(err, errDisk):
						t.Errorf("got %v, want ErrDown with the disk's error", err)
					}
				}
				if got := len(l.rows(t)); receipts != c.receipts || got != c.onDisk {
					t.Errorf("got %d receipts and %d rows on disk, want %d and %d", receipts, got, c.receipts, c.onDisk)
				}
				// The journal works again: every press gets its receipt, once on disk.
				l.set(nil, false)
				for n := range 3 {
					take(t, r, press(fmt.Sprint(n)))
				}
				if got := len(l.rows(t)); got != 3 {
					t.Errorf("afterwards: got %d rows, want 3", got)
				}
			})
		})
	}
}

func TestNoReceiptBeforeTheSync(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		l.takes = 500 * time.Millisecond
		begin := time.Now()
		take(t, r, press("a"))
		if got := time.Since(begin); got != l.takes {
			t.Errorf("the receipt came after %v, want with the sync after %v", got, l.takes)
		}
	})
}

func TestDuplicateGetsTheSameReceipt(t *testing.T) {
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{takes: time.Second}
		r := mustNew(t, Config{Log: l, Secret: secret})
		stop := run(t, r)

		var wg sync.WaitGroup
		got := make([]Receipt, 6)
		for i, after := range []time.Duration{0, 0, 300, 600, 1100, 5000} { // pending, flying, durable
			wg.Go(func() {
				time.Sleep(after*time.Millisecond + time.Duration(i))
				got[i] = take(t, r, press("a"))
			})
		}
		wg.Go(func() { // its batch gathers while the first flies, and is pressed again in there
			time.Sleep(500 * time.Millisecond)
			first := make(chan Receipt)
			go func() { first <- take(t, r, press("b")) }()
			time.Sleep(100 * time.Millisecond)
			again := take(t, r, press("b"))
			sameReceipt(t, "in the open batch", again, <-first)
		})
		wg.Wait()
		for i := range got {
			sameReceipt(t, fmt.Sprintf("press %d", i), got[i], got[0])
		}
		if rows := l.rows(t); len(rows) != 2 {
			t.Errorf("got %d rows, want 2", len(rows))
		}
		elsewhere := press("a")
		elsewhere.Class = "another" // the class is not part of the key here
		sameReceipt(t, "naming another class", take(t, r, elsewhere), got[0])
		if err := stop(); err != nil {
			t.Fatal(err)
		}

		time.Sleep(3 * time.Minute)
		restarted := mustNew(t, Config{Log: l, Journal: l.journal, Secret: secret})
		stop = run(t, restarted)
		sameReceipt(t, "after a restart", take(t, restarted, press("a")), got[0])
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		rows := l.rows(t)
		if len(rows) != 2 || rows[0].Presses != 8 {
			t.Errorf("got %d rows, the first pressed %d times, want 2 and 8", len(rows), rows[0].Presses)
		}
	})
}

func TestFirstArrivalCounts(t *testing.T) {
	secret, other := mustSecret(t), mustSecret(t)
	for _, c := range []struct {
		name    string
		wait    time.Duration                           // between the refused press and its retry
		restart bool                                    // the process forgets in between
		token   func(own string, nine time.Time) string // nil: none
		want    timetable.Status
	}{
		{"token", 2 * time.Minute, false, func(own string, _ time.Time) string { return own }, timetable.Present},
		{"no token, process lives", 2 * time.Minute, false, nil, timetable.Present},
		{"token after a restart", 2 * time.Minute, true, func(own string, _ time.Time) string { return own }, timetable.Present},
		{"no token after a restart", 2 * time.Minute, true, nil, timetable.Late},
		{"too old", 16 * time.Minute, true, func(own string, _ time.Time) string { return own }, timetable.Late},
		{"remembered too long ago", 16 * time.Minute, false, nil, timetable.Late},
		{"forged time", 2 * time.Minute, true, func(own string, _ time.Time) string { return "A" + own[1:] }, timetable.Late},
		{"cut", 2 * time.Minute, true, func(own string, _ time.Time) string { return own[:40] }, timetable.Late},
		{"garbage", 2 * time.Minute, true, func(string, time.Time) string { return strings.Repeat("%", 43) }, timetable.Late},
		{"of another site", 2 * time.Minute, true, func(_ string, nine time.Time) string {
			h := newHashers(other).get()
			_, digest := h.key("north", timetable.DateOf(nine.In(seoul)), "1", "a", false, "")
			return h.token(nine.UnixMilli(), digest)
		}, timetable.Late},
		{"of a classmate", 2 * time.Minute, true, func(_ string, nine time.Time) string {
			h := newHashers(secret).get()
			_, digest := h.key("north", timetable.DateOf(nine.In(seoul)), "1", "b", false, "")
			return h.token(nine.UnixMilli(), digest)
		}, timetable.Late},
		{"of the future", 2 * time.Minute, true, func(_ string, nine time.Time) string {
			h := newHashers(secret).get()
			_, digest := h.key("north", timetable.DateOf(nine.In(seoul)), "1", "a", false, "")
			return h.token(nine.Add(time.Hour).UnixMilli(), digest)
		}, timetable.Late},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &fakeLog{fail: errDisk}
				r := mustNew(t, Config{Log: l, Secret: secret})
				stop := run(t, r)
				nine := time.Now()
				time.Sleep(9*time.Minute + 30*time.Second)
				refusedAt := time.Now()
				_, err := r.Take(t.Context(), press("a"))
				var refused *Refused
				if !errors.As(err, &refused) || refused.RetryAfter <= 0 {
					t.Fatalf("got %v, want a *Refused that says when to come back", err)
				}
				l.set(nil, false)
				if c.restart {
					stop()
					r = mustNew(t, Config{Log: l, Journal: l.journal, Secret: secret})
					stop = run(t, r)
				}
				time.Sleep(c.wait)
				p := press("a")
				if c.token != nil {
					p.FirstSeen = c.token(refused.FirstSeen, nine)
				}
				want := refusedAt
				if c.want == timetable.Late {
					want = time.Now()
				}
				got := take(t, r, p)
				if got.Status != c.want || !got.FirstArrival.Equal(want) {
					t.Errorf("got %s at %s, want %s at %s", got.Status, got.FirstArrival, c.want, want)
				}
				if err := stop(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A token kept in a cookie must not swallow the check-in to the next period.
func TestTokenThatDidItsWorkIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		time.Sleep(44 * time.Minute)
		l.set(errDisk, false)
		_, err := r.Take(t.Context(), press("a"))
		var refused *Refused
		if !errors.As(err, &refused) {
			t.Fatal(err)
		}
		l.set(nil, false)
		p := press("a")
		p.FirstSeen = refused.FirstSeen
		first := take(t, r, p)
		sameReceipt(t, "at once again", take(t, r, p), first)
		time.Sleep(5 * time.Minute)
		if next := take(t, r, p); first.Period != "1" || next.Period != "2" {
			t.Errorf("got periods %s and %s, want 1 and 2", first.Period, next.Period)
		}
		// One that has not done its work counts past the end of its period.
		q := press("b")
		h := r.hashers.get()
		at := time.Now().Add(-10 * time.Minute)
		_, digest := h.key("north", timetable.DateOf(at.In(seoul)), "1", "b", false, "")
		q.FirstSeen = h.token(at.UnixMilli(), digest)
		if got := take(t, r, q); got.Period != "1" || !got.FirstArrival.Equal(at) {
			t.Errorf("got period %s at %s, want 1 at %s", got.Period, got.FirstArrival, at)
		}
	})
}

// Somebody else was quicker with the same key; the proof of an earlier arrival
// still counts.
func TestEarlierProofImprovesTheRow(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		h := r.hashers.get()
		early := time.Now()
		_, digest := h.key("north", timetable.DateOf(early.In(seoul)), "1", "a", false, "")
		token := h.token(early.UnixMilli(), digest)
		time.Sleep(12 * time.Minute)
		late := take(t, r, press("a"))
		p := press("a")
		p.FirstSeen = token
		got := take(t, r, p)
		if late.Status != timetable.Late || got.Status != timetable.Present || got.ID != late.ID {
			t.Errorf("got %s, then %s, want late, then present, with one receipt", late.Status, got.Status)
		}
		sameReceipt(t, "without the token", take(t, r, press("a")), got)
		if rows := l.rows(t); len(rows) != 1 || !rows[0].FirstArrival.Equal(early) {
			t.Errorf("got rows %v, want one at %s", rows, early)
		}
	})
}

func TestVerifiedTakesThePlaceOfUnverified(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		l.takes = time.Second
		unverified := make(chan Receipt)
		go func() { unverified <- take(t, r, press("a")) }()
		time.Sleep(200 * time.Millisecond)
		p := press("a")
		p.Verified = true
		at := time.Now()
		got := take(t, r, p) // while the other is pending
		before := <-unverified
		if before.Verified || !got.Verified || got.ID != before.ID || !got.FirstArrival.Equal(at) {
			t.Errorf("got %+v, then %+v, want a verified one of %s in its place", before, got, at)
		}
		sameReceipt(t, "an unverified press afterwards", take(t, r, press("a")), got)
		events := l.events(t)
		if len(events) != 2 || events[1].Kind != KindVerifiedArrival {
			t.Errorf("got %d events, want both arrivals kept", len(events))
		}
		// When its batch fails, the unverified one stays.
		q := press("b")
		was := take(t, r, q)
		l.set(errDisk, false)
		q.Verified = true
		if _, err := r.Take(t.Context(), q); !errors.Is(err, ErrDown) {
			t.Errorf("got %v, want ErrDown", err)
		}
		sameReceipt(t, "after the failed batch", take(t, r, press("b")), was)
		l.set(nil, false)
	})
}

func TestAttemptKeepsItsReceiptPastTheBoundary(t *testing.T) {
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		r := mustNew(t, Config{Log: l, Secret: secret})
		stop := run(t, r)
		time.Sleep(44*time.Minute + 59*time.Second)
		p := press("a")
		p.Attempt = "7f3c"
		first := take(t, r, p)
		time.Sleep(2 * time.Second) // period 1 has ended, period 2 has opened
		sameReceipt(t, "the same attempt", take(t, r, p), first)
		if got := take(t, r, press("a")); first.Period != "1" || got.Period != "2" {
			t.Errorf("got periods %s and %s, want 1, and 2 for a press without attempt", first.Period, got.Period)
		}
		q := press("b")
		q.Attempt = p.Attempt
		if got := take(t, r, q); got.Period != "2" {
			t.Errorf("another student's attempt of the same name: got period %s, want 2", got.Period)
		}
		stop()
		restarted := mustNew(t, Config{Log: l, Journal: l.journal, Secret: secret})
		stop = run(t, restarted)
		sameReceipt(t, "the same attempt after a restart", take(t, restarted, p), first)
		time.Sleep(16 * time.Minute)
		if got := take(t, restarted, p); got.Period != "2" {
			t.Errorf("after 16 minutes: got period %s, want 2", got.Period)
		}
		stop()
	})
}

func TestMidnightOutsideAndGrace(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		day := func(n int) string { return timetable.Date{Year: 2000, Month: 1, Day: n}.String() }
		at := func(n, hour, minute, second int) {
			t.Helper()
			time.Sleep(time.Until(time.Date(2000, 1, n, hour, minute, second, 0, seoul)))
		}
		check := func(what string, p Press, date, period string, status timetable.Status) {
			t.Helper()
			got, err := r.Take(t.Context(), p)
			if err != nil || got.Date.String() != date || got.Period != period || got.Status != status {
				t.Errorf("%s: got %s %s %s, %v, want %s %s %s", what, got.Date, got.Period, got.Status, err, date, period, status)
			}
		}
		refuses := func(what string, p Press, field string) {
			t.Helper()
			_, err := r.Take(t.Context(), p)
			var bad *FieldError
			if !errors.As(err, &bad) || bad.Field != field {
				t.Errorf("%s: got %v, want field %s refused", what, err, field)
			}
		}
		named := func(student, date, period string) Press {
			p := press(student)
			p.Date, p.Period = date, period
			return p
		}
		at(1, 9, 5, 0)
		check("the period that is on", press("a"), day(1), "1", timetable.Present)
		check("named as it is", named("a", day(1), "1"), day(1), "1", timetable.Present)
		refuses("tomorrow", named("a", day(2), ""), "date")
		refuses("yesterday", named("a", "1999-12-31", ""), "date")
		refuses("1970", named("a", "1970-01-01", ""), "date")
		refuses("2999", named("a", "2999-01-01", ""), "date")
		refuses("no date", named("a", "today", ""), "date")
		refuses("a period 40 minutes before it opens", named("a", "", "2"), "period")
		check("a period that the timetable lacks", named("a", "", "assembly"), day(1), "outside", timetable.Outside)
		at(1, 9, 35, 0)
		check("10 minutes before it opens", named("b", "", "2"), day(1), "2", timetable.Present)
		at(1, 9, 50, 0)
		check("5 minutes after it ended", named("b", "", "1"), day(1), "1", timetable.Late)
		at(1, 10, 40, 0)
		check("no period on", press("c"), day(1), "outside", timetable.Outside)
		at(1, 20, 0, 0)
		before := len(l.rows(t))
		check("no period on, hours later", press("c"), day(1), "outside", timetable.Outside)
		if got := len(l.rows(t)); got != before {
			t.Errorf("got %d rows, want %d: one outside row per student and day", got, before)
		}
		at(1, 23, 59, 59)
		check("before midnight", press("d"), day(1), "outside", timetable.Outside)
		check("the day that begins", named("e", day(2), ""), day(2), "outside", timetable.Outside)
		at(2, 0, 0, 1)
		check("after midnight", press("d"), day(2), "outside", timetable.Outside)
		at(2, 0, 14, 0)
		check("yesterday within the grace", named("f", day(1), ""), day(1), "outside", timetable.Outside)
		at(2, 0, 16, 0)
		refuses("yesterday after the grace", named("f", day(1), ""), "date")
		at(2, 9, 10, 0)
		check("not late yet", press("g"), day(2), "1", timetable.Present)
		at(2, 9, 10, 1)
		check("late", press("h"), day(2), "1", timetable.Late)
		at(3, 0, 30, 0)
		if got := len(r.roll.all()); got > 2 {
			t.Errorf("got %d days on the roll, want yesterday forgotten", got)
		}
	})
}

func TestUnfitFieldsLeaveNoTrace(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		long := strings.Repeat("x", 257)
		for _, c := range []struct {
			field string
			p     Press
		}{
			{"student", Press{Host: "n.x"}},
			{"student", Press{Host: "n.x", Student: "a\x00b"}},
			{"student", Press{Host: "n.x", Student: "a\nb"}},
			{"student", Press{Host: "n.x", Student: "\x7f"}},
			{"student", Press{Host: "n.x", Student: "a\u0085"}},
			{"student", Press{Host: "n.x", Student: "\xff\xfe"}},
			{"student", Press{Host: "n.x", Student: long}},
			{"class", Press{Host: "n.x", Student: "a", Class: long}},
			{"class", Press{Host: "n.x", Student: "a", ClassIsKey: true}},
			{"period", Press{Host: "n.x", Student: "a", Period: "\t"}},
			{"date", Press{Host: "n.x", Student: "a", Date: long}},
			{"attempt", Press{Host: "n.x", Student: "a", Attempt: "\xc3"}},
			{"host", Press{Student: "a"}},
			{"host", Press{Host: long, Student: "a"}},
		} {
			_, err := r.Take(t.Context(), c.p)
			var bad *FieldError
			if !errors.As(err, &bad) || bad.Field != c.field || len(err.Error()) > 100 {
				t.Errorf("%.40q: got %v, want field %s refused in short", fmt.Sprint(c.p), err, c.field)
			}
		}
		if s := r.Stats(); s.Invalid != 14 || s.OnRoll != 0 || len(l.records) != 0 {
			t.Errorf("got %+v and %d records, want 14 invalid presses and nothing else", s, len(l.records))
		}
		p := Press{Host: "n.x", Student: strings.Repeat("학", 85), Class: strings.Repeat("é", 128)}
		if got := take(t, r, p); got.Student != p.Student || got.Class != p.Class {
			t.Error("long names in other scripts were not taken as they are")
		}
	})
}

func TestFullIsBusyAndCountsFromThen(t *testing.T) {
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{takes: time.Minute}
		r := mustNew(t, Config{Log: l, Secret: secret, MaxBatch: 2, MaxWaiting: 4})
		stop := run(t, r)
		var wg sync.WaitGroup
		press1 := func(student string) { wg.Go(func() { take(t, r, press(student)) }); synctest.Wait() }
		press1("a") // flies
		press1("b")
		press1("c") // the open batch is full
		retry := map[time.Duration]bool{}
		for range 8 {
			_, err := r.Take(t.Context(), press("d"))
			var refused *Refused
			if !errors.As(err, &refused) || !errors.Is(err, ErrBusy) || refused.FirstSeen == "" {
				t.Fatalf("got %v, want ErrBusy with a token", err)
			}
			retry[refused.RetryAfter] = true
		}
		if len(retry) < 6 {
			t.Errorf("8 refused presses were told %d different moments, want them spread", len(retry))
		}
		press1("a") // a fourth waiter, of a pending key
		if _, err := r.Take(t.Context(), press("a")); !errors.Is(err, ErrBusy) {
			t.Errorf("a fifth waiter: got %v, want ErrBusy", err)
		}
		refusedAt := time.Now()
		wg.Wait()
		if got := take(t, r, press("d")); !got.FirstArrival.Equal(refusedAt) {
			t.Errorf("got first arrival %s, want %s, when it was refused", got.FirstArrival, refusedAt)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEveryoneHearsWhenTheWriterEnds(t *testing.T) {
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{takes: time.Second}
		r := mustNew(t, Config{Log: l, Secret: secret})
		stop := run(t, r)
		got := make(chan error, 200)
		for i := range 200 {
			go func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				_, err := r.Take(context.Background(), press(fmt.Sprint(i)))
				got <- err
			}()
		}
		time.Sleep(1500 * time.Millisecond) // in the middle of the second batch
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		var receipts int
		for range 200 {
			if err := <-got; err == nil {
				receipts++
			} else if !errors.Is(err, ErrStopped) {
				t.Errorf("got %v, want ErrStopped", err)
			}
		}
		if rows := len(l.rows(t)); receipts != rows || receipts < 100 {
			t.Errorf("got %d receipts and %d rows, want as many, and at least 100", receipts, rows)
		}
		// Who has a receipt still gets it.
		take(t, r, press("0"))
	})
}

func TestEveryoneHearsWhenTheWriterDies(t *testing.T) {
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{onAppend: func() { panic("the journal's writer dies") }}
		r := mustNew(t, Config{Log: l, Secret: secret})
		got := make(chan error, 10)
		for i := range 10 {
			go func() {
				_, err := r.Take(context.Background(), press(fmt.Sprint(i%7)))
				got <- err
			}()
		}
		synctest.Wait()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("Run hid the panic")
				}
			}()
			r.Run(context.Background())
		}()
		for range 10 {
			if err := <-got; !errors.Is(err, ErrStopped) {
				t.Errorf("got %v, want ErrStopped", err)
			}
		}
		if s := r.Stats(); s.OnRoll != 0 || s.Waiting != 0 {
			t.Errorf("got %d keys on the roll and %d waiting, want none", s.OnRoll, s.Waiting)
		}
	})
}

func TestTenThousandWaitersHearOfTheirBatch(t *testing.T) {
	for _, fail := range []error{nil, errDisk} {
		bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
			l.takes, l.fail = time.Second, fail
			var wg sync.WaitGroup
			for i := range 10_000 {
				wg.Go(func() {
					if _, err := r.Take(context.Background(), press(fmt.Sprint(i))); !errors.Is(err, fail) {
						t.Errorf("got %v, want %v", err, fail)
					}
				})
			}
			wg.Wait()
			if s := r.Stats(); s.Waiting != 0 || s.Batches > 2 || (fail == nil) != (s.OnRoll == 10_000) || (fail == nil) == (s.Down == 10_000) {
				t.Errorf("with %v: got %+v", fail, s)
			}
		})
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		l.takes = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Take(ctx, press("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
		first := time.Now().Add(-time.Second)
		if got := take(t, r, press("a")); !got.FirstArrival.Equal(first) {
			t.Errorf("the next press: got first arrival %s, want %s of the one given up", got.FirstArrival, first)
		}
	})
}

func TestPressesAreEvidenceNotRows(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		for range 7 {
			take(t, r, press("a"))
		}
		take(t, r, press("b"))
		appends := l.count()
		time.Sleep(evidenceEvery)
		synctest.Wait()
		if rows := l.rows(t); len(rows) != 2 || rows[0].Presses != 7 || rows[1].Presses != 1 || l.count() != appends+1 {
			t.Errorf("got %v after %d appends, want 7 and 1 presses in one more", rows, l.count()-appends)
		}
		time.Sleep(time.Minute)
		if l.count() != appends+1 {
			t.Errorf("got %d appends while nobody pressed, want none", l.count()-appends-1)
		}
	})
}

func TestJournalOfAnotherSecretIsRefused(t *testing.T) {
	secret, other := mustSecret(t), mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		r := mustNew(t, Config{Log: l, Secret: secret})
		stop := run(t, r)
		take(t, r, press("a"))
		stop()
		if _, err := New(Config{Log: l, Journal: l.journal, Secret: other, Schools: mustSchools(t)}); err == nil || !strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want an error about the secret", err)
		}
		l.records = append(l.records, []byte{99, 1, 2, 3}, []byte{1, 1}, nil) // of the future, and broken
		if _, err := New(Config{Log: l, Journal: l.journal, Secret: secret, Schools: mustSchools(t)}); err != nil {
			t.Errorf("records that cannot be read: got %v, want a start", err)
		}
	})
}

func TestSchoolsAndReload(t *testing.T) {
	berlin := time.FixedZone("Berlin", 60*60)
	schools := mustSchools(t,
		SchoolEntry{School: School{ID: "s1", Zone: berlin}, Hosts: []string{"North.School.example.", "n.example"}},
		SchoolEntry{School: School{ID: "south"}})
	for host, want := range map[string]string{
		"north.school.example": "s1", "n.example": "s1", "south.school.example": "south", "west.school.example": "west",
		"localhost": "localhost", "10.0.0.5": "10.0.0.5", "[::1]": "[::1]", "5b.example": "5b",
	} {
		if got := schools.Find(host); got.ID != want || got.Timetable == nil || got.Zone == nil {
			t.Errorf("%s: got school %+v, want %s", host, got, want)
		}
	}
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		before := take(t, r, press("a"))
		r.SetSchools(schools)
		after := take(t, r, press("a"))
		if before.School != "north" || after.School != "s1" || after.FirstArrival.Format("15:04 -07:00") != "01:00 +01:00" {
			t.Errorf("got %+v, then %+v, want the other school in its zone", before, after)
		}
	})
	_, err := NewSchools(nil, nil, []SchoolEntry{{}, {School: School{ID: "a"}, Hosts: []string{"*.x"}}, {School: School{ID: "b"}, Hosts: []string{"y"}}, {School: School{ID: "c"}, Hosts: []string{"Y"}}, {School: School{ID: "c"}}})
	for _, want := range []string{"schools[0]", "schools[1]", "without port and wildcard", "schools[3]", `school "b" already`, "schools[4]", "twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %s", err, want)
		}
	}
}
