package attendance

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/attendance/timetable"
)

// rollShards divides a day's roll so that presses rarely meet at one lock.
const rollShards = 64

// roll knows every key of the days that may still be pressed. A key takes 41 to
// 48 bytes (see table): a million students and one period are at most 48 MB,
// seven periods 330 MB. Around midnight, for the grace, there are two days.
type roll struct {
	mu   sync.Mutex // guards changes of days
	days atomic.Pointer[[]*day]
}

// day is the roll of one date.
type day struct {
	date     timetable.Date
	baseMs   int64 // entries count their arrival from here
	shards   [rollShards]rollShard
	classes  classTable
	firstSeq atomic.Uint64 // lowest position of a record of this day, 0 while there is none
}

type rollShard struct {
	mu      sync.Mutex // guards what follows
	entries table
	dirty   []ReceiptID // keys with presses that no event has told yet
}

// entry is what the roll keeps of a key: with the press that asks again, all of
// its receipt.
type entry struct {
	batch   uint32 // the batch that makes it durable
	arrival uint32 // ms since the day's baseMs
	class   uint32 // index in the day's classes
	presses uint16 // stays at its highest value
	offset  int16  // minutes east of UTC at first arrival
	flags   uint8
	status  uint8 // code of the status
}

const (
	entryVerified = 1
	entryDirty    = 2
	pressesMax    = 1<<16 - 1
)

// The base of a day lies two days before it: a first arrival is at most a
// zone's 14 hours and the grace away from its date, and 32 bits hold 49 days.
const baseBeforeMs = 2 * secondsPerDay * 1000

func (d *day) arrivalMs(e *entry) int64 { return d.baseMs + int64(e.arrival) }

func (d *day) arrivalOf(ms int64) uint32 { return uint32(max(0, min(ms-d.baseMs, 1<<32-1))) }

func (d *day) shard(id *ReceiptID) *rollShard { return &d.shards[id[15]%rollShards] }

// noteSeq records that the day has a record at seq.
func (d *day) noteSeq(seq uint64) {
	if d.firstSeq.Load() == 0 {
		d.firstSeq.CompareAndSwap(0, seq)
	}
}

// find returns the day's roll, nil when there is none.
func (r *roll) find(date timetable.Date) *day {
	if days := r.days.Load(); days != nil {
		for _, d := range *days {
			if d.date == date {
				return d
			}
		}
	}
	return nil
}

// day returns the date's roll, made when there is none.
func (r *roll) day(date timetable.Date) *day {
	if d := r.find(date); d != nil {
		return d
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.find(date); d != nil {
		return d
	}
	d := &day{date: date, baseMs: int64(dayNumber(date))*secondsPerDay*1000 - baseBeforeMs}
	d.classes.index = map[string]uint32{"": 0}
	d.classes.names = []string{""}
	days := []*day{d}
	if old := r.days.Load(); old != nil {
		days = append(days, *old...)
	}
	r.days.Store(&days)
	return d
}

// forgetBefore drops the days before oldest.
func (r *roll) forgetBefore(oldest timetable.Date) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.days.Load() == nil {
		return
	}
	var kept []*day
	for _, d := range *r.days.Load() {
		if d.date.Compare(oldest) >= 0 {
			kept = append(kept, d)
		}
	}
	r.days.Store(&kept)
}

// all returns the days on the roll, in no order.
func (r *roll) all() []*day {
	if days := r.days.Load(); days != nil {
		return *days
	}
	return nil
}

// len counts the keys on the roll.
func (r *roll) len() int {
	n := 0
	for _, d := range r.all() {
		for i := range d.shards {
			s := &d.shards[i]
			s.mu.Lock()
			n += s.entries.keys
			s.mu.Unlock()
		}
	}
	return n
}

// classTable keeps each class name of a day once.
type classTable struct {
	mu    sync.RWMutex // guards what follows
	index map[string]uint32
	names []string
}

func (t *classTable) number(class string) uint32 {
	if class == "" {
		return 0
	}
	t.mu.RLock()
	n, ok := t.index[class]
	t.mu.RUnlock()
	if ok {
		return n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.index[class]; ok {
		return n
	}
	class = strings.Clone(class) // the press's strings do not outlive Take
	n = uint32(len(t.names))
	t.names = append(t.names, class)
	t.index[class] = n
	return n
}

func (t *classTable) name(n uint32) string {
	if n == 0 {
		return ""
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.names[n]
}

// restore puts an arrival, or a correction of one, that is in the journal on
// the roll.
func (d *day) restore(e *Event) {
	id := e.ID
	s := d.shard(&id)
	fresh := entry{
		arrival: d.arrivalOf(e.FirstArrival.UnixMilli()),
		class:   d.classes.number(e.Class),
		presses: 1,
		offset:  offsetMinutes(e.FirstArrival),
		status:  statusCode(e.Status),
	}
	if e.Verified {
		fresh.flags = entryVerified
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.entries.get(&id)
	if ok {
		if !fresh.better(&old) && !(e.Kind == KindCorrection && fresh.sameArrival(&old)) {
			return
		}
		fresh.presses, fresh.batch = old.presses, old.batch
		fresh.flags |= old.flags & entryDirty
	}
	s.entries.put(&id, fresh)
}

// restorePresses puts a count from the journal on the roll.
func (d *day) restorePresses(id ReceiptID, presses uint32) {
	s := d.shard(&id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.entries.get(&id); ok {
		e.presses = max(e.presses, uint16(min(presses, pressesMax)))
		s.entries.put(&id, e)
	}
}

// sameArrival says that two entries are about one arrival, so that the later
// record holds.
func (e *entry) sameArrival(old *entry) bool {
	return (e.flags^old.flags)&entryVerified == 0 && e.arrival == old.arrival
}

// better is the rule of Row.Better, for records of different arrivals.
func (e *entry) better(old *entry) bool {
	if (e.flags^old.flags)&entryVerified != 0 {
		return e.flags&entryVerified != 0
	}
	return e.arrival < old.arrival
}

// again counts one more press of a key. The shard is locked.
func (s *rollShard) again(id ReceiptID, e entry) {
	if e.presses == pressesMax {
		return
	}
	e.presses++
	if e.flags&entryDirty == 0 {
		e.flags |= entryDirty
		s.dirty = append(s.dirty, id)
	}
	s.entries.put(&id, e)
}

// firstArrival returns the entry's first arrival in its own offset.
func (d *day) firstArrival(e *entry) time.Time {
	return time.UnixMilli(d.arrivalMs(e)).In(fixedZone(e.offset))
}
