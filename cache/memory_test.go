package cache

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"firstbell/proxy/field"
)

func newCache(t testing.TB, bytes int64) *Cache {
	t.Helper()
	c, err := New(Options{MemoryBytes: bytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func request(key string, fields ...field.Field) *Request {
	return &Request{Method: "GET", Key: []byte(key), Fields: field.List(fields)}
}

// object is a fresh response of so many bytes under the key.
func object(c *Cache, r *Request, bytes int, fields ...field.Field) *Stored {
	res := append(field.List{{Name: "Cache-Control", Value: "max-age=3600"}, {Name: "Content-Type", Value: "text/html"}}, fields...)
	c.Begin(r)
	v := Judge(r, &Policy{}, 200, res, nine, nine)
	return c.NewStored(r, v, 200, res, make([]byte, bytes), nine, nine)
}

// audit compares the accounts with what the index really holds.
func audit(t testing.TB, c *Cache) {
	t.Helper()
	m := c.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	var bytes, count [gone]int64
	var objects int64
	counted := map[*indexShard]int{}
	m.index.each(func(e *entry) {
		counted[m.index.shard(e.hash)]++
		objects += int64(len(e.variants))
		if got, want := e.size, sizeOf(e); got != want {
			t.Errorf("%q is accounted with %d bytes, want %d", e.key, got, want)
		}
		bytes[e.where.Load()] += e.size
		count[e.where.Load()]++
		if m.index.get(e.hash) != e {
			t.Errorf("%s is in the index and is not found", e.key)
		}
	})
	for i := range m.index.shards {
		if sh := &m.index.shards[i]; sh.count != counted[sh] {
			t.Errorf("shard %d counts %d entries, want %d", i, sh.count, counted[sh])
		}
	}
	for where, l := range []*ring{&m.window, &m.main, &m.pinned} {
		var inList int64
		for e := l.oldest(); e != &l.head; e = e.next {
			inList++
		}
		if l.bytes != bytes[where] || l.count != count[where] || inList != count[where] {
			t.Errorf("list %d accounts %d bytes of %d entries, and holds %d; want %d of %d", where, l.bytes, l.count, inList, bytes[where], count[where])
		}
	}
	if m.objects != objects {
		t.Errorf("%d objects are accounted, want %d", m.objects, objects)
	}
	if m.bytesLocked() > m.budget || m.pinned.bytes > m.pins.Load().bytes {
		t.Errorf("%d of %d bytes, %d of %d pinned: over budget", m.bytesLocked(), m.budget, m.pinned.bytes, m.pins.Load().bytes)
	}
}

// sizeOf is what an entry is to be accounted with: all that it leads to.
func sizeOf(e *entry) int64 {
	size := int64(entryBytes)
	if e != &e.variants[0].entry {
		size += variantBytes
	}
	if len(e.variants) > 1 {
		size += int64(len(e.variants)) * variantBytes
	}
	for _, s := range e.variants {
		size += s.size
		for c := range OtherCoding {
			if v := s.In(c); v != nil && v != s {
				size += v.size
			}
		}
	}
	return size
}

func TestMemoryTooSmallIsRefused(t *testing.T) {
	for _, bytes := range []int64{-1, 1, 1<<20 - 1} {
		if c, err := New(Options{MemoryBytes: bytes}); err == nil {
			c.Close()
			t.Errorf("New with %d bytes of memory: no error", bytes)
		}
	}
}

func TestPutIsFoundAtOnce(t *testing.T) {
	c := newCache(t, 4<<20)
	for i := range 8000 {
		r := request(fmt.Sprint("key ", i))
		if !c.Put(object(c, r, 1000)) {
			t.Fatalf("Put %d: false", i)
		}
		if f := c.Lookup(r, &Policy{}, nine); f.Outcome != Hit || string(f.Stored.key) != string(r.Key) {
			t.Fatalf("look-up right after Put %d: %v, want hit", i, f.Outcome)
		}
	}
	audit(t, c)
}

func TestNothingIsLostWhileThereIsRoom(t *testing.T) {
	c := newCache(t, 16<<20)
	for i := range 6000 {
		c.Put(object(c, request(fmt.Sprint("key ", i)), 500))
	}
	for i := range 6000 {
		if f := c.Lookup(request(fmt.Sprint("key ", i)), &Policy{}, nine); f.Outcome != Hit {
			t.Fatalf("key %d: %v, want hit", i, f.Outcome)
		}
	}
	if s := c.Stats(); s.Evictions != 0 || s.Objects != 6000 {
		t.Errorf("evictions %d, objects %d; want 0, 6000", s.Evictions, s.Objects)
	}
	audit(t, c)
}

func TestBudgetHolds(t *testing.T) {
	c := newCache(t, 4<<20)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 5000 {
		c.Put(object(c, request(fmt.Sprint(i)), rnd.IntN(100_000)))
		if i%500 == 0 {
			audit(t, c)
		}
	}
	if s := c.Stats(); s.Evictions == 0 || s.Bytes() < s.MaxBytes/2 {
		t.Errorf("evictions %d, %d of %d bytes; want some, and most", s.Evictions, s.Bytes(), s.MaxBytes)
	}
}

// What a crawler asks for once displaces nothing that is used.
func TestOneRoundOfACrawlerDisplacesNothing(t *testing.T) {
	c := newCache(t, 8<<20)
	lessons := make([]*Request, 1000)
	for round := range 4 {
		for i := range lessons {
			lessons[i] = request(fmt.Sprint("lesson ", i))
			if round == 0 {
				c.Put(object(c, lessons[i], 1000))
			} else if f := c.Lookup(lessons[i], &Policy{}, nine); f.Outcome != Hit {
				t.Fatalf("lesson %d, round %d: %v, want hit", i, round, f.Outcome)
			}
		}
	}
	for i := range 50_000 {
		c.Put(object(c, request(fmt.Sprint("old page ", i)), 1000))
	}
	for i := range lessons {
		if f := c.Lookup(lessons[i], &Policy{}, nine); f.Outcome != Hit {
			t.Errorf("lesson %d: %v, want hit", i, f.Outcome)
		}
	}
	audit(t, c)
}

func TestTooLargeIsRefusedAndChangesNothing(t *testing.T) {
	c := newCache(t, 4<<20)
	r := request("lesson")
	c.Put(object(c, r, 100))
	for _, bytes := range []int{int(c.MaxObjectBytes()), 5 << 20} {
		if c.Put(object(c, r, bytes)) {
			t.Errorf("Put of %d bytes: true, want false", bytes)
		}
	}
	if f := c.Lookup(r, &Policy{}, nine); f.Outcome != Hit || len(f.Stored.Body) != 100 {
		t.Errorf("after a refused Put: %v, want the first response", f.Outcome)
	}
	if s := object(c, r, int(c.MaxObjectBytes())-12_000); !c.Put(s) {
		t.Errorf("Put of %d bytes, within the limit: false", s.size)
	}
	audit(t, c)
}

func TestLargeObjectsStayWhileTheyAreUsed(t *testing.T) {
	c := newCache(t, 8<<20)
	video := request("video")
	c.Put(object(c, video, 512<<10))
	for i := range 8000 {
		c.Put(object(c, request(fmt.Sprint(i)), 1000))
		if f := c.Lookup(video, &Policy{}, nine); f.Outcome != Hit {
			t.Fatalf("the video that everybody watches is gone after %d pages", i)
		}
	}
	for i := range 8000 {
		more := request(fmt.Sprint("more", i))
		c.Put(object(c, more, 1000))
		c.Lookup(more, &Policy{}, nine)
		c.Lookup(more, &Policy{}, nine)
	}
	if f := c.Lookup(video, &Policy{}, nine); f.Outcome != Miss {
		t.Error("the video that nobody watches any more still takes the room")
	}
	audit(t, c)
}

func TestVariantsAreBoundedPerKey(t *testing.T) {
	c := newCache(t, 16<<20)
	vary := field.Field{Name: "Vary", Value: "User"}
	ask := func(i int) *Request {
		return request("page", field.Field{Name: "User", Value: fmt.Sprint(i)})
	}
	for i := range 100 {
		c.Put(object(c, ask(i), 10, vary))
	}
	for i := range 100 {
		want := Miss
		if i >= 100-variantsMax {
			want = Hit
		}
		if f := c.Lookup(ask(i), &Policy{}, nine); f.Outcome != want {
			t.Errorf("variant %d of 100: %v, want %v", i, f.Outcome, want)
		}
	}
	if s := c.Stats(); s.Objects != variantsMax {
		t.Errorf("%d objects, want %d", s.Objects, variantsMax)
	}
	audit(t, c)
}

func TestReplacingInvalidatingAndFresheningKeepTheAccounts(t *testing.T) {
	c := newCache(t, 2<<20)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 10_000 {
		r := request(fmt.Sprint(rnd.IntN(600)))
		switch rnd.IntN(6) {
		case 0:
			c.Invalidate(r.Key)
			if f := c.Lookup(r, &Policy{}, nine); f.Outcome != Miss || f.Stored != nil {
				t.Fatalf("after Invalidate: %v, want miss", f.Outcome)
			}
		case 1:
			if f := c.Lookup(r, &Policy{}, nine); f.Stored != nil {
				s, ok := c.Freshen(f.Stored, r, &Policy{}, field.List{{Name: "X-Round", Value: fmt.Sprint(i)}}, nine, nine)
				if !ok || s == nil || c.Lookup(r, &Policy{}, nine).Stored != s {
					t.Fatal("what was freshened is not what is found")
				}
			}
		case 2:
		default:
			s := object(c, r, rnd.IntN(8000))
			if c.Put(s); c.Lookup(r, &Policy{}, nine).Stored != s {
				t.Fatal("what was put is not what is found")
			}
		}
		if i%500 == 0 {
			audit(t, c)
		}
	}
	audit(t, c)
	for i := range 600 {
		c.Invalidate([]byte(fmt.Sprint(i)))
	}
	if s := c.Stats(); s.Objects != 0 || s.Bytes() != 0 {
		t.Errorf("after invalidating everything: %d objects, %d bytes; want none", s.Objects, s.Bytes())
	}
}

func TestFresheningNeverBringsBackWhatIsGone(t *testing.T) {
	c := newCache(t, 2<<20)
	r := request("lesson")
	first := object(c, r, 10)
	c.Put(first)
	c.Invalidate(r.Key)
	if _, ok := c.Freshen(first, r, &Policy{}, nil, nine, nine); !ok {
		t.Error("Freshen: false, want the answer for the one who asked")
	}
	if f := c.Lookup(r, &Policy{}, nine); f.Stored != nil {
		t.Error("a 304 brought an invalidated response back")
	}
	second := object(c, r, 20)
	c.Put(second)
	c.Freshen(first, r, &Policy{}, nil, nine, nine)
	if f := c.Lookup(r, &Policy{}, nine); f.Stored != second {
		t.Error("a 304 about the first response displaced the second")
	}
	audit(t, c)
}

func TestFollowersWithCredentialsGetOnlyWhatTheResponseItselfOpens(t *testing.T) {
	cookie := request("a", field.Field{Name: "Cookie", Value: "a=1"})
	bearer := request("a", field.Field{Name: "Authorization", Value: "Bearer 1"})
	for _, test := range []struct {
		control                      string
		nobody, withCookie, withAuth bool
	}{
		{"", true, false, false},
		{"max-age=60", true, true, false},
		{"max-age=60, public", true, true, true},
		{"public", true, false, false}, // default_ttl is not for those with credentials
	} {
		res := field.List{{Name: "Cache-Control", Value: test.control}, {Name: "ETag", Value: `"1"`}}
		p := &Policy{DefaultTTL: time.Minute}
		v := Judge(request("a"), p, 200, res, nine, nine)
		got := [3]bool{v.MayAnswer(request("a"), p), v.MayAnswer(cookie, p), v.MayAnswer(bearer, p)}
		if want := [3]bool{test.nobody, test.withCookie, test.withAuth}; got != want || !v.Share {
			t.Errorf("%q may answer nobody, a cookie, Authorization: %v, want %v", test.control, got, want)
		}
		if anonymous := (&Policy{Anonymous: true}); !v.MayAnswer(bearer, anonymous) {
			t.Errorf("%q may not answer on an anonymous route", test.control)
		}
	}
}

func TestWhatIsNotForOthersStaysWithTheOneWhoAsked(t *testing.T) {
	c := newCache(t, 2<<20)
	r := request("a", field.Field{Name: "User", Value: "1"})
	for _, test := range []struct {
		control, vary string
		stores, suits bool
	}{
		{"max-age=60", "", true, true},
		{"max-age=60", "User", true, true},
		{"max-age=60", "Other", true, true},
		{"no-cache", "", true, false},
		{"no-store", "", false, false},
		{"private, max-age=60", "", false, false},
		{"max-age=60", "*", false, false},
	} {
		res := field.List{{Name: "Cache-Control", Value: test.control}, {Name: "Vary", Value: test.vary}, {Name: "ETag", Value: `"1"`}}
		s := c.NewStored(r, Judge(r, &Policy{}, 200, res, nine, nine), 200, res, nil, nine, nine)
		if got := c.Put(s); got != test.stores {
			t.Errorf("%s, Vary %q: Put = %v, want %v", test.control, test.vary, got, test.stores)
		}
		if got := s.Suits(r, &Policy{}); got != test.suits {
			t.Errorf("%s, Vary %q: suits another with the same fields: %v, want %v", test.control, test.vary, got, test.suits)
		}
		other := request("a", field.Field{Name: "User", Value: "2"})
		if got, want := s.Suits(other, &Policy{}), test.suits && test.vary != "User"; got != want {
			t.Errorf("%s, Vary %q: suits another user: %v, want %v", test.control, test.vary, got, want)
		}
	}
}

func TestMixedUseByManyAtOnce(t *testing.T) {
	c := newCache(t, 2<<20)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(5, uint64(w)))
			for range 3000 {
				key := fmt.Sprint(rnd.IntN(500))
				r := request(key)
				switch rnd.IntN(10) {
				case 0:
					c.Invalidate(r.Key)
				case 1:
					c.MarkUncacheable(r, time.Minute)
				case 2, 3, 4:
					c.Put(object(c, r, rnd.IntN(20_000), field.Field{Name: "X-Key", Value: key}))
				default:
					f := c.Lookup(r, &Policy{}, nine)
					if f.Stored != nil && f.Stored.Fields.Get("X-Key") != key {
						t.Errorf("asked for %s, got %s", key, f.Stored.Fields.Get("X-Key"))
					}
					if f.Stored != nil && rnd.IntN(4) == 0 {
						f.Stored.SetPrepared(FormLines, []byte(key))
						c.Freshen(f.Stored, r, &Policy{}, field.List{{Name: "X-Key", Value: key}}, nine, nine)
					}
				}
				if s := c.Stats(); s.Bytes() > 2<<20 {
					t.Errorf("%d bytes accounted, want at most %d", s.Bytes(), 2<<20)
				}
			}
		})
	}
	wg.Wait()
}

// Keys that share a hash displace each other and never answer for each other.
func TestKeysAreComparedInFull(t *testing.T) {
	c := newCache(t, 2<<20)
	r := request("a")
	s := object(c, r, 10)
	c.Put(s)
	e := c.memory.index.get(c.memory.index.hash(r.Key))
	other := newEntry(e.hash, object(c, request("b"), 10))
	c.memory.mu.Lock()
	c.memory.replaceLocked(e, other)
	c.memory.mu.Unlock()
	if f := c.Lookup(r, &Policy{}, nine); f.Stored != nil {
		t.Errorf("a key got %q's response", f.Stored.key)
	}
	if c.Invalidate(r.Key) {
		t.Error("invalidating a key took out another's response")
	}
	s = object(c, r, 10)
	c.Put(s)
	if f := c.Lookup(r, &Policy{}, nine); f.Stored != s {
		t.Error("a key displaced by one of the same hash cannot be put again")
	}
	audit(t, c)
}

func TestUncacheableIsForgottenInTime(t *testing.T) {
	var u uncacheable
	now := time.Now()
	u.add(7, now, time.Minute)
	if !u.has(7, now) || u.has(8, now) || u.has(7, now.Add(2*time.Minute)) {
		t.Error("want 7 for a minute and nothing else")
	}
	for i := range uint64(10) { // ten keys of one set: the soonest to end yield
		u.add(7+i<<32, now, time.Duration(i)*time.Minute)
	}
	for i := uint64(6); i < 10; i++ {
		if !u.has(7+i<<32, now) {
			t.Errorf("key %d of a full set is forgotten before it ended", i)
		}
	}
	u.forget(7 + 9<<32)
	if u.has(7+9<<32, now) || !u.has(7+8<<32, now) {
		t.Error("forget: want the one key forgotten, and no other")
	}
}

func TestHitAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("with -race, sync.Pool drops a part of what it is given on purpose")
	}
	c := newCache(t, 8<<20)
	plain := request("plain", field.Field{Name: "Cookie", Value: "a=1"}, field.Field{Name: "Accept-Encoding", Value: "gzip, br"})
	c.Put(object(c, plain, 100))
	varied := request("varied", plain.Fields.(field.List)...)
	c.Put(object(c, request("varied"), 100, field.Field{Name: "Vary", Value: "Accept-Encoding"}))
	c.Put(object(c, varied, 100, field.Field{Name: "Vary", Value: "Accept-Encoding, Accept-Language"}))
	popular := request("popular")
	c.Put(object(c, popular, 100))
	for i := 0; c.memory.get(popular.Key).where.Load() != inMain; i++ {
		c.Put(object(c, request(fmt.Sprint(i)), 10_000))
		for _, r := range []*Request{plain, varied} {
			c.Lookup(r, &Policy{}, nine)
		}
	}
	p := &Policy{}
	for _, r := range []*Request{plain, varied, popular} {
		var f Found
		if n := testing.AllocsPerRun(2000, func() { f = c.Lookup(r, p, nine) }); n != 0 || f.Outcome != Hit {
			t.Errorf("look-up of %s: %v, %v allocations; want hit and 0", r.Key, f.Outcome, n)
		}
	}
	if c.Stats().MainHits < 2000 {
		t.Error("main was not asked")
	}
}

// What is accounted is what the process really holds, within a sixth.
func TestAccountedBytesAreReal(t *testing.T) {
	for _, test := range []struct{ body, objects int }{{200, 20_000}, {1 << 10, 10_000}, {20 << 10, 1000}} {
		t.Run(fmt.Sprint(test.body), func(t *testing.T) {
			before := heap()
			c := newCache(t, 64<<20)
			for i := range test.objects {
				c.Put(fetched(c, fmt.Sprint("http school.example /lessons/", i), test.body))
			}
			s := c.Stats()
			got, want := heap()-before, s.Bytes()
			t.Logf("%d objects: %d bytes accounted, %d held", s.Objects, want, got)
			if got > want*7/6 || got < want*5/6 || s.Evictions > 0 {
				t.Errorf("%d bytes held, want about the %d accounted", got, want)
			}
			runtime.KeepAlive(c)
		})
	}
}

// fetched is an object with the usual fields, every string its own, and a
// prepared header.
func fetched(c *Cache, key string, body int) *Stored {
	r := request(key)
	read := field.List{
		{Name: "Date", Value: nine.Format(httpDate)}, {Name: "Content-Type", Value: "text/html; charset=utf-8"},
		{Name: "Cache-Control", Value: "public, max-age=3600"}, {Name: "ETag", Value: `"0123456789abcdef"`},
		{Name: "Last-Modified", Value: nine.Format(httpDate)}, {Name: "Content-Length", Value: fmt.Sprint(body)},
		{Name: "Server", Value: "nginx"}, {Name: "X-Frame-Options", Value: "SAMEORIGIN"},
	}
	res := field.Copy(read, nil)
	s := c.NewStored(r, Judge(r, &Policy{}, 200, res, nine, nine), 200, res, make([]byte, body), nine, nine)
	s.SetPrepared(FormLines, make([]byte, 350))
	s.SetPrepared(FormHPACK, make([]byte, 350))
	return s
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func bytesOf(c *Cache) int64 {
	s := c.Stats()
	return s.Bytes()
}
