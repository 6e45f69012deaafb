package proxy

import (
	"bytes"
	"log/slog"
	"sync/atomic"
	"time"
)

// AccessLog says which exchanges get a line.
type AccessLog struct {
	Off bool
	// PerSecond lines are written in full; above that, one exchange of every
	// Sample is. 0 is 200 lines a second.
	PerSecond int
	// Sample is 100 when 0.
	Sample int
}

// accessLog writes one line per exchange, or per some at high rates; a line
// says for how many it stands.
type accessLog struct {
	log  atomic.Pointer[slog.Logger] // nil: off
	rule atomic.Pointer[AccessLog]

	second atomic.Int64 // the second that lines counts
	lines  atomic.Int64
}

func (a *accessLog) set(rule AccessLog, log *slog.Logger) {
	if rule.PerSecond <= 0 {
		rule.PerSecond = 200
	}
	if rule.Sample <= 0 {
		rule.Sample = 100
	}
	a.rule.Store(&rule)
	if rule.Off {
		log = nil
	}
	a.log.Store(log)
}

// stands returns for how many exchanges a line written now would stand; 0:
// write none.
func (a *accessLog) stands(now int64) int {
	rule := a.rule.Load()
	if last := a.second.Load(); last < now && a.second.CompareAndSwap(last, now) {
		a.lines.Store(0)
	}
	n := a.lines.Add(1)
	if n <= int64(rule.PerSecond) {
		return 1
	}
	if (n-int64(rule.PerSecond))%int64(rule.Sample) == 0 {
		return rule.Sample
	}
	return 0
}

// shown is the target as logs have it: a client that puts a secret into its
// query, as some platforms have it do, shall not put it into our log.
func (t *target) shown() string {
	if t.query == nil || !suspect(t.query) {
		return string(t.raw)
	}
	b := append(append([]byte(nil), t.path...), '?')
	for i, part := range bytes.Split(t.query, []byte("&")) {
		if i > 0 {
			b = append(b, '&')
		}
		name, _, given := bytes.Cut(part, []byte("="))
		if given && suspect(name) {
			b = append(append(b, name...), "=(hidden)"...)
		} else {
			b = append(b, part...)
		}
	}
	return string(b)
}

// secretNames are parts of the names of parameters that hold secrets.
var secretNames = [...]string{"token", "secret", "passw", "sess", "ticket", "jwt", "api_key", "apikey", "credential", "signature", "code", "%"}

// suspect reports whether text names a secret. A name that is percent-encoded
// may name anything.
func suspect(text []byte) bool {
	low := bytes.ToLower(text)
	for _, n := range secretNames {
		if bytes.Contains(low, []byte(n)) {
			return true
		}
	}
	return false
}

func (a *accessLog) line(x *exchange, took time.Duration) {
	log := a.log.Load()
	if log == nil {
		return
	}
	stands := a.stands(x.arrived.Add(took).Unix())
	if stands == 0 {
		return
	}
	if x.lived != nil {
		log = log.With("live", x.lived.kind.String(), "ended_by", x.lived.why.String(), "received", x.received)
	}
	log.Info("request",
		"method", x.method, "host", string(x.host), "target", x.target.shown(),
		"status", x.status, "outcome", x.outcome.String(), "bytes", x.sent,
		"took_us", took.Microseconds(), "remote", x.remote, "protocol", x.version, "stands_for", stands)
}
