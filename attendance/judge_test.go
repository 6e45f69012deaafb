package attendance

import (
	"testing"
	"time"

	"firstbell/attendance/timetable"
)

// A row judged by a wrong timetable comes out as the right one says, and once.
func TestJudgeCorrectsWhatAWrongTimetableMade(t *testing.T) {
	right, err := timetable.New(timetable.Spec{
		Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"},
		Periods: []timetable.PeriodSpec{
			{Name: "1", Opens: "08:50", Starts: "09:00", LateAfter: "09:10", Ends: "09:45"},
			{Name: "2", Opens: "09:45", Starts: "09:55", LateAfter: "10:05", Ends: "10:40"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := mustNew(t, Config{Log: &fakeLog{}, Secret: mustSecret(t)})
	school := School{ID: "north", Zone: seoul, Timetable: right}
	for _, c := range []struct {
		name           string
		at             string
		period         string
		status         timetable.Status
		byRight        bool
		events         int
		wants          string
		wantsStatus    timetable.Status
		standsAsBefore bool
	}{
		{"right already", "09:05", "1", timetable.Present, false, 0, "1", timetable.Present, true},
		{"judged by this timetable", "09:20", "1", timetable.Present, true, 0, "1", timetable.Late, true},
		{"late that was present", "09:10:30", "1", timetable.Present, false, 1, "1", timetable.Late, false},
		{"present that was late", "08:55", "1", timetable.Late, false, 1, "1", timetable.Present, false},
		{"of the next period", "09:50", "1", timetable.Late, false, 2, "2", timetable.Present, false},
		{"outside that was in a period", "11:30", "2", timetable.Late, false, 1, OutsidePeriod, timetable.Outside, false},
		{"of a period that was outside", "10:20", OutsidePeriod, timetable.Outside, false, 1, "2", timetable.Late, true},
		{"outside still", "11:30", OutsidePeriod, timetable.Outside, false, 0, OutsidePeriod, timetable.Outside, true},
		{"after the end, named within the grace", "10:50", "2", timetable.Present, false, 1, "2", timetable.Late, false},
	} {
		clock, err := timetable.ParseClock(c.at[:5])
		if err != nil {
			t.Fatal(err)
		}
		date := timetable.Date{Year: 2026, Month: 5, Day: 4}
		at := date.At(clock, seoul)
		if len(c.at) > 5 {
			at = at.Add(90 * time.Second) // beyond the minute that is not late yet
		}
		row := Row{Receipt: Receipt{School: "north", Student: "s1", Class: "3b", Date: date, Period: c.period, Status: c.status, FirstArrival: at}, Timetable: "another", Seq: 7}
		if c.byRight {
			row.Timetable = right.Version()
		}
		h := r.hashers.get()
		row.ID, _ = h.key("north", date, c.period, "s1", false, "")
		r.hashers.put(h)
		events, j := r.Judge(&row, school, "kim", "the bell was wrong")
		if len(events) != c.events || j.Period != c.wants || j.Status != c.wantsStatus {
			t.Errorf("%s: got %d events, %s %s, want %d, %s %s", c.name, len(events), j.Period, j.Status, c.events, c.wants, c.wantsStatus)
			continue
		}
		var f Fold
		f.AddRow(row)
		for i := range events {
			e := &events[i]
			e.Seq = uint64(100 + i)
			if e.Kind != KindCorrection || e.Correction.Author != "kim" || e.Correction.Of != 7 || e.Correction.OldStatus != c.status || e.Correction.OldPeriod != c.period {
				t.Errorf("%s: got %+v of %+v", c.name, e, e.Correction)
			}
			f.Add(e)
		}
		was, _ := f.Row(row.ID)
		if same := was.Status == c.status; same != c.standsAsBefore {
			t.Errorf("%s: the row stands as %s %s", c.name, was.Period, was.Status)
		}
		for _, again := range f.Rows() {
			if more, _ := r.Judge(&again, school, "kim", "again"); again.Timetable == right.Version() && len(more) > 0 {
				t.Errorf("%s: judged again, %s %s gets %d events more", c.name, again.Period, again.Status, len(more))
			}
		}
	}
	long := make([]rune, 200)
	for i := range long {
		long[i] = '반'
	}
	if got := clip(string(long)); len(got) > fieldBytesMax || len(got) < fieldBytesMax-3 {
		t.Errorf("a long reason is clipped to %d bytes", len(got))
	}
}
