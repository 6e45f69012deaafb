// Package origin is firstbell's own HTTP/1.1 client side: it keeps connections
// to the servers of one origin, chooses among them, sends requests and reads
// responses, streaming both ways.
//
// It promises:
//
//   - A response is one meaning or an error. Framing that could be read in two
//     ways, a malformed head or chunk, an unasked 101 is a *MalformedError. A
//     message cut short never ends in io.EOF: its Body.Read returns
//     io.ErrUnexpectedEOF.
//   - First bytes are passed on as they arrive, both ways, and a final response
//     is seen while the request's content is still being sent.
//   - Only what is safe is sent twice: a request with a safe or idempotent
//     method and no content, whose reused connection died before any byte of
//     a response, once, on a fresh connection, within a retry budget. When
//     connecting fails nothing was sent, and another server is tried.
//   - Everything is bounded: heads, fields, trailers, chunk extensions, 1xx
//     responses, connections, retries, and every phase in time.
//   - A server behind https:// gets a request only after it has proved to be
//     the one meant, by TLS 1.2 or later; content that ends with the connection
//     is whole only where TLS says so.
//   - Fields of one connection only (RFC 9110 section 7.6.1) do not pass, nor
//     do bytes that would let one message become two.
//
// A WebSocket handshake is a request like others until its 101 is checked; then
// the connection is the caller's.
//
// It does not cache, decode content codings, follow redirects, speak HTTP/2 to
// origins, log, or decide how many requests an origin gets: that is
// for package admission. It does not wait for a free connection.
//
// A plain connection is spoken to past package net (socket_unix.go): a look at
// whether it is still quiet, a write, one wait, a read. Nothing else is asked of
// the kernel for a request, and nothing is allocated for one with a Room.
//
// Start reading at Pool.Do, then exchange.go, the life of one request on one
// connection; head.go and chunked.go hold what the wire format allows.
package origin
