package attendance

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/attendance/seal"
	"firstbell/attendance/timetable"
)

func testKey() (*seal.Key, ed25519.PublicKey) {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	return seal.NewKey(private), private.Public().(ed25519.PublicKey)
}

// wantSealed wants each record that is no evidence under exactly one seal.
func wantSealed(t *testing.T, l *fakeLog, public ed25519.PublicKey) (seals int) {
	t.Helper()
	var open [][]byte
	for rec := range l.journal(0) {
		e, err := DecodeEvent(rec.Data)
		if err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case KindPresses:
			if len(open) > 0 {
				t.Errorf("record %d is evidence amid records that no seal covers yet", rec.Seq)
			}
		case KindSeal:
			seals++
			var tree seal.Tree
			for _, r := range open {
				tree.Add(r)
			}
			if int(e.Seal.Leaves) != len(open) || tree.Root() != e.Seal.Root || !e.Seal.Genuine(public) {
				t.Errorf("the seal at %d covers %d records and is not theirs (%d)", rec.Seq, e.Seal.Leaves, len(open))
			}
			open = nil
		default:
			open = append(open, rec.Data)
		}
	}
	if len(open) > 0 {
		t.Errorf("%d records lie under no seal", len(open))
	}
	return seals
}

func TestEachBatchIsSealedInItsOwnAppend(t *testing.T) {
	secret := mustSecret(t)
	key, public := testKey()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{takes: time.Millisecond}
		r := mustNew(t, Config{Log: l, Secret: secret, Key: key})
		stop := run(t, r)
		var wg sync.WaitGroup
		for round := range 5 {
			for i := range 40 {
				wg.Go(func() { take(t, r, press(fmt.Sprintf("s%d", (i+round*13)%100))) })
			}
			wg.Wait()
			time.Sleep(6 * time.Second) // counts of presses go out
		}
		l.set(errDisk, false)
		if _, err := r.Take(context.Background(), press("unlucky")); err == nil {
			t.Error("a check-in got a receipt on a broken disk")
		}
		l.set(nil, false)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if seals := wantSealed(t, l, public); seals < 5 || seals > l.count() {
			t.Errorf("%d seals for %d appends", seals, l.count())
		}
	})
}

func TestRecordedEventsAreSealedAndCorrectTheRoll(t *testing.T) {
	secret := mustSecret(t)
	key, public := testKey()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		r := mustNew(t, Config{Log: l, Secret: secret, Key: key})
		stop := run(t, r)
		before := take(t, r, press("s1"))
		e := l.events(t)[0]
		e.Kind, e.Status, e.Correction = KindCorrection, timetable.Late, &Correction{Of: 1, OldStatus: timetable.Present, OldPeriod: "1", Author: "kim", Reason: "bell"}
		if err := r.Record(context.Background(), []Event{e}); err != nil {
			t.Fatal(err)
		}
		after := take(t, r, press("s1"))
		if after.ID != before.ID || after.Status != timetable.Late {
			t.Errorf("after the correction: got %s, want the same receipt, late", after.AppendJSON(nil))
		}
		for _, bad := range [][]Event{nil, make([]Event, RecordMax+1), {{Kind: 200}}} {
			if err := r.Record(context.Background(), bad); err == nil {
				t.Errorf("%d events of kind 200 were recorded", len(bad))
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if err := r.Record(context.Background(), []Event{e}); err == nil {
			t.Error("an event was recorded after the end")
		}
		wantSealed(t, l, public)
		if rows := l.rows(t); len(rows) != 1 || rows[0].Status != timetable.Late {
			t.Errorf("got rows %+v, want one, late", rows)
		}
		again := mustNew(t, Config{Log: l, Journal: l.journal, Secret: secret})
		stop = run(t, again)
		defer stop()
		if got := take(t, again, press("s1")); got.Status != timetable.Late || got.ID != before.ID {
			t.Errorf("after a restart: got %s, want the same receipt, late", got.AppendJSON(nil))
		}
	})
}

func TestADaysDigestIsDueOnceTheDayIsOver(t *testing.T) {
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		r := mustNew(t, Config{Log: l, Secret: secret})
		stop := run(t, r)
		for i := range 5 {
			take(t, r, press(fmt.Sprintf("s%d", i)))
		}
		if due := r.DigestsDue(); len(due) != 0 {
			t.Errorf("on the day itself: got %v due", due)
		}
		time.Sleep(24 * time.Hour)
		due := r.DigestsDue()
		if len(due) != 1 || due[0].First != 1 || due[0].Rows != 0 {
			t.Fatalf("a day later: got %+v due, want one day from record 1", due)
		}
		before := uint64(len(l.events(t)) + 1)
		sum, undecodable, err := SumDay(l.journal, due[0].Date, due[0].First, before)
		var want Sum
		for _, row := range l.rows(t) {
			want.Add(row.Receipt.Number())
		}
		if err != nil || undecodable != 0 || sum != want || sum.Rows != 5 {
			t.Errorf("the day comes to %v (%v), want %v", sum, err, want)
		}
		e := Event{Kind: KindDigest, RawArrival: time.Now(), Digest: &DayDigest{Before: before, Sum: sum}}
		e.Date = due[0].Date
		if err := r.Record(context.Background(), []Event{e}); err != nil {
			t.Fatal(err)
		}
		if due := r.DigestsDue(); len(due) != 0 {
			t.Errorf("after the digest: got %v due", due)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		again := mustNew(t, Config{Log: l, Journal: l.journal, Secret: secret})
		if due := again.DigestsDue(); len(due) != 0 {
			t.Errorf("after a restart: got %v due", due)
		}
		c := l.events(t)[0]
		c.Kind, c.Status, c.Correction = KindCorrection, timetable.Late, &Correction{Of: 1}
		stop = run(t, again)
		if err := again.Record(context.Background(), []Event{c}); err != nil {
			t.Fatal(err)
		}
		if due := again.DigestsDue(); len(due) != 1 || due[0].Rows != 5 {
			t.Errorf("after a correction: got %+v due, want the day again, with 5 rows before", due)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// Whoever recomputes a digest elsewhere, in whatever order, comes to the same.
func TestASumDoesNotDependOnOrderAndAddsUp(t *testing.T) {
	e := sampleEvent()
	const line = "01020304-0506-8708-990a-0b0c0d0e0f10\t2026-03-0417\thanbit-middle-school\t3학년-2반\t2026-05-04\t1\t2026-05-04T09:12:03.127+09:00\tlate\tfalse"
	if got := string(e.Receipt.AppendLine(nil)); got != line {
		t.Errorf("got  %q\nwant %q", got, line)
	}
	var forth, back, left, right Sum
	var numbers []Number
	for i := range 100 {
		e.ID[0] = byte(i)
		numbers = append(numbers, e.Receipt.Number())
	}
	for i := range numbers {
		forth.Add(numbers[i])
		back.Add(numbers[len(numbers)-1-i])
		if i < 30 {
			left.Add(numbers[i])
		} else {
			right.Add(numbers[i])
		}
	}
	left.AddSum(right)
	if forth != back || forth != left {
		t.Errorf("got %v forth, %v back, %v in parts", forth, back, left)
	}
	all := Number{}
	for i := range all {
		all[i] = 0xff
	}
	wraps := Sum{Digest: all}
	wraps.Add(Number{31: 1})
	if wraps != (Sum{Rows: 1}) {
		t.Errorf("2^256-1 and 1: got %v, want 0", wraps)
	}
}

// A disk of which one sync in a hundred takes half a second delays receipts by
// no more than that, and loses none.
func TestASlowDiskDelaysReceiptsAndLosesNone(t *testing.T) {
	secret := mustSecret(t)
	key, public := testKey()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{takes: time.Millisecond}
		syncs := 0
		l.onAppend = func() {
			if syncs++; syncs%100 == 0 {
				time.Sleep(500 * time.Millisecond)
			}
		}
		r := mustNew(t, Config{Log: l, Secret: secret, Key: key})
		stop := run(t, r)
		var wg sync.WaitGroup
		var slowest, presses int64
		var mu sync.Mutex
		for i := range 3000 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 700 * time.Microsecond)
				began := time.Now()
				take(t, r, press(fmt.Sprintf("s%d", i)))
				mu.Lock()
				defer mu.Unlock()
				presses++
				slowest = max(slowest, int64(time.Since(began)))
			})
		}
		wg.Wait()
		if most := 503 * time.Millisecond; time.Duration(slowest) > most || syncs < 300 {
			t.Errorf("the slowest of %d presses waited %v through %d syncs, want %v at most: one slow sync, and its own", presses, time.Duration(slowest), syncs, most)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if rows := l.rows(t); len(rows) != 3000 {
			t.Errorf("%d rows, want 3000", len(rows))
		}
		wantSealed(t, l, public)
	})
}

// The clock of a machine may be an hour ahead, be put right by a restart, and
// be wrong again: the same check-in keeps its receipt, and nothing is lost.
func TestTheClockJumpsAcrossRestarts(t *testing.T) {
	secret := mustSecret(t)
	l := &fakeLog{}
	given := map[string]Receipt{}
	// Bubbles begin at the same moment, so each restart puts the clock back.
	for _, ahead := range []time.Duration{20 * time.Minute, 0, 26 * time.Hour, time.Minute, 0} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(ahead)
			r := mustNew(t, Config{Log: l, Journal: l.journal, Secret: secret})
			stop := run(t, r)
			for i := range 5 {
				p := press(fmt.Sprintf("s%d", i))
				got := take(t, r, p)
				known := got.Date.String() + p.Student
				if was, ok := given[known]; ok {
					sameReceipt(t, fmt.Sprintf("%v ahead", ahead), got, was)
				}
				given[known] = got
			}
			time.Sleep(16 * time.Minute) // past what is remembered
			if got := take(t, r, press("s1")); got.ID != given[got.Date.String()+"s1"].ID {
				t.Errorf("%v ahead: pressed again, got %s", ahead, got.ID)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
	if rows := l.rows(t); len(rows) != len(given) || len(rows) != 10 {
		t.Errorf("%d rows for %d receipts, want 5 for each of two days", len(rows), len(given))
	}
}
