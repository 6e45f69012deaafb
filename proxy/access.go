package proxy

import (
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

func (a *accessLog) line(x *exchange, took time.Duration) {
	log := a.log.Load()
	if log == nil {
		return
	}
	stands := a.stands(x.arrived.Add(took).Unix())
	if stands == 0 {
		return
	}
	log.Info("request",
		"method", x.method, "host", string(x.host), "target", string(x.target.raw),
		"status", x.status, "outcome", x.outcome.String(), "bytes", x.sent,
		"took_us", took.Microseconds(), "remote", x.remote, "stands_for", stands)
}
