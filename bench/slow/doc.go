// Command slow has thousands of slow or flooding clients at a firstbell at once,
// and judges what normal ones get meanwhile.
//
//	go run ./bench/slow                       # 2,000 of each kind of HTTP/1 at once, about a minute
//	go run ./bench/slow -kind '^2/contents'   # the kinds that a regular expression matches, at once
//	go run ./bench/slow -each -kind .         # every kind, one after the other: a quarter of an hour
//	go run ./bench/slow -attackers 200 -grace 4s -header 2s -idle 5s
//
// Over HTTP/1 (1/): heads that trickle, contents that trickle (of announced
// length, and chunked), answers that are hardly read (stored ones, and private
// ones that only the origin has), connections that say nothing, and handshakes
// of TLS that trickle.
//
// Over HTTP/2 (2/): contents, with a connection for each (contents) or a
// hundred on one (streams); answers for which the windows open by a byte a
// second (readers of private ones, a connection each; windows, a hundred on
// one); answers that the connection does not take (deaf); header blocks
// continued for ever; DATA frames that trickle; connections that say nothing, or
// not even the preface (hellos); floods of pings, settings, requests taken back
// and empty frames, of a twentieth as many connections.
//
// Over HTTP/3 (3/): contents, streams, readers and windows as over HTTP/2;
// connections that say nothing (silent), that are gone without a word (gone),
// and handshakes of which only the first packet comes (handshakes).
//
// With -kind '^t/H', '^t/B', '^t/R' and '^t/X' slowhttptest attacks instead
// (apt-get install slowhttptest), with as many connections as -attackers says.
//
// Of those with a hundred streams on a connection, attackers are streams. The
// origin bears eight requests at once, so that holding places there would stop
// everybody. Normal clients speak all three versions.
//
// It promises bounded load on loopback that ends by itself, and leaves no
// process and no file behind. It exits with 1 when a normal client got an error
// or had to wait for long, when an attacker was not cut off in time, when the
// origin saw a request that never became whole, when connections were left, or
// when memory grew by more than -memory, which is meant for one kind at a time:
// over HTTP/1 each takes 7 to 42 MiB, all of them at once take 165. What
// one attacker costs, without what the machine adds, proxy's
// TestASlowClientCostsLittle holds down. With -profile it keeps what firstbell
// says of its memory when it has most.
//
// Start reading at play, then attack; kinds1, kinds2 and kinds3 are the kinds.
package main
