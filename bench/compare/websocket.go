//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// This file has WebSockets (RFC 6455) echo messages through those who pass them
// on. Clients and origin are those of a library, so they cost more than most
// servers do: these are not kept busy.

const (
	webSockets     = 1000
	webSocketBytes = 128 // of a message
)

// An echoer is an origin that sends back what comes over WebSockets, and says
// that it is ready to who asks for anything else.
type echoer struct {
	addr string
	web  *http.Server
}

func startEchoer() (*echoer, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &echoer{addr: ln.Addr().String(), web: &http.Server{Handler: http.HandlerFunc(echo)}}
	go func() { _ = e.web.Serve(ln) }() // until stop
	return e, nil
}

func (e *echoer) stop() { _ = e.web.Close() } // nobody asks any more

func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, "ready") // who asked may have gone
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // it has answered
	}
	defer c.CloseNow()
	for {
		kind, p, err := c.Read(context.Background())
		if err == nil {
			err = c.Write(context.Background(), kind, p)
		}
		if err != nil {
			return
		}
	}
}

// sockets are WebSockets through one server, all of which send a message and
// wait for it.
type sockets struct {
	all     []*websocket.Conn
	message []byte
}

func openSockets(addr string, n int) (*sockets, error) {
	s := &sockets{message: bytes.Repeat([]byte("x"), webSocketBytes)}
	ctx, cancel := context.WithTimeout(context.Background(), answerMax)
	defer cancel()
	for range n {
		c, _, err := websocket.Dial(ctx, "ws://"+addr+"/live/echo", &websocket.DialOptions{Host: host})
		if err != nil {
			s.close()
			return nil, fmt.Errorf("opening a WebSocket: %w", err)
		}
		s.all = append(s.all, c)
	}
	return s, nil
}

func (s *sockets) close() {
	for _, c := range s.all {
		_ = c.CloseNow() // all that was wanted has come
	}
}

// burst implements client: an answer is a message that has come back.
func (s *sockets) burst(enough func(int) bool) tally {
	ctx, cancel := context.WithTimeout(context.Background(), answerMax)
	defer cancel()
	return together(len(s.all), enough, func(i int) (int, error) {
		if err := s.all[i].Write(ctx, websocket.MessageBinary, s.message); err != nil {
			return 0, err
		}
		switch _, p, err := s.all[i].Read(ctx); {
		case err != nil:
			return 0, err
		case !bytes.Equal(p, s.message):
			return 0, errors.New("another message came back than was sent")
		}
		return 1, nil
	})
}

// socketsThrough has those who pass on WebSockets take turns, each with an
// origin that echoes behind it, and notes what quiet ones take of memory.
func (a *arena) socketsThrough(ctx context.Context) error {
	e, err := startEchoer()
	if err != nil {
		return err
	}
	defer e.stop()
	d := &duel{name: "WebSocket, a message of 128 bytes there and back", conns: webSockets}
	r := &row{Case: d.name, Connections: d.conns, Unit: "us"}
	var fighters []*fighter
	for _, s := range a.servers {
		if !s.sockets {
			continue
		}
		f, stop, err := a.enterSockets(ctx, s, e)
		if err != nil && (s.name == ours || ctx.Err() != nil) {
			return err
		}
		r.Cells = append(r.Cells, f.cell)
		if err != nil {
			f.cell.Fault = err.Error()
			continue
		}
		defer stop()
		fighters = append(fighters, f)
	}
	for round := range a.rounds {
		for i := range fighters {
			if f := fighters[(i+round)%len(fighters)]; f.cell.Fault == "" {
				a.turn(f, d)
			}
		}
	}
	for _, f := range fighters {
		f.cell.settle()
	}
	r.compare(nil)
	a.rows = append(a.rows, r)
	return ctx.Err()
}

// enterSockets starts a server of its own, opens WebSockets through it, and notes
// what they take.
func (a *arena) enterSockets(ctx context.Context, s *server, e *echoer) (f *fighter, stop func(), err error) {
	f = &fighter{server: s, cell: &cell{Server: s.name}}
	alone, err := a.startOne(ctx, s.peer, s.cmd.Path, s.name+"-sockets", func(at *site) { at.Origin = e.addr })
	if err != nil {
		return f, nil, err
	}
	defer func() {
		if err != nil {
			alone.stop()
		}
	}()
	few, err := openSockets(alone.site.Listen, 10)
	if err != nil {
		return f, nil, err
	}
	few.close()
	before := alone.memory()
	all, err := openSockets(alone.site.Listen, webSockets)
	if err != nil {
		return f, nil, err
	}
	sent := all.burst(func(sent int) bool { return sent >= 2*webSockets })
	if err = sent.bad(); err != nil {
		all.close()
		return f, nil, err
	}
	pause(ctx, quiet)
	each := max(0, float64(alone.memory()-before)/webSockets/1024)
	a.note("KiB of memory for each of 1,000, 3 s after their last message", s, each, figure(each))
	f.server, f.client = alone, all
	return f, func() { all.close(); alone.stop() }, nil
}
