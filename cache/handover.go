package cache

import (
	"iter"
	"slices"

	"firstbell/cache/disk"
)

// Handed is a stored response on its way from one process to the next.
type Handed struct {
	Key, Variant, Head, Body []byte

	OnDisk uint64 // the number of its record on disk; 0: it is in memory alone
	Soft   uint64 // generation of the purge that made it stale, or 0
	Kept   bool   // it was asked for again and again: memory keeps it longer
}

// A Peer is the cache of another process that answers for the same responses:
// while one firstbell takes over from another there are two. Its methods are
// called by many at once. They wait for the other process, but not for long:
// when it is gone they do nothing.
type Peer interface {
	// Ask returns what the other has in memory, or is about to have, of a key.
	Ask(key []byte) []Handed
	// Stored hears that something was stored under a key. It does not wait.
	Stored(key []byte)
	// Invalidated has the other invalidate a key.
	Invalidated(key []byte)
	// Purged has the other purge.
	Purged(selectors []Selector, hard bool)
}

// peering is a Peer and what was so when it came.
type peering struct {
	Peer
	changed [len(memory{}.changed)]uint32
}

// SetPeer has look-ups that find nothing ask p, and tells it what is
// invalidated and purged: Invalidate and Purge return when it knows. Nil ends
// that.
func (c *Cache) SetPeer(p Peer) {
	if p == nil {
		c.peer.Store(nil)
		return
	}
	with := &peering{Peer: p}
	for i := range with.changed {
		with.changed[i] = c.memory.changed[i].Load()
	}
	c.peer.Store(with)
}

// lookElsewhere is the look-up of what is neither in memory nor on disk, while
// another process may have it. It reports whether memory has something of the
// key now.
func (c *Cache) lookElsewhere(p *peering, key []byte) (came bool) {
	all := p.Ask(key)
	for i := range all {
		came = c.adopt(p, &all[i]) || came
	}
	return came
}

// Adopt stores what another process had, unless it is there already, or was
// invalidated or purged here since SetPeer. What the other has written to the
// disk that is ours now is not written again. It reports whether it was stored.
func (c *Cache) Adopt(h *Handed) bool {
	p := c.peer.Load()
	return p != nil && c.adopt(p, h)
}

func (c *Cache) adopt(p *peering, h *Handed) bool {
	s, err := readStored(h.Key, h.Variant, h.Head)
	if err != nil {
		return false // of another version of firstbell
	}
	s.Body = h.Body
	c.page(s)
	s.soft.Store(h.Soft)
	// A look-up goes by whether anything of the cell was invalidated: the other
	// process may have sent this before it heard.
	s.change = p.changed[c.memory.index.hash(h.Key)%uint64(len(p.changed))]
	if h.OnDisk != 0 && c.tier != nil && c.tier.has(h) {
		s.onDisk.Store(h.OnDisk)
	}
	s.index()
	there := func(*Stored) bool { return true }
	if c.purged(s) || !c.memory.put(s, there) {
		return false
	}
	if h.Kept {
		c.memory.keepLonger(h.Key)
	}
	if c.tier != nil && s.onDisk.Load() == 0 {
		c.tier.put(s)
	}
	return true
}

// has reports whether the disk has the record that h says.
func (t *tier) has(h *Handed) bool {
	return slices.ContainsFunc(t.store.Find(h.Key), func(ref disk.Ref) bool { return ref.Seq == h.OnDisk })
}

// keepLonger has an entry that has just come stay as if it had been asked for.
func (m *memory) keepLonger(key []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.index.get(m.index.hash(key))
	if e == nil || e.key != string(key) || e.where.Load() != inWindow {
		return
	}
	m.window.remove(e)
	m.main.push(e)
}

// HandOver yields everything that memory holds, and what waits for the disk. It
// takes no lock.
func (c *Cache) HandOver() iter.Seq[Handed] {
	return func(yield func(Handed) bool) {
		done := false
		c.memory.index.each(func(e *entry) {
			for _, s := range e.variants {
				done = done || !c.purged(s) && !yield(handed(e, s))
			}
		})
		if c.tier == nil || done {
			return
		}
		c.tier.mu.Lock()
		waiting := slices.Clone(c.tier.queue)
		c.tier.mu.Unlock()
		for _, s := range waiting {
			if !c.Gone(s) && !c.Holds(s) && !yield(handed(&s.entry, s)) {
				return
			}
		}
	}
}

// HandOverOf returns what memory holds of a key.
func (c *Cache) HandOverOf(key []byte) (all []Handed) {
	e := c.memory.index.get(c.memory.index.hash(key))
	if e == nil || e.key != string(key) {
		return nil
	}
	for _, s := range e.variants {
		if !c.purged(s) {
			all = append(all, handed(e, s))
		}
	}
	return all
}

func handed(e *entry, s *Stored) Handed {
	return Handed{
		Key: []byte(s.key), Variant: []byte(s.variant), Head: s.appendHead(nil), Body: s.Bytes(),
		OnDisk: s.onDisk.Load(), Soft: s.soft.Load(), Kept: e.where.Load() == inMain,
	}
}

// Release gives the disk, and the file of purges, to another process. From here
// on this cache reads what is there, as far as the other leaves it, and writes
// nothing.
func (c *Cache) Release() error {
	c.purges.mu.Lock()
	err := c.purges.file.close()
	c.purges.shut, c.purges.file = c.purges.file, nil
	c.purges.mu.Unlock()
	if c.tier == nil {
		return err
	}
	if released := c.tier.store.Release(); err == nil {
		err = released
	}
	return err
}

// Retake takes back what Release gave away, once the other process is gone.
func (c *Cache) Retake() error {
	if c.tier != nil {
		if err := c.tier.store.Retake(); err != nil {
			return err
		}
	}
	c.purges.mu.Lock()
	defer c.purges.mu.Unlock()
	if c.purges.shut == nil {
		return nil
	}
	c.purges.file, c.purges.shut = &purgeFile{path: c.purges.shut.path}, nil
	return c.purges.file.rewrite(c.purges.floor, c.purges.latest.Load(), c.purges.rules)
}
