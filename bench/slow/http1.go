package main

import (
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// script is an attack over HTTP/1.
type script struct {
	opening string        // sent at once
	drip    string        // then sent again and again
	every   time.Duration // how often; 0: never
	reads   bool          // instead a byte of the answer is read so often
	secure  bool          // to the address of TLS, without a handshake
}

// kinds1 are attacks over HTTP/1, and on handshakes of TLS.
func kinds1(s *setting) []*kind {
	paths := "X-Attacker: yes\r\nHost: school.example\r\n"
	made := func(name string, within time.Duration, sc script) *kind {
		return &kind{name: "1/" + name, within: within + s.slack, slack: s.slack, run: sc.run}
	}
	return []*kind{
		made("heads", s.header, script{opening: "GET /attack HTTP/1.1\r\n" + paths, drip: "X", every: time.Second}),
		made("contents", 2*s.grace, script{opening: "POST /attack HTTP/1.1\r\n" + paths + "Content-Length: 100000000\r\n\r\n", drip: "content!", every: time.Second}),
		made("chunks", 2*s.grace, script{opening: "POST /attack HTTP/1.1\r\n" + paths + "Transfer-Encoding: chunked\r\n\r\n", drip: "1\r\nx\r\n", every: time.Second}),
		made("readers", 2*s.grace, script{opening: "GET /films/1 HTTP/1.1\r\nHost: school.example\r\n\r\n", reads: true, every: time.Second}),
		made("private", 2*s.grace, script{opening: "GET /mine/400000 HTTP/1.1\r\nHost: school.example\r\n\r\n", reads: true, every: time.Second}),
		made("silent", s.idle, script{}),
		made("hellos", helloTimeMax, script{opening: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", drip: "x", every: time.Second, secure: true}),
	}
}

// helloTimeMax is what a handshake has.
const helloTimeMax = 10 * time.Second

// run is slow until it is cut off, or well beyond the time for that.
func (sc script) run(k *kind, at *target, i int) error {
	address := at.plain
	if sc.secure {
		address = at.secure
	}
	c, err := at.dial(i, address)
	if err != nil {
		return err
	}
	defer c.Close()
	k.opened.Add(1)
	began := time.Now()
	c.SetDeadline(began.Add(k.within + k.slack))
	_, err = io.WriteString(c, sc.opening)
	one := make([]byte, 1)
	for err == nil {
		if sc.every == 0 || !sc.reads {
			if err = sc.dripped(c, one); err == nil {
				continue
			}
			break
		}
		time.Sleep(sc.every)
		if _, err = c.Read(one); err == nil && reset(c) {
			err = syscall.ECONNRESET
		}
		if err == nil && time.Since(began) > k.within {
			return nil
		}
	}
	if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
		k.cutOff(began, 1)
	}
	return nil
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
func (sc script) dripped(c net.Conn, one []byte) error {
	if sc.every == 0 {
		_, err := c.Read(one)
		return err
	}
	if _, err := io.WriteString(c, sc.drip); err != nil {
		return err
	}
	until := time.Now().Add(sc.every)
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
