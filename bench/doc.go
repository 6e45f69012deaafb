// Package bench holds the bell from outside: programs that talk to firstbell
// over the wire, as browsers, learning platforms and other proxies do.
//
//   - bench/bell generates a roster and plays a morning of students over real
//     TCP connections, checking every byte they are given;
//   - bench/lms is a learning platform with a weak heart, the origin of the
//     demo;
//   - bench/compare measures firstbell beside seven proxies and beside the least
//     that an answer can cost on the machine;
//   - bench/plan says what a morning needs, calculated and simulated;
//   - bench/raw plays raw requests and answers that parsers are known to read in
//     two ways through any proxy;
//   - bench/slow has thousands of slow clients at a firstbell at once, and judges
//     what normal ones get.
//
// It promises that nothing below imports a package of firstbell: what is
// measured and checked here is only what anybody can see from outside. Only
// "firstbell demo" imports bench/lms and bench/bell.
//
// Start reading at bell.Play, lms.New, and the doc.go of bench/compare.
package bench
