package datagrams

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
)

const (
	markBytes = 4
	// IDBytes is how long the connection IDs are that a process gives away: a
	// mark, and enough behind it that two are never the same.
	IDBytes = 10
	// idMax is how long any connection ID of QUIC version 1 may be.
	idMax = 20
)

// A Mark begins the connection IDs of a process. Two processes have the same
// once in four billion times.
type Mark [markBytes]byte

const (
	longHeader  = 0x80
	typeMask    = 0x30 // of long headers of version 1
	typeInitial = 0x00
	version1    = 1
)

// destination is the ID of the connection that a packet is for (RFC 8999
// section 5); nil when it has none that this could be.
func destination(p []byte) []byte {
	switch {
	case len(p) < 1+IDBytes:
		return nil
	case p[0]&longHeader == 0:
		return p[1 : 1+IDBytes]
	}
	n := int(p[5])
	if n > idMax || len(p) < 6+n {
		return nil
	}
	return p[6 : 6+n]
}

// begins reports a packet of a kind that may begin a connection.
func begins(p []byte) bool {
	return len(p) > 6 && p[0]&longHeader != 0 && p[0]&typeMask == typeInitial && binary.BigEndian.Uint32(p[1:]) == version1
}

// marked reports an ID that a process with the mark gave away.
func marked(id []byte, m Mark) bool { return len(id) == IDBytes && Mark(id) == m }

// A packet goes to the other process as
//
//	1 byte   length of the address
//	         the client's address, as netip.AddrPort writes it
//	1 byte   length of the control messages
//	         what the kernel said beside the packet: ECN, the address it was sent to
//	         the packet
const passedMax = 1 + 64 + 1 + 255 + packetMax

// packetMax is the longest packet that is read: what is longer is none of ours.
const packetMax = 2 << 10

// appendPassed appends a packet as it goes to the other process.
func appendPassed(b []byte, m *ipv4.Message) ([]byte, error) {
	from, ok := m.Addr.(*net.UDPAddr)
	if !ok || m.NN > 255 {
		return b, errors.New("no packet of UDP")
	}
	begin := len(b)
	b = append(b, 0)
	b, err := from.AddrPort().AppendBinary(b)
	if n := len(b) - begin - 1; err != nil || n > 64 {
		return b[:begin], errors.New("an address with a zone that is too long")
	}
	b[begin] = byte(len(b) - begin - 1)
	b = append(append(b, byte(m.NN)), m.OOB[:m.NN]...)
	return append(b, m.Buffers[0][:m.N]...), nil
}

var errNotPassed = errors.New("what came from the other process is no packet")

// readPassed fills m with a packet that came from the other process.
func readPassed(b []byte, m *ipv4.Message) error {
	address, b, ok := cutOne(b)
	var from netip.AddrPort
	if !ok || from.UnmarshalBinary(address) != nil {
		return errNotPassed
	}
	said, b, ok := cutOne(b)
	if !ok || len(said) > len(m.OOB) {
		return errNotPassed
	}
	m.Addr = net.UDPAddrFromAddrPort(from)
	m.NN = copy(m.OOB, said)
	m.N = copy(m.Buffers[0], b)
	return nil
}

// cutOne cuts off what a byte with its length stands before.
func cutOne(b []byte) (one, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	end := 1 + int(b[0])
	if len(b) < end {
		return nil, nil, false
	}
	return b[1:end], b[end:], true
}
