package origin

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/proxy/peer"
)

func TestEveryConnectionSaysWhomItIsFor(t *testing.T) {
	for version, c := range map[int]struct{ first, unnamed string }{
		1: {"PROXY TCP4 192.0.2.1 198.51.100.7 51234 443\r\n", "PROXY UNKNOWN\r\n"},
		2: {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\xc8\x22\x01\xbb", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"},
	} {
		p := newFake(t, Config{Preface: version}, func(f *fakeConn) {
			want := c.first
			if f.n > 0 {
				want = c.unnamed
			}
			f.wantRead(want)
			f.readHead()
			f.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			f.wantEnd()
		})
		r := get()
		r.For = peer.Header{From: netip.MustParseAddrPort("192.0.2.1:51234"), To: netip.MustParseAddrPort("198.51.100.7:443")}
		mustDo(t, p, r)
		mustDo(t, p, get())
		if st := p.Stats().Servers[0]; st.Opened != 2 || st.Reused != 0 || st.Idle != 0 {
			t.Errorf("version %d: got %d connections, %d reused, %d idle; want one each, and none kept", version, st.Opened, st.Reused, st.Idle)
		}
	}
}

func TestHealthChecksAreForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checked := make(chan struct{}, 10)
		p := newFake(t, Config{Preface: 1, Health: Health{Path: "/healthz", Every: time.Hour}}, func(f *fakeConn) {
			f.wantRead("PROXY UNKNOWN\r\nGET /healthz HTTP/1.1\r\n")
			f.readHead()
			f.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			checked <- struct{}{}
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		<-checked
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
