// Package admission bounds how many requests an origin is asked at once.
//
// It promises that never more places are held than the limit allows, that
// those who wait are served first come, first served, that the queue and the
// wait are bounded, that a waiter who leaves costs nobody a place, and that
// who is refused is told when to come back: later the longer the queue takes
// to drain, and spread so that a refused crowd does not return as one.
//
// It does not know HTTP, origins or schools, starts no goroutine and holds no
// timer but that of a caller who waits. It guards only what its owner puts
// behind it: check-ins never pass through here.
//
// Who comes next is decided in one place (next in queue.go), and how many may
// be in is one number that Resize moves while requests run. Shares between
// schools and priorities replace the first, a measured limit drives the
// second, and a waiting room is one more answer to *Busy; none of them changes
// Acquire or Release for those who call them.
//
// Start reading at Limiter.
package admission
