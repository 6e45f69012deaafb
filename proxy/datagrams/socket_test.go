package datagrams

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

// two are the two processes that share a socket, and who sends to it.
type two struct {
	t          *testing.T
	old, young *Socket
	client     *net.UDPConn
	oldEnd     *net.UnixConn
	youngEnd   *net.UnixConn
	oldGone    chan struct{} // closed when the process is
	youngGone  chan struct{}
	arrived    chan arrival
}

type arrival struct {
	at   string // which process
	data []byte
	from net.Addr
	oob  []byte
}

func newTwo(t *testing.T) *two {
	t.Helper()
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := pc.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	again, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	w := &two{t: t, old: New(pc), young: New(again.(*net.UDPConn)), oldGone: make(chan struct{}), youngGone: make(chan struct{}), arrived: make(chan arrival, 1000)}
	if w.client, err = net.DialUDP("udp", nil, pc.LocalAddr().(*net.UDPAddr)); err != nil {
		t.Fatal(err)
	}
	w.oldEnd, w.youngEnd = relay(t)
	t.Cleanup(func() { w.old.Close(); w.young.Close(); w.client.Close() })
	return w
}

// relay is a pair of sockets that keeps packets apart.
func relay(t *testing.T) (one, other *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "relay")
		c, err := net.FileConn(f)
		if f.Close(); err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return ends[0], ends[1]
}

func newMessages(n int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
	}
	return ms
}

// read has a process read until its socket is closed, or its time is over; then
// it closes what it returns.
func (w *two) read(at string, s *Socket) <-chan struct{} {
	over := make(chan struct{})
	go func() {
		defer close(over)
		ms := newMessages(8)
		for {
			n, err := s.ReadBatch(ms, 0)
			if err != nil {
				return
			}
			for _, m := range ms[:n] {
				w.arrived <- arrival{at, bytes.Clone(m.Buffers[0][:m.N]), m.Addr, bytes.Clone(m.OOB[:m.NN])}
			}
		}
	}()
	return over
}

func (w *two) handOver() {
	w.t.Helper()
	if err := w.young.TakeOver(w.old.HandOver(w.oldEnd, w.youngGone), w.youngEnd, w.oldGone); err != nil {
		w.t.Fatal(err)
	}
	w.read("new", w.young)
}

func (w *two) send(p []byte) {
	w.t.Helper()
	if _, err := w.client.Write(p); err != nil {
		w.t.Fatal(err)
	}
}

// wants sends a packet and wants it to arrive at one of the two.
func (w *two) wants(at, what string, p []byte) arrival {
	w.t.Helper()
	w.send(p)
	a := w.next(what)
	if a.at != at || !bytes.Equal(a.data, p) {
		w.t.Errorf("%s: %x arrived at the %s process, want %x at the %s one", what, a.data, a.at, p, at)
	}
	return a
}

// next is what arrives next, at either.
func (w *two) next(what string) arrival {
	w.t.Helper()
	select {
	case a := <-w.arrived:
		return a
	case <-time.After(time.Minute):
		w.t.Fatalf("%s: it arrived nowhere", what)
	}
	return arrival{}
}

// short is a packet of a connection that stands; id begins it.
func short(id []byte, more string) []byte {
	return append(append([]byte{0x40}, id...), more...)
}

// long is a packet of a handshake.
func long(kind byte, version uint32, id []byte, more string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0xc0 | kind}, version)
	b = append(append(b, byte(len(id))), id...)
	return append(b, more...)
}

func idOf(m Mark, n byte) []byte { return append(m[:], n, n, n, n, n, n) }

const (
	handshake = 0x20
	someMore  = "0123456789abcdef"
)

func TestEveryPacketFindsTheProcessOfItsConnection(t *testing.T) {
	w := newTwo(t)
	w.read("old", w.old)
	known := []byte("made up by a client")
	w.wants("old", "a first packet before", long(typeInitial, 1, known, someMore))
	w.wants("old", "of another version before", long(typeInitial, 2, []byte("another version"), someMore))
	w.handOver()
	ours, theirs := w.young.Mark(), w.old.Mark()
	for _, c := range []struct {
		at, what string
		p        []byte
	}{
		{"old", "a packet of its connection", short(idOf(theirs, 1), someMore)},
		{"old", "the second packet of a handshake begun there", long(typeInitial, 1, known, "more")},
		{"old", "a handshake that knows its ID", long(handshake, 1, idOf(theirs, 2), someMore)},
		{"old", "what follows a Retry of its", long(typeInitial, 1, idOf(theirs, 3), someMore)},
		{"new", "a packet of its connection", short(idOf(ours, 1), someMore)},
		{"new", "a packet of nobody's", short(idOf(Mark{1, 2, 3, 4}, 1), someMore)},
		{"new", "a new handshake", long(typeInitial, 1, []byte("another made up"), someMore)},
		{"new", "a new handshake with an ID like a mark's, but longer", long(typeInitial, 1, append(idOf(theirs, 1), 1), someMore)},
		{"new", "a handshake of its", long(handshake, 1, idOf(ours, 2), someMore)},
		{"new", "another version", long(typeInitial, 7, []byte("another version"), someMore)},
		{"new", "a byte", []byte{0x40}},
		{"new", "a long header that ends early", long(typeInitial, 1, known, someMore)[:12]},
		{"new", "an ID that is too long", long(typeInitial, 1, bytes.Repeat([]byte{1}, 21), someMore)},
	} {
		if a := w.wants(c.at, c.what, c.p); a.from.String() != w.client.LocalAddr().String() {
			t.Errorf("%s: it comes from %v, want the client's %v", c.what, a.from, w.client.LocalAddr())
		}
	}
	if got, want := w.young.Stats(), (Stats{Passed: 4}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// What the kernel says beside a packet arrives with it: ECN, and where it was
// sent to.
func TestWhatIsPassedOnKeepsItsControlMessages(t *testing.T) {
	w := newTwo(t)
	raw, err := w.old.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_RECVTOS, 1), syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1))
	})
	if err != nil {
		t.Skipf("this system says nothing beside packets: %v", err)
	}
	w.read("old", w.old)
	before := w.wants("old", "before", short(idOf(w.old.Mark(), 1), someMore))
	w.handOver()
	after := w.wants("old", "after", short(idOf(w.old.Mark(), 1), someMore))
	if len(before.oob) == 0 || !bytes.Equal(before.oob, after.oob) {
		t.Errorf("read itself %x came beside a packet, passed on %x; want the same", before.oob, after.oob)
	}
}

// Of many packets for both, sent while the socket changes hands, each arrives
// once, where it belongs.
func TestNothingIsLostWhileTheSocketChangesHands(t *testing.T) {
	w := newTwo(t)
	w.read("old", w.old)
	const many = 2000
	id := idOf(w.old.Mark(), 1)
	begun, over := make(chan struct{}), make(chan struct{})
	window := make(chan struct{}, 20) // no more are under way than a small socket holds
	go func() {
		defer close(over)
		for i := range many {
			window <- struct{}{}
			p := short(id, fmt.Sprintf("%06d", i))
			if i%4 == 0 {
				p = long(typeInitial, 1, []byte(fmt.Sprintf("first %06d", i)), fmt.Sprintf("%06d", i))
			}
			if _, err := w.client.Write(p); err != nil {
				t.Error(err)
			}
			if i == many/4 {
				close(begun)
			}
		}
	}()
	go func() { <-begun; w.handOver() }()
	times := map[string]int{}
	for range many {
		select {
		case a := <-w.arrived:
			<-window
			times[string(a.data[len(a.data)-6:])]++
			if a.at != "old" && a.data[0]&longHeader == 0 {
				t.Errorf("%x arrived at the %s process", a.data, a.at)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%d of %d arrived", len(times), many)
		}
	}
	<-over
	if len(times) != many {
		t.Errorf("%d of %d arrived, and some twice", len(times), many)
	}
}

func TestTheProcessBeforeReadsAgainWhenTheOtherIsGone(t *testing.T) {
	w := newTwo(t)
	w.read("old", w.old)
	w.handOver()
	w.wants("new", "while both are there", short(idOf(w.young.Mark(), 1), someMore))
	w.young.Close()
	close(w.youngGone)
	w.wants("old", "its own, alone again", short(idOf(w.old.Mark(), 1), someMore))
	w.wants("old", "of the one that is gone", short(idOf(w.young.Mark(), 1), someMore))
	w.wants("old", "a new one", long(typeInitial, 1, []byte("another made up"), someMore))
}

func TestWhatIsForAProcessThatIsGoneIsTheOthers(t *testing.T) {
	for _, tells := range []bool{false, true} {
		w := newTwo(t)
		w.read("old", w.old)
		w.handOver()
		w.wants("old", "while both are there", short(idOf(w.old.Mark(), 1), someMore))
		w.old.Close()
		if tells {
			close(w.oldGone)
		}
		for end := time.Now().Add(time.Minute); w.young.others.Load() != nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
			w.send(short(idOf(w.old.Mark(), 1), someMore))
		}
		behind := short(idOf(w.old.Mark(), 1), "behind it all")
		w.send(behind)
		for a := w.next("of the one that is gone"); !bytes.Equal(a.data, behind); a = w.next("of the one that is gone") {
			if a.at != "new" {
				t.Errorf("%x arrived at the %s process, which is gone", a.data, a.at)
			}
		}
		if n := w.young.Stats().Lost; !tells && n == 0 {
			t.Error("what found nobody is not counted")
		}
	}
}

// A process that takes nothing holds nobody up.
func TestAProcessThatTakesNothingLosesPackets(t *testing.T) {
	w := newTwo(t)
	over := w.read("old", w.old)
	w.oldEnd.SetReadBuffer(1)
	w.youngEnd.SetWriteBuffer(1) // the system gives the least it has
	h := w.old.HandOver(w.oldEnd, w.youngGone)
	w.old.SetReadDeadline(time.Unix(1, 0))
	<-over // and so it reads no more
	if err := w.young.TakeOver(h, w.youngEnd, w.oldGone); err != nil {
		t.Fatal(err)
	}
	w.read("new", w.young)
	full := short(idOf(w.old.Mark(), 1), string(make([]byte, 1200)))
	for end := time.Now().Add(time.Minute); w.young.Stats().Lost == 0; {
		if time.Now().After(end) {
			t.Fatal("nothing was lost")
		}
		w.send(full)
		w.wants("new", "its own", short(idOf(w.young.Mark(), 1), someMore))
	}
	if w.young.others.Load() == nil {
		t.Error("it was given up, want it still be passed on to")
	}
}

func TestASocketThatIsClosedIsHandedOverAtOnce(t *testing.T) {
	w := newTwo(t)
	w.old.Close()
	if h := w.old.HandOver(w.oldEnd, w.youngGone); h.Mark != w.old.Mark() || len(h.Initials) != 0 {
		t.Errorf("handed over %+v, want its mark", h)
	}
	if _, err := w.youngEnd.Write([]byte("x")); err == nil {
		t.Error("what is passed on to it goes nowhere, and nobody is told")
	}
	waits := newTwo(t)
	handed := make(chan Handed)
	go func() { handed <- waits.old.HandOver(waits.oldEnd, waits.youngGone) }() // nobody reads
	for waits.old.handed.Load() == nil {
		time.Sleep(time.Millisecond)
	}
	waits.old.Close()
	<-handed
}

func TestADeadlineEndsReadsOfEither(t *testing.T) {
	w := newTwo(t)
	ms := newMessages(1)
	w.old.SetReadDeadline(time.Unix(1, 0))
	if _, err := w.old.ReadBatch(ms, 0); !timedOut(err) {
		t.Errorf("reading itself: %v, want its time be over", err)
	}
	w.old.SetReadDeadline(time.Time{})
	w.read("old", w.old)
	w.old.HandOver(w.oldEnd, w.youngGone)
	w.old.SetReadDeadline(time.Unix(1, 0))
	if _, err := w.old.ReadBatch(ms, 0); !timedOut(err) {
		t.Errorf("reading what is passed on: %v, want its time be over", err)
	}
}

func TestTheLatestFirstPacketsAreKnown(t *testing.T) {
	var seen initials
	for i := range initialsMax + 10 {
		id := []byte(fmt.Sprintf("id %d", i))
		seen.note(id)
		seen.note(id) // of two packets
	}
	all := seen.all()
	if len(all) != initialsMax {
		t.Fatalf("%d are known, want %d", len(all), initialsMax)
	}
	known := map[string]bool{}
	for _, id := range all {
		known[string(id)] = true
	}
	if known["id 9"] || !known["id 10"] || !known[fmt.Sprintf("id %d", initialsMax+9)] {
		t.Error("the latest are not those that are known")
	}
}

// TestSortingLeavesBuffersWhereTheyAre has packets of the other process stand
// among others: who reads knows buffers by their place.
func TestSortingLeavesBuffersWhereTheyAre(t *testing.T) {
	w := newTwo(t)
	if err := w.young.TakeOver(Handed{Mark: w.old.Mark()}, w.youngEnd, w.oldGone); err != nil {
		t.Fatal(err)
	}
	ms := newMessages(5)
	var buffers []*byte
	for i := range ms {
		m := w.old.Mark()
		if i%2 == 1 {
			m = w.young.Mark()
		}
		ms[i].N = copy(ms[i].Buffers[0], short(idOf(m, byte(i)), someMore))
		ms[i].NN = copy(ms[i].OOB, fmt.Sprint("oob", i))
		ms[i].Addr = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: i + 1}
		buffers = append(buffers, &ms[i].Buffers[0][0])
	}
	n := w.young.sort(ms)
	if n != 2 {
		t.Fatalf("%d are for this process, want 2", n)
	}
	for i, was := range []int{1, 3} {
		m := &ms[i]
		if got, want := m.Buffers[0][:m.N], short(idOf(w.young.Mark(), byte(was)), someMore); !bytes.Equal(got, want) || string(m.OOB[:m.NN]) != fmt.Sprint("oob", was) || m.Addr.(*net.UDPAddr).Port != was+1 {
			t.Errorf("packet %d: got %x with %q from %v, want %x", i, got, m.OOB[:m.NN], m.Addr, want)
		}
	}
	for i := range ms {
		if &ms[i].Buffers[0][0] != buffers[i] {
			t.Errorf("buffer %d is another", i)
		}
	}
}

func TestReadingCostsNoAllocationAlone(t *testing.T) {
	w := newTwo(t)
	ms := newMessages(8)
	for i := range ms {
		ms[i].N = copy(ms[i].Buffers[0], short(idOf(w.old.Mark(), byte(i)), someMore))
	}
	if n := testing.AllocsPerRun(100, func() { w.old.sort(ms) }); n != 0 {
		t.Errorf("%v allocations for 8 packets, want none", n)
	}
}

func FuzzPackets(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(short(idOf(Mark{1, 2, 3, 4}, 1), someMore), []byte("oob"))
	f.Add(long(typeInitial, 1, []byte("made up by a client"), someMore), []byte{})
	f.Add([]byte{0xff, 0, 0, 0, 1, 255}, []byte{7})
	f.Add(bytes.Repeat([]byte{0xff}, 300), []byte{7})
	f.Fuzz(func(t *testing.T, p, oob []byte) {
		if len(p) > 1452 || len(oob) > 128 {
			return
		}
		if id := destination(p); len(id) > idMax {
			t.Errorf("an ID of %d bytes", len(id))
		}
		begins(p)
		ms := newMessages(2)
		in, out := &ms[0], &ms[1]
		in.N, in.NN = copy(in.Buffers[0], p), copy(in.OOB, oob)
		in.Addr = &net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: 443, Zone: "eth0"}
		b, err := appendPassed(nil, in)
		if err != nil {
			t.Fatal(err)
		}
		if err := readPassed(b, out); err != nil || !bytes.Equal(out.Buffers[0][:out.N], p) || !bytes.Equal(out.OOB[:out.NN], oob) || out.Addr.String() != in.Addr.String() {
			t.Errorf("passed on it is %x, %x from %v, %v; want %x, %x from %v", out.Buffers[0][:out.N], out.OOB[:out.NN], out.Addr, err, p, oob, in.Addr)
		}
		_ = readPassed(p, out) // whatever comes
	})
}
