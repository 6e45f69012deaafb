package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// door takes connections and has each served by a goroutine of its own.
type door struct {
	proxy     *Proxy
	ending    atomic.Bool   // no connection waits for another request
	greetings chan struct{} // holds one for each TLS handshake under way

	mu      sync.Mutex // guards what follows
	inside  map[occupant]struct{}
	closing bool
	empty   chan struct{} // closed once closing and nobody is inside
}

// occupant is a connection inside, whatever it speaks. Anybody may call its
// methods.
type occupant interface {
	// wake has it end soon when it waits for a request, and behind its answers
	// otherwise. The door is ending already.
	wake()
	// breakOff closes what it runs over at once, without a word to the client.
	breakOff()
}

func newDoor(p *Proxy) *door {
	return &door{
		proxy: p, inside: make(map[occupant]struct{}), empty: make(chan struct{}),
		greetings: make(chan struct{}, greetingsMax),
	}
}

// connectionsMax bounds how many connections are open at once. Beyond it new
// ones wait unaccepted in the kernel's queue.
const connectionsMax = 256 << 10

// acceptPauseMax is the longest pause after the system refused to hand out a
// connection, as it does when it is out of file descriptors.
const acceptPauseMax = time.Second

// serve takes connections until the listener is closed. With secure they speak
// TLS.
func (d *door) serve(ln net.Listener, secure *tls.Config) error {
	places := make(chan struct{}, connectionsMax)
	var pause time.Duration
	for {
		places <- struct{}{}
		nc, err := ln.Accept()
		if err != nil {
			<-places
			if errors.Is(err, net.ErrClosed) || !passing(err) {
				return err
			}
			pause = min(max(2*pause, 5*time.Millisecond), acceptPauseMax)
			d.proxy.log.Warn("taking a connection", "error", err, "pause", pause)
			time.Sleep(pause)
			continue
		}
		pause = 0
		go func() {
			defer func() { <-places }()
			if secure != nil {
				d.greet(nc, secure)
			} else {
				d.serveHTTP1(nc)
			}
		}()
	}
}

// serveHTTP1 serves a connection that speaks HTTP/1, until it ends.
func (d *door) serveHTTP1(nc net.Conn) {
	c := newConn(d, nc)
	if !d.enter(c) {
		_ = nc.Close() // too late for it
		return
	}
	defer d.leave(c)
	c.run()
}

// passing reports whether an error of Accept concerns one connection, or may
// be over in a moment.
func passing(err error) bool {
	var ne net.Error
	//lint:ignore SA1019 which errors of Accept pass is what it is still right about
	return errors.As(err, &ne) && ne.Temporary()
}

// enter lets c in, unless the door shuts.
func (d *door) enter(c occupant) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return false
	}
	d.inside[c] = struct{}{}
	return true
}

func (d *door) leave(c occupant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.inside, c)
	d.emptied()
}

func (d *door) emptied() {
	if d.closing && len(d.inside) == 0 {
		select {
		case <-d.empty:
		default:
			close(d.empty)
		}
	}
}

// shutdown ends every connection: an idle one at once, a busy one behind its
// answer. With the context it closes those that are left, and returns the
// context's error. The listeners are closed before.
func (d *door) shutdown(ctx context.Context) error {
	d.mu.Lock()
	d.closing = true
	d.ending.Store(true)
	for c := range d.inside {
		c.wake()
	}
	d.emptied()
	d.mu.Unlock()
	select {
	case <-d.empty:
		return nil
	case <-ctx.Done():
	}
	d.mu.Lock()
	for c := range d.inside {
		c.breakOff()
	}
	d.mu.Unlock()
	return ctx.Err()
}

// listener may be closed more than once.
type listener struct {
	net.Listener
	once   sync.Once
	closed error
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { l.closed = l.Listener.Close() })
	return l.closed
}
