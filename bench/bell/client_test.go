package bell

import (
	"errors"
	"hash/crc32"
	"net"
	"strings"
	"testing"
	"time"
)

// say plays a server that gives these bytes and closes.
func say(t *testing.T, wire string) (answer, error) {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		buf := make([]byte, 1024)
		server.Read(buf)
		server.Write([]byte(wire))
	}()
	a, _, err := newConn(client).roundTrip([]byte("GET / HTTP/1.1\r\n\r\n"), true, time.Now().Add(time.Minute))
	return a, err
}

func TestClientReadsEveryFraming(t *testing.T) {
	for _, c := range []struct{ name, wire, body string }{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n", "hello"},
		{"close", "HTTP/1.0 200 OK\r\n\r\nhello", "hello"},
		{"none", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ""},
		{"early hints", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"},
	} {
		a, err := say(t, c.wire)
		if err != nil || string(a.body) != c.body || a.length != int64(len(c.body)) {
			t.Errorf("%s: body %q of %d bytes, error %v; want %q", c.name, a.body, a.length, err, c.body)
		}
		if want := crc32.Checksum([]byte(c.body), castagnoli); a.crc != want {
			t.Errorf("%s: CRC %08x, want %08x", c.name, a.crc, want)
		}
	}
}

func TestClientBelievesNoShortAnswer(t *testing.T) {
	for _, wire := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\n",
		"HTTP/1.1 200 OK\r\nContent-Le",
	} {
		if _, err := say(t, wire); !errors.Is(err, errShort) {
			t.Errorf("%q: error %v, want %v", wire, err, errShort)
		}
	}
	for _, wire := range []string{
		"HTTP/2 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 5000) + "\r\n\r\n",
	} {
		if a, err := say(t, wire); err == nil {
			t.Errorf("%.60q was taken as %d", wire, a.status)
		}
	}
}

func TestClientKeepsWhatABrowserKeeps(t *testing.T) {
	a, err := say(t, "HTTP/1.1 503 Service Unavailable\r\nretry-after: 3\r\nSet-Cookie: a=b; Path=/\r\nSet-Cookie: c=d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if a.status != 503 || a.retryAfter != 3*time.Second || !a.closes || strings.Join(a.cookies, " ") != "a=b c=d" {
		t.Errorf("got %+v; want 503, 3s, closing, cookies a=b c=d", a)
	}
}

func TestHistogramQuantilesAreCloseAndNeverTooLow(t *testing.T) {
	var h Histogram
	for i := 1; i <= 10000; i++ {
		h.Add(time.Duration(i) * 100 * time.Microsecond)
	}
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0.5, 500 * time.Millisecond}, {0.99, 990 * time.Millisecond}, {1, time.Second}} {
		got := h.Quantile(c.q)
		if got < c.want || float64(got) > 1.07*float64(c.want) {
			t.Errorf("quantile %v is %v, want %v or up to 7%% more", c.q, got, c.want)
		}
	}
	var empty Histogram
	if got := empty.Quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v, want 0", got)
	}
}

func TestPausesGrowAndHonourRetryAfter(t *testing.T) {
	for tries := 1; tries < 20; tries++ {
		if d := pause(tries, 0); d < 100*time.Millisecond || d > 4500*time.Millisecond {
			t.Errorf("pause before try %d is %v; want 0.1s to 4.5s", tries+1, d)
		}
		if d := pause(tries, 7*time.Second); d < 7*time.Second || d > 9*time.Second {
			t.Errorf("a server that asks for 7s is asked again after %v", d)
		}
	}
}
