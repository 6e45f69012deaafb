package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"firstbell/bench/ports"
)

// lms is the origin.
type lms struct {
	addr  string
	srv   *http.Server
	seen  atomic.Int64 // requests of attackers that never become whole
	asked atomic.Int64
	now   atomic.Int64
	most  atomic.Int64 // at once
}

func startOrigin() (*lms, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &lms{addr: ln.Addr().String()}
	o.srv = &http.Server{Handler: o}
	go o.srv.Serve(ln)
	return o, nil
}

func (o *lms) stop() { o.srv.Close() }

// ServeHTTP implements http.Handler: /lessons and /films may be stored, /mine
// not.
func (o *lms) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.asked.Add(1)
	if r.Header.Get("X-Attacker") != "" {
		o.seen.Add(1)
	}
	now := o.now.Add(1)
	defer o.now.Add(-1)
	for was := o.most.Load(); now > was && !o.most.CompareAndSwap(was, now); was = o.most.Load() {
	}
	size := 1000
	switch {
	case r.Method == "POST":
		io.Copy(io.Discard, r.Body)
	case strings.HasPrefix(r.URL.Path, "/mine/"):
		size, _ = strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/mine/"))
		w.Header().Set("Cache-Control", "no-store")
	case strings.HasPrefix(r.URL.Path, "/films/"):
		size = 1 << 20
		fallthrough
	default:
		w.Header().Set("Cache-Control", "max-age=3600")
	}
	w.Header().Set("Content-Type", "video/mp4")
	w.Header().Set("Content-Length", strconv.Itoa(size))
	w.Write(make([]byte, size))
}

// process is a firstbell under attack.
type process struct {
	cmd  *exec.Cmd
	addr string
	to   *target
	ops  string
}

const config = `listen: {http: "%s", https: "%s", http3: "%s", ops: "%s"}
tls: {certificates: [{cert: %s, key: %s}]}
limits: {header: %s, grace: %s, idle: %s}
spool: {path: "%s/spool", size: 2GiB}
origins:
  lms: {servers: ["http://%s"], concurrency: {max: 8, queue: 10000, wait: 30s}}
cache: {memory: 64MiB}
log: {access: false}
routes:
  - {hosts: ["*"], path: /lessons/*, origin: lms, cache: {}}
  - {hosts: ["*"], path: /films/*, origin: lms, cache: {}}
  - {hosts: ["*"], origin: lms}
`

// freeAddress is one that nobody listens on at this moment; "" when there is none.
func freeAddress() string {
	address, err := ports.FreeAddress()
	if err != nil {
		return ""
	}
	return address
}

func startFirstbell(s *setting, dir, origin string) (*process, error) {
	binary := s.binary
	if binary == "" {
		binary = filepath.Join(dir, "firstbell")
		if out, err := exec.Command("go", "build", "-o", binary, "firstbell/cmd/firstbell").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building firstbell: %w\n%s", err, out)
		}
	}
	addr, secure, ops := freeAddress(), freeAddress(), freeAddress()
	cert, key, trust, err := certificate(dir)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "firstbell.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, addr, secure, secure, ops, cert, key, s.header, s.grace, s.idle, dir, origin), 0o600); err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(binary, "serve", "-config", file), addr: addr, ops: ops}
	p.to = &target{plain: addr, secure: secure, tls: &tls.Config{RootCAs: trust, ServerName: "school.example"}, turns: make(chan struct{}, 100)}
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for range 100 {
		if c, err := net.Dial("tcp", addr); err == nil {
			return p, c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.stop()
	return nil, fmt.Errorf("firstbell does not listen on %s", addr)
}

func (p *process) stop() {
	p.cmd.Process.Signal(os.Interrupt)
	ended := make(chan struct{})
	go func() { p.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		p.cmd.Process.Kill()
		<-ended
	}
}

// memory is what the process has resident, in bytes.
func (p *process) memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// profile keeps what the process says of its memory and its goroutines in dir.
func (p *process) profile(dir string) error {
	for _, what := range []string{"heap", "goroutine"} {
		for suffix, query := range map[string]string{".prof": "", ".txt": "?debug=1"} {
			res, err := http.Get("http://" + p.ops + "/debug/pprof/" + what + query)
			if err != nil {
				return err
			}
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, what+suffix), text, 0o600)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// certificate makes one that is good for the school, in files, and what trusts
// it.
func certificate(dir string) (cert, key string, trust *x509.CertPool, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "school.example"}, DNSNames: []string{"school.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return "", "", nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	trust = x509.NewCertPool()
	trust.AppendCertsFromPEM(text)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(
		os.WriteFile(cert, text, 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	)
	return cert, key, trust, err
}

// connections is how many firstbell says are open.
func (p *process) connections() (n int, err error) {
	res, err := http.Get("http://" + p.ops + "/metrics")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		for _, name := range []string{"firstbell_proxy_connections ", "firstbell_http3_connections "} {
			if value, ok := strings.CutPrefix(line, name); ok {
				one, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				if err != nil {
					return 0, err
				}
				n += int(one)
			}
		}
	}
	return n, nil
}
