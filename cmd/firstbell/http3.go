package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firstbell/cmd/firstbell/config"
	"firstbell/proxy"
)

// This file is about HTTP/3: its socket, and what is told of it.

// udpBufferBytes is what the socket of HTTP/3 should hold: 10 ms of packets at
// 5 Gbit/s. Without privileges the system gives net.core.rmem_max at most.
const udpBufferBytes = 7 << 20

// openHTTP3 opens listen.http3, if there is one. A process that takes over opens
// it once the one before has let it go: QUIC's connections cannot be handed over,
// and of two readers of a socket each would get the other's packets.
func (s *server) openHTTP3(c *config.Config) (err error) {
	if c.Listen.HTTP3 == "" || s.inherited.before != nil {
		return nil
	}
	s.datagrams, err = s.listenHTTP3(c.Listen.HTTP3)
	return err
}

func (s *server) listenHTTP3(address string) (net.PacketConn, error) {
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, listenProblem("http3", address, err)
	}
	s.enlarge(pc.(*net.UDPConn))
	return pc, nil
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
	if s.datagrams == nil {
		return ""
	}
	return s.datagrams.LocalAddr().String()
}

// takeOverPause is how often a process that takes over looks whether the one
// before has let go of the socket.
const takeOverPause = 100 * time.Millisecond

// serveHTTP3 serves listen.http3 until the proxy is shut down, or ctx ends while
// the socket is not to be had.
func (s *server) serveHTTP3(ctx context.Context) error {
	c := s.now.Load().config
	pc := s.datagrams
	for pc == nil {
		var err error
		if pc, err = s.listenHTTP3(c.Listen.HTTP3); err == nil {
			s.log.Info("serving HTTP/3, as the process before has let go of it", "http3", pc.LocalAddr().String())
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
	secret, err := os.ReadFile(config.Pairs(&c.TLS)[0].Key)
	if err != nil {
		_ = pc.Close()
		return fmt.Errorf("reading the key that HTTP/3's resets are made from: %w", err)
	}
	return s.proxy.ServeHTTP3(pc, proxy.HTTP3{
		TLS:  s.certs.Config(proxy.ProtocolHTTP3),
		Port: c.Listen.HTTP3Port,
		// The same after a restart, so that clients of the process before hear at
		// once that it is gone.
		ResetKey: sha256.Sum256(append([]byte("firstbell: QUIC resets\n"), secret...)),
		TokenKey: sha256.Sum256(append([]byte("firstbell: QUIC tokens\n"), secret...)),
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
	Handshakes   int64            `json:"handshakes"` // under way
	Refused      int64            `json:"refused"`    // connections, as there were too many
	GivenUp      int64            `json:"given_up"`   // requests, by their clients
	ErrorsByCode map[string]int64 `json:"errors"`     // of clients, by the code that answered them
}

func http3StatusOf(s *server, p *proxy.Stats) *http3Status {
	if s.now.Load().config.Listen.HTTP3 == "" {
		return nil
	}
	st := &http3Status{p.HTTP3.Connections, p.HTTP3.Handshakes, p.HTTP3.RefusedConns, p.HTTP3.RequestsLeft, map[string]int64{}}
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
	mH3Errors      = counter("http3_errors_total", "Breaches of HTTP/3 by clients, by the code that answered them.", "code")
)

func collectHTTP3(ch chan<- prometheus.Metric, p *proxy.Stats) {
	mH3Connections.send(ch, float64(p.HTTP3.Connections))
	mH3Handshakes.send(ch, float64(p.HTTP3.Handshakes))
	mH3Refused.send(ch, float64(p.HTTP3.RefusedConns))
	mH3Left.send(ch, float64(p.HTTP3.RequestsLeft))
	for code, n := range p.HTTP3.ProtocolErrors {
		mH3Errors.send(ch, float64(n), code)
	}
}
