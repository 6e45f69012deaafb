// Package wal is the journal of attendance: numbered records in segment files,
// each on disk when Append returns.
//
// The damage table: x
//
//	what happened                                                     of 40 records  reported as
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
//	full segment copied to the spare directory as well                all found               -
//	full segment moved to the spare directory                         all found               -
//
// End of the table.
package wal
