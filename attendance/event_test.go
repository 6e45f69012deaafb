package attendance

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"firstbell/attendance/seal"
	"firstbell/attendance/timetable"
)

func sampleEvent() Event {
	return Event{
		Kind: KindArrival,
		Receipt: Receipt{
			ID: ReceiptID{1, 2, 3, 4, 5, 6, 0x87, 8, 0x99, 10, 11, 12, 13, 14, 15, 16}, School: "hanbit-middle-school", Student: "2026-03-0417",
			Class: "3학년-2반", Date: timetable.Date{Year: 2026, Month: 5, Day: 4}, Period: "1", Status: timetable.Late,
			FirstArrival: time.Date(2026, 5, 4, 9, 12, 3, 127e6, fixedZone(9*60)),
		},
		RawArrival: time.Date(2026, 5, 4, 0, 12, 4, 0, time.UTC), Timetable: "0123456789abcdef", Attempt: 0x1122334455667788, Basis: BasisToken,
	}
}

func sampleCollected() Event {
	e := sampleEvent()
	return Event{
		Kind: KindCollected, RawArrival: e.FirstArrival.UTC(),
		Receipt:   Receipt{ID: e.ID, School: e.School, Date: e.Date, FirstArrival: e.FirstArrival},
		Collected: &Collected{Sink: "progress", Key: "1/%7", Path: "/progress", ContentType: "application/json", Body: `{"at":7}`},
	}
}

func sampleContradiction() Event {
	e := sampleEvent()
	return Event{
		Kind: KindContradiction, RawArrival: e.FirstArrival.UTC(),
		Receipt:       Receipt{ID: e.ID, School: e.School, Student: e.Student, Date: e.Date, FirstArrival: e.FirstArrival},
		Contradiction: &Contradiction{Field: ContradictsStudent, Claimed: "2026-03-0418", Times: 300, Last: e.RawArrival},
	}
}

// These bytes are on disk for ever: what wrote them must always be readable.
func TestEventBytesNeverChange(t *testing.T) {
	arrival, verified := sampleEvent(), sampleEvent()
	verified.Kind, verified.Verified, verified.ClassIsKey, verified.Attempt = KindVerifiedArrival, true, true, 0
	count := Event{Kind: KindPresses, Presses: 300, RawArrival: arrival.RawArrival}
	count.ID, count.Date = arrival.ID, arrival.Date
	corrected := sampleEvent()
	corrected.Kind, corrected.Basis, corrected.Attempt, corrected.Status = KindCorrection, BasisClock, 0, timetable.Present
	corrected.Correction = &Correction{Of: 300, OldStatus: timetable.Late, OldPeriod: "1", Author: "kim", Reason: "the bell was wrong"}
	digest := Event{Kind: KindDigest, RawArrival: arrival.RawArrival, Digest: &DayDigest{Before: 0x1020, Sum: Sum{Rows: 3, Digest: [32]byte{1, 31: 2}}}}
	digest.Date = arrival.Date
	sealed := Event{Kind: KindSeal, Seal: &seal.Seal{Leaves: 3, Key: seal.KeyID{1, 7: 2}, Root: seal.Hash{3, 31: 4}, Signature: [64]byte{5, 63: 6}}}
	collected := sampleCollected()
	repeats := Event{Kind: KindRepeats, Repeats: 300, Differing: 2, RawArrival: arrival.RawArrival}
	repeats.ID, repeats.Date = arrival.ID, arrival.Date
	for _, c := range []struct {
		name  string
		event Event
		want  string
	}{
		{"collected", collected, "08010000" + "61500000" + "0102030405068708990a0b0c0d0e0f10" + "b7e453f09d010000" + "0870726f6772657373" + "b808" + "1468616e6269742d6d6964646c652d7363686f6f6c" + "04312f2537" + "092f70726f6772657373" + "10" + "6170706c69636174696f6e2f6a736f6e" + "08" + "7b226174223a377d"},
		{"contradiction", sampleContradiction(), "0a010100" + "61500000" + "0102030405068708990a0b0c0d0e0f10" + "b7e453f09d010000" + "d20d" + "b808" + "ac02" + "1468616e6269742d6d6964646c652d7363686f6f6c" + "0c323032362d30332d30343137" + "0c323032362d30332d30343138"},
		{"repeats", repeats, "09010000" + "61500000" + "0102030405068708990a0b0c0d0e0f10" + "20e853f09d010000" + "ac02" + "02"},
		{"arrival", arrival, "01010c02" + "61500000" + "0102030405068708990a0b0c0d0e0f10" + "b7e453f09d010000" + "d20d" + "b808" + "1468616e6269742d6d6964646c652d7363686f6f6c" + "0131" + "0c323032362d30332d30343137" + "0c33ed9599eb85842d32ebb098" + "1030313233343536373839616263646566" + "8877665544332211"},
		{"verified arrival", verified, "03010b02" + "61500000" + "0102030405068708990a0b0c0d0e0f10" + "b7e453f09d010000" + "d20d" + "b808" + "1468616e6269742d6d6964646c652d7363686f6f6c" + "0131" + "0c323032362d30332d30343137" + "0c33ed9599eb85842d32ebb098" + "1030313233343536373839616263646566"},
		{"presses", count, "02010000" + "61500000" + "0102030405068708990a0b0c0d0e0f10" + "20e853f09d010000" + "ac02"},
		{"correction", corrected, "04010001" + "61500000" + "0102030405068708990a0b0c0d0e0f10" + "b7e453f09d010000" + "d20d" + "b808" + "1468616e6269742d6d6964646c652d7363686f6f6c" + "0131" + "0c323032362d30332d30343137" + "0c33ed9599eb85842d32ebb098" + "1030313233343536373839616263646566" + "ac02" + "02" + "0131" + "036b696d" + "127468652062656c6c207761732077726f6e67"},
		{"digest", digest, "05010000" + "61500000" + "20e853f09d010000" + "2010000000000000" + "0300000000000000" + "01" + strings.Repeat("00", 30) + "02"},
		{"seal", sealed, "06010000" + "03000000" + "0100000000000002" + "03" + strings.Repeat("00", 30) + "04" + "05" + strings.Repeat("00", 62) + "06"},
	} {
		got, err := AppendEvent(nil, &c.event)
		if err != nil || hex.EncodeToString(got) != c.want {
			t.Errorf("%s:\n got %x %v\nwant %s", c.name, got, err, c.want)
		}
		back, err := DecodeEvent(got)
		if err != nil || !reflect.DeepEqual(back, c.event) {
			t.Errorf("%s: read back\n got %+v %v\nwant %+v", c.name, back, err, c.event)
		}
		// A later version may add fields; they are passed over.
		if back, err = DecodeEvent(append(got, "more"...)); err != nil || !reflect.DeepEqual(back, c.event) {
			t.Errorf("%s with fields of a later version: got %+v %v", c.name, back, err)
		}
		for n := range len(got) {
			if _, err := DecodeEvent(got[:n]); err == nil {
				t.Errorf("%s cut to %d bytes: got no error", c.name, n)
			}
		}
	}
}

// The journal's frame is 28 bytes.
func TestTypicalRecordTakesAtMost160BytesOnDisk(t *testing.T) {
	e := sampleEvent()
	got, err := AppendEvent(nil, &e)
	if err != nil || len(got)+28 > 160 {
		t.Errorf("got %d bytes and a frame of 28, %v, want at most 160", len(got), err)
	}
}

func TestUnknownKindIsKeptAndSkipped(t *testing.T) {
	e, err := DecodeEvent([]byte{200, 1, 0xff})
	if err != nil || e.Kind != 200 {
		t.Errorf("got %+v, %v, want kind 200 and no error", e, err)
	}
	var f Fold
	f.Add(&e)
	if f.Len() != 0 {
		t.Error("an event of an unknown kind made a row")
	}
	if _, err := AppendEvent(nil, &e); err == nil {
		t.Error("an event of an unknown kind could be written")
	}
}

func FuzzDecodeEvent(f *testing.F) {
	e := sampleEvent()
	seed, _ := AppendEvent(nil, &e)
	f.Add(seed)
	f.Add(append([]byte{3}, seed[1:]...))
	f.Add(appendPresses(nil, &e.ID, e.Date, 1, 3))
	f.Add([]byte{200, 9})
	c := sampleEvent()
	c.Kind, c.Correction = KindCorrection, &Correction{Of: 1, Author: "a", Reason: "b"}
	seed, _ = AppendEvent(nil, &c)
	f.Add(seed)
	f.Add(append([]byte{byte(KindDigest), 1}, make([]byte, 62)...))
	f.Add(append([]byte{byte(KindSeal), 1}, make([]byte, 110)...))
	k := sampleCollected()
	seed, _ = AppendEvent(nil, &k)
	f.Add(seed)
	f.Add(append([]byte{byte(KindRepeats), 1}, make([]byte, 40)...))
	n := sampleContradiction()
	seed, _ = AppendEvent(nil, &n)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEvent(data)
		if err != nil || e.Kind == 0 || e.Kind > KindSeal && e.Kind != KindCollected && e.Kind != KindRepeats && e.Kind != KindContradiction {
			return
		}
		again, err := AppendEvent(nil, &e)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if back, err := DecodeEvent(again); err != nil || !reflect.DeepEqual(back, e) {
			t.Fatalf("read %+v, wrote and read %+v, %v", e, back, err)
		}
		if e.Kind == KindCollected && !json.Valid(e.AppendCollectedJSON(nil)) {
			t.Fatalf("what was collected is not JSON: %s", e.AppendCollectedJSON(nil))
		}
		r := e.Receipt
		if text := r.AppendJSON(nil); !json.Valid(text) {
			t.Fatalf("receipt is not JSON: %s", text)
		}
	})
}

func TestReceiptHasTheNamesOfTheWire(t *testing.T) {
	r := sampleEvent().Receipt
	r.Student = `a"b\c<` + "\xff"
	const want = `{"receipt":"01020304-0506-8708-990a-0b0c0d0e0f10","student_id":"a\"b\\c<\ufffd","school":"hanbit-middle-school","class_id":"3학년-2반",` +
		`"date":"2026-05-04","period":"1","first_arrival":"2026-05-04T09:12:03.127+09:00","status":"late","durable":"disk","verified":false}`
	if got := string(r.AppendJSON(nil)); got != strings.ReplaceAll(want, `\ufffd`, "\uFFFD") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var fields map[string]any
	if err := json.Unmarshal(r.AppendRecordJSON(nil, "k/1"), &fields); err != nil || fields["key"] != "k/1" || len(fields) != 11 {
		t.Errorf("got %v %v, want eleven members, key among them", fields, err)
	}
	if id, err := ParseReceiptID(r.ID.String()); err != nil || id != r.ID {
		t.Errorf("got %s %v, want %s", id, err, r.ID)
	}
	for _, bad := range []string{"", "01020304-0506-8708-990a-0b0c0d0e0f1", "01020304-0506-8708-990a-0b0c0d0e0fgg", strings.Repeat("-", 36)} {
		if _, err := ParseReceiptID(bad); err == nil {
			t.Errorf("ParseReceiptID(%q): got no error", bad)
		}
	}
}

func TestKeyOfTheWireIsUnambiguous(t *testing.T) {
	row := func(school, period, student, class string, classIsKey bool) string {
		r := Row{Receipt: Receipt{School: school, Period: period, Student: student, Class: class, Date: timetable.Date{Year: 2026, Month: 5, Day: 4}}, ClassIsKey: classIsKey}
		return r.Key()
	}
	if got, want := row("north", "1", "s 1", "3b", false), "2026-05-04/north/1/s%201"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	seen := map[string]bool{}
	for _, k := range []string{
		row("a", "b", "c", "d", false), row("a", "b", "c", "d", true), row("a/b", "c", "d", "", false), row("a", "b/c", "d", "", false),
		row("a", "b", "c/d", "", false), row("a%2Fb", "c", "d", "", false), row("a", "b", "c", "d/", true),
	} {
		if seen[k] {
			t.Errorf("two keys look like %s", k)
		}
		seen[k] = true
	}
}

// The receipt of a key never changes while the secret is the same.
func TestReceiptIsFixedByKeyAndSecret(t *testing.T) {
	h := newHashers(Secret{key: [32]byte{1}}).get()
	day := timetable.Date{Year: 2026, Month: 5, Day: 4}
	id, digest := h.key("north", day, "1", "s1", false, "")
	const want = "d9852e66-d8b5-8cc4-a00c-61d0b79bab2b 38dd6ff9ca2a09e5"
	if got := fmt.Sprintf("%s %x", id, digest); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if id[6]>>4 != 8 || id[8]>>6 != 2 {
		t.Errorf("%s is no UUIDv8", id)
	}
	seen := map[ReceiptID]bool{id: true}
	for _, k := range [][4]string{{"north", "1", "s", "1"}, {"nort", "h1", "s1", ""}, {"north", "1s", "1", ""}, {"north", "", "1s1", ""}, {"north", "1", "s1", ""}} {
		other, _ := h.key(k[0], day, k[1], k[2], true, k[3])
		if seen[other] {
			t.Errorf("key %q has the receipt of another", k)
		}
		seen[other] = true
	}
	if next, _ := h.key("north", day.AddDays(1), "1", "s1", false, ""); seen[next] {
		t.Error("the next day has the receipt of this one")
	}
}

func TestFoldDoesNotDependOnOrderOrRepetition(t *testing.T) {
	var events []Event
	for n := range 20 {
		e := sampleEvent()
		e.ID[0], e.Student, e.Seq = byte(n%4), fmt.Sprint(n%4), uint64(n)
		e.FirstArrival = e.FirstArrival.Add(time.Duration(n*7%20) * time.Second)
		if n%4 == 3 && n > 10 {
			e.Kind, e.Verified = KindVerifiedArrival, true
		}
		c := Event{Kind: KindPresses, Presses: uint32(n % 6)}
		c.ID = e.ID
		events = append(events, e, c)
		if n%5 == 0 {
			e.Kind, e.Seq, e.Status, e.Correction = KindCorrection, uint64(100+n), timetable.Present, &Correction{Of: uint64(n)}
			events = append(events, e)
		}
	}
	var want string
	for round := range 200 {
		shuffled := append(events[:len(events):len(events)], events[:round%7]...)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		var f Fold
		for i := range shuffled {
			f.Add(&shuffled[i])
		}
		got := fmt.Sprint(f.Rows(), f.Presses())
		if want == "" {
			want = got
		}
		if got != want {
			t.Fatalf("in another order:\n got %s\nwant %s", got, want)
		}
	}
}

func TestSecretIsMadeOnceAndNeverGuessed(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenSecret(dir, false); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a journal with check-ins and no secret: got %v, want an error", err)
	}
	made, err := OpenSecret(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, SecretFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v %v, want 0600", info.Mode(), err)
	}
	for _, empty := range []bool{true, false} {
		if again, err := OpenSecret(dir, empty); err != nil || again != made {
			t.Errorf("read again: got another secret, or %v", err)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s", made, made, made, made); strings.Contains(text, fmt.Sprintf("%x", made.key[:4])) || strings.Contains(text, fmt.Sprint(made.key[0])+",") {
		t.Errorf("the secret shows in %q", text)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := OpenSecret(dir, true); err == nil && s != made {
			t.Fatalf("byte %d changed: got another secret", i)
		} else if err != nil && !strings.Contains(err.Error(), "damaged") {
			t.Errorf("byte %d changed: got %v, want it called damaged", i, err)
		}
	}
	for _, bad := range []string{"", "\n", strings.Repeat("x", 1<<20)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSecret(dir, true); err == nil {
			t.Errorf("a file of %d other bytes was taken as the secret", len(bad))
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("got %v %v in the directory, want the secret alone", entries, err)
	}
}

func TestRecentIsBoundedAndForgets(t *testing.T) {
	r := newRecent(1600)
	for n := range uint64(100_000) {
		r.put(n, 1000, 1000)
	}
	if got := r.count.Load(); got > 2*1600 {
		t.Errorf("got %d remembered, want at most %d", got, 2*1600)
	}
	if ms, ok := r.get(99_999, 2000); !ok || ms != 1000 {
		t.Errorf("got %d %v, want what was put last", ms, ok)
	}
	r.put(99_999, 5000, 5000)
	if ms, _ := r.get(99_999, 6000); ms != 1000 {
		t.Errorf("got %d, want the earlier moment", ms)
	}
	if _, ok := r.get(99_999, 1000+rememberedMs+1); ok {
		t.Error("got what is more than 15 minutes old")
	}
	if ms, ok := r.get(99_999, 500); ok {
		t.Errorf("got %d, which lies in the future of a clock put back", ms)
	}
}
