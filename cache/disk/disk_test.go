package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	o.Dir = dir
	if o.Bytes == 0 {
		o.Bytes = 64 << 20
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closed(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// bytesOf are n bytes that are different for each seed.
func bytesOf(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	r.Read(b)
	return b
}

func metaOf(key string) Meta {
	return Meta{Key: []byte(key), Host: "school.example", Variant: []byte("v"), Head: []byte("head of " + key)}
}

// put stores a record and wants that to work.
func put(t testing.TB, s *Store, m Meta, content []byte) Ref {
	t.Helper()
	ref, err := s.Put(m, content)
	if err != nil {
		t.Fatalf("Put %s: %v", m.Key, err)
	}
	return ref
}

// get returns the newest record's head and content.
func get(s *Store, key string) (head string, content []byte, err error) {
	refs := s.Find([]byte(key))
	if len(refs) == 0 {
		return "", nil, ErrNotFound
	}
	r, err := s.Open([]byte(key), refs[0])
	if err != nil {
		return "", nil, err
	}
	defer r.Release()
	if string(r.Key) != key {
		return "", nil, fmt.Errorf("asked for %q and got %q", key, r.Key)
	}
	content, err = r.Bytes()
	return string(r.Head), content, err
}

// blockwise reads a record block by block.
func blockwise(s *Store, key string) (content []byte, err error) {
	refs := s.Find([]byte(key))
	if len(refs) == 0 {
		return nil, ErrNotFound
	}
	r, err := s.Open([]byte(key), refs[0])
	if err != nil {
		return nil, err
	}
	defer r.Release()
	buf := make([]byte, BlockBytes)
	for i := range r.Blocks() {
		b, err := r.Block(i, buf)
		if err != nil {
			return content, err
		}
		content = append(content, b...)
	}
	return content, nil
}

// files lists what lies in the directory, without the lock.
func files(t testing.TB, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	dir := t.TempDir()
	sizes := []int{0, 1, 20_000, BlockBytes - 1, BlockBytes, BlockBytes + 1, 3*BlockBytes + 77}
	s := open(t, dir, Options{})
	for _, n := range sizes {
		put(t, s, metaOf(fmt.Sprint(n)), bytesOf(uint64(n), n))
	}
	for _, when := range []string{"at once", "after a restart"} {
		for _, n := range sizes {
			head, content, err := get(s, fmt.Sprint(n))
			if err != nil || head != fmt.Sprint("head of ", n) || !bytes.Equal(content, bytesOf(uint64(n), n)) {
				t.Errorf("%s, %d bytes: got head %q, %d bytes, %v", when, n, head, len(content), err)
			}
			if content, err := blockwise(s, fmt.Sprint(n)); err != nil || !bytes.Equal(content, bytesOf(uint64(n), n)) {
				t.Errorf("%s, %d bytes by blocks: got %d bytes, %v", when, n, len(content), err)
			}
		}
		closed(t, s)
		s = open(t, dir, Options{}) // nothing was rebuilt: each look-up lists its directory
	}
	if st := s.Stats(); st.Torn+st.Damaged+st.Foreign != 0 {
		t.Errorf("alarms without a reason: %+v", st)
	}
	closed(t, s)
}

func TestVariantsLiveBesideEachOtherAndReplaceThemselves(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	defer closed(t, s)
	for i := range 6 {
		m := metaOf("page")
		m.Variant = []byte{byte(i % 3)}
		m.Head = []byte{byte(i)}
		put(t, s, m, bytesOf(uint64(i), 1000))
	}
	refs := s.Find([]byte("page"))
	if len(refs) != 3 || s.Stats().Objects != 3 {
		t.Fatalf("got %d records and %d objects, want 3", len(refs), s.Stats().Objects)
	}
	for i, ref := range refs { // the newest first
		r, err := s.Open([]byte("page"), ref)
		if err != nil {
			t.Fatal(err)
		}
		if want := byte(5 - i); r.Head[0] != want || ref.Variant != VariantHash([]byte{want % 3}) {
			t.Errorf("record %d: head %d, want %d", i, r.Head[0], want)
		}
		r.Release()
	}
	if !s.RemoveVariant([]byte("page"), []byte{1}) || len(s.Find([]byte("page"))) != 2 {
		t.Error("one variant removed: want the two others")
	}
	if n := len(files(t, s.dir)); n != 2 {
		t.Errorf("%d files, want 2", n)
	}
}

func TestUpdateChangesTheHeadAlone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	content := bytesOf(1, 3*BlockBytes)
	m := metaOf("film")
	ref := put(t, s, m, content)
	for i := range 5 {
		head := fmt.Sprint("head ", i)
		if ok, err := s.Update(m.Key, ref, []byte(head)); !ok || err != nil {
			t.Fatalf("Update %d: %v, %v", i, ok, err)
		}
		if got, body, err := get(s, "film"); got != head || !bytes.Equal(body, content) || err != nil {
			t.Errorf("after update %d: %q, %d bytes, %v", i, got, len(body), err)
		}
	}
	if ok, _ := s.Update(m.Key, ref, make([]byte, 5000)); ok {
		t.Error("a head that has no room was taken")
	}
	closed(t, s)
	s = open(t, dir, Options{})
	defer closed(t, s)
	if got, _, err := get(s, "film"); got != "head 4" || err != nil {
		t.Errorf("after a restart: %q, %v; want the last head", got, err)
	}
	s.Remove(m.Key)
	if ok, err := s.Update(m.Key, ref, []byte("back")); ok || err != nil || len(s.Find(m.Key)) != 0 {
		t.Errorf("updating what was removed: %v, %v", ok, err)
	}
}

// TestNoFlippedBitIsEverAnAnswer flips bits all over the file of a record.
func TestNoFlippedBitIsEverAnAnswer(t *testing.T) {
	dir := t.TempDir()
	content := bytesOf(7, BlockBytes+500)
	s := open(t, dir, Options{})
	put(t, s, metaOf("lesson"), content)
	closed(t, s)
	name := files(t, dir)[0]
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	missed, at := 0, 0
	for at < len(whole) {
		broken := bytes.Clone(whole)
		broken[at] ^= 1 << (at % 8)
		if err := os.WriteFile(name, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, Options{})
		head, got, err := get(s, "lesson")
		alarms := s.Stats()
		switch {
		case err == nil && (head != "head of lesson" || !bytes.Equal(got, content)):
			t.Fatalf("byte %d flipped: another answer", at)
		case err != nil && (!errors.Is(err, ErrNotFound) || alarms.Torn+alarms.Damaged+alarms.Foreign != 1):
			t.Errorf("byte %d flipped: %v, alarms %+v; want a miss and one alarm", at, err, alarms)
		case err != nil && len(s.Find([]byte("lesson"))) != 0:
			t.Errorf("byte %d flipped: the record is still offered", at)
		case err != nil:
			missed++
		}
		closed(t, s)
		if at += 29; at > 700 {
			at += 6000
		}
	}
	if missed < 40 {
		t.Errorf("only %d flips were noticed", missed)
	}
}

func TestTornSwappedAndForeignFilesAreMissesAndAlarms(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(a, b string) error
		kind func(Stats) uint64
	}{
		{"cut off", func(a, _ string) error { return os.Truncate(a, 300_000) }, func(s Stats) uint64 { return s.Torn }},
		{"empty", func(a, _ string) error { return os.Truncate(a, 0) }, func(s Stats) uint64 { return s.Torn }},
		{"zeros after a power cut", func(a, _ string) error { return os.WriteFile(a, make([]byte, 400_000), 0o600) }, func(s Stats) uint64 { return s.Torn }},
		{"another record", func(a, b string) error { return os.Rename(b, a) }, func(s Stats) uint64 { return s.Foreign }},
		{"another's content", func(a, b string) error { return splice(a, b) }, func(s Stats) uint64 { return s.Damaged }},
		{"text", func(a, _ string) error { return os.WriteFile(a, bytes.Repeat([]byte("hello "), 1000), 0o600) }, func(s Stats) uint64 { return s.Foreign }},
		{"a link", func(a, b string) error { os.Remove(a); return os.Symlink(b, a) }, func(s Stats) uint64 { return s.FailedReads }},
	} {
		dir := t.TempDir()
		s := open(t, dir, Options{})
		a := put(t, s, metaOf("a"), bytesOf(1, 400_000))
		b := put(t, s, metaOf("b"), bytesOf(2, 400_000))
		path := func(key string, ref Ref) string {
			k := slot{key: digestOf([]byte(key)), seq: ref.Seq, variant: ref.Variant, units: units(ref.Bytes)}
			return s.shards[shardOf(k.key)].path(dir, &k)
		}
		if err := c.do(path("a", a), path("b", b)); err != nil {
			t.Fatal(err)
		}
		if content, err := blockwise(s, "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %d bytes, %v; want ErrNotFound", c.name, len(content), err)
		}
		if n := c.kind(s.Stats()); n != 1 {
			t.Errorf("%s: alarms %+v", c.name, s.Stats())
		}
		if len(s.Find([]byte("a"))) != 0 {
			t.Errorf("%s: it is still offered", c.name)
		}
		put(t, s, metaOf("a"), bytesOf(3, 10))
		if _, content, err := get(s, "a"); err != nil || !bytes.Equal(content, bytesOf(3, 10)) {
			t.Errorf("%s: stored again: %v", c.name, err)
		}
		closed(t, s)
	}
}

// splice puts the content of b into the file a.
func splice(a, b string) error {
	x, err := os.ReadFile(a)
	if err != nil {
		return err
	}
	y, err := os.ReadFile(b)
	if err != nil {
		return err
	}
	f, err := parsePreamble(x, int64(len(x)))
	if err != nil {
		return err
	}
	copy(x[f.content:], y[f.content:]) // the table with it
	return os.WriteFile(a, x, 0o600)
}

func TestALaterBlockDamagedEndsTheReading(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	defer closed(t, s)
	content := bytesOf(9, 5*BlockBytes)
	put(t, s, metaOf("film"), content)
	name := files(t, dir)[0]
	whole, _ := os.ReadFile(name)
	whole[len(whole)-2*BlockBytes] ^= 1
	os.WriteFile(name, whole, 0o600)
	got, err := blockwise(s, "film")
	if !errors.Is(err, ErrNotFound) || !bytes.Equal(got, content[:3*BlockBytes]) {
		t.Errorf("got %d true bytes, %v; want the three blocks before the damage", len(got), err)
	}
	if s.Stats().Damaged != 1 || len(s.Find([]byte("film"))) != 0 {
		t.Errorf("after it: %+v; want one alarm and no record", s.Stats())
	}
}

func TestABlockIsVerifiedOncePerOpenFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	defer closed(t, s)
	put(t, s, metaOf("film"), bytesOf(9, 5*BlockBytes))
	if _, err := blockwise(s, "film"); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open([]byte("film"), s.Find([]byte("film"))[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	for i := range r.Blocks() {
		if !r.isVerified(i) {
			t.Errorf("block %d is verified again for the second reader", i)
		}
	}
	if f, at, err := r.File(2); f == nil || at != r.front.content+2*BlockBytes || err != nil {
		t.Errorf("File: %v, %d, %v", f, at, err)
	}
}

// TestKilledAtEveryStep ends the process at each step of a morning, and looks
// at what the next one finds.
func TestKilledAtEveryStep(t *testing.T) {
	big := bytesOf(4, 2*BlockBytes+5)
	versions := map[string][][]byte{"a": {bytesOf(1, 900), bytesOf(2, 1100)}, "b": {big}, "c": {bytesOf(3, 10)}}
	heads := map[string]bool{"head of a": true, "head of b": true, "head of c": true, "fresh": true}
	for step := 1; ; step++ {
		dir := t.TempDir()
		f := &faultFS{}
		s := open(t, dir, Options{FS: f})
		f.fail(step, errKilled, false)
		removed := map[string]bool{}
		s.Put(metaOf("a"), versions["a"][0])
		if ref, err := s.Put(metaOf("b"), big); err == nil {
			s.Update([]byte("b"), ref, []byte("fresh"))
		}
		s.Put(metaOf("a"), versions["a"][1])
		s.Put(metaOf("c"), versions["c"][0])
		s.Remove([]byte("a"))
		removed["a"] = f.steps() < step
		s.Remove([]byte("c"))
		removed["c"] = f.steps() < step
		done := f.steps() < step
		s.lock.Close()

		s = open(t, dir, Options{})
		for key, all := range versions {
			head, content, err := get(s, key)
			switch {
			case err != nil && !errors.Is(err, ErrNotFound):
				t.Errorf("killed at step %d: %s: %v", step, key, err)
			case err == nil && removed[key]:
				t.Errorf("killed at step %d: %s is back", step, key)
			case err == nil && !(heads[head] && (bytes.Equal(content, all[0]) || bytes.Equal(content, all[len(all)-1]))):
				t.Errorf("killed at step %d: %s lies", step, key)
			}
			if n := len(s.Find([]byte(key))); n > 1 {
				t.Errorf("killed at step %d: %d records of %s", step, n, key)
			}
		}
		if st := s.Stats(); st.Torn+st.Damaged+st.Foreign != 0 {
			t.Errorf("killed at step %d: alarms %+v", step, st)
		}
		if tmp, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(tmp) != 0 {
			t.Errorf("killed at step %d: %d half-written files left", step, len(tmp))
		}
		closed(t, s)
		if done {
			if step < 15 {
				t.Errorf("a morning of %d steps proves little", step)
			}
			return
		}
	}
}

// TestAFileSystemThatFails lets each step fail once, in three ways.
func TestAFileSystemThatFails(t *testing.T) {
	old, news := bytesOf(1, 900), bytesOf(2, 2*BlockBytes+9)
	for _, c := range []struct {
		name  string
		err   error
		short bool
	}{{"full", errFull, false}, {"broken", errBroken, false}, {"short write", nil, true}, {"short write, then full", errFull, true}} {
		for step := 1; step < 10; step++ {
			dir := t.TempDir()
			f := &faultFS{}
			s := open(t, dir, Options{FS: f})
			put(t, s, metaOf("a"), old)
			f.fail(step, c.err, c.short)
			_, err := s.Put(metaOf("a"), news)
			_, content, gerr := get(s, "a")
			if gerr != nil || !bytes.Equal(content, news) && !(err != nil && bytes.Equal(content, old)) {
				t.Errorf("%s at step %d: Put %v; got %d bytes, %v", c.name, step, err, len(content), gerr)
			}
			if err != nil {
				if _, err := s.Put(metaOf("b"), old); !errors.Is(err, ErrPaused) || !s.Stats().Paused || s.Stats().Why == "" {
					t.Errorf("%s at step %d: the next Put: %v, want ErrPaused", c.name, step, err)
				}
				s.pausedUntil.Store(0) // half a minute later
				if _, err := s.Put(metaOf("a"), news); err != nil {
					t.Errorf("%s at step %d: later: %v", c.name, step, err)
				}
			}
			if tmp, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(tmp) != 0 && f.step >= 3 && c.err != errBroken {
				t.Errorf("%s at step %d: %d half-written files left", c.name, step, len(tmp))
			}
			var used int64
			for _, name := range files(t, filepath.Join(dir, "r")) {
				st, _ := os.Stat(name)
				used += int64(units(st.Size())) * unitBytes
			}
			if st := s.Stats(); st.Bytes > used {
				t.Errorf("%s at step %d: %d bytes accounted, %d there", c.name, step, st.Bytes, used)
			}
			closed(t, s)
		}
	}
}

func TestAReadErrorIsAMiss(t *testing.T) {
	f := &faultFS{}
	s := open(t, t.TempDir(), Options{FS: f})
	defer closed(t, s)
	put(t, s, metaOf("a"), bytesOf(1, 900))
	f.reads = errBroken
	if _, _, err := get(s, "a"); !errors.Is(err, ErrNotFound) || s.Stats().FailedReads != 1 {
		t.Errorf("got %v, %+v; want a miss and one failed read", err, s.Stats())
	}
}

// TestRemoveReachesWhatIsBeingWritten removes a key at each moment of a write.
func TestRemoveReachesWhatIsBeingWritten(t *testing.T) {
	for _, moment := range []string{"create", "write", "rename"} {
		f := &faultFS{}
		s := open(t, t.TempDir(), Options{FS: f})
		removed := make(chan struct{})
		var once sync.Once
		f.hooks = map[string]func(){moment: func() {
			once.Do(func() {
				go func() { s.Remove([]byte("a")); close(removed) }()
				if moment != "rename" {
					<-removed // at the rename it waits for us
				} else {
					time.Sleep(time.Millisecond)
				}
			})
		}}
		s.Put(metaOf("a"), bytesOf(1, 2*BlockBytes))
		<-removed
		if n := len(s.Find([]byte("a"))); n != 0 || len(files(t, s.dir)) != 0 || s.Stats().Bytes != 0 {
			t.Errorf("removed at its %s: %d records, %d files, %d bytes", moment, n, len(files(t, s.dir)), s.Stats().Bytes)
		}
		closed(t, s)
	}
}

func TestWhatIsWrittenCanBeFollowed(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	defer closed(t, s)
	content := bytesOf(5, 3*BlockBytes+100)
	w, err := s.Begin(metaOf("film"))
	if err != nil {
		t.Fatal(err)
	}
	w.Retain()
	var got []byte
	follow := func() {
		buf := make([]byte, 100_000)
		for {
			n, err := w.ReadAt(buf, int64(len(got)))
			got = append(got, buf[:n]...)
			if err == io.EOF || n == 0 {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for at := 0; at < len(content); at += 70_000 {
		w.Write(content[at:min(len(content), at+70_000)])
		follow()
		if want := min(len(content), at+70_000); len(got) != want {
			t.Fatalf("%d bytes written, %d can be read", want, len(got))
		}
	}
	if _, err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if got = got[:BlockBytes]; true {
		follow()
	}
	if !bytes.Equal(got, content) {
		t.Error("what was followed is not what was written")
	}
	w.Release()
}

func TestEvictionGoesByUse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Bytes: 4 << 20})
	defer closed(t, s)
	put(t, s, metaOf("popular"), bytesOf(1, 50_000))
	for i := range 250 { // 8 MB
		put(t, s, metaOf(fmt.Sprint(i)), bytesOf(uint64(i), 30_000))
		if _, _, err := get(s, "popular"); err != nil {
			t.Fatalf("what everybody asks for is gone after %d others: %v", i, err)
		}
	}
	var bytes int64
	for _, name := range files(t, dir) {
		st, _ := os.Stat(name)
		bytes += int64(units(st.Size())) * unitBytes
	}
	st := s.Stats()
	if bytes > 4<<20 || st.Bytes != bytes || st.Evicted == 0 || int64(len(files(t, dir))) != st.Objects {
		t.Errorf("%d bytes in %d files, accounted %+v; want at most 4 MiB", bytes, len(files(t, dir)), st)
	}
}

func TestWhatIsUsedElsewhereIsSpared(t *testing.T) {
	s := open(t, t.TempDir(), Options{Bytes: 1 << 20, InUse: func(key []byte) bool { return key[0] == 'm' }})
	defer closed(t, s)
	for i := range 10 {
		put(t, s, metaOf(fmt.Sprint("m", i)), bytesOf(1, 20_000))
	}
	for i := range 100 {
		put(t, s, metaOf(fmt.Sprint(i)), bytesOf(1, 20_000))
	}
	for i := range 10 {
		if len(s.Find([]byte(fmt.Sprint("m", i)))) != 1 {
			t.Errorf("m%d is in use and was evicted", i)
		}
	}
}

func TestTooLargeIsRefusedBeforeItTakesTheRoom(t *testing.T) {
	s := open(t, t.TempDir(), Options{Bytes: 4 << 20})
	defer closed(t, s)
	for i := range 20 {
		put(t, s, metaOf(fmt.Sprint(i)), bytesOf(1, 20_000))
	}
	if _, err := s.Put(metaOf("film"), make([]byte, 2<<20)); err == nil {
		t.Error("half of the budget for one record: no error")
	}
	if st := s.Stats(); st.Objects != 20 || st.Evicted != 0 || st.Refused == 0 || st.Paused {
		t.Errorf("afterwards %+v; want the 20 records", st)
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	_, err := Open(Options{Dir: dir, Bytes: 1 << 20})
	locked, ok := errors.AsType[*LockedError](err)
	if !ok || locked.PID != os.Getpid() {
		t.Errorf("the second: %v, want that it is in use by %d", err, os.Getpid())
	}
	closed(t, s)
	closed(t, open(t, dir, Options{}))
}

func TestRebuildingFindsEverythingAndRemovesDoubles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	for i := range 500 {
		put(t, s, metaOf(fmt.Sprint(i)), bytesOf(uint64(i), 100))
	}
	old := files(t, dir)
	saved := map[string][]byte{}
	for _, name := range old[:50] {
		saved[name], _ = os.ReadFile(name)
	}
	for i := range 500 {
		put(t, s, metaOf(fmt.Sprint(i)), bytesOf(uint64(i+1), 100))
	}
	closed(t, s)
	for name, b := range saved { // killed before the old one was removed
		os.WriteFile(name, b, 0o600)
	}
	os.WriteFile(filepath.Join(filepath.Dir(old[0]), "notes.txt"), []byte("mine"), 0o600)

	s = open(t, dir, Options{})
	defer closed(t, s)
	rebuild(t, s)
	if st := s.Stats(); st.Objects != 500 || st.Rebuilt != 1 || st.Foreign != 1 {
		t.Errorf("rebuilt: %+v; want 500 objects and one foreign file", st)
	}
	for i := range 500 {
		if _, content, err := get(s, fmt.Sprint(i)); err != nil || !bytes.Equal(content, bytesOf(uint64(i+1), 100)) {
			t.Errorf("%d: %v, want the newer one", i, err)
		}
	}
	if n := len(files(t, dir)); n != 501 {
		t.Errorf("%d files, want 500 and the foreign one", n)
	}
}

// rebuild runs s until its index is whole.
func rebuild(t testing.TB, s *Store) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for s.Stats().Rebuilt < 1 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	s := open(t, t.TempDir(), Options{Bytes: 2 << 20})
	defer closed(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	var house, wg sync.WaitGroup
	house.Go(func() { s.Run(ctx) })
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range 150 {
				key := fmt.Sprint(rnd.IntN(40))
				switch rnd.IntN(5) {
				case 0:
					s.Remove([]byte(key))
				case 1:
					if refs := s.Find([]byte(key)); len(refs) > 0 {
						s.Update([]byte(key), refs[0], []byte("head of "+key))
					}
				case 2:
					s.Put(metaOf(key), bytes.Repeat([]byte(key), rnd.IntN(30_000)))
				default:
					head, content, err := get(s, key)
					if err == nil && (head != "head of "+key || len(bytes.ReplaceAll(content, []byte(key), nil)) != 0) {
						t.Errorf("key %s: head %q and somebody else's content", key, head)
					}
				}
			}
		})
	}
	wg.Wait()
	cancel()
	house.Wait()
	if st := s.Stats(); st.Torn+st.Damaged+st.Foreign+st.FailedReads+st.FailedWrites != 0 || int64(len(files(t, s.dir))) != st.Objects {
		t.Errorf("%d files, %+v", len(files(t, s.dir)), st)
	}
}
