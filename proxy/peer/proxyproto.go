package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"strconv"
)

// The PROXY protocol (HAProxy's doc/proxy-protocol.txt), written once at the
// beginning of a connection by who opened it for another.
//
//	version 1    PROXY TCP4 192.0.2.1 198.51.100.7 51234 443 CRLF
//	             PROXY UNKNOWN … CRLF
//
//	version 2    12 bytes    0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a
//	              1 byte     20: LOCAL, of the proxy's own, or 21: PROXY
//	              1 byte     11: TCP over IPv4, 21: over IPv6; 0 unspecified
//	              2 bytes    length of what follows
//	             addresses   source, destination, source port, destination port
//	             TLVs        type, length in two bytes, value

// A Header is what it says.
type Header struct {
	// From and To are the ends of the connection that it stands for. Both are
	// invalid where it stands for none, as for a health check.
	From, To netip.AddrPort
	// Secure says that the client speaks TLS with the proxy (version 2 alone).
	Secure bool
}

// ErrHeader is in every error of a header that does not keep to the letter.
var ErrHeader = errors.New("no PROXY protocol header")

const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	v1Max     = 107  // bytes of a line, its end included
	v2Max     = 4096 // bytes behind the first 16: twice what a TLS certificate's name takes

	tlvChecksum = 0x03
	tlvTLS      = 0x20
	// clientTLS is the bit of a tlvTLS that says that the client speaks TLS.
	clientTLS = 0x01
)

// ReadHeader reads a header of either version, and not a byte more. An error
// that r did not return holds ErrHeader.
func ReadHeader(r io.Reader) (Header, error) {
	var b [v1Max]byte
	if _, err := io.ReadFull(r, b[:len(signature)]); err != nil {
		return Header{}, cut(err)
	}
	if string(b[:len(signature)]) == signature {
		return readV2(r)
	}
	if string(b[:6]) != "PROXY " {
		return Header{}, refuse("the connection begins with %q", b[:len(signature)])
	}
	for n := len(signature); n < v1Max; n++ {
		if _, err := io.ReadFull(r, b[n:n+1]); err != nil {
			return Header{}, cut(err)
		}
		if b[n] == '\n' {
			return parseV1(b[:n+1])
		}
	}
	return Header{}, refuse("a line of more than %d bytes", v1Max)
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrHeader, fmt.Sprintf(format, args...))
}

func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return refuse("the connection ended")
	}
	return err
}

// parseV1 reads a whole line.
func parseV1(line []byte) (Header, error) {
	text, whole := bytes.CutSuffix(line, []byte("\r\n"))
	if !whole || bytes.IndexByte(text, '\r') >= 0 {
		return Header{}, refuse("the line does not end in CRLF")
	}
	if string(text) == "PROXY UNKNOWN" || bytes.HasPrefix(text, []byte("PROXY UNKNOWN ")) {
		return Header{}, nil
	}
	parts := bytes.Split(text, []byte{' '})
	if len(parts) != 6 || string(parts[1]) != "TCP4" && string(parts[1]) != "TCP6" {
		return Header{}, refuse("the line %q", text)
	}
	from, ok1 := v1Address(parts[1], parts[2], parts[4])
	to, ok2 := v1Address(parts[1], parts[3], parts[5])
	if !ok1 || !ok2 {
		return Header{}, refuse("the line %q", text)
	}
	return Header{From: from, To: to}, nil
}

func v1Address(family, address, port []byte) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(string(address))
	if err != nil || a.Zone() != "" || a.Is4() != (string(family) == "TCP4") {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(string(port), 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' || port[0] == '+' {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}

// readV2 reads what follows the signature.
func readV2(r io.Reader) (Header, error) {
	b := make([]byte, 16, 256)
	copy(b, signature)
	if _, err := io.ReadFull(r, b[12:16]); err != nil {
		return Header{}, cut(err)
	}
	command, family, length := b[12], b[13], int(binary.BigEndian.Uint16(b[14:]))
	if command != 0x20 && command != 0x21 {
		return Header{}, refuse("version and command %#x", command)
	}
	if length > v2Max {
		return Header{}, refuse("%d bytes, allowed are %d", length, v2Max)
	}
	b = append(b, make([]byte, length)...)
	if _, err := io.ReadFull(r, b[16:]); err != nil {
		return Header{}, cut(err)
	}
	var h Header
	size := 0 // of the addresses
	switch family {
	case 0x00: // unspecified: what follows says nothing
		return Header{}, nil
	case 0x11:
		size = 12
	case 0x21:
		size = 36
	case 0x12, 0x22: // over UDP
		return Header{}, refuse("datagrams on a connection")
	case 0x31, 0x32: // between programs of one machine
		size = 216
	default:
		return Header{}, refuse("family and transport %#x", family)
	}
	if length < size {
		return Header{}, refuse("%d bytes for addresses of %d", length, size)
	}
	if size < 216 {
		h.From, h.To = v2Addresses(b[16 : 16+size])
	}
	if err := h.readTLVs(b, 16+size); err != nil {
		return Header{}, err
	}
	if command == 0x20 {
		return Header{}, nil // the proxy's own, whatever addresses it names
	}
	return h, nil
}

func v2Addresses(b []byte) (from, to netip.AddrPort) {
	n := (len(b) - 4) / 2
	a, _ := netip.AddrFromSlice(b[:n]) // of 4 or 16 bytes
	z, _ := netip.AddrFromSlice(b[n : 2*n])
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[2*n:])),
		netip.AddrPortFrom(z.Unmap(), binary.BigEndian.Uint16(b[2*n+2:]))
}

// readTLVs reads what stands behind the addresses, and holds the header against
// its checksum where there is one.
func (h *Header) readTLVs(b []byte, at int) error {
	for at < len(b) {
		if len(b)-at < 3 {
			return refuse("a cut TLV")
		}
		kind, n := b[at], int(binary.BigEndian.Uint16(b[at+1:]))
		at += 3
		if n > len(b)-at {
			return refuse("a TLV of %d bytes, %d are there", n, len(b)-at)
		}
		value := b[at : at+n]
		switch kind {
		case tlvChecksum:
			if n != 4 {
				return refuse("a checksum of %d bytes", n)
			}
			want := binary.BigEndian.Uint32(value)
			clear(value) // counts as zero
			if got := crc32.Checksum(b, castagnoli); got != want {
				return refuse("its checksum is %08x, not %08x", got, want)
			}
		case tlvTLS:
			if n < 5 {
				return refuse("a TLV about TLS of %d bytes", n)
			}
			h.Secure = value[0]&clientTLS != 0
		}
		at += n
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendV1 appends the header in version 1: UNKNOWN unless both ends are there
// and of one family.
func (h Header) AppendV1(b []byte) []byte {
	from, to, family := h.ends()
	if family == 0 {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	name := "PROXY TCP4 "
	if family == 0x21 {
		name = "PROXY TCP6 "
	}
	b = append(from.Addr().AppendTo(append(b, name...)), ' ')
	b = append(to.Addr().AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(from.Port()), 10), ' ')
	return append(strconv.AppendUint(b, uint64(to.Port()), 10), "\r\n"...)
}

// AppendV2 appends the header in version 2: LOCAL unless both ends are there.
func (h Header) AppendV2(b []byte) []byte {
	b = append(b, signature...)
	from, to, family := h.ends()
	if family == 0 {
		return append(b, 0x20, 0, 0, 0)
	}
	a, z := from.Addr().AsSlice(), to.Addr().AsSlice()
	length := len(a) + len(z) + 4
	if h.Secure {
		length += 3 + 5
	}
	b = append(b, 0x21, family, byte(length>>8), byte(length))
	b = append(append(b, a...), z...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	if h.Secure {
		b = append(b, tlvTLS, 0, 5, clientTLS, 0, 0, 0, 1) // no client certificate was verified
	}
	return b
}

// ends are the two ends in one family, which is 0 when one is not there.
func (h Header) ends() (from, to netip.AddrPort, family byte) {
	if !h.From.IsValid() || !h.To.IsValid() {
		return from, to, 0
	}
	a, z := h.From.Addr().Unmap().WithZone(""), h.To.Addr().Unmap().WithZone("")
	if a.Is4() && z.Is4() {
		return netip.AddrPortFrom(a, h.From.Port()), netip.AddrPortFrom(z, h.To.Port()), 0x11
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.As16()), h.From.Port()),
		netip.AddrPortFrom(netip.AddrFrom16(z.As16()), h.To.Port()), 0x21
}
