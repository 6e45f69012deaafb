package proxy

import (
	"math/rand/v2"
	"sync"
	"time"

	"firstbell/coalesce"
)

const (
	// An origin's failure that met several, or followed upon another, answers
	// everybody who asks for the same within this time: long enough that a
	// thousand reloads are one question, short enough that nobody sees an error
	// of long ago. Spread, so that keys which failed together are not asked for
	// together again. What one client met once is asked for again at once: an
	// error without freshness of its own is not to be kept (RFC 9111 section
	// 4.2.2), and nobody but a crowd is worth the exception.
	holdMin, holdMax = 500 * time.Millisecond, 1500 * time.Millisecond
	// holdsMax bounds the table; beyond it failures are not held.
	holdsMax = 4096
)

// holds remembers which keys have just failed.
type holds struct {
	mu  sync.Mutex // guards all
	all map[string]*hold
}

type hold struct {
	until  time.Time
	again  bool // it answers; otherwise the next failure will
	status int
	err    error
}

// find returns the hold that answers for the key, or nil.
func (h *holds) find(key []byte, now time.Time) *hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.all[string(key)]
	if held != nil && !now.Before(held.until) {
		delete(h.all, string(key))
		return nil
	}
	if held == nil || !held.again {
		return nil
	}
	return held
}

// hold keeps a flight's failure for those who come after it.
func (p *Proxy) hold(f *coalesce.Flight[*landing], l *landing) {
	if l.err == nil {
		return
	}
	h, now := &p.holds, time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = make(map[string]*hold)
	}
	if len(h.all) >= holdsMax {
		for key, held := range h.all {
			if !now.Before(held.until) {
				delete(h.all, key)
			}
		}
	}
	before := h.all[f.Key()]
	if before != nil || len(h.all) < holdsMax {
		h.all[f.Key()] = &hold{
			until:  now.Add(holdMin + rand.N(holdMax-holdMin)),
			again:  f.Shared() || before != nil && now.Before(before.until),
			status: l.status, err: l.err,
		}
	}
}
