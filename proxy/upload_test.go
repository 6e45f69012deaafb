package proxy

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// TestContentArrivesWholeHoweverItIsCut sends requests over sockets in pieces of
// any size, one behind the other: whatever is waited for, with and without a
// buffer, nothing is lost, nothing read twice, and what follows is answered.
func TestContentArrivesWholeHoweverItIsCut(t *testing.T) {
	g, dial := tcpGate(t, echo, plain)
	g.proxy.SetLimits(Limits{})
	random := rand.New(rand.NewPCG(1, 2))
	var sent strings.Builder
	var want []string
	for i := range 60 {
		content := strings.Repeat(fmt.Sprintf("%d.", i), random.IntN(1+i*i))
		head := "POST /%d HTTP/1.1\r\nHost: a\r\nX-Pad: " + strings.Repeat("x", random.IntN(3000)) + "\r\n"
		if fmt.Fprintf(&sent, head, i); i%2 == 0 {
			fmt.Fprintf(&sent, "Content-Length: %d\r\n\r\n%s", len(content), content)
		} else {
			sent.WriteString("Transfer-Encoding: chunked\r\n\r\n")
			for left := content; len(left) > 0; {
				n := 1 + random.IntN(len(left))
				fmt.Fprintf(&sent, "%x;name=value\r\n%s\r\n", n, left[:n])
				left = left[n:]
			}
			sent.WriteString("0\r\nX-Sum: 1\r\n\r\n")
		}
		want = append(want, fmt.Sprintf("POST /%d %d %x", i, len(content), crc([]byte(content))))
	}
	c := dial()
	go func() {
		for left := sent.String(); len(left) > 0; {
			n := min(1+random.IntN(1<<random.IntN(14)), len(left))
			if _, err := io.WriteString(c, left[:n]); err != nil {
				return
			}
			left = left[n:]
		}
	}()
	r := bufio.NewReader(c)
	for i, want := range want {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if got, err := io.ReadAll(res.Body); string(got) != want || err != nil {
			t.Fatalf("request %d: got %q, %v; want %q", i, got, err, want)
		}
	}
}
