package main

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kind is a way to be slow.
type kind struct {
	name    string
	opening string        // sent at once
	drip    string        // then sent again and again
	every   time.Duration // how often; 0: never
	reads   bool          // instead a byte of the answer is read so often
	within  time.Duration // it must be cut off by then

	opened, cut atomic.Int64
	slowest     atomic.Int64 // of those cut off, in nanoseconds
	refused     atomic.Int64 // connects that came to nothing
}

// kinds are the ways to be slow under the limits. Slack is for the machine, which
// attackers, victims and firstbell share.
func kinds(s *setting) []*kind {
	const slack = 5 * time.Second
	paths := "X-Attacker: yes\r\nHost: school.example\r\n"
	return []*kind{
		{name: "heads", opening: "GET /attack HTTP/1.1\r\n" + paths, drip: "X", every: time.Second, within: s.header + slack},
		{name: "contents", opening: "POST /attack HTTP/1.1\r\n" + paths + "Content-Length: 100000000\r\n\r\n", drip: "content!", every: time.Second, within: 2*s.grace + slack},
		{name: "chunks", opening: "POST /attack HTTP/1.1\r\n" + paths + "Transfer-Encoding: chunked\r\n\r\n", drip: "1\r\nx\r\n", every: time.Second, within: 2*s.grace + slack},
		{name: "readers", opening: "GET /films/1 HTTP/1.1\r\nHost: school.example\r\n\r\n", reads: true, every: time.Second, within: 2*s.grace + slack},
		{name: "private", opening: "GET /mine/400000 HTTP/1.1\r\nHost: school.example\r\n\r\n", reads: true, every: time.Second, within: 2*s.grace + slack},
		{name: "silent", within: s.idle + slack},
	}
}

// assault is an attack under way.
type assault struct {
	kinds []*kind
	wg    sync.WaitGroup
	done  chan struct{}
}

// attack opens the connections of all kinds, a few hundred at a time.
func attack(s *setting, addr string) *assault {
	a := &assault{done: make(chan struct{})}
	for _, k := range kinds(s) {
		if s.only == nil || s.only.MatchString(k.name) {
			a.kinds = append(a.kinds, k)
		}
	}
	turns := make(chan struct{}, 200)
	for _, k := range a.kinds {
		for i := range s.attackers {
			a.wg.Go(func() {
				time.Sleep(time.Duration(i) * s.arrive / time.Duration(s.attackers))
				turns <- struct{}{}
				c, err := from(i, addr)
				<-turns
				if err != nil {
					k.refused.Add(1)
					return
				}
				defer c.Close()
				k.opened.Add(1)
				k.run(c)
			})
		}
	}
	go func() {
		a.wg.Wait()
		close(a.done)
	}()
	return a
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

// run is slow until it is cut off, or well beyond the time for that.
func (k *kind) run(c net.Conn) {
	began := time.Now()
	c.SetDeadline(began.Add(k.within + 5*time.Second))
	_, err := io.WriteString(c, k.opening)
	one := make([]byte, 1)
	for err == nil {
		if k.every == 0 || !k.reads {
			if err = k.dripped(c, one); err == nil {
				continue
			}
			break
		}
		time.Sleep(k.every)
		if _, err = c.Read(one); err == nil && reset(c) {
			err = syscall.ECONNRESET
		}
		if err == nil && time.Since(began) > k.within {
			return
		}
	}
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return
	}
	k.cut.Add(1)
	for took, was := int64(time.Since(began)), k.slowest.Load(); took > was && !k.slowest.CompareAndSwap(was, took); was = k.slowest.Load() {
	}
}

// reset reports whether the other side has given the connection up: what came
// before is still there to be read.
func reset(c net.Conn) (gone bool) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	const established = 1 // TCP_ESTABLISHED of Linux
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err != nil || info.State != established
	})
	return gone || err != nil
}

// dripped sends a drop and looks for an answer: who gets one is cut off, or will
// be.
func (k *kind) dripped(c net.Conn, one []byte) error {
	if k.every == 0 {
		_, err := c.Read(one)
		return err
	}
	if _, err := io.WriteString(c, k.drip); err != nil {
		return err
	}
	until := time.Now().Add(k.every)
	if err := c.SetReadDeadline(until); err != nil {
		return err
	}
	_, err := c.Read(one)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return nil
	}
	if err == nil {
		return io.EOF // the refusal
	}
	return err
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
		fmt.Fprintf(w, "%-10s %d opened, %d cut off, the last after %.1f s\n", k.name, k.opened.Load(), k.cut.Load(), slowest.Seconds())
		if k.opened.Load() == 0 || k.refused.Load() > 0 {
			faults = append(faults, fmt.Sprintf("%s: %d attackers could not connect", k.name, k.refused.Load()))
		}
		if k.cut.Load() != k.opened.Load() || slowest > k.within {
			faults = append(faults, fmt.Sprintf("%s: %d of %d cut off, the last after %v; all should be, within %v", k.name, k.cut.Load(), k.opened.Load(), slowest, k.within))
		}
	}
	return faults
}
