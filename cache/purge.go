package cache

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Selector names the stored responses that a purge is about.
type Selector struct {
	By   SelectBy
	Text string
}

// SelectBy says how a Selector's Text is read. Hosts are exact names, "*.name"
// for exactly one label more, or "*"; ports count for nothing but in ByURL.
// Percent-encodings are compared decoded, so a purge takes every spelling.
type SelectBy byte

const (
	ByURL    SelectBy = 'u' // authority, a space, path and query; of every scheme and variant
	ByHost   SelectBy = 'h' // a host
	ByPrefix SelectBy = 'p' // a host, a space, a path: it and what is below, in whole segments
	ByTag    SelectBy = 't' // a member of Surrogate-Key or Cache-Tag, compared byte for byte
)

func (by SelectBy) String() string {
	switch by {
	case ByURL:
		return "url"
	case ByHost:
		return "host"
	case ByPrefix:
		return "prefix"
	case ByTag:
		return "tag"
	}
	return fmt.Sprintf("%q", byte(by))
}

const (
	// rulesMax bounds the selectors that are remembered: at about 200 bytes
	// each some 13 MB. When there are more the older half is forgotten, and
	// with it every stored response that was neither in memory then nor stored
	// since: it might have been meant.
	rulesMax = 1 << 16

	// prefixDepthMax bounds the segments of a ByPrefix, and with them what
	// looking for one in a long path costs.
	prefixDepthMax = 32

	selectorBytesMax = 8 << 10
)

// id is the selector in the one form that is compared, or an error.
func (s Selector) id() (string, error) {
	if len(s.Text) == 0 || len(s.Text) > selectorBytesMax {
		return "", fmt.Errorf("purging by %s: write 1 to %d bytes, not %d", s.By, selectorBytesMax, len(s.Text))
	}
	host, path, two := strings.Cut(s.Text, " ")
	id := append(make([]byte, 0, len(s.Text)+1), byte(s.By))
	switch s.By {
	case ByTag:
		return string(append(id, s.Text...)), nil
	case ByHost:
		return string(appendLower(id, s.Text)), nil
	case ByURL:
		if !two || !strings.HasPrefix(path, "/") {
			return "", fmt.Errorf("purging by url %q: write an authority, a space and a path", s.Text)
		}
		return string(appendDecoded(append(appendLower(id, host), ' '), path)), nil
	case ByPrefix:
		path = strings.TrimRight(strings.TrimSuffix(path, "/*"), "/")
		if !two || path != "" && path[0] != '/' || strings.Count(path, "/") > prefixDepthMax {
			return "", fmt.Errorf("purging by prefix %q: write a host, a space and a path of up to %d segments", s.Text, prefixDepthMax)
		}
		return string(appendDecoded(append(appendLower(id, host), ' '), path)), nil
	}
	return "", fmt.Errorf("purging: there is no selector by %s", s.By)
}

func appendLower(dst []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

// appendDecoded appends s with its percent-encodings decoded.
func appendDecoded(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			if high, low := unhex(s[i+1]), unhex(s[i+2]); high >= 0 && low >= 0 {
				c = byte(high<<4 | low)
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// eachID calls yield with the id of every selector that means a response with
// the key and tags. The bytes are valid during the call.
func eachID(key string, tags []string, yield func(id []byte)) {
	room := idRooms.Get().(*[]byte)
	defer idRooms.Put(room)
	_, rest, _ := strings.Cut(key, " ")
	authority, target, _ := strings.Cut(rest, " ")
	b := append(append(append((*room)[:0], byte(ByURL)), authority...), ' ')
	b = appendDecoded(b, target)
	yield(b)
	for _, tag := range tags {
		b = append(append(b[:0], byte(ByTag)), tag...)
		yield(b)
	}
	path, _, _ := strings.Cut(target, "?")
	name := hostOf(authority)
	_, parent, wild := strings.Cut(name, ".")
	b = eachIDAt(b, "", name, path, yield)
	if wild {
		b = eachIDAt(b, "*.", parent, path, yield)
	}
	*room = eachIDAt(b, "", "*", path, yield)
}

// idRooms are the buffers of eachID; targets and tags bound how large they get.
var idRooms = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// eachIDAt yields the selectors by one host, and by the prefixes there.
func eachIDAt(b []byte, star, host, path string, yield func(id []byte)) []byte {
	b = append(append(append(b[:0], byte(ByHost)), star...), host...)
	yield(b)
	b[0] = byte(ByPrefix)
	b = append(b, ' ')
	start := len(b)
	b = appendDecoded(b, path)
	depth := 0
	for i := start; i <= len(b) && depth <= prefixDepthMax; i++ {
		if i == len(b) || b[i] == '/' {
			depth++
			yield(b[:i])
		}
	}
	return b
}

// hostOf is an authority of a key without its port and final dot.
func hostOf(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && strings.IndexByte(authority[i:], ']') < 0 {
		authority = authority[:i]
	}
	return strings.TrimSuffix(authority, ".")
}

// purges remembers what was purged when, in generations that only grow: the
// microsecond of the purge, or one more than the last. A stored response knows
// the generation in which its fetch began. A rule that is younger means it, so
// a purge costs the same however much is stored, holds for fetches under way
// when it was asked for, and holds for what is found on disk after a restart.
type purges struct {
	latest atomic.Uint64 // generation of the youngest rule; written under mu

	mu    sync.RWMutex // guards all below; look-ups take it once per stored response and purge
	rules map[string]rule
	floor uint64 // rules up to this generation are forgotten
	file  *purgeFile
	shut  *purgeFile // what file was until another process got it
}

// rule holds the generations in which a selector was last purged, 0 for never.
type rule struct{ hard, soft uint64 }

func (r rule) youngest() uint64 { return max(r.hard, r.soft) }

// add puts the selectors in force. When it returns, every look-up that begins
// sees them, whatever the error: that says only that they could not be written
// down, and will be forgotten with the process.
func (p *purges) add(ids []string, hard bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	generation := max(p.latest.Load()+1, uint64(max(0, time.Now().UnixMicro())))
	err := p.file.append(generation, hard, ids)
	for _, id := range ids {
		p.setLocked(id, hard, generation)
	}
	p.latest.Store(generation)
	if err != nil {
		err = p.file.rewrite(p.floor, generation, p.rules) // perhaps there is room again
	}
	return err
}

func (p *purges) setLocked(id string, hard bool, generation uint64) {
	if p.rules == nil {
		p.rules = make(map[string]rule)
	}
	r := p.rules[id]
	if hard {
		r.hard = generation
	} else {
		r.soft = generation
	}
	p.rules[id] = r
}

// full reports whether no n selectors more should be added.
func (p *purges) full(n int) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.rules)+n > rulesMax
}

// forgetHalf forgets the older half of the rules.
func (p *purges) forgetHalf() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rules) == 0 {
		return nil
	}
	ages := make([]uint64, 0, len(p.rules))
	for _, r := range p.rules {
		ages = append(ages, r.youngest())
	}
	slices.Sort(ages)
	p.floor = max(p.floor, ages[len(ages)/2])
	for id, r := range p.rules {
		if r.youngest() <= p.floor {
			delete(p.rules, id)
		}
	}
	return p.file.rewrite(p.floor, p.latest.Load(), p.rules)
}

// look reports whether a rule takes s out. A soft one makes s stale instead.
func (p *purges) look(s *Stored) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	latest := p.latest.Load()
	if s.born < p.floor && s.seen.Load() < p.floor {
		return true
	}
	var found rule
	eachID(s.key, s.tags, func(id []byte) {
		r := p.rules[string(id)]
		found = rule{max(found.hard, r.hard), max(found.soft, r.soft)}
	})
	if found.hard > s.born {
		return true
	}
	if found.soft > s.born {
		s.soft.Store(max(s.soft.Load(), found.soft))
	}
	s.seen.Store(latest)
	return false
}

// Begin notes in r, before its fetch is sent, what has been purged and
// invalidated by now. What the fetch brings is kept only if nothing that came
// later means it. A request that was never begun counts as older than every
// purge.
func (c *Cache) Begin(r *Request) {
	r.born = c.purges.latest.Load()
	r.change = c.memory.changes(r.Key)
}

// Gone reports whether s was purged for good or invalidated since the fetch
// began that brought it.
func (c *Cache) Gone(s *Stored) bool {
	return c.purged(s) || c.memory.changes(view(s.key)) != s.change
}

// Outdated reports whether s was purged, for good or softly, or invalidated
// since the fetch began that brought it: it may answer those who asked before,
// and without a validation nobody after.
func (c *Cache) Outdated(s *Stored) bool { return c.Gone(s) || s.soft.Load() != 0 }

// purged reports whether a hard purge took s out. One that was purged softly
// is stale from then on. Between purges it costs a comparison.
func (c *Cache) purged(s *Stored) bool {
	return s.seen.Load() < c.purges.latest.Load() && c.purges.look(s)
}

// Purge makes every stored response that a selector means stale since now, or,
// when hard is set, takes it out. It holds when Purge returns, also for fetches
// that began before and for what lies on disk. counts says about how many
// stored responses in memory each selector meant; what look-ups took out
// meanwhile is not counted, nor is what only the disk holds (see CountPurge). On
// an error about a selector nothing has changed; on one about writing the purge
// down it holds, but may be forgotten with the process.
func (c *Cache) Purge(selectors []Selector, hard bool) (counts []int64, err error) {
	counts, err = c.PurgeHere(selectors, hard)
	if other := c.peer.Load(); other != nil && counts != nil {
		other.Purged(selectors, hard)
	}
	return counts, err
}

// PurgeHere is Purge for what another process has told of: it is not told again.
func (c *Cache) PurgeHere(selectors []Selector, hard bool) (counts []int64, err error) {
	ids, err := idsOf(selectors)
	if err != nil {
		return nil, err
	}
	if c.purges.full(len(ids)) {
		c.survey(nil) // what is in memory has now been held against every rule
		err = c.purges.forgetHalf()
	}
	if added := c.purges.add(ids, hard); added != nil {
		err = added
	}
	c.purgeCount.Add(uint64(len(ids)))
	return c.countIDs(ids), err
}

// CountPurge says how many stored responses each selector means, in memory and
// on disk, and changes nothing. What lies on disk is read to tell: whole is
// false when ctx ended before all of it was, and the counts say at least how
// many there are. A response whose fetch has just ended may be counted twice, or
// not at all.
func (c *Cache) CountPurge(ctx context.Context, selectors []Selector) (counts []int64, whole bool, err error) {
	ids, err := idsOf(selectors)
	if err != nil {
		return nil, false, err
	}
	counts, whole = c.countIDs(ids), true
	if c.tier != nil {
		whole, err = c.countOnDisk(ctx, ids, counts)
	}
	return counts, whole, err
}

// countOnDisk adds to the counts what lies on disk and not in memory.
func (c *Cache) countOnDisk(ctx context.Context, ids []string, counts []int64) (whole bool, err error) {
	found := make(map[string]int64, len(ids))
	for _, id := range ids {
		found[id] = 0
	}
	whole = true
	_, err = EachOnDisk(c.tier.dir, func(s *StoredOnDisk) bool {
		if whole = ctx.Err() == nil; !whole {
			return false
		}
		if s.Purged || c.memory.holds(s.Stored) {
			return true
		}
		eachID(s.key, s.tags, func(id []byte) {
			if n, wanted := found[string(id)]; wanted {
				found[string(id)] = n + 1
			}
		})
		return true
	})
	for i, id := range ids {
		counts[i] += found[id]
	}
	return whole, err
}

func idsOf(selectors []Selector) ([]string, error) {
	ids := make([]string, len(selectors))
	for i, s := range selectors {
		id, err := s.id()
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	return ids, nil
}

// tagsOf reads the tags of a response: Surrogate-Key has spaces between its
// members, Cache-Tag commas.
func tagsOf(surrogateKey, cacheTag []byte) (tags []string) {
	for _, tag := range bytes.FieldsFunc(surrogateKey, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
		tags = append(tags, string(tag))
	}
	for member := range bytes.SplitSeq(cacheTag, []byte(",")) {
		if tag := bytes.Trim(member, " \t"); len(tag) > 0 {
			tags = append(tags, string(tag))
		}
	}
	return tags
}

// TagField reports whether a field holds tags for purges. Such fields speak to
// caches run by the origin's own people and are not sent to clients.
func TagField(name []byte) bool {
	switch len(name) {
	case len("Surrogate-Key"):
		return bytes.EqualFold(name, []byte("Surrogate-Key"))
	case len("Cache-Tag"):
		return bytes.EqualFold(name, []byte("Cache-Tag"))
	}
	return false
}
