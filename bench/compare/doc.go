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
// Start reading at measure, then arena.fight and crowd.burst. To have another
// case, add a line to duels, or a trial.
package main
