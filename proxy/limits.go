package proxy

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits are what every client is held to. Zero values mean the documented
// defaults.
type Limits struct {
	// Connections may be open at once; default 65,536, or three quarters of
	// the files that the process may open, where that is less. At the limit
	// idle connections make room for new ones; when there are none, a new one
	// is answered 503.
	Connections int
	// PerAddress of them may come from one address, or from one /64 of IPv6;
	// default a quarter of Connections. A new one beyond is answered 429.
	PerAddress int
	// Header bounds the time from the first byte of a request's head to its
	// last, however it arrives; default 10 s.
	Header time.Duration
	// Idle bounds the wait for a request, the first of a connection included;
	// default 75 s.
	Idle time.Duration
	// MinRate is how many bytes a second a client has to send of a request's
	// content, and to take of an answer that waits for it; default 256. A
	// phone on a bad GPRS cell does a thousand.
	MinRate int64
	// Grace is how long a client may stand still, and over how long MinRate is
	// averaged; default 30 s.
	Grace time.Duration

	// parkAfter is how long a connection is idle before it is parked: who
	// fetches a page never gets there, and who reads one costs two dozen cheap
	// system calls once.
	parkAfter time.Duration
}

// EffectiveLimits is l with the defaults filled in, as this machine has them.
func EffectiveLimits(l Limits) Limits { return *l.withDefaults() }

func (l Limits) withDefaults() *Limits {
	setDefault(&l.Connections, min(64<<10, openFilesMax()*3/4))
	setDefault(&l.PerAddress, max(1, l.Connections/4))
	setDefault(&l.Header, 10*time.Second)
	setDefault(&l.Idle, 75*time.Second)
	setDefault(&l.MinRate, 256)
	setDefault(&l.Grace, 30*time.Second)
	setDefault(&l.parkAfter, 5*time.Second)
	return &l
}

func setDefault[T int | int64 | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

// openFilesMax is how many files the process may open.
func openFilesMax() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > 1<<30 {
		return 1 << 30
	}
	return int(r.Cur)
}

// earned is how much time n bytes are worth at the rate that is asked for.
func (l *Limits) earned(n int64) time.Duration {
	n = min(n, 1<<30) // the product fits, and it is more than any wait
	return time.Duration(n) * time.Second / time.Duration(l.MinRate)
}

// Why a client was turned away at the door, or cut off behind it.
type parting uint8

const (
	partedTotal   parting = iota // no room for its connection
	partedAddress                // too many connections of its address
	partedUnsaid                 // no room even to say so
	partedIdle                   // idle when room was needed
	partedBody                   // sent its content too slowly
	partedReading                // took its answer too slowly
	partedDenied                 // of an address that is not let in
	partings
)

var partingNames = [partings]string{"connections", "address", "unanswered", "idle", "slow-content", "slow-reading", "denied"}

// partCounts counts clients by how they parted.
type partCounts [partings]atomic.Int64

// visitors counts the open connections by address. It holds an entry only for
// an address that has a connection, so it is bounded as these are.
type visitors struct {
	mu   sync.Mutex // guards open
	open map[netip.Addr]int
}

// visitorOf is what connections are counted by: an IPv4 address, or the /64 of
// an IPv6 one, as a household and a phone have that many. It is invalid, and
// counts for nothing, where there is no address.
func visitorOf(a net.Addr) netip.Addr { return visitor(addrOf(a)) }

// addrOf is the IP address of a; invalid where it has none.
func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr()
	case *net.UDPAddr:
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}

func visitor(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.Is4() || !a.IsValid() {
		return a
	}
	p, _ := a.Prefix(64) // an IPv6 address has one
	return p.Addr()
}

// enter counts one more connection of a, unless there are most already.
func (v *visitors) enter(a netip.Addr, most int) bool {
	if !a.IsValid() {
		return true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open[a] >= most {
		return false
	}
	if v.open == nil {
		v.open = make(map[netip.Addr]int)
	}
	v.open[a]++
	return true
}

// leave takes back one enter.
func (v *visitors) leave(a netip.Addr) {
	if !a.IsValid() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open[a]--; v.open[a] <= 0 {
		delete(v.open, a)
	}
}
