package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kind is a way to be slow, or too much.
type kind struct {
	name    string
	within  time.Duration // it must be cut off by then
	slack   time.Duration // of that, for the machine
	streams int           // attackers of one connection; 0: one
	few     bool          // a twentieth as many connections do it
	// run is the attack of one connection. It says when its attackers have begun
	// (open) and when they are cut off (cutOff), and ends well behind within.
	run func(k *kind, at *target, i int) error

	opened, cut atomic.Int64
	slowest     atomic.Int64 // of those cut off, in nanoseconds
	refused     atomic.Int64 // connects that came to nothing
	why         atomic.Pointer[string]
}

// cutOff counts n attackers who began then as cut off now.
func (k *kind) cutOff(began time.Time, n int) {
	k.cut.Add(int64(n))
	for took, was := int64(time.Since(began)), k.slowest.Load(); took > was && !k.slowest.CompareAndSwap(was, took); was = k.slowest.Load() {
	}
}

// kinds are the ways to be slow under the limits, by protocol.
func kinds(s *setting) (all []*kind) {
	for _, k := range slices.Concat(kinds1(s), kinds2(s), kinds3(s), kindsT(s)) {
		if s.only == nil || s.only.MatchString(k.name) {
			all = append(all, k)
		}
	}
	return all
}

// assault is an attack under way.
type assault struct {
	kinds []*kind
	wg    sync.WaitGroup
	done  chan struct{}
}

// attack opens the connections of all kinds, a few hundred at a time.
func attack(s *setting, at *target) *assault {
	a := &assault{kinds: kinds(s), done: make(chan struct{})}
	for _, k := range a.kinds {
		n := s.attackers / max(1, k.streams)
		if k.few {
			n /= 20
		}
		for i := range max(1, n) {
			a.wg.Go(func() {
				time.Sleep(time.Duration(i) * s.arrive / time.Duration(n))
				if err := k.run(k, at, i); err != nil {
					k.refused.Add(1)
					why := err.Error()
					k.why.CompareAndSwap(nil, &why)
				}
			})
		}
	}
	go func() {
		a.wg.Wait()
		close(a.done)
	}()
	return a
}

// target is what is attacked.
type target struct {
	plain  string // HTTP/1
	secure string // HTTP/2 over TCP, HTTP/3 over UDP
	tls    *tls.Config
	turns  chan struct{} // held while connecting
}

// dial connects over TCP, in turn.
func (at *target) dial(i int, address string) (net.Conn, error) {
	at.turns <- struct{}{}
	defer func() { <-at.turns }()
	return from(i, address)
}

// from connects as a client does who is far away: from one of some addresses,
// with small packets and a small window.
func from(i int, addr string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:   10 * time.Second,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i%8), 1)},
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) {
				if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400); err == nil {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
				}
			})
			if cerr != nil {
				return cerr
			}
			return err
		},
	}
	return d.Dial("tcp", addr)
}

func (a *assault) over() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

func (a *assault) longest() (d time.Duration) {
	for _, k := range a.kinds {
		d = max(d, k.within)
	}
	return d
}

// judge prints what became of each kind.
func (a *assault) judge(w io.Writer) (faults []string) {
	for _, k := range a.kinds {
		slowest := time.Duration(k.slowest.Load())
		fmt.Fprintf(w, "%-12s %d opened, %d cut off, the last after %.1f s\n", k.name, k.opened.Load(), k.cut.Load(), slowest.Seconds())
		if k.opened.Load() == 0 || k.refused.Load() > 0 {
			why := "none tried"
			if w := k.why.Load(); w != nil {
				why = *w
			}
			faults = append(faults, fmt.Sprintf("%s: %d attackers could not connect, the first by: %s", k.name, k.refused.Load(), why))
		}
		if k.cut.Load() != k.opened.Load() || slowest > k.within {
			faults = append(faults, fmt.Sprintf("%s: %d of %d cut off, the last after %v; all should be, within %v", k.name, k.cut.Load(), k.opened.Load(), slowest, k.within))
		}
	}
	return faults
}
