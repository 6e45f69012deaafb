package attendance

import (
	"time"

	"firstbell/attendance/timetable"
)

// claim is a press with everything decided that its record holds: whose it is,
// when it arrived and what that counts for.
type claim struct {
	press  Press
	school School
	nowMs  int64

	first   time.Time // first arrival, in the school's zone
	firstMs int64
	basis   Basis
	date    timetable.Date
	period  string // a period's name or OutsidePeriod
	status  timetable.Status

	day     *day
	id      ReceiptID
	digest  uint64 // of the key
	attempt uint64 // digest of the attempt, 0 without one
}

// place decides what c, which holds only its press, claims. An error is a
// *FieldError.
func (r *Recorder) place(c *claim) error {
	p := &c.press
	if err := p.validate(); err != nil {
		return err
	}
	c.school, c.nowMs = r.schools.Load().Find(p.Host), time.Now().UnixMilli()
	h := r.hashers.get()
	defer r.hashers.put(h)
	if p.Attempt != "" {
		c.attempt = h.attempt(c.school.ID, p.Student, p.Attempt)
	}
	if !r.placeByAttempt(c, h) && !r.placeByToken(c, h) {
		if err := c.arrive(h, c.nowMs, BasisClock, r.grace); err != nil {
			return err
		}
		if ms, ok := r.refused.get(c.digest, c.nowMs); ok {
			c.countFrom(ms, BasisMemory)
		}
	}
	if c.attempt != 0 {
		r.attempts.put(c.attempt, c.firstMs, c.nowMs)
	}
	c.day = r.roll.day(c.date)
	return nil
}

// placeByAttempt lets a press that was seen before count for what it counted
// for then, whatever is on now.
func (r *Recorder) placeByAttempt(c *claim, h *hasher) bool {
	if c.attempt == 0 {
		return false
	}
	ms, ok := r.attempts.get(c.attempt, c.nowMs)
	return ok && c.arrive(h, ms, BasisMemory, r.grace) == nil
}

// placeByToken lets a press count from an earlier one that was refused, if its
// token is ours, of this key or session, and not too old. A token whose key has its receipt
// by now has done its work: kept in a cookie, it must not swallow the check-in
// to the next period.
func (r *Recorder) placeByToken(c *claim, h *hasher) bool {
	if c.press.FirstSeen == "" {
		return false
	}
	ms, digest, ok := h.openToken(c.press.FirstSeen)
	if !ok || ms > c.nowMs || c.nowMs-ms > rememberedMs {
		return false
	}
	if c.arrive(h, ms, BasisToken, r.grace) != nil {
		return false
	}
	if c.digest != digest && (len(c.press.Session) == 0 || h.session(c.press.Session) != digest) {
		return false
	}
	if !r.hasReceipt(c) {
		return true
	}
	then := c.id
	return c.arrive(h, c.nowMs, BasisClock, r.grace) == nil && c.id == then &&
		c.arrive(h, ms, BasisToken, r.grace) == nil
}

func (r *Recorder) hasReceipt(c *claim) bool {
	d := r.roll.find(c.date)
	if d == nil {
		return false
	}
	s := d.shard(&c.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries.get(&c.id)
	return ok && r.durable(&e)
}

// arrive decides what the press counts for when it arrives at ms, and its key.
func (c *claim) arrive(h *hasher, ms int64, basis Basis, grace time.Duration) error {
	at := time.UnixMilli(ms).In(c.school.Zone)
	date, period, on, err := c.slot(at, grace)
	if err != nil {
		return err
	}
	c.first, c.firstMs, c.basis, c.date = at, ms, basis, date
	c.period, c.status = OutsidePeriod, timetable.Outside
	if on {
		c.period, c.status = period.Name, period.Status(date, at)
	}
	p := &c.press
	c.id, c.digest = h.key(c.school.ID, date, c.period, p.Student, p.ClassIsKey, p.Class)
	return nil
}

// countFrom moves the first arrival to an earlier one of the same key.
func (c *claim) countFrom(ms int64, basis Basis) {
	if ms >= c.firstMs {
		return
	}
	c.first, c.firstMs, c.basis = time.UnixMilli(ms).In(c.school.Zone), ms, basis
	if c.period != OutsidePeriod {
		if p, ok := c.school.Timetable.Period(c.period); ok {
			c.status = p.Status(c.date, c.first)
		}
	}
}

// slot returns the date and the period that a press counts for when it arrives
// at the given moment; without a period it is outside.
func (c *claim) slot(at time.Time, grace time.Duration) (timetable.Date, timetable.Period, bool, error) {
	tt, today := c.school.Timetable, timetable.DateOf(at)
	date := today
	near := [...]timetable.Date{timetable.DateOf(at.Add(-grace)), timetable.DateOf(at.Add(grace))}
	if c.press.Date != "" {
		var err error
		if date, err = timetable.ParseDate(c.press.Date); err != nil {
			return date, timetable.Period{}, false, &FieldError{"date", "is not a date of the form 2006-01-02"}
		}
		if date != today && date != near[0] && date != near[1] {
			return date, timetable.Period{}, false, &FieldError{"date", "is not today; leave it out, or name the day that it is at the school"}
		}
		near = [...]timetable.Date{date, date}
	}
	if c.press.Period == "" {
		if date != today {
			return date, timetable.Period{}, false, nil
		}
		p, on := tt.At(at)
		return date, p, on, nil
	}
	p, known := tt.Period(c.press.Period)
	if !known || !tt.SchoolDay(date) {
		return date, timetable.Period{}, false, nil
	}
	for _, d := range [...]timetable.Date{date, near[0], near[1]} {
		if tt.SchoolDay(d) && at.Add(grace).After(d.At(p.Opens, at.Location())) && at.Add(-grace).Before(d.LastAt(p.Ends, at.Location())) {
			return d, p, true, nil
		}
	}
	return date, p, false, &FieldError{"period", "is not on now; leave it out, or name one that opens or ends about now"}
}

// entry is what the claim puts on the roll; its batch is still to be set.
func (c *claim) entry() entry {
	e := entry{
		arrival: c.day.arrivalOf(c.firstMs),
		class:   c.day.classes.number(c.press.Class),
		presses: 1,
		offset:  offsetMinutes(c.first),
		status:  statusCode(c.status),
	}
	if c.press.Verified {
		e.flags = entryVerified
	}
	return e
}

// improves reports whether the claim takes the place of an entry of its key: a
// verified one of an unverified, or a proof that the student was there earlier.
// Two presses that only cross on their way do not improve on each other.
func (c *claim) improves(e *entry) bool {
	if verified := e.flags&entryVerified != 0; c.press.Verified != verified {
		return c.press.Verified
	}
	return c.basis != BasisClock && c.firstMs < c.day.arrivalMs(e)
}

// appendEvent appends the claim's record. replaces says that the key is on the
// roll already.
func (c *claim) appendEvent(dst []byte, replaces bool) []byte {
	p := &c.press
	e := Event{
		Kind: KindArrival,
		Receipt: Receipt{
			ID: c.id, School: c.school.ID, Student: p.Student, Class: p.Class,
			Date: c.date, Period: c.period, FirstArrival: c.first, Status: c.status, Verified: p.Verified,
		},
		ClassIsKey: p.ClassIsKey,
		RawArrival: time.UnixMilli(c.nowMs),
		Timetable:  c.school.Timetable.Version(),
		Attempt:    c.attempt,
		Basis:      c.basis,
	}
	if replaces && p.Verified {
		e.Kind = KindVerifiedArrival
	}
	return appendArrival(dst, &e)
}

// receipt is what the roll's entry of the claim's key says.
func (c *claim) receipt(e *entry) Receipt {
	return Receipt{
		ID:           c.id,
		School:       c.school.ID,
		Student:      c.press.Student,
		Class:        c.day.classes.name(e.class),
		Date:         c.date,
		Period:       c.period,
		FirstArrival: c.day.firstArrival(e),
		Status:       statusOfCode(e.status),
		Verified:     e.flags&entryVerified != 0,
	}
}
