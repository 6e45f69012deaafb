package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"firstbell/bench/ports"
)

// pebble is the CA that Let's Encrypt tests clients with, in a process of its
// own, which finds every name at this machine.
type pebble struct {
	directory string
	roots     *x509.CertPool // of its directory
	dir       string
}

// here is a store behind a listener for each challenge, as firstbell has it.
type here struct {
	web, secure net.Listener
	serving     atomic.Pointer[Store]
	known       sync.Map // hosts of routes

	log lines
}

// lines are what was logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func listenHere(t *testing.T) *here {
	t.Helper()
	h := &here{}
	for _, ln := range []*net.Listener{&h.web, &h.secure} {
		var err error
		if *ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	plain := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := strings.Cut(r.Host, ":")
		if text, ok := h.serving.Load().AnswerChallenge(host, r.URL.Path); ok {
			w.Write(text)
			return
		}
		http.NotFound(w, r)
	})}
	go plain.Serve(h.web)
	go func() {
		for {
			nc, err := h.secure.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(time.Minute))
				c := tls.Server(nc, h.serving.Load().Config("http/1.1"))
				if c.Handshake() == nil {
					io.Copy(io.Discard, c)
				}
			}()
		}
	}()
	t.Cleanup(func() { plain.Close(); h.secure.Close() })
	return h
}

// open starts a store that gets certificates for names from directory; stop ends
// it.
func (h *here) open(t *testing.T, p *pebble, a ACME, names ...string) (s *Store, stop func()) {
	t.Helper()
	a.Email, a.Roots = "ops@city.example", p.roots
	if a.Directory == "" {
		a.Directory = p.directory
	}
	if a.Storage == "" {
		a.Storage = t.TempDir()
	}
	a.Limits = Limits{OrdersPerHour: 10_000, NewPerDomain: 10_000, AtOnce: 32}
	for _, name := range names {
		h.known.Store(name, true)
	}
	s, err := New(Options{ACME: &a, Log: slog.New(slog.NewTextHandler(&h.log, nil)),
		Serves: func(host string) bool { _, ok := h.known.Load(host); return ok }})
	if err != nil {
		t.Fatal(err)
	}
	h.serving.Store(s)
	s.Want(t.Context(), names)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done; s.Close() })
	t.Cleanup(stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%+v\n%s", *s.ACME(), &h.log)
		}
	})
	return s, stop
}

// startPebble runs pebble, which verifies names at h, with more in its
// environment.
func startPebble(t *testing.T, h *here, more ...string) *pebble {
	t.Helper()
	binary, err := exec.LookPath("pebble")
	if err != nil && os.Getenv("FIRSTBELL_REQUIRE_SERVICES") == "1" {
		t.Fatalf("pebble is required: go build github.com/letsencrypt/pebble/v2/cmd/pebble, on the PATH: %v", err)
	} else if err != nil {
		t.Skip("pebble is not on the PATH: left out is getting certificates from a CA")
	}
	p := &pebble{dir: t.TempDir(), roots: x509.NewCertPool()}
	pair := write(t, p.dir, "directory", longAgo, farOff, "localhost")
	text, _ := os.ReadFile(pair.Cert)
	p.roots.AppendCertsFromPEM(text)
	ports := [2]string{freePort(t), freePort(t)}
	conf, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": "127.0.0.1:" + ports[0], "managementListenAddress": "127.0.0.1:" + ports[1],
		"certificate": pair.Cert, "privateKey": pair.Key,
		"httpPort": h.web.Addr().(*net.TCPAddr).Port, "tlsPort": h.secure.Addr().(*net.TCPAddr).Port,
		"externalAccountBindingRequired": false,
		"externalAccountMACKeys":         map[string]string{"kid": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(p.dir, "pebble.json"), conf)
	cmd := exec.Command(binary, "-config", filepath.Join(p.dir, "pebble.json"), "-dnsserver", startDNS(t))
	cmd.Env = append(append(os.Environ(), "PEBBLE_VA_NOSLEEP=1"), more...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill(); <-exited })
	p.directory = "https://localhost:" + ports[0] + "/dir"
	eventually(t, "pebble listens", func() bool {
		nc, err := net.Dial("tcp", "127.0.0.1:"+ports[0])
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
	return p
}

func freePort(t *testing.T) string {
	t.Helper()
	port, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

// startDNS answers every question for an address with this machine's, but for
// names below nowhere.example, which there are none of.
func startDNS(t *testing.T) string {
	t.Helper()
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		switch name := q.Question[0].Name; {
		case strings.HasSuffix(name, "nowhere.example."):
			m.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)})
		}
		w.WriteMsg(m)
	})
	tcp, err := net.Listen("tcp", "127.0.0.1:"+freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: tcp, Handler: answer}, {PacketConn: udp, Handler: answer}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return udp.LocalAddr().String()
}

// eventually waits until what happens elsewhere has happened.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if happened() {
			return
		}
	}
	t.Fatalf("after two minutes it is not so that %s", what)
}

func missing(s *Store) int { return s.ACME().Missing }

// TestHundredsOfNamesGetCertificatesFromACAThatFails a tenth of all requests, and
// find them on disk after a restart, with the CA gone.
func TestHundredsOfNamesGetCertificatesFromACAThatFails(t *testing.T) {
	h := listenHere(t)
	p := startPebble(t, h, "PEBBLE_WFE_NONCEREJECT=10", "PEBBLE_AUTHZREUSE=0")
	names := schools(300, "city.example")
	if testing.Short() || raceEnabled {
		names = names[:60] // as much is shown, in a fifth of the time
	}
	disk := t.TempDir()
	s, stop := h.open(t, p, ACME{Storage: disk, HTTP: h.web.Addr().String(), TLS: h.secure.Addr().String()}, names...)
	eventually(t, "all names have certificates", func() bool { return missing(s) == 0 })
	for _, name := range []string{names[0], names[len(names)-1]} {
		if got := shown(s, name); got != name {
			t.Errorf("%s is shown the certificate of %s", name, got)
		}
	}
	if st := s.ACME(); int(st.Ordered) != len(names) || st.Failing != 0 {
		t.Errorf("got %+v", st)
	}
	stop()
	again, _ := h.open(t, p, ACME{Storage: disk, Directory: p.directory, HTTP: h.web.Addr().String()}, names...)
	if st := again.ACME(); st.Missing != 0 || st.Ordered != 0 {
		t.Errorf("after a restart: got %+v, want everything from disk", st)
	}
}

func TestEachChallengeIsEnoughByItself(t *testing.T) {
	h := listenHere(t)
	p := startPebble(t, h, "PEBBLE_WFE_NONCEREJECT=0")
	for name, a := range map[string]ACME{
		"http.example":    {HTTP: h.web.Addr().String()},
		"alpn.example":    {TLS: h.secure.Addr().String()},
		"account.example": {HTTP: h.web.Addr().String(), KeyID: "kid", MACKey: "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"},
	} {
		s, stop := h.open(t, p, a, name)
		eventually(t, name+" has a certificate", func() bool { return missing(s) == 0 })
		stop()
	}
}

// TestOnlyWhatIsWantedIsAskedFor and a name that cannot be verified is told, and
// holds up nobody.
func TestOnlyWhatIsWantedIsAskedFor(t *testing.T) {
	h := listenHere(t)
	p := startPebble(t, h, "PEBBLE_WFE_NONCEREJECT=0")
	pair := write(t, t.TempDir(), "file", longAgo, farOff, "file.example")
	s, _ := h.open(t, p, ACME{HTTP: h.web.Addr().String()}, "school.example", "gone.nowhere.example")
	if err := s.Load([]Pair{pair}); err != nil {
		t.Fatal(err)
	}
	s.Want(t.Context(), []string{"school.example", "gone.nowhere.example", "file.example", "*.school.example"})
	if st := s.ACME(); st.Wanted != 2 {
		t.Errorf("got %+v, want no order for what has a file, nor for wildcards", st)
	}
	eventually(t, "one is there and one has failed", func() bool { return missing(s) == 1 && s.ACME().Failing == 1 })
	all, problems := s.ToLookAt()
	if problems != 1 || all[0].Names[0] != "gone.nowhere.example" || !strings.Contains(all[0].Problem, "could not resolve") {
		t.Errorf("got %+v, want the name and the CA's reason first", all[0])
	}
	if st := s.ACME(); st.Paused != "" {
		t.Errorf("got %+v, want no pause for one name's fault", st)
	}
	c, err := tls.Dial("tcp", h.secure.Addr().String(), &tls.Config{ServerName: "stranger.example", InsecureSkipVerify: true})
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a name of nobody's: got %v, %v", c, err)
	}
	if text, ok := s.AnswerChallenge("school.example", "/.well-known/acme-challenge/made-up"); ok {
		t.Errorf("a challenge that nobody set was answered with %q", text)
	}
}

// TestACertificateStoreThatIsFullIsToldAndCostsNobody: what is there is shown on.
func TestACertificateStoreThatIsFullIsToldAndCostsNobody(t *testing.T) {
	h := listenHere(t)
	p := startPebble(t, h, "PEBBLE_WFE_NONCEREJECT=0")
	disk := t.TempDir()
	s, stop := h.open(t, p, ACME{Storage: disk, HTTP: h.web.Addr().String()}, "first.example")
	eventually(t, "the first has a certificate", func() bool { return missing(s) == 0 })
	stop()
	full := fill(t, disk)
	s, _ = h.open(t, p, ACME{Storage: full, HTTP: h.web.Addr().String()}, "first.example", "second.example")
	eventually(t, "it is paused", func() bool { return s.ACME().Paused != "" })
	st := s.ACME()
	if shown(s, "first.example") != "first.example" || st.Missing != 1 || !strings.Contains(st.Paused, "lock") {
		t.Errorf("got %+v, want the first shown and the reason told", st)
	}
	if !strings.Contains(h.log.String(), "no certificates are got for now") {
		t.Error("the log does not say so")
	}
}

// fill returns a copy of dir on which nothing more can be written: to root
// no permission is denied, so that a file stands where a directory must be made.
func fill(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "full")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(to, "locks")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(to, "locks"), []byte("in the way"))
	return to
}

// TestARudeCAIsToldApartAndAskedSeldom: it answers garbage, an error, half,
// without end, or nothing at all.
func TestARudeCAIsToldApartAndAskedSeldom(t *testing.T) {
	h := listenHere(t)
	pair := write(t, t.TempDir(), "rude", longAgo, farOff, "localhost")
	c, err := ReadPair(pair)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.Leaf)
	hang := make(chan struct{})
	var poured atomic.Int64
	answers := map[string]http.HandlerFunc{
		"/garbage": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") },
		"/error":   func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", 500) },
		"/cut":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"/endless": func(w http.ResponseWriter, r *http.Request) { poured.Add(pour(w)) },
		"/endless-error": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			poured.Add(pour(w))
		},
		"/large": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1099511627776")
			poured.Add(pour(w))
		},
		"/many-fields": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Replay-Nonce", strings.Repeat("x", 1<<20))
		},
		"/hangs": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		},
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answers[r.URL.Path](w, r) }), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*c}})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(ln)
	t.Cleanup(func() { close(hang); srv.Close() })
	for path := range answers {
		p := &pebble{directory: fmt.Sprintf("https://localhost:%d%s", ln.Addr().(*net.TCPAddr).Port, path), roots: roots}
		s, stop := h.open(t, p, ACME{HTTP: h.web.Addr().String()}, "school.example")
		if path == "/hangs" {
			eventually(t, "an order is under way", func() bool { return s.ACME().Now == 1 })
			stop() // ends it at once
			continue
		}
		eventually(t, path+" pauses", func() bool { return s.ACME().Paused != "" })
		if st := s.ACME(); st.Missing != 1 || st.Ordered != 0 {
			t.Errorf("%s: got %+v", path, st)
		}
		stop()
	}
	// Asked three times for each at most, and what sockets hold beside that.
	if got := poured.Load(); got < answerBytesMax || got > 100*answerBytesMax {
		t.Errorf("an endless CA got rid of %d bytes, want a few times %d", got, answerBytesMax)
	}
}

// pour writes until nobody reads, 4 GiB at most, and returns how much.
func pour(w io.Writer) (n int64) {
	piece := bytes.Repeat([]byte(" "), 64<<10)
	for n < 4<<30 {
		m, err := w.Write(piece)
		if n += int64(m); err != nil {
			break
		}
	}
	return n
}
