// Package head reads the field section that a request of HTTP/2 or HTTP/3
// begins with (RFC 9113 section 8.3, RFC 9114 section 4.3), and its trailer
// section, so that each has exactly one meaning, or is refused.
//
// It promises that what it accepts says the same to every recipient that keeps
// to the RFCs, and that it can be passed on over HTTP/1.1 without becoming
// something else: names and values hold nothing that would begin another line,
// fields of a connection are refused, as are pseudo-fields that are missing,
// twice there, unknown or in the wrong place. A refusal names its reason, for
// a counter, and says whether the request is malformed, which is for the
// protocol's stream error, or is to be answered.
//
// It does not decode (HPACK and QPACK come before it), know frames, compare
// content with the length announced, or decide on targets and names of hosts:
// that is for the protocols' packages and package proxy.
//
// Start with Head.Add and Head.End.
package head
