package attendance

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"firstbell/attendance/timetable"
)

// TestTimesAreWrittenAsTheirLayoutSays holds what is written without a layout
// against the layout.
func TestTimesAreWrittenAsTheirLayoutSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := time.FixedZone("", 60*rapid.IntRange(-14*60, 14*60).Draw(t, "offset"))
		at := time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "ms")).In(zone)
		if got, want := string(appendTime(nil, at)), at.Format("2006-01-02T15:04:05.000-07:00"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := string(appendDate(nil, timetable.DateOf(at))), at.Format(time.DateOnly); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}
