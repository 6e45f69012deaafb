package lms

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Heart says how much the platform bears. Zero values get the defaults named.
type Heart struct {
	Places   int           // requests served at a time; 40
	Waiting  int           // may wait behind them, the rest is refused; 8 times Places
	Bears    time.Duration // how long it may be full before it falls; 4 s
	Down     time.Duration // how long it lies after a fall; 2 s
	Recovery time.Duration // how long it is weak after that; 6 s
}

func (h *Heart) complete() {
	if h.Places <= 0 {
		h.Places = 40
	}
	if h.Waiting <= 0 {
		h.Waiting = 8 * h.Places
	}
	if h.Bears <= 0 {
		h.Bears = 4 * time.Second
	}
	if h.Down <= 0 {
		h.Down = 2 * time.Second
	}
	if h.Recovery <= 0 {
		h.Recovery = 6 * time.Second
	}
}

// errDown says that the platform lies on the floor, or has no room to wait in.
var errDown = errors.New("the platform is down")

const (
	// stretchMax is how much longer a request takes under the most pressure.
	stretchMax = 2.5
	// weakness is how much longer one takes at the first moment after a fall.
	weakness = 1.5
)

// heart is a Heart at work.
type heart struct {
	Heart
	places chan struct{} // a token per request being served

	mu        sync.Mutex // guards what follows
	inside    int
	mostIn    int
	falls     int
	fullSince time.Time // when it last became full; zero: it is not
	downUntil time.Time
	fallen    chan struct{} // closed by the next fall
}

func newHeart(cfg Heart) *heart {
	cfg.complete()
	return &heart{Heart: cfg, places: make(chan struct{}, cfg.Places), fallen: make(chan struct{})}
}

// beat serves one request that takes the given time on a quiet day. The error
// is errDown when the heart lies or falls meanwhile, or the context's when the
// client has gone.
func (h *heart) beat(ctx context.Context, service time.Duration) error {
	fallen, err := h.enter(time.Now())
	if err != nil {
		return err
	}
	defer h.leave()
	select {
	case h.places <- struct{}{}:
	case <-fallen:
		return errDown
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.places }()
	timer := time.NewTimer(time.Duration(float64(service) * h.stretch(time.Now())))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-fallen:
		return errDown
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter lets a request in, or finds that it is one too many.
func (h *heart) enter(now time.Time) (fallen <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.downUntil) {
		return nil, errDown
	}
	if h.inside >= h.Places+h.Waiting {
		switch {
		case h.fullSince.IsZero():
			h.fullSince = now
		case now.Sub(h.fullSince) >= h.Bears:
			h.fallLocked(now)
		}
		return nil, errDown
	}
	// Half empty again: it has come to itself.
	if h.inside < h.Places+h.Waiting/2 {
		h.fullSince = time.Time{}
	}
	h.inside++
	h.mostIn = max(h.mostIn, h.inside)
	return h.fallen, nil
}

// fallLocked cuts off everything that is inside. Requires h.mu.
func (h *heart) fallLocked(now time.Time) {
	h.falls++
	h.fullSince = time.Time{}
	h.downUntil = now.Add(h.Down)
	close(h.fallen)
	h.fallen = make(chan struct{})
}

func (h *heart) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inside--
}

// stretch is by how much a request takes longer now than on a quiet day: up to
// the number of places not at all, then in proportion to those waiting, and
// more so in the time after a fall.
func (h *heart) stretch(now time.Time) float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := 1.0
	if over := h.inside - h.Places; over > 0 {
		s = min(1+float64(over)/float64(h.Places), stretchMax)
	}
	if h.falls > 0 {
		if left := h.downUntil.Add(h.Recovery).Sub(now); left > 0 {
			s *= 1 + (weakness-1)*min(1, left.Seconds()/h.Recovery.Seconds())
		}
	}
	return s
}

// up reports whether the heart beats.
func (h *heart) up(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !now.Before(h.downUntil)
}

// insideNow is how many requests are inside, those waiting included.
func (h *heart) insideNow() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inside
}
