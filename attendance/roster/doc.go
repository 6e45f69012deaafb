// Package roster knows who belongs to which school and class, read from
// OneRoster CSV files (1EdTech OneRoster 1.1 and 1.2, CSV binding, bulk mode):
// orgs.csv, users.csv, classes.csv, enrollments.csv and, where it exists,
// roles.csv, all in one directory.
//
// It promises:
//
//   - a broken row is listed with file, line, column and reason, and costs
//     nothing but itself: the rows before and after it load. The list is
//     bounded; what is beyond it is counted;
//   - a file that is missing, lacks a column it must have or is not UTF-8 is an
//     error, and no roster comes of it: half a roster would say "absent" of too
//     few and nobody would notice;
//   - memory is bounded: records have a greatest length and tables a greatest
//     number of rows. A million students take 111 MB with one class each and
//     177 MB with five (measured), while loading about three times that, most
//     of it the garbage collector's slack;
//   - a Roster never changes after Load, so any number of goroutines may use it.
//
// What is read how:
//
//   - A school is an org of type "school" (or without a type). Its id in
//     firstbell, from the configuration's schools or the leftmost host label,
//     is looked up among the orgs' identifiers first and their sourcedIds
//     second, without regard to case: host names have none.
//   - A student id is the sourcedId of users.csv, a class id that of
//     classes.csv, byte for byte.
//   - A student belongs to the schools that users.csv names (orgSourcedIds, a
//     list with commas or semicolons between, or OneRoster 1.2's
//     primaryOrgSourcedId) if the role there is student; to those where
//     roles.csv makes him a student; and to those of the classes in which
//     enrollments.csv has him as a student.
//   - Records with the status tobedeleted or inactive are left out, unknown
//     columns and columns in another order or case do not matter.
//   - An enrollment holds from beginDate (included) until endDate (excluded),
//     as OneRoster has it; an empty date is no bound.
//
// It does not read the REST binding, delta files, courses, terms or guardians,
// and it does not write.
//
// Start reading at Load, then School.
package roster
