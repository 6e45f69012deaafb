package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"firstbell/bench/ports"
	"firstbell/bench/raw/corpus"
)

// A peer is a proxy that can be started. Its configuration holds $LISTEN,
// $ORIGIN, $DIR and $USER; its command $FILE, too.
type peer struct {
	name, program string
	build         string // package to build it from; empty: it is installed
	file, config  string
	command       []string
	version       []string
}

// The peers do what firstbell does: HTTP/1.1 and kept-alive connections to the
// origin, Host as it came, forwarding fields set by themselves, nothing cached.
var peers = []peer{
	{
		name: "firstbell", program: "firstbell", build: "firstbell/cmd/firstbell",
		file: "firstbell.yaml", command: []string{"serve", "-config", "$FILE", "-access-log=false"},
		config: `listen: {http: "$LISTEN"}
origins:
  lms: {servers: ["http://$ORIGIN"]}
routes:
  - {hosts: ["*"], origin: lms}
`,
	},
	{
		name: "nginx", program: "nginx", version: []string{"-v"},
		file: "nginx.conf", command: []string{"-c", "$FILE", "-p", "$DIR"},
		config: `daemon off;
$USER
worker_processes 1;
pid $DIR/pid;
error_log $DIR/error.log crit;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path $DIR/body;
  proxy_temp_path $DIR/proxy;
  fastcgi_temp_path $DIR/fastcgi;
  uwsgi_temp_path $DIR/uwsgi;
  scgi_temp_path $DIR/scgi;
  upstream lms { server $ORIGIN max_fails=0; keepalive 64; }
  server {
    listen $LISTEN;
    location / {
      proxy_pass http://lms;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header Forwarded "";
      proxy_set_header Proxy "";
      proxy_request_buffering off;
    }
  }
}
`,
	},
	{
		name: "HAProxy", program: "haproxy", version: []string{"-v"},
		file: "haproxy.cfg", command: []string{"-db", "-f", "$FILE"},
		config: `defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
  option http-keep-alive
frontend web
  bind $LISTEN
  http-request del-header Forwarded
  http-request del-header X-Forwarded -m beg
  http-request del-header X-Real-IP
  http-request del-header Proxy
  option forwardfor
  default_backend lms
backend lms
  server lms $ORIGIN
`,
	},
	{
		name: "Caddy", program: "caddy", version: []string{"version"},
		file: "Caddyfile", command: []string{"run", "--config", "$FILE", "--adapter", "caddyfile"},
		config: `{
  admin off
  auto_https off
  storage file_system $DIR/storage
}
http://:$PORT {
  bind 127.0.0.1
  reverse_proxy $ORIGIN
}
`,
	},
}

// playPeers plays firstbell and every peer that is installed.
func (o *options) playPeers(ctx context.Context, cases []*corpus.Case, stderr io.Writer) ([]*result, error) {
	dir, err := os.MkdirTemp("", "raw")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is in a directory for such things
	var results []*result
	for _, p := range peers {
		program, err := p.find(ctx, dir)
		if err != nil && p.build == "" {
			fmt.Fprintf(stderr, "raw: %s is not installed and left out\n", p.name)
			continue
		}
		if err != nil {
			return nil, err
		}
		r, err := o.playPeer(ctx, &p, program, filepath.Join(dir, "for-"+p.name), cases)
		if err != nil {
			return nil, fmt.Errorf("playing %s: %w", p.name, err)
		}
		results = append(results, r)
	}
	return results, nil
}

// find returns the program's path, and builds it first if it is ours.
func (p *peer) find(ctx context.Context, dir string) (string, error) {
	if p.build != "" {
		path := filepath.Join(dir, p.program)
		out, err := exec.CommandContext(ctx, "go", "build", "-o", path, p.build).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("building %s: %w: %s", p.name, err, bytes.TrimSpace(out))
		}
		return path, nil
	}
	if path, err := exec.LookPath(p.program); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", p.program))
}

func (o *options) playPeer(ctx context.Context, p *peer, program, dir string, cases []*corpus.Case) (*result, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = origin.Close() }() // Play has closed it, unless it was not come to
	listen, err := ports.FreeAddress()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	_, port, _ := net.SplitHostPort(listen)
	file := filepath.Join(dir, p.file)
	fill := strings.NewReplacer("$LISTEN", listen, "$PORT", port, "$ORIGIN", origin.Addr().String(), "$DIR", dir, "$USER", user, "$FILE", file).Replace
	if err := os.WriteFile(file, []byte(fill(p.config)), 0o600); err != nil {
		return nil, err
	}
	args := make([]string, len(p.command))
	for i, a := range p.command {
		args[i] = fill(a)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "HOME="+dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()                          // how it ended is of no interest
	}()
	if err := waitFor(ctx, listen); err != nil {
		return nil, fmt.Errorf("%w; it says: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return o.play(ctx, p.name+p.versionText(program), listen, origin, cases)
}

// versionText is the version that the program names, with a blank before it.
func (p *peer) versionText(program string) string {
	if p.version == nil {
		return ""
	}
	out, err := exec.Command(program, p.version...).CombinedOutput()
	if err != nil {
		return ""
	}
	for word := range strings.FieldsSeq(strings.ReplaceAll(string(out), "/", " ")) {
		if word = strings.TrimPrefix(word, "v"); word[0] >= '0' && word[0] <= '9' {
			word, _, _ = strings.Cut(word, "-")
			return " " + word
		}
	}
	return ""
}

// waitFor returns once somebody listens at the address, within ten seconds.
func waitFor(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody listens at %s: %w", address, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
