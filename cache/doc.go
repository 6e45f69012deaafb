// Package cache keeps HTTP responses and knows when they may be used again:
// RFC 9111 for a shared cache, with RFC 5861 (stale responses), RFC 9213
// (CDN-Cache-Control) and the conditional requests of RFC 9110.
//
// It promises that a response is shared and stored only when its own header
// section allows it, that nothing which came for one user, or with Set-Cookie,
// is kept for another, that what Put stored is found by the next Lookup, that
// a Lookup takes no lock and a hit allocates nothing, and that the accounted
// bytes never exceed the budget.
//
// It does not fetch, collapse requests, answer ranges or write to disk: it
// keeps whole responses in memory. It reads the clock only in MarkUncacheable;
// everything else is told the time.
//
// Start reading at Judge (may it be stored, is it fresh: pure functions), then
// Cache.Lookup, then memory (who stays when memory is short).
package cache
