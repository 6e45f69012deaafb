package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"firstbell/bench/ports"
)

// startPebble runs a CA that verifies names at the two ports of this machine, and
// returns the URL of its directory.
func startPebble(t *testing.T, ca *testCA, httpPort, tlsPort int) string {
	t.Helper()
	binary, err := exec.LookPath("pebble")
	if err != nil && os.Getenv("FIRSTBELL_REQUIRE_SERVICES") == "1" {
		t.Fatalf("pebble is required: go build github.com/letsencrypt/pebble/v2/cmd/pebble, on the PATH: %v", err)
	} else if err != nil {
		t.Skip("pebble is not on the PATH: left out is getting certificates from a CA")
	}
	dir := ca.dir
	ca.write(t, "directory", time.Now().Add(time.Hour), "localhost")
	listen, manage := freePort(t), freePort(t)
	conf, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", listen), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", manage),
		"certificate": filepath.Join(dir, "directory.pem"), "privateKey": filepath.Join(dir, "directory.key"),
		"httpPort": httpPort, "tlsPort": tlsPort,
	}})
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, filepath.Join(dir, "pebble.json"), string(conf))
	cmd := exec.Command(binary, "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", startDNS(t))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-exited })
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", listen)); err == nil {
			nc.Close()
			return fmt.Sprintf("https://localhost:%d/dir", listen)
		}
	}
	t.Fatal("pebble does not listen after a minute")
	return ""
}

// startDNS finds every name at this machine.
func startDNS(t *testing.T) string {
	t.Helper()
	tcp, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if one := q.Question[0]; one.Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: one.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)})
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{Listener: tcp, Handler: answer}, {PacketConn: udp, Handler: answer}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return tcp.Addr().String()
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestSchoolsGetCertificatesByThemselves and what a CA asks in plain is answered
// although everything else is sent to https; a school that comes later gets its
// own with a reload.
func TestSchoolsGetCertificatesByThemselves(t *testing.T) {
	web, secure := freePort(t), freePort(t)
	file := writeFile(t, newOrigin(t).URL,
		`http: "127.0.0.1:0", ops: "127.0.0.1:0"}`, fmt.Sprintf(`http: "127.0.0.1:%d", https: "127.0.0.1:%d", ops: "127.0.0.1:0"}
tls: {redirect: 308, acme: {email: ops@city.example, storage: certificates, directory: "DIRECTORY", ca: ca.pem}}
schools: [{id: hangang, hosts: [hangang.school.example]}, {id: namsan}, {id: elsewhere, hosts: [www.elsewhere.example]}]`, web, secure),
		`{hosts: ["*"], origin: lms}`, `{hosts: ["*.school.example", www.example], origin: lms}`,
		`{hosts: ["*"], path: /lessons`, `{hosts: ["*.school.example"], path: /lessons`,
		`{hosts: ["*"], path: /check-in`, `{hosts: ["*.school.example"], path: /check-in`)
	ca := newTestCA(t, filepath.Dir(file))
	edit(t, file, "DIRECTORY", startPebble(t, ca, web, secure))
	r := serve(t, file)
	got := func(names ...string) {
		t.Helper()
		r.await(t, fmt.Sprint("certificates for ", names), func(s *statusReport) bool {
			return s.TLS.ACME.Missing == 0 && s.TLS.ACME.Wanted == len(names)
		})
		for _, name := range names {
			c, err := tls.Dial("tcp", r.https, &tls.Config{ServerName: name, InsecureSkipVerify: true})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			leaf := c.ConnectionState().PeerCertificates[0]
			c.Close()
			if err := leaf.VerifyHostname(name); err != nil || !strings.Contains(leaf.Issuer.CommonName, "Pebble") {
				t.Errorf("%s is shown the certificate of %v by %s", name, leaf.DNSNames, leaf.Issuer)
			}
		}
	}
	got("hangang.school.example", "namsan.school.example", "www.example")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+r.web+"/lessons/1", nil)
	req.Host = "hangang.school.example"
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if want := fmt.Sprintf("https://hangang.school.example:%d/lessons/1", secure); res.StatusCode != 308 || res.Header.Get("Location") != want {
		t.Errorf("in plain: got %d and %q, want 308 and %q", res.StatusCode, res.Header.Get("Location"), want)
	}
	edit(t, file, "{id: namsan}", "{id: namsan}, {id: dongdaemun}")
	if status, answer := ask(t, "POST", "http://"+r.ops+"/reload", ""); status != 200 {
		t.Fatalf("reloading: %d %s", status, answer)
	}
	got("hangang.school.example", "namsan.school.example", "www.example", "dongdaemun.school.example")
	_, metrics := ask(t, "GET", "http://"+r.ops+"/metrics", "")
	for _, want := range []string{"firstbell_tls_acme_names 4", "firstbell_tls_acme_names_missing 0", `firstbell_tls_acme_orders_total{outcome="issued"} 4`, "firstbell_tls_acme_paused 0"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}
