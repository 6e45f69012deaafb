// Herd plays thundering herds against any caching HTTP proxy and prints what
// came of each: how often the origin was asked, how long who waited, and whether
// anybody was given a page that was cut short or meant for somebody else.
//
//	go run ./bench/herd -target http://127.0.0.1:8080 -origin 127.0.0.1:9000
//
// The proxy at -target has been configured to ask the origin at -origin, which
// herd serves itself. Nothing else is needed; compare.sh does it for firstbell,
// nginx and Varnish on one machine and prints them side by side.
//
// It promises:
//
//   - what is judged is what a browser would see: the clients read their sockets
//     themselves, so that a response that ends before its framing says so is told
//     from one that ends cleanly with too little;
//   - every case uses URLs that nobody has asked for before, is bounded in time
//     and in connections, and leaves nothing behind;
//   - what "at once, without a proxy" costs on this machine is measured beside
//     the case that is judged by it, not assumed;
//   - it exits 1 when a bar is missed (not with -report), 2 when it could not play.
//
// With -leaks it plays no cases, but package leaks: some 20,000 random requests
// of many users at an origin that personalises, errs and lies, and an oracle
// that knows what the origin permits. It prints a table by kind of leak, tells
// the first findings on the standard error, with what happened to the URL
// before, and which kinds of URLs showed what (they are in bench/leaks/kinds.go).
//
//	go run ./bench/herd -leaks -target http://127.0.0.1:8080 -origin 127.0.0.1:9000 -requests 100000 -seed 1
//
// The proxy has to take the hosts one.test and two.test. Rows with a star are
// stricter than RFC 9111.
//
// It does not measure throughput or CPU time, and it is no suite for RFC 9111.
// It judges some things more strictly than the RFC: a page without any directive
// that was made for a request with a cookie must not be shown to another user,
// although a heuristic cache may do that.
//
// Start reading at cases in suite.go, then one case, then answer in client.go; for -leaks at playLeaks.
package main
