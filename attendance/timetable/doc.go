// Package timetable says which period is on at a given moment of a school day,
// and whether somebody who arrives then is present or late.
//
// It promises:
//
//   - every moment belongs to at most one period. A period takes check-ins from
//     Opens (included) until Ends (excluded). Where a period's opening time
//     falls into the period before it, the earlier one keeps the arrivals until
//     it has ended, and only then the later one opens;
//   - Opens <= Starts <= LateAfter <= Ends, for every period of every timetable
//     that New returns;
//   - an arrival is judged by whole seconds: with late_after 09:10, 09:10:00.999
//     is present and 09:10:01 is late, so that whoever reads 09:10:00 on a
//     receipt is present;
//   - Version is the same for the same meaning, on any machine and in any
//     release, however the file that described it was written.
//
// Clock changes. Which period is on is read from the clock on the wall: an hour
// that the clock skips takes no check-ins, an hour that it shows twice takes
// them twice. Whether somebody is late is never decided against them: of two
// moments that show 02:10 the second counts as late_after, and a late_after
// that is skipped moves on as if the clock had not been put forward.
//
// It does not know zones: the caller hands in a time already in the school's
// zone (time.Time.In), and moments of a date are asked for with a zone. It does
// not read files either; a Spec carries the text that the configuration file
// has, and every error names its field in there.
//
// Start reading at Timetable, then New and Timetable.At.
package timetable
