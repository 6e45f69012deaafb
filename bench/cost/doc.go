// Command cost measures what an answer costs the server in CPU: firstbell
// beside a bare fasthttp server that answers the same bytes, and beside nginx
// where it is installed, each a process of its own, in alternating rounds of
// one run, on loopback.
//
//	go run ./bench/cost
//
// It prints the CPU time per request of each and the ratios, for hits of 1 KiB,
// 20 KiB (which firstbell has coded once and nginx codes each time) and 1 MiB,
// and for a durable check-in, which nginx merely forwards. It promises bounded load that ends by
// itself and leaves no process and no file behind. It does not measure
// latency, and its figures are good for ratios only: the machine is in both.
//
// Start reading at main, then round.
package main
