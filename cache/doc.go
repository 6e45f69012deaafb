// Package cache keeps HTTP responses and knows when they may be used again:
// RFC 9111 for a shared cache, with RFC 5861 (stale responses), RFC 9213
// (CDN-Cache-Control) and the conditional requests of RFC 9110.
//
// It promises that a response is shared and stored only when its own header
// section allows it, that nothing which came for one user, or with Set-Cookie,
// is kept for another, that what Put stored is found by the next Lookup, that
// a hit allocates nothing and takes no lock but, once after a purge, one for
// reading, and that the accounted bytes never exceed the budget. What is purged
// or invalidated is so for every Lookup that begins afterwards, and for what
// fetches bring that began before.
//
// A stored response may be kept in other content codings too. Its variants are
// found through it alone, accounted with it and gone with it; each has an
// entity tag of its own, and responses that came without one get one.
//
// Where no variant of a key suits a request, the fetch may name those that are
// there, and a 304 spares the content. It is believed only where it says itself
// that it is about the same as was stored for others (named.go).
//
// Bodies of 256 KiB and more lie outside of the heap where the system allows it
// (pages.go), to be sent without a copy. They count as others do.
//
// With a disk (Options.Disk) what Put stored is found again after a restart,
// kill -9 included, but for what was stored in the last moments; what was
// purged or invalidated is not. Every byte from there was verified.
//
// There a content may also be in blocks (blocks.go), for who asks for parts: a
// head says what the blocks are of, and without it they are found by nobody.
//
// While one process takes over from another there are two caches (handover.go):
// what memory holds goes over, look-ups that find nothing ask the other, and what
// is purged or invalidated is so in both when Purge and Invalidate return.
//
// It does not fetch, make codings, collapse requests or answer ranges. It reads
// the clock only in MarkUncacheable; everything else is told the time.
//
// Start reading at Judge (may it be stored, is it fresh: pure functions), then
// Cache.Lookup, then purges (rules that are held against stored responses when
// they are looked up), then memory (who stays when memory is short) and tier (the disk below it).
package cache
