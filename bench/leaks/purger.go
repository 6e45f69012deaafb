package leaks

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"
)

// purgeEvery is the mean time between two purges.
const purgeEvery = 400 * time.Millisecond

// purgeAll edits resources and has the proxy forget them, until there are
// enough questions.
func (w *world) purgeAll(ctx context.Context) {
	rng := rand.New(rand.NewPCG(w.options.Seed, 1<<32))
	for ctx.Err() == nil && int(w.questions.Load()) < w.options.Requests {
		time.Sleep(rand.N(2 * purgeEvery))
		res := w.resources[rng.IntN(len(w.resources))]
		p := Purge{Hard: rng.IntN(2) == 0}
		switch rng.IntN(8) {
		case 0:
			p.Host = res.host
		case 1, 2:
			path, _, _ := strings.Cut(res.target, "?")
			p.Prefix = res.host + path + "/*"
		case 3, 4:
			p.Tag = res.kind.name
		default:
			p.URL = res.host + res.target
		}
		w.purge(p)
	}
}

// purge edits all that p means, and holds the proxy to it from the purge's
// return on.
func (w *world) purge(p Purge) {
	var meant []*resource
	var versions []uint32
	for _, r := range w.resources {
		if p.means(r) {
			meant, versions = append(meant, r), append(versions, r.version.Add(1))
			r.note("is edited, to be purged", 0, 0, 0)
		}
	}
	if err := w.options.Purge(p); err != nil {
		w.found(Finding{Leak: Causeless, Detail: "purging: " + err.Error()})
		return
	}
	for i, r := range meant {
		if p.Hard {
			r.confirm(versions[i])
			r.note("is purged", 0, 0, 0)
			continue
		}
		r.mu.Lock()
		r.soft, r.softAt = versions[i], time.Now()
		r.mu.Unlock()
		r.note("is made stale", 0, 0, 0)
	}
	w.count(func(r *Report) { r.Purges++ })
}

// means reports whether the purge is about r.
func (p Purge) means(r *resource) bool {
	path, _, _ := strings.Cut(r.target, "?")
	prefix := strings.TrimSuffix(p.Prefix, "/*")
	full := r.host + path
	switch {
	case p.URL != "":
		return p.URL == r.host+r.target
	case p.Host != "":
		return p.Host == r.host
	case p.Prefix != "":
		return full == prefix || strings.HasPrefix(full, prefix+"/")
	}
	return p.Tag == r.kind.name
}

// madeStale is the version before which what is stored has been made stale, and
// when.
func (r *resource) madeStale() (version uint32, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.soft, r.softAt
}
