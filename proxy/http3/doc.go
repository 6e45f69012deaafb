// Package http3 reads and writes what HTTP/3 (RFC 9114) puts on QUIC's
// streams: frames, settings, and field sections in QPACK (RFC 9204).
//
// It promises that every frame stands where the RFCs let it stand, or the
// reader returns the error that they ask for: one of the stream, or one of the
// connection. A message cut off is never read as a whole one. What is not
// asked for and has to be passed over, unknown frames and settings, is bounded
// by what the caller spends on it. No dynamic table is offered or used: a field
// section stands by itself, and decodes to at most a known multiple of its
// size.
//
// It does not open streams or know connections, judge fields (package head), or
// compare content with the length announced: that is package proxy.
//
// Start with Message, what a request's stream holds; Control reads a client's
// control stream, AppendHead writes an answer's beginning.
package http3
