package cache

import "fmt"

// pins are the stored responses that the budget never pushes out.
type pins struct {
	ids   map[string]bool // of selectors
	bytes int64           // they may take
}

// means reports whether a stored response with the key is to stay.
func (p *pins) means(key string) (yes bool) {
	if len(p.ids) == 0 {
		return false
	}
	eachID(key, nil, func(id []byte) { yes = yes || p.ids[string(id)] })
	return yes
}

// Pin has what the selectors mean, by URL, host or prefix, stay in memory
// until it is purged, invalidated or replaced, as long as all of it takes no
// more than so many bytes; 0 is a quarter of the memory, and more than half an
// error. What is beyond is kept like everything else and counted. It takes the
// place of what was pinned before, for what is stored already, too.
func (c *Cache) Pin(selectors []Selector, bytes int64) error {
	m := c.memory
	if bytes == 0 {
		bytes = m.budget / 4
	}
	if bytes < 0 || bytes > m.budget/2 {
		return fmt.Errorf("pinning %d bytes: of %d bytes of cache memory at most half can be pinned", bytes, m.budget)
	}
	ids, err := idsOf(selectors)
	if err != nil {
		return fmt.Errorf("pinning: %w", err)
	}
	p := &pins{ids: make(map[string]bool, len(ids)), bytes: bytes}
	for i, id := range ids {
		if selectors[i].By == ByTag {
			return fmt.Errorf("pinning by tag %q: only urls, hosts and prefixes can be pinned", selectors[i].Text)
		}
		p.ids[id] = true
	}
	m.pins.Store(p)
	m.index.each(m.pinAgain)
	return nil
}

// pinAgain moves an entry to where the pins in force say.
func (m *memory) pinAgain(e *entry) {
	pinned := m.pins.Load().means(e.key)
	if !pinned && e.where.Load() != inPinned {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch where := e.where.Load(); {
	case where == gone || pinned == (where == inPinned):
		return
	case !pinned:
		m.pinned.remove(e)
		m.main.push(e)
	case m.pinned.bytes+e.size > m.pins.Load().bytes:
		m.counts.pinsRefused++
	default:
		m.listOf(e).remove(e)
		m.pinned.push(e)
	}
}
