// Package disk keeps records on disk: a key, a few bytes about it, and a
// content of any size. It knows nothing of HTTP.
//
// It promises:
//
//   - What a Record hands out is what was written under that very key. Every
//     block of 256 KiB has a 128-bit digest and is verified before its first
//     byte leaves, once per open file; the blocks' digests, the key and the
//     head are bound together by one of their own. A file that is damaged,
//     torn, swapped with another or none of ours is ErrNotFound and counted,
//     and is taken away.
//   - A record is there whole or not at all: it is written under another name
//     and renamed. What Remove has taken out does not come back when the
//     process is killed, not even if it was being written at that moment; a
//     power cut within a second of Remove may bring it back.
//   - Nothing that is stored or removed waits in the way of a look-up, and a
//     look-up needs no rebuilt index: it reads the one directory that its key
//     belongs to.
//   - The budget holds, counted in units of 4 KiB as file systems do, but for
//     the seconds in which the index is rebuilt. A file system that is full or
//     fails ends storing for half a minute, and nothing else.
//
// A store may give its directory to another process (Release): it then reads what
// is there and changes nothing.
//
// It does not sync contents: after a power cut the last seconds may be gone, or
// be there damaged, which is noticed. The digest guards against disks, not
// against who can write to the directory.
//
// # Files
//
//	DIR/lock           who holds it is the one writer
//	DIR/tmp/*          being written; removed by Open
//	DIR/r/7c3/NAME     records, in 4,096 directories by their key's digest
//
// NAME is KEY-VARIANT-SEQ-UNITS in hexadecimal digits: the 128-bit digest of
// the key, a 32-bit digest of the variant, the time of storing in nanoseconds,
// and the size in units of 4 KiB. A directory listing thus is the index: a
// million records are rebuilt by reading 4,096 directories and no file.
//
// # A record
//
//	   0   8  "fbcache1"
//	   8   4  F: where the content begins, a multiple of 512
//	  12   4  S: the size of a slot
//	  16   8  L: the length of the content
//	  24   8  SEQ, as in the name
//	  32  16  digest of the table
//	  48  16  digest of the 48 bytes before
//	  64   S  slot 0
//	64+S   S  slot 1: zeros, or what took the place of slot 0
//	   F   L  the content, in blocks of 256 KiB
//	 F+L      the table: 16 bytes for each block, its digest
//
// and a slot, of which the valid one with the higher generation counts:
//
//	 0   4  bytes in use, the digest included
//	 4   4  generation
//	 8   4  length of the key       16   4  length of the variant
//	12   4  length of the host      20   4  length of the head
//	24      key, host, variant, head
//	    16  digest of bytes 48 to 64 of the file, and of the slot up to here
//
// All numbers are little endian. A new head (Update) goes into the slot that
// does not count, so that a torn one leaves the old one.
//
// Start reading at Store.Find and Store.Open, then Writer.Commit; shard.go is
// the index, evict.go says who goes when room is short.
package disk
