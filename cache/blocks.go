package cache

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"firstbell/cache/disk"
	"firstbell/proxy/field"
)

// BlockBytes is the size of the blocks of an Incomplete: a second of the
// fastest video a school shows. Smaller ones cost the origin more requests than
// bytes, larger ones make who only looks into a film fetch what nobody sees.
const BlockBytes = 1 << 20

// incompleteBytesMax bounds the content that is kept in blocks: there are never
// more of them than can be looked for and dropped in a moment.
const incompleteBytesMax = 256 << 30

// dateGap is by how much Last-Modified must lie before Date to be a strong
// validator (RFC 9110 section 8.8.2.2): a second would do, were both of one
// clock.
const dateGap = time.Minute

// Incomplete is one generation of a content of which blocks are stored, each a
// record on disk (RFC 9111 section 3.3). Its Stored is the head, as of a 200 to
// a request for the whole, and has no body. The head lies in a record of its
// own, and blocks are found through it alone: without it, after a purge or an
// invalidation, they answer nobody and go when room is short.
//
//	KEY incomplete      the head of its record: total, generation, variant, and the Stored
//	KEY block GEN N     block N of that generation
//
// Keys have two spaces, so these are no key of a whole response.
type Incomplete struct {
	*Stored
	Total      int64
	generation string // random: what was dropped once is never found again
	c          *Cache
}

const (
	headSuffix  = " incomplete"
	blockSuffix = " block "
)

// heads keeps who puts a head in the place of another in turn, by key.
type heads [64]sync.Mutex

func (h *heads) of(hash uint64) *sync.Mutex { return &h[hash%uint64(len(h))] }

func headKey(key []byte) []byte {
	return append(append(make([]byte, 0, len(key)+len(headSuffix)), key...), headSuffix...)
}

func (i *Incomplete) blockKey(n int64) []byte {
	b := make([]byte, 0, len(i.key)+len(blockSuffix)+len(i.generation)+12)
	b = append(append(append(b, i.key...), blockSuffix...), i.generation...)
	return strconv.AppendInt(append(b, ' '), n, 10)
}

// Blocks is how many blocks the content has.
func (i *Incomplete) Blocks() int64 { return (i.Total + BlockBytes - 1) / BlockBytes }

// BlockLen is the length of block n.
func (i *Incomplete) BlockLen(n int64) int64 { return min(BlockBytes, i.Total-n*BlockBytes) }

// HasDisk reports whether there is a disk below the memory: without one nothing
// is kept in blocks.
func (c *Cache) HasDisk() bool { return c.tier != nil }

// FindIncomplete finds the blocks' head for a request: how says as for a whole
// response what it is good for, where Hit means that it is fresh, Miss that it
// is to be validated and Bypass that it is not for who asks. It returns nil
// when there is none.
func (c *Cache) FindIncomplete(r *Request, p *Policy, now time.Time) (i *Incomplete, how Found) {
	if c.tier == nil {
		return nil, how
	}
	if i = c.tier.incomplete(r.Key); i == nil {
		return nil, how
	}
	w := wishesOf(r.Fields)
	how.consider(i.Stored, &w, r, p, now)
	return i, how
}

// incomplete reads the head of a key's blocks, or returns nil. That another has
// taken the place of the one found, since, is no reason to miss that.
func (t *tier) incomplete(key []byte) *Incomplete {
	change, head := t.c.memory.changes(key), headKey(key)
	for last := uint64(0); ; {
		refs := t.store.Find(head)
		if len(refs) == 0 || refs[0].Seq == last {
			return nil
		}
		last = refs[0].Seq
		if i, there := t.openHead(key, head, refs[0]); there {
			if i != nil {
				i.change, i.c = change, t.c
			}
			return i
		}
	}
}

// openHead reads a head's record, and reports whether it is there. One that
// does not do is taken out.
func (t *tier) openHead(key, head []byte, ref disk.Ref) (i *Incomplete, there bool) {
	t.reads <- struct{}{}
	defer func() { <-t.reads }()
	r, err := t.store.Open(head, ref)
	if err != nil {
		return nil, false
	}
	defer r.Release()
	i, err = readIncomplete(key, r)
	if err != nil || t.c.purged(i.Stored) {
		t.store.RemoveOne(head, ref.Seq)
		return nil, true
	}
	i.onDisk.Store(ref.Seq)
	return i, true
}

var errIncomplete = errors.New("the head of blocks cannot be read")

func (i *Incomplete) appendIncomplete(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(i.Total))
	return i.appendHead(appendString(appendString(b, i.generation), i.variant))
}

func readIncomplete(key []byte, r *disk.Record) (*Incomplete, error) {
	h := headReader{rest: r.Head}
	total, generation, variant := h.uint(), h.string(), h.string()
	if h.bad || total == 0 || total > incompleteBytesMax || generation == "" {
		return nil, errIncomplete
	}
	s, err := readStored(key, []byte(variant), h.rest)
	if err != nil {
		return nil, err
	}
	return &Incomplete{Stored: s, Total: int64(total), generation: generation}, nil
}

// Combinable reports whether parts of the content of s may be put together: it
// has a validator of its origin that names these very bytes (RFC 9111 section
// 3.4), and no coding.
func (s *Stored) Combinable() bool {
	if s.Fields.Has("Content-Encoding") {
		return false
	}
	if len(s.etag) > 0 {
		_, weak, ok := parseETag(s.etag)
		return ok && !weak && !s.generated
	}
	return !s.lastModified.IsZero() && s.Verdict.date.Sub(s.lastModified) >= dateGap
}

// SameContent reports whether two heads are of the same bytes.
func (i *Incomplete) SameContent(o *Incomplete) bool {
	if i.Total != o.Total || !i.Combinable() || !o.Combinable() {
		return false
	}
	if len(i.etag) > 0 || len(o.etag) > 0 {
		return sameStrong(i.etag, o.etag)
	}
	return i.lastModified.Equal(o.lastModified)
}

// Updated are the head's fields after a 304, or a part of the same content,
// with these (RFC 9111 sections 3.2 and 3.4).
func (i *Incomplete) Updated(news field.List, date time.Time) field.List {
	return updated(i.Fields, news, date)
}

// NamedBy reports whether a 304 with these fields is about the content.
func (i *Incomplete) NamedBy(res304 field.List) bool { return i.namedBy(res304) }

// OfBlocks makes s, a head, one of blocks of a content of total bytes and puts
// it in the place of the one before, whose blocks go unless they are of the
// same content: then they are its own. When it returns, FindIncomplete finds
// it, unless the disk takes nothing, or s was purged or invalidated since its
// fetch began: then its blocks answer those who have it, and nobody else. It
// returns nil when what s says of itself does not allow it.
func (c *Cache) OfBlocks(s *Stored, total int64) *Incomplete {
	if c.tier == nil || !s.Verdict.Store || !s.Verdict.Share || !s.Combinable() || total <= 0 || total > incompleteBytesMax {
		return nil
	}
	hash := c.memory.index.hash(view(s.key))
	turn := c.tier.heads.of(hash)
	turn.Lock()
	defer turn.Unlock()
	i := &Incomplete{Stored: s, Total: total, c: c}
	before := c.tier.incomplete(view(s.key))
	if before != nil && before.SameContent(i) {
		if before.FreshFor(s.responseTime) > 0 && s.responseTime.Sub(before.responseTime) < reloadFloor {
			return before // another part that came in this moment has brought it
		}
		i.generation = before.generation
	} else {
		i.generation = strconv.FormatUint(rand.Uint64(), 16) + strconv.FormatUint(rand.Uint64(), 16)
	}
	if c.tier.writeHead(i) {
		c.uncacheable.forget(hash)
		if before != nil && before.generation != i.generation {
			before.dropBlocks()
		}
	}
	return i
}

// writeHead writes the head's record, unless it has been purged or invalidated:
// Invalidate counts the change before it removes the record, so either that is
// seen here or it finds the writer.
func (t *tier) writeHead(i *Incomplete) bool {
	w, err := t.store.Begin(disk.Meta{Key: headKey(view(i.key)), Host: hostIn(i.key), Head: i.appendIncomplete(nil)})
	if err != nil {
		return false // counted there
	}
	if t.c.Gone(i.Stored) {
		w.Discard()
		return false
	}
	_, err = w.Commit()
	return err == nil
}

// Has reports whether block n is stored.
func (i *Incomplete) Has(n int64) bool { return len(i.c.tier.store.Find(i.blockKey(n))) > 0 }

// HasAll reports whether every block of a range of bytes is stored, and whether
// any is; to is exclusive.
func (i *Incomplete) HasAll(from, to int64) (all, any bool) {
	all = true
	for n := from / BlockBytes; n*BlockBytes < to && (all || !any); n++ {
		if i.Has(n) {
			any = true
		} else {
			all = false
		}
	}
	return all, any
}

// Block opens the record of block n, or returns nil when it is not stored. The
// record must be released.
func (i *Incomplete) Block(n int64) *disk.Record {
	store, key := i.c.tier.store, i.blockKey(n)
	for _, ref := range store.Find(key) {
		r, err := store.Open(key, ref)
		if err != nil {
			continue
		}
		if r.Length == i.BlockLen(n) {
			return r
		}
		r.Release()
		store.RemoveOne(key, ref.Seq)
	}
	return nil
}

// PutBlock stores block n, and reports whether Block finds it from now on. Of a
// generation that was taken out meanwhile nothing stays: Drop takes out the
// head first, so either it finds the block or the head is missed here.
func (i *Incomplete) PutBlock(n int64, block []byte) bool {
	if int64(len(block)) != i.BlockLen(n) || i.c.Gone(i.Stored) {
		return false
	}
	t, key := i.c.tier, i.blockKey(n)
	if _, err := t.store.Put(disk.Meta{Key: key, Host: hostIn(i.key)}, block); err != nil {
		return false
	}
	if now := t.incomplete(view(i.key)); now == nil || now.generation != i.generation {
		t.store.Remove(i.blockKey(n))
		return false
	}
	return true
}

// Drop takes the generation out: whoever asks from now on does not find it. A
// younger one stays.
func (i *Incomplete) Drop() {
	t := i.c.tier
	turn := t.heads.of(i.c.memory.index.hash(view(i.key)))
	turn.Lock()
	defer turn.Unlock()
	if now := t.incomplete(view(i.key)); now != nil && now.generation == i.generation {
		t.store.Remove(headKey(view(i.key)))
	}
	i.dropBlocks()
}

func (i *Incomplete) dropBlocks() {
	store := i.c.tier.store
	for n := range i.Blocks() {
		if key := i.blockKey(n); len(store.Find(key)) > 0 {
			store.Remove(key)
		}
	}
}

// completed drops the blocks of what is stored whole by now.
func (t *tier) completed(key []byte) {
	if i := t.incomplete(key); i != nil {
		i.Drop()
	}
}

// RangeAdvice is how to ask an origin for a part, as far as that was learnt.
type RangeAdvice uint8

const (
	InBlocks RangeAdvice = iota // nothing is known against blocks
	Alone                       // parts of it cannot be shared or put together
	Whole                       // its origin knows no ranges
	changing
)

// rangeSalts are the salts that keep what is learnt about ranges apart.
var rangeSalts = [...]uint64{Alone: 0x9e3779b97f4a7c15, Whole: 0xc2b2ae3d27d4eb4f, changing: 0x165667b19e3779f9}

// LearnRanges remembers for d how parts of what r asks for are had. Like what
// is uncacheable it is remembered for 65,536 keys.
func (c *Cache) LearnRanges(r *Request, a RangeAdvice, d time.Duration) {
	if a != InBlocks {
		c.ranges.add(c.memory.index.hash(r.Key)^rangeSalts[a], time.Now(), d)
	}
}

// Ranges tells what LearnRanges was told.
func (c *Cache) Ranges(r *Request, now time.Time) RangeAdvice {
	hash := c.memory.index.hash(r.Key)
	for _, a := range [...]RangeAdvice{Alone, Whole} {
		if c.ranges.has(hash^rangeSalts[a], now) {
			return a
		}
	}
	return InBlocks
}

// ChangedAgain remembers for d that what r asks for has changed, and reports
// whether that was remembered already.
func (c *Cache) ChangedAgain(r *Request, d time.Duration) bool {
	hash := c.memory.index.hash(r.Key) ^ rangeSalts[changing]
	if now := time.Now(); !c.ranges.has(hash, now) {
		c.ranges.add(hash, now, d)
		return false
	}
	return true
}

// incompleteOnDisk gathers what EachOnDisk meets of blocks: a head and its
// blocks are told of as one.
type incompleteOnDisk struct {
	heads map[string]*StoredOnDisk // by key and generation
	bytes map[string]int64
}

// take reports whether r is a head of blocks or a block; bad says that it is
// one and cannot be read.
func (o *incompleteOnDisk) take(r *disk.Record) (taken, bad bool) {
	key := string(r.Key)
	if whole, ok := strings.CutSuffix(key, headSuffix); ok {
		i, err := readIncomplete([]byte(whole), r)
		if err != nil {
			return true, true
		}
		o.heads[whole+blockSuffix+i.generation] = &StoredOnDisk{
			Stored: i.Stored, Key: whole, Host: r.Host, At: i.responseTime, Tags: i.tags, BlocksOf: i.Total,
		}
		return true, false
	}
	if strings.Count(key, " ") == 5 && strings.Contains(key, blockSuffix) {
		o.bytes[key[:strings.LastIndexByte(key, ' ')]] += r.Length
		return true, false
	}
	return false, false
}
