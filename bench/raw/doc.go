// Raw plays the corpus of raw requests and answers (bench/raw/corpus) through
// any HTTP/1.1 proxy and prints what it made of each.
//
//	go run ./bench/raw -target 127.0.0.1:8080 -origin 127.0.0.1:9000
//	go run ./bench/raw -peers
//
// The proxy at -target has been configured to ask the origin at -origin, which
// raw serves itself, for every host. With -peers it builds firstbell and starts
// it and, where they are installed, nginx, HAProxy and Caddy, one after the
// other on loopback, each configured to set the forwarding fields itself
// (peers.go), and prints them side by side. It installs nothing (Debian:
// apt-get install nginx haproxy caddy) and ends only what it started.
//
// It promises:
//
//   - what a row says was seen on the sockets of a client and of an origin;
//   - a cell in capitals is a finding: AMBIGUOUS (the origin got bytes that not
//     everybody reads alike), OTHER (another request than the client's, or one
//     more), PASSED (with a field that must not be), REFUSED (although valid), AS
//     WHOLE (a malformed or cut answer came as a whole one), POISONED (another
//     request got what was left of an answer);
//   - it exits 1 when the proxy at -target, or firstbell among the peers, has a
//     finding, 2 when it could not play.
//
// Peers are judged by the goal that firstbell has, which is stricter than the
// RFCs in places: that a finding is an attack depends on what stands behind.
//
// Start reading at run, then corpus.Play.
package main
