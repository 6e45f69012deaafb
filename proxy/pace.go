package proxy

import (
	"net"
	"syscall"
	"time"
)

// pace is what a client who takes an answer is held to.
type pace interface {
	// extend gives the client time for the next piece.
	extend() error
	// wroteSome counts what a write wrote, and returns nil in the place of an
	// error after which it goes on.
	wroteSome(n int64, err error) error
}

// pacer judges how fast a client takes what is written to it, each time that a
// write has run out of time: never while all goes well. It belongs to who
// writes.
type pacer struct {
	limits *Limits         // as they were when the connection began to wait for its request
	tcp    *net.TCPConn    // what all goes over; nil when it is not TCP
	raw    syscall.RawConn // of tcp, for who writes to it without TLS; else nil
	parted *partCounts

	wrote int64         // in all
	at    time.Time     // when it last judged; zero: never
	taken int64         // of wrote, what had been acknowledged by then
	reset bool          // it is to be reset when it is closed
	left  time.Duration // how much longer it waits: the client earns more by what it takes
}

func (d *door) newPacer() pacer { return pacer{limits: d.proxy.limits.Load(), parted: &d.parted} }

// patience is the time for a write. A client who takes nothing meets it twice.
func (p *pacer) patience() time.Duration { return p.limits.Grace / 2 }

// wroteSome implements pace.
func (p *pacer) wroteSome(n int64, err error) error {
	p.wrote += n
	if err == nil || !timedOut(err) {
		return err
	}
	now, taken, grace := time.Now(), p.wrote-unacknowledged(p.raw), p.limits.Grace
	if since := now.Sub(p.at); p.at.IsZero() || since > 2*grace {
		p.left = grace - p.patience()
	} else {
		p.left = min(p.left-since+p.limits.earned(taken-p.taken), grace)
	}
	p.at, p.taken = now, taken
	if p.left <= 0 {
		p.parted[partedReading].Add(1)
		p.discard()
		return err
	}
	return nil
}

// discard has the connection reset rather than ended when it is closed, so that
// the kernel forgets as well what the client did not take.
func (p *pacer) discard() {
	p.reset = true
	if p.tcp != nil {
		_ = p.tcp.SetLinger(0) // fails for a closed connection only
	}
}
