package attendance

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/attendance/timetable"
)

// sealedJournal is a journal of batches of so many check-ins, each sealed, with
// counts of presses between; and one of a version that did not seal before it.
func sealedJournal(t testing.TB, l *fakeLog, batches ...int) {
	t.Helper()
	key, _ := testKey()
	r := &Recorder{}
	r.key.Store(key)
	n := 0
	for i, size := range batches {
		b := &batch{}
		for range size {
			e := sampleEvent()
			e.ID[0], e.ID[1], e.Student = byte(n>>8), byte(n), fmt.Sprintf("s%d", n)
			n++
			b.buf, _ = AppendEvent(b.buf, &e)
			b.ends = append(b.ends, len(b.buf))
		}
		if i > 0 {
			r.seal(b)
		}
		e := sampleEvent()
		b.buf = appendPresses(b.buf, &e.ID, e.Date, 1, 2)
		b.ends = append(b.ends, len(b.buf))
		if _, err := l.Append(b.records(nil)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryReceiptOfASealedBatchCanBeProvedOffline(t *testing.T) {
	l := &fakeLog{}
	sealedJournal(t, l, 3, 1, 2, 7, 40)
	_, public := testKey()
	keys := []PublicKey{{ID: testKeyID(), Key: public}}
	for _, e := range l.events(t) {
		p, err := Prove(l.journal, e.Seq)
		if e.Kind != KindArrival || e.Seq <= 3 {
			if err == nil && e.Kind == KindArrival {
				t.Errorf("record %d was never sealed and is proved", e.Seq)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(p, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		got, key, err := CheckReceipt(text, keys)
		if err != nil || got.Student != e.Student || key.ID != testKeyID() {
			t.Errorf("record %d: got %v %s, want student %s\n%s", e.Seq, err, got.Student, e.Student, text)
		}
	}
	if _, err := Prove(l.journal, 1000); !errors.Is(err, ErrNoProof) {
		t.Errorf("a position beyond the end: got %v, want ErrNoProof", err)
	}
}

func testKeyID() (id [8]byte) {
	key, _ := testKey()
	return key.ID
}

// A record of the batch that is gone or changed leaves no proof, rather than a
// wrong one.
func TestADamagedBatchHasNoProofs(t *testing.T) {
	for _, harm := range []struct {
		name string
		do   func(records [][]byte) [][]byte
	}{
		{"a record before it is gone", func(r [][]byte) [][]byte { r[4] = nil; return r }},
		{"a record was changed", func(r [][]byte) [][]byte { r[7][40] ^= 1; return r }},
		{"the seal is gone", func(r [][]byte) [][]byte { return r[:9] }},
	} {
		l := &fakeLog{}
		sealedJournal(t, l, 0, 8)
		l.records = harm.do(l.records)
		kept := l.records
		journal := Journal(func(from uint64) iter.Seq2[Record, error] {
			return func(yield func(Record, error) bool) {
				for i, data := range kept {
					if seq := uint64(i + 1); seq >= from && data != nil && !yield(Record{Seq: seq, Data: data}, nil) {
						return
					}
				}
			}
		})
		if _, err := Prove(journal, 6); !errors.Is(err, ErrNoProof) {
			t.Errorf("%s: got %v, want ErrNoProof", harm.name, err)
		}
	}
}

func TestATouchedReceiptIsNotProved(t *testing.T) {
	l := &fakeLog{}
	sealedJournal(t, l, 0, 5)
	p, err := Prove(l.journal, 3)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(p)
	_, public := testKey()
	keys := []PublicKey{{ID: testKeyID(), Key: public}}
	if _, _, err := CheckReceipt(text, keys); err != nil {
		t.Fatalf("an untouched receipt: %v", err)
	}
	for _, c := range []struct{ from, to, want string }{
		{`"status":"late"`, `"status":"present"`, `says status "present", sealed was "late"`},
		{`"status":"late"`, `"status":["late"]`, "says status"},
		{`"status":"late",`, ``, "does not say status"},
		{`"status":"late"`, `"status":"late","status":"present"`, "twice"},
		{`"status":"late"`, `"status":"late","STATUS":"present"`, "no receipt has"},
		{`"verified":false`, `"verified":true`, "says verified"},
		{`"student_id":"s1"`, `"student_id":"s2"`, "says student_id"},
		{`"student_id":"s2"`, `"student_id":"s1"`, "says student_id"},
		{`"index":1`, `"index":2`, "record, place or path"},
		{`"leaves":5`, `"leaves":6`, "signature"},
		{`"path":["`, `"path":["00`, "64 hexadecimal digits"},
		{`"key":"`, `"key":"00`, "16 hexadecimal digits"},
		{`"signature":"`, `"signature":"AA`, "64 bytes"},
		{`"record":"`, `"record":"AAAA`, "record, place or path"},
		{`"proof":`, `"prove":`, "no proof"},
		{`"proof":`, `"receipt":{},"proof":`, "twice"},
		{`"proof":`, `"correction":{"made":"x"},"proof":`, "correction"},
		{`"proof":`, `"more":1,"proof":`, "no proved receipt"},
		{`{"receipt":`, `[{"receipt":`, "no JSON object"},
	} {
		touched := strings.Replace(string(text), c.from, c.to, 1)
		if touched == string(text) {
			continue // the other of two students
		}
		if _, _, err := CheckReceipt([]byte(touched), keys); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: got %v, want %q", c.to, c.from, err, c.want)
		}
	}
	if _, _, err := CheckReceipt(text, nil); err == nil || !strings.Contains(err.Error(), "not among the 0 given") {
		t.Errorf("without its key: got %v", err)
	}
	e := sampleEvent()
	if _, _, err := CheckReceipt(e.Receipt.AppendJSON(nil), keys); err == nil || !strings.Contains(err.Error(), "no proof") {
		t.Errorf("a bare receipt: got %v, want it to say where the proof is", err)
	}
}

func TestACorrectedReceiptSaysWhatWasCorrected(t *testing.T) {
	l := &fakeLog{}
	key, public := testKey()
	r := &Recorder{}
	r.key.Store(key)
	e := sampleEvent()
	e.Kind, e.Status = KindCorrection, timetable.Present
	e.Correction = &Correction{Of: 7, OldStatus: timetable.Late, OldPeriod: "1", Author: "kim", Reason: "bell"}
	b := &batch{}
	b.buf, _ = AppendEvent(nil, &e)
	b.ends = []int{len(b.buf)}
	r.seal(b)
	l.Append(b.records(nil))
	p, err := Prove(l.journal, 1)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(p)
	keys := []PublicKey{{ID: key.ID, Key: public}}
	if got, _, err := CheckReceipt(text, keys); err != nil || got.Correction.Author != "kim" {
		t.Errorf("got %+v %v\n%s", got, err, text)
	}
	touched := strings.Replace(string(text), `"old_status":"late"`, `"old_status":"present"`, 1)
	if _, _, err := CheckReceipt([]byte(touched), keys); err == nil {
		t.Error("another old status is taken for proved")
	}
}

func TestKeysAreMadeOnceRotatedAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	synctest.Test(t, func(t *testing.T) {
		k, err := OpenKeys(dir)
		if err != nil {
			t.Fatal(err)
		}
		first, _ := k.Current()
		again, err := OpenKeys(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := again.Current(); got.ID != first.ID {
			t.Errorf("opened again: got key %s, want %s", got.ID, first.ID)
		}
		time.Sleep(time.Hour)
		for range 3 { // within a second, too
			if err := again.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
		current, _ := again.Current()
		if k, err = OpenKeys(dir); err != nil {
			t.Fatal(err)
		}
		if got, _ := k.Current(); got.ID != current.ID {
			t.Errorf("after rotating: got key %s, want %s", got.ID, current.ID)
		}
		public := k.Public()
		if len(public) != 4 || public[0].ID != first.ID || public[3].ID != current.ID {
			t.Errorf("got %d public keys, want 4, the first and the last where they belong", len(public))
		}
		if private, _ := filepath.Glob(filepath.Join(dir, "*.key")); len(private) != 1 {
			t.Errorf("got private keys %v, want one", private)
		} else if info, err := os.Stat(private[0]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got %v %v, want 0600", private[0], info.Mode(), err)
		}
		parsed, err := ParseKeys(MarshalKeys(public))
		if err != nil || len(parsed) != 4 || !slices.EqualFunc(parsed, public, func(a, b PublicKey) bool { return a.ID == b.ID && a.Made.Equal(b.Made) }) {
			t.Errorf("as a JWK Set and back: got %v %v, want %v", parsed, err, public)
		}
		read, err := ReadPublicKeys(dir)
		if err != nil || len(read) != 4 {
			t.Errorf("ReadPublicKeys: got %d keys %v, want 4", len(read), err)
		}
	})
}

func TestKeysThatCannotBeReadAreNamed(t *testing.T) {
	dir := t.TempDir()
	k, err := OpenKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := filepath.Glob(filepath.Join(dir, "*.pub"))
	key, _ := filepath.Glob(filepath.Join(dir, "*.key"))
	pem, _ := os.ReadFile(pub[0])
	secret, _ := os.ReadFile(key[0])
	if keys, err := ParseKeys(pem); err != nil || len(keys) != 1 || keys[0].ID != k.Public()[0].ID {
		t.Errorf("a .pub: got %v %v", keys, err)
	}
	if _, err := ParseKeys(secret); err == nil || !strings.Contains(err.Error(), "private key") {
		t.Errorf("a .key: got %v, want it to say that this is private", err)
	}
	for _, bad := range []string{"", "{}", `{"keys":[]}`, `{"keys":[{"kty":"RSA"}]}`, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		if _, err := ParseKeys([]byte(bad)); err == nil {
			t.Errorf("ParseKeys(%q): got no error", bad)
		}
	}
	os.WriteFile(key[0], []byte("garbage"), 0o600)
	if _, err := OpenKeys(dir); err == nil || !strings.Contains(err.Error(), key[0]) {
		t.Errorf("a damaged .key: got %v, want it named", err)
	}
	os.WriteFile(key[0], secret, 0o600)
	os.Remove(pub[0])
	if _, err := OpenKeys(dir); err == nil || !strings.Contains(err.Error(), ".pub is missing") {
		t.Errorf("a .pub that is gone: got %v, want it to say so", err)
	}
}
