package origin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// certificate makes one, signed by itself and trusted by pool.
func certificate(t *testing.T, pool *x509.CertPool, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}
}

// startTLS runs a server that shows cert, and wants one of clients where it is
// given whose.
func startTLS(t *testing.T, cert tls.Certificate, clients *x509.CertPool, answer http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(answer)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	if clients != nil {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestServersByTLSProveWhoTheyAre(t *testing.T) {
	trusted, strange, ours := x509.NewCertPool(), x509.NewCertPool(), x509.NewCertPool()
	lms, other := certificate(t, trusted, "lms.example"), certificate(t, strange, "lms.example")
	us := certificate(t, ours, "firstbell")
	answer := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %d", r.TLS.ServerName, r.TLS.NegotiatedProtocol, len(r.TLS.PeerCertificates))
	}
	plain := startTLS(t, lms, nil, answer)
	mutual := startTLS(t, lms, ours, answer)
	impostor := startTLS(t, other, nil, answer)
	for _, c := range []struct {
		name   string
		server *httptest.Server
		tls    *tls.Config
		want   string // the body; empty: an error
	}{
		{"by our CA and its name", plain, &tls.Config{RootCAs: trusted, ServerName: "lms.example"}, "lms.example http/1.1 0"},
		{"under another name", plain, &tls.Config{RootCAs: trusted, ServerName: "other.example"}, ""},
		{"by its address, which the certificate lacks", plain, &tls.Config{RootCAs: trusted}, ""},
		{"by the system's CAs", plain, nil, ""},
		{"signed by somebody else", impostor, &tls.Config{RootCAs: trusted, ServerName: "lms.example"}, ""},
		{"that wants to know us", mutual, &tls.Config{RootCAs: trusted, ServerName: "lms.example", Certificates: []tls.Certificate{us}}, "lms.example http/1.1 1"},
		{"that wants to know us, and does not", mutual, &tls.Config{RootCAs: trusted, ServerName: "lms.example"}, ""},
	} {
		p, err := New(Config{Name: "lms", Servers: []string{c.server.URL}, TLS: c.tls})
		if err != nil {
			t.Fatal(err)
		}
		res, err := p.Do(t.Context(), &Request{Method: "GET", Target: "/", Host: "school.example"})
		var got []byte
		if err == nil {
			got, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if (err == nil) != (c.want != "") || string(got) != c.want {
			t.Errorf("a server %s: got %q, %v; want %q", c.name, got, err, c.want)
		}
		p.Close()
	}
	if _, err := New(Config{Name: "lms", Servers: []string{"ftp://a"}}); err == nil || !strings.Contains(err.Error(), "https://") {
		t.Errorf("a server by FTP: got %v", err)
	}
}

// TestContentOverTLSIsWholeOnlyIfTLSSaysSo where it ends with the connection,
// and connections are used again, and sessions resumed.
func TestContentOverTLSIsWholeOnlyIfTLSSaysSo(t *testing.T) {
	trusted := x509.NewCertPool()
	s := startTLS(t, certificate(t, trusted, "lms.example"), nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/kept" {
			fmt.Fprintf(w, "%t %s", r.TLS.DidResume, r.RemoteAddr)
			return
		}
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nhalf of it")
		if r.URL.Path == "/cut" {
			c.(*tls.Conn).NetConn().Close()
			return
		}
		c.Close()
	})
	p, err := New(Config{Name: "lms", Servers: []string{s.URL}, TLS: &tls.Config{RootCAs: trusted, ServerName: "lms.example"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	get := func(path string) (string, error) {
		res, err := p.Do(t.Context(), &Request{Method: "GET", Target: path, Host: "school.example"})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		return string(got), err
	}
	first, _ := get("/kept")
	if second, _ := get("/kept"); second != first || !strings.HasPrefix(first, "false ") {
		t.Errorf("got %q, then %q; want the same connection", first, second)
	}
	if got, err := get("/whole"); err != nil || got != "half of it" {
		t.Errorf("ended by TLS: got %q, %v", got, err)
	}
	if got, err := get("/cut"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ended without TLS's word: got %q, %v; want it broken", got, err)
	}
	if third, _ := get("/kept"); !strings.HasPrefix(third, "true ") {
		t.Errorf("a new connection: got %q, want its session resumed", third)
	}
}
