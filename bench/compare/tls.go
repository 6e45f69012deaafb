//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// clientTLS trusts the certificate that compare has made for the run.
func clientTLS(cache tls.ClientSessionCache, protocols ...string) *tls.Config {
	return &tls.Config{ServerName: host, InsecureSkipVerify: true, ClientSessionCache: cache, NextProtos: protocols}
}

// connectOften makes n connections, eight at once, each for one request; over
// TLS where the server has it, from a session of before if resume says so. It
// returns how many there were.
func connectOften(ctx context.Context, s *server, n int, resume bool) (done int, err error) {
	var sessions tls.ClientSessionCache
	if resume {
		sessions = tls.NewLRUClientSessionCache(64)
	}
	var left, resumed atomic.Int64
	left.Store(int64(n))
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		cfg := clientTLS(sessions, "http/1.1")
		wg.Go(func() {
			for left.Add(-1) >= 0 && errs[i] == nil {
				var again bool
				if again, errs[i] = connectOnce(ctx, s, cfg); again {
					resumed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if err := firstOf(errs...); err != nil {
		return 0, err
	}
	// The first of each goroutine cannot resume anything.
	if got := resumed.Load(); resume && got < int64(n-2*len(errs)) {
		return n, fmt.Errorf("only %d of %d handshakes were resumed", got, n)
	}
	return n, nil
}

func connectOnce(ctx context.Context, s *server, cfg *tls.Config) (resumed bool, err error) {
	addr := s.site.Listen
	if s.site.TLS != "" {
		addr = s.site.TLS
	}
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerMax)); err != nil {
		return false, err
	}
	if s.site.TLS != "" {
		t := tls.Client(c, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			return false, err
		}
		resumed, c = t.ConnectionState().DidResume, t
	}
	target := "/media/1024"
	if !s.keeps {
		target = "/page/me"
	}
	if _, err := io.WriteString(c, get(target, "Connection: close\r\n")); err != nil {
		return resumed, err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return resumed, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return resumed, err
}
