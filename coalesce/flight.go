package coalesce

import (
	"context"
	"hash/maphash"
	"sync"
)

// shards keeps the locks of unrelated keys apart; 64 of them are more than a
// machine's cores contend for.
const shards = 64

// A Group holds the flights under way, by key. Its zero value is not ready;
// use NewGroup. All methods may be called at once from any goroutine.
type Group[V any] struct {
	seed   maphash.Seed
	shards [shards]shard[V]
}

type shard[V any] struct {
	mu      sync.Mutex // guards flights
	flights map[string]*Flight[V]
}

// NewGroup returns a group without flights.
func NewGroup[V any]() *Group[V] {
	g := &Group[V]{seed: maphash.MakeSeed()}
	for i := range g.shards {
		g.shards[i].flights = make(map[string]*Flight[V])
	}
	return g
}

// A Flight is one piece of work under way for everybody who joined it.
type Flight[V any] struct {
	group  *Group[V]
	key    string
	shared bool // guarded by the shard's mu

	published chan struct{} // closed by Publish, after value is set
	once      sync.Once
	value     V
}

// Join returns the flight under way for the key and false, or begins one and
// returns it with true: then the caller is its leader, who must see to it that
// Publish and Land are called, whatever happens.
func (g *Group[V]) Join(key []byte) (f *Flight[V], leader bool) {
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.flights[string(key)]; ok {
		f.shared = true
		return f, false
	}
	f = &Flight[V]{group: g, key: string(key), published: make(chan struct{})}
	s.flights[f.key] = f
	return f, true
}

// Find returns the flight under way for the key, or nil. It begins none.
func (g *Group[V]) Find(key []byte) *Flight[V] {
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flights[string(key)]
}

// Len returns how many flights are under way.
func (g *Group[V]) Len() int {
	n := 0
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		n += len(s.flights)
		s.mu.Unlock()
	}
	return n
}

func (g *Group[V]) shard(key []byte) *shard[V] {
	return &g.shards[maphash.Bytes(g.seed, key)%shards]
}

// Key returns the key that the flight was begun for.
func (f *Flight[V]) Key() string { return f.key }

// Shared reports whether anybody but its leader has joined the flight by now.
func (f *Flight[V]) Shared() bool {
	s := f.group.shard([]byte(f.key))
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.shared
}

// Publish tells everybody who joined, now or later, what the flight brings.
// Only the first call counts.
func (f *Flight[V]) Publish(v V) {
	f.once.Do(func() {
		f.value = v
		close(f.published)
	})
}

// Land takes the flight off its group: who asks for the key from now on begins
// another. Landing twice does nothing. A leader lands when the next look-up
// will find what the flight brought, so that no second flight is begun for it.
func (f *Flight[V]) Land() {
	s := f.group.shard([]byte(f.key))
	s.mu.Lock()
	if s.flights[f.key] == f {
		delete(s.flights, f.key)
	}
	s.mu.Unlock()
}

// Wait returns what was published, or the context's error if that ends first.
func (f *Flight[V]) Wait(ctx context.Context) (V, error) {
	select {
	case <-f.published:
		return f.value, nil
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}
