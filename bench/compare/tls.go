//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A client is a load that is no crowd: it asks until enough says so, and returns
// when all answers are there.
type client interface {
	burst(enough func(sent int) bool) tally
	close()
}

// clientTLS takes the certificate that compare has made for the run as it is.
func clientTLS(cache tls.ClientSessionCache, protocols ...string) *tls.Config {
	return &tls.Config{ServerName: host, InsecureSkipVerify: true, ClientSessionCache: cache, NextProtos: protocols}
}

// together runs n goroutines that each do one request after the other until
// enough says so.
func together(n int, enough func(sent int) bool, once func(i int) (answers int, err error)) tally {
	var t tally
	var mu sync.Mutex
	var sent atomic.Int64
	began := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			answers := 0
			var err error
			for err == nil && !enough(int(sent.Load())) {
				var got int
				got, err = once(i)
				answers += got
				sent.Add(int64(got))
			}
			mu.Lock()
			defer mu.Unlock()
			t.answers += answers
			if err != nil {
				t.failed++
				t.because(err)
			}
		})
	}
	wg.Wait()
	t.wall = time.Since(began)
	return t
}

// newcomers make a connection for every request, eight at once; over TLS where
// the server has it.
type newcomers struct {
	server  *server
	cfg     *tls.Config
	resumed bool // every handshake but the first few has to resume a session
	made    atomic.Int64
	again   atomic.Int64
}

const newcomersAtOnce = 8

func newNewcomers(s *server, resume bool, curves ...tls.CurveID) *newcomers {
	n := &newcomers{server: s, resumed: resume, cfg: clientTLS(nil, "http/1.1")}
	n.cfg.CurvePreferences = curves
	if resume {
		n.cfg.ClientSessionCache = tls.NewLRUClientSessionCache(64)
	}
	return n
}

func (n *newcomers) close() {}

func (n *newcomers) burst(enough func(int) bool) tally {
	t := together(newcomersAtOnce, enough, func(int) (int, error) {
		again, err := n.connect()
		if err != nil {
			return 0, err
		}
		n.made.Add(1)
		if again {
			n.again.Add(1)
		}
		return 1, nil
	})
	// The first of each goroutine cannot resume anything.
	if made, again := n.made.Load(), n.again.Load(); n.resumed && again < made-2*newcomersAtOnce && t.failed == 0 {
		t.failed++
		t.because(fmt.Errorf("only %d of %d handshakes were resumed", again, made))
	}
	return t
}

func (n *newcomers) connect() (resumed bool, err error) {
	s := n.server
	addr := s.site.Listen
	if s.site.TLS != "" {
		addr = s.site.TLS
	}
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerMax)); err != nil {
		return false, err
	}
	if s.site.TLS != "" {
		t := tls.Client(c, n.cfg)
		if err := t.Handshake(); err != nil {
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

// A multiplex is some connections of HTTP/2, each with several requests at once.
type multiplex struct {
	lines []*h2line
}

// With fewer connections and more streams the client spends less; browsers have
// a few streams on each.
const h2Connections, h2Streams = 16, 8

// An h2line is one connection of HTTP/2. One goroutine uses it.
type h2line struct {
	c      *tls.Conn
	out    *bufio.Writer
	framer *http2.Framer
	block  []byte // the request's header block
	next   uint32 // stream
}

// A line's buffer for what it reads: a busy one's is as large as what it gets at
// once, thousands of quiet ones have little.
const busyLine, smallLine = 64 << 10, 4 << 10

func newMultiplex(s *server, target string) (*multiplex, error) {
	m := &multiplex{}
	for range h2Connections {
		l, err := newH2Line(s.site.TLS, target, busyLine)
		if err != nil {
			m.close()
			return nil, err
		}
		m.lines = append(m.lines, l)
	}
	return m, nil
}

func newH2Line(addr, target string, buffer int) (*h2line, error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", addr, clientTLS(nil, "h2"))
	if err != nil {
		return nil, fmt.Errorf("has no HTTP/2: %w", err)
	}
	l := &h2line{c: c, out: bufio.NewWriterSize(c, min(buffer, 16<<10)), next: 1}
	if got := c.ConnectionState().NegotiatedProtocol; got != "h2" {
		c.Close()
		return nil, fmt.Errorf("has no HTTP/2: negotiated %q", got)
	}
	l.framer = http2.NewFramer(l.out, bufio.NewReaderSize(c, buffer))
	l.framer.SetReuseFrames()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	e.SetMaxDynamicTableSize(0) // so that one block does for all requests
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", host}, {":path", target}, {"user-agent", "Mozilla/5.0 (X11; Linux x86_64)"},
		{"accept", "text/html"}, {"accept-encoding", "gzip, deflate, br"}, {"cookie", "session=0123456789abcdef0123456789abcdef"}} {
		if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return nil, err
		}
	}
	l.block = block.Bytes()
	_, err = l.out.WriteString(http2.ClientPreface)
	// Windows that no run fills, and no table that a status could be hidden in.
	err = errors.Join(err, l.framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}, http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 24}), l.framer.WriteWindowUpdate(0, 1<<30))
	if err != nil {
		c.Close()
		return nil, err
	}
	return l, nil
}

func (m *multiplex) close() {
	for _, l := range m.lines {
		if l != nil {
			l.c.Close()
		}
	}
}

// sweep implements holding.
func (m *multiplex) sweep() (closed int) {
	for _, l := range m.lines {
		if _, err := l.exchange(); err != nil {
			closed++
		}
	}
	return closed
}

func (m *multiplex) burst(enough func(int) bool) tally {
	return together(len(m.lines), enough, func(i int) (int, error) { return m.lines[i].exchange() })
}

// exchange asks for h2Streams at once and reads all answers.
func (l *h2line) exchange() (answers int, err error) {
	if err := l.c.SetDeadline(time.Now().Add(answerMax)); err != nil {
		return 0, err
	}
	for range h2Streams {
		if err := l.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: l.next, BlockFragment: l.block, EndStream: true, EndHeaders: true}); err != nil {
			return 0, err
		}
		l.next += 2
	}
	if err := l.out.Flush(); err != nil {
		return 0, err
	}
	for answers < h2Streams {
		f, err := l.framer.ReadFrame()
		if err != nil {
			return answers, err
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			// :status 200 is the eighth of the static table (RFC 7541); a change
			// of the table's size may come before it.
			b := f.HeaderBlockFragment()
			for len(b) > 0 && b[0]>>5 == 1 {
				b = b[1:]
			}
			if len(b) == 0 || b[0] != 0x88 {
				return answers, fmt.Errorf("an answer of HTTP/2 does not begin with status 200: % x", b[:min(len(b), 8)])
			}
			if f.StreamEnded() {
				return answers, errors.New("an answer of HTTP/2 without content")
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				answers++
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = errors.Join(l.framer.WriteSettingsAck(), l.out.Flush())
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = errors.Join(l.framer.WritePing(true, f.Data), l.out.Flush())
			}
		case *http2.RSTStreamFrame:
			err = fmt.Errorf("a stream was reset: %v", f.ErrCode)
		case *http2.GoAwayFrame:
			err = fmt.Errorf("the connection was ended: %v", f.ErrCode)
		}
		if err != nil {
			return answers, err
		}
	}
	return answers, nil
}

// handshakes has the fighters make new connections, with keys agreed on by one of
// these curves; none: what both like best, as with a browser.
func handshakes(resume bool, curves ...tls.CurveID) func(context.Context, *server) (client, error) {
	return func(_ context.Context, s *server) (client, error) { return newNewcomers(s, resume, curves...), nil }
}

// streams has the fighters answer over HTTP/2.
func streams(target string) func(context.Context, *server) (client, error) {
	return func(_ context.Context, s *server) (client, error) {
		if !s.h2 {
			return nil, errors.New("has no HTTP/2")
		}
		return newMultiplex(s, target)
	}
}

// A quicClient asks over HTTP/3, over connections that it keeps.
type quicClient struct {
	lines  []*http3.Transport
	target string
}

const quicConnections = 8

// datagrams has the fighters answer over HTTP/3. The load is dear: quic-go's own
// client, so a quick server is not kept busy by it.
func datagrams(target string) func(context.Context, *server) (client, error) {
	return func(_ context.Context, s *server) (client, error) {
		if !s.h3 {
			return nil, errors.New("has no HTTP/3")
		}
		q := &quicClient{target: "https://" + s.site.TLS + target}
		for range quicConnections {
			q.lines = append(q.lines, &http3.Transport{TLSClientConfig: clientTLS(nil, "h3"), DisableCompression: true})
		}
		if _, err := q.ask(0); err != nil {
			q.close()
			return nil, fmt.Errorf("has no HTTP/3: %w", err)
		}
		return q, nil
	}
}

func (q *quicClient) close() {
	for _, l := range q.lines {
		_ = l.Close() // the run is over
	}
}

func (q *quicClient) burst(enough func(int) bool) tally {
	return together(len(q.lines), enough, q.ask)
}

func (q *quicClient) ask(i int) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerMax)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", q.target, nil)
	if err != nil {
		return 0, err
	}
	req.Host = host
	res, err := q.lines[i].RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && (res.StatusCode != 200 || n == 0) {
		err = fmt.Errorf("status %d with %d bytes", res.StatusCode, n)
	}
	return 1, err
}
