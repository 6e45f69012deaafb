//go:build race

package proxy

// leakRequests are fewer with the race detector, which makes each of them dear.
const leakRequests = 50_000
