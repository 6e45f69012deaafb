package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// fetchMax bounds one fetch of a key set, and how long a request waits for it.
	fetchMax = 5 * time.Second
	// unknownPause is how long a key id that was asked for in vain stays unknown:
	// an issuer is asked for strangers' tokens at most this often.
	unknownPause = 10 * time.Second
	// retryMin is the first pause after a fetch that failed; it doubles up to
	// the usual time between two.
	retryMin = 5 * time.Second
	// DefaultRefresh is the time between two looks at an issuer's keys.
	DefaultRefresh = 10 * time.Minute
)

// KeySetConfig says where a key set is found.
type KeySetConfig struct {
	Location string        // an http:// or https:// URL, or a file
	Keep     string        // a file of ours that holds the last good set of a URL; empty: none is kept
	Refresh  time.Duration // 0: DefaultRefresh
	Log      *slog.Logger  // nil: nothing is logged
	Client   *http.Client  // nil: one with limits
}

// A KeySet is the public keys of an issuer. It is looked at again and again by
// Run, and out of turn when a token names a key that is not there; a set that
// cannot be had or makes no sense leaves the one before it in force, for ever
// if need be.
type KeySet struct {
	cfg KeySetConfig
	log *slog.Logger
	now atomic.Pointer[keys] // nil until a good set is known

	kick chan struct{} // holds one when Run shall fetch out of turn

	mu      sync.Mutex // guards what follows
	pending chan struct{}
	asked   time.Time // when a fetch out of turn was last begun
	state   KeyStats
}

// KeyStats say how a key set does.
type KeyStats struct {
	Location string
	Keys     int
	Ignored  int       // entries of the set that are for something else
	Fetched  time.Time // of the last good answer of this process; zero: none yet
	Since    time.Time // since when the keys in force are in force
	Kept     bool      // they are those of an earlier process
	Fetches  uint64
	Failures uint64
	Err      string // why the last look failed; empty when it did not
}

// OpenKeySet returns the key set of a file, which must be good, or of a URL,
// with the keys that an earlier process kept, if any. Run begins the looking.
func OpenKeySet(c KeySetConfig) (*KeySet, error) {
	if c.Refresh <= 0 {
		c.Refresh = DefaultRefresh
	}
	if c.Client == nil {
		c.Client = &http.Client{Timeout: fetchMax, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	k := &KeySet{cfg: c, log: c.Log, kick: make(chan struct{}, 1)}
	k.state.Location = c.Location
	if !k.remote() {
		if err := k.look(context.Background()); err != nil {
			return nil, err
		}
		return k, nil
	}
	if c.Keep == "" {
		return k, nil
	}
	text, err := os.ReadFile(c.Keep)
	if errors.Is(err, os.ErrNotExist) {
		return k, nil
	}
	var set *keys
	if err == nil {
		set, err = parseKeySet(text)
	}
	if err != nil {
		k.log.Error("the kept key set is not used", "file", c.Keep, "error", err)
		return k, nil
	}
	k.put(set, true)
	return k, nil
}

// IsURL reports whether a location is a URL rather than a file.
func IsURL(location string) bool {
	return strings.HasPrefix(location, "http://") || strings.HasPrefix(location, "https://")
}

func (k *KeySet) remote() bool { return IsURL(k.cfg.Location) }

// epoch changes when keys were withdrawn.
func (k *KeySet) epoch() uint32 {
	if set := k.now.Load(); set != nil {
		return set.epoch
	}
	return 0
}

// find returns the keys that a token of this algorithm and key id may be signed
// with, at least one. It waits for a look at the issuer when nothing fits and
// none was begun lately.
func (k *KeySet) find(ctx context.Context, alg, id string) ([]key, *Refusal) {
	for waited := false; ; waited = true {
		set := k.now.Load()
		if set != nil {
			if fit := set.named(alg, id); len(fit) > 0 {
				return fit, nil
			}
			if id != "" && set.knows(id) {
				return nil, invalid("the token's algorithm is not that of its key")
			}
		}
		if waited || !k.await(ctx) {
			return nil, k.notFound(set == nil)
		}
	}
}

// notFound is what a token hears whose key is not known.
func (k *KeySet) notFound(none bool) *Refusal {
	k.mu.Lock()
	failing := k.state.Err != ""
	k.mu.Unlock()
	if none || failing {
		return down("the keys of the login service are not known at the moment", unknownPause)
	}
	return invalid("the token is signed with a key that its issuer does not have")
}

// await waits for a look at the issuer, one for all who want it; false when
// none is due or it takes too long.
func (k *KeySet) await(ctx context.Context) bool {
	k.mu.Lock()
	if k.pending == nil {
		if now := time.Now(); now.Sub(k.asked) >= unknownPause {
			k.asked, k.pending = now, make(chan struct{})
			select {
			case k.kick <- struct{}{}:
			default: // Run has not taken the last one yet
			}
		}
	}
	pending := k.pending
	k.mu.Unlock()
	if pending == nil {
		return false
	}
	limit := time.NewTimer(fetchMax)
	defer limit.Stop()
	select {
	case <-pending:
		return true
	case <-limit.C:
	case <-ctx.Done():
	}
	return false
}

// Run keeps the set in step with its issuer until ctx ends.
func (k *KeySet) Run(ctx context.Context) error {
	pause := retryMin
	for {
		err := k.look(ctx)
		k.settle()
		wait := k.cfg.Refresh
		if err != nil {
			wait, pause = min(pause, wait), min(2*pause, wait)
		} else {
			pause = retryMin
		}
		timer := time.NewTimer(wait - rand.N(wait/8+1)) // many gates do not ask at once
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-k.kick:
			timer.Stop()
		}
	}
}

// settle tells those who wait that a look is over.
func (k *KeySet) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pending != nil {
		close(k.pending)
		k.pending = nil
	}
}

// look gets the set once. After an error the keys in force are those of before.
func (k *KeySet) look(ctx context.Context) error {
	text, err := k.get(ctx)
	var set *keys
	if err == nil {
		set, err = parseKeySet(text)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // we end; the issuer is not to blame
		}
		err = fmt.Errorf("looking for keys at %s: %w", k.cfg.Location, err)
		k.failed(err)
		return err
	}
	k.put(set, false)
	if k.remote() && k.cfg.Keep != "" {
		if err := keep(k.cfg.Keep, text); err != nil {
			k.log.Warn("the key set is not kept for the next start", "error", err)
		}
	}
	return nil
}

// failed notes why a look failed; the log hears of it when the reason is new.
func (k *KeySet) failed(err error) {
	k.mu.Lock()
	news := k.state.Err != err.Error()
	k.state.Fetches++
	k.state.Failures++
	k.state.Err = err.Error()
	known := k.state.Keys
	k.mu.Unlock()
	if news {
		k.log.Error("a key set is refused, the keys from before stay in force", "keys", known, "error", err)
	}
}

// put brings a good set in force.
func (k *KeySet) put(set *keys, kept bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.now.Load()
	same := old != nil && set.keepsAll(old) && len(set.all) == len(old.all)
	if old != nil {
		set.epoch = old.epoch
		if !set.keepsAll(old) {
			set.epoch++
		}
	}
	k.now.Store(set)
	s := &k.state
	if s.Err != "" {
		k.log.Info("the key set can be had again", "location", k.cfg.Location)
	}
	if !kept {
		s.Fetches++
		s.Fetched = time.Now()
	}
	s.Kept, s.Err, s.Keys, s.Ignored = kept, "", len(set.all), set.ignored
	if !same {
		s.Since = time.Now()
		k.log.Info("keys are in force", "location", k.cfg.Location, "keys", len(set.all), "kept_from_before", kept)
	}
}

// Stats returns how the set does.
func (k *KeySet) Stats() KeyStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// get reads the set's text, at most one byte more than it may have.
func (k *KeySet) get(ctx context.Context) ([]byte, error) {
	if !k.remote() {
		f, err := os.Open(k.cfg.Location)
		if err != nil {
			return nil, errors.Unwrap(err)
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, keySetBytesMax+1))
	}
	ctx, cancel := context.WithTimeout(ctx, fetchMax)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.cfg.Location, nil)
	if err != nil {
		return nil, errors.New("it is not a URL")
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "firstbell")
	res, err := k.cfg.Client.Do(req)
	if err != nil {
		return nil, errors.Unwrap(err) // less the URL, which the caller says
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return nil, fmt.Errorf("it answers %d, a redirect; write the URL that it leads to", res.StatusCode)
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answers %d", res.StatusCode)
	}
	return io.ReadAll(io.LimitReader(res.Body, keySetBytesMax+1))
}

// keep writes the set so that the file is always whole: the old one or the new.
func keep(name string, text []byte) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, text) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("keeping keys in %s: %w", name, err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // what is left of it is of no use
		return fmt.Errorf("keeping keys in %s: %w", name, err)
	}
	return nil
}
