package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firstbell/cmd/firstbell/config"
	"firstbell/cmd/firstbell/handover"
	"firstbell/proxy"
	"firstbell/proxy/datagrams"
)

// This file is about HTTP/3: its socket, how that changes hands, and what is told
// of it.

// udpBufferBytes is what the socket of HTTP/3 should hold: 10 ms of packets at
// 5 Gbit/s. Without privileges the system gives net.core.rmem_max at most.
const udpBufferBytes = 7 << 20

// http3Door is what HTTP/3 is served with.
type http3Door struct {
	mu     sync.Mutex        // guards what follows
	socket *datagrams.Socket // nil: none, or the process before has it
	keys   quicKeys
}

func (d *http3Door) get() (*datagrams.Socket, quicKeys) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.socket, d.keys
}

func (d *http3Door) passed() datagrams.Stats {
	if socket, _ := d.get(); socket != nil {
		return socket.Stats()
	}
	return datagrams.Stats{}
}

// quicKeys are what a client brings back that another process gave it. They stay
// the same from process to process.
type quicKeys struct{ Reset, Token [32]byte }

// openHTTP3 opens listen.http3, if there is one, or takes it over. What arrives
// waits until it is served.
func (s *server) openHTTP3(c *config.Config) error {
	if c.Listen.HTTP3 == "" {
		return nil
	}
	var err error
	if s.h3.keys, err = makeQUICKeys(c); err != nil {
		return err
	}
	err = s.listenHTTP3(c.Listen.HTTP3)
	if s.inherited.before != nil && errors.Is(err, syscall.EADDRINUSE) {
		return nil // by a program that does not hand it over: serveHTTP3 waits for it
	}
	return err
}

// makeQUICKeys makes keys that are the same after a restart: of the key of a
// certificate, or of what tickets are sealed with. Where there is neither they
// are made up, and outlive upgrades only.
func makeQUICKeys(c *config.Config) (k quicKeys, err error) {
	file := c.TLS.TicketKeys
	if all := config.Pairs(&c.TLS); len(all) > 0 {
		file = all[0].Key
	}
	secret := make([]byte, 32)
	if file == "" {
		_, _ = rand.Read(secret) // never fails
	} else if secret, err = os.ReadFile(file); err != nil {
		return k, fmt.Errorf("reading what HTTP/3's resets and tokens are made from: %w", err)
	}
	k.Reset = sha256.Sum256(append([]byte("firstbell: QUIC resets\n"), secret...))
	k.Token = sha256.Sum256(append([]byte("firstbell: QUIC tokens\n"), secret...))
	return k, nil
}

func (s *server) listenHTTP3(address string) error {
	pc, err := s.inherited.sockets.ListenPacket("http3", address)
	if err != nil {
		return listenProblem("http3", address, err)
	}
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return errors.Join(fmt.Errorf("listening on %s (listen.http3): a %T is no socket of UDP", address, pc), pc.Close())
	}
	s.enlarge(udp)
	s.h3.mu.Lock()
	s.h3.socket = datagrams.New(udp)
	s.h3.mu.Unlock()
	return nil
}

// enlarge gives the socket its buffers, and says so when the system does not.
func (s *server) enlarge(pc *net.UDPConn) {
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") // it is said here
	err := errors.Join(pc.SetReadBuffer(udpBufferBytes), pc.SetWriteBuffer(udpBufferBytes))
	got := 0
	if raw, e := pc.SyscallConn(); e == nil && err == nil {
		_ = raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF) })
	}
	if err != nil || got < udpBufferBytes {
		s.log.Warn("the UDP socket of HTTP/3 holds little; answers may be slow at the bell. As root: sysctl -w net.core.rmem_max=7500000 net.core.wmem_max=7500000",
			"has", got, "wants", udpBufferBytes, "error", err)
	}
}

// http3Address is where HTTP/3 is served; "" while it is not.
func (s *server) http3Address() string {
	if socket, _ := s.h3.get(); socket != nil {
		return socket.LocalAddr().String()
	}
	return ""
}

// DatagramsAsk is who takes over the socket of listen.http3.
type DatagramsAsk struct{ Address string }

// DatagramsGiven is what it has to know.
type DatagramsGiven struct {
	Handed datagrams.Handed
	Passes bool     // the process that gives still has connections of that socket
	Keys   quicKeys // zero where it has none
}

// Datagrams hands over the socket of listen.http3: from here on the new process
// reads it.
func (h *handing) Datagrams(ask DatagramsAsk, given *DatagramsGiven) error {
	s := h.s
	var socket *datagrams.Socket
	socket, given.Keys = s.h3.get()
	if socket == nil || s.now.Load().config.Listen.HTTP3 != ask.Address {
		return nil // each has its own
	}
	given.Handed, given.Passes = socket.HandOver(h.next.Relay, h.next.Gone()), true
	return nil
}

// takeOverHTTP3 has the process before, if there is one, hand over the socket
// of listen.http3.
func (s *server) takeOverHTTP3() {
	c, before := s.now.Load().config, s.inherited.before
	if c.Listen.HTTP3 == "" || before == nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.work, callMax)
	defer cancel()
	var given DatagramsGiven
	err := before.Call(ctx, "Old.Datagrams", DatagramsAsk{c.Listen.HTTP3}, &given)
	if socket, _ := s.h3.get(); err == nil && given.Passes && socket != nil && before.Relay != nil {
		_ = before.Relay.SetWriteBuffer(udpBufferBytes) // the system gives what it gives
		err = socket.TakeOver(given.Handed, before.Relay, before.Gone())
	}
	if given.Keys != (quicKeys{}) {
		s.h3.mu.Lock()
		s.h3.keys = given.Keys
		s.h3.mu.Unlock()
	}
	if err != nil && !errors.Is(err, handover.ErrGone) {
		s.log.Warn("packets for the process before this one cannot be passed on: its connections of HTTP/3 break off", "error", err)
	} else if given.Passes {
		s.log.Info("reading the socket of HTTP/3", "http3", s.http3Address(), "process", before.PID)
	}
}

// takeOverPause is how often a process looks whether one before it, of a program
// that does not hand it over, has let go of the socket.
const takeOverPause = 100 * time.Millisecond

// serveHTTP3 serves listen.http3 until the proxy is shut down, or ctx ends while
// the socket is not to be had.
func (s *server) serveHTTP3(ctx context.Context) error {
	c := s.now.Load().config
	for s.http3Address() == "" {
		err := s.listenHTTP3(c.Listen.HTTP3)
		if err == nil {
			s.log.Info("serving HTTP/3, as the process before has let go of it", "http3", s.http3Address())
			break
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		select {
		case <-time.After(takeOverPause):
		case <-ctx.Done():
			return nil
		}
	}
	socket, keys := s.h3.get()
	return s.proxy.ServeHTTP3(socket, proxy.HTTP3{
		TLS:      s.certs.Config(proxy.ProtocolHTTP3),
		Port:     c.Listen.HTTP3Port,
		ResetKey: keys.Reset,
		TokenKey: keys.Token,
	})
}

// listenProblem says what to do when listen.KEY cannot be opened.
func listenProblem(key, address string, err error) error {
	key = "listen." + key
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listening on %s (%s): the port is in use; end the other process or choose another port: %w", address, key, syscall.EADDRINUSE)
	}
	if errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("listening on %s (%s): not permitted; ports below 1024 need CAP_NET_BIND_SERVICE", address, key)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return fmt.Errorf("listening on %s (%s): %w", address, key, err)
}

// http3Status is how listen.http3 does.
type http3Status struct {
	Connections  int64            `json:"connections"`
	Handshakes   int64            `json:"handshakes"`     // under way
	Refused      int64            `json:"refused"`        // connections, as there were too many
	GivenUp      int64            `json:"given_up"`       // requests, by their clients
	Passed       int64            `json:"passed_on"`      // packets that went to the process before
	PassedLost   int64            `json:"passed_on_lost"` // packets that it did not take in time
	ErrorsByCode map[string]int64 `json:"errors"`         // of clients, by the code that answered them
}

func http3StatusOf(s *server, p *proxy.Stats) *http3Status {
	if s.now.Load().config.Listen.HTTP3 == "" {
		return nil
	}
	passed := s.h3.passed()
	st := &http3Status{p.HTTP3.Connections, p.HTTP3.Handshakes, p.HTTP3.RefusedConns, p.HTTP3.RequestsLeft, passed.Passed, passed.Lost, map[string]int64{}}
	for code, n := range p.HTTP3.ProtocolErrors {
		if n > 0 {
			st.ErrorsByCode[code] = n
		}
	}
	return st
}

var (
	mH3Connections = gauge("http3_connections", "Connections of HTTP/3.")
	mH3Handshakes  = gauge("http3_handshakes", "Handshakes of HTTP/3 under way.")
	mH3Refused     = counter("http3_connections_refused_total", "Connections of HTTP/3 refused, as there were too many.")
	mH3Left        = counter("http3_requests_given_up_total", "Requests over HTTP/3 that their clients gave up.")
	mH3Passed      = counter("http3_packets_passed_total", "Packets of HTTP/3 that went to the process before this one, whose connections they are.")
	mH3Lost        = counter("http3_packets_passed_lost_total", "Packets of HTTP/3 that the process before this one did not take in time.")
	mH3Versions    = counter("http3_other_versions_total", "Packets of other versions of QUIC, answered with the one there is.")
	mH3Retries     = counter("http3_retries_total", "Clients of HTTP/3 that had to prove their address first.")
	mH3Dropped     = counter("http3_packets_dropped_total", "Packets of HTTP/3 that were of no connection, and began none.")
	mH3Errors      = counter("http3_errors_total", "Breaches of HTTP/3 by clients, by the code that answered them.", "code")
)

func collectHTTP3(ch chan<- prometheus.Metric, s *server, p *proxy.Stats) {
	passed := s.h3.passed()
	mH3Passed.send(ch, float64(passed.Passed))
	mH3Lost.send(ch, float64(passed.Lost))
	mH3Connections.send(ch, float64(p.HTTP3.Connections))
	mH3Handshakes.send(ch, float64(p.HTTP3.Handshakes))
	mH3Refused.send(ch, float64(p.HTTP3.RefusedConns))
	mH3Left.send(ch, float64(p.HTTP3.RequestsLeft))
	mH3Versions.send(ch, float64(p.HTTP3.OtherVersions))
	mH3Retries.send(ch, float64(p.HTTP3.Retries))
	mH3Dropped.send(ch, float64(p.HTTP3.Dropped))
	for code, n := range p.HTTP3.ProtocolErrors {
		mH3Errors.send(ch, float64(n), code)
	}
}
