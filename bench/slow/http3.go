package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// kinds3 are attacks over HTTP/3.
func kinds3(s *setting) []*kind {
	made := func(name string, within time.Duration, streams int, plan h3Plan) *kind {
		return &kind{name: "3/" + name, within: within + s.slack, slack: s.slack, streams: streams, run: plan.run}
	}
	return []*kind{
		made("contents", 2*s.grace, 0, h3Plan{method: "POST", path: "/attack"}),
		made("streams", 2*s.grace, 100, h3Plan{method: "POST", path: "/attack"}),
		made("readers", 2*s.grace, 0, h3Plan{method: "GET", path: "/mine/400000"}),
		made("windows", 2*s.grace, 100, h3Plan{method: "GET", path: "/films/1"}),
		made("silent", s.idle, 0, h3Plan{}),
		made("gone", s.idle, 0, h3Plan{gone: true}),
		made("handshakes", helloTimeMax, 0, h3Plan{half: true}),
	}
}

// h3Plan is an attack over one connection.
type h3Plan struct {
	method, path string // of its requests; none when empty
	gone         bool   // nothing is sent any more behind the handshake
	half         bool   // nothing but the first packet of the handshake is sent
}

// gate lets packets through until it is shut: a client behind it is gone without
// a word.
type gate struct {
	net.PacketConn
	left func() bool // whether this packet may leave
}

func (g gate) WriteTo(p []byte, to net.Addr) (int, error) {
	if !g.left() {
		return len(p), nil
	}
	return g.PacketConn.WriteTo(p, to)
}

// run attacks until every stream, or the connection, is cut off.
func (p h3Plan) run(k *kind, at *target, i int) error {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, byte(1+i%8), 1)})
	if err != nil {
		return err
	}
	defer socket.Close()
	to, err := net.ResolveUDPAddr("udp", at.secure)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	may := 1 << 30 // packets that may leave
	if p.half {
		may = 1
	}
	t := &quic.Transport{Conn: gate{socket, func() bool {
		mu.Lock()
		defer mu.Unlock()
		may--
		return may >= 0
	}}}
	defer t.Close()
	config := at.tls.Clone()
	config.NextProtos = []string{"h3"}
	quicConfig := &quic.Config{
		HandshakeIdleTimeout: 4 * k.slack, MaxIdleTimeout: 10 * time.Minute, KeepAlivePeriod: 5 * time.Second, DisablePathMTUDiscovery: true,
		InitialStreamReceiveWindow: 2 << 10, MaxStreamReceiveWindow: 2 << 10, InitialConnectionReceiveWindow: 512 << 10,
	}
	ctx, cancel := context.WithTimeout(context.Background(), k.within+k.slack)
	defer cancel()
	if p.half {
		return p.halfOpen(ctx, k, t, to, config, quicConfig)
	}
	at.turns <- struct{}{}
	q, err := t.Dial(ctx, to, config, quicConfig)
	<-at.turns
	if err != nil {
		return err
	}
	began := time.Now()
	if p.gone {
		k.opened.Add(1)
		mu.Lock()
		may = 0
		mu.Unlock()
		k.cutOff(began, 1) // nobody hears of it: how many connections are left is looked at in the end
		return nil
	}
	defer q.CloseWithError(0, "")
	p.attack(ctx, k, (&http3.Transport{}).NewClientConn(q), began)
	return nil
}

// halfOpen begins a handshake and leaves it at that.
func (p h3Plan) halfOpen(ctx context.Context, k *kind, t *quic.Transport, to net.Addr, config *tls.Config, qc *quic.Config) error {
	k.opened.Add(1)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	began := time.Now()
	if q, err := t.Dial(ctx, to, config, qc); err == nil {
		return q.CloseWithError(0, "")
	}
	k.cutOff(began, 1) // as above
	return nil
}

// attack opens the streams, and says which are cut off.
func (p h3Plan) attack(ctx context.Context, k *kind, c *http3.ClientConn, began time.Time) {
	if p.method == "" {
		k.opened.Add(1)
		select {
		case <-c.Context().Done():
			k.cutOff(began, 1)
		case <-ctx.Done():
		}
		return
	}
	var wg sync.WaitGroup
	for range max(1, k.streams) {
		k.opened.Add(1)
		wg.Go(func() {
			if p.stream(ctx, c, began.Add(k.within)) {
				k.cutOff(began, 1)
			}
		})
	}
	wg.Wait()
}

// stream is one attacker's. It reports whether it was cut off.
func (p h3Plan) stream(ctx context.Context, c *http3.ClientConn, until time.Time) bool {
	s, err := c.OpenRequestStream(ctx)
	if err != nil {
		return ctx.Err() == nil
	}
	s.SetDeadline(until)
	r, err := http.NewRequest(p.method, "https://school.example"+p.path, http.NoBody)
	if err != nil {
		return false
	}
	if p.path == "/attack" {
		r.Header.Set("X-Attacker", "yes")
	}
	if s.SendRequestHeader(r) != nil {
		return false // it has not begun
	}
	if p.method == "POST" {
		return p.drip(s, until)
	}
	if s.Close() != nil {
		return time.Now().Before(until)
	}
	if res, err := s.ReadResponse(); err == nil {
		for one := make([]byte, 1); err == nil && time.Now().Before(until); {
			time.Sleep(time.Second)
			_, err = res.Body.Read(one)
		}
	}
	return time.Now().Before(until)
}

// drip sends content until an answer comes, which is the refusal.
func (p h3Plan) drip(s *http3.RequestStream, until time.Time) bool {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = s.ReadResponse() // an error is the end, too
	}()
	for time.Now().Before(until) {
		select {
		case <-answered:
			return time.Now().Before(until)
		case <-time.After(time.Second):
		}
		if _, err := s.Write([]byte("content!")); err != nil {
			<-answered
			return time.Now().Before(until)
		}
	}
	return false
}
