package cache

import "sync"

// census counts the stored responses that selectors mean. Whoever asks while a
// walk is under way shares the next one, so that a hundred purges a second
// cost two walks at a time and not a hundred.
type census struct {
	walking sync.Mutex // held by who walks

	mu   sync.Mutex // guards next
	next *count     // the walk that new questions join; nil: none waits
}

// count is one walk and what it looks for.
type count struct {
	wanted map[string]*int64 // written under census.mu until the walk begins
	done   chan struct{}
}

// countIDs returns how many stored responses each id means. What a hard purge
// took out is dropped on the way and not counted again.
func (c *Cache) countIDs(ids []string) []int64 {
	found := c.survey(ids)
	counts := make([]int64, len(ids))
	for i, id := range ids {
		counts[i] = *found[id]
	}
	return counts
}

// survey joins the next walk, or begins it, and returns what it found.
func (c *Cache) survey(ids []string) map[string]*int64 {
	s := &c.census
	s.mu.Lock()
	n, leads := s.next, false
	if n == nil {
		n, leads = &count{wanted: make(map[string]*int64), done: make(chan struct{})}, true
		s.next = n
	}
	for _, id := range ids {
		if n.wanted[id] == nil {
			n.wanted[id] = new(int64)
		}
	}
	s.mu.Unlock()
	if !leads {
		<-n.done
		return n.wanted
	}
	s.walking.Lock()
	defer s.walking.Unlock()
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	defer close(n.done)
	c.memory.each(func(r *Stored) { c.held(r, n.wanted) })
	return n.wanted
}

// held holds r against the rules, drops it if one takes it out, and counts for
// those whose selectors mean it.
func (c *Cache) held(r *Stored, wanted map[string]*int64) {
	eachID(r.key, r.tags, func(id []byte) {
		if n := wanted[string(id)]; n != nil {
			*n++
		}
	})
	if c.purged(r) {
		c.memory.swap(r, nil)
	}
}
