//go:build !race

package proxy

// leakRequests are played by the leak suite unless FIRSTBELL_LEAK_REQUESTS says
// otherwise.
const leakRequests = 200_000
