package proxy

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"
)

// initial is a packet that may begin a connection, with what nobody can decrypt.
func initial(version uint32, to string, token []byte, size int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0xc3}, version)
	b = append(append(b, byte(len(to))), to...)
	b = append(append(b, 8), "a client"...)
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(len(token)))
	b = append(b, token...)
	left := size - len(b) - 2
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(left))
	return append(b, make([]byte, left)...)
}

// says sends a packet and returns the answer; nil: there is none.
func (w *wire) says(to *wire, p []byte) []byte {
	w.WriteTo(p, to.local)
	w.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	var b [2000]byte
	n, _, err := w.ReadFrom(b[:])
	if err != nil {
		return nil
	}
	return b[:n]
}

// quicDoor is what takes g's connections of HTTP/3.
func (g *gate) quicDoor() *quicDoor {
	g.proxy.mu.Lock()
	defer g.proxy.mu.Unlock()
	return g.proxy.quicDoors[0]
}

// retried is the token of a Retry packet (RFC 9000 section 17.2.5), and the
// connection ID that is to be used with it; "" when it is none.
func retried(p []byte) (token []byte, id string) {
	if len(p) < 40 || p[0]&0xf0 != 0xf0 {
		return nil, ""
	}
	p = p[6+int(p[5]):]
	n := int(p[0])
	return p[1+n : len(p)-16], string(p[1 : 1+n])
}

func TestOtherVersionsOfQUICAreToldOfTheOneThereIs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, hello, plain)
		server, client := g.wires.ends["127.0.0.1:1"], g.wires.listen()
		for version, want := range map[uint32]bool{0x1a2a3a4a: true, 0x6b3343cf: true, 0xff00001d: true} {
			p := client.says(server, initial(version, "8 bytes!", nil, 1200))
			if len(p) < 27 || p[0]&0x80 == 0 || binary.BigEndian.Uint32(p[1:]) != 0 || !strings.Contains(string(p[5:23]), "a client") {
				t.Errorf("%#x: answered with %x, want Version Negotiation", version, p)
				continue
			}
			found := false
			for p = p[23:]; len(p) >= 4; p = p[4:] {
				found = found || binary.BigEndian.Uint32(p) == 1
			}
			if found != want {
				t.Errorf("%#x: told of version 1: %v, want %v", version, found, want)
			}
		}
		if p := client.says(server, initial(0x1a2a3a4a, "8 bytes!", nil, 200)); p != nil {
			t.Errorf("a short one is answered with %x, want nothing: it could be a victim's address", p)
		}
		if p := client.says(server, initial(0, "8 bytes!", nil, 1200)); p != nil {
			t.Errorf("Version Negotiation is answered with %x, want nothing", p)
		}
		if st := g.proxy.Stats().HTTP3; st.OtherVersions != 3 || st.Dropped != 2 || st.Connections != 0 {
			t.Errorf("counted %+v, want 3 of other versions, 2 dropped", st)
		}
	})
}

// Under load a client proves its address by a token that was made for it, here,
// a moment ago; any other is as good as none.
func TestTokensProveAnAddressUnderLoad(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, hello, plain)
		door := g.quicDoor()
		server, client, other := g.wires.ends["127.0.0.1:1"], g.wires.listen(), g.wires.listen()
		other.local = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 1}
		g.wires.ends[other.local.String()] = other
		if token, _ := retried(client.says(server, initial(1, "8 bytes!", nil, 1200))); token != nil {
			t.Error("without load an address had to be proven")
		}
		time.Sleep(time.Minute) // what began so is over
		door.handshaking.Add(quicUnproven)
		defer door.handshaking.Add(-quicUnproven)
		foreign := newH3Gate(t, hello, plain)
		foreign.quicDoor().handshaking.Add(quicUnproven)
		defer foreign.quicDoor().handshaking.Add(-quicUnproven)
		theirs, _ := retried(foreign.wires.listen().says(foreign.wires.ends["127.0.0.1:1"], initial(1, "8 bytes!", nil, 1200)))
		retries := int64(0)
		for _, c := range []struct {
			name   string
			from   *wire
			token  func(own []byte) []byte
			wait   time.Duration
			begins bool
			retry  bool
		}{
			{"none", client, func([]byte) []byte { return nil }, 0, false, true},
			{"nonsense", client, func([]byte) []byte { return []byte("let me in, please") }, 0, false, true},
			{"a changed one", client, func(own []byte) []byte { own[len(own)/2] ^= 1; return own }, 0, false, true},
			{"one of another server's", client, func([]byte) []byte { return theirs }, 0, false, true},
			{"one of another address", other, func(own []byte) []byte { return own }, 0, false, false},
			{"its own, a minute later", client, func(own []byte) []byte { return own }, time.Minute, false, false},
			{"its own", client, func(own []byte) []byte { return own }, 0, true, false},
		} {
			own, id := retried(client.says(server, initial(1, "8 bytes!", nil, 1200)))
			if retries++; own == nil || theirs == nil {
				t.Fatal("under load no address has to be proven")
			}
			token := c.token(own)
			if token == nil {
				id = "8 bytes!"
			}
			time.Sleep(c.wait)
			before := door.open.Load()
			answer := c.from.says(server, initial(1, id, token, 1200))
			if began := door.open.Load() > before; began != c.begins {
				t.Errorf("with %s a handshake began: %v, want %v", c.name, began, c.begins)
			}
			again, _ := retried(answer)
			if (again != nil) != c.retry {
				t.Errorf("with %s: answered with %.20x, want Retry: %v", c.name, answer, c.retry)
			}
			if c.retry {
				retries++
			}
		}
		if st := g.proxy.Stats().HTTP3; st.Retries != retries {
			t.Errorf("counted %d that had to prove their address, want %d", st.Retries, retries)
		}
		time.Sleep(time.Minute)
		if a, err := g.connect().ask(h3Head("GET", "/")); err != nil || a.body != "hello" {
			t.Errorf("who proves it gets %+v, %v; want hello", a, err)
		}
	})
}
