package attendance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func beacon(key, body string) Item {
	return Item{Host: "north.school.example", Sink: "progress", Key: key, Path: "/progress", ContentType: "application/json", Body: []byte(body)}
}

func collect(t testing.TB, r *Recorder, it Item) ReceiptID {
	t.Helper()
	id, err := r.Collect(t.Context(), it)
	if err != nil {
		t.Fatalf("Collect(%s): %v", it.Key, err)
	}
	return id
}

// kept returns what the log has collected.
func (l *fakeLog) kept(t testing.TB) (out []Event) {
	t.Helper()
	for _, e := range l.events(t) {
		if e.Kind == KindCollected {
			out = append(out, e)
		}
	}
	return out
}

func TestCollectedMeansOnDisk(t *testing.T) {
	for _, c := range []struct {
		name   string
		fail   error
		keeps  bool
		onDisk int
	}{
		{"healthy", nil, false, 1},
		{"fails and is lost", errDisk, false, 0},
		{"fails but is kept", errDisk, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
				l.set(c.fail, c.keeps)
				_, err := r.Collect(t.Context(), beacon("a", "{}"))
				var refused *Refused
				switch {
				case c.fail == nil && err != nil:
					t.Errorf("got %v, want a receipt", err)
				case c.fail != nil && (!errors.Is(err, ErrDown) || !errors.As(err, &refused) || refused.RetryAfter < time.Second || refused.FirstSeen != ""):
					t.Errorf("got %v, want ErrDown and when to come back", err)
				}
				if got := len(l.kept(t)); got != c.onDisk {
					t.Errorf("got %d on disk, want %d", got, c.onDisk)
				}
				l.set(nil, false)
				collect(t, r, beacon("a", "{}")) // the key of a failed batch is free again
				if got := len(l.kept(t)); c.fail != nil && got != c.onDisk+1 {
					t.Errorf("afterwards: got %d on disk, want %d", got, c.onDisk+1)
				}
			})
		})
	}
}

func TestCollectedIsKeptAsItCame(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		body := "\x00\xff{\"a\":1,\"a\":2}\r\n" + strings.Repeat("x", CollectedBytesMax-20)
		it := beacon("k 1", body)
		buffer := it.Body
		id := collect(t, r, it)
		clear(buffer) // what Collect was given is the caller's again
		got := l.kept(t)[0]
		c := got.Collected
		if c.Body != body || c.Key != "k 1" || c.Path != "/progress" || c.ContentType != "application/json" || c.Sink != "progress" {
			t.Errorf("got %.80q, want it as it came", fmt.Sprintf("%+v", c))
		}
		if got.ID != id || got.School != "north" || !got.FirstArrival.Equal(time.Now()) || got.Date.String() != "2000-01-01" {
			t.Errorf("got %s of %s at %s, want %s of north now", got.ID, got.School, got.FirstArrival, id)
		}
	})
}

func TestTheSameKeyGetsTheSameReceiptAndTheFirstCounts(t *testing.T) {
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{takes: time.Second}
		r := mustNew(t, Config{Log: l, Secret: secret})
		stop := run(t, r)
		var wg sync.WaitGroup
		ids := make([]ReceiptID, 5)
		for i, after := range []time.Duration{0, 1, 500, 1500, 8000} { // open, flying, durable
			wg.Go(func() {
				time.Sleep(after * time.Millisecond)
				ids[i] = collect(t, r, beacon("a", fmt.Sprint(min(i, 3)/3)))
			})
		}
		wg.Wait()
		for i := range ids {
			if ids[i] != ids[0] {
				t.Errorf("coming %d got %s, want %s", i, ids[i], ids[0])
			}
		}
		for name, it := range map[string]Item{
			"another key": beacon("b", "0"), "another school": {Host: "south.school.example", Key: "a", Path: "/progress"}, "another path": {Host: "north.school.example", Key: "a", Path: "/quiz"},
		} {
			if collect(t, r, it) == ids[0] {
				t.Errorf("%s got the same receipt", name)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if kept := l.kept(t); len(kept) != 4 || kept[0].Collected.Body != "0" {
			t.Errorf("got %d on disk, the first %q, want 4 and 0", len(kept), kept[0].Collected.Body)
		}
		st := r.CollectStats()
		if st.Records != 4 || st.Repeats != 4 || st.Differing != 2 || st.OnRoll != 4 {
			t.Errorf("got %+v, want 4 records, 4 repeats of which 2 differ", st)
		}
		var told *Event
		for _, e := range l.events(t) {
			if e.Kind == KindRepeats && e.ID == ids[0] {
				told = &e
			}
		}
		if told == nil || told.Repeats != 4 || told.Differing != 2 {
			t.Errorf("the journal tells %+v, want 4 repeats of which 2 differ", told)
		}

		restarted := mustNew(t, Config{Log: l, Journal: l.journal, Secret: secret})
		stop = run(t, restarted)
		if id := collect(t, restarted, beacon("a", "2")); id != ids[0] || len(l.kept(t)) != 4 {
			t.Errorf("after a restart: got %s and %d on disk, want %s and 4", id, len(l.kept(t)), ids[0])
		}
		if from := restarted.KeepFrom(); from != l.kept(t)[0].Seq {
			t.Errorf("a restart needs the journal from %d, want %d", from, l.kept(t)[0].Seq)
		}
		time.Sleep(2*DefaultGrace + time.Minute)
		if id := collect(t, restarted, beacon("a", "3")); id != ids[0] || len(l.kept(t)) != 5 {
			t.Errorf("long after: got %s and %d on disk, want the same receipt %s, recorded once more", id, len(l.kept(t)), ids[0])
		}
		time.Sleep(3 * DefaultGrace)
		if from := restarted.KeepFrom(); from != 0 {
			t.Errorf("a restart needs the journal from %d, want nothing of it", from)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCollectingTakesNoRoomFromCheckIns(t *testing.T) {
	secret := mustSecret(t)
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{takes: time.Second}
		r := mustNew(t, Config{Log: l, Secret: secret, MaxBatch: 1000, MaxWaiting: 4000})
		stop := run(t, r)
		var wg sync.WaitGroup
		var mu sync.Mutex
		busy := 0
		for i := range 3000 {
			wg.Go(func() {
				if _, err := r.Collect(t.Context(), beacon(fmt.Sprint(i), "{}")); errors.Is(err, ErrBusy) {
					mu.Lock()
					busy++
					mu.Unlock()
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		large := strings.Repeat("x", CollectedBytesMax)
		for i := range 200 {
			wg.Go(func() { r.Collect(t.Context(), beacon("large "+fmt.Sprint(i), large)) })
		}
		synctest.Wait()
		for i := range 500 {
			wg.Go(func() { take(t, r, press(fmt.Sprint(i))) })
		}
		wg.Wait()
		if busy == 0 {
			t.Error("3,000 at once were all taken, want a bound")
		}
		if got := len(l.rows(t)); got != 500 {
			t.Errorf("got %d check-ins beside the flood, want all 500", got)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestTheRollOfCollectedKeysIsBounded(t *testing.T) {
	r := collectedRoll{}
	var c collectCounters
	s := &r.shards[0]
	for i := range 5 * collectedMax / rollShards {
		s.put(ReceiptID{byte(i), byte(i >> 8), byte(i >> 16)}, collectedEntry{}, &c.forgotten)
	}
	if n, most := r.len(), 2*collectedMax/rollShards; n > most || c.forgotten.Load() == 0 {
		t.Errorf("got %d keys in a shard and %d forgotten, want at most %d and the others told", n, c.forgotten.Load(), most)
	}
}

func TestItemsThatCannotBeRecorded(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		for name, c := range map[string]struct {
			change func(*Item)
			field  string
		}{
			"no key":               {func(it *Item) { it.Key = "" }, "key"},
			"a long key":           {func(it *Item) { it.Key = strings.Repeat("k", 257) }, "key"},
			"a key with NUL":       {func(it *Item) { it.Key = "a\x00" }, "key"},
			"a key that no UTF-8":  {func(it *Item) { it.Key = "\xff" }, "key"},
			"a body of 64 KiB + 1": {func(it *Item) { it.Body = make([]byte, CollectedBytesMax+1) }, "body"},
			"a long path":          {func(it *Item) { it.Path = strings.Repeat("/", CollectedPathMax+1) }, "path"},
			"a long content type":  {func(it *Item) { it.ContentType = strings.Repeat("t", 257) }, "content type"},
			"no host":              {func(it *Item) { it.Host = "" }, "host"},
		} {
			it := beacon("a", "secret body")
			c.change(&it)
			_, err := r.Collect(t.Context(), it)
			var wrong *FieldError
			if !errors.As(err, &wrong) || wrong.Field != c.field || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: got %v, want a word about the %s and none of the body", name, err, c.field)
			}
		}
		if len(l.kept(t)) != 0 {
			t.Error("something was recorded")
		}
	})
}

func TestCollectedHasTheNamesOfTheWire(t *testing.T) {
	e := sampleCollected()
	const want = `{"key":"hanbit-middle-school/%2Fprogress/1%2F%257","receipt":"01020304-0506-8708-990a-0b0c0d0e0f10","school":"hanbit-middle-school","path":"/progress","content_type":"application/json","arrival":"2026-05-04T09:12:03.127+09:00","durable":"disk","body":"{\"at\":7}"}`
	if got := string(e.AppendCollectedJSON(nil)); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	e.Collected.Body = "\xff\x00"
	if got := e.AppendCollectedJSON(nil); !json.Valid(got) || !bytes.Contains(got, []byte(`"body_base64":"/wA="}`)) {
		t.Errorf("bytes that are no text: got %s", got)
	}
}

// Each delivery hears only of what is its own.
func TestDeliveriesPassOverWhatIsNotTheirs(t *testing.T) {
	bubble(t, func(t *testing.T, l *fakeLog, r *Recorder) {
		for i := range 30 {
			take(t, r, press(fmt.Sprint(i)))
			collect(t, r, beacon(fmt.Sprint(i), "{}"))
			other := beacon(fmt.Sprint(i), "{}")
			other.Sink, other.Path = "quiz", "/quiz"
			collect(t, r, other)
		}
		for collected, want := range map[string]int{"": 30, "progress": 30, "quiz": 30, "nobody": 0} {
			target := &fakeTarget{}
			kinds := map[string]int{}
			d := NewDelivery(DeliveryConfig{Name: "sink", Journal: l.journal, Collected: collected, BulkMax: 7, Target: counting{target, kinds}})
			if err := d.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if kinds[collected] != want || len(kinds) > 1 {
				t.Errorf("delivery of %q: got %v, want %d of its own and nothing else", collected, kinds, want)
			}
			if s := d.Stats(); s.Seen != uint64(len(l.records))+1 || s.Next > s.Seen {
				t.Errorf("delivery of %q: got position %d and seen %d of %d", collected, s.Next, s.Seen, len(l.records))
			}
		}
	})
}

// counting counts events by the sink they were collected for.
type counting struct {
	*fakeTarget
	kinds map[string]int
}

func (c counting) Deliver(ctx context.Context, b *Bulk) (Delivered, error) {
	for i := range b.Events {
		e := &b.Events[i]
		if e.Collected != nil {
			c.kinds[e.Collected.Sink]++
		} else {
			c.kinds[""]++
		}
	}
	return c.fakeTarget.Deliver(ctx, b)
}

// A bulk of large bodies is cut by its bytes, and one that nothing is in still
// moves the position where it reaches far.
func TestBulksAreBoundedInBytesAndInReach(t *testing.T) {
	l := &fakeLog{}
	for i := range 10 {
		e := sampleCollected()
		e.ID[0], e.Collected.Body = byte(i), strings.Repeat("x", 1000)
		data, err := AppendEvent(nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		l.records = append(l.records, data)
	}
	target := &fakeTarget{}
	d := NewDelivery(DeliveryConfig{Name: "sink", Journal: l.journal, Collected: "progress", BulkBytes: 2500, Target: target})
	if err := d.Drain(t.Context()); err != nil || fmt.Sprint(target.bulks) != "[3 3 3 1]" {
		t.Errorf("got bulks %v, %v, want three bodies in each", target.bulks, err)
	}
	for range 2 * spanMax {
		l.records = append(l.records, []byte{byte(KindRepeats)})
	}
	if err := d.Drain(t.Context()); err != nil || fmt.Sprint(target.bulks) != "[3 3 3 1 0 0]" {
		t.Errorf("got bulks %v, %v, want two empty ones that move the position", target.bulks, err)
	}
}
