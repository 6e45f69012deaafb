//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"
)

//go:embed peers
var configs embed.FS

// A peer is a proxy to measure, and how it is started. Its configuration is
// every file in peers/NAME.
type peer struct {
	name    string
	program string
	debian  string // the package that has it
	version []string
	args    func(s *site) []string
	env     func(s *site) []string
	prepare func(s *site) error
	reload  func(s *server) error // has it read its configuration again; nil: it cannot, as it is run here
	// upgrade has it be replaced by the program on disk; nil: that ends it first.
	upgrade func(ctx context.Context, program string, s *server) error
	keeps   bool // it has a cache
	// parks has what it spent on connections that it has put aside go back to the
	// system; nil: it puts none aside.
	parks   func(ctx context.Context, s *server) error
	tls     bool // it can be given a certificate
	h2, h3  bool
	sockets bool // it passes WebSockets on, as it is configured here
}

// ours is what everybody else is compared with.
const ours = "firstbell"

// peers are all that are known, firstbell first.
var peers = []*peer{
	{name: ours, version: []string{"version"}, keeps: true, parks: collect, sockets: true, tls: true, h2: true, h3: true,
		args: func(s *site) []string {
			return []string{"serve", "-config", s.Dir + "/firstbell.yaml", "-access-log=false"}
		}, reload: signalled(syscall.SIGHUP), upgrade: upgradeFirstbell},
	{name: "nginx", program: "nginx", debian: "nginx", version: []string{"-v"}, keeps: true, sockets: true, tls: true, h2: true,
		args: func(s *site) []string {
			return []string{"-p", s.Dir, "-e", "stderr", "-c", s.Dir + "/nginx.conf"}
		}, reload: signalled(syscall.SIGHUP), upgrade: upgradeNginx},
	{name: "haproxy", program: "haproxy", debian: "haproxy", version: []string{"-v"}, keeps: true, sockets: true, tls: true, h2: true,
		args: func(s *site) []string { return []string{"-W", "-f", s.Dir + "/haproxy.cfg"} }, reload: signalled(syscall.SIGUSR2), upgrade: upgradeHAProxy},
	// One pool of threads for the one CPU, enough of them for a herd.
	{name: "varnish", program: "varnishd", debian: "varnish", version: []string{"-V"}, keeps: true,
		args: func(s *site) []string {
			return []string{"-F", "-j", "none", "-n", s.Dir + "/work", "-a", s.Listen, "-f", s.Dir + "/default.vcl", "-s", "malloc,256m",
				"-p", "thread_pools=1", "-p", "thread_pool_min=500", "-p", "thread_pool_max=5000", "-p", "listen_depth=4096",
				"-p", "timeout_idle=300", "-p", "vsl_mask=-ReqHeader,-RespHeader,-BereqHeader,-BerespHeader,-Timestamp,-VCL_call,-VCL_return"}
		}, reload: commanded("reload.sh")},
	{name: "trafficserver", program: "traffic_server", debian: "trafficserver", version: []string{"--version"}, keeps: true, tls: true, h2: true,
		prepare: makeCache,
		args:    func(s *site) []string { return []string{"--run-root=" + s.Dir + "/runroot.yaml"} }},
	// Its shared memory has the name of the service.
	{name: "squid", program: "squid", debian: "squid", version: []string{"-v"}, keeps: true, prepare: giveToProxy,
		args: func(s *site) []string {
			return []string{"-N", "-n", fmt.Sprintf("compare%d", os.Getpid()), "-f", s.Dir + "/squid.conf"}
		}},
	{name: "caddy", program: "caddy", debian: "caddy", version: []string{"version"}, sockets: true, tls: true, h2: true, h3: true,
		args: func(s *site) []string {
			return []string{"run", "--config", s.Dir + "/Caddyfile", "--adapter", "caddyfile"}
		},
		env: func(s *site) []string {
			return []string{"HOME=" + s.Dir, "XDG_DATA_HOME=" + s.Dir, "XDG_CONFIG_HOME=" + s.Dir}
		}},
	{name: "h2o", program: "h2o", debian: "h2o", version: []string{"--version"}, sockets: true, tls: true, h2: true,
		args: func(s *site) []string { return []string{"-c", s.Dir + "/h2o.conf"} }},
}

func signalled(sig syscall.Signal) func(*server) error {
	return func(s *server) error { return s.cmd.Process.Signal(sig) }
}

// commanded runs a script that is beside the configuration.
func commanded(script string) func(*server) error {
	return func(s *server) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if out, err := exec.CommandContext(ctx, "sh", filepath.Join(s.site.Dir, script)).CombinedOutput(); err != nil {
			return fmt.Errorf("having %s reload: %w\n%s", s.name, err, out)
		}
		return nil
	}
}

// find returns the path of the peer's program; empty when it is not installed.
func (p *peer) find() string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		if file, err := exec.LookPath(filepath.Join(dir, p.program)); err == nil {
			return file
		}
	}
	return ""
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)*`)

// release is the version that the program says it has.
func (p *peer) release(program string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, program, p.version...).CombinedOutput()
	if v := versionNumber.Find(out); v != nil {
		return string(v)
	}
	return "unknown"
}

// A site is where one peer runs, in the words of its configuration.
type site struct {
	Dir         string
	Listen, TLS string // host:port; TLS is empty where the peer has none
	Ops         string // firstbell's
	Origin      string
	Cert, Key   string
	Pem         string   // both in one file
	Postgres    string   // firstbell's store; empty: SQLite
	Private     bool     // users' cookies matter: they are neither ignored nor removed, and what is kept is in memory
	Memory      string   // of firstbell's cache
	Hosts       []string // that firstbell has a route of their own for
	Root        bool     // this process is root: some programs would become another user
	Connections int      // at most so many
	Files       int      // open files
	Replaced    bool     // another process will take its place
}

// hostOf and portOf take addresses apart for the templates.
func hostOf(addr string) string { host, _, _ := net.SplitHostPort(addr); return host }
func portOf(addr string) string { _, port, _ := net.SplitHostPort(addr); return port }

// ListenHost, ListenPort, TLSPort, OriginHost and OriginPort are parts of addresses.
func (s *site) ListenHost() string { return hostOf(s.Listen) }
func (s *site) ListenPort() string { return portOf(s.Listen) }
func (s *site) TLSPort() string    { return portOf(s.TLS) }
func (s *site) OriginHost() string { return hostOf(s.Origin) }
func (s *site) OriginPort() string { return portOf(s.Origin) }

// render writes the peer's configuration for the site into its directory.
func (p *peer) render(s *site) error {
	names, err := fs.Glob(configs, "peers/"+p.name+"/*")
	if err != nil {
		return err
	}
	for _, name := range names {
		t, err := template.ParseFS(configs, name)
		if err != nil {
			return fmt.Errorf("reading the configuration of %s: %w", p.name, err)
		}
		var out bytes.Buffer
		if err := t.Execute(&out, s); err != nil {
			return fmt.Errorf("filling in %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir, path.Base(name)), out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeCache makes the directory that Traffic Server's cache is in.
func makeCache(s *site) error { return os.MkdirAll(s.Dir+"/cache", 0o755) }

// giveToProxy gives the site's directory to the user that Squid becomes when
// root starts it.
func giveToProxy(s *site) error {
	if !s.Root {
		return nil
	}
	u, err := user.Lookup("proxy")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return errors.Join(os.Chmod(filepath.Dir(s.Dir), 0o711), os.Chown(s.Dir, uid, gid))
}

// A server is a peer that runs, or a floor.
type server struct {
	*peer
	site    *site
	release string
	cmd     *exec.Cmd
	ended   chan struct{} // closed when the process has ended
	why     error         // of its end; set before ended is closed
	said    *tail
}

// tail keeps the last of what a process says, for the one who asks why it ended.
type tail struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-4096):]
	return len(p), nil
}

// String is what was said last.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}

// launch starts a program on the servers' CPU.
func launch(h halves, program string, args, env []string, stdout io.Writer) (*server, error) {
	return launchAs(h, nil, program, args, env, stdout)
}

// launchAs is launch as another user; nil is this one.
func launchAs(h halves, as *syscall.Credential, program string, args, env []string, stdout io.Writer) (*server, error) {
	s := &server{ended: make(chan struct{}), said: new(tail)}
	s.cmd = exec.Command(program, args...)
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.Stdout, s.cmd.Stderr = s.said, s.said
	if stdout != nil {
		s.cmd.Stdout = stdout
	}
	// A group of its own, so that Ctrl-C reaches only this process, which ends
	// them in order; and if this process is killed, the kernel ends the server.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM, Credential: as}
	if err := h.onServersCPU(s.cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	go func() { s.why = s.cmd.Wait(); close(s.ended) }()
	return s, nil
}

// start starts the peer at the site and returns when an answer of the origin
// comes through it.
func (p *peer) start(ctx context.Context, h halves, program string, at *site) (*server, error) {
	err := p.render(at)
	if err != nil {
		return nil, err
	}
	if p.prepare != nil {
		if err := p.prepare(at); err != nil {
			return nil, fmt.Errorf("preparing %s: %w", p.name, err)
		}
	}
	var env []string
	if p.env != nil {
		env = p.env(at)
	}
	args := p.args(at)
	if at.Replaced {
		if program, args, err = kept(program, args); err != nil {
			return nil, err
		}
	}
	s, err := launch(h, program, args, env, nil)
	if err != nil {
		return nil, err
	}
	s.peer, s.site = p, at
	if err := s.ready(ctx); err != nil {
		s.stop()
		return nil, fmt.Errorf("%s: %w; it said:\n%s", p.name, err, s.said)
	}
	return s, nil
}

// readyMax is how long a peer may take to start: the slowest, Traffic Server,
// needs 3 s on a busy machine.
const readyMax = 20 * time.Second

func (s *server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.site.Listen+"/page/ready", nil)
		if err != nil {
			return err
		}
		req.Host, req.Close = host, true
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == 200 {
				return nil
			}
			err = fmt.Errorf("status %d", res.StatusCode)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for an answer through it: %w", err)
		case <-s.ended:
			return fmt.Errorf("it ended: %v", s.why)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends the server and all below it: politely, after 5 s by force.
func (s *server) stop() {
	pids := family(s.cmd.Process.Pid)
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-s.ended:
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	// The group was made for this server alone.
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	for _, pid := range pids[1:] {
		if stillOf(pid, pids) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// stillOf reports whether pid still is a process of the family it was in: ended
// processes' numbers are given to others.
func stillOf(pid int, pids []int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, p := range pids {
		if len(f) > 2 && f[2] == fmt.Sprint(p) { // its process group
			return true
		}
	}
	return false
}

// usage looks the family up and reads what it has used so far.
func (s *server) usage() (usage, error) {
	select {
	case <-s.ended:
		return nil, fmt.Errorf("%s has ended (%v) and said:\n%s", s.name, s.why, s.said)
	default:
		return used(family(s.cmd.Process.Pid)), nil
	}
}

// memory is what the server's processes have of the machine's memory.
func (s *server) memory() int64 { return memory(family(s.cmd.Process.Pid)) }

// certify writes a certificate for the host, its key, and both in one file.
func certify(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
	return errors.Join(
		os.WriteFile(dir+"/cert.pem", cert, 0o600), os.WriteFile(dir+"/key.pem", private, 0o600),
		os.WriteFile(dir+"/both.pem", append(cert, private...), 0o600))
}
