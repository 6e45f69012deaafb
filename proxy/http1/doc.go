// Package http1 reads HTTP/1.1 requests (RFC 9112) so that each has exactly one
// meaning, or is refused.
//
// It promises that what it accepts is read alike by every recipient that keeps
// to the RFC: one framing, one target, one Host, field lines without anything
// that others fold, trim or split differently. What the RFC lets a server
// mend, such as a lone LF or a folded line, is refused rather than mended. A
// refusal names its reason, for a counter, and the status to answer with.
//
// It does not read from connections, know time, decide on targets and names of
// hosts, or forward: that is package proxy.
//
// Start with Head.Parse; Chunks decodes chunked content.
package http1
