// Package spool holds contents that wait: a request's until the origin may have
// it, an answer's until a slow client has taken it. A little of each stays in
// memory, the rest goes to a file without a name.
//
// It promises that all spools together stay within the memory and the disk they
// were given, that one takes no more than a quarter of the disk, that those of
// one owner take no more than that either once half of the disk is taken, that
// some of the file system stays free for others, and that nothing is left behind, not
// even by a kill: the files have no names. What finds no room is told so at
// once (ErrFull, ErrTooLarge), and what was written before stays readable.
//
// It does not keep anything beyond Close, syncs nothing, and a Spool is for one
// goroutine at a time.
//
// Start reading at Store.New, then Spool.Write.
package spool
