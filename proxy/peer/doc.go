// Package peer says who is at the other end of a connection, and behind it.
//
// It promises:
//
//   - an address counts only where it comes from somebody who is trusted: the
//     connection's own, what a trusted proxy says in front of it (the PROXY
//     protocol), or the right-most one in X-Forwarded-For or Forwarded that no
//     trusted proxy has;
//   - what does not keep to the letter of the PROXY protocol or of RFC 7239 is
//     an error, never a guess, and reading takes no byte more than the header;
//   - a Set is looked up in without allocating, in a time that grows with the
//     logarithm of its size, and may be used by many at once.
//
// It does not accept connections, decide who is trusted, or count anybody.
//
// Start reading at Set, then Client and ReadHeader.
package peer
