package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// crowd is some normal clients, who ask all the time: for a stored lesson, for
// a page of their own, and with homework of 100 kB; each over a connection that
// is kept, and now and then over a new one.
type crowd struct {
	at   *target
	quit chan struct{}
	wg   sync.WaitGroup

	mu   sync.Mutex // guards took and why
	took []time.Duration
	why  error

	failed atomic.Int64
}

const crowdSize = 16

func normals(at *target) *crowd {
	c := &crowd{at: at, quit: make(chan struct{})}
	for i := range crowdSize {
		c.wg.Go(func() { c.live(i) })
	}
	return c
}

func (c *crowd) live(i int) {
	t, base := c.speaker(i)
	defer t.CloseIdleConnections()
	client := &http.Client{Transport: t, Timeout: 30 * time.Second}
	homework := bytes.Repeat([]byte{byte(i)}, 100_000)
	for round := 0; ; round++ {
		select {
		case <-c.quit:
			return
		case <-time.After(50 * time.Millisecond):
		}
		if round%10 == 9 {
			t.CloseIdleConnections() // comes anew
		}
		began := time.Now()
		var res *http.Response
		var err error
		switch round % 3 {
		case 0:
			res, err = client.Get(base + "/lessons/1")
		case 1:
			res, err = client.Get(base + "/mine/1000")
		default:
			var req *http.Request
			if req, err = http.NewRequest("POST", base+"/homework", bytes.NewReader(homework)); err == nil {
				req.Header.Set("Idempotency-Key", strconv.Itoa(round)) // sent again where a connection ended before it, as browsers do
				res, err = client.Do(req)
			}
		}
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if err == nil && res.StatusCode != 200 {
				err = fmt.Errorf("%s for %s", res.Status, res.Request.URL.Path)
			}
		}
		c.note(time.Since(began), err)
	}
}

// speaker is what a normal client asks by: half of them over HTTP/1, a quarter
// over HTTP/2 and one over HTTP/3.
func (c *crowd) speaker(i int) (t transport, base string) {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, c.at.secure)
	}
	switch i % 4 {
	case 1:
		return &http.Transport{TLSClientConfig: c.at.tls.Clone(), DialContext: dial, ForceAttemptHTTP2: true}, "https://school.example"
	case 2:
		return &http3.Transport{TLSClientConfig: c.at.tls.Clone(), Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, c.at.secure, tc, qc)
		}}, "https://school.example"
	}
	return &http.Transport{MaxIdleConnsPerHost: 2}, "http://" + c.at.plain
}

type transport interface {
	http.RoundTripper
	CloseIdleConnections()
}

func (c *crowd) note(took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took = append(c.took, took)
	if err != nil {
		c.failed.Add(1)
		if c.why == nil {
			c.why = err
		}
	}
}

func (c *crowd) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took, c.why = nil, nil
	c.failed.Store(0)
}

func (c *crowd) end() {
	close(c.quit)
	c.wg.Wait()
}

// served is what a crowd met.
type served struct {
	asked, failed int64
	median, p99   time.Duration
	slowest       time.Duration
	why           error
}

func (c *crowd) report() served {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := served{asked: int64(len(c.took)), failed: c.failed.Load(), why: c.why}
	if n := len(c.took); n > 0 {
		sorted := slices.Sorted(slices.Values(c.took))
		s.median, s.p99, s.slowest = sorted[n/2], sorted[n*99/100], sorted[n-1]
	}
	return s
}

// String is for people.
func (s served) String() string {
	return fmt.Sprintf("%d normal requests, %d failed, %v in the median, 99 %% within %v, slowest %v", s.asked, s.failed,
		s.median.Round(10*time.Microsecond), s.p99.Round(100*time.Microsecond), s.slowest.Round(time.Millisecond))
}
