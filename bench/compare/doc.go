// Command compare measures firstbell beside what users would pick instead:
// nginx, HAProxy, Varnish, Traffic Server, Squid, Caddy and h2o, as many as are
// installed, each with the configuration that suits it best (peers/NAME), and
// beside the least that an answer can cost on the machine: a bare epoll loop and
// a bare fasthttp server that send firstbell's own bytes.
//
//	go run ./bench/compare            all cases, in less than ten minutes
//	go run ./bench/compare -quick     the ones that matter most, in a minute and a half
//	go run ./bench/compare -install   gets the peers that are missing (Debian, as root)
//	go run ./bench/compare -case 'hit' -peers nginx,haproxy -json result.json
//
// It promises:
//
//   - all servers run at once and take turns in short bursts, another one first
//     each time, so that what else the machine does meets them alike; ratios are
//     made turn by turn, and the median counts. Within 10 % is a tie;
//   - servers have one CPU, load and origin another; the table marks a server
//     that was not kept busy, because then the load was the limit;
//   - what is counted is the CPU time of all processes of a server, user and
//     system, by the kernel's clock of each process, over whole answers only:
//     a burst ends when the last answer has come, and an answer that is broken or
//     has another status is a fault, not a figure;
//   - it ends in time, and leaves no process and no file, on Ctrl-C, too.
//
// It does not promise figures that hold on another machine: only the ratios of
// one run mean something. Loopback's cost is in all of them. It measures no
// latency in duels: they show what an answer costs, trials show how long
// somebody waits.
//
// # What was tried and not kept
//
// firstbell's cost as a part of nginx's, median of seven turns (the least and the
// most), on 2026-11-22 on two CPUs that many others used: the spread is as large
// as what one looks for, so what is listed is without an effect that shows.
//
//	setting               1 KiB hit          passed on          check-in
//	as it is              0.77 (0.72-1.22)   1.67 (1.34-2.23)   1.55 (1.02-2.30)
//	GOMAXPROCS=2          0.68 (0.66-0.78)   1.82 (1.36-2.21)   1.63 (1.38-19.3)
//	GOGC=50               0.82 (0.69-1.39)   1.96 (1.53-2.90)   1.62 (0.67-1.95)
//	GOGC=400              0.80 (0.57-1.19)   1.85 (1.57-2.57)   1.80 (1.07-2.71)
//
// Servers have one CPU here, so GOMAXPROCS is 1 unless said. The collector has
// hardly anything to do on these paths, which allocate nothing; with a full cache
// the limit that serve sets by cache.memory decides how often it runs, and GOGC
// does not. A profile (default.pgo) has every package compiled anew, the standard
// library and SQLite too: more minutes than all tests have in CI, for what showed
// nothing when it was tried before. SO_REUSEPORT was not tried: with connections
// that are kept there is nothing to spread, and new ones cost their handshake, in
// which 47 % are the key exchange (20 % ML-KEM), 14 % the signature, and under 2 %
// code of ours (pprof). A handshake without a context and its goroutine allocates
// 6 times less of 450 and costs the same; a goroutine of its own for it leaves
// stacks as large, as serving needs 8 KiB, too.
//
// Start reading at measure, then arena.fight and crowd.burst. To have another
// case, add a line to duels, or a trial.
package main
