// Package pgtest starts a real PostgreSQL for tests.
//
// It promises a server of its own: on a free port of the loopback and on a unix
// socket, in a directory of its own, as an unprivileged user (PostgreSQL refuses
// to be root), that can be stopped, killed and started again, and that ends with
// the process at the latest. Where PostgreSQL is not installed the test is left
// out and says so; with FIRSTBELL_REQUIRE_SERVICES=1 it fails.
//
// It does not promise what survives a power cut: the server does not sync unless
// it is told to, so that tests are quick.
//
// Start reading at [Start].
package pgtest
