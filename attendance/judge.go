package attendance

import (
	"encoding/binary"
	"strings"
	"time"

	"firstbell/attendance/timetable"
)

// Judgement is what a check-in counts for by a timetable.
type Judgement struct {
	Period    string
	Status    timetable.Status
	Timetable string // its version
}

// judge says what a row's first arrival counts for by the school's timetable:
// the period that was on; where none was, the one that it stands in, if that is
// within the grace; else outside.
func judge(row *Row, school School, grace time.Duration) Judgement {
	tt, at := school.Timetable, row.FirstArrival.In(school.Zone)
	j := Judgement{Period: OutsidePeriod, Status: timetable.Outside, Timetable: tt.Version()}
	p, on := tt.At(at)
	if !on || timetable.DateOf(at) != row.Date {
		p, on = tt.Period(row.Period)
		on = on && tt.SchoolDay(row.Date) && !at.Before(row.Date.At(p.Opens, at.Location()).Add(-grace)) &&
			at.Before(row.Date.LastAt(p.Ends, at.Location()).Add(grace))
	}
	if on {
		j.Period, j.Status = p.Name, p.Status(row.Date, at)
	}
	return j
}

// Judge judges a row again by its school as it is now, and returns the
// corrections that follow, with what the row counts for now. None, when nothing
// changes or the row was judged by this timetable already. A row that belongs into another period is two: the one that stands is
// put outside, and there is one for the other period's key, the last of the
// two. The row's Seq must be known.
func (r *Recorder) Judge(row *Row, school School, author, reason string) ([]Event, *Judgement) {
	j := judge(row, school, r.grace)
	if j.Timetable == row.Timetable || j.Period == row.Period && j.Status == row.Status {
		return nil, &j
	}
	if j.Period == OutsidePeriod && row.Status == timetable.Outside {
		return nil, &j
	}
	correct := func() Event {
		return Event{
			Kind: KindCorrection, Receipt: row.Receipt, ClassIsKey: row.ClassIsKey, RawArrival: time.UnixMilli(time.Now().UnixMilli()).UTC(),
			Timetable: j.Timetable, Basis: BasisRecord,
			Correction: &Correction{Of: row.Seq, OldStatus: row.Status, OldPeriod: row.Period, Author: clip(author), Reason: clip(reason)},
		}
	}
	stands := correct()
	if j.Period == row.Period {
		stands.Status = j.Status
		return []Event{stands}, &j
	}
	stands.Status = timetable.Outside
	if j.Period == OutsidePeriod {
		return []Event{stands}, &j
	}
	moved := correct()
	moved.Period, moved.Status = j.Period, j.Status
	h := r.hashers.get()
	moved.ID, _ = h.key(row.School, row.Date, j.Period, row.Student, row.ClassIsKey, row.Class)
	r.hashers.put(h)
	if row.Status == timetable.Outside {
		return []Event{moved}, &j // the row outside stays what it is
	}
	return []Event{stands, moved}, &j
}

// clip bounds a text to what a field may hold, at a rune's end.
func clip(s string) string {
	if len(s) <= fieldBytesMax {
		return s
	}
	return strings.ToValidUTF8(s[:fieldBytesMax], "")
}

// OfDay reports without decoding whether a record is an arrival of the day, or
// a correction of one.
func OfDay(data []byte, date timetable.Date) bool {
	if len(data) < eventHeadBytes || int32(binary.LittleEndian.Uint32(data[4:])) != dayNumber(date) {
		return false
	}
	switch Kind(data[0]) {
	case KindArrival, KindVerifiedArrival, KindCorrection:
		return true
	}
	return false
}
