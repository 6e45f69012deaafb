package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testCA signs what tests show.
type testCA struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

// newTestCA makes a CA whose certificate is ca.pem in dir.
func newTestCA(t *testing.T, dir string) *testCA {
	t.Helper()
	ca := &testCA{dir: dir, pool: x509.NewCertPool()}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the CA of a test"}, IsCA: true, BasicConstraintsValid: true, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	var der []byte
	ca.key, der = sign(t, template, nil, nil)
	ca.cert, _ = x509.ParseCertificate(der)
	ca.pool.AddCert(ca.cert)
	rewrite(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return ca
}

func sign(t *testing.T, leaf, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, by = leaf, key
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

// write puts a certificate and its key into name.pem and name.key, and returns
// its serial number.
func (ca *testCA) write(t *testing.T, name string, expires time.Time, hosts ...string) string {
	t.Helper()
	leaf := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: hosts, NotBefore: time.Unix(0, 0), NotAfter: expires,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	key, der := sign(t, leaf, ca.cert, ca.key)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, filepath.Join(ca.dir, name+".pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	rewrite(t, filepath.Join(ca.dir, name+".key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return leaf.SerialNumber.String()
}

const tlsTo = `ops: "127.0.0.1:0", https: "127.0.0.1:0"}
tls: {certificates: [{cert: school.pem, key: school.key}]}`

// writeTLSFile is writeFile with listen.https and its certificate for hosts.
func writeTLSFile(t *testing.T, originURL string, hosts []string, edits ...string) (string, *testCA) {
	t.Helper()
	file := writeFile(t, originURL, append([]string{`ops: "127.0.0.1:0"}`, tlsTo}, edits...)...)
	ca := newTestCA(t, filepath.Dir(file))
	ca.write(t, "school", time.Now().Add(24*time.Hour*90), hosts...)
	return file, ca
}

// shown is the serial number of the certificate that who names sni is shown.
func (ca *testCA) shown(t *testing.T, address, sni string) string {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{ServerName: sni, RootCAs: ca.pool})
	if err != nil {
		t.Fatalf("%s: %v", sni, err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestCurlAsksOverTLS(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		if os.Getenv("FIRSTBELL_REQUIRE_SERVICES") != "" {
			t.Fatal("there is no curl")
		}
		t.Skip("there is no curl")
	}
	file, ca := writeTLSFile(t, newOrigin(t).URL, []string{"hangang.school.example"})
	r := serve(t, file)
	_, port, _ := strings.Cut(r.https, ":")
	for _, c := range [][3]string{{"1.2", "--http1.1", "1.1"}, {"1.3", "--http2", "2"}} {
		version := c[0]
		var said bytes.Buffer
		cmd := exec.CommandContext(t.Context(), curl, "-sS", "--max-time", "20", "--tlsv"+version, "--tls-max", version, c[1], "-w", "over HTTP/%{http_version}", "--cacert", filepath.Join(ca.dir, "ca.pem"),
			"--resolve", "hangang.school.example:"+port+":127.0.0.1", "https://hangang.school.example:"+port+"/lessons/1")
		cmd.Stderr = &said
		if out, err := cmd.Output(); err != nil || string(out) != "this is /lessons/1\nover HTTP/"+c[2] {
			t.Errorf("TLS %s: got %q, %v, %s", version, out, err, &said)
		}
	}
	var s statusReport
	_, answer := ask(t, "GET", "http://"+r.ops+"/status", "")
	if err := json.Unmarshal([]byte(answer), &s); err != nil {
		t.Fatal(err)
	}
	if s.TLS == nil || s.TLS.Handshakes["done"] != 2 || s.TLS.Certificates != 1 || s.TLS.Problems != 0 || len(s.TLS.First) != 1 {
		t.Errorf("/status says of TLS: %+v", s.TLS)
	}
	_, metrics := ask(t, "GET", "http://"+r.ops+"/metrics", "")
	for _, want := range []string{`firstbell_tls_handshakes_total{outcome="done"} 2`, "firstbell_proxy_http2_connections 0", `firstbell_proxy_http2_refused_total{reason="rapid-reset"} 0`, "firstbell_tls_certificates 1", `firstbell_tls_certificate_expires_timestamp_seconds{certificate="hangang.school.example (`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if _, page := ask(t, "GET", "http://"+r.ops+"/", ""); !strings.Contains(page, "<h2>TLS</h2>") || !strings.Contains(page, "</html>") {
		t.Error("the page lacks TLS, or is not whole")
	}
}

func TestCheckNamesWhatIsWrongWithCertificates(t *testing.T) {
	file, ca := writeTLSFile(t, "http://10.0.0.5:8080", []string{"*.school.example"}, `{hosts: ["*"], origin: lms}`, `{hosts: ["*.school.example", other.example], origin: lms}`)
	stdout, _, err := firstbell(t, "check", "-config", file)
	if err != nil || !strings.Contains(stdout, "there is no certificate for other.example") || strings.Contains(stdout, "no certificate for *.school.example") || !strings.Contains(stdout, "1 certificate\n") {
		t.Errorf("a host without certificate: got %v\n%s", err, stdout)
	}
	ca.write(t, "school", time.Now().Add(-time.Hour), "*.school.example")
	if stdout, _, err = firstbell(t, "check", "-config", file); err != nil || !strings.Contains(stdout, "expired on") {
		t.Errorf("an expired certificate: got %v\n%s; want a warning", err, stdout)
	}
	ca.write(t, "other", time.Now().Add(time.Hour), "other.example")
	edit(t, file, "key: school.key", "key: other.key")
	if stdout, _, err = firstbell(t, "check", "-config", file); err == nil || !strings.Contains(stdout, ":2:") || !strings.Contains(stdout, "does not match") {
		t.Errorf("a key of another certificate: got %v\n%s", err, stdout)
	}
	edit(t, file, "other.key", "nowhere.key")
	if stdout, _, err = firstbell(t, "check", "-config", file); err == nil || !strings.Contains(stdout, "no such file") {
		t.Errorf("a key that is not there: got %v\n%s", err, stdout)
	}
}

func TestAReloadTakesRenewedCertificates(t *testing.T) {
	file, ca := writeTLSFile(t, newOrigin(t).URL, []string{"hangang.school.example"})
	r := serve(t, file)
	first := ca.shown(t, r.https, "hangang.school.example")
	second := ca.write(t, "school", time.Now().Add(time.Hour), "hangang.school.example")
	if status, answer := ask(t, "POST", "http://"+r.ops+"/reload", ""); status != 200 {
		t.Errorf("reloading: %d %s", status, answer)
	}
	if got := ca.shown(t, r.https, "hangang.school.example"); got != second || got == first {
		t.Errorf("shown is %s, want the new one, %s", got, second)
	}
	rewrite(t, filepath.Join(ca.dir, "school.key"), "garbage")
	if status, answer := ask(t, "POST", "http://"+r.ops+"/reload", ""); status != 422 || !strings.Contains(answer, "school.pem") {
		t.Errorf("reloading with a damaged key: %d %s, want it refused", status, answer)
	}
	if got := ca.shown(t, r.https, "hangang.school.example"); got != second {
		t.Errorf("shown is %s, want the last good one, %s", got, second)
	}
}
