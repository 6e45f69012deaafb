package cache

import "time"

// What is popular is freshened before it is stale, so that nobody waits, and
// each key at a time of its own, so that what was warmed together before the
// bell does not come due together in the middle of the lesson. Nothing is used
// for longer than its lifetime allows: the spread only shortens.

const (
	// earlyShare of a lifetime, its end, is when freshening may be due, but no
	// more than earlyMax: a tenth of an hour is enough to spread a school's
	// lessons over.
	earlyShare = 10
	earlyMax   = 5 * time.Minute
	// earlyMin: where less is left, one freshening would hunt the next.
	earlyMin = time.Second

	// Of the look-ups in that time the second says that it is popular; then
	// one in so many tries again, as a fetch may have failed.
	popularAt, againAt = 2, 64
)

// due reports whether a stored response that is fresh for as long as left is to
// be freshened now: for one look-up of many.
func (c *Cache) due(s *Stored, left time.Duration) bool {
	span := min(s.Verdict.Lifetime/earlyShare, earlyMax)
	if left >= span || span < earlyMin {
		return false
	}
	// The key says when within the first three quarters of the span.
	part := time.Duration(c.memory.index.hash(view(s.key)) >> 32 & 1023)
	if left > span-span*3/4*part/1024 {
		return false
	}
	n := s.late.Add(1)
	return n == popularAt || n%againAt == 0
}
