package attendance

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"firstbell/attendance/timetable"
)

// Contradiction says that check-ins named somebody else than the credential
// they came with. Nothing of the credential itself is kept.
type Contradiction struct {
	Field   string // what was named otherwise: student or class
	Claimed string // what was named; empty: several, or what no record can hold
	Times   uint32 // how often that day
	Last    time.Time
}

// The values of Contradiction.Field.
const (
	ContradictsStudent = "student"
	ContradictsClass   = "class"
)

// Who has a credential can name whomever it likes, as fast as it likes: what is
// told of it is bounded three times. At most contradictionNamesMax names of one
// credential are counted each for itself in a day; 32 are a class. Of what is
// counted there is at most contradictionsMax in all: 20 MB of the longest names.
// And a count is told again only once it has doubled, or an hour has passed: at
// worst 40 times a day, 160 MB of the longest names, 40 MB of ordinary ones.
const (
	contradictionNamesMax = 32
	contradictionsMax     = 1 << 14
	contradictionEvery    = time.Hour

	// contradictionSweep is how often all counts are looked through.
	contradictionSweep = 10 * time.Minute
)

// contradictions counts them until their day can no longer be pressed.
type contradictions struct {
	mu      sync.Mutex // guards what follows
	known   map[ReceiptID]*contradicted
	names   map[ReceiptID]int // of a credential, by what counts the rest of its names
	due     bool              // some count has doubled since it was told
	sweptMs int64

	last bool // used only by Run: all that is untold is to be told
}

// contradicted is one count.
type contradicted struct {
	event  Event
	told   uint32
	toldMs int64
}

// Contradicted notes, as evidence, that a check-in which came to host with the
// credential of student named something else in field: claimed. It goes into the
// journal within some seconds, waits for nothing and never fails; kill -9 may
// lose the last of the counts. The strings need only be valid while it runs.
func (r *Recorder) Contradicted(host, student, field, claimed string) {
	school := r.schools.Load().Find(host)
	at := time.Now().In(school.Zone)
	e := Event{Kind: KindContradiction, Contradiction: &Contradiction{Field: field, Claimed: claimed}}
	e.Date, e.School, e.Student = timetable.DateOf(at), school.ID, student
	if unfit(claimed) != "" {
		e.Contradiction.Claimed = ""
	}
	if unfit(student) != "" {
		e.Student = ""
	}
	h := r.hashers.get()
	defer r.hashers.put(h)
	r.contradictions.add(h, &e, at)
}

// add counts e where there is room for it: by its names, else with the rest of
// the credential's, of the school's, of all.
func (c *contradictions) add(h *hasher, e *Event, at time.Time) {
	rest := h.contradiction(e.Date, e.School, e.Student, e.Contradiction.Field, "")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known, c.names = make(map[ReceiptID]*contradicted), make(map[ReceiptID]int)
	}
	for room := contradictionsMax / 2; ; room += contradictionsMax / 4 {
		con := e.Contradiction
		e.ID = h.contradiction(e.Date, e.School, e.Student, con.Field, con.Claimed)
		known := c.known[e.ID]
		fits := len(c.known) < room && (con.Claimed == "" || c.names[rest] < contradictionNamesMax)
		switch {
		case known == nil && (fits || e.School == ""):
			known = c.hold(e, rest, at)
			fallthrough
		case known != nil:
			known.event.Contradiction.count(at)
			c.due = c.due || known.doubled()
			return
		case con.Claimed != "":
			con.Claimed = ""
		case e.Student != "":
			e.Student = ""
		default:
			e.School = ""
		}
	}
}

func (c *Contradiction) count(at time.Time) {
	if c.Times < 1<<32-1 {
		c.Times++
	}
	c.Last = at.UTC()
}

// hold makes a count, whose strings are its own.
func (c *contradictions) hold(e *Event, rest ReceiptID, at time.Time) *contradicted {
	own := *e
	own.School, own.Student = strings.Clone(e.School), strings.Clone(e.Student)
	own.Contradiction = &Contradiction{Field: e.Contradiction.Field, Claimed: strings.Clone(e.Contradiction.Claimed)}
	own.FirstArrival = at.Truncate(time.Millisecond)
	if own.Contradiction.Claimed != "" {
		c.names[rest]++
	}
	known := &contradicted{event: own}
	c.known[e.ID] = known
	return known
}

// doubled reports whether the count is at least twice of what was told.
func (k *contradicted) doubled() bool {
	times := k.event.Contradiction.Times
	return times != k.told && times/2 >= k.told
}

// tell moves up to limit counts that are due into the batch, and forgets those
// of days before oldest.
func (c *contradictions) tell(b *batch, now time.Time, oldest timetable.Date, limit int) (told int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	nowMs := now.UnixMilli()
	if !c.due && !c.last && nowMs-c.sweptMs < contradictionSweep.Milliseconds() && nowMs >= c.sweptMs {
		return 0
	}
	c.due, c.sweptMs = false, nowMs
	for id, k := range c.known {
		over := k.event.Date.Compare(oldest) < 0
		times := k.event.Contradiction.Times
		if times != k.told && (c.last || over || k.doubled() || nowMs-k.toldMs >= contradictionEvery.Milliseconds()) {
			if told >= limit {
				c.due = true
				continue
			}
			b.buf = appendContradiction(b.buf, &k.event)
			b.ends = append(b.ends, len(b.buf))
			k.told, k.toldMs = times, nowMs
			told++
		}
		if over {
			delete(c.known, id)
			clear(c.names) // counted anew for the day that has begun
		}
	}
	return told
}

// restoreContradiction puts a record of the journal among the counts, if its day
// can still be pressed.
func (r *Recorder) restoreContradiction(data []byte, oldest int32, nowMs int64) {
	e, err := DecodeEvent(data)
	if err != nil {
		r.counters.undecodable.Add(1)
		return
	}
	if dayNumber(e.Date) < oldest {
		return
	}
	h := r.hashers.get()
	defer r.hashers.put(h)
	r.contradictions.restore(h, &e, nowMs)
}

// restore puts what the journal tells on top of what was counted since.
func (c *contradictions) restore(h *hasher, e *Event, nowMs int64) {
	rest := h.contradiction(e.Date, e.School, e.Student, e.Contradiction.Field, "")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known, c.names = make(map[ReceiptID]*contradicted), make(map[ReceiptID]int)
	}
	k := c.known[e.ID]
	if k == nil {
		if len(c.known) >= contradictionsMax {
			return
		}
		k = c.hold(e, rest, e.FirstArrival)
	}
	con := k.event.Contradiction
	since := con.Times - k.told
	k.told, k.toldMs = max(k.told, e.Contradiction.Times), nowMs
	con.Times = k.told + min(since, 1<<32-1-k.told)
	if e.FirstArrival.Before(k.event.FirstArrival) {
		k.event.FirstArrival = e.FirstArrival
	}
	if e.Contradiction.Last.After(con.Last) {
		con.Last = e.Contradiction.Last
	}
}

// contradiction returns the id of a count.
func (h *hasher) contradiction(date timetable.Date, school, student, field, claimed string) ReceiptID {
	h.in = append(h.in[:0], domainContradiction)
	h.in = binary.LittleEndian.AppendUint32(h.in, uint32(dayNumber(date)))
	for _, s := range [...]string{school, student, field, claimed} {
		h.text(s)
	}
	h.digest()
	return h.receipt()
}

// Contradictions reads from the journal what contradicted credentials, of all
// its days, sorted by date, school, student and what was claimed. Of records
// that tell of the same, the last holds.
func Contradictions(j Journal) ([]Event, error) {
	found := make(map[ReceiptID]Event)
	for rec, err := range j(0) {
		if err != nil {
			return nil, fmt.Errorf("reading the journal: %w", err)
		}
		if kindOf(rec.Data) != KindContradiction {
			continue
		}
		e, err := DecodeEvent(rec.Data)
		if err != nil {
			continue // inspect lists it
		}
		e.Seq = rec.Seq
		if old, ok := found[e.ID]; ok && old.Contradiction.Times > e.Contradiction.Times {
			e = old
		}
		found[e.ID] = e
	}
	events := make([]Event, 0, len(found))
	for _, e := range found {
		events = append(events, e)
	}
	slices.SortFunc(events, func(a, b Event) int {
		return cmp.Or(a.Date.Compare(b.Date), strings.Compare(a.School, b.School), strings.Compare(a.Student, b.Student),
			strings.Compare(a.Contradiction.Claimed, b.Contradiction.Claimed), strings.Compare(a.Contradiction.Field, b.Contradiction.Field))
	})
	return events, nil
}

// The flags of a contradiction say which field.
const (
	flagStudentClaimed = 1
	flagClassClaimed   = 2
)

func appendContradiction(dst []byte, e *Event) []byte {
	c := e.Contradiction
	flags := byte(flagStudentClaimed)
	if c.Field == ContradictsClass {
		flags = flagClassClaimed
	}
	first := e.FirstArrival.UnixMilli()
	dst = appendHead(dst, KindContradiction, flags, 0, e.Date, &e.ID, first)
	dst = binary.AppendVarint(dst, c.Last.UnixMilli()-first)
	dst = binary.AppendVarint(dst, int64(offsetMinutes(e.FirstArrival)))
	dst = binary.AppendUvarint(dst, uint64(c.Times))
	for _, s := range [...]string{e.School, e.Student, c.Claimed} {
		dst = appendText(dst, s)
	}
	return dst
}

func (e *Event) decodeContradiction(data []byte) error {
	flags, first, err := e.decodeHead(data)
	if err != nil {
		return err
	}
	c := cursor{rest: string(data[eventHeadBytes:])}
	out := Contradiction{Field: ContradictsStudent}
	if flags&flagClassClaimed != 0 {
		out.Field = ContradictsClass
	}
	out.Last = time.UnixMilli(first + c.varint()).UTC()
	offset := c.varint()
	if offset < -offsetMax || offset > offsetMax {
		return fmt.Errorf("zone offset of %d minutes", offset)
	}
	e.FirstArrival = time.UnixMilli(first).In(fixedZone(int16(offset)))
	e.RawArrival = time.UnixMilli(first).UTC()
	out.Times = uint32(min(c.uvarint(), 1<<32-1))
	e.School, e.Student, out.Claimed = c.text(), c.text(), c.text()
	e.Contradiction = &out
	return c.err
}
