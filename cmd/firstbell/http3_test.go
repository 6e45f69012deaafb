package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	quichttp3 "github.com/quic-go/quic-go/http3"
)

// writeHTTP3File is writeTLSFile with listen.http3.
func writeHTTP3File(t *testing.T, originURL, host string, edits ...string) (string, *testCA) {
	t.Helper()
	file, ca := writeTLSFile(t, originURL, []string{host}, edits...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const https = `https: "127.0.0.1:0"`
	rewrite(t, file, strings.Replace(string(text), https, https+`, http3: "127.0.0.1:0"`, 1))
	return file, ca
}

// overHTTP3 is a client that asks r whatever host a URL names.
func overHTTP3(t *testing.T, r *running, ca *testCA) *http.Client {
	t.Helper()
	tr := &quichttp3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.pool},
		Dial: func(ctx context.Context, _ string, conf *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, r.http3, conf, q)
		},
	}
	t.Cleanup(func() { tr.Close() })
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func TestHTTP3IsServedToldOfAndCounted(t *testing.T) {
	file, ca := writeHTTP3File(t, newOrigin(t).URL, "hangang.school.example")
	r := serve(t, file)
	client := overHTTP3(t, r, ca)
	res, err := client.Get("https://hangang.school.example/lessons/1")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || string(body) != "this is /lessons/1\n" || res.ProtoMajor != 3 {
		t.Errorf("got %q over %s, %v", body, res.Proto, err)
	}
	if _, err := client.Get("https://other.example/"); err == nil {
		t.Error("a name that is not ours was shown a certificate")
	}
	tcp := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.https)
		}}}
	defer tcp.CloseIdleConnections()
	if res, err = tcp.Get("https://hangang.school.example/lessons/1"); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	_, port, _ := net.SplitHostPort(r.http3)
	if got, want := res.Header.Get("Alt-Svc"), `h3=":`+port+`"; ma=86400`; got != want {
		t.Errorf("over TCP browsers are told %q, want %q", got, want)
	}
	var s statusReport
	_, answer := ask(t, "GET", "http://"+r.ops+"/status", "")
	if err := json.Unmarshal([]byte(answer), &s); err != nil {
		t.Fatal(err)
	}
	if s.HTTP3 == nil || s.HTTP3.Connections == 0 {
		t.Errorf("/status says of HTTP/3: %+v, want a connection", s.HTTP3)
	}
	_, metrics := ask(t, "GET", "http://"+r.ops+"/metrics", "")
	for _, want := range []string{"firstbell_http3_connections ", `firstbell_http3_errors_total{code="H3_MESSAGE_ERROR"} 0`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	r.says(t, "protocol=3") // in the access log
}

// protocolPage says by which protocol it came, and shows a picture.
const protocolPage = `<!doctype html><html><head><meta charset="utf-8"><title>수업 1</title></head>
<body style="font:24px sans-serif"><h1>수업 1</h1><img id="picture" src="/media/bell.svg" width="80" height="80"><p id="protocol"></p>
<script>addEventListener("load", () => {
  const by = kind => performance.getEntriesByType(kind).map(e => e.nextHopProtocol).join();
  document.getElementById("protocol").textContent = by("navigation") + " " + by("resource") + " " + (document.getElementById("picture").naturalWidth > 0);
});</script></body></html>`

// TestABrowserOpensALessonOverEveryProtocol lets a real Chromium load a page and
// its picture over HTTP/1.1 or HTTP/2, as agreed in TLS, and over HTTP/3.
func TestABrowserOpensALessonOverEveryProtocol(t *testing.T) {
	if testing.Short() {
		t.Skip("left out with -short: a real browser")
	}
	chromium := need(t, "chromium", "apt-get install chromium")
	nginx := newNginx(t)
	nginx.put(t, "lessons/1.html", []byte(protocolPage))
	nginx.put(t, "media/bell.svg", []byte(lessonPicture))
	file, ca := writeHTTP3File(t, nginx.url, "s01.school.example", "{hosts: [\"*\"], origin: lms}", "{hosts: [\"*\"], origin: lms, cache: {}}")
	r := serve(t, file)
	said := regexp.MustCompile(`<p id="protocol">([^<]*)</p>`)
	for want, address := range map[string]string{"h2": r.https, "h3": r.http3} {
		_, port, _ := net.SplitHostPort(address)
		args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--user-data-dir=" + t.TempDir(),
			"--host-resolver-rules=MAP s01.school.example 127.0.0.1", "--ignore-certificate-errors-spki-list=" + ca.keyOf(t, "school"),
			"--virtual-time-budget=5000"}
		if want == "h3" {
			args = append(args, "--origin-to-force-quic-on=s01.school.example:"+port)
		} else {
			args = append(args, "--disable-quic")
		}
		kind := "--dump-dom"
		if dir := os.Getenv("FIRSTBELL_SCREENSHOTS"); dir != "" {
			kind = "--screenshot=" + filepath.Join(dir, want+".png")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		dom, err := exec.CommandContext(ctx, chromium, append(args, kind, "https://s01.school.example:"+port+"/lessons/1.html")...).Output()
		if err != nil {
			t.Fatalf("chromium over %s: %v", want, err)
		}
		if kind != "--dump-dom" {
			continue
		}
		if got := said.FindStringSubmatch(string(dom)); got == nil || got[1] != want+" "+want+" true" {
			t.Errorf("over %s the page says %q, want it and its picture by %s\n%s", want, got, want, dom)
		}
	}
	r.says(t, "protocol=3") // in the access log
}

// keyOf is the digest of a certificate's key, by which a browser can be told to
// trust it.
func (ca *testCA) keyOf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(ca.dir, name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}
