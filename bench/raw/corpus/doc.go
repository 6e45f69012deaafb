// Package corpus holds raw HTTP/1.1 requests and answers that parsers are known
// to read in two ways, beside valid ones that look odd, and plays them through
// a proxy on sockets between a client and an origin of its own.
//
// The cases are data: *.txt, whose format Read describes. Each names what a
// proxy may make of it: refuse it, or pass it on in one of the forms listed.
//
// It promises:
//
//   - what the origin got is judged by its bytes, and by a reader that takes
//     only what every reader takes alike: one framing, one Host, lines that end
//     in CRLF, names without spaces. Anything else is Ambiguous, however
//     harmless it looks;
//   - a request that the case does not list is Other, on whatever connection and
//     however late it came: every request carries its case's number;
//   - an answer that is cut, malformed or followed by another one is looked for
//     in what this client gets, and in what the next ones get;
//   - it needs nothing of the proxy but its address and that it asks the origin;
//     it is bounded in time and in connections.
//
// It does not judge statuses beyond "refused", nor speed, and knows HTTP/1 alone.
//
// Start reading at Read, then Play and judge.go.
package corpus
