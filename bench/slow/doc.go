// Command slow has thousands of slow clients at a firstbell at once, and judges
// what normal ones get meanwhile.
//
//	go run ./bench/slow                       # 2,000 of each kind, about a minute
//	go run ./bench/slow -attackers 200 -grace 4s -header 2s -idle 5s
//
// The kinds: heads that trickle, contents that trickle (of announced length, and
// chunked), answers that are hardly read (stored ones, and ones that only the
// origin has), and connections that say nothing. The origin bears eight
// requests at once, so that holding places there would stop everybody.
//
// It promises bounded load on loopback that ends by itself, and leaves no
// process and no file behind. It exits with 1 when a normal client got an error
// or had to wait for long, when an attacker was not cut off in time, when the
// origin saw a request that never became whole, or when memory grew by more
// than -memory.
//
// Start reading at play, then attack.
package main
