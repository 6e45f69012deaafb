//go:build !race

package proxy

import (
	"context"
	"testing"

	"firstbell/proxy/field"
	"firstbell/proxy/http1"
)

// The race detector makes pools forget, so allocations are counted without it.

func TestAVerifiedCheckInAllocatesNoMoreThanAPlainOne(t *testing.T) {
	r, err := NewReply(ReplyConfig{Body: `{"result":"ok","no":"${receipt}","student":"${student_id}"}`})
	if err != nil {
		t.Fatal(err)
	}
	who := byCookie(t, Identity{})
	var head http1.Head
	if err := head.Parse([]byte("POST /check-in HTTP/1.1\r\nHost: school.example\r\n" + sessionOf(t, "s1", "school") + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	x := &exchange{fields: &head, host: []byte("school.example"), route: &Route{}}
	x.out = &nobody{}
	p := &Proxy{life: context.Background()}
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		if !p.identify(x, who) {
			t.Fatal("the session was refused")
		}
		buf = r.send(x, &aReceipt, buf[:0])
	}); n > 0 {
		t.Errorf("finding out who asks and filling the answer allocates %v times, want 0", n)
	}
}

// nobody is a responder that forgets.
type nobody struct{ responder }

func (*nobody) send(*exchange, int, field.List, []byte) {}
