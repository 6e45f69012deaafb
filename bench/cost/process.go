package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	_ "modernc.org/sqlite" // to lock firstbell's store as another program would
)

// process is a server under measurement.
type process struct {
	cmd  *exec.Cmd
	addr string
	ops  string // of firstbell
}

// status is the part of firstbell's GET /status that is looked at.
type status struct {
	Attendance struct {
		Journal struct{ Next uint64 }
		Store   struct {
			Statements uint64
			Delivery   struct{ Next, Rows uint64 }
		}
	}
}

func (p *process) status() (st status, err error) {
	res, err := http.Get("http://" + p.ops + "/status")
	if err != nil {
		return st, err
	}
	defer res.Body.Close()
	return st, json.NewDecoder(res.Body).Decode(&st)
}

// lockStore keeps firstbell from writing to its store until release is called.
func lockStore(dir string) (release func() error, err error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "attendance.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return func() error {
		_, err := db.Exec("ROLLBACK")
		return errors.Join(err, db.Close())
	}, nil
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

// cpu is the CPU time that the process has used, user and system.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// Fields 14 and 15, counted behind the command's closing parenthesis, in
	// clock ticks, which are 10 ms on every Linux (proc(5), sysconf(3)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// start runs a command whose first line of output is the address it listens on,
// unless addr says so.
func start(cmd *exec.Cmd, addr string) (*process, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, addr: addr}
	if addr == "" {
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			p.stop()
			return nil, fmt.Errorf("waiting for %s: %w", cmd.Path, err)
		}
		p.addr = strings.TrimSpace(line)
	}
	return p, nil
}

// config is a firstbell that caches lessons and takes check-ins, with nothing
// that works in the background but its journal and store.
const config = `listen: {http: "%s", ops: "%s"}
timezone: Etc/UTC
timetable:
  days: [mon, tue, wed, thu, fri, sat, sun]
  periods: [{name: "1", starts: "00:00", ends: "24:00"}]
origins:
  lms: {servers: ["http://%s"]}
cache: {memory: 64MiB}
attendance:
  journal: %s/journal
  store: sqlite:%s/attendance.db
routes:
  - hosts: ["*"]
    methods: [POST]
    path: /attendance/check-in
    identity: none
    check_in: {student: "json:/student_id", class: "json:/class_id"}
  - {hosts: ["*"], origin: lms, cache: {anonymous: true}}
`

func startFirstbell(binary, dir, origin string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	ops, err := freeAddr()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "firstbell.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, addr, ops, origin, dir, dir), 0o600); err != nil {
		return nil, err
	}
	p, err := start(exec.Command(binary, "serve", "-config", file, "-access-log=false"), addr)
	if err != nil {
		return nil, err
	}
	p.ops = ops
	for range 100 {
		if res, err := http.Get("http://" + ops + "/readyz"); err == nil {
			res.Body.Close()
			if res.StatusCode == 200 {
				return p, nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.stop()
	return nil, fmt.Errorf("firstbell was not ready after 10 s")
}

// nginxConfig is an nginx that caches as well as it can, in one process.
const nginxConfig = `daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr crit;
events { worker_connections 8192; }
http {
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000;
  client_body_temp_path %[1]s/n1; proxy_temp_path %[1]s/n2; fastcgi_temp_path %[1]s/n3; uwsgi_temp_path %[1]s/n4; scgi_temp_path %[1]s/n5;
  proxy_cache_path %[1]s/nginx levels=1:2 keys_zone=z:10m max_size=1g inactive=1h use_temp_path=off;
  open_file_cache max=1000 inactive=60s; gzip on; gzip_min_length 2000; gzip_proxied any;
  upstream lms { server %[3]s; keepalive 256; }
  server {
    listen %[2]s;
    location / { proxy_pass http://lms; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache z; proxy_cache_key $uri; }
  }
}
`

// startNginx starts nginx where it is installed; nil where it is not.
func startNginx(dir, origin string) (*process, error) {
	binary, err := exec.LookPath("nginx")
	if err != nil {
		if binary, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			return nil, nil
		}
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxConfig, dir, addr, origin), 0o600); err != nil {
		return nil, err
	}
	p, err := start(exec.Command(binary, "-c", file, "-p", dir), addr)
	if err != nil {
		return nil, err
	}
	for range 100 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return p, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.stop()
	return nil, fmt.Errorf("nginx does not listen on %s", addr)
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// serveBare answers every request with the answer in the file.
func serveBare(file string) error {
	answer, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, body, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	var fields [][2]string
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok && name != "Content-Length" {
			fields = append(fields, [2]string{name, value})
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	srv := &fasthttp.Server{NoDefaultDate: true, NoDefaultServerHeader: true, NoDefaultContentType: true,
		Handler: func(ctx *fasthttp.RequestCtx) {
			for _, f := range fields {
				ctx.Response.Header.Set(f[0], f[1])
			}
			ctx.Response.SetBodyRaw(body)
		}}
	return srv.Serve(ln)
}
