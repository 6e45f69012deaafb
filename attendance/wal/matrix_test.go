package wal

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

var update = flag.Bool("update", false, "write the damage table into doc.go")

// ward is a journal about to be harmed: three segments, every Append holding
// five records, the last one not full.
type ward struct {
	fs     *memFS
	ledger *ledger
	paths  []string // of segments 1 to 3
	frames [][]Frame
}

// harm is one row of the table in doc.go.
type harm struct {
	what   string
	closed bool // in good order before; else as kill -9 leaves it
	do     func(w *ward)
}

var harms = []harm{
	{"nothing: closed in good order", true, func(w *ward) {}},
	{"nothing: kill -9", false, func(w *ward) {}},
	{"kill -9, then the zeros behind the end are gone", false, func(w *ward) {
		w.truncate(2, w.last(2).Offset+w.last(2).Bytes)
	}},
	{"the Append under way at a power cut: its second half is missing", false, func(w *ward) {
		at := w.underWay()
		w.zero(2, (at+1600)/sectorBytes*sectorBytes, 1<<20)
	}},
	{"the Append under way: cut off in the middle of a record", false, func(w *ward) {
		at := w.underWay()
		w.zero(2, at+1600, 1<<20)
	}},
	{"the Append under way at a power cut: garbage", false, func(w *ward) {
		w.garbage(2, w.last(2).Offset+w.last(2).Bytes, 3000)
	}},
	{"the Append under way at a power cut: one sector of it is missing", false, func(w *ward) {
		at := w.underWay()
		w.zero(2, (at+1000)/sectorBytes*sectorBytes, sectorBytes)
	}},
	{"one bit of a record's data", false, func(w *ward) { w.flip(1, w.records(1)[7].Offset+frameBytes+100) }},
	{"one bit of a record's length", false, func(w *ward) { w.flip(1, w.records(1)[7].Offset+5) }},
	{"one bit of a record's number", false, func(w *ward) { w.flip(1, w.records(1)[7].Offset+8) }},
	{"one bit of a record's segment id", false, func(w *ward) { w.flip(1, w.records(1)[7].Offset+17) }},
	{"one bit of a record's checksum", false, func(w *ward) { w.flip(1, w.records(1)[7].Offset) }},
	{"one bit in a full segment's last record", false, func(w *ward) { w.flip(1, w.last(1).Offset+50) }},
	{"one bit in the segment in use, not in its last Append", false, func(w *ward) { w.flip(2, w.records(2)[2].Offset+50) }},
	{"one bit in the last Append, not in its last record", false, func(w *ward) { w.flip(2, w.records(2)[len(w.records(2))-3].Offset+50) }},
	{"one bit in the very last record", false, func(w *ward) { w.flip(2, w.last(2).Offset+50) }},
	{"one bit in the very last record, closed in good order", true, func(w *ward) {
		r := w.records(2)
		w.flip(2, r[len(r)-1].Offset+50)
	}},
	{"all of the last Append zeroed", false, func(w *ward) {
		at := w.records(2)[len(w.records(2))-5].Offset
		w.zero(2, at, 1<<20)
	}},
	{"all of the last Append zeroed, closed in good order", true, func(w *ward) {
		r := w.records(2)
		end := r[len(r)-1].Offset + r[len(r)-1].Bytes
		w.zero(2, r[len(r)-5].Offset, end-r[len(r)-5].Offset)
	}},
	{"4 KiB of zeros in a full segment", false, func(w *ward) { w.zero(1, w.records(1)[5].Offset+20, 4096) }},
	{"4 KiB of zeros in the segment in use", false, func(w *ward) { w.zero(2, w.records(2)[1].Offset+20, 3000) }},
	{"4 KiB of a full segment cannot be read", false, func(w *ward) {
		w.fs.bad = map[string]span{w.paths[1]: {8192, 12288}}
	}},
	{"4 KiB of another segment in place of a full segment's own", false, func(w *ward) {
		copy(w.bytes(1)[8192:12288], w.bytes(0)[8192:12288])
	}},
	{"4 KiB of a full segment repeated in place of the next", false, func(w *ward) {
		copy(w.bytes(1)[8192:12288], w.bytes(1)[4096:8192])
	}},
	{"header of a full segment zeroed", false, func(w *ward) { w.zero(1, 0, headerBytes) }},
	{"header of the segment in use zeroed", false, func(w *ward) { w.zero(2, 0, headerBytes) }},
	{"first 4 KiB behind the header of a full segment zeroed", false, func(w *ward) { w.zero(1, headerBytes, 4096) }},
	{"first 1 KiB behind the header of the segment in use zeroed", false, func(w *ward) { w.zero(2, headerBytes, 1024) }},
	{"full segment cut in half", false, func(w *ward) { w.truncate(1, int64(len(w.bytes(1))/2)) }},
	{"full segment emptied", false, func(w *ward) { w.truncate(1, 0) }},
	{"full segment overwritten with garbage", false, func(w *ward) { w.garbage(1, 0, int64(len(w.bytes(1)))) }},
	{"full segment removed by hand", false, func(w *ward) { delete(w.fs.seen, w.paths[1]) }},
	{"oldest segment emptied", false, func(w *ward) { w.truncate(0, 0) }},
	{"segment in use removed by hand", false, func(w *ward) { delete(w.fs.seen, w.paths[2]) }},
	{"oldest segment removed by hand", false, func(w *ward) { delete(w.fs.seen, w.paths[0]) }},
	{"full segment cannot be opened: permission", false, func(w *ward) {
		w.fs.deny = map[string]error{w.paths[1]: syscall.EACCES}
	}},
	{"full segment cannot be opened: input/output error", true, func(w *ward) {
		w.fs.deny = map[string]error{w.paths[1]: syscall.EIO}
	}},
	{"oldest segment cannot be opened", false, func(w *ward) {
		w.fs.deny = map[string]error{w.paths[0]: syscall.EACCES}
	}},
	{"segment in use cannot be opened", false, func(w *ward) {
		w.fs.deny = map[string]error{w.paths[2]: syscall.EACCES}
	}},
	{"full segment copied to the spare directory as well", false, func(w *ward) {
		w.fs.dirs[small.Spare] = true
		w.fs.seen[strings.Replace(w.paths[1], small.Dir, small.Spare, 1)] = &memNode{seen: bytes.Clone(w.bytes(1))}
	}},
	{"full segment moved to the spare directory", false, func(w *ward) {
		w.fs.dirs[small.Spare] = true
		w.fs.seen[strings.Replace(w.paths[1], small.Dir, small.Spare, 1)] = w.fs.seen[w.paths[1]]
		delete(w.fs.seen, w.paths[1])
	}},
}

func newWard(t *testing.T, closed bool) *ward {
	w := &ward{fs: newMemFS(), ledger: newLedger()}
	opt := small
	opt.FS = w.fs
	l, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		if err := w.ledger.append(l, 5, 600); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	}
	if closed {
		l.Close()
		w.fs = w.fs.clone()
	} else {
		alive := w.fs
		w.fs = alive.clone()
		l.Close()
	}
	rep, err := InspectFS(w.fs, small.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range rep.Segments[:3] {
		w.paths = append(w.paths, s.Path)
		var frames []Frame
		for f := range DumpFS(w.fs, s.Path) {
			f.Data = nil
			frames = append(frames, f)
		}
		w.frames = append(w.frames, frames)
	}
	return w
}

func (w *ward) bytes(seg int) []byte { return w.fs.seen[w.paths[seg]].seen }
func (w *ward) last(seg int) Frame   { return w.frames[seg][len(w.frames[seg])-1] }
func (w *ward) records(seg int) []Frame {
	return slices.DeleteFunc(slices.Clone(w.frames[seg]), func(f Frame) bool { return f.Kind != "record" })
}
func (w *ward) flip(seg int, off int64) { w.bytes(seg)[off] ^= 0x10 }
func (w *ward) zero(seg int, off, n int64) {
	b := w.bytes(seg)
	clear(b[off:min(off+n, int64(len(b)))])
}
func (w *ward) truncate(seg int, n int64) {
	w.fs.seen[w.paths[seg]].seen = w.bytes(seg)[:n]
}
func (w *ward) garbage(seg int, off, n int64) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range w.bytes(seg)[off : off+n] {
		w.bytes(seg)[off+int64(i)] = byte(r.Uint32())
	}
}

// underWay writes an Append of five records that nobody was told about behind
// the last one, and returns where it begins.
func (w *ward) underWay() int64 {
	_, id, _ := parseName(w.paths[2])
	at := w.last(2).Offset + w.last(2).Bytes
	var b []byte
	for i, r := range w.ledger.records(5, 600) {
		b = appendFrame(b, id, seed(id), kindRecord, w.last(2).Seq+1+uint64(i), uint32(i), r)
	}
	copy(w.bytes(2)[at:], b)
	return at
}

// outcome is what a reader or a start says about a harmed journal.
type outcome struct {
	lost    []uint64 // acknowledged, not found
	missing []uint64 // named as missing with an alarm
	kinds   []string
	alarm   bool
}

func (w *ward) judge(t *testing.T, got map[uint64]string, damages []Damage) outcome {
	var o outcome
	for seq, want := range w.ledger.acked {
		if rec, ok := got[seq]; !ok {
			o.lost = append(o.lost, seq)
		} else if rec != want {
			t.Errorf("record %d: got %.20q, want %.20q", seq, rec, want)
		}
	}
	for seq, rec := range got {
		if !w.ledger.tried[rec] {
			t.Errorf("record %d is invented: %.40q", seq, rec)
		}
	}
	for _, d := range damages {
		o.alarm = o.alarm || d.Alarm()
		if k := d.Kind.String(); !slices.Contains(o.kinds, k) {
			o.kinds = append(o.kinds, k)
		}
	}
	for _, r := range missing(damages) {
		for s := r.From; s <= r.To; s++ {
			o.missing = append(o.missing, s)
		}
	}
	slices.Sort(o.lost)
	slices.Sort(o.missing)
	slices.Sort(o.kinds)
	return o
}

func (o outcome) row(what string) string {
	said, kinds := "all found", "-"
	if n := len(o.lost); n > 0 {
		said = fmt.Sprintf("%d lost", n)
		switch {
		case slices.Equal(o.lost, o.missing):
			said += ", all named"
		case len(o.missing) == 0 && o.alarm:
			said += ", not named"
		case len(o.missing) == 0:
			said += ", not noticed"
		default:
			said += fmt.Sprintf(", %d named", len(o.missing))
		}
	}
	if len(o.kinds) > 0 {
		kinds = strings.Join(o.kinds, ", ")
	}
	if o.alarm {
		kinds += " (alarm)"
	}
	return fmt.Sprintf("//\t%-64s  %-22s  %s", what, said, kinds)
}

// TestDamageMatrix harms a journal in every way of the table in doc.go, and
// holds what a reader, a start and a second start say against each other and
// against the table.
func TestDamageMatrix(t *testing.T) {
	rows := []string{fmt.Sprintf("//\t%-64s  %-22s  %s", "what happened", "of 40 records", "reported as")}
	for _, h := range harms {
		t.Run(h.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { rows = append(rows, suffer(t, h)) })
		})
	}
	table := strings.Join(rows, "\n") + "\n"
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "// The damage table", "// End of the table."
	i, j := strings.Index(string(doc), begin), strings.Index(string(doc), end)
	if i < 0 || j < i {
		t.Fatalf("doc.go has no lines %q and %q", begin, end)
	}
	i += strings.Index(string(doc[i:]), "//\n//\t") + 3
	if got := string(doc[i:j]); got != table+"//\n" {
		if *update {
			os.WriteFile("doc.go", []byte(string(doc[:i])+table+"//\n"+string(doc[j:])), 0o644)
			return
		}
		t.Errorf("the table in doc.go is not what happens (go test -run DamageMatrix -update writes it):\n%s", table)
	}
}

// suffer harms one journal and returns its row.
func suffer(t *testing.T, h harm) string {
	w := newWard(t, h.closed)
	h.do(w)
	w.settle()
	opt := small
	opt.FS = w.fs
	cold, r := w.read(t)
	l, err := Open(opt)
	if err != nil {
		t.Fatalf("opening a harmed journal: %v", err)
	}
	synctest.Wait()
	warm, _ := w.read(t)
	started := w.judge(t, warm, l.Damage())
	if !slices.Equal(started.lost, w.judge(t, cold, nil).lost) {
		t.Errorf("lost before the start: %v, after: %v", w.judge(t, cold, nil).lost, started.lost)
	}
	if alarm := w.judge(t, cold, r.Damage()).alarm; alarm != started.alarm {
		t.Errorf("alarm by the reader: %v, by the start: %v", alarm, started.alarm)
	}
	for seq := range w.ledger.acked {
		if seq >= l.Next() && len(started.lost) == 0 {
			t.Errorf("number %d is taken, and next is %d", seq, l.Next())
		}
	}
	w.asideHolds(t, l.Damage())
	if err := w.ledger.append(l, 5, 600); err != nil {
		t.Fatalf("appending to a harmed journal: %v", err)
	}
	synctest.Wait()
	l.Close()
	if l, err = Open(opt); err != nil {
		t.Fatalf("opening a harmed journal again: %v", err)
	}
	defer l.Close()
	again, _ := w.read(t)
	second := w.judge(t, again, l.Damage())
	if !slices.Equal(second.lost, started.lost) {
		t.Errorf("lost at the first start: %v, at the second: %v", started.lost, second.lost)
	}
	if !slices.Equal(second.missing, started.missing) || second.alarm != started.alarm {
		t.Errorf("named at the first start: %v, at the second: %v (%v)", started.missing, second.missing, l.Damage())
	}
	return started.row(h.what)
}

func (w *ward) read(t *testing.T) (map[uint64]string, *Reader) {
	r, err := OpenReaderFS(w.fs, small.Dir, small.Spare)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return readAll(t, r), r
}

// asideHolds checks that damaged bytes were set aside as they are.
func (w *ward) asideHolds(t *testing.T, damages []Damage) {
	for _, d := range damages {
		if d.Kind != Damaged || d.Bytes == 0 {
			continue
		}
		n := w.fs.seen[d.SetAside]
		if n == nil {
			t.Errorf("%v was not set aside", d)
			continue
		}
		b := w.fs.seen[d.Segment].seen
		if want := b[min(d.Offset, int64(len(b))):min(d.Offset+d.Bytes, int64(len(b)))]; w.fs.bad == nil && !bytes.Equal(n.seen, want) {
			t.Errorf("%s does not hold the damaged bytes", d.SetAside)
		}
	}
}

func TestANewerFormatIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, true)
		b := w.bytes(1)
		b[8] = version + 1
		h := (&header{}).encode()
		copy(h, b[:headerBytes-4])
		resum(h)
		copy(b, h)
		opt := small
		opt.FS = w.fs
		var newer *VersionError
		if _, err := Open(opt); !errors.As(err, &newer) {
			t.Errorf("Open: got %v, want a VersionError", err)
		}
		if _, err := OpenReaderFS(w.fs, small.Dir); !errors.As(err, &newer) {
			t.Errorf("OpenReader: got %v, want a VersionError", err)
		}
	})
}

// FuzzDamage harms any stretch of a journal: what was not touched is found,
// what is lost is named unless it lay in the last Append or nothing behind it is
// left, nothing is invented.
func FuzzDamage(f *testing.F) {
	for seg := range uint8(3) {
		for i := range uint8(12) {
			f.Add(seg, uint16(i)*1300+uint16(seg)*7, uint16(1)<<i, i%4, i%2 == 0)
		}
	}
	f.Add(uint8(1), uint16(0), uint16(0xffff), uint8(0), false)
	f.Fuzz(func(t *testing.T, seg uint8, off, n uint16, kind uint8, closed bool) {
		synctest.Test(t, func(t *testing.T) { fuzzDamage(t, int(seg%3), int64(off), int64(n), kind, closed) })
	})
}

func fuzzDamage(t *testing.T, seg int, off, n int64, kind uint8, closed bool) {
	w := newWard(t, closed)
	b := w.bytes(seg)
	off %= int64(len(b))
	n = min(n, int64(len(b))-off)
	was := bytes.Clone(b)
	switch kind % 4 {
	case 0:
		w.zero(seg, off, n)
	case 1:
		w.garbage(seg, off, n)
	case 2:
		w.flip(seg, off)
	case 3:
		copy(b[off:off+n], was[headerBytes:])
	}
	w.settle()
	got, r := w.read(t)
	o := w.judge(t, got, r.Damage())
	w.touched(t, seg, was, got, o, kind%4 == 3)
	opt := small
	opt.FS = w.fs
	l, err := Open(opt)
	var newer *VersionError
	if errors.As(err, &newer) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	synctest.Wait()
	warm, _ := w.read(t)
	w.touched(t, seg, was, warm, w.judge(t, warm, l.Damage()), kind%4 == 3)
}

// settle makes what programs see what the disk holds.
func (w *ward) settle() {
	for _, n := range w.fs.seen {
		n.disk = bytes.Clone(n.seen)
	}
}

// touched compares what is lost with the frames whose bytes are not as they
// were. moved: some of the segment's own frames lie in another place as well, so
// that those between are passed over; they must still be named.
func (w *ward) touched(t *testing.T, seg int, was []byte, got map[uint64]string, o outcome, moved bool) {
	found := uint64(0)
	for seq := range got {
		found = max(found, seq)
	}
	now := w.bytes(seg)
	harmed := map[uint64]bool{}
	for _, f := range w.records(seg) {
		if !bytes.Equal(was[f.Offset:f.Offset+f.Bytes], now[f.Offset:f.Offset+f.Bytes]) {
			harmed[f.Seq] = true
		}
	}
	for _, seq := range o.lost {
		if !harmed[seq] && !moved {
			t.Errorf("record %d was not touched and is not found", seq)
		}
		if !slices.Contains(o.missing, seq) && seq <= 35 && seq < found {
			t.Errorf("record %d is lost and not named", seq)
		}
	}
}
