package proxy

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"firstbell/proxy/head"
	"firstbell/proxy/http3"
)

const (
	// resetsMax is how many requests of a connection may be given up by the
	// client in a row, and resetsPause how long one of them is remembered: who
	// seeks in a film gives up a few a second, who floods thousands.
	resetsMax   = 200
	resetsPause = 50 * time.Millisecond
	// strangeStreamsMax bounds the unidirectional streams of unknown type of a
	// connection: clients open one now and then, so that nobody relies on there
	// being none (RFC 9114 section 6.2.3).
	strangeStreamsMax = 32
	// partingTime is what a client has to take the last answers and to close
	// the connection itself, once it was told to go.
	partingTime = time.Second
)

// h3Conn is a connection to a client over HTTP/3.
type h3Conn struct {
	*quic.Conn
	door    *quicDoor
	control *http3.Control
	remote  string // the client's address, without port
	tls     secured

	strange atomic.Int32
	once    [3]atomic.Bool // the client's control, encoder and decoder streams are there

	mu      sync.Mutex // guards what follows
	out     *quic.SendStream
	active  int // requests under way
	next    uint64
	last    bool        // no more requests are taken
	idle    *time.Timer // ends a connection that asks for nothing
	leaving *time.Timer // ends one whose client was told to go; nil: it was not
	resets  time.Time   // until when the resets are remembered
	parting bool        // it is closed in a moment
}

func newH3Conn(d *quicDoor, q *quic.Conn) *h3Conn {
	c := &h3Conn{Conn: q, door: d, control: http3.NewControl()}
	c.remote = q.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(c.remote); err == nil {
		c.remote = host
	}
	c.tls = secured{is: true, name: strings.ToLower(q.ConnectionState().TLS.ServerName)}
	return c
}

func (c *h3Conn) limits() *Limits { return c.door.proxy.limits.Load() }

// close ends the connection. It may be called by anybody, more than once.
func (c *h3Conn) close(code http3.Code, reason string) {
	_ = c.CloseWithError(quic.ApplicationErrorCode(code), reason) // fails for a closed one only
}

// fail ends the connection for what the client did.
func (c *h3Conn) fail(e *http3.Error) {
	c.door.proxy.counters.http3Error(e.Code)
	c.close(e.Code, e.Reason)
}

// run serves the connection's requests until it is over and all are answered.
func (c *h3Conn) run() {
	var under sync.WaitGroup
	defer func() {
		c.close(http3.NoError, "")
		under.Wait()
		c.mu.Lock()
		c.idle.Stop()
		if c.leaving != nil {
			c.leaving.Stop()
		}
		c.mu.Unlock()
	}()
	c.mu.Lock()
	c.idle = time.AfterFunc(c.limits().Idle, c.part)
	c.mu.Unlock()
	if err := c.greet(); err != nil {
		return
	}
	under.Go(func() { c.acceptUni(&under) })
	ctx := c.Context()
	for {
		s, err := c.AcceptStream(ctx)
		if err != nil {
			return
		}
		if !c.begin(s) {
			s.CancelRead(quic.StreamErrorCode(http3.RequestRejected))
			s.CancelWrite(quic.StreamErrorCode(http3.RequestRejected))
			s.ReleaseStreamCredit()
			continue
		}
		under.Go(func() {
			defer c.ended(s)
			c.exchange(s)
		})
	}
}

// fieldSectionMax is what is told to clients: RFC 9114 section 4.2.2 counts 32
// bytes for a field beside its name and value.
const fieldSectionMax = head.BytesMax + 32*head.FieldsMax

// greet opens our control stream.
func (c *h3Conn) greet() error {
	ctx, cancel := context.WithTimeout(c.Context(), c.limits().Header)
	defer cancel()
	out, err := c.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = out
	_ = out.SetWriteDeadline(time.Now().Add(c.limits().Grace)) // never fails
	if _, err := out.Write(http3.AppendSettings(nil, fieldSectionMax)); err != nil {
		return err
	}
	switch {
	case c.door.ending.Load():
		c.goAwayLocked(true)
	case c.door.leaving.Load():
		c.leaveLocked()
	}
	return nil
}

// begin takes a request in.
func (c *h3Conn) begin(s *quic.Stream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last {
		return false
	}
	c.next = uint64(s.StreamID()) + 4
	c.active++
	c.idle.Stop()
	return true
}

// ended says that a request is over.
func (c *h3Conn) ended(s *quic.Stream) {
	s.ReleaseStreamCredit()
	c.control.Requested()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active--; c.active == 0 {
		if c.last {
			c.partLocked()
		} else {
			c.idle.Reset(c.limits().Idle)
		}
	}
}

// gaveUp counts a request that the client gave up, and ends a connection that
// does little else.
func (c *h3Conn) gaveUp() {
	c.door.proxy.counters.h3Resets.Add(1)
	now := time.Now()
	c.mu.Lock()
	if c.resets.Before(now) {
		c.resets = now
	}
	c.resets = c.resets.Add(resetsPause)
	flood := c.resets.Sub(now) > resetsMax*resetsPause
	c.mu.Unlock()
	if flood {
		c.fail(&http3.Error{Code: http3.ExcessiveLoad, Reason: "too many requests given up"})
	}
}

// part says goodbye to a connection without requests.
func (c *h3Conn) part() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == 0 {
		c.goAwayLocked(true)
	}
}

// leave tells the client to open no more requests soon, and a moment later that
// no more are taken: those on their way are.
func (c *h3Conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out != nil { // else greet does it
		c.leaveLocked()
	}
}

func (c *h3Conn) leaveLocked() {
	c.goAwayLocked(false)
	if c.leaving == nil {
		c.leaving = time.AfterFunc(drainMoment, func() { c.goAway(true) })
	}
}

// goAway tells the client to open no more requests; with last those that come
// all the same are rejected, and the connection ends behind the others.
func (c *h3Conn) goAway(last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goAwayLocked(last)
}

// goAwayMax says that the connection will end, but not behind which request.
const goAwayMax = 1<<62 - 4

func (c *h3Conn) goAwayLocked(last bool) {
	if c.out == nil || c.last {
		return // not greeted: then greet does it; or told already
	}
	id := uint64(goAwayMax)
	if last {
		c.last, id = true, c.next
	}
	// A client that takes nothing of the control stream is not told.
	_ = c.out.TryWriteAll(http3.AppendGoAway(nil, id))
	if last && c.active == 0 {
		c.partLocked()
	}
}

// partLocked closes the connection in a moment: what was written is still on
// its way.
func (c *h3Conn) partLocked() {
	if !c.parting {
		c.parting = true
		time.AfterFunc(partingTime, func() { c.close(http3.NoError, "") })
	}
}

// acceptUni takes the client's unidirectional streams.
func (c *h3Conn) acceptUni(under *sync.WaitGroup) {
	for {
		s, err := c.AcceptUniStream(c.Context())
		if err != nil {
			return
		}
		under.Go(func() {
			defer s.ReleaseStreamCredit()
			c.readUni(s)
		})
	}
}

// readUni reads a unidirectional stream (RFC 9114 section 6.2) until it ends.
func (c *h3Conn) readUni(s *quic.ReceiveStream) {
	_ = s.SetReadDeadline(time.Now().Add(c.limits().Header)) // never fails
	in, err := c.control.NewStream(s)
	if err != nil { // gone before it said what it is
		s.CancelRead(quic.StreamErrorCode(http3.StreamCreationError))
		c.aStranger()
		return
	}
	_ = s.SetReadDeadline(time.Time{})
	switch in.Type {
	case http3.StreamControl:
		err = c.readOnce(0, in, c.control.Read)
	case http3.StreamEncoder:
		err = c.readOnce(1, in, c.control.ReadEncoder)
	case http3.StreamDecoder:
		err = c.readOnce(2, in, c.control.ReadDecoder)
	case http3.StreamPush:
		err = &http3.Error{Code: http3.StreamCreationError, Reason: "a client pushes nothing"}
	default:
		s.CancelRead(quic.StreamErrorCode(http3.StreamCreationError))
		c.aStranger()
		return
	}
	var reset *quic.StreamError
	if errors.As(err, &reset) {
		err = &http3.Error{Code: http3.ClosedCriticalStream, Reason: "a stream that lasts as long as the connection was reset"}
	}
	if e := http3.IsProtocol(err); e != nil {
		c.fail(e)
	}
}

// readOnce reads a stream of which there is one.
func (c *h3Conn) readOnce(which int, in *http3.Stream, read func(*http3.Stream) error) error {
	if c.once[which].Swap(true) {
		return &http3.Error{Code: http3.StreamCreationError, Reason: "a stream of which there is one is there twice"}
	}
	return read(in)
}

func (c *h3Conn) aStranger() {
	if c.strange.Add(1) > strangeStreamsMax {
		c.fail(&http3.Error{Code: http3.ExcessiveLoad, Reason: "too many streams that mean nothing here"})
	}
}
