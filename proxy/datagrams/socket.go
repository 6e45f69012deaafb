package datagrams

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

// A Socket is a socket of UDP that QUIC is spoken on. It is read by one
// goroutine, with ReadBatch; all else may be called by anybody.
type Socket struct {
	*net.UDPConn // who writes does so at once, whoever reads
	batch        *ipv4.PacketConn
	mark         Mark
	seen         initials // of who reads

	handed atomic.Pointer[handed] // set while the other process reads
	others atomic.Pointer[others] // set while packets of the other process come here
	passed atomic.Int64
	lost   atomic.Int64

	mu     sync.Mutex // guards what follows
	by     time.Time  // when reads are to end
	closed chan struct{}
}

// initials are IDs that clients made up, the latest ones.
type initials struct {
	ids  [][idMax]byte // all of initialsMax, once there was one
	lens [initialsMax]uint8
	next int
}

// initialsMax is how many are known: of more handshakes at once than are let
// begin, some are begun anew when the socket changes hands.
const initialsMax = 4096

func (s *initials) note(id []byte) {
	if s.ids == nil {
		s.ids = make([][idMax]byte, initialsMax)
	}
	last := (s.next + initialsMax - 1) % initialsMax
	if bytes.Equal(s.ids[last][:s.lens[last]], id) {
		return // a client's first message mostly takes two packets
	}
	s.lens[s.next] = uint8(copy(s.ids[s.next][:], id))
	s.next = (s.next + 1) % initialsMax
}

func (s *initials) all() (ids [][]byte) {
	for i := range s.ids {
		if n := s.lens[i]; n > 0 {
			ids = append(ids, s.ids[i][:n:n])
		}
	}
	return ids
}

// New makes a Socket of a socket, whose mark is made up.
func New(c *net.UDPConn) *Socket {
	s := &Socket{UDPConn: c, batch: ipv4.NewPacketConn(c), closed: make(chan struct{})}
	_, _ = rand.Read(s.mark[:]) // never fails
	return s
}

// Mark is what begins the IDs of this process.
func (s *Socket) Mark() Mark { return s.mark }

// ReadBatch fills ms with packets for this process, at least one unless there is
// an error, and returns how many. It is what quic-go reads with.
func (s *Socket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		if h := s.handed.Load(); h != nil {
			h.stop(&s.seen)
			n, err := h.read(ms)
			if err == nil || !s.resume(h) {
				return n, err
			}
			continue
		}
		n, err := s.batch.ReadBatch(ms, flags)
		if err != nil {
			if s.handed.Load() != nil && timedOut(err) {
				continue
			}
			return n, err
		}
		if n = s.sort(ms[:n]); n > 0 {
			return n, nil
		}
	}
}

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// sort passes on what is for the other process, and returns how many are for
// this one: they stand at the beginning then.
func (s *Socket) sort(ms []ipv4.Message) (n int) {
	o := s.others.Load()
	for i := range ms {
		m := &ms[i]
		p := m.Buffers[0][:m.N]
		if o == nil && (len(p) == 0 || p[0]&longHeader == 0) {
			n++
			continue
		}
		id := destination(p)
		if o != nil && o.has(id, p) {
			if !s.pass(o, m) {
				o = s.others.Load()
			}
			continue
		}
		if begins(p) && id != nil && !marked(id, s.mark) {
			s.seen.note(id)
		}
		if n != i { // its buffer stays where it is: the reader knows them by their place
			to := &ms[n]
			to.N, to.NN, to.Flags, to.Addr = copy(to.Buffers[0], p), copy(to.OOB, m.OOB[:m.NN]), m.Flags, m.Addr
		}
		n++
	}
	return n
}

// SetReadDeadline implements net.PacketConn.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = t
	if h := s.handed.Load(); h != nil {
		return h.relay.SetReadDeadline(t)
	}
	return s.UDPConn.SetReadDeadline(t)
}

// SetDeadline implements net.PacketConn.
func (s *Socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// Close implements net.PacketConn. The other process goes on.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	if h := s.handed.Load(); h != nil {
		_ = h.relay.Close() // nobody reads it any more
	}
	return s.UDPConn.Close()
}

// Stats are counts of packets that went to the other process.
type Stats struct {
	Passed int64
	Lost   int64 // as it did not take them in time
}

// Stats returns the counts as they are now.
func (s *Socket) Stats() Stats { return Stats{s.passed.Load(), s.lost.Load()} }

// Handed is what the process that takes over has to know of the one before.
type Handed struct {
	Mark     Mark
	Initials [][]byte // the IDs, made up by clients, under which handshakes may be under way
}

// handed is how packets come while another process reads the socket.
type handed struct {
	relay   net.Conn
	once    sync.Once
	stopped chan [][]byte // holds what initials there are, once this process does not read any more
	buffer  [passedMax]byte
}

// stop says, the first time, that this process does not read the socket.
func (h *handed) stop(seen *initials) {
	h.once.Do(func() { h.stopped <- seen.all() })
}

// read returns the next packet that was passed on.
func (h *handed) read(ms []ipv4.Message) (int, error) {
	for {
		n, err := h.relay.Read(h.buffer[:])
		if err != nil {
			return 0, err
		}
		if readPassed(h.buffer[:n], &ms[0]) == nil {
			return 1, nil
		}
	}
}

// HandOver has another process read the socket from here on; what is for this
// one comes by relay, a pair of sockets of which the other process has the other
// end, and which keeps packets apart. When gone is closed this process reads the
// socket again. HandOver returns when it does not read it any more.
func (s *Socket) HandOver(relay net.Conn, gone <-chan struct{}) Handed {
	h := &handed{relay: relay, stopped: make(chan [][]byte, 1)}
	s.mu.Lock()
	select {
	case <-s.closed:
		s.mu.Unlock()
		_ = relay.Close() // what comes for this process is too late
		return Handed{Mark: s.mark}
	default:
	}
	_ = relay.SetReadDeadline(s.by) // fails for a closed one: then reading tells
	s.handed.Store(h)
	_ = s.UDPConn.SetReadDeadline(time.Unix(1, 0)) // who reads looks up
	s.mu.Unlock()
	go func() {
		select {
		case <-gone:
		case <-s.closed:
		}
		_ = relay.Close() // who reads it hears of that
	}()
	select {
	case ids := <-h.stopped:
		return Handed{s.mark, ids}
	case <-s.closed:
		return Handed{Mark: s.mark}
	}
}

// resume reads the socket again, and reports whether it does: not when a read is
// only late, or all is closed.
func (s *Socket) resume(h *handed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return false
	default:
	}
	if !s.by.IsZero() && !time.Now().Before(s.by) {
		return false // who set the deadline wants it so
	}
	_ = h.relay.Close() // it has failed
	s.handed.Store(nil)
	_ = s.UDPConn.SetReadDeadline(s.by) // as above
	return true
}

// others is the process that this one took over from.
type others struct {
	mark     Mark
	initials map[string]struct{}
	relay    *net.UnixConn
	raw      syscall.RawConn
	buffer   []byte // of who reads
}

// has reports a packet, with that ID, that is the other process's.
func (o *others) has(id, p []byte) bool {
	if marked(id, o.mark) {
		return true
	}
	if len(p) == 0 || p[0]&longHeader == 0 {
		return false
	}
	_, began := o.initials[string(id)]
	return began
}

// TakeOver has what is for the process before be passed on by relay, until that
// is gone. It is called before the first ReadBatch.
func (s *Socket) TakeOver(h Handed, relay *net.UnixConn, gone <-chan struct{}) error {
	raw, err := relay.SyscallConn()
	if err != nil {
		return fmt.Errorf("passing packets on to the process before: %w", err)
	}
	o := &others{mark: h.Mark, initials: make(map[string]struct{}, len(h.Initials)), relay: relay, raw: raw}
	for _, id := range h.Initials {
		o.initials[string(id)] = struct{}{}
	}
	s.others.Store(o)
	go func() {
		select {
		case <-gone:
		case <-s.closed:
		}
		s.forget(o)
	}()
	return nil
}

// forget has nothing be passed on any more: what comes for the process before is
// answered here, where nobody knows the connection.
func (s *Socket) forget(o *others) {
	if s.others.CompareAndSwap(o, nil) {
		_ = o.relay.Close() // nobody is at its other end
	}
}

// pass passes a packet on, at once or not at all. It reports whether the other
// process is still there.
func (s *Socket) pass(o *others, m *ipv4.Message) bool {
	b, err := appendPassed(o.buffer[:0], m)
	if err != nil {
		s.lost.Add(1)
		return true
	}
	o.buffer = b
	called := o.raw.Write(func(fd uintptr) bool {
		_, err = syscall.Write(int(fd), b)
		return true // nobody waits
	})
	switch {
	case called == nil && err == nil:
		s.passed.Add(1)
		return true
	case called == nil && (err == syscall.EAGAIN || err == syscall.ENOBUFS || err == syscall.EINTR):
		s.lost.Add(1)
		return true
	}
	s.lost.Add(1)
	s.forget(o)
	return false
}
