// Package http2 serves HTTP/2 (RFC 9113) on a connection: frames, header
// compression, streams, flow control and their limits. It hands each request
// to a handler as an owned head and a content to read, and takes the answer as
// a header block and bytes.
//
// It promises that a request it hands out is well-formed by RFC 9113 section 8:
// pseudo-fields, field names and values, one authority, no connection-specific
// fields, a content as long as announced. What is malformed ends its stream
// with PROTOCOL_ERROR and is never seen by the handler as whole. Content that
// was cut off never ends with io.EOF.
//
// What a client can make a connection cost is bounded: streams at once, bytes
// of heads and of content not yet read, frames that carry nothing, requests
// taken back, time for a head, for a piece of content, for a client to take a
// piece of an answer, and for an idle connection. What breaks a bound is
// refused, and counted by reason (Refusals).
//
// A request without content is served on the goroutine that reads the
// connection, and answers to requests that came together leave together: a
// small answer costs no goroutine and no system call of its own. A handler that
// may wait says so (Stream.Aside), and another goroutine goes on reading.
//
// Header blocks are written without the dynamic table, so that a block made
// once (AppendField) is good for every connection.
//
// It does not know what requests mean, route them, negotiate TLS, push, or heed
// priorities.
//
// Start reading at Conn.run, then Conn.handle; Stream.Write for the way out.
package http2
