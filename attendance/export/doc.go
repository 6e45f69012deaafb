// Package export writes the register: who was present, late, absent or outside
// any period, one line each, as CSV, JSON Lines or an Excel workbook.
//
// It promises:
//
//   - the columns are date, school, class_id, student_id, name, period, status,
//     first_arrival, presses, verified, on_roster, receipt, note, in that order
//     and in every format;
//   - the order is the same every time: date, school, period as the day goes
//     (then periods the timetable lacks, then "outside"), class, student;
//   - absent is never guessed. Without a roster, and for a school that the roster or
//     a timetable lacks, absent is "unknown" in the Summary, never 0; before a
//     period has begun nobody is absent from it, and the Summary says that too;
//   - a CSV file opens in Excel with every id as it is and nothing to execute
//     (see text.go for how), an .xlsx file never loses a line: what does not fit
//     into Excel's 1,048,576 rows is refused before the first byte is written;
//   - an error from the rows or the writer is returned, and ToFile leaves no
//     file then: there is no half register that looks whole;
//   - memory holds the roster and one school's day, however many schools and
//     days there are. Only .xlsx takes more: each sheet up to 16 MiB (excelize
//     keeps the rest in temporary files), about 2 KB a line in small sheets.
//
// Who is absent. Expected in every period of a school day is who is enrolled in
// a class of the school on that date, or belongs to the school and to no class.
// Whoever of them has no check-in in that period is absent, once per school,
// date and period however many classes he is in, under his homeroom class or
// else the first of his classes by id. Only where the class belongs to the key
// of the check-ins does he count once for each of his classes in which somebody
// checked in during that period; if there is none of those, once as above. With a
// class in the filter its students are listed, under whatever class they
// checked in, and those who checked in for it.
//
// A check-in that names no class is shown under the class above, where the
// roster knows the student.
//
// Start reading at Write, then register.schoolDay.
package export
