package attendance

import (
	"encoding/binary"
	"slices"
	"sync"

	"firstbell/attendance/timetable"
)

// dayMarks knows where in the journal the days lie that it holds, and how far
// their digests reach. A day takes some 100 bytes.
type dayMarks struct {
	mu   sync.Mutex // guards what follows
	days map[timetable.Date]*dayMark
}

type dayMark struct {
	first, last uint64 // positions of the day's records
	before      uint64 // of its latest digest, 0 while there is none
	rows        uint64 // in that digest
}

// mark returns the day's mark. The lock is held.
func (m *dayMarks) mark(d timetable.Date) *dayMark {
	if m.days == nil {
		m.days = make(map[timetable.Date]*dayMark)
	}
	k := m.days[d]
	if k == nil {
		k = new(dayMark)
		m.days[d] = k
	}
	return k
}

// note says that the day has a record at seq.
func (m *dayMarks) note(d timetable.Date, seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.mark(d)
	if k.first == 0 || seq < k.first {
		k.first = seq
	}
	k.last = max(k.last, seq)
}

// noteDigest says that all records below before are in the day's digest.
func (m *dayMarks) noteDigest(d timetable.Date, g *DayDigest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.mark(d)
	if g.Before >= k.before {
		k.before, k.rows = g.Before, g.Sum.Rows
	}
}

// read notes a record of the journal.
func (m *dayMarks) read(rec Record) {
	if len(rec.Data) < eventHeadBytes {
		return
	}
	switch Kind(rec.Data[0]) {
	case KindArrival, KindVerifiedArrival, KindCorrection:
		if day := int32(binary.LittleEndian.Uint32(rec.Data[4:])); day >= dayMin && day <= dayMax {
			m.note(dateOfDay(day), rec.Seq)
		}
	case KindDigest:
		if e, err := DecodeEvent(rec.Data); err == nil {
			m.noteDigest(e.Date, e.Digest)
		}
	}
}

// DigestDue is a day that is over and has records that no digest counts.
type DigestDue struct {
	Date  timetable.Date
	First uint64 // position of the day's first record
	Rows  uint64 // in the digest before; 0: there is none
}

// DigestsDue returns the days that are over at every school and whose digest is
// due, oldest first.
func (r *Recorder) DigestsDue() []DigestDue {
	oldest := r.oldestDate()
	r.marks.mu.Lock()
	defer r.marks.mu.Unlock()
	var due []DigestDue
	for d, k := range r.marks.days {
		if d.Compare(oldest) < 0 && k.last >= max(1, k.before) {
			due = append(due, DigestDue{Date: d, First: k.first, Rows: k.rows})
		}
	}
	slices.SortFunc(due, func(a, b DigestDue) int { return a.Date.Compare(b.Date) })
	return due
}

// ForgetDay says that the journal does not hold the day any more.
func (r *Recorder) ForgetDay(d timetable.Date) {
	r.marks.mu.Lock()
	defer r.marks.mu.Unlock()
	delete(r.marks.days, d)
}

// dayNote is an event that Record put into a batch, to be noted once it is on
// disk.
type dayNote struct {
	date   timetable.Date
	digest *DayDigest // nil: a correction
	record int        // which of the batch's records it is
}

func notesOf(events []Event, records int) []dayNote {
	var notes []dayNote
	for i := range events {
		switch e := &events[i]; e.Kind {
		case KindCorrection, KindDigest:
			notes = append(notes, dayNote{date: e.Date, digest: e.Digest, record: records + i})
		}
	}
	return notes
}

// noteDays notes where the batch's days lie in the journal, once it is there.
func (r *Recorder) noteDays(b *batch, first uint64) {
	var at *day
	for i := range b.items {
		it := &b.items[i]
		seq := first + uint64(it.record)
		it.day.noteSeq(seq)
		if it.day != at {
			at = it.day
			r.marks.note(at.date, seq)
		}
	}
	if at != nil {
		// The day ends somewhere in the batch: its end is close enough.
		r.marks.note(at.date, first+uint64(len(b.ends))-1)
	}
	for _, n := range b.noted {
		if n.digest != nil {
			r.marks.noteDigest(n.date, n.digest)
		} else {
			r.marks.note(n.date, first+uint64(n.record))
		}
	}
}

// SumDay returns what the rows of a day come to by the journal's records from
// first to before, and how many of its records cannot be read by this version.
// It reads the journal once for every 200,000 of the day's records and once
// more, so that it never holds more than 30 MB.
func SumDay(journal Journal, date timetable.Date, first, before uint64) (sum Sum, undecodable int, err error) {
	day, records := dayNumber(date), 0
	err = eachOfDay(journal, day, first, before, func(Record) { records++ })
	passes := records/sumRecordsMax + 1
	for pass := 0; pass < passes && err == nil; pass++ {
		rows := make(map[ReceiptID]brief)
		err = eachOfDay(journal, day, first, before, func(rec Record) {
			e, err := DecodeEvent(rec.Data)
			if err != nil {
				undecodable++
				return
			}
			if (int(e.ID[0])<<8|int(e.ID[1]))%passes != pass {
				return
			}
			e.Seq = rec.Seq
			fresh := briefOf(&e)
			if old, ok := rows[e.ID]; !ok || fresh.better(&old) {
				rows[e.ID] = fresh
			}
		})
		for _, b := range rows {
			sum.Add(b.number)
		}
	}
	return sum, undecodable / passes, err
}

const sumRecordsMax = 200_000

func eachOfDay(journal Journal, day int32, first, before uint64, f func(Record)) error {
	for rec, err := range journal(first) {
		if err != nil {
			return err
		}
		if rec.Seq >= before {
			return nil
		}
		if len(rec.Data) < eventHeadBytes || int32(binary.LittleEndian.Uint32(rec.Data[4:])) != day {
			continue
		}
		switch Kind(rec.Data[0]) {
		case KindArrival, KindVerifiedArrival, KindCorrection:
			f(rec)
		}
	}
	return nil
}

// brief is what a row comes to and what decides between two.
type brief struct {
	number   Number
	first    int64 // ms
	seq      uint64
	verified bool
}

func briefOf(e *Event) brief {
	return brief{number: e.Receipt.Number(), first: e.FirstArrival.UnixMilli(), seq: e.Seq, verified: e.Verified}
}

// better is the rule of Row.Better.
func (b *brief) better(old *brief) bool {
	if b.verified != old.verified {
		return b.verified
	}
	if b.first != old.first {
		return b.first < old.first
	}
	return b.seq > old.seq
}
