package cache

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"firstbell/cache/disk"
	"firstbell/proxy/field"
)

// onDisk is a cache over dir that runs until it is closed.
func onDisk(t testing.TB, dir string) (c *Cache, end func()) {
	t.Helper()
	c, err := New(Options{MemoryBytes: 4 << 20, Disk: &DiskOptions{Path: dir, Bytes: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	return c, func() {
		cancel()
		<-done
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// written waits until everything that was put is on disk.
func written(t testing.TB, c *Cache) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if s := c.Stats().Disk; s.QueuedBytes == 0 {
			return
		}
	}
	t.Fatalf("it is not written: %+v", c.Stats().Disk)
}

// killed ends c as kill -9 does: nothing more is written, and what follows is a
// copy of the directory as it lay there.
func killed(t testing.TB, dir string) string {
	t.Helper()
	again := filepath.Join(t.TempDir(), "again")
	if err := os.CopyFS(again, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return again
}

func TestEverythingOfAStoredResponseComesBack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Bool:
			v.SetBool(rnd.IntN(2) == 0)
		case reflect.Int64:
			v.SetInt(rnd.Int64N(1 << 50))
		case reflect.String:
			v.SetString(fmt.Sprint("text ", rnd.IntN(1000)))
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0))
			fill(v.Index(1))
		default:
			t.Fatalf("a Verdict has a %v; write it down in appendHead, and fill it here", v.Type())
		}
	}
	for range 200 {
		s := &Stored{Status: 200 + rnd.IntN(300), key: "http school.example /a", variant: "v", born: rnd.Uint64(),
			responseTime: time.Unix(rnd.Int64N(1<<32), rnd.Int64N(1e9)).UTC(), generated: rnd.IntN(2) == 0, tags: []string{"a", "b"},
			Fields: field.List{{Name: "ETag", Value: `"x"`}, {Name: "X", Value: "\x00\xff"}, {Name: "X", Value: ""}}}
		v := reflect.ValueOf(&s.Verdict).Elem()
		for i := range v.NumField() {
			f := v.Field(i)
			f = reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem() // the unexported ones, too
			if f.Type() == reflect.TypeFor[time.Time]() {
				f.Set(reflect.ValueOf(time.Unix(rnd.Int64N(1<<32), 0).UTC()))
				continue
			}
			fill(f)
		}
		s.Verdict.Store = true
		s.index()
		m := s.meta()
		got, err := readStored(m.Key, m.Variant, m.Head)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Verdict, s.Verdict) || !reflect.DeepEqual(got.Fields, s.Fields) || !reflect.DeepEqual(got.tags, s.tags) ||
			got.Status != s.Status || got.key != s.key || got.variant != s.variant || got.born != s.born ||
			!got.responseTime.Equal(s.responseTime) || got.generated != s.generated || string(got.etag) != string(s.etag) || m.Host != "school.example" {
			t.Fatalf("got %+v, want %+v", got, s)
		}
	}
	empty := &Stored{Verdict: Verdict{Store: true}}
	if got, err := readStored(nil, nil, empty.appendHead(nil)); err != nil || !got.responseTime.IsZero() || got.Fields != nil || got.tags != nil {
		t.Errorf("an empty one: %+v, %v", got, err)
	}
}

func FuzzStoredHead(f *testing.F) {
	s := &Stored{Status: 200, tags: []string{"t"}, Fields: field.List{{Name: "A", Value: "b"}}, Verdict: Verdict{Store: true, Vary: []string{"Accept"}}}
	f.Add(s.appendHead(nil))
	f.Add([]byte{headVersion})
	f.Add([]byte{headVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readStored([]byte("k"), nil, b)
		if err != nil {
			return
		}
		again, err := readStored([]byte("k"), nil, s.appendHead(nil))
		if err != nil || !reflect.DeepEqual(again.Fields, s.Fields) || !reflect.DeepEqual(again.Verdict, s.Verdict) {
			t.Errorf("read, written and read again: %v\n%+v\n%+v", err, s, again)
		}
	})
}

func TestWhatIsStoredIsThereAfterAKill(t *testing.T) {
	dir := t.TempDir()
	c, end := onDisk(t, dir)
	vary := field.Field{Name: "Vary", Value: "Accept-Language"}
	ask := func(i int) *Request {
		if i%10 == 0 {
			return request(fmt.Sprint("http school.example /", i/30), field.Field{Name: "Accept-Language", Value: fmt.Sprint("l", i%30)})
		}
		return request(fmt.Sprint("http school.example /page/", i))
	}
	want := map[int]*Stored{}
	for i := range 500 {
		r := ask(i)
		var s *Stored
		if i%10 == 0 {
			s = object(c, r, 1000+i, vary)
		} else {
			s = object(c, r, 1000+i)
		}
		if !c.Put(s) {
			t.Fatalf("Put %d: false", i)
		}
		want[i] = s
	}
	written(t, c)
	again := killed(t, dir)
	end()
	for _, dir := range []string{dir, again} {
		c, end := onDisk(t, dir)
		for round := range 4 {
			for i := range 500 {
				f := c.Lookup(ask(i), &Policy{}, nine)
				if f.Outcome != Hit || !bytes.Equal(f.Stored.Body, want[i].Body) || !reflect.DeepEqual(f.Stored.Fields, want[i].Fields) || !reflect.DeepEqual(f.Stored.Verdict, want[i].Verdict) {
					t.Fatalf("round %d, %d: %v %s, want the hit it was", round, i, f.Outcome, f.Reason)
				}
			}
		}
		if f := c.Lookup(request("http school.example /1", field.Field{Name: "Accept-Language", Value: "other"}), &Policy{}, nine); f.Outcome != Miss || f.Reason != "vary-miss" || len(f.Vary) != 1 {
			t.Errorf("another variant: %v %s, vary %q; want a vary-miss that knows Vary", f.Outcome, f.Reason, f.Vary)
		}
		if s := c.Stats().Disk; s.Hits < 900 || s.Hits > 1400 || s.Promoted < 450 {
			t.Errorf("disk answered %d look-ups and gave %d to memory; want about two each, and all", s.Hits, s.Promoted)
		}
		audit(t, c)
		end()
	}
}

func TestWhatIsGoneStaysGone(t *testing.T) {
	key := "http school.example /lesson"
	r := request(key)
	for _, c := range []struct {
		name string
		gone func(c *Cache)
		want string
	}{
		{"invalidated", func(c *Cache) { c.Invalidate(r.Key) }, "uri-miss"},
		{"invalidated before it was written", func(c *Cache) { c.Invalidate(r.Key) }, "uri-miss"},
		{"purged", func(c *Cache) { c.Purge([]Selector{{ByHost, "school.example"}}, true) }, "uri-miss"},
		{"purged by its tag", func(c *Cache) { c.Purge([]Selector{{ByTag, "maths"}}, true) }, "uri-miss"},
		{"purged softly", func(c *Cache) { c.Purge([]Selector{{ByPrefix, "school.example /lesson"}}, false) }, "stale"},
	} {
		dir := t.TempDir()
		k, end := onDisk(t, dir)
		k.Put(object(k, r, 2000, field.Field{Name: "Surrogate-Key", Value: "maths"}))
		if c.name != "invalidated before it was written" {
			written(t, k)
		}
		c.gone(k)
		again := killed(t, dir)
		end()
		k, end = onDisk(t, again)
		for range 3 {
			if f := k.Lookup(r, &Policy{}, nine); f.Outcome == Hit || f.Reason != c.want && !(c.want == "uri-miss" && f.Reason == "vary-miss") {
				t.Errorf("%s, then killed: %v %s, want %s", c.name, f.Outcome, f.Reason, c.want)
			}
		}
		k.Put(object(k, begun(k, key), 3000))
		if f := k.Lookup(r, &Policy{}, nine); f.Outcome != Hit {
			t.Errorf("%s: stored again: %v, want hit", c.name, f.Outcome)
		}
		end()
	}
}

// begun is a request whose fetch begins now.
func begun(c *Cache, key string) *Request {
	r := request(key)
	c.Begin(r)
	return r
}

func TestFresheningReachesTheDisk(t *testing.T) {
	for _, where := range []string{"in memory and on disk", "on disk alone", "not on disk yet"} {
		dir := t.TempDir()
		c, end := onDisk(t, dir)
		r := request("http school.example /lesson")
		c.Put(object(c, r, 2000, field.Field{Name: "ETag", Value: `"1"`}))
		if where != "not on disk yet" {
			written(t, c)
		}
		if where == "on disk alone" {
			end()
			c, end = onDisk(t, dir)
		}
		later := nine.Add(2 * time.Hour)
		old := c.Lookup(r, &Policy{}, later)
		if old.Outcome != Miss || old.Stored == nil {
			t.Fatalf("%s: after two hours %v %+v, want something to validate", where, old.Outcome, old.Stored)
		}
		c.Begin(r)
		if _, ok := c.Freshen(old.Stored, r, &Policy{}, field.List{{Name: "ETag", Value: `"1"`}, {Name: "X-Round", Value: "2"}}, later, later); !ok {
			t.Fatalf("%s: Freshen: false", where)
		}
		if f := c.Lookup(r, &Policy{}, later); f.Outcome != Hit || f.Stored.Fields.Get("X-Round") != "2" {
			t.Errorf("%s: at once: %v %v, want the new fields", where, f.Outcome, f.Stored)
		}
		written(t, c)
		if n := c.Stats().Disk.Objects; n != 1 {
			t.Errorf("%s: %d records, want 1", where, n)
		}
		again := killed(t, dir)
		end()
		c, end = onDisk(t, again)
		if f := c.Lookup(r, &Policy{}, later); f.Outcome != Hit || f.Stored.Fields.Get("X-Round") != "2" || len(f.Stored.Body) != 2000 {
			t.Errorf("%s, then killed: %v, want a hit with the new fields", where, f.Outcome)
		}
		c.Begin(r)
		f := c.Lookup(r, &Policy{}, later)
		c.Freshen(f.Stored, r, &Policy{}, field.List{{Name: "ETag", Value: `"1"`}, {Name: "Cache-Control", Value: "no-store"}}, later, later)
		if f := c.Lookup(r, &Policy{}, later); f.Stored != nil || c.Stats().Disk.Objects != 0 {
			t.Errorf("%s: a 304 that forbids to store: %v and %d records, want nothing", where, f.Outcome, c.Stats().Disk.Objects)
		}
		end()
	}
}

// TestNothingOldIsPutBack invalidates a key while look-ups find it on disk.
func TestNothingOldIsPutBack(t *testing.T) {
	dir := t.TempDir()
	c, end := onDisk(t, dir)
	defer end()
	r := request("http school.example /lesson")
	for i := range 200 {
		c.Begin(r)
		c.Put(object(c, r, 100+i))
		if i%2 == 0 {
			written(t, c)
		}
		c.memory.remove(r.Key) // pushed out, but for the count of changes
		done := make(chan struct{})
		go func() {
			for range 5 {
				c.Lookup(r, &Policy{}, nine)
			}
			close(done)
		}()
		c.Invalidate(r.Key)
		f := c.Lookup(r, &Policy{}, nine)
		<-done
		if g := c.Lookup(r, &Policy{}, nine); f.Stored != nil || g.Stored != nil {
			t.Fatalf("round %d: what was invalidated is found", i)
		}
	}
}

func TestALargeOneAnswersFromDisk(t *testing.T) {
	dir := t.TempDir()
	c, end := onDisk(t, dir)
	r := request("http school.example /film")
	body := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(body)
	s := object(c, r, 0, field.Field{Name: "ETag", Value: `"1"`})
	w, err := c.Spool(s)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(body)
	if large, ok := w.Keep(); !ok || !large.Large() || large.Length() != int64(len(body)) {
		t.Fatalf("Keep: %v, %v", large, ok)
	}
	for _, when := range []string{"at once", "after a restart"} {
		f := c.Lookup(r, &Policy{}, nine)
		if f.Outcome != Hit || !f.Stored.Large() || f.Stored.Length() != int64(len(body)) || f.Stored.Body != nil {
			t.Fatalf("%s: %v %+v; want a large hit", when, f.Outcome, f.Stored)
		}
		rec, err := f.Stored.Open()
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		buf := make([]byte, disk.BlockBytes)
		for i := range rec.Blocks() {
			b, err := rec.Block(i, buf)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, b...)
		}
		rec.Release()
		if !bytes.Equal(got, body) {
			t.Errorf("%s: another body", when)
		}
		later := nine.Add(2 * time.Hour)
		c.Begin(r)
		if s, ok := c.Freshen(f.Stored, r, &Policy{}, field.List{{Name: "X", Value: when}}, later, later); !ok || !s.Large() {
			t.Errorf("%s: Freshen: %v, %v", when, s, ok)
		}
		if f := c.Lookup(r, &Policy{}, later); f.Outcome != Hit || f.Stored.Fields.Get("X") != when {
			t.Errorf("%s, freshened: %v", when, f.Outcome)
		}
		if s := c.Stats(); s.Objects != 0 {
			t.Errorf("%s: memory holds %d objects, want none", when, s.Objects)
		}
		end()
		c, end = onDisk(t, dir)
	}
	c.Invalidate(r.Key)
	if f := c.Lookup(r, &Policy{}, nine); f.Stored != nil {
		t.Error("it is found after it was invalidated")
	}
	end()
}

func TestADamagedRecordIsAMiss(t *testing.T) {
	dir := t.TempDir()
	c, end := onDisk(t, dir)
	r := request("http school.example /lesson")
	c.Put(object(c, r, 5000))
	end()
	n := 0
	filepath.WalkDir(filepath.Join(dir, "r"), func(path string, d os.DirEntry, err error) error {
		if !d.IsDir() {
			b, _ := os.ReadFile(path)
			b[len(b)-1000] ^= 1
			os.WriteFile(path, b, 0o600)
			n++
		}
		return nil
	})
	c, end = onDisk(t, dir)
	defer end()
	if f := c.Lookup(r, &Policy{}, nine); n != 1 || f.Outcome != Miss || f.Stored != nil || c.Stats().Disk.Damaged != 1 {
		t.Errorf("%d records, %v, %+v; want a miss and an alarm", n, f.Outcome, c.Stats().Disk)
	}
	c.Put(object(c, r, 5000))
	if f := c.Lookup(r, &Policy{}, nine); f.Outcome != Hit {
		t.Errorf("stored again: %v", f.Outcome)
	}
}

func TestWhatCameInAFloodIsWrittenAfterIt(t *testing.T) {
	dir := t.TempDir()
	c, err := New(Options{MemoryBytes: 64 << 20, Disk: &DiskOptions{Path: dir, Bytes: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.tier.queuedMax = 50
	for i := range 150 { // nobody writes
		c.Put(object(c, request(fmt.Sprint("http a /", i)), 10))
	}
	if s := c.Stats().Disk; s.Queued != 50 || s.Late != 100 {
		t.Fatalf("%d queued, %d late; want 50 and 100", s.Queued, s.Late)
	}
	for c.tier.writeNext() {
	}
	for range 2 {
		c.tier.sweep()
		for c.tier.writeNext() {
		}
	}
	if n := c.Stats().Disk.Objects; n != 150 {
		t.Errorf("%d records, want all 150", n)
	}
}

func TestASecondProcessOnTheCacheIsOneLine(t *testing.T) {
	dir := t.TempDir()
	_, end := onDisk(t, dir)
	defer end()
	if _, err := New(Options{MemoryBytes: 4 << 20, Disk: &DiskOptions{Path: dir, Bytes: 64 << 20}}); err == nil || bytes.ContainsRune([]byte(err.Error()), '\n') {
		t.Errorf("the second one: %v, want one line", err)
	}
}
