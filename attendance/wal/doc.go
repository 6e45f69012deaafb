// Package wal is the journal of attendance: numbered records in segment files,
// each of them on disk when Append returns. It knows nothing of check-ins.
//
// It promises:
//
//   - Append returns after one write and one sync. What it acknowledged is found
//     again after kill -9, a power cut, a full disk, or the loss of any other
//     part of the journal. Nothing is read that was not appended.
//   - Numbers rise by one within an Append, and from one Append to the next. They
//     skip, and never repeat, where an Append failed, and after a crash (by as
//     many as the torn segment could still have held): a number that somebody
//     saw before the power went never names another record afterwards.
//   - A file that refused a write or a sync is never used again. The log is down;
//     a new segment is tried at once and every ReviveEvery after, in Dir, then
//     in Spare. When one holds, the log is open, with amber. The old tail is
//     unknown: nobody reads it, inspect shows it.
//   - No damage keeps Open from starting. A torn tail is cut: the next segment's link says
//     where the old one ends, the bytes behind stay in the file until it goes.
//     Damage is copied into <segment>.<offset>.damaged, its numbers are named,
//     and everything behind it is kept. No *.damaged file is ever removed here.
//   - A segment that is there and cannot be opened (its mode, the disk) is
//     unreadable: passed over, its numbers named, an alarm; it is never removed.
//   - Append refuses with ErrFull before the disk is full: no segment is begun
//     that would pass Max or leave less than Reserve.
//   - A Reader takes no lock, writes nothing, and follows a log in use. However
//     the two are timed, it yields what was acknowledged before it was asked,
//     and takes for damage neither what is being written nor what was removed.
//
// It does not promise:
//
//   - that the loss of the very last Append's bytes is noticed, when all of them
//     read as zeros and the log was not closed in good order: that is what a
//     crash before the write looks like. A flipped bit there is noticed.
//   - that files removed by hand are noticed at the beginning or at the end of
//     the journal, only in between.
//   - anything about a disk that says it has synced and has not.
//   - speed in opening: every byte is read, at about 900 MB a second.
//
// One goroutine calls Append at a time. Health, Next, Damage, RemoveBefore and
// Close may be called by any. Open starts one goroutine, which makes segments
// ahead and revives the log; Close ends it.
//
// Start reading at format.go (the bytes, drawn), then Log.Append, then scan.next
// (what is a frame, what is a hole) and walk (what a hole means).
//
// # Why a number is never confused
//
// An Append of n records at number s fails in segment A. Its bytes may be on
// disk, or not, or come to light later; its caller was told no.
//
//	A  | link | ... | s-1 |?s?????s+n-1?|          never written again
//	                      ^ end
//	B  | link: A ends here, at s-1, unknown behind | s+n | s+n+1 | ...
//	     on disk before the first record of B is
//
// Readers stop in A where B's link says. If the process dies before B is made,
// the next Open syncs A, drops the system's memory of it, reads what the disk
// really holds (a record found then is kept, and stays found), and skips as many
// numbers as A had room for:
//
//	A  | link | ... | s-1 | s | torn |               | room for r records more
//	                          ^ end
//	C  | link: A ends here, at s, found                | s+1+r | ...
//
// # What damage does
//
// The damage table, written by TestDamageMatrix. Forty records in three segments,
// five to an Append; after kill -9 unless it says otherwise. Torn and unknown
// tails are no alarm.
//
//	what happened                                                     of 40 records           reported as
//	nothing: closed in good order                                     all found               -
//	nothing: kill -9                                                  all found               -
//	kill -9, then the zeros behind the end are gone                   all found               -
//	the Append under way at a power cut: its second half is missing   all found               torn tail
//	the Append under way: cut off in the middle of a record           all found               torn tail
//	the Append under way at a power cut: garbage                      all found               torn tail
//	the Append under way at a power cut: one sector of it is missing  all found               torn tail
//	one bit of a record's data                                        1 lost, all named       damaged (alarm)
//	one bit of a record's length                                      1 lost, all named       damaged (alarm)
//	one bit of a record's number                                      1 lost, all named       damaged (alarm)
//	one bit of a record's segment id                                  1 lost, all named       damaged (alarm)
//	one bit of a record's checksum                                    1 lost, all named       damaged (alarm)
//	one bit in a full segment's last record                           1 lost, all named       damaged (alarm)
//	one bit in the segment in use, not in its last Append             1 lost, all named       damaged (alarm)
//	one bit in the last Append, not in its last record                1 lost, all named       damaged (alarm)
//	one bit in the very last record                                   1 lost, all named       damaged (alarm)
//	one bit in the very last record, closed in good order             1 lost, all named       damaged (alarm)
//	all of the last Append zeroed                                     5 lost, not noticed     -
//	all of the last Append zeroed, closed in good order               5 lost, all named       damaged (alarm)
//	4 KiB of zeros in a full segment                                  7 lost, all named       damaged (alarm)
//	4 KiB of zeros in the segment in use                              5 lost, all named       damaged (alarm)
//	4 KiB of a full segment cannot be read                            8 lost, all named       damaged (alarm)
//	4 KiB of another segment in place of a full segment's own         8 lost, all named       damaged (alarm)
//	4 KiB of a full segment repeated in place of the next             8 lost, all named       damaged (alarm)
//	header of a full segment zeroed                                   all found               damaged (alarm)
//	header of the segment in use zeroed                               all found               damaged (alarm)
//	first 4 KiB behind the header of a full segment zeroed            7 lost, all named       damaged (alarm)
//	first 1 KiB behind the header of the segment in use zeroed        2 lost, all named       damaged (alarm)
//	full segment cut in half                                          9 lost, all named       damaged (alarm)
//	full segment emptied                                              15 lost, all named      gone (alarm)
//	full segment overwritten with garbage                             15 lost, all named      damaged, torn tail (alarm)
//	full segment removed by hand                                      15 lost, all named      gone (alarm)
//	oldest segment emptied                                            15 lost, all named      gone (alarm)
//	segment in use removed by hand                                    10 lost, not noticed    -
//	oldest segment removed by hand                                    15 lost, not noticed    -
//	full segment cannot be opened: permission                         15 lost, all named      unreadable (alarm)
//	full segment cannot be opened: input/output error                 15 lost, all named      unreadable (alarm)
//	oldest segment cannot be opened                                   15 lost, all named      unreadable (alarm)
//	segment in use cannot be opened                                   10 lost, not named      unreadable (alarm)
//	full segment copied to the spare directory as well                all found               -
//	full segment moved to the spare directory                         all found               -
//
// End of the table.
package wal
